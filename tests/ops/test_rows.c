/* layernorm_forward and pool_rows against loops in double; what is pooled of a clip does not depend on its neighbours.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/rows.h"

typedef struct {
  int64_t channels, rows;
  bool gelu, in_place;
  float away; /* from zero: a mean that is large beside the deviation */
} norm_case;

static float *make_x(const norm_case *k) {
  return test_numbers(1, (size_t)(k->rows * k->channels), (double)k->away - 1, (double)k->away + 1);
}

static void run_norm(test_buffers *all, const void *context, float *out) {
  const norm_case *k = context;
  size_t count = (size_t)(k->rows * k->channels), channels = (size_t)k->channels;
  float *x = make_x(k), *gamma = test_numbers(2, channels, 0.5, 1.5), *beta = test_numbers(3, channels, -1, 1);
  float *x_in = test_in(all, x, count), *y = k->in_place ? x_in : test_out(all, count);
  all->device->ops->layernorm_forward(all->stream, y, x_in, test_in(all, gamma, channels), test_in(all, beta, channels),
                                      1e-5f, k->gelu, k->channels, k->rows);
  test_read(all, out, y);
  double *want = ser_alloc(count * sizeof *want);
  for (int64_t row = 0; row < k->rows; row++) {
    const float *from = x + row * k->channels;
    double mean = 0, var = 0;
    for (int64_t c = 0; c < k->channels; c++) mean += (double)from[c] / (double)k->channels;
    for (int64_t c = 0; c < k->channels; c++) var += pow((double)from[c] - mean, 2) / (double)k->channels;
    for (int64_t c = 0; c < k->channels; c++) {
      double y_c = ((double)from[c] - mean) / sqrt(var + 1e-5) * (double)gamma[c] + (double)beta[c];
      want[row * k->channels + c] = k->gelu ? y_c / 2 * (1 + erf(y_c * sqrt(0.5))) : y_c;
    }
  }
  test_close("layer norm", out, want, count, 3e-6 * (double)(1 + k->away));
  free(x);
  free(gamma);
  free(beta);
  free(want);
}

static void layer_norm(void **state) {
  (void)state;
  for (int i = 0; i < 2 * TEST_ODD_SIZES; i++) {
    norm_case k = {test_odd_sizes[i % TEST_ODD_SIZES], test_odd_sizes[(i * 3 + 2) % TEST_ODD_SIZES] % 200 + 1, i % 2,
                   i % 3 == 0, i % 4 == 0 ? 30.0f : 0};
    test_operation(run_norm, NULL, &k, (size_t)(k.rows * k.channels));
  }
  norm_case usual[] = {{512, 50, true, true, 0},
                       {768, 150, false, false, 0},
                       {1024, 20, false, true, 5},
                       {1028, 9, true, false, 0},
                       {1121, 3, false, true, 0}};
  for (int i = 0; i < 5; i++) test_operation(run_norm, NULL, &usual[i], (size_t)(usual[i].rows * usual[i].channels));
}

typedef struct {
  int64_t channels;
  const test_rows *rows;
} pool_case;

static void run_pool(test_buffers *all, const void *context, float *out) {
  const pool_case *k = context;
  size_t count = (size_t)(test_rows_count(k->rows) * k->channels), outs = (size_t)(k->rows->clips * 2 * k->channels);
  float *x = test_rows_numbers(1, k->rows, k->channels), *y = test_out(all, outs), *x_in = test_in(all, x, count);
  ser_rows in = test_rows_in(all, k->rows);
  all->device->ops->pool_rows(all->stream, y, x_in, k->channels, &in);
  test_read(all, out, y);
  double *want = ser_alloc(outs * sizeof *want);
  for (int64_t clip = 0; clip < k->rows->clips; clip++)
    for (int64_t c = 0; c < k->channels; c++) {
      double mean = 0, var = 0, frames = (double)k->rows->frames[clip];
      const float *from = x + k->rows->start[clip] * k->channels + c;
      for (int64_t t = 0; t < k->rows->frames[clip]; t++) mean += (double)from[t * k->channels] / frames;
      for (int64_t t = 0; t < k->rows->frames[clip]; t++) var += pow((double)from[t * k->channels] - mean, 2) / frames;
      want[clip * 2 * k->channels + c] = mean;
      want[(clip * 2 + 1) * k->channels + c] = sqrt(var);
    }
  test_close("pooled rows", out, want, outs, 1e-6);
  free(x);
  free(want);
}

static const int64_t lengths[] = {1, 149, 2, 1000, 31, 64, 65};

static void pooling(void **state) {
  (void)state;
  test_rows rows = test_rows_make(7, lengths);
  for (int i = 0; i < TEST_ODD_SIZES; i++) {
    pool_case k = {test_odd_sizes[i], &rows};
    test_operation(run_pool, NULL, &k, (size_t)(rows.clips * 2 * k.channels));
  }
}

static void pool_rows(test_buffers *all, float *out, const float *x, int64_t channels, const test_rows *rows) {
  size_t outs = (size_t)(rows->clips * 2 * channels);
  ser_rows in = test_rows_in(all, rows);
  float *y = test_out(all, outs), *x_in = test_in(all, x, (size_t)(test_rows_count(rows) * channels));
  all->device->ops->pool_rows(all->stream, y, x_in, channels, &in);
  test_read(all, out, y);
  test_buffers_free(all);
}

static void one_device(ser_device *device, ser_stream *stream, void *context) {
  const pool_case *k = context;
  test_buffers all = {.device = device, .stream = stream};
  int64_t each = 2 * k->channels;
  float *x = test_rows_numbers(1, k->rows, k->channels);
  float *together = ser_alloc((size_t)(k->rows->clips * each) * sizeof *together);
  float *alone = ser_alloc((size_t)each * sizeof *alone);
  pool_rows(&all, together, x, k->channels, k->rows);
  for (int64_t clip = 0; clip < k->rows->clips; clip++) {
    test_rows one = test_rows_make(1, &k->rows->frames[clip]);
    pool_rows(&all, alone, x + k->rows->start[clip] * k->channels, k->channels, &one);
    test_same_alone(alone, together + clip * each, (size_t)each, 0);
  }
  free(x);
  free(together);
  free(alone);
}

static void a_clip_does_not_see_the_others(void **state) {
  (void)state;
  test_rows rows = test_rows_make(7, lengths);
  pool_case k = {39, &rows};
  test_each_device(one_device, 2, &k);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(layer_norm),
      cmocka_unit_test(pooling),
      cmocka_unit_test(a_clip_does_not_see_the_others),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
