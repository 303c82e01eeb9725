/* Which files of a folder are an encoder's, and what an encoder without config.json is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/file.h"
#include "base/wanted.h"
#include "model/encoder/parameters.h"

const char ser_encoder_files_wanted[] =
    "a folder with config.json, preprocessor_config.json, and model.safetensors or pytorch_model.bin, as the Hugging "
    "Face hub has them for facebook/wav2vec2-base or facebook/hubert-base-ls960";

/* What may lie there, the best first; the others are told apart in messages. */
static const char *const readable[] = {"model.safetensors", "pytorch_model.bin"};
static const char *const unreadable[][2] = {
    {"model.safetensors.index.json", "weights in several parts; save them as one model.safetensors"},
    {"pytorch_model.bin.index.json", "weights in several parts; save them as one pytorch_model.bin"},
    {"tf_model.h5", "TensorFlow's weights alone; put model.safetensors or pytorch_model.bin there"},
    {"flax_model.msgpack", "Flax's weights alone; put model.safetensors or pytorch_model.bin there"}};

static bool holds(const char *folder, const char *name) {
  char *path = ser_path_join(folder, name);
  bool there = ser_file_exists(path) && !ser_is_folder(path);
  free(path);
  return there;
}

ser_status ser_encoder_files(char **file, char **folder, const char *path, ser_error *err) {
  if (!ser_is_folder(path)) {
    SER_TRY(ser_want_file(path, ser_encoder_files_wanted, err));
    *file = ser_strdup(path);
    *folder = ser_path_folder(path);
    return SER_OK;
  }
  for (size_t i = 0; i < sizeof readable / sizeof *readable; i++) {
    if (!holds(path, readable[i])) continue;
    *file = ser_path_join(path, readable[i]);
    *folder = ser_strdup(path);
    return SER_OK;
  }
  for (size_t i = 0; i < sizeof unreadable / sizeof *unreadable; i++)
    if (holds(path, unreadable[i][0]))
      return ser_fail(err, SER_FAILED, "%s holds %s (%s)", path, unreadable[i][1], unreadable[i][0]);
  return ser_fail(err, SER_FAILED, "%s holds %sno model.safetensors and no pytorch_model.bin; what is wanted is %s",
                  path, holds(path, "config.json") ? "a config.json, but " : "", ser_encoder_files_wanted);
}

/* Whether config.json in the folder names a kind of model, as transformers' all do. */
static bool has_kind(const char *folder) {
  char *path = ser_path_join(folder, "config.json");
  json_t *root = ser_is_folder(path) ? NULL : json_load_file(path, 0, NULL);
  bool has =
      json_is_string(json_object_get(root, "model_type")) || json_is_array(json_object_get(root, "architectures"));
  json_decref(root);
  free(path);
  return has;
}

static bool file_is_there(const char *path, bool *ours) {
  ser_weights file;
  bool is = false;
  *ours = false;
  if (ser_weights_open(&file, path, NULL) != SER_OK) {
    /* One that cannot be taken all the same: what is wrong with it is for the reader of that format to say. */
    FILE *handle = fopen(path, "rb");
    unsigned char head[4] = {0};
    bool pytorch = handle && fread(head, 1, 4, handle) == 4 &&
                   (!memcmp(head, "PK\3\4", 4) || !memcmp(head, "\x80\x02\x8a\x0a", 4));
    if (handle) fclose(handle);
    return pytorch;
  }
  *ours = ser_weights_metadata(&file, "serenade_model") != NULL;
  is = !*ours && strcmp(file.format, "safetensors");
  for (size_t i = 0; i < file.count && !is && !*ours; i++)
    is = strstr(file.tensors[i].name, "feature_extractor.conv_layers.0.conv.weight") != NULL;
  ser_weights_close(&file);
  return is;
}

bool ser_encoder_is_there(const char *path) {
  bool ours = false, is = false;
  if (ser_is_folder(path)) {
    char *model = ser_path_join(path, readable[0]);
    if (holds(path, readable[0])) is = file_is_there(model, &ours);
    free(model);
    return is || (!ours && (has_kind(path) || holds(path, readable[1])));
  }
  if (!ser_file_exists(path)) return false;
  char *folder = ser_path_folder(path);
  is = file_is_there(path, &ours) || (!ours && has_kind(folder));
  free(folder);
  return is;
}

/* ---- without config.json ----------------------------------------------------------------------------------------- */

/* Heads and the order of the norms leave no trace in the shapes. These are public models, whose sizes are no others'.
 */
static const struct {
  int64_t hidden, layers, intermediate;
  ser_encoder_norm norm;
  bool stable;
  int64_t heads;
} public_models[] = {{768, 12, 3072, SER_ENCODER_NORM_GROUP, false, 12},  /* wav2vec2-base, hubert-base-ls960 */
                     {1024, 24, 4096, SER_ENCODER_NORM_GROUP, false, 16}, /* wav2vec2-large */
                     {1024, 24, 4096, SER_ENCODER_NORM_LAYER, true, 16}}; /* -large-lv60, xlsr-53, hubert-large */

static int64_t size_of(const ser_weights *file, const char *prefix, const char *name, int dimension) {
  const ser_weight *found = ser_encoder_find(file, prefix, name);
  return found && found->dimensions > dimension ? found->shape[dimension] : 0;
}

/* The convolutions must be the usual ones, too: strides leave no trace either. */
static bool usual_front(ser_encoder_config *c, const ser_weights *file, const char *prefix) {
  for (int64_t i = 0; i <= c->conv_count; i++) {
    char *name = ser_format("feature_extractor.conv_layers.%d.conv.weight", (int)i);
    int64_t dim = size_of(file, prefix, name, 0), kernel = size_of(file, prefix, name, 2);
    free(name);
    if (i < c->conv_count ? dim != c->conv_dim[i] || kernel != c->conv_kernel[i] : dim != 0) return false;
  }
  c->conv_bias = ser_encoder_find(file, prefix, "feature_extractor.conv_layers.0.conv.bias") != NULL;
  if (ser_encoder_find(file, prefix, "feature_extractor.conv_layers.1.layer_norm.weight"))
    c->feat_extract_norm = SER_ENCODER_NORM_LAYER;
  return true;
}

ser_status ser_encoder_infer(ser_encoder_config *config, const ser_weights *file, const char *prefix, ser_error *err) {
  const ser_encoder_config told = *config;
  int64_t layers = 0;
  ser_encoder_config_default(config, strstr(prefix, "hubert.") ? SER_ENCODER_HUBERT : SER_ENCODER_WAV2VEC2);
  config->do_normalize = told.do_normalize;
  config->return_attention_mask = told.return_attention_mask;
  config->has_preprocessor = told.has_preprocessor;
  bool usual = usual_front(config, file, prefix);
  for (bool more = true; more; layers += more) {
    char *name = ser_format("encoder.layers.%d.layer_norm.weight", (int)layers);
    more = ser_encoder_find(file, prefix, name) != NULL;
    free(name);
  }
  int64_t hidden = size_of(file, prefix, "feature_projection.projection.weight", 0);
  int64_t middle = size_of(file, prefix, "encoder.layers.0.feed_forward.intermediate_dense.weight", 0);
  for (size_t i = 0; usual && i < sizeof public_models / sizeof *public_models; i++) {
    if (public_models[i].hidden != hidden || public_models[i].layers != layers ||
        public_models[i].intermediate != middle || public_models[i].norm != config->feat_extract_norm)
      continue;
    config->hidden_size = hidden;
    config->num_hidden_layers = layers;
    config->intermediate_size = middle;
    config->num_attention_heads = public_models[i].heads;
    config->do_stable_layer_norm = public_models[i].stable;
    return SER_OK;
  }
  return ser_fail(
      err, SER_FAILED,
      "there is no config.json beside %s, and its tensors are of no public wav2vec2 or HuBERT model's sizes; "
      "put the model's config.json there: heads, strides and the order of norms stand nowhere else",
      file->path);
}
