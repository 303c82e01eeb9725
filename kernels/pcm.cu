/* The CUDA form of pcm.c: samples as floats in [-1, 1) from 16-bit integers, four a thread. */
#include "kernels/cuda_kernels.h"

enum { THREADS = 256, OF_A_THREAD = 4 };

/* `whole`: both lie so that four samples are one access. */
static __global__ void pcm_from_int16_kernel(float *pcm, const int16_t *from, int64_t samples, bool whole) {
  int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * OF_A_THREAD;
  const float scale = 0x1p-15f;
  if (whole && i + OF_A_THREAD <= samples) {
    short4 four = *(const short4 *)(from + i);
    *(float4 *)(pcm + i) = make_float4(four.x * scale, four.y * scale, four.z * scale, four.w * scale);
    return;
  }
  for (int64_t end = min(i + OF_A_THREAD, samples); i < end; i++) pcm[i] = (float)from[i] * scale;
}

void cuda_pcm_from_int16(ser_stream *stream, float *pcm, const int16_t *from, int64_t samples) {
  bool whole = (uintptr_t)pcm % sizeof(float4) == 0 && (uintptr_t)from % sizeof(short4) == 0;
  if (samples == 0) return;
  CUDA_LAUNCH(stream, pcm_from_int16_kernel, cuda_blocks(samples, (int64_t)THREADS * OF_A_THREAD), THREADS, 0, pcm,
              from, samples, whole);
}
