/* Inference: batch norms folded into the convolutions before them, the whole branch as one operation. Equals the
 * training graph with running statistics and without dropout (PyTorch's eval()) up to rounding. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/internal.h"

struct ser_inference {
  ser_model *model;
  int64_t max_batch, stride;
  bool mixed;
  int64_t scale_count;
  ser_plan *branch, *head;
  int64_t folded_count; /* floats of the branch's folded weights */
  float *weights;       /* device: folded branch, then scales, head weight, head bias as they are */
  float *mix_w, *head_w, *head_bias;
  float *pooled, *fused;         /* device: [scales][B][Cp], [B][Cp] */
  float *logits, *probabilities; /* device: [B][stride] */
  void *branch_workspace, *head_workspace, *memory;
  int64_t weights_count;
  float *weights_host;          /* [weights_count], pinned */
  float *flat_host, *rows_host; /* [flat_count], [B][stride] */
};

static int64_t branch_weights(const ser_model_config *c) {
  int64_t f = c->filters, block = 2 * (f * f * c->kernel + f);
  return 2 * (f * c->channels + f + c->blocks * block);
}

static void lay_out(ser_inference *inference, ser_layout *layout) {
  const ser_model_config *c = &inference->model->config;
  int64_t b = inference->max_batch, cp = SER_ROUND_UP(c->filters, SER_CHANNEL_PAD);
  inference->weights = ser_layout_take(layout, inference->folded_count);
  inference->mix_w = ser_layout_take(layout, inference->scale_count);
  inference->head_w = ser_layout_take(layout, c->classes * c->filters);
  inference->head_bias = ser_layout_take(layout, c->classes);
  inference->weights_count = (int64_t)(layout->used / sizeof(float));
  inference->pooled = ser_layout_take(layout, inference->scale_count * b * cp);
  inference->fused = ser_layout_take(layout, b * cp);
  inference->logits = ser_layout_take(layout, b * inference->stride);
  inference->probabilities = ser_layout_take(layout, b * inference->stride);
  inference->branch_workspace =
      ser_layout_take(layout, (int64_t)(SER_ROUND_UP(inference->branch->workspace, 64) / sizeof(float)));
  inference->head_workspace =
      ser_layout_take(layout, (int64_t)(SER_ROUND_UP(inference->head->workspace, 64) / sizeof(float)));
}

static ser_status make(ser_inference *inference, ser_stream *stream, ser_error *err) {
  ser_device *device = inference->model->device;
  const ser_model_config *c = &inference->model->config;
  ser_branch_shape shape = {inference->max_batch, c->channels, c->filters, c->frames, c->blocks, c->kernel, 0,
                            inference->mixed};
  if (c->branch == SER_BRANCH_TIMNET)
    shape.join = 1 + SER_JOIN_GATE;
  else if (c->residual)
    shape.join = 1 + SER_JOIN_RESIDUAL;
  SER_TRY(device->ops->branch_prepare(device, &inference->branch, &shape, err));
  ser_linear_shape head = {inference->max_batch, c->filters, c->classes, SER_ROUND_UP(c->filters, SER_CHANNEL_PAD),
                           inference->stride};
  SER_TRY(device->ops->linear_prepare(device, &inference->head, &head, err));
  ser_layout layout = {0};
  lay_out(inference, &layout);
  SER_TRY(ser_device_zeroed(&inference->memory, device, layout.used, err));
  layout = (ser_layout){inference->memory, 0};
  lay_out(inference, &layout);
  size_t bytes = (size_t)inference->weights_count * sizeof(float);
  inference->weights_host = device->rt->pin(device, bytes, err);
  if (!inference->weights_host) return SER_FAILED;
  memset(inference->weights_host, 0, bytes);
  inference->flat_host = ser_alloc((size_t)inference->model->flat_count * sizeof(float));
  inference->rows_host = ser_alloc((size_t)(inference->max_batch * inference->stride) * sizeof(float));
  return ser_inference_refresh(inference, stream, err);
}

ser_status ser_inference_create(ser_inference **inference, ser_model *model, ser_stream *stream, int64_t max_batch,
                                ser_error *err) {
  SER_CHECK(max_batch > 0);
  ser_inference *made = ser_alloc_zero(1, sizeof *made);
  made->model = model;
  made->max_batch = max_batch;
  made->stride = SER_ROUND_UP(model->config.classes, SER_CHANNEL_PAD);
  made->mixed = model->config.branch == SER_BRANCH_TIMNET;
  made->scale_count = ser_model_scales(&model->config);
  made->folded_count = branch_weights(&model->config);
  ser_status status = make(made, stream, err);
  if (status != SER_OK) {
    ser_inference_free(made);
    made = NULL;
  }
  *inference = made;
  return status;
}

void ser_inference_free(ser_inference *inference) {
  if (!inference) return;
  ser_plan_free(inference->branch);
  ser_plan_free(inference->head);
  inference->model->device->rt->free(inference->model->device, inference->memory);
  inference->model->device->rt->unpin(inference->model->device, inference->weights_host);
  free(inference->flat_host);
  free(inference->rows_host);
  free(inference);
}

/* A parameter's values among all of them on the host, by the two halves of its name. */
static const float *value(const ser_inference *inference, const float *flat, const char *prefix, const char *name) {
  const ser_model *model = inference->model;
  char full[64];
  snprintf(full, sizeof full, "%s.%s", prefix, name);
  return flat + ser_parameters_find(model->parameters, model->count, full)->offset;
}

/* w' = w * gamma / sqrt(var + eps), bias' = beta - mean * gamma / sqrt(var + eps): in double, rounded once. */
static float *fold_conv(const ser_inference *inference, float *out, const float *flat, const char *block, int which) {
  const ser_model_config *c = &inference->model->config;
  char conv[48], norm[48];
  snprintf(conv, sizeof conv, "%s.conv%d", block, which);
  snprintf(norm, sizeof norm, "%s.norm%d", block, which);
  const float *w = value(inference, flat, conv, "weight");
  const float *gamma = value(inference, flat, norm, "weight"), *beta = value(inference, flat, norm, "bias");
  const float *mean = value(inference, flat, norm, "running_mean"), *var = value(inference, flat, norm, "running_var");
  int64_t row = c->filters * c->kernel;
  for (int64_t o = 0; o < c->filters; o++) {
    double scale = (double)gamma[o] / sqrt((double)var[o] + (double)SER_NORM_EPS);
    for (int64_t i = 0; i < row; i++) out[o * row + i] = (float)(scale * (double)w[o * row + i]);
    out[c->filters * row + o] = (float)((double)beta[o] - (double)mean[o] * scale);
  }
  return out + c->filters * row + c->filters;
}

static float *fold_direction(const ser_inference *inference, float *out, const float *flat, const char *name) {
  const ser_model_config *c = &inference->model->config;
  char block[32];
  snprintf(block, sizeof block, "%s.input", name);
  memcpy(out, value(inference, flat, block, "weight"), (size_t)(c->filters * c->channels) * sizeof *out);
  out += c->filters * c->channels;
  memcpy(out, value(inference, flat, block, "bias"), (size_t)c->filters * sizeof *out);
  out += c->filters;
  for (int64_t i = 0; i < c->blocks; i++) {
    snprintf(block, sizeof block, "%s.%d", name, (int)i);
    for (int which = 1; which <= 2; which++) out = fold_conv(inference, out, flat, block, which);
  }
  return out;
}

void ser_inference_fold(ser_inference *inference, ser_stream *stream, const float *flat) {
  const ser_model_config *c = &inference->model->config;
  float *host = inference->weights_host;
  float *end = fold_direction(inference, fold_direction(inference, host, flat, "forward"), flat, "backward");
  SER_CHECK(end - host == inference->folded_count);
  if (inference->mixed)
    memcpy(host + (inference->mix_w - inference->weights), value(inference, flat, "scales", "weight"),
           (size_t)inference->scale_count * sizeof(float));
  memcpy(host + (inference->head_w - inference->weights), value(inference, flat, "head", "weight"),
         (size_t)(c->classes * c->filters) * sizeof(float));
  memcpy(host + (inference->head_bias - inference->weights), value(inference, flat, "head", "bias"),
         (size_t)c->classes * sizeof(float));
  inference->model->device->rt->write_later(stream, inference->weights, host,
                                            (size_t)inference->weights_count * sizeof(float));
}

ser_status ser_inference_refresh(ser_inference *inference, ser_stream *stream, ser_error *err) {
  const ser_runtime *rt = inference->model->device->rt;
  SER_TRY(rt->read(stream, inference->flat_host, inference->model->flat,
                   (size_t)inference->model->flat_count * sizeof(float), err));
  ser_inference_fold(inference, stream, inference->flat_host);
  return rt->sync(stream, err);
}

void ser_inference_enqueue(ser_inference *inference, ser_stream *stream, float *probabilities, const float *tile,
                           const int64_t *lengths, int64_t batch) {
  SER_CHECK(batch > 0 && batch <= inference->max_batch);
  const ser_ops *ops = inference->model->device->ops;
  const ser_model_config *c = &inference->model->config;
  const int64_t *pooled_lengths = c->pool == SER_POOL_REAL ? lengths : NULL;
  const float *vector = inference->pooled;
  ops->branch_infer(stream, inference->branch, inference->branch_workspace, inference->pooled, tile, inference->weights,
                    pooled_lengths, batch);
  if (inference->mixed) {
    ser_tensor_shape shape = {1, batch, c->filters, c->frames};
    ops->scale_mix_forward(stream, inference->fused, inference->pooled, inference->mix_w, inference->scale_count,
                           &shape);
    vector = inference->fused;
  }
  ser_loss_shape loss = {.rows = inference->max_batch, .classes = c->classes, .stride = inference->stride};
  ops->linear_forward(stream, inference->head, inference->head_workspace, inference->logits, vector, inference->head_w,
                      inference->head_bias, batch);
  ops->softmax(stream, probabilities, inference->logits, &loss, batch);
}

int64_t ser_inference_stride(const ser_inference *inference) {
  return inference->stride;
}

ser_status ser_inference_run(ser_inference *inference, ser_stream *stream, float *probabilities, const float *tile,
                             const int64_t *lengths, int64_t batch, ser_error *err) {
  const ser_model_config *c = &inference->model->config;
  ser_inference_enqueue(inference, stream, inference->probabilities, tile, lengths, batch);
  SER_TRY(inference->model->device->rt->read(stream, inference->rows_host, inference->probabilities,
                                             (size_t)(batch * inference->stride) * sizeof(float), err));
  for (int64_t b = 0; b < batch; b++)
    memcpy(probabilities + b * c->classes, inference->rows_host + b * inference->stride,
           (size_t)c->classes * sizeof(float));
  return SER_OK;
}
