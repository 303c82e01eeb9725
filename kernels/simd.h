/* Vectors of floats, as wide as the instruction set that this copy of kernels/ is built for. GCC's and Clang's vector
 * extensions do the work; only what they cannot say is an intrinsic.
 *
 * Every file of kernels/ is compiled once for each instruction set with SER_ISA_NAME set to its name; symbols with
 * external linkage are wrapped in SER_ISA(), so that the copies live side by side.
 */
#ifndef SER_KERNELS_SIMD_H
#define SER_KERNELS_SIMD_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define SER_ISA_PASTE2(name, isa) name##_##isa
#define SER_ISA_PASTE(name, isa) SER_ISA_PASTE2(name, isa)
#define SER_ISA(name) SER_ISA_PASTE(name, SER_ISA_NAME)

#if defined(__AVX512F__)
#define VW 16
#elif defined(__AVX2__)
#define VW 8
#else
#define VW 4
#endif

/* Before a loop over a few vectors in registers: compilers leave such loops rolled at -O2 (Clang unrolls most, but late
 * where they are nested), and the vectors then live in memory. */
#if defined(__clang__)
#define V_UNROLL _Pragma("clang loop unroll(full)")
#else
#define V_UNROLL _Pragma("GCC unroll 32")
#endif

typedef float vf __attribute__((vector_size(VW * 4)));
typedef int32_t vi __attribute__((vector_size(VW * 4)));

static inline vf v_set(float x) {
  return x - (vf){0};
}

static inline vf v_load(const float *p) { /* any alignment */
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
}

static inline void v_store(float *p, vf v) {
  memcpy(p, &v, sizeof v);
}

static inline vf v_select(vi mask, vf a, vf b) { /* mask lanes are 0 or -1 */
  return (vf)((mask & (vi)a) | (~mask & (vi)b));
}

static inline vf v_max(vf a, vf b) {
  return v_select(a > b, a, b);
}

/* Lanes [0, n) are -1, the others 0. */
static inline vi v_first(int64_t n) {
  vi lanes;
  for (int i = 0; i < VW; i++) lanes[i] = i < n ? -1 : 0;
  return lanes;
}

/* n of the vector's floats, at most VW of them; the other lanes are 0. */
static inline vf v_load_first(const float *p, int64_t n) {
  if (n >= VW) return v_load(p);
  vf v = {0};
  memcpy(&v, p, (size_t)n * sizeof *p);
  return v;
}

static inline void v_store_first(float *p, vf v, int64_t n) {
  memcpy(p, &v, (size_t)(n < VW ? n : VW) * sizeof *p);
}

/* The sum of all lanes in a fixed order, in double. */
static inline double v_sum(vf v) {
  double sum = 0;
  for (int i = 0; i < VW; i++) sum += (double)v[i];
  return sum;
}

#endif
