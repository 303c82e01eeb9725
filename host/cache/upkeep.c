/* `serenade cache verify|merge|gc` and `info cache`: what is done over every feature folder of a cache. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/interrupt.h"
#include "cache/internal.h"

static const double MEGA = 1048576;

/* ---- opening a folder by its name ------------------------------------------------------------------------------- */

/* The configuration's text, from config.json or, where that is damaged, from any shard that carries it; the folder's
 * name is its hash. */
static ser_status find_configuration(char **text, const char *folder, const ser_hash *hash, ser_error *err) {
  char *path = ser_path_join(folder, "config.json"), *shards = ser_path_join(folder, "shards"), **names = NULL;
  size_t size, count = 0;
  cache_scratch scratch = {0};
  ser_error ignored;
  bool found = false;
  *text = NULL;
  if (ser_file_read(text, &size, path, &ignored) == SER_OK) {
    ser_hash now = ser_hash_bytes(*text, size);
    found = ser_hash_compare(&now, hash) == 0;
  }
  if (!found && ser_folder_names(&names, &count, shards, &ignored) != SER_OK) count = 0;
  for (size_t i = 0; i < count && !found; i++) {
    ser_hash name;
    cache_table table = {0};
    if (!cache_shard_name_parse(&name, names[i])) continue;
    if (cache_load_bytes(&scratch, folder, &name, &ignored) != CACHE_LOADED) continue;
    if (shard_decode(&table, &scratch, false, &ignored) == SER_OK) {
      ser_hash now = ser_hash_bytes(table.configuration, strlen(table.configuration));
      found = ser_hash_compare(&now, hash) == 0;
      free(*text);
      *text = ser_strdup(table.configuration);
    }
    cache_table_free(&table);
  }
  cache_scratch_free(&scratch);
  ser_names_free(names, count);
  free(shards);
  free(path);
  if (found) return SER_OK;
  free(*text);
  *text = NULL;
  return ser_fail(err, SER_FAILED, "%s: its config.json is missing or damaged; extract writes it again", folder);
}

typedef ser_status (*folder_fn)(const char *root, const char *name, ser_cache_columns_fn columns_of, ser_text *report,
                                ser_error *err);

/* Calls body for each feature folder. The first failure is returned, after the rest has had its turn. */
static ser_status each_folder(const char *root, folder_fn body, ser_cache_columns_fn columns_of, ser_text *report,
                              ser_error *err) {
  char **names;
  size_t count;
  ser_status status = SER_OK;
  SER_TRY(cache_format_check(root, false, err));
  SER_TRY(cache_feature_folders(&names, &count, root, err));
  if (!count) ser_text_printf(report, "%s: no features yet\n", root);
  for (size_t i = 0; i < count && status != SER_INTERRUPTED; i++) {
    ser_error later;
    ser_status one = body(root, names[i], columns_of, report, status == SER_OK ? err : &later);
    if (one != SER_OK && status != SER_OK) ser_text_printf(report, "%s\n", later.text);
    if (one != SER_OK && (status == SER_OK || one == SER_INTERRUPTED)) status = one;
  }
  ser_names_free(names, count);
  return status;
}

static ser_status open_named(ser_cache **cache, const char *root, const char *name, ser_cache_columns_fn columns_of,
                             const cache_open_options *options, ser_error *err) {
  ser_hash hash;
  char *folder = ser_path_join(root, name), *configuration = NULL;
  *cache = NULL;
  ser_status status = ser_interrupt_check(err);
  SER_CHECK(cache_folder_parse(NULL, &hash, name));
  if (status == SER_OK) status = find_configuration(&configuration, folder, &hash, err);
  if (status == SER_OK)
    status = cache_open_folder(cache, folder, configuration, NULL, columns_of(configuration), options, err);
  free(configuration);
  free(folder);
  return status;
}

static size_t shards_here(const ser_cache *cache, int64_t *bytes) {
  size_t count = 0;
  *bytes = 0;
  for (size_t i = 0; i < cache->index.shard_count; i++) {
    if (cache->index.shards[i].gone) continue;
    count++;
    *bytes += cache->index.shards[i].size;
  }
  return count;
}

/* Distinct keys by status; the first entry of a key stands for it. */
static void count_entries(size_t counts[3], int64_t *frames, const cache_index *index) {
  memset(counts, 0, 3 * sizeof *counts);
  *frames = 0;
  for (size_t i = 0; i < index->entry_count; i++) {
    if (i && ser_hash_compare(&index->entries[i - 1].key, &index->entries[i].key) == 0) continue;
    counts[index->entries[i].status]++;
    *frames += index->entries[i].frames;
  }
}

/* ---- verify ---------------------------------------------------------------------------------------------------- */

/* Writes config.json again where it is not what the folder is named for. */
static ser_status mend_configuration(const ser_cache *cache, ser_text *report, ser_error *err) {
  char *path = ser_path_join(cache->folder, "config.json"), *text = NULL;
  size_t size;
  ser_error ignored;
  ser_status status = SER_OK;
  bool good = ser_file_read(&text, &size, path, &ignored) == SER_OK && !strcmp(text, cache->configuration);
  if (!good) {
    status = ser_file_write(path, cache->configuration, strlen(cache->configuration), err);
    if (status == SER_OK) ser_text_printf(report, "%s was missing or damaged: written again from a shard\n", path);
  }
  free(text);
  free(path);
  return status;
}

/* SER_FAILED where a shard could not be read; a warning has named each. */
static ser_status unreadable_shards(const ser_cache *cache, const char *what, ser_error *err) {
  if (!cache->unreadable_count) return SER_OK;
  char *first = cache_shard_path(cache->folder, &cache->unreadable[0]);
  ser_status status = cache->unreadable_count == 1
                          ? ser_fail(err, SER_FAILED, "%s cannot be read and was left as it is; %s", first, what)
                          : ser_fail(err, SER_FAILED,
                                     "%s and %zu more %s cannot be read and were left as they "
                                     "are; %s",
                                     first, cache->unreadable_count - 1,
                                     SER_PLURAL(cache->unreadable_count - 1, "shard", "shards"), what);
  free(first);
  return status;
}

static ser_status verify_folder(const char *root, const char *name, ser_cache_columns_fn columns_of, ser_text *report,
                                ser_error *err) {
  ser_cache *cache;
  cache_open_options options = {.ignore_index = true, .deep = true, .report = report};
  SER_TRY(open_named(&cache, root, name, columns_of, &options, err));
  size_t counts[3];
  int64_t frames, bytes;
  size_t shards = shards_here(cache, &bytes), damaged = cache->damaged_count;
  count_entries(counts, &frames, &cache->index);
  ser_text_printf(report, "%s: %zu %s (%.1f MB) good, %zu damaged; %zu %s, %zu too short, %zu refused\n", cache->folder,
                  shards, SER_PLURAL(shards, "shard", "shards"), (double)bytes / MEGA, damaged, counts[SER_ENTRY_OK],
                  SER_PLURAL(counts[SER_ENTRY_OK], "clip", "clips"), counts[SER_ENTRY_TOO_SHORT],
                  counts[SER_ENTRY_REFUSED]);
  char *folder = ser_path_join(cache->folder, "shards"), **names = NULL;
  size_t count = 0;
  ser_hash ignored;
  ser_status status = mend_configuration(cache, report, err);
  if (status == SER_OK) status = ser_folder_names(&names, &count, folder, err);
  for (size_t i = 0; i < count; i++)
    if (!cache_shard_name_parse(&ignored, names[i]))
      ser_text_line(report, "%s/%s is no shard: it is never read", folder, names[i]);
  ser_names_free(names, count);
  free(folder);
  if (status == SER_OK && damaged)
    status = ser_fail(err, SER_FAILED, "%s: %zu damaged %s; extract computes %s clips anew", cache->folder, damaged,
                      SER_PLURAL(damaged, "shard", "shards"), SER_PLURAL(damaged, "its", "their"));
  if (status == SER_OK) status = unreadable_shards(cache, "see to its disk or rights, then verify again", err);
  ser_status closed = ser_cache_close(cache, status == SER_OK ? err : NULL);
  return status == SER_OK ? closed : status;
}

ser_status ser_cache_verify(const char *folder, ser_cache_columns_fn columns_of, ser_text *report, ser_error *err) {
  return each_folder(folder, verify_folder, columns_of, report, err);
}

/* ---- info ------------------------------------------------------------------------------------------------------ */

static size_t count_files(const char *folder, const char *part) {
  char *path = ser_path_join(folder, part), **names = NULL;
  size_t count = 0;
  ser_error ignored;
  if (ser_folder_names(&names, &count, path, &ignored) != SER_OK) count = 0;
  ser_names_free(names, count);
  free(path);
  return count;
}

static ser_status info_folder(const char *root, const char *name, ser_cache_columns_fn columns_of, ser_text *report,
                              ser_error *err) {
  ser_cache *cache;
  cache_open_options options = {.report = report};
  SER_TRY(open_named(&cache, root, name, columns_of, &options, err));
  size_t counts[3];
  int64_t frames, bytes;
  size_t shards = shards_here(cache, &bytes);
  count_entries(counts, &frames, &cache->index);
  ser_text_printf(report, "%s\n  configuration  %s\n", cache->folder, cache->configuration);
  ser_text_printf(report, "  clips          %zu, %lld %s\n", counts[SER_ENTRY_OK], (long long)frames,
                  SER_PLURAL(frames, "frame", "frames"));
  ser_text_printf(report, "  without        %zu too short, %zu refused\n", counts[SER_ENTRY_TOO_SHORT],
                  counts[SER_ENTRY_REFUSED]);
  ser_text_printf(report, "  shards         %zu, %.1f MB; unsealed %zu, in quarantine %zu\n", shards,
                  (double)bytes / MEGA, count_files(cache->folder, "tmp"), count_files(cache->folder, "quarantine"));
  return ser_cache_close(cache, err);
}

ser_status ser_cache_info(const char *folder, ser_cache_columns_fn columns_of, ser_text *report, ser_error *err) {
  return each_folder(folder, info_folder, columns_of, report, err);
}

/* ---- merge ----------------------------------------------------------------------------------------------------- */

typedef struct {
  size_t added, present, damaged;
} merge_counts;

/* Brings one verified shard over: a hard link where the file system allows it, else a copy. */
static ser_status bring(const char *into, const char *from, const ser_hash *name, const cache_scratch *scratch,
                        ser_error *err) {
  char *to = cache_shard_path(into, name), *at = cache_shard_path(from, name);
  ser_status status = SER_OK;
  if (link(at, to) == 0) {
    (void)cache_sync_shards(into); /* a link that gets lost is still there in `from` */
  } else if (errno != EEXIST) {
    cache_shard ignored;
    status = cache_write_shard(&ignored, into, scratch->image, scratch->size, err);
  }
  free(at);
  free(to);
  return status;
}

static ser_status merge_shard(merge_counts *counts, cache_scratch *scratch, const ser_cache *into, const char *from,
                              const ser_hash *name, ser_text *report, ser_error *err) {
  char *there = cache_shard_path(into->folder, name);
  bool present = ser_file_exists(there);
  free(there);
  if (present) {
    counts->present++;
    return SER_OK;
  }
  ser_error why;
  cache_table table = {0};
  cache_load load = cache_load_bytes(scratch, from, name, &why);
  if (load == CACHE_LOADED && shard_decode(&table, scratch, true, &why) != SER_OK) load = CACHE_DAMAGED;
  const char *problem = load == CACHE_LOADED ? cache_misfit(into, &table) : NULL;
  if (problem) {
    ser_fail(&why, SER_FAILED, "%s", problem);
    load = CACHE_DAMAGED;
  }
  cache_table_free(&table);
  ser_status status = SER_OK;
  if (load == CACHE_LOADED) {
    status = bring(into->folder, from, name, scratch, err);
    counts->added += status == SER_OK;
  } else if (load != CACHE_VANISHED) {
    char hex[SER_HASH_HEX];
    ser_hash_hex(hex, name);
    ser_text_printf(report, "%s/shards/%s.h5 is left out (%s)\n", from, hex, why.text);
    counts->damaged++;
  }
  return status;
}

static ser_status merge_folder(const char *into_root, const char *from_root, const char *name,
                               ser_cache_columns_fn columns_of, ser_text *report, ser_error *err) {
  char *into = ser_path_join(into_root, name), *from = ser_path_join(from_root, name), *configuration = NULL;
  char *shards = ser_path_join(from, "shards"), **names = NULL;
  size_t count = 0;
  merge_counts counts = {0};
  cache_scratch scratch = {0};
  ser_hash hash;
  ser_cache *cache = NULL;
  ser_status status;
  cache_open_options options = {.create = true, .report = report};
  SER_CHECK(cache_folder_parse(NULL, &hash, name));
  SER_TRY_DONE(find_configuration(&configuration, from, &hash, err));
  SER_TRY_DONE(cache_open_folder(&cache, into, configuration, NULL, columns_of(configuration), &options, err));
  SER_TRY_DONE(ser_folder_names(&names, &count, shards, err));
  for (size_t i = 0; i < count; i++) {
    ser_hash shard;
    SER_TRY_DONE(ser_interrupt_check(err));
    if (cache_shard_name_parse(&shard, names[i]))
      SER_TRY_DONE(merge_shard(&counts, &scratch, cache, from, &shard, report, err));
  }
  SER_TRY_DONE(cache_refresh(cache, err)); /* the index of `into` knows the new shards from now on */
  ser_text_printf(report, "%s: %zu %s added, %zu %s there, %zu damaged left out\n", into, counts.added,
                  SER_PLURAL(counts.added, "shard", "shards"), counts.present,
                  SER_PLURAL(counts.present, "was", "were"), counts.damaged);
  if (counts.damaged)
    status =
        ser_fail(err, SER_FAILED, "%s: %zu damaged %s left out; extract computes %s clips anew", from, counts.damaged,
                 SER_PLURAL(counts.damaged, "shard was", "shards were"), SER_PLURAL(counts.damaged, "its", "their"));
done:
  if (cache) {
    ser_status closed = ser_cache_close(cache, status == SER_OK ? err : NULL);
    if (status == SER_OK) status = closed;
  }
  cache_scratch_free(&scratch);
  ser_names_free(names, count);
  free(configuration);
  free(shards);
  free(from);
  free(into);
  return status;
}

ser_status ser_cache_merge(const char *into, const char *from, ser_cache_columns_fn columns_of, ser_text *report,
                           ser_error *err) {
  char **names;
  size_t count;
  struct stat a, b;
  ser_status status = SER_OK;
  SER_TRY(cache_format_check(from, false, err));
  SER_TRY(cache_format_check(into, true, err));
  if (stat(into, &a) == 0 && stat(from, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
    return ser_fail(err, SER_USAGE, "%s and %s are the same folder; give two caches", into, from);
  SER_TRY(cache_feature_folders(&names, &count, from, err));
  if (!count) ser_text_printf(report, "%s: no features yet\n", from);
  for (size_t i = 0; i < count && status != SER_INTERRUPTED; i++) {
    ser_error later;
    ser_status one = merge_folder(into, from, names[i], columns_of, report, status == SER_OK ? err : &later);
    if (one != SER_OK && status != SER_OK) ser_text_printf(report, "%s\n", later.text);
    if (one != SER_OK && (status == SER_OK || one == SER_INTERRUPTED)) status = one;
  }
  ser_names_free(names, count);
  return status;
}

/* ---- gc -------------------------------------------------------------------------------------------------------- */

static size_t sweep(const char *folder, const char *part, bool everything) {
  char *home = ser_path_join(folder, part), **names = NULL;
  size_t count = 0, removed = 0;
  ser_error ignored;
  if (ser_folder_names(&names, &count, home, &ignored) != SER_OK) count = 0;
  for (size_t i = 0; i < count; i++) {
    char *path = ser_path_join(home, names[i]);
    struct stat info;
    if (lstat(path, &info) == 0 && S_ISREG(info.st_mode) && (everything || ser_writer_gone(names[i], &info)))
      removed += unlink(path) == 0;
    free(path);
  }
  ser_names_free(names, count);
  free(home);
  return removed;
}

static ser_status gc_folder(const char *root, const char *name, ser_cache_columns_fn columns_of, ser_text *report,
                            ser_error *err) {
  ser_cache *cache;
  cache_open_options options = {.report = report};
  SER_TRY(open_named(&cache, root, name, columns_of, &options, err));
  size_t before, after, swept, emptied;
  cache_gone gone = {0};
  int64_t bytes_before, bytes_after;
  before = shards_here(cache, &bytes_before);
  ser_status status = SER_OK;
  if (cache->columns)
    status = cache_compact(&gone, cache, err);
  else
    ser_text_printf(report, "%s: its configuration is of another version of Serenade: no shard is rewritten\n",
                    cache->folder);
  if (status == SER_OK) {
    swept = sweep(cache->folder, "tmp", false);
    emptied = sweep(cache->folder, "quarantine", true);
    after = shards_here(cache, &bytes_after);
    ser_text_printf(report,
                    "%s: %zu %s (%.1f MB) became %zu (%.1f MB), %zu rewritten; removed %zu doubled, %zu "
                    "unsealed, %zu in quarantine\n",
                    cache->folder, before, SER_PLURAL(before, "shard", "shards"), (double)bytes_before / MEGA, after,
                    (double)bytes_after / MEGA, gone.rewritten, gone.doubled, swept, emptied);
    status = unreadable_shards(cache, "see to its disk or rights, then run gc again", err);
  }
  ser_status closed = ser_cache_close(cache, status == SER_OK ? err : NULL);
  return status == SER_OK ? closed : status;
}

/* One gc at a time: each could otherwise remove the copy that the other one counts on. FORMAT is locked, a file that
 * nobody replaces, and opened for writing where that may be: over NFS there is no lock without it. */
static ser_status lock_cache(int *lock, const char *root, ser_error *err) {
  char *path = ser_path_join(root, "FORMAT");
  ser_status status = SER_OK;
  *lock = open(path, O_RDWR | O_CLOEXEC);
  if (*lock < 0) *lock = open(path, O_RDONLY | O_CLOEXEC);
  if (*lock < 0)
    status = ser_fail_errno(err, SER_FAILED, "cannot open %s", path);
  else if (flock(*lock, LOCK_EX | LOCK_NB) != 0)
    status =
        errno == EWOULDBLOCK
            ? ser_fail(err, SER_FAILED, "%s: another gc is at work there; wait for it", root)
            : ser_fail_errno(err, SER_FAILED,
                             "%s cannot be locked, and without that two gc at once could remove both copies of a clip; "
                             "run gc on the machine that has the disk",
                             path);
  free(path);
  return status;
}

ser_status ser_cache_gc(const char *folder, ser_cache_columns_fn columns_of, ser_text *report, ser_error *err) {
  int lock;
  SER_TRY(cache_format_check(folder, false, err));
  ser_status status = lock_cache(&lock, folder, err);
  if (status == SER_OK) status = each_folder(folder, gc_folder, columns_of, report, err);
  if (lock >= 0) close(lock); /* which unlocks */
  return status;
}
