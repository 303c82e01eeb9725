/* pos_conv_forward against loops in double: even and odd kernels, groups of several widths, clips shorter than the
 * kernel; a clip's bytes do not depend on its neighbours. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/rows.h"

typedef struct {
  int64_t channels, groups, kernel;
  const test_rows *rows;
} pos_conv_case;

static float *make_weights(const pos_conv_case *k) {
  return test_numbers(2, (size_t)(k->channels * (k->channels / k->groups) * k->kernel), -0.2, 0.2);
}

static void forward(test_buffers *all, const void *context, const test_rows *rows, const float *x, float *out) {
  const pos_conv_case *k = context;
  const ser_ops *ops = all->device->ops;
  int64_t count = test_rows_count(rows), weights = k->channels * (k->channels / k->groups) * k->kernel;
  ser_pos_conv_shape shape = {k->channels, k->groups, k->kernel, count + 1};
  ser_plan *plan;
  ser_error err = {0};
  ASSERT_OK(ops->pos_conv_prepare(all->device, &plan, &shape, &err), err);
  float *w = make_weights(k), *bias = test_numbers(3, (size_t)k->channels, -1, 1);
  ser_rows in = test_rows_in(all, rows);
  void *packed = test_out(all, plan->packed / sizeof(float)), *workspace = test_workspace(all, plan);
  float *y = test_out(all, (size_t)(count * k->channels)), *x_in = test_in(all, x, (size_t)(count * k->channels));
  float *w_in = test_in(all, w, (size_t)weights), *bias_in = test_in(all, bias, (size_t)k->channels);
  int64_t before = test_allocations(all->device);
  ops->pos_conv_pack(all->stream, plan, packed, w_in);
  ops->pos_conv_forward(all->stream, plan, workspace, y, x_in, packed, bias_in, &in);
  assert_int_equal(test_allocations(all->device), before);
  test_read(all, out, y);
  ser_plan_free(plan);
  free(w);
  free(bias);
}

static void run(test_buffers *all, const void *context, float *out) {
  const pos_conv_case *k = context;
  float *x = test_rows_numbers(1, k->rows, k->channels);
  forward(all, k, k->rows, x, out);
  free(x);
}

static void check(const void *context, const float *out) {
  const pos_conv_case *k = context;
  int64_t width = k->channels / k->groups, count = test_rows_count(k->rows);
  float *x = test_rows_numbers(1, k->rows, k->channels), *w = make_weights(k);
  float *bias = test_numbers(3, (size_t)k->channels, -1, 1);
  double *want = ser_alloc_zero((size_t)(count * k->channels), sizeof *want);
  for (int64_t clip = 0; clip < k->rows->clips; clip++)
    for (int64_t t = 0; t < k->rows->frames[clip]; t++)
      for (int64_t o = 0; o < k->channels; o++) {
        const float *first = x + k->rows->start[clip] * k->channels + o / width * width;
        double sum = (double)bias[o];
        for (int64_t j = 0; j < k->kernel; j++) {
          int64_t from = t + j - k->kernel / 2;
          if (from < 0 || from >= k->rows->frames[clip]) continue;
          for (int64_t i = 0; i < width; i++)
            sum += (double)first[from * k->channels + i] * (double)w[(o * width + i) * k->kernel + j];
        }
        int64_t at = (k->rows->start[clip] + t) * k->channels + o;
        want[at] = (double)x[at] + sum / 2 * (1 + erf(sum * sqrt(0.5)));
      }
  test_close("the positional convolution", out, want, (size_t)(count * k->channels),
             2e-6 + 2e-8 * (double)(width * k->kernel));
  free(x);
  free(w);
  free(bias);
  free(want);
}

static const int64_t lengths[] = {1, 33, 2, 200, 31, 97}, whole[] = {64, 1, 63, 32, 65};

static void sizes(void **state) {
  (void)state;
  test_rows rows = test_rows_make(6, lengths), tiles = test_rows_make(5, whole), one = test_rows_make(1, lengths);
  const pos_conv_case cases[] = {{96, 2, 128, &rows}, {32, 16, 15, &rows}, {40, 1, 4, &rows},  {128, 2, 19, &rows},
                                 {96, 1, 9, &tiles},  {64, 1, 128, &one},  {33, 3, 1, &tiles}, {64, 1, 31, &tiles}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    test_operation(run, check, &cases[i], (size_t)(test_rows_count(cases[i].rows) * cases[i].channels));
}

static void a_clip_does_not_see_the_others(void **state) {
  (void)state;
  test_rows rows = test_rows_make(6, lengths), tiles = test_rows_make(5, whole);
  const pos_conv_case cases[] = {{48, 1, 128, &rows}, {64, 1, 16, &tiles}};
  for (int i = 0; i < 2; i++)
    test_clips_alone(forward, &cases[i], cases[i].rows, cases[i].channels, cases[i].channels, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sizes),
      cmocka_unit_test(a_clip_does_not_see_the_others),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
