/* causal_conv_backward against loops in double, and those loops against central differences: odd sizes, dilations
 * within and beyond the clip, left-out arguments, adding to dx; bytes that do not depend on threads nor on the other
 * side.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/temporal.h"

/* Of both sides. */
typedef struct {
  float *x, *w, *da, *y, *before;
  float *xs[4], *ys[4]; /* scale, shift, mean, inv_std */
  float *x_drop, *y_drop, *sums;
  size_t weights, stride; /* of w; of w, dw and dbias */
} conv_data;

typedef struct {
  int64_t batch, in, out, time, kernel, dilation;
  bool x_norm; /* x is read through a norm, ReLU and a mask; else as it is */
  bool y_norm; /* dy is made from da through a norm; else it is da */
  bool dx, next, dbias, add;
  int64_t first, count; /* the clips that are run: all where count is 0 */
  int64_t most;         /* the plan's batch where not 0 */
  conv_data data;
} conv_case;

static conv_data make_data(const conv_case *k) {
  test_dims d = test_dims_make(2 * k->batch, k->in, k->time), dy = test_dims_make(2 * k->batch, k->out, k->time);
  conv_data data = {.x = test_tensor(1, &d),
                    .da = test_tensor(3, &dy),
                    .y = test_tensor(4, &dy),
                    .before = test_tensor(5, &d),
                    .weights = (size_t)(k->out * k->in * k->kernel)};
  data.stride = data.weights + 5;
  data.w = test_parameters(2, data.weights, data.stride, -1, 1);
  for (int i = 0; i < 4; i++) {
    double low = i == 3 ? 0.5 : -1, high = i == 3 ? 2 : 1;
    data.xs[i] = test_vectors(10 + (uint64_t)i, 2, k->in, low, high);
    data.ys[i] = test_vectors(20 + (uint64_t)i, 2, k->out, low, high);
  }
  data.x_drop = test_drops(30, &d);
  data.y_drop = test_drops(31, &dy);
  data.sums = test_vectors(32, 4, k->out, -0.5, 0.5);
  return data;
}

static void free_data(conv_data *data) {
  float *all[] = {data->x, data->w, data->da, data->y, data->before, data->x_drop, data->y_drop, data->sums};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  for (int i = 0; i < 4; i++) {
    free(data->xs[i]);
    free(data->ys[i]);
  }
}

/* Gradients as the host holds them: behind the activation of x, and at y. */
static ser_gradient host_x(const conv_data *data) {
  return (ser_gradient){
      .y = {data->x, data->xs[0], data->xs[1], data->x_drop}, .mean = data->xs[2], .inv_std = data->xs[3]};
}

static ser_gradient host_y(const conv_data *data, const conv_case *k) {
  if (!k->y_norm) return (ser_gradient){.da = data->da};
  return (ser_gradient){.da = data->da,
                        .y = {data->y, data->ys[0], data->ys[1], data->y_drop},
                        .mean = data->ys[2],
                        .inv_std = data->ys[3],
                        .sums = data->sums};
}

/* The clips' part of it on the device. */
static ser_gradient put_gradient(test_buffers *all, const ser_gradient *host, const test_clips *clips,
                                 const test_dims *d) {
  test_sides s = clips->sides;
  size_t cp = (size_t)d->cp;
  return (ser_gradient){
      .da = test_in_clips(all, host->da, clips, d->cp * d->tp),
      .y = {test_in_clips(all, host->y.x, clips, d->cp * d->tp), test_in_sides(all, host->y.scale, s, cp, cp),
            test_in_sides(all, host->y.shift, s, cp, cp), test_in_clips(all, host->y.drop, clips, d->cp)},
      .mean = test_in_sides(all, host->mean, s, cp, cp),
      .inv_std = test_in_sides(all, host->inv_std, s, cp, cp),
      .sums = test_in_sides(all, host->sums, s, 2 * cp, 2 * cp)};
}

/* Where each output of a side lies: dx, next, dw, dbias. */
typedef struct {
  size_t dx, next, dw, dbias, end;
} places;

static places places_of(const conv_case *k) {
  test_dims d = test_dims_make(k->count ? k->count : k->batch, k->in, k->time);
  places p = {0};
  p.next = k->dx ? d.count : 0;
  p.dw = p.next + (k->next ? 2 * d.columns : 0);
  p.dbias = p.dw + (size_t)(k->out * k->in * k->kernel);
  p.end = p.dbias + (k->dbias ? (size_t)k->out : 0);
  return p;
}

static void run(test_buffers *all, const void *context, test_sides s, float *out) {
  const conv_case *k = context;
  const ser_ops *ops = all->device->ops;
  int64_t batch = k->count ? k->count : k->batch;
  test_dims d = test_dims_make(batch, k->in, k->time), dy = test_dims_make(batch, k->out, k->time);
  const conv_data data = k->data;
  test_clips clips = {s, k->batch, k->first, batch};
  ser_conv_shape shape = {s.count,     k->most ? k->most : batch, k->in, k->out, k->time, k->kernel,
                          k->dilation, (int64_t)data.stride};
  ser_plan *plan;
  ser_error err = {0};
  ASSERT_OK(ops->conv_prepare(all->device, &plan, &shape, &err), err);
  ser_gradient x_host = host_x(&data), y_host = host_y(&data, k);
  ser_gradient x_norm = put_gradient(all, &x_host, &clips, &d), from = put_gradient(all, &y_host, &clips, &dy);
  ser_activation x = x_norm.y;
  if (!k->x_norm) x = (ser_activation){.x = x.x};
  float *w = test_in_sides(all, data.w, s, data.weights, data.stride);
  size_t sums = 2 * d.columns, outs = (size_t)k->out;
  float *dx = k->dx ? test_out_sides(all, s, d.count, d.count) : NULL;
  if (k->dx && k->add) dx = test_in_clips(all, data.before, &clips, d.cp * d.tp);
  float *dw = test_out_sides(all, s, data.weights, data.stride);
  float *dbias = k->dbias ? test_out_sides(all, s, outs, data.stride) : NULL;
  float *next = k->next ? test_out_sides(all, s, sums, sums) : NULL;
  void *workspace = test_workspace(all, plan);
  int64_t before = test_allocations(all->device);
  ops->causal_conv_backward(all->stream, plan, workspace, dx, dw, dbias, next, &x, k->next ? &x_norm : NULL, &from, w,
                            k->add, batch);
  assert_int_equal(test_allocations(all->device), before);
  places at = places_of(k);
  if (dx) test_read_sides(all, out + at.dx, at.end, dx, s, d.count, d.count);
  if (next) test_read_sides(all, out + at.next, at.end, next, s, sums, sums);
  test_read_sides(all, out + at.dw, at.end, dw, s, data.weights, data.stride);
  if (dbias) test_read_sides(all, out + at.dbias, at.end, dbias, s, outs, data.stride);
  ser_plan_free(plan);
}

/* The loops in double: dx, dw, dbias (all written) from dy and the activation a. */
static void reference(double *dx, double *dw, double *dbias, const double *dy, const double *a, const float *w,
                      const conv_case *k) {
  test_dims d = test_dims_make(k->batch, k->in, k->time), e = test_dims_make(k->batch, k->out, k->time);
  for (int64_t b = 0; b < k->batch; b++)
    for (int64_t o = 0; o < k->out; o++)
      for (int64_t t = 0; t < k->time; t++) {
        double g = dy[test_at(&e, b, o, t)];
        dbias[o] += g;
        for (int64_t j = 0; j < k->kernel; j++) {
          int64_t from = t - (k->kernel - 1 - j) * k->dilation;
          for (int64_t i = 0; i < k->in && from >= 0; i++) {
            int64_t at = (o * k->in + i) * k->kernel + j;
            dw[at] += g * a[test_at(&d, b, i, from)];
            dx[test_at(&d, b, i, from)] += g * (double)w[at];
          }
        }
      }
}

static void check_next(const conv_case *k, const conv_data *data, int64_t side, const float *next, const double *dx,
                       const test_dims *d) {
  ser_gradient norm = host_x(data);
  test_gradient parts = test_gradient_make(dx, &norm, side, d);
  double *want = ser_alloc_zero(2 * d->columns, sizeof *want);
  for (int64_t b = 0; b < k->batch; b++)
    for (int64_t c = 0; c < k->in; c++)
      for (int64_t t = 0; t < k->time; t++) {
        int64_t at = test_at(d, b, c, t);
        want[b * 2 * d->cp + c] += parts.dz[at];
        want[(b * 2 + 1) * d->cp + c] += parts.dz[at] * parts.xhat[at];
      }
  test_vector_padding(next, 2 * k->batch, k->in);
  /* Terms cancel: rounding is 1e-7 of the sum of their magnitudes, which is a thousand in a long clip. */
  test_close("sums for the next norm", next, want, 2 * d->columns, k->time > 200 ? 1.6e-4 : 4e-5);
  free(want);
  test_gradient_free(&parts);
}

static void check(const void *context, int64_t side, const float *out) {
  const conv_case *k = context;
  test_dims d = test_dims_make(k->batch, k->in, k->time), e = test_dims_make(k->batch, k->out, k->time);
  const conv_data data = k->data;
  size_t weights = data.weights;
  ser_gradient from = host_y(&data, k);
  double *da = test_plain(data.da, side, &e);
  test_gradient dy = test_gradient_make(da, &from, side, &e);
  ser_activation x = host_x(&data).y;
  double *a = k->x_norm ? test_activation(&x, side, &d) : test_plain(data.x, side, &d);
  double *dx = k->add ? test_plain(data.before, side, &d) : ser_alloc_zero(d.count, sizeof *dx);
  double *dw = ser_alloc_zero(weights, sizeof *dw), *dbias = ser_alloc_zero((size_t)k->out, sizeof *dbias);
  reference(dx, dw, dbias, dy.dy, a, data.w + (size_t)side * data.stride, k);
  places at = places_of(k);
  double tolerance = k->out * k->kernel > 128 ? 1.6e-5 : 4e-6; /* grows with the number of terms of a sum */
  if (k->dx) test_padding(out + at.dx, &d);
  if (k->dx) test_close("dx", out + at.dx, dx, d.count, tolerance);
  if (k->next) check_next(k, &data, side, out + at.next, dx, &d);
  /* Sums of up to ten thousand terms of either sign. */
  test_close("dw", out + at.dw, dw, weights, k->batch * k->time > 1000 ? 5e-5 : 1e-5);
  if (k->dbias) test_close("dbias", out + at.dbias, dbias, (size_t)k->out, 1e-5);
  double *mine[] = {da, a, dx, dw, dbias};
  for (int i = 0; i < 5; i++) free(mine[i]);
  test_gradient_free(&dy);
}

static void try_case(conv_case k) {
  k.data = make_data(&k);
  test_operation_sides(run, check, &k, places_of(&k).end);
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
                           .x_norm = c % 2 == 0,
                           .y_norm = (t + c) % 2 == 0,
                           .dx = true,
                           .next = t != 2,
                           .dbias = t % 2 == 0,
                           .add = c > 2});
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
                         .x_norm = true,
                         .y_norm = i % 2 == 0,
                         .dx = true,
                         .next = true,
                         .dbias = i % 3 == 0});
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
                           .x_norm = true,
                           .y_norm = true,
                           .dx = true,
                           .next = true});
}

static void batch_of_64(void **state) {
  (void)state;
  try_case((conv_case){.batch = 64,
                       .in = 39,
                       .out = 39,
                       .time = 162,
                       .kernel = 2,
                       .dilation = 16,
                       .x_norm = true,
                       .y_norm = true,
                       .dx = true,
                       .next = true,
                       .dbias = true,
                       .add = true});
  try_case((conv_case){.batch = 64, .in = 39, .out = 39, .time = 162, .kernel = 1, .dilation = 1, .y_norm = true});
  try_case((conv_case){.batch = 9,
                       .in = 12,
                       .out = 20,
                       .time = 30,
                       .kernel = 2,
                       .dilation = 2,
                       .x_norm = true,
                       .y_norm = true,
                       .dx = true,
                       .dbias = true,
                       .most = 200});
}

static void other_shapes(void **state) {
  (void)state;
  try_case((conv_case){.batch = 2,
                       .in = 24,
                       .out = 100,
                       .time = 50,
                       .kernel = 5,
                       .dilation = 3,
                       .x_norm = true,
                       .dx = true,
                       .dbias = true});
  try_case((conv_case){.batch = 2,
                       .in = 130,
                       .out = 70,
                       .time = 700,
                       .kernel = 2,
                       .dilation = 64,
                       .y_norm = true,
                       .dx = true,
                       .next = true,
                       .dbias = true});
}

static void one_device(ser_device *device, ser_stream *stream, void *context) {
  conv_case k = *(const conv_case *)context;
  conv_case one = k;
  one.count = 1;
  places all_at = places_of(&k), one_at = places_of(&one);
  float *together = ser_alloc(2 * all_at.end * sizeof *together), *single = ser_alloc(2 * one_at.end * sizeof *single);
  test_buffers all = {.device = device, .stream = stream};
  test_sides both = {0, 2};
  run(&all, &k, both, together);
  test_buffers_free(&all);
  size_t columns = (one_at.dw - one_at.next) / 2;
  for (one.first = 0; one.first < k.batch; one.first++) {
    one.most = one.first % 2 ? 64 : 0;
    run(&all, &one, both, single);
    test_buffers_free(&all);
    for (size_t side = 0; side < 2; side++) {
      const float *got = single + side * one_at.end, *want = together + side * all_at.end;
      test_same_clip(device, got, want + (size_t)one.first * one_at.next, one_at.next, false);
      test_same_clip(device, got + one_at.next, want + all_at.next + (size_t)one.first * 2 * columns, 2 * columns,
                     false);
    }
  }
  free(together);
  free(single);
}

static void a_clip_does_not_see_its_neighbours(void **state) {
  (void)state;
  conv_case k = {.batch = 5,
                 .in = 41,
                 .out = 39,
                 .time = 163,
                 .kernel = 2,
                 .dilation = 4,
                 .x_norm = true,
                 .y_norm = true,
                 .dx = true,
                 .next = true,
                 .add = true};
  k.data = make_data(&k);
  test_each_device(one_device, 2, &k);
  free_data(&k.data);
}

/* sum of da * conv(a, w), in double: linear in a and w, so that central differences are exact but for rounding. */
static double objective(const double *a, const double *w, const double *da, const conv_case *k) {
  test_dims d = test_dims_make(k->batch, k->in, k->time), e = test_dims_make(k->batch, k->out, k->time);
  double sum = 0;
  for (int64_t b = 0; b < k->batch; b++)
    for (int64_t o = 0; o < k->out; o++)
      for (int64_t t = 0; t < k->time; t++)
        for (int64_t i = 0; i < k->in; i++)
          for (int64_t j = 0; j < k->kernel; j++) {
            int64_t from = t - (k->kernel - 1 - j) * k->dilation;
            if (from >= 0)
              sum += da[test_at(&e, b, o, t)] * w[(o * k->in + i) * k->kernel + j] * a[test_at(&d, b, i, from)];
          }
  return sum;
}

static void the_loops_follow_central_differences(void **state) {
  (void)state;
  conv_case k = {.batch = 2, .in = 3, .out = 4, .time = 9, .kernel = 3, .dilation = 2};
  test_dims d = test_dims_make(k.batch, k.in, k.time), e = test_dims_make(k.batch, k.out, k.time);
  float *x = test_tensor(1, &d), *da = test_tensor(2, &e), w[36], *w_random = test_numbers(3, 36, -1, 1);
  double wd[36], dw[36] = {0}, dbias[4] = {0};
  for (int i = 0; i < 36; i++) wd[i] = (double)(w[i] = w_random[i]);
  double *a = test_plain(x, 0, &d), *g = test_plain(da, 0, &e);
  double *dx = ser_alloc_zero(d.count, sizeof *dx);
  reference(dx, dw, dbias, g, a, w, &k);
  const double step = 1e-3;
  for (size_t i = 0; i < 36 + d.count; i++) {
    double *at = i < 36 ? &wd[i] : &a[i - 36], kept = *at;
    *at = kept + step;
    double above = objective(a, wd, g, &k);
    *at = kept - step;
    double below = objective(a, wd, g, &k), got = i < 36 ? dw[i] : dx[i - 36];
    *at = kept;
    int64_t t = i < 36 ? 0 : (int64_t)(i - 36) % d.tp;
    bool padding = t >= k.time || (i >= 36 && (int64_t)(i - 36) / d.tp % d.cp >= k.in);
    assert_true(padding || fabs((above - below) / (2 * step) - got) < 1e-9);
  }
  free(x);
  free(da);
  free(w_random);
  free(a);
  free(g);
  free(dx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_loops_follow_central_differences),
      cmocka_unit_test(sizes),
      cmocka_unit_test(odd_sizes),
      cmocka_unit_test(dilations),
      cmocka_unit_test(batch_of_64),
      cmocka_unit_test(other_shapes),
      cmocka_unit_test(a_clip_does_not_see_its_neighbours),
  };
  test_both_convs();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
