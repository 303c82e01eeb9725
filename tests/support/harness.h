/* What tests share: buffers with guards at both ends and NaN inside, differences, temporary folders, skipping. */
#ifndef SER_TESTS_HARNESS_H
#define SER_TESTS_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "device/ops.h"

/* Fails the test with the error's text unless the call gave SER_OK. */
#define ASSERT_OK(call, err)                                                                                           \
  do {                                                                                                                 \
    if ((call) != SER_OK) fail_msg("%s: %s", #call, (err).text);                                                       \
  } while (0)

/* Device memory of `count` floats, all NaN, with a guard of 64 NaN-patterned floats on each side. */
typedef struct {
  ser_device *device;
  ser_stream *stream;
  void *base;
  float *data; /* on the device */
  size_t count;
} test_buffer;
test_buffer test_buffer_make(ser_device *device, ser_stream *stream, size_t count);
test_buffer test_buffer_from(ser_device *device, ser_stream *stream, const float *host, size_t count);
void test_buffer_read(const test_buffer *buffer, float *host); /* fails the test where a guard was touched */
void test_buffer_free(test_buffer *buffer);                    /* checks the guards too */

/* Whether the tests of operations run on the CUDA device: the environment says SERENADE_TEST_DEVICE=cuda. */
bool test_on_cuda(void);
/* That device, or the CPU's with so many threads and the instruction set that SERENADE_ISA names. */
ser_status test_device_open(ser_device **device, int threads, ser_error *err);

/* From now on test_each_device opens a CUDA device once with each form of convolution. */
void test_both_convs(void);

/* Runs the function for each instruction set of the CPU backend that this processor has, and prints the names of those
 * it lacks; or on the CUDA device, which must be there then. threads as for ser_device_open. */
void test_each_device(void (*body)(ser_device *device, ser_stream *stream, void *context), int threads, void *context);

/* What belongs to a clip alone and among others: the same bytes. Where convolutions are cuDNN's, which may sum
 * otherwise for another batch, within 1e-5, unless `exact`, and test_rows_exact. */
void test_same_clip(ser_device *device, const float *got, const float *want, size_t count, bool exact);
/* The same bytes, or, where `most` is not 0, no further apart than that, relative to what is above 1. */
void test_same_alone(const float *got, const float *want, size_t count, double most);

/* Sizes about the widths of a warp and of a vector, and a long one at last. */
enum { TEST_ODD_SIZES = 7 };
extern const int64_t test_odd_sizes[TEST_ODD_SIZES];

/* The environment says SERENADE_TEST_ROW_EXACT=1: the device's libraries sum a row of a product in one order. */
bool test_rows_exact(void);

/* Repeatable numbers in [-1, 1). */
float test_random(uint64_t seed, uint64_t index);

/* The largest |got - want| / max(1, |want|); NaN anywhere gives INFINITY. */
double test_difference(const float *got, const double *want, size_t count);

/* The larger of two errors; one that is NaN stays, where fmax would pass over it. */
double test_worse(double a, double b);

/* A fresh folder below the build's temporary folder, removed by test_folder_remove with all it holds. Free it. */
char *test_folder_make(const char *name);
void test_folder_remove(char *folder);

/* What is said on stderr from test_listen on goes to where test_heard finds it (freed by the caller) until the same is
 * called with `end`, which gives stderr back. */
void test_listen(void);
char *test_heard(bool end);

/* Writes a 16-bit PCM WAV of the samples (mono): for made corpora. */
void test_write_wav(const char *path, const float *samples, int64_t count, int rate);

/* A little speech-like clip: voiced harmonics under a formant envelope with noise, seeded; freed by the caller. */
float *test_speech(uint64_t seed, int64_t count, int rate);

const char *test_source(void);             /* the source tree */
const char *test_binary(void);             /* the program */
_Noreturn void test_skip(const char *why); /* prints "skipped: why" and exits with 77 */

/* The mark that another process of this machine and PID namespace gives to what it writes; the caller frees it. */
char *test_writer_mark(long pid);

#endif
