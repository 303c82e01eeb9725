#include "support/rows.h"

#include <stdlib.h>

#include "base/memory.h"

test_rows test_rows_make(int64_t clips, const int64_t *frames) {
  test_rows rows = {.clips = clips};
  assert_true(clips <= TEST_CLIPS_MOST);
  for (int64_t clip = 0; clip < clips; clip++) {
    rows.frames[clip] = frames[clip];
    rows.start[clip + 1] = rows.start[clip] + frames[clip] + 1;
  }
  return rows;
}

int64_t test_rows_count(const test_rows *rows) {
  return rows->start[rows->clips];
}

ser_rows test_rows_in(test_buffers *all, const test_rows *rows) {
  int64_t count = test_rows_count(rows);
  int32_t *clip_of_row = ser_alloc((size_t)count * sizeof *clip_of_row);
  for (int64_t clip = 0; clip < rows->clips; clip++)
    for (int64_t row = rows->start[clip]; row < rows->start[clip + 1]; row++) clip_of_row[row] = (int32_t)clip;
  ser_rows in = {.clips = rows->clips, .rows = count};
  in.row_start = test_put(all, rows->start, (size_t)(rows->clips + 1) * sizeof *rows->start);
  in.clip_of_row = test_put(all, clip_of_row, (size_t)count * sizeof *clip_of_row);
  free(clip_of_row);
  return in;
}

bool test_row_counts(const test_rows *rows, int64_t row) {
  for (int64_t clip = 0; clip < rows->clips; clip++)
    if (row == rows->start[clip + 1] - 1) return false;
  return true;
}

float *test_rows_numbers(uint64_t seed, const test_rows *rows, int64_t channels) {
  int64_t count = test_rows_count(rows);
  float *x = test_numbers(seed, (size_t)(count * channels), -1, 1);
  for (int64_t row = 0; row < count; row++)
    for (int64_t c = 0; c < channels && !test_row_counts(rows, row); c++) x[row * channels + c] = 1e9f;
  return x;
}

typedef struct {
  test_rows_fn run;
  const void *context;
  const test_rows *rows;
  int64_t in_channels, out_channels;
  double most;
} alone_context;

static void one_device(ser_device *device, ser_stream *stream, void *context) {
  const alone_context *c = context;
  test_buffers all = {.device = device, .stream = stream};
  int64_t count = test_rows_count(c->rows);
  float *x = test_rows_numbers(1, c->rows, c->in_channels);
  float *together = ser_alloc((size_t)(count * c->out_channels) * sizeof *together);
  float *alone = ser_alloc((size_t)(count * c->out_channels) * sizeof *alone);
  c->run(&all, c->context, c->rows, x, together);
  test_buffers_free(&all);
  for (int64_t clip = 0; clip < c->rows->clips; clip++) {
    test_rows one = test_rows_make(1, &c->rows->frames[clip]);
    int64_t first = c->rows->start[clip];
    c->run(&all, c->context, &one, x + first * c->in_channels, alone);
    test_buffers_free(&all);
    test_same_alone(alone, together + first * c->out_channels, (size_t)(one.frames[0] * c->out_channels), c->most);
  }
  free(x);
  free(together);
  free(alone);
}

void test_clips_alone(test_rows_fn run, const void *context, const test_rows *rows, int64_t in_channels,
                      int64_t out_channels, double most) {
  alone_context c = {run, context, rows, in_channels, out_channels, most};
  test_each_device(one_device, 2, &c);
}
