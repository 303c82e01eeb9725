/* The plan of the MFCC operations: the tables (mfcc_tables.h), and those of the FFT. */
#include "kernels/mfcc_plan.h"

#include <math.h>

#include "kernels/fft.h"
#include "kernels/mfcc_tables.h"

/* Where the tables lie behind the plan, in floats from its start; a table of int32 counts as floats. */
typedef struct {
  size_t window, twiddles, turns, slopes, dct, place, region, all;
} table_places;

static table_places place_tables(const ser_mfcc_shape *shape, int64_t padded) {
  table_places at;
  size_t n_fft = (size_t)shape->n_fft, mels = (size_t)shape->mels;
  at.window = line_floats((sizeof(mfcc_plan) + 3) / 4);
  at.twiddles = at.window + line_floats(n_fft);
  at.turns = at.twiddles + line_floats((size_t)fft_twiddle_floats(shape->n_fft / 2));
  at.slopes = at.turns + line_floats(2 * (n_fft / 4 + 1));
  at.dct = at.slopes + line_floats(2 * (n_fft / 2 + 1));
  at.place = at.dct + line_floats(mels * (size_t)padded);
  at.region = at.place + line_floats(n_fft / 2);
  at.all = at.region + line_floats(mels + 2);
  return at;
}

static void fill_tables(mfcc_plan *plan, const table_places *at) {
  float *base = (float *)plan;
  int64_t half = plan->shape.n_fft / 2;
  /* Halved, since the pass behind the FFT adds what it should average. */
  mfcc_make_window(base + at->window, plan->shape.n_fft, 0.5);
  SER_ISA(fft_make_twiddles)(base + at->twiddles, half);
  for (int64_t k = 0; k <= half / 2; k++) {
    double angle = -M_PI * (double)k / (double)half;
    base[at->turns + 2 * (size_t)k] = (float)cos(angle);
    base[at->turns + 2 * (size_t)k + 1] = (float)sin(angle);
  }
  mfcc_make_bands((int32_t *)(base + at->region), base + at->slopes, &plan->shape);
  mfcc_make_dct(base + at->dct, &plan->shape, plan->padded);
  for (int64_t k = 0; k < half; k++) ((int32_t *)(base + at->place))[k] = SER_ISA(fft_place)(k, half) * 2 * VW;
  plan->window = base + at->window;
  plan->twiddles = base + at->twiddles;
  plan->turns = base + at->turns;
  plan->slopes = base + at->slopes;
  plan->dct = base + at->dct;
  plan->place = (const int32_t *)(base + at->place);
  plan->region = (const int32_t *)(base + at->region);
}

ser_status SER_ISA(cpu_mfcc_prepare)(ser_device *device, ser_plan **out, const ser_mfcc_shape *shape, ser_error *err) {
  *out = NULL;
  SER_TRY(mfcc_check_shape(shape, err));
  int64_t padded = SER_ROUND_UP(shape->coefficients, VW);
  table_places at = place_tables(shape, padded);
  mfcc_plan *plan = ser_cpu_plan(device, at.all * sizeof(float));
  plan->shape = *shape;
  plan->padded = padded;
  fill_tables(plan, &at);
  size_t threads = (size_t)ser_cpu_threads(device), n_fft = (size_t)shape->n_fft;
  plan->logmel_floats = line_floats((2 * n_fft + n_fft / 2 + 1 + (size_t)SER_ROUND_UP(shape->mels, VW)) * VW);
  plan->finish_floats = line_floats((MFCC_BLOCK + 2 * MFCC_EDGE) * (size_t)padded);
  size_t logmel = threads * plan->logmel_floats;
  size_t finish = line_floats((size_t)shape->max_clips) + threads * plan->finish_floats;
  plan->plan.workspace = (logmel > finish ? logmel : finish) * sizeof(float);
  *out = &plan->plan;
  return SER_OK;
}
