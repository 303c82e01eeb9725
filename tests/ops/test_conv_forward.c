/* causal_conv_forward against loops in double: every kernel length, dilations within and beyond the clip, odd sizes,
 * left-out arguments; bytes that depend on neither threads nor batch nor neighbours nor the other side. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/temporal.h"

/* Of both sides. */
typedef struct {
  float *x, *scale, *shift, *drop, *w, *bias;
  size_t weights, stride; /* of w; of w and bias */
} conv_data;

typedef struct {
  int64_t batch, in, out, time, kernel, dilation;
  bool norm, drop, bias, moments;
  int64_t first, count; /* the clips that are run: all where count is 0 */
  int64_t most;         /* the plan's batch where not 0 */
  conv_data data;
} conv_case;

static conv_data make_data(const conv_case *k) {
  test_dims d = test_dims_make(2 * k->batch, k->in, k->time);
  conv_data data = {.x = test_tensor(1, &d), .weights = (size_t)(k->out * k->in * k->kernel)};
  data.stride = data.weights + 5;
  data.w = test_parameters(2, data.weights, data.stride, -1, 1);
  if (k->bias) data.bias = test_parameters(3, (size_t)k->out, data.stride, -1, 1);
  if (k->norm) {
    data.scale = test_vectors(4, 2, k->in, -1.5, 1.5);
    data.shift = test_vectors(5, 2, k->in, -0.5, 1);
    if (k->drop) data.drop = test_drops(6, &d);
  }
  return data;
}

static void free_data(conv_data *data) {
  free(data->x);
  free(data->scale);
  free(data->shift);
  free(data->drop);
  free(data->w);
  free(data->bias);
}

/* Floats of a side: y, moments. */
static size_t outputs(const conv_case *k) {
  test_dims y = test_dims_make(k->count ? k->count : k->batch, k->out, k->time);
  return y.count + (k->moments ? 2 * y.columns : 0);
}

static void run(test_buffers *all, const void *context, test_sides s, float *out) {
  const conv_case *k = context;
  const ser_ops *ops = all->device->ops;
  int64_t batch = k->count ? k->count : k->batch;
  test_dims d = test_dims_make(batch, k->in, k->time), dy = test_dims_make(batch, k->out, k->time);
  const conv_data data = k->data;
  test_clips clips = {s, k->batch, k->first, batch};
  size_t cp = (size_t)d.cp;
  ser_conv_shape shape = {s.count,     k->most ? k->most : batch, k->in, k->out, k->time, k->kernel,
                          k->dilation, (int64_t)data.stride};
  ser_plan *plan;
  ser_error err = {0};
  ASSERT_OK(ops->conv_prepare(all->device, &plan, &shape, &err), err);
  ser_activation x = {test_in_clips(all, data.x, &clips, d.cp * d.tp), test_in_sides(all, data.scale, s, cp, cp),
                      test_in_sides(all, data.shift, s, cp, cp), test_in_clips(all, data.drop, &clips, d.cp)};
  float *w = test_in_sides(all, data.w, s, data.weights, data.stride);
  float *bias = test_in_sides(all, data.bias, s, (size_t)k->out, data.stride);
  size_t n = outputs(k), m = 2 * dy.columns;
  float *y = test_out_sides(all, s, dy.count, dy.count), *moments = k->moments ? test_out_sides(all, s, m, m) : NULL;
  void *workspace = test_workspace(all, plan);
  int64_t before = test_allocations(all->device);
  ops->causal_conv_forward(all->stream, plan, workspace, y, moments, &x, w, bias, batch);
  assert_int_equal(test_allocations(all->device), before);
  test_read_sides(all, out, n, y, s, dy.count, dy.count);
  if (moments) test_read_sides(all, out + dy.count, n, moments, s, m, m);
  ser_plan_free(plan);
}

static void check(const void *context, int64_t side, const float *out) {
  const conv_case *k = context;
  test_dims d = test_dims_make(k->batch, k->in, k->time), dy = test_dims_make(k->batch, k->out, k->time);
  const conv_data data = k->data;
  const float *w = data.w + (size_t)side * data.stride,
              *bias = data.bias ? data.bias + (size_t)side * data.stride : NULL;
  ser_activation x = {data.x, data.scale, data.shift, data.drop};
  double *a = test_activation(&x, side, &d);
  double *y = ser_alloc_zero(dy.count, sizeof *y), *moments = ser_alloc_zero(2 * dy.columns, sizeof *moments);
  for (int64_t b = 0; b < k->batch; b++)
    for (int64_t o = 0; o < k->out; o++) {
      double mean = 0, squares = 0;
      for (int64_t t = 0; t < k->time; t++) {
        double sum = bias ? (double)bias[o] : 0;
        for (int64_t j = 0; j < k->kernel; j++) {
          int64_t from = t - (k->kernel - 1 - j) * k->dilation;
          for (int64_t i = 0; i < k->in && from >= 0; i++)
            sum += (double)w[(o * k->in + i) * k->kernel + j] * a[test_at(&d, b, i, from)];
        }
        y[test_at(&dy, b, o, t)] = sum;
        mean += sum / (double)k->time;
      }
      for (int64_t t = 0; t < k->time; t++) squares += pow(y[test_at(&dy, b, o, t)] - mean, 2);
      moments[b * 2 * dy.cp + o] = mean;
      moments[(b * 2 + 1) * dy.cp + o] = squares;
    }
  test_padding(out, &dy);
  /* Grows with the number of terms of a sum; cuDNN's own order of summing gave 4.2e-6. */
  double tolerance = k->in * k->kernel > 128 ? 1.6e-5 : 5e-6;
  test_close("outputs", out, y, dy.count, tolerance);
  if (k->moments) test_vector_padding(out + dy.count, 2 * k->batch, k->out);
  if (k->moments) test_close("moments", out + dy.count, moments, 2 * dy.columns, tolerance);
  free(a);
  free(y);
  free(moments);
}

static void try_case(conv_case k) {
  k.data = make_data(&k);
  test_operation_sides(run, check, &k, outputs(&k));
  free_data(&k.data);
}

static void sizes(void **state) {
  (void)state;
  static const int64_t times[] = {1, 7, 16, 17, 162, 163, 100}, channels[] = {1, 5, 39, 40, 41};
  for (size_t t = 0; t < 7; t++)
    for (size_t c = 0; c < 5; c++)
      try_case((conv_case){.batch = 3,
                           .in = channels[c],
                           .out = channels[(c + t) % 5],
                           .time = times[t],
                           .kernel = 1 + (int64_t)(t + c) % 3,
                           .dilation = 1 + (int64_t)c * 2,
                           .norm = c % 2 == 0,
                           .drop = t % 2 == 0,
                           .bias = (t + c) % 2 == 0,
                           .moments = true});
}

/* As frames and as channels. */
static void odd_sizes(void **state) {
  (void)state;
  const int64_t *list = test_odd_sizes;
  for (int64_t i = 0; i < TEST_ODD_SIZES; i++)
    try_case((conv_case){.batch = 1 + i % 2,
                         .in = i < TEST_ODD_SIZES - 1 ? list[i] : 39,
                         .out = list[(i + 2) % (TEST_ODD_SIZES - 1)],
                         .time = list[i],
                         .kernel = 2,
                         .dilation = (int64_t)1 << i,
                         .norm = true,
                         .drop = i % 2 == 0,
                         .bias = i % 3 == 0,
                         .moments = true});
}

static void dilations(void **state) {
  (void)state;
  static const int64_t list[] = {1, 2, 3, 4, 8, 15, 16, 17, 32, 64, 127, 128, 161, 162, 163, 1000};
  for (size_t i = 0; i < sizeof list / sizeof *list; i++)
    for (int64_t kernel = 2; kernel <= 3; kernel++)
      try_case((conv_case){.batch = 1,
                           .in = 39,
                           .out = 39,
                           .time = 162,
                           .kernel = kernel,
                           .dilation = list[i],
                           .norm = true,
                           .moments = true});
}

static void batch_of_64(void **state) {
  (void)state;
  try_case((conv_case){.batch = 64,
                       .in = 39,
                       .out = 39,
                       .time = 162,
                       .kernel = 2,
                       .dilation = 16,
                       .norm = true,
                       .drop = true,
                       .moments = true});
}

static void without_moments_or_norm(void **state) {
  (void)state;
  try_case((conv_case){.batch = 2, .in = 39, .out = 39, .time = 162, .kernel = 1, .dilation = 1, .bias = true});
  try_case((conv_case){.batch = 2, .in = 24, .out = 100, .time = 50, .kernel = 5, .dilation = 3, .norm = true});
  try_case((conv_case){
      .batch = 1, .in = 130, .out = 70, .time = 700, .kernel = 2, .dilation = 64, .norm = true, .moments = true});
}

static void one_device(ser_device *device, ser_stream *stream, void *context) {
  conv_case k = *(const conv_case *)context;
  size_t whole = outputs(&k), alone = whole / (size_t)k.batch;
  test_dims d = test_dims_make(1, k.out, k.time);
  float *together = ser_alloc(2 * whole * sizeof *together), *single = ser_alloc(2 * alone * sizeof *single);
  test_buffers all = {.device = device, .stream = stream};
  test_sides both = {0, 2};
  run(&all, &k, both, together);
  test_buffers_free(&all);
  for (int64_t b = 0; b < k.batch; b++) {
    conv_case one = k;
    one.first = b;
    one.count = 1;
    one.most = b % 2 ? 64 : 0;
    run(&all, &one, both, single);
    test_buffers_free(&all);
    for (size_t side = 0; side < 2; side++) {
      const float *got = single + side * alone, *want = together + side * whole;
      test_same_clip(device, got, want + (size_t)b * d.count, d.count, true);
      test_same_clip(device, got + d.count, want + (size_t)k.batch * d.count + (size_t)b * 2 * d.columns, 2 * d.columns,
                     true);
    }
  }
  free(together);
  free(single);
}

static void a_clip_does_not_see_its_neighbours(void **state) {
  (void)state;
  conv_case k = {.batch = 5,
                 .in = 39,
                 .out = 41,
                 .time = 163,
                 .kernel = 2,
                 .dilation = 4,
                 .norm = true,
                 .drop = true,
                 .moments = true};
  k.data = make_data(&k);
  test_each_device(one_device, 2, &k);
  free_data(&k.data);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sizes),
      cmocka_unit_test(odd_sizes),
      cmocka_unit_test(dilations),
      cmocka_unit_test(batch_of_64),
      cmocka_unit_test(without_moments_or_norm),
      cmocka_unit_test(a_clip_does_not_see_its_neighbours),
  };
  test_both_convs();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
