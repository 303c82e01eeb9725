/* Caches of large clips, for tests of gc. */
#include "support/large.h"

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "cache/internal.h"
#include "support/cache.h"
#include "support/harness.h"

enum { ROWS = (2 << 20) / (TEST_CACHE_COLUMNS * 4) + 1, FLOATS = ROWS * TEST_CACHE_COLUMNS };

/* Time stands still in these tests: no shard is sealed for its age, however slow the machine is. */
int clock_gettime(clockid_t clock, struct timespec *out) {
  if (clock != CLOCK_MONOTONIC) return (int)syscall(SYS_clock_gettime, clock, out);
  *out = (struct timespec){.tv_sec = 1};
  return 0;
}

static float value_of(int64_t clip, int variant) {
  return (float)(1 + clip) + (float)variant / 4;
}

void test_large_add(ser_cache *cache, int64_t clip, int variant) {
  ser_error err = {0};
  ser_hash key = test_cache_key(clip);
  float *features = ser_alloc(FLOATS * sizeof *features);
  for (int64_t i = 0; i < FLOATS; i++) features[i] = value_of(clip, variant);
  ASSERT_OK(ser_cache_add(cache, &key, SER_ENTRY_OK, features, ROWS, &err), err);
  free(features);
}

char *test_large_finish(ser_cache *cache) {
  ser_error err = {0};
  size_t before = cache->index.shard_count;
  ASSERT_OK(ser_cache_seal(cache, &err), err);
  assert_int_equal(cache->index.shard_count, before + 1);
  char *path = cache_shard_path(ser_cache_folder(cache), &cache->index.shards[before].name);
  test_cache_close(cache);
  return path;
}

char *test_large_fill(const char *folder, int64_t first, int64_t last, int variant) {
  ser_cache *cache = test_cache_open(folder, true);
  for (int64_t i = last; i-- > first;) test_large_add(cache, i, variant);
  return test_large_finish(cache);
}

char *test_large_fill_forward(const char *folder, int64_t first, int64_t last) {
  ser_cache *cache = test_cache_open(folder, true);
  for (int64_t i = first; i < last; i++) test_large_add(cache, i, 0);
  return test_large_finish(cache);
}

void test_large_check(const char *folder, int64_t first, int64_t last, int variant) {
  ser_error err = {0};
  size_t count = (size_t)(last - first);
  ser_hash *keys = ser_alloc(count * sizeof *keys);
  for (size_t i = 0; i < count; i++) keys[i] = test_cache_key(first + (int64_t)i);
  for (int again = 0; again < 2; again++) {
    ser_cache *cache = test_cache_open(folder, false);
    char *index = ser_path_join(ser_cache_folder(cache), "index");
    int64_t *offset;
    float *features;
    ASSERT_OK(ser_cache_read(cache, &offset, &features, keys, count, &err), err);
    for (size_t i = 0; i < count; i++) {
      const float *clip = features + i * FLOATS;
      float value = value_of(first + (int64_t)i, variant);
      assert_int_equal(offset[i + 1], (int64_t)(i + 1) * ROWS);
      assert_true(clip[0] == value && clip[FLOATS - 1] == value);
    }
    free(offset);
    free(features);
    test_cache_close(cache);
    if (!again) assert_int_equal(unlink(index), 0);
    free(index);
  }
  free(keys);
}

size_t test_large_entries(const char *folder) {
  ser_cache *cache = test_cache_open(folder, false);
  size_t count = cache->index.entry_count;
  test_cache_close(cache);
  return count;
}

void test_gc(const char *folder, const char *shards, const char *gone) {
  ser_error err = {0};
  ser_text report = {0};
  ASSERT_OK(ser_cache_gc(folder, test_cache_columns, &report, &err), err);
  if (!strstr(report.data, shards) || !strstr(report.data, gone))
    fail_msg("not '%s' and '%s': %s", shards, gone, report.data);
  free(report.data);
}

void test_expect_file(char *path, bool there) {
  assert_int_equal(ser_file_exists(path), there);
  free(path);
}
