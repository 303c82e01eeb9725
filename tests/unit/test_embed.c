/* Embeddings in batches: every pooling and choice of layers, batches that are split, clips longer than a batch and cut
 * into windows, too short ones, integers as samples; a clip's numbers are those that the encoder gives of it alone. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "features/embed.h"
#include "support/apart.h"
#include "support/encoder.h"

static const char *const model = "wav2vec2_large";

static ser_encoder_weights open_weights(void) {
  ser_error err = {0};
  ser_encoder_weights weights;
  char *path = test_encoder_path(model, "");
  ASSERT_OK(ser_encoder_weights_open(&weights, path, &err), err);
  ASSERT_OK(ser_encoder_weights_hash(&weights, &err), err);
  free(path);
  return weights;
}

/* ---- configurations -----------------------------------------------------------------------------------------------
 */

static ser_status configure(ser_embed_config *embed, const ser_encoder_weights *weights, const char *const *sets,
                            ser_error *err) {
  ser_config config;
  ser_config_init(&config);
  ser_status status = SER_OK;
  for (; *sets && status == SER_OK; sets++) status = ser_config_set(&config, *sets, err);
  if (status == SER_OK) status = ser_config_check(&config, err);
  if (status == SER_OK) status = ser_embed_configure(embed, weights, &config, err);
  ser_config_free(&config);
  return status;
}

static void test_configurations(void **state) {
  (void)state;
  ser_encoder_weights weights = open_weights();
  ser_error err = {0};
  ser_embed_config embed, again;
  ASSERT_OK(configure(&embed, &weights, (const char *const[]){NULL}, &err), err);
  assert_true(embed.layers == 8 && embed.pool == SER_EMBED_MEAN && embed.normalize && embed.rate == 16000);
  assert_int_equal(ser_embed_columns(&embed), 40);
  ASSERT_OK(configure(&embed, &weights,
                      (const char *const[]){"wav2vec2.layers=all", "wav2vec2.pool=mean+std", "wav2vec2.normalize=false",
                                            NULL},
                      &err),
            err);
  assert_true(embed.layers == 15 && embed.pool == SER_EMBED_MEAN_STD && !embed.normalize);
  assert_true(ser_embed_columns(&embed) == 80 && ser_embed_layers(&embed) == 4);
  char *json = ser_embed_json(&embed), hex[SER_HASH_HEX];
  ser_hash_hex(hex, &weights.hash);
  char *want = ser_format("{\"encoder\":\"%s\",\"encoder_layers\":3,\"feature\":\"wav2vec2\",\"hidden\":40,\"layers\":"
                          "[0,1,2,3],\"normalize\":false,\"pool\":\"mean+std\",\"random_weights\":false,\"rate\":16000,"
                          "\"version\":1}",
                          hex);
  assert_string_equal(json, want);
  ASSERT_OK(ser_embed_parse(&again, json, &err), err);
  assert_memory_equal(&again, &embed, sizeof again);
  free(want);
  ASSERT_OK(configure(&embed, &weights, (const char *const[]){"wav2vec2.layers=0", NULL}, &err), err);
  assert_int_equal(embed.layers, 1);
  static const char *const bad[][2] = {{"wav2vec2.layers=4", "has 3 layers"},
                                       {"wav2vec2.layers=first", "must be last, all or the number"},
                                       {"wav2vec2.layers=-1", "must be last, all or the number"},
                                       {"wav2vec2.layers=1x", "must be last, all or the number"},
                                       {"wav2vec2.layers=", "is empty"},
                                       {"wav2vec2.pool=max", "wav2vec2.pool"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    err = (ser_error){0};
    assert_int_equal(configure(&embed, &weights, (const char *const[]){bad[i][0], NULL}, &err), SER_USAGE);
    if (!strstr(err.text, bad[i][1])) fail_msg("%s: \"%s\"", bad[i][0], err.text);
  }
  /* Any key that lacks or says what it cannot. */
  static const char *const cuts[][2] = {{"\"feature\":\"wav2vec2\"", "\"feature\":\"mfcc39\""},
                                        {"[0,1,2,3]", "[]"},
                                        {"[0,1,2,3]", "[4]"},
                                        {"\"hidden\":40", "\"hidden\":0"},
                                        {"mean+std", "most"},
                                        {"\"version\":1", "\"version\":2"},
                                        {"\"normalize\":false", "\"normalize\":0"},
                                        {"\"encoder\":\"", "\"encoder\":\"x"}};
  for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
    const char *at = strstr(json, cuts[i][0]);
    char *other = ser_format("%.*s%s%s", (int)(at - json), json, cuts[i][1], at + strlen(cuts[i][0]));
    assert_int_equal(ser_embed_parse(&again, other, &err), SER_FAILED);
    free(other);
  }
  assert_int_equal(ser_embed_parse(&again, "{", &err), SER_FAILED);
  free(json);
  ser_encoder_weights_close(&weights);
}

/* ---- batches ------------------------------------------------------------------------------------------------------
 */

typedef struct {
  ser_embed_pool pool;
  uint64_t layers;
  ser_embed_room room;
} embed_case;

typedef struct {
  test_encoder rig;
  ser_embedder *embedder;
  const embed_case *k;
  double most;
  int64_t checked;
  bool integers;
} scene;

/* The encoder's own numbers of one clip, as the embedder is to give them. */
static float *encode_alone(const scene *s, int64_t clip, int64_t *count) {
  const embed_case *k = s->k;
  int64_t hidden = ser_encoder_settings(s->rig.encoder)->hidden_size, columns = hidden;
  test_encoded one = test_encode(&s->rig, &clip, 1, k->layers);
  if (k->pool == SER_EMBED_MEAN_STD) columns = 2 * hidden;
  if (k->pool == SER_EMBED_FRAMES) columns = (one.rows - 1) * hidden;
  float *to = ser_alloc((size_t)(one.layers * columns) * sizeof *to);
  for (int64_t layer = 0; layer < one.layers; layer++)
    memcpy(to + layer * columns,
           k->pool == SER_EMBED_FRAMES ? one.hidden + layer * one.rows * hidden : one.pooled + layer * 2 * hidden,
           (size_t)columns * sizeof *to);
  *count = one.layers * columns;
  test_encoded_free(&one);
  return to;
}

static void collect(scene *s, const int64_t *which, int64_t count) {
  const float *features;
  const int64_t *offset;
  ser_error err = {0};
  ASSERT_OK(ser_embedder_collect(s->embedder, &features, &offset, &err), err);
  int64_t columns = (s->k->pool == SER_EMBED_MEAN_STD ? 2 : 1) * ser_encoder_settings(s->rig.encoder)->hidden_size;
  for (int64_t i = 0; i < count; i++) {
    int64_t numbers;
    if (which[i] < 0) {
      assert_int_equal(offset[i + 1], offset[i]);
      continue;
    }
    float *want = encode_alone(s, which[i], &numbers);
    assert_int_equal((offset[i + 1] - offset[i]) * columns, numbers);
    test_same_alone(features + offset[i] * columns, want, (size_t)numbers, s->most);
    free(want);
    s->checked++;
  }
}

/* As many batches under way as the embedder takes; -1 is a clip too short for a frame. */
static void run_batches(scene *s) {
  static const int64_t batches[][3] = {{0, 1, 2}, {3, -1, 4}, {-1, -1, -1}, {5, 7, 0}, {1, 1, 1}, {2, 4, 7}};
  enum { COUNT = sizeof batches / sizeof *batches };
  static const float short_clip[399];
  int collected = 0, sent = 0;
  ser_error err = {0};
  while (collected < COUNT) {
    if (sent < COUNT && !ser_embedder_full(s->embedder)) {
      ser_signal signals[3];
      for (int i = 0; i < 3; i++) {
        int64_t clip = batches[sent][i];
        signals[i] = clip < 0 ? (ser_signal){.samples = short_clip, .count = 399}
                              : (ser_signal){.samples = s->rig.all->samples + s->rig.all->start[clip],
                                             .count = s->rig.all->length[clip]};
      }
      ASSERT_OK(ser_embedder_submit(s->embedder, signals, 3, &err), err);
      sent++;
    } else {
      collect(s, batches[collected++], 3);
    }
  }
  assert_true(ser_embedder_idle(s->embedder));
}

/* The longest clip does not fit a batch. */
static void run_alone(scene *s) {
  static const int64_t longest = 6;
  ser_signal signal = {.samples = s->rig.all->samples + s->rig.all->start[longest],
                       .count = s->rig.all->length[longest]};
  ser_error err = {0};
  assert_true(ser_embedder_rows(s->embedder, signal.count) > ser_embedder_max_rows(s->embedder));
  for (int i = 0; i < 2; i++) {
    ASSERT_OK(ser_embedder_submit(s->embedder, &signal, 1, &err), err);
    collect(s, &longest, 1);
  }
}

static void with_weights(ser_device *device, ser_stream *stream, const embed_case *k, void (*body)(scene *)) {
  static test_clips all;
  if (!all.samples) all = test_clips_read();
  ser_encoder_weights weights = open_weights();
  ser_embed_config config;
  ser_error err = {0};
  scene s = {.rig = {device, stream, NULL, &all}, .k = k, .most = test_on_cuda() && !test_rows_exact() ? 1e-5 : 0};
  ASSERT_OK(configure(&config, &weights, (const char *const[]){NULL}, &err), err);
  config.layers = k->layers;
  config.pool = k->pool;
  ASSERT_OK(ser_encoder_create(&s.rig.encoder, device, stream, &weights, config.normalize, &err), err);
  ASSERT_OK(ser_encoder_room(s.rig.encoder, stream, 1, 128, &err), err);
  ASSERT_OK(ser_embedder_create(&s.embedder, device, &weights, &config, &k->room, &err), err);
  ser_encoder_weights_close(&weights);
  body(&s);
  ser_embedder_free(s.embedder);
  ser_encoder_free(s.rig.encoder);
}

/* Samples as 16-bit integers, where they cross a bus. */
static void run_integers(scene *s) {
  static const int64_t which[] = {0, 2, 3};
  ser_device_properties properties;
  ser_signal signals[3];
  ser_error err = {0};
  s->rig.device->rt->properties(s->rig.device, &properties);
  if (properties.host_memory) return;
  for (int i = 0; i < 3; i++) {
    const float *from = s->rig.all->samples + s->rig.all->start[which[i]];
    int64_t count = s->rig.all->length[which[i]];
    int16_t *samples = ser_alloc((size_t)count * sizeof *samples);
    for (int64_t j = 0; j < count; j++) samples[j] = (int16_t)(from[j] * 32768);
    signals[i] = (ser_signal){.samples = samples, .int16 = true, .count = count};
  }
  ASSERT_OK(ser_embedder_submit(s->embedder, signals, 3, &err), err);
  for (int i = 0; i < 3; i++) free((void *)(uintptr_t)signals[i].samples);
  collect(s, which, 3);
  s->checked -= 3;
  s->integers = true;
}

static void run_all(scene *s) {
  run_batches(s);
  run_alone(s);
  run_integers(s);
  run_batches(s);
  assert_int_equal(s->checked, 2 * 14 + 2);
  assert_int_equal(ser_embedder_work(s->embedder).batches, s->integers ? 15 : 14);
}

static void each_case(ser_device *device, ser_stream *stream, void *context) {
  (void)context;
  static const embed_case cases[] = {{SER_EMBED_MEAN, 8, {3, 60, 0}},
                                     {SER_EMBED_MEAN_STD, 10, {3, 60, 0}},
                                     {SER_EMBED_FRAMES, 15, {3, 60, 0}},
                                     {SER_EMBED_FRAMES, 1, {3, 60, 0}}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) with_weights(device, stream, &cases[i], run_all);
}

static void test_batches(void **state) {
  (void)state;
  test_each_device(each_case, 2, NULL);
}

static void far_away(ser_device *device, ser_stream *stream, void *context) {
  ser_device_properties properties;
  device->rt->properties(device, &properties);
  if (properties.host_memory) test_device_apart(device);
  each_case(device, stream, context);
}

static void test_batches_apart(void **state) {
  (void)state;
  test_each_device(far_away, 2, NULL);
}

/* ---- windows ------------------------------------------------------------------------------------------------------
 */

static void run_windows(scene *s) {
  const ser_encoder_config *c = ser_encoder_settings(s->rig.encoder);
  int64_t whole = s->rig.all->length[6], frames = ser_encoder_frames(c, whole), hidden = c->hidden_size;
  ser_signal signal = {.samples = s->rig.all->samples + s->rig.all->start[6], .count = whole};
  const float *features;
  const int64_t *offset;
  ser_error err = {0};
  ASSERT_OK(ser_embedder_submit(s->embedder, &signal, 1, &err), err);
  ASSERT_OK(ser_embedder_collect(s->embedder, &features, &offset, &err), err);
  bool pooled = s->k->pool != SER_EMBED_FRAMES;
  assert_int_equal(offset[1], pooled ? 2 : 2 * frames);
  /* 68 frames in windows of at most 25: three of 23, 23 and 22, each as a clip of its own. */
  assert_int_equal(frames, 68);
  double *mean = ser_alloc_zero((size_t)(4 * hidden), sizeof *mean), *squares = mean + 2 * hidden;
  for (int64_t first = 0; first < frames; first += 23) {
    int64_t count = frames - first < 23 ? frames - first : 23, which = 0;
    test_clips cut = {.samples = s->rig.all->samples + s->rig.all->start[6] + first * 320, .count = 1};
    cut.length[0] = first + count == frames ? whole - first * 320 : (count - 1) * 320 + 400;
    test_encoder one = {s->rig.device, s->rig.stream, s->rig.encoder, &cut};
    test_encoded want = test_encode(&one, &which, 1, s->k->layers);
    assert_int_equal(want.rows, count + 1);
    for (int64_t layer = 0; layer < 2; layer++) {
      const float *x = want.hidden + layer * want.rows * hidden;
      if (!pooled) test_same_alone(features + (layer * frames + first) * hidden, x, (size_t)(count * hidden), s->most);
      for (int64_t i = 0; i < count * hidden; i++) {
        mean[layer * hidden + i % hidden] += (double)x[i] / (double)frames;
        squares[layer * hidden + i % hidden] += (double)x[i] * (double)x[i] / (double)frames;
      }
    }
    test_encoded_free(&want);
  }
  for (int64_t i = 0; i < 2 * hidden && pooled; i++) {
    const float *got = features + i / hidden * 2 * hidden + i % hidden;
    assert_true(fabs((double)got[0] - mean[i]) < 1e-5);
    assert_true(fabs((double)got[hidden] - sqrt(squares[i] - mean[i] * mean[i])) < 1e-5);
  }
  free(mean);
}

static void each_window(ser_device *device, ser_stream *stream, void *context) {
  (void)context;
  static const embed_case cases[] = {{SER_EMBED_FRAMES, 9, {2, 20, 25}}, {SER_EMBED_MEAN_STD, 9, {2, 20, 25}}};
  for (int i = 0; i < 2; i++) with_weights(device, stream, &cases[i], run_windows);
}

static void test_windows(void **state) {
  (void)state;
  test_each_device(each_window, 2, NULL);
}

/* ---- a device that is short of memory -----------------------------------------------------------------------------
 */

static ser_runtime runtime;
static void *(*real_alloc)(ser_device *, size_t, ser_error *);
static void (*real_properties)(const ser_device *, ser_device_properties *);
static int skipped, refusals; /* requests: first those that are let through, then those that are not */
static uint64_t told_free;    /* 0: the truth */

static void *refusing_alloc(ser_device *device, size_t bytes, ser_error *err) {
  if (skipped > 0 || refusals <= 0) {
    skipped--;
    return real_alloc(device, bytes, err);
  }
  refusals--;
  ser_fail_memory(err, SER_LACKS_DEVICE_MEMORY, "%zu bytes asked for", bytes);
  return NULL;
}

static void tell_free(const ser_device *device, ser_device_properties *out) {
  real_properties(device, out);
  if (told_free) out->memory_free = told_free;
}

/* Batches become smaller, for themselves and for a clip that is longer than one; the numbers stay. */
static void run_short(scene *s) {
  assert_int_equal(ser_embedder_max_clips(s->embedder), 3);
  assert_int_equal(ser_embedder_max_rows(s->embedder), 66);
  run_batches(s);
  skipped = 1; /* half again as much is refused, then what is needed */
  refusals = 1;
  run_alone(s);
  assert_int_equal(ser_embedder_max_rows(s->embedder), 66);
  assert_int_equal(s->checked, 14 + 2);
}

static void run_shorter(scene *s) {
  static const int64_t longest = 6;
  ser_signal signal = {.samples = s->rig.all->samples + s->rig.all->start[longest],
                       .count = s->rig.all->length[longest]};
  ser_error err = {0};
  skipped = 0;
  refusals = 2;
  ASSERT_OK(ser_embedder_submit(s->embedder, &signal, 1, &err), err);
  collect(s, &longest, 1);
  assert_int_equal(ser_embedder_max_rows(s->embedder), 64); /* given up, as far as goes */
  assert_int_equal(ser_embedder_max_clips(s->embedder), 1);
  refusals = 1 << 30;
  ASSERT_OK(ser_embedder_submit(s->embedder, &signal, 1, &err), err); /* there is room for it now */
  refusals = 0;
  collect(s, &longest, 1);
}

static void run_told(scene *s) {
  assert_true(ser_embedder_max_clips(s->embedder) < 64 && ser_embedder_max_rows(s->embedder) < 4096);
  assert_true(ser_embedder_max_rows(s->embedder) >= 64);
}

static void short_of_memory(ser_device *device, ser_stream *stream, void *context) {
  (void)context;
  ser_device_properties properties;
  device->rt->properties(device, &properties);
  if (properties.host_memory) test_device_apart(device);
  const ser_runtime *before = device->rt;
  runtime = *before;
  real_alloc = runtime.alloc;
  real_properties = runtime.properties;
  runtime.alloc = refusing_alloc;
  runtime.properties = tell_free;
  device->rt = &runtime;
  /* Weights and their staging for the scene's own encoder, its room; the embedder's; then its room is refused. */
  skipped = 5;
  refusals = 1;
  with_weights(device, stream, &(embed_case){SER_EMBED_FRAMES, 9, {6, 132, 0}}, run_short);
  skipped = refusals = 0;
  with_weights(device, stream, &(embed_case){SER_EMBED_MEAN, 9, {2, 65, 0}}, run_shorter);
  skipped = refusals = 0;
  told_free = 2 << 20; /* nobody refuses, but half of it is less than full batches take */
  with_weights(device, stream, &(embed_case){SER_EMBED_MEAN, 9, {64, 4096, 0}}, run_told);
  told_free = 0;
  device->rt = before;
}

static void test_short_of_memory(void **state) {
  (void)state;
  test_each_device(short_of_memory, 2, NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_configurations), cmocka_unit_test(test_batches),
                                     cmocka_unit_test(test_batches_apart), cmocka_unit_test(test_windows),
                                     cmocka_unit_test(test_short_of_memory)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
