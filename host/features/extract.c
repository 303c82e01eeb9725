/* The bulk job: what caches lack of a manifest's recordings, decoded by workers, computed in batches on the device,
 * sealed into shards.
 *
 *     workers (jobs): read, check the hash, decode, resample -> queue -> the caller: batches on the device, the caches
 *
 * A worker asks for room before it decodes, by the length that the manifest tells, and the room is given back when the
 * clip's features are in the caches: so memory has a bound in seconds of sound, whatever the number and the length of
 * the files. On a GPU the room is pinned memory, from which the samples go to the device by themselves, and some
 * batches are under way at a time. The device and HDF5 are used by the caller's thread alone. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/threads.h"
#include "features/internal.h"

enum { QUEUE_ITEMS = 128, ROOM_ON_CPU = 48 << 20, ROOM_ON_GPU = 128 << 20, ALIGN = 64 };

static const double BATCH_WAIT = 0.005; /* seconds that a batch waits for one more clip */
static const double IDLE_WAIT = 0.2;    /* seconds until the interrupt flag and the pending shards are looked at */

typedef struct {
  const ser_extract_options *options;
  extract_target targets[SER_FEATURES];
  size_t target_count;
  ser_progress *progress;
  const ser_row **rows; /* the manifest's, those of the same bytes side by side */
  extract_key *wanted;  /* [count] the keys that some cache lacks */
  size_t count;
  int64_t to_do; /* keys, for each feature that lacks them */
  atomic_size_t next;

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

/* The items of a key, one for each feature that lacks it, with room for the samples of all; 0: the job has ended. */
static size_t make_items(extract_item *items[SER_FEATURES], extract_job *job, const extract_key *key) {
  size_t count = 0, bytes = 0, parts[SER_FEATURES];
  extract_room *room = ser_alloc_zero(1, sizeof *room);
  for (size_t t = 0; t < job->target_count; t++) {
    if (!(key->lacking >> t & 1)) continue;
    items[count] = ser_alloc_zero(1, sizeof **items);
    items[count]->target = &job->targets[t];
    items[count]->room = room;
    parts[count] = (size_t)extract_expected_bytes(key->rows[0], &job->targets[t]);
    bytes += SER_ROUND_UP(parts[count], ALIGN);
    count++;
  }
  atomic_store(&room->items, (int)count);
  bool taken = ser_ring_take(job->ring, &room->part, bytes);
  char *at = room->part.memory;
  for (size_t i = 0; i < count && taken; i++) {
    items[i]->bytes = parts[i];
    items[i]->memory = at;
    if (at) at += SER_ROUND_UP(parts[i], ALIGN);
  }
  for (size_t i = 0; i < count && !taken; i++) extract_item_free(items[i], job->ring);
  return taken ? count : 0;
}

static void *work(void *context) {
  extract_job *job = context;
  size_t at;
  while (!atomic_load(&job->stop) && (at = atomic_fetch_add(&job->next, 1)) < job->count) {
    extract_item *items[SER_FEATURES];
    ser_error err = {0};
    size_t count = make_items(items, job, &job->wanted[at]);
    ser_status status = count ? extract_decode(items, count, &job->wanted[at], &err) : SER_OK;
    for (size_t i = 0; i < count; i++)
      if (status != SER_OK || !ser_queue_put(job->queue, items[i])) extract_item_free(items[i], job->ring);
    if (status == SER_OK) continue;
    pthread_mutex_lock(&job->lock);
    if (job->error.status == SER_OK) job->error = err;
    pthread_mutex_unlock(&job->lock);
    stop_job(job);
  }
  if (atomic_fetch_sub(&job->working, 1) == 1) ser_queue_close(job->queue);
  return NULL;
}

/* ---- the caller: batches and the caches ------------------------------------------------------------------------ */

static bool under_way(const extract_job *job) {
  for (size_t t = 0; t < job->target_count; t++)
    if (job->targets[t].under_way) return true;
  return false;
}

static bool filling(const extract_job *job) {
  for (size_t t = 0; t < job->target_count; t++)
    if (!extract_empty(&job->targets[t])) return true;
  return false;
}

/* Nothing came for a moment: what is there goes on its way, or comes home. */
static ser_status settle(extract_job *job, ser_error *err) {
  bool sent = false;
  for (size_t t = 0; t < job->target_count; t++) {
    extract_target *target = &job->targets[t];
    if (extract_empty(target)) continue;
    SER_TRY(extract_send(target, err));
    sent = true;
  }
  for (size_t t = 0; t < job->target_count && !sent; t++)
    if (job->targets[t].under_way) return extract_collect(&job->targets[t], err);
  return SER_OK;
}

static ser_status take(extract_item *item, ser_error *err) {
  extract_target *target = item->target;
  bool taken;
  SER_TRY(extract_take(&taken, target, item, err));
  if (!taken) {
    SER_TRY(extract_send(target, err));
    SER_TRY(extract_take(&taken, target, item, err));
  }
  return !extract_empty(target) && extract_ready(target) ? extract_send(target, err) : SER_OK;
}

/* Batches are filled, sent on their way, and collected as late as may be: when the device takes no more, or nothing is
 * there to be sent. */
static ser_status consume(extract_job *job, ser_error *err) {
  ser_device *device = job->options->device;
  bool closed = false;
  while (!closed || filling(job) || under_way(job)) {
    bool hurry = filling(job) || under_way(job);
    device->rt->range_begin(device, "wait for a clip");
    extract_item *item = ser_queue_take_within(job->queue, hurry ? BATCH_WAIT : IDLE_WAIT, &closed);
    device->rt->range_end(device);
    ser_status status = ser_interrupt_check(err);
    if (status != SER_OK)
      extract_item_free(item, job->ring);
    else
      status = item ? take(item, err) : settle(job, err);
    for (size_t t = 0; t < job->target_count && status == SER_OK; t++)
      status = ser_cache_tick(job->targets[t].cache, err);
    if (status != SER_OK) return status;
  }
  return SER_OK;
}

/* Runs the workers beside the consumer, and ends them whatever happens. */
static ser_status run_job(extract_job *job, ser_error *err) {
  size_t jobs = (size_t)(job->options->jobs > 0 ? job->options->jobs : ser_cores()), started = 0;
  if (jobs > job->count) jobs = job->count;
  pthread_t *threads = ser_alloc(jobs * sizeof *threads);
  job->queue = ser_queue_create(QUEUE_ITEMS);
  pthread_mutex_init(&job->lock, NULL);
  atomic_store(&job->working, (int)jobs);
  while (started < jobs && pthread_create(&threads[started], NULL, work, job) == 0) started++;
  ser_status status = SER_OK;
  if (started < jobs) status = ser_fail(err, SER_FAILED, "cannot start %zu decode workers; use fewer --jobs", jobs);
  if (status == SER_OK) status = consume(job, err);
  stop_job(job);
  for (size_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
  for (size_t t = 0; t < job->target_count; t++) extract_target_end(&job->targets[t]);
  for (extract_item *item; (item = ser_queue_take(job->queue));) extract_item_free(item, job->ring);
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
static bool is_missing(const extract_job *job, extract_target *target, const ser_row *row) {
  static const ser_hash none = {{0}};
  target->summary->wanted++;
  if (ser_hash_compare(&row->hash, &none) == 0) {
    extract_note_down(target, row, SER_ENTRY_REFUSED,
                      ser_strdup("the manifest has no hash for it; run `serenade index` again"));
    return false;
  }
  ser_entry_status status = ser_cache_find(target->cache, &row->hash, NULL);
  if (status == SER_ENTRY_OK) target->summary->present++;
  const char *why = NULL;
  if (status == SER_ENTRY_TOO_SHORT) why = "too short for these features";
  if (status == SER_ENTRY_REFUSED)
    why = "could not be decoded when it was first met; run `serenade audit` for the reason";
  if (why) extract_note_down(target, row, status, job->options->known_told ? NULL : ser_strdup(why));
  return status == SER_ENTRY_MISSING;
}

/* The keys that usable rows have and a cache lacks, in the manifest's order, in job->wanted. */
static void list_missing(extract_job *job, const ser_manifest *manifest) {
  const ser_row **rows = job->rows = ser_alloc(manifest->count * sizeof *rows);
  job->wanted = ser_alloc(manifest->count * sizeof *job->wanted);
  for (size_t i = 0; i < manifest->count; i++) rows[i] = &manifest->rows[i];
  if (manifest->count) qsort(rows, manifest->count, sizeof *rows, compare_rows);
  for (size_t i = 0, end; i < manifest->count; i = end) {
    for (end = i + 1; end < manifest->count && !ser_hash_compare(&rows[i]->hash, &rows[end]->hash);) end++;
    if (!ser_row_usable(rows[i])) continue;
    unsigned lacking = 0;
    for (size_t t = 0; t < job->target_count; t++) {
      if (!is_missing(job, &job->targets[t], rows[i])) continue;
      lacking |= 1u << t;
      job->to_do++;
    }
    if (lacking) job->wanted[job->count++] = (extract_key){rows + i, end - i, lacking};
  }
  if (job->count) qsort(job->wanted, job->count, sizeof *job->wanted, compare_places);
}

/* ---- the job --------------------------------------------------------------------------------------------------- */

static ser_status start(extract_job *job, ser_error *err) {
  ser_device *device = job->options->device;
  ser_device_properties properties;
  device->rt->properties(device, &properties);
  for (size_t t = 0; t < job->target_count; t++) SER_TRY(extract_target_start(&job->targets[t], err));
  double from = ser_seconds();
  ser_status status = ser_ring_create(&job->ring, device, properties.host_memory ? ROOM_ON_CPU : ROOM_ON_GPU, err);
  job->targets[0].summary->set_up += ser_seconds() - from;
  return status;
}

static ser_status compute_missing(extract_job *job, ser_error *err) {
  ser_device *device = job->options->device;
  ser_status status = start(job, err);
  if (status == SER_OK) {
    ser_text what = {0};
    for (size_t t = 0; t < job->target_count; t++)
      ser_text_printf(&what, "%s%s", t ? "," : "extract ", extract_name(&job->targets[t]));
    job->progress = ser_progress_begin(what.data, "clips", job->to_do);
    for (size_t t = 0; t < job->target_count; t++) {
      job->targets[t].progress = job->progress;
      job->targets[t].ring = job->ring;
    }
    device->rt->phase(device, "extract");
    status = run_job(job, err);
    device->rt->phase(device, "extracted");
    ser_progress_end(job->progress);
    free(what.data);
  }
  for (size_t t = 0; t < job->target_count; t++) extract_target_end(&job->targets[t]);
  double from = ser_seconds();
  ser_ring_free(job->ring);
  job->targets[0].summary->set_up += ser_seconds() - from;
  return status;
}

ser_status ser_extract(ser_extract_summary *summaries, const ser_manifest *manifest, const ser_extract_options *options,
                       ser_error *err) {
  double started = ser_seconds();
  extract_job job = {.options = options};
  ser_status status = SER_OK;
  SER_CHECK(options->feature_count > 0 && options->feature_count <= SER_FEATURES);
  memset(summaries, 0, options->feature_count * sizeof *summaries);
  for (size_t t = 0; t < options->feature_count && status == SER_OK; t++) {
    job.targets[t] =
        (extract_target){.feature = &options->features[t], .device = options->device, .summary = &summaries[t]};
    status = extract_target_open(&job.targets[t], options->cache_folder, err);
    if (status == SER_OK) job.target_count++;
  }
  if (status == SER_OK) list_missing(&job, manifest);
  if (status == SER_OK && job.count) status = compute_missing(&job, err);
  for (size_t t = 0; t < job.target_count; t++) { /* seals what is computed */
    ser_status closed = ser_cache_close(job.targets[t].cache, status == SER_OK ? err : NULL);
    if (status == SER_OK) status = closed;
    extract_tell_notes(&job.targets[t]);
    summaries[t].seconds = ser_seconds() - started;
  }
  free(job.wanted);
  free(job.rows);
  return status;
}
