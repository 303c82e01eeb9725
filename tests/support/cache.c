/* A feature cache of made clips, and ways to damage its files. */
#include "support/cache.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "support/harness.h"

ser_hash test_cache_key(int64_t i) {
  return ser_hash_bytes(&i, sizeof i);
}

/* Rows of the i-th made clip: 0 and odd lengths among them; every seventh is too short, every eleventh refused. */
static ser_entry_status status_of(int64_t i) {
  return i % 7 == 6 ? SER_ENTRY_TOO_SHORT : i % 11 == 10 ? SER_ENTRY_REFUSED : SER_ENTRY_OK;
}
static int64_t rows_of(int64_t i) {
  return status_of(i) == SER_ENTRY_OK ? i * 37 % 101 : 0;
}
static float value_of(int64_t i, int64_t at) {
  return test_random((uint64_t)i, (uint64_t)at);
}

int64_t test_cache_columns(const char *config_json) {
  return strcmp(config_json, TEST_CACHE_CONFIG) ? 0 : TEST_CACHE_COLUMNS;
}

ser_cache *test_cache_open(const char *folder, bool create) {
  ser_cache *cache;
  ser_error err = {0};
  ASSERT_OK(ser_cache_open(&cache, folder, "test", TEST_CACHE_CONFIG, TEST_CACHE_ATTRIBUTES, TEST_CACHE_COLUMNS, create,
                           &err),
            err);
  return cache;
}

void test_cache_close(ser_cache *cache) {
  ser_error err = {0};
  ASSERT_OK(ser_cache_close(cache, &err), err);
}

ser_status test_cache_add(ser_cache *cache, int64_t i, ser_error *err) {
  int64_t rows = rows_of(i);
  ser_hash key = test_cache_key(i);
  float *features = rows ? ser_alloc((size_t)(rows * TEST_CACHE_COLUMNS) * sizeof *features) : NULL;
  for (int64_t at = 0; at < rows * TEST_CACHE_COLUMNS; at++) features[at] = value_of(i, at);
  ser_status status = ser_cache_add(cache, &key, status_of(i), features, rows, err);
  free(features);
  return status;
}

void test_cache_fill(ser_cache *cache, int64_t first, int64_t last) {
  ser_error err = {0};
  for (int64_t i = first; i < last; i++) ASSERT_OK(test_cache_add(cache, i, &err), err);
  ASSERT_OK(ser_cache_seal(cache, &err), err);
}

size_t test_cache_count(ser_cache *cache, int64_t first, int64_t last) {
  size_t found = 0;
  for (int64_t i = last - 1; i >= first; i--) {
    ser_hash key = test_cache_key(i);
    int64_t rows;
    ser_entry_status status = ser_cache_find(cache, &key, &rows);
    if (status == SER_ENTRY_MISSING) continue;
    assert_int_equal(status, status_of(i));
    assert_int_equal(rows, rows_of(i));
    found++;
  }
  return found;
}

void test_cache_check(ser_cache *cache, int64_t first, int64_t last) {
  ser_error err = {0};
  ser_hash *keys = ser_alloc((size_t)(last - first) * sizeof *keys);
  int64_t *clips = ser_alloc((size_t)(last - first) * sizeof *clips), *offset;
  size_t count = 0;
  float *features;
  for (int64_t i = last - 1; i >= first; i--) {
    if (status_of(i) != SER_ENTRY_OK) continue;
    clips[count] = i;
    keys[count++] = test_cache_key(i);
  }
  ASSERT_OK(ser_cache_read(cache, &offset, &features, keys, count, &err), err);
  assert_int_equal(offset[0], 0);
  for (size_t k = 0; k < count; k++) {
    assert_int_equal(offset[k + 1] - offset[k], rows_of(clips[k]));
    for (int64_t at = 0; at < rows_of(clips[k]) * TEST_CACHE_COLUMNS; at++)
      if (features[offset[k] * TEST_CACHE_COLUMNS + at] != value_of(clips[k], at))
        fail_msg("clip %ld differs", (long)clips[k]);
  }
  free(offset);
  free(features);
  free(clips);
  free(keys);
}

static size_t list(char ***names, const ser_cache *cache, const char *part) {
  size_t count;
  ser_error err = {0};
  char *path = ser_path_join(ser_cache_folder(cache), part);
  ASSERT_OK(ser_folder_names(names, &count, path, &err), err);
  free(path);
  return count;
}

size_t test_cache_files(const ser_cache *cache, const char *part) {
  char **names;
  size_t count = list(&names, cache, part);
  ser_names_free(names, count);
  return count;
}

char *test_cache_shard(const ser_cache *cache) {
  char **names;
  size_t count = list(&names, cache, "shards");
  assert_int_equal(count, 1);
  char *path = ser_format("%s/shards/%s", ser_cache_folder(cache), names[0]);
  ser_names_free(names, count);
  return path;
}

void test_damage(const char *path, long at, int mode) {
  struct stat info;
  assert_int_equal(stat(path, &info), 0);
  int fd = open(path, O_RDWR);
  assert_true(fd >= 0);
  if (at < 0) at += info.st_size;
  unsigned char zeros[4096] = {0}, byte;
  if (mode == 'f') {
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
  } else if (mode == 'z') {
    assert_true(pwrite(fd, zeros, sizeof zeros, at) > 0);
  } else {
    assert_int_equal(ftruncate(fd, at), 0);
  }
  struct timespec times[2] = {info.st_atim, info.st_mtim};
  futimens(fd, times);
  close(fd);
}

static ser_status damage_shard(void *context, const char *path, ser_error *err) {
  size_t size = strlen(path);
  (void)err;
  if (!strstr(path, "/shards/") || strcmp(path + size - 3, ".h5") != 0) return SER_OK;
  test_damage(path, -700, 'f');
  ++*(size_t *)context;
  return SER_OK;
}

size_t test_damage_shards(const char *folder) {
  size_t count = 0;
  ser_error err = {0};
  ASSERT_OK(ser_walk(folder, damage_shard, &count, &err), err);
  return count;
}
