/* What the operations on temporal tensors [S][B][Cp][Tp] share: reading a row of an activation or of a gradient, a
 * vector of time at a time, as device/ops.h defines them. A row is one channel of one clip on one side: Tp floats, of
 * which T count. */
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

/* A clip on one of its sides, what most tasks work on; sides lie one behind the other, so that `at` counts through
 * both. */
typedef struct {
  int64_t side, at;
} ser_clip;

static inline ser_clip clip_of(int64_t side, int64_t b, int64_t batch) {
  return (ser_clip){side, side * batch + b};
}

/* The clip of a task that is one of sides * batch. */
static inline ser_clip clip_of_task(size_t task, int64_t batch) {
  return (ser_clip){(int64_t)task / batch, (int64_t)task};
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

/* The sum of all lanes, in double, halves added to halves: quicker than v_sum, for sums of every row. */
static inline double v_total(vf v) {
#if VW == 16
  __m512d halves = _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v)),
                                 _mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)v, 1)));
  __m256d quarters = _mm256_add_pd(_mm512_castpd512_pd256(halves), _mm512_extractf64x4_pd(halves, 1));
  __m128d last = _mm_add_pd(_mm256_castpd256_pd128(quarters), _mm256_extractf128_pd(quarters, 1));
  return last[0] + last[1];
#elif VW == 8
  __m256d halves = _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)v)),
                                 _mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, 1)));
  __m128d last = _mm_add_pd(_mm256_castpd256_pd128(halves), _mm256_extractf128_pd(halves, 1));
  return last[0] + last[1];
#else
  return v_sum(v);
#endif
}

/* relu(x * scale + shift) * drop, or x alone where plain. */
typedef struct {
  const float *x; /* [Tp] */
  float scale, shift, drop;
  bool plain;
} act_row;

static inline act_row act_row_of(const ser_activation *a, ser_clip clip, int64_t c, const ser_dims *d) {
  int64_t channel = clip.side * d->cp + c, at = clip.at * d->cp + c;
  act_row row = {a->x + at * d->tp, 1, 0, 1, !a->scale};
  if (row.plain) return row;
  row.scale = a->scale[channel];
  row.shift = a->shift[channel];
  if (a->drop) row.drop = a->drop[at];
  return row;
}

/* Lanes t .. t + VW of the row; zero from column T on. */
static inline vf act_at(const act_row *row, int64_t t, const ser_dims *d) {
  vf x = v_load(row->x + t);
  if (row->plain) return x; /* its padding is zero */
  return v_keep(v_relu(x * row->scale + row->shift) * row->drop, d->t - t);
}

/* The row written out: to [Tp]. */
static inline void act_write(float *to, const act_row *row, const ser_dims *d) {
  int64_t t = 0;
  if (row->plain) {
    memcpy(to, row->x, (size_t)d->tp * sizeof *to);
    return;
  }
  for (; t + VW <= d->t; t += VW) v_store(to + t, v_relu(v_load(row->x + t) * row->scale + row->shift) * row->drop);
  for (; t < d->tp; t += VW) v_store(to + t, act_at(row, t, d));
}

/* A row of the gradient at a batch norm's input: dz, xhat, and dy = scale * (dz - sum_dz - xhat * sum_dzx). */
typedef struct {
  const float *da, *y; /* [Tp] */
  float scale, shift, drop, mean, inv_std, sum_dz, sum_dzx;
  bool plain; /* dy = da */
} grad_row;

static inline grad_row grad_row_of(const ser_gradient *g, ser_clip clip, int64_t c, const ser_dims *d) {
  int64_t channel = clip.side * d->cp + c, at = clip.at * d->cp + c;
  grad_row row = {.da = g->da ? g->da + at * d->tp : NULL, .drop = 1, .plain = !g->y.scale};
  if (row.plain) return row;
  row.y = g->y.x + at * d->tp;
  row.scale = g->y.scale[channel];
  row.shift = g->y.shift[channel];
  if (g->y.drop) row.drop = g->y.drop[at];
  row.mean = g->mean[channel];
  row.inv_std = g->inv_std[channel];
  if (g->sums) {
    const float *sums = g->sums + clip.side * 2 * d->cp;
    row.sum_dz = sums[c];
    row.sum_dzx = sums[d->cp + c];
  }
  return row;
}

/* dy written out: to [Tp]. */
static inline void grad_write(float *to, const grad_row *row, const ser_dims *d) {
  if (row->plain) {
    memcpy(to, row->da, (size_t)d->tp * sizeof *to);
    return;
  }
  vf zero = {0};
  float pass = row->scale * row->drop, even = row->scale * row->sum_dz;
  float slope = row->scale * row->sum_dzx * row->inv_std;
  for (int64_t t = 0; t < d->tp; t += VW) {
    vf y = v_load(row->y + t);
    vf dz = v_select(y * row->scale + row->shift > zero, v_load(row->da + t) * pass, zero);
    v_store(to + t, v_keep(dz - even - (y - row->mean) * slope, d->t - t));
  }
}

/* Sums over the row of dz and of dz * xhat, for the gradient da [Tp]. */
static inline void grad_sums(float *dz_sum, float *product_sum, const grad_row *row, const float *da,
                             const ser_dims *d) {
  vf sum = {0}, product = {0}, zero = {0};
  for (int64_t t = 0; t < d->tp; t += VW) {
    vf y = v_load(row->y + t);
    vf dz = v_select(y * row->scale + row->shift > zero, v_load(da + t), zero); /* zero from column T on, as da is */
    sum += dz;
    product += dz * (y - row->mean);
  }
  *dz_sum = (float)(v_total(sum) * (double)row->drop);
  *product_sum = (float)(v_total(product) * (double)row->drop * (double)row->inv_std);
}

#endif
