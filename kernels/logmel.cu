/* The CUDA form of logmel.c: log-mel rows of ragged clips, a slab of frames at a time (mfcc_plan.cu): windowed frames,
 * their transforms in place, then power, bands and decibels in one pass that reads the spectra once. Each row is worked
 * on by itself, at whatever place of a slab it stands.
 */
#include "kernels/mfcc_cuda.h"

#include <stdlib.h>

enum { THREADS = 256 };

typedef struct {
  float *logmel;
  const float *pcm;
  const int64_t *sample_start, *frame_start;
  int64_t row;      /* of the batch: the slab's first */
  int clips, count; /* count: rows of the slab that are there */
} logmel_job;

/* What the kernels need of the plan. */
typedef struct {
  const float *window;
  const float2 *slopes;
  const int32_t *region;
  int n_fft, stride, mels, lanes;
  int64_t hop;
} logmel_tables;

/* ---- windowed frames --------------------------------------------------------------------------------------------- */

/* slab [count][stride]: threadIdx.y tells the row, zeros stand around the clip. */
static __global__ void frames_kernel(float *slab, logmel_job job, logmel_tables plan) {
  int row = (int)(blockIdx.x * blockDim.y + threadIdx.y);
  if (row >= job.count) return;
  int clip = mfcc_clip_of_row(job.frame_start, job.clips, job.row + row);
  int64_t sample = job.sample_start[clip], samples = job.sample_start[clip + 1] - sample;
  int64_t first = (job.row + row - job.frame_start[clip]) * plan.hop - plan.n_fft / 2, left = samples - first;
  int from = first < 0 ? (int)-first : 0, to = left < plan.n_fft ? (int)left : plan.n_fft;
  const float *x = job.pcm + sample + first;
  float *frame = slab + (int64_t)row * plan.stride;
#pragma unroll 4
  for (int i = (int)threadIdx.x; i < plan.n_fft; i += (int)blockDim.x)
    frame[i] = i >= from && i < to ? x[i] * plan.window[i] : 0;
}

static void window_frames(ser_stream *stream, const mfcc_cuda_plan *plan, float *slab, const logmel_job *job,
                          const logmel_tables *tables) {
  unsigned width = (unsigned)(plan->shape.n_fft < 8 * THREADS ? plan->shape.n_fft : 8 * THREADS) / 8;
  dim3 threads(width, THREADS / width);
  size_t row_bytes = (size_t)plan->stride * sizeof(float), used = (size_t)job->count * row_bytes;
  CUDA_LAUNCH(stream, frames_kernel, cuda_blocks(job->count, threads.y), threads, 0, slab, *job, *tables);
  /* Frames that are not there are transformed too: nothing is made of them, but they shall be something. */
  if (job->count < plan->slab)
    CUDA_DO(stream, cudaMemsetAsync((char *)slab + used, 0, (size_t)plan->slab * row_bytes - used, stream->cuda));
}

/* ---- power, bands, decibels ---------------------------------------------------------------------------------------
 */

/* 10 log10(max(1e-10, x)) as in logmel.c: its polynomial, which is exact where silence is. A NaN stays one. */
static __device__ inline float decibels(float x) {
  float y = x < 1e-10f ? 1e-10f : x;
  int bits = __float_as_int(y) - 0x3f3504f3;
  float e = (float)(bits >> 23), m = __int_as_float((bits & 0x7fffff) + 0x3f3504f3) - 1, p = 7.0376836292e-2f;
  const float series[] = {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                          -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f};
#pragma unroll
  for (int i = 0; i < 8; i++) p = p * m + series[i];
  float log_m = m + m * m * (m * p - 0.5f);
  /* 10 log10(2) in two parts, the first short enough for its product with e to be exact. */
  float decibel = e * 3.0078125f + (e * 0.0024874566f + log_m * 4.3429448f);
  return y == y ? decibel : y;
}

/* ROWS rows a block. Shared memory holds their powers, [ROWS][bins]; then plan.lanes lanes add up one band of all rows:
 * band m is the rising side of region m and the falling side of region m + 1. */
template <int ROWS>
static __global__ void __launch_bounds__(THREADS) bands_kernel(const float *slab, logmel_job job, logmel_tables plan) {
  extern __shared__ float power[];
  int bins = plan.n_fft / 2 + 1, first = (int)blockIdx.x * ROWS, rows = min(ROWS, job.count - first);
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    const float2 *spectrum = (const float2 *)(slab + (int64_t)(first + r) * plan.stride);
#pragma unroll 4
    for (int bin = (int)threadIdx.x; bin < bins; bin += THREADS) {
      float2 z = r < rows ? spectrum[bin] : make_float2(0, 0);
      power[r * bins + bin] = z.x * z.x + z.y * z.y;
    }
  }
  __syncthreads();
  int lanes = plan.lanes, lane = (int)threadIdx.x & (lanes - 1), step = THREADS / lanes;
  float *out = job.logmel + (job.row + first) * plan.mels;
  /* Whole warps go round together: their lanes exchange sums. */
  for (int group = 0; group < plan.mels; group += step) {
    int band = group + (int)threadIdx.x / lanes, known = min(band, plan.mels - 1);
    int middle = plan.region[known + 1], end = plan.region[known + 2];
    float sum[ROWS] = {};
    for (int bin = plan.region[known] + lane; bin < end; bin += lanes) {
      float2 both = plan.slopes[bin];
      float slope = bin < middle ? both.x : both.y;
#pragma unroll
      for (int r = 0; r < ROWS; r++) sum[r] += power[r * bins + bin] * slope;
    }
    for (int apart = 1; apart < lanes; apart *= 2)
#pragma unroll
      for (int r = 0; r < ROWS; r++) sum[r] += __shfl_xor_sync(0xffffffff, sum[r], apart);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
      if ((r & (lanes - 1)) == lane && r < rows && band < plan.mels) out[r * plan.mels + band] = decibels(sum[r]);
  }
}

/* Short spectra leave room for more rows, which share the reading of the slopes. */
static void sum_bands(ser_stream *stream, const float *slab, const logmel_job *job, const logmel_tables *tables) {
  size_t row_bytes = (size_t)(tables->n_fft / 2 + 1) * sizeof(float);
  if (tables->n_fft <= 1024)
    CUDA_LAUNCH(stream, bands_kernel<4>, cuda_blocks(job->count, 4), THREADS, 4 * row_bytes, slab, *job, *tables);
  else
    CUDA_LAUNCH(stream, bands_kernel<2>, cuda_blocks(job->count, 2), THREADS, 2 * row_bytes, slab, *job, *tables);
}

/* ---- slab by slab -------------------------------------------------------------------------------------------------
 */

void cuda_logmel(ser_stream *stream, const ser_plan *base, void *workspace, float *logmel, const float *pcm,
                 const int64_t *sample_start, const int64_t *frame_start, int64_t clips, int64_t frames) {
  const mfcc_cuda_plan *plan = (const mfcc_cuda_plan *)base;
  const ser_mfcc_shape *shape = &plan->shape;
  SER_CHECK(clips <= shape->max_clips && frames <= shape->max_frames);
  float *slab = (float *)workspace;
  logmel_job job = {logmel, pcm, sample_start, frame_start, 0, (int)clips, 0};
  logmel_tables tables = {plan->window,      plan->slopes,     plan->region, (int)shape->n_fft,
                          (int)plan->stride, (int)shape->mels, plan->lanes,  shape->hop};
  if (frames == 0) return;
  CUDA_SET(stream, CUDA_FFT, cufftSetStream(plan->fft, stream->cuda));
  CUDA_SET(stream, CUDA_FFT, cufftSetWorkArea(plan->fft, (char *)workspace + plan->slab_bytes));
  for (; job.row < frames; job.row += plan->slab) {
    job.count = (int)(frames - job.row < plan->slab ? frames - job.row : plan->slab);
    window_frames(stream, plan, slab, &job, &tables);
    CUDA_CALL(stream, CUDA_FFT, cufftExecR2C(plan->fft, slab, (cufftComplex *)slab));
    sum_bands(stream, slab, &job, &tables);
  }
}
