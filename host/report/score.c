/* Scoring windows of features: gathered and standardised as training does it, a batch at a time through the folded
 * inference. */
#include "report/score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/interrupt.h"
#include "base/memory.h"

enum { BATCH = 32 };

struct ser_scorer {
  ser_device *device;
  char *path; /* of the model */
  ser_stream *stream;
  ser_model *model;
  ser_model_info info;
  ser_inference *inference;
  float *rows, *tile, *mean, *inv_std; /* on the device */
  int64_t *start, *length;             /* [BATCH], on the device */
  float *rows_host;                    /* [BATCH * frames][channels] */
  ser_event *started;
  ser_device_work work;
};

static ser_status make(ser_scorer *s, const char *model_path, ser_error *err) {
  const ser_runtime *rt = s->device->rt;
  SER_TRY(rt->stream_create(s->device, &s->stream, err));
  SER_TRY(rt->event_create(s->device, &s->started, err));
  SER_TRY(ser_model_load(&s->model, &s->info, s->device, model_path, err));
  SER_TRY(ser_inference_create(&s->inference, s->model, s->stream, BATCH, err));
  const ser_model_config *c = &s->info.model;
  int64_t cp = SER_ROUND_UP(c->channels, SER_CHANNEL_PAD), tp = SER_ROUND_UP(c->frames, SER_TIME_PAD);
  SER_TRY(ser_device_alloc(&s->rows, s->device, (size_t)(BATCH * c->frames * c->channels) * sizeof(float), err));
  SER_TRY(ser_device_alloc(&s->tile, s->device, (size_t)(BATCH * cp * tp) * sizeof(float), err));
  SER_TRY(ser_device_alloc(&s->mean, s->device, (size_t)cp * sizeof(float), err));
  SER_TRY(ser_device_alloc(&s->inv_std, s->device, (size_t)cp * sizeof(float), err));
  SER_TRY(ser_device_alloc(&s->start, s->device, BATCH * sizeof(int64_t), err));
  SER_TRY(ser_device_alloc(&s->length, s->device, BATCH * sizeof(int64_t), err));
  s->rows_host = ser_alloc((size_t)(BATCH * c->frames * c->channels) * sizeof(float));
  rt->zero(s->stream, s->mean, (size_t)cp * sizeof(float));
  rt->zero(s->stream, s->inv_std, (size_t)cp * sizeof(float));
  rt->write(s->stream, s->mean, s->info.mean, (size_t)c->channels * sizeof(float));
  rt->write(s->stream, s->inv_std, s->info.inv_std, (size_t)c->channels * sizeof(float));
  return SER_OK;
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
  void *buffers[] = {scorer->rows, scorer->tile, scorer->mean, scorer->inv_std, scorer->start, scorer->length};
  for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) rt->free(scorer->device, buffers[i]);
  ser_inference_free(scorer->inference);
  ser_model_free(scorer->model);
  ser_model_info_free(&scorer->info);
  rt->event_destroy(scorer->started);
  rt->stream_destroy(scorer->stream);
  free(scorer->rows_host);
  free(scorer->path);
  free(scorer);
}

static ser_status run_batch(ser_scorer *s, float *probabilities, const ser_score_input *windows, int64_t count,
                            ser_error *err) {
  const ser_runtime *rt = s->device->rt;
  const ser_model_config *c = &s->info.model;
  int64_t start[BATCH], length[BATCH], rows = 0;
  for (int64_t b = 0; b < count; b++) {
    start[b] = rows;
    length[b] = windows[b].count < c->frames ? windows[b].count : c->frames;
    memcpy(s->rows_host + rows * c->channels, windows[b].rows, (size_t)(length[b] * c->channels) * sizeof(float));
    rows += length[b];
  }
  rt->write(s->stream, s->rows, s->rows_host, (size_t)(rows * c->channels) * sizeof(float));
  rt->write(s->stream, s->start, start, (size_t)count * sizeof *start);
  rt->write(s->stream, s->length, length, (size_t)count * sizeof *length);
  rt->record(s->stream, s->started);
  ser_tensor_shape shape = {1, count, c->channels, c->frames};
  s->device->ops->gather_standardise(s->stream, s->tile, s->rows, s->start, s->length, s->mean, s->inv_std, &shape);
  SER_TRY(ser_inference_run(s->inference, s->stream, probabilities, s->tile, s->length, count, err));
  s->work.batches++;
  s->work.seconds += rt->seconds(s->started, ser_inference_computed(s->inference));
  for (int64_t i = 0; i < count * c->classes; i++)
    if (!isfinite(probabilities[i]))
      return ser_fail(err, SER_FAILED,
                      "%s gives probabilities that are not finite: its weights are too large or damaged; name another "
                      "model, or train it again",
                      s->path);
  return SER_OK;
}

ser_status ser_scorer_run(ser_scorer *scorer, float *probabilities, const ser_score_input *windows, size_t count,
                          ser_error *err) {
  for (size_t first = 0; first < count; first += BATCH) {
    size_t some = count - first < BATCH ? count - first : BATCH;
    SER_TRY(ser_interrupt_check(err));
    SER_TRY(run_batch(scorer, probabilities + first * (size_t)scorer->info.model.classes, windows + first,
                      (int64_t)some, err));
  }
  return SER_OK;
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
