/* Several features in one pass over the recordings: each recording is read once; what each cache gets is what it gets
 * alone, whatever the other one lacks, and what one feature cannot use the other may. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/apart.h"
#include "support/encoder.h"
#include "support/extraction.h"

typedef struct {
  test_scene s;
  ser_encoder_weights weights;
  ser_embed_config embed;
} scene;

static scene make(int64_t clips) {
  scene c = {.s = test_scene_make(2)};
  ser_error err = {0};
  char *path = test_encoder_path("wav2vec2_base", "");
  ASSERT_OK(ser_encoder_weights_open(&c.weights, path, &err), err);
  ASSERT_OK(ser_encoder_weights_hash(&c.weights, &err), err);
  ASSERT_OK(ser_config_set(&c.s.config, "wav2vec2.layers=all", &err), err);
  ASSERT_OK(ser_embed_configure(&c.embed, &c.weights, &c.s.config, &err), err);
  test_scene_add_clips(&c.s, (int)clips);
  free(path);
  return c;
}

static void end(scene *c) {
  ser_encoder_weights_close(&c->weights);
  test_scene_free(&c->s);
}

/* Either feature, or both, into a cache of this name. */
static void extract(scene *c, ser_extract_summary summaries[2], const char *cache, bool mfcc, bool embed, int jobs) {
  ser_extract_feature features[2];
  size_t count = 0;
  ser_error err = {0};
  char *folder = ser_format("%s/%s", c->s.folder, cache);
  if (mfcc) features[count++] = (ser_extract_feature){.kind = SER_MFCC39, .mfcc = &c->s.config.features.mfcc39};
  if (embed)
    features[count++] = (ser_extract_feature){.kind = SER_WAV2VEC2, .embed = &c->embed, .weights = &c->weights};
  ser_extract_options options = {features, count, folder, jobs, c->s.device, false};
  ASSERT_OK(ser_extract(summaries, &c->s.manifest, &options, &err), err);
  for (size_t i = 0; i < count; i++) free(summaries[i].refusals.data);
  free(folder);
}

/* What a cache of this name holds of a feature, for the rows that have it. */
static size_t read(scene *c, const char *name, bool embed, int64_t **offset, float **features) {
  ser_cache *cache;
  ser_error err = {0};
  ser_hash *keys = ser_alloc(c->s.manifest.count * sizeof *keys);
  size_t count = 0;
  char *folder = ser_format("%s/%s", c->s.folder, name);
  if (embed)
    ASSERT_OK(ser_embed_cache_open(&cache, folder, &c->embed, false, &err), err);
  else
    ASSERT_OK(ser_feature_cache_open(&cache, folder, SER_MFCC39, &c->s.config.features.mfcc39, false, &err), err);
  for (size_t i = 0; i < c->s.manifest.count; i++)
    if (ser_cache_find(cache, &c->s.manifest.rows[i].hash, NULL) == SER_ENTRY_OK)
      keys[count++] = c->s.manifest.rows[i].hash;
  ASSERT_OK(ser_cache_read(cache, offset, features, keys, count, &err), err);
  ASSERT_OK(ser_cache_close(cache, &err), err);
  free(keys);
  free(folder);
  return count;
}

static void same(scene *c, const char *one, const char *other, bool embed, size_t clips) {
  int64_t *offset[2], columns = embed ? 32 : 39;
  float *features[2];
  assert_int_equal(read(c, one, embed, &offset[0], &features[0]), clips);
  assert_int_equal(read(c, other, embed, &offset[1], &features[1]), clips);
  assert_memory_equal(offset[0], offset[1], (clips + 1) * sizeof **offset);
  if (embed) assert_int_equal(offset[0][clips], 4 * clips);
  assert_memory_equal(features[0], features[1], (size_t)(offset[0][clips] * columns) * sizeof **features);
  for (int i = 0; i < 2; i++) {
    free(offset[i]);
    free(features[i]);
  }
}

static void check_together(scene *c) {
  ser_extract_summary is[2];
  test_scene_add_noise(&c->s, "short.wav", 91, 1600, 16000); /* enough for a frame of the encoder's, not for deltas */
  test_scene_add_noise(&c->s, "shorter.wav", 92, 300, 16000);
  extract(c, is, "both", true, true, 3);
  assert_true(is[0].wanted == 42 && is[0].computed == 40 && is[0].too_short == 2);
  assert_true(is[1].wanted == 42 && is[1].computed == 41 && is[1].too_short == 1);
  extract(c, is, "mfcc", true, false, 1);
  extract(c, is, "embed", false, true, 1);
  same(c, "both", "mfcc", false, 40);
  same(c, "both", "embed", true, 41);
  /* What one cache has is not computed again for the other's sake. */
  extract(c, is, "embed", true, true, 2);
  assert_true(is[0].computed == 40 && is[0].present == 0);
  assert_true(is[1].computed == 0 && is[1].present == 41 && is[1].too_short == 1);
  same(c, "both", "embed", false, 40);
  extract(c, is, "both", true, true, 2);
  assert_true(!is[0].computed && !is[1].computed);
}

static void test_together(void **state) {
  (void)state;
  scene c = make(40);
  check_together(&c);
  end(&c);
}

/* With rooms of pinned memory, samples of both features in one part of it, and batches under way. */
static void test_together_apart(void **state) {
  (void)state;
  scene c = make(40);
  test_device_apart(c.s.device);
  check_together(&c);
  end(&c);
}

/* One device, several configurations of embeddings in one cache: each has its folder. */
static void test_configurations(void **state) {
  (void)state;
  scene c = make(6);
  ser_extract_summary is[2];
  extract(&c, is, "cache", false, true, 2);
  assert_int_equal(is[0].computed, 6);
  c.embed.layers = 8;
  extract(&c, is, "cache", false, true, 2);
  assert_int_equal(is[0].computed, 6);
  c.embed.pool = SER_EMBED_FRAMES;
  extract(&c, is, "cache", false, true, 2);
  assert_int_equal(is[0].computed, 6);
  int64_t *offset, frames = 0;
  float *features;
  assert_int_equal(read(&c, "cache", true, &offset, &features), 6);
  for (size_t i = 0; i < 6; i++) {
    ser_audio_source source = {.path = c.s.manifest.rows[i].path};
    ser_clip clip;
    ser_reason reason;
    ser_error err = {0};
    ASSERT_OK(ser_audio_decode(&clip, &reason, NULL, &source, 16000, NULL, NULL, &err), err);
    frames += ser_encoder_frames(&c.weights.config, clip.count);
    ser_clip_free(&clip);
  }
  assert_int_equal(offset[6], frames);
  free(offset);
  free(features);
  end(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_together), cmocka_unit_test(test_together_apart),
                                     cmocka_unit_test(test_configurations)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
