/* What is kept of an encoder's hidden states, from the user's words and as canonical JSON. */
#include "features/embed.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

/* Counted up when the same configuration comes to mean other numbers. */
enum { EMBED_VERSION = 1 };

static const char *const pool_names[] = {"mean", "mean+std", "none"};

ser_status ser_embed_configure(ser_embed_config *embed, const ser_encoder_weights *weights, const ser_config *config,
                               ser_error *err) {
  const ser_encoder_config *c = &weights->config;
  const char *layers = config->wav2vec2.layers;
  int64_t last = c->num_hidden_layers;
  *embed = (ser_embed_config){.encoder = weights->hash,
                              .random_weights = c->random_weights,
                              .normalize = c->do_normalize,
                              .rate = c->sampling_rate,
                              .hidden = c->hidden_size,
                              .encoder_layers = last,
                              .pool = config->wav2vec2.pool};
  if (config->wav2vec2.normalize != SER_NORMALIZE_AUTO)
    embed->normalize = config->wav2vec2.normalize == SER_NORMALIZE_YES;
  long number = strcmp(layers, "last") ? strtol(layers, NULL, 10) : (long)last;
  if (!strcmp(layers, "all"))
    embed->layers = ~0ull >> (63 - last);
  else if (number <= last)
    embed->layers = 1ull << number;
  else
    return ser_config_refuse(err, config, "wav2vec2.layers",
                             "wav2vec2.layers is %ld, but %s has %lld layers; name one of them, or 0 for what goes "
                             "into the first",
                             number, weights->file.path, (long long)last);
  return SER_OK;
}

int64_t ser_embed_layers(const ser_embed_config *config) {
  int64_t count = 0;
  for (uint64_t left = config->layers; left; left &= left - 1) count++;
  return count;
}

int64_t ser_embed_columns(const ser_embed_config *config) {
  return config->hidden * (config->pool == SER_EMBED_MEAN_STD ? 2 : 1);
}

char *ser_embed_json(const ser_embed_config *config) {
  char hex[SER_HASH_HEX];
  ser_text layers = {0};
  ser_hash_hex(hex, &config->encoder);
  for (int i = 0; i <= config->encoder_layers; i++)
    if (config->layers >> i & 1) ser_text_printf(&layers, "%s%d", layers.size ? "," : "", i);
  char *json = ser_format("{\"encoder\":\"%s\",\"encoder_layers\":%lld,\"feature\":\"wav2vec2\",\"hidden\":%lld,"
                          "\"layers\":[%s],\"normalize\":%s,\"pool\":\"%s\",\"random_weights\":%s,\"rate\":%lld,"
                          "\"version\":%d}",
                          hex, (long long)config->encoder_layers, (long long)config->hidden, layers.data,
                          config->normalize ? "true" : "false", pool_names[config->pool],
                          config->random_weights ? "true" : "false", (long long)config->rate, EMBED_VERSION);
  free(layers.data);
  return json;
}

static ser_status wrong(ser_error *err, const char *key) {
  return ser_fail(err, SER_FAILED,
                  "configuration of embeddings: %s is missing or not what this Serenade knows; use the version that "
                  "wrote it, or extract again",
                  key);
}

static ser_status parse_integer(int64_t *out, const json_t *root, const char *key, int64_t least, int64_t most,
                                ser_error *err) {
  const json_t *value = json_object_get(root, key);
  *out = json_integer_value(value);
  return json_is_integer(value) && *out >= least && *out <= most ? SER_OK : wrong(err, key);
}

static ser_status parse_bool(bool *out, const json_t *root, const char *key, ser_error *err) {
  const json_t *value = json_object_get(root, key);
  *out = json_is_true(value);
  return json_is_boolean(value) ? SER_OK : wrong(err, key);
}

static ser_status parse_layers(ser_embed_config *config, const json_t *root, ser_error *err) {
  const json_t *list = json_object_get(root, "layers"), *value;
  size_t i;
  config->layers = 0;
  json_array_foreach(list, i, value) {
    json_int_t layer = json_integer_value(value);
    if (!json_is_integer(value) || layer < 0 || layer > config->encoder_layers) return wrong(err, "layers");
    config->layers |= 1ull << layer;
  }
  return config->layers ? SER_OK : wrong(err, "layers");
}

static ser_status parse_object(ser_embed_config *config, const json_t *root, ser_error *err) {
  int64_t version;
  const char *feature = json_string_value(json_object_get(root, "feature"));
  const char *hash = json_string_value(json_object_get(root, "encoder"));
  const char *pool = json_string_value(json_object_get(root, "pool"));
  if (!feature || strcmp(feature, ser_feature_names[SER_WAV2VEC2])) return wrong(err, "feature");
  SER_TRY(parse_integer(&version, root, "version", EMBED_VERSION, EMBED_VERSION, err));
  if (!hash || !ser_hash_parse(&config->encoder, hash)) return wrong(err, "encoder");
  SER_TRY(parse_integer(&config->rate, root, "rate", 4000, 192000, err));
  SER_TRY(parse_integer(&config->hidden, root, "hidden", 1, 1 << 16, err));
  SER_TRY(parse_integer(&config->encoder_layers, root, "encoder_layers", 1, 63, err));
  SER_TRY(parse_layers(config, root, err));
  SER_TRY(parse_bool(&config->normalize, root, "normalize", err));
  SER_TRY(parse_bool(&config->random_weights, root, "random_weights", err));
  for (int i = 0; pool && i <= SER_EMBED_FRAMES; i++) {
    if (strcmp(pool, pool_names[i])) continue;
    config->pool = (ser_embed_pool)i;
    return SER_OK;
  }
  return wrong(err, "pool");
}

ser_status ser_embed_parse(ser_embed_config *config, const char *json, ser_error *err) {
  memset(config, 0, sizeof *config);
  json_error_t where;
  json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, &where);
  if (!root)
    return ser_fail(err, SER_FAILED, "configuration of embeddings: no JSON (line %d, column %d: %s); extract again",
                    where.line, where.column, where.text);
  ser_status status = parse_object(config, root, err);
  json_decref(root);
  return status;
}
