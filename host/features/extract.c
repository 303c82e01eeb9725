/* The bulk job: what the cache lacks of a manifest's recordings, decoded by workers, computed in batches on the device,
 * sealed into shards.
 *
 *     workers (jobs): read, check the hash, decode, resample -> queue -> the caller: batches on the device, the cache
 *
 * A worker asks for room before it decodes, by the length that the manifest tells, and the room is given back when the
 * clip's features are in the cache: so memory has a bound in seconds of sound, whatever the number and the length of
 * the files. On a GPU the room is pinned memory, from which the samples go to the device by themselves, and some
 * batches are under way at a time (mfcc.c). The device and HDF5 are used by the caller's thread alone. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/threads.h"
#include "base/version.h"
#include "features/internal.h"

enum {
  BATCH_CLIPS = 128, /* the most of any device */
  BATCHES = 4,       /* under way, and the one being filled */
  QUEUE_CLIPS = 128,
};

/* What suits a device. */
typedef struct {
  size_t clips;
  int64_t enough; /* frames: a batch that has as many takes no further clip */
  int64_t frames; /* that one run takes: such a batch with its last clip */
  size_t room;    /* bytes of decoded samples between the workers and the cache; one longer clip goes alone */
} batch_size;
static const batch_size on_cpu = {32, 4096, 6144, 48 << 20}, on_gpu = {BATCH_CLIPS, 16384, 20480, 128 << 20};

static const double BATCH_WAIT = 0.005; /* seconds that a batch waits for one more clip */
static const double IDLE_WAIT = 0.2;    /* seconds until the interrupt flag and the pending shard are looked at */

/* A line for the user; lines are told in the manifest's order. */
typedef struct {
  const ser_row *row;
  char *why;
} extract_note;

typedef struct {
  extract_item *items[BATCH_CLIPS];
  size_t count;
} batch;

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

  batch_size size;
  batch batches[BATCHES]; /* used in turn: those under way from `oldest` on, then the one being filled */
  size_t oldest, under_way;
  extract_item *next_item; /* that did not go with the batch before it */

  ser_ring *ring;
  ser_queue *queue;
  atomic_int working; /* workers that may still put something */
  atomic_bool stop;

  pthread_mutex_t lock; /* of what follows */
  ser_error error;      /* the first worker's that failed */
} extract_job;

/* ---- workers --------------------------------------------------------------------------------------------------- */

/* Ends the job: workers wake and leave. */
static void stop_job(extract_job *job) {
  atomic_store(&job->stop, true);
  ser_ring_close(job->ring);
  ser_queue_close(job->queue);
}

static void item_free(extract_job *job, extract_item *item) {
  if (!item) return;
  ser_ring_give(job->ring, &item->room);
  ser_clip_free(&item->clip);
  free(item->refusal);
  free(item);
}

static void *work(void *context) {
  extract_job *job = context;
  size_t at;
  while (!atomic_load(&job->stop) && (at = atomic_fetch_add(&job->next, 1)) < job->count) {
    extract_item *item = ser_alloc_zero(1, sizeof *item);
    ser_error err = {0};
    const extract_key *key = &job->wanted[at];
    item->row = key->rows[0];
    size_t room = (size_t)extract_expected_bytes(item->row, job->options->config);
    ser_status status = SER_OK;
    bool queued = false;
    if (ser_ring_take(job->ring, &item->room, room)) {
      status = extract_decode(item, key, job->options->config, &err);
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

static void range_begin(const extract_job *job, const char *name) {
  job->options->device->rt->range_begin(job->options->device, name);
}

static void range_end(const extract_job *job) {
  job->options->device->rt->range_end(job->options->device);
}

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

/* The oldest batch under way: its features go into the cache, its clips' room is free again. */
static ser_status collect(extract_job *job, ser_error *err) {
  batch *b = &job->batches[job->oldest];
  const float *features;
  const int64_t *offset;
  int64_t columns = ser_feature_columns(job->options->config);
  range_begin(job, "collect a batch");
  ser_status status = ser_mfcc_collect(job->mfcc, &features, &offset, err);
  for (size_t i = 0; i < b->count && status == SER_OK; i++) {
    const extract_item *item = b->items[i];
    status = ser_cache_add(job->cache, &item->row->hash, SER_ENTRY_OK, features + offset[i] * columns,
                           offset[i + 1] - offset[i], err);
    ser_progress_add(job->progress, 1);
    job->summary->computed++;
    job->summary->audio_seconds += (double)item->info.frames / item->info.rate;
  }
  while (b->count) item_free(job, b->items[--b->count]);
  job->summary->work = ser_mfcc_work(job->mfcc);
  job->oldest = (job->oldest + 1) % BATCHES;
  job->under_way--;
  range_end(job);
  return status;
}

static ser_status submit(extract_job *job, batch *b, ser_error *err) {
  ser_signal signals[BATCH_CLIPS];
  for (size_t i = 0; i < b->count; i++) signals[i] = b->items[i]->signal;
  range_begin(job, "submit a batch");
  ser_status status = ser_mfcc_submit(job->mfcc, signals, b->count, err);
  range_end(job);
  if (status == SER_OK) job->under_way++;
  return status;
}

static bool may_be_floats(const extract_item *item) {
  return !item->signal.int16 || (size_t)item->signal.count * sizeof(float) <= item->room.bytes;
}

/* Integers as floats in the same room, from the end: a float takes the place of two that are done. */
static void make_floats(extract_item *item) {
  if (!item->signal.int16) return;
  char *room = item->room.memory;
  for (int64_t i = item->signal.count - 1; i >= 0; i--) {
    int16_t from;
    memcpy(&from, room + (size_t)i * sizeof from, sizeof from);
    float to = (float)from / 32768;
    memcpy(room + (size_t)i * sizeof to, &to, sizeof to);
  }
  item->signal.int16 = false;
}

/* Samples of one kind: where integers and floats come in turn, a batch of each kind as they come would be of a clip or
 * two, and costs the device as much as a large one. A batch of integers that is half full goes as it is, at half the
 * way over the bus. */
static bool match(const extract_job *job, const batch *b, int64_t frames, extract_item *item) {
  if (item->signal.int16 == b->items[0]->signal.int16) return true;
  if (!item->signal.int16 && (2 * b->count >= (size_t)ser_mfcc_max_clips(job->mfcc) || 2 * frames >= job->size.enough))
    return false;
  bool may = may_be_floats(item);
  for (size_t i = 0; i < b->count && may; i++) may = may_be_floats(b->items[i]);
  if (!may) return false;
  make_floats(item);
  for (size_t i = 0; i < b->count; i++) make_floats(b->items[i]);
  return true;
}

/* Whether the item may go with the batch: no more frames than a run takes, and samples of one kind. */
static bool goes_with(const extract_job *job, const batch *b, int64_t frames, extract_item *item) {
  int64_t more = ser_mfcc_frames(item->signal.count, job->options->config->hop);
  return !b->count || (frames + more <= ser_mfcc_max_frames(job->mfcc) && match(job, b, frames, item));
}

/* Takes clips until the batch is full, or none comes for a moment; refusals are noted on the way. */
static ser_status next_batch(extract_job *job, batch *b, bool *closed, ser_error *err) {
  int64_t frames = 0;
  size_t most = (size_t)ser_mfcc_max_clips(job->mfcc);
  bool hurry = job->under_way > 0;
  while (b->count < most && frames < job->size.enough) {
    extract_item *item = job->next_item;
    if (!item) item = ser_queue_take_within(job->queue, b->count || hurry ? BATCH_WAIT : IDLE_WAIT, closed);
    job->next_item = NULL;
    if (!item) break;
    if (item->refusal) {
      ser_progress_add(job->progress, 1);
      ser_status status = note_refusal(job, item, err);
      item_free(job, item);
      SER_TRY(status);
      continue;
    }
    if (!goes_with(job, b, frames, item)) {
      job->next_item = item;
      break;
    }
    frames += ser_mfcc_frames(item->signal.count, job->options->config->hop);
    b->items[b->count++] = item;
  }
  return SER_OK;
}

/* Whether the batch is one clip that goes in pieces. */
static bool is_long(const extract_job *job, const batch *b) {
  return b->count == 1 &&
         ser_mfcc_frames(b->items[0]->signal.count, job->options->config->hop) > ser_mfcc_max_frames(job->mfcc);
}

/* Batches are filled, sent on their way, and collected as late as may be: when the device takes no more, or nothing is
 * there to be sent. A long clip may need their room. */
static ser_status consume(extract_job *job, ser_error *err) {
  bool closed = false;
  ser_status status = SER_OK;
  while (status == SER_OK && (!closed || job->next_item || job->under_way)) {
    batch *b = &job->batches[(job->oldest + job->under_way) % BATCHES];
    range_begin(job, "wait for clips");
    status = next_batch(job, b, &closed, err);
    range_end(job);
    if (status == SER_OK) status = ser_interrupt_check(err);
    bool sent = b->count > 0;
    while (status == SER_OK && job->under_way && is_long(job, b)) status = collect(job, err);
    if (status == SER_OK && sent) status = submit(job, b, err);
    if (status == SER_OK && (sent ? ser_mfcc_full(job->mfcc) : job->under_way > 0)) status = collect(job, err);
    if (status == SER_OK) status = ser_cache_tick(job->cache, err);
  }
  return status;
}

/* What an end before the end leaves: batches under way, which the device may still read from, and one being filled. */
static void drop_batches(extract_job *job) {
  double from = ser_seconds();
  ser_mfcc_free(job->mfcc); /* waits for the device */
  job->mfcc = NULL;
  job->summary->set_up += ser_seconds() - from;
  for (size_t i = 0; i < BATCHES; i++)
    while (job->batches[i].count) item_free(job, job->batches[i].items[--job->batches[i].count]);
  item_free(job, job->next_item);
  job->next_item = NULL;
}

/* Runs the workers beside the consumer, and ends them whatever happens. */
static ser_status run_job(extract_job *job, ser_error *err) {
  size_t jobs = (size_t)(job->options->jobs > 0 ? job->options->jobs : ser_cores()), started = 0;
  if (jobs > job->count) jobs = job->count;
  pthread_t *threads = ser_alloc(jobs * sizeof *threads);
  job->queue = ser_queue_create(QUEUE_CLIPS);
  pthread_mutex_init(&job->lock, NULL);
  atomic_store(&job->working, (int)jobs);
  while (started < jobs && pthread_create(&threads[started], NULL, work, job) == 0) started++;
  ser_status status = SER_OK;
  if (started < jobs) status = ser_fail(err, SER_FAILED, "cannot start %zu decode workers; use fewer --jobs", jobs);
  if (status == SER_OK) status = consume(job, err);
  stop_job(job);
  for (size_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
  drop_batches(job);
  for (extract_item *item; (item = ser_queue_take(job->queue));) item_free(job, item);
  if (status == SER_OK && job->error.status != SER_OK) {
    *err = job->error;
    status = err->status;
  }
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
  ser_device *device = options->device;
  ser_device_properties properties;
  device->rt->properties(device, &properties);
  job->size = properties.host_memory ? on_cpu : on_gpu;
  double from = ser_seconds();
  SER_TRY(ser_mfcc_create(&job->mfcc, device, options->config, (int64_t)job->size.clips, job->size.frames, false, err));
  ser_status status = ser_ring_create(&job->ring, device, job->size.room, err);
  job->summary->set_up = ser_seconds() - from;
  if (status == SER_OK) {
    char *what = ser_format("extract %s", ser_feature_names[options->kind]);
    job->progress = ser_progress_begin(what, "clips", (int64_t)job->count);
    device->rt->phase(device, "extract");
    status = run_job(job, err);
    device->rt->phase(device, "extracted");
    ser_progress_end(job->progress);
    free(what);
  }
  from = ser_seconds();
  ser_mfcc_free(job->mfcc);
  ser_ring_free(job->ring);
  job->summary->set_up += ser_seconds() - from;
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
