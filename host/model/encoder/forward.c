/* From samples to hidden states: transformers' Wav2Vec2Model and HubertModel in eval mode. */
#include <stdlib.h>
#include <string.h>

#include "model/encoder/internal.h"

/* The convolutions make 64 rows of each frame, and the feed-forward part four numbers of each: both go by pieces, whose
 * results stay in a CPU's caches, and which fill a GPU. */
enum { CPU_CHUNK = 64, CPU_SLAB = 336, GPU_CHUNK = 2048, GPU_SLAB = 8192 };

/* ---- making --------------------------------------------------------------------------------------------------------
 */

int64_t ser_encoder_span(const ser_encoder_config *c, int64_t level, int64_t count) {
  for (int64_t i = c->conv_count - 1; i > level; i--) count = (count - 1) * c->conv_stride[i] + c->conv_kernel[i];
  return count;
}

/* What the operations, or the layout of a batch, have no room for; no public model is of that kind. */
static ser_status check(const ser_encoder_weights *w, ser_error *err) {
  const ser_encoder_config *c = &w->config;
  int64_t width = c->hidden_size / c->num_attention_heads, field = ser_encoder_field(c), hop = ser_encoder_hop(c);
  const char *path = w->file.path;
  if (width > 128 || width % 8)
    return ser_fail(err, SER_FAILED, "%s: heads of %lld numbers cannot be computed; only multiples of 8 up to 128",
                    path, (long long)width);
  if (c->conv_kernel[0] > SER_FRONT_KERNEL_MOST)
    return ser_fail(err, SER_FAILED, "%s: a first convolution over %lld samples cannot be computed; only up to %d",
                    path, (long long)c->conv_kernel[0], SER_FRONT_KERNEL_MOST);
  if (field > 2 * hop)
    return ser_fail(err, SER_FAILED,
                    "%s: frames of %lld samples, one every %lld, cannot be computed; a frame may reach into the next, "
                    "no further",
                    path, (long long)field, (long long)hop);
  if (c->num_hidden_layers > 63)
    return ser_fail(err, SER_FAILED, "%s: %lld layers cannot be computed; only up to 63", path,
                    (long long)c->num_hidden_layers);
  return SER_OK;
}

static ser_status create(ser_encoder *e, ser_stream *stream, const ser_encoder_weights *weights, ser_error *err) {
  ser_device_properties properties;
  e->device->rt->properties(e->device, &properties);
  e->chunk = properties.host_memory ? CPU_CHUNK : GPU_CHUNK;
  e->slab = properties.host_memory ? CPU_SLAB : GPU_SLAB;
  e->max_clips = e->max_rows = 1;
  SER_TRY(ser_encoder_plans_make(&e->plans, e, err));
  ser_device_tell_products(e->device);
  return ser_encoder_place(e, stream, weights, err);
}

ser_status ser_encoder_create(ser_encoder **encoder, ser_device *device, ser_stream *stream,
                              const ser_encoder_weights *weights, bool normalise, ser_error *err) {
  *encoder = NULL;
  SER_TRY(check(weights, err));
  ser_encoder *e = ser_alloc_zero(1, sizeof *e);
  e->device = device;
  e->config = weights->config;
  e->normalise = normalise;
  e->layers = ser_alloc_zero((size_t)e->config.num_hidden_layers, sizeof *e->layers);
  e->rows_of[e->config.conv_count - 1] = 1;
  for (int64_t i = e->config.conv_count - 1; i > 0; i--) e->rows_of[i - 1] = e->rows_of[i] * e->config.conv_stride[i];
  ser_status status = create(e, stream, weights, err);
  if (status != SER_OK) {
    ser_encoder_free(e);
    e = NULL;
  }
  *encoder = e;
  return status;
}

void ser_encoder_room_free(ser_encoder *e) {
  ser_encoder_plans_free(&e->plans);
  e->device->rt->free(e->device, e->room);
  e->room = NULL;
  e->max_clips = e->max_rows = 0;
}

void ser_encoder_free(ser_encoder *e) {
  if (!e) return;
  ser_encoder_room_free(e);
  e->device->rt->free(e->device, e->weights);
  free(e->layers);
  free(e);
}

const ser_encoder_config *ser_encoder_settings(const ser_encoder *e) {
  return &e->config;
}

static size_t largest_workspace(const encoder_plans *p) {
  const ser_plan *all[] = {p->front, p->pos_conv, p->attention, p->projection, p->qkv, p->out, p->ff1, p->ff2};
  size_t most = 0;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) most = all[i]->workspace > most ? all[i]->workspace : most;
  for (int i = 0; i < SER_ENCODER_CONVS_MOST; i++)
    if (p->convs[i] && p->convs[i]->workspace > most) most = p->convs[i]->workspace;
  return most;
}

/* Floats of the two buffers through which the convolutions' outputs go in turn. A row more than a chunk needs is read
 * where the batch ends: by rows that are nobody's. */
static void level_sizes(const ser_encoder *e, int64_t sizes[2]) {
  const ser_encoder_config *c = &e->config;
  sizes[0] = sizes[1] = 0;
  for (int64_t i = 0; i < c->conv_count; i++) {
    int64_t size = ser_encoder_span(c, i, e->chunk) * c->conv_dim[i];
    if (size > sizes[i % 2]) sizes[i % 2] = size;
  }
}

/* Lays the room out from `base` on (NULL: nowhere); the bytes. */
static size_t room_place(ser_encoder *e, int64_t clips, int64_t rows, size_t workspace, void *base) {
  const ser_encoder_config *c = &e->config;
  int64_t hidden = c->hidden_size, levels[2];
  level_sizes(e, levels);
  const ser_array arrays[] = {
      {&e->levels[0], (size_t)levels[0] * sizeof(float)},
      {&e->levels[1], (size_t)levels[1] * sizeof(float)},
      {&e->wave, (size_t)(rows * ser_encoder_hop(c) + c->conv_kernel[0]) * sizeof(float)},
      {&e->moments, (size_t)(clips * SER_FRONT_MOMENTS(c->conv_kernel[0])) * sizeof(double)},
      {&e->front_norms, (size_t)(clips * 2 * c->conv_dim[0]) * sizeof(float)},
      {&e->x, (size_t)(rows * hidden) * sizeof(float)},
      {&e->a, (size_t)(rows * hidden) * sizeof(float)},
      {&e->qkv, (size_t)(rows * 3 * hidden) * sizeof(float)},
      {&e->ff, (size_t)(e->slab * c->intermediate_size) * sizeof(float)},
      {&e->workspace, workspace},
  };
  return ser_arrays_place(arrays, sizeof arrays / sizeof *arrays, base);
}

size_t ser_encoder_room_bytes(const ser_encoder *e, int64_t max_clips, int64_t max_rows) {
  ser_encoder nowhere = *e;
  return room_place(&nowhere, max_clips, max_rows, 0, NULL);
}

static ser_status room_make(ser_encoder *e, ser_stream *stream, ser_error *err) {
  int64_t levels[2];
  SER_TRY(ser_encoder_plans_make(&e->plans, e, err));
  size_t workspace = largest_workspace(&e->plans);
  e->room = e->device->rt->alloc(e->device, room_place(e, e->max_clips, e->max_rows, workspace, NULL), err);
  if (!e->room) return SER_FAILED;
  room_place(e, e->max_clips, e->max_rows, workspace, e->room);
  level_sizes(e, levels);
  /* Rows behind the batch's end are read, and nobody's: they must be finite, no more. */
  for (int i = 0; i < 2; i++) e->device->rt->zero(stream, e->levels[i], (size_t)levels[i] * sizeof(float));
  return SER_OK;
}

ser_status ser_encoder_room(ser_encoder *e, ser_stream *stream, int64_t max_clips, int64_t max_rows, ser_error *err) {
  SER_CHECK(max_clips > 0 && max_rows > 1);
  ser_encoder_room_free(e);
  e->max_clips = max_clips;
  e->max_rows = max_rows;
  ser_status status = room_make(e, stream, err);
  if (status != SER_OK) ser_encoder_room_free(e);
  return status;
}

int64_t ser_encoder_rows(int64_t *row_start, int32_t *clip_of_row, const ser_encoder_config *config,
                         const int64_t *samples, int64_t clips) {
  row_start[0] = 0;
  for (int64_t clip = 0; clip < clips; clip++) {
    int64_t frames = ser_encoder_frames(config, samples[clip]), end = row_start[clip] + frames + 1;
    SER_CHECK(frames > 0);
    row_start[clip + 1] = end;
    for (int64_t row = row_start[clip]; row < end; row++) clip_of_row[row] = (int32_t)clip;
  }
  return row_start[clips];
}

/* ---- running -------------------------------------------------------------------------------------------------------
 */

typedef struct {
  const ser_encoder *e;
  const ser_ops *ops;
  ser_stream *stream;
  const ser_encoder_output *output;
  const ser_rows *rows;
  int64_t kept; /* layers written so far */
} run;

static void product(const run *r, const ser_plan *plan, const encoder_product *p, float *out, const float *x,
                    const float *residual, ser_product_end end, int64_t rows) {
  r->ops->product_forward(r->stream, plan, r->e->workspace, out, x, p->w, p->bias, residual, end, rows);
}

static void norm(const run *r, float *out, const float *x, const encoder_norm *n, int64_t rows) {
  const ser_encoder_config *c = &r->e->config;
  r->ops->layernorm_forward(r->stream, out, x, n->gamma, n->beta, (float)c->layer_norm_eps, false, c->hidden_size,
                            rows);
}

/* Convolution `level` from the one before it: rows [0, count) of the chunk. */
static void convolve(const run *r, int64_t level, int64_t count) {
  const ser_encoder *e = r->e;
  const encoder_conv *conv = &e->convs[level];
  float *out = e->levels[level % 2];
  bool by_row = e->config.feat_extract_norm == SER_ENCODER_NORM_LAYER;
  product(r, e->plans.convs[level], &conv->product, out, e->levels[(level + 1) % 2], NULL,
          by_row ? SER_PRODUCT_PLAIN : SER_PRODUCT_GELU, count);
  if (by_row)
    r->ops->layernorm_forward(r->stream, out, out, conv->norm.gamma, conv->norm.beta, 1e-5f, true,
                              e->config.conv_dim[level], count);
}

/* Frames [first, first + count) of the batch: through the convolutions and the projection into a. */
static void front_chunk(const run *r, int64_t first, int64_t count) {
  const ser_encoder *e = r->e;
  const ser_encoder_config *c = &e->config;
  const encoder_conv *conv = &e->convs[0];
  int64_t last = c->conv_count - 1, channels = c->conv_dim[last];
  for (int64_t level = 0; level <= last; level++) {
    int64_t rows = ser_encoder_span(c, level, count), left = (r->rows->rows - first) * e->rows_of[level];
    if (rows > left) rows = left;
    if (level)
      convolve(r, level, rows);
    else
      r->ops->front_forward(r->stream, e->plans.front, e->levels[0], e->wave, conv->product.w, conv->product.bias,
                            e->front_norms, conv->norm.gamma, conv->norm.beta, r->rows, first * e->rows_of[0], rows);
  }
  float *features = e->levels[last % 2];
  if (c->feat_proj_layer_norm)
    r->ops->layernorm_forward(r->stream, features, features, e->feature_norm.gamma, e->feature_norm.beta,
                              (float)c->layer_norm_eps, false, channels, count);
  if (r->output->features)
    e->device->rt->copy(r->stream, r->output->features + first * channels, features,
                        (size_t)(count * channels) * sizeof *features);
  product(r, e->plans.projection, &e->projection, e->a + first * c->hidden_size, features, NULL, SER_PRODUCT_PLAIN,
          count);
}

/* x becomes what goes into the first layer, by way of a. */
static void front(const run *r, const float *pcm, const int64_t *sample_start) {
  const ser_encoder *e = r->e;
  const encoder_conv *conv = &e->convs[0];
  const ser_rows *rows = r->rows;
  r->ops->front_wave(r->stream, e->plans.front, e->workspace, e->wave, e->moments, pcm, sample_start, rows);
  if (e->config.feat_extract_norm == SER_ENCODER_NORM_GROUP)
    r->ops->front_norm(r->stream, e->plans.front, e->front_norms, e->moments, e->front_w, conv->norm.gamma,
                       conv->norm.beta, rows->clips);
  for (int64_t first = 0; first < rows->rows; first += e->chunk)
    front_chunk(r, first, rows->rows - first < e->chunk ? rows->rows - first : e->chunk);
  r->ops->pos_conv_forward(r->stream, e->plans.pos_conv, e->workspace, e->x, e->a, e->pos_conv.w, e->pos_conv.bias,
                           rows);
  if (!e->config.do_stable_layer_norm) norm(r, e->x, e->x, &e->norm, rows->rows);
}

/* x += the feed-forward part of x, or of its norm, which goes to a. */
static void feed_forward(const run *r, const encoder_layer *layer, bool norm_first) {
  const ser_encoder *e = r->e;
  int64_t hidden = e->config.hidden_size;
  for (int64_t first = 0; first < r->rows->rows; first += e->slab) {
    int64_t count = r->rows->rows - first < e->slab ? r->rows->rows - first : e->slab;
    float *x = e->x + first * hidden, *a = e->a + first * hidden;
    if (norm_first) norm(r, a, x, &layer->final_norm, count);
    product(r, e->plans.ff1, &layer->ff1, e->ff, norm_first ? a : x, NULL, SER_PRODUCT_GELU, count);
    product(r, e->plans.ff2, &layer->ff2, x, e->ff, x, SER_PRODUCT_PLAIN, count);
    if (!norm_first) norm(r, x, x, &layer->final_norm, count);
  }
}

static void transform(const run *r, const encoder_layer *layer) {
  const ser_encoder *e = r->e;
  bool norm_first = e->config.do_stable_layer_norm;
  int64_t rows = r->rows->rows;
  if (norm_first) norm(r, e->a, e->x, &layer->norm, rows);
  product(r, e->plans.qkv, &layer->qkv, e->qkv, norm_first ? e->a : e->x, NULL, SER_PRODUCT_PLAIN, rows);
  r->ops->attention_forward(r->stream, e->plans.attention, e->workspace, e->a, e->qkv, r->rows);
  product(r, e->plans.out, &layer->out, e->x, e->a, e->x, SER_PRODUCT_PLAIN, rows);
  if (!norm_first) norm(r, e->x, e->x, &layer->norm, rows);
  feed_forward(r, layer, norm_first);
}

static void keep(run *r, int64_t layer) {
  const ser_encoder *e = r->e;
  const ser_encoder_output *o = r->output;
  int64_t hidden = e->config.hidden_size, rows = r->rows->rows;
  if (!(o->layers >> layer & 1)) return;
  if (o->pooled) r->ops->pool_rows(r->stream, o->pooled + r->kept * r->rows->clips * 2 * hidden, e->x, hidden, r->rows);
  if (o->frames)
    e->device->rt->copy(r->stream, o->frames + r->kept * rows * hidden, e->x, (size_t)(rows * hidden) * sizeof(float));
  r->kept++;
}

void ser_encoder_forward(ser_encoder *e, ser_stream *stream, const ser_encoder_output *output, const float *pcm,
                         const int64_t *sample_start, const ser_rows *rows) {
  SER_CHECK(rows->clips <= e->max_clips && rows->rows <= e->max_rows);
  run r = {e, e->device->ops, stream, output, rows, 0};
  int64_t layers = e->config.num_hidden_layers;
  front(&r, pcm, sample_start);
  for (int64_t i = 0; i < layers; i++) {
    keep(&r, i);
    if (!(output->layers >> (i + 1))) return; /* nothing further up is wanted */
    transform(&r, &e->layers[i]);
  }
  if (e->config.do_stable_layer_norm) norm(&r, e->x, e->x, &e->norm, rows->rows);
  keep(&r, layers);
}

double ser_encoder_work(const ser_encoder_config *c, int64_t frames) {
  double hidden = (double)c->hidden_size, rows = (double)frames, all = 0;
  for (int64_t i = 0; i < c->conv_count; i++)
    all += (double)ser_encoder_span(c, i, frames) * (double)(c->conv_kernel[i] * c->conv_dim[i]) *
           (double)(i ? c->conv_dim[i - 1] : 1);
  all += rows * (double)c->conv_dim[c->conv_count - 1] * hidden;
  all += rows * hidden * hidden / (double)c->num_conv_pos_embedding_groups * (double)c->num_conv_pos_embeddings;
  double layer = hidden * (4 * hidden + 2 * (double)c->intermediate_size) + 2 * rows * hidden;
  return 2 * (all + (double)c->num_hidden_layers * rows * layer);
}
