/* `serenade bench`: how fast each stage is here, against what this machine could do, measured in the same run. */
#include "cli/bench.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/version.h"
#include "base/wanted.h"
#include "cli/cli.h"

enum { JSON_VERSION = 1 };

static const char *const stage_names[] = {"peak",    "decode",  "mfcc", "train", "forward",
                                          "predict", "extract", "all",  NULL};
enum { PEAK, DECODE, MFCC, TRAIN, FORWARD, PREDICT, EXTRACT, ALL };

/* ---- telling ------------------------------------------------------------------------------------------------------
 */

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

static void print_machine(const bench *b, const ser_device_properties *is) {
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

/* From file to cached features, a clip at a time: which stage takes the most of it. */
static void print_brake(const bench *b) {
  const bench_result *read = bench_find(b, "decode.read"), *resample = bench_find(b, "decode.resample"),
                     *mfcc = bench_find(b, "mfcc"), *extract = bench_find(b, "extract");
  if (!read || !resample || !mfcc || !extract) return;
  const char *const names[] = {"reading", "resampling", "mfcc", "the rest (queues, hashes, cache)"};
  double whole = 1 / extract->median, parts[4] = {1 / read->median, 1 / resample->median, 1 / mfcc->median, 0};
  double rest = whole - parts[0] - parts[1] - parts[2];
  parts[3] = rest > 0 ? rest : 0;
  int most = 0;
  for (int i = 1; i < 4; i++)
    if (parts[i] > parts[most]) most = i;
  printf("\nextract takes %.0f us a clip:", 1e6 * whole);
  for (int i = 0; i < 4; i++) printf(" %s %.0f%%%s", names[i], 100 * parts[i] / whole, i < 3 ? "," : ".");
  printf(" What holds it back is %s\n", names[most]);
}

static json_t *number_or_null(double value) {
  return value > 0 ? json_real(value) : json_null();
}

static ser_status write_json(const bench *b, const ser_device_properties *is, const char *path, ser_error *err) {
  json_t *results = json_array();
  for (size_t i = 0; i < b->count; i++) {
    const bench_result *line = &b->results[i];
    json_array_append_new(results, json_pack("{s:s, s:s, s:f, s:f, s:f, s:i, s:o, s:o, s:o, s:s?}", "name", line->name,
                                             "unit", line->unit, "median", line->median, "min", line->min, "max",
                                             line->max, "runs", line->runs, "bound", number_or_null(line->bound),
                                             "share", number_or_null(line->share), "audio_hours_per_hour",
                                             number_or_null(line->hours), "bound_is", line->bound_is));
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
  char *text = json_dumps(root, JSON_INDENT(2));
  char *lines = ser_format("%s\n", text);
  ser_status status = ser_file_write(path, lines, strlen(lines), err);
  free(lines);
  free(text);
  json_decref(root);
  return status;
}

/* ---- doing --------------------------------------------------------------------------------------------------------
 */

/* A stage brings those along that its bound is made of. */
static ser_status run_stages(bench *b, int stage, ser_error *err) {
  bool all = stage == ALL, extract = all || stage == EXTRACT;
  if (stage != DECODE && stage != PREDICT) SER_TRY(bench_peak(b, err));
  if (stage != PEAK) SER_TRY(bench_clips_load(b, err));
  if (extract || stage == DECODE) SER_TRY(bench_decode(b, err));
  if (extract || stage == MFCC) SER_TRY(bench_mfcc(b, err));
  if (extract) SER_TRY(bench_extract(b, err));
  if (all || stage == TRAIN) SER_TRY(bench_train(b, err));
  if (all || stage == FORWARD) SER_TRY(bench_forward(b, err));
  if (all || stage == PREDICT) SER_TRY(bench_predict(b, err));
  return stage == PEAK ? SER_OK : bench_peak_again(b, err);
}

static ser_status bench_on_device(bench *b, int stage, const char *json, ser_error *err) {
  ser_device_properties is;
  b->device->rt->properties(b->device, &is);
  if (strcmp(is.backend, "cpu") != 0)
    return ser_fail(err, SER_USAGE, "bench measures the CPU backend alone; give --device cpu");
  b->threads = is.threads;
  b->pool = ser_pool_create(b->threads);
  SER_TRY(b->device->rt->stream_create(b->device, &b->stream, err));
  const char *root = getenv("TMPDIR");
  SER_TRY(bench_make_folder(&b->folder, root && *root ? root : "/tmp", err));
  ser_status status = run_stages(b, stage, err);
  if (status != SER_OK && (status != SER_INTERRUPTED || !b->count)) return status;
  bench_settle(b);
  print_machine(b, &is);
  ser_text table = {0};
  bench_text(&table, b);
  fputs(table.data, stdout);
  free(table.data);
  if (status != SER_OK) return status; /* what was measured before the signal; a file would look whole */
  print_brake(b);
  return json ? write_json(b, &is, json, err) : SER_OK;
}

static ser_status run(const ser_common *common, int argc, char **argv, ser_error *err) {
  const char *json = NULL, *runs = NULL;
  bench b = {.runs = 7};
  const ser_option options[] = {
      {"--data", &b.data, NULL, NULL, NULL}, {"--json", &json, NULL, NULL, NULL}, {"--runs", &runs, NULL, NULL, NULL}};
  int stage = ALL;
  int64_t wanted = b.runs;
  SER_TRY(ser_options_parse(&argc, argv, options, sizeof options / sizeof *options, err));
  SER_TRY(ser_options_count(argc, argv, 0, 1, "one stage at most", err));
  if (argc > 1) SER_TRY(ser_option_choice(&stage, "the stage", argv[1], stage_names, err));
  if (runs) SER_TRY(ser_option_integer(&wanted, "--runs", runs, 1, 1000, err));
  if (b.data) SER_TRY(ser_want_folder(b.data, "a folder of recordings with --data", err));
  if (json) SER_TRY(ser_output_check(json, "--json", err));
  b.runs = (int)wanted;
  ser_config_init(&b.config);
  ser_device_options asked = common->device;
  if (!common->device_given) asked.kind = SER_DEVICE_CPU;
  ser_status status = ser_device_open(&b.device, &asked, err);
  if (status == SER_OK) {
    status = bench_on_device(&b, stage, json, err);
    if (b.stream) b.device->rt->stream_destroy(b.stream);
    ser_device_close(b.device);
  }
  bench_clips_free(&b.clips);
  if (b.folder) bench_remove_folder(b.folder);
  free(b.folder);
  ser_pool_free(b.pool);
  ser_config_free(&b.config);
  return status;
}

const ser_command ser_command_bench = {
    .name = "bench",
    .summary = "how fast each stage is on this machine, and what share of its bound it reaches",
    .usage =
        "usage: serenade bench [peak|decode|mfcc|train|forward|predict|extract|all] [options]\n\n"
        "Medians of repeated runs, on recordings or on made speech. A stage's bound is measured in the same run:\n"
        "multiply-adds a second, before and after the stages, over the operations that it needs, or the libraries'\n"
        "own speed.\n\n"
        "  --data DIR   recordings to measure with, at most 256 of those there (default: made ones)\n"
        "  --runs N     timed runs of each stage (default 7)\n"
        "  --json FILE  the results as JSON too: {version, machine, clips, results [{name, unit, median, ...}]}\n\n"
        "Example:\n"
        "  serenade bench all --data data/RAVDESS --json bench.json\n",
    .run = run,
    .interrupted = "what was measured before is printed, and no file written; run the same command again",
    .takes = CLI_DEVICE | CLI_THREADS,
};
