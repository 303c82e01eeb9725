/* Pooling over time (of all columns or of a clip's real frames) and the fusion of scales, each with its gradient. */
#include "kernels/temporal_cuda.h"

/* The columns of a clip that are pooled: [first, end). Side 1, which runs backwards, holds the clip's real frames at
 * its end. */
typedef struct {
  int first, end;
} pool_range;

static __device__ inline pool_range range_of(const int64_t *lengths, int b, int time, int side) {
  int length = !lengths || lengths[b] > time ? time : lengths[b] > 0 ? (int)lengths[b] : 0;
  pool_range range = {side ? time - length : 0, side ? time : length};
  return range;
}

/* A warp a clip and channel, over all sides. */
static __global__ void pool_forward_kernel(float *pooled, ser_activation x, const int64_t *lengths, cuda_dims d) {
  int64_t out = cuda_row();
  if (out >= (int64_t)d.b * d.cp) return;
  int b = (int)(out / d.cp), c = (int)(out % d.cp);
  double total = 0;
  for (int side = 0; side < d.sides; side++) {
    int64_t row = ((int64_t)side * d.b + b) * d.cp + c;
    cuda_place at = {side, b, c};
    cuda_act_row r = cuda_act_row_of(&x, row, at, &d);
    pool_range range = range_of(lengths, b, d.t, side);
    float sum = 0;
    for (int t = range.first + (int)threadIdx.x; t < range.end; t += WARP) sum += cuda_act(&r, r.x[t]);
    double all = cuda_warp_sum((double)sum);
    if (range.end > range.first) total += all / (double)(range.end - range.first);
  }
  if (threadIdx.x == 0) pooled[out] = (float)total;
}

extern "C" void cuda_pool_forward(ser_stream *stream, float *pooled, const ser_activation *x, const int64_t *lengths,
                                  const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  CUDA_LAUNCH(stream, pool_forward_kernel, cuda_row_blocks((int64_t)d.b * d.cp), cuda_row_block(), 0, pooled, *x,
              lengths, d);
}

static __global__ void pool_backward_kernel(float *out, const float *dpooled, const int64_t *lengths, bool add,
                                            cuda_dims d) {
  int64_t row = cuda_row();
  if (row >= cuda_rows(&d)) return;
  cuda_place at = cuda_place_of(row, &d);
  pool_range range = range_of(lengths, at.b, d.t, at.side);
  float share = range.end > range.first ? 1 / (float)(range.end - range.first) : 0;
  float value = dpooled[(int64_t)at.b * d.cp + at.c] * share;
  float *to = out + row * d.tp;
  for (int t = (int)threadIdx.x; t < d.tp; t += WARP) {
    float spread = t >= range.first && t < range.end ? value : 0;
    to[t] = add ? to[t] + spread : spread;
  }
}

extern "C" void cuda_pool_backward(ser_stream *stream, float *out, const float *dpooled, const int64_t *lengths,
                                   bool add, const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  CUDA_LAUNCH(stream, pool_backward_kernel, cuda_row_blocks(cuda_rows(&d)), cuda_row_block(), 0, out, dpooled, lengths,
              add, d);
}

/* ---- fusion of scales -------------------------------------------------------------------------------------------- */

enum { MIX_THREADS = 256 };

static __global__ void scale_mix_forward_kernel(float *out, const float *scales, const float *w, int count, int n) {
  int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  double sum = 0;
  for (int s = 0; s < count; s++) sum += (double)w[s] * (double)scales[(int64_t)s * n + i];
  out[i] = (float)sum;
}

extern "C" void cuda_scale_mix_forward(ser_stream *stream, float *out, const float *scales, const float *w,
                                       int64_t count, const ser_tensor_shape *shape) {
  int n = (int)(shape->batch * SER_ROUND_UP(shape->channels, SER_CHANNEL_PAD));
  CUDA_LAUNCH(stream, scale_mix_forward_kernel, cuda_blocks(n, MIX_THREADS), MIX_THREADS, 0, out, scales, w, (int)count,
              n);
}

/* A block a scale: its dscales, and dw as the sum of the threads' sums, by halves. */
static __global__ void scale_mix_backward_kernel(float *dscales, float *dw, const float *dout, const float *scales,
                                                 const float *w, int n) {
  __shared__ double sums[MIX_THREADS];
  int s = (int)blockIdx.x;
  float weight = w[s];
  double sum = 0;
  for (int i = (int)threadIdx.x; i < n; i += MIX_THREADS) {
    sum += (double)dout[i] * (double)scales[(int64_t)s * n + i];
    dscales[(int64_t)s * n + i] = weight * dout[i];
  }
  sums[threadIdx.x] = sum;
  for (int half = MIX_THREADS / 2; half; half /= 2) {
    __syncthreads();
    if ((int)threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) dw[s] = (float)sums[0];
}

extern "C" void cuda_scale_mix_backward(ser_stream *stream, float *dscales, float *dw, const float *dout,
                                        const float *scales, const float *w, int64_t count,
                                        const ser_tensor_shape *shape) {
  int n = (int)(shape->batch * SER_ROUND_UP(shape->channels, SER_CHANNEL_PAD));
  CUDA_LAUNCH(stream, scale_mix_backward_kernel, (unsigned)count, MIX_THREADS, 0, dscales, dw, dout, scales, w, n);
}
