/* The device's own limits: multiply-adds that touch no memory, with enough chains and threads in flight to hide their
 * latency, and a copy as wide as the memory takes it. What `serenade bench` measures; no operation of ops.h. */
#include "cuda/runtime.h"

enum { THREADS = 256, BLOCKS = 8, CHAINS = 8, STEPS = 16, VECTORS = 4 };

/* STEPS rounds at a time, so that counting them costs nothing. The sum is never what it is compared with: chains start
 * at 0 or above and stay there. */
static __global__ void peak_fma_kernel(float *kept, int64_t rounds, float factor, float term) {
  float chain[CHAINS], sum = 0;
#pragma unroll
  for (int i = 0; i < CHAINS; i++) chain[i] = (float)(threadIdx.x + i);
  for (int64_t round = 0; round < rounds; round += STEPS)
#pragma unroll
    for (int step = 0; step < STEPS; step++)
#pragma unroll
      for (int i = 0; i < CHAINS; i++) chain[i] = fmaf(chain[i], factor, term);
#pragma unroll
  for (int i = 0; i < CHAINS; i++) sum += chain[i];
  if (sum < 0) *kept = sum;
}

/* 8 blocks of 256 threads are all that a multiprocessor holds, or twice that. */
extern "C" int64_t cuda_peak_fma(ser_stream *stream, int64_t rounds) {
  int64_t blocks = (int64_t)stream->device->multiprocessors * BLOCKS, whole = SER_ROUND_UP(rounds, STEPS);
  CUDA_LAUNCH(stream, peak_fma_kernel, (unsigned)(rounds ? blocks : 1), THREADS, 0, (float *)stream->scratch, whole,
              0.999999f, 1e-6f);
  return 2 * CHAINS * whole * blocks * THREADS;
}

/* A block moves VECTORS * THREADS neighbouring vectors of 16 bytes, all loads before the stores; the last one what is
 * left at the end, too. */
static __global__ void peak_copy_kernel(uint4 *to, const uint4 *from, int64_t vectors, int rest) {
  int64_t first = (int64_t)blockIdx.x * THREADS * VECTORS + threadIdx.x;
  uint4 v[VECTORS];
#pragma unroll
  for (int i = 0; i < VECTORS; i++)
    if (first + i * THREADS < vectors) v[i] = from[first + i * THREADS];
#pragma unroll
  for (int i = 0; i < VECTORS; i++)
    if (first + i * THREADS < vectors) to[first + i * THREADS] = v[i];
  if (blockIdx.x == gridDim.x - 1 && (int)threadIdx.x < rest)
    ((char *)(to + vectors))[threadIdx.x] = ((const char *)(from + vectors))[threadIdx.x];
}

extern "C" int64_t cuda_peak_copy(ser_stream *stream, void *to, const void *from, size_t bytes) {
  int64_t vectors = (int64_t)(bytes / sizeof(uint4));
  int rest = (int)(bytes % sizeof(uint4));
  unsigned blocks = cuda_blocks(vectors, THREADS * VECTORS);
  if (bytes)
    CUDA_LAUNCH(stream, peak_copy_kernel, blocks ? blocks : 1, THREADS, 0, (uint4 *)to, (const uint4 *)from, vectors,
                rest);
  return (int64_t)(2 * bytes);
}
