/* One feature of the bulk job: its cache, its batches on the device, and what it tells of recordings that it cannot
 * use. All of it is the caller's thread's alone. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/version.h"
#include "features/internal.h"

/* What suits a device. */
typedef struct {
  int64_t clips;
  int64_t enough; /* frames, or rows: a batch that has as many takes no further clip */
  int64_t most;   /* that one run takes: such a batch with its last clip */
} batch_size;
static const batch_size mfcc_on_cpu = {32, 4096, 6144}, mfcc_on_gpu = {EXTRACT_BATCH, 16384, 20480};
static const batch_size embed_on_cpu = {8, 1024, 1536}, embed_on_gpu = {EXTRACT_BATCH, 8192, 12288};

enum { FRAMES_MOST = 64 << 20 }; /* bytes of a batch's frames, where frames are kept: they go through the host */

/* ---- the two kinds of features ------------------------------------------------------------------------------------
 */

const char *extract_name(const extract_target *t) {
  return ser_feature_names[t->feature->kind];
}

int64_t extract_rate(const extract_target *t) {
  return t->feature->embed ? t->feature->embed->rate : t->feature->mfcc->rate;
}

int64_t extract_columns(const extract_target *t) {
  return t->feature->embed ? ser_embed_columns(t->feature->embed) : ser_feature_columns(t->feature->mfcc);
}

int64_t extract_fitted(const extract_target *t) {
  return t->feature->embed ? 0 : t->feature->mfcc->samples;
}

char *extract_too_short(const extract_target *t, int64_t samples) {
  double seconds = (double)samples / (double)extract_rate(t);
  if (t->feature->embed) {
    int64_t least = ser_encoder_field(&t->feature->weights->config);
    if (samples >= least) return NULL;
    return ser_format("too short: %.3f s are %lld samples, the encoder needs %lld", seconds, (long long)samples,
                      (long long)least);
  }
  int64_t frames = ser_mfcc_frames(samples, t->feature->mfcc->hop), least = ser_feature_min_frames(t->feature->mfcc);
  if (frames >= least) return NULL;
  return ser_format("too short: %.3f s make %lld %s, features need %lld", seconds, (long long)frames,
                    SER_PLURAL(frames, "frame", "frames"), (long long)least);
}

static int64_t load_of(const extract_target *t, const extract_item *item) {
  return t->embedder ? ser_embedder_rows(t->embedder, item->signal.count)
                     : ser_mfcc_frames(item->signal.count, t->feature->mfcc->hop);
}

static int64_t most_clips(const extract_target *t) {
  return t->embedder ? ser_embedder_max_clips(t->embedder) : ser_mfcc_max_clips(t->mfcc);
}

static int64_t most_load(const extract_target *t) {
  return t->embedder ? ser_embedder_max_rows(t->embedder) : ser_mfcc_max_frames(t->mfcc);
}

static bool is_full(const extract_target *t) {
  return t->embedder ? ser_embedder_full(t->embedder) : ser_mfcc_full(t->mfcc);
}

static ser_status submit(const extract_target *t, const ser_signal *signals, size_t count, ser_error *err) {
  if (t->embedder) return ser_embedder_submit(t->embedder, signals, count, err);
  return ser_mfcc_submit(t->mfcc, signals, count, err);
}

static ser_status fetch(const extract_target *t, const float **features, const int64_t **offset, ser_error *err) {
  if (t->embedder) return ser_embedder_collect(t->embedder, features, offset, err);
  return ser_mfcc_collect(t->mfcc, features, offset, err);
}

/* ---- beginning and end --------------------------------------------------------------------------------------------
 */

static char *describe(const extract_target *t) {
  ser_device_properties is = {.backend = "", .isa = ""};
  if (t->device) t->device->rt->properties(t->device, &is);
  char libraries[SER_AUDIO_LIBRARIES], decoder[SER_AUDIO_DECODER];
  ser_audio_libraries(libraries);
  ser_audio_decoder(decoder);
  ser_text text = {0};
  ser_text_printf(&text, "{\"audio\":\"%s\",\"backend\":\"%s\",\"decoder\":\"%s\",", libraries, is.backend, decoder);
  if (!t->feature->embed)
    ser_text_printf(&text, "\"hop_seconds\":%.9g,", (double)t->feature->mfcc->hop / (double)t->feature->mfcc->rate);
  bool half = t->feature->embed && t->feature->embed->pool == SER_EMBED_FRAMES; /* twelve times as much as MFCCs */
  ser_text_printf(&text, "\"instructions\":\"%s\",\"serenade\":\"" SER_VERSION "\",%s\"units\":\"%s%s\"}", is.isa,
                  half ? "\"stored\":\"float16\"," : "",
                  t->feature->embed ? "hidden states of an encoder" : "cepstrum of dB",
                  t->feature->mfcc && t->feature->mfcc->deltas ? ", its delta and delta-delta per frame" : "");
  return text.data;
}

static ser_status open_cache(ser_cache **cache, const extract_target *t, const char *folder, bool create,
                             ser_error *err) {
  char *attributes = describe(t);
  char *json =
      t->feature->embed ? ser_embed_json(t->feature->embed) : ser_feature_json(t->feature->kind, t->feature->mfcc);
  ser_status status = ser_cache_open(cache, folder, extract_name(t), json, attributes, extract_columns(t), create, err);
  free(attributes);
  free(json);
  return status;
}

ser_status extract_target_open(extract_target *t, const char *cache_folder, ser_error *err) {
  return open_cache(&t->cache, t, cache_folder, true, err);
}

ser_status ser_feature_cache_open(ser_cache **cache, const char *folder, ser_feature_kind kind,
                                  const ser_mfcc_config *config, bool create, ser_error *err) {
  const ser_extract_feature feature = {.kind = kind, .mfcc = config};
  return open_cache(cache, &(extract_target){.feature = &feature}, folder, create, err);
}

ser_status ser_embed_cache_open(ser_cache **cache, const char *folder, const ser_embed_config *config, bool create,
                                ser_error *err) {
  const ser_extract_feature feature = {.kind = SER_WAV2VEC2, .embed = config};
  return open_cache(cache, &(extract_target){.feature = &feature}, folder, create, err);
}

int64_t ser_feature_cache_columns(const char *config_json) {
  enum { MOST = 1 << 16 }; /* beyond it no configuration of ours goes */
  ser_feature_kind kind;
  ser_mfcc_config config;
  ser_embed_config embed;
  ser_error ignored;
  if (ser_embed_parse(&embed, config_json, &ignored) == SER_OK) return ser_embed_columns(&embed);
  if (ser_feature_parse(&kind, &config, config_json, &ignored) != SER_OK) return 0;
  return config.coefficients > 0 && config.coefficients <= MOST ? ser_feature_columns(&config) : 0;
}

ser_status extract_target_start(extract_target *t, ser_error *err) {
  const ser_extract_feature *f = t->feature;
  ser_device_properties is;
  ser_status status;
  double from = ser_seconds();
  t->device->rt->properties(t->device, &is);
  if (f->embed) {
    const batch_size *size = is.host_memory ? &embed_on_cpu : &embed_on_gpu;
    int64_t most = size->most, of_row = ser_embed_layers(f->embed) * f->embed->hidden * (int64_t)sizeof(float);
    if (f->embed->pool == SER_EMBED_FRAMES && most > FRAMES_MOST / of_row) most = FRAMES_MOST / of_row;
    t->enough = most < size->most ? most * 2 / 3 : size->enough;
    status = ser_embedder_create(&t->embedder, t->device, f->weights, f->embed, &(ser_embed_room){size->clips, most, 0},
                                 err);
  } else {
    const batch_size *size = is.host_memory ? &mfcc_on_cpu : &mfcc_on_gpu;
    t->enough = size->enough;
    status = ser_mfcc_create(&t->mfcc, t->device, f->mfcc, size->clips, size->most, false, err);
  }
  t->summary->set_up += ser_seconds() - from;
  return status;
}

void extract_target_end(extract_target *t) {
  double from = ser_seconds();
  ser_mfcc_free(t->mfcc);
  ser_embedder_free(t->embedder);
  t->mfcc = NULL;
  t->embedder = NULL;
  t->summary->set_up += ser_seconds() - from;
  for (size_t i = 0; i < EXTRACT_BATCHES; i++) {
    extract_batch *b = &t->batches[i];
    while (b->count) extract_item_free(b->items[--b->count], t->ring);
  }
}

/* ---- what cannot be used ------------------------------------------------------------------------------------------
 */

void extract_note_down(extract_target *t, const ser_row *row, ser_entry_status status, char *why) {
  if (status == SER_ENTRY_TOO_SHORT)
    t->summary->too_short++;
  else
    t->summary->refused++;
  if (!why) return;
  SER_GROW(t->notes, t->note_count, t->note_capacity);
  t->notes[t->note_count++] = (extract_note){row, why};
}

static int compare_notes(const void *left, const void *right) {
  const ser_row *a = ((const extract_note *)left)->row, *b = ((const extract_note *)right)->row;
  return (a > b) - (a < b);
}

void extract_tell_notes(extract_target *t) {
  if (t->note_count) qsort(t->notes, t->note_count, sizeof *t->notes, compare_notes);
  for (size_t i = 0; i < t->note_count; i++) {
    ser_text_line(&t->summary->refusals, "%s: %s", t->notes[i].row->path, t->notes[i].why);
    free(t->notes[i].why);
  }
  free(t->notes);
}

/* ---- batches ------------------------------------------------------------------------------------------------------
 */

void extract_item_free(extract_item *item, ser_ring *ring) {
  if (!item) return;
  if (item->room && atomic_fetch_sub(&item->room->items, 1) == 1) {
    ser_ring_give(ring, &item->room->part);
    free(item->room);
  }
  ser_clip_free(&item->clip);
  free(item->refusal);
  free(item);
}

static extract_batch *filling(extract_target *t) {
  return &t->batches[(t->oldest + t->under_way) % EXTRACT_BATCHES];
}

static bool may_be_floats(const extract_item *item) {
  return !item->signal.int16 || (size_t)item->signal.count * sizeof(float) <= item->bytes;
}

/* Integers as floats in the same room, from the end: a float takes the place of two that are done. */
static void make_floats(extract_item *item) {
  if (!item->signal.int16) return;
  char *room = item->memory;
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
static bool match(const extract_target *t, const extract_batch *b, extract_item *item) {
  if (item->signal.int16 == b->items[0]->signal.int16) return true;
  if (!item->signal.int16 && (2 * (int64_t)b->count >= most_clips(t) || 2 * b->load >= t->enough)) return false;
  bool may = may_be_floats(item);
  for (size_t i = 0; i < b->count && may; i++) may = may_be_floats(b->items[i]);
  if (!may) return false;
  make_floats(item);
  for (size_t i = 0; i < b->count; i++) make_floats(b->items[i]);
  return true;
}

static ser_status take_refusal(extract_target *t, extract_item *item, ser_error *err) {
  ser_status status = SER_OK;
  ser_progress_add(t->progress, 1);
  extract_note_down(t, item->row, item->status, item->refusal);
  item->refusal = NULL;
  if (item->remember) status = ser_cache_add(t->cache, &item->row->hash, item->status, NULL, 0, err);
  extract_item_free(item, t->ring);
  return status;
}

ser_status extract_take(bool *taken, extract_target *t, extract_item *item, ser_error *err) {
  extract_batch *b = filling(t);
  *taken = true;
  if (item->refusal) return take_refusal(t, item, err);
  int64_t load = load_of(t, item);
  *taken = !b->count || (b->load + load <= most_load(t) && match(t, b, item));
  if (!*taken) return SER_OK;
  b->items[b->count++] = item;
  b->load += load;
  return SER_OK;
}

bool extract_empty(const extract_target *t) {
  return t->batches[(t->oldest + t->under_way) % EXTRACT_BATCHES].count == 0;
}

bool extract_ready(const extract_target *t) {
  const extract_batch *b = &t->batches[(t->oldest + t->under_way) % EXTRACT_BATCHES];
  return (int64_t)b->count >= most_clips(t) || b->load >= t->enough;
}

static void range_begin(const extract_target *t, const char *name) {
  t->device->rt->range_begin(t->device, name);
}

static void range_end(const extract_target *t) {
  t->device->rt->range_end(t->device);
}

/* A clip that is longer than a batch goes in pieces, and may need the others' room. */
ser_status extract_send(extract_target *t, ser_error *err) {
  ser_signal signals[EXTRACT_BATCH];
  bool alone = filling(t)->load > most_load(t);
  while (t->under_way && (alone || is_full(t))) SER_TRY(extract_collect(t, err));
  extract_batch *b = filling(t);
  for (size_t i = 0; i < b->count; i++) signals[i] = b->items[i]->signal;
  range_begin(t, "submit a batch");
  ser_status status = submit(t, signals, b->count, err);
  range_end(t);
  if (status == SER_OK) t->under_way++;
  return status == SER_OK && is_full(t) ? extract_collect(t, err) : status;
}

ser_status extract_collect(extract_target *t, ser_error *err) {
  extract_batch *b = &t->batches[t->oldest];
  const float *features;
  const int64_t *offset;
  int64_t columns = extract_columns(t);
  range_begin(t, "collect a batch");
  ser_status status = fetch(t, &features, &offset, err);
  for (size_t i = 0; i < b->count && status == SER_OK; i++) {
    const extract_item *item = b->items[i];
    status = ser_cache_add(t->cache, &item->row->hash, SER_ENTRY_OK, features + offset[i] * columns,
                           offset[i + 1] - offset[i], err);
    ser_progress_add(t->progress, 1);
    t->summary->computed++;
    t->summary->audio_seconds += (double)item->info.frames / item->info.rate;
  }
  while (b->count) extract_item_free(b->items[--b->count], t->ring);
  b->load = 0;
  t->summary->work = t->embedder ? ser_embedder_work(t->embedder) : ser_mfcc_work(t->mfcc);
  t->oldest = (t->oldest + 1) % EXTRACT_BATCHES;
  t->under_way--;
  range_end(t);
  return status;
}
