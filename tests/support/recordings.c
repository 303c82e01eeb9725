/* Made recordings in made layouts. */
#include "support/recordings.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

void test_put_bytes(const char *root, const char *below, const void *bytes, size_t size) {
  ser_error err = {0};
  char *path = ser_path_join(root, below), *folder = ser_path_folder(path);
  ASSERT_OK(ser_make_folders(folder, &err), err);
  ASSERT_OK(ser_file_write(path, bytes, size, &err), err);
  free(folder);
  free(path);
}

void test_put_text(const char *root, const char *below, const char *text) {
  test_put_bytes(root, below, text, strlen(text));
}

void test_put_clip(const char *root, const char *below, uint64_t seed) {
  ser_error err = {0};
  float samples[400];
  for (int i = 0; i < 400; i++) samples[i] = 0.5f * test_random(seed, (uint64_t)i);
  char *path = ser_path_join(root, below), *folder = ser_path_folder(path);
  ASSERT_OK(ser_make_folders(folder, &err), err);
  test_write_wav(path, samples, 400, 8000);
  free(folder);
  free(path);
}

ser_row *test_row(const ser_manifest *manifest, const char *ending) {
  size_t size = strlen(ending);
  for (size_t i = 0; i < manifest->count; i++) {
    const char *path = manifest->rows[i].path;
    size_t all = strlen(path);
    if (all > size && path[all - size - 1] == '/' && !strcmp(path + all - size, ending)) return manifest->rows + i;
  }
  fail_msg("no row for %s", ending);
  return NULL;
}
