/* The plan of the MFCC operations: tables that depend on the shape alone. */
#ifndef SER_KERNELS_MFCC_PLAN_H
#define SER_KERNELS_MFCC_PLAN_H

#include "kernels/kernels.h"
#include "kernels/mfcc_rows.h"

enum {
  MFCC_BLOCK = 64, /* rows that one task of mfcc_finish makes */
  MFCC_EDGE = 4,   /* rows that a delta reads on each side */
};

typedef struct {
  ser_plan plan;
  ser_mfcc_shape shape;
  int64_t padded;        /* coefficients rounded up to VW */
  size_t logmel_floats;  /* workspace of one thread of logmel */
  size_t finish_floats;  /* workspace of one thread of mfcc_finish, behind max_clips peaks */
  const float *window;   /* [n_fft] periodic Hann, halved */
  const float *twiddles; /* of the complex FFT of length n_fft / 2 */
  const float *turns;    /* [n_fft / 4 + 1][2] e^(-2 pi i k / n_fft) */
  const float *slopes;   /* [n_fft / 2 + 1][2] weights of a bin in the band it rises in and in the one it falls in */
  const float *dct;      /* [mels][padded] */
  const int32_t *place;  /* [n_fft / 2] where the FFT leaves a frequency, in floats */
  const int32_t *region; /* [mels + 2] first bin at or above each edge of the mel bands; the last is n_fft / 2 + 1 */
} mfcc_plan;

/* Floats rounded up to a cache line. */
static inline size_t line_floats(size_t floats) {
  return SER_ROUND_UP(floats, 16);
}

#endif
