/* Samples as floats in [-1, 1) from 16-bit integers, as libsndfile reads them. */
#include "kernels/kernels.h"

/* Samples of one task. */
enum { PCM_CHUNK = 65536 };

typedef struct {
  float *pcm;
  const int16_t *from;
  int64_t samples;
} pcm_context;

static void pcm_chunk(void *context, size_t task, int thread) {
  (void)thread;
  const pcm_context *k = context;
  int64_t i = (int64_t)task * PCM_CHUNK, end = i + PCM_CHUNK < k->samples ? i + PCM_CHUNK : k->samples;
  for (; i < end; i++) k->pcm[i] = (float)k->from[i] * 0x1p-15f;
}

void SER_ISA(cpu_pcm_from_int16)(ser_stream *stream, float *pcm, const int16_t *from, int64_t samples) {
  pcm_context context = {pcm, from, samples};
  ser_cpu_parallel(stream, (size_t)((samples + PCM_CHUNK - 1) / PCM_CHUNK), pcm_chunk, &context);
}
