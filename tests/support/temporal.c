/* What the tests of temporal operations share. */
#include "support/temporal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

test_dims test_dims_make(int64_t batch, int64_t channels, int64_t time) {
  test_dims d = {batch, channels, time, SER_ROUND_UP(channels, SER_CHANNEL_PAD), SER_ROUND_UP(time, SER_TIME_PAD),
                 0,     0};
  d.columns = (size_t)(batch * d.cp);
  d.count = d.columns * (size_t)d.tp;
  return d;
}

float *test_tensor(uint64_t seed, const test_dims *d) {
  float *x = ser_alloc_zero(d->count, sizeof *x);
  for (int64_t b = 0; b < d->b; b++)
    for (int64_t c = 0; c < d->c; c++)
      for (int64_t t = 0; t < d->t; t++)
        x[test_at(d, b, c, t)] = test_random(seed, (uint64_t)((b * d->c + c) * d->t + t));
  return x;
}

float *test_numbers(uint64_t seed, size_t count, double low, double high) {
  float *x = ser_alloc(count * sizeof *x);
  for (size_t i = 0; i < count; i++) x[i] = (float)(low + (high - low) * 0.5 * (1 + (double)test_random(seed, i)));
  return x;
}

float *test_vectors(uint64_t seed, int64_t rows, int64_t channels, double low, double high) {
  int64_t padded = SER_ROUND_UP(channels, SER_CHANNEL_PAD);
  float *x = test_numbers(seed, (size_t)(rows * padded), low, high);
  for (int64_t i = 0; i < rows * padded; i++)
    if (i % padded >= channels) x[i] = 0;
  return x;
}

float *test_parameters(uint64_t seed, size_t count, size_t stride, double low, double high) {
  float *x = test_numbers(seed, stride + count, low, high);
  for (size_t i = count; i < stride; i++) x[i] = NAN;
  return x;
}

float *test_drops(uint64_t seed, const test_dims *d) {
  float *x = ser_alloc_zero(d->columns, sizeof *x);
  for (int64_t b = 0; b < d->b; b++)
    for (int64_t c = 0; c < d->c; c++)
      x[b * d->cp + c] = test_random(seed, (uint64_t)(b * d->cp + c)) < -0.6f ? 0 : 1 / 0.9f;
  return x;
}

void test_padding(const float *x, const test_dims *d) {
  for (int64_t b = 0; b < d->b; b++)
    for (int64_t c = 0; c < d->cp; c++)
      for (int64_t t = 0; t < d->tp; t++)
        if ((c >= d->c || t >= d->t) && x[test_at(d, b, c, t)] != 0)
          fail_msg("padding of clip %lld, channel %lld, column %lld is %g", (long long)b, (long long)c, (long long)t,
                   (double)x[test_at(d, b, c, t)]);
}

void test_vector_padding(const float *x, int64_t rows, int64_t channels) {
  int64_t padded = SER_ROUND_UP(channels, SER_CHANNEL_PAD);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = channels; c < padded; c++)
      if (x[r * padded + c] != 0)
        fail_msg("padding of row %lld, channel %lld is %g", (long long)r, (long long)c, (double)x[r * padded + c]);
}

void test_close(const char *what, const float *got, const double *want, size_t count, double tolerance) {
  double difference = test_difference(got, want, count);
  if (!(difference <= tolerance)) fail_msg("%s differ by %g, more than %g", what, difference, tolerance);
}

double *test_activation(const ser_activation *host, int64_t side, const test_dims *d) {
  const float *x = host->x + (size_t)side * d->count,
              *drop = host->drop ? host->drop + (size_t)side * d->columns : NULL;
  const float *scale = host->scale ? host->scale + side * d->cp : NULL;
  const float *shift = scale ? host->shift + side * d->cp : NULL;
  double *a = ser_alloc_zero(d->count, sizeof *a);
  for (int64_t b = 0; b < d->b; b++)
    for (int64_t c = 0; c < d->c; c++)
      for (int64_t t = 0; t < d->t; t++) {
        int64_t at = test_at(d, b, c, t);
        double v = (double)x[at];
        if (scale) v = fmax(0, v * (double)scale[c] + (double)shift[c]);
        if (scale && drop) v *= (double)drop[b * d->cp + c];
        a[at] = v;
      }
  return a;
}

double *test_plain(const float *x, int64_t side, const test_dims *d) {
  return test_activation(&(ser_activation){.x = x}, side, d);
}

test_gradient test_gradient_make(const double *da, const ser_gradient *g, int64_t side, const test_dims *d) {
  const float *sums = g->sums ? g->sums + side * 2 * d->cp : NULL;
  test_gradient out = {ser_alloc_zero(d->count, sizeof(double)), ser_alloc_zero(d->count, sizeof(double)),
                       ser_alloc_zero(d->count, sizeof(double))};
  for (int64_t b = 0; b < d->b; b++)
    for (int64_t c = 0; c < d->c; c++)
      for (int64_t t = 0; t < d->t; t++) {
        int64_t at = test_at(d, b, c, t), row = (side * d->b + b) * d->cp + c, v = side * d->cp + c;
        out.dy[at] = out.dz[at] = da[at];
        if (!g->y.scale) continue;
        double y = (double)g->y.x[row * d->tp + t], scale = (double)g->y.scale[v];
        double drop = g->y.drop ? (double)g->y.drop[row] : 1;
        out.dz[at] = y * scale + (double)g->y.shift[v] > 0 ? da[at] * drop : 0;
        out.xhat[at] = (y - (double)g->mean[v]) * (double)g->inv_std[v];
        if (sums) out.dy[at] = scale * (out.dz[at] - (double)sums[c] - out.xhat[at] * (double)sums[d->cp + c]);
      }
  return out;
}

void test_gradient_free(test_gradient *gradient) {
  free(gradient->dz);
  free(gradient->xhat);
  free(gradient->dy);
}

static float *keep(test_buffers *all, test_buffer buffer) {
  assert_true(all->count < sizeof all->list / sizeof *all->list);
  all->list[all->count++] = buffer;
  return buffer.data;
}

float *test_in(test_buffers *all, const float *host, size_t count) {
  return host ? keep(all, test_buffer_from(all->device, all->stream, host, count)) : NULL;
}

float *test_out(test_buffers *all, size_t count) {
  return keep(all, test_buffer_make(all->device, all->stream, count));
}

void *test_put(test_buffers *all, const void *host, size_t bytes) {
  if (!host) return NULL;
  float *bits = ser_alloc_zero(bytes / 4 + 1, 4);
  memcpy(bits, host, bytes);
  float *data = test_in(all, bits, (bytes + 3) / 4);
  free(bits);
  return data;
}

ser_step *test_step(test_buffers *all, int64_t number, int64_t place) {
  ser_step step = {.number = number, .place = place, .rate = NAN, .correction = NAN};
  return test_put(all, &step, sizeof step);
}

void *test_workspace(test_buffers *all, const ser_plan *plan) {
  return plan->workspace ? test_out(all, (plan->workspace + 3) / 4) : NULL;
}

void test_read(test_buffers *all, float *host, const float *data) {
  for (size_t i = 0; i < all->count; i++)
    if (all->list[i].data == data) {
      test_buffer_read(&all->list[i], host);
      return;
    }
  fail_msg("no such buffer");
}

void test_buffers_free(test_buffers *all) {
  for (size_t i = 0; i < all->count; i++) test_buffer_free(&all->list[i]);
  all->count = 0;
}

int64_t test_allocations(ser_device *device) {
  ser_device_counters counters;
  device->rt->counters(device, &counters);
  return counters.allocations;
}

typedef struct {
  test_run_fn run;
  test_check_fn check;
  const void *context;
  size_t count;
} operation;

static void run_on(ser_device *device, ser_stream *stream, const operation *o, float *out) {
  for (size_t i = 0; i < o->count; i++) out[i] = NAN;
  test_buffers all = {.device = device, .stream = stream};
  o->run(&all, o->context, out);
  test_buffers_free(&all);
}

static void each_number_of_threads(ser_device *device, ser_stream *stream, void *context) {
  const operation *o = context;
  float *first = ser_alloc(o->count * sizeof *first), *out = ser_alloc(o->count * sizeof *out);
  run_on(device, stream, o, first);
  for (int threads = 2; threads <= (test_on_cuda() ? 2 : 3); threads++) {
    ser_device *other;
    ser_stream *other_stream;
    ser_error err = {0};
    ASSERT_OK(test_device_open(&other, threads, &err), err);
    ASSERT_OK(other->rt->stream_create(other, &other_stream, &err), err);
    run_on(other, other_stream, o, out);
    other->rt->stream_destroy(other_stream);
    ser_device_close(other);
    for (size_t i = 0; i < o->count; i++)
      if (memcmp(&out[i], &first[i], sizeof *out))
        fail_msg("output %zu of %zu is %.9g on one thread, %.9g on %d", i, o->count, (double)first[i], (double)out[i],
                 threads);
  }
  if (o->check) o->check(o->context, first);
  free(first);
  free(out);
}

void test_operation(test_run_fn run, test_check_fn check, const void *context, size_t count) {
  operation o = {run, check, context, count};
  test_each_device(each_number_of_threads, 1, &o);
}

/* ---- operations on sides ---- */

float *test_in_sides(test_buffers *all, const float *host, test_sides s, size_t count, size_t stride) {
  return host ? test_in(all, host + (size_t)s.first * stride, (size_t)(s.count - 1) * stride + count) : NULL;
}

float *test_in_clips(test_buffers *all, const float *host, const test_clips *clips, int64_t each) {
  if (!host) return NULL;
  size_t count = (size_t)(clips->count * each);
  float *picked = ser_alloc((size_t)clips->sides.count * count * sizeof *picked);
  for (int64_t s = 0; s < clips->sides.count; s++) {
    int64_t from = (clips->sides.first + s) * clips->whole + clips->first;
    memcpy(picked + (size_t)s * count, host + from * each, count * sizeof *picked);
  }
  float *data = test_in(all, picked, (size_t)clips->sides.count * count);
  free(picked);
  return data;
}

float *test_out_sides(test_buffers *all, test_sides s, size_t count, size_t stride) {
  return test_out(all, (size_t)(s.count - 1) * stride + count);
}

void test_read_sides(test_buffers *all, float *out, size_t out_stride, const float *data, test_sides s, size_t count,
                     size_t stride) {
  float *host = ser_alloc(((size_t)(s.count - 1) * stride + count) * sizeof *host);
  test_read(all, host, data);
  for (size_t i = count; i < stride && s.count > 1; i++)
    if (!isnan(host[i])) fail_msg("what lies between the sides was written to, %zu floats behind side 0", i - count);
  for (size_t i = 0; i < (size_t)s.count; i++) memcpy(out + i * out_stride, host + i * stride, count * sizeof *out);
  free(host);
}

typedef struct {
  test_sides_fn run;
  test_side_check_fn check;
  const void *context;
  size_t count;
} sided;

static void run_sides(test_buffers *all, const void *context, float *out) {
  const sided *o = context;
  float *alone = ser_alloc(o->count * sizeof *alone);
  bool on_cuda = test_on_cuda();
  o->run(all, o->context, (test_sides){0, 2}, out);
  for (int64_t side = 0; side < 2; side++) {
    const float *together = out + (size_t)side * o->count;
    test_buffers_free(all);
    for (size_t i = 0; i < o->count; i++) alone[i] = NAN;
    o->run(all, o->context, (test_sides){side, 1}, alone);
    if (on_cuda) o->check(o->context, side, alone);
    for (size_t i = 0; i < o->count && !on_cuda; i++)
      if (memcmp(&alone[i], &together[i], sizeof *alone))
        fail_msg("side %d's output %zu of %zu is %.9g alone, %.9g beside the other", (int)side, i, o->count,
                 (double)alone[i], (double)together[i]);
  }
  free(alone);
}

static void check_sides(const void *context, const float *out) {
  const sided *o = context;
  for (int64_t side = 0; side < 2; side++) o->check(o->context, side, out + (size_t)side * o->count);
}

void test_operation_sides(test_sides_fn run, test_side_check_fn check, const void *context, size_t count) {
  sided o = {run, check, context, count};
  test_operation(run_sides, check_sides, &o, 2 * count);
}
