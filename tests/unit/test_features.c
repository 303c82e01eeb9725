/* Features' configurations as text, fitting, and batches: clips that are too short, batches that are split, clips
 * longer than a batch, and that each clip's bytes are those of the clip alone. */
#include "support/harness.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "features/features.h"

static const ser_mfcc_config mfcc39 = {22050, 2048, 512, 128, 13, 162, 0, true};
static const ser_mfcc_config timnet = {22050, 2048, 512, 128, 39, 215, 110000, false};

static void test_json(void **state) {
  (void)state;
  char *json = ser_feature_json(SER_MFCC39, &mfcc39);
  assert_string_equal(json, "{\"coefficients\":13,\"deltas\":true,\"feature\":\"mfcc39\",\"hop\":512,\"mels\":128,"
                            "\"n_fft\":2048,\"rate\":22050,\"samples\":0,\"version\":1}");
  free(json);
  json = ser_feature_json(SER_TIMNET, &timnet);
  ser_feature_kind kind = SER_MFCC39;
  ser_mfcc_config parsed;
  ser_error err = {0};
  ASSERT_OK(ser_feature_parse(&kind, &parsed, json, &err), err);
  assert_int_equal(kind, SER_TIMNET);
  /* The model's window is the model's. */
  assert_int_equal(parsed.frames, 0);
  parsed.frames = timnet.frames;
  assert_memory_equal(&parsed, &timnet, sizeof parsed);
  /* And so a cache does not depend on it. */
  ser_mfcc_config other = timnet;
  other.frames = 99;
  char *same = ser_feature_json(SER_TIMNET, &other);
  assert_string_equal(same, json);
  free(same);
  free(json);
}

static void test_json_refused(void **state) {
  (void)state;
  static const char *const bad[][2] = {
      {"{", "JSON"},
      {"{\"feature\":\"mel\",\"version\":1}", "mel"},
      {"{\"version\":1}", "feature is missing"},
      {"{\"feature\":\"mfcc39\"}", "version"},
      {"{\"feature\":\"mfcc39\",\"version\":99}", "99"},
      {"{\"feature\":\"mfcc39\",\"version\":1,\"rate\":22050,\"n_fft\":\"2048\"}", "n_fft"},
      {"{\"feature\":\"mfcc39\",\"version\":1,\"rate\":22050,\"n_fft\":2048,\"hop\":512,\"mels\":128,\"coefficients\":"
       "13,\"samples\":0,\"deltas\":3}",
       "deltas"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    ser_feature_kind kind;
    ser_mfcc_config config;
    ser_error err = {0};
    assert_int_equal(ser_feature_parse(&kind, &config, bad[i][0], &err), SER_FAILED);
    if (!strstr(err.text, bad[i][1])) fail_msg("\"%s\" does not name %s", err.text, bad[i][1]);
  }
}

static void test_sizes(void **state) {
  (void)state;
  assert_int_equal(ser_feature_columns(&mfcc39), 39);
  assert_int_equal(ser_feature_columns(&timnet), 39);
  assert_int_equal(ser_feature_min_frames(&mfcc39), 9);
  assert_int_equal(ser_feature_min_frames(&timnet), 1);
}

/* What the upkeep of a cache asks of a folder's config.json. */
static void test_cache_columns(void **state) {
  (void)state;
  ser_mfcc_config wider = mfcc39, absurd = mfcc39;
  wider.coefficients = 20;
  absurd.coefficients = INT64_MAX;
  const ser_mfcc_config *const configs[] = {&mfcc39, &wider, &absurd};
  const int64_t columns[] = {39, 60, 0};
  for (size_t i = 0; i < 3; i++) {
    char *json = ser_feature_json(SER_MFCC39, configs[i]);
    assert_int_equal(ser_feature_cache_columns(json), columns[i]);
    free(json);
  }
  assert_int_equal(ser_feature_cache_columns("{\"feature\":\"wav2vec2\"}"), 0);
  assert_int_equal(ser_feature_cache_columns("{"), 0);
}

/* The samples 1, 2, .. fitted: what is first, what is last, and where. */
static void check_fit(int64_t have, int64_t to, int64_t zeros_before, float first, float last) {
  float *samples = ser_alloc((size_t)have * sizeof *samples);
  for (int64_t i = 0; i < have; i++) samples[i] = (float)(i + 1);
  int64_t count = have;
  ser_fit_samples(&samples, &count, to);
  assert_int_equal(count, to);
  int64_t kept = have < to ? have : to;
  for (int64_t i = 0; i < to; i++) {
    bool inside = i >= zeros_before && i < zeros_before + kept;
    assert_true(samples[i] == (inside ? first + (float)(i - zeros_before) : 0));
  }
  assert_true(samples[zeros_before + kept - 1] == last);
  free(samples);
}

static void test_fit(void **state) {
  (void)state;
  check_fit(10, 10, 0, 1, 10);
  check_fit(10, 14, 2, 1, 10);
  check_fit(10, 15, 2, 1, 10); /* the odd zero goes behind */
  check_fit(10, 6, 0, 3, 8);
  check_fit(10, 5, 0, 3, 7); /* of five too many, two are cut before */
  float *none = ser_alloc(1);
  int64_t count = 0;
  ser_fit_samples(&none, &count, 3);
  assert_int_equal(count, 3);
  for (int i = 0; i < 3; i++) assert_true(none[i] == 0);
  free(none);
}

enum { CLIPS = 9 };
static const int64_t clip_samples[CLIPS] = {4095, 4096, 0, 30000, 200000, 1, 9000, 50000, 400000};

/* Features of the clips named by order, through an ser_mfcc of the given size. */
static float *compute(ser_device *device, const ser_mfcc_config *config, float *const *clips, const size_t *order,
                      size_t count, int64_t max_clips, int64_t max_frames, int64_t *offset) {
  ser_error err = {0};
  ser_mfcc *mfcc;
  const float *samples[CLIPS];
  int64_t counts[CLIPS];
  float *features;
  for (size_t i = 0; i < count; i++) {
    samples[i] = clips[order[i]];
    counts[i] = clip_samples[order[i]];
  }
  ASSERT_OK(ser_mfcc_create(&mfcc, device, config, max_clips, max_frames, true, &err), err);
  ASSERT_OK(ser_mfcc_compute(mfcc, &features, offset, samples, counts, count, &err), err);
  /* Once all room is made, computing allocates nothing on the device. */
  ser_device_counters before, after;
  float *again;
  device->rt->counters(device, &before);
  ASSERT_OK(ser_mfcc_compute(mfcc, &again, offset, samples, counts, count, &err), err);
  device->rt->counters(device, &after);
  assert_int_equal(before.allocations, after.allocations);
  assert_memory_equal(features, again, (size_t)(offset[count] * ser_feature_columns(config)) * sizeof(float));
  free(again);
  ser_mfcc_free(mfcc);
  return features;
}

static void check_batches(ser_device *device, ser_stream *stream, void *context) {
  (void)stream;
  const ser_mfcc_config *config = context;
  int64_t columns = ser_feature_columns(config);
  float *clips[CLIPS], *alone[CLIPS];
  int64_t frames[CLIPS];
  for (size_t i = 0; i < CLIPS; i++) {
    int64_t offset[2];
    clips[i] = test_speech(40 + i, clip_samples[i], 22050);
    alone[i] = compute(device, config, clips, &i, 1, 1, 1000, offset);
    frames[i] = offset[1];
    int64_t expected = clip_samples[i] ? 1 + clip_samples[i] / 512 : 0;
    assert_int_equal(frames[i], expected < ser_feature_min_frames(config) ? 0 : expected);
  }
  static const size_t orders[][CLIPS] = {{0, 1, 2, 3, 4, 5, 6, 7, 8}, {8, 7, 6, 5, 4, 3, 2, 1, 0}};
  /* Rooms in which all fits, in which batches are split by clips or by frames, and which the long clips overflow. */
  static const int64_t rooms[][2] = {{64, 2000}, {2, 2000}, {64, 500}, {3, 64}, {1, 1}};
  for (size_t o = 0; o < 2; o++)
    for (size_t r = 0; r < sizeof rooms / sizeof *rooms; r++) {
      int64_t offset[CLIPS + 1];
      float *features = compute(device, config, clips, orders[o], CLIPS, rooms[r][0], rooms[r][1], offset);
      for (size_t i = 0; i < CLIPS; i++) {
        size_t clip = orders[o][i];
        assert_int_equal(offset[i + 1] - offset[i], frames[clip]);
        if (memcmp(features + offset[i] * columns, alone[clip], (size_t)(frames[clip] * columns) * sizeof(float)))
          fail_msg("clip %zu has other bytes in a room of %d clips, %d frames", clip, (int)rooms[r][0],
                   (int)rooms[r][1]);
      }
      free(features);
    }
  for (size_t i = 0; i < CLIPS; i++) {
    free(clips[i]);
    free(alone[i]);
  }
}

static void test_batches(void **state) {
  (void)state;
  ser_mfcc_config with = mfcc39, without = timnet;
  test_each_device(check_batches, 2, &with);
  test_each_device(check_batches, 3, &without);
}

static void test_nothing(void **state) {
  (void)state;
  ser_error err = {0};
  ser_device *device;
  ser_mfcc *mfcc;
  float *features;
  int64_t offset[1] = {-1};
  ASSERT_OK(ser_device_open(&device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &err), err);
  ser_mfcc_config bad = mfcc39;
  bad.n_fft = 1000;
  assert_int_equal(ser_mfcc_create(&mfcc, device, &bad, 1, 1, true, &err), SER_USAGE);
  assert_null(mfcc);
  assert_non_null(strstr(err.text, "n_fft"));
  ASSERT_OK(ser_mfcc_create(&mfcc, device, &mfcc39, 1, 1, true, &err), err);
  ASSERT_OK(ser_mfcc_compute(mfcc, &features, offset, NULL, NULL, 0, &err), err);
  assert_int_equal(offset[0], 0);
  free(features);
  ser_mfcc_free(mfcc);
  ser_device_close(device);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_json),          cmocka_unit_test(test_json_refused), cmocka_unit_test(test_sizes),
      cmocka_unit_test(test_cache_columns), cmocka_unit_test(test_fit),          cmocka_unit_test(test_batches),
      cmocka_unit_test(test_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
