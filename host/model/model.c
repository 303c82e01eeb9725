/* The model: its configuration checked, its parameters on the device, their first values. */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/philox.h"
#include "model/internal.h"

float *ser_layout_take(ser_layout *layout, int64_t floats) {
  float *taken = layout->base ? (float *)(layout->base + layout->used) : NULL;
  layout->used += SER_ROUND_UP((size_t)floats * sizeof(float), 64);
  return taken;
}

ser_status ser_device_zeroed(void *out, ser_device *device, size_t bytes, ser_error *err) {
  ser_stream *stream = NULL;
  void *memory = NULL;
  ser_status status;
  SER_TRY_DONE(ser_device_alloc(&memory, device, bytes, err));
  SER_TRY_DONE(device->rt->stream_create(device, &stream, err));
  device->rt->zero(stream, memory, bytes);
  status = device->rt->sync(stream, err);
done:
  device->rt->stream_destroy(stream);
  if (status != SER_OK) {
    device->rt->free(device, memory);
    memory = NULL;
  }
  memcpy(out, &memory, sizeof memory);
  return status;
}

ser_status ser_model_check(const ser_model_config *c, ser_error *err) {
  static const struct {
    const char *key;
    size_t offset;
    int64_t least, most;
  } ranges[] = {
      {"model.blocks", offsetof(ser_model_config, blocks), 1, 16},
      {"model.filters", offsetof(ser_model_config, filters), 1, 1024},
      {"model.kernel", offsetof(ser_model_config, kernel), 1, 64},
      {"the number of features a frame", offsetof(ser_model_config, channels), 1, 4096},
      {"the window's frames", offsetof(ser_model_config, frames), 1, 1 << 20},
      {"the number of classes", offsetof(ser_model_config, classes), 2, SER_EMOTIONS},
  };
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
    int64_t value;
    memcpy(&value, (const char *)c + ranges[i].offset, sizeof value);
    if (value < ranges[i].least || value > ranges[i].most)
      return ser_fail(err, SER_USAGE, "%s is %lld; it must lie between %lld and %lld", ranges[i].key, (long long)value,
                      (long long)ranges[i].least, (long long)ranges[i].most);
  }
  if (!(c->dropout >= 0 && c->dropout < 1))
    return ser_fail(err, SER_USAGE, "model.dropout is %g; it must be at least 0 and below 1", c->dropout);
  if (c->branch == SER_BRANCH_TIMNET && c->residual)
    return ser_fail(err, SER_USAGE,
                    "model.residual belongs to the reference branch; leave it out, or set model.branch: reference");
  return SER_OK;
}

ser_status ser_model_create(ser_model **model, ser_device *device, const ser_model_config *config, ser_error *err) {
  *model = NULL;
  SER_TRY(ser_model_check(config, err));
  ser_model *made = ser_alloc_zero(1, sizeof *made);
  made->device = device;
  made->config = *config;
  made->parameters = ser_parameters_make(config, &made->count, &made->trained_count, &made->flat_count);
  ser_status status = ser_device_zeroed(&made->flat, device, (size_t)made->flat_count * sizeof(float), err);
  if (status != SER_OK) {
    ser_model_free(made);
    made = NULL;
  }
  *model = made;
  return status;
}

void ser_model_free(ser_model *model) {
  if (!model) return;
  model->device->rt->free(model->device, model->flat);
  free(model->parameters);
  free(model);
}

const ser_parameter *ser_model_parameters(const ser_model *model, size_t *count) {
  *count = model->count;
  return model->parameters;
}

int64_t ser_model_flat_count(const ser_model *model) {
  return model->flat_count;
}

int64_t ser_model_trained_count(const ser_model *model) {
  return model->trained_count;
}

float *ser_model_flat(ser_model *model) {
  return model->flat;
}

ser_conv_shape ser_model_conv(const ser_model_config *config, int64_t batch) {
  return (ser_conv_shape){.sides = 2,
                          .batch = batch,
                          .in = config->filters,
                          .out = config->filters,
                          .time = config->frames,
                          .kernel = config->kernel,
                          .dilation = (int64_t)1 << (config->blocks - 1),
                          .side_stride = SER_ROUND_UP(config->filters * config->filters * config->kernel, 16)};
}

/* Half the width of the range that a parameter is drawn from: Glorot's for weights; the fused scales start as in the
 * TIM-Net code (Keras's "uniform", -0.05 .. 0.05). */
static float init_limit(const ser_parameter *p) {
  if (p->init == SER_INIT_SCALE) return 0.05f;
  return (float)sqrt(6.0 / (double)(p->fan_in + p->fan_out));
}

static void init_parameter(float *flat, const ser_parameter *p, size_t index, uint64_t seed) {
  float *values = flat + p->offset;
  for (int64_t i = 0; i < p->count; i++) {
    if (p->init == SER_INIT_ZERO || p->init == SER_INIT_ONE) {
      values[i] = p->init == SER_INIT_ONE;
      continue;
    }
    ser_philox block = ser_philox_at(seed, SER_RANDOM_INIT | index, (uint64_t)i / 4);
    values[i] = (2 * ser_uniform(block.v[i % 4]) - 1) * init_limit(p);
  }
}

ser_status ser_model_initialise(ser_model *model, ser_stream *stream, uint64_t seed, ser_error *err) {
  float *flat = ser_alloc_zero((size_t)model->flat_count, sizeof *flat);
  for (size_t i = 0; i < model->count; i++) init_parameter(flat, &model->parameters[i], i, seed);
  model->device->rt->write(stream, model->flat, flat, (size_t)model->flat_count * sizeof *flat);
  free(flat);
  return model->device->rt->sync(stream, err);
}
