/* Where a training stands, Adam over a flat buffer of parameters (torch.optim.Adam without weight decay), the
 * gradient's norm, and what a step leaves behind. */
#include "kernels/temporal_cuda.h"

enum { THREADS = 256, NORM_BLOCKS = 128, NORM_CHUNK = 2048 };

static __global__ void step_begin_kernel(ser_step *step, ser_adam adam) {
  int64_t number = step->number + 1;
  double first = 1 - pow((double)adam.beta1, (double)number), second = 1 - pow((double)adam.beta2, (double)number);
  step->number = number;
  step->place++;
  step->rate = (float)((double)adam.lr / first);
  step->correction = (float)(1 / sqrt(second));
}

extern "C" void cuda_step_begin(ser_stream *stream, ser_step *step, const ser_adam *adam) {
  CUDA_LAUNCH(stream, step_begin_kernel, 1, 1, 0, step, *adam);
}

static __global__ void adam_kernel(float *p, float *m, float *v, const float *g, int64_t n, ser_adam adam,
                                   const ser_step *step) {
  int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= n) return;
  float gradient = g[i], mean = m[i], square = v[i];
  mean += (gradient - mean) * (1 - adam.beta1);
  square = square * adam.beta2 + gradient * gradient * (1 - adam.beta2);
  m[i] = mean;
  v[i] = square;
  p[i] -= step->rate * mean / (sqrtf(square) * step->correction + adam.eps);
}

extern "C" void cuda_adam(ser_stream *stream, float *p, float *m, float *v, const float *g, int64_t n,
                          const ser_adam *adam, const ser_step *step) {
  if (n > 0) CUDA_LAUNCH(stream, adam_kernel, cuda_blocks(n, THREADS), THREADS, 0, p, m, v, g, n, *adam, step);
}

/* ---- the norm ---------------------------------------------------------------------------------------------------- */

/* The sums of a block's threads, by halves; valid in thread 0. */
static __device__ double2 block_sum(double2 own) {
  __shared__ double2 sums[THREADS];
  sums[threadIdx.x] = own;
  for (int half = THREADS / 2; half; half /= 2) {
    __syncthreads();
    if ((int)threadIdx.x < half) {
      sums[threadIdx.x].x += sums[threadIdx.x + half].x;
      sums[threadIdx.x].y += sums[threadIdx.x + half].y;
    }
  }
  return sums[0];
}

/* Each block a chunk whose size n alone decides. */
static __global__ void norm_chunks_kernel(double2 *parts, const float *g, int64_t n, int64_t chunk) {
  int64_t first = blockIdx.x * chunk, end = first + chunk < n ? first + chunk : n;
  double2 sum = make_double2(0, 0);
  for (int64_t i = first + threadIdx.x; i < end; i += THREADS) {
    double v = (double)g[i];
    sum.x += v * v;
    sum.y += isfinite(g[i]) ? 0 : 1;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

static __global__ void norm_finish_kernel(float *out, const double2 *parts, int count) {
  double2 sum = (int)threadIdx.x < count ? parts[threadIdx.x] : make_double2(0, 0);
  sum = block_sum(sum);
  if (threadIdx.x) return;
  out[0] = (float)sum.x;
  out[1] = (float)sum.y;
}

extern "C" void cuda_gradient_norm(ser_stream *stream, float *out, const float *g, int64_t n) {
  int64_t chunk = n > (int64_t)NORM_BLOCKS * NORM_CHUNK ? (n + NORM_BLOCKS - 1) / NORM_BLOCKS : (int64_t)NORM_CHUNK;
  unsigned blocks = cuda_blocks(n, chunk);
  double2 *parts = (double2 *)stream->scratch;
  static_assert(NORM_BLOCKS * sizeof(double2) <= CUDA_SCRATCH, "the parts fit the stream's scratch");
  static_assert(NORM_BLOCKS <= THREADS, "one thread a part");
  if (blocks) CUDA_LAUNCH(stream, norm_chunks_kernel, blocks, THREADS, 0, parts, g, n, chunk);
  CUDA_LAUNCH(stream, norm_finish_kernel, 1, THREADS, 0, out, parts, (int)blocks);
}

/* ---- what is kept ------------------------------------------------------------------------------------------------ */

typedef struct {
  ser_keep part[SER_KEEP_MOST];
} keep_args;

static __global__ void keep_kernel(keep_args a, const ser_step *step) {
  ser_keep part = a.part[blockIdx.y];
  int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i < part.count) part.to[step->place * part.stride + i] = part.from[i];
}

extern "C" void cuda_keep(ser_stream *stream, const ser_keep *parts, int count, const ser_step *step) {
  keep_args a = {};
  int64_t most = 0;
  SER_CHECK(count <= SER_KEEP_MOST);
  for (int i = 0; i < count; i++) {
    a.part[i] = parts[i];
    if (parts[i].count > most) most = parts[i].count;
  }
  if (most) CUDA_LAUNCH(stream, keep_kernel, dim3(cuda_blocks(most, THREADS), (unsigned)count), THREADS, 0, a, step);
}
