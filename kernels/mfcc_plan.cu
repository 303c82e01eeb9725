/* The CUDA form of mfcc_plan.c: the tables (mfcc_tables.h) and the FFT of a slab of frames.
 *
 * A slab is what a part of the second-level cache holds, so that windowed frames, spectra and powers need no other
 * memory. It follows from the device and the length of the FFT alone: a frame's bytes depend on neither the batch nor
 * the size of the batches that a plan is made for.
 */
#include "kernels/mfcc_cuda.h"

#include <stdlib.h>

#include "kernels/mfcc_tables.h"

static const int64_t least_slab = 64;
static const size_t usual_room = 2 << 20;

/* A quarter: samples and cuFFT's work area pass through the cache, too, and those of an A100 or H100 are two
 * partitions, each of which may hold a copy of what the other has. Small caches are in one piece: of them up to a half.
 */
static size_t slab_room(size_t l2) {
  size_t half = l2 / 2, quarter = l2 / 4;
  if (quarter >= usual_room) return quarter;
  return half < usual_room ? half : usual_room;
}

static void end_plan(cuda_plan *base) {
  mfcc_cuda_plan *plan = (mfcc_cuda_plan *)base;
  if (plan->fft_made) CUDA_END(cufftDestroy(plan->fft));
  if (plan->tables) cuda_table_free(base->device, plan->tables);
}

/* Floats rounded up to 64 bytes. */
static size_t line_floats(size_t floats) {
  return SER_ROUND_UP(floats, 16);
}

/* One piece of device memory for all tables; one of int32 counts as floats. */
static ser_status make_tables(mfcc_cuda_plan *plan, ser_error *err) {
  const ser_mfcc_shape *shape = &plan->shape;
  size_t n_fft = (size_t)shape->n_fft, mels = (size_t)shape->mels;
  size_t slopes = line_floats(n_fft), dct = slopes + line_floats(2 * (n_fft / 2 + 1));
  size_t region = dct + line_floats(mels * (size_t)plan->padded), all = region + line_floats(mels + 2);
  float *host = (float *)ser_alloc_zero(all, sizeof(float)), *memory;
  mfcc_make_window(host, shape->n_fft, 1);
  mfcc_make_bands((int32_t *)(host + region), host + slopes, shape);
  mfcc_make_dct(host + dct, shape, plan->padded);
  ser_status status = cuda_table(&memory, plan->base.device, host, all * sizeof(float), err);
  free(host);
  if (status != SER_OK) return status;
  plan->tables = memory;
  plan->window = memory;
  plan->slopes = (const float2 *)(memory + slopes);
  plan->dct = memory + dct;
  plan->region = (const int32_t *)(memory + region);
  return SER_OK;
}

/* Real to complex, in place, in a work area that each run brings with it. */
static ser_status make_fft(mfcc_cuda_plan *plan, size_t *work, ser_error *err) {
  int length = (int)plan->shape.n_fft, reals = (int)plan->stride, complexes = reals / 2;
  CUDA_TRY(CUDA_FFT, cufftCreate(&plan->fft), err);
  plan->fft_made = true;
  CUDA_TRY(CUDA_FFT, cufftSetAutoAllocation(plan->fft, 0), err);
  CUDA_TRY(CUDA_FFT,
           cufftMakePlanMany(plan->fft, 1, &length, &reals, 1, reals, &complexes, 1, complexes, CUFFT_R2C,
                             (int)plan->slab, work),
           err);
  return SER_OK;
}

/* About half as many lanes as a band has bins: each then adds up two or so. */
static int lanes_of(const ser_mfcc_shape *shape) {
  int64_t bins = shape->n_fft / (shape->mels + 1);
  int lanes = 1;
  while (lanes < 32 && 4 * lanes <= bins) lanes *= 2;
  return lanes;
}

ser_status cuda_mfcc_prepare(ser_device *device, ser_plan **out, const ser_mfcc_shape *shape, ser_error *err) {
  ser_status status;
  mfcc_cuda_plan *plan;
  size_t work = 0, row_bytes, peaks;
  int64_t most;
  *out = NULL;
  SER_TRY(mfcc_check_shape(shape, err));
  plan = (mfcc_cuda_plan *)cuda_plan_make(device, sizeof *plan, end_plan);
  plan->shape = *shape;
  plan->stride = shape->n_fft + 2;
  plan->padded = SER_ROUND_UP(shape->coefficients, MFCC_COLUMNS);
  plan->lanes = lanes_of(shape);
  row_bytes = (size_t)plan->stride * sizeof(float);
  most = (int64_t)(slab_room(plan->base.device->l2) / row_bytes);
  plan->slab = most > least_slab ? most : least_slab;
  plan->slab_bytes = SER_ROUND_UP((size_t)plan->slab * row_bytes, 256);
  SER_TRY_DONE(make_tables(plan, err));
  SER_TRY_DONE(make_fft(plan, &work, err));
  peaks = (size_t)shape->max_clips * sizeof(unsigned);
  plan->base.plan.workspace = plan->slab_bytes + work;
  if (plan->base.plan.workspace < peaks) plan->base.plan.workspace = peaks;
  *out = &plan->base.plan;

done:
  if (status != SER_OK) ser_plan_free(&plan->base.plan);
  return status;
}
