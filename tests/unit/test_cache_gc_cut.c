/* gc of a cache in which clips stand twice, when it is killed, finds no room, meets a failing disk or is not alone. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "support/cache.h"
#include "support/harness.h"
#include "support/large.h"

/* The C library's own calls, as far as they meet shards. A process may be made to die at its n-th shard that appears or
 * goes; a file may be taken away when the first new shard has appeared, and what is synced is watched, or fails. */
static int steps_left = -1;
static const char *taken_away;
static bool refuse_removal, no_locks;
static size_t most_shards; /* that there were at once, where a new one was about to appear */
static int sync_problem;   /* errno, for what has this inode */
static ino_t sync_fails;
static ino_t synced[64]; /* from 0 on, since the last shard appeared */
static size_t synced_count;
static size_t removed_unsynced; /* shards that went before all others and their folder had been synced */

static void step(void) {
  if (steps_left >= 0 && steps_left-- == 0) _exit(9);
}

static size_t count_shards(const char *one) {
  char *folder = ser_path_folder(one), **names;
  size_t count;
  ser_error err = {0};
  ASSERT_OK(ser_folder_names(&names, &count, folder, &err), err);
  ser_names_free(names, count);
  free(folder);
  return count;
}

static bool is_synced(const char *path) {
  struct stat info;
  assert_int_equal(stat(path, &info), 0);
  for (size_t i = 0; i < synced_count; i++)
    if (synced[i] == info.st_ino) return true;
  return false;
}

/* Whether the folder of shards and every shard but this one are on the disk. */
static bool others_synced(const char *path) {
  char *folder = ser_path_folder(path), **names;
  size_t count;
  ser_error err = {0};
  bool all = is_synced(folder);
  ASSERT_OK(ser_folder_names(&names, &count, folder, &err), err);
  for (size_t i = 0; i < count; i++) {
    char *other = ser_path_join(folder, names[i]);
    if (strcmp(other, path) != 0 && !is_synced(other)) all = false;
    free(other);
  }
  ser_names_free(names, count);
  free(folder);
  return all;
}

int unlink(const char *path) {
  if (strstr(path, "/shards/")) {
    step();
    removed_unsynced += !others_synced(path);
    if (refuse_removal) {
      errno = EPERM;
      return -1;
    }
  }
  return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int rename(const char *from, const char *to) {
  if (strstr(to, "/shards/")) {
    step();
    size_t count = count_shards(to);
    if (count > most_shards) most_shards = count;
    synced_count = 0;
  }
  int result = renameat(AT_FDCWD, from, AT_FDCWD, to);
  if (result == 0 && taken_away && strstr(to, "/shards/")) {
    char *away = ser_format("%s.away", taken_away);
    assert_int_equal(renameat(AT_FDCWD, taken_away, AT_FDCWD, away), 0);
    free(away);
    taken_away = NULL;
  }
  return result;
}

int fsync(int fd) {
  struct stat info;
  assert_int_equal(fstat(fd, &info), 0);
  if (sync_problem && info.st_ino == sync_fails) {
    errno = sync_problem;
    return -1;
  }
  if (synced_count < sizeof synced / sizeof *synced) synced[synced_count++] = info.st_ino;
  return (int)syscall(SYS_fsync, fd);
}

int flock(int fd, int operation) {
  if (!no_locks) return (int)syscall(SYS_flock, fd, operation);
  errno = ENOLCK;
  return -1;
}

/* Once a folder of shards has been listed, one comes and another one goes. */
static const char *comes_from, *comes_to, *goes_then;

int closedir(DIR *folder) {
  int (*its_own)(DIR *) = (int (*)(DIR *))(uintptr_t)dlsym(RTLD_NEXT, "closedir");
  if (comes_from) {
    const char *from = comes_from;
    comes_from = NULL;
    assert_int_equal(renameat(AT_FDCWD, from, AT_FDCWD, comes_to), 0);
    assert_int_equal(syscall(SYS_unlinkat, AT_FDCWD, goes_then, 0), 0);
  }
  return its_own(folder);
}

static void expect_failure(const char *folder, const char *named, const char *cure) {
  ser_error err = {0};
  ser_text report = {0};
  assert_int_equal(ser_cache_gc(folder, test_cache_columns, &report, &err), SER_FAILED);
  if (!strstr(err.text, named) || !strstr(err.text, cure)) fail_msg("not '%s' and '%s': %s", named, cure, err.text);
  free(report.data);
}

/* Where there is no room what needs none is done: a copy beside the shard that stays goes. */
static void test_full_disk(void **state) {
  (void)state;
  char *folder = test_folder_make("gc");
  struct rlimit before;
  free(test_large_fill(folder, 0, 10, 0));
  free(test_large_fill_forward(folder, 0, 10));
  free(test_large_fill(folder, 6, 14, 0));
  free(test_large_fill(folder, 12, 15, 0));
  signal(SIGXFSZ, SIG_IGN);
  getrlimit(RLIMIT_FSIZE, &before);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){1 << 16, before.rlim_max}), 0);
  assert_int_equal(test_large_entries(folder), 31);
  expect_failure(folder, folder, "make room");
  setrlimit(RLIMIT_FSIZE, &before);
  assert_int_equal(test_large_entries(folder), 21);
  test_large_check(folder, 0, 15, 0);
  test_gc(folder, ": 3 shards (", ", 2 rewritten; removed 0 doubled,");
  assert_int_equal(test_large_entries(folder), 15);
  test_large_check(folder, 0, 15, 0);
  test_folder_remove(folder);
}

/* Nothing is lost by a gc that dies when it has done so many steps; whether it died. It works on hard links to the
 * original, which holds the clips from 0 on. */
static bool kill_at(const char *original, int64_t clips, int steps) {
  char *folder = test_folder_make("gc"), *copy = ser_format("cp -al '%s/.' '%s'", original, folder);
  int how;
  assert_int_equal(system(copy), 0);
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    ser_error err = {0};
    ser_text report = {0};
    steps_left = steps;
    _exit(ser_cache_gc(folder, test_cache_columns, &report, &err) != SER_OK);
  }
  assert_int_equal(waitpid(child, &how, 0), child);
  assert_true(WIFEXITED(how) && (WEXITSTATUS(how) == 0 || WEXITSTATUS(how) == 9));
  test_large_check(folder, 0, clips, 0);
  test_gc(folder, ") became ", "rewritten");
  test_large_check(folder, 0, clips, 0);
  test_gc(folder, ") became ", TEST_NOTHING_GONE);
  free(copy);
  test_folder_remove(folder);
  return WEXITSTATUS(how) == 9;
}

/* At whatever moment it dies, every clip is there. */
static void test_killed(void **state) {
  (void)state;
  char *folder = test_folder_make("gc");
  free(test_large_fill(folder, 0, 10, 0));
  free(test_large_fill_forward(folder, 0, 10));
  free(test_large_fill(folder, 6, 14, 0));
  free(test_large_fill(folder, 12, 16, 0));
  free(test_large_fill(folder, 15, 20, 0));
  int steps = 0;
  while (kill_at(folder, 20, steps)) steps++;
  assert_int_equal(steps, 5); /* one doubled goes, one is written, three go for it */
  assert_int_equal(test_large_entries(folder), 37);
  test_folder_remove(folder);
}

/* It needs room for a shard or two, not for all that it writes: the old ones go as it goes along. One of which a part
 * waits for the next shard stays until that is there. */
static void test_little_room(void **state) {
  (void)state;
  char *folder = test_folder_make("gc");
  for (int64_t i = 0; i < 4; i++) free(test_large_fill(folder, 6 * i, 6 * i + 6, 0));
  for (int steps = 3; steps < 5; steps++) assert_true(kill_at(folder, 24, steps)); /* before and after the second one */
  most_shards = 0;
  test_gc(folder, ": 4 shards (", ", 4 rewritten; removed 0 doubled,");
  assert_int_equal(most_shards, 4); /* the first one found them all, the second one two of them and the first */
  test_large_check(folder, 0, 24, 0);
  test_gc(folder, ": 2 shards (", TEST_NOTHING_GONE);
  test_folder_remove(folder);
}

/* Before a shard goes all that stands for it is on the disk, whoever wrote it, and so are the names. */
static void test_synced_first(void **state) {
  (void)state;
  for (int64_t first = 0; first < 7; first += 6) { /* a mere copy; one of which a part is written anew */
    char *folder = test_folder_make("gc"), *stays = test_large_fill(folder, 0, 10, 0),
         *goes = test_large_fill_forward(folder, first, first ? 14 : 4);
    synced_count = removed_unsynced = 0;
    test_gc(folder, ": 2 shards (", first ? ", 1 rewritten; removed 0 doubled," : ", 0 rewritten; removed 1 doubled,");
    assert_int_equal(removed_unsynced, 0);
    test_expect_file(stays, true);
    test_expect_file(goes, false);
    test_folder_remove(folder);
  }
}

/* Where the disk cannot take it nothing goes; that a file system syncs no folders is no such thing. */
static void test_sync_fails(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *stays = test_large_fill(folder, 0, 10, 0),
       *goes = test_large_fill_forward(folder, 0, 4);
  char *shards = ser_path_folder(stays);
  for (int i = 0; i < 3; i++) {
    struct stat info;
    assert_int_equal(stat(i ? shards : stays, &info), 0);
    sync_fails = info.st_ino;
    sync_problem = i < 2 ? EIO : EINVAL;
    if (i < 2)
      expect_failure(folder, i ? "/shards cannot be synced" : stays, strerror(EIO));
    else
      test_gc(folder, ": 2 shards (", ", 0 rewritten; removed 1 doubled,");
    sync_problem = 0;
    assert_true(ser_file_exists(stays));
    assert_int_equal(ser_file_exists(goes), i < 2);
  }
  free(shards);
  free(stays);
  free(goes);
  test_folder_remove(folder);
}

/* What gc relies on is gone when it has written the rest: another process found it damaged, or somebody took it. */
static void test_keeper_goes(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *keeper = test_large_fill(folder, 0, 12, 0),
       *other = test_large_fill(folder, 6, 16, 0);
  taken_away = keeper;
  expect_failure(folder, keeper, "run gc again");
  assert_null(taken_away);
  test_expect_file(other, true);
  test_large_check(folder, 6, 16, 0);
  free(keeper);
  test_folder_remove(folder);
}

/* A shard of another user in a folder where only owners may remove. */
static void test_cannot_remove(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *stays = test_large_fill(folder, 0, 10, 0),
       *goes = test_large_fill_forward(folder, 0, 4);
  refuse_removal = true;
  expect_failure(folder, goes, "see to the rights of its folder, then run gc again: Operation not permitted");
  refuse_removal = false;
  assert_int_equal(test_large_entries(folder), 14);
  free(stays);
  free(goes);
  test_folder_remove(folder);
}

/* Two at once could each remove the copy that the other one keeps. */
static void test_alone(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *format = ser_path_join(folder, "FORMAT");
  free(test_large_fill(folder, 0, 10, 0));
  free(test_large_fill_forward(folder, 0, 10));
  int other = open(format, O_RDONLY);
  assert_int_equal(flock(other, LOCK_EX | LOCK_NB), 0);
  expect_failure(folder, folder, "another gc is at work there; wait for it");
  close(other);
  no_locks = true;
  expect_failure(folder, format, "run gc on the machine that has the disk");
  no_locks = false;
  assert_int_equal(test_large_entries(folder), 20);
  test_gc(folder, ": 2 shards (", ", 0 rewritten; removed 1 doubled,");
  free(format);
  test_folder_remove(folder);
}

/* Who opens a cache while gc is at work misses nothing: what was listed may have gone, and its clips moved. */
static void test_listed_too_early(void **state) {
  (void)state;
  char *folder = test_folder_make("gc"), *old = test_large_fill(folder, 0, 3, 0),
       *new = test_large_fill_forward(folder, 0, 3), *away = ser_path_join(folder, "away");
  ser_hash key = test_cache_key(1);
  assert_int_equal(renameat(AT_FDCWD, new, AT_FDCWD, away), 0);
  comes_to = new;
  goes_then = old;
  comes_from = away;
  ser_cache *cache = test_cache_open(folder, false);
  assert_null(comes_from);
  assert_int_equal(ser_cache_find(cache, &key, NULL), SER_ENTRY_OK);
  test_cache_close(cache);
  free(old);
  free(new);
  free(away);
  test_folder_remove(folder);
}

int main(void) {
  ser_log_set_quiet(true);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_full_disk),     cmocka_unit_test(test_little_room), cmocka_unit_test(test_killed),
      cmocka_unit_test(test_synced_first),  cmocka_unit_test(test_sync_fails),  cmocka_unit_test(test_keeper_goes),
      cmocka_unit_test(test_cannot_remove), cmocka_unit_test(test_alone),       cmocka_unit_test(test_listed_too_early),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
