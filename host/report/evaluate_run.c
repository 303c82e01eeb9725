/* Opening a finished run: its configuration, manifest, split and models, checked against each other. The models rule
 * where they and config.yaml differ: a configuration can be edited, weights cannot be read in another way. */
#include "report/evaluate.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/wanted.h"

/* What the training kept of how the split was made. */
static ser_status read_notes(ser_evaluation *e, ser_error *err) {
  ser_text *made = &e->split.made;
  char *path = ser_path_join(e->folder, "split.txt");
  ser_status status = ser_file_exists(path) ? ser_file_read(&made->data, &made->size, path, err) : SER_OK;
  free(path);
  return status;
}

static ser_status read_run(ser_evaluation *e, ser_error *err) {
  ser_status status;
  char *config = ser_path_join(e->folder, "config.yaml"), *manifest = ser_path_join(e->folder, "manifest.csv");
  char *split = ser_path_join(e->folder, "split.csv");
  SER_TRY_DONE(ser_want_folder(e->folder, "the folder that train or run made", err));
  if (!ser_file_exists(config) || !ser_file_exists(split) || !ser_file_exists(manifest)) {
    status = ser_fail(err, SER_USAGE,
                      "%s holds no run (config.yaml, manifest.csv and split.csv are expected there); give the folder "
                      "that train or run made",
                      e->folder);
    goto done;
  }
  SER_TRY_DONE(ser_config_read(&e->config, config, err));
  SER_TRY_DONE(ser_manifest_read(&e->trained, manifest, err));
  SER_TRY_DONE(ser_split_read(&e->split, &e->trained, split, err));
  SER_TRY_DONE(read_notes(e, err));
done:
  free(config);
  free(manifest);
  free(split);
  return status;
}

static bool same_features(const ser_model_info *a, const ser_model_info *b) {
  char *one = ser_feature_json(a->feature, &a->mfcc), *other = ser_feature_json(b->feature, &b->mfcc);
  bool same = !strcmp(one, other);
  free(one);
  free(other);
  return same;
}

static bool same_labels(const ser_model_info *a, const ser_model_info *b) {
  return a->model.classes == b->model.classes &&
         !memcmp(a->emotions, b->emotions, (size_t)a->model.classes * sizeof *a->emotions);
}

static ser_status read_models(ser_evaluation *e, ser_error *err) {
  for (size_t i = 0; i < e->parts.count; i++) {
    char *path = ser_path_join(e->parts.folders[i], "model.safetensors");
    ser_status status;
    if (!ser_file_exists(path))
      status =
          ser_fail(err, SER_FAILED, "%s is missing: this training is not finished; train with --resume first", path);
    else
      status = ser_model_load(NULL, &e->models[i], NULL, path, err);
    if (status == SER_OK &&
        (!same_labels(&e->models[0], &e->models[i]) || !same_features(&e->models[0], &e->models[i])))
      status = ser_fail(err, SER_FAILED,
                        "%s has other labels or features than %s/model.safetensors: they are of different runs; "
                        "train again into a new folder",
                        path, e->parts.folders[0]);
    free(path);
    SER_TRY(status);
  }
  return SER_OK;
}

static ser_status refuse_split(const ser_evaluation *e, size_t part, ser_error *err) {
  char *config = ser_path_join(e->folder, "config.yaml"), *manifest = ser_path_join(e->folder, "manifest.csv");
  char *words[] = {ser_quoted(config), ser_quoted(manifest), ser_quoted(e->folder)};
  ser_fail(err, SER_FAILED,
           "%s/split.csv is not the split that %s/model.safetensors was trained with, so test clips may have been "
           "trained on; what puts it right: serenade train %s --manifest %s --resume -o %s",
           e->folder, e->parts.folders[part], words[0], words[1], words[2]);
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) free(words[i]);
  free(config);
  free(manifest);
  return SER_FAILED;
}

/* The split and the manifest must be those of the models. Another split may count clips as a test that a model was
 * trained on: refused, and of another manifest too what was trained on would be told wrongly. A manifest that was
 * indexed or audited again is none the worse while what is used of it stays the same; else it is told. */
static ser_status compare_with_inputs(ser_evaluation *e, ser_error *err) {
  ser_hash hash;
  char split[SER_HASH_HEX], manifest[SER_HASH_HEX], *path = ser_path_join(e->folder, "split.csv");
  ser_status status = ser_hash_file(&hash, path, err);
  free(path);
  SER_TRY(status);
  ser_hash_hex(split, &hash);
  ser_manifest_usable_hash(manifest, &e->trained);
  for (size_t i = 0; i < e->parts.count; i++) {
    if (strcmp(e->models[i].split_hash, split)) return refuse_split(e, i, err);
    e->changed = e->changed || strcmp(e->models[i].manifest_hash, manifest);
  }
  if (e->changed)
    ser_warn("%s/manifest.csv has changed since the training: other recordings can be used, or they have other labels, "
             "speakers or bytes; it is taken as it is now",
             e->folder);
  return SER_OK;
}

static void compare_with_config(const ser_evaluation *e) {
  const ser_model_info *model = &e->models[0];
  ser_model_info asked = {.feature = e->config.features.kind,
                          .mfcc = *ser_config_mfcc(&e->config, e->config.features.kind)};
  if (!same_features(model, &asked))
    ser_warn("%s/config.yaml asks for other features now than the model was trained with; the model's are used",
             e->folder);
  if (e->config.emotions != model->model.classes)
    ser_warn("%s/config.yaml asks for %lld emotions now, but the model knows %lld; the model's are used", e->folder,
             (long long)e->config.emotions, (long long)model->model.classes);
}

/* RUN/evaluate-NAME, NAME being the manifest's file name without its suffix; where reports of another manifest of that
 * name are there, RUN/evaluate-NAME-2 and so on. */
static char *out_folder(const char *run_folder, const char *manifest_path) {
  const char *name = ser_path_name(manifest_path), *dot = strrchr(name, '.');
  int size = dot && dot > name ? (int)(dot - name) : (int)strlen(name);
  for (int i = 1;; i++) {
    char *folder = i == 1 ? ser_format("evaluate-%.*s", size, name) : ser_format("evaluate-%.*s-%d", size, name, i);
    char *path = ser_path_join(run_folder, folder), *report = ser_path_join(path, "report.json");
    bool free_place = !ser_file_exists(report) || ser_report_is_of(path, manifest_path);
    free(folder);
    free(report);
    if (free_place) return path;
    free(path);
  }
}

ser_status ser_evaluation_open(ser_evaluation *e, const char *run_folder, const char *manifest_path, ser_error *err) {
  memset(e, 0, sizeof *e);
  e->folder = run_folder;
  e->other = manifest_path != NULL;
  ser_config_init(&e->config);
  ser_manifest_init(&e->trained);
  ser_manifest_init(&e->given);
  SER_TRY(read_run(e, err));
  if (manifest_path) SER_TRY(ser_manifest_read(&e->given, manifest_path, err));
  if (manifest_path) e->manifest_path = ser_path_absolute(manifest_path);
  e->out = manifest_path ? out_folder(run_folder, e->manifest_path) : ser_strdup(run_folder);
  e->cache = *e->config.cache_dir ? ser_strdup(e->config.cache_dir) : ser_path_join(run_folder, "cache");
  ser_run_parts_make(&e->parts, &e->config, run_folder, e->split.folds);
  ser_run_parts_make(&e->out_parts, &e->config, e->out, e->split.folds);
  e->models = ser_alloc_zero(e->parts.count, sizeof *e->models);
  e->usable = ser_alloc_zero(ser_evaluation_manifest(e)->count, sizeof *e->usable);
  SER_TRY(read_models(e, err));
  SER_TRY(compare_with_inputs(e, err));
  compare_with_config(e);
  return SER_OK;
}

void ser_evaluation_free(ser_evaluation *e) {
  for (size_t i = 0; e->models && i < e->parts.count; i++) ser_model_info_free(&e->models[i]);
  free(e->models);
  free(e->usable);
  free(e->manifest_path);
  free(e->out);
  free(e->cache);
  ser_run_parts_free(&e->parts);
  ser_run_parts_free(&e->out_parts);
  ser_split_free(&e->split);
  ser_manifest_free(&e->given);
  ser_manifest_free(&e->trained);
  ser_config_free(&e->config);
}

const ser_manifest *ser_evaluation_manifest(const ser_evaluation *e) {
  return e->other ? &e->given : &e->trained;
}

int32_t ser_evaluation_label(const ser_evaluation *e, const ser_row *row) {
  const ser_model_info *model = &e->models[0];
  for (int32_t c = 0; c < model->model.classes; c++)
    if (model->emotions[c] == row->emotion) return c;
  return -1;
}

bool ser_evaluation_wants(const ser_evaluation *e, size_t row, int fold) {
  if (e->other) return ser_row_usable(&e->given.rows[row]);
  for (int f = fold < 0 ? 0 : fold; f < (fold < 0 ? e->split.folds : fold + 1); f++)
    if (e->split.part[(size_t)f * e->split.rows + row] == SER_TEST) return true;
  return false;
}
