/* The CUDA form of adam.c: steps of a training: where it stands, Adam over a flat buffer of parameters, what a step
 * leaves for the end of its epoch, and the gradient's norm. */
#include "kernels/cuda_kernels.h"
#include "kernels/temporal_cuda.h"

static __global__ void step_begin_kernel(ser_step *step, ser_adam adam) {
  int64_t number = step->number + 1;
  double first = 1 - pow((double)adam.beta1, (double)number), second = 1 - pow((double)adam.beta2, (double)number);
  step->number = number;
  step->place++;
  step->rate = (float)((double)adam.lr / first);
  step->correction = (float)(1 / sqrt(second));
}

void cuda_step_begin(ser_stream *stream, ser_step *step, const ser_adam *adam) {
  CUDA_LAUNCH(stream, step_begin_kernel, 1, 1, 0, step, *adam);
}

/* A block does ADAM_EACH times its threads: enough loads at once to keep the memory busy, whatever the alignment. */
enum { ADAM_THREADS = 256, ADAM_EACH = 4 };

static __global__ void adam_kernel(float *p, float *m, float *v, const float *g, int64_t n, ser_adam adam,
                                   const ser_step *step) {
  int64_t first = (int64_t)blockIdx.x * (ADAM_THREADS * ADAM_EACH) + threadIdx.x;
  float rate = step->rate, correction = step->correction;
  float ps[ADAM_EACH], ms[ADAM_EACH], vs[ADAM_EACH], gs[ADAM_EACH];
#pragma unroll
  for (int k = 0; k < ADAM_EACH; k++) {
    int64_t i = first + k * ADAM_THREADS;
    if (i >= n) break;
    ps[k] = p[i];
    ms[k] = m[i];
    vs[k] = v[i];
    gs[k] = g[i];
  }
#pragma unroll
  for (int k = 0; k < ADAM_EACH; k++) {
    int64_t i = first + k * ADAM_THREADS;
    if (i >= n) break;
    float mean = ms[k] + (gs[k] - ms[k]) * (1 - adam.beta1);
    float square = vs[k] * adam.beta2 + gs[k] * gs[k] * (1 - adam.beta2);
    m[i] = mean;
    v[i] = square;
    p[i] = ps[k] - rate * mean / (sqrtf(square) * correction + adam.eps);
  }
}

void cuda_adam(ser_stream *stream, float *p, float *m, float *v, const float *g, int64_t n, const ser_adam *adam,
               const ser_step *step) {
  CUDA_LAUNCH(stream, adam_kernel, cuda_blocks(n, ADAM_THREADS * ADAM_EACH), ADAM_THREADS, 0, p, m, v, g, n, *adam,
              step);
}

enum { KEEP_THREADS = 256 };

typedef struct {
  ser_keep part[SER_KEEP_MOST];
} keep_parts;

/* A thread does its element of every part. */
static __global__ void keep_kernel(keep_parts parts, const ser_step *step) {
  int64_t i = (int64_t)blockIdx.x * KEEP_THREADS + threadIdx.x;
#pragma unroll
  for (int k = 0; k < SER_KEEP_MOST; k++)
    if (i < parts.part[k].count) parts.part[k].to[step->place * parts.part[k].stride + i] = parts.part[k].from[i];
}

void cuda_keep(ser_stream *stream, const ser_keep *parts, int count, const ser_step *step) {
  keep_parts all = {};
  int64_t most = 1;
  for (int i = 0; i < count; i++) {
    all.part[i] = parts[i];
    if (parts[i].count > most) most = parts[i].count;
  }
  CUDA_LAUNCH(stream, keep_kernel, cuda_blocks(most, KEEP_THREADS), KEEP_THREADS, 0, all, step);
}

/* The gradient's norm in two launches: blocks leave their sums in the stream's scratch, one block adds them up. How
 * many blocks there are, and so the order, follows from n. */
enum { NORM_THREADS = 256, NORM_EACH = 8, NORM_BLOCKS = 256 };

typedef struct {
  double squares;
  double broken; /* a whole number */
} norm_part;

static_assert(sizeof(norm_part) * NORM_BLOCKS <= CUDA_SCRATCH, "a stream's scratch holds them");

static __global__ void gradient_norm_kernel(norm_part *parts, const float *g, int64_t n) {
  __shared__ double room[CUDA_WARP];
  norm_part own = {0, 0};
  int64_t step = (int64_t)gridDim.x * NORM_THREADS;
#pragma unroll NORM_EACH
  for (int64_t i = (int64_t)blockIdx.x * NORM_THREADS + threadIdx.x; i < n; i += step) {
    float x = g[i];
    own.squares += (double)x * (double)x;
    own.broken += !isfinite(x);
  }
  own.squares = cuda_block_sum(own.squares, room);
  own.broken = cuda_block_sum(own.broken, room);
  if (threadIdx.x == 0) parts[blockIdx.x] = own;
}

static __global__ void gradient_norm_finish_kernel(float *out, const norm_part *parts, int count) {
  __shared__ double room[CUDA_WARP];
  bool used = (int)threadIdx.x < count;
  double squares = cuda_block_sum(used ? parts[threadIdx.x].squares : 0, room);
  double broken = cuda_block_sum(used ? parts[threadIdx.x].broken : 0, room);
  if (threadIdx.x) return;
  out[0] = (float)squares;
  out[1] = (float)broken;
}

void cuda_gradient_norm(ser_stream *stream, float *out, const float *g, int64_t n) {
  int64_t blocks = (n + NORM_THREADS * NORM_EACH - 1) / (NORM_THREADS * NORM_EACH);
  int count = blocks < 1 ? 1 : blocks > NORM_BLOCKS ? NORM_BLOCKS : (int)blocks;
  norm_part *parts = (norm_part *)stream->scratch;
  CUDA_LAUNCH(stream, gradient_norm_kernel, (unsigned)count, NORM_THREADS, 0, parts, g, n);
  CUDA_LAUNCH(stream, gradient_norm_finish_kernel, 1, NORM_BLOCKS, 0, out, parts, count);
}
