/* attention_forward against loops in double: clips of unlike lengths, one frame, several tiles of keys and blocks of
 * queries, heads of several widths; scores far from zero; a clip's bytes do not depend on its neighbours. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/rows.h"

typedef struct {
  int64_t heads, width;
  float spread; /* of queries and keys */
  const test_rows *rows;
} attention_case;

static void forward(test_buffers *all, const void *context, const test_rows *rows, const float *qkv, float *out) {
  const attention_case *k = context;
  int64_t channels = k->heads * k->width, count = test_rows_count(rows);
  ser_attention_shape shape = {k->heads, k->width, count + 1};
  ser_plan *plan;
  ser_error err = {0};
  ASSERT_OK(all->device->ops->attention_prepare(all->device, &plan, &shape, &err), err);
  ser_rows in = test_rows_in(all, rows);
  float *y = test_out(all, (size_t)(count * channels)), *qkv_in = test_in(all, qkv, (size_t)(count * 3 * channels));
  void *workspace = test_workspace(all, plan);
  int64_t before = test_allocations(all->device);
  all->device->ops->attention_forward(all->stream, plan, workspace, y, qkv_in, &in);
  assert_int_equal(test_allocations(all->device), before);
  test_read(all, out, y);
  ser_plan_free(plan);
}

static float *make_qkv(const attention_case *k, const test_rows *rows) {
  int64_t channels = k->heads * k->width;
  float *qkv = test_rows_numbers(1, rows, 3 * channels);
  for (int64_t row = 0; row < test_rows_count(rows); row++)
    for (int64_t c = 0; c < 2 * channels; c++) qkv[row * 3 * channels + c] *= k->spread;
  return qkv;
}

/* One query of one head. */
static void attend(double *out, const float *q, const float *keys, int64_t stride, int64_t frames, int64_t width,
                   int64_t channels) {
  double *weight = ser_alloc((size_t)frames * sizeof *weight), most = -INFINITY, total = 0;
  for (int64_t j = 0; j < frames; j++) {
    double score = 0;
    for (int64_t i = 0; i < width; i++) score += (double)q[i] * (double)keys[j * stride + i];
    weight[j] = score / sqrt((double)width);
    most = fmax(most, weight[j]);
  }
  for (int64_t j = 0; j < frames; j++) total += weight[j] = exp(weight[j] - most);
  for (int64_t i = 0; i < width; i++) out[i] = 0;
  for (int64_t j = 0; j < frames; j++)
    for (int64_t i = 0; i < width; i++) out[i] += weight[j] / total * (double)keys[j * stride + channels + i];
  free(weight);
}

static void run(test_buffers *all, const void *context, float *out) {
  const attention_case *k = context;
  float *qkv = make_qkv(k, k->rows);
  forward(all, k, k->rows, qkv, out);
  free(qkv);
}

static void check(const void *context, const float *out) {
  const attention_case *k = context;
  int64_t channels = k->heads * k->width, stride = 3 * channels, count = test_rows_count(k->rows);
  float *qkv = make_qkv(k, k->rows);
  double *want = ser_alloc_zero((size_t)(count * channels), sizeof *want); /* nobody's rows are zero */
  for (int64_t clip = 0; clip < k->rows->clips; clip++)
    for (int64_t t = 0; t < k->rows->frames[clip]; t++)
      for (int64_t head = 0; head < k->heads; head++) {
        const float *first = qkv + k->rows->start[clip] * stride + head * k->width;
        attend(want + (k->rows->start[clip] + t) * channels + head * k->width, first + t * stride, first + channels,
               stride, k->rows->frames[clip], k->width, channels);
      }
  /* A score's rounding is a weight's relative error. */
  test_close("attention", out, want, (size_t)(count * channels), 4e-6 * (double)fmaxf(1, k->spread * k->spread));
  free(qkv);
  free(want);
}

static const int64_t lengths[] = {1, 33, 2, 200, 31, 7}, several[] = {400, 1, 191, 193};
static const int64_t whole[] = {64, 63, 128, 32, 65}; /* about whole tiles */

static void sizes(void **state) {
  (void)state;
  test_rows rows = test_rows_make(6, lengths), longer = test_rows_make(4, several);
  test_rows tiles = test_rows_make(5, whole), one = test_rows_make(1, lengths);
  const attention_case cases[] = {
      {12, 64, 1, &rows}, {2, 64, 6, &rows},  {1, 8, 3, &longer}, {2, 24, 1, &longer}, {1, 128, 1, &rows},
      {3, 40, 2, &rows},  {2, 64, 1, &tiles}, {1, 72, 1, &tiles}, {3, 64, 1, &one},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    test_operation(run, check, &cases[i], (size_t)(test_rows_count(cases[i].rows) * cases[i].heads * cases[i].width));
}

static void a_clip_does_not_see_the_others(void **state) {
  (void)state;
  test_rows rows = test_rows_make(6, lengths), longer = test_rows_make(4, several);
  test_rows tiles = test_rows_make(5, whole);
  const attention_case cases[] = {{4, 64, 2, &rows}, {2, 16, 2, &longer}, {1, 96, 2, &tiles}};
  for (size_t i = 0; i < 3; i++) {
    int64_t channels = cases[i].heads * cases[i].width;
    test_clips_alone(forward, &cases[i], cases[i].rows, 3 * channels, channels, 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sizes),
      cmocka_unit_test(a_clip_does_not_see_the_others),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
