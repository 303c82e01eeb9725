/* Forward complex FFT (numpy.fft.fft) of VW signals side by side in SIMD lanes, in place, radix 4, decimation in
 * frequency. data: [length][2][VW], real parts before imaginary ones. The output stays in digit-reversed order:
 * frequency k lies at fft_place(k). Each lane sees the same operations in the same order whatever the others hold.
 *
 * Long transforms go depth first, so that a quarter that fits the first-level cache is finished before the next one is
 * touched.
 */
#include "kernels/fft.h"

#include <math.h>

/* A transform up to this size stays in the first-level cache with room for its twiddles. */
enum { CACHED_BYTES = 16384 };

/* For each level of length L, then L / 4 and so on: w^n, w^2n, w^3n with w = e^(-2 pi i / L), n < L / 4. */
void SER_ISA(fft_make_twiddles)(float *twiddles, int64_t length) {
  for (; length >= 8; length /= 4)
    for (int64_t n = 0; n < length / 4; n++)
      for (int64_t power = 1; power <= 3; power++) {
        double angle = -2 * M_PI * (double)(n * power) / (double)length;
        *twiddles++ = (float)cos(angle);
        *twiddles++ = (float)sin(angle);
      }
}

int32_t SER_ISA(fft_place)(int64_t frequency, int64_t length) {
  int64_t place = 0;
  for (; length >= 4; length /= 4, frequency /= 4) place += frequency % 4 * (length / 4);
  return (int32_t)(place + (length == 2 ? frequency : 0));
}

/* y[q] = sum over j of x[j] (-i)^(jq), x and y as [4][re, im]. */
static inline void butterfly4(vf y[8], const vf x[8]) {
  vf a_re = x[0] + x[4], a_im = x[1] + x[5], b_re = x[0] - x[4], b_im = x[1] - x[5];
  vf c_re = x[2] + x[6], c_im = x[3] + x[7], d_re = x[2] - x[6], d_im = x[3] - x[7];
  y[0] = a_re + c_re;
  y[1] = a_im + c_im;
  y[2] = b_re + d_im;
  y[3] = b_im - d_re;
  y[4] = a_re - c_re;
  y[5] = a_im - c_im;
  y[6] = b_re - d_im;
  y[7] = b_im + d_re;
}

static inline void turn(vf y[2], const float w[2]) {
  vf re = y[0] * w[0] - y[1] * w[1];
  y[1] = y[0] * w[1] + y[1] * w[0];
  y[0] = re;
}

/* One level: `length` complex values become four transforms of a quarter of it, end to end. */
static void pass4(float *data, int64_t length, const float *w) {
  int64_t step = length / 4 * 2 * VW;
  for (int64_t n = 0; n < length / 4; n++, data += 2 * VW, w += 6) {
    vf x[8], y[8];
    V_UNROLL
    for (int j = 0; j < 4; j++) {
      x[2 * j] = v_load(data + j * step);
      x[2 * j + 1] = v_load(data + j * step + VW);
    }
    butterfly4(y, x);
    V_UNROLL
    for (int j = 1; j < 4; j++) turn(y + 2 * j, w + 2 * (j - 1));
    V_UNROLL
    for (int j = 0; j < 4; j++) {
      v_store(data + j * step, y[2 * j]);
      v_store(data + j * step + VW, y[2 * j + 1]);
    }
  }
}

static inline void leaf4(float *data) {
  vf x[8], y[8];
  V_UNROLL
  for (int i = 0; i < 8; i++) x[i] = v_load(data + i * VW);
  butterfly4(y, x);
  V_UNROLL
  for (int i = 0; i < 8; i++) v_store(data + i * VW, y[i]);
}

static inline void leaf8(float *data, const float *w) {
  pass4(data, 8, w);
  V_UNROLL
  for (int i = 0; i < 4; i++, data += 4 * VW) {
    vf a_re = v_load(data), a_im = v_load(data + VW), b_re = v_load(data + 2 * VW), b_im = v_load(data + 3 * VW);
    v_store(data, a_re + b_re);
    v_store(data + VW, a_im + b_im);
    v_store(data + 2 * VW, a_re - b_re);
    v_store(data + 3 * VW, a_im - b_im);
  }
}

/* All levels of a transform that fits the cache, level by level. */
static void transform_cached(float *data, int64_t size, const float *w) {
  int64_t length = size;
  for (; length > 8; w += 6 * (length / 4), length /= 4)
    for (int64_t first = 0; first < size; first += length) pass4(data + first * 2 * VW, length, w);
  for (int64_t first = 0; first < size; first += length)
    if (length == 8)
      leaf8(data + first * 2 * VW, w);
    else
      leaf4(data + first * 2 * VW);
}

void SER_ISA(fft_forward)(float *data, int64_t length, const float *twiddles) {
  if (length <= 16 || length * 2 * VW * (int64_t)sizeof(float) <= CACHED_BYTES) {
    transform_cached(data, length, twiddles);
    return;
  }
  int64_t quarter = length / 4;
  pass4(data, length, twiddles);
  for (int64_t j = 0; j < 4; j++) SER_ISA(fft_forward)(data + j * quarter * 2 * VW, quarter, twiddles + 6 * quarter);
}
