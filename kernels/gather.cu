/* Batches for a model from ragged features: clips drawn from an order, their windows standardised, transposed to
 * [S][B][Cp][Tp], zeros behind, side 1 reversed in time; and samples from 16-bit integers. */
#include "kernels/temporal_cuda.h"

enum { TILE = 32, TILE_ROWS = 8, THREADS = 256 };

/* A block a tile of TILE columns of time by TILE channels of a clip: read along the channels, written along time. */
static __global__ void gather_standardise_kernel(float *tile, const float *features, const int64_t *start,
                                                 const int64_t *length, const float *mean, const float *inv_std,
                                                 int time_tiles, cuda_dims d) {
  __shared__ float turned[TILE][TILE + 1];
  int b = (int)blockIdx.x / time_tiles, t0 = ((int)blockIdx.x - b * time_tiles) * TILE, c0 = (int)blockIdx.y * TILE;
  int c = c0 + (int)threadIdx.x, frames = length[b] < d.t ? (int)length[b] : d.t;
  const float *x = features + start[b] * d.c;
  float middle = c < d.c ? mean[c] : 0, factor = c < d.c ? inv_std[c] : 0;
  for (int i = (int)threadIdx.y; i < TILE; i += TILE_ROWS) {
    int t = t0 + i;
    turned[i][threadIdx.x] = c < d.c && t < frames ? (x[(int64_t)t * d.c + c] - middle) * factor : 0;
  }
  __syncthreads();
  int t = t0 + (int)threadIdx.x, mirrored = t < d.t ? d.t - 1 - t : t;
  if (t >= d.tp) return;
  int64_t other = (int64_t)d.batch * d.cp * d.tp;
  for (int i = (int)threadIdx.y; i < TILE && c0 + i < d.cp; i += TILE_ROWS) {
    float *row = tile + ((int64_t)b * d.cp + c0 + i) * d.tp;
    row[t] = turned[threadIdx.x][i];
    if (d.sides > 1) row[other + mirrored] = turned[threadIdx.x][i];
  }
}

extern "C" void cuda_gather_standardise(ser_stream *stream, float *tile, const float *features, const int64_t *start,
                                        const int64_t *length, const float *mean, const float *inv_std,
                                        const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  int time_tiles = (d.tp + TILE - 1) / TILE;
  CUDA_LAUNCH(stream, gather_standardise_kernel, dim3((unsigned)(d.batch * time_tiles), cuda_blocks(d.cp, TILE)),
              dim3(TILE, TILE_ROWS), 0, tile, features, start, length, mean, inv_std, time_tiles, d);
}

static __global__ void take_batch_kernel(int64_t *start, int64_t *length, int32_t *truth, ser_clips clips,
                                         const int32_t *order, const ser_step *step, int64_t batch, int64_t count) {
  int64_t b = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (b >= count) return;
  int32_t clip = order[(step ? step->place : 0) * batch + b];
  int64_t first = clips.offset[clip], rows = clips.offset[clip + 1] - first;
  start[b] = first;
  length[b] = rows < clips.frames ? rows : clips.frames;
  truth[b] = clips.truth[clip];
}

extern "C" void cuda_take_batch(ser_stream *stream, int64_t *start, int64_t *length, int32_t *truth,
                                const ser_clips *clips, const int32_t *order, const ser_step *step, int64_t batch,
                                int64_t count) {
  if (count)
    CUDA_LAUNCH(stream, take_batch_kernel, cuda_blocks(count, THREADS), THREADS, 0, start, length, truth, *clips, order,
                step, batch, count);
}
