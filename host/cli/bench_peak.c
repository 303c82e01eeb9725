/* The limits of the machine and of its device: multiply-adds, copies, the bus, launches. How much one run does is fixed
 * on a processor; on a device it is doubled until a run takes long beside the waiting for it. */
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"

enum { FMA_ROUNDS = 4000000, GRAPH_LAUNCHES = 256 };
static const size_t copy_bytes = (size_t)256 << 20, bus_bytes = (size_t)64 << 20; /* beyond any cache */

typedef struct {
  bench *b;
  void *to, *from; /* on the device, or one of them pinned */
  size_t room;     /* bytes of each */
  int64_t amount;  /* of a run: rounds, bytes, launches */
  ser_graph *graph;
} peak_context;

static ser_status run_fma(void *context, ser_error *err) {
  peak_context *peak = context;
  const ser_runtime *rt = peak->b->device->rt;
  rt->peak_fma(peak->b->stream, peak->amount);
  return rt->sync(peak->b->stream, err);
}

static size_t part_of(const peak_context *peak, int64_t done) {
  int64_t left = peak->amount - done;
  return left < (int64_t)peak->room ? (size_t)left : peak->room;
}

static ser_status run_copy(void *context, ser_error *err) {
  peak_context *peak = context;
  const ser_runtime *rt = peak->b->device->rt;
  for (int64_t done = 0; done < peak->amount; done += (int64_t)peak->room)
    rt->peak_copy(peak->b->stream, peak->to, peak->from, part_of(peak, done));
  return rt->sync(peak->b->stream, err);
}

static ser_status run_to(void *context, ser_error *err) {
  peak_context *peak = context;
  const ser_runtime *rt = peak->b->device->rt;
  for (int64_t done = 0; done < peak->amount; done += (int64_t)peak->room)
    rt->write_later(peak->b->stream, peak->to, peak->from, part_of(peak, done));
  return rt->sync(peak->b->stream, err);
}

static ser_status run_from(void *context, ser_error *err) {
  peak_context *peak = context;
  const ser_runtime *rt = peak->b->device->rt;
  for (int64_t done = 0; done < peak->amount; done += (int64_t)peak->room)
    rt->read_later(peak->b->stream, peak->from, peak->to, part_of(peak, done));
  return rt->sync(peak->b->stream, err);
}

static ser_status run_launches(void *context, ser_error *err) {
  peak_context *peak = context;
  const ser_runtime *rt = peak->b->device->rt;
  for (int64_t i = 0; i < peak->amount; i++) rt->peak_fma(peak->b->stream, 0);
  return rt->sync(peak->b->stream, err);
}

static ser_status run_graphs(void *context, ser_error *err) {
  peak_context *peak = context;
  const ser_runtime *rt = peak->b->device->rt;
  for (int64_t i = 0; i < peak->amount; i += GRAPH_LAUNCHES) rt->graph_launch(peak->b->stream, peak->graph);
  return rt->sync(peak->b->stream, err);
}

/* ---- the device's own -------------------------------------------------------------------------------------------- */

static ser_status measure_fma(bench *b, ser_error *err) {
  peak_context peak = {.b = b, .amount = b->fma_rounds ? b->fma_rounds : FMA_ROUNDS};
  bench_result *line;
  if (b->on_device && !b->fma_rounds) SER_TRY(bench_find_amount(&peak.amount, 16, run_fma, &peak, err));
  b->fma_rounds = peak.amount;
  double flops = (double)b->device->rt->peak_fma(b->stream, peak.amount);
  return bench_measure(b, &line, "peak.fma", "GFLOP/s", 1e-9 * flops, run_fma, &peak, err);
}

ser_status bench_peak_again(bench *b, ser_error *err) {
  size_t first = 0;
  while (first < b->count && strcmp(b->results[first].name, "peak.fma")) first++;
  if (first == b->count) return SER_OK;
  SER_TRY(measure_fma(b, err));
  const bench_result *again = &b->results[--b->count];
  if (again->max > b->results[first].max) b->results[first] = *again;
  return SER_OK;
}

/* At most an eighth of what is free for each buffer. */
static size_t room_of(const bench *b) {
  ser_device_properties is;
  b->device->rt->properties(b->device, &is);
  return !b->on_device || is.memory_free / 8 > copy_bytes ? copy_bytes : SER_ROUND_UP(is.memory_free / 8, 256);
}

ser_status bench_peak(bench *b, ser_error *err) {
  const ser_runtime *rt = b->device->rt;
  peak_context peak = {.b = b, .room = room_of(b), .amount = (int64_t)copy_bytes};
  bench_result *line;
  ser_status status;
  SER_TRY(measure_fma(b, err));
  SER_TRY_DONE(ser_device_alloc(&peak.to, b->device, peak.room, err));
  SER_TRY_DONE(ser_device_alloc(&peak.from, b->device, peak.room, err));
  rt->zero(b->stream, peak.from, peak.room);
  if (b->on_device) SER_TRY_DONE(bench_find_amount(&peak.amount, 1 << 16, run_copy, &peak, err));
  status = bench_measure(b, &line, "peak.copy", "GB/s", 2e-9 * (double)peak.amount, run_copy, &peak, err);
done:
  rt->free(b->device, peak.to);
  rt->free(b->device, peak.from);
  return status;
}

/* ---- the bus, and launches --------------------------------------------------------------------------------------- */

static ser_status measure_bus(peak_context *peak, ser_error *err) {
  bench_result *line;
  SER_TRY(bench_find_amount(&peak->amount, 1 << 16, run_to, peak, err));
  SER_TRY(bench_measure(peak->b, &line, "peak.to", "GB/s", 1e-9 * (double)peak->amount, run_to, peak, err));
  SER_TRY(bench_find_amount(&peak->amount, 1 << 16, run_from, peak, err));
  return bench_measure(peak->b, &line, "peak.from", "GB/s", 1e-9 * (double)peak->amount, run_from, peak, err);
}

static ser_status measure_launches(peak_context *peak, ser_error *err) {
  const ser_runtime *rt = peak->b->device->rt;
  bench_result *line;
  SER_TRY(bench_find_amount(&peak->amount, GRAPH_LAUNCHES, run_launches, peak, err));
  SER_TRY(bench_measure(peak->b, &line, "peak.launch", "us", (double)peak->amount, run_launches, peak, err));
  SER_TRY(rt->graph_begin(peak->b->stream, err));
  for (int i = 0; i < GRAPH_LAUNCHES; i++) rt->peak_fma(peak->b->stream, 0);
  SER_TRY(rt->graph_end(peak->b->stream, &peak->graph, err));
  SER_TRY(bench_find_amount(&peak->amount, GRAPH_LAUNCHES, run_graphs, peak, err));
  return bench_measure(peak->b, &line, "peak.graph", "us", (double)peak->amount, run_graphs, peak, err);
}

ser_status bench_peak_bus(bench *b, ser_error *err) {
  const ser_runtime *rt = b->device->rt;
  peak_context peak = {.b = b, .room = bus_bytes};
  ser_status status = SER_FAILED;
  peak.from = rt->pin(b->device, peak.room, err);
  if (peak.from) {
    memset(peak.from, 0, peak.room);
    status = ser_device_alloc(&peak.to, b->device, peak.room, err);
  }
  if (status == SER_OK) status = measure_bus(&peak, err);
  if (status == SER_OK) status = measure_launches(&peak, err);
  if (peak.graph) rt->graph_destroy(peak.graph);
  rt->free(b->device, peak.to);
  rt->unpin(b->device, peak.from);
  return status;
}
