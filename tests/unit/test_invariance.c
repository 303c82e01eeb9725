/* A clip's features and answers, byte for byte, do not depend on the batch: first, middle and last of 64 clips of
 * unlike length, and alone; of full batches that are enqueued and of those that are graphs; through kernels of ours
 * and, with a wide model, through the libraries' products. On a CUDA device, too: the FFT has one plan of a whole slab
 * for every batch, and that rows of products are exact the software device is asked for. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "features/features.h"
#include "report/score.h"
#include "support/harness.h"
#include "support/model.h"

enum { CLIPS = 64, RATE = 22050, CLASSES = 6 };
static const ser_mfcc_config mfcc39 = {RATE, 2048, 512, 128, 13, 162, 0, true};

typedef struct {
  float *samples[CLIPS];
  int64_t counts[CLIPS];
  const char *model;
} clips;

/* Features of the listed clips in one batch, end to end. */
static float *features_of(ser_device *device, const clips *c, const size_t *list, size_t count, int64_t *offset) {
  ser_error err = {0};
  ser_mfcc *mfcc;
  const float *samples[CLIPS];
  int64_t counts[CLIPS];
  float *features;
  for (size_t i = 0; i < count; i++) {
    samples[i] = c->samples[list[i]];
    counts[i] = c->counts[list[i]];
  }
  ASSERT_OK(ser_mfcc_create(&mfcc, device, &mfcc39, CLIPS, 8192, true, &err), err);
  ASSERT_OK(ser_mfcc_compute(mfcc, &features, offset, samples, counts, count, &err), err);
  ser_mfcc_free(mfcc);
  return features;
}

static void answers_of(ser_device *device, const clips *c, float *probabilities, const float *features,
                       const int64_t *offset, size_t count) {
  ser_error err = {0};
  ser_scorer *scorer;
  ser_score_input windows[CLIPS];
  int64_t columns = ser_feature_columns(&mfcc39);
  for (size_t i = 0; i < count; i++)
    windows[i] = (ser_score_input){features + offset[i] * columns, offset[i + 1] - offset[i]};
  ASSERT_OK(ser_scorer_create(&scorer, device, c->model, &err), err);
  ASSERT_OK(ser_scorer_run(scorer, probabilities, windows, count, &err), err);
  ser_scorer_free(scorer);
}

static void one_device(ser_device *device, ser_stream *stream, void *context) {
  const clips *c = context;
  size_t order[CLIPS];
  int64_t columns = ser_feature_columns(&mfcc39), alone_at[2], at[CLIPS + 1];
  float own[CLASSES], answers[CLIPS * CLASSES];
  const size_t clip = 17, places[] = {0, CLIPS / 2, CLIPS - 1};
  (void)stream;
  float *alone = features_of(device, c, &clip, 1, alone_at);
  size_t bytes = (size_t)(alone_at[1] * columns) * sizeof(float);
  answers_of(device, c, own, alone, alone_at, 1);
  for (size_t p = 0; p < 3; p++) {
    for (size_t i = 0; i < CLIPS; i++) order[i] = (i + CLIPS + clip - places[p]) % CLIPS;
    assert_int_equal(order[places[p]], clip);
    float *all = features_of(device, c, order, CLIPS, at);
    assert_int_equal(at[places[p] + 1] - at[places[p]], alone_at[1]);
    if (memcmp(all + at[places[p]] * columns, alone, bytes)) fail_msg("other features at place %zu", places[p]);
    answers_of(device, c, answers, all, at, CLIPS);
    if (memcmp(answers + places[p] * CLASSES, own, sizeof own)) fail_msg("other answers at place %zu", places[p]);
    free(all);
  }
  free(alone);
}

/* ---- full batches ---- */

enum { BATCHES = 6, WIDE = 264 /* more than the dense layers of ours take */, WIDE_FRAMES = 8, MOST = 64 };

static const ser_runtime *told; /* the device's own */
static uint64_t room;           /* the free memory that is told */

static void tell_room(const ser_device *device, ser_device_properties *out) {
  told->properties(device, out);
  if (out->memory_free > room) out->memory_free = room;
}

/* A scorer of at most MOST windows a batch, where the device takes so many for want of memory. */
static ser_scorer *small_scorer(ser_device *device, const char *model) {
  ser_error err = {0};
  ser_scorer *scorer = NULL;
  ser_runtime runtime = *device->rt;
  told = device->rt;
  runtime.properties = tell_room;
  device->rt = &runtime;
  for (room = 1 << 30; !scorer || ser_scorer_batch(scorer) > MOST; room /= 2) {
    ser_scorer_free(scorer);
    ASSERT_OK(ser_scorer_create(&scorer, device, model, &err), err);
  }
  device->rt = told;
  return scorer;
}

static ser_device_counters counters_of(ser_device *device) {
  ser_device_counters counters;
  device->rt->counters(device, &counters);
  return counters;
}

/* The clip first, in the middle and last of full batches, among others each time. */
static void full_batches(ser_device *device, const ser_score_input *inputs, const char *model, bool by_library) {
  const size_t clip = 17;
  ser_error err = {0};
  ser_device_properties is;
  float own[CLASSES], answers[BATCHES * MOST * CLASSES];
  ser_score_input windows[BATCHES * MOST];
  size_t places[BATCHES];
  device->rt->properties(device, &is);
  ser_scorer *scorer = small_scorer(device, model);
  size_t n = ser_scorer_batch(scorer);
  for (size_t k = 0; k < BATCHES; k++) {
    places[k] = k * n + (k % 3 == 0 ? 0 : k % 3 == 1 ? n / 2 : n - 1);
    for (size_t i = 0; i < n; i++) windows[k * n + i] = inputs[(i * 7 + k) % CLIPS];
    windows[places[k]] = inputs[clip];
  }
  ser_device_counters start = counters_of(device);
  ASSERT_OK(ser_scorer_run(scorer, own, &inputs[clip], 1, &err), err);
  ASSERT_OK(ser_scorer_run(scorer, answers, windows, n, &err), err);
  ser_device_counters before = counters_of(device);
  const double most = by_library && test_on_cuda() && !test_rows_exact() ? 1e-5 : 0; /* what libraries promise */
  test_same_alone(answers, own, CLASSES, most);
  ASSERT_OK(ser_scorer_run(scorer, answers, windows, BATCHES * n, &err), err);
  for (size_t k = 0; k < BATCHES; k++) test_same_alone(answers + places[k] * CLASSES, own, CLASSES, most);
  assert_int_equal(counters_of(device).allocations - before.allocations, is.graphs ? 2 : 0); /* a slot's graph each */
  if (!is.host_memory) assert_int_equal(before.calls > start.calls, by_library);
  ser_scorer_free(scorer);
}

typedef struct {
  const clips *clips;
  const char *wide;
} two_models;

static void one_device_full(ser_device *device, ser_stream *stream, void *context) {
  const two_models *m = context;
  int64_t at[CLIPS + 1], columns = ser_feature_columns(&mfcc39);
  size_t order[CLIPS];
  ser_score_input inputs[CLIPS];
  (void)stream;
  for (size_t i = 0; i < CLIPS; i++) order[i] = i;
  float *all = features_of(device, m->clips, order, CLIPS, at);
  for (size_t i = 0; i < CLIPS; i++) inputs[i] = (ser_score_input){all + at[i] * columns, at[i + 1] - at[i]};
  full_batches(device, inputs, m->clips->model, false);
  full_batches(device, inputs, m->wide, true);
  free(all);
}

static void a_clip_does_not_see_its_batch(void **state) {
  (void)state;
  char *folder = test_folder_make("invariance"), *model = ser_format("%s/model.safetensors", folder);
  test_model_write(model, SER_MFCC39, CLASSES, 3);
  clips c = {.model = model};
  for (size_t i = 0; i < CLIPS; i++) {
    c.counts[i] = RATE / 4 + (int64_t)(i * 997 % 64) * 500;
    c.samples[i] = test_speech(i, c.counts[i], RATE);
  }
  test_each_device(one_device, 2, &c);
  char *wide = ser_format("%s/wide.safetensors", folder);
  test_model_write_wide(wide, CLASSES, 4, WIDE, WIDE_FRAMES);
  two_models models = {&c, wide};
  test_each_device(one_device_full, 2, &models);
  free(wide);
  for (size_t i = 0; i < CLIPS; i++) free(c.samples[i]);
  test_folder_remove(folder);
  free(model);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_clip_does_not_see_its_batch)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
