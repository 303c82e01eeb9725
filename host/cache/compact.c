/* What `cache gc` does with the shards: those that hold nothing of their own go, small ones and those that are doubled
 * in good part are written anew. Every entry that reading could ask for has one keeper, chosen before anything is
 * written; a shard is removed once all that stands for its entries is sealed and on the disk, not before, and soon
 * after, so that gc itself needs little room. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/interrupt.h"
#include "cache/internal.h"

/* Shards below SMALL_SHARD are rewritten together, into full ones; others where at least 1 / WORTH of them stands
 * elsewhere. */
enum { SMALL_SHARD = 16 << 20, WORTH = 4 };

typedef struct {
  bool known;   /* loaded and found good: whoever is not takes no part, and stays */
  bool differs; /* has other features than those that readers are given: they must never come to answer */
  bool goes;    /* is to be removed; what it keeps is written anew before */
  bool removed; /* and has been */
  size_t rows;
  ser_hash *key, *row_hash; /* [rows] */
  uint8_t *status;          /* [rows] */
  bool *keeps;              /* [rows] is the one that stands for its equals */
  int64_t weight, kept;     /* of all rows, and of those it keeps: a row weighs its frames and one */
  size_t turn;              /* from 1 on, in the order of being written anew; 0: it is not written */
  size_t after;             /* what stands for its rows has been written after this turn; 0: it stands already */
  char *attributes;
} shard_plan;

typedef struct {
  shard_plan *shards; /* [count], numbered as in the index */
  size_t count;
} gc_plan;

static void plan_free(gc_plan *plan) {
  for (size_t i = 0; i < plan->count; i++) {
    free(plan->shards[i].key);
    free(plan->shards[i].row_hash);
    free(plan->shards[i].status);
    free(plan->shards[i].keeps);
    free(plan->shards[i].attributes);
  }
  free(plan->shards);
}

static bool same_key(const cache_entry *a, const cache_entry *b) {
  return ser_hash_compare(&a->key, &b->key) == 0;
}

static bool is_small(const ser_cache *cache, size_t number) {
  return cache->index.shards[number].size < SMALL_SHARD;
}

/* ---- what there is --------------------------------------------------------------------------------------------- */

/* Loads what may be rewritten or has a key that stands elsewhere, too. Features are read, so that a shard that rotted
 * with its size and time kept answers for no other; whichever cannot be had drops out of the index. */
static ser_status look(gc_plan *plan, ser_cache *cache, ser_error *err) {
  const cache_index *index = &cache->index;
  bool *wanted = ser_alloc_zero(plan->count, sizeof *wanted);
  ser_status status = SER_OK;
  for (size_t i = 0; i < plan->count; i++) wanted[i] = is_small(cache, i);
  for (size_t i = 1; i < index->entry_count; i++)
    if (same_key(&index->entries[i - 1], &index->entries[i]))
      wanted[index->entries[i - 1].shard] = wanted[index->entries[i].shard] = true;
  for (size_t i = 0; i < plan->count && status == SER_OK; i++) {
    shard_plan *shard = &plan->shards[i];
    cache_table table;
    ser_error ignored;
    if (!wanted[i] || index->shards[i].gone) continue;
    status = ser_interrupt_check(err);
    if (status != SER_OK || cache_load_shard(&table, cache, i, true, &ignored) != CACHE_LOADED) continue;
    *shard = (shard_plan){.known = true,
                          .rows = (size_t)table.count,
                          .key = table.key,
                          .row_hash = table.row_hash,
                          .status = table.status,
                          .keeps = ser_alloc_zero((size_t)table.count, sizeof *shard->keeps),
                          .attributes = table.attributes};
    table.key = table.row_hash = NULL; /* the plan's from now on */
    table.status = NULL;
    table.attributes = NULL;
    cache_table_free(&table);
  }
  free(wanted);
  return status;
}

static bool lists(const cache_entry *entry, const shard_plan *shard) {
  return shard->known && entry->row < shard->rows && entry->status == shard->status[entry->row] &&
         ser_hash_compare(&shard->key[entry->row], &entry->key) == 0;
}

/* The index is trusted with what is removed only where it lists exactly what a shard holds; one that it is wrong about
 * is left out, and its keys are read anew by the next refresh. */
static void mistrust(gc_plan *plan, ser_cache *cache) {
  cache_index *index = &cache->index;
  size_t *found = ser_alloc_zero(plan->count, sizeof *found);
  for (size_t i = 0; i < index->entry_count; i++)
    found[index->entries[i].shard] += lists(&index->entries[i], &plan->shards[index->entries[i].shard]);
  for (size_t i = 0; i < plan->count; i++) {
    if (!plan->shards[i].known) continue;
    ser_hash decoder = cache_decoder(plan->shards[i].attributes);
    if (found[i] == plan->shards[i].rows && ser_hash_compare(&decoder, &index->shards[i].decoder) == 0) continue;
    plan->shards[i].known = false;
    index->shards[i].gone = true;
    cache->changed = true;
  }
  cache_index_drop_gone(index);
  free(found);
}

/* ---- who keeps what -------------------------------------------------------------------------------------------- */

static const ser_hash *row_hash(const gc_plan *plan, const cache_entry *entry) {
  return &plan->shards[entry->shard].row_hash[entry->row];
}

/* Whether one may stand for the other: the same features, or the same verdict of the same decoder. */
static bool equals(const gc_plan *plan, const cache_index *index, const cache_entry *a, const cache_entry *b) {
  if (a->status != b->status) return false;
  if (a->status == SER_ENTRY_OK) return ser_hash_compare(row_hash(plan, a), row_hash(plan, b)) == 0;
  return ser_hash_compare(&index->shards[a->shard].decoder, &index->shards[b->shard].decoder) == 0;
}

/* Who stays keeps before who goes, then the larger shard: a small copy beside a large one is what falls out. Names
 * decide the rest, so that the outcome does not depend on the order in which shards arrived. */
static bool keeps_before(const gc_plan *plan, const cache_index *index, const cache_entry *a, const cache_entry *b) {
  const cache_shard *left = &index->shards[a->shard], *right = &index->shards[b->shard];
  bool goes = plan->shards[a->shard].goes;
  if (goes != plan->shards[b->shard].goes) return !goes;
  if (left->size != right->size) return left->size > right->size;
  int order = ser_hash_compare(&left->name, &right->name);
  return order ? order < 0 : a->row < b->row;
}

/* The entries of one key. What a reader is given for it (the index says) is kept once; an entry that differs from that
 * is never read, and kept by nobody. */
static void choose_keeper(gc_plan *plan, const cache_index *index, const cache_entry *first, const cache_entry *last) {
  for (const cache_entry *entry = first; entry < last; entry++) {
    shard_plan *shard = &plan->shards[entry->shard];
    if (!shard->known) continue; /* then it is alone with its key: who shares one was looked at, or dropped */
    const cache_entry *keeper = NULL,
                      *answer = cache_index_find(index, &entry->key, &index->shards[entry->shard].decoder);
    for (const cache_entry *other = first; other < last; other++)
      if (equals(plan, index, other, answer) && (!keeper || keeps_before(plan, index, other, keeper))) keeper = other;
    int64_t weight = (int64_t)entry->frames + 1;
    shard->keeps[entry->row] = keeper == entry;
    shard->weight += weight;
    if (keeper == entry) shard->kept += weight;
    if (shard->after < plan->shards[keeper->shard].turn) shard->after = plan->shards[keeper->shard].turn;
    if (entry->status == SER_ENTRY_OK && !equals(plan, index, entry, answer)) shard->differs = true;
  }
}

static void choose_keepers(gc_plan *plan, const cache_index *index) {
  for (size_t i = 0; i < plan->count; i++) {
    plan->shards[i].weight = plan->shards[i].kept = 0;
    plan->shards[i].after = 0;
  }
  for (size_t first = 0, last; first < index->entry_count; first = last) {
    for (last = first; last < index->entry_count && same_key(&index->entries[last], &index->entries[first]);) last++;
    choose_keeper(plan, index, index->entries + first, index->entries + last);
  }
}

/* ---- who goes -------------------------------------------------------------------------------------------------- */

typedef struct {
  size_t number; /* in the index */
  ser_hash name;
  const char *attributes;
} candidate;

static int compare_candidates(const void *left, const void *right) {
  const candidate *a = left, *b = right;
  int order = strcmp(a->attributes, b->attributes);
  return order ? order : ser_hash_compare(&a->name, &b->name);
}

static bool worth_rewriting(const shard_plan *shard) {
  return shard->differs || WORTH * (shard->weight - shard->kept) >= shard->weight;
}

/* Those that keep something and are small or doubled, the ones with the same attributes side by side. Shards that keep
 * nothing go at once; a small one that has nobody to join and is worth nothing stays. */
static size_t decide(candidate **out, gc_plan *plan, const ser_cache *cache) {
  candidate *all = ser_alloc(plan->count * sizeof *all);
  size_t count = 0, turns = 0;
  for (size_t i = 0; i < plan->count; i++) {
    shard_plan *shard = &plan->shards[i];
    if (!shard->known) continue;
    if (!shard->kept)
      shard->goes = true;
    else if (is_small(cache, i) || worth_rewriting(shard))
      all[count++] = (candidate){i, cache->index.shards[i].name, shard->attributes};
  }
  if (count) qsort(all, count, sizeof *all, compare_candidates);
  for (size_t i = 0; i < count; i++) {
    bool joins = (i && !strcmp(all[i - 1].attributes, all[i].attributes)) ||
                 (i + 1 < count && !strcmp(all[i + 1].attributes, all[i].attributes));
    shard_plan *shard = &plan->shards[all[i].number];
    shard->goes = joins || worth_rewriting(shard);
    if (shard->goes) shard->turn = ++turns;
  }
  *out = all;
  return count;
}

/* ---- removing -------------------------------------------------------------------------------------------------- */

/* That the file is there as a whole, and on the disk: it may have been copied there by hand, or its writer killed. */
static ser_status settle_shard(const char *path, int64_t size, ser_error *err) {
  static const char kept[] = "so no more shards were removed; see to its disk or rights, then run gc again";
  struct stat info;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ser_status status = SER_OK;
  if (fd < 0 || fstat(fd, &info) != 0 || fsync(fd) != 0)
    status = ser_fail_errno(err, SER_FAILED, "%s, which stands for others, is not safe on the disk, %s", path, kept);
  else if (info.st_size != size)
    status = ser_fail(err, SER_FAILED, "%s, which stands for others, was changed while gc was at work, %s", path, kept);
  if (fd >= 0) close(fd);
  return status;
}

/* Everything that may stand for what is removed next: the shards that stay and keep something, and the new ones. */
static ser_status settle(const ser_cache *cache, const gc_plan *plan, ser_error *err) {
  const cache_index *index = &cache->index;
  for (size_t i = 0; i < index->shard_count; i++) {
    if (i < plan->count && (plan->shards[i].goes || !plan->shards[i].kept)) continue;
    char *path = cache_shard_path(cache->folder, &index->shards[i].name);
    ser_status status = settle_shard(path, index->shards[i].size, err);
    free(path);
    SER_TRY(status);
  }
  if (cache_sync_shards(cache->folder)) return SER_OK;
  return ser_fail_errno(err, SER_FAILED,
                        "%s/shards cannot be synced, so no more shards were removed; see to its disk, then run gc "
                        "again",
                        cache->folder);
}

/* Whether the file of a shard that goes is also that of one that stays or was written: they may have the same bytes. */
static bool name_stands(const cache_index *index, const gc_plan *plan, const ser_hash *name) {
  for (size_t i = 0; i < index->shard_count; i++)
    if ((i >= plan->count || !plan->shards[i].goes) && ser_hash_compare(&index->shards[i].name, name) == 0) return true;
  return false;
}

static ser_status remove_shard(bool *removed, const ser_cache *cache, const gc_plan *plan, size_t number,
                               ser_error *err) {
  const ser_hash *name = &cache->index.shards[number].name;
  *removed = true;
  if (name_stands(&cache->index, plan, name)) return SER_OK;
  char *path = cache_shard_path(cache->folder, name);
  ser_status status = SER_OK;
  *removed = unlink(path) == 0;
  if (!*removed && errno != ENOENT)
    status = ser_fail_errno(
        err, SER_FAILED,
        "cannot remove %s, whose clips all stand elsewhere, too; see to the rights of its folder, then run gc again",
        path);
  free(path);
  return status;
}

/* Removes those whose entries are all sealed elsewhere once `done` turns have been. */
static ser_status remove_shards(cache_gone *gone, const ser_cache *cache, gc_plan *plan, size_t done, ser_error *err) {
  bool settled = false;
  for (size_t i = 0; i < plan->count; i++) {
    shard_plan *shard = &plan->shards[i];
    bool removed;
    if (!shard->goes || shard->removed || shard->after > done) continue;
    SER_CHECK(shard->turn || !shard->kept); /* what keeps something is written first */
    if (!settled) SER_TRY(settle(cache, plan, err));
    settled = true;
    SER_TRY(remove_shard(&removed, cache, plan, i, err));
    shard->removed = true;
    *(shard->kept ? &gone->rewritten : &gone->doubled) += removed;
  }
  return SER_OK;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

/* Adds the entries that a shard keeps. *carried becomes false where it could not be loaded. */
static ser_status carry_over(bool *carried, ser_cache *cache, const shard_plan *shard, size_t number, ser_error *err) {
  cache_table table;
  ser_error ignored;
  SER_TRY(ser_interrupt_check(err));
  if (!shard->kept) return SER_OK;
  if (cache_load_shard(&table, cache, number, true, &ignored) != CACHE_LOADED) {
    *carried = false;
    return SER_OK;
  }
  ser_status status = SER_OK;
  for (int64_t i = 0; i < table.count && status == SER_OK; i++) {
    if (!shard->keeps[i]) continue;
    int64_t rows = (int64_t)(table.offset[i + 1] - table.offset[i]);
    const float *features = rows ? table.features + (int64_t)table.offset[i] * table.columns : NULL;
    status = ser_cache_add(cache, &table.key[i], (ser_entry_status)table.status[i], features, rows, err);
  }
  cache_table_free(&table);
  return status;
}

/* Shards of one kind at a time: the pending one is sealed before others come. */
static ser_status take_attributes(ser_cache *cache, const char *attributes, ser_error *err) {
  if (strcmp(cache->attributes, attributes) == 0) return SER_OK;
  SER_TRY(ser_cache_seal(cache, err));
  free(cache->attributes);
  cache->attributes = ser_strdup(attributes);
  cache->half = cache_is_half(attributes);
  return SER_OK;
}

/* Writes anew and removes, turn by turn. A shard that cannot be read a second time ends it: whatever waits for it, or
 * for what comes later, stays until the next gc. */
static ser_status write_anew(cache_gone *gone, ser_cache *cache, gc_plan *plan, const candidate *candidates,
                             size_t count, ser_error *err) {
  size_t done = 0;
  SER_TRY(remove_shards(gone, cache, plan, done, err)); /* first of all: the disk may be full */
  for (size_t i = 0; i < count; i++) {
    const shard_plan *shard = &plan->shards[candidates[i].number];
    size_t sealed = cache->index.shard_count;
    bool carried = true;
    if (!shard->goes) continue;
    SER_TRY(take_attributes(cache, shard->attributes, err));
    SER_TRY(carry_over(&carried, cache, shard, candidates[i].number, err));
    if (!carried) return ser_cache_seal(cache, err);
    if (!cache->pending.count)
      done = shard->turn;
    else if (cache->index.shard_count > sealed) /* what is pending is of this turn alone */
      done = shard->turn - 1;
    SER_TRY(remove_shards(gone, cache, plan, done, err));
  }
  SER_TRY(ser_cache_seal(cache, err));
  return remove_shards(gone, cache, plan, SIZE_MAX, err);
}

ser_status cache_compact(cache_gone *gone, ser_cache *cache, ser_error *err) {
  gc_plan plan = {.count = cache->index.shard_count};
  candidate *candidates = NULL;
  ser_status status;
  *gone = (cache_gone){0};
  plan.shards = ser_alloc_zero(plan.count, sizeof *plan.shards);
  SER_TRY_DONE(look(&plan, cache, err));
  mistrust(&plan, cache);
  choose_keepers(&plan, &cache->index);
  size_t count = decide(&candidates, &plan, cache);
  choose_keepers(&plan, &cache->index); /* what a shard that stays holds need not be written again */
  SER_TRY_DONE(write_anew(gone, cache, &plan, candidates, count, err));
  SER_TRY_DONE(cache_refresh(cache, err));
done:
  free(candidates);
  plan_free(&plan);
  return status;
}
