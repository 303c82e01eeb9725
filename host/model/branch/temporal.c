/* The temporal branch in training, both ways: the reference stack, the same with residuals, and TIM-Net with gates and
 * fused scales (model.h says which is which). Matches PyTorch's Conv1d behind a left padding, BatchNorm1d, ReLU and
 * Dropout1d in a loop over blocks, and their autograd; tests/golden/make_temporal.py writes that loop out.
 *
 * A batch-normalised convolution leaves its raw output y; batch norm, ReLU and dropout are taken on the fly by whoever
 * reads it (ser_activation), forwards and backwards, so that each convolution costs one pass over memory. Without joins
 * a block's output is never written at all.
 *
 * Both directions are sides of one operation: parameters and buffers of the backward one lie at a fixed distance behind
 * those of the forward one.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "model/internal.h"

/* A convolution with batch norm behind it. Pointers into the model's flat buffer and its gradients (those of side 0),
 * then what one forward pass leaves for the backward pass. */
typedef struct {
  const float *w, *gamma, *beta;
  float *running_mean, *running_var;
  float *dw, *dgamma, *dbeta;
  float *y;                              /* [2][B][Cp][Tp] */
  float *scale, *shift, *mean, *inv_std; /* [2][Cp] */
  float *drop;                           /* [2][B][Cp], or NULL without dropout; moves with B */
} normed_conv;

typedef struct {
  normed_conv conv[2];
  float *out; /* [2][B][Cp][Tp] where blocks are joined with their input, else NULL */
} block;

struct ser_temporal {
  ser_device *device;
  ser_model_config config;
  int64_t max_batch, channel_pad, time_pad;
  ser_side_strides strides;
  bool joined;
  ser_join join;
  int64_t scale_count;
  const float *w, *bias; /* the 1x1 convolution in front */
  float *dw, *dbias;
  float *y; /* [2][B][Cp][Tp] */
  block *blocks;
  ser_plan *input_plan;
  ser_plan **block_plans; /* [blocks], by dilation; both convolutions share them */
  void *memory;
  void *workspace;
  float *drops;          /* [blocks * 2][2][B][Cp] */
  float *moments, *sums; /* [2][B][2][Cp] */
  float *means;          /* [2][2][Cp] */
  float *d[3];           /* [2][B][Cp][Tp]: gradients on their way back */
  float *pooled;         /* [scales][B][Cp] */
  float *dpooled;        /* the same, where scales are fused */
  float *mixed;          /* [B][Cp], where scales are fused */
  const float *mix_w;
  float *mix_dw;
};

/* ---- making ------------------------------------------------------------------------------------------------------ */

typedef struct {
  ser_model *model;
  float *gradients;
} places;

static int64_t place_of(const places *at, const char *name) {
  return ser_parameters_find(at->model->parameters, at->model->count, name)->offset;
}

static void bind_conv(normed_conv *conv, const places *at, int64_t block_index, int which) {
  static const char *const names[5][2] = {
      {"conv", "weight"}, {"norm", "weight"}, {"norm", "bias"}, {"norm", "running_mean"}, {"norm", "running_var"}};
  int64_t offsets[5];
  for (int i = 0; i < 5; i++) {
    char name[64];
    snprintf(name, sizeof name, "forward.%d.%s%d.%s", (int)block_index, names[i][0], which + 1, names[i][1]);
    offsets[i] = place_of(at, name);
  }
  float *flat = at->model->flat;
  conv->w = flat + offsets[0];
  conv->gamma = flat + offsets[1];
  conv->beta = flat + offsets[2];
  conv->running_mean = flat + offsets[3];
  conv->running_var = flat + offsets[4];
  conv->dw = at->gradients + offsets[0];
  conv->dgamma = at->gradients + offsets[1];
  conv->dbeta = at->gradients + offsets[2];
}

static void bind_parameters(ser_temporal *t, const places *at) {
  int64_t w = place_of(at, "forward.input.weight"), bias = place_of(at, "forward.input.bias");
  t->w = at->model->flat + w;
  t->bias = at->model->flat + bias;
  t->dw = at->gradients + w;
  t->dbias = at->gradients + bias;
  for (int64_t i = 0; i < t->config.blocks; i++)
    for (int c = 0; c < 2; c++) bind_conv(&t->blocks[i].conv[c], at, i, c);
  if (t->config.branch == SER_BRANCH_TIMNET) {
    int64_t mix = place_of(at, "scales.weight");
    t->mix_w = at->model->flat + mix;
    t->mix_dw = at->gradients + mix;
  }
}

static ser_status make_plans(ser_temporal *t, size_t *workspace, ser_error *err) {
  const ser_model_config *c = &t->config;
  ser_conv_shape shape = {2, t->max_batch, c->channels, c->filters, c->frames, 1, 1, t->strides.trained};
  SER_TRY(t->device->ops->conv_prepare(t->device, &t->input_plan, &shape, err));
  *workspace = t->input_plan->workspace;
  shape.in = c->filters;
  shape.kernel = c->kernel;
  for (int64_t i = 0; i < c->blocks; i++) {
    shape.dilation = (int64_t)1 << i;
    SER_TRY(t->device->ops->conv_prepare(t->device, &t->block_plans[i], &shape, err));
    if (t->block_plans[i]->workspace > *workspace) *workspace = t->block_plans[i]->workspace;
  }
  return SER_OK;
}

static void lay_out(ser_temporal *t, ser_layout *layout, size_t workspace) {
  int64_t cp = t->channel_pad, rows = t->max_batch * cp, tensor = 2 * rows * t->time_pad;
  t->y = ser_layout_take(layout, tensor);
  for (int64_t i = 0; i < t->config.blocks; i++) {
    for (int c = 0; c < 2; c++) {
      normed_conv *conv = &t->blocks[i].conv[c];
      conv->y = ser_layout_take(layout, tensor);
      conv->scale = ser_layout_take(layout, 2 * cp);
      conv->shift = ser_layout_take(layout, 2 * cp);
      conv->mean = ser_layout_take(layout, 2 * cp);
      conv->inv_std = ser_layout_take(layout, 2 * cp);
    }
    t->blocks[i].out = t->joined ? ser_layout_take(layout, tensor) : NULL;
  }
  t->drops = t->config.dropout > 0 ? ser_layout_take(layout, 4 * t->config.blocks * rows) : NULL;
  t->moments = ser_layout_take(layout, 4 * rows);
  t->sums = ser_layout_take(layout, 4 * rows);
  t->means = ser_layout_take(layout, 4 * cp);
  for (int i = 0; i < 3; i++) t->d[i] = i < 2 || t->joined ? ser_layout_take(layout, tensor) : NULL;
  t->pooled = ser_layout_take(layout, t->scale_count * rows);
  if (t->config.branch == SER_BRANCH_TIMNET) {
    t->dpooled = ser_layout_take(layout, t->scale_count * rows);
    t->mixed = ser_layout_take(layout, rows);
  }
  t->workspace = ser_layout_take(layout, (int64_t)(SER_ROUND_UP(workspace, 64) / sizeof(float)));
}

ser_status ser_temporal_create(ser_temporal **temporal, ser_model *model, float *gradients, int64_t max_batch,
                               ser_error *err) {
  const ser_model_config *c = &model->config;
  ser_temporal *t = ser_alloc_zero(1, sizeof *t);
  t->device = model->device;
  t->config = *c;
  t->max_batch = max_batch;
  t->channel_pad = SER_ROUND_UP(c->filters, SER_CHANNEL_PAD);
  t->time_pad = SER_ROUND_UP(c->frames, SER_TIME_PAD);
  t->joined = c->branch == SER_BRANCH_TIMNET || c->residual;
  t->join = c->branch == SER_BRANCH_TIMNET ? SER_JOIN_GATE : SER_JOIN_RESIDUAL;
  t->scale_count = ser_model_scales(c);
  t->block_plans = ser_alloc_zero((size_t)c->blocks, sizeof *t->block_plans);
  t->blocks = ser_alloc_zero((size_t)c->blocks, sizeof *t->blocks);
  t->strides = ser_parameters_strides(model->parameters, model->count);
  bind_parameters(t, &(places){model, gradients});

  size_t workspace = 0;
  ser_layout layout = {0};
  ser_status status;
  SER_TRY_DONE(make_plans(t, &workspace, err));
  lay_out(t, &layout, workspace);
  SER_TRY_DONE(ser_device_zeroed(&t->memory, t->device, layout.used, err));
  layout = (ser_layout){t->memory, 0};
  lay_out(t, &layout, workspace);
  *temporal = t;
  return SER_OK;
done:
  ser_temporal_free(t);
  *temporal = NULL;
  return status;
}

void ser_temporal_free(ser_temporal *t) {
  if (!t) return;
  ser_plan_free(t->input_plan);
  for (int64_t i = 0; i < t->config.blocks; i++) ser_plan_free(t->block_plans[i]);
  free(t->blocks);
  free(t->block_plans);
  t->device->rt->free(t->device, t->memory);
  free(t);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* Of both directions. */
static ser_tensor_shape shape_of(const ser_temporal *t, int64_t batch) {
  return (ser_tensor_shape){2, batch, t->config.filters, t->config.frames};
}

static ser_batchnorm norm_of(const ser_temporal *t) {
  return (ser_batchnorm){SER_NORM_EPS, SER_NORM_MOMENTUM, t->strides.trained, t->strides.running};
}

/* The tensor behind a convolution's batch norm, ReLU and dropout. */
static ser_activation activation_of(const normed_conv *conv) {
  return (ser_activation){conv->y, conv->scale, conv->shift, conv->drop};
}

/* What block i hands on: its joined output, or its second convolution's activation; for -1 the 1x1 convolution's. */
static ser_activation output_of(const ser_temporal *t, int64_t i) {
  if (i < 0) return (ser_activation){.x = t->y};
  if (t->joined) return (ser_activation){.x = t->blocks[i].out};
  return activation_of(&t->blocks[i].conv[1]);
}

static const int64_t *pooled_lengths(const ser_temporal *t, const ser_batch *batch) {
  return t->config.pool == SER_POOL_REAL ? batch->lengths : NULL;
}

/* One draw for all masks of a step; layers in the order block 0 conv 1, conv 2, block 1 ... */
static void draw_masks(ser_temporal *t, ser_stream *stream, const ser_batch *batch) {
  if (!t->drops) return;
  int64_t layers = 2 * t->config.blocks;
  ser_tensor_shape shape = shape_of(t, batch->batch);
  t->device->ops->dropout_mask(stream, t->drops, (float)t->config.dropout, batch->seed, batch->step, layers, &shape);
  for (int64_t layer = 0; layer < layers; layer++)
    t->blocks[layer / 2].conv[layer % 2].drop = t->drops + layer * 2 * batch->batch * t->channel_pad;
}

static void conv_forward(ser_temporal *t, ser_stream *stream, normed_conv *conv, const ser_plan *plan,
                         const ser_activation *x, int64_t batch) {
  const ser_ops *ops = t->device->ops;
  ser_tensor_shape shape = shape_of(t, batch);
  ser_batchnorm norm = norm_of(t);
  ops->causal_conv_forward(stream, plan, t->workspace, conv->y, t->moments, x, conv->w, NULL, batch);
  ops->batchnorm_finish(stream, conv->scale, conv->shift, conv->mean, conv->inv_std, conv->running_mean,
                        conv->running_var, t->moments, conv->gamma, conv->beta, &norm, &shape);
}

static void block_forward(ser_temporal *t, ser_stream *stream, int64_t i, int64_t batch) {
  const ser_ops *ops = t->device->ops;
  ser_tensor_shape shape = shape_of(t, batch);
  block *b = &t->blocks[i];
  ser_activation x = output_of(t, i - 1), between = activation_of(&b->conv[0]), a = activation_of(&b->conv[1]);
  conv_forward(t, stream, &b->conv[0], t->block_plans[i], &x, batch);
  conv_forward(t, stream, &b->conv[1], t->block_plans[i], &between, batch);
  if (t->joined) ops->join_forward(stream, b->out, &x, &a, t->join, &shape);
}

const float *ser_temporal_forward(ser_temporal *t, ser_stream *stream, const ser_batch *batch) {
  const ser_ops *ops = t->device->ops;
  ser_tensor_shape shape = shape_of(t, batch->batch);
  ser_activation tile = {.x = batch->tile};
  draw_masks(t, stream, batch);
  ops->causal_conv_forward(stream, t->input_plan, t->workspace, t->y, NULL, &tile, t->w, t->bias, batch->batch);
  for (int64_t i = 0; i < t->config.blocks; i++) block_forward(t, stream, i, batch->batch);
  for (int64_t s = 0; s < t->scale_count; s++) {
    ser_activation out = output_of(t, t->config.blocks - t->scale_count + s);
    ops->pool_forward(stream, t->pooled + s * batch->batch * t->channel_pad, &out, pooled_lengths(t, batch), &shape);
  }
  if (!t->mixed) return t->pooled;
  ops->scale_mix_forward(stream, t->mixed, t->pooled, t->mix_w, t->scale_count, &shape);
  return t->mixed;
}

/* The gradient at a convolution's raw output, from da behind its activation. */
static ser_gradient gradient_of(const ser_temporal *t, const normed_conv *conv, const float *da) {
  return (ser_gradient){da, activation_of(conv), conv->mean, conv->inv_std, t->means};
}

/* Through one batch-normalised convolution, whose per-clip sums stand in t->sums: the gradients of its parameters, and
 * dx. x_conv (or NULL): the convolution whose activation dx lies behind; its sums take their place in t->sums. */
static void conv_backward(ser_temporal *t, ser_stream *stream, normed_conv *conv, const ser_plan *plan, float *dx,
                          bool add_dx, const ser_activation *x, const normed_conv *x_conv, const float *da,
                          int64_t batch) {
  const ser_ops *ops = t->device->ops;
  ser_tensor_shape shape = shape_of(t, batch);
  ser_batchnorm norm = norm_of(t);
  ops->batchnorm_backward_finish(stream, t->means, conv->dgamma, conv->dbeta, t->sums, &norm, &shape);
  ser_gradient dy = gradient_of(t, conv, da), x_norm = {0};
  if (x_conv) x_norm = gradient_of(t, x_conv, NULL);
  ops->causal_conv_backward(stream, plan, t->workspace, dx, conv->dw, NULL, x_conv ? t->sums : NULL, x,
                            x_conv ? &x_norm : NULL, &dy, conv->w, add_dx, batch);
}

/* Through block i. d[0] holds the gradient behind its output and ends as that behind its input. Where
 * the block before hands on its second activation, or a sum with it, t->sums ends as that one's sums. */
static void block_backward(ser_temporal *t, ser_stream *stream, int64_t i, bool sums_ready, int64_t batch) {
  const ser_ops *ops = t->device->ops;
  ser_tensor_shape shape = shape_of(t, batch);
  block *b = &t->blocks[i];
  ser_activation x = output_of(t, i - 1), between = activation_of(&b->conv[0]);
  float *da = t->d[0], *dbetween = t->d[1];
  if (t->joined && t->join == SER_JOIN_GATE) {
    ser_activation a = activation_of(&b->conv[1]);
    da = t->d[2];
    ops->join_backward(stream, t->d[0], da, t->d[0], &x, &a, t->join, &shape);
  }
  if (!sums_ready) {
    ser_gradient gradient = gradient_of(t, &b->conv[1], da);
    ops->batchnorm_backward_sums(stream, t->sums, &gradient, &shape);
  }
  conv_backward(t, stream, &b->conv[1], t->block_plans[i], dbetween, false, &between, &b->conv[0], da, batch);
  /* A residual's gradient goes both ways as it is: what reached the output is da, and the rest is added to it. */
  bool fused = i > 0 && !(t->joined && t->join == SER_JOIN_GATE);
  conv_backward(t, stream, &b->conv[0], t->block_plans[i], t->d[0], t->joined, &x,
                fused ? &t->blocks[i - 1].conv[1] : NULL, dbetween, batch);
}

void ser_temporal_backward(ser_temporal *t, ser_stream *stream, const ser_batch *batch, const float *dpooled) {
  const ser_ops *ops = t->device->ops;
  ser_tensor_shape shape = shape_of(t, batch->batch);
  bool sums_ready = false;
  if (t->mixed) {
    ops->scale_mix_backward(stream, t->dpooled, t->mix_dw, dpooled, t->pooled, t->mix_w, t->scale_count, &shape);
    dpooled = t->dpooled;
  }
  for (int64_t i = t->config.blocks - 1; i >= 0; i--) {
    int64_t s = i - (t->config.blocks - t->scale_count);
    bool last = i == t->config.blocks - 1;
    if (s >= 0)
      ops->pool_backward(stream, t->d[0], dpooled + s * batch->batch * t->channel_pad, pooled_lengths(t, batch), !last,
                         &shape);
    block_backward(t, stream, i, sums_ready, batch->batch);
    sums_ready = !(t->joined && t->join == SER_JOIN_GATE);
  }
  ser_activation x = {.x = batch->tile};
  ser_gradient dy = {.da = t->d[0]};
  ops->causal_conv_backward(stream, t->input_plan, t->workspace, NULL, t->dw, t->dbias, NULL, &x, NULL, &dy, t->w,
                            false, batch->batch);
}
