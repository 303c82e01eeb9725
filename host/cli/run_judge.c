/* What a run.json that is missing or damaged said, found out again from what else stands in RUN: the inputs from
 * config.yaml and manifest.csv, shown to be those of the models by what each model says of itself (the hashes of the
 * manifest and the split, the seed, the labels, the features, the model's settings) and by the settings that each
 * checkpoint holds; the end of the training from the models and checkpoints. Either may be edited: settings of train.*
 * stand in checkpoints alone, so of a model without one only the others can be compared. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/stages.h"
#include "train/train.h"

typedef struct {
  ser_config config;     /* RUN/config.yaml */
  ser_manifest manifest; /* RUN/manifest.csv */
  ser_split split;       /* the one that both give */
  ser_run_parts parts;
  char manifest_hash[SER_HASH_HEX], split_hash[SER_HASH_HEX];
  int64_t models;             /* files that are there of them */
  bool fits, finished, named; /* all models are of these inputs; all are there and done; they hold predict.* as it is */
} judgement;

/* False where something is missing or cannot be read; why is no matter, since it shows nothing then. */
static bool read_inputs(judgement *j, const char *folder) {
  ser_text text = {0};
  char *config = ser_path_join(folder, "config.yaml"), *manifest = ser_path_join(folder, "manifest.csv");
  bool read = ser_file_exists(config) && ser_config_read(&j->config, config, NULL) == SER_OK &&
              ser_file_exists(manifest) && ser_manifest_read(&j->manifest, manifest, NULL) == SER_OK &&
              ser_split_make(&j->split, &j->manifest, &j->config, NULL) == SER_OK;
  if (read) {
    ser_split_text(&text, &j->split, &j->manifest);
    ser_hash hash = ser_hash_bytes(text.data, text.size);
    ser_hash_hex(j->split_hash, &hash);
    ser_manifest_usable_hash(j->manifest_hash, &j->manifest);
    ser_run_parts_make(&j->parts, &j->config, folder, j->split.folds);
  }
  free(text.data);
  free(config);
  free(manifest);
  return read;
}

/* config.yaml and split.txt as the training leaves them: the file that is there, where it is whole, and what the split
 * has to tell. What is not known is written again. */
static void note_files(cli_run *run, const judgement *j) {
  char *path = ser_path_join(run->folder, "config.yaml"), *bytes = NULL;
  size_t size = 0;
  ser_text text = {0};
  ser_hash hash;
  ser_config_write(&text, &j->config);
  if (ser_file_read(&bytes, &size, path, NULL) == SER_OK && size > text.size && !memcmp(bytes, text.data, text.size)) {
    hash = ser_hash_bytes(bytes, size);
    ser_hash_hex(run->config, &hash);
  }
  if (j->split.made.size) {
    hash = ser_hash_bytes(j->split.made.data, j->split.made.size);
    ser_hash_hex(run->notes, &hash);
  }
  free(bytes);
  free(text.data);
  free(path);
}

static bool same_features(const ser_model_info *model, const ser_config *config) {
  ser_feature_kind kind = config->features.kind;
  char *one = ser_feature_json(model->feature, &model->mfcc);
  char *other = ser_feature_json(kind, ser_config_mfcc(config, kind));
  bool same = model->feature == kind && !strcmp(one, other);
  free(one);
  free(other);
  return same;
}

static bool same_model(const ser_model_config *a, const ser_model_config *b) {
  return a->branch == b->branch && a->blocks == b->blocks && a->filters == b->filters && a->kernel == b->kernel &&
         a->channels == b->channels && a->frames == b->frames && a->classes == b->classes && a->dropout == b->dropout &&
         a->residual == b->residual && a->pool == b->pool;
}

/* Whether what the model says of itself is what the configuration and the manifest would have made of it. */
static bool model_fits(const judgement *j, const ser_model_info *model, size_t part) {
  const ser_config *c = &j->config;
  ser_model_config asked =
      ser_training_model(c, ser_feature_columns(ser_config_mfcc(c, c->features.kind)), c->emotions);
  bool fits = !strcmp(model->manifest_hash, j->manifest_hash) && !strcmp(model->split_hash, j->split_hash) &&
              model->seed == j->parts.seeds[part] && model->fold == j->parts.folds[part] &&
              model->epoch <= c->train.epochs && same_model(&model->model, &asked) && same_features(model, c);
  for (int i = 0; fits && i < c->emotions; i++) fits = model->emotions[i] == i;
  return fits;
}

static void look_at_part(judgement *j, size_t part) {
  const char *folder = j->parts.folders[part];
  char *path = ser_path_join(folder, "model.safetensors"), *checkpoint = ser_path_join(folder, "checkpoint");
  ser_model_info model;
  if (ser_file_exists(checkpoint)) {
    bool fits, over;
    ser_checkpoint_judge(&fits, &over, checkpoint, &j->config, j->parts.seeds[part], j->parts.folds[part]);
    j->fits = j->fits && fits;
    j->finished = j->finished && over;
  }
  j->models += ser_file_exists(path);
  if (ser_file_exists(path) && ser_model_load(NULL, &model, NULL, path, NULL) == SER_OK) {
    j->fits = j->fits && model_fits(j, &model, part);
    j->named = j->named && model.window == j->config.predict.window && model.hop == j->config.predict.hop;
    ser_model_info_free(&model);
  } else {
    j->finished = false; /* to be trained, or written again from its checkpoint */
  }
  free(path);
  free(checkpoint);
}

bool cli_run_judge(cli_run *run) {
  judgement j = {.fits = true, .finished = true, .named = true};
  cli_inputs inputs;
  ser_config_init(&j.config);
  ser_manifest_init(&j.manifest);
  bool shown = read_inputs(&j, run->folder);
  for (size_t i = 0; shown && i < j.parts.count; i++) look_at_part(&j, i);
  char models[SER_HASH_HEX];
  int64_t count = 0; /* a model that is none of the configuration's seeds and folds shows it to be edited */
  j.fits = j.fits && shown && cli_models(models, &count, run->folder, NULL) == SER_OK && count == j.models;
  shown = shown && j.fits && cli_inputs_make(&inputs, &j.config, &j.manifest, NULL) == SER_OK;
  if (shown) {
    memcpy(run->training, inputs.training, SER_HASH_HEX);
    memcpy(run->recipe, inputs.recipe, SER_HASH_HEX);
    if (j.finished) memcpy(run->trained, inputs.training, SER_HASH_HEX);
    if (j.finished) memcpy(run->finished, inputs.recipe, SER_HASH_HEX);
    if (j.finished && j.named) memcpy(run->named, inputs.named, SER_HASH_HEX);
    note_files(run, &j);
    run->epochs = j.config.train.epochs;
    run->models = j.finished ? (int64_t)j.parts.count : 0;
  }
  ser_run_parts_free(&j.parts);
  ser_split_free(&j.split);
  ser_manifest_free(&j.manifest);
  ser_config_free(&j.config);
  return shown;
}
