/* Predicting: inputs decoded ahead by workers, features and windows in batches on the device, answers in order. */
#include "report/predict.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/interrupt.h"
#include "base/threads.h"
#include "features/features.h"
#include "report/decode_ahead.h"
#include "report/score.h"
#include "report/windows.h"

enum { BATCH = 32, BATCH_FRAMES = 8192 };

struct ser_predictor {
  ser_predict_options options;
  char *path;
  ser_model_info info;
  bool by_samples; /* windows are cut from the signal, else from the frames */
  ser_window_rule rule;
  double unit; /* seconds of a unit of the rule */
  ser_device *device;
  ser_mfcc *mfcc;
  ser_scorer *scorer;
};

/* ---- the model and its windows ----------------------------------------------------------------------------------- */

static ser_status find_model(ser_predictor *p, ser_error *err) {
  SER_TRY(ser_model_find(&p->path, p->options.model, err));
  return ser_model_load(NULL, &p->info, NULL, p->path, err);
}

/* The rule of windows from seconds; what would skip sound or does not fit the model is refused. */
static ser_status make_rule(ser_predictor *p, ser_error *err) {
  const ser_mfcc_config *mfcc = &p->info.mfcc;
  double window = p->options.window < 0 ? p->info.window : p->options.window;
  double hop = p->options.hop < 0 ? p->info.hop : p->options.hop;
  p->by_samples = mfcc->samples > 0;
  p->rule.limit = p->by_samples ? mfcc->samples : p->info.model.frames;
  p->unit = (double)(p->by_samples ? 1 : mfcc->hop) / (double)mfcc->rate;
  double own = (double)p->rule.limit * p->unit;
  if (window > own + p->unit / 2)
    return ser_fail(err, SER_USAGE, "the window of %g s is longer than the model's own, %.4g s; give at most that",
                    window, own);
  if (window > 0 && window < ser_config_least_window(mfcc))
    return ser_fail(err, SER_USAGE,
                    "the window of %g s is shorter than the model's features need, %g s; give at least that", window,
                    ser_config_least_window(mfcc));
  p->rule.length = window > 0 ? llround(window / p->unit) : p->rule.limit;
  if (hop > (double)p->rule.length * p->unit + p->unit / 2)
    return ser_fail(err, SER_USAGE,
                    "the hop of %g s is longer than the window, %.4g s: sound between windows would go unheard; "
                    "give at most that",
                    hop, (double)p->rule.length * p->unit);
  p->rule.hop = hop > 0 ? llround(hop / p->unit) : p->rule.length / 2;
  if (p->rule.hop < 1) p->rule.hop = 1;
  if (p->rule.hop > p->rule.length) p->rule.hop = p->rule.length;
  return SER_OK;
}

ser_status ser_predictor_open(ser_predictor **predictor, const ser_predict_options *options, ser_error *err) {
  ser_predictor *made = ser_alloc_zero(1, sizeof *made);
  made->options = *options;
  ser_status status = find_model(made, err);
  if (status == SER_OK) status = make_rule(made, err);
  if (status != SER_OK) {
    ser_predictor_close(made);
    made = NULL;
  }
  *predictor = made;
  return status;
}

void ser_predictor_close(ser_predictor *predictor) {
  if (!predictor) return;
  ser_scorer_free(predictor->scorer);
  ser_mfcc_free(predictor->mfcc);
  ser_device_close(predictor->device);
  ser_model_info_free(&predictor->info);
  free(predictor->path);
  free(predictor);
}

int ser_predictor_labels(const ser_predictor *predictor, const char *labels[SER_EMOTIONS]) {
  return ser_model_labels(labels, &predictor->info);
}

const ser_device *ser_predictor_device(const ser_predictor *predictor) {
  return predictor->device;
}

ser_device_work ser_predictor_work(const ser_predictor *predictor) {
  ser_device_work work = {0};
  if (predictor->mfcc) work = ser_mfcc_work(predictor->mfcc);
  if (predictor->scorer) work.seconds += ser_scorer_work(predictor->scorer).seconds;
  return work;
}

static ser_status take_device(ser_predictor *p, ser_error *err) {
  if (!p->device) SER_TRY(ser_device_open(&p->device, &p->options.device, err));
  if (!p->mfcc) SER_TRY(ser_mfcc_create(&p->mfcc, p->device, &p->info.mfcc, BATCH, BATCH_FRAMES, err));
  if (!p->scorer) SER_TRY(ser_scorer_create(&p->scorer, p->device, p->path, err));
  return SER_OK;
}

/* ---- a batch ----------------------------------------------------------------------------------------------------- */

/* Clips that are answered together, and the windows of all of them end to end. */
typedef struct {
  size_t count;
  ser_decoded *clips[BATCH];
  const char *paths[BATCH];
  size_t first[BATCH + 1]; /* window of each clip; a refused clip has none */
  float *probabilities;    /* [first[count]][classes] */
} batch;

static double seconds_of(const ser_clip *clip) {
  if (clip->info.frames > 0 && clip->info.rate > 0) return (double)clip->info.frames / clip->info.rate;
  return clip->rate > 0 ? (double)clip->count / clip->rate : 0;
}

static void refuse_short(ser_decoded *clip, const ser_mfcc_config *mfcc) {
  clip->reason = SER_REASON_TOO_SHORT;
  snprintf(clip->detail, sizeof clip->detail, "too short: %.3f s; the model's features need at least %.3f s",
           seconds_of(&clip->clip), (double)((ser_feature_min_frames(mfcc) - 1) * mfcc->hop) / (double)mfcc->rate);
}

/* How many units of the rule a usable clip has. */
static int64_t units_of(const ser_predictor *p, const ser_decoded *clip) {
  return p->by_samples ? clip->clip.count : ser_mfcc_frames(clip->clip.count, p->info.mfcc.hop);
}

static void count_windows(const ser_predictor *p, batch *b) {
  int64_t least = ser_feature_min_frames(&p->info.mfcc);
  b->first[0] = 0;
  for (size_t i = 0; i < b->count; i++) {
    ser_decoded *clip = b->clips[i];
    int64_t samples = p->by_samples && clip->clip.count ? p->info.mfcc.samples : clip->clip.count;
    if (clip->reason == SER_REASON_NONE && ser_mfcc_frames(samples, p->info.mfcc.hop) < least)
      refuse_short(clip, &p->info.mfcc);
    size_t windows = clip->reason == SER_REASON_NONE ? ser_windows_count(&p->rule, units_of(p, clip)) : 0;
    b->first[i + 1] = b->first[i] + windows;
  }
}

/* Features of the whole clips, windows cut from their frames. */
static ser_status score_frames(ser_predictor *p, batch *b, ser_error *err) {
  const float *samples[BATCH];
  int64_t counts[BATCH], offset[BATCH + 1], columns = p->info.model.channels;
  for (size_t i = 0; i < b->count; i++) {
    samples[i] = b->clips[i]->clip.samples;
    counts[i] = b->clips[i]->reason == SER_REASON_NONE ? b->clips[i]->clip.count : 0;
  }
  float *features;
  SER_TRY(ser_mfcc_compute(p->mfcc, &features, offset, samples, counts, b->count, err));
  ser_score_input *windows = ser_alloc(b->first[b->count] * sizeof *windows);
  for (size_t i = 0; i < b->count; i++) {
    int64_t units = offset[i + 1] - offset[i];
    for (size_t w = 0; w < b->first[i + 1] - b->first[i]; w++)
      windows[b->first[i] + w] =
          (ser_score_input){features + (offset[i] + ser_windows_start(&p->rule, units, w)) * columns,
                            ser_windows_length(&p->rule, units)};
  }
  ser_status status = ser_scorer_run(p->scorer, b->probabilities, windows, b->first[b->count], err);
  free(windows);
  free(features);
  return status;
}

/* Some windows of the signal, each fitted to the preset's number of samples, with features of its own. */
static ser_status score_signals(ser_predictor *p, float *probabilities, float **signals, const int64_t *counts,
                                size_t count, ser_error *err) {
  int64_t offset[BATCH + 1];
  ser_score_input windows[BATCH];
  float *features;
  SER_TRY(ser_mfcc_compute(p->mfcc, &features, offset, (const float *const *)signals, counts, count, err));
  for (size_t i = 0; i < count; i++)
    windows[i] = (ser_score_input){features + offset[i] * p->info.model.channels, offset[i + 1] - offset[i]};
  ser_status status = ser_scorer_run(p->scorer, probabilities, windows, count, err);
  free(features);
  return status;
}

/* Windows cut from the signal, a batch of them at a time: the windows of a long clip may be many. */
static ser_status score_samples(ser_predictor *p, batch *b, ser_error *err) {
  float *signals[BATCH];
  int64_t counts[BATCH];
  size_t held = 0, done = 0;
  ser_status status = SER_OK;
  for (size_t i = 0; i < b->count && status == SER_OK; i++) {
    const ser_clip *clip = &b->clips[i]->clip;
    for (size_t w = 0; w < b->first[i + 1] - b->first[i] && status == SER_OK; w++) {
      counts[held] = ser_windows_length(&p->rule, clip->count);
      signals[held] = ser_alloc((size_t)counts[held] * sizeof(float));
      memcpy(signals[held], clip->samples + ser_windows_start(&p->rule, clip->count, w),
             (size_t)counts[held] * sizeof(float));
      ser_fit_samples(&signals[held], &counts[held], p->info.mfcc.samples);
      held++;
      if (held < BATCH && done + held < b->first[b->count]) continue;
      status = score_signals(p, b->probabilities + done * (size_t)p->info.model.classes, signals, counts, held, err);
      done += held;
      while (held) free(signals[--held]);
    }
  }
  return status;
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static void set_span(ser_span *span, double start, double end, const float *probabilities, int64_t classes) {
  *span = (ser_span){.start = start, .end = end, .label = ser_best_label(probabilities, classes)};
  memcpy(span->probabilities, probabilities, (size_t)classes * sizeof *probabilities);
}

/* The mean of the windows' probabilities, each moment of the clip counting once. */
static void join(ser_span *whole, const ser_predictor *p, const ser_span *windows, size_t count, int64_t units) {
  double *weights = ser_alloc(count * sizeof *weights);
  float joined[SER_EMOTIONS] = {0};
  ser_windows_weights(weights, &p->rule, units);
  for (int64_t c = 0; c < p->info.model.classes; c++) {
    double sum = 0;
    for (size_t w = 0; w < count; w++) sum += weights[w] * (double)windows[w].probabilities[c];
    joined[c] = (float)sum;
  }
  set_span(whole, windows[0].start, windows[count - 1].end, joined, p->info.model.classes);
  free(weights);
}

static ser_status answer(const ser_predictor *p, const batch *b, size_t i, ser_answer_fn each, void *context,
                         ser_error *err) {
  ser_answer given = {
      .path = b->paths[i], .reason = b->clips[i]->reason, .detail = b->clips[i]->detail, .silent = b->clips[i]->silent};
  if (given.reason != SER_REASON_NONE) return each(context, &given, err);
  size_t count = b->first[i + 1] - b->first[i];
  int64_t units = units_of(p, b->clips[i]), classes = p->info.model.classes;
  double seconds = seconds_of(&b->clips[i]->clip);
  ser_span *windows = ser_alloc(count * sizeof *windows);
  for (size_t w = 0; w < count; w++) {
    int64_t start = ser_windows_start(&p->rule, units, w), end = start + ser_windows_length(&p->rule, units);
    set_span(&windows[w], (double)start * p->unit, w + 1 == count ? seconds : (double)end * p->unit,
             b->probabilities + (b->first[i] + w) * (size_t)classes, classes);
  }
  given.windows = windows;
  given.window_count = count;
  if (count == 1)
    given.whole = windows[0];
  else
    join(&given.whole, p, windows, count, units);
  ser_status status = each(context, &given, err);
  free(windows);
  return status;
}

static ser_status answer_batch(ser_predictor *p, batch *b, ser_answer_fn each, void *context, ser_error *err) {
  for (size_t i = 0; i < b->count; i++)
    if (b->clips[i]->status != SER_OK) return ser_fail(err, b->clips[i]->status, "%s", b->clips[i]->err.text);
  count_windows(p, b);
  b->probabilities = ser_alloc(b->first[b->count] * (size_t)p->info.model.classes * sizeof(float));
  ser_status status = p->by_samples ? score_samples(p, b, err) : score_frames(p, b, err);
  for (size_t i = 0; i < b->count && status == SER_OK; i++) status = answer(p, b, i, each, context, err);
  free(b->probabilities);
  return status;
}

/* As many clips as are decoded, at least one: waiting for a full batch would leave the device idle. */
static void fill(batch *b, ser_ahead *ahead, const ser_audio_source *inputs, size_t done) {
  int64_t samples = 0;
  for (b->count = 0; b->count < BATCH; b->count++) {
    if (samples > (int64_t)BATCH_FRAMES * 512) return;
    ser_decoded *next = ser_ahead_take(ahead, b->count == 0);
    if (!next) return;
    b->clips[b->count] = next;
    b->paths[b->count] = inputs[done + b->count].path;
    samples += next->clip.count;
  }
}

ser_status ser_predict(ser_predictor *predictor, const ser_audio_source *inputs, size_t count, ser_answer_fn each,
                       void *context, ser_error *err) {
  int jobs = predictor->options.jobs > 0 ? predictor->options.jobs : ser_cores();
  ser_ahead *ahead = ser_ahead_start(inputs, count, (int32_t)predictor->info.mfcc.rate, jobs);
  ser_status status = take_device(predictor, err);
  batch b;
  const ser_runtime *rt = predictor->device ? predictor->device->rt : NULL;
  if (status == SER_OK) rt->phase(predictor->device, "predict");
  for (size_t done = 0; done < count && status == SER_OK; done += b.count) {
    rt->range_begin(predictor->device, "wait for clips");
    fill(&b, ahead, inputs, done);
    rt->range_end(predictor->device);
    status = ser_interrupt_check(err);
    rt->range_begin(predictor->device, "answer a batch");
    if (status == SER_OK) status = answer_batch(predictor, &b, each, context, err);
    rt->range_end(predictor->device);
    for (size_t i = 0; i < b.count; i++) ser_decoded_free(b.clips[i]);
  }
  if (rt) rt->phase(predictor->device, "predicted");
  ser_ahead_stop(ahead);
  return status;
}
