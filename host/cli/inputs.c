/* What the results of a run depend on, as hashes: settings and usable recordings, without what changes no number. */
#include <stdlib.h>
#include <string.h>

#include "cli/stages.h"

static void replace(char **text, const char *by) {
  char *copy = ser_strdup(by);
  free(*text);
  *text = copy;
}

/* Sets to the defaults what changes no result: places, devices, workers, the features that the model does not read,
 * and what the manifest's rows or predict already show. */
static ser_status neutral_config(ser_config *config, ser_error *err) {
  ser_config plain;
  ser_config_init(&plain);
  for (int i = 0; i < SER_CORPORA; i++) replace(&config->corpora[i], "");
  replace(&config->cache_dir, "");
  config->audit = plain.audit;
  config->device = plain.device;
  config->threads = plain.threads;
  config->jobs = plain.jobs;
  config->train.epochs = plain.train.epochs;
  config->train.seeds.count = 0;
  config->predict.window = plain.predict.window;
  config->predict.hop = plain.predict.hop;
  if (config->features.kind != SER_MFCC39) config->features.mfcc39 = plain.features.mfcc39;
  if (config->features.kind != SER_TIMNET) config->features.timnet = plain.features.timnet;
  ser_config_free(&plain);
  if (!*config->split.file) return SER_OK;
  ser_hash hash;
  char hex[SER_HASH_HEX];
  SER_TRY(ser_hash_file(&hash, config->split.file, err));
  ser_hash_hex(hex, &hash);
  replace(&config->split.file, hex);
  return SER_OK;
}

/* The usable rows in their order, which is the order of the clips in a training. Where the corpora lie is no matter
 * while that order stays. */
static void rows_text(ser_text *text, const ser_manifest *manifest) {
  static const ser_hash none = {{0}};
  for (size_t i = 0; i < manifest->count; i++) {
    const ser_row *row = &manifest->rows[i];
    char digits[SER_HASH_HEX];
    if (!ser_row_usable(row)) continue;
    ser_hash_hex(digits, &row->hash);
    bool hashed = ser_hash_compare(&row->hash, &none) != 0; /* without, a split is drawn by the path */
    ser_text_printf(text, "%s\t%s\t%s\t%s\t%d\n", hashed ? digits : row->path, row->corpus, row->speaker, row->sex,
                    row->emotion);
  }
}

static void hash_text(char hex[SER_HASH_HEX], const ser_text *text) {
  ser_hash hash = ser_hash_bytes(text->data, text->size);
  ser_hash_hex(hex, &hash);
}

ser_status cli_inputs_make(cli_inputs *inputs, const ser_config *config, const ser_manifest *manifest, ser_error *err) {
  ser_text text = {0};
  ser_config neutral;
  ser_config_copy(&neutral, config);
  ser_status status = neutral_config(&neutral, err);
  if (status == SER_OK) ser_config_write(&text, &neutral);
  ser_config_free(&neutral);
  rows_text(&text, manifest);
  hash_text(inputs->recipe, &text);
  for (int64_t i = 0; i < config->train.seeds.count; i++)
    ser_text_printf(&text, "seed %lld\n", (long long)config->train.seeds.values[i]);
  hash_text(inputs->training, &text);
  text.size = 0;
  ser_text_printf(&text, "predict %.17g %.17g\n", config->predict.window, config->predict.hop);
  ser_manifest_usable_text(&text, manifest);
  hash_text(inputs->named, &text);
  free(text.data);
  return status;
}
