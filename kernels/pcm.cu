/* Samples as floats in [-1, 1) from 16-bit integers, as libsndfile reads them. A thread makes four. */
#include "kernels/cuda_kernels.h"

enum { THREADS = 256, SAMPLES = 4 };

static __global__ void pcm_from_int16_kernel(float *pcm, const int16_t *from, int64_t samples) {
  int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * SAMPLES;
  if (i + SAMPLES <= samples) {
    short4 v = *(const short4 *)(from + i);
    *(float4 *)(pcm + i) = make_float4(v.x * 0x1p-15f, v.y * 0x1p-15f, v.z * 0x1p-15f, v.w * 0x1p-15f);
    return;
  }
  for (; i < samples; i++) pcm[i] = (float)from[i] * 0x1p-15f;
}

/* Both begin where the device's alloc begins, so four at a time are aligned. */
extern "C" void cuda_pcm_from_int16(ser_stream *stream, float *pcm, const int16_t *from, int64_t samples) {
  if (samples)
    CUDA_LAUNCH(stream, pcm_from_int16_kernel, cuda_blocks(samples, THREADS * SAMPLES), THREADS, 0, pcm, from, samples);
}
