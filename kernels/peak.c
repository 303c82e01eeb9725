/* The processor's own limit: a loop of multiply-adds that touches no memory, as wide as the instruction set and with
 * enough chains in flight to hide their latency. What `serenade bench peak` measures; no operation of ops.h. */
#include "device/cpu.h"
#include "kernels/simd.h"

/* Twelve chains and two operands fit the 16 registers of AVX2. */
#define PEAK_CHAINS(step)                                                                                              \
  step(0) step(1) step(2) step(3) step(4) step(5) step(6) step(7) step(8) step(9) step(10) step(11)

int64_t SER_ISA(ser_peak_fma)(float *kept, int64_t rounds) {
  vf factor = v_set(0.999999f), term = v_set(1e-6f);
#define DECLARE(i) vf chain##i = v_set(*kept + (float)(i));
  PEAK_CHAINS(DECLARE)
  for (int64_t round = 0; round < rounds; round++) {
#define STEP(i) chain##i = chain##i * factor + term;
    PEAK_CHAINS(STEP)
  }
  vf sum = v_set(0);
#define ADD(i) sum += chain##i;
  PEAK_CHAINS(ADD)
  *kept = (float)v_sum(sum);
  return rounds * 12 * VW * 2;
}
