/* From log-mel rows to features: librosa.power_to_db's floor (top_db 80), librosa.feature.mfcc's DCT, and
 * librosa.feature.delta (width 9, orders 1 and 2, mode "interp").
 *
 * The DCT runs over what lies below the clip's peak: the peak itself, a constant, adds to the first coefficient alone.
 * That keeps the sums small, and silence exact. Coefficients are side by side in lanes, so that a row's sums
 * have one order whatever surrounds it.
 */
#include "kernels/mfcc_plan.h"

#include <math.h>

typedef struct {
  const mfcc_plan *plan;
  float *peaks;   /* [clips] */
  float *scratch; /* [threads] of plan->finish_floats */
  float *features;
  const float *logmel;
  const int64_t *frame_start;
  int64_t clips, frames, columns;
} finish_job;

static void find_peak(void *context, size_t clip, int thread) {
  (void)thread;
  const finish_job *job = context;
  int64_t mels = job->plan->shape.mels;
  const float *x = job->logmel + job->frame_start[clip] * mels;
  int64_t count = (job->frame_start[clip + 1] - job->frame_start[clip]) * mels, i = 0;
  vf most = v_set(-INFINITY);
  for (; i + VW <= count; i += VW) most = v_max(v_load(x + i), most);
  float peak = -INFINITY;
  for (int lane = 0; lane < VW; lane++) peak = most[lane] > peak ? most[lane] : peak;
  for (; i < count; i++) peak = x[i] > peak ? x[i] : peak;
  job->peaks[clip] = peak;
}

enum {
  ROWS = 4,  /* rows that share a load of the DCT's table */
  PART = 16, /* products that are added up apart: a long sum of like terms would gather its roundings */
};

/* sum[row] += the products of PART bands from `first` on. w: VW columns of the DCT's table. */
static inline void add_products(vf sum[ROWS], const float *const x[ROWS], const float *w, int64_t first, int64_t mels,
                                int64_t padded, float peak) {
  vf part[ROWS];
  V_UNROLL
  for (int i = 0; i < ROWS; i++) part[i] = v_set(0);
  int64_t end = first + PART < mels ? first + PART : mels;
  for (int64_t m = first; m < end; m++) {
    vf column = v_load(w + m * padded);
    V_UNROLL
    for (int i = 0; i < ROWS; i++) {
      float below = x[i][m] - peak;
      part[i] += column * (below < -80 ? -80 : below);
    }
  }
  V_UNROLL
  for (int i = 0; i < ROWS; i++) sum[i] += part[i];
}

/* out [rows][padded] = DCT of rows of logmel; in groups of ROWS, the last of which repeats its last row. */
static void dct_rows(float *out, const float *logmel, int64_t rows, float peak, const mfcc_plan *plan) {
  int64_t mels = plan->shape.mels, padded = plan->padded;
  float lift = (float)((double)peak * sqrt((double)mels));
  for (int64_t r = 0; r < rows; r += ROWS) {
    const float *x[ROWS];
    V_UNROLL
    for (int i = 0; i < ROWS; i++) x[i] = logmel + (r + i < rows ? r + i : rows - 1) * mels;
    for (int64_t c = 0; c < padded; c += VW) {
      vf sum[ROWS];
      V_UNROLL
      for (int i = 0; i < ROWS; i++) sum[i] = v_set(0);
      for (int64_t m = 0; m < mels; m += PART) add_products(sum, x, plan->dct + c, m, mels, padded, peak);
      for (int i = 0; i < ROWS && r + i < rows; i++) {
        if (c == 0) sum[i][0] += lift;
        v_store(out + (r + i) * padded + c, sum[i]);
      }
    }
  }
}

/* Both deltas at one row, from the nine rows around x: slope and second derivative of the parabola fitted to them. */
static inline void delta_vectors(vf out[2], const float *x, int64_t stride) {
  vf around[MFCC_EDGE], slope = v_set(0), centre = v_load(x);
  V_UNROLL
  for (int n = 1; n <= MFCC_EDGE; n++) {
    vf after = v_load(x + n * stride), before = v_load(x - n * stride);
    slope += (after - before) * (float)n;
    around[n - 1] = after + before;
  }
  out[0] = slope * (1.0f / 60);
  out[1] = (around[3] * 28 + around[2] * 7 - around[1] * 8 - around[0] * 17 - centre * 20) * (1.0f / 462);
}

/* Columns [c, c + width) of one row of features; x is where the row's coefficients, or those its deltas are taken at,
 * lie in the scratch. */
static inline void finish_columns(float *row, const float *x, const float *middle, const mfcc_plan *plan, int64_t c,
                                  int64_t width) {
  int64_t coefficients = plan->shape.coefficients;
  vf out[3] = {v_load(x + c)};
  if (plan->shape.deltas) delta_vectors(out + 1, middle + c, plan->padded);
  for (int i = 0; i < (plan->shape.deltas ? 3 : 1); i++)
    if (width == VW)
      v_store(row + i * coefficients + c, out[i]);
    else
      memcpy(row + i * coefficients + c, &out[i], (size_t)width * sizeof *row);
}

/* Rows [from, to) of one clip of `frames` rows. */
static void finish_rows(const finish_job *job, float *scratch, int64_t clip, int64_t from, int64_t to) {
  const mfcc_plan *plan = job->plan;
  int64_t start = job->frame_start[clip], frames = job->frame_start[clip + 1] - start;
  int64_t coefficients = plan->shape.coefficients, last = frames - 1 - MFCC_EDGE, low = from, high = to;
  if (plan->shape.deltas) {
    /* Deltas of a row are those of the nearest row with four neighbours on each side. */
    SER_CHECK(frames > 2 * MFCC_EDGE);
    low = from - MFCC_EDGE < 0 ? 0 : from - MFCC_EDGE;
    high = to + MFCC_EDGE > frames ? frames : to + MFCC_EDGE;
    if (low > last - MFCC_EDGE) low = last - MFCC_EDGE;
    if (high < 1 + 2 * MFCC_EDGE) high = 1 + 2 * MFCC_EDGE;
  }
  dct_rows(scratch, job->logmel + (start + low) * plan->shape.mels, high - low, job->peaks[clip], plan);
  for (int64_t t = from; t < to; t++) {
    int64_t middle = t < MFCC_EDGE ? MFCC_EDGE : t > last ? last : t;
    float *row = job->features + (start + t) * job->columns;
    const float *x = scratch + (t - low) * plan->padded, *around = scratch + (middle - low) * plan->padded;
    /* The last block overlaps the one before it where the coefficients are no multiple of a vector. */
    for (int64_t c = 0; c < coefficients; c += VW)
      if (coefficients < VW)
        finish_columns(row, x, around, plan, c, coefficients);
      else
        finish_columns(row, x, around, plan, c + VW <= coefficients ? c : coefficients - VW, VW);
  }
}

static void finish_block(void *context, size_t block, int thread) {
  const finish_job *job = context;
  float *scratch = job->scratch + (size_t)thread * job->plan->finish_floats;
  int64_t row = (int64_t)block * MFCC_BLOCK, end = row + MFCC_BLOCK < job->frames ? row + MFCC_BLOCK : job->frames;
  for (int64_t clip = mfcc_clip_of_row(job->frame_start, (int)job->clips, row); row < end; clip++) {
    int64_t start = job->frame_start[clip], stop = job->frame_start[clip + 1];
    if (stop > end) stop = end;
    if (stop > row) finish_rows(job, scratch, clip, row - start, stop - start);
    row = stop > row ? stop : row;
  }
}

void SER_ISA(cpu_mfcc_finish)(ser_stream *stream, const ser_plan *plan, void *workspace, float *features,
                              const float *logmel, const int64_t *frame_start, int64_t clips, int64_t frames) {
  finish_job job = {(const mfcc_plan *)plan, workspace, NULL, features, logmel, frame_start, clips, frames, 0};
  const ser_mfcc_shape *shape = &job.plan->shape;
  SER_CHECK(clips <= shape->max_clips);
  job.scratch = job.peaks + line_floats((size_t)shape->max_clips);
  job.columns = shape->coefficients * (shape->deltas ? 3 : 1);
  ser_cpu_parallel(stream, (size_t)clips, find_peak, &job);
  ser_cpu_parallel(stream, (size_t)((frames + MFCC_BLOCK - 1) / MFCC_BLOCK), finish_block, &job);
}
