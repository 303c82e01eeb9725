/* An encoder's weights on their way from the file to the device: in the order that the operations want, packed. */
#include <stdlib.h>
#include <string.h>

#include "model/encoder/internal.h"

/* ---- plans -------------------------------------------------------------------------------------------------------
 */

static ser_status plan_product(ser_plan **plan, const ser_encoder *e, int64_t rows, int64_t in, int64_t out,
                               int64_t in_stride, ser_error *err) {
  ser_product_shape shape = {rows, in, out, in_stride, out};
  return e->device->ops->product_prepare(e->device, plan, &shape, err);
}

static ser_status plan_convs(encoder_plans *plans, const ser_encoder *e, ser_error *err) {
  const ser_encoder_config *c = &e->config;
  ser_front_shape front = {.channels = c->conv_dim[0],
                           .kernel = c->conv_kernel[0],
                           .stride = c->conv_stride[0],
                           .hop = ser_encoder_hop(c),
                           .normalise = e->normalise,
                           .over_time = c->feat_extract_norm == SER_ENCODER_NORM_GROUP,
                           .eps = 1e-5f,
                           .max_clips = e->max_clips};
  front.max_samples = e->max_rows * front.hop + e->max_clips * ser_encoder_field(c);
  SER_TRY(e->device->ops->front_prepare(e->device, &plans->front, &front, err));
  for (int64_t i = 1; i < c->conv_count; i++)
    SER_TRY(plan_product(&plans->convs[i], e, ser_encoder_span(c, i, e->chunk), c->conv_kernel[i] * c->conv_dim[i - 1],
                         c->conv_dim[i], c->conv_stride[i] * c->conv_dim[i - 1], err));
  return SER_OK;
}

ser_status ser_encoder_plans_make(encoder_plans *plans, const ser_encoder *e, ser_error *err) {
  const ser_encoder_config *c = &e->config;
  int64_t hidden = c->hidden_size, middle = c->intermediate_size, features = c->conv_dim[c->conv_count - 1];
  ser_pos_conv_shape pos_conv = {hidden, c->num_conv_pos_embedding_groups, c->num_conv_pos_embeddings, e->max_rows};
  ser_attention_shape attention = {c->num_attention_heads, hidden / c->num_attention_heads, e->max_rows};
  memset(plans, 0, sizeof *plans);
  SER_TRY(plan_convs(plans, e, err));
  SER_TRY(plan_product(&plans->projection, e, e->chunk, features, hidden, features, err));
  SER_TRY(e->device->ops->pos_conv_prepare(e->device, &plans->pos_conv, &pos_conv, err));
  SER_TRY(plan_product(&plans->qkv, e, e->max_rows, hidden, 3 * hidden, hidden, err));
  SER_TRY(e->device->ops->attention_prepare(e->device, &plans->attention, &attention, err));
  SER_TRY(plan_product(&plans->out, e, e->max_rows, hidden, hidden, hidden, err));
  SER_TRY(plan_product(&plans->ff1, e, e->slab, hidden, middle, hidden, err));
  return plan_product(&plans->ff2, e, e->slab, middle, hidden, middle, err);
}

void ser_encoder_plans_free(encoder_plans *plans) {
  ser_plan *all[] = {plans->front, plans->pos_conv, plans->attention, plans->projection,
                     plans->qkv,   plans->out,      plans->ff1,       plans->ff2};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) ser_plan_free(all[i]);
  for (int i = 0; i < SER_ENCODER_CONVS_MOST; i++) ser_plan_free(plans->convs[i]);
  memset(plans, 0, sizeof *plans);
}

/* ---- where everything lies ------------------------------------------------------------------------------------------
 */

typedef struct {
  ser_array *arrays;
  size_t count, room;
} shelf;

static void put(shelf *s, void *place, size_t bytes) {
  if (s->count == s->room) {
    s->room = s->room ? 2 * s->room : 64;
    s->arrays = ser_realloc(s->arrays, s->room * sizeof *s->arrays);
  }
  s->arrays[s->count++] = (ser_array){place, bytes};
}

static void put_floats(shelf *s, float **place, int64_t count) {
  put(s, place, (size_t)count * sizeof(float));
}

static void put_norm(shelf *s, encoder_norm *norm, int64_t channels) {
  put_floats(s, &norm->gamma, channels);
  put_floats(s, &norm->beta, channels);
}

static void put_product(shelf *s, encoder_product *product, const ser_plan *plan, int64_t bias) {
  put(s, &product->w, plan->packed);
  if (bias) put_floats(s, &product->bias, bias);
}

static void lay_out(shelf *s, ser_encoder *e) {
  const ser_encoder_config *c = &e->config;
  const encoder_plans *p = &e->plans;
  int64_t hidden = c->hidden_size, last = c->conv_dim[c->conv_count - 1];
  for (int64_t i = 0; i < c->conv_count; i++) {
    put_product(s, &e->convs[i].product, i ? p->convs[i] : p->front, c->conv_bias ? c->conv_dim[i] : 0);
    if (!i || c->feat_extract_norm == SER_ENCODER_NORM_LAYER) put_norm(s, &e->convs[i].norm, c->conv_dim[i]);
  }
  put_floats(s, &e->front_w, c->conv_dim[0] * c->conv_kernel[0]);
  if (c->feat_proj_layer_norm) put_norm(s, &e->feature_norm, last);
  put_product(s, &e->projection, p->projection, hidden);
  put_product(s, &e->pos_conv, p->pos_conv, hidden);
  put_norm(s, &e->norm, hidden);
  for (int64_t i = 0; i < c->num_hidden_layers; i++) {
    encoder_layer *layer = &e->layers[i];
    put_product(s, &layer->qkv, p->qkv, 3 * hidden);
    put_product(s, &layer->out, p->out, hidden);
    put_product(s, &layer->ff1, p->ff1, c->intermediate_size);
    put_product(s, &layer->ff2, p->ff2, hidden);
    put_norm(s, &layer->norm, hidden);
    put_norm(s, &layer->final_norm, hidden);
  }
}

/* ---- filling -------------------------------------------------------------------------------------------------------
 */

typedef struct {
  ser_encoder *e;
  ser_stream *stream;
  float *host;   /* what is put in order; as large as the largest weight */
  float *staged; /* the same on the device; NULL where the device follows host pointers */
} filler;

static int64_t largest_weight(const ser_encoder_config *c) {
  int64_t hidden = c->hidden_size, most = 3 * hidden * hidden;
  int64_t others[] = {hidden * c->intermediate_size,
                      hidden * (hidden / c->num_conv_pos_embedding_groups) * c->num_conv_pos_embeddings};
  for (int i = 0; i < 2; i++) most = others[i] > most ? others[i] : most;
  for (int64_t i = 0; i < c->conv_count; i++) {
    int64_t size = c->conv_dim[i] * (i ? c->conv_dim[i - 1] : hidden) * c->conv_kernel[i];
    most = size > most ? size : most;
  }
  return most;
}

/* What the device reads the numbers from, until the next call; the host's may be overwritten once they are packed. */
static const float *to_device(const filler *f, const float *from, int64_t count) {
  if (!f->staged) return from;
  f->e->device->rt->write(f->stream, f->staged, from, (size_t)count * sizeof *from);
  return f->staged;
}

static void fill_vector(const filler *f, float *to, const ser_weight *from) {
  int64_t count = ser_weight_elements(from);
  ser_weight_read(f->host, from, 0, count);
  f->e->device->rt->write(f->stream, to, f->host, (size_t)count * sizeof *to);
}

static void fill_norm(const filler *f, const encoder_norm *to, const ser_encoder_pair *from) {
  fill_vector(f, to->gamma, from->weight);
  fill_vector(f, to->beta, from->bias);
}

static void fill_product(const filler *f, const encoder_product *to, const ser_plan *plan,
                         const ser_encoder_pair *from) {
  int64_t count = ser_weight_elements(from->weight);
  const float *w = ser_weight_floats(from->weight);
  if (!w) {
    ser_weight_read(f->host, from->weight, 0, count);
    w = f->host;
  }
  f->e->device->ops->product_pack(f->stream, plan, to->w, to_device(f, w, count));
  if (to->bias) fill_vector(f, to->bias, from->bias);
}

/* Query, key and value as one product. */
static void fill_qkv(const filler *f, const encoder_layer *to, const ser_encoder_layer *from) {
  const ser_encoder_pair *parts[] = {&from->q, &from->k, &from->v};
  int64_t hidden = f->e->config.hidden_size, count = hidden * hidden;
  for (int i = 0; i < 3; i++) ser_weight_read(f->host + i * count, parts[i]->weight, 0, count);
  f->e->device->ops->product_pack(f->stream, f->e->plans.qkv, to->qkv.w, to_device(f, f->host, 3 * count));
  for (int i = 0; i < 3; i++) fill_vector(f, to->qkv.bias + i * hidden, parts[i]->bias);
}

/* w [out][in][kernel] as rows that overlap want it: [out][kernel][in]. */
static void fill_conv(const filler *f, const encoder_conv *to, const ser_plan *plan, const ser_encoder_conv *from,
                      int64_t in, int64_t kernel) {
  int64_t count = ser_weight_elements(from->conv.weight), row = in * kernel;
  float *one = ser_alloc((size_t)row * sizeof *one);
  for (int64_t at = 0; at < count; at += row) {
    ser_weight_read(one, from->conv.weight, at, row);
    for (int64_t k = 0; k < kernel; k++)
      for (int64_t i = 0; i < in; i++) f->host[at + k * in + i] = one[i * kernel + k];
  }
  free(one);
  f->e->device->ops->product_pack(f->stream, plan, to->product.w, to_device(f, f->host, count));
}

static void fill_convs(const filler *f, const ser_encoder_weights *w) {
  const ser_encoder *e = f->e;
  const ser_encoder_config *c = &e->config;
  fill_vector(f, e->front_w, w->convs[0].conv.weight);
  e->device->ops->front_pack(f->stream, e->plans.front, e->convs[0].product.w, e->front_w);
  for (int64_t i = 0; i < c->conv_count; i++) {
    if (i) fill_conv(f, &e->convs[i], e->plans.convs[i], &w->convs[i], c->conv_dim[i - 1], c->conv_kernel[i]);
    if (c->conv_bias) fill_vector(f, e->convs[i].product.bias, w->convs[i].conv.bias);
    if (w->convs[i].norm.weight) fill_norm(f, &e->convs[i].norm, &w->convs[i].norm);
  }
}

static ser_status fill(const filler *f, const ser_encoder_weights *w, ser_error *err) {
  const ser_encoder *e = f->e;
  fill_convs(f, w);
  ser_weights_release(&w->file);
  if (e->config.feat_proj_layer_norm) fill_norm(f, &e->feature_norm, &w->feature_norm);
  fill_product(f, &e->projection, e->plans.projection, &w->projection);
  ser_encoder_pos_kernel(f->host, w);
  int64_t count = e->config.hidden_size * (e->config.hidden_size / e->config.num_conv_pos_embedding_groups) *
                  e->config.num_conv_pos_embeddings;
  e->device->ops->pos_conv_pack(f->stream, e->plans.pos_conv, e->pos_conv.w, to_device(f, f->host, count));
  SER_TRY(e->device->rt->sync(f->stream, err));
  fill_vector(f, e->pos_conv.bias, w->pos_conv.bias);
  fill_norm(f, &e->norm, &w->norm);
  for (int64_t i = 0; i < e->config.num_hidden_layers; i++) {
    const ser_encoder_layer *from = &w->layers[i];
    const encoder_layer *to = &e->layers[i];
    fill_qkv(f, to, from);
    fill_product(f, &to->out, e->plans.out, &from->out);
    fill_product(f, &to->ff1, e->plans.ff1, &from->ff1);
    fill_product(f, &to->ff2, e->plans.ff2, &from->ff2);
    fill_norm(f, &to->norm, &from->norm);
    fill_norm(f, &to->final_norm, &from->final_norm);
    SER_TRY(e->device->rt->sync(f->stream, err));
    ser_weights_release(&w->file);
  }
  return ser_weights_whole(&w->file, err);
}

ser_status ser_encoder_place(ser_encoder *e, ser_stream *stream, const ser_encoder_weights *weights, ser_error *err) {
  ser_device_properties properties;
  shelf s = {0};
  lay_out(&s, e);
  e->device->rt->properties(e->device, &properties);
  e->weights = e->device->rt->alloc(e->device, ser_arrays_place(s.arrays, s.count, NULL), err);
  if (e->weights) ser_arrays_place(s.arrays, s.count, e->weights);
  free(s.arrays);
  if (!e->weights) return SER_FAILED;
  filler f = {e, stream, NULL, NULL};
  size_t bytes = (size_t)largest_weight(&e->config) * sizeof *f.host;
  if (!properties.host_memory) SER_TRY(ser_device_alloc(&f.staged, e->device, bytes, err));
  f.host = ser_alloc(bytes);
  ser_status status = fill(&f, weights, err), end = e->device->rt->sync(stream, status == SER_OK ? err : NULL);
  free(f.host);
  e->device->rt->free(e->device, f.staged);
  return status == SER_OK ? end : status;
}
