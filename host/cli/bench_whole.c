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
#include "features/extract.h"
#include "base/log.h"
#include "base/version.h"
#include "cli/bench.h"
#include "report/predict.h"

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

typedef struct {
  bench *b;
  ser_predictor *predictor;
  ser_audio_source *sources; /* [clips.count] */
} answers_context;

static ser_status no_answer(void *context, const ser_answer *answer, ser_error *err) {
  (void)context;
  (void)answer;
  (void)err;
  return SER_OK;
}

static ser_status run_answers(void *context, ser_error *err) {
  answers_context *run = context;
  bench *b = run->b;
  ser_device_work before = ser_predictor_work(run->predictor);
  SER_TRY(ser_predict(run->predictor, run->sources, b->clips.count, no_answer, NULL, err));
  ser_device_work after = ser_predictor_work(run->predictor);
  b->ran.batches += after.batches - before.batches;
  b->ran.seconds += after.seconds - before.seconds;
  return SER_OK;
}

/* What predict does of its clips: each once through the features, each window of it once through the model. */
static void count_answers(const bench *b, bench_result *line) {
  const ser_mfcc_config *m = &b->config.features.mfcc39;
  const ser_model_config c = bench_model_config(b);
  double samples = 0, frames = 0, seen = 0, clips = (double)b->clips.count;
  for (size_t i = 0; i < b->clips.count; i++) {
    int64_t of_clip = ser_mfcc_frames(b->clips.counts[i], m->hop);
    samples += (double)b->clips.counts[i];
    frames += (double)of_clip;
    seen += (double)(of_clip < c.frames ? of_clip : c.frames);
  }
  bench_needs(b, line, frames * bench_flops_frame(m) + clips * bench_flops_clip(&c),
              bench_bytes_mfcc(m, samples, frames) + bench_bytes_forward(&c, clips, seen));
}

/* All clips in one program whose device is at hand: from files to answers. The bound is decoding, where it is known. */
static ser_status measure_answers(bench *b, const char *model, ser_error *err) {
  answers_context run = {.b = b};
  bench_result *line;
  ser_predict_options options = {.model = model, .device = b->options, .jobs = b->threads};
  ser_status status;
  run.sources = ser_alloc_zero(b->clips.count, sizeof *run.sources);
  for (size_t i = 0; i < b->clips.count; i++) run.sources[i].path = b->clips.paths[i];
  SER_TRY_DONE(ser_predictor_open(&run.predictor, &options, err));
  SER_TRY_DONE(run_answers(&run, err)); /* the device is opened there */
  b->watched = ser_predictor_device(run.predictor);
  SER_TRY_DONE(bench_measure(b, &line, "predict.clips", "clips/s", (double)b->clips.count, run_answers, &run, err));
  line->hours = line->median * b->clips.seconds / (double)b->clips.count;
  count_answers(b, line);
  const bench_result *decode = bench_find(b, "decode");
  if (decode) bench_bound(line, decode->max, "decode alone, at its best");
done:
  b->watched = NULL;
  ser_predictor_close(run.predictor);
  free(run.sources);
  return status;
}

/* The bound is what the program needs to start and end without doing anything. */
ser_status bench_predict(bench *b, ser_error *err) {
  bench_result *start, *predict;
  ser_device_properties is;
  b->device->rt->properties(b->device, &is);
  char *model = ser_path_join(b->folder, "model.safetensors"), *threads = ser_format("--threads=%d", b->threads);
  char *device = ser_format("--device=%s", is.backend);
  const char *nothing[] = {"serenade", "--version", NULL};
  const char *one[] = {"serenade", "predict", model,   b->clips.paths[b->clips.count / 2],
                       "--quiet",  device,    threads, NULL};
  program_context idle = {nothing}, work = {one};
  ser_status status = write_model(b, model, err);
  if (status == SER_OK) status = bench_measure(b, &start, "predict.start", "ms", 1, run_program, &idle, err);
  if (status == SER_OK) status = bench_measure(b, &predict, "predict", "ms", 1, run_program, &work, err);
  if (status == SER_OK) bench_bound(predict, start->min, "the program's own start and end");
  if (status == SER_OK && b->on_device) status = measure_answers(b, model, err);
  free(model);
  free(threads);
  free(device);
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

/* Into an empty cache each time. What a GPU needs once for any number of recordings is told beside the rate, which
 * would else be one of these few. */
static ser_status run_extract(void *context, ser_error *err) {
  extract_context *run = context;
  bench_remove_folder(run->cache);
  const ser_extract_feature feature = {.kind = SER_MFCC39, .mfcc = &run->b->config.features.mfcc39};
  ser_extract_options options = {.features = &feature,
                                 .feature_count = 1,
                                 .cache_folder = run->cache,
                                 .jobs = run->b->threads,
                                 .device = run->b->device};
  ser_extract_summary summary = {0};
  ser_status status = ser_extract(&summary, run->manifest, &options, err);
  free(summary.refusals.data);
  run->b->ran = summary.work;
  if (run->b->on_device) run->b->set_up = summary.set_up;
  return status == SER_PARTIAL ? SER_OK : status;
}

/* The bound: decoding and MFCC in turn on the same cores, nothing else; where MFCC has a device of its own, side by
 * side. */
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
    if (!b->on_device) {
      bench_bound(line, 1 / (1 / decode->max + 1 / mfcc->max),
                  "decode and mfcc alone on the same cores, at their best");
    } else if (decode->max < mfcc->max) {
      bench_bound(line, decode->max, "decode alone on the host's cores, at its best");
    } else {
      bench_bound(line, mfcc->max, "mfcc alone, at its best");
    }
    bench_needs(b, line, mfcc->work.operations * mfcc->work.batches, mfcc->work.bytes * mfcc->work.batches);
  }
  ser_manifest_free(&manifest);
  free(run.cache);
  return status;
}
