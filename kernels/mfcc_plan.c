/* The tables of the MFCC operations, made in double and kept in float: the Hann window (scipy.signal.get_window), the
 * mel bands (librosa.filters.mel: Slaney's scale and area norm), the DCT (scipy.fft.dct type 2, ortho), twiddles. */
#include "kernels/mfcc_plan.h"

#include <math.h>

#include "kernels/fft.h"

static double mel_of_hz(double hz) {
  return hz < 1000 ? hz * 3 / 200 : 15 + log(hz / 1000) / (log(6.4) / 27);
}

static double hz_of_mel(double mel) {
  return mel < 15 ? mel * 200 / 3 : 1000 * exp(log(6.4) / 27 * (mel - 15));
}

/* Halved, since the pass behind the FFT adds what it should average. */
static void make_window(float *window, int64_t n_fft) {
  for (int64_t i = 0; i < n_fft; i++) window[i] = (float)(0.25 - 0.25 * cos(2 * M_PI * (double)i / (double)n_fft));
}

static double mel_edge(const ser_mfcc_shape *shape, int64_t i) {
  return hz_of_mel(mel_of_hz((double)shape->rate / 2) * (double)i / (double)(shape->mels + 1));
}

/* Between two edges lies the rising half of one band and the falling half of the band below it: each bin belongs to one
 * such region and has two weights. Band m rises in region m and falls in region m + 1. */
static void make_bands(int32_t *region, float *slopes, const ser_mfcc_shape *shape) {
  int64_t bins = shape->n_fft / 2 + 1, bin = 0;
  for (int64_t i = 0; i <= shape->mels; i++) {
    double below = mel_edge(shape, i > 0 ? i - 1 : 0), low = mel_edge(shape, i), high = mel_edge(shape, i + 1);
    double above = mel_edge(shape, i < shape->mels ? i + 2 : i + 1);
    region[i] = (int32_t)bin;
    for (; bin < bins; bin++) {
      double hz = (double)bin * (double)shape->rate / (double)shape->n_fft;
      if (hz >= high && i < shape->mels) break;
      double rise = (hz - low) / (high - low), fall = (high - hz) / (high - low);
      slopes[2 * bin] = i < shape->mels && rise > 0 ? (float)(rise * 2 / (above - low)) : 0;
      slopes[2 * bin + 1] = i > 0 && fall > 0 ? (float)(fall * 2 / (high - below)) : 0;
    }
  }
  region[shape->mels + 1] = (int32_t)bins;
}

static void make_dct(float *dct, const ser_mfcc_shape *shape, int64_t padded) {
  double mels = (double)shape->mels;
  for (int64_t m = 0; m < shape->mels; m++)
    for (int64_t c = 0; c < padded; c++) {
      double scale = sqrt((c ? 2 : 1) / mels);
      double value = scale * cos(M_PI * (double)c * (2 * (double)m + 1) / (2 * mels));
      dct[m * padded + c] = c < shape->coefficients ? (float)value : 0;
    }
}

static ser_status check_shape(const ser_mfcc_shape *shape, ser_error *err) {
  if (shape->n_fft < 256 || shape->n_fft > 8192 || (shape->n_fft & (shape->n_fft - 1)))
    return ser_fail(err, SER_USAGE, "n_fft %lld is not a power of two from 256 to 8192; choose 512, 1024 or 2048",
                    (long long)shape->n_fft);
  if (shape->hop < 1 || shape->rate < 1)
    return ser_fail(err, SER_USAGE, "hop %lld and rate %lld must be at least 1; set both", (long long)shape->hop,
                    (long long)shape->rate);
  if (shape->mels < 1 || shape->mels > 4096 || shape->coefficients < 1 || shape->coefficients > shape->mels)
    return ser_fail(err, SER_USAGE,
                    "%lld coefficients of %lld mel bands; choose 1 to 4096 bands and no more "
                    "coefficients than bands",
                    (long long)shape->coefficients, (long long)shape->mels);
  SER_CHECK(shape->max_clips >= 0 && shape->max_frames >= 0);
  return SER_OK;
}

/* Where the tables lie behind the plan, in floats from its start; a table of int32 counts as floats. */
typedef struct {
  size_t window, twiddles, turns, slopes, dct, place, region, all;
} table_places;

static table_places place_tables(const ser_mfcc_shape *shape, int64_t padded) {
  table_places at;
  size_t n_fft = (size_t)shape->n_fft, mels = (size_t)shape->mels;
  at.window = line_floats((sizeof(mfcc_plan) + 3) / 4);
  at.twiddles = at.window + line_floats(n_fft);
  at.turns = at.twiddles + line_floats((size_t)fft_twiddle_floats(shape->n_fft / 2));
  at.slopes = at.turns + line_floats(2 * (n_fft / 4 + 1));
  at.dct = at.slopes + line_floats(2 * (n_fft / 2 + 1));
  at.place = at.dct + line_floats(mels * (size_t)padded);
  at.region = at.place + line_floats(n_fft / 2);
  at.all = at.region + line_floats(mels + 2);
  return at;
}

static void fill_tables(mfcc_plan *plan, const table_places *at) {
  float *base = (float *)plan;
  int64_t half = plan->shape.n_fft / 2;
  make_window(base + at->window, plan->shape.n_fft);
  SER_ISA(fft_make_twiddles)(base + at->twiddles, half);
  for (int64_t k = 0; k <= half / 2; k++) {
    double angle = -M_PI * (double)k / (double)half;
    base[at->turns + 2 * (size_t)k] = (float)cos(angle);
    base[at->turns + 2 * (size_t)k + 1] = (float)sin(angle);
  }
  make_bands((int32_t *)(base + at->region), base + at->slopes, &plan->shape);
  make_dct(base + at->dct, &plan->shape, plan->padded);
  for (int64_t k = 0; k < half; k++) ((int32_t *)(base + at->place))[k] = SER_ISA(fft_place)(k, half) * 2 * VW;
  plan->window = base + at->window;
  plan->twiddles = base + at->twiddles;
  plan->turns = base + at->turns;
  plan->slopes = base + at->slopes;
  plan->dct = base + at->dct;
  plan->place = (const int32_t *)(base + at->place);
  plan->region = (const int32_t *)(base + at->region);
}

ser_status SER_ISA(cpu_mfcc_prepare)(ser_device *device, ser_plan **out, const ser_mfcc_shape *shape, ser_error *err) {
  *out = NULL;
  SER_TRY(check_shape(shape, err));
  int64_t padded = SER_ROUND_UP(shape->coefficients, VW);
  table_places at = place_tables(shape, padded);
  mfcc_plan *plan = ser_cpu_plan(device, at.all * sizeof(float));
  plan->shape = *shape;
  plan->padded = padded;
  fill_tables(plan, &at);
  size_t threads = (size_t)ser_cpu_threads(device), n_fft = (size_t)shape->n_fft;
  plan->logmel_floats = line_floats((2 * n_fft + n_fft / 2 + 1 + (size_t)SER_ROUND_UP(shape->mels, VW)) * VW);
  plan->finish_floats = line_floats((MFCC_BLOCK + 2 * MFCC_EDGE) * (size_t)padded);
  size_t logmel = threads * plan->logmel_floats;
  size_t finish = line_floats((size_t)shape->max_clips) + threads * plan->finish_floats;
  plan->plan.workspace = (logmel > finish ? logmel : finish) * sizeof(float);
  *out = &plan->plan;
  return SER_OK;
}
