/* The model file: what is saved is loaded, with the same answers and the same bytes; what is amiss is named. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/version.h"
#include "features/features.h"
#include "model/model.h"
#include "model/safetensors.h"
#include "support/harness.h"

static const ser_model_config small = {SER_BRANCH_TIMNET, 2, 6, 2, 39, 30, 6, 0.1, false, SER_POOL_REAL};

typedef struct {
  char *folder, *path;
  ser_device *device;
  ser_stream *stream;
  ser_model *model;
  ser_model_info info;
} rig;

static void make(rig *r) {
  ser_error err = {0};
  ser_config defaults;
  memset(r, 0, sizeof *r);
  r->folder = test_folder_make("model");
  r->path = ser_path_join(r->folder, "model.safetensors");
  ASSERT_OK(ser_device_open(&r->device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &err), err);
  ASSERT_OK(r->device->rt->stream_create(r->device, &r->stream, &err), err);
  ASSERT_OK(ser_model_create(&r->model, r->device, &small, &err), err);
  ASSERT_OK(ser_model_initialise(r->model, r->stream, 3, &err), err);
  ser_config_init(&defaults);
  r->info = (ser_model_info){.model = small,
                             .feature = SER_MFCC39,
                             .mfcc = defaults.features.mfcc39,
                             .window = 1.0 / 3,
                             .hop = 0.25,
                             .seed = 3,
                             .fold = 1,
                             .epoch = 12,
                             .chosen_by = "validation UAR",
                             .manifest_hash = "00112233445566778899aabbccddeeff",
                             .split_hash = "ffeeddccbbaa99887766554433221100"};
  ser_config_free(&defaults);
  r->info.mfcc.frames = small.frames;
  r->info.mean = ser_alloc(39 * sizeof(float));
  r->info.inv_std = ser_alloc(39 * sizeof(float));
  for (int i = 0; i < 39; i++) {
    r->info.mean[i] = test_random(1, (uint64_t)i) * 100;
    r->info.inv_std[i] = 1.5f + test_random(2, (uint64_t)i);
  }
  for (int i = 0; i < SER_EMOTIONS; i++) r->info.emotions[i] = i;
  ASSERT_OK(ser_model_save(r->model, r->stream, &r->info, r->path, &err), err);
}

static void end(rig *r) {
  ser_model_info_free(&r->info);
  ser_model_free(r->model);
  r->device->rt->stream_destroy(r->stream);
  ser_device_close(r->device);
  free(r->path);
  test_folder_remove(r->folder);
}

static void assert_same_model(const ser_model_config *a, const ser_model_config *b) {
  assert_int_equal(a->branch, b->branch);
  assert_int_equal(a->blocks, b->blocks);
  assert_int_equal(a->filters, b->filters);
  assert_int_equal(a->kernel, b->kernel);
  assert_int_equal(a->channels, b->channels);
  assert_int_equal(a->frames, b->frames);
  assert_int_equal(a->classes, b->classes);
  assert_true(a->dropout == b->dropout);
  assert_int_equal(a->residual, b->residual);
  assert_int_equal(a->pool, b->pool);
}

static void test_round_trip(void **state) {
  ser_error err = {0};
  ser_model *loaded;
  ser_model_info info;
  rig r;
  (void)state;
  make(&r);
  ASSERT_OK(ser_model_load(&loaded, &info, r.device, r.path, &err), err);
  assert_same_model(&info.model, &small);
  char *got = ser_feature_json(info.feature, &info.mfcc), *want = ser_feature_json(r.info.feature, &r.info.mfcc);
  assert_string_equal(got, want);
  assert_int_equal(info.mfcc.frames, r.info.mfcc.frames);
  free(got);
  free(want);
  assert_memory_equal(info.mean, r.info.mean, 39 * sizeof(float));
  assert_memory_equal(info.inv_std, r.info.inv_std, 39 * sizeof(float));
  assert_memory_equal(info.emotions, r.info.emotions, 6 * sizeof(int));
  assert_true(info.window == r.info.window && info.hop == r.info.hop);
  assert_string_equal(info.manifest_hash, r.info.manifest_hash);
  assert_string_equal(info.split_hash, r.info.split_hash);
  assert_string_equal(info.chosen_by, "validation UAR");
  assert_string_equal(info.version, SER_VERSION);
  assert_int_equal(info.seed, 3);
  assert_int_equal(info.fold, 1);
  assert_int_equal(info.epoch, 12);
  size_t size = (size_t)ser_model_flat_count(loaded) * sizeof(float);
  float *before = ser_alloc(size), *after = ser_alloc(size);
  ASSERT_OK(r.device->rt->read(r.stream, before, ser_model_flat(r.model), size, &err), err);
  ASSERT_OK(r.device->rt->read(r.stream, after, ser_model_flat(loaded), size, &err), err);
  assert_memory_equal(before, after, size);
  /* Saved again, the same bytes. */
  ser_text first = {0}, second = {0};
  ASSERT_OK(ser_model_text(&first, r.model, r.stream, &r.info, &err), err);
  ASSERT_OK(ser_model_text(&second, loaded, r.stream, &info, &err), err);
  assert_int_equal(first.size, second.size);
  assert_memory_equal(first.data, second.data, first.size);
  free(first.data);
  free(second.data);
  free(before);
  free(after);
  ser_model_info_free(&info);
  ser_model_free(loaded);
  ASSERT_OK(ser_model_load(NULL, &info, NULL, r.path, &err), err); /* the info alone */
  assert_int_equal(info.model.blocks, 2);
  ser_model_info_free(&info);
  end(&r);
}

static void test_describe(void **state) {
  static const char *const said[] = {"timnet",
                                     "2 blocks of 6 filters",
                                     "neutral happy sad angry fearful disgust",
                                     "epoch 12 (validation UAR)",
                                     "predict       windows of 0.3333 s, one every 0.25 s\n",
                                     "00112233445566778899aabbccddeeff"};
  ser_error err = {0};
  ser_text text = {0};
  rig r;
  (void)state;
  make(&r);
  ASSERT_OK(ser_model_describe(&text, r.path, &err), err);
  for (size_t i = 0; i < sizeof said / sizeof *said; i++)
    if (!strstr(text.data, said[i])) fail_msg("\"%s\" is not in:\n%s", said[i], text.data);
  free(text.data);
  end(&r);
}

/* ---- what is amiss ------------------------------------------------------------------------------------------------
 */

/* Writes the model file with one metadata value replaced, or (value NULL) left out. */
static void write_metadata(const rig *r, const ser_tensors *t, const char *key, const char *value) {
  ser_error err = {0};
  ser_text text = {0};
  const char *keys[32], *values[32];
  size_t n = 0;
  for (size_t i = 0; i < t->metadata_count; i++) {
    bool this_one = !strcmp(t->keys[i], key);
    if (this_one && !value) continue;
    keys[n] = t->keys[i];
    values[n++] = this_one ? value : t->values[i];
  }
  ser_tensors_text(&text, t->tensors, t->count, keys, values, n);
  ASSERT_OK(ser_file_write(r->path, text.data, text.size, &err), err);
  free(text.data);
}

static void assert_refused(const rig *r, const char *named) {
  ser_error err = {0};
  ser_model *model;
  ser_model_info info;
  assert_int_equal(ser_model_load(&model, &info, r->device, r->path, &err), SER_FAILED);
  assert_null(model);
  assert_null(info.mean);
  if (!strstr(err.text, named) || !strstr(err.text, r->path))
    fail_msg("\"%s\" does not name %s and the file", err.text, named);
}

static void test_metadata_amiss(void **state) {
  static const struct {
    const char *key, *value, *named;
  } table[] = {
      {"serenade_model", NULL, "serenade_model"},
      {"serenade_model", "2", "version 2"},
      {"serenade_model", "one", "serenade_model"},
      {"serenade_model", "0", "serenade_model"},
      {"model", NULL, "model"},
      {"model", "{}", "model"},
      {"model", "[", "model"},
      {"labels", NULL, "labels"},
      {"labels", "[\"neutral\"]", "labels"},
      {"labels", "[\"neutral\",\"happy\",\"sad\",\"angry\",\"fearful\",\"bored\"]", "labels"},
      {"features", NULL, "features"},
      {"features", "{}", "not a sound model"},
      {"predict", "{\"window\":0,\"hop\":-1}", "predict"},
      {"predict", "{}", "predict"},
      {"training", "{\"seed\":1}", "training"},
      {"manifest_hash", "abc", "hashes"},
      {"split_hash", NULL, "split_hash"},
  };
  ser_error err = {0};
  ser_tensors t;
  rig r;
  (void)state;
  make(&r);
  ASSERT_OK(ser_tensors_read(&t, r.path, &err), err);
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    write_metadata(&r, &t, table[i].key, table[i].value);
    assert_refused(&r, table[i].named);
  }
  /* A model that its tensors cannot fill, however large, is refused before memory is taken for it. */
  static const char *const models[] = {"\"blocks\":16", "\"filters\":1024", "\"filters\":4096", "\"kernel\":64"};
  static const char *const was[] = {"\"blocks\":2", "\"filters\":6", "\"filters\":6", "\"kernel\":2"};
  for (int i = 0; i < 4; i++) {
    const char *model = ser_tensors_metadata(&t, "model"), *at = strstr(model, was[i]);
    assert_non_null(at);
    char *other = ser_format("%.*s%s%s", (int)(at - model), model, models[i], at + strlen(was[i]));
    write_metadata(&r, &t, "model", other);
    assert_refused(&r, "not a sound model");
    free(other);
  }
  /* Sizes that features would be computed with are held to the ranges of the configuration. */
  static const struct {
    const char *is, *to;
  } sizes[] = {{"\"rate\":22050", "\"rate\":4294989346"},
               {"\"rate\":22050", "\"rate\":2147483648"},
               {"\"hop\":512", "\"hop\":-5"},
               {"\"hop\":512", "\"hop\":0"},
               {"\"samples\":0", "\"samples\":-5"},
               {"\"samples\":0", "\"samples\":1000000000000000"},
               {"\"n_fft\":2048", "\"n_fft\":1000"}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    const char *features = ser_tensors_metadata(&t, "features"), *at = strstr(features, sizes[i].is);
    if (!at) fail_msg("%s is not in %s", sizes[i].is, features);
    char *other = ser_format("%.*s%s%s", (int)(at - features), features, sizes[i].to, at + strlen(sizes[i].is));
    write_metadata(&r, &t, "features", other);
    assert_refused(&r, "feature configuration");
    free(other);
  }
  ser_tensors_free(&t);
  end(&r);
}

static void write_tensors(const rig *r, const ser_tensors *t, const ser_tensor *tensors, size_t count) {
  ser_error err = {0};
  ser_text text = {0};
  ser_tensors_text(&text, tensors, count, (const char *const *)t->keys, (const char *const *)t->values,
                   t->metadata_count);
  ASSERT_OK(ser_file_write(r->path, text.data, text.size, &err), err);
  free(text.data);
}

static void test_tensors_amiss(void **state) {
  ser_error err = {0};
  ser_tensors t;
  rig r;
  (void)state;
  make(&r);
  ASSERT_OK(ser_tensors_read(&t, r.path, &err), err);
  ser_tensor *copy = ser_alloc((t.count + 1) * sizeof *copy);
  const float bad[64] = {1, NAN}, negative[64] = {1, -1};
  for (size_t i = 0; i < t.count; i++) { /* each one left out, renamed, of another shape */
    memcpy(copy, t.tensors, t.count * sizeof *copy);
    memmove(copy + i, copy + i + 1, (t.count - i - 1) * sizeof *copy);
    write_tensors(&r, &t, copy, t.count - 1);
    assert_refused(&r, "not a sound model");
    memcpy(copy, t.tensors, t.count * sizeof *copy);
    copy[i].shape[copy[i].dimensions++] = 1;
    write_tensors(&r, &t, copy, t.count);
    assert_refused(&r, copy[i].name);
    if (copy[i].bytes > sizeof bad) continue;
    memcpy(copy, t.tensors, t.count * sizeof *copy);
    copy[i].data = bad;
    write_tensors(&r, &t, copy, t.count);
    assert_refused(&r, "not finite");
    if (!strstr(copy[i].name, "running_var")) continue;
    copy[i].data = negative; /* its square root would be none */
    write_tensors(&r, &t, copy, t.count);
    assert_refused(&r, copy[i].name);
  }
  memcpy(copy, t.tensors, t.count * sizeof *copy);
  copy[t.count] = t.tensors[0];
  copy[t.count].name = (char *)"another";
  write_tensors(&r, &t, copy, t.count + 1);
  assert_refused(&r, "does not have");
  write_tensors(&r, &t, t.tensors, t.count); /* and as it was, it is taken */
  ser_model_info info;
  ASSERT_OK(ser_model_load(NULL, &info, NULL, r.path, &err), err);
  ser_model_info_free(&info);
  free(copy);
  ser_tensors_free(&t);
  end(&r);
}

/* A weight that lost a bit is a sound number still. */
static void test_bits_amiss(void **state) {
  ser_error err = {0};
  ser_tensors t;
  ser_model_info info;
  rig r;
  (void)state;
  make(&r);
  ASSERT_OK(ser_tensors_read(&t, r.path, &err), err);
  for (size_t i = 0; i < t.count; i += 5) {
    ser_tensor *copy = ser_alloc(t.count * sizeof *copy);
    memcpy(copy, t.tensors, t.count * sizeof *copy);
    char *bytes = ser_alloc(copy[i].bytes);
    memcpy(bytes, copy[i].data, copy[i].bytes);
    bytes[copy[i].bytes / 8 * 4] ^= 1;
    copy[i].data = bytes;
    write_tensors(&r, &t, copy, t.count);
    assert_refused(&r, "is damaged");
    assert_int_equal(ser_model_load(NULL, &info, NULL, r.path, &err), SER_FAILED);
    ser_text text = {0}; /* changed on purpose */
    ser_tensors_text(&text, copy, t.count, (const char *const *)t.keys, (const char *const *)t.values,
                     t.metadata_count - 1);
    assert_string_equal(t.keys[t.metadata_count - 1], "tensors_hash");
    ASSERT_OK(ser_file_write(r.path, text.data, text.size, &err), err);
    ASSERT_OK(ser_model_load(NULL, &info, NULL, r.path, &err), err);
    ser_model_info_free(&info);
    free(text.data);
    free(bytes);
    free(copy);
  }
  ser_tensors_free(&t);
  end(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_describe),
                                     cmocka_unit_test(test_metadata_amiss), cmocka_unit_test(test_tensors_amiss),
                                     cmocka_unit_test(test_bits_amiss)};
  return cmocka_run_group_tests_name("unit.model_file", tests, NULL, NULL);
}
