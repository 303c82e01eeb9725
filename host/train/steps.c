/* A training's steps on its device: clips drawn, gathered and standardised, the pass forwards and backwards, the norm
 * of the gradient, Adam, and what the host looks at later kept. Nothing in it depends on the host: the order of the
 * epoch and where the training stands lie on the device, so that a captured step can be launched again and again. */
#include "train/steps.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "device/replay.h"

enum {
  LOOK_EVERY = 16,  /* where each step is enqueued by itself: a step that went wrong can be named later as well */
  STRETCH_LEAST = 8 /* steps */
};
/* Two stretches of steps are enqueued at most, and what is enqueued cannot be taken back: this is half of what a signal
 * may have to wait for. */
static const double STRETCH_SECONDS = 0.25;

struct ser_steps {
  ser_steps_options o;
  ser_pass *pass;
  int64_t stride, trained, flat;
  bool captured; /* the device has graphs */
  ser_replayer replayer;
  ser_replay replays[2]; /* of a full batch, of the smaller last one */
  ser_event *ends[2];    /* of stretches, in turn; where steps are captured */
  int64_t stretch, in_stretch, stretches;
  double ended_at;
  /* on the device */
  void *memory;
  float *class_weights;           /* [SER_EMOTIONS]; o.class_weights is the same or NULL */
  float *m, *v;                   /* [trained] */
  float *norm;                    /* [2] of the step */
  float *losses, *logits, *norms; /* [clips], [clips][stride], [steps][2]: of the epoch */
  int32_t *order;                 /* [clips] */
  ser_step *at;
  /* on the host, pinned: what an epoch begins with, and what is read of it */
  void *pinned;
  int32_t *order_host;
  ser_step *at_host;
  float *losses_host, *logits_host, *norms_host;
  float *parameters_host, *m_host, *v_host; /* [flat], [trained], [trained] */
};

int64_t ser_steps_count(const ser_steps *s) {
  return (s->o.clips + s->o.batch - 1) / s->o.batch;
}

int64_t ser_steps_clips(const ser_steps *s, int64_t step) {
  int64_t left = s->o.clips - step * s->o.batch;
  return left < s->o.batch ? left : s->o.batch;
}

int64_t ser_steps_between_looks(const ser_steps *s) {
  return s->captured ? ser_steps_count(s) : LOOK_EVERY;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static ser_status make_pinned(ser_steps *s, ser_error *err) {
  size_t clips = (size_t)s->o.clips, trained = (size_t)s->trained * sizeof(float);
  const ser_array arrays[] = {
      {&s->order_host, clips * sizeof(int32_t)},
      {&s->at_host, sizeof(ser_step)},
      {&s->losses_host, clips * sizeof(float)},
      {&s->logits_host, clips * (size_t)s->stride * sizeof(float)},
      {&s->norms_host, 2 * (size_t)ser_steps_count(s) * sizeof(float)},
      {&s->parameters_host, (size_t)s->flat * sizeof(float)},
      {&s->m_host, trained},
      {&s->v_host, trained},
  };
  const size_t count = sizeof arrays / sizeof *arrays;
  s->pinned = s->o.device->rt->pin(s->o.device, ser_arrays_place(arrays, count, NULL), err);
  if (!s->pinned) return SER_FAILED;
  ser_arrays_place(arrays, count, s->pinned);
  return SER_OK;
}

static ser_status make(ser_steps *s, ser_error *err) {
  const ser_runtime *rt = s->o.device->rt;
  size_t clips = (size_t)s->o.clips, steps = (size_t)ser_steps_count(s);
  s->replayer = ser_replayer_make(s->o.device, "a training step");
  s->captured = s->replayer.captures;
  SER_TRY(ser_pass_create(&s->pass, s->o.model, s->o.batch, err));
  s->stride = ser_pass_stride(s->pass);
  s->trained = ser_model_trained_count(s->o.model);
  s->flat = ser_model_flat_count(s->o.model);
  const ser_array arrays[] = {
      {&s->m, (size_t)s->trained * sizeof(float)},
      {&s->v, (size_t)s->trained * sizeof(float)},
      {&s->class_weights, SER_EMOTIONS * sizeof(float)},
      {&s->norm, 2 * sizeof(float)},
      {&s->losses, clips * sizeof(float)},
      {&s->logits, clips * (size_t)s->stride * sizeof(float)},
      {&s->norms, 2 * steps * sizeof(float)},
      {&s->order, clips * sizeof(int32_t)},
      {&s->at, sizeof(ser_step)},
  };
  SER_TRY(
      ser_arrays_alloc(&s->memory, s->o.device, s->o.streams->compute, arrays, sizeof arrays / sizeof *arrays, err));
  if (s->o.class_weights) {
    rt->write(s->o.streams->compute, s->class_weights, s->o.class_weights, SER_EMOTIONS * sizeof(float));
    s->o.class_weights = s->class_weights;
  }
  s->stretch = STRETCH_LEAST;
  for (int i = 0; i < 2 && s->captured; i++) SER_TRY(rt->event_create(s->o.device, &s->ends[i], err));
  return make_pinned(s, err);
}

ser_status ser_steps_create(ser_steps **steps, const ser_steps_options *options, ser_error *err) {
  ser_steps *made = ser_alloc_zero(1, sizeof *made);
  made->o = *options;
  ser_status status = make(made, err);
  if (status != SER_OK) {
    ser_steps_free(made);
    made = NULL;
  }
  *steps = made;
  return status;
}

void ser_steps_free(ser_steps *s) {
  if (!s) return;
  const ser_runtime *rt = s->o.device->rt;
  for (int i = 0; i < 2; i++) {
    ser_replay_end(&s->replays[i], s->o.device);
    rt->event_destroy(s->ends[i]);
  }
  ser_pass_free(s->pass);
  rt->free(s->o.device, s->memory);
  rt->unpin(s->o.device, s->pinned);
  free(s);
}

void ser_steps_write_moments(ser_steps *s, const float *m, const float *v) {
  const ser_runtime *rt = s->o.device->rt;
  rt->write(s->o.streams->compute, s->m, m, (size_t)s->trained * sizeof *m);
  rt->write(s->o.streams->compute, s->v, v, (size_t)s->trained * sizeof *v);
}

/* ---- a step ------------------------------------------------------------------------------------------------------ */

typedef struct {
  ser_steps *steps;
  int64_t count; /* clips */
} one_step;

/* Everything of a step; only enqueues. */
static void enqueue_step(void *context) {
  ser_steps *s = ((const one_step *)context)->steps;
  int64_t count = ((const one_step *)context)->count;
  const ser_ops *ops = s->o.device->ops;
  ser_stream *stream = s->o.streams->compute;
  float *gradients = ser_pass_gradients(s->pass);
  ser_batch batch = {.class_weights = s->o.class_weights,
                     .seed = s->o.seed,
                     .step = s->at,
                     .label_smoothing = s->o.label_smoothing,
                     .focal_gamma = s->o.focal_gamma};
  const ser_keep left[] = {
      {s->losses, ser_pass_losses(s->pass), count, s->o.batch},
      {s->logits, ser_pass_logits(s->pass), count * s->stride, s->o.batch * s->stride},
      {s->norms, s->norm, 2, 2},
  };
  ops->step_begin(stream, s->at, &s->o.adam);
  ser_feed_take(s->o.feed, stream, &batch, s->order, s->at, s->o.batch, count, 2);
  ser_pass_forward(s->pass, stream, &batch);
  ser_pass_backward(s->pass, stream, &batch);
  ops->gradient_norm(stream, s->norm, gradients, s->trained);
  ops->adam(stream, ser_model_flat(s->o.model), s->m, s->v, gradients, s->trained, &s->o.adam, s->at);
  ops->keep(stream, left, sizeof left / sizeof *left, s->at);
}

/* A device takes steps faster than it does them. At the end of a stretch the host waits for the one before, so that the
 * device has work all the time; stretches grow to STRETCH_SECONDS. */
static ser_status stay_near(ser_steps *s, ser_error *err) {
  const ser_runtime *rt = s->o.device->rt;
  if (!s->captured || ++s->in_stretch < s->stretch) return SER_OK;
  s->in_stretch = 0;
  rt->record(s->o.streams->compute, s->ends[s->stretches++ % 2]);
  if (s->stretches == 1) return SER_OK;
  SER_TRY(rt->await(s->ends[s->stretches % 2], err));
  double now = ser_seconds();
  if (s->stretches > 2 && now - s->ended_at < STRETCH_SECONDS / 2) s->stretch *= 2;
  s->ended_at = now;
  return SER_OK;
}

void ser_steps_begin(ser_steps *s, const int32_t *order, int64_t done) {
  const ser_runtime *rt = s->o.device->rt;
  memcpy(s->order_host, order, (size_t)s->o.clips * sizeof *order);
  *s->at_host = (ser_step){.number = done, .place = -1};
  ser_streams_then_copy(s->o.streams);
  rt->write_later(s->o.streams->copies, s->order, s->order_host, (size_t)s->o.clips * sizeof *order);
  rt->write_later(s->o.streams->copies, s->at, s->at_host, sizeof *s->at_host);
  ser_streams_then_compute(s->o.streams);
  s->in_stretch = s->stretches = 0;
}

ser_status ser_steps_take(ser_steps *s, int64_t step, ser_error *err) {
  int64_t count = ser_steps_clips(s, step);
  SER_TRY(ser_feed_bring(s->o.feed, s->o.streams->compute, s->order_host + step * s->o.batch, count, err));
  SER_TRY(ser_replay_run(&s->replays[count < s->o.batch], &s->replayer, s->o.streams->compute, enqueue_step,
                         &(one_step){s, count}, err));
  return stay_near(s, err);
}

/* ---- what they left ---------------------------------------------------------------------------------------------- */

ser_steps_left ser_steps_left_of(const ser_steps *s) {
  return (ser_steps_left){s->losses_host,     s->norms_host, s->logits_host, s->stride,
                          s->parameters_host, s->m_host,     s->v_host};
}

static void read_later(ser_steps *s, float *to, const float *from, int64_t first, int64_t count) {
  s->o.device->rt->read_later(s->o.streams->copies, to + first, from + first, (size_t)count * sizeof *to);
}

ser_status ser_steps_read(ser_steps *s, int64_t from, int64_t to, ser_error *err) {
  int64_t first = from * s->o.batch, count = (to - 1) * s->o.batch + ser_steps_clips(s, to - 1) - first;
  ser_streams_then_copy(s->o.streams);
  read_later(s, s->losses_host, s->losses, first, count);
  read_later(s, s->logits_host, s->logits, first * s->stride, count * s->stride);
  read_later(s, s->norms_host, s->norms, 2 * from, 2 * (to - from));
  if (to == ser_steps_count(s)) {
    read_later(s, s->parameters_host, ser_model_flat(s->o.model), 0, s->flat);
    read_later(s, s->m_host, s->m, 0, s->trained);
    read_later(s, s->v_host, s->v, 0, s->trained);
  }
  return s->o.device->rt->sync(s->o.streams->copies, err);
}
