/* An encoder's tensors by name: what is missing, misshapen, of the wrong type or not finite is named; what else the
 * file holds is told; public models are known by their sizes. The files hold one number, at stride 0, for all there
 * are. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/encoder/parameters.h"
#include "support/harness.h"
#include "support/pytorch.h"

typedef struct {
  int64_t hidden, layers, middle, dim, groups, positions;
  bool layer_norm, bias, new_names;
} sizes;

static const sizes base = {768, 12, 3072, 512, 16, 128, false, false, false};
static const sizes large = {1024, 24, 4096, 512, 16, 128, false, false, true};
static const sizes large_lv60 = {1024, 24, 4096, 512, 16, 128, true, true, false};
static const sizes small = {16, 2, 24, 8, 4, 8, false, false, false};
static const char small_config[] =
    "{\"model_type\":\"wav2vec2\",\"hidden_size\":16,\"num_hidden_layers\":2,\"num_attention_heads\":2,"
    "\"intermediate_size\":24,\"conv_dim\":[8,8,8,8,8,8,8],\"num_conv_pos_embeddings\":8,"
    "\"num_conv_pos_embedding_groups\":4}";

/* What is changed on the way, by a tensor's name without its prefix. */
typedef struct {
  const char *prefix, *without, *with;       /* one that is left out; one more */
  const char *reshaped, *retyped, *poisoned; /* transposed, of integers, of NaN */
  ser_text pickle;
} maker;

static void put(maker *m, const char *name, int dimensions, int64_t a, int64_t b, int64_t c) {
  static const int64_t still[3] = {0};
  int64_t shape[3] = {a, b, c};
  if (m->without && !strncmp(name, m->without, strlen(m->without))) return;
  if (m->reshaped && !strcmp(name, m->reshaped)) shape[0]++;
  bool retyped = m->retyped && !strcmp(name, m->retyped), poisoned = m->poisoned && !strcmp(name, m->poisoned);
  char *whole = ser_format("%s%s", m->prefix, name);
  const test_pickled tensor = {
      whole, retyped ? "LongStorage" : "FloatStorage", retyped ? "2" : poisoned ? "1" : "0", 1, 0, dimensions, shape,
      still};
  test_pickle_tensor(&m->pickle, &tensor, false);
  free(whole);
}

static void put_pair(maker *m, const char *name, int64_t a, int64_t b) {
  char *weight = ser_format("%s.weight", name), *bias = ser_format("%s.bias", name);
  put(m, weight, b ? 2 : 1, a, b, 0);
  put(m, bias, 1, a, 0, 0);
  free(weight);
  free(bias);
}

static void put_layer(maker *m, const sizes *s, int number) {
  static const char *const squares[] = {"attention.q_proj", "attention.k_proj", "attention.v_proj",
                                        "attention.out_proj"};
  for (int i = 0; i < 4; i++) {
    char *name = ser_format("encoder.layers.%d.%s", number, squares[i]);
    put_pair(m, name, s->hidden, s->hidden);
    free(name);
  }
  char *names[4] = {ser_format("encoder.layers.%d.layer_norm", number),
                    ser_format("encoder.layers.%d.final_layer_norm", number),
                    ser_format("encoder.layers.%d.feed_forward.intermediate_dense", number),
                    ser_format("encoder.layers.%d.feed_forward.output_dense", number)};
  put_pair(m, names[0], s->hidden, 0);
  put_pair(m, names[1], s->hidden, 0);
  put_pair(m, names[2], s->middle, s->hidden);
  put_pair(m, names[3], s->hidden, s->middle);
  for (int i = 0; i < 4; i++) free(names[i]);
}

static void put_model(maker *m, const sizes *s) {
  static const int64_t kernels[] = {10, 3, 3, 3, 3, 2, 2};
  for (int i = 0; i < 7; i++) {
    char *conv = ser_format("feature_extractor.conv_layers.%d.conv.weight", i);
    char *bias = ser_format("feature_extractor.conv_layers.%d.conv.bias", i);
    char *norm = ser_format("feature_extractor.conv_layers.%d.layer_norm", i);
    put(m, conv, 3, s->dim, i ? s->dim : 1, kernels[i]);
    if (s->bias) put(m, bias, 1, s->dim, 0, 0);
    if (!i || s->layer_norm) put_pair(m, norm, s->dim, 0);
    free(conv);
    free(bias);
    free(norm);
  }
  put_pair(m, "feature_projection.layer_norm", s->dim, 0);
  put_pair(m, "feature_projection.projection", s->hidden, s->dim);
  put(m,
      s->new_names ? "encoder.pos_conv_embed.conv.parametrizations.weight.original0"
                   : "encoder.pos_conv_embed.conv.weight_g",
      3, 1, 1, s->positions);
  put(m,
      s->new_names ? "encoder.pos_conv_embed.conv.parametrizations.weight.original1"
                   : "encoder.pos_conv_embed.conv.weight_v",
      3, s->hidden, s->hidden / s->groups, s->positions);
  put(m, "encoder.pos_conv_embed.conv.bias", 1, s->hidden, 0, 0);
  put_pair(m, "encoder.layer_norm", s->hidden, 0);
  for (int64_t i = 0; i < s->layers; i++) put_layer(m, s, (int)i);
  if (m->with) put(m, m->with, 1, 3, 0, 0);
}

/* Opens, and hashes where `hash`, what is made of that and a config.json (or none). The folder goes at once. */
static ser_status open_made(ser_encoder_weights *w, maker m, const sizes *s, const char *config, bool hash,
                            ser_error *err) {
  static const float one = 0.5f;
  static const uint32_t nan = 0x7fc00000;
  static const int64_t whole = 1;
  const test_storage storages[] = {{"0", &one, 4, 1}, {"1", &nan, 4, 1}, {"2", &whole, 8, 1}};
  ser_text file = {0};
  ser_error written = {0};
  char *folder = test_folder_make("encoder_weights"), *path = ser_path_join(folder, "pytorch_model.bin");
  char *beside = ser_path_join(folder, "config.json");
  if (!m.prefix) m.prefix = "";
  test_pickle_begin(&m.pickle);
  put_model(&m, s);
  test_pickle_end(&m.pickle);
  test_pytorch_zip(&file, &m.pickle, storages, 3);
  ASSERT_OK(ser_file_write(path, file.data, file.size, &written), written);
  if (config) ASSERT_OK(ser_file_write(beside, config, strlen(config), &written), written);
  assert_true(ser_encoder_is_there(folder));
  assert_true(ser_encoder_is_there(path));
  ser_status status = ser_encoder_weights_open(w, folder, err);
  if (status == SER_OK && hash) {
    status = ser_encoder_weights_hash(w, err);
    if (status != SER_OK) ser_encoder_weights_close(w);
  }
  if (status != SER_OK && (!strstr(err->text, folder) || strchr(err->text, '\n')))
    fail_msg("a refusal reads: %s", err->text);
  free(m.pickle.data);
  free(file.data);
  free(path);
  free(beside);
  test_folder_remove(folder);
  return status;
}

static void test_public(void **state) {
  static const struct {
    const sizes *sizes;
    const char *prefix, *with;
    ser_encoder_family family;
    int64_t heads, parameters;
    size_t tensors;
  } rows[] = {{&base, "", "masked_spec_embed", SER_ENCODER_WAV2VEC2, 12, 94371712 - 768, 210},
              {&base, "wav2vec2.", "masked_spec_embed", SER_ENCODER_WAV2VEC2, 12, 94371712 - 768, 210},
              {&base, "hubert.", "masked_spec_embed", SER_ENCODER_HUBERT, 12, 94371712 - 768, 210},
              {&large, "wav2vec2.", NULL, SER_ENCODER_WAV2VEC2, 16, 0, 402},
              {&large_lv60, "wav2vec2.", NULL, SER_ENCODER_WAV2VEC2, 16, 315438720 - 1024, 421}};
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    ser_encoder_weights w;
    ser_error err = {0};
    maker m = {.prefix = rows[i].prefix, .with = rows[i].with};
    ASSERT_OK(open_made(&w, m, rows[i].sizes, NULL, false, &err), err);
    assert_false(w.config.has_config);
    assert_int_equal(w.config.family, rows[i].family);
    assert_int_equal(w.config.num_attention_heads, rows[i].heads);
    assert_int_equal(w.config.do_stable_layer_norm, rows[i].sizes->layer_norm);
    assert_int_equal(w.config.conv_bias, rows[i].sizes->bias);
    assert_int_equal(w.row_count, rows[i].tensors);
    if (rows[i].parameters) assert_int_equal(w.parameters, rows[i].parameters);
    assert_int_equal(w.extra_count, rows[i].with != NULL);
    assert_string_equal(w.prefix, rows[i].prefix);
    assert_non_null(w.layers[w.config.num_hidden_layers - 1].final_norm.bias);
    assert_int_equal(w.convs[6].conv.bias != NULL, rows[i].sizes->bias);
    assert_int_equal(w.convs[6].norm.weight != NULL, rows[i].sizes->layer_norm);
    assert_non_null(w.convs[0].norm.weight);
    ser_encoder_weights_close(&w);
  }
}

static void refused(maker m, const sizes *s, const char *config, const char *named) {
  ser_encoder_weights w;
  ser_error err = {0};
  if (open_made(&w, m, s, config, true, &err) == SER_OK) fail_msg("taken, where \"%s\" should be told", named);
  if (!strstr(err.text, named)) fail_msg("\"%s\" does not tell \"%s\"", err.text, named);
}

static void test_refused(void **state) {
  static const char norm[] = "encoder.layers.1.final_layer_norm.bias", q[] = "encoder.layers.0.attention.q_proj.weight";
  sizes odd = small;
  (void)state;
  refused((maker){.without = norm}, &small, small_config,
          "of 50 tensors 1 is not right: encoder.layers.1.final_layer_norm.bias is missing;");
  refused((maker){.without = "encoder.layers.1."}, &small, small_config,
          "of 50 tensors 16 are not right: encoder.layers.1.attention.q_proj.weight is missing, ");
  refused((maker){.without = "encoder.layers.1."}, &small, small_config, " and 12 more; put");
  refused((maker){.reshaped = q}, &small, small_config, "q_proj.weight is [17, 16] instead of [16, 16]");
  refused((maker){.retyped = q}, &small, small_config, "q_proj.weight is I64 instead of floating point");
  refused((maker){.poisoned = q, .prefix = "wav2vec2."}, &small, small_config,
          "its tensor wav2vec2.encoder.layers.0.attention.q_proj.weight holds a number that is not finite");
  refused((maker){.without = "encoder.pos_conv_embed.conv.weight_g"}, &small, small_config,
          "encoder.pos_conv_embed.conv.weight_g is missing");
  refused((maker){.without = "encoder.pos_conv_embed.conv.weight_v"}, &small, small_config,
          "encoder.pos_conv_embed.conv.weight_v is missing");
  refused((maker){.without = "encoder.pos_conv_embed.conv.weight"}, &small, small_config, "2 are not right");
  refused((maker){.without = "feature_extractor."}, &small, small_config, "holds no wav2vec2 or HuBERT encoder");
  refused((maker){.without = "feature_extractor."}, &small, small_config, "facebook/wav2vec2-base");
  refused((maker){.with = "other.feature_extractor.conv_layers.0.conv.weight"}, &small, small_config,
          "holds two encoders");
  refused((maker){.with = "encoder.layers.0.adapter_layer.norm.weight"}, &small, small_config,
          "the adapter encoder.layers.0.adapter_layer.norm.weight");
  refused((maker){.with = "adapter.layers.0.conv.weight"}, &small, small_config, "the adapter adapter.layers.0");
  refused((maker){0}, &small, NULL, "there is no config.json beside");
  refused((maker){0}, &base, small_config, "is [512, 1, 10] instead of [8, 1, 10]");
  odd = base;
  odd.layers = 11;
  refused((maker){0}, &odd, NULL, "there is no config.json beside");
  odd = base;
  odd.positions = 64;
  refused((maker){0}, &odd, NULL, "weight_g is [1, 1, 64] instead of [1, 1, 128]");
  refused((maker){0}, &small, "{\"model_type\":\"wavlm\"}", "kind wavlm");
}

static void test_extras(void **state) {
  ser_encoder_weights w;
  ser_error err = {0};
  ser_text text = {0};
  char *config = ser_format("%.*s,\"serenade.random_weights\":true}", (int)strlen(small_config) - 1, small_config);
  (void)state;
  ASSERT_OK(open_made(&w, (maker){.with = "encoder.layers.2.odd\x1b"}, &small, config, true, &err), err);
  assert_int_equal(w.unknown_count, 1);
  assert_true(w.config.random_weights);
  ser_encoder_describe(&text, &w);
  assert_non_null(strstr(text.data, "1 of them unknown here: encoder.layers.2.odd\\x1b\n"));
  assert_non_null(strstr(text.data, "random weights"));
  assert_non_null(strstr(text.data, "there is no preprocessor_config.json"));
  assert_null(strchr(text.data, '\x1b'));
  ser_encoder_weights_close(&w);
  free(text.data);
  text = (ser_text){0};
  ASSERT_OK(
      open_made(&w, (maker){.with = "quantizer.codevectors", .prefix = "wav2vec2."}, &small, small_config, true, &err),
      err);
  assert_int_equal(w.unknown_count, 0);
  assert_int_equal(w.extra_count, 1);
  ser_encoder_describe(&text, &w);
  assert_non_null(strstr(text.data, "1 tensor of pre-training or a head"));
  assert_null(strstr(text.data, "random weights"));
  ser_encoder_weights_close(&w);
  free(text.data);
  free(config);
}

/* Each number, its place and what decides how it is used counts; the prefix and the spelling do not. */
static void test_hash(void **state) {
  ser_error err = {0};
  ser_hash first = {{0}};
  (void)state;
  const struct {
    const char *prefix, *from, *to;
    bool new_names, same;
  } rows[] = {{"", NULL, NULL, false, true},
              {"wav2vec2.", NULL, NULL, false, true},
              {"", NULL, NULL, true, true},
              {"", "\"wav2vec2\"", "\"hubert\"  ", false, true},
              {"", "heads\":2", "heads\":4", false, false},
              {"", "groups\":4", "groups\":4,\"layer_norm_eps\":1e-6", false, false},
              {"", "groups\":4", "groups\":4,\"do_stable_layer_norm\":true", false, false},
              {"", "groups\":4", "groups\":4,\"conv_stride\":[5,2,2,2,2,2,1]", false, false}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    ser_encoder_weights w;
    sizes s = small;
    s.new_names = rows[i].new_names;
    char *config = ser_strdup(small_config);
    if (rows[i].from) {
      char *at = strstr(config, rows[i].from);
      assert_non_null(at);
      char *other = ser_format("%.*s%s%s", (int)(at - config), config, rows[i].to, at + strlen(rows[i].from));
      free(config);
      config = other;
    }
    ASSERT_OK(open_made(&w, (maker){.prefix = rows[i].prefix}, &s, config, true, &err), err);
    if (!i) first = w.hash;
    if (!ser_hash_compare(&first, &w.hash) != rows[i].same) fail_msg("row %zu: the hash is wrong", i);
    ser_encoder_weights_close(&w);
    free(config);
  }
}

/* ---- folders ----------------------------------------------------------------------------------------------------- */

static void test_folders(void **state) {
  static const struct {
    const char *name, *content;
    bool there;
    const char *named;
  } rows[] = {
      {"config.json", small_config, true, "holds a config.json, but no model.safetensors and no pytorch_model.bin"},
      {"config.json", "{\"rate\":22050}", false, "facebook/wav2vec2-base"},
      {"tf_model.h5", "x", false, "TensorFlow's weights alone"},
      {"model.safetensors.index.json", "{}", false, "weights in several parts"},
      {"pytorch_model.bin", "x", true, "neither a safetensors nor a PyTorch file"},
      {"model.safetensors", "x", false, "neither a safetensors nor a PyTorch file"},
      {"notes.txt", "x", false, "config.json, preprocessor_config.json, and model.safetensors or"}};
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    ser_encoder_weights w;
    ser_error err = {0};
    char *folder = test_folder_make("encoder_folder"), *path = ser_path_join(folder, rows[i].name);
    ASSERT_OK(ser_file_write(path, rows[i].content, strlen(rows[i].content), &err), err);
    assert_int_equal(ser_encoder_is_there(folder), rows[i].there);
    assert_int_equal(ser_encoder_weights_open(&w, folder, &err), SER_FAILED);
    if (!strstr(err.text, rows[i].named)) fail_msg("\"%s\" does not tell \"%s\"", err.text, rows[i].named);
    free(path);
    test_folder_remove(folder);
  }
  ser_encoder_weights w;
  ser_error err = {0};
  assert_false(ser_encoder_is_there("/nowhere"));
  assert_int_equal(ser_encoder_weights_open(&w, "/nowhere", &err), SER_FAILED);
  assert_non_null(strstr(err.text, "there is no file /nowhere; give a folder with config.json"));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_public), cmocka_unit_test(test_refused),
                                     cmocka_unit_test(test_extras), cmocka_unit_test(test_hash),
                                     cmocka_unit_test(test_folders)};
  return cmocka_run_group_tests_name("unit.encoder_weights", tests, NULL, NULL);
}
