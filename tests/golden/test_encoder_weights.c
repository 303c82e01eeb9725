/* Encoder weights against what torch reads from the same files (make_encoder_weights.py): each parameter's float32
 * bytes, the positional kernel, and one hash for one model in whatever format. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/encoder/parameters.h"
#include "model/safetensors.h"
#include "support/harness.h"

static char *golden_path(const char *name) {
  return ser_format("%s/tests/golden/encoder/%s", test_source(), name);
}

/* As zlib has it. */
static uint32_t crc32_of(const void *data, size_t size) {
  const unsigned char *bytes = data;
  uint32_t crc = 0xffffffff;
  for (size_t i = 0; i < size; i++) {
    crc ^= bytes[i];
    for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc;
}

static json_t *read_goldens(void) {
  char *path = golden_path("goldens.json");
  json_error_t error;
  json_t *root = json_load_file(path, 0, &error);
  if (!root) fail_msg("%s: %s", path, error.text);
  free(path);
  return root;
}

static void check_parameters(const ser_encoder_weights *w, const json_t *sums, const char *name) {
  assert_int_equal(json_object_size(sums), w->row_count + w->extra_count);
  for (size_t i = 0; i < w->row_count; i++) {
    const ser_weight *weight = *w->rows[i].place;
    int64_t count = ser_weight_elements(weight);
    float *numbers = ser_alloc((size_t)count * sizeof *numbers), *pieces = ser_alloc((size_t)count * sizeof *pieces);
    ser_weight_read(numbers, weight, 0, count);
    const json_t *want = json_object_get(sums, w->rows[i].name);
    if (!want || crc32_of(numbers, (size_t)count * 4) != (uint32_t)json_integer_value(want))
      fail_msg("%s: %s is not what torch reads", name, w->rows[i].name);
    for (int64_t at = 0, size = 1; at < count; at += size, size = size % 7 + 1) {
      if (size > count - at) size = count - at;
      ser_weight_read(pieces + at, weight, at, size);
    }
    if (memcmp(pieces, numbers, (size_t)count * sizeof *pieces))
      fail_msg("%s: %s differs when it is read in pieces", name, w->rows[i].name);
    if (ser_weight_floats(weight)) assert_memory_equal(ser_weight_floats(weight), numbers, (size_t)count * 4);
    free(numbers);
    free(pieces);
  }
}

static double check_kernel(const ser_encoder_weights *w, const ser_tensors *kernels, const char *name) {
  const ser_tensor *want = ser_tensors_find(kernels, name);
  if (!want) fail_msg("the goldens hold no kernel of %s", name);
  const int64_t hidden = w->config.hidden_size, groups = w->config.num_conv_pos_embedding_groups;
  const size_t count = (size_t)(hidden * (hidden / groups) * w->config.num_conv_pos_embeddings);
  assert_int_equal(want->bytes, count * sizeof(float));
  float *got = ser_alloc(count * sizeof *got);
  double *wanted = ser_alloc(count * sizeof *wanted);
  ser_encoder_pos_kernel(got, w);
  for (size_t i = 0; i < count; i++) wanted[i] = ((const float *)want->data)[i];
  double worst = test_difference(got, wanted, count);
  if (!(worst < 2e-7)) fail_msg("%s: the positional kernel is %g off", name, worst); /* seen: 6e-8 */
  free(got);
  free(wanted);
  return worst;
}

static void test_files(void **state) {
  ser_error err = {0};
  ser_tensors kernels;
  json_t *root = read_goldens();
  json_t *entry;
  const char *name;
  double worst = 0;
  char *path = golden_path("kernels.safetensors");
  (void)state;
  ASSERT_OK(ser_tensors_read(&kernels, path, &err), err);
  free(path);
  json_object_foreach(json_object_get(root, "files"), name, entry) {
    ser_encoder_weights w;
    path = golden_path(name);
    ASSERT_OK(ser_encoder_weights_open(&w, path, &err), err);
    ASSERT_OK(ser_encoder_weights_hash(&w, &err), err);
    assert_string_equal(w.file.format, json_string_value(json_object_get(entry, "format")));
    check_parameters(&w, json_object_get(entry, "crc"), name);
    worst = test_worse(worst, check_kernel(&w, &kernels, name));
    assert_int_equal(w.unknown_count, 0);
    assert_false(w.config.random_weights);
    ser_encoder_weights_close(&w);
    free(path);
  }
  print_message("%zu files, positional kernels within %.1e\n", json_object_size(json_object_get(root, "files")), worst);
  ser_tensors_free(&kernels);
  json_decref(root);
}

static ser_hash hash_of(const char *name) {
  ser_encoder_weights w;
  ser_error err = {0};
  char *path = golden_path(name);
  ASSERT_OK(ser_encoder_weights_open(&w, path, &err), err);
  ASSERT_OK(ser_encoder_weights_hash(&w, &err), err);
  ser_hash hash = w.hash;
  ser_encoder_weights_close(&w);
  free(path);
  return hash;
}

static void test_hash(void **state) {
  static const char *const same[] = {"base",
                                     "base/pytorch_model.bin",
                                     "base/legacy.bin",
                                     "base/double.bin",
                                     "base/old_names.bin",
                                     "base/strided.bin",
                                     "base/nested.bin",
                                     "base/pretraining.bin",
                                     "base/strided_legacy.bin"};
  static const char *const other[] = {"base/half.safetensors", "base/bfloat16.bin", "base/plain.safetensors", "layer",
                                      "hubert"};
  ser_hash base = hash_of("base/model.safetensors");
  (void)state;
  for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
    ser_hash hash = hash_of(same[i]);
    if (ser_hash_compare(&base, &hash)) fail_msg("%s has another hash than the same model in safetensors", same[i]);
  }
  for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
    ser_hash hash = hash_of(other[i]);
    if (!ser_hash_compare(&base, &hash)) fail_msg("%s has the hash of another model", other[i]);
  }
}

/* What transformers wrote into config.json and preprocessor_config.json. */
static void test_configurations(void **state) {
  static const struct {
    const char *folder;
    ser_encoder_family family;
    bool layer, normalize, mask, projection_norm;
    int64_t convs, field, hop;
    double eps;
  } rows[] = {{"base", SER_ENCODER_WAV2VEC2, false, true, false, true, 7, 400, 320, 1e-5},
              {"layer", SER_ENCODER_WAV2VEC2, true, true, true, true, 3, 30, 20, 1e-6},
              {"hubert", SER_ENCODER_HUBERT, false, false, false, false, 7, 400, 320, 1e-5},
              {"hubert_large", SER_ENCODER_HUBERT, true, true, true, true, 3, 30, 20, 1e-6}};
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    ser_encoder_config c;
    ser_error err = {0};
    char *path = golden_path(rows[i].folder);
    ASSERT_OK(ser_encoder_config_read(&c, path, &err), err);
    free(path);
    assert_true(c.has_config && c.has_preprocessor);
    assert_int_equal(c.family, rows[i].family);
    assert_int_equal(c.feat_extract_norm == SER_ENCODER_NORM_LAYER, rows[i].layer);
    assert_int_equal(c.do_stable_layer_norm, rows[i].layer);
    assert_int_equal(c.conv_bias, rows[i].layer);
    assert_int_equal(c.do_normalize, rows[i].normalize);
    assert_int_equal(c.return_attention_mask, rows[i].mask);
    assert_int_equal(c.feat_proj_layer_norm, rows[i].projection_norm);
    assert_int_equal(c.conv_count, rows[i].convs);
    assert_int_equal(ser_encoder_field(&c), rows[i].field);
    assert_int_equal(ser_encoder_hop(&c), rows[i].hop);
    assert_true(c.layer_norm_eps == rows[i].eps);
    assert_int_equal(c.hidden_size, 16);
    assert_int_equal(c.num_hidden_layers, 2);
    assert_int_equal(c.num_attention_heads, 2);
    assert_int_equal(c.intermediate_size, 24);
    assert_int_equal(c.num_conv_pos_embedding_groups, 4);
    assert_int_equal(ser_encoder_frames(&c, rows[i].field - 1), 0);
    assert_int_equal(ser_encoder_frames(&c, rows[i].field), 1);
    assert_int_equal(ser_encoder_frames(&c, rows[i].field + rows[i].hop - 1), 1);
    assert_int_equal(ser_encoder_frames(&c, rows[i].field + rows[i].hop), 2);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_files), cmocka_unit_test(test_hash),
                                     cmocka_unit_test(test_configurations)};
  return cmocka_run_group_tests_name("golden.encoder_weights", tests, NULL, NULL);
}
