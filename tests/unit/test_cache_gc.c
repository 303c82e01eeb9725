/* gc of a cache in which clips stand twice: what goes, what stays, and that readers notice nothing. */
#include <stdlib.h>

#include "base/file.h"
#include "base/log.h"
#include "cache/internal.h"
#include "support/cache.h"
#include "support/harness.h"
#include "support/large.h"

/* Two writers at once that both computed everything. */
static void test_twins(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *one = test_large_fill(folder, 0, 10, 0),
       *two = test_large_fill_forward(folder, 0, 10);
  assert_string_not_equal(one, two);
  assert_int_equal(test_large_entries(folder), 20);
  test_gc(folder, ": 2 shards (", ", 0 rewritten; removed 1 doubled,");
  assert_true(ser_file_exists(one) != ser_file_exists(two));
  test_large_check(folder, 0, 10, 0);
  assert_int_equal(test_large_entries(folder), 10);
  test_gc(folder, ": 1 shard (", TEST_NOTHING_GONE);
  assert_true(ser_file_exists(one) != ser_file_exists(two));
  free(one);
  free(two);
  test_folder_remove(folder);
}

/* Two writers with a part in common: the larger shard stays as it is. */
static void test_overlap(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *small = test_large_fill(folder, 6, 16, 0),
       *large = test_large_fill(folder, 0, 12, 0);
  test_gc(folder, ": 2 shards (", ", 1 rewritten; removed 0 doubled,");
  test_expect_file(small, false);
  test_expect_file(large, true);
  assert_int_equal(test_large_entries(folder), 16);
  test_large_check(folder, 0, 16, 0);
  test_gc(folder, ": 2 shards (", TEST_NOTHING_GONE);
  test_folder_remove(folder);
}

/* One clip of ten is not worth it to write the nine again. */
static void test_little_overlap(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *one = test_large_fill(folder, 0, 10, 0),
       *two = test_large_fill(folder, 9, 19, 0);
  test_gc(folder, ": 2 shards (", TEST_NOTHING_GONE);
  test_expect_file(one, true);
  test_expect_file(two, true);
  test_large_check(folder, 0, 19, 0);
  test_folder_remove(folder);
}

/* Shards that cover each other in turn: the second has but one clip of its own, which the third, which stays, holds
 * too. None loses the last copy of a clip. */
static void test_chain(void **state) {
  (void)state;
  char *folder = test_folder_make("gc");
  free(test_large_fill(folder, 0, 14, 0));
  free(test_large_fill(folder, 4, 15, 0));
  free(test_large_fill(folder, 14, 24, 0));
  free(test_large_fill(folder, 22, 25, 0));
  free(test_large_fill(folder, 15, 16, 0));
  test_gc(folder, ": 5 shards (", ", 1 rewritten; removed 2 doubled,");
  assert_int_equal(test_large_entries(folder), 25);
  test_large_check(folder, 0, 25, 0);
  test_gc(folder, ") became ", TEST_NOTHING_GONE);
  test_folder_remove(folder);
}

/* A small shard has nobody to be joined with; that it came first, and answers, makes no difference. */
static void test_lone_small(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *small = test_large_fill(folder, 2, 4, 0),
       *large = test_large_fill(folder, 0, 10, 0);
  test_gc(folder, ": 2 shards (", ", 0 rewritten; removed 1 doubled,");
  test_expect_file(small, false);
  small = test_large_fill(folder, 9, 12, 0); /* a third of it is doubled */
  test_gc(folder, ": 2 shards (", ", 1 rewritten; removed 0 doubled,");
  test_expect_file(small, false);
  test_expect_file(large, true);
  test_large_check(folder, 0, 12, 0);
  assert_int_equal(test_large_entries(folder), 12);
  test_gc(folder, ": 2 shards (", TEST_NOTHING_GONE);
  test_folder_remove(folder);
}

/* For clips that a decoder refuses. */
static ser_cache *open_with(const char *folder, const char *attributes) {
  ser_cache *cache;
  ser_error err = {0};
  ASSERT_OK(ser_cache_open(&cache, folder, "test", TEST_CACHE_CONFIG, attributes, TEST_CACHE_COLUMNS, true, &err), err);
  return cache;
}

static void refuse_clip(ser_cache *cache, int64_t clip) {
  ser_error err = {0};
  ser_hash key = test_cache_key(clip);
  ASSERT_OK(ser_cache_add(cache, &key, SER_ENTRY_REFUSED, NULL, 0, &err), err);
}

/* What a reader with this decoder learns of the clip. */
static void expect_status(const char *folder, const char *attributes, int64_t clip, ser_entry_status wanted) {
  ser_cache *cache = open_with(folder, attributes);
  ser_hash key = test_cache_key(clip);
  assert_int_equal(ser_cache_find(cache, &key, NULL), wanted);
  test_cache_close(cache);
}

static const char *const decoders[] = {"{\"decoder\":\"one\"}", "{\"decoder\":\"two\"}"};

/* Shards that carry verdicts: features answer for all, a verdict for its decoder alone. */
static void test_verdicts(void **state) {
  (void)state;
  char *folder = test_folder_make("gc");
  free(test_large_fill(folder, 0, 2, 0));
  for (int i = 0; i < 2; i++) {
    ser_cache *cache = open_with(folder, decoders[i]);
    for (int64_t clip = i ? 2 : 0; clip < 3; clip++) /* two have features; of the third there are verdicts alone */
      refuse_clip(cache, clip);
    free(test_large_finish(cache));
  }
  assert_int_equal(test_large_entries(folder), 6);
  test_gc(folder, ": 3 shards (", ") became 3 (");
  assert_int_equal(test_large_entries(folder), 4);
  test_large_check(folder, 0, 2, 0);
  for (int i = 0; i < 2; i++) expect_status(folder, decoders[i], 2, SER_ENTRY_REFUSED);
  expect_status(folder, "{}", 2, SER_ENTRY_MISSING);
  test_gc(folder, ": 3 shards (", TEST_NOTHING_GONE);
  test_folder_remove(folder);
}

/* Features that another machine computed otherwise: what was read before is read afterwards, however large the shard
 * is that has the other ones. */
static void test_differing(void **state) {
  (void)state;
  char *folder = test_folder_make("gc");
  free(test_large_fill(folder, 0, 9, 0));
  free(test_large_fill(folder, 8, 20, 1)); /* a twelfth of it differs */
  ser_cache *cache = test_cache_open(folder, false);
  ser_hash key = test_cache_key(8);
  const cache_entry *answer = cache_index_find(&cache->index, &key, &cache->decoder);
  assert_int_equal(answer->shard, 0);
  test_cache_close(cache);
  test_gc(folder, ": 2 shards (", ", 1 rewritten; removed 0 doubled,");
  assert_int_equal(test_large_entries(folder), 20);
  test_large_check(folder, 0, 9, 0);
  test_large_check(folder, 9, 20, 1);
  test_gc(folder, ": 2 shards (", TEST_NOTHING_GONE);
  test_folder_remove(folder);
}

/* A shard that rotted with its size and time kept does not answer for its good copy. */
static void test_rotten_keeper(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *copy = test_large_fill(folder, 0, 3, 0),
       *large = test_large_fill(folder, 0, 10, 0);
  test_damage(large, 1 << 20, 'f');
  test_gc(folder, "is damaged", TEST_NOTHING_GONE);
  test_expect_file(large, false);
  test_expect_file(copy, true);
  test_large_check(folder, 0, 3, 0);
  test_folder_remove(folder);
}

/* An index that ascribes to one shard the clips of another, with a checksum that fits. */
static void test_wrong_index(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *one = test_large_fill(folder, 0, 10, 0),
       *two = test_large_fill(folder, 10, 20, 0);
  ser_cache *cache = test_cache_open(folder, false);
  for (size_t i = 0; i < cache->index.entry_count; i++) {
    cache_entry *entry = &cache->index.entries[i];
    if (entry->shard == 1) entry->key = test_cache_key(9 - entry->row);
  }
  cache_index_sort(&cache->index);
  cache->changed = true;
  test_cache_close(cache);
  test_gc(folder, ": 2 shards (", TEST_NOTHING_GONE);
  test_expect_file(one, true);
  test_expect_file(two, true);
  test_large_check(folder, 0, 20, 0);
  test_folder_remove(folder);
}

/* The same, of what became of a clip: that one was refused counts as having features. */
static void test_wrong_status(void **state) {
  (void)state;
  char *folder = test_folder_make("gc");
  ser_cache *cache = test_cache_open(folder, true);
  for (int64_t i = 0; i < 10; i++) test_large_add(cache, i, 0);
  refuse_clip(cache, 10);
  free(test_large_finish(cache));
  free(test_large_fill(folder, 10, 13, 0));
  cache = test_cache_open(folder, false);
  for (size_t i = 0; i < cache->index.entry_count; i++) cache->index.entries[i].status = SER_ENTRY_OK;
  cache_index_sort(&cache->index);
  cache->changed = true;
  test_cache_close(cache);
  test_gc(folder, ": 2 shards (", TEST_NOTHING_GONE);
  test_large_check(folder, 0, 13, 0);
  test_folder_remove(folder);
}

/* And of whose verdict it is. */
static void test_wrong_decoder(void **state) {
  (void)state;
  char *folder = test_folder_make("gc");
  for (int i = 0; i < 2; i++) {
    ser_cache *cache = open_with(folder, decoders[i]);
    refuse_clip(cache, 0);
    free(test_large_finish(cache));
  }
  ser_cache *cache = test_cache_open(folder, false);
  cache->index.shards[1].decoder = cache->index.shards[0].decoder;
  cache->changed = true;
  test_cache_close(cache);
  test_gc(folder, ": 2 shards (", TEST_NOTHING_GONE);
  for (int i = 0; i < 2; i++) expect_status(folder, decoders[i], 0, SER_ENTRY_REFUSED);
  test_folder_remove(folder);
}

/* Of two small shards to be joined one turns out to keep nothing, since another, which stays, has its last clip too.
 * What is written is then the other one, byte for byte: it is not removed as an old one. */
static void test_same_bytes(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *stays = test_large_fill(folder, 5, 12, 0), *keeps_none;
  ser_cache *cache = test_cache_open(folder, false);
  for (int64_t i = 6; i < 11; i++) test_large_add(cache, i, 0);
  test_large_add(cache, 20, 0);
  keeps_none = test_large_finish(cache);
  cache = open_with(folder, "{}"); /* which nobody joins, and smaller */
  for (int64_t i = 20; i < 25; i++) test_large_add(cache, i, 0);
  free(test_large_finish(cache));
  test_gc(folder, ": 3 shards (", ") became 2 (");
  test_expect_file(stays, true);
  test_expect_file(keeps_none, false);
  test_large_check(folder, 5, 12, 0);
  test_large_check(folder, 20, 25, 0);
  test_gc(folder, ": 2 shards (", TEST_NOTHING_GONE);
  test_folder_remove(folder);
}

int main(void) {
  ser_log_set_quiet(true);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_twins),        cmocka_unit_test(test_overlap),       cmocka_unit_test(test_little_overlap),
      cmocka_unit_test(test_chain),        cmocka_unit_test(test_lone_small),    cmocka_unit_test(test_verdicts),
      cmocka_unit_test(test_differing),    cmocka_unit_test(test_rotten_keeper), cmocka_unit_test(test_wrong_index),
      cmocka_unit_test(test_wrong_status), cmocka_unit_test(test_wrong_decoder), cmocka_unit_test(test_same_bytes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
