/* step_begin and adam against torch.optim.Adam's formula in double over several steps, what is kept of each step, and
 * gradient_norm against a sum in double. */
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
  ser_adam adam = {1e-3f, 0.93f, 0.98f, 1e-8f};
  ser_step *at = test_step(all, 0, -1);
  for (int64_t step = 1; step <= STEPS; step++) {
    float *g = test_numbers(10 + (uint64_t)step, n, -1, 1);
    for (size_t i = 0; i < n; i += 7) g[i] *= 1e-6f;
    if (n > 3) g[3] = 0;
    float *g_in = test_in(all, g, n);
    int64_t before = test_allocations(all->device);
    all->device->ops->step_begin(all->stream, at, &adam);
    all->device->ops->adam(all->stream, p_in, m, v, g_in, (int64_t)n, &adam, at);
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
  static const size_t sizes[] = {1, 2, 4, 7, 8, 17, 31, 32, 33, 39, 40, 162, 1000, 1023, 8191, 8192, 8193, 50001};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) test_operation(run, NULL, &sizes[i], 3 * sizes[i]);
}

/* Far from the start, where beta^number is all but gone, and in the midst. */
static void run_steps(test_buffers *all, const void *context, float *out) {
  static const int64_t numbers[] = {0, 1, 99, 1234, 49999, INT64_C(1) << 40};
  ser_adam adam = {1e-3f, 0.9f, 0.999f, 1e-8f};
  (void)context;
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    ser_step *step = test_step(all, numbers[i], (int64_t)i - 1), got;
    float bits[sizeof got / sizeof(float)];
    int64_t before = test_allocations(all->device);
    all->device->ops->step_begin(all->stream, step, &adam);
    assert_int_equal(test_allocations(all->device), before);
    test_read(all, bits, (const float *)(const void *)step);
    memcpy(&got, bits, sizeof got);
    double number = (double)numbers[i] + 1, first = 1 - pow((double)adam.beta1, number);
    double rate = (double)adam.lr / first, correction = 1 / sqrt(1 - pow((double)adam.beta2, number));
    assert_true(got.number == numbers[i] + 1 && got.place == (int64_t)i);
    assert_true(fabs((double)got.rate - rate) <= 6e-8 * rate);
    assert_true(fabs((double)got.correction - correction) <= 6e-8 * correction);
    out[2 * i] = got.rate;
    out[2 * i + 1] = got.correction;
  }
}

static void steps(void **state) {
  (void)state;
  test_operation(run_steps, NULL, NULL, 12);
}

/* Three steps of an epoch, with up to SER_KEEP_MOST parts of unlike sizes: parts + 1 buffers of 3 * stride. */
enum { KEPT_STEPS = 3, KEPT_STRIDE = 300 };
static const int64_t kept[SER_KEEP_MOST] = {64, 1, KEPT_STRIDE, 17};

static void run_keep(test_buffers *all, const void *context, float *out) {
  int parts = *(const int *)context;
  ser_keep keep[SER_KEEP_MOST];
  ser_adam adam = {1e-3f, 0.9f, 0.999f, 1e-8f};
  ser_step *step = test_step(all, 7, -1);
  for (int i = 0; i < parts; i++) {
    float *from = test_numbers((uint64_t)i, (size_t)kept[i], -1, 1);
    keep[i] = (ser_keep){test_out(all, KEPT_STEPS * KEPT_STRIDE), test_in(all, from, (size_t)kept[i]), kept[i],
                         i == 1 ? 1 : KEPT_STRIDE};
    free(from);
  }
  for (int s = 0; s < KEPT_STEPS; s++) {
    int64_t before = test_allocations(all->device);
    all->device->ops->step_begin(all->stream, step, &adam);
    if (s != 1) all->device->ops->keep(all->stream, keep, parts, step);
    assert_int_equal(test_allocations(all->device), before);
  }
  for (int i = 0; i < parts; i++) test_read(all, out + (size_t)i * KEPT_STEPS * KEPT_STRIDE, keep[i].to);
}

static void check_keep(const void *context, const float *out) {
  int parts = *(const int *)context;
  for (int i = 0; i < parts; i++, out += KEPT_STEPS * KEPT_STRIDE) {
    float *from = test_numbers((uint64_t)i, (size_t)kept[i], -1, 1);
    int64_t stride = i == 1 ? 1 : KEPT_STRIDE;
    for (int64_t at = 0; at < KEPT_STEPS * KEPT_STRIDE; at++) {
      int64_t step = at / stride, inside = at % stride;
      bool written = step < KEPT_STEPS && step != 1 && inside < kept[i]; /* step 1 kept nothing */
      if (written ? out[at] != from[inside] : !isnan(out[at]))
        fail_msg("part %d holds %g at %d", i, (double)out[at], (int)at);
    }
    free(from);
  }
}

static void keeping(void **state) {
  (void)state;
  for (int parts = 1; parts <= SER_KEEP_MOST; parts++)
    test_operation(run_keep, check_keep, &parts, (size_t)parts * KEPT_STEPS * KEPT_STRIDE);
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
  static const size_t sizes[] = {1, 2, 7, 31, 32, 33, 39, 40, 162, 1000, 2049, 8192, 50001, 600000};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) test_operation(run_norm, NULL, &sizes[i], 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(formula),
      cmocka_unit_test(steps),
      cmocka_unit_test(keeping),
      cmocka_unit_test(norm),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
