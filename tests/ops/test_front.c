/* front_wave, front_norm and front_forward against loops in double: both kinds of norm, samples as they come or
 * normalised, a constant far from zero, clips of one frame, long clips in several pieces, parts of the output; a clip's
 * bytes do not depend on its neighbours. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/rows.h"

typedef struct {
  int64_t channels, kernel, stride, hop;
  bool normalise, over_time, bias;
  float away; /* a constant beside the samples */
  const test_rows *rows;
} front_case;

/* Samples of a clip: all that its frames read and a few more. */
static int64_t samples_of(const front_case *k, int64_t frames) {
  return frames * k->hop + k->kernel + frames * 7 % (k->hop - k->kernel);
}

static float *make_pcm(const front_case *k, int64_t *start) {
  for (int64_t clip = 0; clip < k->rows->clips; clip++)
    start[clip + 1] = start[clip] + samples_of(k, k->rows->frames[clip]);
  float *pcm = test_numbers(1, (size_t)start[k->rows->clips], -0.3, 0.3);
  for (int64_t i = 0; i < start[k->rows->clips]; i++) pcm[i] = k->away + pcm[i] * (float)(i % 977) / 977;
  return pcm;
}

typedef struct {
  float *w, *bias, *gamma, *beta;
} front_weights;

static front_weights make_weights(const front_case *k) {
  size_t channels = (size_t)k->channels;
  return (front_weights){test_numbers(2, channels * (size_t)k->kernel, -1, 1), test_numbers(3, channels, -1, 1),
                         test_numbers(4, channels, 0.5, 1.5), test_numbers(5, channels, -1, 1)};
}

static void free_weights(front_weights *w) {
  free(w->w);
  free(w->bias);
  free(w->gamma);
  free(w->beta);
}

static int64_t per_row(const front_case *k) {
  return k->hop / k->stride;
}

/* The output of all rows, in two parts of which the first ends within a frame. */
static void forward(test_buffers *all, const front_case *k, const test_rows *rows, const float *pcm,
                    const int64_t *start, float *out) {
  const ser_ops *ops = all->device->ops;
  front_weights host = make_weights(k);
  int64_t total = test_rows_count(rows), channels = k->channels, part = (total * per_row(k)) / 2 + 1;
  ser_front_shape shape = {channels, k->kernel,       k->stride,
                           k->hop,   k->normalise,    k->over_time,
                           1e-5f,    rows->clips + 1, start[rows->clips] + 5};
  ser_plan *plan;
  ser_error err = {0};
  ASSERT_OK(ops->front_prepare(all->device, &plan, &shape, &err), err);
  ser_rows in = test_rows_in(all, rows);
  void *packed = test_out(all, plan->packed / sizeof(float)), *workspace = test_workspace(all, plan);
  float *w = test_in(all, host.w, (size_t)(channels * k->kernel)), *bias = test_in(all, host.bias, (size_t)channels);
  float *gamma = test_in(all, host.gamma, (size_t)channels), *beta = test_in(all, host.beta, (size_t)channels);
  float *wave = test_out(all, (size_t)(total * k->hop + k->kernel));
  double *moments = (double *)(void *)test_out(all, (size_t)(2 * rows->clips * SER_FRONT_MOMENTS(k->kernel)));
  float *norm = test_out(all, (size_t)(rows->clips * 2 * channels)),
        *pcm_in = test_in(all, pcm, (size_t)start[rows->clips]);
  const int64_t *start_in = test_put(all, start, (size_t)(rows->clips + 1) * sizeof *start);
  float *y = test_out(all, (size_t)(total * per_row(k) * channels));
  int64_t before = test_allocations(all->device);
  ops->front_pack(all->stream, plan, packed, w);
  ops->front_wave(all->stream, plan, workspace, wave, moments, pcm_in, start_in, &in);
  if (k->over_time) ops->front_norm(all->stream, plan, norm, moments, w, gamma, beta, rows->clips);
  for (int64_t first = 0; first < total * per_row(k); first += part) {
    int64_t count = total * per_row(k) - first < part ? total * per_row(k) - first : part;
    ops->front_forward(all->stream, plan, y + first * channels, wave, packed, k->bias ? bias : NULL,
                       k->over_time ? norm : NULL, gamma, beta, &in, first, count);
  }
  assert_int_equal(test_allocations(all->device), before);
  test_read(all, out, y);
  ser_plan_free(plan);
  free_weights(&host);
}

static void run(test_buffers *all, const void *context, float *out) {
  const front_case *k = context;
  int64_t start[TEST_CLIPS_MOST + 1] = {0};
  float *pcm = make_pcm(k, start);
  forward(all, k, k->rows, pcm, start, out);
  free(pcm);
}

static double *normalised(const front_case *k, const float *pcm, int64_t samples) {
  double *x = ser_alloc((size_t)samples * sizeof *x), mean = 0, var = 0;
  for (int64_t i = 0; i < samples; i++) mean += (double)pcm[i] / (double)samples;
  for (int64_t i = 0; i < samples; i++) var += pow((double)pcm[i] - mean, 2) / (double)samples;
  for (int64_t i = 0; i < samples; i++)
    x[i] = k->normalise ? ((double)pcm[i] - mean) / sqrt(var + 1e-7) : (double)pcm[i];
  return x;
}

/* y [windows][channels] of all of a clip's windows. */
static double *convolved(const front_case *k, const double *x, int64_t windows, const front_weights *w) {
  double *y = ser_alloc((size_t)(windows * k->channels) * sizeof *y);
  for (int64_t t = 0; t < windows; t++)
    for (int64_t c = 0; c < k->channels; c++) {
      double sum = k->bias ? (double)w->bias[c] : 0;
      for (int64_t j = 0; j < k->kernel; j++) sum += x[t * k->stride + j] * (double)w->w[c * k->kernel + j];
      y[t * k->channels + c] = sum;
    }
  return y;
}

static void norm_line(double *y, int64_t count, int64_t step, const front_weights *w, int64_t c, bool by_row) {
  double mean = 0, var = 0;
  for (int64_t i = 0; i < count; i++) mean += y[i * step] / (double)count;
  for (int64_t i = 0; i < count; i++) var += pow(y[i * step] - mean, 2) / (double)count;
  for (int64_t i = 0; i < count; i++) {
    int64_t channel = by_row ? i : c;
    double z = (y[i * step] - mean) / sqrt(var + 1e-5) * (double)w->gamma[channel] + (double)w->beta[channel];
    y[i * step] = z / 2 * (1 + erf(z * sqrt(0.5)));
  }
}

static void check(const void *context, const float *out) {
  const front_case *k = context;
  int64_t start[TEST_CLIPS_MOST + 1] = {0}, channels = k->channels;
  float *pcm = make_pcm(k, start);
  front_weights w = make_weights(k);
  for (int64_t clip = 0; clip < k->rows->clips; clip++) {
    int64_t samples = start[clip + 1] - start[clip], windows = (samples - k->kernel) / k->stride + 1;
    double *x = normalised(k, pcm + start[clip], samples), *y = convolved(k, x, windows, &w);
    for (int64_t c = 0; k->over_time && c < channels; c++) norm_line(y + c, windows, channels, &w, c, false);
    for (int64_t t = 0; !k->over_time && t < windows; t++) norm_line(y + t * channels, channels, 1, &w, 0, true);
    int64_t there = (k->rows->frames[clip] + 1) * per_row(k); /* rows behind the last window are nobody's */
    if (there > windows) there = windows;
    const float *got = out + k->rows->start[clip] * per_row(k) * channels;
    /* Without normalising, the constant stands in every sum. */
    test_close("the first convolution", got, y, (size_t)(there * channels),
               2e-5 * (double)(k->normalise || k->over_time ? 1 : 1 + 10 * k->away));
    free(x);
    free(y);
  }
  free(pcm);
  free_weights(&w);
}

static const int64_t lengths[] = {1, 9, 2, 40, 3}, few[] = {2, 1}, longer[] = {250, 1, 3};
static const int64_t many[] = {1, 1, 2, 31, 1, 32, 33, 5, 12, 13, 26, 1};

static void sizes(void **state) {
  (void)state;
  test_rows rows = test_rows_make(5, lengths), short_rows = test_rows_make(2, few),
            long_rows = test_rows_make(3, longer), many_rows = test_rows_make(12, many);
  const front_case cases[] = {
      {32, 10, 5, 320, true, true, false, 0, &rows},         {32, 10, 5, 320, false, true, false, 0, &rows},
      {32, 10, 5, 320, true, true, false, 3, &rows},         {40, 10, 5, 320, false, false, true, 0, &rows},
      {33, 16, 4, 64, true, false, false, 0, &rows},         {31, 3, 1, 20, true, true, false, 0, &rows},
      {512, 10, 5, 320, true, true, false, 0, &short_rows},  {512, 10, 5, 320, true, false, true, 0, &short_rows},
      {16, 10, 5, 320, true, true, false, 0.5f, &long_rows}, {8, 10, 5, 320, true, true, false, 0, &many_rows},
      {520, 10, 5, 320, true, false, true, 0, &short_rows},  {516, 12, 5, 320, false, true, false, 0, &short_rows},
      {12, 2, 2, 4, true, true, false, 0, &many_rows},       {5, 16, 5, 320, true, false, true, 0, &many_rows},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const front_case *k = &cases[i];
    test_operation(run, check, k, (size_t)(test_rows_count(k->rows) * per_row(k) * k->channels));
  }
}

static void one_device(ser_device *device, ser_stream *stream, void *context) {
  const front_case *k = context;
  test_buffers all = {.device = device, .stream = stream};
  int64_t start[TEST_CLIPS_MOST + 1] = {0}, each = per_row(k) * k->channels;
  float *pcm = make_pcm(k, start);
  size_t bytes = (size_t)(test_rows_count(k->rows) * each) * sizeof(float);
  float *together = ser_alloc(bytes), *alone = ser_alloc(bytes);
  forward(&all, k, k->rows, pcm, start, together);
  test_buffers_free(&all);
  for (int64_t clip = 0; clip < k->rows->clips; clip++) {
    test_rows one = test_rows_make(1, &k->rows->frames[clip]);
    int64_t own[2] = {0, start[clip + 1] - start[clip]};
    forward(&all, k, &one, pcm + start[clip], own, alone);
    test_buffers_free(&all);
    /* Frames read no more than this: what lies behind differs by what follows the clip. */
    int64_t there = one.frames[0] * each;
    test_same_alone(alone, together + k->rows->start[clip] * each, (size_t)there, 0);
  }
  free(pcm);
  free(together);
  free(alone);
}

static void a_clip_does_not_see_the_others(void **state) {
  (void)state;
  test_rows rows = test_rows_make(5, lengths), long_rows = test_rows_make(3, longer);
  test_rows many_rows = test_rows_make(12, many);
  front_case cases[] = {{32, 10, 5, 320, true, true, false, 0, &rows},
                        {32, 10, 5, 320, false, false, true, 0, &rows},
                        {16, 10, 5, 320, true, true, false, 0, &long_rows},
                        {9, 7, 3, 48, true, true, false, 1, &many_rows}};
  for (size_t i = 0; i < 4; i++) test_each_device(one_device, 2, &cases[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sizes),
      cmocka_unit_test(a_clip_does_not_see_the_others),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
