/* Log-mel rows of ragged clips (librosa.feature.melspectrogram with centred frames and zeros beyond the ends, in
 * decibels). In slabs of frames that stay in the second-level cache: frames cut and windowed, one batched cuFFT in
 * place, power and bands. A row's bytes depend on its samples alone: neither on its place in a slab nor on its
 * neighbours. */
#include <stdlib.h>
#include <string.h>

#include "kernels/mfcc_cuda.h"
#include "kernels/mfcc_tables.h"

enum { THREADS = 256, BAND_THREADS = 128, SLAB_LEAST = 64, SLAB_MOST = 2048 };

/* ---- making ------------------------------------------------------------------------------------------------------ */

static void plan_end(cuda_plan *plan) {
  mfcc_plan *p = (mfcc_plan *)plan;
  if (p->has_fft) cufftDestroy(p->fft);
  cuda_table_free(plan->device, p->window);
  cuda_table_free(plan->device, p->slopes);
  cuda_table_free(plan->device, p->dct);
  cuda_table_free(plan->device, p->region);
}

static ser_status make_tables(mfcc_plan *p, ser_error *err) {
  const ser_mfcc_shape *s = &p->shape;
  size_t n = (size_t)s->n_fft, bins = n / 2 + 1, mels = (size_t)s->mels, kept = (size_t)s->coefficients;
  float *host = (float *)ser_alloc((n + 2 * bins + mels * kept) * sizeof(float));
  float *slopes = host + n, *dct = slopes + 2 * bins;
  int32_t *region = (int32_t *)ser_alloc((mels + 2) * sizeof *region);
  mfcc_make_window(host, s->n_fft, 1);
  mfcc_make_bands(region, slopes, s);
  mfcc_make_dct(dct, s, s->coefficients);
  cuda_device *device = p->plan.device;
  ser_status status = cuda_table(&p->window, device, host, n * sizeof(float), err);
  if (status == SER_OK) status = cuda_table(&p->slopes, device, slopes, 2 * bins * sizeof(float), err);
  if (status == SER_OK) status = cuda_table(&p->dct, device, dct, mels * kept * sizeof(float), err);
  if (status == SER_OK) status = cuda_table(&p->region, device, region, (mels + 2) * sizeof *region, err);
  free(region);
  free(host);
  return status;
}

/* Half of the second-level cache holds a slab; few frames need no more than they are. */
static int choose_slab(const mfcc_plan *p) {
  int64_t row = (p->shape.n_fft + 2) * (int64_t)sizeof(float), slab = (int64_t)p->plan.device->l2 / 2 / row;
  if (slab > p->shape.max_frames) slab = p->shape.max_frames;
  if (slab > SLAB_MOST) slab = SLAB_MOST;
  return slab < SLAB_LEAST ? SLAB_LEAST : (int)slab;
}

static ser_status make_fft(mfcc_plan *p, ser_error *err) {
  int n = (int)p->shape.n_fft, row = n + 2, bins = n / 2 + 1;
  CUDA_TRY(CUDA_FFT, cufftCreate(&p->fft), err);
  p->has_fft = true;
  CUDA_TRY(CUDA_FFT, cufftSetAutoAllocation(p->fft, 0), err);
  CUDA_TRY(CUDA_FFT, cufftMakePlanMany(p->fft, 1, &n, &row, 1, row, &bins, 1, bins, CUFFT_R2C, p->slab, &p->fft_bytes),
           err);
  return SER_OK;
}

static size_t rows_bytes(const mfcc_plan *p) {
  return SER_ROUND_UP((size_t)p->slab * (size_t)(p->shape.n_fft + 2) * sizeof(float), 256);
}

extern "C" ser_status cuda_mfcc_prepare(ser_device *device, ser_plan **plan, const ser_mfcc_shape *shape,
                                        ser_error *err) {
  *plan = NULL;
  SER_TRY(mfcc_check_shape(shape, err));
  mfcc_plan *p = (mfcc_plan *)cuda_plan_make(device, sizeof *p, plan_end);
  p->shape = *shape;
  p->slab = choose_slab(p);
  ser_status status = make_tables(p, err);
  if (status == SER_OK) status = make_fft(p, err);
  if (status != SER_OK) {
    ser_plan_free(&p->plan.plan);
    return status;
  }
  size_t logmel = rows_bytes(p) + p->fft_bytes, finish = (size_t)shape->max_clips * sizeof(float);
  p->plan.plan.workspace = logmel > finish ? logmel : finish;
  *plan = &p->plan.plan;
  return SER_OK;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

typedef struct {
  const float *pcm;
  const int64_t *sample_start, *frame_start;
  int clips;
  int64_t first; /* frame of the slab's first row */
  int n_fft, hop;
} frames_args;

/* A block a frame: cut from its clip, zeros beyond the clip's ends, times the window. */
static __global__ void logmel_frames_kernel(float *rows, const float *window, frames_args a) {
  int64_t row = a.first + blockIdx.x;
  int clip = clip_of_row(a.frame_start, a.clips, row);
  int64_t begin = a.sample_start[clip], count = a.sample_start[clip + 1] - begin;
  int64_t from = (row - a.frame_start[clip]) * a.hop - a.n_fft / 2;
  float *to = rows + (int64_t)blockIdx.x * (a.n_fft + 2);
  for (int i = (int)threadIdx.x; i < a.n_fft; i += THREADS) {
    int64_t at = from + i;
    to[i] = at >= 0 && at < count ? a.pcm[begin + at] * window[i] : 0;
  }
}

/* A block a frame: its power spectrum in shared memory, then a thread a band: what rises there, and what falls. */
static __global__ void logmel_bands_kernel(float *logmel, const float2 *spectrum, const float *slopes,
                                           const int32_t *region, int bins, int mels) {
  extern __shared__ float power[];
  const float2 *row = spectrum + (int64_t)blockIdx.x * bins;
  for (int i = (int)threadIdx.x; i < bins; i += BAND_THREADS) {
    float2 v = row[i];
    power[i] = v.x * v.x + v.y * v.y;
  }
  __syncthreads();
  for (int m = (int)threadIdx.x; m < mels; m += BAND_THREADS) {
    int first = region[m], middle = region[m + 1], end = region[m + 2];
    float rise = 0, fall = 0;
    for (int i = first; i < middle; i++) rise = fmaf(power[i], slopes[2 * i], rise);
    for (int i = middle; i < end; i++) fall = fmaf(power[i], slopes[2 * i + 1], fall);
    float sum = rise + fall;
    logmel[(int64_t)blockIdx.x * mels + m] = 10 * log10f(sum < 1e-10f ? 1e-10f : sum);
  }
}

extern "C" void cuda_logmel(ser_stream *stream, const ser_plan *plan, void *workspace, float *logmel, const float *pcm,
                            const int64_t *sample_start, const int64_t *frame_start, int64_t clips, int64_t frames) {
  const mfcc_plan *p = (const mfcc_plan *)plan;
  SER_CHECK(clips <= p->shape.max_clips && frames <= p->shape.max_frames);
  float *rows = (float *)workspace;
  int bins = (int)p->shape.n_fft / 2 + 1, mels = (int)p->shape.mels;
  frames_args a = {pcm, sample_start, frame_start, (int)clips, 0, (int)p->shape.n_fft, (int)p->shape.hop};
  if (!frames) return;
  CUDA_CALL(stream, CUDA_FFT, cufftSetStream(p->fft, stream->cuda));
  CUDA_CALL(stream, CUDA_FFT, cufftSetWorkArea(p->fft, (char *)workspace + rows_bytes(p)));
  for (; a.first < frames; a.first += p->slab) {
    unsigned count = (unsigned)(frames - a.first < p->slab ? frames - a.first : p->slab);
    CUDA_LAUNCH(stream, logmel_frames_kernel, count, THREADS, 0, rows, p->window, a);
    CUDA_CALL(stream, CUDA_FFT, cufftExecR2C(p->fft, rows, (cufftComplex *)rows));
    CUDA_LAUNCH(stream, logmel_bands_kernel, count, BAND_THREADS, (size_t)bins * sizeof(float), logmel + a.first * mels,
                (const float2 *)rows, p->slopes, p->region, bins, mels);
  }
}
