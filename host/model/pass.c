/* One training pass: the temporal branch, the dense head, softmax with its loss, and back. Matches PyTorch's
 * cross_entropy(head(branch(x)), truth, label_smoothing) and autograd. */
#include <stdlib.h>

#include "base/memory.h"
#include "model/internal.h"

struct ser_pass {
  ser_model *model;
  int64_t max_batch, channel_pad, stride;
  ser_temporal *temporal;
  ser_plan *head;
  const float *w, *bias;
  float *dw, *dbias;
  float *gradients;        /* [trained_count]; gaps stay zero */
  const float *pooled;     /* [B][Cp] of the last forward pass */
  float *dpooled;          /* [B][Cp] */
  float *logits, *dlogits; /* [B][stride] */
  float *losses;           /* [B] */
  void *workspace, *memory;
};

static void lay_out(ser_pass *pass, ser_layout *layout) {
  int64_t b = pass->max_batch;
  pass->dpooled = ser_layout_take(layout, b * pass->channel_pad);
  pass->logits = ser_layout_take(layout, b * pass->stride);
  pass->dlogits = ser_layout_take(layout, b * pass->stride);
  pass->losses = ser_layout_take(layout, b);
  pass->workspace = ser_layout_take(layout, (int64_t)(SER_ROUND_UP(pass->head->workspace, 64) / sizeof(float)));
}

static ser_status make(ser_pass *pass, ser_error *err) {
  ser_model *model = pass->model;
  ser_device *device = model->device;
  const ser_model_config *c = &model->config;
  SER_TRY(ser_device_zeroed(&pass->gradients, device, (size_t)model->trained_count * sizeof(float), err));
  int64_t w = ser_parameters_find(model->parameters, model->count, "head.weight")->offset;
  int64_t bias = ser_parameters_find(model->parameters, model->count, "head.bias")->offset;
  pass->w = model->flat + w;
  pass->bias = model->flat + bias;
  pass->dw = pass->gradients + w;
  pass->dbias = pass->gradients + bias;
  ser_linear_shape head = {pass->max_batch, c->filters, c->classes, pass->channel_pad, pass->stride};
  SER_TRY(device->ops->linear_prepare(device, &pass->head, &head, err));
  ser_layout layout = {0};
  lay_out(pass, &layout);
  SER_TRY(ser_device_zeroed(&pass->memory, device, layout.used, err));
  layout = (ser_layout){pass->memory, 0};
  lay_out(pass, &layout);
  return ser_temporal_create(&pass->temporal, model, pass->gradients, pass->max_batch, err);
}

ser_status ser_pass_create(ser_pass **pass, ser_model *model, int64_t max_batch, ser_error *err) {
  SER_CHECK(max_batch > 0);
  ser_pass *made = ser_alloc_zero(1, sizeof *made);
  made->model = model;
  made->max_batch = max_batch;
  made->channel_pad = SER_ROUND_UP(model->config.filters, SER_CHANNEL_PAD);
  made->stride = SER_ROUND_UP(model->config.classes, SER_CHANNEL_PAD);
  ser_status status = make(made, err);
  if (status != SER_OK) {
    ser_pass_free(made);
    made = NULL;
  }
  *pass = made;
  return status;
}

void ser_pass_free(ser_pass *pass) {
  if (!pass) return;
  ser_device *device = pass->model->device;
  ser_temporal_free(pass->temporal);
  ser_plan_free(pass->head);
  device->rt->free(device, pass->gradients);
  device->rt->free(device, pass->memory);
  free(pass);
}

static ser_loss_shape loss_shape(const ser_pass *pass, const ser_batch *batch) {
  return (ser_loss_shape){pass->max_batch, pass->model->config.classes, pass->stride, batch->label_smoothing,
                          batch->focal_gamma};
}

void ser_pass_forward(ser_pass *pass, ser_stream *stream, const ser_batch *batch) {
  SER_CHECK(batch->batch > 0 && batch->batch <= pass->max_batch);
  const ser_ops *ops = pass->model->device->ops;
  ser_loss_shape shape = loss_shape(pass, batch);
  pass->pooled = ser_temporal_forward(pass->temporal, stream, batch);
  ops->linear_forward(stream, pass->head, pass->workspace, pass->logits, pass->pooled, pass->w, pass->bias,
                      batch->batch);
  ops->softmax_loss(stream, pass->losses, pass->dlogits, pass->logits, batch->truth, batch->class_weights, &shape,
                    batch->batch);
}

void ser_pass_backward(ser_pass *pass, ser_stream *stream, const ser_batch *batch) {
  const ser_ops *ops = pass->model->device->ops;
  ops->linear_backward(stream, pass->head, pass->workspace, pass->dpooled, pass->dw, pass->dbias, pass->dlogits,
                       pass->pooled, pass->w, batch->batch);
  ser_temporal_backward(pass->temporal, stream, batch, pass->dpooled);
}

const float *ser_pass_losses(const ser_pass *pass) {
  return pass->losses;
}

const float *ser_pass_logits(const ser_pass *pass) {
  return pass->logits;
}

int64_t ser_pass_stride(const ser_pass *pass) {
  return pass->stride;
}

float *ser_pass_gradients(ser_pass *pass) {
  return pass->gradients;
}
