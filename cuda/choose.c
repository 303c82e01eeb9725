/* Which of the two forms of the temporal convolutions is the quicker one here. Both are measured as training runs them:
 * forwards and backwards, with its batch, replayed from a graph (cuDNN's form is more launches, which cost time by
 * themselves where they are not), the first block's dilation and the last one's together. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cuda/runtime.h"
#include "device/arrays.h"

enum {
  DILATIONS = 2,
  ROUNDS = 9 /* of which the median counts; or one, where so many take longer than is good for a choice */
};
static const double rounds_time = 0.2; /* seconds, of a form */

typedef struct {
  cuda_device *device;
  ser_stream *stream;
  ser_conv_shape shapes[DILATIONS];
  ser_plan *plans[DILATIONS];
  ser_graph *graph;              /* of a round: each dilation once; NULL: it is enqueued each time */
  ser_event *points[ROUNDS + 1]; /* between rounds */
  void *memory;
  /* on the device: [S][B][Cp][Tp] each, then vectors, parameters, moments, the workspace */
  float *x, *y, *dx, *scale, *shift, *mean, *inv_std, *sums, *w, *dw, *moments;
  void *workspace;
} trial;

/* Room for the trial's arrays and the plans' workspace, all zero. */
static ser_status make_room(trial *t, ser_error *err) {
  const ser_conv_shape *s = t->shapes;
  size_t workspace = 0;
  for (int i = 0; i < DILATIONS; i++)
    if (t->plans[i]->workspace > workspace) workspace = t->plans[i]->workspace;
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

static void enqueue_round(const trial *t) {
  const ser_ops *ops = t->device->device.ops;
  int64_t batch = t->shapes->batch;
  ser_activation x = {t->x, t->scale, t->shift, NULL};
  ser_gradient dy = {t->x, {t->y, t->scale, t->shift, NULL}, t->mean, t->inv_std, t->sums};
  for (int i = 0; i < DILATIONS; i++) {
    ops->causal_conv_forward(t->stream, t->plans[i], t->workspace, t->y, t->moments, &x, t->w, NULL, batch);
    ops->causal_conv_backward(t->stream, t->plans[i], t->workspace, t->dx, t->dw, NULL, NULL, &x, NULL, &dy, t->w,
                              false, batch);
  }
}

/* The seconds of so many replays, one behind the other. */
static ser_status replay(const trial *t, double *seconds, int rounds, ser_error *err) {
  const ser_runtime *rt = t->device->device.rt;
  rt->record(t->stream, t->points[0]);
  for (int i = 0; i < rounds; i++) {
    if (t->graph)
      rt->graph_launch(t->stream, t->graph);
    else
      enqueue_round(t);
    rt->record(t->stream, t->points[i + 1]);
  }
  SER_TRY(rt->await(t->points[rounds], err));
  for (int i = 0; i < rounds; i++) seconds[i] = rt->seconds(t->points[i], t->points[i + 1]);
  return SER_OK;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static ser_status capture_round(trial *t, ser_error *err) {
  const ser_runtime *rt = t->device->device.rt;
  SER_TRY(rt->graph_begin(t->stream, err));
  enqueue_round(t);
  return rt->graph_end(t->stream, &t->graph, err);
}

/* A round's seconds. What happens only once (code is loaded, a graph goes to the device) lies before those that count.
 * A cuDNN that cannot be captured is none to choose; our own kernels are there all the same. */
static ser_status measure(trial *t, double *seconds, ser_error *err) {
  const ser_runtime *rt = t->device->device.rt;
  double all[ROUNDS];
  enqueue_round(t);
  SER_TRY(rt->sync(t->stream, err));
  ser_status captured = capture_round(t, err);
  if (captured != SER_OK && t->device->conv == SER_CONV_CUDNN) return captured;
  SER_TRY(replay(t, all, 1, err));
  int rounds = all[0] * ROUNDS > rounds_time ? 1 : ROUNDS;
  if (rounds > 1) SER_TRY(replay(t, all, rounds, err));
  qsort(all, (size_t)rounds, sizeof *all, by_size);
  *seconds = all[rounds / 2];
  return SER_OK;
}

static ser_status time_form(trial *t, double *seconds, ser_conv_choice form, ser_error *err) {
  ser_device *device = &t->device->device;
  const ser_runtime *rt = device->rt;
  ser_status status = SER_OK;
  t->device->conv = form;
  for (int i = 0; i < DILATIONS; i++) SER_TRY_DONE(device->ops->conv_prepare(device, &t->plans[i], &t->shapes[i], err));
  for (int i = 0; i <= ROUNDS; i++) SER_TRY_DONE(rt->event_create(device, &t->points[i], err));
  SER_TRY_DONE(make_room(t, err));
  status = measure(t, seconds, err);
done:
  rt->graph_destroy(t->graph);
  t->graph = NULL;
  for (int i = 0; i <= ROUNDS; i++) {
    rt->event_destroy(t->points[i]);
    t->points[i] = NULL;
  }
  rt->free(device, t->memory);
  t->memory = NULL;
  for (int i = 0; i < DILATIONS; i++) {
    ser_plan_free(t->plans[i]);
    t->plans[i] = NULL;
  }
  return status;
}

ser_status cuda_choose_conv(ser_device *device, const ser_conv_shape *shape, ser_error *err) {
  cuda_device *cuda = (cuda_device *)device;
  if (cuda->conv != SER_CONV_AUTO) return SER_OK;
  trial t = {.device = cuda, .shapes = {*shape, *shape}};
  double fused = INFINITY, cudnn = INFINITY;
  ser_error why = {0};
  t.shapes[0].dilation = 1;
  ser_status status = device->rt->stream_create(device, &t.stream, err);
  if (status == SER_OK) status = time_form(&t, &fused, SER_CONV_FUSED, err);
  /* Where cuDNN cannot be had or refuses one of the shapes, ours it is, and somebody is to hear of it. */
  if (status == SER_OK && time_form(&t, &cudnn, SER_CONV_CUDNN, &why) != SER_OK) {
    cudnn = INFINITY;
    snprintf(cuda->no_cudnn, sizeof cuda->no_cudnn, "%.*s", (int)sizeof cuda->no_cudnn - 1, why.text);
  }
  device->rt->stream_destroy(t.stream);
  cuda->conv = status == SER_OK ? (cudnn < fused ? SER_CONV_CUDNN : SER_CONV_FUSED) : SER_CONV_AUTO;
  return status;
}
