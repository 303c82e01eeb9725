/* An index that is cut off: what it had hashed is kept, is no manifest, and the next index reads only the rest. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/interrupt.h"
#include "support/recordings.h"

static char *folder, *root, *output, *partial, *endless;

static int make_folder(void **state) {
  (void)state;
  folder = test_folder_make("cut");
  root = ser_path_join(folder, "tess");
  output = ser_path_join(folder, "manifest.csv");
  partial = ser_path_join(folder, "manifest.csv.partial");
  endless = ser_path_join(root, "YAF_zoo_sad.wav");
  return 0;
}

static int remove_folder(void **state) {
  (void)state;
  free(root);
  free(output);
  free(partial);
  free(endless);
  test_folder_remove(folder);
  return 0;
}

/* Clips, and behind them in byte order a file whose bytes take longer to hash than anyone waits. */
static void put_clips(int count) {
  for (int i = 0; i < count; i++) {
    char name[32];
    snprintf(name, sizeof name, "OAF_w%03d_sad.wav", i);
    test_put_clip(root, name, (uint64_t)i);
  }
  int fd = open(endless, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  assert_true(fd >= 0);
  assert_int_equal(ftruncate(fd, (off_t)1 << 38), 0);
  close(fd);
}

static ser_status index_root(ser_manifest *manifest, ser_index_summary *summary, double keep_every,
                             const ser_manifest *before) {
  ser_error err = {0};
  const ser_index_options options = {
      .roots[SER_TESS] = root, .emotions = 6, .jobs = 1, .keep = output, .keep_every = keep_every};
  ser_status status = ser_index(manifest, summary, &options, before, &err);
  free(summary->notes.data);
  return status;
}

/* Whether the process has the endless file open. */
static bool is_at_the_end(pid_t child) {
  char link[64], target[4096];
  for (int fd = 3; fd < 64; fd++) {
    snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)child, fd);
    ssize_t size = readlink(link, target, sizeof target - 1);
    if (size <= 0) continue;
    target[size] = 0;
    if (!strcmp(target, endless)) return true;
  }
  return false;
}

/* Indexes in another process and sends it the signal when only the endless file is left. Its wait status. */
static int cut_off(int signal_number, double keep_every) {
  pid_t child = fork();
  if (child == 0) {
    ser_manifest manifest;
    ser_index_summary summary;
    ser_interrupt_install();
    _exit(index_root(&manifest, &summary, keep_every, NULL) == SER_INTERRUPTED ? 0 : 1);
  }
  struct timespec nap = {0, 1000000};
  while (!is_at_the_end(child) && waitpid(child, NULL, WNOHANG) == 0) nanosleep(&nap, NULL);
  int result;
  kill(child, signal_number);
  assert_int_equal(waitpid(child, &result, 0), child);
  return result;
}

/* The next index has read as many files as `read`, and leaves what one leaves that was never cut off. */
static void expect_the_rest(size_t read, size_t count) {
  ser_manifest manifest, fresh, none;
  ser_index_summary summary;
  ser_text a = {0}, b = {0};
  ser_error err = {0};
  assert_int_equal(ser_manifest_read(&none, partial, &err), SER_USAGE);
  assert_non_null(strstr(err.text, "manifest.csv.partial: line 1: the column path is missing"));
  assert_int_equal(unlink(endless), 0);
  assert_int_equal(index_root(&manifest, &summary, 0, NULL), SER_OK);
  assert_int_equal(summary.hashed, read);
  assert_int_equal(manifest.count, count);
  ser_index_done(output);
  assert_false(ser_file_exists(partial));
  assert_int_equal(index_root(&fresh, &summary, 1e9, NULL), SER_OK);
  assert_int_equal(summary.hashed, count);
  ser_manifest_text(&a, &manifest);
  ser_manifest_text(&b, &fresh);
  assert_string_equal(a.data, b.data);
  free(a.data);
  free(b.data);
  ser_manifest_free(&manifest);
  ser_manifest_free(&fresh);
}

static void a_signal(void **state) {
  (void)state;
  put_clips(40);
  int result = cut_off(SIGINT, 1e9);
  assert_true(WIFEXITED(result) && WEXITSTATUS(result) == 0);
  assert_true(ser_file_exists(partial));
  assert_false(ser_file_exists(output));
  expect_the_rest(0, 40);
}

/* What the first one kept is not lost where the second is cut off before it came as far. */
static void a_signal_and_another_at_once(void **state) {
  (void)state;
  put_clips(40);
  cut_off(SIGTERM, 1e9);
  pid_t child = fork();
  if (child == 0) {
    ser_manifest manifest;
    ser_index_summary summary;
    ser_interrupt_install();
    raise(SIGINT);
    _exit(index_root(&manifest, &summary, 0, NULL) == SER_INTERRUPTED ? 0 : 1);
  }
  int result;
  assert_int_equal(waitpid(child, &result, 0), child);
  assert_true(WIFEXITED(result) && WEXITSTATUS(result) == 0);
  expect_the_rest(0, 40);
}

/* kill -9: what was written on the way is there, the clips of the last stretch are read again. */
static void a_kill(void **state) {
  (void)state;
  put_clips(300);
  int result = cut_off(SIGKILL, 0);
  assert_true(WIFSIGNALED(result) && WTERMSIG(result) == SIGKILL);
  expect_the_rest(44, 300);
}

/* What a whole manifest knows of the same bytes, an audit's verdict say, goes before what was kept. */
static void verdicts_stay(void **state) {
  (void)state;
  ser_manifest before, after;
  ser_index_summary summary;
  put_clips(3);
  cut_off(SIGINT, 1e9);
  assert_int_equal(unlink(endless), 0);
  assert_int_equal(index_root(&before, &summary, 0, NULL), SER_OK);
  before.rows[1].status = SER_ROW_OK;
  before.rows[1].reason = SER_REASON_CLIPPED;
  assert_int_equal(index_root(&after, &summary, 0, &before), SER_OK);
  assert_int_equal(summary.hashed, 0);
  assert_int_equal(after.rows[1].reason, SER_REASON_CLIPPED);
  assert_int_equal(after.rows[2].status, SER_NEW);
  ser_manifest_free(&before);
  ser_manifest_free(&after);
  /* A file that is no such table is passed over. */
  test_put_text(folder, "manifest.csv.partial", "path_so_far,size\n/a,x\n");
  assert_int_equal(index_root(&after, &summary, 0, NULL), SER_OK);
  assert_int_equal(summary.hashed, 3);
  ser_manifest_free(&after);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(a_signal, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_signal_and_another_at_once, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_kill, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(verdicts_stay, make_folder, remove_folder),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
