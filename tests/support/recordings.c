/* Made recordings in made layouts. */
#include "support/recordings.h"

#include <stdlib.h>
#include <string.h>

#include <sndfile.h>

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

void test_put_audio(const char *folder, const char *name, const float *samples, int64_t frames, int channels,
                    int format) {
  SF_INFO info = {.samplerate = 8000, .channels = channels, .format = format};
  char *path = ser_path_join(folder, name);
  SNDFILE *file = sf_open(path, SFM_WRITE, &info);
  assert_non_null(file);
  assert_int_equal(sf_writef_float(file, samples, frames), frames);
  sf_close(file);
  free(path);
}

void test_index_table(const char *folder, ser_manifest *manifest, const char *lines, int64_t emotions,
                      const ser_manifest *before) {
  ser_error err = {0};
  ser_index_summary summary;
  char *text = ser_format("path,emotion,speaker\n%s", lines), *csv = ser_path_join(folder, "list.csv");
  test_put_text(folder, "list.csv", text);
  ASSERT_OK(ser_index(manifest, &summary, &(ser_index_options){.roots[SER_CSV] = csv, .emotions = emotions, .jobs = 2},
                      before, &err),
            err);
  free(summary.notes.data);
  free(text);
  free(csv);
}

ser_audit_summary test_audit(ser_manifest *manifest, ser_audit_mode mode, bool again) {
  ser_error err = {0};
  ser_audit_summary summary;
  ASSERT_OK(ser_audit(manifest, &summary, &(ser_audit_options){.mode = mode, .again = again, .jobs = 2}, &err), err);
  assert_int_equal(summary.rows, manifest->count);
  assert_int_equal(summary.ok + summary.filtered + summary.excluded + summary.refused, manifest->count);
  return summary;
}

void test_row_is(const ser_manifest *manifest, const char *name, ser_row_status status, ser_reason reason) {
  const ser_row *row = test_row(manifest, name);
  if (row->status != status || row->reason != reason)
    fail_msg("%s: %s '%s' instead of %s '%s'", name, ser_row_status_names[row->status], ser_reason_name(row->reason),
             ser_row_status_names[status], ser_reason_name(reason));
}

void test_write_and_read(const char *folder, ser_manifest *manifest) {
  ser_error err = {0};
  char *path = ser_path_join(folder, "between.csv");
  ASSERT_OK(ser_manifest_write(manifest, path, &err), err);
  ser_manifest_free(manifest);
  ASSERT_OK(ser_manifest_read(manifest, path, &err), err);
  free(path);
}
