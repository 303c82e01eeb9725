/* In which order files reach the disk: bytes, fsync, rename onto their place, fsync of the folder; and when a cache
 * seals what waits. The C library's fsync, rename, link and clock are watched, or fail when asked to. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "cache/internal.h"
#include "support/cache.h"
#include "support/harness.h"

/* ---- what is watched ------------------------------------------------------------------------------------------- */

static ser_text events; /* while watching: a line each */
static bool watching, no_fsync, no_rename, no_link;

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...) {
  char line[4400];
  va_list arguments;
  if (!watching) return;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  ser_text_printf(&events, "%s\n", line);
}

/* The folder that holds it, and its name but for a writer's mark. */
static const char *place(char out[600], const char *path) {
  const char *name = ser_path_name(path), *above = name - (name > path);
  while (above > path && above[-1] != '/') above--;
  const char *mark = strstr(name, ".tmp-");
  snprintf(out, 600, "%.*s%s", (int)(name - above), above, !strncmp(above, "tmp/", 4) ? "*" : name);
  if (mark) snprintf(out, 600, "%.*s%.*s.tmp-*", (int)(name - above), above, (int)(mark - name), name);
  return out;
}

int fsync(int fd) {
  struct stat info;
  char link_name[64], path[4096], said[600];
  snprintf(link_name, sizeof link_name, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link_name, path, sizeof path - 1);
  assert_true(size > 0 && fstat(fd, &info) == 0);
  path[size] = 0;
  if (S_ISDIR(info.st_mode))
    note("fsync folder %s", ser_path_name(path));
  else
    note("fsync %s, %lld bytes", place(said, path), (long long)info.st_size);
  if (!no_fsync || S_ISDIR(info.st_mode)) return (int)syscall(SYS_fsync, fd);
  errno = EIO;
  return -1;
}

int rename(const char *from, const char *to) {
  char source[600], target[600];
  note("rename %s to %s", place(source, from), place(target, to));
  if (!no_rename) return renameat(AT_FDCWD, from, AT_FDCWD, to);
  errno = EIO;
  return -1;
}

int link(const char *from, const char *to) {
  char target[600];
  if (no_link) {
    errno = EXDEV;
    return -1;
  }
  note("link %s", place(target, to));
  return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* Seconds that have gone by in this test without anyone waiting. */
static double passed;

int clock_gettime(clockid_t clock, struct timespec *out) {
  int result = (int)syscall(SYS_clock_gettime, clock, out);
  double nanoseconds = (double)out->tv_nsec + 1e9 * passed;
  out->tv_sec += (time_t)(nanoseconds / 1e9);
  out->tv_nsec = (long)(nanoseconds - 1e9 * (double)(int64_t)(nanoseconds / 1e9));
  return result;
}

static void watch(void) {
  free(events.data);
  events = (ser_text){0};
  watching = true;
}

/* Ends watching; what was seen must be this. */
static void seen(const char *wanted) {
  watching = false;
  assert_string_equal(events.data ? events.data : "", wanted);
  free(events.data);
  events = (ser_text){0};
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

static void expect_text(const char *path, const char *wanted) {
  char *text;
  size_t size;
  ser_error err = {0};
  ASSERT_OK(ser_file_read(&text, &size, path, &err), err);
  assert_string_equal(text, wanted);
  free(text);
}

/* Any file; where the disk refuses a step the old one stays, and nothing is left beside it. */
static void a_file_is_synced_before_it_is_in_its_place(void **state) {
  (void)state;
  char *folder = test_folder_make("durable"), *home = ser_path_join(folder, "home"),
       *path = ser_path_join(home, "file");
  ser_error err = {0};
  ASSERT_OK(ser_make_folders(home, &err), err);
  for (int again = 0; again < 2; again++) { /* a new file, then another one in its place */
    watch();
    ASSERT_OK(ser_file_write(path, "twelve bytes", 12, &err), err);
    seen("fsync home/file.tmp-*, 12 bytes\n"
         "rename home/file.tmp-* to home/file\n"
         "fsync folder home\n");
  }
  for (int i = 0; i < 2; i++) {
    char **names;
    size_t count;
    *(i ? &no_rename : &no_fsync) = true;
    watch();
    assert_int_equal(ser_file_write(path, "other", 5, &err), SER_FAILED);
    no_fsync = no_rename = false;
    assert_non_null(strstr(err.text, strerror(EIO)));
    seen(i ? "fsync home/file.tmp-*, 5 bytes\nrename home/file.tmp-* to home/file\n"
           : "fsync home/file.tmp-*, 5 bytes\n");
    expect_text(path, "twelve bytes");
    ASSERT_OK(ser_folder_names(&names, &count, home, &err), err);
    assert_int_equal(count, 1);
    ser_names_free(names, count);
  }
  free(path);
  free(home);
  test_folder_remove(folder);
}

/* ---- shards ---------------------------------------------------------------------------------------------------- */

/* What sealing a shard is to look like; the caller frees it. */
static char *sealing(const char *shard) {
  struct stat info;
  assert_int_equal(stat(shard, &info), 0);
  const char *name = ser_path_name(shard);
  return ser_format("fsync tmp/*, %lld bytes\nrename tmp/* to shards/%s\nfsync folder shards\n",
                    (long long)info.st_size, name);
}

static void a_shard_is_synced_before_it_is_in_its_place(void **state) {
  (void)state;
  char *folder = test_folder_make("durable");
  ser_cache *cache = test_cache_open(folder, true);
  ser_error err = {0};
  for (int i = 0; i < 2; i++) {
    *(i ? &no_rename : &no_fsync) = true;
    if (i == 0) ASSERT_OK(test_cache_add(cache, 0, &err), err);
    assert_int_equal(ser_cache_seal(cache, &err), SER_FAILED);
    no_fsync = no_rename = false;
    assert_non_null(strstr(err.text, strerror(EIO)));
    assert_int_equal(test_cache_files(cache, "shards"), 0);
    assert_int_equal(test_cache_files(cache, "tmp"), 0);
  }
  watch();
  ASSERT_OK(ser_cache_seal(cache, &err), err);
  watching = false;
  char *shard = test_cache_shard(cache), *wanted = sealing(shard);
  seen(wanted);
  test_cache_check(cache, 0, 1);
  test_cache_close(cache);
  free(wanted);
  free(shard);
  test_folder_remove(folder);
}

/* Merging: a link counts once its folder is synced; where none can be made, a copy is written like any shard. */
static void a_merged_shard_is_synced(void **state) {
  (void)state;
  char *from = test_folder_make("durable");
  ser_cache *cache = test_cache_open(from, true);
  ser_error err = {0};
  test_cache_fill(cache, 0, 20);
  char *shard = test_cache_shard(cache), *copied = sealing(shard);
  char *linked = ser_format("link shards/%s\nfsync folder shards\n", ser_path_name(shard));
  test_cache_close(cache);
  for (int copy = 0; copy < 2; copy++) {
    char *into = test_folder_make("durable");
    ser_text report = {0};
    test_cache_close(test_cache_open(into, true));
    no_link = copy;
    watch();
    ASSERT_OK(ser_cache_merge(into, from, test_cache_columns, &report, &err), err);
    watching = no_link = false;
    assert_non_null(events.data);
    const char *wanted = copy ? copied : linked; /* then the index is written */
    events.data[strlen(wanted) < events.size ? strlen(wanted) : events.size] = 0;
    seen(wanted);
    cache = test_cache_open(into, false);
    test_cache_check(cache, 0, 20);
    test_cache_close(cache);
    free(report.data);
    test_folder_remove(into);
  }
  free(linked);
  free(copied);
  free(shard);
  test_folder_remove(from);
}

/* Ten seconds after its first clip a shard is sealed: with the next clip, or while the job waits. */
static void what_waits_is_sealed_in_ten_seconds(void **state) {
  (void)state;
  char *folder = test_folder_make("durable");
  ser_cache *cache = test_cache_open(folder, true);
  ser_error err = {0};
  for (size_t ticks = 0; ticks < 2; ticks++) {
    int64_t first = (int64_t)(20 * ticks);
    ASSERT_OK(test_cache_add(cache, first, &err), err);
    passed += 5;
    ASSERT_OK(test_cache_add(cache, first + 1, &err), err); /* counted from the first, not from the last */
    ASSERT_OK(ser_cache_tick(cache, &err), err);
    assert_int_equal(test_cache_files(cache, "shards"), ticks);
    passed += 5;
    if (ticks)
      ASSERT_OK(ser_cache_tick(cache, &err), err);
    else
      ASSERT_OK(test_cache_add(cache, first + 2, &err), err);
    assert_int_equal(test_cache_files(cache, "shards"), ticks + 1);
    assert_int_equal(test_cache_count(cache, first, first + 3), 3 - ticks);
    ASSERT_OK(ser_cache_tick(cache, &err), err); /* nothing waits */
    assert_int_equal(test_cache_files(cache, "shards"), ticks + 1);
  }
  test_cache_close(cache);
  test_folder_remove(folder);
}

int main(void) {
  ser_log_set_quiet(true);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_file_is_synced_before_it_is_in_its_place),
      cmocka_unit_test(a_shard_is_synced_before_it_is_in_its_place),
      cmocka_unit_test(a_merged_shard_is_synced),
      cmocka_unit_test(what_waits_is_sealed_in_ten_seconds),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
