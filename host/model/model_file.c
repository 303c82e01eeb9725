/* The model file: a safetensors file whose tensors are the table of parameters and the standardisation, and whose
 * metadata holds all else that predict needs, as JSON texts. No times, no paths: same model, same bytes. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/version.h"
#include "base/wanted.h"
#include "features/features.h"
#include "model/internal.h"
#include "model/safetensors.h"

/* The file's own version, in the metadata "serenade_model". Raised when older readers would go wrong; a reader takes
 * its own version and every older one, and refuses newer ones. */
enum { MODEL_FILE_VERSION = 1 };

enum { JSON_FORM = JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17) };

/* Limits of what is believed of a file, before it allocates. */
enum { MOST_ELEMENTS = 1 << 28 };

static const char *const branch_names[] = {"reference", "timnet"};
static const char *const pool_names[] = {"all", "real"};

void ser_model_info_free(ser_model_info *info) {
  free(info->mean);
  free(info->inv_std);
  info->mean = info->inv_std = NULL;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static char *dump(json_t *object) {
  char *text = json_dumps(object, JSON_FORM | JSON_ENCODE_ANY);
  SER_CHECK(text);
  json_decref(object);
  return text;
}

static char *model_json(const ser_model_config *c) {
  return dump(json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:b, s:s}", "branch", branch_names[c->branch],
                        "blocks", (json_int_t)c->blocks, "filters", (json_int_t)c->filters, "kernel",
                        (json_int_t)c->kernel, "channels", (json_int_t)c->channels, "frames", (json_int_t)c->frames,
                        "classes", (json_int_t)c->classes, "dropout", c->dropout, "residual", c->residual, "pool",
                        pool_names[c->pool]));
}

static char *labels_json(const ser_model_info *info) {
  json_t *labels = json_array();
  for (int64_t i = 0; i < info->model.classes; i++)
    json_array_append_new(labels, json_string(ser_emotion_names[info->emotions[i]]));
  return dump(labels);
}

/* The metadata's keys in the file's order, and their values. */
enum {
  KEY_FILE,
  KEY_VERSION,
  KEY_MODEL,
  KEY_FEATURES,
  KEY_LABELS,
  KEY_PREDICT,
  KEY_TRAINING,
  KEY_MANIFEST,
  KEY_SPLIT,
  KEY_TENSORS, /* may be left out by who changes a model's tensors */
  KEYS
};
static const char *const key_names[KEYS] = {"serenade_model", "version",     "model",    "features",
                                            "labels",         "predict",     "training", "manifest_hash",
                                            "split_hash",     "tensors_hash"};

static int compare_names(const void *a, const void *b) {
  return strcmp((*(const ser_tensor *const *)a)->name, (*(const ser_tensor *const *)b)->name);
}

/* Of names and bytes, in the order of the names: a flipped bit in a weight would else be a slightly other model. */
static void hash_tensors(char hex[SER_HASH_HEX], const ser_tensor *tensors, size_t count) {
  const ser_tensor **sorted = ser_alloc(count * sizeof *sorted);
  ser_text text = {0};
  for (size_t i = 0; i < count; i++) sorted[i] = tensors + i;
  qsort(sorted, count, sizeof *sorted, compare_names);
  for (size_t i = 0; i < count; i++) {
    ser_hash hash = ser_hash_bytes(sorted[i]->data, sorted[i]->bytes);
    ser_hash_hex(hex, &hash);
    ser_text_printf(&text, "%s %s\n", sorted[i]->name, hex);
  }
  ser_hash hash = ser_hash_bytes(text.data, text.size);
  ser_hash_hex(hex, &hash);
  free(text.data);
  free(sorted);
}

static void make_values(char *values[KEYS], const ser_model_config *model, const ser_model_info *info,
                        const ser_tensor *tensors, size_t count) {
  char hex[SER_HASH_HEX];
  hash_tensors(hex, tensors, count);
  values[KEY_TENSORS] = ser_strdup(hex);
  values[KEY_FILE] = ser_format("%d", MODEL_FILE_VERSION);
  values[KEY_VERSION] = ser_strdup(SER_VERSION);
  values[KEY_MODEL] = model_json(model);
  values[KEY_FEATURES] = ser_feature_json(info->feature, &info->mfcc);
  values[KEY_LABELS] = labels_json(info);
  values[KEY_PREDICT] = dump(json_pack("{s:f, s:f}", "window", info->window, "hop", info->hop));
  values[KEY_TRAINING] =
      dump(json_pack("{s:I, s:I, s:I, s:s}", "seed", (json_int_t)info->seed, "fold", (json_int_t)info->fold, "epoch",
                     (json_int_t)info->epoch, "chosen_by", info->chosen_by));
  values[KEY_MANIFEST] = ser_strdup(info->manifest_hash);
  values[KEY_SPLIT] = ser_strdup(info->split_hash);
}

static ser_tensor parameter_tensor(const ser_parameter *p, const float *flat) {
  ser_tensor tensor = {.name = (char *)p->name, .dtype = "F32", .dimensions = p->dimensions, .data = flat + p->offset};
  memcpy(tensor.shape, p->shape, sizeof p->shape);
  tensor.bytes = (size_t)p->count * sizeof(float);
  return tensor;
}

static ser_tensor vector_tensor(const char *name, const float *values, int64_t count) {
  return (ser_tensor){.name = (char *)name,
                      .dtype = "F32",
                      .dimensions = 1,
                      .shape = {count},
                      .data = values,
                      .bytes = (size_t)count * sizeof(float)};
}

ser_status ser_model_text(ser_text *file, ser_model *model, ser_stream *stream, const ser_model_info *info,
                          ser_error *err) {
  float *flat = ser_alloc((size_t)model->flat_count * sizeof *flat);
  ser_tensor *tensors = ser_alloc_zero(model->count + 2, sizeof *tensors);
  char *values[KEYS] = {0};
  ser_status status;
  SER_TRY_DONE(model->device->rt->read(stream, flat, model->flat, (size_t)model->flat_count * sizeof *flat, err));
  for (size_t i = 0; i < model->count; i++) tensors[i] = parameter_tensor(&model->parameters[i], flat);
  tensors[model->count] = vector_tensor("standardisation.mean", info->mean, model->config.channels);
  tensors[model->count + 1] = vector_tensor("standardisation.inv_std", info->inv_std, model->config.channels);
  make_values(values, &model->config, info, tensors, model->count + 2);
  ser_tensors_text(file, tensors, model->count + 2, key_names, (const char *const *)values, KEYS);
done:
  for (int i = 0; i < KEYS; i++) free(values[i]);
  free(tensors);
  free(flat);
  return status;
}

ser_status ser_model_save(ser_model *model, ser_stream *stream, const ser_model_info *info, const char *path,
                          ser_error *err) {
  ser_text file = {0};
  ser_status status = ser_model_text(&file, model, stream, info, err);
  if (status == SER_OK) status = ser_file_write(path, file.data, file.size, err);
  free(file.data);
  return status;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static ser_status not_ours(const char *path, const char *what, ser_error *err) {
  return ser_fail(err, SER_FAILED, "%s is not a sound model of Serenade: %s; name a model.safetensors that train wrote",
                  path, what);
}

static int choice(const char *text, const char *const *names, int count) {
  for (int i = 0; text && i < count; i++)
    if (!strcmp(text, names[i])) return i;
  return -1;
}

static bool parse_model(ser_model_config *c, const char *text) {
  const char *branch = NULL, *pool = NULL;
  json_int_t blocks, filters, kernel, channels, frames, classes;
  int residual;
  json_t *object = json_loads(text, 0, NULL);
  bool fine =
      object && !json_unpack(object, "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:F, s:b, s:s}", "branch", &branch, "blocks",
                             &blocks, "filters", &filters, "kernel", &kernel, "channels", &channels, "frames", &frames,
                             "classes", &classes, "dropout", &c->dropout, "residual", &residual, "pool", &pool);
  int which_branch = choice(branch, branch_names, 2), which_pool = choice(pool, pool_names, 2);
  fine = fine && which_branch >= 0 && which_pool >= 0;
  if (fine) {
    c->branch = (ser_branch)which_branch;
    c->pool = (ser_pooling)which_pool;
    c->blocks = blocks;
    c->filters = filters;
    c->kernel = kernel;
    c->channels = channels;
    c->frames = frames;
    c->classes = classes;
    c->residual = residual;
    fine = ser_model_check(c, NULL) == SER_OK; /* before a table of parameters is made from it */
  }
  json_decref(object);
  return fine;
}

static bool parse_labels(ser_model_info *info, const char *text) {
  json_t *labels = json_loads(text, 0, NULL);
  bool fine = json_is_array(labels) && json_array_size(labels) == (size_t)info->model.classes;
  for (int64_t i = 0; fine && i < info->model.classes; i++) {
    info->emotions[i] = choice(json_string_value(json_array_get(labels, (size_t)i)), ser_emotion_names, SER_EMOTIONS);
    fine = info->emotions[i] >= 0;
  }
  json_decref(labels);
  return fine;
}

static bool parse_numbers(ser_model_info *info, const char *predict, const char *training) {
  json_int_t seed, fold, epoch;
  const char *chosen_by;
  json_t *p = json_loads(predict, 0, NULL), *t = json_loads(training, 0, NULL);
  bool fine =
      p && t && !json_unpack(p, "{s:F, s:F}", "window", &info->window, "hop", &info->hop) &&
      !json_unpack(t, "{s:I, s:I, s:I, s:s}", "seed", &seed, "fold", &fold, "epoch", &epoch, "chosen_by", &chosen_by);
  fine = fine && isfinite(info->window) && info->window >= 0 && isfinite(info->hop) && info->hop >= 0;
  if (fine) {
    info->seed = seed;
    info->fold = (int)fold;
    info->epoch = epoch;
    snprintf(info->chosen_by, sizeof info->chosen_by, "%s", chosen_by);
  }
  json_decref(p);
  json_decref(t);
  return fine;
}

static ser_status check_version(const char *path, const char *text, ser_error *err) {
  char *end;
  long version = strtol(text, &end, 10);
  if (end == text || *end || version < 1) return not_ours(path, "its serenade_model is no version", err);
  if (version > MODEL_FILE_VERSION)
    return ser_fail(err, SER_FAILED, "%s has model version %ld, but this Serenade (%s) reads up to %d; use a newer one",
                    path, version, SER_VERSION, MODEL_FILE_VERSION);
  return SER_OK;
}

static ser_status take_vector(float **out, const ser_tensors *tensors, const char *name, int64_t count,
                              const char *path, ser_error *err) {
  const ser_tensor *tensor = ser_tensors_find(tensors, name);
  if (!tensor || strcmp(tensor->dtype, "F32") || tensor->dimensions != 1 || tensor->shape[0] != count)
    return not_ours(path, name, err);
  *out = ser_alloc(tensor->bytes);
  memcpy(*out, tensor->data, tensor->bytes);
  for (int64_t i = 0; i < count; i++)
    if (!isfinite((*out)[i])) return not_ours(path, "its standardisation is not finite", err);
  return SER_OK;
}

static ser_status parse_info(ser_model_info *info, const ser_tensors *tensors, const char *path, ser_error *err) {
  const char *values[KEYS];
  ser_hash hash;
  for (int i = 0; i < KEYS; i++) {
    values[i] = ser_tensors_metadata(tensors, key_names[i]);
    if (!values[i] && i != KEY_TENSORS) {
      char what[64];
      snprintf(what, sizeof what, "its metadata has no %s", key_names[i]);
      return not_ours(path, what, err);
    }
    if (i == KEY_FILE) SER_TRY(check_version(path, values[i], err));
  }
  if (!parse_model(&info->model, values[KEY_MODEL])) return not_ours(path, "its model is malformed", err);
  if (!parse_labels(info, values[KEY_LABELS])) return not_ours(path, "its labels are malformed", err);
  if (!parse_numbers(info, values[KEY_PREDICT], values[KEY_TRAINING]))
    return not_ours(path, "its predict or training is malformed", err);
  if (!ser_hash_parse(&hash, values[KEY_MANIFEST]) || !ser_hash_parse(&hash, values[KEY_SPLIT]))
    return not_ours(path, "its hashes are malformed", err);
  snprintf(info->manifest_hash, sizeof info->manifest_hash, "%s", values[KEY_MANIFEST]);
  snprintf(info->split_hash, sizeof info->split_hash, "%s", values[KEY_SPLIT]);
  snprintf(info->version, sizeof info->version, "%s", values[KEY_VERSION]);
  ser_error inner = {0};
  if (ser_feature_parse(&info->feature, &info->mfcc, values[KEY_FEATURES], &inner) != SER_OK)
    return not_ours(path, inner.text, err);
  info->mfcc.frames = info->model.frames; /* the window is the model's, not the features' */
  if (info->mfcc.coefficients < 1 || info->mfcc.coefficients > info->model.channels ||
      ser_feature_columns(&info->mfcc) != info->model.channels)
    return not_ours(path, "its model does not read its features", err);
  SER_TRY(take_vector(&info->mean, tensors, "standardisation.mean", info->model.channels, path, err));
  return take_vector(&info->inv_std, tensors, "standardisation.inv_std", info->model.channels, path, err);
}

static ser_status take_parameter(float *flat, const ser_parameter *p, const ser_tensors *tensors, const char *path,
                                 ser_error *err) {
  char what[128];
  const ser_tensor *tensor = ser_tensors_find(tensors, p->name);
  snprintf(what, sizeof what, "its tensor %s is missing or of another shape", p->name);
  if (!tensor || strcmp(tensor->dtype, "F32") || tensor->dimensions != p->dimensions ||
      memcmp(tensor->shape, p->shape, sizeof p->shape))
    return not_ours(path, what, err);
  memcpy(flat + p->offset, tensor->data, tensor->bytes);
  snprintf(what, sizeof what, "its tensor %s is not finite", p->name);
  for (int64_t i = 0; i < p->count; i++)
    if (!isfinite(flat[p->offset + i])) return not_ours(path, what, err);
  snprintf(what, sizeof what, "its variances %s are negative", p->name);
  for (int64_t i = 0; i < p->count && strstr(p->name, "running_var"); i++)
    if (flat[p->offset + i] < 0) return not_ours(path, what, err);
  return SER_OK;
}

/* Last of all checks: the others name what is amiss more closely. */
static ser_status check_hash(const ser_tensors *tensors, const char *path, ser_error *err) {
  const char *told = ser_tensors_metadata(tensors, key_names[KEY_TENSORS]);
  char hex[SER_HASH_HEX];
  if (!told || !tensors->count) return SER_OK;
  hash_tensors(hex, tensors->tensors, tensors->count);
  if (!strcmp(hex, told)) return SER_OK;
  return ser_fail(err, SER_FAILED,
                  "%s is damaged: its tensors are not those that were written; copy it again (who changes them on "
                  "purpose leaves tensors_hash out of the metadata)",
                  path);
}

static ser_status load_parameters(ser_model *model, const ser_tensors *tensors, const char *path, ser_error *err) {
  ser_device *device = model->device;
  ser_stream *stream = NULL;
  float *flat = ser_alloc_zero((size_t)model->flat_count, sizeof *flat);
  ser_status status = SER_OK;
  if (tensors->count != model->count + 2) status = not_ours(path, "it holds tensors that its model does not have", err);
  for (size_t i = 0; status == SER_OK && i < model->count; i++)
    status = take_parameter(flat, &model->parameters[i], tensors, path, err);
  if (status == SER_OK) status = device->rt->stream_create(device, &stream, err);
  if (status == SER_OK) {
    device->rt->write(stream, model->flat, flat, (size_t)model->flat_count * sizeof *flat);
    status = device->rt->sync(stream, err);
    device->rt->stream_destroy(stream);
  }
  free(flat);
  return status;
}

ser_status ser_model_load(ser_model **model, ser_model_info *info, ser_device *device, const char *path,
                          ser_error *err) {
  ser_tensors tensors;
  ser_model *made = NULL;
  ser_status status;
  memset(info, 0, sizeof *info);
  if (model) *model = NULL;
  SER_TRY(ser_tensors_read(&tensors, path, err));
  SER_TRY_DONE(parse_info(info, &tensors, path, err));
  if (device) {
    size_t bytes = 0;
    for (size_t i = 0; i < tensors.count; i++) bytes += tensors.tensors[i].bytes;
    size_t count;
    int64_t trained, flat;
    free(ser_parameters_make(&info->model, &count, &trained, &flat));
    if (flat > MOST_ELEMENTS || (size_t)flat / 4 > bytes) {
      status = not_ours(path, "its tensors are fewer than its model has", err);
      goto done;
    }
    SER_TRY_DONE(ser_model_create(&made, device, &info->model, err));
    SER_TRY_DONE(load_parameters(made, &tensors, path, err));
  }
  SER_TRY_DONE(check_hash(&tensors, path, err));
  if (device) *model = made;
done:
  if (status != SER_OK) {
    ser_model_free(made);
    ser_model_info_free(info);
  }
  ser_tensors_free(&tensors);
  return status;
}

/* ---- which file ---------------------------------------------------------------------------------------------------
 */

/* The first model below folder in the folders of seeds and folds, and whether there is another one. */
static void find_parts(char **first, bool *several, const char *folder) {
  char **names = NULL;
  size_t count = 0;
  if (ser_folder_names(&names, &count, folder, NULL) != SER_OK) return;
  for (size_t i = 0; i < count && !*several; i++) {
    if (strncmp(names[i], "seed-", 5) && strncmp(names[i], "fold-", 5)) continue;
    char *below = ser_path_join(folder, names[i]), *file = ser_path_join(below, "model.safetensors");
    if (ser_file_exists(file)) {
      *several = *first != NULL;
      if (!*first) *first = ser_strdup(file);
    } else if (ser_is_folder(below)) {
      find_parts(first, several, below);
    }
    free(below);
    free(file);
  }
  ser_names_free(names, count);
}

ser_status ser_model_find(char **path, const char *given, ser_error *err) {
  bool folder = ser_is_folder(given), several = false;
  ser_status status = folder ? SER_USAGE : SER_FAILED;
  const char *wanted = "the model.safetensors of a run that was trained";
  *path = folder ? ser_path_join(given, "model.safetensors") : ser_strdup(given);
  ser_error why = {0};
  if (ser_want_file(*path, wanted, &why) == SER_OK) return SER_OK;
  char *run = ser_path_folder(*path), *first = NULL;
  find_parts(&first, &several, run);
  if (first)
    ser_fail(err, status, "there is no %s; %s holds %s, as in %s", *path, run,
             several ? "several models: name one" : "a model: name that", first);
  else if (folder && !ser_file_exists(*path))
    ser_fail(err, status, "%s holds no model.safetensors; name a model file, or the folder of a finished training",
             given);
  else
    ser_fail(err, status = why.status, "%s", why.text);
  free(run);
  free(first);
  free(*path);
  *path = NULL;
  return status;
}

/* ---- `info model` ------------------------------------------------------------------------------------------------ */

static void describe_branch(ser_text *text, const ser_model_config *c) {
  const char *joined = c->branch == SER_BRANCH_TIMNET ? ", gated, scales fused" : c->residual ? ", residual" : "";
  ser_text_printf(text, "branch        %s%s: %lld %s of %lld %s, kernel %lld, dropout %g, pooled over %s\n",
                  branch_names[c->branch], joined, (long long)c->blocks, SER_PLURAL(c->blocks, "block", "blocks"),
                  (long long)c->filters, SER_PLURAL(c->filters, "filter", "filters"), (long long)c->kernel, c->dropout,
                  c->pool == SER_POOL_REAL ? "real frames" : "all frames");
  ser_text_printf(text, "input         %lld features a frame, window of %lld frames\n", (long long)c->channels,
                  (long long)c->frames);
}

/* predict.window and predict.hop, as predict takes them where it is told no others. */
static void describe_windows(ser_text *text, const ser_model_info *info) {
  ser_text_puts(text, "predict       ");
  if (info->window > 0)
    ser_text_printf(text, "windows of %.4g s", info->window);
  else
    ser_text_puts(text, "windows as long as the model's");
  if (info->hop > 0)
    ser_text_printf(text, ", one every %.4g s\n", info->hop);
  else
    ser_text_puts(text, ", one every half a window\n");
}

ser_status ser_model_describe(ser_text *text, const char *path, ser_error *err) {
  ser_model_info info;
  SER_TRY(ser_model_load(NULL, &info, NULL, path, err));
  size_t count;
  int64_t trained, flat, parameters = 0;
  ser_parameter *rows = ser_parameters_make(&info.model, &count, &trained, &flat);
  for (size_t i = 0; i < count; i++) parameters += rows[i].trained ? rows[i].count : 0;
  char *features = ser_feature_json(info.feature, &info.mfcc);
  ser_text_line(text, "file          %s", path);
  ser_text_line(text, "written by    Serenade %s", info.version);
  describe_branch(text, &info.model);
  describe_windows(text, &info);
  ser_text_printf(text, "parameters    %lld trained, in %zu tensors\n", (long long)parameters, count);
  ser_text_puts(text, "labels        ");
  for (int64_t i = 0; i < info.model.classes; i++)
    ser_text_printf(text, "%s%s", i ? " " : "", ser_emotion_names[info.emotions[i]]);
  ser_text_printf(text, "\nfeatures      %s\n", features);
  ser_text_printf(text, "training      seed %lld, fold %d, epoch %lld (%s)\n", (long long)info.seed, info.fold,
                  (long long)info.epoch, info.chosen_by);
  ser_text_printf(text, "manifest      %s\nsplit         %s\n", info.manifest_hash, info.split_hash);
  free(features);
  free(rows);
  ser_model_info_free(&info);
  return SER_OK;
}
