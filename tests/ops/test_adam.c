/* adam against torch.optim.Adam's formula in double over several steps, and gradient_norm against a sum in double. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/temporal.h"

enum { STEPS = 4 };

/* p, m, v after STEPS steps, each with gradients of its own. */
static void run(test_buffers *all, const void *context, float *out) {
  size_t n = *(const size_t *)context;
  float *p = test_numbers(1, n, -1, 1), *zeros = ser_alloc_zero(n, sizeof *zeros);
  float *p_in = test_in(all, p, n), *m = test_in(all, zeros, n), *v = test_in(all, zeros, n);
  double *want = ser_alloc_zero(3 * n, sizeof *want);
  for (size_t i = 0; i < n; i++) want[i] = (double)p[i];
  for (int64_t step = 1; step <= STEPS; step++) {
    float *g = test_numbers(10 + (uint64_t)step, n, -1, 1);
    for (size_t i = 0; i < n; i += 7) g[i] *= 1e-6f;
    if (n > 3) g[3] = 0;
    float *g_in = test_in(all, g, n);
    ser_adam adam = {1e-3f, 0.93f, 0.98f, 1e-8f, step};
    int64_t before = test_allocations(all->device);
    all->device->ops->adam(all->stream, p_in, m, v, g_in, (int64_t)n, &adam);
    assert_int_equal(test_allocations(all->device), before);
    double b1 = (double)adam.beta1, b2 = (double)adam.beta2;
    for (size_t i = 0; i < n; i++) {
      double *mi = &want[n + i], *vi = &want[2 * n + i], gi = (double)g[i];
      *mi = b1 * *mi + (1 - b1) * gi;
      *vi = b2 * *vi + (1 - b2) * gi * gi;
      double bias1 = 1 - pow(b1, (double)step), bias2 = 1 - pow(b2, (double)step);
      want[i] -= (double)adam.lr / bias1 * *mi / (sqrt(*vi) / sqrt(bias2) + (double)adam.eps);
    }
    free(g);
  }
  test_read(all, out, p_in);
  test_read(all, out + n, m);
  test_read(all, out + 2 * n, v);
  test_close("parameters after Adam", out, want, n, 2e-7);
  test_close("first moments", out + n, want + n, n, 1e-7);
  for (size_t i = 0; i < n; i++) /* v is small: relative */
    assert_true(fabs((double)out[2 * n + i] - want[2 * n + i]) <= 1e-6 * want[2 * n + i]);
  free(p);
  free(zeros);
  free(want);
}

static void formula(void **state) {
  (void)state;
  static const size_t sizes[] = {1, 4, 7, 8, 17, 1000, 8191, 8192, 8193, 50001};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) test_operation(run, NULL, &sizes[i], 3 * sizes[i]);
}

static void run_norm(test_buffers *all, const void *context, float *out) {
  size_t n = *(const size_t *)context;
  float *g = test_numbers(1, n, -3, 3), *norm = test_out(all, 2), whole[2], broken[2];
  double want[2] = {0, 0};
  for (size_t i = 0; i < n; i++) want[0] += (double)g[i] * (double)g[i];
  int64_t before = test_allocations(all->device);
  all->device->ops->gradient_norm(all->stream, norm, test_in(all, g, n), (int64_t)n);
  test_read(all, whole, norm);
  assert_true(fabs((double)whole[0] - want[0]) <= 1e-7 * want[0] && whole[1] == 0);
  g[0] = NAN;
  g[n / 2] = INFINITY;
  g[n - 1] = -INFINITY;
  float *g_in = test_in(all, g, n);
  before = test_allocations(all->device);
  all->device->ops->gradient_norm(all->stream, norm, g_in, (int64_t)n);
  assert_int_equal(test_allocations(all->device), before);
  test_read(all, broken, norm);
  assert_true(!isfinite(broken[0]) && broken[1] == (n == 1 ? 1 : n == 2 ? 2 : 3));
  out[0] = whole[0];
  out[1] = broken[1];
  free(g);
}

static void norm(void **state) {
  (void)state;
  static const size_t sizes[] = {1, 2, 7, 8192, 50001, 600000};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) test_operation(run_norm, NULL, &sizes[i], 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(formula),
      cmocka_unit_test(norm),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
