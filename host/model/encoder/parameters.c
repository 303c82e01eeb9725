/* One table of an encoder's parameters: names, shapes and places; what is found under them in a file. */
#include "model/encoder/parameters.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

static const char anchor[] = "feature_extractor.conv_layers.0.conv.weight";

/* ---- the table --------------------------------------------------------------------------------------------------- */

typedef struct {
  int64_t a, b, c; /* c, then b: 0 where there are fewer dimensions */
} shape;

static void add(ser_encoder_weights *w, const ser_weight **place, shape s, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void add(ser_encoder_weights *w, const ser_weight **place, shape s, const char *format, ...) {
  ser_encoder_row *row = &w->rows[w->row_count++];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(row->name, sizeof row->name, format, arguments);
  va_end(arguments);
  row->dimensions = s.c ? 3 : s.b ? 2 : 1;
  row->shape[0] = s.a;
  row->shape[1] = s.b;
  row->shape[2] = s.c;
  row->place = place;
}

/* A weight [a][b] with its bias [a]; b 0: a norm's two vectors. */
static void add_pair(ser_encoder_weights *w, ser_encoder_pair *pair, int64_t a, int64_t b, const char *name) {
  add(w, &pair->weight, (shape){a, b, 0}, "%s.weight", name);
  add(w, &pair->bias, (shape){a, 0, 0}, "%s.bias", name);
}

static void add_front(ser_encoder_weights *w) {
  const ser_encoder_config *c = &w->config;
  int64_t before = 1, dim = 0;
  for (int64_t i = 0; i < c->conv_count; i++, before = dim) {
    char norm[64];
    dim = c->conv_dim[i];
    add(w, &w->convs[i].conv.weight, (shape){dim, before, c->conv_kernel[i]},
        "feature_extractor.conv_layers.%d.conv.weight", (int)i);
    if (c->conv_bias)
      add(w, &w->convs[i].conv.bias, (shape){dim, 0, 0}, "feature_extractor.conv_layers.%d.conv.bias", (int)i);
    snprintf(norm, sizeof norm, "feature_extractor.conv_layers.%d.layer_norm", (int)i);
    if (!i || c->feat_extract_norm == SER_ENCODER_NORM_LAYER) add_pair(w, &w->convs[i].norm, dim, 0, norm);
  }
  if (c->feat_proj_layer_norm) add_pair(w, &w->feature_norm, dim, 0, "feature_projection.layer_norm");
  add_pair(w, &w->projection, c->hidden_size, dim, "feature_projection.projection");
}

static void add_position(ser_encoder_weights *w, bool plain) {
  const ser_encoder_config *c = &w->config;
  const char *name = "encoder.pos_conv_embed.conv";
  int64_t hidden = c->hidden_size, kernel = c->num_conv_pos_embeddings;
  shape whole = {hidden, hidden / c->num_conv_pos_embedding_groups, kernel};
  if (plain) {
    add(w, &w->pos_conv.weight, whole, "%s.weight", name);
  } else {
    add(w, &w->pos_g, (shape){1, 1, kernel}, "%s.weight_g", name);
    add(w, &w->pos_v, whole, "%s.weight_v", name);
  }
  add(w, &w->pos_conv.bias, (shape){hidden, 0, 0}, "%s.bias", name);
}

static void add_layer(ser_encoder_weights *w, int64_t number) {
  ser_encoder_layer *layer = &w->layers[number];
  const int64_t hidden = w->config.hidden_size, middle = w->config.intermediate_size;
  const struct {
    ser_encoder_pair *pair;
    const char *name;
    int64_t a, b;
  } parts[] = {{&layer->q, "attention.q_proj", hidden, hidden},
               {&layer->k, "attention.k_proj", hidden, hidden},
               {&layer->v, "attention.v_proj", hidden, hidden},
               {&layer->out, "attention.out_proj", hidden, hidden},
               {&layer->norm, "layer_norm", hidden, 0},
               {&layer->ff1, "feed_forward.intermediate_dense", middle, hidden},
               {&layer->ff2, "feed_forward.output_dense", hidden, middle},
               {&layer->final_norm, "final_layer_norm", hidden, 0}};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    char name[80];
    snprintf(name, sizeof name, "encoder.layers.%d.%s", (int)number, parts[i].name);
    add_pair(w, parts[i].pair, parts[i].a, parts[i].b, name);
  }
}

static void make_rows(ser_encoder_weights *w, bool plain) {
  const int64_t layers = w->config.num_hidden_layers;
  w->layers = ser_alloc_zero((size_t)layers, sizeof *w->layers);
  w->rows = ser_alloc_zero((size_t)(4 * w->config.conv_count + 16 * layers + 16), sizeof *w->rows);
  add_front(w);
  add_position(w, plain);
  add_pair(w, &w->norm, w->config.hidden_size, 0, "encoder.layer_norm");
  for (int64_t i = 0; i < layers; i++) add_layer(w, i);
  for (size_t i = 0; i < w->row_count; i++) {
    int64_t numbers = 1;
    for (int d = 0; d < w->rows[i].dimensions; d++) numbers *= w->rows[i].shape[d];
    w->parameters += numbers;
  }
}

/* ---- finding ----------------------------------------------------------------------------------------------------- */

const ser_weight *ser_encoder_find(const ser_weights *file, const char *prefix, const char *name) {
  char *whole = ser_format("%s%s", prefix, name);
  const ser_weight *found = ser_weights_find(file, whole);
  free(whole);
  return found;
}

/* The pair of the weight norm has two spellings: the table's, and the one of torch's parametrizations. */
static const ser_weight *find_row(const ser_encoder_weights *w, const ser_encoder_row *row) {
  static const char *const spellings[][2] = {
      {"encoder.pos_conv_embed.conv.weight_g", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"},
      {"encoder.pos_conv_embed.conv.weight_v", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"}};
  const ser_weight *found = ser_encoder_find(&w->file, w->prefix, row->name);
  for (int i = 0; i < 2 && !found; i++)
    if (!strcmp(row->name, spellings[i][0])) found = ser_encoder_find(&w->file, w->prefix, spellings[i][1]);
  return found;
}

/* What is wrong, of how many: a few by name, then the rest by number. */
typedef struct {
  ser_text told;
  size_t count;
} complaints;

static void complain(complaints *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void complain(complaints *c, const char *format, ...) {
  va_list arguments;
  if (++c->count > 4) return;
  if (c->count > 1) ser_text_puts(&c->told, ", ");
  va_start(arguments, format);
  ser_text_vprintf(&c->told, format, arguments);
  va_end(arguments);
}

static char *shape_text(int dimensions, const int64_t *sizes) {
  ser_text text = {0};
  ser_text_puts(&text, "[");
  for (int i = 0; i < dimensions; i++) ser_text_printf(&text, "%s%lld", i ? ", " : "", (long long)sizes[i]);
  ser_text_puts(&text, "]");
  return text.data;
}

static void take_row(ser_encoder_weights *w, const ser_encoder_row *row, complaints *c) {
  const ser_weight *found = find_row(w, row);
  *row->place = found;
  if (!found) {
    complain(c, "%s is missing", row->name);
  } else if (found->dimensions != row->dimensions ||
             memcmp(found->shape, row->shape, (size_t)row->dimensions * sizeof *row->shape)) {
    char *is = shape_text(found->dimensions, found->shape), *wanted = shape_text(row->dimensions, row->shape);
    complain(c, "%s is %s instead of %s", row->name, is, wanted);
    free(is);
    free(wanted);
  } else if (!ser_weight_readable(found)) {
    complain(c, "%s is %s instead of floating point", row->name, found->dtype);
  }
}

static ser_status take_rows(ser_encoder_weights *w, ser_error *err) {
  complaints c = {{0}, 0};
  for (size_t i = 0; i < w->row_count; i++) take_row(w, &w->rows[i], &c);
  if (!c.count) return SER_OK;
  if (c.count > 4) ser_text_printf(&c.told, " and %zu more", c.count - 4);
  ser_fail(err, SER_FAILED,
           "%s does not hold the %s encoder that its configuration describes: of %zu tensors %zu %s not right: %s; put "
           "config.json and weights of one model into one folder",
           w->file.path, ser_encoder_family_names[w->config.family], w->row_count, c.count,
           SER_PLURAL(c.count, "is", "are"), c.told.data);
  free(c.told.data);
  return SER_FAILED;
}

/* ---- what else the file holds ------------------------------------------------------------------------------------ */

static bool is_usual(const char *name, const char *prefix) {
  static const char *const parts[] = {"quantizer.",        "project_hid.", "project_q.", "lm_head.",
                                      "masked_spec_embed", "classifier",   "projector.", "label_",
                                      "layer_weights",     "final_proj.",  "dropout"};
  size_t size = strlen(prefix);
  const char *rest = strncmp(name, prefix, size) ? name : name + size;
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    if (!strncmp(rest, parts[i], strlen(parts[i]))) return true;
  return false;
}

static bool is_taken(const ser_encoder_weights *w, const ser_weight *weight) {
  for (size_t i = 0; i < w->row_count; i++)
    if (*w->rows[i].place == weight) return true;
  return false;
}

static void list_extras(ser_encoder_weights *w) {
  w->extras = ser_alloc_zero(w->file.count + 1, sizeof *w->extras);
  for (int usual = 0; usual < 2; usual++)
    for (size_t i = 0; i < w->file.count; i++) {
      const ser_weight *weight = &w->file.tensors[i];
      if (is_usual(weight->name, w->prefix) != usual || is_taken(w, weight)) continue;
      w->extras[w->extra_count++] = ser_strdup(weight->name);
      w->unknown_count += !usual;
    }
}

/* A layer that is there and not computed would change the result. */
static ser_status refuse_adapters(const ser_encoder_weights *w, ser_error *err) {
  for (size_t i = 0; i < w->unknown_count; i++) {
    const char *rest = w->extras[i] + (strncmp(w->extras[i], w->prefix, strlen(w->prefix)) ? 0 : strlen(w->prefix));
    if (!strncmp(rest, "adapter.", 8) || strstr(rest, ".adapter_layer."))
      return ser_fail(err, SER_FAILED, "%s holds the adapter %.100s, which is not computed here; give a model without",
                      w->file.path, w->extras[i]);
  }
  return SER_OK;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* What stands before the names, told by one that every such model has. */
static ser_status find_prefix(ser_encoder_weights *w, ser_error *err) {
  for (size_t i = 0; i < w->file.count; i++) {
    const char *name = w->file.tensors[i].name;
    size_t size = strlen(name), end = sizeof anchor - 1;
    if (size < end || strcmp(name + size - end, anchor) || (size > end && name[size - end - 1] != '.')) continue;
    if (w->prefix)
      return ser_fail(err, SER_FAILED, "%s holds two encoders, under '%.64s' and another name; save one of them alone",
                      w->file.path, w->prefix);
    w->prefix = ser_format("%.*s", (int)(size - end), name);
  }
  if (w->prefix) return SER_OK;
  return ser_fail(err, SER_FAILED, "%s holds no wav2vec2 or HuBERT encoder: it has no tensor %s; give %s", w->file.path,
                  anchor, ser_encoder_files_wanted);
}

static ser_status fill(ser_encoder_weights *w, ser_error *err) {
  static const char position[] = "encoder.pos_conv_embed.conv";
  SER_TRY(find_prefix(w, err));
  if (!w->config.has_config) SER_TRY(ser_encoder_infer(&w->config, &w->file, w->prefix, err));
  const char *marked = ser_weights_metadata(&w->file, "serenade.random_weights");
  if (marked && strcmp(marked, "false")) w->config.random_weights = true;
  char *plain = ser_format("%s.weight", position), *g = ser_format("%s.weight_g", position);
  char *v = ser_format("%s.weight_v", position);
  make_rows(w, ser_encoder_find(&w->file, w->prefix, plain) && !ser_encoder_find(&w->file, w->prefix, g) &&
                   !ser_encoder_find(&w->file, w->prefix, v));
  free(plain);
  free(g);
  free(v);
  SER_TRY(take_rows(w, err));
  list_extras(w);
  return refuse_adapters(w, err);
}

ser_status ser_encoder_weights_open(ser_encoder_weights *weights, const char *path, ser_error *err) {
  char *file = NULL, *folder = NULL;
  memset(weights, 0, sizeof *weights);
  weights->file.fd = -1;
  SER_TRY(ser_encoder_files(&file, &folder, path, err));
  ser_status status = ser_encoder_config_read(&weights->config, folder, err);
  if (status == SER_OK) status = ser_weights_open(&weights->file, file, err);
  if (status == SER_OK) status = fill(weights, err);
  if (status != SER_OK) ser_encoder_weights_close(weights);
  free(file);
  free(folder);
  return status;
}

void ser_encoder_weights_close(ser_encoder_weights *weights) {
  for (size_t i = 0; i < weights->extra_count; i++) free(weights->extras[i]);
  free(weights->extras);
  free(weights->rows);
  free(weights->layers);
  free(weights->prefix);
  ser_weights_close(&weights->file);
  memset(weights, 0, sizeof *weights);
  weights->file.fd = -1;
}
