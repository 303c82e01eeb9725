/* The configuration of a feature as canonical JSON: what its bytes depend on and nothing else, so that its hash names
 * the cache's folder. The model's window (frames) and the machine are no part of it. */
#include "features/features.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

/* Counted up when the same parameters come to mean other numbers: old caches and model files are then told apart. */
enum { FEATURE_VERSION = 1 };

int64_t ser_feature_columns(const ser_mfcc_config *config) {
  return config->coefficients * (config->deltas ? 3 : 1);
}

int64_t ser_feature_min_frames(const ser_mfcc_config *config) {
  return config->deltas ? 9 : 1;
}

char *ser_feature_json(ser_feature_kind kind, const ser_mfcc_config *config) {
  return ser_format("{\"coefficients\":%lld,\"deltas\":%s,\"feature\":\"%s\",\"hop\":%lld,\"mels\":%lld,"
                    "\"n_fft\":%lld,\"rate\":%lld,\"samples\":%lld,\"version\":%d}",
                    (long long)config->coefficients, config->deltas ? "true" : "false", ser_feature_names[kind],
                    (long long)config->hop, (long long)config->mels, (long long)config->n_fft, (long long)config->rate,
                    (long long)config->samples, FEATURE_VERSION);
}

static ser_status parse_integer(int64_t *out, const json_t *root, const char *key, ser_error *err) {
  const json_t *value = json_object_get(root, key);
  if (!json_is_integer(value))
    return ser_fail(err, SER_FAILED, "feature configuration: %s is %s; extract or train again", key,
                    value ? "no whole number" : "missing");
  *out = json_integer_value(value);
  return SER_OK;
}

static ser_status parse_kind(ser_feature_kind *kind, const json_t *root, ser_error *err) {
  const char *name = json_string_value(json_object_get(root, "feature"));
  for (int i = SER_MFCC39; name && i <= SER_TIMNET; i++) {
    if (strcmp(name, ser_feature_names[i])) continue;
    *kind = (ser_feature_kind)i;
    return SER_OK;
  }
  return ser_fail(err, SER_FAILED,
                  "feature configuration: feature is %s, not mfcc39 or timnet; use the version of Serenade that wrote "
                  "it, or extract and train again",
                  name ? name : "missing");
}

/* What a file says is held to the table of parameters as what a user says is: its sizes are believed from here on. */
static ser_status check_ranges(ser_feature_kind kind, const ser_mfcc_config *found, ser_error *err) {
  const struct {
    const char *key;
    int64_t value;
  } keys[] = {{"rate", found->rate},
              {"n_fft", found->n_fft},
              {"hop", found->hop},
              {"mels", found->mels},
              {"coefficients", found->coefficients},
              {"samples", found->samples}};
  ser_config config;
  ser_error inner = {0};
  ser_config_init(&config);
  ser_status status = SER_OK;
  for (size_t i = 0; i < sizeof keys / sizeof *keys && status == SER_OK; i++) {
    char *assignment =
        ser_format("features.%s.%s=%lld", ser_feature_names[kind], keys[i].key, (long long)keys[i].value);
    status = ser_config_set(&config, assignment, &inner);
    free(assignment);
  }
  if (status == SER_OK) status = ser_config_check(&config, &inner);
  ser_config_free(&config);
  if (status == SER_OK) return SER_OK;
  return ser_fail(err, SER_FAILED, "feature configuration: %s; extract or train again", inner.text);
}

static ser_status parse_object(ser_feature_kind *kind, ser_mfcc_config *config, const json_t *root, ser_error *err) {
  int64_t version = 0;
  SER_TRY(parse_kind(kind, root, err));
  SER_TRY(parse_integer(&version, root, "version", err));
  if (version != FEATURE_VERSION)
    return ser_fail(err, SER_FAILED,
                    "feature configuration: version is %lld, this Serenade knows %d; use the version of Serenade that "
                    "wrote it, or extract and train again",
                    (long long)version, FEATURE_VERSION);
  SER_TRY(parse_integer(&config->rate, root, "rate", err));
  SER_TRY(parse_integer(&config->n_fft, root, "n_fft", err));
  SER_TRY(parse_integer(&config->hop, root, "hop", err));
  SER_TRY(parse_integer(&config->mels, root, "mels", err));
  SER_TRY(parse_integer(&config->coefficients, root, "coefficients", err));
  SER_TRY(parse_integer(&config->samples, root, "samples", err));
  const json_t *deltas = json_object_get(root, "deltas");
  if (!json_is_boolean(deltas))
    return ser_fail(err, SER_FAILED, "feature configuration: deltas is %s; extract or train again",
                    deltas ? "neither true nor false" : "missing");
  config->deltas = json_is_true(deltas);
  return check_ranges(*kind, config, err);
}

ser_status ser_feature_parse(ser_feature_kind *kind, ser_mfcc_config *config, const char *json, ser_error *err) {
  memset(config, 0, sizeof *config);
  json_error_t where;
  json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, &where);
  if (!root)
    return ser_fail(err, SER_FAILED, "feature configuration: no JSON (line %d, column %d: %s); extract or train again",
                    where.line, where.column, where.text);
  ser_status status = parse_object(kind, config, root, err);
  json_decref(root);
  return status;
}
