/* Rearranging floats in registers: VW x VW blocks transposed, v[i][j] becoming v[j][i], and vectors reversed. */
#ifndef SER_KERNELS_TRANSPOSE_H
#define SER_KERNELS_TRANSPOSE_H

#include "kernels/simd.h"

/* Four vectors as rows: each 128-bit quarter is transposed as a 4 x 4 block. */
#if VW == 4
#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define PAIR_LOW(a, b) __builtin_shufflevector(a, b, 0, 1, 4, 5)
#define PAIR_HIGH(a, b) __builtin_shufflevector(a, b, 2, 3, 6, 7)
#elif VW == 8
#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
#define PAIR_LOW(a, b) __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define PAIR_HIGH(a, b) __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#else
#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define PAIR_LOW(a, b) __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define PAIR_HIGH(a, b) __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#endif

static inline void transpose_quarters(vf v[4]) {
  vf low01 = ZIP_LOW(v[0], v[1]), low23 = ZIP_LOW(v[2], v[3]);
  vf high01 = ZIP_HIGH(v[0], v[1]), high23 = ZIP_HIGH(v[2], v[3]);
  v[0] = PAIR_LOW(low01, low23);
  v[1] = PAIR_HIGH(low01, low23);
  v[2] = PAIR_LOW(high01, high23);
  v[3] = PAIR_HIGH(high01, high23);
}

/* Swaps the blocks off the diagonal: those of a with odd number against those of b with even number. */
#if VW == 8
#define SWAP4(a, b)                                                                                                    \
  do {                                                                                                                 \
    vf swap_ = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11);                                                \
    b = __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);                                                     \
    a = swap_;                                                                                                         \
  } while (0)
#elif VW == 16
#define SWAP4(a, b)                                                                                                    \
  do {                                                                                                                 \
    vf swap_ = __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);                \
    b = __builtin_shufflevector(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);                     \
    a = swap_;                                                                                                         \
  } while (0)
#define SWAP8(a, b)                                                                                                    \
  do {                                                                                                                 \
    vf swap_ = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);                  \
    b = __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);                   \
    a = swap_;                                                                                                         \
  } while (0)
#endif

static inline void v_transpose(vf v[VW]) {
  V_UNROLL
  for (int i = 0; i < VW; i += 4) transpose_quarters(v + i);
#if VW >= 8
  V_UNROLL
  for (int i = 0; i < VW; i += 8) V_UNROLL
  for (int j = 0; j < 4; j++) SWAP4(v[i + j], v[i + j + 4]);
#endif
#if VW >= 16
  V_UNROLL
  for (int j = 0; j < 8; j++) SWAP8(v[j], v[j + 8]);
#endif
}

/* Lanes from last to first. */
static inline vf v_reverse(vf v) {
#if VW == 4
  return __builtin_shufflevector(v, v, 3, 2, 1, 0);
#elif VW == 8
  return __builtin_shufflevector(v, v, 7, 6, 5, 4, 3, 2, 1, 0);
#else
  return __builtin_shufflevector(v, v, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
#endif
}

#undef ZIP_LOW
#undef ZIP_HIGH
#undef PAIR_LOW
#undef PAIR_HIGH
#undef SWAP4
#undef SWAP8

#endif
