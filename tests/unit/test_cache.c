/* The feature cache: what goes in comes out; sealing, indexes of other shards, and `serenade cache`. Damage is
 * test_cache_damage.c. */
#include "support/cache.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/half.h"
#include "base/log.h"
#include "cache/internal.h"
#include "support/harness.h"

static void test_round_trip(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = test_cache_open(folder, true);
  test_cache_fill(cache, 0, 300);
  assert_int_equal(test_cache_count(cache, 0, 400), 300);
  test_cache_fill(cache, 300, 301); /* one clip alone */
  test_cache_fill(cache, 304, 305); /* a shard that holds nothing but a status: 304 % 7 == 3, 304 % 11 == 7 */
  test_cache_fill(cache, 307, 308); /* 307 % 7 == 6 */
  test_cache_check(cache, 0, 301);
  test_cache_close(cache);
  for (int again = 0; again < 2; again++) { /* with the index, then without it */
    cache = test_cache_open(folder, false);
    assert_int_equal(test_cache_count(cache, 0, 400), 303);
    test_cache_check(cache, 0, 301);
    char *index = ser_path_join(ser_cache_folder(cache), "index");
    test_cache_close(cache);
    assert_int_equal(unlink(index), 0);
    free(index);
  }
  test_folder_remove(folder);
}

static void test_empty(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache;
  ser_error err = {0};
  assert_int_equal(ser_cache_open(&cache, folder, "test", TEST_CACHE_CONFIG, NULL, TEST_CACHE_COLUMNS, false, &err),
                   SER_USAGE);
  assert_non_null(strstr(err.text, "FORMAT"));
  cache = test_cache_open(folder, true);
  ASSERT_OK(ser_cache_seal(cache, &err), err);
  assert_int_equal(test_cache_files(cache, "shards"), 0);
  int64_t *offset;
  float *features;
  ASSERT_OK(ser_cache_read(cache, &offset, &features, NULL, 0, &err), err);
  assert_int_equal(offset[0], 0);
  free(offset);
  free(features);
  ser_hash key = test_cache_key(1);
  assert_int_equal(ser_cache_read(cache, &offset, &features, &key, 1, &err), SER_FAILED);
  char hex[SER_HASH_HEX];
  ser_hash_hex(hex, &key);
  assert_non_null(strstr(err.text, hex));
  assert_non_null(strstr(err.text, "extract"));
  assert_null(offset);
  test_cache_fill(cache, 6, 7);
  key = test_cache_key(6);
  assert_int_equal(ser_cache_read(cache, &offset, &features, &key, 1, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "too short"));
  test_cache_close(cache);
  assert_int_equal(ser_cache_open(&cache, folder, "test", "{}", NULL, TEST_CACHE_COLUMNS, false, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "extract"));
  test_folder_remove(folder);
}

static void test_unknown_format(void **state) {
  (void)state;
  char *folder = test_folder_make("cache"), *path = ser_path_join(folder, "FORMAT");
  ser_cache *cache;
  ser_error err = {0};
  ser_text report = {0};
  test_cache_close(test_cache_open(folder, true));
  ASSERT_OK(ser_file_write(path, "serenade-cache 2\n", 17, &err), err);
  assert_int_equal(ser_cache_open(&cache, folder, "test", TEST_CACHE_CONFIG, NULL, TEST_CACHE_COLUMNS, true, &err),
                   SER_FAILED);
  assert_non_null(strstr(err.text, "serenade-cache 2"));
  assert_non_null(strstr(err.text, "another cache folder"));
  assert_non_null(strstr(err.text, folder));
  assert_int_equal(ser_cache_verify(folder, test_cache_columns, &report, &err), SER_FAILED);
  assert_int_equal(ser_cache_gc(folder, test_cache_columns, &report, &err), SER_FAILED);
  free(report.data);
  free(path);
  test_folder_remove(folder);
}

static void test_verify(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = test_cache_open(folder, true);
  ser_error err = {0};
  ser_text report = {0};
  test_cache_fill(cache, 0, 30);
  char *first = test_cache_shard(cache), *config = ser_path_join(ser_cache_folder(cache), "config.json"), *text;
  test_cache_fill(cache, 30, 60);
  test_cache_close(cache);
  ASSERT_OK(ser_cache_verify(folder, test_cache_columns, &report, &err), err);
  assert_non_null(strstr(report.data, "2 shards"));
  assert_non_null(strstr(report.data, "0 damaged"));
  ASSERT_OK(ser_cache_info(folder, test_cache_columns, &report, &err), err);
  assert_non_null(strstr(report.data, TEST_CACHE_CONFIG));
  test_damage(first, 4000, 'f');
  ASSERT_OK(ser_file_write(config, "{", 1, &err), err);
  report.size = 0;
  assert_int_equal(ser_cache_verify(folder, test_cache_columns, &report, &err), SER_FAILED);
  assert_non_null(strstr(report.data, first));
  assert_non_null(strstr(report.data, "1 damaged"));
  assert_non_null(strstr(err.text, "1 damaged"));
  size_t size;
  ASSERT_OK(ser_file_read(&text, &size, config, &err), err);
  assert_string_equal(text, TEST_CACHE_CONFIG);
  free(text);
  ASSERT_OK(ser_cache_verify(folder, test_cache_columns, &report, &err), err);
  cache = test_cache_open(folder, false);
  assert_int_equal(test_cache_count(cache, 0, 60), 30);
  test_cache_check(cache, 30, 60);
  test_cache_close(cache);
  free(report.data);
  free(config);
  free(first);
  test_folder_remove(folder);
}

static void test_merge(void **state) {
  (void)state;
  char *into = test_folder_make("cache"), *from = test_folder_make("cache");
  ser_error err = {0};
  ser_text report = {0};
  ser_cache *cache = test_cache_open(into, true);
  test_cache_fill(cache, 0, 30);
  test_cache_close(cache);
  cache = test_cache_open(from, true);
  test_cache_fill(cache, 20, 40);
  char *bad = test_cache_shard(cache);
  test_cache_fill(cache, 40, 70);
  test_cache_close(cache);
  test_damage(bad, 3000, 'z');
  assert_int_equal(ser_cache_merge(into, into, test_cache_columns, &report, &err), SER_USAGE);
  assert_int_equal(ser_cache_merge(into, from, test_cache_columns, &report, &err),
                   SER_FAILED); /* told, but the good one came over */
  assert_non_null(strstr(report.data, bad));
  cache = test_cache_open(into, false);
  assert_int_equal(test_cache_count(cache, 0, 70), 60);
  test_cache_check(cache, 0, 30);
  test_cache_check(cache, 40, 70);
  test_cache_close(cache);
  unlink(bad);
  report.size = 0;
  ASSERT_OK(ser_cache_merge(into, from, test_cache_columns, &report, &err), err);
  assert_non_null(strstr(report.data, "0 shards added, 1 was there"));
  free(report.data);
  free(bad);
  test_folder_remove(from);
  test_folder_remove(into);
}

static pid_t dead_process(void) {
  pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, NULL, 0);
  return child;
}

static void test_gc(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_error err = {0};
  ser_text report = {0};
  ser_cache *cache = test_cache_open(folder, true), *reader;
  for (int64_t i = 0; i < 10; i++) test_cache_fill(cache, 8 * i, 8 * i + 12); /* overlapping */
  assert_int_equal(test_cache_files(cache, "shards"), 10);
  reader = test_cache_open(folder, false);
  char *gone = test_writer_mark((long)dead_process()), *here = test_writer_mark((long)getpid());
  char *dead = ser_format("%s/tmp/%s", ser_cache_folder(cache), gone);
  char *alive = ser_format("%s/tmp/%s", ser_cache_folder(cache), here);
  char *elsewhere = ser_format("%s/tmp/some-other-host-01234567-12-0123456789abcdef", ser_cache_folder(cache));
  char *bad = ser_format("%s/quarantine/bad.h5", ser_cache_folder(cache));
  const char *files[] = {dead, alive, elsewhere, bad};
  for (int i = 0; i < 4; i++) ASSERT_OK(ser_file_write(files[i], "x", 1, &err), err);
  test_cache_close(cache);
  ASSERT_OK(ser_cache_gc(folder, test_cache_columns, &report, &err), err);
  assert_non_null(strstr(report.data, "10 shards"));
  assert_false(ser_file_exists(dead));
  assert_true(ser_file_exists(alive));
  assert_true(ser_file_exists(elsewhere));
  assert_false(ser_file_exists(bad));
  assert_int_equal(test_cache_files(reader, "shards"), 1);
  test_cache_check(reader, 0, 84); /* its index is of before: it finds the clips in the new shard */
  test_cache_close(reader);
  cache = test_cache_open(folder, false);
  assert_int_equal(cache->index.entry_count, 84); /* no duplicates any more */
  assert_int_equal(test_cache_count(cache, 0, 100), 84);
  test_cache_check(cache, 0, 84);
  cache_table table;
  assert_int_equal(cache_load_shard(&table, cache, cache->index.entries[0].shard, false, &err), CACHE_LOADED);
  assert_string_equal(table.attributes, TEST_CACHE_ATTRIBUTES); /* where the clips were computed is kept */
  cache_table_free(&table);
  char *shard = test_cache_shard(cache);
  test_cache_close(cache);
  ASSERT_OK(ser_cache_gc(folder, test_cache_columns, &report, &err), err); /* nothing to do: nothing done */
  assert_true(ser_file_exists(shard));
  free(shard);
  free(gone);
  free(here);
  free(dead);
  free(alive);
  free(elsewhere);
  free(bad);
  free(report.data);
  test_folder_remove(folder);
}

/* Sealed at 32 MB without being asked. */
static void test_seals_itself(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = test_cache_open(folder, true);
  ser_error err = {0};
  int64_t rows = (4 << 20) / (TEST_CACHE_COLUMNS * 4);
  float *features = ser_alloc_zero((size_t)(rows * TEST_CACHE_COLUMNS), sizeof *features);
  for (int64_t i = 0; i < 9; i++) {
    ser_hash key = test_cache_key(i);
    assert_int_equal(test_cache_files(cache, "shards"), 0);
    ASSERT_OK(ser_cache_add(cache, &key, SER_ENTRY_OK, features, rows, &err), err);
  }
  assert_int_equal(test_cache_files(cache, "shards"), 1);
  ser_hash key = test_cache_key(8);
  assert_int_equal(ser_cache_find(cache, &key, NULL), SER_ENTRY_OK);
  test_cache_close(cache);
  free(features);
  test_folder_remove(folder);
}

static ser_cache *open_for(const char *folder, const char *attributes) {
  ser_cache *cache;
  ser_error err = {0};
  ASSERT_OK(ser_cache_open(&cache, folder, "test", TEST_CACHE_CONFIG, attributes, TEST_CACHE_COLUMNS, true, &err), err);
  return cache;
}

static size_t found_by(const char *folder, const char *attributes, bool without_index) {
  ser_cache *cache = open_for(folder, attributes);
  char *index = ser_path_join(ser_cache_folder(cache), "index");
  size_t found = test_cache_count(cache, 0, 200);
  test_cache_close(cache);
  if (without_index) {
    assert_int_equal(unlink(index), 0);
    assert_int_equal(found_by(folder, attributes, false), found);
  }
  free(index);
  return found;
}

/* Half precision is a matter of the file: what comes out is what it holds, whole or rewritten by gc, beside shards of
 * float32. */
static void test_half_precision(void **state) {
  (void)state;
  enum { CLIPS = 40, ROWS = 30 };
  static const char half[] = "{\"stored\":\"float16\"}";
  char *folder = test_folder_make("cache");
  ser_error err = {0};
  ser_text report = {0};
  float features[ROWS * TEST_CACHE_COLUMNS];
  ser_hash keys[CLIPS];
  for (int part = 0; part < 4; part++) { /* small shards, for gc to join; the last one of float32 */
    ser_cache *cache = open_for(folder, part < 3 ? half : "{}");
    for (int64_t i = part * 10; i < part * 10 + 10; i++) {
      for (int64_t j = 0; j < ROWS * TEST_CACHE_COLUMNS; j++) features[j] = 100 * test_random((uint64_t)i, (uint64_t)j);
      keys[i] = test_cache_key(i);
      ASSERT_OK(ser_cache_add(cache, &keys[i], SER_ENTRY_OK, features, i % ROWS, &err), err);
    }
    test_cache_close(cache);
  }
  for (int turn = 0; turn < 2; turn++) {
    int64_t *offset;
    float *read;
    ser_cache *cache = open_for(folder, half);
    assert_int_equal(test_cache_files(cache, "shards"), turn ? 2 : 4);
    ASSERT_OK(ser_cache_read(cache, &offset, &read, keys, CLIPS, &err), err);
    for (int64_t i = 0; i < CLIPS; i++)
      for (int64_t j = 0; j < i % ROWS * TEST_CACHE_COLUMNS; j++) {
        float want = 100 * test_random((uint64_t)i, (uint64_t)j);
        if (i < 30) want = ser_from_half(ser_to_half(want));
        assert_true(read[offset[i] * TEST_CACHE_COLUMNS + j] == want);
      }
    test_cache_close(cache);
    free(offset);
    free(read);
    ASSERT_OK(ser_cache_verify(folder, test_cache_columns, &report, &err), err);
    ASSERT_OK(ser_cache_gc(folder, test_cache_columns, &report, &err), err);
  }
  free(report.data);
  test_folder_remove(folder);
}

static const char first_decoder[] = "{\"decoder\":\"lib 1.0 rules 1\"}";
static const char second_decoder[] = "{\"decoder\":\"lib 1.1 rules 1\"}";
enum { BARE = 22, BETTER = 10 }; /* clips below 100 without features; one of them that the second decoder can decode */

/* Each decoder finds its own refusals, and the features whoever computed them. */
static void check_decoders(const char *folder) {
  static const char *const decoders[] = {first_decoder, second_decoder, "{}"};
  static const size_t others[] = {99, 99, 99 - (BARE - 1)};
  ser_hash better = test_cache_key(BETTER);
  for (int i = 0; i < 3; i++) {
    ser_cache *cache = open_for(folder, decoders[i]);
    assert_int_equal(ser_cache_find(cache, &better, NULL), SER_ENTRY_OK);
    assert_int_equal(test_cache_count(cache, 0, BETTER) + test_cache_count(cache, BETTER + 1, 100), others[i]);
    test_cache_close(cache);
  }
}

/* What one decoder could not use another one may: only features answer for all of them. */
static void test_decoders(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  float features[3 * TEST_CACHE_COLUMNS] = {1, 2, 3};
  ser_error err = {0};
  ser_text report = {0};
  ser_cache *cache = open_for(folder, first_decoder);
  test_cache_fill(cache, 0, 100);
  test_cache_close(cache);
  assert_int_equal(found_by(folder, first_decoder, true), 100);
  assert_int_equal(found_by(folder, second_decoder, true), 100 - BARE);
  assert_int_equal(found_by(folder, "{}", true), 100 - BARE);
  cache = open_for(folder, second_decoder);
  for (int64_t i = 0; i < 100; i++) { /* what extract does */
    ser_hash key = test_cache_key(i);
    if (ser_cache_find(cache, &key, NULL) != SER_ENTRY_MISSING) continue;
    if (i == BETTER)
      ASSERT_OK(ser_cache_add(cache, &key, SER_ENTRY_OK, features, 3, &err), err);
    else
      ASSERT_OK(test_cache_add(cache, i, &err), err);
  }
  test_cache_close(cache);
  check_decoders(folder);
  for (int i = 0; i < 2; i++) { /* a second small shard of each, for gc to join with the first */
    cache = open_for(folder, i ? second_decoder : first_decoder);
    test_cache_fill(cache, 190 + i, 191 + i);
    test_cache_close(cache);
  }
  ASSERT_OK(ser_cache_gc(folder, test_cache_columns, &report, &err), err);
  assert_non_null(strstr(report.data, "4 shards"));
  assert_non_null(strstr(report.data, "became 2"));
  check_decoders(folder);
  free(report.data);
  test_folder_remove(folder);
}

/* The same clips give the same bytes, and so the same name. */
static void test_same_bytes(void **state) {
  (void)state;
  char *names[2];
  for (int run = 0; run < 2; run++) {
    char *folder = test_folder_make("cache");
    ser_cache *cache = test_cache_open(folder, true);
    test_cache_fill(cache, 0, 50);
    char *path = test_cache_shard(cache);
    names[run] = ser_strdup(ser_path_name(path));
    free(path);
    test_cache_close(cache);
    test_folder_remove(folder);
    if (!run) sleep(1); /* HDF5 would store times in seconds */
  }
  assert_string_equal(names[0], names[1]);
  free(names[0]);
  free(names[1]);
}

int main(void) {
  ser_log_set_quiet(true);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_empty),    cmocka_unit_test(test_unknown_format),
      cmocka_unit_test(test_verify),         cmocka_unit_test(test_merge),    cmocka_unit_test(test_gc),
      cmocka_unit_test(test_half_precision), cmocka_unit_test(test_decoders), cmocka_unit_test(test_seals_itself),
      cmocka_unit_test(test_same_bytes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
