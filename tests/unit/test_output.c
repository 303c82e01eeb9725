/* Files that are written to places which are no plain files: links keep their name, pipes and devices stay what they
 * are, and what cannot be written is told before the work. */
#include "support/harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

static void assert_holds(const char *path, const char *text) {
  ser_error err = {0};
  char *data;
  size_t size;
  ASSERT_OK(ser_file_read(&data, &size, path, &err), err);
  assert_string_equal(data, text);
  free(data);
}

static mode_t kind_of(const char *path) {
  struct stat info;
  assert_int_equal(lstat(path, &info), 0);
  return info.st_mode & S_IFMT;
}

static void links_stay(void **state) {
  (void)state;
  ser_error err = {0};
  char *folder = test_folder_make("links"), *deep = ser_path_join(folder, "deep"),
       *link = ser_path_join(folder, "link"), *again = ser_path_join(folder, "again"),
       *target = ser_path_join(deep, "target"), *lost = ser_path_join(folder, "lost");
  ASSERT_OK(ser_make_folders(deep, &err), err);
  ASSERT_OK(ser_file_write(target, "old", 3, &err), err);
  assert_int_equal(symlink("deep/target", link), 0);
  assert_int_equal(symlink("link", again), 0);
  assert_int_equal(symlink("nowhere", lost), 0);
  ASSERT_OK(ser_file_write(again, "new", 3, &err), err);
  assert_int_equal(kind_of(link), S_IFLNK);
  assert_int_equal(kind_of(again), S_IFLNK);
  assert_holds(target, "new");
  struct stat info;
  assert_int_equal(chmod(target, 0640), 0);
  ASSERT_OK(ser_file_write(link, "newer", 5, &err), err);
  assert_true(stat(target, &info) == 0 && (info.st_mode & 07777) == 0640);
  assert_int_equal(ser_file_write(lost, "new", 3, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "lost: it is a link to nothing; remove it"));
  assert_int_equal(kind_of(lost), S_IFLNK);
  assert_int_equal(ser_output_check(lost, "-o", &err), SER_FAILED);
  assert_non_null(strstr(err.text, "lost is a link to nothing; remove it"));
  assert_true(ser_same_file(again, target));
  assert_false(ser_same_file(again, folder));
  assert_false(ser_same_file(lost, lost));
  free(lost);
  free(target);
  free(again);
  free(link);
  free(deep);
  test_folder_remove(folder);
}

/* As for --json >(jq .): the pipe is written, not replaced by a file. */
static void pipes_are_written(void **state) {
  (void)state;
  ser_error err = {0};
  char *folder = test_folder_make("pipes"), *fifo = ser_path_join(folder, "fifo"), got[16] = {0};
  assert_int_equal(mkfifo(fifo, 0600), 0);
  int reader = open(fifo, O_RDONLY | O_NONBLOCK);
  assert_true(reader >= 0);
  ASSERT_OK(ser_output_check(fifo, "--json", &err), err);
  ASSERT_OK(ser_file_write(fifo, "through", 7, &err), err);
  assert_int_equal(read(reader, got, sizeof got), 7);
  assert_string_equal(got, "through");
  assert_int_equal(kind_of(fifo), S_IFIFO);
  close(reader);
  free(fifo);
  test_folder_remove(folder);
}

/* As for --json /dev/stdout >FILE: what was printed before stays in front, and FILE is not renamed away. */
static void stdout_is_written_behind_what_was_printed(void **state) {
  (void)state;
  ser_error err = {0};
  char *folder = test_folder_make("stdout"), *file = ser_path_join(folder, "file");
  fflush(stdout);
  int kept = dup(STDOUT_FILENO), fd = open(file, O_WRONLY | O_CREAT, 0600);
  assert_true(kept >= 0 && fd >= 0 && dup2(fd, STDOUT_FILENO) == STDOUT_FILENO);
  printf("summary\n");
  ser_status status = ser_file_write("/dev/stdout", "{}\n", 3, &err);
  printf("more\n");
  fflush(stdout);
  assert_true(dup2(kept, STDOUT_FILENO) == STDOUT_FILENO);
  close(kept);
  close(fd);
  ASSERT_OK(status, err);
  assert_holds(file, "summary\n{}\nmore\n");
  free(file);
  test_folder_remove(folder);
}

static void devices_stay_devices(void **state) {
  (void)state;
  ser_error err = {0};
  char *folder = test_folder_make("devices"), *full = ser_path_join(folder, "full");
  assert_int_equal(symlink("/dev/full", full), 0); /* a link: were it replaced, the machine's own would stay */
  assert_int_equal(ser_file_write(full, "x", 1, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "No space left"));
  assert_int_equal(kind_of(full), S_IFLNK);
  free(full);
  test_folder_remove(folder);
}

static void told_before_the_work(void **state) {
  (void)state;
  ser_error err = {0};
  char *folder = test_folder_make("before"), *file = ser_path_join(folder, "file"),
       *none = ser_path_join(folder, "none/file");
  ASSERT_OK(ser_output_check(file, "-o", &err), err);
  assert_int_equal(ser_output_check("", "-o", &err), SER_USAGE);
  assert_int_equal(ser_output_check("-", "-o", &err), SER_USAGE);
  assert_int_equal(ser_output_check(folder, "-o", &err), SER_USAGE);
  assert_non_null(strstr(err.text, "is a folder"));
  assert_int_equal(ser_output_check(none, "-o", &err), SER_FAILED);
  assert_non_null(strstr(err.text, "make it first"));
  if (geteuid() != 0) {
    assert_int_equal(chmod(folder, 0500), 0);
    assert_int_equal(ser_output_check(file, "-o", &err), SER_FAILED);
    assert_int_equal(chmod(folder, 0700), 0);
  }
  assert_false(ser_file_exists(file));
  free(none);
  free(file);
  test_folder_remove(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(links_stay),
      cmocka_unit_test(pipes_are_written),
      cmocka_unit_test(stdout_is_written_behind_what_was_printed),
      cmocka_unit_test(devices_stay_devices),
      cmocka_unit_test(told_before_the_work),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
