/* The temporal branch in training, both ways: the reference stack, the same with residuals, and TIM-Net with gates and
 * fused scales (model.h says which is which). Matches PyTorch's Conv1d behind a left padding, BatchNorm1d, ReLU and
 * Dropout1d in a loop over blocks, and their autograd; tests/golden/make_temporal.py writes that loop out.
 *
 * A batch-normalised convolution leaves its raw output y; batch norm, ReLU and dropout are taken on the fly by whoever
 * reads it (ser_activation), forwards and backwards, so that each convolution costs one pass over memory. Without joins
 * a block's output is never written at all.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "model/internal.h"

/* A convolution with batch norm behind it. Pointers into the model's flat buffer and its gradients, then what one
 * forward pass leaves for the backward pass. */
typedef struct {
  const float *w, *gamma, *beta;
  float *running_mean, *running_var;
  float *dw, *dgamma, *dbeta;
  float *y;                              /* [B][Cp][Tp] */
  float *scale, *shift, *mean, *inv_std; /* [Cp] */
  float *drop;                           /* [B][Cp], or NULL without dropout; moves with B */
} normed_conv;

typedef struct {
  normed_conv conv[2];
  float *out; /* [B][Cp][Tp] where blocks are joined with their input, else NULL */
} block;

typedef struct {
  const float *w, *bias; /* the 1x1 convolution in front */
  float *dw, *dbias;
  float *y; /* [B][Cp][Tp] */
  block *blocks;
} direction;

struct ser_temporal {
  ser_device *device;
  ser_model_config config;
  int64_t max_batch, channel_pad, time_pad;
  bool joined;
  ser_join join;
  int64_t scale_count;
  direction directions[2];
  ser_plan *input_plan;
  ser_plan **block_plans; /* [blocks], by dilation; both directions and both convolutions share them */
  void *memory;
  void *workspace;
  float *drops;          /* [blocks * 4][B][Cp] */
  float *moments, *sums; /* [B][2][Cp] */
  float *means;          /* [2][Cp] */
  float *d[3];           /* [B][Cp][Tp]: gradients on their way back */
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

static int64_t offset_of(const places *at, const char *direction_name, int64_t block_index, const char *what) {
  char name[64];
  if (block_index < 0)
    snprintf(name, sizeof name, "%s.%s", direction_name, what);
  else
    snprintf(name, sizeof name, "%s.%d.%s", direction_name, (int)block_index, what);
  return ser_parameters_find(at->model->parameters, at->model->count, name)->offset;
}

static void bind_conv(normed_conv *conv, const places *at, const char *direction_name, int64_t block_index, int which) {
  static const char *const names[2][5] = {
      {"conv1.weight", "norm1.weight", "norm1.bias", "norm1.running_mean", "norm1.running_var"},
      {"conv2.weight", "norm2.weight", "norm2.bias", "norm2.running_mean", "norm2.running_var"},
  };
  int64_t offsets[5];
  for (int i = 0; i < 5; i++) offsets[i] = offset_of(at, direction_name, block_index, names[which][i]);
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
  static const char *const names[2] = {"forward", "backward"};
  for (int d = 0; d < 2; d++) {
    direction *dir = &t->directions[d];
    int64_t w = offset_of(at, names[d], -1, "input.weight"), bias = offset_of(at, names[d], -1, "input.bias");
    dir->w = at->model->flat + w;
    dir->bias = at->model->flat + bias;
    dir->dw = at->gradients + w;
    dir->dbias = at->gradients + bias;
    for (int64_t i = 0; i < t->config.blocks; i++)
      for (int c = 0; c < 2; c++) bind_conv(&dir->blocks[i].conv[c], at, names[d], i, c);
  }
  if (t->config.branch == SER_BRANCH_TIMNET) {
    int64_t mix = offset_of(at, "scales", -1, "weight");
    t->mix_w = at->model->flat + mix;
    t->mix_dw = at->gradients + mix;
  }
}

static ser_status make_plans(ser_temporal *t, size_t *workspace, ser_error *err) {
  const ser_model_config *c = &t->config;
  ser_conv_shape shape = {t->max_batch, c->channels, c->filters, c->frames, 1, 1};
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
  int64_t cp = t->channel_pad, rows = t->max_batch * cp, tensor = rows * t->time_pad;
  for (int d = 0; d < 2; d++) {
    direction *dir = &t->directions[d];
    dir->y = ser_layout_take(layout, tensor);
    for (int64_t i = 0; i < t->config.blocks; i++) {
      for (int c = 0; c < 2; c++) {
        normed_conv *conv = &dir->blocks[i].conv[c];
        conv->y = ser_layout_take(layout, tensor);
        conv->scale = ser_layout_take(layout, cp);
        conv->shift = ser_layout_take(layout, cp);
        conv->mean = ser_layout_take(layout, cp);
        conv->inv_std = ser_layout_take(layout, cp);
      }
      dir->blocks[i].out = t->joined ? ser_layout_take(layout, tensor) : NULL;
    }
  }
  t->drops = t->config.dropout > 0 ? ser_layout_take(layout, 4 * t->config.blocks * rows) : NULL;
  t->moments = ser_layout_take(layout, 2 * rows);
  t->sums = ser_layout_take(layout, 2 * rows);
  t->means = ser_layout_take(layout, 2 * cp);
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
  for (int d = 0; d < 2; d++) t->directions[d].blocks = ser_alloc_zero((size_t)c->blocks, sizeof(block));
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
  for (int d = 0; d < 2; d++) free(t->directions[d].blocks);
  free(t->block_plans);
  t->device->rt->free(t->device, t->memory);
  free(t);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static ser_tensor_shape shape_of(const ser_temporal *t, int64_t batch) {
  return (ser_tensor_shape){batch, t->config.filters, t->config.frames};
}

/* The tensor behind a convolution's batch norm, ReLU and dropout. */
static ser_activation activation_of(const normed_conv *conv) {
  return (ser_activation){conv->y, conv->scale, conv->shift, conv->drop};
}

/* What block i hands on: its joined output, or its second convolution's activation; for -1 the 1x1 convolution's. */
static ser_activation output_of(const ser_temporal *t, const direction *dir, int64_t i) {
  if (i < 0) return (ser_activation){.x = dir->y};
  if (t->joined) return (ser_activation){.x = dir->blocks[i].out};
  return activation_of(&dir->blocks[i].conv[1]);
}

static const int64_t *pooled_lengths(const ser_temporal *t, const ser_batch *batch) {
  return t->config.pool == SER_POOL_REAL ? batch->lengths : NULL;
}

/* One draw for all masks of a step: rows of [layer][B], layers in the order forward block 0 conv 1, conv 2, block 1 ...
 * then backward. */
static void draw_masks(ser_temporal *t, ser_stream *stream, const ser_batch *batch) {
  if (!t->drops) return;
  int64_t layers = 4 * t->config.blocks;
  ser_tensor_shape shape = shape_of(t, layers * batch->batch);
  t->device->ops->dropout_mask(stream, t->drops, (float)t->config.dropout, batch->seed,
                               SER_RANDOM_DROPOUT | batch->step, 0, &shape);
  float *at = t->drops;
  for (int d = 0; d < 2; d++)
    for (int64_t i = 0; i < t->config.blocks; i++)
      for (int c = 0; c < 2; c++, at += batch->batch * t->channel_pad) t->directions[d].blocks[i].conv[c].drop = at;
}

static void conv_forward(ser_temporal *t, ser_stream *stream, normed_conv *conv, const ser_plan *plan,
                         const ser_activation *x, int64_t batch) {
  const ser_ops *ops = t->device->ops;
  ser_tensor_shape shape = shape_of(t, batch);
  ops->causal_conv_forward(stream, plan, t->workspace, conv->y, t->moments, x, conv->w, NULL, batch);
  ops->batchnorm_finish(stream, conv->scale, conv->shift, conv->mean, conv->inv_std, conv->running_mean,
                        conv->running_var, t->moments, conv->gamma, conv->beta, SER_NORM_EPS, SER_NORM_MOMENTUM,
                        &shape);
}

static void direction_forward(ser_temporal *t, ser_stream *stream, direction *dir, const float *tile, int64_t batch) {
  const ser_ops *ops = t->device->ops;
  ser_tensor_shape shape = shape_of(t, batch);
  ser_activation x = {.x = tile};
  ops->causal_conv_forward(stream, t->input_plan, t->workspace, dir->y, NULL, &x, dir->w, dir->bias, batch);
  for (int64_t i = 0; i < t->config.blocks; i++) {
    block *b = &dir->blocks[i];
    x = output_of(t, dir, i - 1);
    conv_forward(t, stream, &b->conv[0], t->block_plans[i], &x, batch);
    ser_activation between = activation_of(&b->conv[0]);
    conv_forward(t, stream, &b->conv[1], t->block_plans[i], &between, batch);
    if (!t->joined) continue;
    ser_activation a = activation_of(&b->conv[1]);
    ops->join_forward(stream, b->out, &x, &a, t->join, &shape);
  }
}

const float *ser_temporal_forward(ser_temporal *t, ser_stream *stream, const ser_batch *batch) {
  const ser_ops *ops = t->device->ops;
  ser_tensor_shape shape = shape_of(t, batch->batch);
  draw_masks(t, stream, batch);
  direction_forward(t, stream, &t->directions[0], batch->tile, batch->batch);
  direction_forward(t, stream, &t->directions[1], batch->reversed, batch->batch);
  for (int64_t s = 0; s < t->scale_count; s++) {
    int64_t i = t->config.blocks - t->scale_count + s;
    ser_activation forward = output_of(t, &t->directions[0], i), backward = output_of(t, &t->directions[1], i);
    ops->pool_forward(stream, t->pooled + s * batch->batch * t->channel_pad, &forward, &backward,
                      pooled_lengths(t, batch), &shape);
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
  ops->batchnorm_backward_finish(stream, t->means, conv->dgamma, conv->dbeta, t->sums, &shape);
  ser_gradient dy = gradient_of(t, conv, da), x_norm = {0};
  if (x_conv) x_norm = gradient_of(t, x_conv, NULL);
  ops->causal_conv_backward(stream, plan, t->workspace, dx, conv->dw, NULL, x_conv ? t->sums : NULL, x,
                            x_conv ? &x_norm : NULL, &dy, conv->w, add_dx, batch);
}

/* Through block i of a direction. d[0] holds the gradient behind its output and ends as that behind its input. Where
 * the block before hands on its second activation, or a sum with it, t->sums ends as that one's sums. */
static void block_backward(ser_temporal *t, ser_stream *stream, direction *dir, int64_t i, bool sums_ready,
                           int64_t batch) {
  const ser_ops *ops = t->device->ops;
  ser_tensor_shape shape = shape_of(t, batch);
  block *b = &dir->blocks[i];
  ser_activation x = output_of(t, dir, i - 1), between = activation_of(&b->conv[0]);
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
                fused ? &dir->blocks[i - 1].conv[1] : NULL, dbetween, batch);
}

static void direction_backward(ser_temporal *t, ser_stream *stream, int which, const ser_batch *batch,
                               const float *dpooled) {
  const ser_ops *ops = t->device->ops;
  ser_tensor_shape shape = shape_of(t, batch->batch);
  direction *dir = &t->directions[which];
  bool sums_ready = false;
  for (int64_t i = t->config.blocks - 1; i >= 0; i--) {
    int64_t s = i - (t->config.blocks - t->scale_count);
    bool last = i == t->config.blocks - 1;
    if (s >= 0)
      ops->pool_backward(stream, t->d[0], dpooled + s * batch->batch * t->channel_pad, pooled_lengths(t, batch),
                         which == 1, !last, &shape);
    block_backward(t, stream, dir, i, sums_ready, batch->batch);
    sums_ready = !(t->joined && t->join == SER_JOIN_GATE);
  }
  ser_activation x = {.x = which ? batch->reversed : batch->tile};
  ser_gradient dy = {.da = t->d[0]};
  ops->causal_conv_backward(stream, t->input_plan, t->workspace, NULL, dir->dw, dir->dbias, NULL, &x, NULL, &dy, dir->w,
                            false, batch->batch);
}

void ser_temporal_backward(ser_temporal *t, ser_stream *stream, const ser_batch *batch, const float *dpooled) {
  ser_tensor_shape shape = shape_of(t, batch->batch);
  if (t->mixed) {
    t->device->ops->scale_mix_backward(stream, t->dpooled, t->mix_dw, dpooled, t->pooled, t->mix_w, t->scale_count,
                                       &shape);
    dpooled = t->dpooled;
  }
  for (int d = 0; d < 2; d++) direction_backward(t, stream, d, batch, dpooled);
}
