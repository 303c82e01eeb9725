/* product_forward against loops in double: odd sizes, rows that overlap, sums of several blocks, residual in place,
 * GELU; a row's bytes depend neither on the other rows nor on the plan's. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/temporal.h"

typedef struct {
  int64_t rows, in, out, in_stride, out_stride;
  bool bias, residual, in_place;
  ser_product_end end;
} product_case;

static size_t x_count(const product_case *k) {
  return (size_t)((k->rows - 1) * k->in_stride + k->in);
}

static size_t out_count(const product_case *k) {
  return (size_t)((k->rows - 1) * k->out_stride + k->out);
}

static void run(test_buffers *all, const void *context, float *out) {
  const product_case *k = context;
  const ser_ops *ops = all->device->ops;
  size_t ins = x_count(k), outs = out_count(k), weights = (size_t)(k->out * k->in);
  float *x = test_numbers(1, ins, -1, 1), *w = test_numbers(2, weights, -1, 1);
  float *bias = test_numbers(3, (size_t)k->out, -1, 1), *residual = test_numbers(4, outs, -2, 2);
  ser_product_shape shape = {k->rows + 2, k->in, k->out, k->in_stride, k->out_stride};
  ser_plan *plan;
  ser_error err = {0};
  ASSERT_OK(ops->product_prepare(all->device, &plan, &shape, &err), err);
  void *packed = test_out(all, plan->packed / sizeof(float)), *workspace = test_workspace(all, plan);
  float *x_in = test_in(all, x, ins), *w_in = test_in(all, w, weights);
  float *bias_in = k->bias ? test_in(all, bias, (size_t)k->out) : NULL;
  float *residual_in = k->residual ? test_in(all, residual, outs) : NULL;
  float *y = k->residual && k->in_place ? residual_in : test_in(all, residual, outs);
  int64_t before = test_allocations(all->device);
  ops->product_pack(all->stream, plan, packed, w_in);
  ops->product_forward(all->stream, plan, workspace, y, x_in, packed, bias_in, residual_in, k->end, k->rows);
  assert_int_equal(test_allocations(all->device), before);
  test_read(all, out, y);
  ser_plan_free(plan);

  double *want = ser_alloc(outs * sizeof *want);
  for (size_t i = 0; i < outs; i++) want[i] = (double)residual[i]; /* what lies between the rows stays */
  for (int64_t n = 0; n < k->rows; n++)
    for (int64_t o = 0; o < k->out; o++) {
      double sum = (k->bias ? (double)bias[o] : 0) + (k->residual ? want[n * k->out_stride + o] : 0);
      for (int64_t i = 0; i < k->in; i++) sum += (double)x[n * k->in_stride + i] * (double)w[o * k->in + i];
      if (k->end == SER_PRODUCT_GELU) sum = sum / 2 * (1 + erf(sum * sqrt(0.5)));
      want[n * k->out_stride + o] = sum;
    }
  /* Roundings grow with the terms of a sum. */
  test_close("the product", out, want, outs, 4e-6 + 2e-8 * (double)k->in);
  float *mine[] = {x, w, bias, residual};
  for (int i = 0; i < 4; i++) free(mine[i]);
  free(want);
}

static void sizes(void **state) {
  (void)state;
  static const product_case cases[] = {
      {1, 1, 1, 1, 1, true, false, false, SER_PRODUCT_PLAIN},
      {149, 768, 96, 768, 96, true, true, true, SER_PRODUCT_PLAIN},
      {7, 1000, 40, 1000, 48, true, true, false, SER_PRODUCT_PLAIN},
      {339, 33, 31, 40, 33, false, false, false, SER_PRODUCT_GELU},
      {50, 96, 64, 64, 64, true, false, false, SER_PRODUCT_GELU},   /* kernel 3, stride 2 of 32 channels */
      {50, 64, 64, 64, 64, false, false, false, SER_PRODUCT_GELU},  /* kernel 2, stride 2 */
      {13, 120, 17, 24, 24, true, false, false, SER_PRODUCT_PLAIN}, /* kernel 5, stride 1 */
      {3, 3072, 48, 3072, 48, true, true, true, SER_PRODUCT_GELU},
      {2, 96, 36, 64, 40, true, true, false, SER_PRODUCT_GELU}, /* overlapping rows with all that may be added */
      {31, 160, 32, 64, 32, false, true, true, SER_PRODUCT_PLAIN},
      {32, 64, 48, 64, 48, true, false, false, SER_PRODUCT_GELU},
      {33, 320, 20, 80, 20, true, true, true, SER_PRODUCT_PLAIN},
      {9, 100, 12, 8, 12, true, false, false, SER_PRODUCT_PLAIN}, /* 13 rows lie over each other */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) test_operation(run, NULL, &cases[i], out_count(&cases[i]));
}

static void odd_sizes(void **state) {
  (void)state;
  static const int64_t rows[] = {1, 5, 6, 7, 13, 14, 15, 33};
  for (int i = 0; i < 3 * TEST_ODD_SIZES; i++) {
    int64_t in = test_odd_sizes[i % TEST_ODD_SIZES], out = test_odd_sizes[(i * 4 + i / 7 * 3 + 1) % TEST_ODD_SIZES];
    product_case k = {rows[i % 8], in, out, in + i % 3, out + i % 4, i % 3 > 0, i % 4 > 1, i % 8 > 3, i % 2};
    test_operation(run, NULL, &k, out_count(&k));
  }
}

enum { ROWS = 400 };

/* Rows first ... of x through a plan for `most` rows. */
static void forward_rows(test_buffers *all, float *out, const float *x, const float *w, const product_case *k,
                         int64_t count, int64_t most) {
  const ser_ops *ops = all->device->ops;
  ser_product_shape shape = {most, k->in, k->out, k->in_stride, k->out_stride};
  ser_plan *plan;
  ser_error err = {0};
  ASSERT_OK(ops->product_prepare(all->device, &plan, &shape, &err), err);
  void *packed = test_out(all, plan->packed / sizeof(float));
  float *y = test_out(all, (size_t)(count * k->out));
  ops->product_pack(all->stream, plan, packed, test_in(all, w, (size_t)(k->in * k->out)));
  ops->product_forward(all->stream, plan, test_workspace(all, plan), y,
                       test_in(all, x, (size_t)((count - 1) * k->in_stride + k->in)), packed, NULL, NULL, k->end,
                       count);
  test_read(all, out, y);
  ser_plan_free(plan);
  test_buffers_free(all);
}

static void one_device(ser_device *device, ser_stream *stream, void *context) {
  const product_case *k = context;
  test_buffers all = {.device = device, .stream = stream};
  float *x = test_numbers(1, (size_t)((ROWS - 1) * k->in_stride + k->in), -1, 1);
  float *w = test_numbers(2, (size_t)(k->in * k->out), -1, 1);
  float *together = ser_alloc((size_t)(ROWS * k->out) * sizeof *together);
  float *alone = ser_alloc((size_t)(ROWS * k->out) * sizeof *alone);
  double apart = test_on_cuda() && !test_rows_exact() ? 2e-6 + 2e-8 * (double)k->in : 0;
  forward_rows(&all, together, x, w, k, ROWS, ROWS);
  static const int64_t firsts[] = {0, 1, 37, 168, 399}, counts[] = {1, 7, 100, 200, 1};
  for (int i = 0; i < 5; i++) {
    forward_rows(&all, alone, x + firsts[i] * k->in_stride, w, k, counts[i], i % 2 ? ROWS : counts[i]);
    test_same_alone(alone, together + firsts[i] * k->out, (size_t)(counts[i] * k->out), apart);
  }
  float *mine[] = {x, w, together, alone};
  for (int i = 0; i < 4; i++) free(mine[i]);
}

static void a_row_does_not_see_the_others(void **state) {
  (void)state;
  static const product_case cases[] = {
      {ROWS, 768, 72, 768, 72, false, false, false, SER_PRODUCT_GELU},
      {ROWS, 96, 33, 64, 33, false, false, false, SER_PRODUCT_PLAIN},
      {ROWS, 96, 32, 64, 32, false, false, false, SER_PRODUCT_GELU},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    product_case k = cases[i];
    test_each_device(one_device, 3, &k);
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
