/* linear_forward and linear_backward against loops in double: odd sizes, strides wider than the rows, left-out
 * arguments; a row's bytes do not depend on the other rows. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/temporal.h"

typedef struct {
  int64_t rows, in, out, in_stride, out_stride;
  bool bias, dx;
} linear_case;

static size_t of(int64_t rows, int64_t columns) {
  return (size_t)(rows * columns);
}

/* [rows][stride], zeros behind `columns`. */
static float *rows_of(uint64_t seed, int64_t rows, int64_t columns, int64_t stride) {
  float *x = test_numbers(seed, of(rows, stride), -1, 1);
  for (int64_t i = 0; i < rows * stride; i++)
    if (i % stride >= columns) x[i] = 0;
  return x;
}

/* out, dx, dw, dbias. */
static void run(test_buffers *all, const void *context, float *out) {
  const linear_case *k = context;
  const ser_ops *ops = all->device->ops;
  size_t weights = of(k->out, k->in), ins = of(k->rows, k->in_stride), outs = of(k->rows, k->out_stride);
  float *x = rows_of(1, k->rows, k->in, k->in_stride), *w = test_numbers(2, weights, -1, 1);
  float *bias = test_numbers(3, (size_t)k->out, -1, 1), *g = rows_of(4, k->rows, k->out, k->out_stride);
  ser_linear_shape shape = {k->rows + 3, k->in, k->out, k->in_stride, k->out_stride};
  ser_plan *plan;
  ser_error err = {0};
  ASSERT_OK(ops->linear_prepare(all->device, &plan, &shape, &err), err);
  float *x_in = test_in(all, x, ins), *w_in = test_in(all, w, weights), *g_in = test_in(all, g, outs);
  float *bias_in = k->bias ? test_in(all, bias, (size_t)k->out) : NULL;
  float *y = test_out(all, outs), *dx = k->dx ? test_out(all, ins) : NULL, *dw = test_out(all, weights);
  float *dbias = k->bias ? test_out(all, (size_t)k->out) : NULL;
  void *workspace = test_workspace(all, plan);
  ser_device_properties properties;
  all->device->rt->properties(all->device, &properties);
  bool captured = properties.graphs && k->rows % 2; /* by a graph, where there are any */
  ser_graph *graph = NULL;
  int64_t before = test_allocations(all->device);
  if (captured) ASSERT_OK(all->device->rt->graph_begin(all->stream, &err), err);
  ops->linear_forward(all->stream, plan, workspace, y, x_in, w_in, bias_in, k->rows);
  ops->linear_backward(all->stream, plan, workspace, dx, dw, dbias, g_in, x_in, w_in, k->rows);
  assert_int_equal(test_allocations(all->device), before);
  if (captured) {
    ASSERT_OK(all->device->rt->graph_end(all->stream, &graph, &err), err);
    all->device->rt->graph_launch(all->stream, graph);
  }
  test_read(all, out, y);
  memset(out + outs, 0, ins * sizeof *out);
  if (dx) test_read(all, out + outs, dx);
  test_read(all, out + outs + ins, dw);
  memset(out + outs + ins + weights, 0, (size_t)k->out * sizeof *out);
  if (dbias) test_read(all, out + outs + ins + weights, dbias);
  all->device->rt->graph_destroy(graph);
  ser_plan_free(plan);

  double *want = ser_alloc_zero(outs + ins + weights + (size_t)k->out, sizeof *want);
  for (int64_t n = 0; n < k->rows; n++)
    for (int64_t o = 0; o < k->out; o++) {
      double *sum = &want[n * k->out_stride + o], gradient = (double)g[n * k->out_stride + o];
      if (k->bias) *sum = (double)bias[o];
      if (k->bias) want[outs + ins + weights + (size_t)o] += gradient;
      for (int64_t i = 0; i < k->in; i++) {
        *sum += (double)x[n * k->in_stride + i] * (double)w[o * k->in + i];
        if (k->dx) want[(int64_t)outs + n * k->in_stride + i] += gradient * (double)w[o * k->in + i];
        want[(int64_t)(outs + ins) + o * k->in + i] += gradient * (double)x[n * k->in_stride + i];
      }
    }
  /* Roundings grow with the terms of a sum: measured 2.7e-6 with 162 of them, 1.2e-5 with 1000. */
  double terms = (double)(k->in > k->out ? k->in : k->out);
  test_close("linear's results", out, want, outs + ins + weights + (size_t)k->out, 2e-6 + 2e-8 * terms);
  for (int64_t i = 0; i < (int64_t)outs; i++) assert_true(i % k->out_stride < k->out || out[i] == 0);
  for (int64_t i = 0; i < (int64_t)ins; i++) assert_true(i % k->in_stride < k->in || out[outs + (size_t)i] == 0);
  float *mine[] = {x, w, bias, g};
  for (int i = 0; i < 4; i++) free(mine[i]);
  free(want);
}

static void sizes(void **state) {
  (void)state;
  static const linear_case cases[] = {
      {1, 1, 1, 1, 1, true, true},       {64, 39, 6, 40, 8, true, true},    {3, 39, 8, 40, 8, false, true},
      {7, 5, 17, 8, 24, true, false},    {3, 41, 33, 48, 33, true, true},   {1, 768, 128, 768, 128, true, true},
      {64, 16, 16, 16, 16, true, true},  {2, 40, 15, 40, 16, false, false}, {9, 256, 32, 256, 32, true, true},
      {9, 257, 32, 264, 32, true, true}, {9, 256, 33, 256, 40, true, true},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const linear_case *k = &cases[i];
    size_t count = of(k->rows, k->out_stride) + of(k->rows, k->in_stride) + of(k->out, k->in) + (size_t)k->out;
    test_operation(run, NULL, k, count);
  }
}

/* All pairs of sizes would take long: three a size. */
static void odd_sizes(void **state) {
  (void)state;
  static const int64_t list[] = {1, 2, 31, 32, 33, 39, 40, 162, 1000}, rows[] = {1, 33, 2, 64, 31};
  for (int i = 0; i < 27; i++) {
    int64_t in = list[i % 9], out = list[(i * 4 + i / 9 * 3 + 1) % 9], wide = i % 2 ? 1 : 8;
    linear_case k = {rows[i % 5], in,    out, SER_ROUND_UP(in, wide) + i % 3 % 2, SER_ROUND_UP(out, wide) + i % 4 % 2,
                     i % 3 > 0,   i < 18};
    size_t count = of(k.rows, k.out_stride) + of(k.rows, k.in_stride) + of(k.out, k.in) + (size_t)k.out;
    test_operation(run, NULL, &k, count);
  }
}

enum { ROWS = 64 };

typedef struct {
  int64_t in, out;
} row_case;

/* Rows [first, first + count) of x through the plan. */
static void forward_rows(test_buffers *all, float *out, const ser_plan *plan, const float *x, const float *w,
                         const float *bias, const row_case *k, int64_t count) {
  const ser_ops *ops = all->device->ops;
  int64_t in = SER_ROUND_UP(k->in, 8), padded = SER_ROUND_UP(k->out, 8);
  float *y = test_out(all, of(count, padded));
  ops->linear_forward(all->stream, plan, test_workspace(all, plan), y, test_in(all, x, of(count, in)),
                      test_in(all, w, of(k->in, k->out)), test_in(all, bias, (size_t)k->out), count);
  test_read(all, out, y);
  test_buffers_free(all);
}

/* How far a row alone may be from itself among others. On a GPU layers of up to 256 inputs and 32 outputs are ours, and
 * others a library's, which promises no bytes; what its roundings may differ by is what they may be wrong by. */
static double row_apart(const row_case *k) {
  bool ours = !test_on_cuda() || (k->in <= 256 && k->out <= 32) || test_rows_exact();
  return ours ? 0 : 2e-6 + 2e-8 * (double)k->in;
}

/* A row alone, through the plan of all rows and through one of its own. */
static void one_device(ser_device *device, ser_stream *stream, void *context) {
  const row_case *k = context;
  test_buffers all = {.device = device, .stream = stream};
  int64_t in = SER_ROUND_UP(k->in, 8), padded = SER_ROUND_UP(k->out, 8);
  float *x = rows_of(1, ROWS, k->in, in), *w = test_numbers(2, of(k->in, k->out), -1, 1);
  float *bias = test_numbers(3, (size_t)k->out, -1, 1), *together = ser_alloc(of(ROWS, padded) * sizeof *together);
  float *alone = ser_alloc((size_t)padded * sizeof *alone);
  ser_plan *plans[2];
  ser_error err = {0};
  for (int i = 0; i < 2; i++) {
    ser_linear_shape shape = {i ? 1 : ROWS, k->in, k->out, in, padded};
    ASSERT_OK(device->ops->linear_prepare(device, &plans[i], &shape, &err), err);
  }
  for (int with_bias = 0; with_bias < 2; with_bias++) {
    forward_rows(&all, together, plans[0], x, w, with_bias ? bias : NULL, k, ROWS);
    for (int64_t n = 0; n < ROWS; n += n == 0 || n == ROWS - 2 ? 1 : 15)
      for (int i = 0; i < 2; i++) {
        forward_rows(&all, alone, plans[i], x + n * in, w, with_bias ? bias : NULL, k, 1);
        test_same_alone(alone, together + n * padded, (size_t)padded, row_apart(k));
      }
  }
  ser_plan_free(plans[0]);
  ser_plan_free(plans[1]);
  float *mine[] = {x, w, bias, together, alone};
  for (int i = 0; i < 5; i++) free(mine[i]);
}

static void a_row_does_not_see_the_others(void **state) {
  (void)state;
  static const row_case cases[] = {{39, 6}, {162, 31}, {40, 33}, {1000, 39}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    row_case k = cases[i];
    test_each_device(one_device, 2, &k);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sizes),
      cmocka_unit_test(odd_sizes),
      cmocka_unit_test(a_row_does_not_see_the_others),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
