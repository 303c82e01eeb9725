/* config.json and preprocessor_config.json: transformers' defaults, what is taken, what is refused and how. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/encoder/config.h"
#include "support/harness.h"

static ser_status read_texts(ser_encoder_config *c, const char *config, const char *preprocessor, const char *processor,
                             ser_error *err) {
  static const char *const names[] = {"config.json", "preprocessor_config.json", "processor_config.json"};
  const char *const texts[] = {config, preprocessor, processor};
  ser_error written = {0};
  char *folder = test_folder_make("encoder_config");
  for (int i = 0; i < 3; i++) {
    char *path = ser_path_join(folder, names[i]);
    if (texts[i]) ASSERT_OK(ser_file_write(path, texts[i], strlen(texts[i]), &written), written);
    free(path);
  }
  ser_status status = ser_encoder_config_read(c, folder, err);
  if (status != SER_OK && (!strstr(err->text, folder) || strchr(err->text, '\n')))
    fail_msg("a refusal reads: %s", err->text);
  test_folder_remove(folder);
  return status;
}

static void test_defaults(void **state) {
  static const char *const texts[] = {
      NULL, "{\"model_type\":\"wav2vec2\"}", "{\"model_type\":\"hubert\",\"hidden_size\":null}",
      "{\"architectures\":[\"Wav2Vec2ForCTC\"]}", "{\"architectures\":[\"HubertModel\"]}"};
  (void)state;
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    ser_encoder_config c, wanted;
    ser_error err = {0};
    memset(&c, 255, sizeof c);
    ASSERT_OK(read_texts(&c, texts[i], NULL, NULL, &err), err);
    ser_encoder_config_default(&wanted,
                               texts[i] && strcasestr(texts[i], "hubert") ? SER_ENCODER_HUBERT : SER_ENCODER_WAV2VEC2);
    wanted.has_config = texts[i] != NULL;
    assert_int_equal(c.family, wanted.family);
    assert_int_equal(c.has_config, wanted.has_config);
    assert_false(c.has_preprocessor);
    assert_memory_equal(c.conv_dim, wanted.conv_dim, sizeof c.conv_dim);
    assert_memory_equal(c.conv_kernel, wanted.conv_kernel, sizeof c.conv_kernel);
    assert_memory_equal(c.conv_stride, wanted.conv_stride, sizeof c.conv_stride);
    assert_int_equal(c.hidden_size, 768);
    assert_int_equal(c.num_attention_heads, 12);
    assert_true(c.do_normalize && c.feat_proj_layer_norm && !c.conv_bias && !c.do_stable_layer_norm);
    assert_int_equal(c.feat_extract_norm, SER_ENCODER_NORM_GROUP);
    assert_int_equal(ser_encoder_field(&c), 400);
    assert_int_equal(ser_encoder_hop(&c), 320);
    assert_int_equal(ser_encoder_frames(&c, 16000), 49);
    assert_int_equal(ser_encoder_frames(&c, 399), 0);
    assert_int_equal(ser_encoder_frames(&c, 0), 0);
    assert_int_equal(ser_encoder_frames(&c, 400), 1);
  }
}

#define W "{\"model_type\":\"wav2vec2\","
#define H "{\"model_type\":\"hubert\","

static void test_refused(void **state) {
  static const struct {
    const char *config, *preprocessor;
    const char *named; /* NULL: it is taken */
  } rows[] = {
      {"", NULL, "config.json is no JSON"},
      {"{", NULL, "config.json is no JSON"},
      {"[]", NULL, "is no object"},
      {"{}", NULL, "names no model_type"},
      {"{\"model_type\":7}", NULL, "names no model_type"},
      {W "\"model_type\":\"hubert\"}", NULL, "is no JSON"},
      {"{\"model_type\":\"wavlm\"}", NULL, "a model of the kind wavlm, which is not computed here"},
      {"{\"model_type\":\"data2vec-audio\"}", NULL, "kind data2vec-audio"},
      {"{\"model_type\":\"unispeech-sat\"}", NULL, "kind unispeech-sat"},
      {"{\"model_type\":\"wav2vec2-conformer\"}", NULL, "kind wav2vec2-conformer"},
      {"{\"model_type\":\"wav2vec2-bert\"}", NULL, "kind wav2vec2-bert"},
      {"{\"model_type\":\"sew-d\"}", NULL, "kind sew-d"},
      {"{\"model_type\":\"speech-encoder-decoder\",\"encoder\":{\"model_type\":\"wav2vec2\"}}", NULL,
       "kind speech-encoder-decoder"},
      {"{\"model_type\":\"a\\nb\"}", NULL, "kind a\\nb"},
      {W "\"architectures\":[\"Wav2Vec2ConformerModel\"]}", NULL, "kind Wav2Vec2ConformerModel"},
      {W "\"architectures\":[\"WavLMForCTC\"]}", NULL, "kind WavLMForCTC"},
      {W "\"architectures\":[\"Wav2Vec2ForSpeechClassification\"]}", NULL, NULL},
      {W "\"add_adapter\":true}", NULL, "add_adapter is true; models with adapters"},
      {W "\"adapter_attn_dim\":16}", NULL, "adapter_attn_dim is 16; models with adapters"},
      {W "\"adapter_attn_dim\":null,\"add_adapter\":false}", NULL, NULL},
      {W "\"pruned_heads\":{\"0\":[1]}}", NULL, "pruned_heads is"},
      {W "\"pruned_heads\":{}}", NULL, NULL},
      {H "\"conv_pos_batch_norm\":true}", NULL, "conv_pos_batch_norm is true; only weight norm"},
      {W "\"hidden_act\":\"gelu_new\"}", NULL, "hidden_act is \"gelu_new\"; only gelu"},
      {W "\"feat_extract_activation\":\"relu\"}", NULL, "feat_extract_activation is \"relu\"; only gelu"},
      {W "\"feat_extract_norm\":\"batch\"}", NULL, "feat_extract_norm is \"batch\"; only group and layer"},
      {W "\"feat_extract_norm\":\"layer\"}", NULL, NULL},
      {W "\"feat_extract_norm\":1}", NULL, "feat_extract_norm is 1"},
      {W "\"hidden_size\":768.0}", NULL, "hidden_size is 768.0; it must be a whole number"},
      {W "\"hidden_size\":0}", NULL, "hidden_size is 0; it must be from 1"},
      {W "\"hidden_size\":-768}", NULL, "hidden_size is -768"},
      {W "\"hidden_size\":99999999999}", NULL, "hidden_size is 99999999999; it must be from 1 to 8192"},
      {W "\"hidden_size\":770}", NULL, "12 heads do not divide a hidden_size of 770"},
      {W "\"hidden_size\":780}", NULL, "num_conv_pos_embedding_groups 16 does not divide"},
      {W "\"num_attention_heads\":0}", NULL, "num_attention_heads is 0"},
      {W "\"num_hidden_layers\":0}", NULL, "num_hidden_layers is 0"},
      {W "\"num_hidden_layers\":1000000}", NULL, "num_hidden_layers is 1000000"},
      {W "\"intermediate_size\":\"big\"}", NULL, "intermediate_size is \"big\""},
      {W "\"do_stable_layer_norm\":1}", NULL, "do_stable_layer_norm is 1; it must be true or false"},
      {W "\"layer_norm_eps\":0}", NULL, "layer_norm_eps is 0"},
      {W "\"layer_norm_eps\":\"1e-5\"}", NULL, "layer_norm_eps is \"1e-5\"; it must be a number"},
      {W "\"conv_dim\":[512]}", NULL, "of unlike lengths (1, 7, 7)"},
      {W "\"conv_dim\":[]}", NULL, "conv_dim is []"},
      {W "\"conv_dim\":512}", NULL, "conv_dim is 512; it must be a list"},
      {W "\"conv_dim\":[1,2,3,4,5,6,\"7\"]}", NULL, "it must be a list of 1 to 16 whole numbers"},
      {W "\"conv_dim\":[1,2,3,4,5,6,0]}", NULL, "convolution 6 has 0 channels"},
      {W "\"conv_stride\":[5,2,2,2,2,2,3]}", NULL, "convolution 6 has 512 channels, kernel 2, stride 3"},
      {W "\"conv_kernel\":[1000,1000,1000,2,2,2,2],\"conv_stride\":[1000,1000,1000,2,2,2,2]}", NULL, "ten seconds"},
      {W "\"conv_dim\":[9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9],"
         "\"conv_kernel\":[1000,1000,1000,1000,1000,1000,1000,1000,1000,1000,1000,1000,1000,1000,1000,1000],"
         "\"conv_stride\":[1000,1000,1000,1000,1000,1000,1000,1000,1000,1000,1000,1000,1000,1000,1000,1000]}",
       NULL, "ten seconds"},
      {NULL, "{", "preprocessor_config.json is no JSON"},
      {NULL, "{}", NULL},
      {NULL, "{\"sampling_rate\":8000}", "sampling_rate is 8000; only 16000"},
      {NULL, "{\"feature_size\":80}", "feature_size is 80"},
      {NULL, "{\"do_normalize\":\"yes\"}", "do_normalize is \"yes\"; it must be true or false"},
      {NULL, "{\"feature_extractor_type\":\"SeamlessM4TFeatureExtractor\"}", "only Wav2Vec2FeatureExtractor"},
      {NULL, "{\"feature_extractor_type\":\"Wav2Vec2FeatureExtractor\",\"sampling_rate\":16000}", NULL},
  };
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    ser_encoder_config c;
    ser_error err = {0};
    ser_status status = read_texts(&c, rows[i].config, rows[i].preprocessor, NULL, &err);
    if (!rows[i].named && status != SER_OK) fail_msg("row %zu is refused: %s", i, err.text);
    if (rows[i].named && status == SER_OK) fail_msg("row %zu is taken", i);
    if (rows[i].named && !strstr(err.text, rows[i].named))
      fail_msg("row %zu: \"%s\" does not tell \"%s\"", i, err.text, rows[i].named);
  }
}

static void test_taken(void **state) {
  ser_encoder_config c;
  ser_error err = {0};
  (void)state;
  ASSERT_OK(read_texts(&c, H "\"feat_proj_layer_norm\":false,\"serenade.random_weights\":true,\"conv_bias\":true}",
                       "{\"do_normalize\":false,\"return_attention_mask\":true}",
                       "{\"feature_extractor\":{\"do_normalize\":true}}", &err),
            err);
  assert_true(!c.feat_proj_layer_norm && c.random_weights && c.conv_bias && !c.do_normalize && c.return_attention_mask);
  ASSERT_OK(read_texts(&c, W "\"feat_proj_layer_norm\":false}", NULL,
                       "{\"feature_extractor\":{\"do_normalize\":false}}", &err),
            err);
  assert_true(c.feat_proj_layer_norm && c.has_preprocessor && !c.do_normalize);
  ASSERT_OK(read_texts(&c, NULL, NULL, "{\"tokenizer\":{}}", &err), err);
  assert_true(!c.has_preprocessor && !c.has_config && c.do_normalize);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_defaults), cmocka_unit_test(test_refused),
                                     cmocka_unit_test(test_taken)};
  return cmocka_run_group_tests_name("unit.encoder_config", tests, NULL, NULL);
}
