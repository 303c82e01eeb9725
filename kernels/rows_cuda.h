/* What the CUDA kernels on the encoder's rows share: which rows of which clip a block works on, GELU, sums over a warp,
 * rows of any alignment, and layer norm of a row that a warp holds. The device form of rows.h. */
#ifndef SER_KERNELS_ROWS_CUDA_H
#define SER_KERNELS_ROWS_CUDA_H

#include "cuda/cuda.h"
#include "kernels/temporal_cuda.h"

/* x Phi(x), exact; NaN stays NaN. */
static __device__ __forceinline__ float cuda_gelu(float x) {
  return 0.5f * x * (1 + erff(x * 0.70710678f));
}

/* The sum over the warp's lanes, the same in each; all of them must come. */
static __device__ __forceinline__ float cuda_warp_add(float x) {
#pragma unroll
  for (int apart = CUDA_WARP / 2; apart; apart /= 2) x += __shfl_xor_sync(0xffffffffu, x, apart);
  return x;
}

/* ---- parts of clips ---- */

/* A part of `each` entries that begins at a multiple of `each` in its clip. */
typedef struct {
  int clip;
  int64_t start;  /* the clip's first entry, of all */
  int64_t length; /* of the clip */
  int64_t first;  /* the part's first entry, of the clip; the part may lie behind its end */
} cuda_part;

/* The host does not know the clips' lengths: each has as many parts as it might need. */
static inline int64_t cuda_parts(int64_t entries, int64_t clips, int64_t each) {
  return entries / each + clips;
}

/* Parts are numbered over all clips; clip c's begin with this. */
static __device__ __forceinline__ int64_t cuda_first_part(const int64_t *start, int clip, int each) {
  return (start[clip] - start[0]) / each + clip;
}

/* start [clips + 1]: where clips begin. */
static __device__ inline cuda_part cuda_part_of(const int64_t *start, int clips, int64_t part, int each) {
  int low = 0, high = clips; /* the clip that has the part */
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (cuda_first_part(start, middle, each) <= part)
      low = middle;
    else
      high = middle;
  }
  cuda_part of = {low, start[low], start[low + 1] - start[low], (part - cuda_first_part(start, low, each)) * each};
  return of;
}

/* ---- rows ---- */

/* Entries at .. at + 3 of a row of n, zero behind it; n is a multiple of 4 where `aligned`, and rows begin on 16 bytes.
 */
static __device__ __forceinline__ float4 cuda_read_four(const float *row, int at, int n, bool aligned) {
  if (at >= n) return make_float4(0, 0, 0, 0);
  if (aligned) return *(const float4 *)(row + at);
  return make_float4(row[at], at + 1 < n ? row[at + 1] : 0, at + 2 < n ? row[at + 2] : 0, at + 3 < n ? row[at + 3] : 0);
}

static __device__ __forceinline__ void cuda_write_four(float *row, int at, float4 v, int n, bool aligned) {
  if (at >= n) return;
  if (aligned) {
    *(float4 *)(row + at) = v;
    return;
  }
  row[at] = v.x;
  if (at + 1 < n) row[at + 1] = v.y;
  if (at + 2 < n) row[at + 2] = v.z;
  if (at + 3 < n) row[at + 3] = v.w;
}

static inline bool cuda_is_aligned(const void *memory) {
  return (uintptr_t)memory % 16 == 0;
}

/* The squares of four entries about the mean; what lies behind the row's end adds nothing. */
static __device__ __forceinline__ float cuda_squares(float4 v, float mean, int at, int n) {
  float a = v.x - mean, b = at + 1 < n ? v.y - mean : 0, c = at + 2 < n ? v.z - mean : 0,
        d = at + 3 < n ? v.w - mean : 0;
  return at < n ? fmaf(a, a, b * b) + fmaf(c, c, d * d) : 0;
}

static __device__ __forceinline__ float4 cuda_normed(float4 v, float mean, float scale, float4 gamma, float4 beta,
                                                     bool gelu) {
  v = make_float4(fmaf((v.x - mean) * scale, gamma.x, beta.x), fmaf((v.y - mean) * scale, gamma.y, beta.y),
                  fmaf((v.z - mean) * scale, gamma.z, beta.z), fmaf((v.w - mean) * scale, gamma.w, beta.w));
  return gelu ? make_float4(cuda_gelu(v.x), cuda_gelu(v.y), cuda_gelu(v.z), cuda_gelu(v.w)) : v;
}

#endif
