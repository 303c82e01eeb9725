/* From log-mel rows to features: librosa.power_to_db's floor (top_db 80), librosa.feature.mfcc's DCT, and
 * librosa.feature.delta (width 9, orders 1 and 2, mode "interp"). As in the CPU form the DCT runs over what lies below
 * the clip's peak and in parts of 16, and deltas at a clip's edges are those of the nearest row with four neighbours on
 * each side. */
#include "kernels/mfcc_cuda.h"

enum {
  PEAK_THREADS = 512,
  DCT_ROWS = 8,    /* rows of a block */
  DCT_LANES = 16,  /* coefficients side by side */
  DCT_BANDS = 128, /* bands in shared memory at a time */
  PART = 16,       /* products that are added up apart: a long sum of like terms would gather its roundings */
  EDGE = 4,        /* rows that a delta reads on each side */
  DELTA_ROWS = 8,
};

/* A block a clip. */
static __global__ void mfcc_peak_kernel(float *peaks, const float *logmel, const int64_t *frame_start, int mels) {
  __shared__ float most[PEAK_THREADS];
  const float *x = logmel + frame_start[blockIdx.x] * mels;
  int64_t count = (frame_start[blockIdx.x + 1] - frame_start[blockIdx.x]) * mels;
  float peak = -INFINITY;
  for (int64_t i = threadIdx.x; i < count; i += PEAK_THREADS) peak = x[i] > peak ? x[i] : peak;
  most[threadIdx.x] = peak;
  for (int half = PEAK_THREADS / 2; half; half /= 2) {
    __syncthreads();
    if ((int)threadIdx.x < half && most[threadIdx.x + half] > most[threadIdx.x])
      most[threadIdx.x] = most[threadIdx.x + half];
  }
  if (threadIdx.x == 0) peaks[blockIdx.x] = most[0];
}

typedef struct {
  const int64_t *frame_start;
  int clips, mels, coefficients, columns;
  int64_t frames;
} finish_args;

/* A block DCT_ROWS rows, DCT_LANES coefficients at a time; bands pass through shared memory, below the peak. */
static __global__ void mfcc_dct_kernel(float *features, const float *logmel, const float *peaks, const float *dct,
                                       finish_args a) {
  __shared__ float below[DCT_ROWS][DCT_BANDS];
  int r = (int)threadIdx.y, lane = (int)threadIdx.x;
  int64_t row = (int64_t)blockIdx.x * DCT_ROWS + r;
  float peak = row < a.frames ? peaks[clip_of_row(a.frame_start, a.clips, row)] : 0;
  for (int c0 = 0; c0 < a.coefficients; c0 += DCT_LANES) {
    int c = c0 + lane;
    float sum = 0;
    for (int m0 = 0; m0 < a.mels; m0 += DCT_BANDS) {
      int bands = a.mels - m0 < DCT_BANDS ? a.mels - m0 : DCT_BANDS;
      __syncthreads();
      for (int m = lane; m < bands && row < a.frames; m += DCT_LANES) {
        float x = logmel[row * a.mels + m0 + m] - peak;
        below[r][m] = x < -80 ? -80 : x;
      }
      __syncthreads();
      for (int first = 0; first < bands && c < a.coefficients; first += PART) {
        int end = first + PART < bands ? first + PART : bands;
        float part = 0;
        for (int m = first; m < end; m++) part = fmaf(dct[(m0 + m) * a.coefficients + c], below[r][m], part);
        sum += part;
      }
    }
    if (row >= a.frames || c >= a.coefficients) continue;
    if (c == 0) sum += (float)((double)peak * sqrt((double)a.mels));
    features[row * a.columns + c] = sum;
  }
}

/* Both deltas of a row's coefficients, from the nine rows around the nearest one that has them: slope and second
 * derivative of the parabola fitted to them. */
static __global__ void mfcc_delta_kernel(float *features, finish_args a) {
  int64_t row = (int64_t)blockIdx.x * DELTA_ROWS + threadIdx.y;
  if (row >= a.frames) return;
  int clip = clip_of_row(a.frame_start, a.clips, row);
  int64_t first = a.frame_start[clip] + EDGE, last = a.frame_start[clip + 1] - 1 - EDGE;
  int64_t middle = row < first ? first : row > last ? last : row;
  for (int c = (int)threadIdx.x; c < a.coefficients; c += DCT_LANES) {
    const float *x = features + middle * a.columns + c;
    float around[EDGE], slope = 0;
#pragma unroll
    for (int n = 1; n <= EDGE; n++) {
      float after = x[n * a.columns], before = x[-n * a.columns];
      slope += (after - before) * (float)n;
      around[n - 1] = after + before;
    }
    float *to = features + row * a.columns + a.coefficients + c;
    to[0] = slope * (1.0f / 60);
    to[a.coefficients] = (around[3] * 28 + around[2] * 7 - around[1] * 8 - around[0] * 17 - x[0] * 20) * (1.0f / 462);
  }
}

extern "C" void cuda_mfcc_finish(ser_stream *stream, const ser_plan *plan, void *workspace, float *features,
                                 const float *logmel, const int64_t *frame_start, int64_t clips, int64_t frames) {
  const mfcc_plan *p = (const mfcc_plan *)plan;
  float *peaks = (float *)workspace; /* [clips] */
  int mels = (int)p->shape.mels, kept = (int)p->shape.coefficients;
  finish_args a = {frame_start, (int)clips, mels, kept, kept * (p->shape.deltas ? 3 : 1), frames};
  SER_CHECK(clips <= p->shape.max_clips && frames <= p->shape.max_frames);
  if (!frames) return;
  CUDA_LAUNCH(stream, mfcc_peak_kernel, (unsigned)clips, PEAK_THREADS, 0, peaks, logmel, frame_start, mels);
  CUDA_LAUNCH(stream, mfcc_dct_kernel, cuda_blocks(frames, DCT_ROWS), dim3(DCT_LANES, DCT_ROWS), 0, features, logmel,
              peaks, p->dct, a);
  if (p->shape.deltas)
    CUDA_LAUNCH(stream, mfcc_delta_kernel, cuda_blocks(frames, DELTA_ROWS), dim3(DCT_LANES, DELTA_ROWS), 0, features,
                a);
}
