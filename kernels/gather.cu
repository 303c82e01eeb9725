/* The CUDA form of gather.c: which clips a batch takes, and their features standardised and transposed by way of shared
 * memory, for both sides at once: rows are read as they lie, columns written as they lie. */
#include "kernels/cuda_kernels.h"

enum { TAKE_THREADS = 128 };

static __global__ void take_batch_kernel(int64_t *start, int64_t *length, int32_t *truth, ser_clips clips,
                                         const int32_t *order, const ser_step *step, int64_t batch, int64_t count) {
  int64_t b = (int64_t)blockIdx.x * TAKE_THREADS + threadIdx.x;
  if (b >= count) return;
  int32_t clip = order[(step ? step->place * batch : 0) + b];
  int64_t first = clips.offset[clip];
  start[b] = first;
  length[b] = min(clips.offset[clip + 1] - first, clips.frames);
  truth[b] = clips.truth[clip];
}

void cuda_take_batch(ser_stream *stream, int64_t *start, int64_t *length, int32_t *truth, const ser_clips *clips,
                     const int32_t *order, const ser_step *step, int64_t batch, int64_t count) {
  if (count == 0) return;
  CUDA_LAUNCH(stream, take_batch_kernel, cuda_blocks(count, TAKE_THREADS), TAKE_THREADS, 0, start, length, truth,
              *clips, order, step, batch, count);
}

enum { WARP = 32, WARPS = 8, CHANNELS = 64 }; /* a block makes CHANNELS rows of WARP columns */

typedef struct {
  float *tile, *reversed; /* sides 0 and 1; reversed NULL: there is only one */
  const float *features;
  const int64_t *start, *length;
  const float *mean, *inv_std;
  int channels, time, channels_padded, time_padded;
  int pieces; /* of a clip's columns */
} gather_job;

/* blockIdx.x: clip and piece; blockIdx.y: CHANNELS channels. */
static __global__ void gather_kernel(gather_job job) {
  __shared__ float value[CHANNELS][WARP + 1];
  unsigned b = blockIdx.x / (unsigned)job.pieces;
  int t0 = (int)(blockIdx.x - b * (unsigned)job.pieces) * WARP, c0 = (int)blockIdx.y * CHANNELS;
  int width = min(CHANNELS, job.channels_padded - c0), thread = (int)(threadIdx.y * WARP + threadIdx.x);
  int64_t frames = min(job.length[b], (int64_t)job.time);
  const float *x = job.features + (job.start[b] + t0) * job.channels + c0;
  for (int i = thread; i < WARP * width; i += WARP * WARPS) {
    int t = i / width, c = i - t * width;
    bool there = t0 + t < frames && c0 + c < job.channels;
    value[c][t] = there ? (x[(int64_t)t * job.channels + c] - job.mean[c0 + c]) * job.inv_std[c0 + c] : 0;
  }
  __syncthreads();
  int t = t0 + (int)threadIdx.x, back = t < job.time ? job.time - 1 - t : t;
  if (t >= job.time_padded) return;
  for (int c = (int)threadIdx.y; c < width; c += WARPS) {
    int64_t row = ((int64_t)b * job.channels_padded + c0 + c) * job.time_padded;
    job.tile[row + t] = value[c][threadIdx.x];
    if (job.reversed) job.reversed[row + back] = value[c][threadIdx.x];
  }
}

void cuda_gather_standardise(ser_stream *stream, float *tile, const float *features, const int64_t *start,
                             const int64_t *length, const float *mean, const float *inv_std,
                             const ser_tensor_shape *shape) {
  int64_t cp = SER_ROUND_UP(shape->channels, SER_CHANNEL_PAD), tp = SER_ROUND_UP(shape->time, SER_TIME_PAD);
  gather_job job = {};
  job.tile = tile;
  job.reversed = shape->sides > 1 ? tile + shape->batch * cp * tp : NULL;
  job.features = features;
  job.start = start;
  job.length = length;
  job.mean = mean;
  job.inv_std = inv_std;
  job.channels = (int)shape->channels;
  job.time = (int)shape->time;
  job.channels_padded = (int)cp;
  job.time_padded = (int)tp;
  job.pieces = (int)cuda_blocks(tp, WARP);
  if (shape->batch == 0) return;
  CUDA_LAUNCH(stream, gather_kernel, dim3((unsigned)(shape->batch * job.pieces), cuda_blocks(cp, CHANNELS)),
              dim3(WARP, WARPS), 0, job);
}
