/* What predict hears of the paths that it is given: files as they are, folders by suffix, and what it says of the rest.
 */
#include "support/harness.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/interrupt.h"
#include "report/predict.h"

static void make_file(const char *folder, const char *name) {
  ser_error err = {0};
  char *path = ser_path_join(folder, name), *parent = ser_path_folder(path);
  ASSERT_OK(ser_make_folders(parent, &err), err);
  ASSERT_OK(ser_file_write(path, "x", 1, &err), err);
  free(parent);
  free(path);
}

static void test_inputs(void **state) {
  (void)state;
  ser_error err = {0};
  char *folder = test_folder_make("predict_inputs"), *bare = ser_path_join(folder, "z"),
       *named = ser_path_join(folder, "notes.txt"), *one = ser_path_join(folder, "b");
  static const char *const names[] = {"b/c/2.FLAC", "a.wav", "notes.txt", ".hidden.wav", "b/1.ogg", "b/c/d.csv"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) make_file(folder, names[i]);
  ASSERT_OK(ser_make_folders(bare, &err), err);
  const char *const paths[] = {named, folder, bare, one};
  ser_predict_inputs inputs;
  ASSERT_OK(ser_predict_inputs_make(&inputs, paths, 4, &err), err);
  static const char *const want[] = {"notes.txt", "a.wav", "b/1.ogg", "b/c/2.FLAC", "b/1.ogg", "b/c/2.FLAC"};
  assert_int_equal(inputs.count, 6); /* what is named is taken as it is, below folders suffixes decide */
  for (size_t i = 0; i < 6; i++) {
    char *path = ser_path_join(folder, want[i]);
    assert_string_equal(inputs.sources[i].path, path);
    free(path);
  }
  assert_non_null(inputs.empty.data);
  assert_true(!strncmp(inputs.empty.data, bare, strlen(bare)));
  char *all = ser_format("%s: 2 files are passed over", folder), *deep = ser_format("%s: 1 file is passed over", one);
  assert_non_null(strstr(inputs.passed.data, all));
  assert_non_null(strstr(inputs.passed.data, deep));
  free(deep);
  free(all);
  ser_predict_inputs_free(&inputs);
  free(named);
  free(bare);
  free(one);
  test_folder_remove(folder);
}

/* A signal that comes before stdin is read ends the wait for it, though nothing ever comes from there. */
static void test_signal_before_stdin(void **state) {
  (void)state;
  int ends[2], status;
  assert_int_equal(pipe(ends), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (!child) {
    static const char *const paths[] = {"-"};
    ser_predict_inputs inputs;
    dup2(ends[0], STDIN_FILENO);
    alarm(60); /* rather than waiting for ever */
    ser_interrupt_install();
    raise(SIGTERM);
    _exit(ser_predict_inputs_make(&inputs, paths, 1, NULL) == SER_INTERRUPTED ? 0 : 1);
  }
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  close(ends[0]);
  close(ends[1]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_inputs),
      cmocka_unit_test(test_signal_before_stdin),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
