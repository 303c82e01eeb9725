/* What the CUDA forms of the temporal convolutions share: the plan, the reading of activations and gradients, and the
 * product that the fused forward pass and the gradient of the data are made of.
 *
 * The product: made[m][t] = sum over taps k and channels r of w[m][r][k] * source[r][t - shift(k)], for one clip on one
 * side; shift(k) = (K - 1 - k) * dilation, turned round for the gradient. A block makes `octets` times 8 channels by 32
 * * COLUMNS columns; a warp 8 channels by the half of the columns (all, where there are 32), every second group of 32.
 * The source goes through shared memory in chunks of some channels of one tap, shifted, with norm, ReLU and dropout (or
 * the gradient through them) taken on the way; the next chunk is on its way from memory meanwhile. A sum's order is
 * that of k, then r, whatever the cut. Taps that a block, or a group of columns, sees only zeros of are passed over. */
#ifndef SER_KERNELS_CONV_CUDA_H
#define SER_KERNELS_CONV_CUDA_H

#include "kernels/cuda_kernels.h"
#include "kernels/temporal_cuda.h"

enum {
  CONV_OCTET = 8,                                 /* channels that a warp makes */
  CONV_OCTETS_MOST = 8,                           /* of a block */
  CONV_PITCH = CONV_OCTETS_MOST * CONV_OCTET + 4, /* from row to row of weights: written down a column, they spread */
  CONV_THREADS_BOUND =
      640, /* not reached; it holds the registers at 96, so that a multiprocessor takes two usual blocks */
  CONV_FORWARD_WARPS = 4,   /* at least: all of them load */
  CONV_BACKWARD_WARPS = 10, /* at least: a warp loads four rows of a weight gradient's tile */
  CONV_EDGE_MOST = 40,      /* of that tile */
  CONV_STEP = 32            /* columns that it takes at a time */
};

/* How the product's outputs are cut into blocks. */
typedef struct {
  int columns;                /* groups of 32 of a block: 1, 2, 4 or 6 */
  int octets;                 /* of channels, of a block */
  int time_tiles, made_tiles; /* blocks of one clip on one side */
  int warps;
} conv_cut;

/* A tap that lies a whole clip back sees zeros alone, however far it is. */
static inline int conv_dilation(const ser_conv_shape *shape) {
  return (int)(shape->dilation < shape->time ? shape->dilation : shape->time);
}

struct conv_cudnn;

typedef struct {
  cuda_plan base;
  ser_conv_shape shape;
  cuda_dims in, out; /* of the largest batch */
  conv_cut forward, backward;
  int edge_out, edge_in; /* of the weight gradient's tile: channels of y and of x, multiples of 4 */
  int group;             /* clips whose weight gradients one block sums */
  size_t weights;        /* of a side */
  size_t partial;        /* floats of one group's gradients: dw, then dbias */
  size_t rows;           /* floats of the rows' partial moments or sums, in front of the gradients in the workspace */
  struct conv_cudnn *cudnn; /* NULL: fused */
} conv_plan;

/* conv_cudnn.cu */
ser_status conv_cudnn_prepare(conv_plan *plan, ser_error *err);
void conv_cudnn_end(conv_plan *plan);
void conv_cudnn_forward(ser_stream *stream, const conv_plan *plan, void *workspace, float *y, float *moments,
                        const ser_activation *x, const float *w, const float *bias, int64_t batch);
void conv_cudnn_backward(ser_stream *stream, const conv_plan *plan, void *workspace, float *dx, float *dw, float *dbias,
                         float *next, const ser_activation *x, const ser_gradient *x_norm, const ser_gradient *dy,
                         const float *w, bool add_dx, int64_t batch);

/* ---- device code: rows --------------------------------------------------------------------------------------------
 */

/* A row's numbers wait in the registers of eight lanes, one each, while its values are on their way: this gives the
 * lane's. x.x is not read; of an activation the first three count. c: the channel, of so many (padded); clip
 * counts through the sides. */
static __device__ __forceinline__ float conv_part(const ser_gradient *g, int side, size_t clip, int c, int padded) {
  size_t channel = (size_t)side * padded + c, row = clip * padded + c;
  const float *sums = g->sums ? g->sums + channel + (size_t)side * padded : NULL;
  const float *from = NULL;
  switch (threadIdx.x % 8) {
  case 0:
    from = g->y.scale + channel;
    break;
  case 1:
    from = g->y.shift + channel;
    break;
  case 2:
    from = g->y.drop ? g->y.drop + row : NULL;
    break;
  case 3:
    from = g->mean ? g->mean + channel : NULL;
    break;
  case 4:
    from = g->inv_std ? g->inv_std + channel : NULL;
    break;
  case 5:
    from = sums;
    break;
  case 6:
    from = sums ? sums + padded : NULL;
    break;
  }
  return g->y.scale && from ? __ldg(from) : threadIdx.x % 8 == 2;
}

/* The whole row (but for its pointers) from its eight lanes; all lanes of the warp take part. */
static __device__ __forceinline__ cuda_act conv_act_of(float part, bool plain) {
  const unsigned all = 0xffffffffu;
  return {NULL, __shfl_sync(all, part, 0, 8), __shfl_sync(all, part, 1, 8), __shfl_sync(all, part, 2, 8), plain};
}

static __device__ __forceinline__ cuda_grad conv_grad_of(float part, bool plain) {
  const unsigned all = 0xffffffffu;
  cuda_act act = conv_act_of(part, plain);
  cuda_grad grad = {NULL,
                    NULL,
                    act.scale,
                    act.shift,
                    __shfl_sync(all, part, 3, 8),
                    act.scale * act.drop,
                    0,
                    0,
                    act.drop,
                    __shfl_sync(all, part, 4, 8),
                    plain};
  grad.even = grad.scale * __shfl_sync(all, part, 5, 8);
  grad.slope = grad.scale * __shfl_sync(all, part, 6, 8) * grad.inv_std;
  return grad;
}

/* Sums over the warp of eight values at once, halves exchanged; lane l returns that of value l / 4. */
static __device__ __forceinline__ float conv_warp_sums(const float (&v)[CONV_OCTET]) {
  const unsigned all = 0xffffffffu;
  unsigned lane = threadIdx.x % 32;
  float four[4], two[2], one;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float keep = lane & 16 ? v[4 + i] : v[i], give = lane & 16 ? v[i] : v[4 + i];
    four[i] = keep + __shfl_xor_sync(all, give, 16);
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float keep = lane & 8 ? four[2 + i] : four[i], give = lane & 8 ? four[i] : four[2 + i];
    two[i] = keep + __shfl_xor_sync(all, give, 8);
  }
  one = (lane & 4 ? two[1] : two[0]) + __shfl_xor_sync(all, lane & 4 ? two[0] : two[1], 4);
  one += __shfl_xor_sync(all, one, 2);
  return one + __shfl_xor_sync(all, one, 1);
}

/* ---- device code: the product -------------------------------------------------------------------------------------
 */

/* Warps over the time of a block; groups of columns of a warp; channels of the source that a warp brings to a chunk. */
__host__ __device__ constexpr int conv_time_warps(int columns) {
  return columns > 1 ? 2 : 1;
}
__host__ __device__ constexpr int conv_groups(int columns) {
  return columns / conv_time_warps(columns);
}
__host__ __device__ constexpr int conv_brought(int columns, bool back) {
  return back ? (columns == 6 ? 1 : 2) : columns == 6 ? 2 : columns == 4 ? 3 : 4;
}

/* What the product reads. Forwards only source.y counts. */
typedef struct {
  ser_gradient source;
  const float *w;
  cuda_dims from, made; /* of the source and of what is made */
  int64_t w_side;       /* steps of w */
  int w_from, w_made;
  int taps, dilation; /* held to the clip's length */
  conv_cut cut;
} conv_factors;

/* A block's place: its side and clip, and the first channel and column that it makes. */
typedef struct {
  int side, made, time, tile;
  size_t clip; /* counts through the sides */
} conv_place;

static __device__ __forceinline__ conv_place conv_place_of(unsigned block, const conv_cut *cut, int columns,
                                                           int batch) {
  unsigned tile = block % (unsigned)cut->time_tiles, rest = block / (unsigned)cut->time_tiles;
  unsigned made = rest % (unsigned)cut->made_tiles, clip = rest / (unsigned)cut->made_tiles;
  return {(int)(clip / (unsigned)batch), (int)made * cut->octets * CONV_OCTET, (int)tile * 32 * columns, (int)tile,
          clip};
}

static __device__ __forceinline__ int conv_shift(const conv_factors *f, int tap) {
  return (f->taps - 1 - tap) * f->dilation;
}

/* A chunk on its way from memory: the thread's share of it. */
template <int COLUMNS, bool BACK> struct conv_carry {
  static constexpr int ROWS = conv_brought(COLUMNS, BACK);
  float x[ROWS][COLUMNS], y[BACK ? ROWS : 1][BACK ? COLUMNS : 1];
  float part[ROWS], w[2 * ROWS]; /* part: the lane's of each row */
};

/* A chunk of the sum: channels [first, first + count) of one tap. */
typedef struct {
  int tap, first, count, shift;
} conv_chunk;

template <int COLUMNS, bool BACK>
static __device__ __forceinline__ void conv_fetch(conv_carry<COLUMNS, BACK> *carry, const conv_factors *f,
                                                  const conv_place *at, const conv_chunk *chunk) {
  constexpr int ROWS = conv_brought(COLUMNS, BACK);
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, width = f->cut.octets * CONV_OCTET;
#pragma unroll
  for (int j = 0; j < ROWS; j++) {
    int r = warp * ROWS + j;
    if (r >= chunk->count) continue;
    int c = chunk->first + r;
    size_t row = at->clip * f->from.cp + c;
    int start = at->time + lane + (BACK ? chunk->shift : -chunk->shift);
    const float *x = (BACK ? f->source.da : f->source.y.x) + row * f->from.tp;
    const float *y = f->source.y.x + row * f->from.tp;
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
      int t = start + 32 * i;
      bool inside = t >= 0 && t < f->from.t;
      carry->x[j][i] = inside ? __ldg(x + t) : 0;
      if constexpr (BACK) carry->y[j][i] = inside && f->source.y.scale ? __ldg(y + t) : 0;
    }
    carry->part[j] = conv_part(&f->source, at->side, at->clip, c, f->from.cp);
  }
  const float *w = f->w + at->side * f->w_side + at->made * f->w_made + chunk->first * f->w_from + chunk->tap;
#pragma unroll
  for (int j = 0; j < 2 * ROWS; j++) {
    int e = (int)(threadIdx.x + j * blockDim.x);
    int r = BACK ? e / width : e % chunk->count, m = BACK ? e % width : e / chunk->count;
    carry->w[j] =
        r < chunk->count && m < width && at->made + m < f->made.c ? __ldg(w + r * f->w_from + m * f->w_made) : 0;
  }
}

/* source [count][32 * COLUMNS], w [count][CONV_PITCH] in shared memory. */
template <int COLUMNS, bool BACK>
static __device__ __forceinline__ void conv_stash(float *source, float *w, const conv_carry<COLUMNS, BACK> *carry,
                                                  const conv_factors *f, const conv_place *at,
                                                  const conv_chunk *chunk) {
  constexpr int ROWS = conv_brought(COLUMNS, BACK);
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, width = f->cut.octets * CONV_OCTET;
#pragma unroll
  for (int j = 0; j < ROWS; j++) {
    int r = warp * ROWS + j;
    if (r >= chunk->count) continue;
    cuda_grad grad = {};
    cuda_act act = {};
    if constexpr (BACK)
      grad = conv_grad_of(carry->part[j], !f->source.y.scale);
    else
      act = conv_act_of(carry->part[j], !f->source.y.scale);
    int start = at->time + lane + (BACK ? chunk->shift : -chunk->shift);
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
      int t = start + 32 * i;
      float v;
      if constexpr (BACK)
        v = cuda_grad_value(grad, carry->x[j][i], carry->y[j][i]);
      else
        v = cuda_act_value(act, carry->x[j][i]);
      source[r * 32 * COLUMNS + 32 * i + lane] = t >= 0 && t < f->from.t ? v : 0;
    }
  }
#pragma unroll
  for (int j = 0; j < 2 * ROWS; j++) {
    int e = (int)(threadIdx.x + j * blockDim.x);
    int r = BACK ? e / width : e % chunk->count, m = BACK ? e % width : e / chunk->count;
    if (r < chunk->count && m < width) w[r * CONV_PITCH + m] = carry->w[j];
  }
}

/* sum[m][g] += w[r][m] * source[r][g * STEP], over `count` rows and groups [FROM, TO). */
template <int GROUPS, int STEP, int FROM, int TO>
static __device__ __forceinline__ void conv_rows(float (&sum)[CONV_OCTET][GROUPS], const float *source, int pitch,
                                                 const float *w, int w_pitch, int count) {
#pragma unroll 2
  for (int r = 0; r < count; r++, source += pitch, w += w_pitch) {
    float4 low = *(const float4 *)w, high = *(const float4 *)(w + 4);
    float of[CONV_OCTET] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int g = FROM; g < TO; g++) {
      float v = source[g * STEP];
#pragma unroll
      for (int m = 0; m < CONV_OCTET; m++) sum[m][g] = fmaf(of[m], v, sum[m][g]);
    }
  }
}

/* The same for the first `active` groups, or the last. */
template <int GROUPS, int STEP, bool LAST>
static __device__ __forceinline__ void conv_active_rows(float (&sum)[CONV_OCTET][GROUPS], const float *source,
                                                        int pitch, const float *w, int w_pitch, int count, int active) {
  constexpr int ONE = LAST ? GROUPS - 1 : 1, TWO = LAST ? (GROUPS > 2 ? GROUPS - 2 : 0) : GROUPS > 2 ? 2 : GROUPS;
  if (active >= GROUPS)
    conv_rows<GROUPS, STEP, 0, GROUPS>(sum, source, pitch, w, w_pitch, count);
  else if (GROUPS > 2 && active == 2)
    conv_rows<GROUPS, STEP, LAST ? TWO : 0, LAST ? GROUPS : TWO>(sum, source, pitch, w, w_pitch, count);
  else if (GROUPS > 1 && active == 1)
    conv_rows<GROUPS, STEP, LAST ? ONE : 0, LAST ? GROUPS : ONE>(sum, source, pitch, w, w_pitch, count);
}

/* Floats of shared memory that the product takes. */
static inline size_t conv_product_floats(const conv_cut *cut, bool back) {
  size_t rows = (size_t)(cut->warps * conv_brought(cut->columns, back));
  return rows * (size_t)(32 * cut->columns + CONV_PITCH);
}

/* Adds the product to sum: lane l of warp (octet, half) makes channels 8 * octet .. + 8 of its block and columns
 * 32 * (2 * g + half) + l. */
template <int COLUMNS, bool BACK>
static __device__ __forceinline__ void conv_product(float (&sum)[CONV_OCTET][conv_groups(COLUMNS)], float *shared,
                                                    const conv_factors *f, const conv_place *at) {
  constexpr int GROUPS = conv_groups(COLUMNS), HALVES = conv_time_warps(COLUMNS), ALL = 32 * COLUMNS;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int rows = f->cut.warps * conv_brought(COLUMNS, BACK), half = warp % HALVES, octet = warp / HALVES;
  float *source = shared, *w = shared + rows * ALL;
  conv_carry<COLUMNS, BACK> carry;
  conv_chunk chunk = {0, 0, rows < f->from.c ? rows : f->from.c, 0};
  while (true) { /* the first tap that the block's columns see; the last one is always seen */
    chunk.shift = conv_shift(f, chunk.tap);
    if (BACK ? at->time + chunk.shift < f->from.t : chunk.shift < at->time + ALL) break;
    if (chunk.tap + 1 == f->taps) break;
    chunk.tap++;
  }
  conv_fetch<COLUMNS, BACK>(&carry, f, at, &chunk);
  while (true) {
    conv_stash<COLUMNS, BACK>(source, w, &carry, f, at, &chunk);
    __syncthreads();
    conv_chunk now = chunk;
    chunk.first += rows;
    if (chunk.first >= f->from.c) {
      chunk.first = 0;
      chunk.tap++;
      chunk.shift = conv_shift(f, chunk.tap);
    }
    chunk.count = rows < f->from.c - chunk.first ? rows : f->from.c - chunk.first;
    bool more = chunk.tap < f->taps;
    if (more) conv_fetch<COLUMNS, BACK>(&carry, f, at, &chunk);
    if (octet < f->cut.octets) {
      /* Forwards the groups that end behind the tap's shift, backwards those that begin before the source's end. */
      int begin = at->time + 32 * half, step = 32 * HALVES;
      int blind = BACK ? 0 : max(0, (now.shift - begin - 32 + step) / step);
      int active = BACK ? max(0, (f->from.t - now.shift - begin + step - 1) / step) : GROUPS - blind;
      conv_active_rows<GROUPS, 32 * HALVES, !BACK>(sum, source + 32 * half + lane, ALL, w + octet * CONV_OCTET,
                                                   CONV_PITCH, now.count, active);
    }
    __syncthreads();
    if (!more) return;
  }
}

/* Where a warp's channels and columns begin; whether it makes any. */
typedef struct {
  int made, time;
  bool some;
} conv_share;

static __device__ __forceinline__ conv_share conv_share_of(const conv_place *at, const conv_cut *cut, int columns) {
  int halves = conv_time_warps(columns), warp = (int)threadIdx.x / 32;
  return {at->made + warp / halves * CONV_OCTET, at->time + 32 * (warp % halves), warp / halves < cut->octets};
}

#endif
