/* Predicting: inputs decoded ahead by workers, features and windows in batches on the device, answers in order.
 *
 *     clips -> signals, a batch of features each while the device takes more (mfcc.c)
 *           -> their windows, batches of answers (score.c) beside the next features
 *           -> a clip's answer, when all of its windows and all clips before it are answered
 *
 * Where no clip is decoded, what is under way is ended first: an answer never waits for a recording behind it. */
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

enum {
  BATCH = 32,
  BATCH_FRAMES = 8192,
  BATCHES = 3, /* of features: under way, of which two keep a device busy, and the one being filled */
  SCORING = 2, /* batches of windows under way */
};

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
  if (!p->device) {
    SER_TRY(ser_device_open(&p->device, &p->options.device, err));
    ser_device_tell(p->device, &p->options.device);
  }
  if (!p->mfcc) SER_TRY(ser_mfcc_create(&p->mfcc, p->device, &p->info.mfcc, BATCH, BATCH_FRAMES, true, err));
  if (!p->scorer) SER_TRY(ser_scorer_create(&p->scorer, p->device, p->path, err));
  return SER_OK;
}

/* ---- clips and signals ------------------------------------------------------------------------------------------- */

/* A clip on its way to its answer. */
typedef struct clip {
  struct clip *next;
  ser_decoded *decoded; /* its samples go when they are on their way to the device */
  const char *path;
  double seconds;
  int64_t units;        /* of the rule */
  size_t windows;       /* none where it is refused */
  size_t sent, scored;  /* of them */
  float *probabilities; /* [windows][classes] */
} clip;

/* Signals whose features are computed together: whole clips, or windows cut from one. */
typedef struct {
  size_t count;
  int64_t frames;
  clip *clips[BATCH];
  size_t first[BATCH], windows[BATCH]; /* of the clip, that are cut from the signal's frames */
} batch;

/* A window that the model has been asked about. */
typedef struct {
  clip *clip;
  size_t window;
} asked;

typedef struct {
  ser_predictor *p;
  const ser_audio_source *inputs;
  size_t count, taken;
  ser_answer_fn each;
  void *context;
  ser_ahead *ahead;
  ser_decoded *failed;    /* what ends the job, behind the answers of all before it */
  clip *oldest, *newest;  /* not answered */
  clip *open;             /* whose signals are not all in batches, or NULL */
  batch batches[BATCHES]; /* used in turn: those under way, then the one being filled */
  size_t first, under_way;
  asked asked[SER_SCORER_MOST * (SCORING + 1)]; /* in turn, too */
  size_t asked_first, asked_count;
  float *probabilities; /* of a batch of windows */
} job;

static double seconds_of(const ser_clip *sound) {
  if (sound->info.frames > 0 && sound->info.rate > 0) return (double)sound->info.frames / sound->info.rate;
  return sound->rate > 0 ? (double)sound->count / sound->rate : 0;
}

static void refuse_short(ser_decoded *decoded, const ser_mfcc_config *mfcc) {
  decoded->reason = SER_REASON_TOO_SHORT;
  snprintf(decoded->detail, sizeof decoded->detail, "too short: %.3f s; the model's features need at least %.3f s",
           seconds_of(&decoded->clip), (double)((ser_feature_min_frames(mfcc) - 1) * mfcc->hop) / (double)mfcc->rate);
}

static clip *clip_make(const ser_predictor *p, ser_decoded *decoded, const char *path) {
  const ser_mfcc_config *mfcc = &p->info.mfcc;
  clip *c = ser_alloc_zero(1, sizeof *c);
  int64_t have = decoded->clip.count, samples = p->by_samples && have ? mfcc->samples : have;
  *c = (clip){.decoded = decoded, .path = path, .seconds = seconds_of(&decoded->clip)};
  if (decoded->reason == SER_REASON_NONE && ser_mfcc_frames(samples, mfcc->hop) < ser_feature_min_frames(mfcc))
    refuse_short(decoded, mfcc);
  if (decoded->reason != SER_REASON_NONE) return c;
  c->units = p->by_samples ? have : ser_mfcc_frames(have, mfcc->hop);
  c->windows = ser_windows_count(&p->rule, c->units);
  c->probabilities = ser_alloc(c->windows * (size_t)p->info.model.classes * sizeof *c->probabilities);
  return c;
}

static void clip_free(clip *c) {
  ser_decoded_free(c->decoded);
  free(c->probabilities);
  free(c);
}

/* The next clip joins those that are to be answered. NULL: none is decoded, or none may come. */
static clip *take_clip(job *j, bool wait) {
  if (j->failed) return NULL;
  ser_decoded *decoded = ser_ahead_take(j->ahead, wait);
  if (!decoded) return NULL;
  if (decoded->status != SER_OK) {
    j->failed = decoded;
    return NULL;
  }
  clip *c = clip_make(j->p, decoded, j->inputs[j->taken++].path);
  if (j->oldest)
    j->newest->next = c;
  else
    j->oldest = c;
  j->newest = c;
  return c;
}

/* The clip of the next signal, among so many clips. One that is refused is not waited behind: its words may be due. */
static clip *next_signal(job *j, size_t last, bool wait) {
  while (!j->open) {
    clip *c = j->taken < last ? take_clip(j, wait) : NULL;
    if (!c) return NULL;
    if (c->windows)
      j->open = c;
    else
      wait = false;
  }
  return j->open;
}

/* As many signals as are at hand; at least one where it is to wait, unless none comes. */
static void fill(job *j, batch *b, bool wait) {
  const ser_predictor *p = j->p;
  const size_t last = j->taken + BATCH; /* however many are refused */
  b->count = 0;
  b->frames = 0;
  while (b->count < (size_t)ser_mfcc_max_clips(p->mfcc)) {
    clip *c = next_signal(j, last, wait && !b->count);
    if (!c) return;
    int64_t more = p->by_samples ? ser_mfcc_frames(p->info.mfcc.samples, p->info.mfcc.hop) : c->units;
    if (b->count && b->frames + more > ser_mfcc_max_frames(p->mfcc)) return;
    b->clips[b->count] = c;
    b->first[b->count] = c->sent;
    b->windows[b->count] = p->by_samples ? 1 : c->windows;
    c->sent += b->windows[b->count];
    if (c->sent == c->windows) j->open = NULL;
    b->frames += more;
    b->count++;
  }
}

/* ---- batches ----------------------------------------------------------------------------------------------------- */

/* The samples of signal i of the batch; *own: those of a window, to be freed. */
static ser_signal signal_of(const ser_predictor *p, const batch *b, size_t i, float **own) {
  const clip *c = b->clips[i];
  const ser_clip *whole = &c->decoded->clip;
  *own = NULL;
  if (!p->by_samples) return (ser_signal){.samples = whole->samples, .count = whole->count};
  int64_t count = ser_windows_length(&p->rule, c->units);
  *own = ser_alloc((size_t)count * sizeof **own);
  memcpy(*own, whole->samples + ser_windows_start(&p->rule, c->units, b->first[i]), (size_t)count * sizeof **own);
  ser_fit_samples(own, &count, p->info.mfcc.samples);
  return (ser_signal){.samples = *own, .count = count};
}

static ser_status submit(job *j, batch *b, ser_error *err) {
  ser_signal signals[BATCH];
  float *own[BATCH];
  for (size_t i = 0; i < b->count; i++) signals[i] = signal_of(j->p, b, i, &own[i]);
  ser_status status = ser_mfcc_submit(j->p->mfcc, signals, b->count, err);
  for (size_t i = 0; i < b->count; i++) {
    clip *c = b->clips[i];
    free(own[i]);
    if (b->first[i] + b->windows[i] == c->windows) ser_clip_free(&c->decoded->clip);
  }
  if (status == SER_OK) j->under_way++;
  return status;
}

/* The oldest batch of windows under way: their probabilities go to their clips. */
static ser_status collect_windows(job *j, ser_error *err) {
  const size_t classes = (size_t)j->p->info.model.classes, most = sizeof j->asked / sizeof *j->asked;
  size_t count;
  SER_TRY(ser_scorer_collect(j->p->scorer, j->probabilities, &count, err));
  for (size_t i = 0; i < count; i++) {
    const asked *a = &j->asked[(j->asked_first + i) % most];
    memcpy(a->clip->probabilities + a->window * classes, j->probabilities + i * classes,
           classes * sizeof *j->probabilities);
    a->clip->scored++;
  }
  j->asked_first = (j->asked_first + count) % most;
  j->asked_count -= count;
  return SER_OK;
}

static ser_status send_windows(job *j, const ser_score_input *windows, size_t count, ser_error *err) {
  SER_TRY(ser_scorer_submit(j->p->scorer, windows, count, err));
  return ser_scorer_full(j->p->scorer) ? collect_windows(j, err) : SER_OK;
}

/* The windows of a batch's features, to the model. */
static ser_status ask(job *j, const batch *b, const float *features, const int64_t *offset, ser_error *err) {
  const ser_predictor *p = j->p;
  const size_t most = sizeof j->asked / sizeof *j->asked;
  const int64_t columns = p->info.model.channels;
  ser_score_input windows[SER_SCORER_MOST];
  size_t held = 0;
  for (size_t i = 0; i < b->count; i++) {
    int64_t units = offset[i + 1] - offset[i];
    for (size_t w = 0; w < b->windows[i]; w++) {
      int64_t start = p->by_samples ? 0 : ser_windows_start(&p->rule, units, w);
      int64_t count = p->by_samples ? units : ser_windows_length(&p->rule, units);
      windows[held++] = (ser_score_input){features + (offset[i] + start) * columns, count};
      j->asked[(j->asked_first + j->asked_count++) % most] = (asked){b->clips[i], b->first[i] + w};
      if (held < ser_scorer_batch(p->scorer)) continue;
      SER_TRY(send_windows(j, windows, held, err));
      held = 0;
    }
  }
  return held ? send_windows(j, windows, held, err) : SER_OK;
}

/* The oldest batch of features under way. They hold until the next is submitted. */
static ser_status collect_features(job *j, ser_error *err) {
  const float *features;
  const int64_t *offset;
  const batch *b = &j->batches[j->first];
  SER_TRY(ser_mfcc_collect(j->p->mfcc, &features, &offset, err));
  j->first = (j->first + 1) % BATCHES;
  j->under_way--;
  return ask(j, b, features, offset, err);
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

static ser_status answer(const job *j, const clip *c, ser_error *err) {
  const ser_predictor *p = j->p;
  ser_answer given = {
      .path = c->path, .reason = c->decoded->reason, .detail = c->decoded->detail, .silent = c->decoded->silent};
  if (given.reason != SER_REASON_NONE) return j->each(j->context, &given, err);
  int64_t classes = p->info.model.classes;
  ser_span *windows = ser_alloc(c->windows * sizeof *windows);
  for (size_t w = 0; w < c->windows; w++) {
    int64_t start = ser_windows_start(&p->rule, c->units, w), end = start + ser_windows_length(&p->rule, c->units);
    set_span(&windows[w], (double)start * p->unit, w + 1 == c->windows ? c->seconds : (double)end * p->unit,
             c->probabilities + w * (size_t)classes, classes);
  }
  given.windows = windows;
  given.window_count = c->windows;
  if (c->windows == 1)
    given.whole = windows[0];
  else
    join(&given.whole, p, windows, c->windows, c->units);
  ser_status status = j->each(j->context, &given, err);
  free(windows);
  return status;
}

/* Those that are due: up to the first clip that lacks a window's. */
static ser_status give_answers(job *j, ser_error *err) {
  ser_status status = SER_OK;
  while (j->oldest && j->oldest->scored == j->oldest->windows && status == SER_OK) {
    clip *c = j->oldest;
    status = answer(j, c, err);
    j->oldest = c->next;
    clip_free(c);
  }
  return status;
}

/* ---- the job ----------------------------------------------------------------------------------------------------- */

static ser_status in_range(job *j, const char *name, ser_status (*step)(job *, ser_error *), ser_error *err) {
  j->p->device->rt->range_begin(j->p->device, name);
  ser_status status = step(j, err);
  j->p->device->rt->range_end(j->p->device);
  return status;
}

/* The batch that is filled goes on its way; one clip that is longer than a batch may need the others' room. */
static ser_status send_batch(job *j, ser_error *err) {
  batch *b = &j->batches[(j->first + j->under_way) % BATCHES];
  bool is_long = b->frames > ser_mfcc_max_frames(j->p->mfcc);
  while (j->under_way && is_long) SER_TRY(collect_features(j, err));
  return submit(j, b, err);
}

/* What has been sent for longest: features before answers, so that the device is not left idle in between. */
static ser_status collect(job *j, ser_error *err) {
  SER_TRY(j->under_way ? collect_features(j, err) : collect_windows(j, err));
  return give_answers(j, err);
}

static ser_status run(job *j, ser_error *err) {
  const ser_predictor *p = j->p;
  for (;;) {
    batch *b = &j->batches[(j->first + j->under_way) % BATCHES];
    bool busy = j->under_way || !ser_scorer_idle(p->scorer);
    p->device->rt->range_begin(p->device, "wait for clips");
    fill(j, b, !busy);
    p->device->rt->range_end(p->device);
    SER_TRY(ser_interrupt_check(err));
    SER_TRY(give_answers(j, err)); /* of those that are refused */
    if (b->count) {
      SER_TRY(in_range(j, "submit a batch", send_batch, err));
      if (!ser_mfcc_full(p->mfcc) && j->under_way + 1 < BATCHES) continue;
    } else if (!busy) {
      if (j->failed) return ser_fail(err, j->failed->status, "%s", j->failed->err.text);
      if (j->taken == j->count) return SER_OK;
      continue;
    }
    SER_TRY(in_range(j, "collect a batch", collect, err));
  }
}

/* Of a job that has not come to its end, what it has under way on the device goes with its rooms. */
static void job_end(job *j, ser_status status) {
  ser_predictor *p = j->p;
  if (status != SER_OK) {
    ser_mfcc_free(p->mfcc);
    ser_scorer_free(p->scorer);
    p->mfcc = NULL;
    p->scorer = NULL;
  }
  for (clip *c = j->oldest, *next; c; c = next) {
    next = c->next;
    clip_free(c);
  }
  ser_decoded_free(j->failed);
  ser_ahead_stop(j->ahead);
  free(j->probabilities);
  free(j);
}

ser_status ser_predict(ser_predictor *predictor, const ser_audio_source *inputs, size_t count, ser_answer_fn each,
                       void *context, ser_error *err) {
  int jobs = predictor->options.jobs > 0 ? predictor->options.jobs : ser_cores();
  job *j = ser_alloc_zero(1, sizeof *j);
  *j = (job){.p = predictor, .inputs = inputs, .count = count, .each = each, .context = context};
  j->ahead = ser_ahead_start(inputs, count, (int32_t)predictor->info.mfcc.rate, jobs);
  ser_status status = take_device(predictor, err);
  if (status == SER_OK) {
    const ser_runtime *rt = predictor->device->rt;
    j->probabilities = ser_alloc(ser_scorer_batch(predictor->scorer) * (size_t)predictor->info.model.classes *
                                 sizeof *j->probabilities);
    rt->phase(predictor->device, "predict");
    status = run(j, err);
    rt->phase(predictor->device, "predicted");
  }
  job_end(j, status);
  return status;
}
