/* The feature cache: what goes in comes out, and nothing that was damaged in any way is ever served. */
#include "support/harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "cache/internal.h"

static const char CONFIG[] = "{\"feature\":\"test\",\"rate\":16000}";
static const char ATTRIBUTES[] = "{\"backend\":\"cpu\",\"units\":\"dB\",\"serenade\":\"0\"}";
enum { C = 5 };

static ser_hash key_of(int64_t i) {
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

static ser_cache *open_cache(const char *folder, bool create) {
  ser_cache *cache;
  ser_error err = {0};
  ASSERT_OK(ser_cache_open(&cache, folder, "test", CONFIG, ATTRIBUTES, C, create, &err), err);
  return cache;
}

static void close_cache(ser_cache *cache) {
  ser_error err = {0};
  ASSERT_OK(ser_cache_close(cache, &err), err);
}

static ser_status add_clip(ser_cache *cache, int64_t i, ser_error *err) {
  int64_t rows = rows_of(i);
  ser_hash key = key_of(i);
  float *features = rows ? ser_alloc((size_t)(rows * C) * sizeof *features) : NULL;
  for (int64_t at = 0; at < rows * C; at++) features[at] = value_of(i, at);
  ser_status status = ser_cache_add(cache, &key, status_of(i), features, rows, err);
  free(features);
  return status;
}

static void add_range(ser_cache *cache, int64_t first, int64_t last) {
  ser_error err = {0};
  for (int64_t i = first; i < last; i++) ASSERT_OK(add_clip(cache, i, &err), err);
  ASSERT_OK(ser_cache_seal(cache, &err), err);
}

/* How many of the clips [first, last) are there; those that are must have their status, length and bytes. */
static size_t check_range(ser_cache *cache, int64_t first, int64_t last) {
  size_t found = 0;
  for (int64_t i = last - 1; i >= first; i--) {
    ser_hash key = key_of(i);
    int64_t rows;
    ser_entry_status status = ser_cache_find(cache, &key, &rows);
    if (status == SER_ENTRY_MISSING) continue;
    assert_int_equal(status, status_of(i));
    assert_int_equal(rows, rows_of(i));
    found++;
  }
  return found;
}

static void check_features(ser_cache *cache, int64_t first, int64_t last) {
  ser_error err = {0};
  ser_hash *keys = ser_alloc((size_t)(last - first) * sizeof *keys);
  int64_t *clips = ser_alloc((size_t)(last - first) * sizeof *clips), *offset;
  size_t count = 0;
  float *features;
  for (int64_t i = last - 1; i >= first; i--) {
    if (status_of(i) != SER_ENTRY_OK) continue;
    clips[count] = i;
    keys[count++] = key_of(i);
  }
  ASSERT_OK(ser_cache_read(cache, &offset, &features, keys, count, &err), err);
  assert_int_equal(offset[0], 0);
  for (size_t k = 0; k < count; k++) {
    assert_int_equal(offset[k + 1] - offset[k], rows_of(clips[k]));
    for (int64_t at = 0; at < rows_of(clips[k]) * C; at++)
      if (features[offset[k] * C + at] != value_of(clips[k], at)) fail_msg("clip %ld differs", (long)clips[k]);
  }
  free(offset);
  free(features);
  free(clips);
  free(keys);
}

/* ---- files below a feature folder ------------------------------------------------------------------------------ */

static size_t list(char ***names, const ser_cache *cache, const char *part) {
  size_t count;
  ser_error err = {0};
  char *path = ser_path_join(ser_cache_folder(cache), part);
  ASSERT_OK(ser_folder_names(names, &count, path, &err), err);
  free(path);
  return count;
}

static size_t files_in(const ser_cache *cache, const char *part) {
  char **names;
  size_t count = list(&names, cache, part);
  ser_names_free(names, count);
  return count;
}

static char *only_shard(const ser_cache *cache) {
  char **names;
  size_t count = list(&names, cache, "shards");
  assert_int_equal(count, 1);
  char *path = ser_format("%s/shards/%s", ser_cache_folder(cache), names[0]);
  ser_names_free(names, count);
  return path;
}

/* Changes a file in place and keeps its size (unless cut) and its time: what a failing disk does. */
static void damage(const char *path, long at, int mode) {
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

/* ---- tests ----------------------------------------------------------------------------------------------------- */

static void test_round_trip(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = open_cache(folder, true);
  add_range(cache, 0, 300);
  assert_int_equal(check_range(cache, 0, 400), 300);
  add_range(cache, 300, 301); /* one clip alone */
  add_range(cache, 304, 305); /* a shard that holds nothing but a status: 304 % 7 == 3, 304 % 11 == 7 */
  add_range(cache, 307, 308); /* 307 % 7 == 6 */
  check_features(cache, 0, 301);
  close_cache(cache);
  for (int again = 0; again < 2; again++) { /* with the index, then without it */
    cache = open_cache(folder, false);
    assert_int_equal(check_range(cache, 0, 400), 303);
    check_features(cache, 0, 301);
    char *index = ser_path_join(ser_cache_folder(cache), "index");
    close_cache(cache);
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
  assert_int_equal(ser_cache_open(&cache, folder, "test", CONFIG, NULL, C, false, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "FORMAT"));
  cache = open_cache(folder, true);
  ASSERT_OK(ser_cache_seal(cache, &err), err);
  assert_int_equal(files_in(cache, "shards"), 0);
  int64_t *offset;
  float *features;
  ASSERT_OK(ser_cache_read(cache, &offset, &features, NULL, 0, &err), err);
  assert_int_equal(offset[0], 0);
  free(offset);
  free(features);
  ser_hash key = key_of(1);
  assert_int_equal(ser_cache_read(cache, &offset, &features, &key, 1, &err), SER_FAILED);
  char hex[SER_HASH_HEX];
  ser_hash_hex(hex, &key);
  assert_non_null(strstr(err.text, hex));
  assert_non_null(strstr(err.text, "extract"));
  assert_null(offset);
  add_range(cache, 6, 7);
  key = key_of(6);
  assert_int_equal(ser_cache_read(cache, &offset, &features, &key, 1, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "too short"));
  close_cache(cache);
  assert_int_equal(ser_cache_open(&cache, folder, "test", "{}", NULL, C, false, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "extract"));
  test_folder_remove(folder);
}

static void test_unknown_format(void **state) {
  (void)state;
  char *folder = test_folder_make("cache"), *path = ser_path_join(folder, "FORMAT");
  ser_cache *cache;
  ser_error err = {0};
  ser_text report = {0};
  close_cache(open_cache(folder, true));
  ASSERT_OK(ser_file_write(path, "serenade-cache 2\n", 17, &err), err);
  assert_int_equal(ser_cache_open(&cache, folder, "test", CONFIG, NULL, C, true, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "serenade-cache 2"));
  assert_non_null(strstr(err.text, "another cache folder"));
  assert_non_null(strstr(err.text, folder));
  assert_int_equal(ser_cache_verify(folder, &report, &err), SER_FAILED);
  assert_int_equal(ser_cache_gc(folder, &report, &err), SER_FAILED);
  free(report.data);
  free(path);
  test_folder_remove(folder);
}

/* The positions and ways of damage; 'f' flips a bit, 'z' zeroes 4 KiB, 'c' cuts. */
static const struct {
  long at;
  int mode;
} damages[] = {{0, 'f'},      {9, 'f'},    {600, 'f'}, {3000, 'f'}, {-40000, 'f'}, {-1, 'f'}, {-9000, 'z'},
               {-30000, 'z'}, {2048, 'z'}, {0, 'c'},   {1, 'c'},    {1000, 'c'},   {-1, 'c'}};

static void test_damaged_shard(void **state) {
  (void)state;
  for (size_t d = 0; d < sizeof damages / sizeof *damages; d++) {
    for (int when = 0; when < 3; when++) { /* known to the index; index gone; while the cache is open */
      char *folder = test_folder_make("cache");
      ser_cache *cache = open_cache(folder, true);
      add_range(cache, 0, 60);
      char *shard = only_shard(cache), *index = ser_path_join(ser_cache_folder(cache), "index");
      add_range(cache, 60, 80);
      if (when < 2) close_cache(cache);
      if (when == 1) unlink(index);
      damage(shard, damages[d].at, damages[d].mode);
      if (when < 2) cache = open_cache(folder, true);
      ser_error err = {0};
      int64_t *offset;
      float *features;
      ser_hash keys[2] = {key_of(61), key_of(3)};
      assert_int_equal(ser_cache_read(cache, &offset, &features, keys, 2, &err), SER_FAILED);
      assert_non_null(strstr(err.text, "extract"));
      assert_int_equal(check_range(cache, 0, 80), 20);
      check_features(cache, 60, 80);
      assert_false(ser_file_exists(shard));
      assert_int_equal(files_in(cache, "quarantine"), 1);
      add_range(cache, 0, 60); /* computed anew */
      check_features(cache, 0, 80);
      close_cache(cache);
      cache = open_cache(folder, false);
      check_features(cache, 0, 80);
      close_cache(cache);
      free(shard);
      free(index);
      test_folder_remove(folder);
    }
  }
}

/* A clip that stands in two shards survives the loss of either. */
static void test_duplicates(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = open_cache(folder, true);
  add_range(cache, 0, 40);
  char *first = only_shard(cache);
  add_range(cache, 20, 60);
  check_features(cache, 0, 60);
  damage(first, 5000, 'f');
  check_features(cache, 20, 60);
  ser_error err = {0};
  int64_t *offset;
  float *features;
  ser_hash key = key_of(3);
  assert_int_equal(ser_cache_read(cache, &offset, &features, &key, 1, &err), SER_FAILED);
  close_cache(cache);
  free(first);
  test_folder_remove(folder);
}

/* A shard whose bytes are what its name says, but which does not belong here or does not fit together. */
static void test_false_shards(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = open_cache(folder, true);
  add_range(cache, 0, 10);
  const char *home = ser_cache_folder(cache);
  float features[2 * C] = {1, 2, 3};
  ser_hash key = key_of(1000), wrong = key_of(1), right = ser_hash_bytes(features, sizeof features);
  struct {
    const char *configuration;
    int64_t columns;
    uint8_t status;
    uint64_t offset[2];
    ser_hash row_hash;
  } cases[] = {{"{}", C, 0, {0, 2}, right},   {CONFIG, C - 1, 0, {0, 2}, right}, {CONFIG, C, 3, {0, 2}, right},
               {CONFIG, C, 1, {0, 2}, right}, {CONFIG, C, 0, {1, 2}, right},     {CONFIG, C, 0, {0, 2}, wrong}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cache_table table = {1,
                         cases[i].columns,
                         &key,
                         &cases[i].row_hash,
                         &cases[i].status,
                         cases[i].offset,
                         features,
                         (char *)(uintptr_t)cases[i].configuration,
                         (char *)(uintptr_t)ATTRIBUTES};
    char *image;
    size_t size;
    cache_shard shard;
    ser_error err = {0};
    ASSERT_OK(shard_encode(&image, &size, &table, &err), err);
    ASSERT_OK(cache_write_shard(&shard, home, image, size, &err), err);
    free(image);
    ASSERT_OK(cache_refresh(cache, &err), err);
    int64_t *offset;
    float *read;
    assert_int_equal(ser_cache_read(cache, &offset, &read, &key, 1, &err), SER_FAILED);
    assert_int_equal(ser_cache_find(cache, &key, NULL), SER_ENTRY_MISSING);
    assert_int_equal(files_in(cache, "quarantine"), i + 1);
    check_features(cache, 0, 10);
  }
  close_cache(cache);
  test_folder_remove(folder);
}

static void test_garbage_in_shards(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = open_cache(folder, true);
  ser_error err = {0};
  ser_text report = {0};
  add_range(cache, 0, 20);
  char *noise = ser_alloc(5000);
  for (int i = 0; i < 5000; i++) noise[i] = (char)(i * 7 + i / 3);
  ser_hash honest = ser_hash_bytes(noise, 5000);
  char hex[SER_HASH_HEX];
  ser_hash_hex(hex, &honest);
  const char *names[] = {"0123456789abcdef0123456789abcdef.h5", hex, "notes.txt",
                         "0123456789ABCDEF0123456789ABCDEF.h5"};
  for (size_t i = 0; i < 4; i++) {
    char *path = ser_format("%s/shards/%s%s", ser_cache_folder(cache), names[i], i == 1 ? ".h5" : "");
    ASSERT_OK(ser_file_write(path, noise, 5000, &err), err);
    free(path);
  }
  close_cache(cache);
  cache = open_cache(folder, false);
  check_features(cache, 0, 20);
  assert_int_equal(files_in(cache, "quarantine"), 2); /* the two that have a shard's name */
  close_cache(cache);
  ASSERT_OK(ser_cache_verify(folder, &report, &err), err);
  assert_non_null(strstr(report.data, "notes.txt is no shard"));
  free(report.data);
  free(noise);
  test_folder_remove(folder);
}

static void test_damaged_index(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = open_cache(folder, true);
  add_range(cache, 0, 50);
  add_range(cache, 50, 90);
  char *index = ser_path_join(ser_cache_folder(cache), "index"), *good, *bad;
  close_cache(cache);
  size_t size, other;
  ser_error err = {0};
  assert_int_equal(unlink(index), 0);
  close_cache(open_cache(folder, false)); /* from now on shards stand in the order of their names */
  ASSERT_OK(ser_file_read(&good, &size, index, &err), err);
  for (size_t step = 0; step < 40; step++) {
    bad = ser_alloc(size);
    memcpy(bad, good, size);
    size_t cut = step % 4 == 3 ? size * step / 41 : size;
    bad[size * step / 40] ^= 1;
    ASSERT_OK(ser_file_write(index, bad, cut, &err), err);
    free(bad);
    cache = open_cache(folder, false);
    assert_int_equal(check_range(cache, 0, 100), 90);
    check_features(cache, 0, 90);
    close_cache(cache);
    ASSERT_OK(ser_file_read(&bad, &other, index, &err), err); /* written again, the same */
    assert_int_equal(other, size);
    assert_memory_equal(good, bad, size);
    free(bad);
  }
  free(good);
  free(index);
  test_folder_remove(folder);
}

/* A shard that goes away takes its entries along, whether the index knows of it or not. */
static void test_shard_removed(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = open_cache(folder, true);
  add_range(cache, 0, 30);
  char *first = only_shard(cache);
  add_range(cache, 30, 50);
  close_cache(cache);
  unlink(first);
  cache = open_cache(folder, false);
  assert_int_equal(check_range(cache, 0, 50), 20);
  check_features(cache, 30, 50);
  close_cache(cache);
  free(first);
  test_folder_remove(folder);
}

/* A full disk: the seal fails with a message, nothing half is left, and once there is room the same clips are sealed.
 */
static void test_full_disk(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = open_cache(folder, true);
  ser_error err = {0};
  add_range(cache, 0, 40);
  signal(SIGXFSZ, SIG_IGN);
  struct rlimit before, tight;
  getrlimit(RLIMIT_FSIZE, &before);
  for (rlim_t room = 0; room < 40000; room += 7777) {
    for (int64_t i = 40; i < 80; i++) ASSERT_OK(add_clip(cache, i, &err), err);
    tight = (struct rlimit){room, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    assert_int_equal(ser_cache_seal(cache, &err), SER_FAILED);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_non_null(strstr(err.text, folder));
    assert_non_null(strstr(err.text, "make room"));
    assert_non_null(strstr(err.text, strerror(EFBIG)));
    assert_int_equal(files_in(cache, "tmp"), 0);
    assert_int_equal(files_in(cache, "shards"), 1);
    assert_int_equal(check_range(cache, 40, 80), 0);
    check_features(cache, 0, 40);
  }
  ASSERT_OK(ser_cache_seal(cache, &err), err);
  check_features(cache, 0, 80);
  for (int64_t i = 80; i < 90; i++) ASSERT_OK(add_clip(cache, i, &err), err);
  tight = (struct rlimit){1000, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &tight);
  assert_int_equal(ser_cache_close(cache, &err), SER_FAILED); /* and told when closing, too */
  setrlimit(RLIMIT_FSIZE, &before);
  cache = open_cache(folder, false);
  assert_int_equal(check_range(cache, 0, 90), 80);
  check_features(cache, 0, 80);
  close_cache(cache);
  test_folder_remove(folder);
}

static void test_verify(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = open_cache(folder, true);
  ser_error err = {0};
  ser_text report = {0};
  add_range(cache, 0, 30);
  char *first = only_shard(cache), *config = ser_path_join(ser_cache_folder(cache), "config.json"), *text;
  add_range(cache, 30, 60);
  close_cache(cache);
  ASSERT_OK(ser_cache_verify(folder, &report, &err), err);
  assert_non_null(strstr(report.data, "2 shards"));
  assert_non_null(strstr(report.data, "0 damaged"));
  ASSERT_OK(ser_cache_info(folder, &report, &err), err);
  assert_non_null(strstr(report.data, CONFIG));
  damage(first, 4000, 'f');
  ASSERT_OK(ser_file_write(config, "{", 1, &err), err);
  report.size = 0;
  assert_int_equal(ser_cache_verify(folder, &report, &err), SER_FAILED);
  assert_non_null(strstr(report.data, first));
  assert_non_null(strstr(report.data, "1 damaged"));
  assert_non_null(strstr(err.text, "1 damaged"));
  size_t size;
  ASSERT_OK(ser_file_read(&text, &size, config, &err), err);
  assert_string_equal(text, CONFIG);
  free(text);
  ASSERT_OK(ser_cache_verify(folder, &report, &err), err);
  cache = open_cache(folder, false);
  assert_int_equal(check_range(cache, 0, 60), 30);
  check_features(cache, 30, 60);
  close_cache(cache);
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
  ser_cache *cache = open_cache(into, true);
  add_range(cache, 0, 30);
  close_cache(cache);
  cache = open_cache(from, true);
  add_range(cache, 20, 40);
  char *bad = only_shard(cache);
  add_range(cache, 40, 70);
  close_cache(cache);
  damage(bad, 3000, 'z');
  assert_int_equal(ser_cache_merge(into, into, &report, &err), SER_USAGE);
  assert_int_equal(ser_cache_merge(into, from, &report, &err), SER_FAILED); /* told, but the good one came over */
  assert_non_null(strstr(report.data, bad));
  cache = open_cache(into, false);
  assert_int_equal(check_range(cache, 0, 70), 60);
  check_features(cache, 0, 30);
  check_features(cache, 40, 70);
  close_cache(cache);
  unlink(bad);
  report.size = 0;
  ASSERT_OK(ser_cache_merge(into, from, &report, &err), err);
  assert_non_null(strstr(report.data, "0 shards added, 1 were there"));
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
  ser_cache *cache = open_cache(folder, true), *reader;
  for (int64_t i = 0; i < 10; i++) add_range(cache, 8 * i, 8 * i + 12); /* overlapping */
  assert_int_equal(files_in(cache, "shards"), 10);
  reader = open_cache(folder, false);
  char host[128] = {0};
  gethostname(host, sizeof host - 1);
  char *dead = ser_format("%s/tmp/%s-%ld-0123", ser_cache_folder(cache), host, (long)dead_process());
  char *alive = ser_format("%s/tmp/%s-%ld-0123", ser_cache_folder(cache), host, (long)getpid());
  char *elsewhere = ser_format("%s/tmp/some-other-host-12-0123", ser_cache_folder(cache));
  char *bad = ser_format("%s/quarantine/bad.h5", ser_cache_folder(cache));
  const char *files[] = {dead, alive, elsewhere, bad};
  for (int i = 0; i < 4; i++) ASSERT_OK(ser_file_write(files[i], "x", 1, &err), err);
  close_cache(cache);
  ASSERT_OK(ser_cache_gc(folder, &report, &err), err);
  assert_non_null(strstr(report.data, "10 shards"));
  assert_false(ser_file_exists(dead));
  assert_true(ser_file_exists(alive));
  assert_true(ser_file_exists(elsewhere));
  assert_false(ser_file_exists(bad));
  assert_int_equal(files_in(reader, "shards"), 1);
  check_features(reader, 0, 84); /* its index is of before: it finds the clips in the new shard */
  close_cache(reader);
  cache = open_cache(folder, false);
  assert_int_equal(cache->index.entry_count, 84); /* no duplicates any more */
  assert_int_equal(check_range(cache, 0, 100), 84);
  check_features(cache, 0, 84);
  cache_table table;
  assert_int_equal(cache_load_shard(&table, cache, cache->index.entries[0].shard, false, &err), CACHE_LOADED);
  assert_string_equal(table.attributes, ATTRIBUTES); /* where the clips were computed is kept */
  cache_table_free(&table);
  char *shard = only_shard(cache);
  close_cache(cache);
  ASSERT_OK(ser_cache_gc(folder, &report, &err), err); /* nothing to do: nothing done */
  assert_true(ser_file_exists(shard));
  free(shard);
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
  ser_cache *cache = open_cache(folder, true);
  ser_error err = {0};
  int64_t rows = (4 << 20) / (C * 4);
  float *features = ser_alloc_zero((size_t)(rows * C), sizeof *features);
  for (int64_t i = 0; i < 9; i++) {
    ser_hash key = key_of(i);
    assert_int_equal(files_in(cache, "shards"), 0);
    ASSERT_OK(ser_cache_add(cache, &key, SER_ENTRY_OK, features, rows, &err), err);
  }
  assert_int_equal(files_in(cache, "shards"), 1);
  ser_hash key = key_of(8);
  assert_int_equal(ser_cache_find(cache, &key, NULL), SER_ENTRY_OK);
  close_cache(cache);
  free(features);
  test_folder_remove(folder);
}

/* The same clips give the same bytes, and so the same name. */
static void test_same_bytes(void **state) {
  (void)state;
  char *names[2];
  for (int run = 0; run < 2; run++) {
    char *folder = test_folder_make("cache");
    ser_cache *cache = open_cache(folder, true);
    add_range(cache, 0, 50);
    char *path = only_shard(cache);
    names[run] = ser_strdup(ser_path_name(path));
    free(path);
    close_cache(cache);
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
      cmocka_unit_test(test_round_trip),
      cmocka_unit_test(test_empty),
      cmocka_unit_test(test_unknown_format),
      cmocka_unit_test(test_damaged_shard),
      cmocka_unit_test(test_duplicates),
      cmocka_unit_test(test_false_shards),
      cmocka_unit_test(test_garbage_in_shards),
      cmocka_unit_test(test_damaged_index),
      cmocka_unit_test(test_shard_removed),
      cmocka_unit_test(test_full_disk),
      cmocka_unit_test(test_verify),
      cmocka_unit_test(test_merge),
      cmocka_unit_test(test_gc),
      cmocka_unit_test(test_seals_itself),
      cmocka_unit_test(test_same_bytes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
