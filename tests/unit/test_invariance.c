/* A clip's features and answers, byte for byte, do not depend on the batch: first, middle and last of 64 clips of
 * unlike length, and alone. On a CUDA device, too: all kernels are ours but for the FFT, whose one plan of a whole slab
 * serves every batch. */
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
  for (size_t i = 0; i < CLIPS; i++) free(c.samples[i]);
  test_folder_remove(folder);
  free(model);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_clip_does_not_see_its_batch)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
