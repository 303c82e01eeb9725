/* The bulk job on made recordings: the same bytes whatever the workers, threads and batches; resuming without sound;
 * changed, short, unusable and vanished files. */
#include "support/extraction.h"
#include "support/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "features/features.h"

/* ---- tests ----------------------------------------------------------------------------------------------------- */

/* Each clip decoded and computed alone. */
static void check_alone(test_scene *s, const int64_t *offset, const float *features) {
  const ser_mfcc_config *config = &s->config.features.mfcc39;
  int64_t columns = ser_feature_columns(config);
  ser_error err = {0};
  ser_mfcc *mfcc;
  ASSERT_OK(ser_mfcc_create(&mfcc, s->device, config, 1, 300, true, &err), err);
  for (size_t i = 0; i < s->manifest.count; i++) {
    ser_clip clip;
    ser_reason reason;
    ser_audio_source source = {.path = s->manifest.rows[i].path};
    int64_t rows[2];
    float *alone;
    ASSERT_OK(ser_audio_decode(&clip, &reason, NULL, &source, (int32_t)config->rate, NULL, NULL, &err), err);
    ASSERT_OK(ser_mfcc_compute(mfcc, &alone, rows, (const float *const *)&clip.samples, &clip.count, 1, &err), err);
    assert_int_equal(rows[1], offset[i + 1] - offset[i]);
    assert_true(rows[1] >= 9);
    assert_memory_equal(alone, features + offset[i] * columns, (size_t)(rows[1] * columns) * sizeof *alone);
    free(alone);
    ser_clip_free(&clip);
  }
  ser_mfcc_free(mfcc);
}

static void test_same_bytes(void **state) {
  (void)state;
  int64_t *first_offset = NULL;
  float *first = NULL;
  static const int arrangements[][2] = {{1, 1}, {4, 1}, {3, 3}, {0, 2}}; /* jobs, threads */
  test_scene s = test_scene_make(1);
  test_scene_add_clips(&s, 60);
  for (int run = 0; run < 4; run++) {
    ser_error err = {0};
    ser_device_close(s.device);
    ASSERT_OK(ser_device_open(&s.device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = arrangements[run][1]},
                              &err),
              err);
    free(s.cache);
    s.cache = ser_format("%s/cache-%d", s.folder, run);
    test_scene_expect(&s, SER_MFCC39, arrangements[run][0], 0, 60, 0, 0, NULL);
    int64_t *offset;
    float *features;
    test_scene_read(&s, SER_MFCC39, &offset, &features);
    if (!first) {
      check_alone(&s, offset, features);
      first = features;
      first_offset = offset;
    } else {
      assert_memory_equal(offset, first_offset, 61 * sizeof *offset);
      assert_memory_equal(features, first, (size_t)(offset[60] * 39) * sizeof *features);
      free(offset);
      free(features);
    }
  }
  free(first);
  free(first_offset);
  test_scene_free(&s);
}

static void remove_recordings(test_scene *s) {
  for (size_t i = 0; i < s->manifest.count; i++) unlink(s->manifest.rows[i].path);
}

/* A second run takes keys from the manifest and the cache alone. */
static void test_resume(void **state) {
  (void)state;
  test_scene s = test_scene_make(1);
  test_scene_add_clips(&s, 20);
  for (size_t i = 12; i < 20; i++) s.manifest.rows[i].status = i % 2 ? SER_EXCLUDED : SER_FILTERED;
  test_scene_expect(&s, SER_MFCC39, 2, 0, 12, 0, 0, NULL);
  for (size_t i = 12; i < 20; i++) s.manifest.rows[i].status = SER_ROW_OK;
  test_scene_expect(&s, SER_MFCC39, 2, 12, 8, 0, 0, NULL);
  remove_recordings(&s);
  test_scene_expect(&s, SER_MFCC39, 2, 20, 0, 0, 0, NULL);
  s.config.features.mfcc39.mels = 64; /* another configuration shares nothing */
  test_scene_expect(&s, SER_MFCC39, 2, 0, 0, 0, 20, "clip000.wav: cannot be opened");
  test_scene_free(&s);
}

static void test_duplicates(void **state) {
  (void)state;
  test_scene s = test_scene_make(1);
  test_scene_add_noise(&s, "a.wav", 1, 20000, 16000);
  test_scene_add_noise(&s, "b.wav", 1, 20000, 16000);
  test_scene_add_noise(&s, "c.wav", 2, 20000, 16000);
  test_scene_expect(&s, SER_MFCC39, 2, 0, 2, 0, 0, NULL);
  test_scene_free(&s);
}

/* A file that has vanished is read from a copy, be it usable, excluded or of another name; where none is left, the
 * usable row is named. */
static void test_copies_stand_in(void **state) {
  (void)state;
  test_scene s = test_scene_make(1);
  for (uint64_t seed = 1; seed <= 3; seed++)
    for (int copy = 0; copy < 3; copy++) {
      char name[32];
      snprintf(name, sizeof name, "c%d/%d.wav", (int)seed, copy);
      ser_error err = {0};
      char *folder = ser_path_join(s.folder, name), *parent = ser_path_folder(folder);
      ASSERT_OK(ser_make_folders(parent, &err), err);
      test_scene_add_noise(&s, name, seed, 20000, 16000);
      free(folder);
      free(parent);
    }
  ser_row *rows = s.manifest.rows;
  unlink(rows[0].path); /* gone, another usable one is there */
  rows[1].status = SER_EXCLUDED;
  unlink(rows[4].path); /* gone, and one copy has other bytes now: the excluded one is left */
  rows[3].status = SER_EXCLUDED;
  assert_int_equal(truncate(rows[5].path, 100), 0);
  for (int i = 6; i < 9; i++) unlink(rows[i].path);
  rows[6].status = SER_EXCLUDED;
  test_scene_expect(&s, SER_MFCC39, 2, 0, 2, 0, 1, "c3/1.wav: cannot be opened");
  assert_int_equal(test_scene_cached(&s, &rows[0].hash), SER_ENTRY_OK);
  assert_int_equal(test_scene_cached(&s, &rows[4].hash), SER_ENTRY_OK);
  test_scene_free(&s);
}

/* Another byte in a sample, at the old time. */
static void change_quietly(const ser_row *row) {
  struct stat info;
  unsigned char byte;
  int fd = open(row->path, O_RDWR);
  assert_int_equal(fstat(fd, &info), 0);
  assert_int_equal(lseek(fd, 3001, SEEK_SET), 3001);
  assert_int_equal(read(fd, &byte, 1), 1);
  byte ^= 77;
  assert_int_equal(pwrite(fd, &byte, 1, 3001), 1);
  assert_int_equal(futimens(fd, (struct timespec[]){info.st_atim, info.st_mtim}), 0);
  close(fd);
}

/* A copy also stands in for a file of the same size that has other bytes now, whatever the file's length. */
static void test_copies_of_changed_files(void **state) {
  (void)state;
  test_scene s = test_scene_make(1);
  test_scene_add_noise(&s, "a0.wav", 1, 20000, 16000);
  test_scene_add_noise(&s, "a1.wav", 1, 20000, 16000);
  test_scene_add_noise(&s, "a2.wav", 1, 20000, 16000);
  test_scene_add_noise(&s, "b0.wav", 2, 20000, 16000);
  test_scene_add_noise(&s, "b1.wav", 2, 20000, 16000);
  test_scene_add_noise(&s, "c0.wav", 3, 48000 * 180, 48000);
  ser_row *copy = test_scene_add_noise(&s, "c1.wav", 3, 48000 * 180, 48000), *rows = s.manifest.rows;
  assert_true(copy->size > 16 << 20);
  change_quietly(&rows[0]);
  unlink(rows[1].path);
  rows[2].status = SER_EXCLUDED;
  change_quietly(&rows[3]);
  change_quietly(&rows[4]);
  change_quietly(&rows[5]);
  test_scene_expect(&s, SER_MFCC39, 2, 0, 2, 0, 1,
                    "b0.wav: its bytes are not those that were indexed; run `serenade index`");
  assert_int_equal(test_scene_cached(&s, &rows[0].hash), SER_ENTRY_OK);
  assert_int_equal(test_scene_cached(&s, &rows[3].hash), SER_ENTRY_MISSING);
  assert_int_equal(test_scene_cached(&s, &rows[5].hash), SER_ENTRY_OK);
  test_scene_free(&s);
}

/* The cache never answers for other bytes than the key's: not even where size and time are those of the manifest. */
static void test_changed(void **state) {
  (void)state;
  test_scene s = test_scene_make(1);
  test_scene_add_clips(&s, 6);
  ser_row *changed = &s.manifest.rows[2], *touched = &s.manifest.rows[4];
  change_quietly(changed);
  utimensat(AT_FDCWD, touched->path, NULL, 0);
  test_scene_expect(&s, SER_MFCC39, 2, 0, 5, 0, 1,
                    "clip002.wav: its bytes are not those that were indexed; run `serenade index`");
  assert_int_equal(test_scene_cached(&s, &changed->hash), SER_ENTRY_MISSING);
  assert_int_equal(test_scene_cached(&s, &touched->hash), SER_ENTRY_OK);
  ser_error err = {0};
  ASSERT_OK(ser_hash_file(&changed->hash, changed->path, &err), err); /* what index does */
  test_scene_expect(&s, SER_MFCC39, 2, 5, 1, 0, 0, NULL);
  test_scene_free(&s);
}

/* What depends on the bytes alone is remembered; a file that is away for now is not. */
static void test_refused(void **state) {
  (void)state;
  test_scene s = test_scene_make(1);
  ser_error err = {0};
  test_scene_add_clips(&s, 4);
  test_scene_add_noise(&s, "short.wav", 9, 22050 / 10, 22050);
  char *path = ser_path_join(s.folder, "noise.wav");
  ASSERT_OK(ser_file_write(path, "this is no recording", 20, &err), err);
  ser_hash noise = test_scene_add_row(&s, "noise.wav")->hash, none = {{0}};
  ser_hash away = test_scene_add_noise(&s, "away.wav", 10, 30000, 22050)->hash;
  char *elsewhere = ser_path_join(s.folder, "elsewhere");
  free(path);
  path = ser_path_join(s.folder, "away.wav");
  assert_int_equal(rename(path, elsewhere), 0);
  test_scene_expect(&s, SER_MFCC39, 2, 0, 4, 1, 2, "noise.wav: unreadable: ");
  assert_int_equal(test_scene_cached(&s, &s.manifest.rows[4].hash), SER_ENTRY_TOO_SHORT);
  assert_int_equal(test_scene_cached(&s, &noise), SER_ENTRY_REFUSED);
  assert_int_equal(test_scene_cached(&s, &away), SER_ENTRY_MISSING);
  test_scene_expect(&s, SER_MFCC39, 2, 4, 0, 1, 2, "short.wav: too short");
  test_scene_expect(&s, SER_MFCC39, 2, 4, 0, 1, 2, "noise.wav: could not be decoded");
  test_scene_expect(&s, SER_MFCC39, 2, 4, 0, 1, 2, "away.wav: cannot be opened (No such file");
  assert_int_equal(rename(elsewhere, path), 0);
  test_scene_expect(&s, SER_MFCC39, 2, 4, 1, 1, 1, "noise.wav");
  s.manifest.rows[0].hash = none;
  test_scene_expect(&s, SER_MFCC39, 2, 4, 0, 1, 2, "clip000.wav: the manifest has no hash");
  free(elsewhere);
  free(path);
  test_scene_free(&s);
}

/* A refusal of a decoder that is not the present one (or of a shard that names none) is no answer. */
static void test_other_decoder(void **state) {
  (void)state;
  static const char *const attributes[] = {"{}", "{\"decoder\":\"libsndfile-0.1 rules 0\"}"};
  test_scene s = test_scene_make(1);
  test_scene_add_clips(&s, 4);
  char *json = ser_feature_json(SER_MFCC39, &s.config.features.mfcc39);
  for (int i = 0; i < 2; i++) {
    ser_cache *cache;
    ser_error err = {0};
    ASSERT_OK(ser_cache_open(&cache, s.cache, "mfcc39", json, attributes[i], 39, true, &err), err);
    ASSERT_OK(ser_cache_add(cache, &s.manifest.rows[2 * i].hash, SER_ENTRY_REFUSED, NULL, 0, &err), err);
    ASSERT_OK(ser_cache_add(cache, &s.manifest.rows[2 * i + 1].hash, SER_ENTRY_TOO_SHORT, NULL, 0, &err), err);
    ASSERT_OK(ser_cache_close(cache, &err), err);
  }
  free(json);
  test_scene_expect(&s, SER_MFCC39, 1, 0, 4, 0, 0, NULL);
  test_scene_expect(&s, SER_MFCC39, 1, 4, 0, 0, 0, NULL);
  test_scene_free(&s);
}

/* timnet: every clip is fitted to one length, so that none is too short. */
static void test_timnet(void **state) {
  (void)state;
  test_scene s = test_scene_make(1);
  test_scene_add_clips(&s, 5);
  test_scene_add_noise(&s, "short.wav", 9, 500, 22050);
  test_scene_add_noise(&s, "long.wav", 10, 22050 * 9, 22050);
  test_scene_expect(&s, SER_TIMNET, 2, 0, 7, 0, 0, NULL);
  int64_t *offset;
  float *features;
  test_scene_read(&s, SER_TIMNET, &offset, &features);
  const ser_mfcc_config *config = &s.config.features.timnet;
  for (int i = 0; i < 7; i++) assert_int_equal(offset[i + 1] - offset[i], 1 + config->samples / config->hop);
  free(offset);
  free(features);
  test_scene_free(&s);
}

/* A recording that is not held in memory whole, in frames that no batch holds either. */
static void test_long(void **state) {
  (void)state;
  test_scene s = test_scene_make(2);
  test_scene_add_clips(&s, 3);
  ser_row *row = test_scene_add_noise(&s, "long.wav", 3, 48000 * 180, 48000);
  assert_true(row->size > 16 << 20);
  ser_hash honest = row->hash;
  row->hash.bytes[3] ^= 1;
  test_scene_expect(&s, SER_MFCC39, 2, 0, 3, 0, 1, "long.wav: its bytes are not those that were indexed");
  row->hash = honest;
  test_scene_expect(&s, SER_MFCC39, 2, 3, 1, 0, 0, NULL);
  int64_t *offset;
  float *features;
  test_scene_read(&s, SER_MFCC39, &offset, &features);
  assert_int_equal(offset[4] - offset[3], 1 + 180 * s.config.features.mfcc39.rate / s.config.features.mfcc39.hop);
  free(offset);
  free(features);
  test_scene_free(&s);
}

/* The C library's own pread, which decoding reads with; while this is set, reads from there on fail. */
static _Atomic int64_t fails_from = INT64_MAX;

ssize_t pread(int fd, void *to, size_t count, off_t at) {
  if (at < fails_from) return syscall(SYS_pread64, fd, to, count, at);
  errno = EIO;
  return -1;
}

/* A disk or a mount that fails half way says nothing of the bytes: told, not remembered, and tried again. */
static void test_reading_fails(void **state) {
  (void)state;
  test_scene s = test_scene_make(1);
  test_scene_add_clips(&s, 2);
  ser_row *row = test_scene_add_noise(&s, "long.wav", 3, 48000 * 180, 48000);
  assert_true(row->size > 16 << 20);
  static const int64_t from[] = {0, 8 << 20};
  for (int i = 0; i < 2; i++) {
    fails_from = from[i];
    test_scene_expect(&s, SER_MFCC39, 1, i ? 2 : 0, i ? 0 : 2, 0, 1,
                      "long.wav: unreadable: cannot be read: Input/output error");
    assert_int_equal(test_scene_cached(&s, &row->hash), SER_ENTRY_MISSING);
  }
  fails_from = INT64_MAX;
  test_scene_expect(&s, SER_MFCC39, 1, 2, 1, 0, 0, NULL);
  test_scene_free(&s);
}

int main(void) {
  ser_log_set_quiet(true);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_same_bytes),
      cmocka_unit_test(test_resume),
      cmocka_unit_test(test_duplicates),
      cmocka_unit_test(test_copies_stand_in),
      cmocka_unit_test(test_copies_of_changed_files),
      cmocka_unit_test(test_changed),
      cmocka_unit_test(test_refused),
      cmocka_unit_test(test_other_decoder),
      cmocka_unit_test(test_timnet),
      cmocka_unit_test(test_long),
      cmocka_unit_test(test_reading_fails),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
