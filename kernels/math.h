/* exp, the logistic function, erf and GELU of a vector of floats. */
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

/* erf(x) / x is a rational function of x^2, fitted by least squares to within 2.1e-8 of erf for |x| <= 3.95, where
 * erf(x) is 1 to the last place; its roundings are 4e-7 at most. NaN stays NaN. */
static inline vf v_erf(vf x) {
  static const float above[] = {2.8468840e-4f, 3.8081836e-3f, 5.2875515e-2f, 1.9155081e-1f, 1.1283791f};
  static const float below[] = {1.1707314e-3f, 1.5055134e-2f, 1.1455983e-1f, 5.0309014e-1f, 1.0f};
  const vf most = v_set(3.95f), one = v_set(1);
  x = v_select(x < -most, -most, v_select(x > most, most, x));
  vf square = x * x, p = v_set(2.0259065e-6f), q = v_set(3.7831818e-5f);
  V_UNROLL
  for (int i = 0; i < 5; i++) {
    p = p * square + above[i];
    q = q * square + below[i];
  }
  x = x * p / q;
  return v_select(x < -one, -one, v_select(x > one, one, x));
}

/* x Phi(x), the exact form (torch.nn.GELU without an approximation). */
static inline vf v_gelu(vf x) {
  return 0.5f * x * (1 + v_erf(x * 0.70710678f));
}

#endif
