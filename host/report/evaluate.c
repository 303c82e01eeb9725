/* Evaluating a finished run: features of the rows that count through the cache, each seed's and fold's model, a report
 * for each, and pooled ones: out-of-fold over the folds of a seed, and over seeds. Clips are scored as in training and
 * validation: the first frames up to the model's window, zeros behind. */
#include "report/evaluate.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "features/extract.h"
#include "base/log.h"
#include "report/score.h"

enum { CHUNK = SER_SCORER_MOST }; /* clips whose features are in memory at a time, at most */

typedef struct {
  ser_evaluation run;
  ser_device *device;
  ser_cache *cache;
  ser_prediction *predictions; /* of all parts, in their order */
  size_t count, capacity;
  size_t *ends; /* [parts] predictions up to and with each part */
  ser_text *said;
} job;

/* ---- features ------------------------------------------------------------------------------------------------------
 */

/* Names the rows of a given manifest that are refused there; a run's own were named when it was made. */
static void tell_refused_rows(ser_evaluation *e) {
  for (size_t i = 0; e->other && i < e->given.count; i++) {
    const ser_row *row = e->given.rows + i;
    char words[256];
    if (row->status != SER_REFUSED) continue;
    ser_row_refusal(words, row);
    ser_complain("%s: %s: %s", row->path, ser_reason_name(row->reason), words);
    e->unusable++;
  }
}

/* Extracts what the cache lacks for the usable rows, and opens it (anew, where it is open). */
static ser_status fill_cache(job *j, ser_error *err) {
  const ser_evaluation *e = &j->run;
  const ser_manifest *all = ser_evaluation_manifest(e);
  const ser_model_info *model = &e->models[0];
  ser_extract_summary summary = {0};
  ser_cache *before = j->cache;
  j->cache = NULL;
  SER_TRY(ser_cache_close(before, err));
  ser_manifest some = {.rows = ser_alloc(all->count * sizeof *some.rows)}; /* rows borrowed from `all` */
  for (size_t i = 0; i < all->count; i++)
    if (e->usable[i]) some.rows[some.count++] = all->rows[i];
  const ser_extract_feature feature = {.kind = model->feature, .mfcc = &model->mfcc};
  ser_extract_options options = {.features = &feature,
                                 .feature_count = 1,
                                 .cache_folder = e->cache,
                                 .jobs = (int)e->config.jobs,
                                 .device = j->device};
  ser_status status = ser_extract(&summary, &some, &options, err);
  ser_complain_lines(summary.refusals.data);
  if (status == SER_OK && summary.computed)
    ser_info("extract: %zu %s that the cache lacked", summary.computed, SER_PLURAL(summary.computed, "clip", "clips"));
  free(summary.refusals.data);
  free(some.rows);
  if (status != SER_OK && status != SER_PARTIAL) return status;
  return ser_feature_cache_open(&j->cache, e->cache, model->feature, &model->mfcc, false, err);
}

/* Marks the rows that count and have features. */
static ser_status get_features(job *j, ser_error *err) {
  ser_evaluation *e = &j->run;
  const ser_manifest *all = ser_evaluation_manifest(e);
  for (size_t i = 0; i < all->count; i++) {
    if (!ser_evaluation_wants(e, i, -1)) continue;
    if (ser_evaluation_label(e, &all->rows[i]) < 0)
      e->unknown++;
    else
      e->usable[i] = true;
  }
  SER_TRY(fill_cache(j, err));
  for (size_t i = 0; i < all->count; i++) {
    if (!e->usable[i] || ser_cache_find(j->cache, &all->rows[i].hash, NULL) == SER_ENTRY_OK) continue;
    e->usable[i] = false;
    e->unusable++;
  }
  return SER_OK;
}

/* A shard that rotted with its size and time kept shows only here: what it held is computed anew, once. */
static ser_status read_features(job *j, int64_t **offset, float **features, const ser_hash *keys, size_t count,
                                ser_error *err) {
  ser_error first = {0}; /* mended: nobody is to hear of it */
  ser_status status = ser_cache_read(j->cache, offset, features, keys, count, &first);
  if (status == SER_OK) return SER_OK;
  if (status != SER_FAILED || !ser_cache_damaged(j->cache)) return ser_fail(err, status, "%s", first.text);
  SER_TRY(fill_cache(j, err));
  return ser_cache_read(j->cache, offset, features, keys, count, err);
}

/* ---- one part
 * -------------------------------------------------------------------------------------------------------- */

/* A model's answers on their way: those before `answered` are there. */
typedef struct {
  ser_scorer *scorer;
  ser_prediction *predictions; /* of the part */
  size_t count, answered;
  float *probabilities; /* room for a batch */
} scoring;

/* The oldest batch under way. */
static ser_status collect(scoring *s, int64_t classes, ser_error *err) {
  size_t count;
  SER_TRY(ser_scorer_collect(s->scorer, s->probabilities, &count, err));
  for (size_t i = 0; i < count; i++) {
    const float *p = s->probabilities + i * (size_t)classes;
    ser_prediction *prediction = &s->predictions[s->answered++];
    prediction->answer = ser_best_label(p, classes);
    memcpy(prediction->probabilities, p, (size_t)classes * sizeof *p);
  }
  return SER_OK;
}

/* Sends so many clips on their way, from one on. Where the device works by itself it still has a batch to do when it
 * returns, while the features of the next clips are read. */
static ser_status send_chunk(job *j, scoring *s, size_t first, size_t count, ser_error *err) {
  const ser_manifest *manifest = ser_evaluation_manifest(&j->run);
  const ser_model_config *model = &j->run.models[0].model;
  const size_t batch = ser_scorer_batch(s->scorer);
  ser_hash keys[CHUNK];
  ser_score_input windows[CHUNK];
  int64_t *offset;
  float *features;
  for (size_t i = 0; i < count; i++) keys[i] = manifest->rows[s->predictions[first + i].row].hash;
  SER_TRY(read_features(j, &offset, &features, keys, count, err));
  for (size_t i = 0; i < count; i++)
    windows[i] = (ser_score_input){features + offset[i] * model->channels, offset[i + 1] - offset[i]};
  ser_status status = SER_OK;
  for (size_t at = 0; at < count && status == SER_OK; at += batch) {
    if (ser_scorer_full(s->scorer)) status = collect(s, model->classes, err);
    if (status == SER_OK)
      status = ser_scorer_submit(s->scorer, windows + at, count - at < batch ? count - at : batch, err);
  }
  free(features);
  free(offset);
  return status;
}

/* Chunks are of whole batches. */
static ser_status score_part(job *j, scoring *s, ser_error *err) {
  const size_t batch = ser_scorer_batch(s->scorer), chunk = CHUNK / batch * batch;
  const int64_t classes = j->run.models[0].model.classes;
  ser_status status = SER_OK;
  s->probabilities = ser_alloc(batch * (size_t)classes * sizeof *s->probabilities);
  for (size_t at = 0; at < s->count && status == SER_OK; at += chunk)
    status = send_chunk(j, s, at, s->count - at < chunk ? s->count - at : chunk, err);
  while (status == SER_OK && !ser_scorer_idle(s->scorer)) status = collect(s, classes, err);
  free(s->probabilities);
  return status;
}

/* Answers the rows of a part and appends them to the job's predictions. */
static ser_status answer_part(job *j, size_t part, ser_error *err) {
  const ser_evaluation *e = &j->run;
  const ser_manifest *manifest = ser_evaluation_manifest(e);
  size_t first = j->count;
  for (size_t i = 0; i < manifest->count; i++) {
    if (!e->usable[i] || !ser_evaluation_wants(e, i, e->parts.folds[part])) continue;
    SER_GROW(j->predictions, j->count, j->capacity);
    j->predictions[j->count++] = (ser_prediction){.row = i,
                                                  .seed = e->parts.seeds[part],
                                                  .fold = e->parts.folds[part],
                                                  .truth = ser_evaluation_label(e, &manifest->rows[i])};
  }
  j->ends[part] = j->count;
  scoring s = {.predictions = j->predictions + first, .count = j->count - first};
  char *path = ser_path_join(e->parts.folders[part], "model.safetensors");
  ser_status status = ser_scorer_create(&s.scorer, j->device, path, err);
  free(path);
  if (status == SER_OK) j->device->rt->phase(j->device, "evaluate");
  if (status == SER_OK) status = score_part(j, &s, err);
  if (status == SER_OK) j->device->rt->phase(j->device, "evaluated");
  ser_scorer_free(s.scorer);
  return status;
}

/* ---- reports
 * --------------------------------------------------------------------------------------------------------- */

/* Writes the report of so many parts from one on. */
static ser_status write_report(job *j, const char *folder, const char *title, size_t part, size_t parts,
                               ser_error *err) {
  const ser_evaluation *e = &j->run;
  size_t first = part ? j->ends[part - 1] : 0, last = j->ends[part + parts - 1];
  const char *labels[SER_EMOTIONS];
  ser_text notes = {0}, line = {0};
  int classes = ser_model_labels(labels, &e->models[0]);
  ser_evaluation_notes(&notes, e, parts);
  ser_label_notes(&notes, e, j->predictions + first, last - first);
  ser_one_answer_note(&notes, j->predictions + first, last - first, labels);
  ser_evaluation_model_line(&line, e, part, parts);
  ser_report report = {.manifest = ser_evaluation_manifest(e),
                       .predictions = j->predictions + first,
                       .count = last - first,
                       .classes = classes,
                       .labels = labels,
                       .title = title,
                       .notes = notes.data,
                       .manifest_path = e->manifest_path,
                       .model = line.data};
  ser_status status = ser_report_write(&report, folder, err);
  if (status == SER_OK) status = ser_report_say(j->said, folder, err);
  free(notes.data);
  free(line.data);
  return status;
}

static ser_status report_part(job *j, size_t part, const char *what, ser_error *err) {
  const ser_evaluation *e = &j->run;
  int fold = e->parts.folds[part];
  char *title = e->parts.count == 1 ? ser_strdup(what)
                : e->split.folds == 1
                    ? ser_format("%s, seed %lld", what, (long long)e->parts.seeds[part])
                    : ser_format("%s, seed %lld, fold %d", what, (long long)e->parts.seeds[part], fold);
  ser_status status = write_report(j, e->out_parts.folders[part], title, part, 1, err);
  free(title);
  return status;
}

/* The out-of-fold report of a seed: in RUN where it is the only one, else in RUN/seed-S. */
static ser_status report_seed(job *j, size_t seed, const char *what, ser_error *err) {
  const ser_evaluation *e = &j->run;
  size_t folds = (size_t)e->split.folds, first = seed * folds, seeds = e->parts.count / folds;
  long long number = (long long)e->parts.seeds[first];
  char *folder = seeds == 1 ? ser_strdup(e->out) : ser_format("%s/seed-%lld", e->out, number);
  char *title = seeds == 1 ? ser_format("%s, %zu folds", what, folds)
                           : ser_format("%s, seed %lld, %zu folds", what, number, folds);
  ser_status status = write_report(j, folder, title, first, folds, err);
  free(folder);
  free(title);
  return status;
}

static ser_status report_all(job *j, const char *what, ser_error *err) {
  const ser_evaluation *e = &j->run;
  size_t folds = (size_t)e->split.folds, seeds = e->parts.count / folds;
  for (size_t part = 0; part < e->parts.count; part++) SER_TRY(report_part(j, part, what, err));
  for (size_t seed = 0; seed < seeds && folds > 1; seed++) SER_TRY(report_seed(j, seed, what, err));
  if (seeds == 1) return SER_OK;
  char *title = ser_format("%s, %zu seeds", what, seeds);
  ser_status status = write_report(j, e->out, title, 0, e->parts.count, err);
  free(title);
  return status;
}

ser_status ser_evaluate_job(const char *run_folder, const char *manifest_path, const ser_device_options *device,
                            ser_text *said, bool *partial, ser_error *err) {
  job j = {.said = said};
  ser_progress *progress = NULL;
  *partial = false;
  ser_status status = ser_evaluation_open(&j.run, run_folder, manifest_path, err);
  if (status != SER_OK) goto done;
  j.ends = ser_alloc_zero(j.run.parts.count, sizeof *j.ends);
  SER_TRY_DONE(ser_device_open(&j.device, device, err));
  ser_device_tell(j.device, device);
  tell_refused_rows(&j.run);
  SER_TRY_DONE(get_features(&j, err));
  progress = ser_progress_begin("evaluate", "models", (int64_t)j.run.parts.count);
  for (size_t part = 0; part < j.run.parts.count; part++) {
    SER_TRY_DONE(answer_part(&j, part, err));
    ser_progress_add(progress, 1);
  }
  ser_progress_end(progress);
  progress = NULL;
  SER_TRY_DONE(report_all(&j, manifest_path ? ser_path_name(manifest_path) : "Test part", err));
  ser_info("evaluate: the reports stand in %s", j.run.out);
  *partial = j.run.unusable > 0;
done:
  ser_progress_end(progress);
  if (j.cache && ser_cache_close(j.cache, status == SER_OK ? err : NULL) != SER_OK && status == SER_OK)
    status = SER_FAILED;
  ser_device_close(j.device);
  ser_evaluation_free(&j.run);
  free(j.predictions);
  free(j.ends);
  return status;
}
