#include "support/extraction.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "support/harness.h"

test_scene test_scene_make(int threads) {
  test_scene s = {.folder = test_folder_make("extract")};
  ser_error err = {0};
  s.cache = ser_path_join(s.folder, "cache");
  ser_manifest_init(&s.manifest);
  ser_config_init(&s.config);
  ASSERT_OK(ser_device_open(&s.device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = threads}, &err), err);
  return s;
}

void test_scene_free(test_scene *s) {
  ser_device_close(s->device);
  ser_config_free(&s->config);
  ser_manifest_free(&s->manifest);
  free(s->cache);
  test_folder_remove(s->folder);
}

ser_row *test_scene_add_row(test_scene *s, const char *name) {
  ser_manifest *m = &s->manifest;
  ser_error err = {0};
  struct stat info;
  SER_GROW(m->rows, m->count, m->capacity);
  ser_row *row = &m->rows[m->count++];
  memset(row, 0, sizeof *row);
  row->path = ser_path_join(s->folder, name);
  row->corpus = ser_strdup("test");
  row->speaker = ser_strdup("");
  row->sex = ser_strdup("");
  row->intensity = ser_strdup("");
  row->statement = ser_strdup("");
  row->status = SER_NEW;
  row->seconds = -1;
  assert_int_equal(stat(row->path, &info), 0);
  row->size = info.st_size;
  row->mtime_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
  ASSERT_OK(ser_hash_file(&row->hash, row->path, &err), err);
  return row;
}

ser_row *test_scene_add_noise(test_scene *s, const char *name, uint64_t seed, int64_t count, int rate) {
  float *samples = ser_alloc((size_t)count * sizeof *samples);
  for (int64_t i = 0; i < count; i++)
    samples[i] = test_random(seed, (uint64_t)i) * (float)(i % (2000 + 300 * (int64_t)seed)) / 40000;
  char *path = ser_path_join(s->folder, name);
  test_write_wav(path, samples, count, rate);
  free(path);
  free(samples);
  return test_scene_add_row(s, name);
}

void test_scene_add_clips(test_scene *s, int count) {
  static const int rates[] = {16000, 22050, 48000, 24414};
  for (int i = 0; i < count; i++) {
    char name[32];
    int rate = rates[i % 4];
    snprintf(name, sizeof name, "clip%03d.wav", i);
    test_scene_add_noise(s, name, (uint64_t)i, rate * (2 + i * 7 % 19) / 10, rate);
  }
}

ser_status test_scene_extract(ser_extract_summary *summary, test_scene *s, ser_feature_kind kind, int jobs,
                              ser_error *err) {
  const ser_extract_feature feature = {.kind = kind, .mfcc = ser_config_mfcc(&s->config, kind)};
  ser_extract_options options = {&feature, 1, s->cache, jobs, s->device, false};
  return ser_extract(summary, &s->manifest, &options, err);
}

void test_scene_expect(test_scene *s, ser_feature_kind kind, int jobs, size_t present, size_t computed,
                       size_t too_short, size_t refused, const char *named) {
  ser_extract_summary summary;
  ser_error err = {0};
  ASSERT_OK(test_scene_extract(&summary, s, kind, jobs, &err), err);
  assert_int_equal(summary.present, present);
  assert_int_equal(summary.computed, computed);
  assert_int_equal(summary.too_short, too_short);
  assert_int_equal(summary.refused, refused);
  assert_int_equal(summary.wanted, present + computed + too_short + refused);
  if (named)
    assert_non_null(strstr(summary.refusals.data, named));
  else
    assert_int_equal(summary.refusals.size, 0);
  free(summary.refusals.data);
}

void test_scene_read(test_scene *s, ser_feature_kind kind, int64_t **offset, float **features) {
  ser_cache *cache;
  ser_error err = {0};
  ser_hash *keys = ser_alloc(s->manifest.count * sizeof *keys);
  size_t count = 0;
  for (size_t i = 0; i < s->manifest.count; i++)
    if (ser_row_usable(&s->manifest.rows[i])) keys[count++] = s->manifest.rows[i].hash;
  ASSERT_OK(ser_feature_cache_open(&cache, s->cache, kind, ser_config_mfcc(&s->config, kind), false, &err), err);
  ASSERT_OK(ser_cache_read(cache, offset, features, keys, count, &err), err);
  ASSERT_OK(ser_cache_close(cache, &err), err);
  free(keys);
}

ser_entry_status test_scene_cached(test_scene *s, const ser_hash *key) {
  ser_cache *cache;
  ser_error err = {0};
  ASSERT_OK(ser_feature_cache_open(&cache, s->cache, SER_MFCC39, &s->config.features.mfcc39, false, &err), err);
  ser_entry_status status = ser_cache_find(cache, key, NULL);
  ASSERT_OK(ser_cache_close(cache, &err), err);
  return status;
}
