/* branch_infer against the folded branch in double: every join, pooled once or after every block, over all columns or
 * real frames, odd sizes; a clip's bytes depend on neither the batch nor its neighbours nor the threads. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/temporal.h"

typedef struct {
  ser_branch_shape shape;
  bool real;
  int64_t first, count; /* the clips that are run: all where count is 0 */
} branch_case;

static int64_t side_weights(const ser_branch_shape *s) {
  return s->channels * (s->channels_in + 1) + 2 * s->blocks * s->channels * (s->channels * s->kernel + 1);
}

/* Weights of about unit gain, so that eight blocks neither fade nor burst. */
static float *make_weights(const ser_branch_shape *s) {
  size_t n = (size_t)(2 * side_weights(s));
  double gain = 2.4 / sqrt((double)(s->channels * s->kernel));
  return test_numbers(1, n, -gain, gain);
}

static int64_t length_of(const branch_case *k, int64_t b) {
  int64_t list[] = {k->shape.time, 1, k->shape.time + 5, 0, (k->shape.time + 1) / 2};
  int64_t length = k->real ? list[b % 5] : k->shape.time;
  return length < k->shape.time ? length : k->shape.time;
}

static size_t outputs(const branch_case *k) {
  int64_t batch = k->count ? k->count : k->shape.batch, scales = k->shape.every_scale ? k->shape.blocks : 1;
  return (size_t)scales * test_dims_make(batch, k->shape.channels, 1).columns;
}

static void run(test_buffers *all, const void *context, float *out) {
  const branch_case *k = context;
  const ser_branch_shape *s = &k->shape;
  const ser_ops *ops = all->device->ops;
  int64_t batch = k->count ? k->count : s->batch;
  test_dims whole = test_dims_make(s->batch, s->channels_in, s->time),
            d = test_dims_make(batch, s->channels_in, s->time);
  float *tile = test_tensor(2, &whole), *weights = make_weights(s);
  int64_t lengths[64];
  for (int64_t b = 0; b < batch; b++)
    lengths[b] = k->real ? (k->first + b) % 5 == 2 ? s->time + 5 : length_of(k, k->first + b) : 0;
  ser_plan *plan;
  ser_error err = {0};
  ASSERT_OK(ops->branch_prepare(all->device, &plan, s, &err), err);
  float *tile_in = test_in(all, tile + k->first * d.cp * d.tp, d.count);
  float *w = test_in(all, weights, (size_t)(2 * side_weights(s)));
  const int64_t *lengths_in = test_put(all, k->real ? lengths : NULL, (size_t)batch * sizeof *lengths);
  float *pooled = test_out(all, outputs(k));
  void *workspace = test_workspace(all, plan);
  int64_t before = test_allocations(all->device);
  ops->branch_infer(all->stream, plan, workspace, pooled, tile_in, w, lengths_in, batch);
  assert_int_equal(test_allocations(all->device), before);
  test_read(all, out, pooled);
  ser_plan_free(plan);
  free(tile);
  free(weights);
}

/* y [C][T] = the convolution of a [in][T] with weights at w (w [C][in][K], bias [C]); returns where the next lie. */
static const float *convolve(double *y, const double *a, const float *w, const ser_branch_shape *s, int64_t in,
                             int64_t taps, int64_t dilation, bool relu) {
  const float *bias = w + s->channels * in * taps;
  for (int64_t o = 0; o < s->channels; o++)
    for (int64_t t = 0; t < s->time; t++) {
      double sum = (double)bias[o];
      for (int64_t i = 0; i < in; i++)
        for (int64_t j = 0; j < taps; j++) {
          int64_t from = t - (taps - 1 - j) * dilation;
          if (from >= 0) sum += (double)w[(o * in + i) * taps + j] * a[i * s->time + from];
        }
      y[o * s->time + t] = relu ? fmax(sum, 0) : sum;
    }
  return bias + s->channels;
}

static void check_side(double *want, const branch_case *k, const float *tile, const float *w, int64_t b, bool side) {
  const ser_branch_shape *s = &k->shape;
  test_dims d = test_dims_make(s->batch, s->channels_in, s->time), pooled = test_dims_make(s->batch, s->channels, 1);
  size_t most = (size_t)((s->channels + s->channels_in) * s->time);
  double *x = ser_alloc_zero(most, sizeof *x), *h = ser_alloc_zero(most, sizeof *h);
  double *a = ser_alloc_zero(most, sizeof *a);
  for (int64_t c = 0; c < s->channels_in; c++)
    for (int64_t t = 0; t < s->time; t++)
      h[c * s->time + t] = (double)tile[test_at(&d, b, c, side ? s->time - 1 - t : t)];
  w = convolve(x, h, w, s, s->channels_in, 1, 1, false);
  for (int64_t block = 0; block < s->blocks; block++) {
    w = convolve(h, x, w, s, s->channels, s->kernel, (int64_t)1 << block, true);
    w = convolve(a, h, w, s, s->channels, s->kernel, (int64_t)1 << block, true);
    for (int64_t i = 0; i < s->channels * s->time; i++)
      x[i] = s->join == 0 ? a[i] : s->join == 1 + SER_JOIN_GATE ? x[i] / (1 + exp(-a[i])) : x[i] + a[i];
    if (!s->every_scale && block + 1 < s->blocks) continue;
    int64_t length = length_of(k, b), first = side ? s->time - length : 0, scale = s->every_scale ? block : 0;
    for (int64_t c = 0; c < s->channels; c++)
      for (int64_t t = first; t < first + length; t++)
        want[(scale * s->batch + b) * pooled.cp + c] += x[c * s->time + t] / (double)length;
  }
  free(x);
  free(h);
  free(a);
}

static void check(const void *context, const float *out) {
  const branch_case *k = context;
  const ser_branch_shape *s = &k->shape;
  test_dims d = test_dims_make(s->batch, s->channels_in, s->time);
  float *tile = test_tensor(2, &d), *weights = make_weights(s);
  double *want = ser_alloc_zero(outputs(k), sizeof *want), largest = 0;
  for (int64_t b = 0; b < s->batch; b++)
    for (int side = 0; side < 2; side++) check_side(want, k, tile, weights + side * side_weights(s), b, side);
  for (size_t i = 0; i < outputs(k); i++) largest = fmax(largest, fabs(want[i]));
  assert_true(largest > 1e-3 && largest < 1e3);
  int64_t scales = s->every_scale ? s->blocks : 1;
  test_vector_padding(out, scales * s->batch, s->channels);
  test_close("pooled vectors", out, want, outputs(k), 1e-5);
  free(want);
  free(tile);
  free(weights);
}

static void shapes(void **state) {
  (void)state;
  static const int64_t times[] = {1, 7, 16, 17, 162, 163, 90}, channels[] = {1, 5, 39, 40, 41, 39, 20};
  for (int i = 0; i < 7; i++)
    for (int variant = 0; variant < 4; variant++) {
      int join = variant % 3;
      branch_case k = {.shape = {i == 4 ? 3 : 5, channels[(i + variant) % 7], channels[i], times[i],
                                 i == 4 ? 8 : 1 + variant, 1 + (i + variant) % 3, join, variant % 2 == 1},
                       .real = variant > 1};
      test_operation(run, check, &k, outputs(&k));
    }
  for (int i = 0; i < TEST_ODD_SIZES; i++) {
    const int64_t *odd = test_odd_sizes, in = odd[TEST_ODD_SIZES - 1 - i], out = odd[i];
    branch_case k = {
        .shape = {1, in < 1000 ? in : 39, out < 1000 ? out : 39, out, 3, 2, 1 + SER_JOIN_RESIDUAL, i % 2 == 0},
        .real = i % 2 == 1};
    test_operation(run, check, &k, outputs(&k));
  }
  branch_case longer = {.shape = {2, 39, 39, 500, 10, 2, 1 + SER_JOIN_GATE, true}};
  test_operation(run, check, &longer, outputs(&longer));
  branch_case large = {.shape = {3, 70, 104, 600, 2, 3, 0, false}, .real = true}; /* too large for one block of a GPU */
  for (large.shape.join = 0; large.shape.join < 3; large.shape.join++) {
    large.shape.every_scale = large.shape.join == 1;
    test_operation(run, check, &large, outputs(&large));
  }
}

static void one_device(ser_device *device, ser_stream *stream, void *context) {
  branch_case k = *(const branch_case *)context, one = k;
  one.count = 1;
  size_t alone = outputs(&one), cp = (size_t)SER_ROUND_UP(k.shape.channels, SER_CHANNEL_PAD);
  bool whole = k.shape.time < 200; /* else it is done by convolutions, which may be cuDNN's */
  float *together = ser_alloc(outputs(&k) * sizeof *together), *single = ser_alloc(alone * sizeof *single);
  test_buffers all = {.device = device, .stream = stream};
  run(&all, &k, together);
  test_buffers_free(&all);
  for (one.first = 0; one.first < k.shape.batch; one.first++) {
    run(&all, &one, single);
    test_buffers_free(&all);
    for (size_t s = 0; s < alone / cp; s++)
      test_same_clip(device, single + s * cp, together + (s * (size_t)k.shape.batch + (size_t)one.first) * cp, cp,
                     whole);
  }
  free(together);
  free(single);
}

static void a_clip_does_not_see_its_neighbours(void **state) {
  (void)state;
  branch_case k = {.shape = {7, 39, 39, 162, 8, 2, 1 + SER_JOIN_RESIDUAL, true}, .real = true};
  test_each_device(one_device, 2, &k);
  branch_case large = {.shape = {4, 70, 104, 600, 2, 3, 1 + SER_JOIN_GATE, true}, .real = true};
  test_each_device(one_device, 2, &large);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(shapes),
      cmocka_unit_test(a_clip_does_not_see_its_neighbours),
  };
  test_both_convs();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
