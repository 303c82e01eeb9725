/* exp and the logistic function of a vector of floats. */
#ifndef SER_KERNELS_MATH_H
#define SER_KERNELS_MATH_H

#include "kernels/simd.h"

/* exp(x) within 2 units in the last place for x in [-87, 88]; x is held to that range first, NaN stays NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts (Cody and Waite); exp(r) by its Taylor series to r^7. */
static inline vf v_exp(vf x) {
  const vf low = v_set(-87), high = v_set(88);
  x = v_select(x < low, low, v_select(x > high, high, x));
  const vf magic = v_set(0x1.8p23f); /* adding it rounds to a whole number */
  vf shifted = x * 0x1.715476p+0f + magic;
  vf n = shifted - magic;
  vf r = x - n * 0x1.62e400p-1f; /* exact: 15 bits of ln 2, times a small whole number */
  r = r - n * 0x1.7f7d1cp-20f;
  vf p = v_set(1.0f / 5040);
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  vi exponent = ((vi)shifted - (vi)magic) << 23; /* 2^n is added to p's exponent */
  return (vf)((vi)p + exponent);
}

static inline vf v_sigmoid(vf x) {
  return 1 / (1 + v_exp(-x));
}

#endif
