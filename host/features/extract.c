/* The bulk job: what the cache lacks of a manifest's recordings, decoded by workers, computed in batches on the device,
 * sealed into shards.
 *
 *     workers (jobs): read, check the hash, decode, resample -> queue -> the caller: batches on the device, the cache
 *
 * A worker asks for room before it decodes, by the length that the manifest tells, and the room is given back when the
 * clip's features are in the cache: so memory has a bound in seconds of sound, whatever the number and the length of
 * the files. The device and HDF5 are used by the caller's thread alone. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/threads.h"
#include "base/version.h"
#include "features/features.h"

enum {
  ROOM_BYTES = 48 << 20, /* decoded samples between the workers and the cache; one longer clip goes alone */
  SMALL_FILE = 16 << 20, /* files up to this are read whole, once, for the hash and for decoding */
  BATCH_CLIPS = 32,
  BATCH_FRAMES = 4096, /* a batch that has as many takes no further clip */
  BATCH_ROOM = 6144,   /* frames that one run of the device takes: such a batch with its last clip */
  QUEUE_CLIPS = 128,
};
static const double BATCH_WAIT = 0.005; /* seconds that a batch waits for one more clip */
static const double IDLE_WAIT = 0.2;    /* seconds until the interrupt flag and the pending shard are looked at */

/* A line for the user; lines are told in the manifest's order. */
typedef struct {
  const ser_row *row;
  char *why;
} extract_note;

/* A key that the cache lacks: the rows with these bytes, usable ones first, at least one. */
typedef struct {
  const ser_row *const *rows; /* [count], within job->rows */
  size_t count;
} extract_key;

/* The same on its way. */
typedef struct {
  const ser_row *row; /* that is read */
  int64_t room;       /* bytes asked for */
  ser_clip clip;      /* empty where it was refused */
  ser_entry_status status;
  bool remember; /* the refusal is the bytes' own: it goes into the cache */
  char *refusal; /* why, in words; NULL where the clip is good */
} extract_item;

typedef struct {
  const ser_extract_options *options;
  ser_cache *cache;
  ser_mfcc *mfcc;
  ser_extract_summary *summary;
  extract_note *notes; /* of what cannot be used */
  size_t note_count, note_capacity;
  ser_progress *progress;
  const ser_row **rows; /* the manifest's, those of the same bytes side by side */
  extract_key *wanted;  /* [count] the keys that are missing */
  size_t count;
  atomic_size_t next;

  ser_queue *queue;
  atomic_int working; /* workers that may still put something */
  atomic_bool stop;

  pthread_mutex_t lock; /* of what follows */
  pthread_cond_t freed;
  int64_t room_taken;
  ser_error error; /* the first worker's that failed */
} extract_job;

/* ---- room for decoded samples ---------------------------------------------------------------------------------- */

/* Waits until the bytes fit; a clip beyond the bound goes when nothing else is under way. false: the job stops. */
static bool take_room(extract_job *job, int64_t bytes) {
  pthread_mutex_lock(&job->lock);
  while (!atomic_load(&job->stop) && job->room_taken > 0 && job->room_taken + bytes > ROOM_BYTES)
    pthread_cond_wait(&job->freed, &job->lock);
  bool stop = atomic_load(&job->stop);
  if (!stop) job->room_taken += bytes;
  pthread_mutex_unlock(&job->lock);
  return !stop;
}

static void give_room(extract_job *job, int64_t bytes) {
  pthread_mutex_lock(&job->lock);
  job->room_taken -= bytes;
  pthread_cond_broadcast(&job->freed);
  pthread_mutex_unlock(&job->lock);
}

/* Ends the job: workers wake and leave. */
static void stop_job(extract_job *job) {
  pthread_mutex_lock(&job->lock);
  atomic_store(&job->stop, true);
  pthread_cond_broadcast(&job->freed);
  pthread_mutex_unlock(&job->lock);
  ser_queue_close(job->queue);
}

static void item_free(extract_job *job, extract_item *item) {
  if (!item) return;
  if (item->room) give_room(job, item->room);
  ser_clip_free(&item->clip);
  free(item->refusal);
  free(item);
}

/* ---- workers --------------------------------------------------------------------------------------------------- */

/* Samples as the manifest has them, at the feature's rate; a guess where it has none. Its word is anyone's: an absurd
 * length asks for all of the room, and no more. */
static int64_t expected_bytes(const ser_row *row, const ser_mfcc_config *config) {
  double seconds = row->seconds > 0 ? fmin(row->seconds, 1e6) : 10;
  int64_t samples = (int64_t)(seconds * (double)config->rate) + 1024;
  if (samples < config->samples) samples = config->samples;
  return samples * (int64_t)sizeof(float);
}

static void refuse(extract_item *item, bool remember, char *why) {
  item->status = SER_ENTRY_REFUSED;
  item->remember = remember;
  free(item->refusal);
  item->refusal = why;
}

/* The bytes must be those that the key stands for, or the cache would answer for others. */
static void check_hash(extract_item *item, const ser_hash *found) {
  if (ser_hash_compare(found, &item->row->hash) != 0)
    refuse(item, false, ser_strdup("its bytes are not those that were indexed; run `serenade index` again"));
}

/* Opens the bytes of a recording: small files whole in *data, long ones by their path. Where they cannot be used, the
 * item has a refusal. SER_INTERRUPTED is all that it returns beside SER_OK. */
static ser_status open_source(extract_item *item, ser_audio_source *source, char **data, struct stat *info,
                              ser_error *why) {
  const char *path = item->row->path;
  size_t size;
  ser_hash hash;
  *data = NULL;
  *source = (ser_audio_source){.path = path};
  if (stat(path, info) != 0 || !S_ISREG(info->st_mode)) {
    refuse(item, false,
           ser_format("cannot be opened (%s); run `serenade index` again if it has moved",
                      S_ISDIR(info->st_mode) ? strerror(EISDIR) : strerror(errno)));
    return SER_OK;
  }
  bool small = info->st_size <= SMALL_FILE;
  ser_status status = small ? ser_file_read(data, &size, path, why) : ser_hash_file(&hash, path, why);
  if (status == SER_INTERRUPTED) return status;
  if (status != SER_OK) {
    refuse(item, false, ser_strdup(why->text));
    return SER_OK;
  }
  if (small) {
    hash = ser_hash_bytes(*data, size);
    source->data = *data;
    source->size = (int64_t)size;
  }
  check_hash(item, &hash);
  return SER_OK;
}

/* Whether a long file, hashed before and decoded after, stayed the same in between. */
static bool unchanged(const char *path, const struct stat *before) {
  struct stat now;
  return stat(path, &now) == 0 && now.st_size == before->st_size && now.st_mtim.tv_sec == before->st_mtim.tv_sec &&
         now.st_mtim.tv_nsec == before->st_mtim.tv_nsec;
}

static void judge_length(extract_item *item, const ser_mfcc_config *config) {
  int64_t frames = ser_mfcc_frames(item->clip.count, config->hop), least = ser_feature_min_frames(config);
  if (frames >= least) return;
  item->status = SER_ENTRY_TOO_SHORT;
  item->remember = true;
  item->refusal =
      ser_format("too short: %.3f s make %lld %s, features need %lld", (double)item->clip.count / item->clip.rate,
                 (long long)frames, SER_PLURAL(frames, "frame", "frames"), (long long)least);
}

/* Decodes item->row, or sets the item's refusal. */
static ser_status decode_row(extract_job *job, extract_item *item, ser_error *err) {
  const ser_mfcc_config *config = job->options->config;
  ser_audio_source source;
  ser_reason reason = SER_REASON_NONE;
  char detail[256], *data;
  struct stat info = {0};
  ser_status status = open_source(item, &source, &data, &info, err);
  if (status == SER_OK && !item->refusal)
    status = ser_audio_decode(&item->clip, &reason, detail, &source, (int32_t)config->rate, NULL, NULL, err);
  if (status == SER_OK && !item->refusal) {
    if (!data && !unchanged(item->row->path, &info))
      refuse(item, false, ser_strdup("it changed while it was read; run `serenade index` again"));
    else if (reason != SER_REASON_NONE)
      refuse(item, !item->clip.info.passing, ser_format("%s: %s", ser_reason_name(reason), detail));
    else if (config->samples > 0)
      ser_fit_samples(&item->clip.samples, &item->clip.count, config->samples);
    if (!item->refusal) judge_length(item, config);
  }
  free(data);
  if (item->refusal) ser_clip_free(&item->clip);
  return status;
}

/* Where a file has vanished, has changed or cannot be read, a copy stands in, even one that does not count. If none
 * can, the first row's words are told. */
static ser_status decode_item(extract_job *job, extract_item *item, const extract_key *key, ser_error *err) {
  char *first = NULL;
  for (size_t i = 0; i < key->count; i++) {
    item->row = key->rows[i];
    item->status = SER_ENTRY_OK;
    ser_status status = decode_row(job, item, err);
    if (status != SER_OK || !item->refusal || item->remember) {
      free(first);
      return status;
    }
    if (first)
      free(item->refusal);
    else
      first = item->refusal;
    item->refusal = NULL;
  }
  item->row = key->rows[0];
  item->refusal = first;
  item->status = SER_ENTRY_REFUSED;
  return SER_OK;
}

static void *work(void *context) {
  extract_job *job = context;
  size_t at;
  while (!atomic_load(&job->stop) && (at = atomic_fetch_add(&job->next, 1)) < job->count) {
    extract_item *item = ser_alloc_zero(1, sizeof *item);
    ser_error err = {0};
    const extract_key *key = &job->wanted[at];
    item->row = key->rows[0];
    int64_t room = expected_bytes(item->row, job->options->config);
    ser_status status = SER_OK;
    bool queued = false;
    if (take_room(job, room)) {
      item->room = room;
      status = decode_item(job, item, key, &err);
      queued = status == SER_OK && ser_queue_put(job->queue, item);
    }
    if (!queued) item_free(job, item);
    if (status == SER_OK) continue;
    pthread_mutex_lock(&job->lock);
    if (job->error.status == SER_OK) job->error = err;
    pthread_mutex_unlock(&job->lock);
    stop_job(job);
  }
  if (atomic_fetch_sub(&job->working, 1) == 1) ser_queue_close(job->queue);
  return NULL;
}

/* ---- the caller: batches and the cache ------------------------------------------------------------------------- */

/* Counts a clip that cannot be used and keeps the words for it (`why` is the job's from now on; NULL: told before). */
static void note(extract_job *job, const ser_row *row, ser_entry_status status, char *why) {
  if (status == SER_ENTRY_TOO_SHORT)
    job->summary->too_short++;
  else
    job->summary->refused++;
  if (!why) return;
  SER_GROW(job->notes, job->note_count, job->note_capacity);
  job->notes[job->note_count++] = (extract_note){row, why};
}

static ser_status note_refusal(extract_job *job, extract_item *item, ser_error *err) {
  note(job, item->row, item->status, item->refusal);
  item->refusal = NULL;
  return item->remember ? ser_cache_add(job->cache, &item->row->hash, item->status, NULL, 0, err) : SER_OK;
}

static ser_status compute_batch(extract_job *job, extract_item **batch, size_t count, ser_error *err) {
  const float *samples[BATCH_CLIPS];
  int64_t counts[BATCH_CLIPS], offset[BATCH_CLIPS + 1], columns = ser_feature_columns(job->options->config);
  float *features;
  for (size_t i = 0; i < count; i++) {
    samples[i] = batch[i]->clip.samples;
    counts[i] = batch[i]->clip.count;
  }
  SER_TRY(ser_mfcc_compute(job->mfcc, &features, offset, samples, counts, count, err));
  ser_status status = SER_OK;
  for (size_t i = 0; i < count && status == SER_OK; i++) {
    status = ser_cache_add(job->cache, &batch[i]->row->hash, SER_ENTRY_OK, features + offset[i] * columns,
                           offset[i + 1] - offset[i], err);
    job->summary->computed++;
    job->summary->audio_seconds += (double)batch[i]->clip.info.frames / batch[i]->clip.info.rate;
  }
  free(features);
  return status;
}

/* Takes clips until the batch is full, or none comes for a moment; refusals are noted on the way. */
static ser_status next_batch(extract_job *job, extract_item **batch, size_t *count, bool *closed, ser_error *err) {
  int64_t frames = 0;
  *count = 0;
  while (*count < BATCH_CLIPS && frames < BATCH_FRAMES) {
    extract_item *item = ser_queue_take_within(job->queue, *count ? BATCH_WAIT : IDLE_WAIT, closed);
    if (!item) break;
    ser_progress_add(job->progress, 1);
    if (item->refusal) {
      ser_status status = note_refusal(job, item, err);
      item_free(job, item);
      SER_TRY(status);
      continue;
    }
    frames += ser_mfcc_frames(item->clip.count, job->options->config->hop);
    batch[(*count)++] = item;
  }
  return SER_OK;
}

static ser_status consume(extract_job *job, ser_error *err) {
  extract_item *batch[BATCH_CLIPS];
  size_t count;
  bool closed = false;
  ser_status status = SER_OK;
  while (status == SER_OK && !closed) {
    status = next_batch(job, batch, &count, &closed, err);
    if (status == SER_OK) status = ser_interrupt_check(err);
    if (status == SER_OK && count) status = compute_batch(job, batch, count, err);
    for (size_t i = 0; i < count; i++) item_free(job, batch[i]);
    if (status == SER_OK) status = ser_cache_tick(job->cache, err);
  }
  return status;
}

/* Runs the workers beside the consumer, and ends them whatever happens. */
static ser_status run_job(extract_job *job, ser_error *err) {
  size_t jobs = (size_t)(job->options->jobs > 0 ? job->options->jobs : ser_cores()), started = 0;
  if (jobs > job->count) jobs = job->count;
  pthread_t *threads = ser_alloc(jobs * sizeof *threads);
  job->queue = ser_queue_create(QUEUE_CLIPS);
  pthread_mutex_init(&job->lock, NULL);
  pthread_cond_init(&job->freed, NULL);
  atomic_store(&job->working, (int)jobs);
  while (started < jobs && pthread_create(&threads[started], NULL, work, job) == 0) started++;
  ser_status status = SER_OK;
  if (started < jobs) status = ser_fail(err, SER_FAILED, "cannot start %zu decode workers; use fewer --jobs", jobs);
  if (status == SER_OK) status = consume(job, err);
  stop_job(job);
  for (size_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
  for (extract_item *item; (item = ser_queue_take(job->queue));) item_free(job, item);
  if (status == SER_OK && job->error.status != SER_OK) {
    *err = job->error;
    status = err->status;
  }
  pthread_cond_destroy(&job->freed);
  pthread_mutex_destroy(&job->lock);
  ser_queue_free(job->queue);
  free(threads);
  return status;
}

/* ---- what is missing ------------------------------------------------------------------------------------------- */

/* Rows of the same bytes side by side: usable ones first, then in the manifest's order. */
static int compare_rows(const void *left, const void *right) {
  const ser_row *a = *(const ser_row *const *)left, *b = *(const ser_row *const *)right;
  int order = ser_hash_compare(&a->hash, &b->hash);
  if (!order) order = ser_row_usable(b) - ser_row_usable(a);
  return order ? order : (a > b) - (a < b);
}

static int compare_places(const void *left, const void *right) {
  const ser_row *a = ((const extract_key *)left)->rows[0], *b = ((const extract_key *)right)->rows[0];
  return (a > b) - (a < b);
}

/* Counts what the cache says of a key, and whether it has to be computed. */
static bool is_missing(extract_job *job, const ser_row *row) {
  static const ser_hash none = {{0}};
  if (ser_hash_compare(&row->hash, &none) == 0) {
    note(job, row, SER_ENTRY_REFUSED, ser_strdup("the manifest has no hash for it; run `serenade index` again"));
    return false;
  }
  ser_entry_status status = ser_cache_find(job->cache, &row->hash, NULL);
  if (status == SER_ENTRY_OK) job->summary->present++;
  const char *why = NULL;
  if (status == SER_ENTRY_TOO_SHORT) why = "too short for these features";
  if (status == SER_ENTRY_REFUSED)
    why = "could not be decoded when it was first met; run `serenade audit` for the reason";
  if (why) note(job, row, status, job->options->known_told ? NULL : ser_strdup(why));
  return status == SER_ENTRY_MISSING;
}

/* The keys that usable rows have and the cache lacks, in the manifest's order, in job->wanted. */
static void list_missing(extract_job *job, const ser_manifest *manifest) {
  const ser_row **rows = job->rows = ser_alloc(manifest->count * sizeof *rows);
  job->wanted = ser_alloc(manifest->count * sizeof *job->wanted);
  for (size_t i = 0; i < manifest->count; i++) rows[i] = &manifest->rows[i];
  if (manifest->count) qsort(rows, manifest->count, sizeof *rows, compare_rows);
  for (size_t i = 0, end; i < manifest->count; i = end) {
    for (end = i + 1; end < manifest->count && !ser_hash_compare(&rows[i]->hash, &rows[end]->hash);) end++;
    if (!ser_row_usable(rows[i])) continue;
    job->summary->wanted++;
    if (is_missing(job, rows[i])) job->wanted[job->count++] = (extract_key){rows + i, end - i};
  }
  if (job->count) qsort(job->wanted, job->count, sizeof *job->wanted, compare_places);
}

static int compare_notes(const void *left, const void *right) {
  const ser_row *a = ((const extract_note *)left)->row, *b = ((const extract_note *)right)->row;
  return (a > b) - (a < b);
}

static void tell_notes(extract_job *job) {
  if (job->note_count) qsort(job->notes, job->note_count, sizeof *job->notes, compare_notes);
  for (size_t i = 0; i < job->note_count; i++) {
    ser_text_line(&job->summary->refusals, "%s: %s", job->notes[i].row->path, job->notes[i].why);
    free(job->notes[i].why);
  }
  free(job->notes);
}

/* ---- the job --------------------------------------------------------------------------------------------------- */

static ser_status open_cache(ser_cache **cache, const char *folder, ser_feature_kind kind,
                             const ser_mfcc_config *config, const ser_device *device, bool create, ser_error *err) {
  ser_device_properties properties = {.backend = "", .isa = ""};
  if (device) device->rt->properties(device, &properties);
  char libraries[SER_AUDIO_LIBRARIES], decoder[SER_AUDIO_DECODER];
  ser_audio_libraries(libraries);
  ser_audio_decoder(decoder);
  char *json = ser_feature_json(kind, config);
  char *attributes =
      ser_format("{\"audio\":\"%s\",\"backend\":\"%s\",\"decoder\":\"%s\",\"hop_seconds\":%.9g,"
                 "\"instructions\":\"%s\",\"serenade\":\"" SER_VERSION "\",\"units\":\"cepstrum of dB%s\"}",
                 libraries, properties.backend, decoder, (double)config->hop / (double)config->rate, properties.isa,
                 config->deltas ? ", its delta and delta-delta per frame" : "");
  ser_status status = ser_cache_open(cache, folder, ser_feature_names[kind], json, attributes,
                                     ser_feature_columns(config), create, err);
  free(attributes);
  free(json);
  return status;
}

ser_status ser_feature_cache_open(ser_cache **cache, const char *folder, ser_feature_kind kind,
                                  const ser_mfcc_config *config, bool create, ser_error *err) {
  return open_cache(cache, folder, kind, config, NULL, create, err);
}

int64_t ser_feature_cache_columns(const char *config_json) {
  enum { MOST = 1 << 16 }; /* beyond it no configuration of ours goes */
  ser_feature_kind kind;
  ser_mfcc_config config;
  ser_error ignored;
  if (ser_feature_parse(&kind, &config, config_json, &ignored) != SER_OK) return 0;
  return config.coefficients > 0 && config.coefficients <= MOST ? ser_feature_columns(&config) : 0;
}

static ser_status compute_missing(extract_job *job, ser_error *err) {
  const ser_extract_options *options = job->options;
  SER_TRY(ser_mfcc_create(&job->mfcc, options->device, options->config, BATCH_CLIPS, BATCH_ROOM, err));
  char *what = ser_format("extract %s", ser_feature_names[options->kind]);
  job->progress = ser_progress_begin(what, "clips", (int64_t)job->count);
  ser_status status = run_job(job, err);
  ser_progress_end(job->progress);
  ser_mfcc_free(job->mfcc);
  free(what);
  return status;
}

ser_status ser_extract(ser_extract_summary *summary, const ser_manifest *manifest, const ser_extract_options *options,
                       ser_error *err) {
  memset(summary, 0, sizeof *summary);
  double started = ser_seconds();
  extract_job job = {.options = options, .summary = summary};
  SER_TRY(open_cache(&job.cache, options->cache_folder, options->kind, options->config, options->device, true, err));
  list_missing(&job, manifest);
  ser_status status = job.count ? compute_missing(&job, err) : SER_OK;
  ser_status closed = ser_cache_close(job.cache, status == SER_OK ? err : NULL); /* seals what is computed */
  tell_notes(&job);
  free(job.wanted);
  free(job.rows);
  summary->seconds = ser_seconds() - started;
  return status == SER_OK ? closed : status;
}
