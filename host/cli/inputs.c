/* What the results of a run depend on, as hashes: settings and usable recordings, without what changes no number; and,
 * in words, what of it is other than it was. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/stages.h"
#include "train/train.h"

static void replace(char **text, const char *by) {
  char *copy = ser_strdup(by);
  free(*text);
  *text = copy;
}

/* Sets to the defaults what changes no result: places, devices, workers, the features that the model does not read,
 * and what the manifest's rows or predict already show. */
static void make_neutral(ser_config *config) {
  ser_config plain;
  ser_config_init(&plain);
  for (int i = 0; i < SER_CORPORA; i++) replace(&config->corpora[i], "");
  replace(&config->cache_dir, "");
  config->audit = plain.audit;
  config->device = plain.device;
  config->threads = plain.threads;
  config->jobs = plain.jobs;
  config->train.epochs = plain.train.epochs;
  config->predict.window = plain.predict.window;
  config->predict.hop = plain.predict.hop;
  if (config->features.kind != SER_MFCC39) config->features.mfcc39 = plain.features.mfcc39;
  if (config->features.kind != SER_TIMNET) config->features.timnet = plain.features.timnet;
  ser_config_free(&plain);
}

/* A given split by what it holds, not by its place. */
static ser_status read_split(ser_config *config, ser_error *err) {
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
  make_neutral(&neutral);
  neutral.train.seeds.count = 0;
  ser_status status = read_split(&neutral, err);
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

/* ---- what has changed --------------------------------------------------------------------------------------------
 */

/* The configuration that the training in RUN was begun with; false where its config.yaml does not tell. */
static bool read_old(ser_config *old, const cli_run *run) {
  char *path = ser_path_join(run->folder, "config.yaml");
  ser_hash hash;
  char hex[SER_HASH_HEX] = "";
  bool read = ser_file_exists(path) && ser_config_read(old, path, NULL) == SER_OK;
  if (read && *run->config && ser_hash_file(&hash, path, NULL) == SER_OK) ser_hash_hex(hex, &hash);
  free(path);
  return read && !strcmp(hex, run->config);
}

static bool same_split(const ser_config *a, const ser_config *b) {
  ser_hash one, other;
  return *a->split.file && *b->split.file && ser_hash_file(&one, a->split.file, NULL) == SER_OK &&
         ser_hash_file(&other, b->split.file, NULL) == SER_OK && !ser_hash_compare(&one, &other);
}

static size_t count_usable(const ser_manifest *manifest) {
  size_t count = 0;
  for (size_t i = 0; i < manifest->count; i++) count += ser_row_usable(&manifest->rows[i]);
  return count;
}

static void add_recordings(ser_text *text, const cli_run *run, const ser_config *config, const ser_manifest *manifest) {
  char *path = ser_path_join(run->folder, "manifest.csv");
  ser_manifest old;
  ser_manifest_init(&old);
  bool known = ser_file_exists(path) && ser_manifest_read(&old, path, NULL) == SER_OK;
  size_t then = count_usable(&old), now = count_usable(manifest);
  if (text->size) ser_text_puts(text, "; ");
  if (known && then != now)
    ser_text_printf(text, "usable recordings: %zu -> %zu", then, now);
  else
    ser_text_printf(text, "other recordings, labels or speakers%s",
                    config->split.kind == SER_SPLIT_FILE ? ", or another split in the file" : "");
  ser_manifest_free(&old);
  free(path);
}

char *cli_changes(const cli_run *run, const ser_config *config, const ser_manifest *manifest) {
  enum { MOST = 4 };
  ser_text text = {0};
  ser_config old, now;
  cli_inputs inputs;
  ser_config_init(&old);
  ser_config_copy(&now, config);
  bool known = read_old(&old, run);
  /* Were it for the settings alone, the old ones and these recordings would be what the training was made from. */
  bool settings =
      known && cli_inputs_make(&inputs, &old, manifest, NULL) == SER_OK && !strcmp(inputs.training, run->training);
  make_neutral(&old);
  make_neutral(&now);
  if (same_split(&old, &now)) replace(&old.split.file, now.split.file);
  if (config->settled == SER_DEVICE_CPU && ser_run_of_cpu(run->folder)) old.conv = now.conv; /* no change there */
  if (known) ser_config_changes(&text, &old, &now, MOST);
  if (known && !settings) add_recordings(&text, run, config, manifest);
  if (!known) ser_text_puts(&text, "which is not known, since its config.yaml is gone or was edited");
  ser_config_free(&old);
  ser_config_free(&now);
  return text.data;
}
