/* The model against loops in double: gradients of every kind of parameter against finite differences, folded inference
 * against the graph with running statistics; and what must hold bit for bit: batches, neighbours, threads, no
 * allocation inside a step, the table of parameters. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/philox.h"
#include "model/model.h"
#include "support/harness.h"

enum { CLIPS = 3, MOST = 4 };

typedef struct {
  const char *name;
  ser_model_config config;
  bool weighted;
  float focal_gamma;
} variant;

static const variant variants[] = {
    {"reference", {SER_BRANCH_REFERENCE, 2, 5, 2, 7, 21, 4, 0.0, false, SER_POOL_ALL}, false, 0},
    {"reference, dropout", {SER_BRANCH_REFERENCE, 3, 9, 3, 3, 17, 3, 0.3, false, SER_POOL_REAL}, true, 0},
    {"residual", {SER_BRANCH_REFERENCE, 3, 6, 2, 7, 16, 4, 0.2, true, SER_POOL_REAL}, false, 1.5f},
    {"residual, one block", {SER_BRANCH_REFERENCE, 1, 8, 2, 8, 33, 2, 0.0, true, SER_POOL_ALL}, false, 0},
    {"timnet", {SER_BRANCH_TIMNET, 3, 5, 2, 7, 19, 6, 0.25, false, SER_POOL_ALL}, true, 2},
    {"timnet, real frames", {SER_BRANCH_TIMNET, 2, 6, 1, 4, 24, 4, 0.0, false, SER_POOL_REAL}, false, 0},
};
enum { VARIANTS = sizeof variants / sizeof *variants };

/* ---- the model in double ------------------------------------------------------------------------------------------
 */

typedef struct {
  const ser_model_config *c;
  const ser_parameter *rows;
  size_t count;
  const double *flat; /* parameters by their offsets */
  const float *x;     /* [CLIPS][channels][frames] */
  const float *drop;  /* [layers][CLIPS][filters] or NULL */
  bool running;       /* running statistics instead of the batch's */
  int64_t lengths[CLIPS];
} graph;

static const double *value(const graph *g, const char *direction, int64_t block, const char *what) {
  char name[64];
  if (block < 0)
    snprintf(name, sizeof name, "%s.%s", direction, what);
  else
    snprintf(name, sizeof name, "%s.%d.%s", direction, (int)block, what);
  for (size_t i = 0; i < g->count; i++)
    if (!strcmp(g->rows[i].name, name)) return g->flat + g->rows[i].offset;
  fail_msg("no parameter %s", name);
  return NULL;
}

/* y [CLIPS][out][T] = causal convolution of x [CLIPS][in][T]. */
static void convolve(double *y, const double *x, const double *w, const double *bias, int64_t in, int64_t out,
                     int64_t kernel, int64_t dilation, int64_t frames) {
  for (int64_t b = 0; b < CLIPS; b++)
    for (int64_t o = 0; o < out; o++)
      for (int64_t t = 0; t < frames; t++) {
        double sum = bias ? bias[o] : 0;
        for (int64_t i = 0; i < in; i++)
          for (int64_t k = 0; k < kernel; k++) {
            int64_t at = t - (kernel - 1 - k) * dilation;
            if (at >= 0) sum += w[(o * in + i) * kernel + k] * x[(b * in + i) * frames + at];
          }
        y[(b * out + o) * frames + t] = sum;
      }
}

/* Batch norm, ReLU and dropout in place. */
static void normalise(const graph *g, double *y, const char *direction, int64_t block, int conv, const float *drop) {
  int64_t f = g->c->filters, frames = g->c->frames;
  char name[4][24];
  static const char *const ends[4] = {"weight", "bias", "running_mean", "running_var"};
  for (int i = 0; i < 4; i++) snprintf(name[i], sizeof name[i], "norm%d.%s", conv, ends[i]);
  for (int64_t c = 0; c < f; c++) {
    double mean = 0, var = 0, n = (double)(CLIPS * frames);
    for (int64_t i = 0; i < CLIPS * frames; i++) mean += y[(i / frames * f + c) * frames + i % frames] / n;
    for (int64_t i = 0; i < CLIPS * frames; i++)
      var += pow(y[(i / frames * f + c) * frames + i % frames] - mean, 2) / n;
    if (g->running) {
      mean = value(g, direction, block, name[2])[c];
      var = value(g, direction, block, name[3])[c];
    }
    double scale = value(g, direction, block, name[0])[c] / sqrt(var + 1e-3);
    double beta = value(g, direction, block, name[1])[c];
    for (int64_t i = 0; i < CLIPS * frames; i++) {
      double *at = &y[(i / frames * f + c) * frames + i % frames];
      *at = fmax(0, (*at - mean) * scale + beta) * (drop ? (double)drop[i / frames * f + c] : 1);
    }
  }
}

/* pooled [CLIPS][filters] += mean over time of the direction's x. */
static void pool(const graph *g, double *pooled, const double *x, bool backward, double weight) {
  int64_t f = g->c->filters, frames = g->c->frames;
  for (int64_t row = 0; row < CLIPS * f; row++) {
    int64_t n = g->c->pool == SER_POOL_REAL && g->lengths[row / f] < frames ? g->lengths[row / f] : frames;
    for (int64_t t = 0; t < n; t++)
      pooled[row] += weight * x[row * frames + (backward ? frames - n + t : t)] / (double)n;
  }
}

static void run_direction(const graph *g, double *pooled, int d) {
  const ser_model_config *c = g->c;
  const char *name = d ? "backward" : "forward";
  int64_t frames = c->frames;
  size_t size = (size_t)(CLIPS * c->filters * frames);
  double *in = ser_alloc_zero((size_t)(CLIPS * c->channels * frames), 8);
  double *x = ser_alloc_zero(size, 8), *a = ser_alloc_zero(size, 8), *between = ser_alloc_zero(size, 8);
  for (int64_t i = 0; i < CLIPS * c->channels * frames; i++)
    in[i] = (double)g->x[d ? i / frames * frames + frames - 1 - i % frames : i];
  convolve(x, in, value(g, name, -1, "input.weight"), value(g, name, -1, "input.bias"), c->channels, c->filters, 1, 1,
           frames);
  for (int64_t i = 0; i < c->blocks; i++) {
    const float *drop = g->drop ? g->drop + (d * c->blocks + i) * 2 * CLIPS * c->filters : NULL;
    convolve(between, x, value(g, name, i, "conv1.weight"), NULL, c->filters, c->filters, c->kernel, 1 << i, frames);
    normalise(g, between, name, i, 1, drop);
    convolve(a, between, value(g, name, i, "conv2.weight"), NULL, c->filters, c->filters, c->kernel, 1 << i, frames);
    normalise(g, a, name, i, 2, drop ? drop + CLIPS * c->filters : NULL);
    for (size_t k = 0; k < size; k++)
      x[k] = c->branch == SER_BRANCH_TIMNET ? x[k] / (1 + exp(-a[k])) : a[k] + (c->residual ? x[k] : 0);
    if (c->branch == SER_BRANCH_TIMNET)
      pool(g, pooled, x, d, value(g, "scales", -1, "weight")[i]);
    else if (i == c->blocks - 1)
      pool(g, pooled, x, d, 1);
  }
  free(in);
  free(x);
  free(a);
  free(between);
}

/* probabilities [CLIPS][classes] */
static void run_graph(const graph *g, double *probabilities) {
  const ser_model_config *c = g->c;
  double *pooled = ser_alloc_zero((size_t)(CLIPS * c->filters), 8);
  for (int d = 0; d < 2; d++) run_direction(g, pooled, d);
  const double *w = value(g, "head", -1, "weight"), *bias = value(g, "head", -1, "bias");
  for (int64_t b = 0; b < CLIPS; b++) {
    double sum = 0, *p = probabilities + b * c->classes;
    for (int64_t o = 0; o < c->classes; o++) {
      p[o] = bias[o];
      for (int64_t i = 0; i < c->filters; i++) p[o] += w[o * c->filters + i] * pooled[b * c->filters + i];
      p[o] = exp(p[o]);
      sum += p[o];
    }
    for (int64_t o = 0; o < c->classes; o++) p[o] /= sum;
  }
  free(pooled);
}

static double loss_of(const graph *g, const variant *v, const int32_t *truth, const float *weights, double smoothing) {
  double probabilities[CLIPS * SER_EMOTIONS], loss = 0;
  int64_t classes = g->c->classes;
  run_graph(g, probabilities);
  for (int64_t b = 0; b < CLIPS; b++) {
    const double *p = probabilities + b * classes;
    double entropy = 0;
    for (int64_t o = 0; o < classes; o++)
      entropy -= ((o == truth[b] ? 1 - smoothing : 0) + smoothing / (double)classes) * log(p[o]);
    entropy *= pow(1 - p[truth[b]], (double)v->focal_gamma);
    loss += entropy * (weights ? (double)weights[truth[b]] : 1) / CLIPS;
  }
  return loss;
}

/* ---- the model on a device ----------------------------------------------------------------------------------------
 */

typedef struct {
  const variant *v;
  ser_device *device;
  ser_stream *stream;
  ser_model *model;
  const ser_parameter *rows;
  size_t count;
  int64_t cp, tp;
  float *x;    /* [CLIPS][channels][frames] */
  float *flat; /* parameters, float, by offset */
  int64_t lengths[CLIPS];
  int32_t truth[CLIPS];
  float weights[SER_EMOTIONS];
  test_buffer tile, device_weights;
  ser_step *at;
  int64_t *device_lengths;
  int32_t *device_truth;
} rig;

static void fill_parameters(rig *r) {
  r->flat = ser_alloc_zero((size_t)ser_model_flat_count(r->model), 4);
  for (size_t i = 0; i < r->count; i++)
    for (int64_t k = 0; k < r->rows[i].count; k++) {
      float random = test_random(11 + i, (uint64_t)k);
      bool positive = r->rows[i].init == SER_INIT_ONE; /* gammas and variances */
      r->flat[r->rows[i].offset + k] = positive ? 1 + 0.5f * random : 0.6f * random;
    }
  r->device->rt->write(r->stream, ser_model_flat(r->model), r->flat, (size_t)ser_model_flat_count(r->model) * 4);
}

static void fill_inputs(rig *r) {
  const ser_model_config *c = &r->v->config;
  size_t size = (size_t)(CLIPS * r->cp * r->tp);
  float *tile = ser_alloc_zero(2 * size, 4), *reversed = tile + size;
  r->x = ser_alloc_zero((size_t)(CLIPS * c->channels * c->frames), 4);
  for (int64_t b = 0; b < CLIPS; b++) {
    r->lengths[b] = b == 1 ? c->frames + 5 : c->frames - 3 - 4 * b;
    r->truth[b] = (int32_t)((b + 1) % c->classes);
    for (int64_t i = 0; i < c->channels * c->frames; i++) {
      int64_t t = i % c->frames, row = (b * r->cp + i / c->frames) * r->tp;
      float value_here = t < r->lengths[b] ? 1.7f * test_random(3, (uint64_t)(b * 1000 + i)) : 0;
      r->x[b * c->channels * c->frames + i] = tile[row + t] = reversed[row + c->frames - 1 - t] = value_here;
    }
  }
  for (int i = 0; i < SER_EMOTIONS; i++) r->weights[i] = 0.5f + 0.25f * (float)i;
  r->tile = test_buffer_from(r->device, r->stream, tile, 2 * size);
  r->device_weights = test_buffer_from(r->device, r->stream, r->weights, SER_EMOTIONS);
  free(tile);
}

static rig rig_make(ser_device *device, ser_stream *stream, const variant *v) {
  ser_error err = {0};
  rig r = {.v = v, .device = device, .stream = stream};
  ASSERT_OK(ser_model_create(&r.model, device, &v->config, &err), err);
  r.rows = ser_model_parameters(r.model, &r.count);
  r.cp = SER_ROUND_UP(v->config.channels, SER_CHANNEL_PAD);
  r.tp = SER_ROUND_UP(v->config.frames, SER_TIME_PAD);
  fill_parameters(&r);
  fill_inputs(&r);
  r.device_lengths = device->rt->alloc(device, sizeof r.lengths, &err);
  r.device_truth = device->rt->alloc(device, sizeof r.truth, &err);
  r.at = device->rt->alloc(device, sizeof *r.at, &err);
  device->rt->write(stream, r.at, &(ser_step){.number = 8}, sizeof *r.at);
  device->rt->write(stream, r.device_lengths, r.lengths, sizeof r.lengths);
  device->rt->write(stream, r.device_truth, r.truth, sizeof r.truth);
  return r;
}

static void rig_free(rig *r) {
  test_buffer_free(&r->tile);
  test_buffer_free(&r->device_weights);
  r->device->rt->free(r->device, r->at);
  r->device->rt->free(r->device, r->device_lengths);
  r->device->rt->free(r->device, r->device_truth);
  ser_model_free(r->model);
  free(r->x);
  free(r->flat);
}

static ser_batch batch_of(const rig *r) {
  return (ser_batch){.tile = r->tile.data,
                     .lengths = r->device_lengths,
                     .truth = r->device_truth,
                     .class_weights = r->v->weighted ? r->device_weights.data : NULL,
                     .batch = CLIPS,
                     .seed = 42,
                     .step = r->at,
                     .label_smoothing = 0.1f,
                     .focal_gamma = r->v->focal_gamma};
}

/* The masks of the eighth step as dropout_mask draws them: rows of [side][layer][clip]. */
static float *masks_of(const ser_model_config *c) {
  if (c->dropout == 0) return NULL;
  int64_t rows = 4 * c->blocks * CLIPS, cp = SER_ROUND_UP(c->filters, SER_CHANNEL_PAD);
  float *drop = ser_alloc((size_t)(rows * c->filters) * 4);
  for (int64_t row = 0; row < rows; row++)
    for (int64_t f = 0; f < c->filters; f++) {
      float u = ser_uniform(ser_philox_at(42, 7, (uint64_t)(row * (cp / 4) + f / 4)).v[f % 4]);
      drop[row * c->filters + f] = u < (float)c->dropout ? 0 : 1 / (1 - (float)c->dropout);
    }
  return drop;
}

static graph graph_of(const rig *r, const double *flat, const float *drop, bool running) {
  graph g = {&r->v->config, r->rows, r->count, flat, r->x, drop, running, {0}};
  memcpy(g.lengths, r->lengths, sizeof g.lengths);
  return g;
}

static double *widen(const rig *r) {
  int64_t n = ser_model_flat_count(r->model);
  double *flat = ser_alloc((size_t)n * 8);
  for (int64_t i = 0; i < n; i++) flat[i] = (double)r->flat[i];
  return flat;
}

/* ---- gradients ----------------------------------------------------------------------------------------------------
 */

static double difference_quotient(const rig *r, double *flat, int64_t at, const float *drop) {
  const double h = 1e-6;
  double before = flat[at], sides[2];
  graph g = graph_of(r, flat, drop, false);
  for (int side = 0; side < 2; side++) {
    flat[at] = before + (side ? -h : h);
    sides[side] = loss_of(&g, r->v, r->truth, r->v->weighted ? r->weights : NULL, (double)0.1f);
  }
  flat[at] = before;
  return (sides[0] - sides[1]) / (2 * h);
}

static void check_gradients(ser_device *device, ser_stream *stream, void *context) {
  ser_error err = {0};
  rig r = rig_make(device, stream, context);
  ser_batch batch = batch_of(&r);
  ser_pass *pass;
  float losses[MOST], *got = ser_alloc((size_t)ser_model_trained_count(r.model) * 4);
  float *drop = masks_of(&r.v->config);
  double *flat = widen(&r), loss = 0, worst = 0;
  ASSERT_OK(ser_pass_create(&pass, r.model, MOST, &err), err);
  ser_pass_forward(pass, stream, &batch);
  ser_pass_backward(pass, stream, &batch);
  ASSERT_OK(device->rt->read(stream, losses, ser_pass_losses(pass), CLIPS * 4, &err), err);
  ASSERT_OK(device->rt->read(stream, got, ser_pass_gradients(pass), (size_t)ser_model_trained_count(r.model) * 4, &err),
            err);
  for (int b = 0; b < CLIPS; b++) loss += (double)losses[b] / CLIPS;
  graph g = graph_of(&r, flat, drop, false);
  double want_loss = loss_of(&g, r.v, r.truth, r.v->weighted ? r.weights : NULL, (double)0.1f);
  if (!(fabs(loss - want_loss) < 1e-5)) fail_msg("%s: loss %.8g, in double %.8g", r.v->name, loss, want_loss);
  for (size_t i = 0; i < r.count && r.rows[i].trained; i++) {
    double scale = 1e-2;
    for (int64_t k = 0; k < r.rows[i].count; k++) scale = fmax(scale, fabs((double)got[r.rows[i].offset + k]));
    for (int64_t n = 0; n < 6; n++) { /* the first, the last, and some between */
      int64_t k =
          n < 2 ? n * (r.rows[i].count - 1) : (int64_t)(ser_philox_at(i, 1, (uint64_t)n).v[0] % r.rows[i].count);
      double want = difference_quotient(&r, flat, r.rows[i].offset + k, drop);
      double error = fabs((double)got[r.rows[i].offset + k] - want) / scale;
      if (!(error < 1e-5))
        fail_msg("%s: gradient of %s[%d] is %.8g, by differences %.8g", r.v->name, r.rows[i].name, (int)k,
                 (double)got[r.rows[i].offset + k], want);
      worst = fmax(worst, error);
    }
  }
  print_message("%s: gradients within %.1e of the largest\n", r.v->name, worst);
  ser_pass_free(pass);
  free(got);
  free(drop);
  free(flat);
  rig_free(&r);
}

static void test_gradients(void **state) {
  (void)state;
  for (int i = 0; i < VARIANTS; i++) test_each_device(check_gradients, 2, (void *)&variants[i]);
}

/* ---- inference ----------------------------------------------------------------------------------------------------
 */

static void check_inference(ser_device *device, ser_stream *stream, void *context) {
  ser_error err = {0};
  rig r = rig_make(device, stream, context);
  int64_t classes = r.v->config.classes, tensor = r.cp * r.tp;
  double want[CLIPS * SER_EMOTIONS], *flat = widen(&r);
  float together[CLIPS * SER_EMOTIONS], alone[SER_EMOTIONS];
  ser_inference *inference, *small;
  graph g = graph_of(&r, flat, NULL, true);
  run_graph(&g, want);
  ASSERT_OK(ser_inference_create(&inference, r.model, stream, MOST, &err), err);
  ASSERT_OK(ser_inference_create(&small, r.model, stream, 1, &err), err);
  ASSERT_OK(ser_inference_run(inference, stream, together, r.tile.data, r.device_lengths, CLIPS, &err), err);
  double error = test_difference(together, want, (size_t)(CLIPS * classes));
  if (!(error < 1e-5)) fail_msg("%s: probabilities differ by %g", r.v->name, error);
  /* A clip's bytes are its own: alone, with room for others or without, it gives what it gave among them. */
  for (int64_t b = 0; b < CLIPS; b++) {
    ASSERT_OK(ser_inference_run(b % 2 ? small : inference, stream, alone, r.tile.data + b * tensor,
                                r.device_lengths + b, 1, &err),
              err);
    assert_memory_equal(alone, together + b * classes, (size_t)classes * 4);
  }
  /* Parameters that changed count after a refresh, and not before. */
  device->rt->zero(stream, ser_model_flat(r.model), (size_t)ser_model_flat_count(r.model) * 4);
  ASSERT_OK(ser_inference_run(inference, stream, alone, r.tile.data, r.device_lengths, 1, &err), err);
  assert_memory_equal(alone, together, (size_t)classes * 4);
  ASSERT_OK(ser_inference_refresh(inference, stream, &err), err);
  ASSERT_OK(ser_inference_run(inference, stream, alone, r.tile.data, r.device_lengths, 1, &err), err);
  for (int64_t o = 0; o < classes; o++) assert_true(fabsf(alone[o] - 1 / (float)classes) < 1e-6f);
  ser_inference_free(inference);
  ser_inference_free(small);
  free(flat);
  rig_free(&r);
}

static void test_inference(void **state) {
  (void)state;
  for (int i = 0; i < VARIANTS; i++) test_each_device(check_inference, 2, (void *)&variants[i]);
}

/* ---- bit for bit --------------------------------------------------------------------------------------------------
 */

/* A step's gradients and running statistics with this many threads; nothing is allocated on the device meanwhile. */
static float *step_bytes(const variant *v, int threads, size_t *size) {
  ser_error err = {0};
  ser_device *device;
  ser_stream *stream;
  ser_pass *pass;
  ser_device_counters before, after;
  ASSERT_OK(ser_device_open(&device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = threads}, &err), err);
  ASSERT_OK(device->rt->stream_create(device, &stream, &err), err);
  rig r = rig_make(device, stream, v);
  ser_batch batch = batch_of(&r);
  ASSERT_OK(ser_pass_create(&pass, r.model, MOST, &err), err);
  device->rt->counters(device, &before);
  for (int i = 0; i < 2; i++) {
    ser_pass_forward(pass, stream, &batch);
    ser_pass_backward(pass, stream, &batch);
  }
  device->rt->counters(device, &after);
  assert_int_equal(before.allocations, after.allocations);
  int64_t trained = ser_model_trained_count(r.model), flat = ser_model_flat_count(r.model);
  *size = (size_t)(trained + flat) * 4;
  float *bytes = ser_alloc(*size);
  ASSERT_OK(device->rt->read(stream, bytes, ser_pass_gradients(pass), (size_t)trained * 4, &err), err);
  ASSERT_OK(device->rt->read(stream, bytes + trained, ser_model_flat(r.model), (size_t)flat * 4, &err), err);
  ser_pass_free(pass);
  rig_free(&r);
  device->rt->stream_destroy(stream);
  ser_device_close(device);
  return bytes;
}

static void test_threads(void **state) {
  (void)state;
  for (int i = 0; i < VARIANTS; i++) {
    size_t size, other_size;
    float *one = step_bytes(&variants[i], 1, &size);
    for (int threads = 2; threads <= 3; threads++) {
      float *more = step_bytes(&variants[i], threads, &other_size);
      assert_memory_equal(one, more, size);
      free(more);
    }
    free(one);
  }
}

/* ---- the table of parameters --------------------------------------------------------------------------------------
 */

static void test_table(void **state) {
  ser_error err = {0};
  ser_device *device;
  (void)state;
  ASSERT_OK(ser_device_open(&device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &err), err);
  for (int i = 0; i < VARIANTS; i++) {
    ser_model *model;
    size_t count;
    ASSERT_OK(ser_model_create(&model, device, &variants[i].config, &err), err);
    const ser_parameter *p = ser_model_parameters(model, &count);
    int64_t end = 0, trained_end = 0;
    for (size_t k = 0; k < count; k++) {
      int64_t elements = 1;
      for (int d = 0; d < p[k].dimensions; d++) elements *= p[k].shape[d];
      assert_int_equal(elements, p[k].count);
      assert_int_equal(p[k].offset % 16, 0);
      assert_true(p[k].offset >= end && p[k].offset < end + 16);
      end = p[k].offset + p[k].count;
      if (p[k].trained) trained_end = end;
      assert_true(!p[k].trained || !k || p[k - 1].trained); /* trained ones first */
      for (size_t n = 0; n < k; n++) assert_string_not_equal(p[n].name, p[k].name);
      assert_null(strstr(p[k].name, "conv1.bias")); /* none before a batch norm */
    }
    assert_int_equal(ser_model_flat_count(model), SER_ROUND_UP(end, 16));
    assert_int_equal(ser_model_trained_count(model), SER_ROUND_UP(trained_end, 16));
    ser_model_free(model);
  }
  /* The reference at its full size: 2 x (39 x 39 + 39) + 32 x (39 x 39 x 2 + 2 x 39) + 39 x 6 + 6. */
  ser_model_config full = {SER_BRANCH_REFERENCE, 8, 39, 2, 39, 162, 6, 0.1, false, SER_POOL_ALL};
  ser_model *model;
  size_t count;
  int64_t trained = 0;
  ASSERT_OK(ser_model_create(&model, device, &full, &err), err);
  const ser_parameter *p = ser_model_parameters(model, &count);
  for (size_t k = 0; k < count; k++) trained += p[k].trained ? p[k].count : 0;
  assert_int_equal(trained, 3120 + 32 * 3120 + 240);
  ser_model_free(model);
  ser_device_close(device);
}

static void check_initialise(ser_device *device, ser_stream *stream, void *context) {
  ser_error err = {0};
  ser_model *model;
  float *first = context; /* of the first device: all give the same bytes */
  ser_model_config c = {SER_BRANCH_TIMNET, 4, 20, 2, 39, 162, 6, 0.1, false, SER_POOL_ALL};
  ASSERT_OK(ser_model_create(&model, device, &c, &err), err);
  int64_t n = ser_model_flat_count(model);
  float *flat = ser_alloc((size_t)n * 4), *other = ser_alloc((size_t)n * 4);
  assert_true(n < 1 << 16);
  ASSERT_OK(ser_model_initialise(model, stream, 6, &err), err);
  ASSERT_OK(device->rt->read(stream, other, ser_model_flat(model), (size_t)n * 4, &err), err);
  ASSERT_OK(ser_model_initialise(model, stream, 5, &err), err);
  ASSERT_OK(device->rt->read(stream, flat, ser_model_flat(model), (size_t)n * 4, &err), err);
  assert_memory_not_equal(flat, other, (size_t)n * 4);
  if (isnan(first[0])) memcpy(first, flat, (size_t)n * 4);
  assert_memory_equal(first, flat, (size_t)n * 4);
  size_t count;
  const ser_parameter *p = ser_model_parameters(model, &count);
  for (size_t i = 0; i < count; i++) {
    double limit = p[i].init == SER_INIT_SCALE ? 0.05 : sqrt(6.0 / (double)(p[i].fan_in + p[i].fan_out)), squares = 0;
    for (int64_t k = 0; k < p[i].count; k++) {
      float w = flat[p[i].offset + k];
      if (p[i].init == SER_INIT_ZERO) assert_true(w == 0);
      if (p[i].init == SER_INIT_ONE) assert_true(w == 1);
      if (p[i].init == SER_INIT_GLOROT || p[i].init == SER_INIT_SCALE) assert_true(fabs((double)w) <= limit);
      squares += pow((double)w / limit, 2) / (double)p[i].count;
    }
    if (p[i].init == SER_INIT_GLOROT && p[i].count > 400) assert_true(fabs(squares - 1.0 / 3) < 0.05);
  }
  free(flat);
  free(other);
  ser_model_free(model);
}

static void test_initialise(void **state) {
  (void)state;
  float *first = ser_alloc(4 << 16);
  first[0] = NAN;
  test_each_device(check_initialise, 1, first);
  free(first);
}

static void test_refused(void **state) {
  static const struct {
    ser_model_config config;
    const char *named;
  } table[] = {
      {{SER_BRANCH_TIMNET, 8, 39, 2, 39, 162, 6, 0.1, true, SER_POOL_ALL}, "model.residual"},
      {{SER_BRANCH_REFERENCE, 0, 39, 2, 39, 162, 6, 0.1, false, SER_POOL_ALL}, "model.blocks"},
      {{SER_BRANCH_REFERENCE, 8, 0, 2, 39, 162, 6, 0.1, false, SER_POOL_ALL}, "model.filters"},
      {{SER_BRANCH_REFERENCE, 8, 39, 0, 39, 162, 6, 0.1, false, SER_POOL_ALL}, "model.kernel"},
      {{SER_BRANCH_REFERENCE, 8, 39, 2, 39, 162, 6, 1.0, false, SER_POOL_ALL}, "model.dropout"},
      {{SER_BRANCH_REFERENCE, 8, 39, 2, 39, 162, 1, 0.1, false, SER_POOL_ALL}, "classes"},
  };
  ser_error err = {0};
  ser_device *device;
  (void)state;
  ASSERT_OK(ser_device_open(&device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &err), err);
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    ser_model *model;
    assert_int_equal(ser_model_create(&model, device, &table[i].config, &err), SER_USAGE);
    assert_non_null(strstr(err.text, table[i].named));
    assert_null(model);
  }
  ser_device_close(device);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gradients), cmocka_unit_test(test_inference),  cmocka_unit_test(test_threads),
      cmocka_unit_test(test_table),     cmocka_unit_test(test_initialise), cmocka_unit_test(test_refused),
  };
  return cmocka_run_group_tests_name("unit.model", tests, NULL, NULL);
}
