/* Complex FFTs of powers of two, VW of them side by side: what logmel.c needs of fft.c. */
#ifndef SER_KERNELS_FFT_H
#define SER_KERNELS_FFT_H

#include "kernels/simd.h"

/* Floats of the twiddle table of a transform of `length` (a power of two, at least 16). */
static inline int64_t fft_twiddle_floats(int64_t length) {
  int64_t floats = 0;
  for (; length > 8; length /= 4) floats += 6 * (length / 4);
  return floats + (length == 8 ? 12 : 0);
}

void SER_ISA(fft_make_twiddles)(float *twiddles, int64_t length);
int32_t SER_ISA(fft_place)(int64_t frequency, int64_t length);
void SER_ISA(fft_forward)(float *data, int64_t length, const float *twiddles);

#endif
