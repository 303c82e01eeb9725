/* The CUDA form of front.c: samples placed and normalised, the norm's moments, and the first convolution with norm and
 * GELU in one pass.
 *
 * Sums over a clip are in double, in pieces of the clip's own samples: a block a piece, then a block a clip, which adds
 * up its pieces in an order that its length gives. The host knows none of it. */
#include "kernels/cuda_kernels.h"
#include "kernels/rows_cuda.h"

enum {
  PIECE = 4096, /* samples, rounded to whole strides */
  THREADS = 512,
  VALUES_MOST = 1 + SER_FRONT_KERNEL_MOST * (SER_FRONT_KERNEL_MOST + 3) / 2 /* the squares and the moments */
};

typedef struct {
  int kernel, stride, hop, channels, padded; /* padded: channels in whole fours */
  int piece, values;
  bool normalise, over_time;
  float eps;
} front_form;

typedef struct {
  cuda_plan plan;
  ser_front_shape shape;
  front_form form;
} front_plan;

/* Where a run's sums lie in the workspace. */
typedef struct {
  double *mean, *scale; /* [clips] */
  double *sums;         /* [pieces]: of the samples */
  double *values;       /* [pieces][values]: of squares, of taps and of their products, about the clip's mean */
} front_room;

static int64_t pieces_of(const front_plan *p, int64_t clips) {
  return cuda_parts(p->shape.max_samples, clips, p->form.piece);
}

static front_room room_of(const front_plan *p, void *workspace, int64_t clips) {
  front_room room;
  room.mean = (double *)workspace;
  room.scale = room.mean + p->shape.max_clips;
  room.sums = room.scale + p->shape.max_clips;
  room.values = room.sums + pieces_of(p, clips);
  return room;
}

ser_status cuda_front_prepare(ser_device *device, ser_plan **plan, const ser_front_shape *shape, ser_error *err) {
  (void)err;
  front_plan *p = (front_plan *)cuda_plan_make(device, sizeof *p, NULL);
  front_form *f = &p->form;
  p->shape = *shape;
  f->kernel = (int)shape->kernel;
  f->stride = (int)shape->stride;
  f->hop = (int)shape->hop;
  f->channels = (int)shape->channels;
  f->padded = SER_ROUND_UP(f->channels, 4);
  f->piece = PIECE / f->stride * f->stride;
  f->values = shape->over_time ? 1 + SER_FRONT_MOMENTS(f->kernel) : 1;
  f->normalise = shape->normalise;
  f->over_time = shape->over_time;
  f->eps = shape->eps;
  int64_t pieces = pieces_of(p, shape->max_clips);
  p->plan.plan.packed = (size_t)(f->padded * f->kernel) * sizeof(float);
  p->plan.plan.workspace = (size_t)(2 * shape->max_clips + pieces * (1 + f->values)) * sizeof(double);
  *plan = &p->plan.plan;
  return SER_OK;
}

/* packed [kernel][padded] */
static __global__ void front_pack_kernel(float *packed, const float *w, const __grid_constant__ front_form f) {
  int at = (int)(blockIdx.x * THREADS + threadIdx.x), tap = at / f.padded, c = at - tap * f.padded;
  if (tap < f.kernel) packed[at] = c < f.channels ? w[c * f.kernel + tap] : 0;
}

void cuda_front_pack(ser_stream *stream, const ser_plan *plan, void *packed, const float *w) {
  const front_form *f = &((const front_plan *)plan)->form;
  CUDA_LAUNCH(stream, front_pack_kernel, cuda_blocks(f->kernel * f->padded, THREADS), THREADS, 0, (float *)packed, w,
              *f);
}

/* ---- the sums of a clip ---- */

static __global__ void front_sum_kernel(front_room room, const float *pcm, const int64_t *sample_start, int clips,
                                        const __grid_constant__ front_form f) {
  __shared__ double tree[CUDA_WARP];
  cuda_part part = cuda_part_of(sample_start, clips, blockIdx.x, f.piece);
  int64_t left = part.length - part.first;
  int count = left < f.piece ? (int)left : f.piece;
  double sum = 0;
  pcm += part.start + part.first;
  for (int i = (int)threadIdx.x; i < count; i += THREADS) sum += (double)pcm[i];
  sum = cuda_block_sum(sum, tree);
  if (threadIdx.x == 0) room.sums[blockIdx.x] = sum;
}

/* Samples of a piece and what follows them, about the clip's mean. */
typedef struct {
  double y[PIECE + SER_FRONT_KERNEL_MOST];
  double parts[THREADS];
  double tree[CUDA_WARP];
  double mean;
} piece_room;

/* The clip's mean, from its pieces, for all of the block's threads; the clip's first block keeps it. */
static __device__ double mean_of(piece_room *shared, const front_room &room, const int64_t *sample_start,
                                 const cuda_part &part, int piece) {
  int64_t first = cuda_first_part(sample_start, part.clip, piece), pieces = (part.length + piece - 1) / piece;
  double sum = 0;
  for (int64_t i = threadIdx.x; i < pieces; i += THREADS) sum += room.sums[first + i];
  sum = cuda_block_sum(sum, shared->tree);
  if (threadIdx.x == 0) {
    shared->mean = sum / (double)part.length;
    if (part.first == 0) room.mean[part.clip] = shared->mean;
  }
  __syncthreads();
  return shared->mean;
}

/* A thread's part of a sum over many: `lane` is which of the values it adds up, `group` its turn among those who do the
 * same. */
typedef struct {
  int lane, group, groups, lanes;
  bool idle;
} front_share;

static __device__ inline front_share share_of(int values) {
  front_share s;
  s.lanes = (values + CUDA_WARP - 1) / CUDA_WARP * CUDA_WARP;
  s.groups = THREADS / s.lanes;
  s.lane = (int)threadIdx.x % s.lanes;
  s.group = (int)threadIdx.x / s.lanes;
  s.idle = s.group >= s.groups || s.lane >= values;
  return s;
}

/* The groups' sums in their order, for the threads of group 0. All threads must come. */
static __device__ inline double add_groups(double *parts, double mine, const front_share &s) {
  double sum = 0;
  parts[threadIdx.x] = mine;
  __syncthreads();
  for (int g = 0; g < s.groups; g++) sum += parts[g * s.lanes + s.lane];
  __syncthreads();
  return sum;
}

/* The sum over the piece's windows of value 1 + `at`: of tap j, or of the product of taps j and k, j <= k. Windows
 * belong to the piece in which they begin. */
static __device__ double sum_windows(const double *y, int at, int windows, const front_share &s, const front_form &f) {
  int j = at, k = -1;
  if (at >= f.kernel) {
    k = at - f.kernel;
    for (j = 0; k >= f.kernel - j; j++) k -= f.kernel - j;
    k += j;
  }
  double sum = 0;
  for (int i = s.group; i < windows; i += s.groups) {
    const double *window = y + i * f.stride;
    sum += k < 0 ? window[j] : window[j] * window[k];
  }
  return sum;
}

static __global__ void front_moments_kernel(front_room room, const float *pcm, const int64_t *sample_start, int clips,
                                            const __grid_constant__ front_form f) {
  __shared__ piece_room shared;
  cuda_part part = cuda_part_of(sample_start, clips, blockIdx.x, f.piece);
  int64_t left = part.length - part.first;
  if (left <= 0) return;
  int count = left < f.piece ? (int)left : f.piece, all = left < count + f.kernel ? (int)left : count + f.kernel;
  double mean = mean_of(&shared, room, sample_start, part, f.piece), squares = 0;
  double *values = room.values + (int64_t)blockIdx.x * f.values;
  pcm += part.start + part.first;
  for (int i = (int)threadIdx.x; i < all; i += THREADS) {
    double apart = (double)pcm[i] - mean;
    shared.y[i] = apart;
    if (i < count) squares += apart * apart;
  }
  squares = cuda_block_sum(squares, shared.tree);
  if (threadIdx.x == 0) values[0] = squares;
  if (!f.over_time) return;
  int windows = left < f.kernel ? 0 : (int)((left - f.kernel) / f.stride + 1), most = (count + f.stride - 1) / f.stride;
  front_share share = share_of(f.values - 1);
  double sum = share.idle ? 0 : sum_windows(shared.y, share.lane, windows < most ? windows : most, share, f);
  sum = add_groups(shared.parts, sum, share);
  if (share.group == 0 && !share.idle) values[1 + share.lane] = sum;
}

/* A block adds up a clip: its scale, and its moments. */
static __global__ void front_finish_kernel(front_room room, double *moments, const int64_t *sample_start,
                                           const __grid_constant__ front_form f) {
  __shared__ double parts[THREADS], total[VALUES_MOST];
  int clip = (int)blockIdx.x;
  int64_t samples = sample_start[clip + 1] - sample_start[clip], pieces = (samples + f.piece - 1) / f.piece;
  const double *values = room.values + cuda_first_part(sample_start, clip, f.piece) * f.values;
  front_share share = share_of(f.values);
  double sum = 0;
  if (!share.idle)
    for (int64_t i = share.group; i < pieces; i += share.groups) sum += values[i * f.values + share.lane];
  sum = add_groups(parts, sum, share);
  if (share.group == 0 && !share.idle) total[share.lane] = sum;
  __syncthreads();
  double scale = f.normalise ? 1 / sqrt(total[0] / (double)samples + 1e-7) : 1;
  if (threadIdx.x == 0) room.scale[clip] = scale;
  if (!f.over_time) return;
  double windows = (double)((samples - f.kernel) / f.stride + 1);
  const double *taps = total + 1, *products = taps + f.kernel;
  moments += (int64_t)clip * (f.values - 1);
  for (int j = (int)threadIdx.x; j < f.kernel; j += THREADS) moments[j] = taps[j] / windows * scale;
  for (int i = (int)threadIdx.x; i < f.kernel * f.kernel; i += THREADS) {
    int j = i / f.kernel, k = i % f.kernel, at = j * f.kernel - j * (j - 1) / 2 + k - j;
    if (k >= j)
      moments[f.kernel + at] = (products[at] / windows - taps[j] / windows * (taps[k] / windows)) * scale * scale;
  }
}

/* ---- placing the samples ---- */

enum { PLACE_THREADS = 128 };

/* A block places one encoder row's samples; the block behind the last row, the zeros there. */
static __global__ void front_place_kernel(float *wave, front_room room, const float *pcm, const int64_t *sample_start,
                                          const __grid_constant__ ser_rows rows, const __grid_constant__ front_form f) {
  int64_t row = blockIdx.x;
  wave += row * f.hop;
  if (row == rows.rows) {
    for (int i = (int)threadIdx.x; i < f.kernel; i += PLACE_THREADS) wave[i] = 0;
    return;
  }
  int clip = rows.clip_of_row[row];
  int64_t first = (row - rows.row_start[clip]) * f.hop, left = sample_start[clip + 1] - sample_start[clip] - first;
  bool centred = f.normalise || f.over_time;
  double mean = centred ? room.mean[clip] : 0, scale = centred ? room.scale[clip] : 1;
  pcm += sample_start[clip] + first;
  for (int i = (int)threadIdx.x; i < f.hop; i += PLACE_THREADS) {
    float x = i < left ? pcm[i] : 0;
    if (centred && i < left) x = (float)(((double)x - mean) * scale);
    wave[i] = x;
  }
}

void cuda_front_wave(ser_stream *stream, const ser_plan *plan, void *workspace, float *wave, double *moments,
                     const float *pcm, const int64_t *sample_start, const ser_rows *rows) {
  const front_plan *p = (const front_plan *)plan;
  const front_form *f = &p->form;
  int clips = (int)rows->clips;
  unsigned pieces = (unsigned)pieces_of(p, clips);
  front_room room = room_of(p, workspace, clips);
  if (clips && (f->normalise || f->over_time)) {
    CUDA_LAUNCH(stream, front_sum_kernel, pieces, THREADS, 0, room, pcm, sample_start, clips, *f);
    CUDA_LAUNCH(stream, front_moments_kernel, pieces, THREADS, 0, room, pcm, sample_start, clips, *f);
    CUDA_LAUNCH(stream, front_finish_kernel, (unsigned)clips, THREADS, 0, room, moments, sample_start, *f);
  }
  CUDA_LAUNCH(stream, front_place_kernel, (unsigned)rows->rows + 1, PLACE_THREADS, 0, wave, room, pcm, sample_start,
              *rows, *f);
}

/* ---- the norm ---- */

enum { NORM_THREADS = 128 };

static __global__ void front_norm_kernel(float *norm, const double *moments, const float *w, const float *gamma,
                                         const float *beta, const __grid_constant__ front_form f) {
  int c = (int)(blockIdx.x * NORM_THREADS + threadIdx.x);
  int64_t clip = blockIdx.y;
  if (c >= f.channels) return;
  moments += clip * (f.values - 1);
  norm += clip * 2 * f.channels;
  w += (int64_t)c * f.kernel;
  const double *covariance = moments + f.kernel;
  double mean = 0, var = 0;
  for (int j = 0; j < f.kernel; j++) {
    mean += (double)w[j] * moments[j];
    for (int k = j; k < f.kernel; k++) var += (k > j ? 2 : 1) * (double)w[j] * (double)w[k] * *covariance++;
  }
  double scale = (double)gamma[c] / sqrt((var > 0 ? var : 0) + (double)f.eps);
  norm[c] = (float)scale;
  norm[f.channels + c] = (float)((double)beta[c] - mean * scale);
}

void cuda_front_norm(ser_stream *stream, const ser_plan *plan, float *norm, const double *moments, const float *w,
                     const float *gamma, const float *beta, int64_t clips) {
  const front_form *f = &((const front_plan *)plan)->form;
  dim3 blocks(cuda_blocks(f->channels, NORM_THREADS), (unsigned)clips);
  if (clips) CUDA_LAUNCH(stream, front_norm_kernel, blocks, NORM_THREADS, 0, norm, moments, w, gamma, beta, *f);
}

/* ---- the convolution: a block takes some of the output's rows that belong to one of the encoder's ---- */

enum {
  TILE = 32, /* rows of a block, at most */
  FORWARD_THREADS = 128,
  WARPS = FORWARD_THREADS / CUDA_WARP,
  WARP_ROWS = 4,                       /* rows that a warp norms at once */
  FOURS = 4,                           /* a lane's channels of a row: four times four */
  BY_ROW_MOST = FOURS * 4 * CUDA_WARP, /* channels that a warp can norm */
  SHORT_KERNEL = 10                    /* the usual one: its weights fit fewer registers */
};

typedef struct {
  float *out;
  const float *wave, *packed, *bias, *norm, *gamma, *beta;
  const int32_t *clip_of_row;
  int64_t first, count; /* the output's rows that are asked for */
  int per_row;          /* the output's rows to one of the encoder's */
  bool aligned;         /* rows of the output and of parameters are read as fours */
} front_run;

/* The block's rows, of all: [first, first + count); their samples come to shared memory. */
typedef struct {
  int64_t first;
  int count;
  int64_t row; /* the encoder's */
} front_tile;

static __device__ front_tile tile_of(float *samples, const front_run &run, const front_form &f) {
  int64_t tiles = (run.per_row + TILE - 1) / TILE, frame = run.first / run.per_row + blockIdx.x / tiles;
  int64_t first = frame * run.per_row + blockIdx.x % tiles * TILE, end = first + TILE;
  if (end > (frame + 1) * run.per_row) end = (frame + 1) * run.per_row;
  if (end > run.first + run.count) end = run.first + run.count;
  if (first < run.first) first = run.first;
  front_tile tile = {first, end > first ? (int)(end - first) : 0, frame};
  const float *from = run.wave + first * f.stride;
  int needed = tile.count ? (tile.count - 1) * f.stride + f.kernel : 0;
  for (int i = (int)threadIdx.x; i < needed; i += FORWARD_THREADS) samples[i] = from[i];
  return tile;
}

static __device__ __forceinline__ void add_tap(float4 *sum, float x, float4 w) {
  sum->x = fmaf(x, w.x, sum->x);
  sum->y = fmaf(x, w.y, sum->y);
  sum->z = fmaf(x, w.z, sum->z);
  sum->w = fmaf(x, w.w, sum->w);
}

/* gelu(conv * scale + shift), the clip's; or, where there is no norm, conv + bias alone. A thread takes four channels
 * of every row, their weights in registers. */
template <int TAPS>
static __global__ void front_scaled_kernel(const __grid_constant__ front_run run,
                                           const __grid_constant__ front_form f) {
  extern __shared__ float samples[];
  front_tile tile = tile_of(samples, run, f);
  int c = 4 * (int)(blockIdx.y * FORWARD_THREADS + threadIdx.x);
  __syncthreads();
  if (c >= f.channels) return;
  float4 w[TAPS], scale = make_float4(1, 1, 1, 1), shift = make_float4(0, 0, 0, 0);
#pragma unroll
  for (int j = 0; j < TAPS; j++)
    w[j] = j < f.kernel ? *(const float4 *)(run.packed + j * f.padded + c) : make_float4(0, 0, 0, 0);
  if (run.norm && tile.count) {
    const float *norm = run.norm + (int64_t)run.clip_of_row[tile.row] * 2 * f.channels;
    scale = cuda_read_four(norm, c, f.channels, run.aligned);
    shift = cuda_read_four(norm + f.channels, c, f.channels, run.aligned);
  } else if (run.bias) {
    shift = cuda_read_four(run.bias, c, f.channels, run.aligned);
  }
  float *out = run.out + (tile.first - run.first) * f.channels;
#pragma unroll 2
  for (int row = 0; row < tile.count; row++, out += f.channels) {
    const float *x = samples + row * f.stride;
    float4 v = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int j = 0; j < TAPS; j++)
      if (TAPS == SHORT_KERNEL || j < f.kernel) add_tap(&v, x[j], w[j]);
    v = make_float4(fmaf(v.x, scale.x, shift.x), fmaf(v.y, scale.y, shift.y), fmaf(v.z, scale.z, shift.z),
                    fmaf(v.w, scale.w, shift.w));
    if (run.norm) v = make_float4(cuda_gelu(v.x), cuda_gelu(v.y), cuda_gelu(v.z), cuda_gelu(v.w));
    cuda_write_four(out, c, v, f.channels, run.aligned);
  }
}

/* conv + bias of WARP_ROWS rows, the lane's channels of each; x: the samples of the first. */
static __device__ __forceinline__ void convolve_rows(float4 (*v)[FOURS], const float *x, const float *weights,
                                                     const front_run &run, const front_form &f) {
  int lane = 4 * ((int)threadIdx.x % CUDA_WARP);
#pragma unroll
  for (int i = 0; i < FOURS; i++) {
    int c = lane + i * 4 * CUDA_WARP;
    float4 start = make_float4(0, 0, 0, 0);
    if (run.bias) start = cuda_read_four(run.bias, c, f.channels, run.aligned);
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++) v[r][i] = start;
  }
  for (int j = 0; j < f.kernel; j++, weights += f.padded)
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
      int c = lane + i * 4 * CUDA_WARP;
      float4 w = c < f.padded ? *(const float4 *)(weights + c) : make_float4(0, 0, 0, 0);
#pragma unroll
      for (int r = 0; r < WARP_ROWS; r++) add_tap(&v[r][i], x[r * f.stride + j], w);
    }
}

static __device__ __forceinline__ void norm_row(float *out, float4 *v, const front_run &run, const front_form &f) {
  int lane = 4 * ((int)threadIdx.x % CUDA_WARP);
  float sum = 0, apart = 0;
#pragma unroll
  for (int i = 0; i < FOURS; i++) sum += (v[i].x + v[i].y) + (v[i].z + v[i].w);
  float mean = cuda_warp_add(sum) / (float)f.channels;
#pragma unroll
  for (int i = 0; i < FOURS; i++) apart += cuda_squares(v[i], mean, lane + i * 4 * CUDA_WARP, f.channels);
  float scale = 1 / sqrtf(cuda_warp_add(apart) / (float)f.channels + f.eps);
#pragma unroll
  for (int i = 0; i < FOURS; i++) {
    int c = lane + i * 4 * CUDA_WARP;
    float4 gamma = cuda_read_four(run.gamma, c, f.channels, run.aligned);
    float4 beta = cuda_read_four(run.beta, c, f.channels, run.aligned);
    cuda_write_four(out, c, cuda_normed(v[i], mean, scale, gamma, beta, true), f.channels, run.aligned);
  }
}

/* gelu(norm(conv + bias)), each row over its channels, in one warp. */
static __global__ void front_by_row_kernel(const __grid_constant__ front_run run,
                                           const __grid_constant__ front_form f) {
  extern __shared__ float4 room[];
  int size = f.kernel * f.padded / 4, warp = (int)threadIdx.x / CUDA_WARP;
  float *samples = (float *)(room + size);
  front_tile tile = tile_of(samples, run, f);
  for (int i = (int)threadIdx.x; i < size; i += FORWARD_THREADS) room[i] = ((const float4 *)run.packed)[i];
  __syncthreads();
  for (int row = warp * WARP_ROWS; row < tile.count; row += WARPS * WARP_ROWS) {
    float4 v[WARP_ROWS][FOURS];
    convolve_rows(v, samples + row * f.stride, (const float *)room, run, f);
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++)
      if (row + r < tile.count) norm_row(run.out + (tile.first + row + r - run.first) * f.channels, v[r], run, f);
  }
}

void cuda_front_forward(ser_stream *stream, const ser_plan *plan, float *out, const float *wave, const void *packed,
                        const float *bias, const float *norm, const float *gamma, const float *beta,
                        const ser_rows *rows, int64_t first, int64_t count) {
  const front_form *f = &((const front_plan *)plan)->form;
  int per_row = f->hop / f->stride;
  bool aligned = f->channels % 4 == 0 && cuda_is_aligned(out) && cuda_is_aligned(norm) && cuda_is_aligned(bias) &&
                 cuda_is_aligned(gamma) && cuda_is_aligned(beta);
  front_run run = {out,
                   wave,
                   (const float *)packed,
                   f->over_time ? NULL : bias,
                   f->over_time ? norm : NULL,
                   gamma,
                   beta,
                   rows->clip_of_row,
                   first,
                   count,
                   per_row,
                   aligned};
  if (!count) return;
  int64_t frames = (first + count - 1) / per_row - first / per_row + 1;
  unsigned tiles = (unsigned)(frames * cuda_blocks(per_row, TILE));
  size_t samples = (size_t)((TILE + WARP_ROWS - 1) * f->stride + f->kernel) * sizeof(float);
  dim3 blocks(tiles, cuda_blocks(f->padded / 4, FORWARD_THREADS));
  if (!f->over_time && f->channels <= BY_ROW_MOST) {
    size_t weights = (size_t)(f->kernel * f->padded) * sizeof(float);
    CUDA_LAUNCH(stream, front_by_row_kernel, tiles, FORWARD_THREADS, weights + samples, run, *f);
    return;
  }
  if (f->kernel == SHORT_KERNEL)
    CUDA_LAUNCH(stream, front_scaled_kernel<SHORT_KERNEL>, blocks, FORWARD_THREADS, samples, run, *f);
  else
    CUDA_LAUNCH(stream, front_scaled_kernel<SER_FRONT_KERNEL_MOST>, blocks, FORWARD_THREADS, samples, run, *f);
  if (!f->over_time) cuda_layernorm_forward(stream, out, out, gamma, beta, f->eps, true, f->channels, count);
}
