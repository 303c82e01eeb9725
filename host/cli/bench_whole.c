/* Whole jobs: `predict` from the start of the program to its exit, and `extract` from files to a sealed cache. */
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/version.h"
#include "cli/bench.h"

/* ---- predict ------------------------------------------------------------------------------------------------------
 */

/* A model of the reference branch with random weights: as fast as a trained one. */
static ser_status write_model(bench *b, const char *path, ser_error *err) {
  ser_model_info info = {.model = bench_model_config(b), .feature = SER_MFCC39, .mfcc = b->config.features.mfcc39};
  int64_t channels = info.model.channels;
  info.mean = ser_alloc_zero((size_t)channels, sizeof *info.mean);
  info.inv_std = ser_alloc_zero((size_t)channels, sizeof *info.inv_std);
  for (int64_t c = 0; c < channels; c++) info.inv_std[c] = 0.05f;
  for (int i = 0; i < SER_EMOTIONS; i++) info.emotions[i] = i;
  snprintf(info.manifest_hash, sizeof info.manifest_hash, "%032d", 0);
  snprintf(info.split_hash, sizeof info.split_hash, "%032d", 0);
  snprintf(info.version, sizeof info.version, "%s", SER_VERSION);
  ser_model *model;
  ser_status status = ser_model_create(&model, b->device, &info.model, err);
  if (status == SER_OK) {
    status = ser_model_initialise(model, b->stream, 1, err);
    if (status == SER_OK) status = ser_model_save(model, b->stream, &info, path, err);
    ser_model_free(model);
  }
  ser_model_info_free(&info);
  return status;
}

typedef struct {
  const char *const *argv;
} program_context;

/* This program again, its output unread, until it has ended. */
static ser_status run_program(void *context, ser_error *err) {
  program_context *run = context;
  posix_spawn_file_actions_t actions;
  pid_t child;
  int state = 0;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  int failed = posix_spawn(&child, "/proc/self/exe", &actions, NULL, (char *const *)run->argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed) return ser_fail(err, SER_FAILED, "bench: cannot start serenade again: %s", strerror(failed));
  while (waitpid(child, &state, 0) < 0) continue;
  if (WIFSIGNALED(state) || WEXITSTATUS(state) != 0)
    return ser_fail(err, SER_FAILED, "bench: serenade %s ended with %s %d", run->argv[1],
                    WIFSIGNALED(state) ? "signal" : "exit status",
                    WIFSIGNALED(state) ? WTERMSIG(state) : WEXITSTATUS(state));
  return SER_OK;
}

/* The bound is what the program needs to start and end without doing anything. */
ser_status bench_predict(bench *b, ser_error *err) {
  bench_result *start, *predict;
  char *model = ser_path_join(b->folder, "model.safetensors"), *threads = ser_format("--threads=%d", b->threads);
  const char *nothing[] = {"serenade", "--version", NULL};
  const char *one[] = {"serenade", "predict",      model,   b->clips.paths[b->clips.count / 2],
                       "--quiet",  "--device=cpu", threads, NULL};
  program_context idle = {nothing}, work = {one};
  ser_status status = write_model(b, model, err);
  if (status == SER_OK) status = bench_measure(b, &start, "predict.start", "ms", 1, run_program, &idle, err);
  if (status == SER_OK) status = bench_measure(b, &predict, "predict", "ms", 1, run_program, &work, err);
  if (status == SER_OK) bench_bound(predict, start->min, "the program's own start and end");
  free(model);
  free(threads);
  return status;
}

/* ---- extract ------------------------------------------------------------------------------------------------------
 */

static ser_status make_manifest(ser_manifest *manifest, const bench_clips *clips, ser_error *err) {
  ser_manifest_init(manifest);
  for (size_t i = 0; i < clips->count; i++) {
    struct stat file;
    SER_GROW(manifest->rows, manifest->count, manifest->capacity);
    ser_row *row = &manifest->rows[manifest->count++];
    *row = (ser_row){.path = ser_path_absolute(clips->paths[i]),
                     .corpus = ser_strdup("csv"),
                     .speaker = ser_strdup(""),
                     .sex = ser_strdup(""),
                     .intensity = ser_strdup(""),
                     .statement = ser_strdup(""),
                     .rate = clips->whole[i].rate,
                     .channels = clips->whole[i].info.channels,
                     .frames = clips->whole[i].count,
                     .seconds = (double)clips->whole[i].count / clips->whole[i].rate};
    if (stat(row->path, &file) != 0) return ser_fail_errno(err, SER_FAILED, "%s", row->path);
    row->size = file.st_size;
    row->mtime_ns = (int64_t)file.st_mtim.tv_sec * 1000000000 + file.st_mtim.tv_nsec;
    SER_TRY(ser_hash_file(&row->hash, row->path, err));
  }
  return SER_OK;
}

typedef struct {
  bench *b;
  const ser_manifest *manifest;
  char *cache;
} extract_context;

/* Into an empty cache each time. */
static ser_status run_extract(void *context, ser_error *err) {
  extract_context *run = context;
  bench_remove_folder(run->cache);
  ser_extract_options options = {.kind = SER_MFCC39,
                                 .config = &run->b->config.features.mfcc39,
                                 .cache_folder = run->cache,
                                 .jobs = run->b->threads,
                                 .device = run->b->device};
  ser_extract_summary summary = {0};
  ser_status status = ser_extract(&summary, run->manifest, &options, err);
  free(summary.refusals.data);
  return status == SER_PARTIAL ? SER_OK : status;
}

/* The bound: decoding and MFCC in turn on the same cores, nothing else. */
ser_status bench_extract(bench *b, ser_error *err) {
  ser_manifest manifest;
  bench_result *line;
  bool quiet = ser_log_is_quiet();
  extract_context run = {b, &manifest, ser_path_join(b->folder, "cache")};
  ser_status status = make_manifest(&manifest, &b->clips, err);
  ser_log_set_quiet(true);
  if (status == SER_OK)
    status = bench_measure(b, &line, "extract", "clips/s", (double)b->clips.count, run_extract, &run, err);
  ser_log_set_quiet(quiet);
  if (status == SER_OK) {
    const bench_result *decode = bench_find(b, "decode"), *mfcc = bench_find(b, "mfcc");
    line->hours = line->median * b->clips.seconds / (double)b->clips.count;
    bench_bound(line, 1 / (1 / decode->max + 1 / mfcc->max), "decode and mfcc alone on the same cores, at their best");
  }
  ser_manifest_free(&manifest);
  free(run.cache);
  return status;
}
