/* The feature cache: nothing that was damaged in any way is ever served, and what was good before stays. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "cache/internal.h"
#include "support/cache.h"
#include "support/harness.h"

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
      ser_cache *cache = test_cache_open(folder, true);
      test_cache_fill(cache, 0, 60);
      char *shard = test_cache_shard(cache), *index = ser_path_join(ser_cache_folder(cache), "index");
      test_cache_fill(cache, 60, 80);
      if (when < 2) test_cache_close(cache);
      if (when == 1) unlink(index);
      test_damage(shard, damages[d].at, damages[d].mode);
      if (when < 2) cache = test_cache_open(folder, true);
      ser_error err = {0};
      int64_t *offset;
      float *features;
      ser_hash keys[2] = {test_cache_key(61), test_cache_key(3)};
      assert_int_equal(ser_cache_read(cache, &offset, &features, keys, 2, &err), SER_FAILED);
      assert_non_null(strstr(err.text, "extract"));
      assert_int_equal(test_cache_count(cache, 0, 80), 20);
      test_cache_check(cache, 60, 80);
      assert_false(ser_file_exists(shard));
      assert_int_equal(test_cache_files(cache, "quarantine"), 1);
      test_cache_fill(cache, 0, 60); /* computed anew */
      test_cache_check(cache, 0, 80);
      test_cache_close(cache);
      cache = test_cache_open(folder, false);
      test_cache_check(cache, 0, 80);
      test_cache_close(cache);
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
  ser_cache *cache = test_cache_open(folder, true);
  test_cache_fill(cache, 0, 40);
  char *first = test_cache_shard(cache);
  test_cache_fill(cache, 20, 60);
  test_cache_check(cache, 0, 60);
  test_damage(first, 5000, 'f');
  test_cache_check(cache, 20, 60);
  ser_error err = {0};
  int64_t *offset;
  float *features;
  ser_hash key = test_cache_key(3);
  assert_int_equal(ser_cache_read(cache, &offset, &features, &key, 1, &err), SER_FAILED);
  test_cache_close(cache);
  free(first);
  test_folder_remove(folder);
}

/* One read finds every damaged shard that its keys stand in, not the first alone. */
static void test_several(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = test_cache_open(folder, true);
  for (int64_t i = 0; i < 4; i++) test_cache_fill(cache, 20 * i, 20 * i + 20);
  assert_int_equal(test_damage_shards(folder), 4);
  test_cache_fill(cache, 80, 100);
  ser_hash keys[4] = {test_cache_key(3), test_cache_key(81), test_cache_key(44), test_cache_key(63)};
  ser_error err = {0};
  int64_t *offset;
  float *features;
  assert_int_equal(ser_cache_damaged(cache), 0);
  assert_int_equal(ser_cache_read(cache, &offset, &features, keys, 4, &err), SER_FAILED);
  assert_int_equal(ser_cache_damaged(cache), 3);
  assert_int_equal(test_cache_files(cache, "quarantine"), 3);
  test_cache_check(cache, 80, 100);
  test_cache_close(cache);
  test_folder_remove(folder);
}

/* A shard whose bytes are what its name says, but which does not belong here or does not fit together. */
static void test_false_shards(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = test_cache_open(folder, true);
  test_cache_fill(cache, 0, 10);
  const char *home = ser_cache_folder(cache);
  float features[2 * TEST_CACHE_COLUMNS] = {1, 2, 3};
  ser_hash key = test_cache_key(1000), wrong = test_cache_key(1), right = ser_hash_bytes(features, sizeof features);
  struct {
    const char *configuration;
    int64_t columns;
    uint8_t status;
    uint64_t offset[2];
    ser_hash row_hash;
  } cases[] = {{"{}", TEST_CACHE_COLUMNS, 0, {0, 2}, right},
               {TEST_CACHE_CONFIG, TEST_CACHE_COLUMNS - 1, 0, {0, 2}, right},
               {TEST_CACHE_CONFIG, TEST_CACHE_COLUMNS, 3, {0, 2}, right},
               {TEST_CACHE_CONFIG, TEST_CACHE_COLUMNS, 1, {0, 2}, right},
               {TEST_CACHE_CONFIG, TEST_CACHE_COLUMNS, 0, {1, 2}, right},
               {TEST_CACHE_CONFIG, TEST_CACHE_COLUMNS, 0, {0, 2}, wrong}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cache_table table = {1,
                         cases[i].columns,
                         &key,
                         &cases[i].row_hash,
                         &cases[i].status,
                         cases[i].offset,
                         features,
                         (char *)(uintptr_t)cases[i].configuration,
                         (char *)(uintptr_t)TEST_CACHE_ATTRIBUTES};
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
    assert_int_equal(test_cache_files(cache, "quarantine"), i + 1);
    test_cache_check(cache, 0, 10);
  }
  test_cache_close(cache);
  test_folder_remove(folder);
}

/* Writes a shard that is good by itself but has one column more than the configuration; its name is before `other`'s,
 * so that it is read first. The caller frees its path. */
static char *write_wide_shard(const ser_cache *cache, const char *other) {
  enum { WIDE = TEST_CACHE_COLUMNS + 1 };
  float features[2 * WIDE] = {1, 2, 3};
  for (;; features[0]++) {
    ser_hash key = test_cache_key(1000), row_hash = ser_hash_bytes(features, sizeof features);
    uint8_t status = 0;
    uint64_t offset[2] = {0, 2};
    cache_table table = {1,
                         WIDE,
                         &key,
                         &row_hash,
                         &status,
                         offset,
                         features,
                         (char *)(uintptr_t)TEST_CACHE_CONFIG,
                         (char *)(uintptr_t)TEST_CACHE_ATTRIBUTES};
    char *image;
    size_t size;
    cache_shard shard;
    ser_error err = {0};
    ASSERT_OK(shard_encode(&image, &size, &table, &err), err);
    ser_hash name = ser_hash_bytes(image, size);
    char *path = cache_shard_path(ser_cache_folder(cache), &name);
    bool first = strcmp(ser_path_name(path), ser_path_name(other)) < 0;
    if (first) ASSERT_OK(cache_write_shard(&shard, ser_cache_folder(cache), image, size, &err), err);
    free(image);
    if (first) return path;
    free(path);
  }
}

/* How many columns are right the configuration says, not the shard that is read first: a foreign one evicts nobody. */
static void test_wide_shard(void **state) {
  (void)state;
  char *folder = test_folder_make("cache"), *from = test_folder_make("cache");
  ser_cache *cache = test_cache_open(folder, true), *foreign = test_cache_open(from, true);
  ser_error err = {0};
  ser_text report = {0};
  test_cache_fill(cache, 0, 30);
  char *good = test_cache_shard(cache), *index = ser_path_join(ser_cache_folder(cache), "index");
  test_cache_fill(cache, 30, 60);
  free(write_wide_shard(foreign, good));
  assert_int_equal(ser_cache_merge(folder, from, test_cache_columns, &report, &err), SER_FAILED);
  assert_non_null(strstr(report.data, "0 shards added, 0 were there, 1 damaged left out"));
  assert_non_null(strstr(report.data, "another number of columns"));
  assert_int_equal(test_cache_files(cache, "shards"), 2);

  for (int how = 0; how < 3; how++) { /* whoever meets it first, without an index */
    char *wide = write_wide_shard(cache, good);
    unlink(index);
    ser_status status = how == 0   ? ser_cache_verify(folder, test_cache_columns, &report, &err)
                        : how == 1 ? ser_cache_info(folder, test_cache_columns, &report, &err)
                                   : ser_cache_gc(folder, test_cache_columns, &report, &err);
    assert_int_equal(status, how == 0 ? SER_FAILED : SER_OK);
    assert_false(ser_file_exists(wide));
    if (how < 2) assert_int_equal(test_cache_files(cache, "shards"), 2);
    test_cache_check(cache, 0, 60);
    free(wide);
  }
  test_cache_close(cache);
  test_cache_close(foreign);
  free(report.data);
  free(index);
  free(good);
  test_folder_remove(from);
  test_folder_remove(folder);
}

static int64_t no_columns(const char *config_json) {
  (void)config_json;
  return 0;
}

/* Where the configuration is of another version nobody is evicted, and nothing rewritten. */
static void test_unknown_columns(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = test_cache_open(folder, true);
  ser_error err = {0};
  ser_text report = {0};
  test_cache_fill(cache, 0, 30);
  char *good = test_cache_shard(cache);
  test_cache_fill(cache, 30, 60);
  free(write_wide_shard(cache, good));
  ASSERT_OK(ser_cache_verify(folder, no_columns, &report, &err), err);
  ASSERT_OK(ser_cache_gc(folder, no_columns, &report, &err), err);
  assert_non_null(strstr(report.data, "no shard is rewritten"));
  assert_int_equal(test_cache_files(cache, "shards"), 3);
  assert_int_equal(ser_cache_verify(folder, test_cache_columns, &report, &err), SER_FAILED);
  assert_int_equal(test_cache_files(cache, "shards"), 2);
  test_cache_check(cache, 0, 60);
  test_cache_close(cache);
  free(report.data);
  free(good);
  test_folder_remove(folder);
}

static void test_garbage_in_shards(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = test_cache_open(folder, true);
  ser_error err = {0};
  ser_text report = {0};
  test_cache_fill(cache, 0, 20);
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
  test_cache_close(cache);
  cache = test_cache_open(folder, false);
  test_cache_check(cache, 0, 20);
  assert_int_equal(test_cache_files(cache, "quarantine"), 2); /* the two that have a shard's name */
  test_cache_close(cache);
  ASSERT_OK(ser_cache_verify(folder, test_cache_columns, &report, &err), err);
  assert_non_null(strstr(report.data, "notes.txt is no shard"));
  free(report.data);
  free(noise);
  test_folder_remove(folder);
}

static void test_damaged_index(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = test_cache_open(folder, true);
  test_cache_fill(cache, 0, 50);
  test_cache_fill(cache, 50, 90);
  char *index = ser_path_join(ser_cache_folder(cache), "index"), *good, *bad;
  test_cache_close(cache);
  size_t size, other;
  ser_error err = {0};
  assert_int_equal(unlink(index), 0);
  test_cache_close(test_cache_open(folder, false)); /* from now on shards stand in the order of their names */
  ASSERT_OK(ser_file_read(&good, &size, index, &err), err);
  for (size_t step = 0; step < 40; step++) {
    bad = ser_alloc(size);
    memcpy(bad, good, size);
    size_t cut = step % 4 == 3 ? size * step / 41 : size;
    bad[size * step / 40] ^= 1;
    ASSERT_OK(ser_file_write(index, bad, cut, &err), err);
    free(bad);
    cache = test_cache_open(folder, false);
    assert_int_equal(test_cache_count(cache, 0, 100), 90);
    test_cache_check(cache, 0, 90);
    test_cache_close(cache);
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
  ser_cache *cache = test_cache_open(folder, true);
  test_cache_fill(cache, 0, 30);
  char *first = test_cache_shard(cache);
  test_cache_fill(cache, 30, 50);
  test_cache_close(cache);
  unlink(first);
  cache = test_cache_open(folder, false);
  assert_int_equal(test_cache_count(cache, 0, 50), 20);
  test_cache_check(cache, 30, 50);
  test_cache_close(cache);
  free(first);
  test_folder_remove(folder);
}

/* A full disk: the seal fails with a message, nothing half is left, and once there is room the same clips are sealed.
 */
static void test_full_disk(void **state) {
  (void)state;
  char *folder = test_folder_make("cache");
  ser_cache *cache = test_cache_open(folder, true);
  ser_error err = {0};
  test_cache_fill(cache, 0, 40);
  signal(SIGXFSZ, SIG_IGN);
  struct rlimit before, tight;
  getrlimit(RLIMIT_FSIZE, &before);
  for (rlim_t room = 0; room < 40000; room += 7777) {
    for (int64_t i = 40; i < 80; i++) ASSERT_OK(test_cache_add(cache, i, &err), err);
    tight = (struct rlimit){room, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    assert_int_equal(ser_cache_seal(cache, &err), SER_FAILED);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_non_null(strstr(err.text, folder));
    assert_non_null(strstr(err.text, "make room"));
    assert_non_null(strstr(err.text, strerror(EFBIG)));
    assert_int_equal(test_cache_files(cache, "tmp"), 0);
    assert_int_equal(test_cache_files(cache, "shards"), 1);
    assert_int_equal(test_cache_count(cache, 40, 80), 0);
    test_cache_check(cache, 0, 40);
  }
  ASSERT_OK(ser_cache_seal(cache, &err), err);
  test_cache_check(cache, 0, 80);
  for (int64_t i = 80; i < 90; i++) ASSERT_OK(test_cache_add(cache, i, &err), err);
  tight = (struct rlimit){1000, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &tight);
  assert_int_equal(ser_cache_close(cache, &err), SER_FAILED); /* and told when closing, too */
  setrlimit(RLIMIT_FSIZE, &before);
  cache = test_cache_open(folder, false);
  assert_int_equal(test_cache_count(cache, 0, 90), 80);
  test_cache_check(cache, 0, 80);
  test_cache_close(cache);
  test_folder_remove(folder);
}

/* The C library's own read. The file with this inode can be read that often from its beginning, then it fails: what a
 * disk or a mount does. */
static ino_t failing;
static int good_reads;

ssize_t read(int fd, void *to, size_t count) {
  struct stat info;
  if (failing && fstat(fd, &info) == 0 && info.st_ino == failing) {
    if (lseek(fd, 0, SEEK_CUR) == 0) good_reads--;
    if (good_reads < 0) {
      errno = EIO;
      return -1;
    }
  }
  return syscall(SYS_read, fd, to, count);
}

/* gc removes no shard whose clips it could not carry over, at whichever of its readings that happens, and says so; a
 * verify that could not read everything does not call it good. */
static void test_unreadable(void **state) {
  (void)state;
  for (int good = 0; good < 3; good++) {
    char *folder = test_folder_make("cache");
    ser_cache *cache = test_cache_open(folder, true);
    test_cache_fill(cache, 0, 30);
    char *shard = test_cache_shard(cache);
    test_cache_fill(cache, 20, 50); /* overlapping: the first answers for twenty to thirty */
    test_cache_close(cache);
    struct stat info;
    ser_error err = {0};
    ser_text report = {0};
    assert_int_equal(stat(shard, &info), 0);
    good_reads = good;
    failing = info.st_ino;
    ser_status status = ser_cache_gc(folder, test_cache_columns, &report, &err);
    if (good < 2) { /* gc reads a shard twice: to see whether it is one of those, and to rewrite it */
      assert_int_equal(status, SER_FAILED);
      assert_non_null(strstr(err.text, shard));
      assert_true(ser_file_exists(shard));
      good_reads = 0;
      assert_int_equal(ser_cache_verify(folder, test_cache_columns, &report, &err), SER_FAILED);
      assert_non_null(strstr(err.text, shard));
    } else {
      ASSERT_OK(status, err);
      assert_false(ser_file_exists(shard));
    }
    failing = 0;
    cache = test_cache_open(folder, false);
    test_cache_check(cache, 0, 50);
    assert_int_equal(test_cache_files(cache, "quarantine"), 0);
    test_cache_close(cache);
    ASSERT_OK(ser_cache_gc(folder, test_cache_columns, &report, &err), err);
    cache = test_cache_open(folder, false);
    assert_int_equal(test_cache_files(cache, "shards"), 1);
    test_cache_check(cache, 0, 50);
    test_cache_close(cache);
    free(report.data);
    free(shard);
    test_folder_remove(folder);
  }
}

int main(void) {
  ser_log_set_quiet(true);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_damaged_shard),     cmocka_unit_test(test_duplicates),
      cmocka_unit_test(test_several),           cmocka_unit_test(test_false_shards),
      cmocka_unit_test(test_wide_shard),        cmocka_unit_test(test_unknown_columns),
      cmocka_unit_test(test_garbage_in_shards), cmocka_unit_test(test_damaged_index),
      cmocka_unit_test(test_shard_removed),     cmocka_unit_test(test_full_disk),
      cmocka_unit_test(test_unreadable),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
