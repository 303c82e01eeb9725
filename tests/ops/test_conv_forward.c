/* causal_conv_forward against loops in double: every kernel length, dilations within and beyond the clip, odd sizes,
 * left-out arguments; bytes that depend on neither threads nor batch nor neighbours. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/temporal.h"

typedef struct {
  int64_t batch, in, out, time, kernel, dilation;
  bool norm, drop, bias, moments;
  int64_t first, count; /* the clips that are run: all where count is 0 */
  int64_t most;         /* the plan's batch where not 0 */
} conv_case;

typedef struct {
  float *x, *scale, *shift, *drop, *w, *bias;
} conv_data;

static conv_data make_data(const conv_case *k) {
  test_dims d = test_dims_make(k->batch, k->in, k->time);
  conv_data data = {.x = test_tensor(1, &d),
                    .w = test_numbers(2, (size_t)(k->out * k->in * k->kernel), -1, 1),
                    .bias = k->bias ? test_numbers(3, (size_t)k->out, -1, 1) : NULL};
  if (k->norm) {
    data.scale = test_vector(4, k->in, -1.5, 1.5);
    data.shift = test_vector(5, k->in, -0.5, 1);
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

static size_t outputs(const conv_case *k) {
  test_dims y = test_dims_make(k->count ? k->count : k->batch, k->out, k->time);
  return y.count + (k->moments ? 2 * y.columns : 0);
}

static void run(test_buffers *all, const void *context, float *out) {
  const conv_case *k = context;
  const ser_ops *ops = all->device->ops;
  int64_t batch = k->count ? k->count : k->batch;
  test_dims d = test_dims_make(batch, k->in, k->time), dy = test_dims_make(batch, k->out, k->time);
  conv_data data = make_data(k);
  ser_conv_shape shape = {k->most ? k->most : batch, k->in, k->out, k->time, k->kernel, k->dilation};
  ser_plan *plan;
  ser_error err = {0};
  ASSERT_OK(ops->conv_prepare(all->device, &plan, &shape, &err), err);
  ser_activation x = {test_in(all, data.x + k->first * d.cp * d.tp, d.count), test_in(all, data.scale, (size_t)d.cp),
                      test_in(all, data.shift, (size_t)d.cp),
                      data.drop ? test_in(all, data.drop + k->first * d.cp, d.columns) : NULL};
  float *w = test_in(all, data.w, (size_t)(k->out * k->in * k->kernel));
  float *bias = test_in(all, data.bias, (size_t)k->out);
  float *y = test_out(all, dy.count), *moments = k->moments ? test_out(all, 2 * dy.columns) : NULL;
  void *workspace = test_workspace(all, plan);
  int64_t before = test_allocations(all->device);
  ops->causal_conv_forward(all->stream, plan, workspace, y, moments, &x, w, bias, batch);
  assert_int_equal(test_allocations(all->device), before);
  test_read(all, out, y);
  if (moments) test_read(all, out + dy.count, moments);
  ser_plan_free(plan);
  free_data(&data);
}

static void check(const void *context, const float *out) {
  const conv_case *k = context;
  test_dims d = test_dims_make(k->batch, k->in, k->time), dy = test_dims_make(k->batch, k->out, k->time);
  conv_data data = make_data(k);
  double *a = test_activation(data.x, data.scale, data.shift, data.drop, &d);
  double *y = ser_alloc_zero(dy.count, sizeof *y), *moments = ser_alloc_zero(2 * dy.columns, sizeof *moments);
  for (int64_t b = 0; b < k->batch; b++)
    for (int64_t o = 0; o < k->out; o++) {
      double mean = 0, squares = 0;
      for (int64_t t = 0; t < k->time; t++) {
        double sum = k->bias ? (double)data.bias[o] : 0;
        for (int64_t j = 0; j < k->kernel; j++) {
          int64_t from = t - (k->kernel - 1 - j) * k->dilation;
          for (int64_t i = 0; i < k->in && from >= 0; i++)
            sum += (double)data.w[(o * k->in + i) * k->kernel + j] * a[test_at(&d, b, i, from)];
        }
        y[test_at(&dy, b, o, t)] = sum;
        mean += sum / (double)k->time;
      }
      for (int64_t t = 0; t < k->time; t++) squares += pow(y[test_at(&dy, b, o, t)] - mean, 2);
      moments[b * 2 * dy.cp + o] = mean;
      moments[(b * 2 + 1) * dy.cp + o] = squares;
    }
  test_padding(out, &dy);
  double tolerance = k->in * k->kernel > 128 ? 1.6e-5 : 4e-6; /* grows with the number of terms of a sum */
  test_close("outputs", out, y, dy.count, tolerance);
  if (k->moments) test_vector_padding(out + dy.count, 2 * k->batch, k->out);
  if (k->moments) test_close("moments", out + dy.count, moments, 2 * dy.columns, tolerance);
  free(a);
  free(y);
  free(moments);
  free_data(&data);
}

static void try_case(conv_case k) {
  test_operation(run, check, &k, outputs(&k));
}

static void sizes(void **state) {
  (void)state;
  static const int64_t times[] = {1, 7, 16, 17, 162, 163}, channels[] = {1, 5, 39, 40, 41};
  for (size_t t = 0; t < 6; t++)
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
  float *together = ser_alloc(whole * sizeof *together), *single = ser_alloc(alone * sizeof *single);
  test_buffers all = {.device = device, .stream = stream};
  run(&all, &k, together);
  test_buffers_free(&all);
  for (int64_t b = 0; b < k.batch; b++) {
    conv_case one = k;
    one.first = b;
    one.count = 1;
    one.most = b % 2 ? 64 : 0;
    run(&all, &one, single);
    test_buffers_free(&all);
    assert_memory_equal(single, together + (size_t)b * d.count, d.count * sizeof *single);
    assert_memory_equal(single + d.count, together + (size_t)k.batch * d.count + (size_t)b * 2 * d.columns,
                        2 * d.columns * sizeof *single);
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
  test_each_device(one_device, 2, &k);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sizes),
      cmocka_unit_test(dilations),
      cmocka_unit_test(batch_of_64),
      cmocka_unit_test(without_moments_or_norm),
      cmocka_unit_test(a_clip_does_not_see_its_neighbours),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
