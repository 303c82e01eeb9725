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

static double median_of(double *values, int count) {
  qsort(values, (size_t)count, sizeof *values, compare_numbers);
  return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

static bool is_time(const char *unit) {
  return !strcmp(unit, "ms") || !strcmp(unit, "us");
}

static ser_device_counters counters_of(const bench *b) {
  ser_device_counters counters = {0};
  const ser_device *device = b->watched ? b->watched : b->device;
  if (b->on_device) device->rt->counters(device, &counters);
  return counters;
}

/* From the counters around the last run: they are the same for each, but where batches are made as clips come. */
static void sum_up_work(bench_work *work, const bench *b, ser_device_counters from, double device, double clock) {
  ser_device_counters to = counters_of(b);
  double batches = (double)b->ran.batches;
  *work = (bench_work){.batches = batches,
                       .seconds = device / batches,
                       .busy = device / clock,
                       .launches = (double)(to.launches - from.launches) / batches,
                       .calls = (double)(to.calls - from.calls) / batches,
                       .waits = (double)(to.waits - from.waits) / batches,
                       .allocations = (double)(to.allocations - from.allocations),
                       .written = (double)(to.written - from.written) / batches,
                       .read = (double)(to.read - from.read) / batches};
}

ser_status bench_measure(bench *b, bench_result **line, const char *name, const char *unit, double units,
                         bench_body body, void *context, ser_error *err) {
  SER_CHECK(b->count < BENCH_LINES);
  double *seconds = ser_alloc_zero(3 * (size_t)b->runs, sizeof *seconds), *device = seconds + b->runs;
  double *set_up = device + b->runs;
  ser_device_counters before = {0};
  ser_status status = SER_OK;
  b->device->rt->range_begin(b->device, name);
  for (int run = -1; run < b->runs && status == SER_OK; run++) {
    b->ran = (ser_device_work){0};
    b->set_up = 0;
    before = counters_of(b);
    double begin = ser_seconds();
    status = body(context, err);
    double took = ser_seconds() - begin - b->set_up;
    if (run >= 0) {
      seconds[run] = took;
      set_up[run] = b->set_up;
      device[run] = b->ran.seconds;
    }
    if (status == SER_OK) status = ser_interrupt_check(err);
  }
  b->device->rt->range_end(b->device);
  if (status == SER_OK) {
    double scale = !strcmp(unit, "ms") ? 1e3 : 1e6 / units, clock = 0;
    bench_result *result = &b->results[b->count++];
    memset(result, 0, sizeof *result);
    snprintf(result->name, sizeof result->name, "%s", name);
    snprintf(result->unit, sizeof result->unit, "%s", unit);
    if (b->on_device && b->ran.batches) {
      for (int run = 0; run < b->runs; run++) clock += seconds[run] / b->runs;
      sum_up_work(&result->work, b, before, median_of(device, b->runs), clock);
    }
    for (int run = 0; run < b->runs; run++) seconds[run] = is_time(unit) ? scale * seconds[run] : units / seconds[run];
    result->median = median_of(seconds, b->runs);
    result->min = seconds[0];
    result->max = seconds[b->runs - 1];
    result->runs = b->runs;
    result->set_up = median_of(set_up, b->runs);
    *line = result;
  }
  free(seconds);
  return status;
}

ser_status bench_find_amount(int64_t *amount, int64_t least, bench_body body, void *context, ser_error *err) {
  static const double LONG_ENOUGH = 0.01, BY_FAR = 1; /* seconds */
  double seconds = 0;
  *amount = least;
  for (int run = 0; seconds < LONG_ENOUGH && *amount < INT64_MAX / 4; run++) {
    double begin = ser_seconds(), took;
    SER_TRY(body(context, err));
    SER_TRY(ser_interrupt_check(err));
    took = ser_seconds() - begin;
    if (run || took >= BY_FAR) seconds = took;
    if (run && seconds < LONG_ENOUGH) *amount *= 2;
  }
  return SER_OK;
}

void bench_needs(const bench *b, bench_result *line, double operations, double bytes) {
  bench_work *work = &line->work;
  if (!work->batches) return;
  work->clips = (double)b->clips.count / work->batches;
  work->operations = operations / work->batches;
  work->bytes = bytes / work->batches;
}

void bench_bound(bench_result *line, double bound, const char *bound_is) {
  line->bound = bound;
  line->bound_is = bound_is;
  if (bound > 0) line->share = is_time(line->unit) ? bound / line->median : line->median / bound;
}

void bench_bound_operations(bench_result *line, double operations, const char *bound_is) {
  line->operations = operations;
  line->bound_is = bound_is;
}

/* On a device of its own by whichever of its limits is the nearest; a stage that the host may hold back keeps the bound
 * that it has where that is the nearer one. */
static void settle_on_device(const bench *b, bench_result *line) {
  static const struct {
    const char *limit, *words;
  } limits[] = {{"fma", "peak.fma over the operations counted"},
                {"memory", "peak.copy over the bytes that the operations read and write"},
                {"bus", "peak.to and peak.from over the bytes that cross the bus"},
                {"launches", "the time of a launch, for each kernel and library call"}};
  double least = bench_least_seconds(b, &line->work), bound = least > 0 ? line->work.clips / least : 0;
  if (bound <= 0 || is_time(line->unit) || (line->bound > 0 && line->bound < bound)) return;
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
    if (!strcmp(limits[i].limit, line->work.limit)) bench_bound(line, bound, limits[i].words);
}

void bench_settle(bench *b) {
  const bench_result *peak = bench_find(b, "peak.fma");
  for (size_t i = 0; i < b->count && peak; i++) {
    bench_result *line = &b->results[i];
    if (line->work.batches > 0)
      settle_on_device(b, line);
    else if (line->operations > 0)
      bench_bound(line, 1e9 * peak->max / line->operations, line->bound_is);
  }
}

const bench_result *bench_find(const bench *b, const char *name) {
  for (size_t i = 0; i < b->count; i++)
    if (!strcmp(b->results[i].name, name)) return &b->results[i];
  return NULL;
}
