/* The temporal branches against PyTorch's numbers (make_temporal.py): losses, gradients of every parameter, running
 * statistics, folded inference, the first 20 training steps, small and at full size, and 8 steps from a trained state.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/memory.h"
#include "base/philox.h"
#include "model/model.h"
#include "model/safetensors.h"
#include "support/harness.h"

/* A model with a pass, Adam's moments and a batch on the device, as the trainer has them. */
typedef struct {
  ser_device *device;
  ser_stream *stream;
  ser_model_config config;
  ser_model *model;
  ser_pass *pass;
  int64_t cp, tp, most;
  float *tile, *m, *v;
  ser_step *at;
  int64_t *lengths;
  int32_t *truth;
  float *flat; /* on the host: [flat_count] */
  float lr;
} rig;

static void *on_device(rig *r, size_t bytes) {
  ser_error err = {0};
  void *memory = r->device->rt->alloc(r->device, bytes, &err);
  if (!memory) fail_msg("%s", err.text);
  r->device->rt->zero(r->stream, memory, bytes);
  return memory;
}

static rig rig_make(ser_device *device, ser_stream *stream, const ser_model_config *config, int64_t most) {
  ser_error err = {0};
  rig r = {.device = device, .stream = stream, .config = *config, .most = most, .lr = 1e-3f};
  ASSERT_OK(ser_model_create(&r.model, device, config, &err), err);
  ASSERT_OK(ser_pass_create(&r.pass, r.model, most, &err), err);
  r.cp = SER_ROUND_UP(config->channels, SER_CHANNEL_PAD);
  r.tp = SER_ROUND_UP(config->frames, SER_TIME_PAD);
  size_t tensor = (size_t)(most * r.cp * r.tp) * 4, trained = (size_t)ser_model_trained_count(r.model) * 4;
  r.tile = on_device(&r, 2 * tensor);
  r.at = on_device(&r, sizeof *r.at);
  r.m = on_device(&r, trained);
  r.v = on_device(&r, trained);
  r.lengths = on_device(&r, (size_t)most * 8);
  r.truth = on_device(&r, (size_t)most * 4);
  r.flat = ser_alloc_zero((size_t)ser_model_flat_count(r.model), 4);
  return r;
}

static void rig_free(rig *r) {
  ser_pass_free(r->pass);
  ser_model_free(r->model);
  void *memory[] = {r->tile, r->m, r->v, r->at, r->lengths, r->truth};
  for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) r->device->rt->free(r->device, memory[i]);
  free(r->flat);
}

/* x [count][channels][frames] into the tile, forwards and backwards. */
static ser_batch rig_batch(rig *r, const float *x, const int64_t *lengths, const int32_t *truth, int64_t count) {
  size_t size = (size_t)(count * r->cp * r->tp);
  float *host = ser_alloc_zero(2 * size, 4);
  int64_t c = r->config.channels, t = r->config.frames;
  for (int64_t row = 0; row < count * c; row++)
    for (int64_t i = 0; i < t; i++) {
      size_t at = (size_t)((row / c * r->cp + row % c) * r->tp);
      host[at + (size_t)i] = x[row * t + i];
      host[size + at + (size_t)(t - 1 - i)] = x[row * t + i];
    }
  r->device->rt->write(r->stream, r->tile, host, 2 * size * 4);
  r->device->rt->write(r->stream, r->lengths, lengths, (size_t)count * 8);
  r->device->rt->write(r->stream, r->truth, truth, (size_t)count * 4);
  free(host);
  return (ser_batch){
      .tile = r->tile, .lengths = r->lengths, .truth = r->truth, .batch = count, .label_smoothing = 0.1f};
}

/* A step behind `done` others. */
static double rig_step(rig *r, const ser_batch *batch, int64_t done) {
  ser_error err = {0};
  const ser_ops *ops = r->device->ops;
  float losses[64];
  double sum = 0;
  ser_adam adam = {r->lr, 0.93f, 0.98f, 1e-8f};
  r->device->rt->write(r->stream, r->at, &(ser_step){.number = done, .place = -1}, sizeof(ser_step));
  ops->step_begin(r->stream, r->at, &adam);
  ser_pass_forward(r->pass, r->stream, batch);
  ser_pass_backward(r->pass, r->stream, batch);
  ops->adam(r->stream, ser_model_flat(r->model), r->m, r->v, ser_pass_gradients(r->pass),
            ser_model_trained_count(r->model), &adam, r->at);
  ASSERT_OK(r->device->rt->read(r->stream, losses, ser_pass_losses(r->pass), (size_t)batch->batch * 4, &err), err);
  for (int64_t i = 0; i < batch->batch; i++) sum += (double)losses[i];
  return sum / (double)batch->batch;
}

/* ---- the small cases --------------------------------------------------------------------------------------------- */

static const void *golden(const ser_tensors *g, const char *prefix, const char *name, const char *dtype) {
  char full[128];
  snprintf(full, sizeof full, "%s%s", prefix, name);
  const ser_tensor *tensor = ser_tensors_find(g, full);
  if (!tensor || strcmp(tensor->dtype, dtype)) fail_msg("the golden has no %s tensor %s", dtype, full);
  return tensor->data;
}

static ser_model_config read_config(const ser_tensors *g) {
  json_t *c = json_loads(ser_tensors_metadata(g, "config"), 0, NULL);
  const char *branch, *pool, *join;
  json_int_t blocks, filters, kernel, channels, frames, classes;
  assert_int_equal(json_unpack(c, "{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "branch", &branch, "pool", &pool,
                               "join", &join, "blocks", &blocks, "filters", &filters, "kernel", &kernel, "channels",
                               &channels, "frames", &frames, "classes", &classes),
                   0);
  ser_model_config config = {.branch = strcmp(branch, "timnet") ? SER_BRANCH_REFERENCE : SER_BRANCH_TIMNET,
                             .blocks = blocks,
                             .filters = filters,
                             .kernel = kernel,
                             .channels = channels,
                             .frames = frames,
                             .classes = classes,
                             .residual = !strcmp(join, "residual"),
                             .pool = strcmp(pool, "real") ? SER_POOL_ALL : SER_POOL_REAL};
  json_decref(c);
  return config;
}

static void set_parameters(rig *r, const ser_tensors *g) {
  size_t count;
  const ser_parameter *p = ser_model_parameters(r->model, &count);
  for (size_t i = 0; i < count; i++)
    memcpy(r->flat + p[i].offset, golden(g, "start.", p[i].name, "F32"), (size_t)p[i].count * 4);
  r->device->rt->write(r->stream, ser_model_flat(r->model), r->flat, (size_t)ser_model_flat_count(r->model) * 4);
}

static ser_batch golden_batch(rig *r, const ser_tensors *g, int which) {
  char prefix[16];
  int32_t truth[8];
  snprintf(prefix, sizeof prefix, "batch%d.", which);
  const int64_t *wide = golden(g, prefix, "truth", "I64");
  char name[32];
  snprintf(name, sizeof name, "%struth", prefix);
  int64_t count = ser_tensors_find(g, name)->shape[0];
  for (int64_t i = 0; i < count; i++) truth[i] = (int32_t)wide[i];
  return rig_batch(r, golden(g, prefix, "x", "F32"), golden(g, prefix, "lengths", "I64"), truth, count);
}

/* The largest error of the rows of the table that `trained` names, relative to each tensor's largest value. */
static double table_error(rig *r, const ser_tensors *g, const char *prefix, const float *values, bool trained) {
  size_t count;
  double worst = 0;
  const ser_parameter *p = ser_model_parameters(r->model, &count);
  for (size_t i = 0; i < count; i++) {
    if (p[i].trained != trained) continue;
    const double *want = golden(g, prefix, p[i].name, "F64");
    double scale = 1e-3, error = 0;
    for (int64_t k = 0; k < p[i].count; k++) scale = fmax(scale, fabs(want[k]));
    for (int64_t k = 0; k < p[i].count; k++) {
      double e = fabs((double)values[p[i].offset + k] - want[k]) / scale;
      if (!(e <= error)) error = e;
    }
    if (!(error < 1e-3)) print_message("%s%s: error %g\n", prefix, p[i].name, error);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

static void check_forward(rig *r, const ser_tensors *g, const ser_batch *batch) {
  ser_error err = {0};
  float losses[8], logits[8 * 8];
  int64_t stride = ser_pass_stride(r->pass);
  const double *want_losses = golden(g, "", "losses", "F64"), *want_logits = golden(g, "", "logits", "F64");
  ser_pass_forward(r->pass, r->stream, batch);
  ser_pass_backward(r->pass, r->stream, batch);
  ASSERT_OK(r->device->rt->read(r->stream, losses, ser_pass_losses(r->pass), (size_t)batch->batch * 4, &err), err);
  ASSERT_OK(r->device->rt->read(r->stream, logits, ser_pass_logits(r->pass), (size_t)(batch->batch * stride) * 4, &err),
            err);
  assert_true(test_difference(losses, want_losses, (size_t)batch->batch) < 1e-5);
  for (int64_t b = 0; b < batch->batch; b++)
    assert_true(test_difference(logits + b * stride, want_logits + b * r->config.classes, (size_t)r->config.classes) <
                1e-5);
}

static void check_gradients(rig *r, const ser_tensors *g) {
  ser_error err = {0};
  size_t flat = (size_t)ser_model_flat_count(r->model) * 4, trained = (size_t)ser_model_trained_count(r->model) * 4;
  ASSERT_OK(r->device->rt->read(r->stream, r->flat, ser_pass_gradients(r->pass), trained, &err), err);
  double gradients = table_error(r, g, "gradient.", r->flat, true);
  ASSERT_OK(r->device->rt->read(r->stream, r->flat, ser_model_flat(r->model), flat, &err), err);
  double running = table_error(r, g, "after.", r->flat, false);
  print_message("  gradients %.1e, running statistics %.1e\n", gradients, running);
  assert_true(gradients < 2e-5);
  assert_true(running < 1e-6);
}

static void check_inference(rig *r, const ser_tensors *g, const ser_batch *batch) {
  ser_error err = {0};
  ser_inference *inference;
  float probabilities[8 * 8];
  ASSERT_OK(ser_inference_create(&inference, r->model, r->stream, r->most, &err), err);
  ASSERT_OK(ser_inference_run(inference, r->stream, probabilities, batch->tile, batch->lengths, batch->batch, &err),
            err);
  assert_true(test_difference(probabilities, golden(g, "", "inferred", "F64"),
                              (size_t)(batch->batch * r->config.classes)) < 1e-5);
  ser_inference_free(inference);
}

static void check_steps(rig *r, const ser_tensors *g) {
  ser_error err = {0};
  const double *want = golden(g, "", "step_losses", "F64");
  double worst = 0;
  set_parameters(r, g);
  for (int64_t step = 0; step < 20; step++) {
    ser_batch batch = golden_batch(r, g, (int)(step % 2));
    double loss = rig_step(r, &batch, step);
    worst = test_worse(worst, fabs(loss - want[step]) / want[step]);
  }
  ASSERT_OK(r->device->rt->read(r->stream, r->flat, ser_model_flat(r->model),
                                (size_t)ser_model_flat_count(r->model) * 4, &err),
            err);
  double parameters = table_error(r, g, "final.", r->flat, true);
  print_message("  20 steps: losses %.1e, parameters %.1e\n", worst, parameters);
  assert_true(worst < 1e-6);
  assert_true(parameters < 5e-6);
}

static void small_case(ser_device *device, ser_stream *stream, void *context) {
  const ser_tensors *g = context;
  ser_model_config config = read_config(g);
  rig r = rig_make(device, stream, &config, 6); /* room for one clip more than comes */
  set_parameters(&r, g);
  ser_batch batch = golden_batch(&r, g, 0);
  check_forward(&r, g, &batch);
  check_gradients(&r, g);
  check_inference(&r, g, &batch);
  check_steps(&r, g);
  rig_free(&r);
}

static void read_golden(ser_tensors *g, const char *name) {
  ser_error err = {0};
  char *path = ser_format("%s/tests/golden/%s.safetensors", test_source(), name);
  ASSERT_OK(ser_tensors_read(g, path, &err), err);
  free(path);
}

static void test_small(void **state) {
  static const char *const names[] = {"temporal_reference_all", "temporal_reference_real", "temporal_residual_all",
                                      "temporal_residual_real", "temporal_timnet_all",     "temporal_timnet_real"};
  (void)state;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    ser_tensors g;
    read_golden(&g, names[i]);
    print_message("%s\n", names[i]);
    test_each_device(small_case, 2, &g);
    ser_tensors_free(&g);
  }
}

/* ---- full size --------------------------------------------------------------------------------------------------- */

static float philox_at(uint64_t key, uint64_t high, int64_t i) {
  return 2 * ser_uniform(ser_philox_at(key, high, (uint64_t)i / 4).v[i % 4]) - 1;
}

/* make_temporal.py's full_batch. */
static ser_batch full_batch(rig *r, int64_t step) {
  int64_t c = r->config.channels, t = r->config.frames, lengths[64];
  float *x = ser_alloc((size_t)(64 * c * t) * 4);
  int32_t truth[64];
  for (int64_t b = 0; b < 64; b++) {
    truth[b] = (int32_t)(b % r->config.classes);
    lengths[b] = 40 + b * 7 % 130;
    for (int64_t i = 0; i < c * t; i++) {
      float offset = i / t % r->config.classes == truth[b] ? 0.5f : 0;
      float value = philox_at(77, (uint64_t)step, b * c * t + i) * 1.75f + offset;
      x[b * c * t + i] = i % t < lengths[b] ? value : 0;
    }
  }
  ser_batch batch = rig_batch(r, x, lengths, truth, 64);
  free(x);
  return batch;
}

typedef struct {
  const char *name;
  ser_branch branch;
  bool residual;
  ser_pooling pool;
  double tolerance; /* twice to thrice the largest error of PyTorch's own float32 from its float64, or ours */
} full_variant;

/* Full size is slow: on the instruction set that is chosen by itself alone. */
static void test_full(void **state) {
  static const full_variant variants[] = {
      {"reference", SER_BRANCH_REFERENCE, false, SER_POOL_ALL, 0.02},
      {"residual", SER_BRANCH_REFERENCE, true, SER_POOL_REAL, 0.002},
      {"timnet", SER_BRANCH_TIMNET, false, SER_POOL_ALL, 1e-5},
  };
  ser_error err = {0};
  ser_device *device;
  ser_stream *stream;
  ser_tensors g;
  (void)state;
  read_golden(&g, "temporal_full");
  ASSERT_OK(ser_device_open(&device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 0}, &err), err);
  ASSERT_OK(device->rt->stream_create(device, &stream, &err), err);
  for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
    const full_variant *v = &variants[i];
    ser_model_config config = {.branch = v->branch,
                               .blocks = 8,
                               .filters = 39,
                               .kernel = 2,
                               .channels = 39,
                               .frames = 162,
                               .classes = 6,
                               .residual = v->residual,
                               .pool = v->pool};
    const double *want = golden(&g, v->name, ".float64", "F64"), *theirs = golden(&g, v->name, ".float32", "F64");
    double worst = 0, worst_theirs = 0;
    rig r = rig_make(device, stream, &config, 64);
    ASSERT_OK(ser_model_initialise(r.model, stream, 1, &err), err);
    for (int64_t step = 0; step < 20; step++) {
      ser_batch batch = full_batch(&r, step);
      double loss = rig_step(&r, &batch, step);
      if (!step) assert_true(fabs(loss - want[0]) < 2e-6 * fmax(1, want[0]));
      worst = test_worse(worst, fabs(loss - want[step]) / want[step]);
      worst_theirs = test_worse(worst_theirs, fabs(theirs[step] - want[step]) / want[step]);
    }
    print_message("%s: losses of 20 steps within %.1e of float64 (PyTorch's float32: %.1e)\n", v->name, worst,
                  worst_theirs);
    assert_true(worst < v->tolerance);
    rig_free(&r);
  }
  device->rt->stream_destroy(stream);
  ser_device_close(device);
  ser_tensors_free(&g);
}

/* ---- from a trained state ---------------------------------------------------------------------------------------- */

/* Moments as the golden has them, on the device. */
static void set_moments(rig *r, float *to, const ser_tensors *g, const char *prefix) {
  size_t count, trained = (size_t)ser_model_trained_count(r->model);
  const ser_parameter *p = ser_model_parameters(r->model, &count);
  float *host = ser_alloc_zero(trained, sizeof *host);
  for (size_t i = 0; i < count; i++)
    if (p[i].trained) memcpy(host + p[i].offset, golden(g, prefix, p[i].name, "F32"), (size_t)p[i].count * 4);
  r->device->rt->write(r->stream, to, host, trained * sizeof *host);
  free(host);
}

/* 8 steps, as a resumed training takes them, and folded inference behind. Measured: losses within 1.7e-6 of PyTorch's
 * float64, its own float32 within 4e-7; the tolerance is three times the larger. */
static void trained_case(ser_device *device, ser_stream *stream, void *context) {
  const ser_tensors *g = context;
  ser_error err = {0};
  ser_model_config config = read_config(g);
  json_t *c = json_loads(ser_tensors_metadata(g, "config"), 0, NULL);
  int64_t first = json_integer_value(json_object_get(c, "steps"));
  const double *want = golden(g, "", "losses", "F64");
  double worst = 0;
  rig r = rig_make(device, stream, &config, 64);
  r.lr = (float)json_number_value(json_object_get(c, "lr"));
  set_parameters(&r, g);
  set_moments(&r, r.m, g, "m.");
  set_moments(&r, r.v, g, "v.");
  for (int64_t step = 0; step < 8; step++) {
    ser_batch batch = full_batch(&r, (first + step) % 4);
    worst = test_worse(worst, fabs(rig_step(&r, &batch, first + step) - want[step]) / want[step]);
  }
  ser_inference *inference;
  float probabilities[64 * 6];
  ser_batch batch = full_batch(&r, 0);
  ASSERT_OK(ser_inference_create(&inference, r.model, stream, 64, &err), err);
  ASSERT_OK(ser_inference_run(inference, stream, probabilities, batch.tile, batch.lengths, 64, &err), err);
  double inferred = test_difference(probabilities, golden(g, "", "inferred", "F64"), 64 * 6);
  print_message("8 steps from a trained state: losses %.1e, probabilities behind them %.1e\n", worst, inferred);
  assert_true(worst < 5e-6);
  assert_true(inferred < 5e-6);
  ser_inference_free(inference);
  json_decref(c);
  rig_free(&r);
}

static void test_trained(void **state) {
  ser_tensors g;
  (void)state;
  read_golden(&g, "temporal_trained");
  test_each_device(trained_case, 2, &g);
  ser_tensors_free(&g);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_small), cmocka_unit_test(test_full),
                                     cmocka_unit_test(test_trained)};
  return cmocka_run_group_tests_name("golden.temporal", tests, NULL, NULL);
}
