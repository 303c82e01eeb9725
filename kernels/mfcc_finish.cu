/* The CUDA form of mfcc_finish.c: the peaks of the clips, then floor, DCT below the peak and deltas of a tile of rows.
 *
 * A tile's rows may be of several clips, and a clip may have many tiles: where a row's clip begins and ends is looked
 * up for each row. The most that a row's deltas reach is 8 rows (at a clip's ends): a tile makes so many more on each
 * side.
 */
#include "kernels/mfcc_cuda.h"

#include <math.h>

typedef struct {
  float *features;
  const float *logmel;
  const int64_t *frame_start;
  unsigned *peaks; /* [clips] as peak_key gives them */
  const float *dct;
  int64_t frames;
  double root; /* of mels: what the DCT makes of a constant 1 */
  int clips, mels, coefficients, padded;
  bool deltas;
} finish_job;

/* ---- the peaks ----------------------------------------------------------------------------------------------------
 */

enum { WARP = 32, PEAK_WARPS = 8, PEAK_ROWS = 8 }; /* PEAK_ROWS: rows of a warp */

/* Floats in ascending order as whole numbers; 0 lies below all of them. */
static __device__ inline unsigned peak_key(float x) {
  unsigned bits = __float_as_uint(x);
  return bits >> 31 ? ~bits : bits | 0x80000000;
}

static __device__ inline float peak_value(unsigned key) {
  return __uint_as_float(key >> 31 ? key & 0x7fffffff : ~key);
}

/* A maximum does not depend on the order. It passes over NaN, which shows in its own row. */
static __global__ void peaks_kernel(finish_job job) {
  int64_t row = ((int64_t)blockIdx.x * PEAK_WARPS + threadIdx.y) * PEAK_ROWS, end = min(row + PEAK_ROWS, job.frames);
  if (row >= end) return;
  for (int clip = mfcc_clip_of_row(job.frame_start, job.clips, row); row < end; clip++) {
    int64_t stop = min(job.frame_start[clip + 1], end);
    if (stop <= row) continue;
    const float *x = job.logmel + row * job.mels;
    int count = (int)(stop - row) * job.mels;
    float most = -INFINITY;
#pragma unroll 4
    for (int i = (int)threadIdx.x; i < count; i += WARP) most = x[i] > most ? x[i] : most;
    for (int apart = WARP / 2; apart; apart /= 2) {
      float other = __shfl_xor_sync(0xffffffff, most, apart);
      most = other > most ? other : most;
    }
    if (threadIdx.x == 0) atomicMax(job.peaks + clip, peak_key(most));
    row = stop;
  }
}

/* ---- floor, DCT, deltas -------------------------------------------------------------------------------------------
 */

enum {
  THREADS = 256,
  TILE = 64,                                   /* rows */
  REACH = 8,                                   /* more rows on each side, where there are deltas */
  EDGE = 4,                                    /* rows that a delta reads on each side of its middle */
  OF_A_THREAD = TILE * MFCC_COLUMNS / THREADS, /* rows that a thread makes of one coefficient */
  PART = 16,                                   /* products that are added up apart, as in mfcc_finish.c */
  CHUNK = 2 * PART,                            /* bands in shared memory at a time */
};

typedef struct {
  float below[TILE][CHUNK + 1]; /* decibels below the clip's peak, at most 80 */
  float dct[CHUNK][MFCC_COLUMNS];
  float out[TILE][MFCC_COLUMNS];
  float peak[TILE];
  int middle[TILE]; /* the row that a row's deltas are taken at, in the tile */
} finish_tile;

static __device__ inline void look_up_row(finish_tile *tile, const finish_job &job, int at, int64_t row) {
  tile->peak[at] = 0;
  tile->middle[at] = at;
  if (row < 0 || row >= job.frames) return;
  int clip = mfcc_clip_of_row(job.frame_start, job.clips, row);
  int64_t t = row - job.frame_start[clip], last = job.frame_start[clip + 1] - job.frame_start[clip] - 1 - EDGE;
  tile->peak[at] = peak_value(job.peaks[clip]);
  tile->middle[at] = at + (int)((t < EDGE ? EDGE : t > last ? last : t) - t);
}

/* Bands [band, band + CHUNK) of the tile's rows, which begin at row `first`, and of the DCT's columns from c0 on; zeros
 * where there are none. */
static __device__ inline void load_chunk(finish_tile *tile, const finish_job &job, int64_t first, int band, int c0) {
  for (int i = (int)threadIdx.x; i < TILE * CHUNK; i += THREADS) {
    int at = i / CHUNK, m = i % CHUNK;
    float below = 0;
    if (first + at >= 0 && first + at < job.frames && band + m < job.mels) {
      below = job.logmel[(first + at) * job.mels + band + m] - tile->peak[at];
      below = below < -80 ? -80 : below;
    }
    tile->below[at][m] = below;
  }
  for (int i = (int)threadIdx.x; i < CHUNK * MFCC_COLUMNS; i += THREADS) {
    int m = i / MFCC_COLUMNS, c = i % MFCC_COLUMNS;
    tile->dct[m][c] = band + m < job.mels ? job.dct[(band + m) * job.padded + c0 + c] : 0;
  }
}

/* A thread's column c and its rows: row, row + TILE / OF_A_THREAD, ... */
static __device__ inline void dct_rows(finish_tile *tile, const finish_job &job, int64_t first, int c0) {
  int c = (int)threadIdx.x % MFCC_COLUMNS, row = (int)threadIdx.x / MFCC_COLUMNS;
  const int apart = TILE / OF_A_THREAD;
  float sum[OF_A_THREAD] = {};
  for (int band = 0; band < job.mels; band += CHUNK) {
    __syncthreads();
    load_chunk(tile, job, first, band, c0);
    __syncthreads();
#pragma unroll
    for (int from = 0; from < CHUNK; from += PART) {
      float part[OF_A_THREAD] = {};
#pragma unroll
      for (int m = from; m < from + PART; m++)
#pragma unroll
        for (int i = 0; i < OF_A_THREAD; i++) part[i] += tile->dct[m][c] * tile->below[row + i * apart][m];
#pragma unroll
      for (int i = 0; i < OF_A_THREAD; i++) sum[i] += part[i];
    }
  }
#pragma unroll
  for (int i = 0; i < OF_A_THREAD; i++) {
    int at = row + i * apart;
    tile->out[at][c] = c0 + c == 0 ? sum[i] + (float)((double)tile->peak[at] * job.root) : sum[i];
  }
  __syncthreads();
}

/* Slope (part 1) or second derivative (part 2) of the parabola fitted to the nine rows around x. */
static __device__ inline float delta(const float *x, int part) {
  float around[EDGE], slope = 0;
#pragma unroll
  for (int n = 1; n <= EDGE; n++) {
    float after = x[n * MFCC_COLUMNS], before = x[-n * MFCC_COLUMNS];
    slope += (after - before) * (float)n;
    around[n - 1] = after + before;
  }
  if (part == 1) return slope * (1.0f / 60);
  return (around[3] * 28 + around[2] * 7 - around[1] * 8 - around[0] * 17 - x[0] * 20) * (1.0f / 462);
}

/* blockIdx.x: the tile; blockIdx.y: MFCC_COLUMNS coefficients. */
static __global__ void __launch_bounds__(THREADS) finish_kernel(finish_job job) {
  __shared__ finish_tile tile;
  int reach = job.deltas ? REACH : 0, rows = TILE - 2 * reach, parts = job.deltas ? 3 : 1;
  int64_t first = (int64_t)blockIdx.x * rows - reach;
  int c0 = (int)blockIdx.y * MFCC_COLUMNS, width = min(MFCC_COLUMNS, job.coefficients - c0);
  if (threadIdx.x < TILE) look_up_row(&tile, job, (int)threadIdx.x, first + threadIdx.x);
  dct_rows(&tile, job, first, c0);
  for (int i = (int)threadIdx.x; i < rows * parts * width; i += THREADS) {
    int line = i / width, c = i - line * width, at = line / parts, part = line - at * parts;
    int64_t row = first + reach + at;
    if (row >= job.frames) break;
    at += reach;
    float value = part ? delta(&tile.out[tile.middle[at]][c], part) : tile.out[at][c];
    job.features[(row * parts + part) * job.coefficients + c0 + c] = value;
  }
}

void cuda_mfcc_finish(ser_stream *stream, const ser_plan *base, void *workspace, float *features, const float *logmel,
                      const int64_t *frame_start, int64_t clips, int64_t frames) {
  const mfcc_cuda_plan *plan = (const mfcc_cuda_plan *)base;
  const ser_mfcc_shape *shape = &plan->shape;
  SER_CHECK(clips <= shape->max_clips);
  finish_job job = {features,
                    logmel,
                    frame_start,
                    (unsigned *)workspace,
                    plan->dct,
                    frames,
                    sqrt((double)shape->mels),
                    (int)clips,
                    (int)shape->mels,
                    (int)shape->coefficients,
                    (int)plan->padded,
                    shape->deltas};
  int64_t rows = TILE - (shape->deltas ? 2 * REACH : 0);
  if (frames == 0) return;
  CUDA_DO(stream, cudaMemsetAsync(job.peaks, 0, (size_t)clips * sizeof *job.peaks, stream->cuda));
  CUDA_LAUNCH(stream, peaks_kernel, cuda_blocks(frames, PEAK_WARPS * PEAK_ROWS), dim3(WARP, PEAK_WARPS), 0, job);
  CUDA_LAUNCH(stream, finish_kernel, dim3(cuda_blocks(frames, rows), (unsigned)(plan->padded / MFCC_COLUMNS)), THREADS,
              0, job);
}
