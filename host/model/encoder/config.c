/* config.json and preprocessor_config.json, as transformers writes and reads them. */
#include "model/encoder/config.h"

#include <jansson.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"

const char *const ser_encoder_family_names[] = {"wav2vec2", "hubert", NULL};

void ser_encoder_config_default(ser_encoder_config *config, ser_encoder_family family) {
  *config = (ser_encoder_config){
      .family = family,
      .conv_count = 7,
      .conv_dim = {512, 512, 512, 512, 512, 512, 512},
      .conv_kernel = {10, 3, 3, 3, 3, 2, 2},
      .conv_stride = {5, 2, 2, 2, 2, 2, 2},
      .feat_proj_layer_norm = true,
      .hidden_size = 768,
      .num_hidden_layers = 12,
      .num_attention_heads = 12,
      .intermediate_size = 3072,
      .layer_norm_eps = 1e-5,
      .num_conv_pos_embeddings = 128,
      .num_conv_pos_embedding_groups = 16,
      .do_normalize = true,
      .sampling_rate = 16000,
  };
}

typedef struct {
  json_t *root;
  const char *path;
  ser_error *err;
} source;

/* The value of a key; NULL where it is missing or null, which are the same to transformers. */
static const json_t *get(const source *s, const char *key) {
  const json_t *value = json_object_get(s->root, key);
  return json_is_null(value) ? NULL : value;
}

static ser_status refuse_value(const source *s, const char *key, const char *wanted) {
  char *is = json_dumps(get(s, key), JSON_ENCODE_ANY | JSON_COMPACT), *shown = ser_shown(is ? is : "?");
  ser_fail(s->err, SER_FAILED, "%s: %s is %.100s; %s", s->path, key, shown, wanted);
  free(is);
  free(shown);
  return SER_FAILED;
}

static ser_status read_flag(bool *out, const source *s, const char *key) {
  const json_t *value = get(s, key);
  if (!value) return SER_OK;
  if (!json_is_boolean(value)) return refuse_value(s, key, "it must be true or false");
  *out = json_is_true(value);
  return SER_OK;
}

static ser_status read_integer(int64_t *out, const source *s, const char *key) {
  const json_t *value = get(s, key);
  if (!value) return SER_OK;
  if (!json_is_integer(value)) return refuse_value(s, key, "it must be a whole number");
  *out = (int64_t)json_integer_value(value);
  return SER_OK;
}

/* One of two words, told by whether it is the second. */
static ser_status read_word(bool *second, const source *s, const char *key, const char *one, const char *other) {
  const json_t *value = get(s, key);
  const char *word = json_string_value(value);
  if (!value) return SER_OK;
  *second = word && other && !strcmp(word, other);
  if (*second || (word && !strcmp(word, one))) return SER_OK;
  char *wanted = other
                     ? ser_format("only %s and %s can be computed here; give a model that has one of them", one, other)
                     : ser_format("only %s can be computed here; give a model that has that", one);
  ser_status status = refuse_value(s, key, wanted);
  free(wanted);
  return status;
}

static ser_status read_list(int64_t *out, int64_t *count, const source *s, const char *key) {
  const json_t *value = get(s, key);
  *count = -1;
  if (!value) return SER_OK;
  if (!json_is_array(value) || !json_array_size(value) || json_array_size(value) > SER_ENCODER_CONVS_MOST)
    return refuse_value(s, key, "it must be a list of 1 to 16 whole numbers");
  *count = (int64_t)json_array_size(value);
  for (int64_t i = 0; i < *count; i++) {
    const json_t *item = json_array_get(value, (size_t)i);
    if (!json_is_integer(item)) return refuse_value(s, key, "it must be a list of 1 to 16 whole numbers");
    out[i] = (int64_t)json_integer_value(item);
  }
  return SER_OK;
}

static ser_status read_convs(ser_encoder_config *c, const source *s) {
  static const char *const keys[] = {"conv_dim", "conv_kernel", "conv_stride"};
  int64_t *const lists[] = {c->conv_dim, c->conv_kernel, c->conv_stride};
  int64_t counts[3];
  for (int i = 0; i < 3; i++) {
    SER_TRY(read_list(lists[i], &counts[i], s, keys[i]));
    if (counts[i] < 0) counts[i] = 7; /* the default's */
  }
  if (counts[0] != counts[1] || counts[0] != counts[2])
    return ser_fail(s->err, SER_FAILED,
                    "%s: conv_dim, conv_kernel and conv_stride are of unlike lengths (%d, %d, %d); copy it again",
                    s->path, (int)counts[0], (int)counts[1], (int)counts[2]);
  c->conv_count = counts[0];
  return SER_OK;
}

/* ---- which family ------------------------------------------------------------------------------------------------ */

static ser_status refuse_family(const source *s, const char *name) {
  char *shown = ser_shown(name);
  ser_fail(s->err, SER_FAILED,
           "%s describes a model of the kind %.64s, which is not computed here; give one of wav2vec2's or HuBERT's, as "
           "facebook/wav2vec2-base or facebook/hubert-base-ls960",
           s->path, shown);
  free(shown);
  return SER_FAILED;
}

/* What model_type says, or the name of its class where an older file has no model_type. Classes of relatives whose
 * model_type is wav2vec2's all the same are refused as well. */
static ser_status read_family(ser_encoder_family *family, const source *s) {
  static const char *const others[] = {"Wav2Vec2Conformer", "Wav2Vec2Bert", "WavLM",   "Data2Vec",
                                       "UniSpeech",         "SEW",          "Speech2", NULL};
  const char *type = json_string_value(get(s, "model_type"));
  const char *class = json_string_value(json_array_get(get(s, "architectures"), 0));
  for (int i = 0; class && others[i]; i++)
    if (!strncmp(class, others[i], strlen(others[i]))) return refuse_family(s, class);
  if (!type && class && !strncmp(class, "Wav2Vec2", 8)) type = "wav2vec2";
  if (!type && class && !strncmp(class, "Hubert", 6)) type = "hubert";
  if (!type)
    return ser_fail(s->err, SER_FAILED,
                    "%s names no model_type; give the config.json that belongs to the weights, with the model_type "
                    "wav2vec2 or hubert",
                    s->path);
  for (int i = 0; ser_encoder_family_names[i]; i++) {
    if (strcmp(type, ser_encoder_family_names[i])) continue;
    *family = (ser_encoder_family)i;
    return SER_OK;
  }
  return refuse_family(s, type);
}

/* Parts of a model that would change what it computes. */
static ser_status refuse_parts(const source *s) {
  bool adapter = false, batch_norm = false;
  SER_TRY(read_flag(&adapter, s, "add_adapter"));
  SER_TRY(read_flag(&batch_norm, s, "conv_pos_batch_norm"));
  if (adapter) return refuse_value(s, "add_adapter", "models with adapters are not computed here; give one without");
  if (get(s, "adapter_attn_dim"))
    return refuse_value(s, "adapter_attn_dim", "models with adapters are not computed here; give one without");
  if (batch_norm)
    return refuse_value(s, "conv_pos_batch_norm", "only weight norm is computed there; give a model that has that");
  if (json_object_size(get(s, "pruned_heads")))
    return refuse_value(s, "pruned_heads", "models with heads taken out are not computed here; give the whole one");
  return SER_OK;
}

/* ---- the two files ----------------------------------------------------------------------------------------------- */

static ser_status open_json(source *s, ser_error *err) {
  char *text;
  size_t size;
  json_error_t error;
  SER_TRY(ser_file_read(&text, &size, s->path, err));
  s->root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
  free(text);
  s->err = err;
  if (json_is_object(s->root)) return SER_OK;
  char *shown = ser_shown(s->root ? "it is no object" : error.text);
  ser_fail(err, SER_FAILED, "%s is no JSON that describes anything (line %d: %.100s); copy it again", s->path,
           s->root ? 1 : error.line, shown);
  free(shown);
  json_decref(s->root);
  s->root = NULL;
  return SER_FAILED;
}

static ser_status parse_config(ser_encoder_config *c, const source *s) {
  ser_encoder_family family = SER_ENCODER_WAV2VEC2;
  bool layer = false, ignored;
  SER_TRY(read_family(&family, s));
  ser_encoder_config_default(c, family);
  c->has_config = true;
  SER_TRY(refuse_parts(s));
  SER_TRY(read_word(&ignored, s, "hidden_act", "gelu", NULL));
  SER_TRY(read_word(&ignored, s, "feat_extract_activation", "gelu", NULL));
  SER_TRY(read_word(&layer, s, "feat_extract_norm", "group", "layer"));
  c->feat_extract_norm = layer ? SER_ENCODER_NORM_LAYER : SER_ENCODER_NORM_GROUP;
  SER_TRY(read_convs(c, s));
  SER_TRY(read_flag(&c->conv_bias, s, "conv_bias"));
  if (family == SER_ENCODER_HUBERT) SER_TRY(read_flag(&c->feat_proj_layer_norm, s, "feat_proj_layer_norm"));
  SER_TRY(read_integer(&c->hidden_size, s, "hidden_size"));
  SER_TRY(read_integer(&c->num_hidden_layers, s, "num_hidden_layers"));
  SER_TRY(read_integer(&c->num_attention_heads, s, "num_attention_heads"));
  SER_TRY(read_integer(&c->intermediate_size, s, "intermediate_size"));
  SER_TRY(read_integer(&c->num_conv_pos_embeddings, s, "num_conv_pos_embeddings"));
  SER_TRY(read_integer(&c->num_conv_pos_embedding_groups, s, "num_conv_pos_embedding_groups"));
  SER_TRY(read_flag(&c->do_stable_layer_norm, s, "do_stable_layer_norm"));
  SER_TRY(read_flag(&c->random_weights, s, "serenade.random_weights"));
  if (get(s, "layer_norm_eps")) {
    if (!json_is_number(get(s, "layer_norm_eps"))) return refuse_value(s, "layer_norm_eps", "it must be a number");
    c->layer_norm_eps = json_number_value(get(s, "layer_norm_eps"));
  }
  return ser_encoder_config_check(c, s->path, s->err);
}

/* The feature extractor's settings. Newer releases put them into an object of processor_config.json. */
static ser_status parse_preprocessor(ser_encoder_config *c, const source *s) {
  int64_t size = 1;
  const char *type = json_string_value(get(s, "feature_extractor_type"));
  if (type && strcmp(type, "Wav2Vec2FeatureExtractor"))
    return refuse_value(s, "feature_extractor_type", "only Wav2Vec2FeatureExtractor is known here");
  SER_TRY(read_integer(&c->sampling_rate, s, "sampling_rate"));
  SER_TRY(read_integer(&size, s, "feature_size"));
  if (c->sampling_rate != 16000)
    return refuse_value(s, "sampling_rate", "only 16000 is computed here; give a model that was trained on that");
  if (size != 1) return refuse_value(s, "feature_size", "only 1 is computed here");
  SER_TRY(read_flag(&c->do_normalize, s, "do_normalize"));
  SER_TRY(read_flag(&c->return_attention_mask, s, "return_attention_mask"));
  c->has_preprocessor = true;
  return SER_OK;
}

static ser_status read_preprocessor(ser_encoder_config *c, const char *path, const char *part, ser_error *err) {
  source s = {.path = path};
  if (c->has_preprocessor || !ser_file_exists(path)) return SER_OK;
  SER_TRY(open_json(&s, err));
  json_t *whole = s.root;
  ser_status status = SER_OK;
  if (part) s.root = json_object_get(whole, part);
  if (json_is_object(s.root)) status = parse_preprocessor(c, &s);
  json_decref(whole);
  return status;
}

ser_status ser_encoder_config_read(ser_encoder_config *config, const char *folder, ser_error *err) {
  char *path = ser_path_join(folder, "config.json"), *pre = ser_path_join(folder, "preprocessor_config.json");
  char *joint = ser_path_join(folder, "processor_config.json");
  source s = {.path = path};
  ser_status status = SER_OK;
  ser_encoder_config_default(config, SER_ENCODER_WAV2VEC2);
  if (ser_file_exists(path)) {
    SER_TRY_DONE(open_json(&s, err));
    status = parse_config(config, &s);
    json_decref(s.root);
  }
  if (status == SER_OK) status = read_preprocessor(config, pre, NULL, err);
  if (status == SER_OK) status = read_preprocessor(config, joint, "feature_extractor", err);
done:
  free(path);
  free(pre);
  free(joint);
  return status;
}

/* ---- what fits together ------------------------------------------------------------------------------------------ */

static ser_status check_ranges(const ser_encoder_config *c, const char *where, ser_error *err) {
  const struct {
    const char *name;
    int64_t value, most;
  } rows[] = {{"hidden_size", c->hidden_size, 8192},
              {"num_hidden_layers", c->num_hidden_layers, 128},
              {"num_attention_heads", c->num_attention_heads, 256},
              {"intermediate_size", c->intermediate_size, 65536},
              {"num_conv_pos_embeddings", c->num_conv_pos_embeddings, 1024},
              {"num_conv_pos_embedding_groups", c->num_conv_pos_embedding_groups, 8192}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (rows[i].value < 1 || rows[i].value > rows[i].most)
      return ser_fail(err, SER_FAILED, "%s: %s is %lld; it must be from 1 to %lld", where, rows[i].name,
                      (long long)rows[i].value, (long long)rows[i].most);
  for (int64_t i = 0; i < c->conv_count; i++)
    if (c->conv_dim[i] < 1 || c->conv_dim[i] > 4096 || c->conv_kernel[i] < 1 || c->conv_kernel[i] > 1024 ||
        c->conv_stride[i] < 1 || c->conv_stride[i] > c->conv_kernel[i])
      return ser_fail(err, SER_FAILED,
                      "%s: convolution %lld has %lld channels, kernel %lld, stride %lld; there must be 1 to 4096 "
                      "channels, a kernel of 1 to 1024 and a stride no larger than that",
                      where, (long long)i, (long long)c->conv_dim[i], (long long)c->conv_kernel[i],
                      (long long)c->conv_stride[i]);
  if (!(c->layer_norm_eps > 0) || c->layer_norm_eps > 0.1)
    return ser_fail(err, SER_FAILED, "%s: layer_norm_eps is %g; it must be above 0 and at most 0.1", where,
                    c->layer_norm_eps);
  return SER_OK;
}

ser_status ser_encoder_config_check(const ser_encoder_config *c, const char *where, ser_error *err) {
  SER_TRY(check_ranges(c, where, err));
  if (c->hidden_size % c->num_attention_heads)
    return ser_fail(err, SER_FAILED, "%s: %lld heads do not divide a hidden_size of %lld; copy it again", where,
                    (long long)c->num_attention_heads, (long long)c->hidden_size);
  if (c->hidden_size % c->num_conv_pos_embedding_groups)
    return ser_fail(err, SER_FAILED,
                    "%s: num_conv_pos_embedding_groups %lld does not divide a hidden_size of %lld; copy it again",
                    where, (long long)c->num_conv_pos_embedding_groups, (long long)c->hidden_size);
  if (ser_encoder_field(c) > 160000)
    return ser_fail(err, SER_FAILED, "%s: its convolutions need %lld samples for a frame, beyond ten seconds", where,
                    (long long)ser_encoder_field(c));
  return SER_OK;
}

int64_t ser_encoder_frames(const ser_encoder_config *config, int64_t samples) {
  for (int64_t i = 0; i < config->conv_count; i++) {
    if (samples < config->conv_kernel[i]) return 0;
    samples = (samples - config->conv_kernel[i]) / config->conv_stride[i] + 1;
  }
  return samples;
}

int64_t ser_encoder_field(const ser_encoder_config *config) {
  int64_t field = 1;
  for (int64_t i = config->conv_count; i-- > 0;) {
    if (field > INT32_MAX) return field; /* 16 convolutions of stride 1024 would go beyond 64 bits */
    field = (field - 1) * config->conv_stride[i] + config->conv_kernel[i];
  }
  return field;
}

int64_t ser_encoder_hop(const ser_encoder_config *config) {
  int64_t hop = 1;
  for (int64_t i = 0; i < config->conv_count; i++) hop *= config->conv_stride[i];
  return hop;
}
