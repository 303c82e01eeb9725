/* Batch norm's ends against loops in double, and the whole chain convolution, norm, ReLU, dropout, convolution against
 * central differences of its forward pass in double: the gradients through batch statistics. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/temporal.h"

enum { GAP = 5, RUNNING_GAP = 3 }; /* floats between the sides' parameters */

static ser_batchnorm norm_of(int64_t channels) {
  return (ser_batchnorm){1e-3f, 0.01f, channels + GAP, channels + RUNNING_GAP};
}

typedef struct {
  int64_t batch, channels, time;
} norm_case;

static const norm_case norm_cases[] = {{1, 1, 1},    {1, 39, 162}, {3, 5, 7},    {64, 39, 162}, {3, 40, 16},
                                       {2, 41, 163}, {31, 2, 33},  {32, 33, 31}, {33, 32, 2},   {162, 40, 1},
                                       {1, 162, 40}, {40, 31, 32}, {2, 1, 1000}, {1, 1000, 39}, {1000, 2, 2}};

/* Of both sides. */
typedef struct {
  float *moments, *gamma, *beta, *mean, *var;
} finish_data;

static finish_data make_finish(const norm_case *k) {
  test_dims d = test_dims_make(2 * k->batch, k->channels, k->time);
  size_t cp = (size_t)d.cp, c = (size_t)d.c;
  finish_data data = {test_vectors(1, 2 * d.b, d.c, -1, 1), test_parameters(2, c, c + GAP, -2, 2),
                      test_parameters(3, c, c + GAP, -1, 1), test_parameters(4, c, c + RUNNING_GAP, -1, 1),
                      test_parameters(5, c, c + RUNNING_GAP, 0.5, 2)};
  for (int64_t b = 0; b < d.b; b++) {
    float *mean = data.moments + (size_t)b * 2 * cp;
    for (size_t i = cp; i < cp + c; i++) mean[i] = k->time > 1 ? (1 + mean[i]) * (float)k->time : 0;
    mean[0] += 1000; /* a channel far from zero */
  }
  return data;
}

static void free_finish(finish_data *data) {
  float *mine[] = {data->moments, data->gamma, data->beta, data->mean, data->var};
  for (int i = 0; i < 5; i++) free(mine[i]);
}

/* scale, shift, mean, inv_std [Cp], running mean and variance [C]. */
static void run_finish(test_buffers *all, const void *context, test_sides s, float *out) {
  const norm_case *k = context;
  test_dims d = test_dims_make(k->batch, k->channels, k->time);
  size_t cp = (size_t)d.cp, c = (size_t)d.c, outputs = 4 * cp + 2 * c, running_stride = c + RUNNING_GAP;
  finish_data data = make_finish(k);
  float *results[4];
  for (int i = 0; i < 4; i++) results[i] = test_out_sides(all, s, cp, cp);
  float *running[2] = {test_in_sides(all, data.mean, s, c, running_stride),
                       test_in_sides(all, data.var, s, c, running_stride)};
  float *m = test_in_sides(all, data.moments, s, 2 * d.columns, 2 * d.columns);
  float *g = test_in_sides(all, data.gamma, s, c, c + GAP), *be = test_in_sides(all, data.beta, s, c, c + GAP);
  ser_tensor_shape shape = {s.count, k->batch, k->channels, k->time};
  ser_batchnorm norm = norm_of(k->channels);
  int64_t before = test_allocations(all->device);
  all->device->ops->batchnorm_finish(all->stream, results[0], results[1], results[2], results[3], running[0],
                                     running[1], m, g, be, &norm, &shape);
  assert_int_equal(test_allocations(all->device), before);
  for (size_t i = 0; i < 4; i++) test_read_sides(all, out + i * cp, outputs, results[i], s, cp, cp);
  for (size_t i = 0; i < 2; i++) test_read_sides(all, out + 4 * cp + i * c, outputs, running[i], s, c, running_stride);
  free_finish(&data);
}

static void check_finish(const void *context, int64_t side, const float *out) {
  const norm_case *k = context;
  test_dims d = test_dims_make(k->batch, k->channels, k->time);
  size_t cp = (size_t)d.cp, c = (size_t)d.c;
  finish_data data = make_finish(k);
  ser_batchnorm norm = norm_of(k->channels);
  const float *moments = data.moments + (size_t)side * 2 * d.columns;
  const float *gamma = data.gamma + side * norm.side_stride, *beta = data.beta + side * norm.side_stride;
  const float *mean = data.mean + side * norm.running_stride, *var = data.var + side * norm.running_stride;
  double *want = ser_alloc_zero(4 * cp + 2 * c, sizeof *want), n = (double)(k->batch * k->time);
  for (size_t i = 0; i < c; i++) {
    double centre = 0, squares = 0;
    for (int64_t b = 0; b < k->batch; b++) centre += (double)moments[(size_t)b * 2 * cp + i] / (double)k->batch;
    for (int64_t b = 0; b < k->batch; b++)
      squares += (double)moments[((size_t)b * 2 + 1) * cp + i] +
                 (double)k->time * pow((double)moments[(size_t)b * 2 * cp + i] - centre, 2);
    double r = 1 / sqrt(squares / n + (double)norm.eps);
    want[i] = (double)gamma[i] * r;
    want[cp + i] = (double)beta[i] - centre * (double)gamma[i] * r;
    want[2 * cp + i] = centre;
    want[3 * cp + i] = r;
    want[4 * cp + i] = 0.99 * (double)mean[i] + 0.01 * centre;
    want[4 * cp + c + i] = 0.99 * (double)var[i] + 0.01 * squares / (n > 1 ? n - 1 : n);
  }
  test_vector_padding(out, 4, k->channels);
  test_close("batch norm's vectors", out, want, 4 * cp + 2 * c, 1e-6);
  free(want);
  free_finish(&data);
}

static void finish(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof norm_cases / sizeof *norm_cases; i++) {
    test_dims d = test_dims_make(1, norm_cases[i].channels, 1);
    test_operation_sides(run_finish, check_finish, &norm_cases[i], (size_t)(4 * d.cp + 2 * d.c));
  }
}

/* Of both sides. */
typedef struct {
  float *da, *y, *drop, *v[4]; /* v: scale, shift, mean, inv_std */
} backward_data;

static backward_data make_backward(const norm_case *k) {
  test_dims d = test_dims_make(2 * k->batch, k->channels, k->time);
  backward_data data = {.da = test_tensor(1, &d), .y = test_tensor(2, &d), .drop = test_drops(3, &d)};
  for (int i = 0; i < 4; i++) data.v[i] = test_vectors(4 + (uint64_t)i, 2, d.c, i == 3 ? 0.5 : -1, i == 3 ? 2 : 1);
  return data;
}

static void free_backward(backward_data *data) {
  float *mine[] = {data->da, data->y, data->drop, data->v[0], data->v[1], data->v[2], data->v[3]};
  for (int i = 0; i < 7; i++) free(mine[i]);
}

/* Per-clip sums, then their means over all, dgamma and dbeta. */
static void run_backward(test_buffers *all, const void *context, test_sides s, float *out) {
  const norm_case *k = context;
  test_dims d = test_dims_make(k->batch, k->channels, k->time);
  size_t cp = (size_t)d.cp, c = (size_t)d.c, n = d.columns, outputs = 2 * n + 2 * cp + 2 * c, stride = c + GAP;
  backward_data data = make_backward(k);
  float *v[4];
  for (int i = 0; i < 4; i++) v[i] = test_in_sides(all, data.v[i], s, cp, cp);
  ser_gradient g = {
      .da = test_in_sides(all, data.da, s, d.count, d.count),
      .y = {test_in_sides(all, data.y, s, d.count, d.count), v[0], v[1], test_in_sides(all, data.drop, s, n, n)},
      .mean = v[2],
      .inv_std = v[3]};
  float *sums = test_out_sides(all, s, 2 * n, 2 * n), *means = test_out_sides(all, s, 2 * cp, 2 * cp);
  float *dgamma = test_out_sides(all, s, c, stride), *dbeta = test_out_sides(all, s, c, stride);
  ser_tensor_shape shape = {s.count, k->batch, k->channels, k->time};
  ser_batchnorm norm = norm_of(k->channels);
  int64_t before = test_allocations(all->device);
  all->device->ops->batchnorm_backward_sums(all->stream, sums, &g, &shape);
  all->device->ops->batchnorm_backward_finish(all->stream, means, dgamma, dbeta, sums, &norm, &shape);
  assert_int_equal(test_allocations(all->device), before);
  test_read_sides(all, out, outputs, sums, s, 2 * n, 2 * n);
  test_read_sides(all, out + 2 * n, outputs, means, s, 2 * cp, 2 * cp);
  test_read_sides(all, out + 2 * n + 2 * cp, outputs, dgamma, s, c, stride);
  test_read_sides(all, out + 2 * n + 2 * cp + c, outputs, dbeta, s, c, stride);
  free_backward(&data);
}

static void check_backward(const void *context, int64_t side, const float *out) {
  const norm_case *k = context;
  test_dims d = test_dims_make(k->batch, k->channels, k->time);
  size_t cp = (size_t)d.cp, c = (size_t)d.c;
  backward_data data = make_backward(k);
  ser_gradient host = {.y = {data.y, data.v[0], data.v[1], data.drop}, .mean = data.v[2], .inv_std = data.v[3]};
  double *da_double = test_plain(data.da, side, &d);
  test_gradient parts = test_gradient_make(da_double, &host, side, &d);
  double *want = ser_alloc_zero(2 * d.columns + 2 * cp + 2 * c, sizeof *want);
  double *total = want + 2 * d.columns, n = (double)(k->batch * k->time);
  for (int64_t b = 0; b < d.b; b++)
    for (int64_t i = 0; i < d.c; i++)
      for (int64_t t = 0; t < d.t; t++) {
        double dz = parts.dz[test_at(&d, b, i, t)], product = dz * parts.xhat[test_at(&d, b, i, t)];
        want[b * 2 * d.cp + i] += dz;
        want[(b * 2 + 1) * d.cp + i] += product;
        total[i] += dz / n;
        total[d.cp + i] += product / n;
        total[2 * d.cp + i] += product;
        total[2 * d.cp + d.c + i] += dz;
      }
  test_vector_padding(out, 2 * k->batch, d.c);
  test_vector_padding(out + 2 * d.columns, 2, d.c);
  test_close("batch norm's sums", out, want, 2 * d.columns + 2 * cp + 2 * c, 2e-5); /* terms cancel */
  free(want);
  free(da_double);
  test_gradient_free(&parts);
  free_backward(&data);
}

static void backward(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof norm_cases / sizeof *norm_cases; i++) {
    test_dims d = test_dims_make(norm_cases[i].batch, norm_cases[i].channels, norm_cases[i].time);
    test_operation_sides(run_backward, check_backward, &norm_cases[i], 2 * d.columns + 2 * (size_t)(d.cp + d.c));
  }
}

/* ---- the chain: x, conv 1, norm 1, ReLU, mask, conv 2, norm 2, ReLU, mask, sum of r * that ---- */

enum { BATCH = 3, CHANNELS = 5, TIME = 11, KERNEL = 2, WEIGHTS = CHANNELS * CHANNELS * KERNEL };

typedef struct {
  double x[BATCH * 8 * 16], w[2][WEIGHTS], gamma[2][CHANNELS], beta[2][CHANNELS];
  double drop[2][BATCH * 8], r[BATCH * 8 * 16];
} chain;

static void conv_double(double *y, const double *a, const double *w, int64_t dilation, const test_dims *d) {
  for (int64_t b = 0; b < BATCH; b++)
    for (int64_t o = 0; o < CHANNELS; o++)
      for (int64_t t = 0; t < TIME; t++) {
        double sum = 0;
        for (int64_t i = 0; i < CHANNELS; i++)
          for (int64_t j = 0; j < KERNEL; j++) {
            int64_t from = t - (KERNEL - 1 - j) * dilation;
            if (from >= 0) sum += w[(o * CHANNELS + i) * KERNEL + j] * a[test_at(d, b, i, from)];
          }
        y[test_at(d, b, o, t)] = sum;
      }
}

static double chain_objective(const chain *k, const test_dims *d) {
  static double a[BATCH * 8 * 16], y[BATCH * 8 * 16];
  double sum = 0, n = BATCH * TIME;
  memcpy(a, k->x, sizeof a);
  for (int l = 0; l < 2; l++) {
    conv_double(y, a, k->w[l], 1 + l, d);
    for (int64_t c = 0; c < CHANNELS; c++) {
      double mean = 0, var = 0;
      for (int64_t b = 0; b < BATCH; b++)
        for (int64_t t = 0; t < TIME; t++) mean += y[test_at(d, b, c, t)] / n;
      for (int64_t b = 0; b < BATCH; b++)
        for (int64_t t = 0; t < TIME; t++) var += pow(y[test_at(d, b, c, t)] - mean, 2) / n;
      for (int64_t b = 0; b < BATCH; b++)
        for (int64_t t = 0; t < TIME; t++) {
          double z =
              (y[test_at(d, b, c, t)] - mean) / sqrt(var + (double)norm_of(0).eps) * k->gamma[l][c] + k->beta[l][c];
          a[test_at(d, b, c, t)] = fmax(z, 0) * k->drop[l][b * d->cp + c];
        }
    }
  }
  for (size_t i = 0; i < d->count; i++) sum += k->r[i] * a[i];
  return sum;
}

static float *put(test_buffers *all, const double *values, size_t count) {
  float *host = ser_alloc(count * sizeof *host);
  for (size_t i = 0; i < count; i++) host[i] = (float)values[i];
  float *device = test_in(all, host, count);
  free(host);
  return device;
}

static void fill(double *to, uint64_t seed, size_t count, double low, double high) {
  float *numbers = test_numbers(seed, count, low, high);
  for (size_t i = 0; i < count; i++) to[i] = (double)numbers[i];
  free(numbers);
}

static void make_chain(chain *k, const test_dims *d) {
  memset(k, 0, sizeof *k);
  float *x = test_tensor(41, d), *r = test_tensor(42, d);
  for (size_t i = 0; i < d->count; i++) {
    k->x[i] = (double)x[i];
    k->r[i] = (double)r[i];
  }
  for (uint64_t l = 0; l < 2; l++) {
    fill(k->w[l], 43 + l, WEIGHTS, -1, 1);
    fill(k->gamma[l], 45 + l, CHANNELS, 0.5, 1.5);
    fill(k->beta[l], 47 + l, CHANNELS, -0.3, 0.7);
    float *drop = test_drops(49 + l, d);
    for (size_t i = 0; i < d->columns; i++) k->drop[l][i] = (double)drop[i];
    free(drop);
  }
  free(x);
  free(r);
}

/* Both passes with the operations: out = dx, then for each layer dw, dgamma, dbeta. */
static void run_chain(test_buffers *all, const void *context, float *out) {
  const chain *k = context;
  const ser_ops *ops = all->device->ops;
  test_dims d = test_dims_make(BATCH, CHANNELS, TIME);
  size_t cp = (size_t)d.cp;
  ser_tensor_shape shape = {1, BATCH, CHANNELS, TIME};
  ser_batchnorm parameters = norm_of(CHANNELS);
  ser_activation x = {.x = put(all, k->x, d.count)}, read[2] = {x};
  ser_gradient norm[2] = {{0}};
  ser_plan *plans[2];
  float *w[2], *gradients[2][3], *sums = test_out(all, 2 * d.columns);
  ser_error err = {0};
  for (int l = 0; l < 2; l++) {
    ser_conv_shape conv = {1, BATCH, CHANNELS, CHANNELS, TIME, KERNEL, 1 + l, 0};
    ASSERT_OK(ops->conv_prepare(all->device, &plans[l], &conv, &err), err);
    float *y = test_out(all, d.count), *moments = test_out(all, 2 * d.columns), *v[4];
    for (int i = 0; i < 4; i++) v[i] = test_out(all, cp);
    double zeros[CHANNELS] = {0};
    float *running[2] = {put(all, zeros, CHANNELS), put(all, zeros, CHANNELS)};
    w[l] = put(all, k->w[l], WEIGHTS);
    ops->causal_conv_forward(all->stream, plans[l], test_workspace(all, plans[l]), y, moments, &read[l], w[l], NULL,
                             BATCH);
    ops->batchnorm_finish(all->stream, v[0], v[1], v[2], v[3], running[0], running[1], moments,
                          put(all, k->gamma[l], CHANNELS), put(all, k->beta[l], CHANNELS), &parameters, &shape);
    norm[l] = (ser_gradient){.y = {y, v[0], v[1], put(all, k->drop[l], d.columns)}, .mean = v[2], .inv_std = v[3]};
    if (l == 0) read[1] = norm[0].y;
    gradients[l][0] = test_out(all, WEIGHTS);
    gradients[l][1] = test_out(all, CHANNELS);
    gradients[l][2] = test_out(all, CHANNELS);
  }
  float *dx[2] = {test_out(all, d.count), test_out(all, d.count)};
  norm[1].da = put(all, k->r, d.count);
  norm[0].da = dx[1];
  ops->batchnorm_backward_sums(all->stream, sums, &norm[1], &shape);
  for (int l = 1; l >= 0; l--) {
    float *means = test_out(all, 2 * cp);
    ops->batchnorm_backward_finish(all->stream, means, gradients[l][1], gradients[l][2], sums, &parameters, &shape);
    norm[l].sums = means;
    ops->causal_conv_backward(all->stream, plans[l], test_workspace(all, plans[l]), dx[l], gradients[l][0], NULL,
                              l ? sums : NULL, &read[l], l ? &norm[0] : NULL, &norm[l], w[l], false, BATCH);
    ser_plan_free(plans[l]);
  }
  test_read(all, out, dx[0]);
  out += d.count;
  for (int l = 0; l < 2; l++, out += WEIGHTS + 2 * CHANNELS) {
    test_read(all, out, gradients[l][0]);
    test_read(all, out + WEIGHTS, gradients[l][1]);
    test_read(all, out + WEIGHTS + CHANNELS, gradients[l][2]);
  }
}

static void check_chain(const void *context, const float *out) {
  chain k = *(const chain *)context;
  test_dims d = test_dims_make(BATCH, CHANNELS, TIME);
  double *places[] = {k.x, k.w[0], k.gamma[0], k.beta[0], k.w[1], k.gamma[1], k.beta[1]};
  size_t counts[] = {d.count, WEIGHTS, CHANNELS, CHANNELS, WEIGHTS, CHANNELS, CHANNELS};
  const double step = 1e-6;
  for (int p = 0; p < 7; out += counts[p++])
    for (size_t i = 0; i < counts[p]; i++) {
      if (p == 0 && ((int64_t)i % d.tp >= TIME || (int64_t)i / d.tp % d.cp >= CHANNELS)) continue;
      double kept = places[p][i];
      places[p][i] = kept + step;
      double above = chain_objective(&k, &d);
      places[p][i] = kept - step;
      double slope = (above - chain_objective(&k, &d)) / (2 * step), got = (double)out[i];
      places[p][i] = kept;
      if (!(fabs(got - slope) <= 1e-5 * (1 + fabs(slope))))
        fail_msg("gradient %d[%zu] is %.8g, by central differences %.8g", p, i, got, slope);
    }
}

static void gradients_through_batch_statistics(void **state) {
  (void)state;
  chain k;
  test_dims d = test_dims_make(BATCH, CHANNELS, TIME);
  make_chain(&k, &d);
  test_operation(run_chain, check_chain, &k, d.count + 2 * (WEIGHTS + 2 * CHANNELS));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(finish),
      cmocka_unit_test(backward),
      cmocka_unit_test(gradients_through_batch_statistics),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
