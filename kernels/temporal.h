/* What the operations on temporal tensors [B][Cp][Tp] share: reading a row of an activation or of a gradient, a vector
 * of time at a time, as device/ops.h defines them. A row is one channel of one clip: Tp floats, of which T count. */
#ifndef SER_KERNELS_TEMPORAL_H
#define SER_KERNELS_TEMPORAL_H

#include "device/ops.h"
#include "kernels/simd.h"

typedef struct {
  int64_t c, cp, t, tp; /* channels, time; padded */
} ser_dims;

static inline ser_dims dims_of(int64_t channels, int64_t time) {
  return (ser_dims){channels, SER_ROUND_UP(channels, SER_CHANNEL_PAD), time, SER_ROUND_UP(time, SER_TIME_PAD)};
}

/* The first n lanes of v, zeros behind. */
static inline vf v_keep(vf v, int64_t n) {
  return n >= VW ? v : (vf)((vi)v & v_first(n));
}

/* max(0, v), but NaN stays NaN: a broken run must show. */
static inline vf v_relu(vf v) {
  vf zero = {0};
  return v_select(v < zero, zero, v);
}

static inline float dot_sum(vf v) {
  return (float)v_sum(v);
}

/* relu(x * scale + shift) * drop, or x alone where plain. */
typedef struct {
  const float *x; /* [Tp] */
  float scale, shift, drop;
  bool plain;
} act_row;

static inline act_row act_row_of(const ser_activation *a, int64_t b, int64_t c, const ser_dims *d) {
  act_row row = {a->x + (b * d->cp + c) * d->tp, 1, 0, 1, !a->scale};
  if (row.plain) return row;
  row.scale = a->scale[c];
  row.shift = a->shift[c];
  if (a->drop) row.drop = a->drop[b * d->cp + c];
  return row;
}

/* Lanes t .. t + VW of the row; zero from column T on. */
static inline vf act_at(const act_row *row, int64_t t, const ser_dims *d) {
  vf x = v_load(row->x + t);
  if (row->plain) return x; /* its padding is zero */
  return v_keep(v_relu(x * row->scale + row->shift) * row->drop, d->t - t);
}

/* A row of the gradient at a batch norm's input: dz, xhat, and dy = scale * (dz - sum_dz - xhat * sum_dzx). */
typedef struct {
  const float *da, *y; /* [Tp] */
  float scale, shift, drop, mean, inv_std, sum_dz, sum_dzx;
  bool plain; /* dy = da */
} grad_row;

static inline grad_row grad_row_of(const ser_gradient *g, int64_t b, int64_t c, const ser_dims *d) {
  int64_t at = (b * d->cp + c) * d->tp;
  grad_row row = {.da = g->da ? g->da + at : NULL, .drop = 1, .plain = !g->y.scale};
  if (row.plain) return row;
  row.y = g->y.x + at;
  row.scale = g->y.scale[c];
  row.shift = g->y.shift[c];
  if (g->y.drop) row.drop = g->y.drop[b * d->cp + c];
  row.mean = g->mean[c];
  row.inv_std = g->inv_std[c];
  if (g->sums) {
    row.sum_dz = g->sums[c];
    row.sum_dzx = g->sums[d->cp + c];
  }
  return row;
}

/* dz and xhat of lanes t .. t + VW from da there. dz is zero from column T on, since da is; xhat is not. */
static inline void grad_parts(const grad_row *row, vf da, int64_t t, vf *dz, vf *xhat) {
  vf y = v_load(row->y + t);
  vf zero = {0};
  *dz = v_select(y * row->scale + row->shift > zero, da * row->drop, zero);
  *xhat = (y - row->mean) * row->inv_std;
}

/* dy of lanes t .. t + VW; zero from column T on. */
static inline vf grad_at(const grad_row *row, int64_t t, const ser_dims *d) {
  vf da = v_load(row->da + t), dz, xhat;
  if (row->plain) return da;
  grad_parts(row, da, t, &dz, &xhat);
  return v_keep(row->scale * (dz - row->sum_dz - xhat * row->sum_dzx), d->t - t);
}

#endif
