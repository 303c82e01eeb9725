/* `serenade bench`: how fast each stage is here, against what this machine could do, measured in the same run. */
#include "cli/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/wanted.h"
#include "cli/cli.h"

static const char *const stage_names[] = {"peak",    "decode",  "mfcc", "train", "forward",
                                          "predict", "extract", "all",  NULL};
enum { PEAK, DECODE, MFCC, TRAIN, FORWARD, PREDICT, EXTRACT, ALL, STAGES };

/* A stage brings those along that its bound is made of. */
static ser_status run_stages(bench *b, bool wanted[STAGES], ser_error *err) {
  bool stages = false, limits = wanted[PEAK];
  for (int i = DECODE; i <= ALL; i++) {
    stages = stages || wanted[i];
    limits = limits || (wanted[i] && i != DECODE && (i != PREDICT || b->on_device));
    wanted[i] = wanted[i] || wanted[ALL];
  }
  if (limits) SER_TRY(bench_peak(b, err));
  if (limits && b->on_device) SER_TRY(bench_peak_bus(b, err));
  if (stages) SER_TRY(bench_clips_load(b, err));
  if (wanted[EXTRACT] || wanted[DECODE]) SER_TRY(bench_decode(b, err));
  if (wanted[EXTRACT] || wanted[MFCC]) SER_TRY(bench_mfcc(b, err));
  if (wanted[EXTRACT]) SER_TRY(bench_extract(b, err));
  if (wanted[TRAIN]) SER_TRY(bench_train(b, err));
  if (wanted[FORWARD]) SER_TRY(bench_forward(b, err));
  if (wanted[PREDICT]) SER_TRY(bench_predict(b, err));
  return stages ? bench_peak_again(b, err) : SER_OK;
}

static void print_text(void (*make)(ser_text *text, const bench *b), const bench *b) {
  ser_text text = {0};
  make(&text, b);
  if (text.data) fputs(text.data, stdout);
  free(text.data);
}

static ser_status bench_on_device(bench *b, bool wanted[STAGES], const char *json, ser_error *err) {
  const ser_runtime *rt = b->device->rt;
  ser_device_properties is;
  rt->properties(b->device, &is);
  b->on_device = strcmp(is.backend, "cpu") != 0;
  b->threads = !b->on_device ? is.threads : b->options.threads > 0 ? b->options.threads : ser_cores();
  b->pool = ser_pool_create(b->threads);
  SER_TRY(rt->stream_create(b->device, &b->stream, err));
  SER_TRY(rt->event_create(b->device, &b->from, err));
  SER_TRY(rt->event_create(b->device, &b->to, err));
  const char *root = getenv("TMPDIR");
  SER_TRY(bench_make_folder(&b->folder, root && *root ? root : "/tmp", err));
  ser_status status = run_stages(b, wanted, err);
  if (status != SER_OK && (status != SER_INTERRUPTED || !b->count)) return status;
  bench_settle(b);
  rt->properties(b->device, &is); /* what it has chosen meanwhile, too */
  bench_print_machine(b, &is);
  print_text(bench_text, b);
  print_text(bench_text_device, b);
  if (status != SER_OK) return status; /* what was measured before the signal; a file would look whole */
  print_text(bench_text_brake, b);
  return json ? bench_write_json(b, &is, json, err) : SER_OK;
}

static ser_status open_and_run(bench *b, bool wanted[STAGES], const char *json, ser_error *err) {
  SER_TRY(ser_device_open(&b->device, &b->options, err));
  ser_status status = bench_on_device(b, wanted, json, err);
  b->device->rt->event_destroy(b->from);
  b->device->rt->event_destroy(b->to);
  b->device->rt->stream_destroy(b->stream);
  ser_device_close(b->device);
  return status;
}

static ser_status run(const ser_common *common, int argc, char **argv, ser_error *err) {
  const char *json = NULL, *runs = NULL, **sets = NULL;
  size_t set_count = 0;
  bench b = {.runs = 7};
  const ser_option options[] = {{.name = "--data", .value = &b.data},
                                {.name = "--json", .value = &json},
                                {.name = "--runs", .value = &runs},
                                {.name = "--set", .list = &sets, .list_count = &set_count}};
  bool wanted[STAGES] = {false};
  int64_t times = b.runs;
  ser_config_init(&b.config);
  ser_status status;
  SER_TRY_DONE(ser_options_parse(&argc, argv, options, sizeof options / sizeof *options, err));
  SER_TRY_DONE(ser_options_count(argc, argv, 0, 1, "one list of stages at most", err));
  SER_TRY_DONE(ser_option_choices(wanted, "the stage", argc > 1 ? argv[1] : "all", stage_names, err));
  if (runs) SER_TRY_DONE(ser_option_integer(&times, "--runs", runs, 1, 1000, err));
  if (b.data) SER_TRY_DONE(ser_want_folder(b.data, "a folder of recordings with --data", err));
  if (json) SER_TRY_DONE(ser_output_check(json, "--json", err));
  ser_config_free(&b.config);
  SER_TRY_DONE(ser_settings(&b.config, NULL, sets, set_count, common, err));
  b.runs = (int)times;
  b.options = ser_config_device(&b.config, (int)b.config.threads);
  if (!common->device_given && b.options.kind == SER_DEVICE_AUTO) b.options.kind = SER_DEVICE_CPU;
  status = open_and_run(&b, wanted, json, err);
done:
  free(sets);
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
        "usage: serenade bench [STAGES] [options]\n\n"
        "STAGES: peak, decode, mfcc, train, forward, predict, extract, several of them with commas between, or all, "
        "the\n"
        "default.\n\n"
        "Medians of repeated runs, on recordings or on made speech. A stage's bound is measured in the same run:\n"
        "multiply-adds a second, before and after the stages, over the operations that it needs, or the libraries'\n"
        "own speed. On a GPU (--device cuda) its memory, the bus and launches are measured too, and a second table\n"
        "says what a batch takes of it, by its own clock and counters.\n\n"
        "  --data DIR   recordings to measure with, at most 256 of those there (default: made ones)\n"
        "  --runs N     timed runs of each stage (default 7)\n"
        "  --set KEY=V  one key of the configuration, as in a recipe; may be repeated\n"
        "  --json FILE  the results as JSON too: {version, machine, clips, results [{name, unit, median, ...}]}\n\n"
        "Example:\n"
        "  serenade bench all --data data/RAVDESS --json bench.json\n"
        "  serenade bench mfcc,train --device cuda\n",
    .run = run,
    .interrupted = "what was measured before is printed, and no file written; run the same command again",
    .takes = CLI_DEVICE | CLI_THREADS,
};
