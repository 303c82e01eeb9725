/* The stages before the model: the machine's limits, decoding, MFCC. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"
#include "device/peak.h"

/* ---- peak ---------------------------------------------------------------------------------------------------------
 */

enum { FMA_ROUNDS = 4000000 };
static const size_t copy_bytes = (size_t)256 << 20; /* beyond any cache */

typedef struct {
  bench *b;
  void *to, *from;
} peak_context;

static ser_status run_fma(void *context, ser_error *err) {
  peak_context *peak = context;
  (void)err;
  ser_peak_run(peak->b->device, peak->b->stream, FMA_ROUNDS);
  return SER_OK;
}

static ser_status run_copy(void *context, ser_error *err) {
  peak_context *peak = context;
  (void)err;
  ser_peak_copy(peak->b->device, peak->b->stream, peak->to, peak->from, copy_bytes);
  return SER_OK;
}

static ser_status measure_fma(bench *b, ser_error *err) {
  peak_context peak = {.b = b};
  bench_result *line;
  double flops = (double)ser_peak_run(b->device, b->stream, 1) * FMA_ROUNDS;
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

ser_status bench_peak(bench *b, ser_error *err) {
  peak_context peak = {.b = b};
  bench_result *line;
  SER_TRY(measure_fma(b, err));
  char pair[2] = {0};
  if (!ser_peak_copy(b->device, b->stream, pair, pair + 1, 1)) return SER_OK; /* not measured on this backend */
  peak.to = ser_alloc_aligned(copy_bytes);
  peak.from = ser_alloc_aligned(copy_bytes);
  memset(peak.from, 1, copy_bytes);
  ser_status status = bench_measure(b, &line, "peak.copy", "GB/s", 2e-9 * (double)copy_bytes, run_copy, &peak, err);
  free(peak.to);
  free(peak.from);
  return status;
}

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

/* Floating-point operations of one frame: window, real FFT (2.5 n log2 n), power, two triangles a bin, a logarithm of
 * about twenty for each band, DCT, deltas of nine taps. */
static double flops_of_frame(const ser_mfcc_config *m) {
  double n = (double)m->n_fft, bins = n / 2 + 1, mels = (double)m->mels, kept = (double)m->coefficients;
  return n + 2.5 * n * log2(n) + 3 * bins + 4 * bins + 20 * mels + 2 * mels * kept + (m->deltas ? 36 * kept : 0);
}

ser_status bench_mfcc(bench *b, ser_error *err) {
  const ser_mfcc_config *config = &b->config.features.mfcc39;
  int64_t frames = 0, most = 0;
  for (size_t i = 0; i < b->clips.count; i++) {
    int64_t of_clip = ser_mfcc_frames(b->clips.counts[i], config->hop);
    frames += of_clip;
    if (of_clip > most) most = of_clip;
  }
  mfcc_context run = {.b = b};
  bench_result *line;
  SER_TRY(ser_mfcc_create(&run.mfcc, b->device, config, BENCH_BATCH, most * BENCH_BATCH, err));
  ser_status status = bench_measure(b, &line, "mfcc", "clips/s", (double)b->clips.count, run_mfcc, &run, err);
  ser_mfcc_free(run.mfcc);
  SER_TRY(status);
  line->hours = line->median * b->clips.seconds / (double)b->clips.count;
  bench_bound_operations(line, (double)frames * flops_of_frame(config) / (double)b->clips.count,
                         "peak.fma over the operations counted");
  return SER_OK;
}
