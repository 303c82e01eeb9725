/* softmax and softmax_loss against the formulas in double and their central differences: smoothing, focal weighting,
 * class weights, logits that are large, sure or broken. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/temporal.h"

typedef struct {
  int64_t rows, classes, stride;
  double smoothing, gamma;
  bool weights;
  double size; /* of the logits */
} loss_case;

/* The loss of a row by the book: long double, so that differences of it are good to 1e-8. */
static double loss_of(const long double *z, const loss_case *k, int32_t truth, double weight) {
  long double largest = z[0], sum = 0, ce = 0, rest = 0;
  for (int64_t i = 1; i < k->classes; i++) largest = z[i] > largest ? z[i] : largest;
  for (int64_t i = 0; i < k->classes; i++) sum += expl(z[i] - largest);
  for (int64_t i = 0; i < k->classes; i++) {
    long double target = (i == truth) * (1 - (long double)k->smoothing) + (long double)k->smoothing / k->classes;
    ce -= target * (z[i] - largest - logl(sum));
    if (i != truth) rest += expl(z[i] - largest) / sum;
  }
  return (double)(weight * powl(rest, (long double)k->gamma) * ce);
}

static int32_t truth_of(const loss_case *k, int64_t row) {
  return (int32_t)((row * 5 + 1) % k->classes);
}

/* probabilities [rows][stride], losses [rows], dlogits [rows][stride]. */
static void run(test_buffers *all, const void *context, float *out) {
  const loss_case *k = context;
  size_t n = (size_t)(k->rows * k->stride), rows = (size_t)k->rows;
  float *z = test_numbers(1, n, -k->size, k->size), *weights = test_numbers(2, (size_t)k->classes, 0.3, 3);
  float *truth = ser_alloc(rows * sizeof *truth);
  for (int64_t r = 0; r < k->rows; r++) {
    int32_t label = truth_of(k, r);
    memcpy(&truth[r], &label, sizeof label);
  }
  for (size_t i = 0; i < n; i++)
    if ((int64_t)i % k->stride >= k->classes) z[i] = 0;
  float *z_in = test_in(all, z, n), *w_in = k->weights ? test_in(all, weights, (size_t)k->classes) : NULL;
  const void *truth_in = test_in(all, truth, rows);
  float *probabilities = test_out(all, n), *losses = test_out(all, rows), *dz = test_out(all, n);
  ser_loss_shape shape = {k->rows, k->classes, k->stride, (float)k->smoothing, (float)k->gamma};
  int64_t before = test_allocations(all->device);
  all->device->ops->softmax(all->stream, probabilities, z_in, &shape, k->rows);
  all->device->ops->softmax_loss(all->stream, losses, dz, z_in, truth_in, w_in, &shape, k->rows);
  assert_int_equal(test_allocations(all->device), before);
  test_read(all, out, probabilities);
  test_read(all, out + n, losses);
  test_read(all, out + n + rows, dz);

  double *want = ser_alloc_zero(2 * n + rows, sizeof *want);
  long double *row = ser_alloc((size_t)k->classes * sizeof *row);
  for (int64_t r = 0; r < k->rows; r++) {
    long double sum = 0, step = 1e-6L;
    double weight = k->weights ? (double)weights[truth_of(k, r)] : 1;
    for (int64_t i = 0; i < k->classes; i++) row[i] = (long double)z[r * k->stride + i];
    for (int64_t i = 0; i < k->classes; i++) sum += expl(row[i] - row[0]);
    want[(int64_t)n + r] = loss_of(row, k, truth_of(k, r), weight);
    for (int64_t i = 0; i < k->classes; i++) {
      want[r * k->stride + i] = (double)(expl(row[i] - row[0]) / sum);
      row[i] += step;
      double above = loss_of(row, k, truth_of(k, r), weight);
      row[i] -= 2 * step;
      double below = loss_of(row, k, truth_of(k, r), weight);
      row[i] += step;
      want[(int64_t)(n + rows) + r * k->stride + i] = (above - below) / (2e-6 * (double)k->rows);
    }
  }
  for (int64_t i = 0; i < (int64_t)n; i++)
    assert_true(i % k->stride < k->classes || (out[i] == 0 && out[(int64_t)(n + rows) + i] == 0));
  test_close("probabilities", out, want, n, 1e-6);
  test_close("losses", out + n, want + n, rows, 1e-6);
  test_close("gradients", out + n + rows, want + n + rows, n, 1e-6);
  float *mine[] = {z, weights, truth};
  for (int i = 0; i < 3; i++) free(mine[i]);
  free(row);
  free(want);
}

static void formulas(void **state) {
  (void)state;
  static const double gammas[] = {0, 0.5, 1, 2, 5};
  for (int i = 0; i < 5; i++)
    for (int variant = 0; variant < 4; variant++) {
      loss_case k = {i == 2 ? 64 : 3, 6 + 2 * (variant % 2), 8, variant > 1 ? 0.1 : 0, gammas[i], variant % 2, 4};
      test_operation(run, NULL, &k, (size_t)(2 * k.rows * k.stride + k.rows));
    }
  static const loss_case cases[] = {
      {5, 13, 16, 0.1, 2, true, 30}, {2, 1, 1, 0, 2, true, 4},       {31, 2, 8, 0.1, 1, false, 4},
      {33, 31, 32, 0, 2, true, 4},   {32, 32, 32, 0.1, 2, false, 4}, {1, 33, 40, 0.2, 0, true, 4},
      {2, 39, 40, 0, 1, false, 30},  {1, 162, 168, 0.1, 3, true, 4}, {1, 1000, 1000, 0.1, 2, true, 4},
      {1000, 3, 8, 0, 0, false, 4},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    test_operation(run, NULL, &cases[i], (size_t)(2 * cases[i].rows * cases[i].stride + cases[i].rows));
}

typedef struct {
  float z[8], smoothing, gamma, loss; /* loss NaN: finite is all that is asked */
} sure_case;

static void run_sure(test_buffers *all, const void *context, float *out) {
  const sure_case *k = context;
  float truth = 0, *z = test_in(all, k->z, 8), *losses = test_out(all, 1), *dz = test_out(all, 8);
  const void *label = test_in(all, &truth, 1); /* the bits of 0.0f are those of int32 0 */
  float *probabilities = test_out(all, 8);
  ser_loss_shape shape = {1, 6, 8, k->smoothing, k->gamma};
  all->device->ops->softmax_loss(all->stream, losses, dz, z, label, NULL, &shape, 1);
  all->device->ops->softmax(all->stream, probabilities, z, &shape, 1);
  test_read(all, out, losses);
  test_read(all, out + 1, dz);
  test_read(all, out + 9, probabilities);
}

static void check_sure(const void *context, const float *out) {
  const sure_case *k = context;
  double sum = 0;
  for (int i = 0; i < 17; i++)
    if (!isfinite(out[i])) fail_msg("output %d is %g", i, (double)out[i]);
  for (int i = 9; i < 17; i++) sum += (double)out[i];
  assert_true(fabs(sum - 1) < 1e-6);
  if (!isnan(k->loss) && fabs((double)out[0] - (double)k->loss) > 1e-6 * (double)k->loss + 1e-12)
    fail_msg("the loss is %g, not %g", (double)out[0], (double)k->loss);
}

static void large_logits_are_stable(void **state) {
  (void)state;
  static const sure_case cases[] = {
      {{2e4f, 0, 0, 0, 0, 0}, 0, 0, 0},              /* certain and right */
      {{2e4f, 0, 0, 0, 0, 0}, 0, 2, 0},              /* p = 1: no 0 times infinity in the focal term */
      {{2e4f, 0, 0, 0, 0, 0}, 0, 0.5f, 0},           /* its slope is infinite at p = 1 */
      {{2e4f, 0, 0, 0, 0, 0}, 0.1f, 0.5f, 0},        /* smoothed: a large loss, times 0 */
      {{2e4f, 0, 0, 0, 0, 0}, 0.1f, 0, NAN},         /* 2e4 * 0.1 * 5 / 6 */
      {{-2e4f, 0, 0, 0, 0, 0}, 0, 0, 20001.609438f}, /* certain and wrong: 2e4 + log 5, to float */
      {{-2e4f, 0, 0, 0, 0, 0}, 0, 2, NAN},
      {{20, 0, 0, 0, 0, 0}, 0, 1, NAN},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    test_operation(run_sure, check_sure, &cases[i], 17);
  }
}

static void check_broken(const void *context, const float *out) {
  (void)context;
  assert_true(isnan(out[0]) || isinf(out[0]));
}

static void broken_logits_show_in_the_loss(void **state) {
  (void)state;
  static const sure_case cases[] = {{{NAN, 0}, 0, 0, 0}, {{0, NAN}, 0.1f, 2, 0}, {{0, 0, INFINITY}, 0, 0, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) test_operation(run_sure, check_broken, &cases[i], 17);
}

/* The CPU stops where a truth is no class; a GPU cannot, so that NaN must show it. */
static void run_unknown(test_buffers *all, const void *context, float *out) {
  float *z = test_in(all, (const float[16]){0}, 16), *losses = test_out(all, 2), *dz = test_out(all, 16);
  const int32_t *truth = test_put(all, context, 2 * sizeof *truth);
  ser_loss_shape shape = {2, 6, 8, 0.1f, 0};
  all->device->ops->softmax_loss(all->stream, losses, dz, z, truth, NULL, &shape, 2);
  test_read(all, out, losses);
  test_read(all, out + 2, dz);
}

static void check_unknown(const void *context, const float *out) {
  const int32_t *truth = context;
  for (int r = 0; r < 2; r++) {
    bool known = truth[r] >= 0 && truth[r] < 6;
    assert_true(isnan(out[r]) == !known);
    for (int k = 0; k < 8; k++) assert_true(k < 6 ? isnan(out[2 + r * 8 + k]) == !known : out[2 + r * 8 + k] == 0);
  }
}

static void a_truth_that_is_no_class_shows(void **state) {
  (void)state;
  static const int32_t cases[][2] = {{6, 5}, {0, -1}, {INT32_MAX, 0}, {1, INT32_MIN}};
  for (size_t i = 0; test_on_cuda() && i < sizeof cases / sizeof *cases; i++)
    test_operation(run_unknown, check_unknown, cases[i], 18);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(formulas),
      cmocka_unit_test(large_logits_are_stable),
      cmocka_unit_test(broken_logits_show_in_the_loss),
      cmocka_unit_test(a_truth_that_is_no_class_shows),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
