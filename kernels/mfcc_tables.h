/* The tables of the MFCC operations, made in double and kept in float: the Hann window (scipy.signal.get_window), the
 * mel bands (librosa.filters.mel: Slaney's scale and area norm), the DCT (scipy.fft.dct type 2, ortho). Both backends
 * make theirs with this text: mfcc_plan.c, mfcc_plan.cu. */
#ifndef SER_KERNELS_MFCC_TABLES_H
#define SER_KERNELS_MFCC_TABLES_H

#include <math.h>

#include "device/ops.h"

static inline double mfcc_mel_of_hz(double hz) {
  return hz < 1000 ? hz * 3 / 200 : 15 + log(hz / 1000) / (log(6.4) / 27);
}

static inline double mfcc_hz_of_mel(double mel) {
  return mel < 15 ? mel * 200 / 3 : 1000 * exp(log(6.4) / 27 * (mel - 15));
}

/* scale: a power of two. */
static inline void mfcc_make_window(float *window, int64_t n_fft, double scale) {
  for (int64_t i = 0; i < n_fft; i++)
    window[i] = (float)(scale * (0.5 - 0.5 * cos(2 * M_PI * (double)i / (double)n_fft)));
}

static inline double mfcc_mel_edge(const ser_mfcc_shape *shape, int64_t i) {
  return mfcc_hz_of_mel(mfcc_mel_of_hz((double)shape->rate / 2) * (double)i / (double)(shape->mels + 1));
}

/* Between two edges lies the rising half of one band and the falling half of the band below it: each bin belongs to one
 * such region and has two weights. Band m rises in region m and falls in region m + 1. */
static inline void mfcc_make_bands(int32_t *region, float *slopes, const ser_mfcc_shape *shape) {
  int64_t bins = shape->n_fft / 2 + 1, bin = 0;
  for (int64_t i = 0; i <= shape->mels; i++) {
    double below = mfcc_mel_edge(shape, i > 0 ? i - 1 : 0), low = mfcc_mel_edge(shape, i),
           high = mfcc_mel_edge(shape, i + 1);
    double above = mfcc_mel_edge(shape, i < shape->mels ? i + 2 : i + 1);
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

static inline void mfcc_make_dct(float *dct, const ser_mfcc_shape *shape, int64_t padded) {
  double mels = (double)shape->mels;
  for (int64_t m = 0; m < shape->mels; m++)
    for (int64_t c = 0; c < padded; c++) {
      double scale = sqrt((c ? 2 : 1) / mels);
      double value = scale * cos(M_PI * (double)c * (2 * (double)m + 1) / (2 * mels));
      dct[m * padded + c] = c < shape->coefficients ? (float)value : 0;
    }
}

static inline ser_status mfcc_check_shape(const ser_mfcc_shape *shape, ser_error *err) {
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

#endif
