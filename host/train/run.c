/* The training job: the run folder, the split, the features that are missing, then every seed and fold. As many
 * trainings run side by side as the device says, with the threads shared out between them; what is left over when they
 * do not come out even gets all threads. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "features/extract.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "train/feed.h"
#include "train/internal.h"

typedef struct {
  const ser_train_options *options;
  const ser_config *config;
  ser_manifest manifest;
  ser_split split;
  ser_dataset dataset;
  ser_run_parts parts;
  char manifest_hash[SER_HASH_HEX], split_hash[SER_HASH_HEX];
  char *cache_folder;
  int cores;
  int side_by_side; /* trainings at a time, as the device has it */
  /* What the first device that was opened turned out to be: all others of the job are to be like it. */
  ser_device_kind kind;
  ser_conv_choice conv; /* as the device has chosen, where that was left to it */
  bool host_memory;     /* its operations read the dataset where it is */
  ser_device *holder;   /* else: the device that holds it for all trainings */
  ser_resident resident;
  ser_progress *progress;
} job;

/* ---- what stands in the run folder beside the trainings -----------------------------------------------------------
 */

/* The backends and instruction sets that the run was started on up to now: config.yaml keeps the list from one start to
 * the next. NULL where nothing was started. */
static ser_status read_starts(char **list, const char *folder, ser_error *err) {
  static const char mark[] = "\n# started on: ";
  char *path = ser_path_join(folder, "config.yaml"), *before = NULL;
  size_t size = 0;
  ser_status status = ser_file_exists(path) ? ser_file_read(&before, &size, path, err) : SER_OK;
  char *line = before ? strstr(before, mark) : NULL;
  if (line) line += sizeof mark - 1;
  if (line) line[strcspn(line, "\n")] = 0;
  *list = line ? ser_strdup(line) : NULL;
  free(before);
  free(path);
  return status;
}

bool ser_run_of_cpu(const char *folder) {
  static const char cpu[] = "cpu ";
  char *starts = NULL;
  bool only = read_starts(&starts, folder, NULL) == SER_OK && starts;
  for (const char *at = starts; only && at; at = strstr(at, ", "), at = at ? at + 2 : NULL)
    only = !strncmp(at, cpu, sizeof cpu - 1);
  free(starts);
  return only;
}

/* How the run's convolutions were done on such a device before: what goes on is to give the bytes that it would have
 * given, and another measurement may choose otherwise. */
static ser_conv_choice conv_before(const char *starts, const ser_device_properties *is) {
  static const ser_conv_choice forms[] = {SER_CONV_FUSED, SER_CONV_CUDNN};
  static const char *const names[] = {"fused", "cudnn"};
  for (int i = 0; i < 2; i++) {
    char *name = ser_computing_words(is, names[i]);
    bool there = ser_computing_has(starts, name);
    free(name);
    if (there) return forms[i];
  }
  return SER_CONV_AUTO;
}

/* The device measures what is left to it; all trainings then run their convolutions in the same way. */
static ser_status open_chosen(ser_device **device, const job *j, const char *starts, ser_error *err) {
  const ser_config *c = j->config;
  ser_device_options asked = ser_config_device(c, j->cores);
  ser_device_properties is;
  SER_TRY(ser_device_open(device, &asked, err));
  (*device)->rt->properties(*device, &is);
  ser_conv_choice before = strcmp(is.conv, "auto") ? SER_CONV_AUTO : conv_before(starts, &is);
  if (before != SER_CONV_AUTO) {
    ser_device_close(*device);
    asked.conv = before;
    return ser_device_open(device, &asked, err);
  }
  ser_model_config model = ser_training_model(c, 1, 1);
  ser_conv_shape shape = ser_model_conv(&model, c->train.batch);
  ser_status status = ser_device_choose_conv(*device, &shape, err);
  if (status != SER_OK) {
    ser_device_close(*device);
    *device = NULL;
  }
  return status;
}

/* A further device of the job, with so many threads. */
static ser_device_options like_first(const job *j, int threads) {
  ser_device_options asked = ser_config_device(j->config, threads);
  asked.kind = j->kind;
  asked.conv = j->conv;
  return asked;
}

static ser_conv_choice conv_of(const ser_device_properties *properties, ser_conv_choice asked) {
  if (!strcmp(properties->conv, "cudnn")) return SER_CONV_CUDNN;
  return strcmp(properties->conv, "fused") ? asked : SER_CONV_FUSED;
}

/* TF32 is the libraries': what kernels of ours compute stays FP32, and somebody who asked for it is to know. */
static void tell_precision(const ser_device_properties *is) {
  if (!strcmp(is->precision, "tf32") && !strcmp(is->conv, "fused"))
    ser_info("precision tf32: the fused convolutions compute in FP32 all the same; with conv: cudnn they use it");
}

/* config.yaml: every key resolved, and as comments what was chosen at run time. The device is asked here for all. */
static ser_status write_config(job *j, ser_error *err) {
  ser_text yaml = {0};
  ser_device *device = NULL;
  ser_device_properties properties;
  char *before = NULL, *path = NULL;
  ser_status status;
  SER_TRY_DONE(read_starts(&before, j->options->folder, err));
  SER_TRY_DONE(open_chosen(&device, j, before, err));
  device->rt->properties(device, &properties);
  j->kind = properties.host_memory ? SER_DEVICE_CPU : SER_DEVICE_CUDA;
  tell_precision(&properties);
  j->conv = conv_of(&properties, j->config->conv);
  j->side_by_side = properties.trainings;
  j->host_memory = properties.host_memory;
  char *here = ser_computing_name(device), *starts = ser_computing_join(before, here);
  ser_device_close(device);
  ser_config_write(&yaml, j->config);
  ser_text_printf(&yaml,
                  "# chosen at run time\n# device: %s (%s)\n# %s: %s\n# %s: %d\n# precision: %s\n"
                  "# convolutions: %s\n# started on: %s\n",
                  properties.backend, properties.name, j->host_memory ? "instruction set" : "architecture",
                  properties.isa, j->host_memory ? "threads" : "multiprocessors", properties.threads,
                  properties.precision, properties.conv, starts);
  path = ser_path_join(j->options->folder, "config.yaml");
  status = ser_write_if_new(path, &yaml, err);
  free(here);
  free(starts);
done:
  free(path);
  free(before);
  free(yaml.data);
  return status;
}

static ser_status begin_folder(job *j, ser_error *err) {
  const char *folder = j->options->folder;
  char *config = ser_path_join(folder, "config.yaml");
  bool exists = ser_file_exists(config);
  free(config);
  if (exists && !j->options->resume)
    return ser_fail(err, SER_USAGE, "%s holds a run already; add --resume to go on with it, or give another folder",
                    folder);
  SER_TRY(ser_make_folders(folder, err));
  return write_config(j, err);
}

/* split.txt: what the reports are to say of the split and its parts do not show. Where there is nothing, no file. */
static ser_status keep_notes(const job *j, ser_error *err) {
  char *path = ser_path_join(j->options->folder, "split.txt");
  ser_status status = SER_OK;
  if (j->split.made.size)
    status = ser_write_if_new(path, &j->split.made, err);
  else if (ser_file_exists(path) && remove(path) != 0)
    status = ser_fail(err, SER_FAILED, "%s: cannot be removed: %s; remove it, then go on", path, strerror(errno));
  free(path);
  return status;
}

/* A line a note; that recordings are left out is a warning. */
static void tell_split(const ser_split *split) {
  ser_info_lines(split->made.data);
  const char *notes = split->notes.data;
  if (split->idle) {
    size_t size = strcspn(notes, "\n");
    ser_warn("%.*s", (int)size, notes);
    notes += size + (notes[size] == '\n');
  }
  ser_info_lines(notes);
}

static ser_status make_split(job *j, ser_error *err) {
  ser_text text = {0};
  SER_TRY(ser_split_make(&j->split, &j->manifest, j->config, err));
  ser_split_text(&text, &j->split, &j->manifest);
  ser_hash hash = ser_hash_bytes(text.data, text.size);
  ser_hash_hex(j->split_hash, &hash);
  char *path = ser_path_join(j->options->folder, "split.csv");
  ser_status status = ser_write_if_new(path, &text, err);
  free(path);
  free(text.data);
  if (status == SER_OK) status = keep_notes(j, err);
  if (status == SER_OK) tell_split(&j->split);
  return status;
}

/* ---- features ---------------------------------------------------------------------------------------------------- */

static ser_status extract_missing(const job *j, bool known_told, bool *partial, ser_error *err) {
  const ser_config *c = j->config;
  ser_extract_summary summary = {0};
  const ser_extract_feature feature = {.kind = c->features.kind, .mfcc = ser_config_mfcc(c, c->features.kind)};
  ser_extract_options options = {.features = &feature,
                                 .feature_count = 1,
                                 .cache_folder = j->cache_folder,
                                 .jobs = (int)c->jobs,
                                 .known_told = known_told};
  ser_device_options asked = like_first(j, j->cores);
  SER_TRY(ser_device_open(&options.device, &asked, err));
  ser_status status = ser_extract(&summary, &j->manifest, &options, err);
  ser_device_close(options.device);
  ser_warn_lines(summary.refusals.data);
  free(summary.refusals.data);
  if (status != SER_OK && status != SER_PARTIAL) return status;
  if (summary.too_short || summary.refused) *partial = true;
  return SER_OK;
}

static ser_status load_features(job *j, bool *damaged, ser_error *err) {
  const ser_config *c = j->config;
  const ser_mfcc_config *mfcc = ser_config_mfcc(c, c->features.kind);
  ser_cache *cache = NULL;
  SER_TRY(ser_feature_cache_open(&cache, j->cache_folder, c->features.kind, mfcc, false, err));
  ser_status status = ser_dataset_load(&j->dataset, &j->manifest, cache, ser_feature_columns(mfcc), c->emotions, err);
  *damaged = ser_cache_damaged(cache) > 0;
  ser_status closed = ser_cache_close(cache, status == SER_OK ? err : NULL);
  return status != SER_OK ? status : closed;
}

/* ---- the trainings ----------------------------------------------------------------------------------------------- */

typedef struct {
  job *job;
  size_t first;  /* part of task 0 */
  int threads;   /* of each device */
  bool *trained; /* of each part: whether it had epochs to train */
  ser_error *errors;
} wave;

static void train_part(void *context, size_t task, int thread) {
  const wave *w = context;
  const job *j = w->job;
  size_t part = w->first + task;
  ser_error *err = &w->errors[part];
  ser_device *device = NULL;
  (void)thread;
  if (ser_interrupt_check(err) != SER_OK) return;
  ser_device_options asked = like_first(j, w->threads);
  if (ser_device_open(&device, &asked, err) != SER_OK) return;
  ser_training training = {.config = j->config,
                           .manifest = &j->manifest,
                           .dataset = &j->dataset,
                           .resident = j->holder ? &j->resident : NULL,
                           .split = &j->split,
                           .fold = j->parts.folds[part],
                           .seed = j->parts.seeds[part],
                           .folder = j->parts.folders[part],
                           .manifest_hash = j->manifest_hash,
                           .split_hash = j->split_hash,
                           .progress = j->progress,
                           .name = j->parts.names[part],
                           .anew = j->options->anew,
                           .finished = j->options->finished};
  err->status = ser_train_one(&w->trained[part], device, &training, err);
  ser_device_close(device);
}

/* `count` parts from `first` on, `workers` of them at a time; the threads are shared out between the workers. */
static void run_wave(job *j, size_t first, size_t count, int workers, bool *trained, ser_error *errors) {
  wave w = {j, first, j->cores / workers > 1 ? j->cores / workers : 1, trained, errors};
  ser_pool *pool = ser_pool_create(workers);
  ser_pool_run_dynamic(pool, count, train_part, &w);
  ser_pool_free(pool);
}

static int64_t clips_to_train(const job *j) {
  int64_t clips = 0;
  for (int fold = 0; fold < j->split.folds; fold++)
    for (size_t i = 0; i < j->dataset.clips; i++)
      clips += j->split.part[(size_t)fold * j->split.rows + j->dataset.row[i]] == SER_TRAIN;
  return clips * j->config->train.epochs * j->config->train.seeds.count;
}

/* Interrupted: that. Else the first part that failed, in the order of the parts. */
static ser_status first_failure(const ser_error *errors, size_t count, ser_error *err) {
  const ser_error *found = NULL;
  for (size_t i = 0; i < count; i++) {
    if (errors[i].status == SER_OK) continue;
    if (!found || (errors[i].status == SER_INTERRUPTED && found->status != SER_INTERRUPTED)) found = &errors[i];
  }
  if (!found) return SER_OK;
  return ser_fail(err, found->status, "%s", found->text);
}

/* How many were trained. Of those that had nothing to train beside them each is told. */
static size_t count_trained(const job *j, const bool *trained) {
  size_t count = 0;
  for (size_t i = 0; i < j->parts.count; i++) count += trained[i];
  for (size_t i = 0; i < j->parts.count && count; i++)
    if (!trained[i]) ser_info("%s: trained already", j->parts.folders[i]);
  return count;
}

/* The data set crosses the bus once: the devices of the trainings share their memory. */
static ser_status hold_dataset(job *j, ser_error *err) {
  if (j->host_memory) return SER_OK;
  ser_device_options asked = like_first(j, 1);
  SER_TRY(ser_device_open(&j->holder, &asked, err));
  return ser_resident_make(&j->resident, j->holder, &j->dataset, err);
}

static void drop_dataset(job *j) {
  ser_resident_free(&j->resident);
  ser_device_close(j->holder);
}

static ser_status train_parts(size_t *count, job *j, ser_error *err) {
  ser_error *errors = ser_alloc_zero(j->parts.count, sizeof *errors);
  bool *trained = ser_alloc_zero(j->parts.count, sizeof *trained);
  size_t workers = (size_t)j->side_by_side, even = j->parts.count / workers * workers, rest = j->parts.count - even;
  j->progress = ser_progress_begin("train", "clips", clips_to_train(j));
  if (even) run_wave(j, 0, even, (int)workers, trained, errors);
  if (rest) run_wave(j, even, rest, (int)rest, trained, errors);
  ser_progress_end(j->progress);
  ser_status status = first_failure(errors, j->parts.count, err);
  if (status == SER_OK) *count = count_trained(j, trained);
  free(trained);
  free(errors);
  return status;
}

/* ---- the job ----------------------------------------------------------------------------------------------------- */

static ser_status prepare(job *j, bool *partial, ser_error *err) {
  SER_TRY(ser_manifest_read(&j->manifest, j->options->manifest, err));
  ser_manifest_usable_hash(j->manifest_hash, &j->manifest);
  SER_TRY(begin_folder(j, err));
  SER_TRY(make_split(j, err));
  if (!j->options->extracted) SER_TRY(extract_missing(j, false, partial, err));
  bool damaged = false;
  ser_error first = {0}; /* mended: nobody is to hear of it */
  ser_status status = load_features(j, &damaged, &first);
  if (status == SER_OK) return SER_OK;
  if (status != SER_FAILED || !damaged) return ser_fail(err, status, "%s", first.text);
  /* A shard that rotted with its size and time kept shows only when it is read: it is in quarantine now. */
  SER_TRY(extract_missing(j, true, partial, err));
  return load_features(j, &damaged, err);
}

ser_status ser_train_job(size_t *trained, bool *partial, const ser_train_options *options, ser_error *err) {
  const ser_config *c = options->config;
  job j = {.options = options, .config = c, .cores = c->threads > 0 ? (int)c->threads : ser_cores()};
  j.cache_folder = *c->cache_dir ? ser_strdup(c->cache_dir) : ser_path_join(options->folder, "cache");
  ser_manifest_init(&j.manifest);
  *partial = false;
  *trained = 0;
  ser_status status = prepare(&j, partial, err);
  if (status == SER_OK) {
    ser_run_parts_make(&j.parts, c, options->folder, j.split.folds);
    status = hold_dataset(&j, err);
    if (status == SER_OK) status = train_parts(trained, &j, err);
    drop_dataset(&j);
  }
  ser_run_parts_free(&j.parts);
  ser_dataset_free(&j.dataset);
  ser_split_free(&j.split);
  ser_manifest_free(&j.manifest);
  free(j.cache_folder);
  return status;
}
