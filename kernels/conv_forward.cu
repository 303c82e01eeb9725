/* Causal dilated convolution over time (conv_forward.c says what it computes) in its fused form: norm, ReLU and dropout
 * of the input on the way into shared memory, both sides in one launch, the moments of the output from registers. Where
 * a block makes all columns of its channels the moments are finished in it; else each block leaves those of its
 * columns, and a second kernel joins them in their order. Products are in FP32 whatever the device's precision. */
#include "kernels/conv_cuda.h"

typedef struct {
  conv_factors product;
  float *y, *moments; /* moments or NULL */
  float *partial;     /* [S][B][Cp][time_tiles][2], or NULL: one block has all columns */
  const float *bias;
} forward_work;

/* Columns below `time` among those of a half of a block's groups. */
static __device__ int columns_of(int begin, int columns, int time) {
  int halves = conv_time_warps(columns), count = 0;
  for (int g = 0; g < conv_groups(columns); g++) count += min(max(time - begin - 32 * halves * g, 0), 32);
  return count;
}

/* A mean over n values and the sum of squared differences from it. */
typedef struct {
  double n, mean, squares;
} moments;

static __device__ void join_moments(moments *all, double n, double mean, double squares) {
  double together = all->n + n, apart = mean - all->mean;
  if (!(together > 0)) return;
  all->squares += squares + apart * apart * (all->n * n / together);
  all->mean += apart * (n / together);
  all->n = together;
}

/* Mean and squares of a warp's channels over its columns, two passes over registers: to parts [8][2]. */
template <int COLUMNS>
static __device__ __forceinline__ void warp_moments(float *parts, const float (&sum)[CONV_OCTET][conv_groups(COLUMNS)],
                                                    int begin, int time) {
  constexpr int GROUPS = conv_groups(COLUMNS), STEP = 32 * conv_time_warps(COLUMNS);
  int lane = threadIdx.x % 32, n = columns_of(begin, COLUMNS, time);
  float v[CONV_OCTET];
#pragma unroll
  for (int m = 0; m < CONV_OCTET; m++) {
    v[m] = 0;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) v[m] += begin + lane + STEP * g < time ? sum[m][g] : 0;
  }
  float mean = n ? conv_warp_sums(v) / (float)n : 0;
#pragma unroll
  for (int m = 0; m < CONV_OCTET; m++) {
    float about = __shfl_sync(0xffffffffu, mean, 4 * m);
    v[m] = 0;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
      float apart = begin + lane + STEP * g < time ? sum[m][g] - about : 0;
      v[m] = fmaf(apart, apart, v[m]);
    }
  }
  float squares = conv_warp_sums(v);
  if (lane % 4) return;
  parts[2 * (lane / 4)] = mean;
  parts[2 * (lane / 4) + 1] = squares;
}

/* The halves' parts joined, a thread a channel, and written. */
template <int COLUMNS>
static __device__ void block_moments(const float *parts, const forward_work *k, const conv_place *at) {
  constexpr int HALVES = conv_time_warps(COLUMNS);
  const cuda_dims *d = &k->product.made;
  int m = threadIdx.x, row = at->made + m;
  if (m >= k->product.cut.octets * CONV_OCTET || row >= d->cp) return;
  moments all = {0, 0, 0};
  for (int h = 0; h < HALVES; h++) {
    const float *part = parts + 2 * ((m / CONV_OCTET * HALVES + h) * CONV_OCTET + m % CONV_OCTET);
    join_moments(&all, columns_of(at->time + 32 * h, COLUMNS, d->t), (double)part[0], (double)part[1]);
  }
  if (row >= d->c) all.mean = all.squares = 0;
  float *to = k->moments + at->clip * 2 * d->cp + row;
  int step = d->cp;
  if (k->partial) {
    to = k->partial + ((at->clip * d->cp + row) * k->product.cut.time_tiles + at->tile) * 2;
    step = 1;
  }
  to[0] = (float)all.mean;
  to[step] = (float)all.squares;
}

template <int COLUMNS>
__global__ void __launch_bounds__(CONV_THREADS_BOUND, 1)
    causal_conv_forward_kernel(const __grid_constant__ forward_work k) {
  constexpr int GROUPS = conv_groups(COLUMNS), HALVES = conv_time_warps(COLUMNS);
  extern __shared__ float4 room[];
  __shared__ float parts[CONV_OCTETS_MOST * HALVES * CONV_OCTET * 2];
  const conv_factors *f = &k.product;
  const cuda_dims *d = &f->made;
  conv_place at = conv_place_of(blockIdx.x, &f->cut, COLUMNS, f->from.batch);
  conv_share share = conv_share_of(&at, &f->cut, COLUMNS);
  float sum[CONV_OCTET][GROUPS];
#pragma unroll
  for (int m = 0; m < CONV_OCTET; m++) {
    bool biased = k.bias && share.some && share.made + m < d->c;
    float start = biased ? __ldg(k.bias + at.side * f->w_side + share.made + m) : 0;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) sum[m][g] = start;
  }
  conv_product<COLUMNS, false>(sum, (float *)room, f, &at);
  if (share.some) {
    float *y = k.y + (at.clip * d->cp + share.made) * d->tp;
#pragma unroll
    for (int m = 0; m < CONV_OCTET; m++)
#pragma unroll
      for (int g = 0; g < GROUPS; g++) {
        int t = share.time + threadIdx.x % 32 + 32 * HALVES * g;
        if (share.made + m < d->cp && t < d->tp) y[m * d->tp + t] = share.made + m < d->c && t < d->t ? sum[m][g] : 0;
      }
  }
  if (!k.moments) return;
  if (share.some) warp_moments<COLUMNS>(parts + threadIdx.x / 32 * CONV_OCTET * 2, sum, share.time, d->t);
  __syncthreads();
  block_moments<COLUMNS>(parts, &k, &at);
}

/* The moments of a row from those of its tiles, in their order; a thread a row. */
__global__ void join_moments_kernel(float *out, const float *partial, cuda_dims d, int tiles, int columns,
                                    int64_t rows) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, clip = i / d.cp;
  if (i >= rows) return;
  moments all = {0, 0, 0};
  for (int tile = 0; tile < tiles; tile++) {
    const float *part = partial + (i * tiles + tile) * 2;
    join_moments(&all, min(d.t - tile * columns, columns), (double)part[0], (double)part[1]);
  }
  float *to = out + clip * 2 * d.cp + i % d.cp;
  to[0] = (float)all.mean;
  to[d.cp] = (float)all.squares;
}

/* ---- making the plan ----------------------------------------------------------------------------------------------
 */

/* The product's blocks for outputs of that size. */
static conv_cut cut_of(const cuda_dims *made, int warps_least) {
  conv_cut cut;
  int groups = (made->t + 31) / 32, octets = made->cp / CONV_OCTET;
  cut.columns = groups <= 2 ? groups : groups <= 4 ? 4 : 6;
  cut.time_tiles = (groups + cut.columns - 1) / cut.columns;
  cut.made_tiles = (octets + CONV_OCTETS_MOST - 1) / CONV_OCTETS_MOST;
  cut.octets = (octets + cut.made_tiles - 1) / cut.made_tiles;
  cut.warps = cut.octets * conv_time_warps(cut.columns);
  if (cut.warps < warps_least) cut.warps = warps_least;
  return cut;
}

/* Channels of a weight gradient's tile: as even a cut as multiples of 4 allow. */
static int edge_of(int channels) {
  int tiles = (channels + CONV_EDGE_MOST - 1) / CONV_EDGE_MOST, edge = (channels + tiles - 1) / tiles;
  return (edge + 3) / 4 * 4;
}

static void prepare_fused(conv_plan *p) {
  const int64_t blocks = 64, least = 2; /* blocks of weight gradients of a side that are enough; clips of one */
  const ser_conv_shape *s = &p->shape;
  int64_t most = p->in.cp > p->out.cp ? p->in.cp : p->out.cp;
  p->forward = cut_of(&p->out, CONV_FORWARD_WARPS);
  p->backward = cut_of(&p->in, CONV_BACKWARD_WARPS);
  p->edge_out = edge_of(p->out.c);
  p->edge_in = edge_of(p->in.c);
  int64_t tiles = s->kernel * ((p->out.c + p->edge_out - 1) / p->edge_out) * ((p->in.c + p->edge_in - 1) / p->edge_in);
  int64_t groups = (blocks + tiles - 1) / tiles, group = (s->batch + groups - 1) / groups;
  p->group = (int)(group > least ? group : least);
  p->partial = (size_t)SER_ROUND_UP((int64_t)p->weights + s->out, 16);
  p->rows = p->forward.time_tiles > 1 ? (size_t)(s->sides * s->batch * most * p->forward.time_tiles * 2) : 0;
  groups = (s->batch + p->group - 1) / p->group;
  p->base.plan.workspace = (p->rows + (groups > 1 ? (size_t)(s->sides * groups) * p->partial : 0)) * sizeof(float);
}

static void end_plan(cuda_plan *plan) {
  conv_cudnn_end((conv_plan *)plan);
}

static cuda_dims dims_of(const ser_conv_shape *shape, int64_t channels) {
  ser_tensor_shape tensor = {shape->sides, shape->batch, channels, shape->time};
  return cuda_dims_of(&tensor);
}

ser_status cuda_conv_prepare(ser_device *device, ser_plan **plan, const ser_conv_shape *shape, ser_error *err) {
  ser_status status = SER_OK;
  conv_plan *p = (conv_plan *)cuda_plan_make(device, sizeof *p, end_plan);
  p->shape = *shape;
  p->in = dims_of(shape, shape->in);
  p->out = dims_of(shape, shape->out);
  p->weights = (size_t)(shape->out * shape->in * shape->kernel);
  prepare_fused(p);
  if (p->base.device->conv == SER_CONV_CUDNN) status = conv_cudnn_prepare(p, err);
  *plan = &p->base.plan;
  if (status == SER_OK) return SER_OK;
  ser_plan_free(*plan);
  *plan = NULL;
  return status;
}

/* ---- running ------------------------------------------------------------------------------------------------------
 */

void cuda_causal_conv_forward(ser_stream *stream, const ser_plan *plan, void *workspace, float *y, float *moments,
                              const ser_activation *x, const float *w, const float *bias, int64_t batch) {
  const conv_plan *p = (const conv_plan *)plan;
  const ser_conv_shape *s = &p->shape;
  const conv_cut *cut = &p->forward;
  if (p->cudnn) {
    conv_cudnn_forward(stream, p, workspace, y, moments, x, w, bias, batch);
    return;
  }
  if (batch < 1) return;
  forward_work k = {};
  k.product.source.y = *x;
  k.product.w = w;
  k.product.from = p->in;
  k.product.made = p->out;
  k.product.w_from = (int)s->kernel;
  k.product.w_made = (int)(s->in * s->kernel);
  k.product.w_side = s->side_stride;
  k.product.taps = (int)s->kernel;
  k.product.dilation = conv_dilation(s);
  k.product.cut = *cut;
  k.product.from.batch = k.product.made.batch = (int)batch;
  k.y = y;
  k.moments = moments;
  k.partial = moments && cut->time_tiles > 1 ? (float *)workspace : NULL;
  k.bias = bias;
  unsigned blocks = (unsigned)(s->sides * batch * cut->time_tiles * cut->made_tiles),
           threads = 32 * (unsigned)cut->warps;
  size_t shared = conv_product_floats(cut, false) * sizeof(float);
  switch (cut->columns) {
  case 1:
    CUDA_LAUNCH(stream, causal_conv_forward_kernel<1>, blocks, threads, shared, k);
    break;
  case 2:
    CUDA_LAUNCH(stream, causal_conv_forward_kernel<2>, blocks, threads, shared, k);
    break;
  case 4:
    CUDA_LAUNCH(stream, causal_conv_forward_kernel<4>, blocks, threads, shared, k);
    break;
  default:
    CUDA_LAUNCH(stream, causal_conv_forward_kernel<6>, blocks, threads, shared, k);
    break;
  }
  if (!k.partial) return;
  enum { THREADS = 128 };
  int64_t rows = s->sides * batch * p->out.cp;
  CUDA_LAUNCH(stream, join_moments_kernel, cuda_blocks(rows, THREADS), THREADS, 0, moments, k.partial, p->out,
              cut->time_tiles, 32 * cut->columns, rows);
}
