/* Joining, pooling and the fusion of scales against loops in double, their gradients against central differences of
 * those loops; real lengths of 0, 1, T and beyond; dx in dout's place. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/temporal.h"

/* Those of join and of pool, in pairs. */
enum { SIZES = 13 };
static const int64_t times[SIZES] = {1, 7, 16, 17, 162, 163, 2, 31, 32, 33, 39, 40, 1000};
static const int64_t channels[SIZES] = {1, 5, 39, 40, 41, 39, 1000, 162, 2, 31, 32, 33, 1};

/* Of both sides. */
typedef struct {
  float *x[2], *scale[2], *shift[2], *drop[2], *dout; /* of x and a */
} join_data;

typedef struct {
  int64_t batch, channels, time;
  ser_join join;
  bool x_plain, in_place; /* x is read as it is; dx is dout */
  join_data data;
} join_case;

static join_data make_join(const join_case *k) {
  test_dims dims = test_dims_make(2 * k->batch, k->channels, k->time), *d = &dims;
  join_data data = {.dout = test_tensor(9, d)};
  for (uint64_t i = 0; i < 2; i++) {
    data.x[i] = test_tensor(1 + i, d);
    if (i == 1)
      for (size_t at = 0; at < d->count; at++) data.x[i][at] *= 12; /* far into the gate's flat ends */
    if (i == 0 && k->x_plain) continue;
    data.scale[i] = test_vectors(3 + i, 2, k->channels, -1, 1);
    data.shift[i] = test_vectors(5 + i, 2, k->channels, -0.2, 1);
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

static void run_join(test_buffers *all, const void *context, test_sides s, float *out) {
  const join_case *k = context;
  test_dims d = test_dims_make(k->batch, k->channels, k->time);
  size_t n = d.count, cp = (size_t)d.cp;
  const join_data data = k->data;
  ser_activation a[2];
  for (int i = 0; i < 2; i++)
    a[i] = (ser_activation){test_in_sides(all, data.x[i], s, n, n), test_in_sides(all, data.scale[i], s, cp, cp),
                            test_in_sides(all, data.shift[i], s, cp, cp),
                            test_in_sides(all, data.drop[i], s, d.columns, d.columns)};
  float *dout = test_in_sides(all, data.dout, s, n, n), *joined = test_out_sides(all, s, n, n);
  float *da = test_out_sides(all, s, n, n), *dx = k->in_place ? dout : test_out_sides(all, s, n, n);
  ser_tensor_shape shape = {s.count, k->batch, k->channels, k->time};
  int64_t before = test_allocations(all->device);
  all->device->ops->join_forward(all->stream, joined, &a[0], &a[1], k->join, &shape);
  all->device->ops->join_backward(all->stream, dx, da, dout, &a[0], &a[1], k->join, &shape);
  assert_int_equal(test_allocations(all->device), before);
  test_read_sides(all, out, 3 * n, joined, s, n, n);
  test_read_sides(all, out + n, 3 * n, dx, s, n, n);
  test_read_sides(all, out + 2 * n, 3 * n, da, s, n, n);
}

static double joined(double x, double a, ser_join join) {
  return join == SER_JOIN_GATE ? x / (1 + exp(-a)) : x + a;
}

static void check_join(const void *context, int64_t side, const float *out) {
  const join_case *k = context;
  test_dims d = test_dims_make(k->batch, k->channels, k->time);
  const join_data data = k->data;
  double *v[2], *want = ser_alloc_zero(3 * d.count, sizeof *want);
  const float *dout = data.dout + (size_t)side * d.count;
  for (int i = 0; i < 2; i++) {
    ser_activation host = {data.x[i], data.scale[i], data.shift[i], data.drop[i]};
    v[i] = test_activation(&host, side, &d);
  }
  for (size_t i = 0; i < d.count; i++) {
    double x = v[0][i], a = v[1][i], g = (double)dout[i], step = 1e-5;
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
}

static void join(void **state) {
  (void)state;
  for (size_t i = 0; i < SIZES; i++)
    for (int variant = 0; variant < 4; variant++) {
      join_case k = {.batch = i == 5 ? 64 : 3,
                     .channels = channels[i],
                     .time = times[i],
                     .join = variant < 2 ? SER_JOIN_GATE : SER_JOIN_RESIDUAL,
                     .x_plain = variant % 2 == 0,
                     .in_place = variant % 2 == 1};
      k.data = make_join(&k);
      test_operation_sides(run_join, check_join, &k, 3 * test_dims_make(k.batch, k.channels, k.time).count);
      free_join(&k.data);
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
  ser_tensor_shape shape = {1, 1, 8, 16};
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

/* Of all the case's sides, but dpooled, which is of neither. */
typedef struct {
  float *x, *before, *drop, *scale, *shift, *dpooled;
  int64_t *lengths;
} pool_data;

typedef struct {
  int64_t sides, batch, channels, time;
  bool real, plain;
  pool_data data;
} pool_case;

static int64_t *make_lengths(const pool_case *k) {
  int64_t *lengths = ser_alloc((size_t)k->batch * sizeof *lengths);
  int64_t list[] = {k->time, 1, k->time + 5, 0, k->time / 2, k->time - 1};
  for (int64_t b = 0; b < k->batch; b++) lengths[b] = list[b % 6];
  return lengths;
}

static pool_data make_pool(const pool_case *k) {
  test_dims d = test_dims_make(k->sides * k->batch, k->channels, k->time);
  test_dims pooled = test_dims_make(k->batch, k->channels, 1);
  return (pool_data){test_tensor(1, &d),
                     test_tensor(3, &d),
                     test_drops(4, &d),
                     test_vectors(5, k->sides, d.c, -1, 1),
                     test_vectors(6, k->sides, d.c, 0, 1),
                     test_drops(7, &pooled),
                     make_lengths(k)};
}

static void free_pool(pool_data *data) {
  float *mine[] = {data->x, data->before, data->drop, data->scale, data->shift, data->dpooled};
  for (int i = 0; i < 6; i++) free(mine[i]);
  free(data->lengths);
}

/* pooled; then d written; then d added to a tensor. */
static void run_pool(test_buffers *all, const void *context, float *out) {
  const pool_case *k = context;
  test_dims d = test_dims_make(k->sides * k->batch, k->channels, k->time);
  size_t vectors = (size_t)(k->sides * d.cp), columns = (size_t)(k->batch * d.cp);
  const pool_data data = k->data;
  ser_activation x = {test_in(all, data.x, d.count), test_in(all, data.scale, vectors),
                      test_in(all, data.shift, vectors), test_in(all, data.drop, d.columns)};
  if (k->plain) x = (ser_activation){.x = x.x};
  const int64_t *lengths = test_put(all, k->real ? data.lengths : NULL, (size_t)k->batch * sizeof *lengths);
  float *pooled = test_out(all, columns), *g = test_in(all, data.dpooled, columns);
  float *written = test_out(all, d.count), *added = test_in(all, data.before, d.count);
  ser_tensor_shape shape = {k->sides, k->batch, k->channels, k->time};
  int64_t before = test_allocations(all->device);
  all->device->ops->pool_forward(all->stream, pooled, &x, lengths, &shape);
  all->device->ops->pool_backward(all->stream, written, g, lengths, false, &shape);
  all->device->ops->pool_backward(all->stream, added, g, lengths, true, &shape);
  assert_int_equal(test_allocations(all->device), before);
  test_read(all, out, pooled);
  test_read(all, out + columns, written);
  test_read(all, out + columns + d.count, added);
}

static void check_pool(const void *context, const float *out) {
  const pool_case *k = context;
  test_dims d = test_dims_make(k->sides * k->batch, k->channels, k->time);
  test_dims one = test_dims_make(k->batch, k->channels, k->time);
  const pool_data data = k->data;
  double *want = ser_alloc_zero(one.columns + 2 * d.count, sizeof *want);
  for (int64_t side = 0; side < k->sides; side++) {
    ser_activation host = {data.x, k->plain ? NULL : data.scale, data.shift, data.drop};
    double *x = test_activation(&host, side, &one), *written = want + one.columns + (size_t)side * one.count;
    const float *before = data.before + (size_t)side * one.count;
    for (int64_t b = 0; b < k->batch; b++)
      for (int64_t c = 0; c < d.c; c++) {
        int64_t length = !k->real || data.lengths[b] > d.t ? d.t : data.lengths[b];
        for (int64_t t = 0; t < d.t; t++) {
          int64_t at = test_at(&one, b, c, t);
          bool pooled = side ? t >= d.t - length : t < length;
          double share = pooled ? 1 / (double)length : 0, spread = share * (double)data.dpooled[b * d.cp + c];
          want[b * d.cp + c] += x[at] * share;
          written[at] = spread;
          written[(int64_t)d.count + at] = (double)before[at] + spread;
        }
      }
    free(x);
  }
  test_vector_padding(out, k->batch, d.c);
  test_padding(out + one.columns, &d);
  test_padding(out + one.columns + d.count, &d);
  test_close("pooled", out, want, one.columns + 2 * d.count, 1e-6);
  free(want);
}

static void pool(void **state) {
  (void)state;
  for (size_t i = 0; i < SIZES; i++)
    for (int variant = 0; variant < 6; variant++) {
      pool_case k = {.sides = 1 + variant / 3,
                     .batch = i == 4 ? 64 : 6,
                     .channels = channels[i],
                     .time = times[i],
                     .real = variant % 3 > 0,
                     .plain = variant % 3 == 1};
      k.data = make_pool(&k);
      test_dims d = test_dims_make(k.batch, k.channels, k.time);
      test_operation(run_pool, check_pool, &k, d.columns + (size_t)k.sides * 2 * d.count);
      free_pool(&k.data);
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
  ser_tensor_shape shape = {1, k->batch, k->channels, 162};
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
  static const mix_case cases[] = {{1, 1, 1},  {3, 39, 8},  {64, 39, 8},   {3, 41, 10},  {2, 40, 2},
                                   {1, 2, 31}, {33, 32, 9}, {2, 1000, 40}, {162, 33, 1}, {1000, 31, 2}};
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
