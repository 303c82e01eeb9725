/* Repeating, timing, summing up. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/interrupt.h"
#include "cli/bench.h"

static int compare_numbers(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

ser_status bench_measure(bench *b, bench_result **line, const char *name, const char *unit, double units,
                         bench_body body, void *context, ser_error *err) {
  SER_CHECK(b->count < BENCH_LINES);
  bool is_time = !strcmp(unit, "ms");
  double *values = ser_alloc_zero((size_t)b->runs, sizeof *values);
  ser_status status = SER_OK;
  for (int run = -1; run < b->runs && status == SER_OK; run++) {
    double begin = ser_seconds();
    status = body(context, err);
    double seconds = ser_seconds() - begin;
    if (run >= 0) values[run] = is_time ? 1e3 * seconds : units / seconds;
    if (status == SER_OK) status = ser_interrupt_check(err);
  }
  if (status == SER_OK) {
    qsort(values, (size_t)b->runs, sizeof *values, compare_numbers);
    bench_result *result = &b->results[b->count++];
    memset(result, 0, sizeof *result);
    snprintf(result->name, sizeof result->name, "%s", name);
    snprintf(result->unit, sizeof result->unit, "%s", unit);
    result->min = values[0];
    result->max = values[b->runs - 1];
    result->median = (values[(b->runs - 1) / 2] + values[b->runs / 2]) / 2;
    result->runs = b->runs;
    *line = result;
  }
  free(values);
  return status;
}

void bench_bound(bench_result *line, double bound, const char *bound_is) {
  line->bound = bound;
  line->bound_is = bound_is;
  if (bound > 0) line->share = strcmp(line->unit, "ms") ? line->median / bound : bound / line->median;
}

void bench_bound_operations(bench_result *line, double operations, const char *bound_is) {
  line->operations = operations;
  line->bound_is = bound_is;
}

void bench_settle(bench *b) {
  const bench_result *peak = bench_find(b, "peak.fma");
  for (size_t i = 0; i < b->count && peak; i++) {
    bench_result *line = &b->results[i];
    if (line->operations > 0) bench_bound(line, 1e9 * peak->max / line->operations, line->bound_is);
  }
}

const bench_result *bench_find(const bench *b, const char *name) {
  for (size_t i = 0; i < b->count; i++)
    if (!strcmp(b->results[i].name, name)) return &b->results[i];
  return NULL;
}
