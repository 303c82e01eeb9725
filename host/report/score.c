/* Scoring windows of features: gathered and standardised as training does it, a batch at a time through the folded
 * inference. A batch's rows go to the device and its answers come back on a stream for copies, from and to pinned
 * memory; the host waits once a batch. */
#include "report/score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"

enum { BATCH = 32 };

/* The windows of a batch: one stretch of memory on the device and on the host alike, so that one copy brings it. */
typedef struct {
  int64_t *start, *length; /* [batch] */
  float *rows;             /* [batch * frames][channels] */
} windows_place;

struct ser_scorer {
  ser_device *device;
  char *path; /* of the model */
  ser_stream *copies, *compute;
  ser_event *copied, *computed, *done;
  ser_model *model;
  ser_model_info info;
  int64_t batch;
  ser_inference *inference;
  float *tile, *mean, *inv_std, *answers; /* on the device; answers [batch][ser_inference_stride] */
  void *brought, *pinned;
  windows_place there, here;
  float *answers_here; /* pinned */
  bool graphs;
  ser_graph *full; /* what the device does for a full batch, from the first one on; NULL where there are no graphs */
  ser_event *started;
  ser_device_work work;
};

/* Lays the windows out in memory that begins at `base`; the bytes. */
static size_t place(windows_place *windows, const ser_scorer *s, char *base) {
  const ser_model_config *c = &s->info.model;
  size_t list = SER_ROUND_UP((size_t)s->batch * sizeof(int64_t), 64);
  *windows = (windows_place){(int64_t *)base, (int64_t *)(base + list), (float *)(base + 2 * list)};
  return 2 * list + (size_t)(s->batch * c->frames * c->channels) * sizeof(float);
}

static void rooms_free(ser_scorer *s) {
  const ser_runtime *rt = s->device->rt;
  rt->graph_destroy(s->full);
  rt->free(s->device, s->brought);
  rt->free(s->device, s->tile);
  rt->free(s->device, s->answers);
  rt->unpin(s->device, s->pinned);
  rt->unpin(s->device, s->answers_here);
  ser_inference_free(s->inference);
  s->full = NULL;
  s->brought = s->pinned = NULL;
  s->tile = s->answers = s->answers_here = NULL;
  s->inference = NULL;
}

/* Room for batches of s->batch windows. */
static ser_status rooms_make(ser_scorer *s, ser_error *err) {
  const ser_runtime *rt = s->device->rt;
  const ser_model_config *c = &s->info.model;
  int64_t cp = SER_ROUND_UP(c->channels, SER_CHANNEL_PAD), tp = SER_ROUND_UP(c->frames, SER_TIME_PAD);
  SER_TRY(ser_inference_create(&s->inference, s->model, s->compute, s->batch, err));
  size_t windows = place(&s->there, s, NULL);
  size_t answers = (size_t)(s->batch * ser_inference_stride(s->inference)) * sizeof(float);
  SER_TRY(ser_device_alloc(&s->brought, s->device, windows, err));
  SER_TRY(ser_device_alloc(&s->tile, s->device, (size_t)(s->batch * cp * tp) * sizeof(float), err));
  SER_TRY(ser_device_alloc(&s->answers, s->device, answers, err));
  if (!(s->pinned = rt->pin(s->device, windows, err))) return SER_FAILED;
  if (!(s->answers_here = rt->pin(s->device, answers, err))) return SER_FAILED;
  place(&s->there, s, s->brought);
  place(&s->here, s, s->pinned);
  return SER_OK;
}

/* Halves the batch until it fits. */
static ser_status rooms_that_fit(ser_scorer *s, ser_error *err) {
  ser_status status;
  s->batch = BATCH;
  while ((status = rooms_make(s, err)) == SER_FAILED && s->batch > 1) {
    rooms_free(s);
    s->batch /= 2;
  }
  if (status == SER_OK && s->batch < BATCH)
    ser_info("little of the device's memory is free: windows are scored in batches of %lld, not of %d",
             (long long)s->batch, BATCH);
  return status;
}

static ser_status make(ser_scorer *s, const char *model_path, ser_error *err) {
  const ser_runtime *rt = s->device->rt;
  ser_device_properties properties;
  rt->properties(s->device, &properties);
  s->graphs = properties.graphs;
  SER_TRY(rt->stream_create(s->device, &s->copies, err));
  SER_TRY(rt->stream_create(s->device, &s->compute, err));
  SER_TRY(rt->event_create(s->device, &s->copied, err));
  SER_TRY(rt->event_create(s->device, &s->computed, err));
  SER_TRY(rt->event_create(s->device, &s->done, err));
  SER_TRY(rt->event_create(s->device, &s->started, err));
  SER_TRY(ser_model_load(&s->model, &s->info, s->device, model_path, err));
  const ser_model_config *c = &s->info.model;
  size_t channels = (size_t)c->channels, padded = SER_ROUND_UP(channels, SER_CHANNEL_PAD);
  SER_TRY(ser_device_alloc(&s->mean, s->device, padded * sizeof(float), err));
  SER_TRY(ser_device_alloc(&s->inv_std, s->device, padded * sizeof(float), err));
  rt->zero(s->compute, s->mean, padded * sizeof(float));
  rt->zero(s->compute, s->inv_std, padded * sizeof(float));
  rt->write(s->compute, s->mean, s->info.mean, channels * sizeof(float));
  rt->write(s->compute, s->inv_std, s->info.inv_std, channels * sizeof(float));
  return rooms_that_fit(s, err);
}

ser_status ser_scorer_create(ser_scorer **scorer, ser_device *device, const char *model_path, ser_error *err) {
  ser_scorer *made = ser_alloc_zero(1, sizeof *made);
  made->device = device;
  made->path = ser_strdup(model_path);
  ser_status status = make(made, model_path, err);
  if (status != SER_OK) {
    ser_scorer_free(made);
    made = NULL;
  }
  *scorer = made;
  return status;
}

void ser_scorer_free(ser_scorer *scorer) {
  if (!scorer) return;
  const ser_runtime *rt = scorer->device->rt;
  if (scorer->compute) rt->sync(scorer->compute, NULL);
  rooms_free(scorer);
  rt->free(scorer->device, scorer->mean);
  rt->free(scorer->device, scorer->inv_std);
  ser_model_free(scorer->model);
  ser_model_info_free(&scorer->info);
  rt->event_destroy(scorer->started);
  rt->event_destroy(scorer->copied);
  rt->event_destroy(scorer->computed);
  rt->event_destroy(scorer->done);
  rt->stream_destroy(scorer->copies);
  rt->stream_destroy(scorer->compute);
  free(scorer->path);
  free(scorer);
}

/* The windows' rows end to end in pinned memory; the bytes that are used, from the first list to the last row. */
static size_t gather(const ser_scorer *s, const ser_score_input *windows, int64_t count) {
  const ser_model_config *c = &s->info.model;
  int64_t rows = 0;
  for (int64_t b = 0; b < count; b++) {
    s->here.start[b] = rows;
    s->here.length[b] = windows[b].count < c->frames ? windows[b].count : c->frames;
    memcpy(s->here.rows + rows * c->channels, windows[b].rows,
           (size_t)(s->here.length[b] * c->channels) * sizeof(float));
    rows += s->here.length[b];
  }
  return (size_t)((char *)(s->here.rows + rows * c->channels) - (char *)s->pinned);
}

static void enqueue_batch(ser_scorer *s, int64_t count) {
  const ser_model_config *c = &s->info.model;
  ser_tensor_shape shape = {1, count, c->channels, c->frames};
  s->device->ops->gather_standardise(s->compute, s->tile, s->there.rows, s->there.start, s->there.length, s->mean,
                                     s->inv_std, &shape);
  ser_inference_enqueue(s->inference, s->compute, s->answers, s->tile, s->there.length, count);
}

/* A full batch has the same operations on the same memory each time: one launch. */
static ser_status compute_batch(ser_scorer *s, int64_t count, ser_error *err) {
  const ser_runtime *rt = s->device->rt;
  if (!s->graphs || count < s->batch) {
    enqueue_batch(s, count);
    return SER_OK;
  }
  if (!s->full) {
    SER_TRY(rt->graph_begin(s->compute, err));
    enqueue_batch(s, count);
    SER_TRY(rt->graph_end(s->compute, &s->full, err));
  }
  rt->graph_launch(s->compute, s->full);
  return SER_OK;
}

static ser_status run_batch(ser_scorer *s, float *probabilities, const ser_score_input *windows, int64_t count,
                            ser_error *err) {
  const ser_runtime *rt = s->device->rt;
  const ser_model_config *c = &s->info.model;
  int64_t stride = ser_inference_stride(s->inference);
  rt->write_later(s->copies, s->brought, s->pinned, gather(s, windows, count));
  rt->record(s->copies, s->copied);
  rt->follow(s->compute, s->copied);
  rt->record(s->compute, s->started);
  SER_TRY(compute_batch(s, count, err));
  rt->record(s->compute, s->computed);
  rt->follow(s->copies, s->computed);
  rt->read_later(s->copies, s->answers_here, s->answers, (size_t)(count * stride) * sizeof(float));
  rt->record(s->copies, s->done);
  SER_TRY(rt->await(s->done, err));
  s->work.batches++;
  s->work.seconds += rt->seconds(s->started, s->computed);
  for (int64_t i = 0; i < count * c->classes; i++) {
    probabilities[i] = s->answers_here[i / c->classes * stride + i % c->classes];
    if (!isfinite(probabilities[i]))
      return ser_fail(err, SER_FAILED,
                      "%s gives probabilities that are not finite: its weights are too large or damaged; name another "
                      "model, or train it again",
                      s->path);
  }
  return SER_OK;
}

ser_status ser_scorer_run(ser_scorer *scorer, float *probabilities, const ser_score_input *windows, size_t count,
                          ser_error *err) {
  size_t most = (size_t)scorer->batch;
  ser_status status = SER_OK;
  scorer->device->rt->range_begin(scorer->device, "score windows");
  for (size_t first = 0; first < count && status == SER_OK; first += most) {
    size_t some = count - first < most ? count - first : most;
    status = ser_interrupt_check(err);
    if (status == SER_OK)
      status = run_batch(scorer, probabilities + first * (size_t)scorer->info.model.classes, windows + first,
                         (int64_t)some, err);
  }
  scorer->device->rt->range_end(scorer->device);
  return status;
}

ser_device_work ser_scorer_work(const ser_scorer *scorer) {
  return scorer->work;
}

int32_t ser_best_label(const float *probabilities, int64_t classes) {
  int32_t best = 0;
  for (int32_t c = 1; c < classes; c++)
    if (probabilities[c] > probabilities[best]) best = c;
  return best;
}

int ser_model_labels(const char *labels[SER_EMOTIONS], const ser_model_info *info) {
  for (int64_t c = 0; c < info->model.classes; c++) labels[c] = ser_emotion_names[info->emotions[c]];
  return (int)info->model.classes;
}
