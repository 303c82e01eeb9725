/* Steps of a training: where it stands, Adam over a flat buffer of parameters (torch.optim.Adam without weight decay),
 * what a step leaves for the end of its epoch, and the gradient's norm. */
#include <math.h>

#include "kernels/kernels.h"

/* Elements of one task: whole vectors but for the last task's tail. */
enum { CHUNK = 8192, NORM_CHUNKS = 64 };

static vf v_sqrt(vf v) {
#if VW == 16
  return (vf)_mm512_sqrt_ps((__m512)v);
#elif VW == 8
  return (vf)_mm256_sqrt_ps((__m256)v);
#elif defined(__SSE__)
  return (vf)_mm_sqrt_ps((__m128)v);
#else
  for (int i = 0; i < VW; i++) v[i] = sqrtf(v[i]);
  return v;
#endif
}

void SER_ISA(cpu_step_begin)(ser_stream *stream, ser_step *step, const ser_adam *adam) {
  (void)stream;
  step->number++;
  step->place++;
  double first = 1 - pow((double)adam->beta1, (double)step->number);
  double second = 1 - pow((double)adam->beta2, (double)step->number);
  step->rate = (float)((double)adam->lr / first);
  step->correction = (float)(1 / sqrt(second));
}

void SER_ISA(cpu_keep)(ser_stream *stream, const ser_keep *parts, int count, const ser_step *step) {
  (void)stream;
  for (int i = 0; i < count; i++)
    memcpy(parts[i].to + step->place * parts[i].stride, parts[i].from, (size_t)parts[i].count * sizeof(float));
}

typedef struct {
  float *p, *m, *v;
  const float *g;
  int64_t n;
  float beta1, beta2, eps, rate, correction;
} adam_context;

static void adam_vector(const adam_context *a, vf *p, vf *m, vf *v, vf g) {
  *m = *m + (g - *m) * (1 - a->beta1);
  *v = *v * a->beta2 + g * g * (1 - a->beta2);
  *p = *p - a->rate * *m / (v_sqrt(*v) * a->correction + a->eps);
}

static void adam_chunk(void *context, size_t task, int thread) {
  (void)thread;
  const adam_context *a = context;
  int64_t i = (int64_t)task * CHUNK, end = i + CHUNK < a->n ? i + CHUNK : a->n;
  for (; i + VW <= end; i += VW) {
    vf p = v_load(a->p + i), m = v_load(a->m + i), v = v_load(a->v + i);
    adam_vector(a, &p, &m, &v, v_load(a->g + i));
    v_store(a->p + i, p);
    v_store(a->m + i, m);
    v_store(a->v + i, v);
  }
  if (i == end) return;
  vf p = {0}, m = {0}, v = {0}, g = {0};
  size_t bytes = (size_t)(end - i) * sizeof(float);
  memcpy(&p, a->p + i, bytes);
  memcpy(&m, a->m + i, bytes);
  memcpy(&v, a->v + i, bytes);
  memcpy(&g, a->g + i, bytes);
  adam_vector(a, &p, &m, &v, g);
  memcpy(a->p + i, &p, bytes);
  memcpy(a->m + i, &m, bytes);
  memcpy(a->v + i, &v, bytes);
}

void SER_ISA(cpu_adam)(ser_stream *stream, float *p, float *m, float *v, const float *g, int64_t n,
                       const ser_adam *adam, const ser_step *step) {
  adam_context context = {.p = p,
                          .m = m,
                          .v = v,
                          .g = g,
                          .n = n,
                          .beta1 = adam->beta1,
                          .beta2 = adam->beta2,
                          .eps = adam->eps,
                          .rate = step->rate,
                          .correction = step->correction};
  ser_cpu_parallel(stream, (size_t)((n + CHUNK - 1) / CHUNK), adam_chunk, &context);
}

typedef struct {
  const float *g;
  int64_t n, chunk;
  double squares[NORM_CHUNKS];
  int64_t broken[NORM_CHUNKS];
} norm_context;

static void norm_chunk(void *context, size_t task, int thread) {
  (void)thread;
  norm_context *c = context;
  int64_t first = (int64_t)task * c->chunk, end = first + c->chunk < c->n ? first + c->chunk : c->n;
  double lanes[8] = {0};
  int64_t broken = 0;
  for (int64_t i = first; i < end; i++) {
    double g = (double)c->g[i];
    lanes[(i - first) & 7] += g * g;
    broken += !isfinite(c->g[i]);
  }
  double sum = 0;
  for (int i = 0; i < 8; i++) sum += lanes[i];
  c->squares[task] = sum;
  c->broken[task] = broken;
}

void SER_ISA(cpu_gradient_norm)(ser_stream *stream, float *out, const float *g, int64_t n) {
  norm_context context = {.g = g, .n = n, .chunk = CHUNK};
  if (n > (int64_t)NORM_CHUNKS * CHUNK) context.chunk = (n + NORM_CHUNKS - 1) / NORM_CHUNKS;
  int64_t chunks = (n + context.chunk - 1) / context.chunk;
  ser_cpu_parallel(stream, (size_t)chunks, norm_chunk, &context);
  double squares = 0;
  int64_t broken = 0;
  for (int64_t i = 0; i < chunks; i++) {
    squares += context.squares[i];
    broken += context.broken[i];
  }
  out[0] = (float)squares;
  out[1] = (float)broken;
}
