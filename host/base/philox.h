/* Philox4x32-10 (Salmon et al., SC 2011): counter-based random numbers. The same key and counter give the same numbers
 * on every machine and backend, whoever asks and in whatever order; that is what makes a resumed run repeat itself. */
#ifndef SER_BASE_PHILOX_H
#define SER_BASE_PHILOX_H

#include <stdint.h>

#include "base/everywhere.h"

typedef struct {
  uint32_t v[4];
} ser_philox;

SER_EVERYWHERE static inline ser_philox ser_philox_at(uint64_t key, uint64_t high, uint64_t low) {
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
  uint32_t c0 = (uint32_t)low, c1 = (uint32_t)(low >> 32), c2 = (uint32_t)high, c3 = (uint32_t)(high >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
    uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1;
    c3 = (uint32_t)p0;
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  ser_philox numbers = {{c0, c1, c2, c3}};
  return numbers;
}

/* In [0, 1), 24 bits: exact in a float. */
SER_EVERYWHERE static inline float ser_uniform(uint32_t bits) {
  return (float)(bits >> 8) * 0x1p-24f;
}

#endif
