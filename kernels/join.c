/* Joining a block's input x with its output a: x + a, or x * sigmoid(a) (TIM-Net's gate), and the gradients. */
#include "kernels/kernels.h"
#include "kernels/math.h"
#include "kernels/temporal.h"

typedef struct {
  float *out, *dx, *da;
  const float *dout;
  const ser_activation *x, *a;
  ser_join join;
  ser_dims d;
  int64_t batch;
} join_context;

static void join_clip(void *context, size_t task, int thread) {
  (void)thread;
  const join_context *j = context;
  const ser_dims *d = &j->d;
  ser_clip clip = clip_of_task(task, j->batch);
  for (int64_t c = 0; c < d->cp; c++) {
    act_row x = act_row_of(j->x, clip, c, d), a = act_row_of(j->a, clip, c, d);
    float *out = j->out + (clip.at * d->cp + c) * d->tp;
    for (int64_t t = 0; t < d->tp; t += VW) {
      vf xv = act_at(&x, t, d), av = act_at(&a, t, d);
      v_store(out + t, j->join == SER_JOIN_GATE ? xv * v_sigmoid(av) : xv + av);
    }
  }
}

void SER_ISA(cpu_join_forward)(ser_stream *stream, float *out, const ser_activation *x, const ser_activation *a,
                               ser_join join, const ser_tensor_shape *shape) {
  join_context context = {
      .out = out, .x = x, .a = a, .join = join, .d = dims_of(shape->channels, shape->time), .batch = shape->batch};
  ser_cpu_parallel(stream, (size_t)(shape->sides * shape->batch), join_clip, &context);
}

static void join_clip_backward(void *context, size_t task, int thread) {
  (void)thread;
  const join_context *j = context;
  const ser_dims *d = &j->d;
  ser_clip clip = clip_of_task(task, j->batch);
  for (int64_t c = 0; c < d->cp; c++) {
    int64_t at = (clip.at * d->cp + c) * d->tp;
    act_row x = act_row_of(j->x, clip, c, d), a = act_row_of(j->a, clip, c, d);
    for (int64_t t = 0; t < d->tp; t += VW) {
      vf g = v_load(j->dout + at + t); /* read before dx is written: they may be one */
      vf dx = g, da = g;
      if (j->join == SER_JOIN_GATE) {
        vf s = v_sigmoid(act_at(&a, t, d));
        dx = g * s;
        da = dx * act_at(&x, t, d) * (1 - s);
      }
      v_store(j->dx + at + t, dx);
      v_store(j->da + at + t, da);
    }
  }
}

void SER_ISA(cpu_join_backward)(ser_stream *stream, float *dx, float *da, const float *dout, const ser_activation *x,
                                const ser_activation *a, ser_join join, const ser_tensor_shape *shape) {
  join_context context = {.dx = dx,
                          .da = da,
                          .dout = dout,
                          .x = x,
                          .a = a,
                          .join = join,
                          .d = dims_of(shape->channels, shape->time),
                          .batch = shape->batch};
  ser_cpu_parallel(stream, (size_t)(shape->sides * shape->batch), join_clip_backward, &context);
}
