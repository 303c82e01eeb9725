/* What bench measured, as tables and as JSON. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/version.h"
#include "cli/bench.h"

enum { JSON_VERSION = 1 };

static const char *compiler_text(void) {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

static const char *build_text(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return "with a sanitizer: timings mean nothing";
#elif defined(__OPTIMIZE__)
  return "optimised";
#else
  return "not optimised: timings mean little";
#endif
}

void bench_print_machine(const bench *b, const ser_device_properties *is) {
  if (b->on_device)
    printf("serenade %s on %s, %s, %d multiprocessors, %s, convolutions %s\nhost: %d of %d cores, %s, %s build\n",
           SER_VERSION, is->name, is->isa, is->threads, is->precision, is->conv, b->threads, ser_cores(),
           compiler_text(), build_text());
  else
    printf("serenade %s on %s, %d of %d cores, %s, %s, %s build\n", SER_VERSION, is->name, b->threads, ser_cores(),
           is->isa, compiler_text(), build_text());
  if (!b->clips.count) return;
  printf("%zu %s, %.1f s each in the mean\n", b->clips.count,
         b->clips.made ? "made recordings (speech-like, 48 kHz)" : "real recordings",
         b->clips.seconds / (double)b->clips.count);
}

void bench_text(ser_text *text, const bench *b) {
  bool bounded = false, beyond = false;
  ser_text_printf(text, "\n%-16s %-8s %10s %10s %10s %5s %10s %6s %8s\n", "stage", "unit", "median", "min", "max",
                  "runs", "bound", "share", "h/h");
  for (size_t i = 0; i < b->count; i++) {
    const bench_result *line = &b->results[i];
    ser_text_printf(text, "%-16s %-8s %10.1f %10.1f %10.1f %5d", line->name, line->unit, line->median, line->min,
                    line->max, line->runs);
    if (line->bound > 0)
      ser_text_printf(text, " %10.1f %5.0f%%", line->bound, 100 * line->share);
    else
      ser_text_printf(text, " %10s %6s", "-", "-");
    if (line->hours > 0)
      ser_text_printf(text, " %8.0f\n", line->hours);
    else
      ser_text_printf(text, " %8s\n", "-");
    bounded |= line->bound_is != NULL;
    beyond |= line->share > 1.005; /* 101% as printed */
  }
  if (beyond)
    ser_text_puts(text,
                  "\nA share above 100%: the machine was slower while that bound was measured than while the stage "
                  "ran.\nSuch a line says little; measure again when nothing else runs.\n");
  ser_text_printf(text, "\nh/h: hours of audio in an hour.%s\n", bounded ? " A bound is made of:" : "");
  for (size_t i = 0; i < b->count; i++)
    if (b->results[i].bound_is) ser_text_printf(text, "  %-16s %s\n", b->results[i].name, b->results[i].bound_is);
}

/* A rate, and what share of the device's it is. */
static void add_rate(ser_text *text, const bench *b, double amount, double seconds, const char *limit) {
  const bench_result *peak = bench_find(b, limit);
  if (amount <= 0 || seconds <= 0)
    ser_text_printf(text, " %9s %5s", "-", "-");
  else if (!peak)
    ser_text_printf(text, " %9.1f %5s", 1e-9 * amount / seconds, "-");
  else
    ser_text_printf(text, " %9.1f %4.0f%%", 1e-9 * amount / seconds, 1e-7 * amount / seconds / peak->max);
}

void bench_text_device(ser_text *text, const bench *b) {
  bool any = false;
  for (size_t i = 0; i < b->count; i++) any |= b->results[i].work.batches > 0;
  if (!any) return;
  ser_text_printf(text, "\n%-14s %5s %9s %5s %7s %5s %5s %9s %9s %9s %5s %9s %5s %8s\n", "on the device", "clips", "ms",
                  "busy", "launch", "calls", "waits", "KB there", "KB back", "GFLOP/s", "share", "GB/s", "share",
                  "limit");
  for (size_t i = 0; i < b->count; i++) {
    const bench_work *work = &b->results[i].work;
    if (!work->batches) continue;
    ser_text_printf(text, "%-14s %5.0f %9.3f %4.0f%% %7.0f %5.0f %5.1f %9.1f %9.1f", b->results[i].name, work->clips,
                    1e3 * work->seconds, 100 * work->busy, work->launches, work->calls, work->waits,
                    1e-3 * work->written, 1e-3 * work->read);
    add_rate(text, b, work->operations, work->seconds, "peak.fma");
    add_rate(text, b, work->bytes, work->seconds, "peak.copy");
    ser_text_printf(text, " %8s\n", work->limit ? work->limit : "-");
  }
  ser_text_puts(
      text, "\nA batch each, means of a run. ms: the device's own time of computing, by its events; busy: what share "
            "of the run\nthat is (in predict features and model run side by side, and both count). launch: kernels of "
            "ours; calls: of\nlibraries; waits: of the host for the device. KB over the bus. Rates are what the batch "
            "needs over that time:\noperations counted, bytes that operations read and write (a cache may move them "
            "faster than the memory's peak);\nlimit: the nearest of the measured ones.\n");
}

/* From file to cached features, a clip at a time: which stage takes the most of it. */
static void brake_in_turn(ser_text *text, double whole, double read, double resample, double mfcc) {
  const char *const names[] = {"reading", "resampling", "mfcc", "the rest (queues, hashes, cache)"};
  double parts[4] = {read, resample, mfcc, 0}, rest = whole - read - resample - mfcc;
  parts[3] = rest > 0 ? rest : 0;
  int most = 0;
  for (int i = 1; i < 4; i++)
    if (parts[i] > parts[most]) most = i;
  ser_text_printf(text, "\nextract takes %.0f us a clip:", 1e6 * whole);
  for (int i = 0; i < 4; i++)
    ser_text_printf(text, " %s %.0f%%%s", names[i], 100 * parts[i] / whole, i < 3 ? "," : ".");
  ser_text_printf(text, " What holds it back is %s\n", names[most]);
}

/* The same where cores, bus and device work side by side: the longest holds the rest back, or what none of them covers.
 */
static void brake_side_by_side(ser_text *text, const bench *b, const bench_result *extract, double read,
                               double resample) {
  const char *const names[] = {read > resample ? "reading, on the host's cores" : "resampling, on the host's cores",
                               "the bus", "the device", "the rest (queues, hashes, cache)"};
  const bench_work *work = &extract->work;
  double whole = 1 / extract->median, clips = work->clips > 0 ? work->clips : 1;
  double parts[4] = {read + resample, bench_bus_seconds(b, work) / clips, work->seconds / clips, 0};
  int most = 0;
  for (int i = 1; i < 3; i++)
    if (parts[i] > parts[most]) most = i;
  parts[3] = whole > parts[most] ? whole - parts[most] : 0;
  ser_text_printf(text,
                  "\nextract takes %.0f us a clip. Side by side: %d cores %.0f us (reading %.0f%%, resampling %.0f%%), "
                  "the bus %.0f us, the\ndevice %.0f us; the longest of them leaves %.0f us.\n",
                  1e6 * whole, b->threads, 1e6 * parts[0], 100 * read / parts[0], 100 * resample / parts[0],
                  1e6 * parts[1], 1e6 * parts[2], 1e6 * parts[3]);
  if (parts[3] > parts[most]) most = 3;
  ser_text_printf(text, "What holds it back is %s\n", names[most]);
}

void bench_text_brake(ser_text *text, const bench *b) {
  const bench_result *read = bench_find(b, "decode.read"), *resample = bench_find(b, "decode.resample"),
                     *mfcc = bench_find(b, "mfcc"), *extract = bench_find(b, "extract");
  if (!read || !resample || !mfcc || !extract) return;
  if (b->on_device)
    brake_side_by_side(text, b, extract, 1 / read->median, 1 / resample->median);
  else
    brake_in_turn(text, 1 / extract->median, 1 / read->median, 1 / resample->median, 1 / mfcc->median);
  if (extract->set_up > 0)
    ser_text_printf(text, "Setting up and taking down, once in a run whatever its length, took %.1f ms beside it.\n",
                    1e3 * extract->set_up);
}

static json_t *number_or_null(double value) {
  return value > 0 ? json_real(value) : json_null();
}

static json_t *work_json(const bench *b, const bench_work *work) {
  const bench_result *fma = bench_find(b, "peak.fma"), *copy = bench_find(b, "peak.copy");
  double flops = 1e-9 * work->operations / work->seconds, bytes = 1e-9 * work->bytes / work->seconds;
  return json_pack("{s:f, s:f, s:o, s:o, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:s?}",
                   "batches", work->batches, "clips", work->clips, "ms", number_or_null(1e3 * work->seconds), "busy",
                   number_or_null(work->busy), "launches", work->launches, "calls", work->calls, "waits", work->waits,
                   "bytes_to", work->written, "bytes_from", work->read, "allocations_in_run", work->allocations,
                   "operations", number_or_null(work->operations), "memory_bytes", number_or_null(work->bytes),
                   "gflops", number_or_null(flops), "gflops_share", number_or_null(fma ? flops / fma->max : 0), "gbs",
                   number_or_null(bytes), "gbs_share", number_or_null(copy ? bytes / copy->max : 0), "graph",
                   (int)work->in_graph, "limit", work->limit);
}

ser_status bench_write_json(const bench *b, const ser_device_properties *is, const char *path, ser_error *err) {
  json_t *results = json_array();
  for (size_t i = 0; i < b->count; i++) {
    const bench_result *line = &b->results[i];
    json_t *item = json_pack("{s:s, s:s, s:f, s:f, s:f, s:i, s:o, s:o, s:o, s:s?}", "name", line->name, "unit",
                             line->unit, "median", line->median, "min", line->min, "max", line->max, "runs", line->runs,
                             "bound", number_or_null(line->bound), "share", number_or_null(line->share),
                             "audio_hours_per_hour", number_or_null(line->hours), "bound_is", line->bound_is);
    SER_CHECK(item);
    if (line->set_up > 0) json_object_set_new(item, "set_up_ms", json_real(1e3 * line->set_up));
    if (line->work.batches > 0) json_object_set_new(item, "device", work_json(b, &line->work));
    json_array_append_new(results, item);
  }
  json_t *paths = json_array();
  for (size_t i = 0; i < b->clips.count && !b->clips.made; i++)
    json_array_append_new(paths, json_string(b->clips.paths[i]));
  json_t *root = json_pack("{s:i, s:{s:s, s:s, s:s, s:s, s:i, s:i, s:s, s:s}, s:{s:I, s:f, s:b, s:o}, s:o}", "version",
                           JSON_VERSION, "machine", "serenade", SER_VERSION, "backend", is->backend, "processor",
                           is->name, "isa", is->isa, "cores", ser_cores(), "threads", b->threads, "compiler",
                           compiler_text(), "build", build_text(), "clips", "count", (json_int_t)b->clips.count,
                           "seconds", b->clips.seconds, "made", (int)b->clips.made, "paths", paths, "results", results);
  SER_CHECK(root);
  if (b->on_device)
    json_object_set_new(json_object_get(root, "machine"), "device",
                        json_pack("{s:i, s:s, s:s, s:I}", "multiprocessors", is->threads, "precision", is->precision,
                                  "conv", is->conv, "memory", (json_int_t)is->memory));
  char *text = json_dumps(root, JSON_INDENT(2));
  char *lines = ser_format("%s\n", text);
  ser_status status = ser_file_write(path, lines, strlen(lines), err);
  free(lines);
  free(text);
  json_decref(root);
  return status;
}
