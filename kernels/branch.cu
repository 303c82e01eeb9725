/* The folded temporal branch for inference (branch.c says what it computes). A block takes one direction of one clip
 * from its tile to its pooled vectors: two tiles of activations stay in shared memory throughout, and the weights, put
 * into the order of reading by a launch before, stream past in chunks, the next on its way while one is used. A second
 * launch adds the directions.
 *
 * Where a clip's tiles are too large for that, the branch is done by the training's operations, whose norms are
 * identity then, a launch each. */
#include "kernels/conv_cuda.h"

#include <stdlib.h>

enum {
  MARGIN = 32, /* zeros before each row of a tile */
  GAP = 64,    /* and more between the tiles: a warp reads up to 95 columns behind a row's end, for nothing, and must
                  not meet there what others write */
  WARPS_MOST = 16,
  CHUNK_LEAST = 8 /* rows of weights */
};

/* What the kernels of the whole branch work with. */
typedef struct {
  float *sides;        /* [2][scales][B][Cp] */
  const float *tile;   /* [B][Cin padded][Tp] */
  const float *packed; /* [2][rows][Cp] */
  const int64_t *lengths;
  cuda_dims in, d;
  int blocks, taps, join, scales;
  int pitch, time_tasks, rounds, warps, chunk, rows;
} branch_work;

/* How the training's operations do it. */
typedef struct {
  ser_plan **convs; /* the first, then a block's */
  float *identity;  /* scale [2][Cp], then shift */
  size_t room;      /* floats of their workspace */
  size_t input, tensor;
} branch_parts;

typedef struct {
  cuda_plan base;
  ser_branch_shape shape;
  branch_work work;
  int groups;                     /* 0: by parts */
  size_t shared;                  /* bytes */
  int64_t first_weights, weights; /* of the first convolution and of another, with bias */
  branch_parts parts;
} branch_plan;

/* ---- weights ------------------------------------------------------------------------------------------------------
 */

/* packed [2][rows][Cp]: of each convolution its bias, then for each tap and channel read a row of the weights of all
 * channels made; zeros behind those. */
__global__ void pack_branch_kernel(float *packed, const float *weights, const __grid_constant__ branch_work k,
                                   int64_t first_weights, int64_t other_weights) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  int c = k.d.c, o = (int)(i % k.d.cp), row = (int)(i / k.d.cp % k.rows), side = (int)(i / k.d.cp / k.rows);
  if (side > 1) { /* the chunk that a block looks ahead to behind its last row: read, not used */
    if (i < (int64_t)(2 * k.rows + k.chunk) * k.d.cp) packed[i] = 0;
    return;
  }
  const float *w = weights + side * (first_weights + 2 * k.blocks * other_weights);
  int in = k.in.c, taps = 1, others = 1 + k.taps * c;
  if (row > in) {
    int conv = (row - 1 - in) / others;
    w += first_weights + conv * other_weights;
    row = (row - 1 - in) % others;
    in = c;
    taps = k.taps;
  }
  int read = (row - 1) % in, tap = (row - 1) / in;
  float v = 0;
  if (o < c) v = row ? w[((int64_t)o * in + read) * taps + tap] : w[(int64_t)c * in * taps + o];
  packed[i] = v;
}

/* ---- the whole branch ---------------------------------------------------------------------------------------------
 */

/* What a block goes on with: its weights' place in the stream, the thread's share of the next chunk. */
typedef struct {
  const float4 *next;
  float4 ahead;
  float *chunk; /* in shared memory */
} branch_stream;

static __device__ __forceinline__ void look_ahead(branch_stream *s, const branch_work *k) {
  if ((int)threadIdx.x < k->chunk * k->d.cp / 4) s->ahead = __ldg(s->next + threadIdx.x);
}

typedef enum { END_PLAIN, END_RELU, END_JOIN } branch_end;

static __device__ __forceinline__ float joined(float x, float a, int join) {
  return join == 1 + SER_JOIN_GATE ? x * (1 / (1 + expf(-a))) : x + a;
}

/* to = a convolution of `from`, both first rows of tiles. A warp takes 8 channels by 32 * GROUPS columns at a time. */
template <int GROUPS>
static __device__ __forceinline__ void convolve(float *to, const float *from, const branch_work *k, branch_stream *s,
                                                int in, int taps, int dilation, branch_end end) {
  int rows = 1 + taps * in, width = k->d.cp, lane = threadIdx.x % 32, tasks = width / CONV_OCTET * k->time_tasks;
  const float4 *start = s->next;
  for (int round = 0; round < k->rounds; round++) {
    int task = round * k->warps + (int)threadIdx.x / 32, octet = task / k->time_tasks;
    int begin = task % k->time_tasks * 32 * GROUPS;
    const float *w = s->chunk + octet * CONV_OCTET;
    float sum[CONV_OCTET][GROUPS];
    for (int first = 0; first < rows; first += k->chunk) {
      int count = min(k->chunk, rows - first), r = 0;
      __syncthreads();
      if ((int)threadIdx.x < k->chunk * width / 4) ((float4 *)s->chunk)[threadIdx.x] = s->ahead;
      __syncthreads();
      bool again = first + count == rows && round + 1 < k->rounds;
      s->next = again ? start : s->next + count * width / 4;
      look_ahead(s, k);
      if (task >= tasks) continue;
      if (first == 0) {
        r = 1;
#pragma unroll
        for (int m = 0; m < CONV_OCTET; m++)
#pragma unroll
          for (int g = 0; g < GROUPS; g++) sum[m][g] = w[m];
      }
      for (int n; r < count; r += n) { /* the part of a tap that the chunk holds */
        int tap = (first + r - 1) / in, c = (first + r - 1) % in, shift = (taps - 1 - tap) * dilation;
        n = min(count - r, in - c);
        int blind = max(0, (shift - begin) / 32); /* groups that end before the tap's shift */
        conv_active_rows<GROUPS, 32, true>(sum, from + c * k->pitch + begin + lane - shift, k->pitch, w + r * width,
                                           width, n, GROUPS - blind);
      }
    }
    if (task >= tasks) continue;
#pragma unroll
    for (int m = 0; m < CONV_OCTET; m++)
#pragma unroll
      for (int g = 0; g < GROUPS; g++) {
        int c = octet * CONV_OCTET + m, t = begin + 32 * g + lane;
        if (c >= k->d.c || t >= k->d.t) continue;
        float v = end == END_PLAIN ? sum[m][g] : cuda_relu(sum[m][g]), *at = to + c * k->pitch + t;
        *at = end == END_JOIN ? joined(*at, v, k->join) : v;
      }
  }
}

/* Means over the clip's real columns: the first ones, or the last ones of the direction that runs backwards. */
static __device__ void pool(float *pooled, const float *x, const branch_work *k, int b, int side) {
  int64_t real = k->lengths ? k->lengths[b] : k->d.t;
  int length = real > k->d.t ? k->d.t : real > 0 ? (int)real : 0, first = side ? k->d.t - length : 0;
  for (int c = threadIdx.x / 32; c < k->d.cp; c += k->warps) {
    float sum = 0;
    for (int t = first + (int)threadIdx.x % 32; t < first + length && c < k->d.c; t += 32) sum += x[c * k->pitch + t];
    double total = cuda_warp_sum((double)sum);
    if (threadIdx.x % 32 == 0) pooled[c] = length ? (float)(total / length) : 0;
  }
}

/* The clip's tile, turned round for the direction that runs backwards; all margins. */
static __device__ void read_input(float *shared, float *to, const branch_work *k, int b, int side) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rows = k->d.c + max(k->d.c, k->in.c);
  for (int r = warp; r <= rows; r += k->warps) shared[r * k->pitch + (r >= k->d.c ? GAP : 0) + lane] = 0;
  for (int i = (int)threadIdx.x; i < GAP; i += 32 * k->warps) shared[k->d.c * k->pitch + i] = 0;
  for (int c = warp; c < k->in.c; c += k->warps) {
    const float *from = k->tile + ((size_t)b * k->in.cp + c) * k->in.tp;
    for (int t = lane; t < k->in.t; t += 32) to[c * k->pitch + t] = __ldg(from + (side ? k->in.t - 1 - t : t));
  }
}

template <int GROUPS>
__global__ void __launch_bounds__(CONV_THREADS_BOUND, 1) branch_kernel(const __grid_constant__ branch_work k) {
  extern __shared__ float4 room[];
  float *shared = (float *)room, *x = shared + MARGIN, *h = x + k.d.c * k.pitch + GAP;
  int side = (int)blockIdx.x % 2, b = (int)blockIdx.x / 2, rows = k.d.c + max(k.d.c, k.in.c), scale = 0;
  branch_stream s = {(const float4 *)(k.packed + (size_t)side * k.rows * k.d.cp),
                     {},
                     shared + (MARGIN + rows * k.pitch + GAP + 3) / 4 * 4};
  look_ahead(&s, &k);
  read_input(shared, h, &k, b, side);
  convolve<GROUPS>(x, h, &k, &s, k.in.c, 1, 1, END_PLAIN);
  for (int block = 0; block < k.blocks; block++) {
    int dilation = block < 30 ? min(1 << block, k.d.t) : k.d.t;
    convolve<GROUPS>(h, x, &k, &s, k.d.c, k.taps, dilation, END_RELU);
    convolve<GROUPS>(x, h, &k, &s, k.d.c, k.taps, dilation, k.join ? END_JOIN : END_RELU);
    if (k.scales == 1 && block + 1 < k.blocks) continue;
    __syncthreads();
    pool(k.sides + (((size_t)side * k.scales + scale++) * k.d.batch + b) * k.d.cp, x, &k, b, side);
  }
}

__global__ void add_directions_kernel(float *pooled, const float *sides, int64_t n) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) pooled[i] = sides[i] + sides[n + i];
}

/* ---- by parts -----------------------------------------------------------------------------------------------------
 */

/* sides [2][B][Cp][Tp]: the tile as it is, and with time running backwards. A warp a row. */
__global__ void both_directions_kernel(float *sides, const float *tile, cuda_dims d) {
  int64_t at = (int64_t)blockIdx.x * CUDA_ROWS + threadIdx.x / 32, rows = (int64_t)d.batch * d.cp;
  if (at >= 2 * rows) return;
  const float *from = tile + at % rows * d.tp;
  for (int t = threadIdx.x % 32; t < d.tp; t += 32)
    sides[at * d.tp + t] = at < rows ? from[t] : t < d.t ? from[d.t - 1 - t] : 0;
}

static void infer_by_parts(ser_stream *stream, const branch_plan *p, float *workspace, float *pooled, const float *tile,
                           const float *weights, const int64_t *lengths, int64_t batch) {
  const ser_branch_shape *s = &p->shape;
  const branch_parts *parts = &p->parts;
  float *input = workspace + parts->room, *x = input + parts->input, *other = x + parts->tensor;
  float *h = other + parts->tensor, *a = h + parts->tensor;
  ser_tensor_shape shape = {2, batch, s->channels, s->time};
  cuda_dims in = p->work.in;
  in.batch = (int)batch;
  CUDA_LAUNCH(stream, both_directions_kernel, cuda_blocks(2 * batch * in.cp, CUDA_ROWS), 32 * CUDA_ROWS, 0, input, tile,
              in);
  const float *ones = parts->identity, *zeros = ones + 2 * p->work.d.cp, *w = weights;
  ser_activation read = {input, NULL, NULL, NULL}, between = {h, ones, zeros, NULL}, out = {a, ones, zeros, NULL};
  cuda_causal_conv_forward(stream, parts->convs[0], workspace, x, NULL, &read, w, w + s->channels * s->channels_in,
                           batch);
  w += p->first_weights;
  read.x = x;
  for (int64_t block = 0; block < s->blocks; block++) {
    const ser_plan *plan = parts->convs[1 + block];
    int64_t bias = p->weights - s->channels;
    cuda_causal_conv_forward(stream, plan, workspace, h, NULL, &read, w, w + bias, batch);
    w += p->weights;
    cuda_causal_conv_forward(stream, plan, workspace, a, NULL, &between, w, w + bias, batch);
    w += p->weights;
    if (s->join) {
      cuda_join_forward(stream, other, &read, &out, (ser_join)(s->join - 1), &shape);
      read.x = other;
      other = x;
      x = (float *)read.x;
    } else {
      read = out;
    }
    if (s->every_scale || block + 1 == s->blocks)
      cuda_pool_forward(stream, pooled + (s->every_scale ? block : 0) * batch * p->work.d.cp, &read, lengths, &shape);
  }
}

static ser_status prepare_parts(branch_plan *p, ser_error *err) {
  const ser_branch_shape *s = &p->shape;
  branch_parts *parts = &p->parts;
  int64_t cp = p->work.d.cp, side = p->first_weights + 2 * s->blocks * p->weights;
  ser_conv_shape shape = {2, s->batch, s->channels_in, s->channels, s->time, 1, 1, side};
  ser_device *device = &p->base.device->device;
  parts->convs = (ser_plan **)ser_alloc_zero((size_t)(1 + s->blocks), sizeof *parts->convs);
  for (int64_t i = 0; i <= s->blocks; i++) {
    SER_TRY(cuda_conv_prepare(device, &parts->convs[i], &shape, err));
    size_t floats = SER_ROUND_UP(parts->convs[i]->workspace, 256) / sizeof(float);
    if (floats > parts->room) parts->room = floats;
    shape.in = s->channels;
    shape.kernel = s->kernel;
    shape.dilation = i < 30 ? (int64_t)1 << i : s->time;
  }
  float *identity = (float *)ser_alloc_zero((size_t)(4 * cp), sizeof *identity);
  for (int64_t i = 0; i < 2 * cp; i++) identity[i] = i % cp < s->channels ? 1 : 0;
  ser_status status = cuda_table(&parts->identity, p->base.device, identity, (size_t)(4 * cp) * sizeof *identity, err);
  free(identity);
  parts->input = (size_t)(2 * s->batch * p->work.in.cp * p->work.in.tp);
  parts->tensor = (size_t)(2 * s->batch * cp * p->work.d.tp);
  p->base.plan.workspace = (parts->room + parts->input + 4 * parts->tensor) * sizeof(float);
  return status;
}

/* ---- the plan -----------------------------------------------------------------------------------------------------
 */

static void end_plan(cuda_plan *plan) {
  branch_plan *p = (branch_plan *)plan;
  for (int64_t i = 0; p->parts.convs && i <= p->shape.blocks; i++) ser_plan_free(p->parts.convs[i]);
  free(p->parts.convs);
  cuda_table_free(plan->device, p->parts.identity);
}

/* How the whole branch is done in one block, if its tiles leave room for the weights of CHUNK_LEAST rows. */
static bool fit_whole(branch_plan *p) {
  branch_work *k = &p->work;
  const ser_branch_shape *s = &p->shape;
  int64_t groups = (s->time + 31) / 32, each = groups <= 2 ? 1 : groups <= 4 ? 2 : 3;
  int64_t time_tasks = (groups + each - 1) / each, tasks = k->d.cp / CONV_OCTET * time_tasks;
  int64_t rounds = (tasks + WARPS_MOST - 1) / WARPS_MOST, warps = (tasks + rounds - 1) / rounds;
  int64_t most = s->channels > s->channels_in ? s->channels : s->channels_in, pitch = s->time + MARGIN;
  int64_t tiles = SER_ROUND_UP(MARGIN + (s->channels + most) * pitch + GAP, 4);
  int64_t left = (int64_t)(p->base.device->shared_most / sizeof(float)) - tiles, chunk = warps * 128 / k->d.cp;
  if (left < chunk * k->d.cp) chunk = left / k->d.cp;
  if (chunk < CHUNK_LEAST || chunk * k->d.cp < 96) return false; /* 96: what a warp may read behind the last row */
  p->groups = (int)each;
  k->pitch = (int)pitch;
  k->time_tasks = (int)time_tasks;
  k->rounds = (int)rounds;
  k->warps = (int)warps;
  k->chunk = (int)chunk;
  k->rows = (int)(1 + s->channels_in + 2 * s->blocks * (1 + s->kernel * s->channels));
  p->shared = (size_t)(tiles + chunk * k->d.cp) * sizeof(float);
  return true;
}

static ser_status prepare_whole(branch_plan *p, ser_error *err) {
  const branch_work *k = &p->work;
  const void *kernel = p->groups == 1   ? (const void *)branch_kernel<1>
                       : p->groups == 2 ? (const void *)branch_kernel<2>
                                        : (const void *)branch_kernel<3>;
  int most = (int)p->base.device->shared_most; /* whatever this plan needs: the kernel is that of other plans, too */
  CUDA_TRY(CUDA_RUNTIME, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most), err);
  size_t packed = (size_t)(2 * k->rows + k->chunk) * k->d.cp; /* a chunk may be read beyond the end */
  p->base.plan.workspace = (packed + 2 * (size_t)(k->scales * p->shape.batch * k->d.cp)) * sizeof(float);
  return SER_OK;
}

ser_status cuda_branch_prepare(ser_device *device, ser_plan **plan, const ser_branch_shape *shape, ser_error *err) {
  branch_plan *p = (branch_plan *)cuda_plan_make(device, sizeof *p, end_plan);
  branch_work *k = &p->work;
  ser_tensor_shape in = {1, shape->batch, shape->channels_in, shape->time};
  ser_tensor_shape d = {1, shape->batch, shape->channels, shape->time};
  p->shape = *shape;
  k->in = cuda_dims_of(&in);
  k->d = cuda_dims_of(&d);
  k->blocks = (int)shape->blocks;
  k->taps = (int)shape->kernel;
  k->join = shape->join;
  k->scales = shape->every_scale ? (int)shape->blocks : 1;
  p->first_weights = shape->channels * (shape->channels_in + 1);
  p->weights = shape->channels * (shape->channels * shape->kernel + 1);
  ser_status status = fit_whole(p) ? prepare_whole(p, err) : prepare_parts(p, err);
  *plan = &p->base.plan;
  if (status == SER_OK) return SER_OK;
  ser_plan_free(*plan);
  *plan = NULL;
  return status;
}

void cuda_branch_infer(ser_stream *stream, const ser_plan *plan, void *workspace, float *pooled, const float *tile,
                       const float *weights, const int64_t *lengths, int64_t batch) {
  enum { THREADS = 256 };
  const branch_plan *p = (const branch_plan *)plan;
  if (!p->groups) {
    infer_by_parts(stream, p, (float *)workspace, pooled, tile, weights, lengths, batch);
    return;
  }
  branch_work k = p->work;
  float *packed = (float *)workspace;
  int64_t all = (int64_t)(2 * k.rows + k.chunk) * k.d.cp, vectors = k.scales * batch * k.d.cp;
  k.d.batch = k.in.batch = (int)batch;
  k.tile = tile;
  k.lengths = lengths;
  k.packed = packed;
  k.sides = packed + all;
  unsigned blocks = 2 * (unsigned)batch, threads = 32 * (unsigned)k.warps;
  CUDA_LAUNCH(stream, pack_branch_kernel, cuda_blocks(all, THREADS), THREADS, 0, packed, weights, k, p->first_weights,
              p->weights);
  if (p->groups == 1)
    CUDA_LAUNCH(stream, branch_kernel<1>, blocks, threads, p->shared, k);
  else if (p->groups == 2)
    CUDA_LAUNCH(stream, branch_kernel<2>, blocks, threads, p->shared, k);
  else
    CUDA_LAUNCH(stream, branch_kernel<3>, blocks, threads, p->shared, k);
  CUDA_LAUNCH(stream, add_directions_kernel, cuda_blocks(vectors, THREADS), THREADS, 0, pooled, k.sides, vectors);
}
