/* Log-mel spectrogram of ragged clips: librosa.power_to_db(librosa.feature.melspectrogram(y), top_db=None) with its
 * defaults (centred frames, zeros around the clip, periodic Hann window, power, Slaney bands).
 *
 * VW frames, of one clip or of several, are worked on side by side, a frame a lane: loaded and transposed, real FFT by
 * way of a complex one of half the length, power, bands, decibels, transposed back. Lanes never mix, so that a frame's
 * bytes do not depend on its neighbours; lanes without a frame repeat the first one's and are not stored.
 */
#include "kernels/fft.h"
#include "kernels/mfcc_plan.h"
#include "kernels/transpose.h"

typedef struct {
  const mfcc_plan *plan;
  float *workspace;
  float *logmel;
  const float *pcm;
  const int64_t *sample_start, *frame_start;
  int64_t clips, frames;
} logmel_job;

/* Where each lane's frame begins: in the clip itself, or, at the clip's ends, a copy with zeros around it.
 * edges: [VW][n_fft]. */
static void find_frames(const float *lanes[VW], float *edges, const logmel_job *job, int64_t row, int64_t count) {
  const ser_mfcc_shape *shape = &job->plan->shape;
  int64_t clip = mfcc_clip_of_row(job->frame_start, (int)job->clips, row);
  for (int64_t lane = 0; lane < count; lane++, row++) {
    while (row >= job->frame_start[clip + 1]) clip++;
    const float *pcm = job->pcm + job->sample_start[clip];
    int64_t samples = job->sample_start[clip + 1] - job->sample_start[clip];
    int64_t first = (row - job->frame_start[clip]) * shape->hop - shape->n_fft / 2, last = first + shape->n_fft;
    if (first >= 0 && last <= samples) {
      lanes[lane] = pcm + first;
      continue;
    }
    float *edge = edges + lane * shape->n_fft;
    int64_t from = first > 0 ? first : 0, to = last < samples ? last : samples;
    memset(edge, 0, (size_t)shape->n_fft * sizeof *edge);
    if (to > from) memcpy(edge + (from - first), pcm + from, (size_t)(to - from) * sizeof *edge);
    lanes[lane] = edge;
  }
  for (int64_t lane = count; lane < VW; lane++) lanes[lane] = lanes[0];
}

/* data [n_fft][VW] = windowed frames: read as complex numbers, even samples are the real parts, odd ones the imaginary.
 */
static void load_frames(float *data, const float *const lanes[VW], const float *window, int64_t n_fft) {
  for (int64_t s = 0; s < n_fft; s += VW) {
    vf w = v_load(window + s), v[VW];
    V_UNROLL
    for (int lane = 0; lane < VW; lane++) v[lane] = v_load(lanes[lane] + s) * w;
    v_transpose(v);
    V_UNROLL
    for (int i = 0; i < VW; i++) v_store(data + (s + i) * VW, v[i]);
  }
}

/* power [half + 1][VW] of the real transform of length 2 * half, from the complex one that data holds: with E and O the
 * transforms of even and odd samples, X[k] = E + w^k O and X[half - k] = conj(E - w^k O). */
static void power_spectrum(float *power, const float *data, const mfcc_plan *plan) {
  int64_t half = plan->shape.n_fft / 2;
  vf re = v_load(data), im = v_load(data + VW), sum = re + im, difference = re - im;
  v_store(power, 4 * sum * sum);
  v_store(power + half * VW, 4 * difference * difference);
  for (int64_t k = 1; k <= half / 2; k++) {
    const float *z = data + plan->place[k], *mirror = data + plan->place[half - k], *w = plan->turns + 2 * k;
    vf z_re = v_load(z), z_im = v_load(z + VW), m_re = v_load(mirror), m_im = v_load(mirror + VW);
    vf even_re = z_re + m_re, even_im = z_im - m_im, odd_re = z_im + m_im, odd_im = m_re - z_re;
    vf t_re = odd_re * w[0] - odd_im * w[1], t_im = odd_re * w[1] + odd_im * w[0];
    vf a_re = even_re + t_re, a_im = even_im + t_im, b_re = even_re - t_re, b_im = even_im - t_im;
    v_store(power + k * VW, a_re * a_re + a_im * a_im);
    v_store(power + (half - k) * VW, b_re * b_re + b_im * b_im);
  }
}

/* 10 log10(max(1e-10, x)) for finite x, within a few units in the last place of the result or of 1: x = 2^e m, m in
 * [sqrt(1/2), sqrt(2)), and Cephes' logf polynomial for m. A NaN stays one. */
static inline vf decibels(vf x) {
  const vf amin = v_set(1e-10f);
  vf y = v_select(x < amin, amin, x);
  vi bits = (vi)y - 0x3f3504f3;
  vf e = __builtin_convertvector(bits >> 23, vf);
  vf m = (vf)((bits & 0x7fffff) + 0x3f3504f3) - 1;
  vf p = v_set(7.0376836292e-2f);
  static const float series[] = {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                                 -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f};
  V_UNROLL
  for (int i = 0; i < 8; i++) p = p * m + series[i];
  vf log_m = m + m * m * (m * p - 0.5f);
  /* 10 log10(2) in two parts, the first short enough for its product with e to be exact. */
  vf decibel = e * 3.0078125f + (e * 0.0024874566f + log_m * 4.3429448f);
  return v_select(y == y, decibel, y);
}

/* decibel [mels][VW]: band m is the rising side of region m and the falling side of region m + 1. */
static void mel_bands(float *decibel, const float *power, const mfcc_plan *plan) {
  vf rise_before = v_set(0);
  for (int64_t i = 0; i <= plan->shape.mels; i++) {
    vf rise = v_set(0), fall = v_set(0);
    for (int64_t bin = plan->region[i]; bin < plan->region[i + 1]; bin++) {
      vf p = v_load(power + bin * VW);
      rise += p * plan->slopes[2 * bin];
      fall += p * plan->slopes[2 * bin + 1];
    }
    if (i > 0) v_store(decibel + (i - 1) * VW, decibels(rise_before + fall));
    rise_before = rise;
  }
}

/* Rows of the output from decibel [mels][VW]; where the bands are no multiple of VW, the last block overlaps the one
 * before it. */
static void store_rows(float *logmel, const float *decibel, int64_t mels, int64_t count) {
  for (int64_t m = 0; m < mels; m += VW) {
    int64_t first = m + VW <= mels || mels < VW ? m : mels - VW;
    vf v[VW];
    V_UNROLL
    for (int i = 0; i < VW; i++) v[i] = v_load(decibel + (first + i) * VW);
    v_transpose(v);
    for (int64_t lane = 0; lane < count; lane++)
      if (mels >= VW)
        v_store(logmel + lane * mels + first, v[lane]);
      else
        memcpy(logmel + lane * mels, &v[lane], (size_t)mels * sizeof(float));
  }
}

static void logmel_group(void *context, size_t group, int thread) {
  const logmel_job *job = context;
  const mfcc_plan *plan = job->plan;
  int64_t n_fft = plan->shape.n_fft, row = (int64_t)group * VW;
  int64_t count = job->frames - row < VW ? job->frames - row : VW;
  float *data = job->workspace + (size_t)thread * plan->logmel_floats;
  float *power = data + n_fft * VW, *decibel = power + (n_fft / 2 + 1) * VW;
  float *edges = decibel + SER_ROUND_UP(plan->shape.mels, VW) * VW;
  const float *lanes[VW];
  find_frames(lanes, edges, job, row, count);
  load_frames(data, lanes, plan->window, n_fft);
  SER_ISA(fft_forward)(data, n_fft / 2, plan->twiddles);
  power_spectrum(power, data, plan);
  mel_bands(decibel, power, plan);
  store_rows(job->logmel + row * plan->shape.mels, decibel, plan->shape.mels, count);
}

void SER_ISA(cpu_logmel)(ser_stream *stream, const ser_plan *plan, void *workspace, float *logmel, const float *pcm,
                         const int64_t *sample_start, const int64_t *frame_start, int64_t clips, int64_t frames) {
  logmel_job job = {(const mfcc_plan *)plan, workspace, logmel, pcm, sample_start, frame_start, clips, frames};
  SER_CHECK(clips <= job.plan->shape.max_clips && frames <= job.plan->shape.max_frames);
  ser_cpu_parallel(stream, (size_t)((frames + VW - 1) / VW), logmel_group, &job);
}
