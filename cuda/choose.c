/* Which of the two forms of the temporal convolutions is the quicker one here: both are measured, forwards and
 * backwards, on convolutions of the shape that is about to be trained. */
#include <math.h>
#include <stdlib.h>

#include "cuda/runtime.h"
#include "device/arrays.h"

enum {
  RUNS = 8,
  SMALL_BATCH = 16 /* clips: a choice is to take little time */
};

typedef struct {
  cuda_device *device;
  ser_stream *stream;
  ser_conv_shape shape;
  void *memory;
  /* on the device: [S][B][Cp][Tp] each, then vectors, parameters, moments, the workspace */
  float *x, *y, *dx, *scale, *shift, *mean, *inv_std, *sums, *w, *dw, *moments;
  void *workspace;
} trial;

/* Room for the trial's arrays and the plan's workspace, all zero. */
static ser_status make_room(trial *t, size_t workspace, ser_error *err) {
  const ser_conv_shape *s = &t->shape;
  int64_t most = SER_ROUND_UP(s->in > s->out ? s->in : s->out, SER_CHANNEL_PAD), clips = s->sides * s->batch;
  size_t tensor = (size_t)(clips * most * SER_ROUND_UP(s->time, SER_TIME_PAD)) * sizeof(float);
  size_t vector = (size_t)(s->sides * most) * sizeof(float);
  size_t weights = (size_t)(s->sides * s->side_stride) * sizeof(float);
  const ser_array arrays[] = {{&t->x, tensor},
                              {&t->y, tensor},
                              {&t->dx, tensor},
                              {&t->scale, vector},
                              {&t->shift, vector},
                              {&t->mean, vector},
                              {&t->inv_std, vector},
                              {&t->sums, 2 * vector},
                              {&t->w, weights},
                              {&t->dw, weights},
                              {&t->moments, 2 * (size_t)(clips * most) * sizeof(float)},
                              {&t->workspace, workspace}};
  return ser_arrays_alloc(&t->memory, &t->device->device, t->stream, arrays, sizeof arrays / sizeof *arrays, err);
}

static void run_once(const trial *t, const ser_plan *plan) {
  const ser_ops *ops = t->device->device.ops;
  ser_activation x = {t->x, t->scale, t->shift, NULL};
  ser_gradient dy = {t->x, {t->y, t->scale, t->shift, NULL}, t->mean, t->inv_std, t->sums};
  ops->causal_conv_forward(t->stream, plan, t->workspace, t->y, t->moments, &x, t->w, NULL, t->shape.batch);
  ops->causal_conv_backward(t->stream, plan, t->workspace, t->dx, t->dw, NULL, NULL, &x, NULL, &dy, t->w, false,
                            t->shape.batch);
}

/* Seconds of RUNS runs, after one to warm up. */
static ser_status time_form(trial *t, double *seconds, ser_conv_choice form, ser_error *err) {
  ser_device *device = &t->device->device;
  const ser_runtime *rt = device->rt;
  ser_plan *plan = NULL;
  ser_event *begin = NULL, *end = NULL;
  ser_status status;
  *seconds = INFINITY;
  t->device->conv = form;
  SER_TRY_DONE(device->ops->conv_prepare(device, &plan, &t->shape, err));
  SER_TRY_DONE(make_room(t, plan->workspace, err));
  SER_TRY_DONE(rt->event_create(device, &begin, err));
  SER_TRY_DONE(rt->event_create(device, &end, err));
  run_once(t, plan);
  rt->record(t->stream, begin);
  for (int i = 0; i < RUNS; i++) run_once(t, plan);
  rt->record(t->stream, end);
  SER_TRY_DONE(rt->await(end, err));
  *seconds = rt->seconds(begin, end);
done:
  rt->event_destroy(begin);
  rt->event_destroy(end);
  rt->free(device, t->memory);
  t->memory = NULL;
  ser_plan_free(plan);
  return status;
}

ser_status cuda_choose_conv(ser_device *device, const ser_conv_shape *shape, ser_error *err) {
  cuda_device *cuda = (cuda_device *)device;
  if (cuda->conv != SER_CONV_AUTO) return SER_OK;
  trial t = {.device = cuda, .shape = *shape};
  double fused, cudnn;
  ser_error ignored;
  if (t.shape.batch > SMALL_BATCH) t.shape.batch = SMALL_BATCH;
  ser_status status = device->rt->stream_create(device, &t.stream, err);
  if (status == SER_OK) status = time_form(&t, &fused, SER_CONV_FUSED, err);
  /* Where cuDNN cannot be had or refuses the shape, ours it is. */
  if (status == SER_OK && time_form(&t, &cudnn, SER_CONV_CUDNN, &ignored) != SER_OK) cudnn = INFINITY;
  device->rt->stream_destroy(t.stream);
  cuda->conv = status == SER_OK ? (cudnn < fused ? SER_CONV_CUDNN : SER_CONV_FUSED) : SER_CONV_AUTO;
  return status;
}
