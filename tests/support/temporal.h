/* What the tests of temporal operations share: padded tensors, the reading of activations and gradients in double, and
 * runs of one operation on every instruction set and number of threads. */
#ifndef SER_TESTS_TEMPORAL_H
#define SER_TESTS_TEMPORAL_H

#include "support/harness.h"

typedef struct {
  int64_t b, c, t, cp, tp;
  size_t count;   /* b * cp * tp */
  size_t columns; /* b * cp */
} test_dims;
test_dims test_dims_make(int64_t batch, int64_t channels, int64_t time);
static inline int64_t test_at(const test_dims *d, int64_t b, int64_t c, int64_t t) {
  return (b * d->cp + c) * d->tp + t;
}

/* Tensors of both sides are those of twice as many clips. */
float *test_tensor(uint64_t seed, const test_dims *d); /* in [-1, 1), zero padding; free it */
float *test_vectors(uint64_t seed, int64_t rows, int64_t channels, double low, double high); /* [rows][Cp], the same */
float *test_numbers(uint64_t seed, size_t count, double low, double high);                   /* no padding; free it */
float *test_drops(uint64_t seed, const test_dims *d);                     /* [B][Cp] of 0 and 1 / 0.9; free it */
void test_padding(const float *x, const test_dims *d);                    /* fails where padding is not zero */
void test_vector_padding(const float *x, int64_t rows, int64_t channels); /* the same of [rows][Cp] */
void test_close(const char *what, const float *got, const double *want, size_t count, double tolerance);

/* One side of an activation on the host, of d's batch: [B][Cp][Tp], zero padding; free it. */
double *test_activation(const ser_activation *host, int64_t side, const test_dims *d);
double *test_plain(const float *x, int64_t side, const test_dims *d); /* x as it is */

/* Of batch norm's backward, by the words of ser_gradient: dz, xhat, dy (each [B][Cp][Tp], zero padding) of a side, from
 * that side's da in double; host->da is not read. */
typedef struct {
  double *dz, *xhat, *dy;
} test_gradient;
test_gradient test_gradient_make(const double *da, const ser_gradient *host, int64_t side, const test_dims *d);
void test_gradient_free(test_gradient *gradient);

/* Parameters of both sides, `stride` apart, NaN between them; free it. */
float *test_parameters(uint64_t seed, size_t count, size_t stride, double low, double high);

/* Buffers of one run, freed together; each free checks the guards. */
typedef struct {
  ser_device *device;
  ser_stream *stream;
  test_buffer list[96];
  size_t count;
} test_buffers;
float *test_in(test_buffers *all, const float *host, size_t count); /* NULL gives NULL */
float *test_out(test_buffers *all, size_t count);                   /* NaN */
void *test_put(test_buffers *all, const void *host, size_t bytes);  /* of any type; NULL gives NULL */
ser_step *test_step(test_buffers *all, int64_t number, int64_t place);
void *test_workspace(test_buffers *all, const ser_plan *plan);     /* NaN; NULL where none is needed */
void test_read(test_buffers *all, float *host, const float *data); /* of one made by test_in or test_out */
void test_buffers_free(test_buffers *all);

/* Allocations of the device so far: the same before and after a run. */
int64_t test_allocations(ser_device *device);

/* Calls run on every instruction set with 1, 2 and 3 threads; it writes `count` floats of outputs. Fails where the
 * bytes depend on the number of threads; then check looks at them. */
typedef void (*test_run_fn)(test_buffers *all, const void *context, float *out);
typedef void (*test_check_fn)(const void *context, const float *out);
void test_operation(test_run_fn run, test_check_fn check, const void *context, size_t count);

/* ---- operations on sides ---- */

/* The sides of a run: both, or one alone, which then is the device's side 0. */
typedef struct {
  int64_t first, count;
} test_sides;

/* Host arrays hold both sides; these upload those of the run. */
float *test_in_sides(test_buffers *all, const float *host, test_sides s, size_t count, size_t stride);
/* Of [2][whole] clips of `each` floats, clips [first, first + count) of the run's sides. */
typedef struct {
  test_sides sides;
  int64_t whole, first, count;
} test_clips;
float *test_in_clips(test_buffers *all, const float *host, const test_clips *clips, int64_t each);
/* An output of so many floats a side, `stride` apart, and its sides put to out, out + out_stride; what lies between
 * must be NaN still. */
float *test_out_sides(test_buffers *all, test_sides s, size_t count, size_t stride);
void test_read_sides(test_buffers *all, float *out, size_t out_stride, const float *data, test_sides s, size_t count,
                     size_t stride);

/* As test_operation, for an operation on sides: run writes `count` floats of outputs a side, check looks at those of
 * one. Both sides together must give the bytes of each alone; on a GPU, where the number of sides may choose the order
 * of a sum, check looks at the sides alone too. */
typedef void (*test_sides_fn)(test_buffers *all, const void *context, test_sides s, float *out);
typedef void (*test_side_check_fn)(const void *context, int64_t side, const float *out);
void test_operation_sides(test_sides_fn run, test_side_check_fn check, const void *context, size_t count);

#endif
