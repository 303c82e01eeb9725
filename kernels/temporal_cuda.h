/* What the CUDA kernels on temporal tensors [S][B][Cp][Tp] share: reading an activation and a gradient as device/ops.h
 * defines them, and sums over a warp. The device forms of temporal.h: a row is one channel of one clip on one side, Tp
 * floats, of which T count. Rows begin on 64 bytes, so that four columns are one float4. */
#ifndef SER_KERNELS_TEMPORAL_CUDA_H
#define SER_KERNELS_TEMPORAL_CUDA_H

#include "cuda/cuda.h"

enum { CUDA_WARP = 32, CUDA_ROWS = 8 }; /* rows, a warp each, of a block of those kernels that work on rows */

/* What a kernel needs of a shape; sides * batch * cp fits an int. */
typedef struct {
  int sides, batch, c, cp, t, tp;
} cuda_dims;

static inline cuda_dims cuda_dims_of(const ser_tensor_shape *shape) {
  cuda_dims d;
  d.sides = (int)shape->sides;
  d.batch = (int)shape->batch;
  d.c = (int)shape->channels;
  d.cp = (int)SER_ROUND_UP(shape->channels, SER_CHANNEL_PAD);
  d.t = (int)shape->time;
  d.tp = (int)SER_ROUND_UP(shape->time, SER_TIME_PAD);
  return d;
}

/* A row and where its channel's parameters lie: `at` counts the rows of [S][B][Cp], `vector` the entries of [S][Cp]. */
typedef struct {
  int at, side, b, c, vector;
} cuda_row;

static __device__ inline cuda_row cuda_row_of(int side, int b, int c, const cuda_dims &d) {
  cuda_row row = {(side * d.batch + b) * d.cp + c, side, b, c, side * d.cp + c};
  return row;
}

static __device__ inline cuda_row cuda_row_at(int at, const cuda_dims &d) {
  unsigned clip = (unsigned)at / (unsigned)d.cp, side = clip / (unsigned)d.batch;
  return cuda_row_of((int)side, (int)(clip - side * (unsigned)d.batch), at - (int)clip * d.cp, d);
}

/* max(0, x), but NaN stays NaN: a broken run must show. */
static __device__ inline float cuda_relu(float x) {
  return x < 0 ? 0 : x;
}

/* relu(x * scale + shift) * drop, or x alone where plain. */
typedef struct {
  const float *x; /* [Tp] */
  float scale, shift, drop;
  bool plain;
} cuda_act;

static __device__ inline cuda_act cuda_act_of(const ser_activation &a, const cuda_row &row, const cuda_dims &d) {
  cuda_act act = {a.x + (int64_t)row.at * d.tp, 1, 0, 1, !a.scale};
  if (act.plain) return act;
  act.scale = a.scale[row.vector];
  act.shift = a.shift[row.vector];
  if (a.drop) act.drop = a.drop[row.at];
  return act;
}

/* Of an x that has been read; not for columns from T on, which cuda_act_four knows to be zero. */
static __device__ inline float cuda_act_value(const cuda_act &act, float x) {
  return act.plain ? x : cuda_relu(fmaf(x, act.scale, act.shift)) * act.drop;
}

/* Columns t .. t + 3, t a multiple of 4 below Tp. */
static __device__ inline float4 cuda_act_four(const cuda_act &act, int t, const cuda_dims &d) {
  float4 x = *(const float4 *)(act.x + t);
  if (act.plain) return x; /* its padding is zero */
  return make_float4(t < d.t ? cuda_act_value(act, x.x) : 0, t + 1 < d.t ? cuda_act_value(act, x.y) : 0,
                     t + 2 < d.t ? cuda_act_value(act, x.z) : 0, t + 3 < d.t ? cuda_act_value(act, x.w) : 0);
}

/* A row of the gradient at a batch norm's input, dy = scale * (dz - sums[0] - xhat * sums[1]), in the form
 * dz * pass - even - (y - mean) * slope; dy = da where plain. */
typedef struct {
  const float *da, *y; /* [Tp] */
  float scale, shift, mean, pass, even, slope;
  float drop, inv_std; /* of the sums */
  bool plain;
} cuda_grad;

/* g.da and g.sums may be NULL where the caller does without. */
static __device__ inline cuda_grad cuda_grad_of(const ser_gradient &g, const cuda_row &row, const cuda_dims &d) {
  int64_t at = (int64_t)row.at * d.tp;
  cuda_grad grad = {g.da ? g.da + at : NULL, NULL, 1, 0, 0, 1, 0, 0, 1, 1, !g.y.scale};
  if (grad.plain) return grad;
  grad.y = g.y.x + at;
  grad.scale = g.y.scale[row.vector];
  grad.shift = g.y.shift[row.vector];
  grad.mean = g.mean[row.vector];
  grad.inv_std = g.inv_std[row.vector];
  if (g.y.drop) grad.drop = g.y.drop[row.at];
  grad.pass = grad.scale * grad.drop;
  if (!g.sums) return grad;
  const float *sums = g.sums + (int64_t)row.side * 2 * d.cp + row.c;
  grad.even = grad.scale * sums[0];
  grad.slope = grad.scale * sums[d.cp] * grad.inv_std;
  return grad;
}

/* dy of a da and a y that have been read; not for columns from T on, where it is zero. */
static __device__ inline float cuda_grad_value(const cuda_grad &grad, float da, float y) {
  if (grad.plain) return da;
  float dz = fmaf(y, grad.scale, grad.shift) > 0 ? da * grad.pass : 0;
  return dz - grad.even - (y - grad.mean) * grad.slope;
}

/* Adds to the sums of dz and dz * xhat what column has da and y, without the factors drop and inv_std, which the sums
 * get in the end. Columns from T on add nothing, since their da is zero. */
static __device__ inline void cuda_grad_add(float *dz_sum, float *product_sum, const cuda_grad &grad, float da,
                                            float y) {
  float dz = fmaf(y, grad.scale, grad.shift) > 0 ? da : 0;
  *dz_sum += dz;
  *product_sum = fmaf(dz, y - grad.mean, *product_sum);
}

/* The sum over the warp's lanes, the same in each; all of them must come. */
static __device__ inline double cuda_warp_sum(double x) {
  for (int apart = CUDA_WARP / 2; apart; apart /= 2) x += __shfl_xor_sync(0xffffffffu, x, apart);
  return x;
}

/* The sum over the block's lanes, for thread 0; room [32] is shared. A whole number of warps, all of which must come.
 * Ends with a barrier, so that the room may be used again. */
static __device__ inline double cuda_block_sum(double x, double *room) {
  int lane = threadIdx.x % CUDA_WARP, warp = threadIdx.x / CUDA_WARP, warps = blockDim.x / CUDA_WARP;
  x = cuda_warp_sum(x);
  if (lane == 0) room[warp] = x;
  __syncthreads();
  if (warp == 0) x = cuda_warp_sum(lane < warps ? room[lane] : 0);
  __syncthreads();
  return x;
}

#endif
