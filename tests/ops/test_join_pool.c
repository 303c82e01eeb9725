/* Joining, pooling and the fusion of scales against loops in double, their gradients against central differences of
 * those loops; real lengths of 0, 1, T and beyond; dx in dout's place. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/temporal.h"

typedef struct {
  int64_t batch, channels, time;
  ser_join join;
  bool x_plain, in_place; /* x is read as it is; dx is dout */
} join_case;

typedef struct {
  float *x[2], *scale[2], *shift[2], *drop[2], *dout; /* of x and a */
} join_data;

static join_data make_join(const join_case *k, const test_dims *d) {
  join_data data = {.dout = test_tensor(9, d)};
  for (uint64_t i = 0; i < 2; i++) {
    data.x[i] = test_tensor(1 + i, d);
    if (i == 1)
      for (size_t at = 0; at < d->count; at++) data.x[i][at] *= 12; /* far into the gate's flat ends */
    if (i == 0 && k->x_plain) continue;
    data.scale[i] = test_vector(3 + i, k->channels, -1, 1);
    data.shift[i] = test_vector(5 + i, k->channels, -0.2, 1);
    if (i == 1) data.drop[i] = test_drops(7, d);
  }
  return data;
}

static void free_join(join_data *data) {
  for (int i = 0; i < 2; i++) {
    free(data->x[i]);
    free(data->scale[i]);
    free(data->shift[i]);
    free(data->drop[i]);
  }
  free(data->dout);
}

static void run_join(test_buffers *all, const void *context, float *out) {
  const join_case *k = context;
  test_dims d = test_dims_make(k->batch, k->channels, k->time);
  join_data data = make_join(k, &d);
  ser_activation a[2];
  for (int i = 0; i < 2; i++)
    a[i] = (ser_activation){test_in(all, data.x[i], d.count), test_in(all, data.scale[i], (size_t)d.cp),
                            test_in(all, data.shift[i], (size_t)d.cp), test_in(all, data.drop[i], d.columns)};
  float *dout = test_in(all, data.dout, d.count), *joined = test_out(all, d.count), *da = test_out(all, d.count);
  float *dx = k->in_place ? dout : test_out(all, d.count);
  ser_tensor_shape shape = {k->batch, k->channels, k->time};
  int64_t before = test_allocations(all->device);
  all->device->ops->join_forward(all->stream, joined, &a[0], &a[1], k->join, &shape);
  all->device->ops->join_backward(all->stream, dx, da, dout, &a[0], &a[1], k->join, &shape);
  assert_int_equal(test_allocations(all->device), before);
  test_read(all, out, joined);
  test_read(all, out + d.count, dx);
  test_read(all, out + 2 * d.count, da);
  free_join(&data);
}

static double joined(double x, double a, ser_join join) {
  return join == SER_JOIN_GATE ? x / (1 + exp(-a)) : x + a;
}

static void check_join(const void *context, const float *out) {
  const join_case *k = context;
  test_dims d = test_dims_make(k->batch, k->channels, k->time);
  join_data data = make_join(k, &d);
  double *v[2], *want = ser_alloc_zero(3 * d.count, sizeof *want);
  for (int i = 0; i < 2; i++) v[i] = test_activation(data.x[i], data.scale[i], data.shift[i], data.drop[i], &d);
  for (size_t i = 0; i < d.count; i++) {
    double x = v[0][i], a = v[1][i], g = (double)data.dout[i], step = 1e-5;
    want[i] = (int64_t)i % d.tp < d.t ? joined(x, a, k->join) : 0;
    want[d.count + i] = g * (joined(x + step, a, k->join) - joined(x - step, a, k->join)) / (2 * step);
    want[2 * d.count + i] = g * (joined(x, a + step, k->join) - joined(x, a - step, k->join)) / (2 * step);
  }
  for (int i = 0; i < 3; i++) test_padding(out + (size_t)i * d.count, &d);
  test_close("joined", out, want, d.count, 5e-7);
  test_close("dx", out + d.count, want + d.count, d.count, 5e-7);
  test_close("da", out + 2 * d.count, want + 2 * d.count, d.count, 5e-7);
  free(v[0]);
  free(v[1]);
  free(want);
  free_join(&data);
}

static void join(void **state) {
  (void)state;
  static const int64_t times[] = {1, 7, 16, 17, 162, 163}, channels[] = {1, 5, 39, 40, 41, 39};
  for (size_t i = 0; i < 6; i++)
    for (int variant = 0; variant < 4; variant++) {
      join_case k = {i == 5 ? 64 : 3,  channels[i],     times[i], variant < 2 ? SER_JOIN_GATE : SER_JOIN_RESIDUAL,
                     variant % 2 == 0, variant % 2 == 1};
      test_operation(run_join, check_join, &k, 3 * test_dims_make(k.batch, k.channels, k.time).count);
    }
}

static void run_flat(test_buffers *all, const void *context, float *out) {
  (void)context;
  test_dims d = test_dims_make(1, 8, 16);
  float *ones = ser_alloc(d.count * sizeof *ones), *values = ser_alloc(d.count * sizeof *values);
  for (size_t i = 0; i < d.count; i++) {
    ones[i] = 1;
    values[i] = (float)((double)i * 4 - 256) * 400; /* the gate at -102400 .. 102000 */
  }
  values[1] = NAN;
  ser_activation x = {.x = test_in(all, ones, d.count)}, a = {.x = test_in(all, values, d.count)};
  float *joined_out = test_out(all, d.count);
  ser_tensor_shape shape = {1, 8, 16};
  all->device->ops->join_forward(all->stream, joined_out, &x, &a, SER_JOIN_GATE, &shape);
  test_read(all, out, joined_out);
  assert_true(isnan(out[1]));
  out[1] = 0;
  for (size_t i = 0; i < d.count; i++)
    if (!(out[i] >= 0 && out[i] <= 1 &&
          fabs((double)out[i] - (values[i] > 0   ? 1
                                 : values[i] < 0 ? 0
                                 : i == 1        ? 0
                                                 : 0.5)) < 1e-30))
      fail_msg("the gate at %g is %g", (double)values[i], (double)out[i]);
  free(ones);
  free(values);
}

static void the_gate_is_flat_far_out_and_keeps_nan(void **state) {
  (void)state;
  test_operation(run_flat, NULL, NULL, 128);
}

/* ---- pooling ---- */

typedef struct {
  int64_t batch, channels, time;
  bool real, plain;
} pool_case;

static int64_t *make_lengths(const pool_case *k) {
  int64_t *lengths = ser_alloc((size_t)k->batch * sizeof *lengths);
  int64_t list[] = {k->time, 1, k->time + 5, 0, k->time / 2, k->time - 1};
  for (int64_t b = 0; b < k->batch; b++) lengths[b] = list[b % 6];
  return lengths;
}

/* A device copy of the lengths: floats are what buffers hold. */
static const int64_t *put_lengths(test_buffers *all, const pool_case *k) {
  if (!k->real) return NULL;
  int64_t *lengths = make_lengths(k);
  float *bits = ser_alloc((size_t)k->batch * 8);
  memcpy(bits, lengths, (size_t)k->batch * 8);
  const void *put = test_in(all, bits, 2 * (size_t)k->batch);
  free(bits);
  free(lengths);
  return put;
}

/* pooled; then d of the forward side written; then d of the backward side added to a tensor. */
static void run_pool(test_buffers *all, const void *context, float *out) {
  const pool_case *k = context;
  test_dims d = test_dims_make(k->batch, k->channels, k->time);
  float *x[2] = {test_tensor(1, &d), test_tensor(2, &d)}, *before_d = test_tensor(3, &d), *drop = test_drops(4, &d);
  float *scale = test_vector(5, d.c, -1, 1), *shift = test_vector(6, d.c, 0, 1), *dpooled = test_drops(7, &d);
  ser_activation a = {test_in(all, x[0], d.count), test_in(all, scale, (size_t)d.cp), test_in(all, shift, (size_t)d.cp),
                      test_in(all, drop, d.columns)};
  ser_activation b = {.x = test_in(all, x[1], d.count)};
  if (k->plain) a = (ser_activation){.x = a.x};
  const int64_t *lengths = put_lengths(all, k);
  float *pooled = test_out(all, d.columns), *g = test_in(all, dpooled, d.columns);
  float *written = test_out(all, d.count), *added = test_in(all, before_d, d.count);
  ser_tensor_shape shape = {k->batch, k->channels, k->time};
  int64_t before = test_allocations(all->device);
  all->device->ops->pool_forward(all->stream, pooled, &a, &b, lengths, &shape);
  all->device->ops->pool_backward(all->stream, written, g, lengths, false, false, &shape);
  all->device->ops->pool_backward(all->stream, added, g, lengths, true, true, &shape);
  assert_int_equal(test_allocations(all->device), before);
  test_read(all, out, pooled);
  test_read(all, out + d.columns, written);
  test_read(all, out + d.columns + d.count, added);

  int64_t *length = make_lengths(k);
  double *want = ser_alloc_zero(d.columns + 2 * d.count, sizeof *want);
  double *va = test_activation(x[0], k->plain ? NULL : scale, shift, drop, &d);
  for (int64_t i = 0; i < d.b; i++)
    for (int64_t c = 0; c < d.c; c++) {
      int64_t real = !k->real || length[i] > d.t ? d.t : length[i];
      for (int64_t t = 0; t < d.t; t++) {
        int64_t at = test_at(&d, i, c, t);
        bool ahead = t < real, behind = t >= d.t - real;
        double share = (double)dpooled[i * d.cp + c] / (double)real;
        if (ahead) want[i * d.cp + c] += va[at] / (double)real;
        if (behind) want[i * d.cp + c] += (double)x[1][at] / (double)real;
        want[(int64_t)d.columns + at] = ahead ? share : 0;
        want[(int64_t)(d.columns + d.count) + at] = (double)before_d[at] + (behind ? share : 0);
      }
    }
  test_vector_padding(out, d.b, d.c);
  test_padding(out + d.columns, &d);
  test_padding(out + d.columns + d.count, &d);
  test_close("pooled", out, want, d.columns + 2 * d.count, 1e-6);
  float *mine[] = {x[0], x[1], before_d, drop, scale, shift, dpooled};
  for (int i = 0; i < 7; i++) free(mine[i]);
  free(length);
  free(want);
  free(va);
}

static void pool(void **state) {
  (void)state;
  static const int64_t times[] = {1, 7, 16, 17, 162, 163}, channels[] = {1, 5, 39, 40, 41, 39};
  for (size_t i = 0; i < 6; i++)
    for (int variant = 0; variant < 3; variant++) {
      pool_case k = {i == 4 ? 64 : 6, channels[i], times[i], variant > 0, variant == 1};
      test_dims d = test_dims_make(k.batch, k.channels, k.time);
      test_operation(run_pool, NULL, &k, d.columns + 2 * d.count);
    }
}

/* ---- the fusion of scales ---- */

typedef struct {
  int64_t batch, channels, scales;
} mix_case;

static void run_mix(test_buffers *all, const void *context, float *out) {
  const mix_case *k = context;
  test_dims d = test_dims_make(k->batch, k->channels, 1);
  size_t n = d.columns, scales = (size_t)k->scales;
  float *x = ser_alloc(n * scales * sizeof *x), *w = test_numbers(2, scales, -1, 1), *g = test_drops(3, &d);
  for (size_t s = 0; s < scales; s++) {
    float *one = test_drops(10 + s, &d);
    for (size_t i = 0; i < n; i++) x[s * n + i] = one[i] * test_random(5, s * n + i);
    free(one);
  }
  float *dx = test_in(all, x, n * scales), *dw = test_in(all, w, scales), *dg = test_in(all, g, n);
  float *mixed = test_out(all, n), *dscales = test_out(all, n * scales), *weights = test_out(all, scales);
  ser_tensor_shape shape = {k->batch, k->channels, 162};
  int64_t before = test_allocations(all->device);
  all->device->ops->scale_mix_forward(all->stream, mixed, dx, dw, k->scales, &shape);
  all->device->ops->scale_mix_backward(all->stream, dscales, weights, dg, dx, dw, k->scales, &shape);
  assert_int_equal(test_allocations(all->device), before);
  test_read(all, out, mixed);
  test_read(all, out + n, dscales);
  test_read(all, out + n + n * scales, weights);
  double *want = ser_alloc_zero(n + n * scales + scales, sizeof *want);
  for (size_t s = 0; s < scales; s++)
    for (size_t i = 0; i < n; i++) {
      want[i] += (double)w[s] * (double)x[s * n + i];
      want[n + s * n + i] = (double)w[s] * (double)g[i];
      want[n + n * scales + s] += (double)g[i] * (double)x[s * n + i];
    }
  test_vector_padding(out, k->batch, k->channels);
  test_vector_padding(out + n, k->batch * k->scales, k->channels);
  test_close("fused scales", out, want, n + n * scales + scales, 1e-6);
  float *mine[] = {x, w, g};
  for (int i = 0; i < 3; i++) free(mine[i]);
  free(want);
}

static void mix(void **state) {
  (void)state;
  static const mix_case cases[] = {{1, 1, 1}, {3, 39, 8}, {64, 39, 8}, {3, 41, 10}, {2, 40, 2}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    test_dims d = test_dims_make(cases[i].batch, cases[i].channels, 1);
    test_operation(run_mix, NULL, &cases[i], d.columns + (d.columns + 1) * (size_t)cases[i].scales);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(join),
      cmocka_unit_test(the_gate_is_flat_far_out_and_keeps_nan),
      cmocka_unit_test(pool),
      cmocka_unit_test(mix),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
