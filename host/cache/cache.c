/* The feature cache: opening, adding and sealing, finding and reading. */
#include "cache/cache.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/half.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "cache/internal.h"

/* A shard is sealed at whichever comes first. */
enum { SEAL_BYTES = 32 << 20, SEAL_SECONDS = 10 };

/* ---- opening --------------------------------------------------------------------------------------------------- */

static void tell_damage(ser_cache *cache, const ser_hash *name, const char *what) {
  bool moved = cache_quarantine(cache->folder, name);
  char *path = cache_shard_path(cache->folder, name);
  char *line = ser_format("%s is damaged (%s)%s; extract computes its clips anew", path, what,
                          moved ? ": moved to quarantine" : " and could not be moved to quarantine");
  SER_GROW(cache->damaged, cache->damaged_count, cache->damaged_capacity);
  cache->damaged[cache->damaged_count++] = *name;
  if (cache->report)
    ser_text_printf(cache->report, "%s\n", line);
  else
    ser_warn("%s", line);
  free(line);
  free(path);
}

static bool among(const ser_hash *names, size_t count, const ser_hash *name) {
  for (size_t i = 0; i < count; i++)
    if (ser_hash_compare(&names[i], name) == 0) return true;
  return false;
}

/* Says nothing of the shard's bytes: it stays where it is. */
static void tell_unreadable(ser_cache *cache, const ser_hash *name, const char *why) {
  if (among(cache->unreadable, cache->unreadable_count, name)) return;
  SER_GROW(cache->unreadable, cache->unreadable_count, cache->unreadable_capacity);
  cache->unreadable[cache->unreadable_count++] = *name;
  char *path = cache_shard_path(cache->folder, name);
  ser_warn("%s cannot be read (%s); its clips count as missing", path, why);
  free(path);
}

const char *cache_misfit(const ser_cache *cache, const cache_table *table) {
  if (strcmp(table->configuration, cache->configuration) != 0) return "it belongs to another configuration";
  if (cache->columns && table->columns != cache->columns) return "it has another number of columns";
  if (table->features && cache_table_check(table) >= 0) return "a clip's features do not match their hash";
  return NULL;
}

/* Loads a shard by name; a damaged one is told and quarantined. */
static cache_load load_shard(cache_table *table, ser_cache *cache, const ser_hash *name, bool with_features,
                             ser_error *err) {
  memset(table, 0, sizeof *table);
  cache_load load = cache_load_bytes(&cache->scratch, cache->folder, name, err);
  if (load == CACHE_LOADED && shard_decode(table, &cache->scratch, with_features, err) != SER_OK) load = CACHE_DAMAGED;
  if (load == CACHE_LOADED) {
    const char *problem = cache_misfit(cache, table);
    if (problem) {
      ser_fail(err, SER_FAILED, "%s", problem);
      load = CACHE_DAMAGED;
      cache_table_free(table);
    }
  }
  if (load == CACHE_DAMAGED) tell_damage(cache, name, err->text);
  if (load == CACHE_UNREADABLE) tell_unreadable(cache, name, err->text);
  return load;
}

static void forget_shard(ser_cache *cache, size_t shard) {
  cache->index.shards[shard].gone = true;
  cache_index_drop_gone(&cache->index);
  cache->changed = true;
}

cache_load cache_load_shard(cache_table *table, ser_cache *cache, size_t shard, bool with_features, ser_error *err) {
  ser_hash name = cache->index.shards[shard].name;
  cache_load load = load_shard(table, cache, &name, with_features, err);
  if (load != CACHE_LOADED) forget_shard(cache, shard);
  return load;
}

/* A shard that the index does not know, or knows with another size or time: its keys are read, once. */
static void take_in(bool *vanished, ser_cache *cache, const cache_shard *shard) {
  cache_table table;
  ser_error err;
  if (among(cache->damaged, cache->damaged_count, &shard->name)) return; /* told already, and not to be moved away */
  cache_load load = load_shard(&table, cache, &shard->name, cache->deep, &err);
  if (load == CACHE_LOADED) cache_index_add(&cache->index, shard, &table);
  if (load == CACHE_VANISHED) *vanished = true;
  cache_table_free(&table);
  cache->changed = true;
}

static bool stat_shard(cache_shard *shard, bool *vanished, const char *folder, const ser_hash *name) {
  struct stat info;
  char *path = cache_shard_path(folder, name);
  bool there = stat(path, &info) == 0;
  if (!there && lstat(path, &info) != 0 && errno == ENOENT) *vanished = true;
  free(path);
  if (!there) return false;
  *shard = (cache_shard){.name = *name,
                         .size = info.st_size,
                         .mtime_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec};
  return true;
}

typedef struct {
  ser_hash name;
  size_t number;
} known_shard;

static int compare_known(const void *a, const void *b) {
  return ser_hash_compare(&((const known_shard *)a)->name, &((const known_shard *)b)->name);
}

/* *vanished: a shard went between being listed and being looked at. */
static ser_status refresh_once(bool *vanished, ser_cache *cache, ser_error *err) {
  cache_index *index = &cache->index;
  char *folder = ser_path_join(cache->folder, "shards"), **names;
  size_t count, known_count = 0, old = index->shard_count;
  ser_status status = ser_folder_names(&names, &count, folder, err);
  free(folder);
  if (status != SER_OK) return status;
  known_shard *known = ser_alloc(old * sizeof *known);
  bool *seen = ser_alloc_zero(old, sizeof *seen);
  for (size_t i = 0; i < old; i++)
    if (!index->shards[i].gone) known[known_count++] = (known_shard){index->shards[i].name, i};
  if (known_count) qsort(known, known_count, sizeof *known, compare_known);

  for (size_t i = 0; i < count && status == SER_OK; i++) {
    cache_shard shard;
    known_shard wanted;
    if (!cache_shard_name_parse(&wanted.name, names[i])) continue;
    if (!stat_shard(&shard, vanished, cache->folder, &wanted.name)) continue;
    const known_shard *found = known_count ? bsearch(&wanted, known, known_count, sizeof *known, compare_known) : NULL;
    const cache_shard *before = found ? &index->shards[found->number] : NULL;
    if (before && before->size == shard.size && before->mtime_ns == shard.mtime_ns)
      seen[found->number] = true;
    else
      take_in(vanished, cache, &shard);
    status = ser_interrupt_check(err);
  }
  for (size_t i = 0; i < old && status == SER_OK; i++) {
    if (seen[i] || index->shards[i].gone) continue;
    index->shards[i].gone = true;
    cache->changed = true;
  }
  cache_index_drop_gone(index);
  if (index->shard_count != old) cache_index_sort(index);
  cache_scratch_free(&cache->scratch);
  free(seen);
  free(known);
  ser_names_free(names, count);
  return status;
}

/* A gc at work may have put what a vanished shard held into one that the list was too early for: it is made again, some
 * times at most, since on a broken disk a name may be listed that leads nowhere. */
ser_status cache_refresh(ser_cache *cache, ser_error *err) {
  bool vanished = true;
  for (int lists = 0; lists < 20 && vanished; lists++) {
    vanished = false;
    SER_TRY(refresh_once(&vanished, cache, err));
  }
  return SER_OK;
}

static ser_status make_folder(const char *folder, const char *configuration, ser_error *err) {
  static const char *const parts[] = {"shards", "tmp", "quarantine"};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    char *path = ser_path_join(folder, parts[i]);
    ser_status status = ser_make_folders(path, err);
    free(path);
    SER_TRY(status);
  }
  char *path = ser_path_join(folder, "config.json"), *text = NULL;
  size_t size;
  ser_error ignored;
  ser_status status = SER_OK;
  bool there = ser_file_read(&text, &size, path, &ignored) == SER_OK;
  if (!there || strcmp(text, configuration) != 0)
    status = ser_file_write(path, configuration, strlen(configuration), err);
  free(text);
  free(path);
  return status;
}

static void free_cache(ser_cache *cache) {
  cache->pending.configuration = cache->pending.attributes = NULL; /* borrowed from the cache */
  free(cache->pending.features);
  cache_scratch_free(&cache->scratch);
  cache_table_free(&cache->pending);
  cache_index_free(&cache->index);
  free(cache->damaged);
  free(cache->unreadable);
  free(cache->folder);
  free(cache->configuration);
  free(cache->attributes);
  free(cache);
}

ser_status cache_open_folder(ser_cache **out, const char *folder, const char *configuration, const char *attributes,
                             int64_t columns, const cache_open_options *options, ser_error *err) {
  *out = NULL;
  if (options->create) SER_TRY(make_folder(folder, configuration, err));
  ser_cache *cache = ser_alloc_zero(1, sizeof *cache);
  cache->folder = ser_strdup(folder);
  cache->configuration = ser_strdup(configuration);
  cache->attributes = ser_strdup(attributes ? attributes : "{}");
  cache->half = cache_is_half(cache->attributes);
  cache->decoder = cache_decoder(cache->attributes);
  cache->columns = columns;
  cache->deep = options->deep;
  cache->report = options->report;
  ser_error ignored;
  if (options->ignore_index || cache_index_load(&cache->index, folder, &ignored) != SER_OK) cache->changed = true;
  ser_status status = cache_refresh(cache, err);
  if (status == SER_OK)
    *out = cache;
  else
    free_cache(cache);
  return status;
}

ser_status ser_cache_open(ser_cache **cache, const char *folder, const char *feature, const char *config_json,
                          const char *attributes_json, int64_t columns, bool create, ser_error *err) {
  *cache = NULL;
  SER_CHECK(columns > 0);
  SER_TRY(cache_format_check(folder, create, err));
  char hex[SER_HASH_HEX];
  ser_hash hash = ser_hash_bytes(config_json, strlen(config_json));
  ser_hash_hex(hex, &hash);
  char *path = ser_format("%s%s%s-%s", folder, folder[0] && folder[strlen(folder) - 1] == '/' ? "" : "/", feature, hex);
  cache_open_options options = {.create = create};
  ser_status status = SER_OK;
  if (!create && !ser_is_folder(path))
    status = ser_fail(err, SER_FAILED, "%s holds no %s features of this configuration; run `serenade extract` first",
                      folder, feature);
  if (status == SER_OK) status = cache_open_folder(cache, path, config_json, attributes_json, columns, &options, err);
  free(path);
  return status;
}

ser_status ser_cache_close(ser_cache *cache, ser_error *err) {
  if (!cache) return SER_OK;
  ser_status status = ser_cache_seal(cache, err);
  if (cache->changed) {
    ser_error ignored;
    /* Whoever cannot write it (a full disk, a folder of another user) reads the keys of the shards again next time. */
    (void)cache_index_save(&cache->index, cache->folder, &ignored);
  }
  free_cache(cache);
  return status;
}

const char *ser_cache_folder(const ser_cache *cache) {
  return cache->folder;
}

size_t ser_cache_damaged(const ser_cache *cache) {
  return cache->damaged_count;
}

ser_entry_status ser_cache_find(const ser_cache *cache, const ser_hash *key, int64_t *rows) {
  const cache_entry *entry = cache_index_find(&cache->index, key, &cache->decoder);
  if (rows) *rows = entry ? entry->frames : 0;
  return entry ? (ser_entry_status)entry->status : SER_ENTRY_MISSING;
}

/* ---- adding and sealing ---------------------------------------------------------------------------------------- */

static void grow_pending(ser_cache *cache, int64_t rows) {
  cache_table *pending = &cache->pending;
  if (pending->count == cache->pending_capacity) {
    size_t capacity = (size_t)(cache->pending_capacity ? 2 * cache->pending_capacity : 256);
    pending->key = ser_realloc(pending->key, capacity * sizeof *pending->key);
    pending->row_hash = ser_realloc(pending->row_hash, capacity * sizeof *pending->row_hash);
    pending->status = ser_realloc(pending->status, capacity * sizeof *pending->status);
    pending->offset = ser_realloc(pending->offset, (capacity + 1) * sizeof *pending->offset);
    if (!cache->pending_capacity) pending->offset[0] = 0;
    cache->pending_capacity = (int64_t)capacity;
  }
  int64_t need = ((int64_t)pending->offset[pending->count] + rows) * cache->columns;
  if (need > cache->features_capacity) {
    cache->features_capacity = need + need / 4 + 65536;
    pending->features = ser_realloc(pending->features, (size_t)cache->features_capacity * sizeof(float));
  }
}

static int64_t pending_bytes(const ser_cache *cache) {
  const cache_table *pending = &cache->pending;
  return pending->count ? (int64_t)pending->offset[pending->count] * cache->columns * (int64_t)sizeof(float) : 0;
}

ser_status ser_cache_add(ser_cache *cache, const ser_hash *key, ser_entry_status status, const float *features,
                         int64_t rows, ser_error *err) {
  SER_CHECK(status <= SER_ENTRY_REFUSED && rows >= 0 && rows <= UINT32_MAX && (rows == 0 || status == SER_ENTRY_OK));
  grow_pending(cache, rows);
  cache_table *pending = &cache->pending;
  size_t bytes = (size_t)(rows * cache->columns) * sizeof(float);
  int64_t at = (int64_t)pending->offset[pending->count];
  float *to = pending->features + at * cache->columns;
  if (bytes) memcpy(to, features, bytes);
  for (int64_t i = 0; i < rows * cache->columns && cache->half; i++) to[i] = ser_from_half(ser_to_half(to[i]));
  pending->key[pending->count] = *key;
  pending->row_hash[pending->count] = ser_hash_bytes(bytes ? to : NULL, bytes);
  pending->status[pending->count] = (uint8_t)status;
  pending->offset[++pending->count] = (uint64_t)(at + rows);
  if (pending->count == 1) cache->pending_since = ser_seconds();
  if (pending_bytes(cache) >= SEAL_BYTES) return ser_cache_seal(cache, err);
  return ser_cache_tick(cache, err);
}

ser_status ser_cache_tick(ser_cache *cache, ser_error *err) {
  if (cache->pending.count && ser_seconds() - cache->pending_since >= SEAL_SECONDS) return ser_cache_seal(cache, err);
  return SER_OK;
}

ser_status ser_cache_seal(ser_cache *cache, ser_error *err) {
  cache_table *pending = &cache->pending;
  if (!pending->count) return SER_OK;
  pending->columns = cache->columns;
  pending->configuration = cache->configuration;
  pending->attributes = cache->attributes;
  char *image;
  size_t size;
  cache_shard shard;
  SER_TRY(shard_encode(&image, &size, pending, err));
  ser_status status = cache_write_shard(&shard, cache->folder, image, size, err);
  free(image);
  if (status != SER_OK) return status; /* the clips stay pending: a second attempt may find room */
  cache_index_add(&cache->index, &shard, pending);
  cache_index_sort(&cache->index);
  cache->changed = true;
  pending->count = 0;
  return SER_OK;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

typedef struct {
  uint32_t shard, row, frames;
  size_t place; /* in the caller's keys */
} wanted_row;

static int compare_wanted(const void *left, const void *right) {
  const wanted_row *a = left, *b = right;
  if (a->shard != b->shard) return a->shard < b->shard ? -1 : 1;
  if (a->row != b->row) return a->row < b->row ? -1 : 1;
  return (a->place > b->place) - (a->place < b->place);
}

static ser_status plan_read(wanted_row *wanted, int64_t *offset, const ser_cache *cache, const ser_hash *keys,
                            size_t count, ser_error *err) {
  offset[0] = 0;
  for (size_t i = 0; i < count; i++) {
    const cache_entry *entry = cache_index_find(&cache->index, &keys[i], &cache->decoder);
    if (!entry || entry->status != SER_ENTRY_OK) {
      char hex[SER_HASH_HEX];
      ser_hash_hex(hex, &keys[i]);
      return ser_fail(err, SER_FAILED, "%s: the clip with hash %s %s", cache->folder, hex,
                      !entry ? "is missing; run `serenade extract` again"
                             : "was found too short or unusable, so it has no features; leave it out");
    }
    wanted[i] = (wanted_row){entry->shard, entry->row, entry->frames, i};
    offset[i + 1] = offset[i] + entry->frames;
  }
  if (count) qsort(wanted, count, sizeof *wanted, compare_wanted);
  return SER_OK;
}

/* Copies the rows of one shard to their places. false: the shard does not hold what the index says. */
static bool copy_rows(float *features, const int64_t *offset, const wanted_row *wanted, size_t count,
                      const ser_hash *keys, const cache_table *table) {
  size_t columns = (size_t)table->columns;
  for (size_t i = 0; i < count; i++) {
    const wanted_row *row = &wanted[i];
    if (row->row >= table->count || ser_hash_compare(&table->key[row->row], &keys[row->place]) != 0) return false;
    uint64_t first = table->offset[row->row];
    if (table->offset[row->row + 1] - first != row->frames) return false;
    if (row->frames)
      memcpy(features + (size_t)offset[row->place] * columns, table->features + first * columns,
             row->frames * columns * sizeof(float));
  }
  return true;
}

/* One attempt. *again: entries were dropped, and another attempt may do; the other shards are looked at all the same.
 */
static ser_status read_once(bool *again, float *features, const int64_t *offset, const wanted_row *wanted,
                            ser_cache *cache, const ser_hash *keys, size_t count, ser_error *err) {
  *again = false;
  for (size_t first = 0, last; first < count; first = last) {
    for (last = first; last < count && wanted[last].shard == wanted[first].shard;) last++;
    cache_table table;
    ser_error why;
    cache_load load = cache_load_shard(&table, cache, wanted[first].shard, true, &why);
    if (load == CACHE_UNREADABLE)
      return ser_fail(err, SER_FAILED, "%s: a shard cannot be read: %s", cache->folder, why.text);
    if (load == CACHE_LOADED && !copy_rows(features, offset, wanted + first, last - first, keys, &table)) {
      forget_shard(cache, wanted[first].shard); /* the index was wrong about it: its keys are read anew */
      load = CACHE_VANISHED;
    }
    cache_table_free(&table);
    *again |= load != CACHE_LOADED;
    SER_TRY(ser_interrupt_check(err));
  }
  return SER_OK;
}

ser_status ser_cache_read(ser_cache *cache, int64_t **offset, float **features, const ser_hash *keys, size_t count,
                          ser_error *err) {
  wanted_row *wanted = ser_alloc(count * sizeof *wanted);
  ser_status status = SER_OK;
  bool again = true;
  *offset = ser_alloc((count + 1) * sizeof **offset);
  *features = NULL;
  /* A failed attempt drops a shard; gc of another process may have moved its clips to a new one, hence the refresh. */
  while (again) {
    SER_TRY_DONE(plan_read(wanted, *offset, cache, keys, count, err));
    free(*features);
    *features = ser_alloc((size_t)((*offset)[count] * cache->columns) * sizeof **features);
    SER_TRY_DONE(read_once(&again, *features, *offset, wanted, cache, keys, count, err));
    if (again) SER_TRY_DONE(cache_refresh(cache, err));
  }
done:
  cache_scratch_free(&cache->scratch);
  free(wanted);
  if (status != SER_OK) {
    free(*offset);
    free(*features);
    *offset = NULL;
    *features = NULL;
  }
  return status;
}
