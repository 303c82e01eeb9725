/* The stages before the model: decoding, MFCC. */
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"

/* ---- decode -------------------------------------------------------------------------------------------------------
 */

typedef struct {
  bench *b;
  int32_t rate;
  bool resample_only;
} decode_context;

static void decode_one(void *context, size_t task, int thread) {
  const decode_context *decode = context;
  bench_clips *clips = &decode->b->clips;
  ser_error err = {0};
  (void)thread;
  if (decode->resample_only) {
    float *out = NULL;
    int64_t count;
    const ser_clip *whole = &clips->whole[task];
    SER_CHECK(ser_resample(&out, &count, whole->samples, whole->count, whole->rate, decode->rate, &err) == SER_OK);
    free(out);
    return;
  }
  /* These files were decoded before: only an interruption can end this early, and the caller looks for that. */
  ser_clip clip = {0};
  ser_reason reason;
  ser_audio_source source = {.path = clips->paths[task]};
  ser_audio_decode(&clip, &reason, NULL, &source, decode->rate, NULL, NULL, &err);
  ser_clip_free(&clip);
}

static ser_status run_decode(void *context, ser_error *err) {
  decode_context *decode = context;
  (void)err;
  ser_pool_run_dynamic(decode->b->pool, decode->b->clips.count, decode_one, decode);
  return SER_OK;
}

static ser_status measure_decode(bench *b, const char *name, int32_t rate, bool resample_only, bench_result **line,
                                 ser_error *err) {
  decode_context decode = {b, rate, resample_only};
  SER_TRY(bench_measure(b, line, name, "clips/s", (double)b->clips.count, run_decode, &decode, err));
  (*line)->hours = (*line)->median * b->clips.seconds / (double)b->clips.count;
  return SER_OK;
}

/* The bound is what reading alone and the resampler alone would take together. */
ser_status bench_decode(bench *b, ser_error *err) {
  bench_result *read, *resample, *decode;
  int32_t rate = (int32_t)b->config.features.mfcc39.rate;
  SER_TRY(measure_decode(b, "decode.read", 0, false, &read, err));
  SER_TRY(measure_decode(b, "decode.resample", rate, true, &resample, err));
  SER_TRY(measure_decode(b, "decode", rate, false, &decode, err));
  bench_bound(decode, 1 / (1 / read->max + 1 / resample->max), "libsndfile, then soxr, alone, at their best");
  return SER_OK;
}

/* ---- mfcc ---------------------------------------------------------------------------------------------------------
 */

typedef struct {
  bench *b;
  ser_mfcc *mfcc;
  ser_signal *signals; /* [clips.count], where the device takes pinned memory */
  float *pinned;       /* their samples */
} mfcc_context;

static ser_status run_mfcc(void *context, ser_error *err) {
  mfcc_context *run = context;
  bench_clips *clips = &run->b->clips;
  for (size_t first = 0; first < clips->count; first += BENCH_BATCH) {
    size_t count = clips->count - first < BENCH_BATCH ? clips->count - first : BENCH_BATCH;
    float *features = NULL;
    int64_t offset[BENCH_BATCH + 1];
    ser_status status =
        ser_mfcc_compute(run->mfcc, &features, offset, clips->samples + first, clips->counts + first, count, err);
    free(features);
    SER_TRY(status);
  }
  return SER_OK;
}

/* As extraction does it: from pinned memory, some batches under way at a time. */
static ser_status run_mfcc_ahead(void *context, ser_error *err) {
  mfcc_context *run = context;
  bench *b = run->b;
  ser_device_work before = ser_mfcc_work(run->mfcc);
  size_t most = (size_t)ser_mfcc_max_clips(run->mfcc), next = 0;
  if (most > BENCH_BATCH) most = BENCH_BATCH;
  while (next < b->clips.count || !ser_mfcc_idle(run->mfcc)) {
    if (next < b->clips.count && !ser_mfcc_full(run->mfcc)) {
      size_t count = b->clips.count - next < most ? b->clips.count - next : most;
      SER_TRY(ser_mfcc_submit(run->mfcc, run->signals + next, count, err));
      next += count;
    } else {
      const float *features;
      const int64_t *offset;
      SER_TRY(ser_mfcc_collect(run->mfcc, &features, &offset, err));
    }
  }
  ser_device_work after = ser_mfcc_work(run->mfcc);
  b->ran.batches += after.batches - before.batches;
  b->ran.seconds += after.seconds - before.seconds;
  return SER_OK;
}

static ser_status pin_samples(mfcc_context *run, ser_error *err) {
  const bench_clips *clips = &run->b->clips;
  size_t samples = 0;
  for (size_t i = 0; i < clips->count; i++) samples += (size_t)clips->counts[i];
  run->pinned = run->b->device->rt->pin(run->b->device, samples * sizeof(float), err);
  if (!run->pinned) return SER_FAILED;
  run->signals = ser_alloc_zero(clips->count, sizeof *run->signals);
  float *at = run->pinned;
  for (size_t i = 0; i < clips->count; i++) {
    memcpy(at, clips->samples[i], (size_t)clips->counts[i] * sizeof(float));
    run->signals[i] = (ser_signal){.samples = at, .pinned = true, .count = clips->counts[i]};
    at += clips->counts[i];
  }
  return SER_OK;
}

static ser_status measure_mfcc(mfcc_context *run, bench_result **line, int64_t most_frames, ser_error *err) {
  bench *b = run->b;
  double clips = (double)b->clips.count;
  SER_TRY(ser_mfcc_create(&run->mfcc, b->device, &b->config.features.mfcc39, BENCH_BATCH, most_frames * BENCH_BATCH,
                          false, err));
  if (!b->on_device) return bench_measure(b, line, "mfcc", "clips/s", clips, run_mfcc, run, err);
  SER_TRY(pin_samples(run, err));
  return bench_measure(b, line, "mfcc", "clips/s", clips, run_mfcc_ahead, run, err);
}

ser_status bench_mfcc(bench *b, ser_error *err) {
  const ser_mfcc_config *config = &b->config.features.mfcc39;
  int64_t frames = 0, samples = 0, most = 0;
  for (size_t i = 0; i < b->clips.count; i++) {
    int64_t of_clip = ser_mfcc_frames(b->clips.counts[i], config->hop);
    samples += b->clips.counts[i];
    frames += of_clip;
    if (of_clip > most) most = of_clip;
  }
  mfcc_context run = {.b = b};
  bench_result *line;
  ser_status status = measure_mfcc(&run, &line, most, err);
  ser_mfcc_free(run.mfcc);
  b->device->rt->unpin(b->device, run.pinned);
  free(run.signals);
  SER_TRY(status);
  line->hours = line->median * b->clips.seconds / (double)b->clips.count;
  bench_needs(b, line, (double)frames * bench_flops_frame(config),
              bench_bytes_mfcc(config, (double)samples, (double)frames));
  bench_bound_operations(line, (double)frames * bench_flops_frame(config) / (double)b->clips.count,
                         "peak.fma over the operations counted");
  return SER_OK;
}
