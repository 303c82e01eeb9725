/* One training: epochs of shuffled batches with Adam, validation with folded inference after each, the best epoch kept,
 * a checkpoint between epochs. Everything that is random is drawn from (seed, epoch) or (seed, step), so a training
 * that was cut off and resumed repeats itself to the byte.
 *
 * The last batch of an epoch is smaller where the clips do not come out even; it is a step like the others, its batch
 * norm taken over fewer clips (a single clip still gives as many values a channel as the window has frames).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "report/metrics.h"
#include "report/score.h"
#include "train/internal.h"
#include "train/steps.h"
#include "train/validation.h"

typedef struct {
  const ser_training *job;
  ser_device *device;
  ser_streams streams;
  ser_model_config config;
  size_t *train, *order; /* [train_count] clips of the dataset; an epoch's order of their places */
  int32_t *shuffled;     /* [train_count] clips in that order */
  int32_t *validation;   /* [validation_count] clips */
  size_t train_count, validation_count;
  float *mean, *inv_std;
  ser_model *model;
  ser_resident own; /* where the job brings none */
  ser_feed *feed;
  ser_steps *steps;
  ser_validation *validating;
  int32_t *truth, *answer; /* [validation_count] */
  int64_t looked_steps;    /* of this epoch, whose losses are on the host */
  ser_checkpoint state;
  char *checkpoint_path, *history_path, *model_path;
  int64_t written_epoch; /* the epoch that the checkpoint on disk holds; -1: none */
  bool kept;             /* a finished model without its checkpoint: there is nothing to train */
  double write_seconds, written_at;
} trainer;

ser_model_config ser_training_model(const ser_config *config, int64_t channels, int64_t classes) {
  return (ser_model_config){
      .branch = config->model.branch,
      .blocks = config->model.blocks,
      .filters = config->model.filters,
      .kernel = config->model.kernel,
      .channels = channels,
      .frames = ser_config_mfcc(config, config->features.kind)->frames,
      .classes = classes,
      .dropout = config->model.dropout,
      .residual = config->model.residual,
      .pool = config->model.pool,
  };
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* The settings that a training's numbers come from: features, model, training. The number of epochs is not among them:
 * a training may be resumed with more of them. */
static void settings_text(ser_text *text, const ser_config *c, int64_t seed) {
  char *features = ser_feature_json(c->features.kind, ser_config_mfcc(c, c->features.kind));
  ser_text_printf(text, "serenade training 1\n%s\nseed %lld classes %lld frames %lld\n", features, (long long)seed,
                  (long long)c->emotions, (long long)ser_config_mfcc(c, c->features.kind)->frames);
  ser_text_printf(text, "model %d %lld %lld %lld %.17g %d %d\n", c->model.branch, (long long)c->model.blocks,
                  (long long)c->model.filters, (long long)c->model.kernel, c->model.dropout, c->model.residual,
                  c->model.pool);
  ser_text_printf(text, "train %lld %.17g %.17g %.17g %.17g %.17g %d %.17g %lld %d\n", (long long)c->train.batch,
                  c->train.lr, c->train.beta1, c->train.beta2, c->train.eps, c->train.label_smoothing,
                  c->train.class_weights, c->train.focal_gamma, (long long)c->train.patience, c->train.select);
  free(features);
}

static void hash_text(char hex[SER_HASH_HEX], const ser_text *text) {
  ser_hash hash = ser_hash_bytes(text->data, text->size);
  ser_hash_hex(hex, &hash);
}

void ser_training_settings(char hex[SER_HASH_HEX], const ser_config *config, int64_t seed) {
  ser_text text = {0};
  settings_text(&text, config, seed);
  hash_text(hex, &text);
  free(text.data);
}

/* A hash over the settings, and which clips stand where with which label. */
static void identify(char hex[SER_HASH_HEX], const ser_training *job) {
  const ser_part *parts = job->split->part + (size_t)job->fold * job->split->rows;
  ser_text text = {0};
  settings_text(&text, job->config, job->seed);
  for (size_t i = 0; i < job->dataset->clips; i++) {
    ser_part part = parts[job->dataset->row[i]];
    if (part != SER_TRAIN && part != SER_VALIDATION) continue;
    const ser_hash *key = &job->manifest->rows[job->dataset->row[i]].hash;
    ser_text_add(&text, (const char *)key->bytes, sizeof key->bytes);
    ser_text_printf(&text, "%d %d\n", part, job->dataset->truth[i]);
  }
  hash_text(hex, &text);
  free(text.data);
}

/* The clips of a part of the fold, in the manifest's order. */
static size_t *list_part(const ser_training *job, ser_part part, size_t *count) {
  const ser_part *parts = job->split->part + (size_t)job->fold * job->split->rows;
  size_t *clips = ser_alloc((job->dataset->clips + 1) * sizeof *clips);
  *count = 0;
  for (size_t i = 0; i < job->dataset->clips; i++)
    if (parts[job->dataset->row[i]] == part) clips[(*count)++] = i;
  return clips;
}

static ser_status list_clips(trainer *t, ser_error *err) {
  const ser_training *job = t->job;
  SER_CHECK(job->dataset->clips <= INT32_MAX);
  t->train = list_part(job, SER_TRAIN, &t->train_count);
  size_t *validation = list_part(job, SER_VALIDATION, &t->validation_count);
  t->validation = ser_alloc((t->validation_count + 1) * sizeof *t->validation);
  for (size_t i = 0; i < t->validation_count; i++) t->validation[i] = (int32_t)validation[i];
  free(validation);
  t->order = ser_alloc((t->train_count + 1) * sizeof *t->order);
  t->shuffled = ser_alloc((t->train_count + 1) * sizeof *t->shuffled);
  if (!t->train_count)
    return ser_fail(err, SER_FAILED,
                    "%s: fold %d has no usable training clips; look at the manifest's status and at split.*",
                    job->folder, job->fold);
  if (!t->validation_count)
    ser_warn("%s: there are no validation clips, so the last epoch is kept; raise split.validation to choose one",
             job->folder);
  return SER_OK;
}

static ser_status make_steps(trainer *t, ser_error *err) {
  const ser_training *job = t->job;
  const ser_config *c = job->config;
  float weights[SER_EMOTIONS] = {0};
  if (c->train.class_weights == SER_WEIGHTS_BALANCED)
    ser_balanced_weights(weights, job->dataset, t->train, t->train_count);
  ser_steps_options options = {
      .device = t->device,
      .streams = &t->streams,
      .model = t->model,
      .feed = t->feed,
      .clips = (int64_t)t->train_count,
      .batch = c->train.batch,
      .seed = (uint64_t)job->seed,
      .adam = {(float)c->train.lr, (float)c->train.beta1, (float)c->train.beta2, (float)c->train.eps},
      .label_smoothing = (float)c->train.label_smoothing,
      .focal_gamma = (float)c->train.focal_gamma,
      .class_weights = c->train.class_weights == SER_WEIGHTS_BALANCED ? weights : NULL};
  return ser_steps_create(&t->steps, &options, err);
}

static ser_status make_validation(trainer *t, ser_error *err) {
  size_t n = t->validation_count;
  ser_validation_options options = {.device = t->device,
                                    .streams = &t->streams,
                                    .model = t->model,
                                    .feed = t->feed,
                                    .list = t->validation,
                                    .clips = (int64_t)n,
                                    .batch = t->job->config->train.batch};
  t->truth = ser_alloc((n + 1) * sizeof *t->truth);
  t->answer = ser_alloc((n + 1) * sizeof *t->answer);
  return ser_validation_create(&t->validating, &options, err);
}

static ser_status make(trainer *t, ser_error *err) {
  const ser_training *job = t->job;
  int64_t batch = job->config->train.batch;
  t->config = ser_training_model(job->config, job->dataset->channels, job->dataset->classes);
  t->checkpoint_path = ser_path_join(job->folder, "checkpoint");
  t->history_path = ser_path_join(job->folder, "history.csv");
  t->model_path = ser_path_join(job->folder, "model.safetensors");
  t->written_epoch = -1;
  SER_TRY(ser_make_folders(job->folder, err));
  SER_TRY(list_clips(t, err));
  t->mean = ser_alloc((size_t)job->dataset->channels * sizeof(float));
  t->inv_std = ser_alloc((size_t)job->dataset->channels * sizeof(float));
  ser_standardisation(t->mean, t->inv_std, job->dataset, t->train, t->train_count, t->config.frames);
  SER_TRY(ser_streams_make(&t->streams, t->device, err));
  SER_TRY(ser_model_create(&t->model, t->device, &t->config, err));
  if (!job->resident) SER_TRY(ser_resident_make(&t->own, t->device, job->dataset, err));
  SER_TRY(ser_feed_create(&t->feed, t->device, t->streams.compute, job->dataset,
                          job->resident ? job->resident : &t->own, t->mean, t->inv_std, t->config.frames, batch, err));
  SER_TRY(make_steps(t, err));
  SER_TRY(make_validation(t, err));
  ser_device_tell_products(t->device);
  ser_checkpoint_init(&t->state, ser_model_flat_count(t->model), ser_model_trained_count(t->model));
  return SER_OK;
}

static void end(trainer *t) {
  ser_stream *streams[] = {t->streams.compute, t->streams.copies};
  for (int i = 0; i < 2; i++)
    if (streams[i]) t->device->rt->sync(streams[i], NULL); /* steps may still be under way */
  ser_checkpoint_free(&t->state);
  ser_validation_free(t->validating);
  ser_steps_free(t->steps);
  ser_feed_free(t->feed);
  ser_resident_free(&t->own);
  ser_model_free(t->model);
  ser_streams_free(&t->streams);
  free(t->train);
  free(t->order);
  free(t->shuffled);
  free(t->validation);
  free(t->mean);
  free(t->inv_std);
  free(t->truth);
  free(t->answer);
  free(t->checkpoint_path);
  free(t->history_path);
  free(t->model_path);
}

/* ---- between epochs ---------------------------------------------------------------------------------------------- */

/* The parameters and moments that the epoch has left into the state, which until now is that of the one before. */
static void take_snapshot(trainer *t) {
  ser_steps_left left = ser_steps_left_of(t->steps);
  size_t trained = (size_t)t->state.trained_count * sizeof(float);
  memcpy(t->state.parameters, left.parameters, (size_t)t->state.flat_count * sizeof(float));
  memcpy(t->state.m, left.m, trained);
  memcpy(t->state.v, left.v, trained);
}

static ser_status write_history(const trainer *t, ser_error *err) {
  ser_text history = {0};
  ser_history_text(&history, t->state.history, t->state.epoch, t->job->config->train.select);
  ser_status status = ser_write_if_new(t->history_path, &history, err);
  free(history.data);
  return status;
}

static ser_status write_checkpoint(trainer *t, ser_error *err) {
  if (t->written_epoch == t->state.epoch) return SER_OK;
  double start = ser_seconds();
  SER_TRY(write_history(t, err));
  SER_TRY(ser_checkpoint_write(&t->state, t->checkpoint_path, err));
  t->written_epoch = t->state.epoch;
  t->written_at = ser_seconds();
  t->write_seconds = t->written_at - start;
  return SER_OK;
}

/* After each epoch, but so that writing never takes more than a twentieth of the time: very short epochs share one.
 * What a kill then loses is repeated exactly. */
static ser_status write_checkpoint_when_due(trainer *t, ser_error *err) {
  bool due = t->written_epoch < 0 || ser_seconds() - t->written_at >= 20 * t->write_seconds;
  return due ? write_checkpoint(t, err) : SER_OK;
}

static bool over(const trainer *t) {
  return t->kept || ser_training_over(t->state.epoch, t->state.best_epoch, t->job->config->train.epochs,
                                      t->job->config->train.patience);
}

/* The device joins those that the epochs so far were computed on. Another instruction set may round otherwise, which
 * nothing but a comparison of bytes would show. */
static void join_device(trainer *t) {
  char *here = ser_computing_name(t->device), *before = t->state.computed_on;
  if (before && strcmp(before, here))
    ser_warn("%s goes on with %s, but its epochs so far were computed with %s: its bytes may differ from those of a "
             "training that was not cut off",
             t->job->folder, here, before);
  t->state.computed_on = ser_computing_join(before, here);
  free(before);
  free(here);
}

static ser_status begin_anew(trainer *t, ser_error *err) {
  const ser_training *job = t->job;
  remove(t->model_path);
  remove(t->history_path);
  remove(t->checkpoint_path);
  t->state.seed = job->seed;
  t->state.fold = job->fold;
  join_device(t);
  return ser_model_initialise(t->model, t->streams.compute, (uint64_t)job->seed, err);
}

/* A checkpoint that this training cannot go on from, of other settings or clips (fits is false) or of more epochs: that
 * is said, and where the caller asks for it, it is trained anew. */
static ser_status cannot_go_on(trainer *t, bool fits, const char *identity, ser_error *err) {
  const ser_training *job = t->job;
  long long had = (long long)t->state.epoch, asked = (long long)job->config->train.epochs;
  char settings[SER_HASH_HEX];
  ser_training_settings(settings, job->config, job->seed);
  const char *other = !*t->state.settings                   ? "other settings or clips"
                      : strcmp(t->state.settings, settings) ? "other settings"
                                                            : "the same settings, but other clips or labels";
  if (fits && !job->anew)
    return ser_fail(err, SER_USAGE,
                    "%s has had %lld %s already, more than train.epochs=%lld asks for; ask for at least %lld, or "
                    "give another folder with -o",
                    job->folder, had, SER_PLURAL(had, "epoch", "epochs"), asked, had);
  if (!job->anew)
    return ser_fail(err, SER_USAGE,
                    "%s was trained with %s; give another folder with -o, or remove its checkpoint to train anew",
                    job->folder, other);
  if (fits)
    ser_warn("%s has had %lld %s, more than train.epochs=%lld asks for: it is trained anew", job->folder, had,
             SER_PLURAL(had, "epoch", "epochs"), asked);
  else
    ser_warn("%s was trained with %s: it is trained anew", job->folder, other);
  ser_checkpoint_free(&t->state);
  ser_checkpoint_init(&t->state, ser_model_flat_count(t->model), ser_model_trained_count(t->model));
  memcpy(t->state.identity, identity, sizeof t->state.identity);
  memcpy(t->state.settings, settings, sizeof settings);
  return begin_anew(t, err);
}

/* The parameters of the model that is there, where it is of this training, as the best ones of the state. */
static ser_status take_model(trainer *t, ser_error *err) {
  const ser_training *job = t->job;
  ser_model *model = NULL;
  ser_model_info info;
  if (ser_model_load(&model, &info, t->device, t->model_path, NULL) != SER_OK) return SER_OK; /* damaged */
  t->kept = info.seed == job->seed && info.fold == job->fold && !strcmp(info.split_hash, job->split_hash) &&
            ser_model_flat_count(model) == t->state.flat_count;
  t->state.best_epoch = info.epoch;
  ser_status status = SER_OK;
  if (t->kept)
    status = t->device->rt->read(t->streams.compute, t->state.best, ser_model_flat(model),
                                 (size_t)t->state.flat_count * sizeof(float), err);
  ser_model_free(model);
  ser_model_info_free(&info);
  return status;
}

/* A finished model needs its checkpoint only for more epochs; any other is trained from the seed. */
static ser_status begin_without_checkpoint(trainer *t, ser_error *err) {
  const ser_training *job = t->job;
  if (!ser_file_exists(t->model_path)) return begin_anew(t, err);
  if (job->finished) SER_TRY(take_model(t, err));
  if (!t->kept) {
    ser_warn("%s: there is no checkpoint to go on from, so it is trained from the first epoch", job->folder);
    t->state.best_epoch = 0;
    return begin_anew(t, err);
  }
  if (job->progress) ser_progress_found(job->progress, job->config->train.epochs * (int64_t)t->train_count);
  ser_info("%s: the finished model is kept; without a checkpoint more epochs would begin at the first", job->folder);
  return SER_OK;
}

/* From the checkpoint where there is one that fits, else from the seed. */
static ser_status begin(trainer *t, ser_error *err) {
  const ser_training *job = t->job;
  const ser_runtime *rt = t->device->rt;
  bool fits = false;
  identify(t->state.identity, job);
  ser_training_settings(t->state.settings, job->config, job->seed);
  ser_file_sweep(t->checkpoint_path);
  ser_file_sweep(t->history_path);
  ser_file_sweep(t->model_path);
  if (!ser_file_exists(t->checkpoint_path)) return begin_without_checkpoint(t, err);
  char identity[SER_HASH_HEX];
  memcpy(identity, t->state.identity, sizeof identity);
  SER_TRY(ser_checkpoint_read(&t->state, &fits, identity, t->checkpoint_path, err));
  if (!fits || t->state.epoch > job->config->train.epochs) return cannot_go_on(t, fits, identity, err);
  t->written_epoch = t->state.epoch;
  t->written_at = ser_seconds();
  if (job->progress) ser_progress_found(job->progress, t->state.epoch * (int64_t)t->train_count);
  if (over(t)) return write_history(t, err);
  ser_info("%s: goes on after epoch %lld", job->folder, (long long)t->state.epoch);
  join_device(t);
  remove(t->model_path); /* of fewer epochs, where there is one */
  rt->write(t->streams.compute, ser_model_flat(t->model), t->state.parameters,
            (size_t)t->state.flat_count * sizeof(float));
  ser_steps_write_moments(t->steps, t->state.m, t->state.v);
  return rt->sync(t->streams.compute, err);
}

/* ---- an epoch ---------------------------------------------------------------------------------------------------- */

static ser_status not_finite(const trainer *t, int64_t step, const char *what, ser_error *err) {
  int64_t epoch = t->state.epoch, number = epoch * ser_steps_count(t->steps) + step + 1;
  if (!epoch)
    return ser_fail(err, SER_FAILED,
                    "%s: the %s is not finite at step %lld (epoch 1), before the first checkpoint; lower train.lr",
                    t->job->folder, what, (long long)number);
  return ser_fail(err, SER_FAILED,
                  "%s: the %s is not finite at step %lld (epoch %lld); the last good checkpoint is %s (epoch %lld); "
                  "lower train.lr and train anew",
                  t->job->folder, what, (long long)number, (long long)epoch + 1, t->checkpoint_path, (long long)epoch);
}

/* Brings what steps [looked_steps, steps) left to the host and refuses losses and norms that are not finite. */
static ser_status look(trainer *t, int64_t steps, ser_error *err) {
  int64_t batch = t->job->config->train.batch;
  SER_TRY(ser_steps_read(t->steps, t->looked_steps, steps, err));
  ser_steps_left left = ser_steps_left_of(t->steps);
  for (int64_t step = t->looked_steps; step < steps; step++) {
    for (int64_t i = step * batch; i < step * batch + ser_steps_clips(t->steps, step); i++)
      if (!isfinite(left.losses[i])) return not_finite(t, step, "loss", err);
    if (left.norms[2 * step + 1] != 0) return not_finite(t, step, "gradient", err);
  }
  t->looked_steps = steps;
  return SER_OK;
}

static void sum_up_training(const trainer *t, ser_epoch *epoch) {
  int64_t n = (int64_t)t->train_count, right = 0, steps = ser_steps_count(t->steps);
  double loss = 0, norm = 0;
  ser_steps_left left = ser_steps_left_of(t->steps);
  for (int64_t i = 0; i < n; i++) {
    loss += (double)left.losses[i];
    right += ser_best_label(left.logits + i * left.stride, t->config.classes) == t->job->dataset->truth[t->shuffled[i]];
  }
  for (int64_t step = 0; step < steps; step++) norm += sqrt((double)left.norms[2 * step]);
  epoch->train_loss = loss / (double)n;
  epoch->train_war = (double)right / (double)n;
  epoch->gradient_norm = norm / (double)steps;
}

/* The loss is the plain mean of -log p(truth): neither smoothed nor weighted, so that it means the same whatever is
 * trained with. */
static ser_status validate(trainer *t, ser_epoch *epoch, ser_error *err) {
  epoch->validation_loss = epoch->validation_war = epoch->validation_uar = NAN;
  if (!t->validation_count) return SER_OK;
  int64_t stride, classes = t->config.classes;
  double loss = 0;
  t->device->rt->range_begin(t->device, "validation");
  ser_status answered = ser_validation_run(t->validating, ser_steps_left_of(t->steps).parameters, err);
  t->device->rt->range_end(t->device);
  SER_TRY(answered);
  const float *answers = ser_validation_answers(t->validating, &stride);
  for (size_t i = 0; i < t->validation_count; i++) {
    const float *p = answers + (int64_t)i * stride;
    int32_t truth = t->job->dataset->truth[t->validation[i]];
    if (!isfinite(p[truth])) return not_finite(t, ser_steps_count(t->steps) - 1, "validation loss", err);
    loss -= log(fmax((double)p[truth], 1e-30));
    t->truth[i] = truth;
    t->answer[i] = ser_best_label(p, classes);
  }
  ser_metrics metrics;
  ser_metrics_compute(&metrics, t->truth, t->answer, t->validation_count, (int)classes);
  epoch->validation_loss = loss / (double)t->validation_count;
  epoch->validation_war = metrics.war;
  epoch->validation_uar = metrics.uar;
  return SER_OK;
}

/* The state takes the epoch in; its parameters are those of the snapshot. */
static void record(trainer *t, const ser_epoch *epoch) {
  ser_checkpoint *s = &t->state;
  const ser_epoch *best = s->best_epoch ? &s->history[s->best_epoch - 1] : NULL;
  bool better = ser_epoch_better(epoch, best, t->job->config->train.select);
  SER_GROW(s->history, s->epoch, s->history_capacity);
  s->history[s->epoch++] = *epoch;
  s->step = s->epoch * ser_steps_count(t->steps);
  if (better) {
    s->best_epoch = s->epoch;
    memcpy(s->best, s->parameters, (size_t)s->flat_count * sizeof(float));
  }
}

static void show(const trainer *t, const ser_epoch *epoch) {
  char note[160];
  if (!t->job->progress) return;
  const char *name = t->job->name;
  int used = snprintf(note, sizeof note, "%s%sepoch %lld of %lld, loss %.4f", name ? name : "", name ? " " : "",
                      (long long)t->state.epoch, (long long)t->job->config->train.epochs, epoch->train_loss);
  if (t->validation_count)
    snprintf(note + used, sizeof note - (size_t)used, ", validation WAR %.1f UAR %.1f", 100 * epoch->validation_war,
             100 * epoch->validation_uar);
  ser_progress_note(t->job->progress, note);
}

static ser_status run_epoch(trainer *t, ser_error *err) {
  int64_t steps = ser_steps_count(t->steps), every = ser_steps_between_looks(t->steps);
  ser_epoch epoch = {0};
  t->looked_steps = 0;
  ser_shuffle(t->order, t->train_count, (uint64_t)t->job->seed, (uint64_t)t->state.epoch);
  for (size_t i = 0; i < t->train_count; i++) t->shuffled[i] = (int32_t)t->train[t->order[i]];
  ser_steps_begin(t->steps, t->shuffled, t->state.epoch * steps);
  for (int64_t step = 0; step < steps; step++) {
    SER_TRY(ser_interrupt_check(err));
    SER_TRY(ser_steps_take(t->steps, step, err));
    if ((step + 1) % every == 0 || step + 1 == steps) SER_TRY(look(t, step + 1, err));
    if (t->job->progress) ser_progress_add(t->job->progress, ser_steps_clips(t->steps, step));
  }
  sum_up_training(t, &epoch);
  SER_TRY(validate(t, &epoch, err));
  take_snapshot(t);
  record(t, &epoch);
  show(t, &epoch);
  return SER_OK;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

/* The best epoch's parameters as the model file; written only where its bytes would change. */
static ser_status write_model(trainer *t, ser_error *err) {
  const ser_training *job = t->job;
  const ser_config *c = job->config;
  ser_model_info info = {.model = t->config, .feature = c->features.kind, .mean = t->mean, .inv_std = t->inv_std};
  info.mfcc = *ser_config_mfcc(c, c->features.kind);
  info.window = c->predict.window;
  info.hop = c->predict.hop;
  info.seed = job->seed;
  info.fold = job->fold;
  info.epoch = t->state.best_epoch;
  const char *measure = c->train.select == SER_SELECT_WAR ? "validation WAR" : "validation UAR";
  snprintf(info.chosen_by, sizeof info.chosen_by, "%s",
           t->validation_count ? measure : "last epoch (no validation clips)");
  snprintf(info.manifest_hash, sizeof info.manifest_hash, "%s", job->manifest_hash);
  snprintf(info.split_hash, sizeof info.split_hash, "%s", job->split_hash);
  memcpy(info.emotions, job->dataset->emotions, sizeof info.emotions);

  ser_text file = {0};
  t->device->rt->write(t->streams.compute, ser_model_flat(t->model), t->state.best,
                       (size_t)t->state.flat_count * sizeof(float));
  ser_status status = ser_model_text(&file, t->model, t->streams.compute, &info, err);
  if (status == SER_OK) status = ser_write_if_new(t->model_path, &file, err);
  free(file.data);
  return status;
}

ser_status ser_train_one(bool *trained, ser_device *device, const ser_training *training, ser_error *err) {
  trainer t = {.job = training, .device = device};
  char *name = ser_format("train %s", training->folder);
  ser_status status;
  *trained = false;
  device->rt->range_begin(device, name);
  SER_TRY_DONE(make(&t, err));
  SER_TRY_DONE(begin(&t, err));
  device->rt->phase(device, "train");
  while (status == SER_OK && !over(&t)) {
    device->rt->range_begin(device, "epoch");
    status = run_epoch(&t, err);
    device->rt->range_end(device);
    *trained = true;
    device->rt->range_begin(device, "checkpoint");
    if (status == SER_OK) status = write_checkpoint_when_due(&t, err);
    device->rt->range_end(device);
  }
  device->rt->phase(device, "trained");
  /* Also where an epoch was cut off or went wrong: the state is still that of the last whole one. */
  if (t.state.epoch > 0) {
    ser_status written = write_checkpoint(&t, status == SER_OK ? err : NULL);
    if (status == SER_OK) status = written;
  }
  if (status == SER_OK) status = write_model(&t, err);
done:
  end(&t);
  device->rt->range_end(device);
  free(name);
  return status;
}
