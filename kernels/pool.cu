/* The CUDA form of pool.c: pooling over time and the fusion of scales, each with its gradient. A warp takes a row; sums
 * over time are kept in floats by each lane, for a few columns, and added up in double. */
#include "kernels/cuda_kernels.h"
#include "kernels/temporal_cuda.h"

/* The columns of a clip that are pooled: [first, end). Side 1, which runs backwards, holds the clip's real frames at
 * its end. */
typedef struct {
  int first, end;
} pool_range;

static __device__ inline pool_range range_of(const int64_t *lengths, int b, int side, const cuda_dims &d) {
  int64_t given = lengths ? lengths[b] : d.t;
  int length = given > d.t ? d.t : given > 0 ? (int)given : 0;
  pool_range range = {side ? d.t - length : 0, side ? d.t : length};
  return range;
}

static __device__ inline float keep_range(float x, int t, pool_range range) {
  return t >= range.first && t < range.end ? x : 0;
}

static __global__ void pool_forward_kernel(float *pooled, ser_activation x, const int64_t *lengths, cuda_dims d) {
  int at = (int)(blockIdx.x * CUDA_ROWS + threadIdx.y), b = at / d.cp, c = at - b * d.cp;
  if (at >= d.batch * d.cp) return;
  double mean = 0;
  for (int side = 0; side < d.sides; side++) {
    pool_range range = range_of(lengths, b, side, d);
    cuda_act row = cuda_act_of(x, cuda_row_of(side, b, c, d), d);
    float sum = 0;
    for (int t = range.first / 4 * 4 + 4 * (int)threadIdx.x; t < range.end; t += 4 * CUDA_WARP) {
      float4 v = cuda_act_four(row, t, d);
      sum += keep_range(v.x, t, range) + keep_range(v.y, t + 1, range) + keep_range(v.z, t + 2, range) +
             keep_range(v.w, t + 3, range);
    }
    double whole = cuda_warp_sum((double)sum);
    if (range.end > range.first) mean += whole / (double)(range.end - range.first);
  }
  if (threadIdx.x == 0) pooled[at] = (float)mean;
}

void cuda_pool_forward(ser_stream *stream, float *pooled, const ser_activation *x, const int64_t *lengths,
                       const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  CUDA_LAUNCH(stream, pool_forward_kernel, cuda_blocks(d.batch * d.cp, CUDA_ROWS), dim3(CUDA_WARP, CUDA_ROWS), 0,
              pooled, *x, lengths, d);
}

static __global__ void pool_backward_kernel(float *out, const float *dpooled, const int64_t *lengths, bool add,
                                            cuda_dims d) {
  int at = (int)(blockIdx.x * CUDA_ROWS + threadIdx.y);
  if (at >= d.sides * d.batch * d.cp) return;
  cuda_row row = cuda_row_at(at, d);
  pool_range range = range_of(lengths, row.b, row.side, d);
  float share = range.end > range.first ? 1 / (float)(range.end - range.first) : 0;
  float value = dpooled[row.b * d.cp + row.c] * share;
  out += (int64_t)at * d.tp;
  for (int t = 4 * (int)threadIdx.x; t < d.tp; t += 4 * CUDA_WARP) {
    float4 spread = make_float4(keep_range(value, t, range), keep_range(value, t + 1, range),
                                keep_range(value, t + 2, range), keep_range(value, t + 3, range));
    if (add) {
      float4 before = *(float4 *)(out + t);
      spread = make_float4(before.x + spread.x, before.y + spread.y, before.z + spread.z, before.w + spread.w);
    }
    *(float4 *)(out + t) = spread;
  }
}

void cuda_pool_backward(ser_stream *stream, float *d, const float *dpooled, const int64_t *lengths, bool add,
                        const ser_tensor_shape *shape) {
  cuda_dims dims = cuda_dims_of(shape);
  CUDA_LAUNCH(stream, pool_backward_kernel, cuda_blocks(dims.sides * dims.batch * dims.cp, CUDA_ROWS),
              dim3(CUDA_WARP, CUDA_ROWS), 0, d, dpooled, lengths, add, dims);
}

/* ---- the fusion of scales: n = B * Cp entries, scales few ---- */

enum { MIX_THREADS = 128, MIX_SUM_THREADS = 512 };

static __global__ void scale_mix_forward_kernel(float *out, const float *scales, const float *w, int count, int n) {
  int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  double sum = 0;
  for (int s = 0; s < count; s++) sum += (double)w[s] * (double)scales[(int64_t)s * n + i];
  out[i] = (float)sum;
}

void cuda_scale_mix_forward(ser_stream *stream, float *out, const float *scales, const float *w, int64_t count,
                            const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  CUDA_LAUNCH(stream, scale_mix_forward_kernel, cuda_blocks(d.batch * d.cp, MIX_THREADS), MIX_THREADS, 0, out, scales,
              w, (int)count, d.batch * d.cp);
}

/* A block does one scale: its dscales, and the sum that is its dw. */
static __global__ void scale_mix_backward_kernel(float *dscales, float *dw, const float *dout, const float *scales,
                                                 const float *w, int n) {
  __shared__ double room[CUDA_WARP];
  int64_t first = (int64_t)blockIdx.x * n;
  double sum = 0;
  for (int i = (int)threadIdx.x; i < n; i += MIX_SUM_THREADS) {
    float g = dout[i];
    sum += (double)g * (double)scales[first + i];
    dscales[first + i] = w[blockIdx.x] * g;
  }
  sum = cuda_block_sum(sum, room);
  if (threadIdx.x == 0) dw[blockIdx.x] = (float)sum;
}

void cuda_scale_mix_backward(ser_stream *stream, float *dscales, float *dw, const float *dout, const float *scales,
                             const float *w, int64_t count, const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  CUDA_LAUNCH(stream, scale_mix_backward_kernel, (unsigned)count, MIX_SUM_THREADS, 0, dscales, dw, dout, scales, w,
              d.batch * d.cp);
}
