/* Ragged batches of the speech encoder's rows, for the tests of its operations. */
#ifndef SER_TESTS_ROWS_H
#define SER_TESTS_ROWS_H

#include "support/temporal.h"

enum { TEST_CLIPS_MOST = 16 };

/* Clips of so many frames each; each has one row more, which is nobody's. */
typedef struct {
  int64_t clips, frames[TEST_CLIPS_MOST];
  int64_t start[TEST_CLIPS_MOST + 1]; /* rows */
} test_rows;
test_rows test_rows_make(int64_t clips, const int64_t *frames);
int64_t test_rows_count(const test_rows *rows);
ser_rows test_rows_in(test_buffers *all, const test_rows *rows);
bool test_row_counts(const test_rows *rows, int64_t row); /* is a frame of a clip */

/* [rows][channels]; the rows that are nobody's hold large numbers, which must not be seen. */
float *test_rows_numbers(uint64_t seed, const test_rows *rows, int64_t channels);

/* Runs an operation for a batch of all clips and for each clip alone, on every device, and holds each clip's rows to
 * the same bytes (or, where `most` is not 0, no further apart). run computes out [rows][channels] for the clips
 * [first, first + count) of the batch. */
typedef void (*test_rows_fn)(test_buffers *all, const void *context, const test_rows *rows, const float *x, float *out);
void test_clips_alone(test_rows_fn run, const void *context, const test_rows *rows, int64_t in_channels,
                      int64_t out_channels, double most);

#endif
