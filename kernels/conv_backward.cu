/* The gradients of the causal dilated convolution (conv_backward.c says what they are) in their fused form. One launch
 * does two kinds of blocks: the first make the gradient of the data, with the product of conv_cuda.h, and the sums for
 * the norm in front from registers; the others the gradient of the weights, each a tile of channels by channels of one
 * tap over a group of clips. A second launch adds the groups up in order. No order depends on anything but the shape.
 */
#include "kernels/conv_cuda.h"

typedef struct {
  conv_factors product; /* the gradient of the data; its source is the gradient at y */
  unsigned data_blocks; /* 0: dx is not wanted */
  float *dx, *next;     /* next or NULL */
  float *rows;          /* [S][B][Cp][time_tiles][2]: sums of a block's columns, or NULL: it has all */
  ser_gradient x_norm;
  ser_gradient x; /* of which y counts */
  bool add;
  float *dw, *dbias;         /* dbias or NULL; groups' parts where group_step */
  int64_t dw_side, dw_group; /* steps */
  int edge_out, edge_in, out_tiles, in_tiles, group, groups;
} backward_work;

/* ---- the gradient of the data -------------------------------------------------------------------------------------
 */

/* The sums over a row of dz and of dz * xhat from those of its halves, a thread a channel. */
template <int COLUMNS>
static __device__ void block_sums(const float *parts, const backward_work *k, const conv_place *at) {
  constexpr int HALVES = conv_time_warps(COLUMNS);
  const cuda_dims *d = &k->product.made;
  int m = threadIdx.x, c = at->made + m;
  if (m >= k->product.cut.octets * CONV_OCTET || c >= d->cp) return;
  double dz = 0, product = 0;
  for (int h = 0; h < HALVES; h++) {
    const float *part = parts + 2 * ((m / CONV_OCTET * HALVES + h) * CONV_OCTET + m % CONV_OCTET);
    dz += (double)part[0];
    product += (double)part[1];
  }
  size_t row = at->clip * d->cp + c;
  double drop = k->x_norm.y.drop ? (double)__ldg(k->x_norm.y.drop + row) : 1;
  product *= drop * (double)__ldg(k->x_norm.inv_std + (size_t)at->side * d->cp + c);
  float *to = k->next + at->clip * 2 * d->cp + c;
  int step = d->cp;
  if (k->rows) {
    to = k->rows + (row * k->product.cut.time_tiles + at->tile) * 2;
    step = 1;
  }
  to[0] = c < d->c ? (float)(dz * drop) : 0;
  to[step] = c < d->c ? (float)product : 0;
}

/* dx is written, and what it adds to the sums of its warp left in parts [8][2]. */
template <int COLUMNS>
static __device__ __forceinline__ void write_data(float *parts, float (&sum)[CONV_OCTET][conv_groups(COLUMNS)],
                                                  const backward_work *k, const conv_place *at,
                                                  const conv_share *share) {
  constexpr int GROUPS = conv_groups(COLUMNS), STEP = 32 * conv_time_warps(COLUMNS);
  const cuda_dims *d = &k->product.made;
  int lane = threadIdx.x % 32;
  float dz[CONV_OCTET], product[CONV_OCTET];
#pragma unroll
  for (int m = 0; m < CONV_OCTET; m++) {
    int c = share->made + m;
    size_t row = at->clip * d->cp + c, channel = (size_t)at->side * d->cp + c;
    dz[m] = product[m] = 0;
    if (c >= d->cp) continue;
    bool summed = k->next && c < d->c;
    float scale = summed ? __ldg(k->x_norm.y.scale + channel) : 0,
          shift = summed ? __ldg(k->x_norm.y.shift + channel) : 0;
    float mean = summed ? __ldg(k->x_norm.mean + channel) : 0;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
      int t = share->time + lane + STEP * g;
      if (t >= d->tp) continue;
      float *to = k->dx + row * d->tp + t;
      float v = c < d->c && t < d->t ? sum[m][g] + (k->add ? *to : 0) : 0;
      *to = v;
      if (!summed || t >= d->t) continue;
      float x = __ldg(k->x_norm.y.x + row * d->tp + t);
      if (!(fmaf(x, scale, shift) > 0)) continue;
      dz[m] += v;
      product[m] = fmaf(v, x - mean, product[m]);
    }
  }
  if (!k->next) return;
  float dz_sum = conv_warp_sums(dz), product_sum = conv_warp_sums(product);
  if (lane % 4) return;
  parts[2 * (lane / 4)] = dz_sum;
  parts[2 * (lane / 4) + 1] = product_sum;
}

template <int COLUMNS>
static __device__ __forceinline__ void data_gradient(float *shared, float *parts, const backward_work *k) {
  conv_place at = conv_place_of(blockIdx.x, &k->product.cut, COLUMNS, k->product.from.batch);
  conv_share share = conv_share_of(&at, &k->product.cut, COLUMNS);
  float sum[CONV_OCTET][conv_groups(COLUMNS)] = {};
  conv_product<COLUMNS, true>(sum, shared, &k->product, &at);
  if (share.some) write_data<COLUMNS>(parts + threadIdx.x / 32 * CONV_OCTET * 2, sum, k, &at, &share);
  if (!k->next) return;
  __syncthreads();
  block_sums<COLUMNS>(parts, k, &at);
}

/* A row's sums from those of its tiles, in their order; a thread a row. */
__global__ void join_sums_kernel(float *next, const float *parts, cuda_dims d, int tiles, int64_t rows) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, clip = i / d.cp;
  if (i >= rows) return;
  double dz = 0, product = 0;
  for (int tile = 0; tile < tiles; tile++) {
    dz += (double)parts[(i * tiles + tile) * 2];
    product += (double)parts[(i * tiles + tile) * 2 + 1];
  }
  float *to = next + clip * 2 * d.cp + i % d.cp;
  to[0] = (float)dz;
  to[d.cp] = (float)product;
}

/* ---- the gradient of the weights ----------------------------------------------------------------------------------
 */

/* dw[o][i] of one tap = sum over clips and columns t of dy[o][t] * a[i][t - shift], for a tile of edge_out by edge_in
 * channels. CONV_STEP columns of both lie in shared memory at a time, a column's channels side by side, in one of two
 * places in turn. A thread makes 4 x 4 of the tile over every so many-th column (`slices`); the slices are added up at
 * the end, in order. */
typedef struct {
  int side, group, first_out, first_in, tap;
} weight_place;

static __device__ weight_place weight_place_of(unsigned block, const backward_work *k) {
  unsigned rest = block, in = rest % k->in_tiles, out, tap, group;
  rest /= k->in_tiles;
  out = rest % k->out_tiles;
  rest /= k->out_tiles;
  tap = rest % k->product.taps;
  rest /= k->product.taps;
  group = rest % k->groups;
  return {(int)(rest / k->groups), (int)group, (int)out * k->edge_out, (int)in * k->edge_in, (int)tap};
}

/* From column to column of a tile in shared memory: 4 times an odd number, so that a warp writes 4 rows by 8 columns to
 * 32 banks. */
static __host__ __device__ inline int column_pitch(int edge) {
  return edge / 4 % 2 ? edge : edge + 4;
}

/* What a warp brings: four rows, a lane's own (lane / 8) at columns lane % 8 + 8 j. */
typedef struct {
  float x[4], y[4]; /* of a gradient: da, y */
  float part;       /* the lane's, of its row */
} weight_carry;

static __device__ __forceinline__ void fetch_rows(weight_carry *carry, const float *x, const float *y, int first,
                                                  int t) {
#pragma unroll
  for (int j = 0; j < 4; j++) {
    int at = first + 8 * j;
    carry->x[j] = at >= 0 && at < t ? __ldg(x + at) : 0;
    carry->y[j] = y && at >= 0 && at < t ? __ldg(y + at) : 0;
  }
}

/* One chunk of one clip: columns [time, time + CONV_STEP) of y. */
typedef struct {
  int clip, time;
} weight_chunk;

static __device__ __forceinline__ void fetch_chunk(weight_carry *dy, weight_carry *a, const backward_work *k,
                                                   const weight_place *at, const weight_chunk *chunk, int shift) {
  const cuda_dims *out = &k->product.from, *in = &k->product.made;
  const ser_gradient *g = &k->product.source;
  int row = 4 * (int)(threadIdx.x / 32) + (int)threadIdx.x % 32 / 8, column = chunk->time + (int)threadIdx.x % 8;
  size_t clip = (size_t)at->side * k->product.from.batch + chunk->clip;
  int o = at->first_out + row, i = at->first_in + row;
  if (row < k->edge_out && o < out->c) {
    size_t from = clip * out->cp + o;
    fetch_rows(dy, g->da + from * out->tp, g->y.scale ? g->y.x + from * out->tp : NULL, column, out->t);
    dy->part = conv_part(g, at->side, clip, o, out->cp);
  }
  if (row < k->edge_in && i < in->c) {
    size_t from = clip * in->cp + i;
    fetch_rows(a, k->x.y.x + from * in->tp, NULL, column - shift, in->t);
    a->part = conv_part(&k->x, at->side, clip, i, in->cp);
  }
}

/* Returns the sum of the lane's four values of dy. */
static __device__ __forceinline__ float stash_chunk(float *dy_tile, float *a_tile, const weight_carry *dy,
                                                    const weight_carry *a, const backward_work *k,
                                                    const weight_place *at, const weight_chunk *chunk, int shift) {
  int row = 4 * (int)(threadIdx.x / 32) + (int)threadIdx.x % 32 / 8, column = (int)threadIdx.x % 8;
  int time = k->product.from.t;
  bool out = at->first_out + row < k->product.from.c, in = at->first_in + row < k->product.made.c;
  cuda_grad grad = conv_grad_of(dy->part, !k->product.source.y.scale);
  cuda_act act = conv_act_of(a->part, !k->x.y.scale);
  float sum = 0;
  if (row < k->edge_out)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      float v = cuda_grad_value(grad, dy->x[j], dy->y[j]);
      v = out && chunk->time + column + 8 * j < time ? v : 0;
      dy_tile[(column + 8 * j) * column_pitch(k->edge_out) + row] = v;
      sum += v;
    }
  if (row < k->edge_in)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      int t = chunk->time + column + 8 * j - shift;
      float v = cuda_act_value(act, a->x[j]);
      a_tile[(column + 8 * j) * column_pitch(k->edge_in) + row] = in && t >= 0 && t < time ? v : 0;
    }
  return sum;
}

static __device__ __forceinline__ void add_columns(float (&sum)[4][4], const float *dy, const float *a, int out_pitch,
                                                   int in_pitch, int slice, int slices) {
#pragma unroll 4
  for (int t = slice; t < CONV_STEP; t += slices) {
    float4 g = *(const float4 *)(dy + t * out_pitch), x = *(const float4 *)(a + t * in_pitch);
    float rows[4] = {g.x, g.y, g.z, g.w}, columns[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int o = 0; o < 4; o++)
#pragma unroll
      for (int i = 0; i < 4; i++) sum[o][i] = fmaf(rows[o], columns[i], sum[o][i]);
  }
}

/* The slices added up in order by the first, and written. */
static __device__ __forceinline__ void write_weights(float *shared, float (&sum)[4][4], const backward_work *k,
                                                     const weight_place *at, int cells, int slices) {
  int cell = (int)threadIdx.x % cells, slice = (int)threadIdx.x / cells, in_cells = k->edge_in / 4;
  __syncthreads();
  if (slice > 0 && slice < slices)
#pragma unroll
    for (int e = 0; e < 16; e++) shared[(e * (slices - 1) + slice - 1) * cells + cell] = sum[e / 4][e % 4];
  __syncthreads();
  if (slice) return;
  int taps = k->product.taps, in = k->product.made.c;
  float *dw = k->dw + at->side * k->dw_side + at->group * k->dw_group + at->tap;
#pragma unroll
  for (int e = 0; e < 16; e++) {
    int o = at->first_out + cell / in_cells * 4 + e / 4, i = at->first_in + cell % in_cells * 4 + e % 4;
    float all = sum[e / 4][e % 4];
    for (int s = 0; s < slices - 1; s++) all += shared[(e * (slices - 1) + s) * cells + cell];
    if (o < k->product.from.c && i < in) dw[((size_t)o * in + i) * taps] = all;
  }
}

static __device__ __forceinline__ void weight_gradient(float *shared, const backward_work *k) {
  weight_place at = weight_place_of(blockIdx.x - k->data_blocks, k);
  int in_cells = k->edge_in / 4, cells = k->edge_out / 4 * in_cells, slices = min((int)blockDim.x / cells, CONV_STEP);
  int cell = (int)threadIdx.x % cells, slice = (int)threadIdx.x / cells;
  int out_pitch = column_pitch(k->edge_out), in_pitch = column_pitch(k->edge_in);
  int shift = conv_shift(&k->product, at.tap), time = k->product.from.t, begin = shift & ~7;
  int last = min((at.group + 1) * k->group, k->product.from.batch);
  weight_chunk chunk = {at.group * k->group, begin};
  weight_carry dy = {}, a = {};
  float sum[4][4] = {}, bias = 0;
  bool more = shift < time;
  if (more) fetch_chunk(&dy, &a, k, &at, &chunk, shift);
  for (int turn = 0; more; turn ^= 1) {
    float *dy_tile = shared + turn * CONV_STEP * (out_pitch + in_pitch), *a_tile = dy_tile + CONV_STEP * out_pitch;
    bias += stash_chunk(dy_tile, a_tile, &dy, &a, k, &at, &chunk, shift);
    __syncthreads();
    chunk.time += CONV_STEP;
    if (chunk.time >= time) {
      chunk.time = begin;
      chunk.clip++;
    }
    more = chunk.clip < last;
    if (more) fetch_chunk(&dy, &a, k, &at, &chunk, shift);
    if (slice < slices)
      add_columns(sum, dy_tile + cell / in_cells * 4, a_tile + cell % in_cells * 4, out_pitch, in_pitch, slice, slices);
  }
  write_weights(shared, sum, k, &at, cells, slices);
  if (!k->dbias || at.first_in || shift) return; /* the last tap sees every column */
  for (int step = 4; step; step /= 2) bias += __shfl_xor_sync(0xffffffffu, bias, step);
  int row = 4 * (int)(threadIdx.x / 32) + (int)threadIdx.x % 32 / 8, o = at.first_out + row;
  if (row < k->edge_out && o < k->product.from.c && threadIdx.x % 8 == 0)
    k->dbias[at.side * k->dw_side + at.group * k->dw_group + o] = bias;
}

template <int COLUMNS>
__global__ void __launch_bounds__(CONV_THREADS_BOUND, 1)
    causal_conv_backward_kernel(const __grid_constant__ backward_work k) {
  extern __shared__ float4 room[];
  __shared__ float parts[CONV_OCTETS_MOST * conv_time_warps(COLUMNS) * CONV_OCTET * 2];
  if (blockIdx.x < k.data_blocks)
    data_gradient<COLUMNS>((float *)room, parts, &k);
  else
    weight_gradient((float *)room, &k);
}

/* What the groups of clips found, in order: dw, then dbias, of both sides; a thread a number. */
typedef struct {
  float *dw, *dbias;
  const float *parts; /* [S][groups][step] */
  int64_t weights, all, step, side_stride;
  int groups, sides;
} join_work;

__global__ void join_groups_kernel(const __grid_constant__ join_work k) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, side = i / k.all;
  i -= side * k.all;
  if (side >= k.sides) return;
  const float *part = k.parts + side * k.groups * k.step + i;
  double sum = 0;
#pragma unroll 8
  for (int g = 0; g < k.groups; g++) sum += (double)__ldg(part + g * k.step);
  float *to = i < k.weights ? k.dw + i : k.dbias + (i - k.weights);
  to[side * k.side_stride] = (float)sum;
}

/* ---- running ------------------------------------------------------------------------------------------------------
 */

static void fill_product(conv_factors *f, const conv_plan *p, const ser_gradient *dy, const float *w, int64_t batch) {
  const ser_conv_shape *s = &p->shape;
  f->source = *dy;
  f->w = w;
  f->from = p->out;
  f->made = p->in;
  f->w_from = (int)(s->in * s->kernel);
  f->w_made = (int)s->kernel;
  f->w_side = s->side_stride;
  f->taps = (int)s->kernel;
  f->dilation = conv_dilation(s);
  f->cut = p->backward;
  f->from.batch = f->made.batch = (int)batch;
}

static void launch(ser_stream *stream, const backward_work *k, unsigned blocks) {
  const conv_cut *cut = &k->product.cut;
  unsigned threads = 32 * (unsigned)cut->warps;
  size_t product = k->data_blocks ? conv_product_floats(cut, true) : 0;
  size_t tiles = (size_t)(2 * CONV_STEP * (column_pitch(k->edge_out) + column_pitch(k->edge_in)));
  size_t slices = 16 * (size_t)threads; /* at most */
  size_t shared = product > tiles ? product : tiles;
  shared = (shared > slices ? shared : slices) * sizeof(float);
  switch (cut->columns) {
  case 1:
    CUDA_LAUNCH(stream, causal_conv_backward_kernel<1>, blocks, threads, shared, *k);
    break;
  case 2:
    CUDA_LAUNCH(stream, causal_conv_backward_kernel<2>, blocks, threads, shared, *k);
    break;
  case 4:
    CUDA_LAUNCH(stream, causal_conv_backward_kernel<4>, blocks, threads, shared, *k);
    break;
  default:
    CUDA_LAUNCH(stream, causal_conv_backward_kernel<6>, blocks, threads, shared, *k);
    break;
  }
}

void cuda_causal_conv_backward(ser_stream *stream, const ser_plan *plan, void *workspace, float *dx, float *dw,
                               float *dbias, float *next, const ser_activation *x, const ser_gradient *x_norm,
                               const ser_gradient *dy, const float *w, bool add_dx, int64_t batch) {
  enum { THREADS = 128 };
  const conv_plan *p = (const conv_plan *)plan;
  const ser_conv_shape *s = &p->shape;
  const conv_cut *cut = &p->backward;
  if (p->cudnn) {
    conv_cudnn_backward(stream, p, workspace, dx, dw, dbias, next, x, x_norm, dy, w, add_dx, batch);
    return;
  }
  backward_work k = {};
  fill_product(&k.product, p, dy, w, batch);
  k.dx = dx;
  k.next = dx ? next : NULL;
  k.rows = k.next && cut->time_tiles > 1 ? (float *)workspace : NULL;
  if (k.next) k.x_norm = *x_norm;
  k.x.y = *x;
  k.add = add_dx;
  k.edge_out = p->edge_out;
  k.edge_in = p->edge_in;
  k.out_tiles = (p->out.c + p->edge_out - 1) / p->edge_out;
  k.in_tiles = (p->in.c + p->edge_in - 1) / p->edge_in;
  k.group = p->group;
  k.groups = ((int)batch + p->group - 1) / p->group;
  float *parts = (float *)workspace + p->rows;
  k.dw = k.groups > 1 ? parts : dw;
  k.dbias = !dbias ? NULL : k.groups > 1 ? parts + p->weights : dbias;
  k.dw_group = k.groups > 1 ? (int64_t)p->partial : 0;
  k.dw_side = k.groups > 1 ? k.groups * k.dw_group : s->side_stride;
  k.data_blocks = dx ? (unsigned)(s->sides * batch * cut->time_tiles * cut->made_tiles) : 0;
  launch(stream, &k, k.data_blocks + (unsigned)(s->sides * k.groups * s->kernel * k.out_tiles * k.in_tiles));
  if (k.rows) {
    int64_t rows = s->sides * batch * p->in.cp;
    CUDA_LAUNCH(stream, join_sums_kernel, cuda_blocks(rows, THREADS), THREADS, 0, next, k.rows, p->in, cut->time_tiles,
                rows);
  }
  if (k.groups == 1) return;
  int64_t all = (int64_t)p->weights + (dbias ? p->out.c : 0);
  join_work join = {dw, dbias, parts, (int64_t)p->weights, all, k.dw_group, s->side_stride, k.groups, (int)s->sides};
  CUDA_LAUNCH(stream, join_groups_kernel, cuda_blocks(s->sides * all, THREADS), THREADS, 0, join);
}
