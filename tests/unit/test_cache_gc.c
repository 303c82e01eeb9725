/* gc of a cache in which clips stand twice: what goes, what stays, and that readers notice nothing. */
#include "support/cache.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "cache/internal.h"
#include "support/harness.h"

/* Clips of 2 MB: a shard of eight and more of them is no small one, and fifteen do not make it seal itself. */
enum { ROWS = (2 << 20) / (TEST_CACHE_COLUMNS * 4) + 1, FLOATS = ROWS * TEST_CACHE_COLUMNS };

static float value_of(int64_t clip, int variant) {
  return (float)(1 + clip) + (float)variant / 4;
}

static void add_clip(ser_cache *cache, int64_t clip, int variant) {
  ser_error err = {0};
  ser_hash key = test_cache_key(clip);
  float *features = ser_alloc(FLOATS * sizeof *features);
  for (int64_t i = 0; i < FLOATS; i++) features[i] = value_of(clip, variant);
  ASSERT_OK(ser_cache_add(cache, &key, SER_ENTRY_OK, features, ROWS, &err), err);
  free(features);
}

/* A shard of [first, last), from behind: another writer's order, and so another name for the same clips. Its path,
 * which the caller frees. */
static char *fill(const char *folder, int64_t first, int64_t last, int variant) {
  ser_cache *cache = test_cache_open(folder, true);
  ser_error err = {0};
  size_t before = cache->index.shard_count;
  for (int64_t i = last; i-- > first;) add_clip(cache, i, variant);
  ASSERT_OK(ser_cache_seal(cache, &err), err);
  assert_int_equal(cache->index.shard_count, before + 1);
  char *path = cache_shard_path(ser_cache_folder(cache), &cache->index.shards[before].name);
  test_cache_close(cache);
  return path;
}

static char *fill_forward(const char *folder, int64_t first, int64_t last) {
  ser_cache *cache = test_cache_open(folder, true);
  ser_error err = {0};
  size_t before = cache->index.shard_count;
  for (int64_t i = first; i < last; i++) add_clip(cache, i, 0);
  ASSERT_OK(ser_cache_seal(cache, &err), err);
  char *path = cache_shard_path(ser_cache_folder(cache), &cache->index.shards[before].name);
  test_cache_close(cache);
  return path;
}

/* What a reader gets, with the index and without it. */
static void check_clips(const char *folder, int64_t first, int64_t last, int variant) {
  ser_error err = {0};
  for (int again = 0; again < 2; again++) {
    ser_cache *cache = test_cache_open(folder, false);
    char *index = ser_path_join(ser_cache_folder(cache), "index");
    for (int64_t clip = first; clip < last; clip++) {
      ser_hash key = test_cache_key(clip);
      int64_t *offset;
      float *features;
      ASSERT_OK(ser_cache_read(cache, &offset, &features, &key, 1, &err), err);
      assert_int_equal(offset[1], ROWS);
      assert_true(features[0] == value_of(clip, variant) && features[FLOATS - 1] == value_of(clip, variant));
      free(offset);
      free(features);
    }
    test_cache_close(cache);
    if (!again) assert_int_equal(unlink(index), 0);
    free(index);
  }
}

static size_t entries_of(const char *folder) {
  ser_cache *cache = test_cache_open(folder, false);
  size_t count = cache->index.entry_count;
  test_cache_close(cache);
  return count;
}

static void expect_gc(const char *folder, const char *shards, const char *gone) {
  ser_error err = {0};
  ser_text report = {0};
  ASSERT_OK(ser_cache_gc(folder, test_cache_columns, &report, &err), err);
  if (!strstr(report.data, shards) || !strstr(report.data, gone))
    fail_msg("neither '%s' nor '%s': %s", shards, gone, report.data);
  free(report.data);
}

static const char nothing_gone[] = ", 0 rewritten; removed 0 doubled,";

static void expect_files(char *path, bool there) {
  assert_int_equal(ser_file_exists(path), there);
  free(path);
}

/* Two writers at once that both computed everything. */
static void test_twins(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *one = fill(folder, 0, 10, 0), *two = fill_forward(folder, 0, 10);
  assert_string_not_equal(one, two);
  assert_int_equal(entries_of(folder), 20);
  expect_gc(folder, ": 2 shards (", ", 0 rewritten; removed 1 doubled,");
  assert_true(ser_file_exists(one) != ser_file_exists(two));
  check_clips(folder, 0, 10, 0);
  assert_int_equal(entries_of(folder), 10);
  expect_gc(folder, ": 1 shard (", nothing_gone);
  assert_true(ser_file_exists(one) != ser_file_exists(two));
  free(one);
  free(two);
  test_folder_remove(folder);
}

/* Two writers with a part in common: the larger shard stays as it is. */
static void test_overlap(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *small = fill(folder, 6, 16, 0), *large = fill(folder, 0, 12, 0);
  expect_gc(folder, ": 2 shards (", ", 1 rewritten; removed 0 doubled,");
  expect_files(small, false);
  expect_files(large, true);
  assert_int_equal(entries_of(folder), 16);
  check_clips(folder, 0, 16, 0);
  expect_gc(folder, ": 2 shards (", nothing_gone);
  test_folder_remove(folder);
}

/* One clip of ten is not worth it to write the nine again. */
static void test_little_overlap(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *one = fill(folder, 0, 10, 0), *two = fill(folder, 9, 19, 0);
  expect_gc(folder, ": 2 shards (", nothing_gone);
  expect_files(one, true);
  expect_files(two, true);
  check_clips(folder, 0, 19, 0);
  test_folder_remove(folder);
}

/* Shards that cover each other in turn: the second has but one clip of its own, which the third, which stays, holds
 * too. None loses the last copy of a clip. */
static void test_chain(void **state) {
  (void)state;
  char *folder = test_folder_make("gc");
  free(fill(folder, 0, 14, 0));
  free(fill(folder, 4, 15, 0));
  free(fill(folder, 14, 24, 0));
  free(fill(folder, 22, 25, 0));
  free(fill(folder, 15, 16, 0));
  expect_gc(folder, ": 5 shards (", ", 1 rewritten; removed 2 doubled,");
  assert_int_equal(entries_of(folder), 25);
  check_clips(folder, 0, 25, 0);
  expect_gc(folder, ") became ", nothing_gone);
  test_folder_remove(folder);
}

/* A small shard has nobody to be joined with; that it came first, and answers, makes no difference. */
static void test_lone_small(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *small = fill(folder, 2, 4, 0), *large = fill(folder, 0, 10, 0);
  expect_gc(folder, ": 2 shards (", ", 0 rewritten; removed 1 doubled,");
  expect_files(small, false);
  small = fill(folder, 9, 12, 0); /* a third of it is doubled */
  expect_gc(folder, ": 2 shards (", ", 1 rewritten; removed 0 doubled,");
  expect_files(small, false);
  expect_files(large, true);
  check_clips(folder, 0, 12, 0);
  assert_int_equal(entries_of(folder), 12);
  expect_gc(folder, ": 2 shards (", nothing_gone);
  test_folder_remove(folder);
}

/* Shards that carry verdicts: features answer for all, a verdict for its decoder alone. */
static void test_verdicts(void **state) {
  (void)state;
  static const char *const decoders[] = {"{\"decoder\":\"one\"}", "{\"decoder\":\"two\"}"};
  char *folder = test_folder_make("gc");
  ser_error err = {0};
  free(fill(folder, 0, 2, 0));
  for (int i = 0; i < 2; i++) {
    ser_cache *cache;
    ASSERT_OK(ser_cache_open(&cache, folder, "test", TEST_CACHE_CONFIG, decoders[i], TEST_CACHE_COLUMNS, false, &err),
              err);
    for (int64_t clip = 0; clip < 3; clip++) { /* the first two have features; of the third there are verdicts alone */
      if (i && clip < 2) continue;
      ser_hash key = test_cache_key(clip);
      ASSERT_OK(ser_cache_add(cache, &key, SER_ENTRY_REFUSED, NULL, 0, &err), err);
    }
    test_cache_close(cache);
  }
  assert_int_equal(entries_of(folder), 6);
  expect_gc(folder, ": 3 shards (", ") became 3 (");
  assert_int_equal(entries_of(folder), 4);
  check_clips(folder, 0, 2, 0);
  for (int i = 0; i < 3; i++) {
    ser_cache *cache;
    ser_hash key = test_cache_key(2);
    ASSERT_OK(ser_cache_open(&cache, folder, "test", TEST_CACHE_CONFIG, i < 2 ? decoders[i] : "{}", TEST_CACHE_COLUMNS,
                             false, &err),
              err);
    assert_int_equal(ser_cache_find(cache, &key, NULL), i < 2 ? SER_ENTRY_REFUSED : SER_ENTRY_MISSING);
    test_cache_close(cache);
  }
  expect_gc(folder, ": 3 shards (", nothing_gone);
  test_folder_remove(folder);
}

/* Features that another machine computed otherwise: what was read before is read afterwards, however large the shard
 * is that has the other ones. */
static void test_differing(void **state) {
  (void)state;
  char *folder = test_folder_make("gc");
  free(fill(folder, 0, 9, 0));
  free(fill(folder, 8, 20, 1)); /* a twelfth of it differs */
  ser_cache *cache = test_cache_open(folder, false);
  ser_hash key = test_cache_key(8);
  const cache_entry *answer = cache_index_find(&cache->index, &key, &cache->decoder);
  assert_int_equal(answer->shard, 0);
  test_cache_close(cache);
  expect_gc(folder, ": 2 shards (", ", 1 rewritten; removed 0 doubled,");
  assert_int_equal(entries_of(folder), 20);
  check_clips(folder, 0, 9, 0);
  check_clips(folder, 9, 20, 1);
  expect_gc(folder, ": 2 shards (", nothing_gone);
  test_folder_remove(folder);
}

/* A shard that rotted with its size and time kept does not answer for its good copy. */
static void test_rotten_keeper(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *copy = fill(folder, 0, 3, 0), *large = fill(folder, 0, 10, 0);
  test_damage(large, 1 << 20, 'f');
  expect_gc(folder, "is damaged", nothing_gone);
  expect_files(large, false);
  expect_files(copy, true);
  check_clips(folder, 0, 3, 0);
  test_folder_remove(folder);
}

/* An index that ascribes to one shard the clips of another, with a checksum that fits. */
static void test_wrong_index(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *one = fill(folder, 0, 10, 0), *two = fill(folder, 10, 20, 0);
  ser_cache *cache = test_cache_open(folder, false);
  for (size_t i = 0; i < cache->index.entry_count; i++) {
    cache_entry *entry = &cache->index.entries[i];
    if (entry->shard == 1) entry->key = test_cache_key(9 - entry->row);
  }
  cache_index_sort(&cache->index);
  cache->changed = true;
  test_cache_close(cache);
  expect_gc(folder, ": 2 shards (", nothing_gone);
  expect_files(one, true);
  expect_files(two, true);
  check_clips(folder, 0, 20, 0);
  test_folder_remove(folder);
}

/* The C library's own unlink: a process may be made to die at its n-th removal of a shard. */
static int removals_left = -1;

int unlink(const char *path) {
  if (removals_left >= 0 && strstr(path, "/shards/") && removals_left-- == 0) _exit(9);
  return (int)syscall(SYS_unlinkat, -100 /* AT_FDCWD */, path, 0);
}

/* Whatever moment it dies at, and where it finds no room, every clip is there. */
static void test_cut_off(void **state) {
  (void)state;
  char *folder = test_folder_make("gc");
  ser_error err = {0};
  ser_text report = {0};
  struct rlimit before;
  free(fill(folder, 0, 10, 0));
  free(fill_forward(folder, 0, 10));
  free(fill(folder, 6, 14, 0));
  free(fill(folder, 12, 15, 0));
  signal(SIGXFSZ, SIG_IGN);
  getrlimit(RLIMIT_FSIZE, &before);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){1 << 16, before.rlim_max}), 0);
  assert_int_equal(ser_cache_gc(folder, test_cache_columns, &report, &err), SER_FAILED);
  setrlimit(RLIMIT_FSIZE, &before);
  assert_non_null(strstr(err.text, "make room"));
  assert_int_equal(entries_of(folder), 31);
  int deaths = 0, how = 1;
  for (; how; deaths++) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
      removals_left = deaths % 3;
      _exit(ser_cache_gc(folder, test_cache_columns, &report, &err) != SER_OK);
    }
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && (WEXITSTATUS(how) == 0 || WEXITSTATUS(how) == 9));
    check_clips(folder, 0, 15, 0);
  }
  assert_true(deaths > 2);
  assert_int_equal(entries_of(folder), 15);
  expect_gc(folder, ") became ", nothing_gone);
  free(report.data);
  test_folder_remove(folder);
}

int main(void) {
  ser_log_set_quiet(true);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_twins),     cmocka_unit_test(test_overlap),       cmocka_unit_test(test_little_overlap),
      cmocka_unit_test(test_chain),     cmocka_unit_test(test_lone_small),    cmocka_unit_test(test_verdicts),
      cmocka_unit_test(test_differing), cmocka_unit_test(test_rotten_keeper), cmocka_unit_test(test_wrong_index),
      cmocka_unit_test(test_cut_off),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
