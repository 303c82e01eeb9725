/* The program itself, run by a shell in a folder of made files. */
#include "support/program.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/file.h"
#include "base/memory.h"

static char *folder;

void test_program_start(const char *name) {
  folder = test_folder_make(name);
}

void test_program_end(void) {
  test_folder_remove(folder);
  folder = NULL;
}

const char *test_program_folder(void) {
  return folder;
}

/* The place in the folder, whose parents are there then; freed by the caller. */
static char *place(const char *name) {
  ser_error err = {0};
  char *path = ser_path_join(folder, name), *parent = ser_path_folder(path);
  ASSERT_OK(ser_make_folders(parent, &err), err);
  free(parent);
  return path;
}

void test_put_file(const char *name, const char *text) {
  ser_error err = {0};
  char *path = place(name);
  ASSERT_OK(ser_file_write(path, text, strlen(text), &err), err);
  free(path);
}

void test_put_wav(const char *name, uint64_t seed, double seconds) {
  int64_t count = (int64_t)(16000 * seconds);
  char *path = place(name);
  float *samples = test_speech(seed, count, 16000);
  test_write_wav(path, samples, count, 16000);
  free(samples);
  free(path);
}

static char *read_text(const char *name) {
  ser_error err = {0};
  size_t size;
  char *text, *path = ser_path_join(folder, name);
  ASSERT_OK(ser_file_read(&text, &size, path, &err), err);
  free(path);
  return text;
}

int test_run_line(const char *line, char **said) {
  char *command = ser_format("cd '%s' && { P='%s'; S() { \"$P\" \"$@\"; }; %s ; } >out 2>err </dev/null", folder,
                             test_binary(), line);
  int status = system(command);
  *said = read_text("err");
  free(command);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

char *test_printed(void) {
  return read_text("out");
}

void test_must(const char *line) {
  char *said;
  int status = test_run_line(line, &said);
  if (status != 0) fail_msg("%s ended with %d: %s", line, status, said);
  free(said);
}
