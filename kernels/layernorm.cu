/* The CUDA form of layernorm.c: layer norm of rows (torch.nn.LayerNorm) and pooling of rows over the frames of a clip.
 */
#include "kernels/cuda_kernels.h"
#include "kernels/rows_cuda.h"

/* ---- layer norm: a warp takes a row, four channels a lane, the next 128 channels behind them ---- */

typedef struct {
  const float *gamma, *beta;
  float eps;
  bool gelu, aligned;
  int channels;
  int64_t rows;
} norm_form;

enum { FOUR = 4 * CUDA_WARP }; /* channels that a warp reads at once */

/* FOURS: how many times four channels a lane keeps in registers, enough for the row; 0: any row, read three times. All
 * sum in one order. out may be x. */
template <int FOURS> static __global__ void layernorm_kernel(float *out, const float *x, const norm_form n) {
  int64_t row = (int64_t)blockIdx.x * CUDA_ROWS + threadIdx.y;
  if (row >= n.rows) return;
  int lane = 4 * (int)threadIdx.x, steps = FOURS ? FOURS : (n.channels + FOUR - 1) / FOUR;
  float4 kept[FOURS ? FOURS : 1];
  float sum = 0, apart = 0;
  out += row * n.channels;
  x += row * n.channels;
#pragma unroll
  for (int i = 0; i < steps; i++) {
    float4 v = cuda_read_four(x, lane + i * FOUR, n.channels, n.aligned);
    if (FOURS) kept[i] = v;
    sum += (v.x + v.y) + (v.z + v.w);
  }
  float mean = cuda_warp_add(sum) / (float)n.channels;
#pragma unroll
  for (int i = 0; i < steps; i++) {
    float4 v = FOURS ? kept[i] : cuda_read_four(x, lane + i * FOUR, n.channels, n.aligned);
    apart += cuda_squares(v, mean, lane + i * FOUR, n.channels);
  }
  float scale = 1 / sqrtf(cuda_warp_add(apart) / (float)n.channels + n.eps);
#pragma unroll
  for (int i = 0; i < steps; i++) {
    int at = lane + i * FOUR;
    float4 v = FOURS ? kept[i] : cuda_read_four(x, at, n.channels, n.aligned);
    float4 gamma = cuda_read_four(n.gamma, at, n.channels, n.aligned);
    float4 beta = cuda_read_four(n.beta, at, n.channels, n.aligned);
    cuda_write_four(out, at, cuda_normed(v, mean, scale, gamma, beta, n.gelu), n.channels, n.aligned);
  }
}

void cuda_layernorm_forward(ser_stream *stream, float *out, const float *x, const float *gamma, const float *beta,
                            float eps, bool gelu, int64_t channels, int64_t rows) {
  bool aligned = channels % 4 == 0 && cuda_is_aligned(out) && cuda_is_aligned(x) && cuda_is_aligned(gamma) &&
                 cuda_is_aligned(beta);
  norm_form n = {gamma, beta, eps, gelu, aligned, (int)channels, rows};
  unsigned blocks = cuda_blocks(rows, CUDA_ROWS);
  dim3 threads(CUDA_WARP, CUDA_ROWS);
  if (!rows) return;
  if (channels <= 4 * FOUR)
    CUDA_LAUNCH(stream, layernorm_kernel<4>, blocks, threads, 0, out, x, n);
  else if (channels <= 8 * FOUR)
    CUDA_LAUNCH(stream, layernorm_kernel<8>, blocks, threads, 0, out, x, n);
  else
    CUDA_LAUNCH(stream, layernorm_kernel<0>, blocks, threads, 0, out, x, n);
}

/* ---- pooling: a block takes a clip and 32 channels, its warps every 16th frame ---- */

enum { POOL_WARPS = 16, FLOAT_FRAMES = 16 }; /* sums of up to this many of a warp's frames are floats */

/* The sum over the clip's frames of x - from, or of its square, for the lane's channel, the same in every warp; x is
 * NULL where there is no such channel. */
static __device__ double sum_frames(const float *x, int channels, int frames, float from, bool squared,
                                    double (*room)[CUDA_WARP]) {
  double whole = 0;
  for (int first = (int)threadIdx.y; x && first < frames; first += POOL_WARPS * FLOAT_FRAMES) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < FLOAT_FRAMES; i++) {
      int frame = first + i * POOL_WARPS;
      float apart = frame < frames ? x[(int64_t)frame * channels] - from : 0;
      sum = squared ? fmaf(apart, apart, sum) : sum + apart;
    }
    whole += (double)sum;
  }
  room[threadIdx.y][threadIdx.x] = whole;
  __syncthreads();
  whole = 0;
#pragma unroll
  for (int i = 0; i < POOL_WARPS; i++) whole += room[i][threadIdx.x];
  __syncthreads();
  return whole;
}

static __global__ void pool_rows_kernel(float *pooled, const float *x, int channels, const int64_t *row_start) {
  __shared__ double room[POOL_WARPS][CUDA_WARP];
  int channel = (int)(blockIdx.x * CUDA_WARP + threadIdx.x), frames;
  int64_t clip = blockIdx.y, first = row_start[clip];
  frames = (int)(row_start[clip + 1] - first - 1);
  x = channel < channels ? x + first * channels + channel : NULL;
  float mean = (float)(sum_frames(x, channels, frames, 0, false, room) / (double)frames);
  double squares = sum_frames(x, channels, frames, mean, true, room);
  if (!x || threadIdx.y) return;
  pooled += clip * 2 * channels + channel;
  pooled[0] = mean;
  pooled[channels] = (float)sqrt(squares / (double)frames);
}

void cuda_pool_rows(ser_stream *stream, float *pooled, const float *x, int64_t channels, const ser_rows *rows) {
  dim3 blocks(cuda_blocks(channels, CUDA_WARP), (unsigned)rows->clips);
  if (!rows->clips) return;
  CUDA_LAUNCH(stream, pool_rows_kernel, blocks, dim3(CUDA_WARP, POOL_WARPS), 0, pooled, x, (int)channels,
              rows->row_start);
}
