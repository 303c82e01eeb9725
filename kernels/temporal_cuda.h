/* What the CUDA operations on temporal tensors [S][B][Cp][Tp] share: reading an element of an activation or of a
 * gradient, as device/ops.h defines them, sums over a warp, and how rows are laid over blocks. A row is one channel of
 * one clip of one side: Tp floats, of which T count. */
#ifndef SER_KERNELS_TEMPORAL_CUDA_H
#define SER_KERNELS_TEMPORAL_CUDA_H

#include "kernels/cuda_kernels.h"

enum { WARP = 32, ROW_LANES = 32, ROWS_A_BLOCK = 4 };

typedef struct {
  int sides, b, c, cp, t, tp;
} cuda_dims;

static inline cuda_dims cuda_dims_of(const ser_tensor_shape *s) {
  cuda_dims d = {(int)s->sides,    (int)s->batch,
                 (int)s->channels, (int)SER_ROUND_UP(s->channels, SER_CHANNEL_PAD),
                 (int)s->time,     (int)SER_ROUND_UP(s->time, SER_TIME_PAD)};
  return d;
}

static __host__ __device__ inline int64_t cuda_rows(const cuda_dims *d) {
  return (int64_t)d->sides * d->b * d->cp;
}

/* A block of ROWS_A_BLOCK warps, a row each: kernels get their row from cuda_row(). */
static inline dim3 cuda_row_block(void) {
  return dim3(ROW_LANES, ROWS_A_BLOCK);
}
static inline unsigned cuda_row_blocks(int64_t rows) {
  return cuda_blocks(rows, ROWS_A_BLOCK);
}
static __device__ inline int64_t cuda_row(void) {
  return (int64_t)blockIdx.x * ROWS_A_BLOCK + threadIdx.y;
}

/* Where a row stands: its side, its clip of the side, its channel. */
typedef struct {
  int side, b, c;
} cuda_place;
static __device__ inline cuda_place cuda_place_of(int64_t row, const cuda_dims *d) {
  unsigned clip = (unsigned)(row / d->cp); /* of all sides */
  cuda_place place = {(int)(clip / (unsigned)d->b), (int)(clip % (unsigned)d->b), (int)(row % d->cp)};
  return place;
}

/* max(0, v), but NaN stays NaN: a broken run must show. */
static __device__ inline float cuda_relu(float v) {
  return v < 0 ? 0 : v;
}

/* relu(x * scale + shift) * drop, or x alone where plain. */
typedef struct {
  const float *x; /* [Tp] */
  float scale, shift, drop;
  bool plain;
} cuda_act_row;

static __device__ inline cuda_act_row cuda_act_row_of(const ser_activation *a, int64_t row, cuda_place at,
                                                      const cuda_dims *d) {
  cuda_act_row r = {a->x + row * d->tp, 1, 0, 1, !a->scale};
  if (r.plain) return r;
  r.scale = a->scale[at.side * d->cp + at.c];
  r.shift = a->shift[at.side * d->cp + at.c];
  if (a->drop) r.drop = a->drop[row];
  return r;
}

/* Column t < T of the row. */
static __device__ inline float cuda_act(const cuda_act_row *r, float x) {
  return r->plain ? x : cuda_relu(fmaf(x, r->scale, r->shift)) * r->drop;
}

/* A row of the gradient at a batch norm's input: dz, xhat, dy = scale * (dz - sum_dz - xhat * sum_dzx). */
typedef struct {
  const float *da, *y; /* [Tp] */
  float scale, shift, drop, mean, inv_std, sum_dz, sum_dzx;
  bool plain; /* dy = da */
} cuda_grad_row;

static __device__ inline cuda_grad_row cuda_grad_row_of(const ser_gradient *g, int64_t row, cuda_place at,
                                                        const cuda_dims *d) {
  cuda_grad_row r = {g->da ? g->da + row * d->tp : NULL, NULL, 1, 0, 1, 0, 0, 0, 0, !g->y.scale};
  if (r.plain) return r;
  int channel = at.side * d->cp + at.c;
  r.y = g->y.x + row * d->tp;
  r.scale = g->y.scale[channel];
  r.shift = g->y.shift[channel];
  if (g->y.drop) r.drop = g->y.drop[row];
  r.mean = g->mean[channel];
  r.inv_std = g->inv_std[channel];
  if (g->sums) {
    r.sum_dz = g->sums[2 * at.side * d->cp + at.c];
    r.sum_dzx = g->sums[(2 * at.side + 1) * d->cp + at.c];
  }
  return r;
}

/* dy at a column t < T where the tensors hold da and y. */
static __device__ inline float cuda_grad(const cuda_grad_row *r, float da, float y) {
  if (r->plain) return da;
  float dz = fmaf(y, r->scale, r->shift) > 0 ? da * (r->scale * r->drop) : 0;
  return dz - r->scale * r->sum_dz - (y - r->mean) * (r->scale * r->sum_dzx * r->inv_std);
}

/* The sum over a warp, in every lane, by halves: one order. */
static __device__ inline double cuda_warp_sum(double v) {
#pragma unroll
  for (int apart = WARP / 2; apart; apart /= 2) v += __shfl_xor_sync(0xffffffffu, v, apart);
  return v;
}

#endif
