/* Pooling over time (of all columns or of a clip's real frames) and the fusion of scales, each with its gradient. */
#include "kernels/kernels.h"
#include "kernels/temporal.h"

/* The columns of a clip that are pooled: [first, end). Side 1, which runs backwards, holds the clip's real frames at
 * its end. */
typedef struct {
  int64_t first, end;
} pool_range;

static pool_range range_of(const int64_t *lengths, int64_t b, int64_t time, int64_t side) {
  int64_t length = !lengths || lengths[b] > time ? time : lengths[b] > 0 ? lengths[b] : 0;
  return side ? (pool_range){time - length, time} : (pool_range){0, length};
}

/* v, zero outside the range; its first lane is column t. */
static vf keep_range(vf v, int64_t t, pool_range range) {
  return (vf)((vi)v & v_first(range.end - t) & ~v_first(range.first - t));
}

typedef struct {
  float *out;
  const float *dpooled;
  const ser_activation *x;
  const int64_t *lengths;
  ser_dims d;
  int64_t sides, batch;
  bool add;
} pool_context;

static double mean_of_row(const ser_activation *a, ser_clip clip, int64_t c, const ser_dims *d, pool_range range) {
  act_row row = act_row_of(a, clip, c, d);
  vf sum = {0};
  for (int64_t t = range.first / VW * VW; t < range.end; t += VW) sum += keep_range(act_at(&row, t, d), t, range);
  return range.end > range.first ? v_sum(sum) / (double)(range.end - range.first) : 0;
}

static void pool_clip(void *context, size_t task, int thread) {
  (void)thread;
  const pool_context *p = context;
  int64_t b = (int64_t)task;
  for (int64_t c = 0; c < p->d.cp; c++) {
    double sum = 0;
    for (int64_t side = 0; side < p->sides; side++)
      sum += mean_of_row(p->x, clip_of(side, b, p->batch), c, &p->d, range_of(p->lengths, b, p->d.t, side));
    p->out[b * p->d.cp + c] = (float)sum;
  }
}

void SER_ISA(cpu_pool_forward)(ser_stream *stream, float *pooled, const ser_activation *x, const int64_t *lengths,
                               const ser_tensor_shape *shape) {
  pool_context context = {.out = pooled,
                          .x = x,
                          .lengths = lengths,
                          .d = dims_of(shape->channels, shape->time),
                          .sides = shape->sides,
                          .batch = shape->batch};
  ser_cpu_parallel(stream, (size_t)shape->batch, pool_clip, &context);
}

static void pool_clip_backward(void *context, size_t task, int thread) {
  (void)thread;
  const pool_context *p = context;
  int64_t side = (int64_t)task / p->batch, b = (int64_t)task % p->batch;
  pool_range range = range_of(p->lengths, b, p->d.t, side);
  float share = range.end > range.first ? 1 / (float)(range.end - range.first) : 0;
  for (int64_t c = 0; c < p->d.cp; c++) {
    float *d = p->out + ((int64_t)task * p->d.cp + c) * p->d.tp;
    vf value = v_set(p->dpooled[b * p->d.cp + c] * share);
    for (int64_t t = 0; t < p->d.tp; t += VW) {
      vf spread = keep_range(value, t, range);
      v_store(d + t, p->add ? v_load(d + t) + spread : spread);
    }
  }
}

void SER_ISA(cpu_pool_backward)(ser_stream *stream, float *d, const float *dpooled, const int64_t *lengths, bool add,
                                const ser_tensor_shape *shape) {
  pool_context context = {.out = d,
                          .dpooled = dpooled,
                          .lengths = lengths,
                          .add = add,
                          .d = dims_of(shape->channels, shape->time),
                          .batch = shape->batch};
  ser_cpu_parallel(stream, (size_t)(shape->sides * shape->batch), pool_clip_backward, &context);
}

void SER_ISA(cpu_scale_mix_forward)(ser_stream *stream, float *out, const float *scales, const float *w, int64_t count,
                                    const ser_tensor_shape *shape) {
  (void)stream;
  int64_t n = shape->batch * dims_of(shape->channels, 1).cp;
  for (int64_t i = 0; i < n; i++) {
    double sum = 0;
    for (int64_t s = 0; s < count; s++) sum += (double)w[s] * (double)scales[s * n + i];
    out[i] = (float)sum;
  }
}

void SER_ISA(cpu_scale_mix_backward)(ser_stream *stream, float *dscales, float *dw, const float *dout,
                                     const float *scales, const float *w, int64_t count,
                                     const ser_tensor_shape *shape) {
  (void)stream;
  int64_t n = shape->batch * dims_of(shape->channels, 1).cp;
  for (int64_t s = 0; s < count; s++) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
      sum += (double)dout[i] * (double)scales[s * n + i];
      dscales[s * n + i] = w[s] * dout[i];
    }
    dw[s] = (float)sum;
  }
}
