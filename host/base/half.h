/* Half precision (IEEE 754 binary16) from and to float32, without asking the processor for it. */
#ifndef SER_BASE_HALF_H
#define SER_BASE_HALF_H

#include <stdint.h>
#include <string.h>

/* The half's exponent and fraction, moved to their places, are the number times 2^-112: that product is exact for
 * numbers below the normal ones, too. Infinities and NaN come out as 65536 and above, and get their exponent. */
static inline float ser_from_half(uint16_t half) {
  uint32_t bits = (uint32_t)(half & 0x7fff) << 13;
  float value;
  memcpy(&value, &bits, sizeof value);
  value *= 0x1p112f;
  memcpy(&bits, &value, sizeof bits);
  if (value >= 65536.0f) bits |= 0x7f800000;
  bits |= (uint32_t)(half & 0x8000) << 16;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* The nearest half, of two the even one. Finite numbers beyond 65504 become 65504, and infinities stay what they are.
 * Below the normal halves, adding 0.5 leaves as many bits of the fraction as they have. */
static inline uint16_t ser_to_half(float value) {
  uint32_t bits, sign;
  memcpy(&bits, &value, sizeof bits);
  sign = bits >> 16 & 0x8000;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return (uint16_t)(sign | 0x7e00);
  if (bits == 0x7f800000) return (uint16_t)(sign | 0x7c00);
  if (bits >= 0x477fe000) return (uint16_t)(sign | 0x7bff);
  if (bits < 0x38800000) {
    float small;
    memcpy(&small, &bits, sizeof small);
    small += 0.5f;
    memcpy(&bits, &small, sizeof bits);
    return (uint16_t)(sign | (bits - 0x3f000000));
  }
  bits += 0xfff + (bits >> 13 & 1);
  bits = (bits - 0x38000000) >> 13;
  return (uint16_t)(sign | (bits > 0x7bff ? 0x7bff : bits));
}

#endif
