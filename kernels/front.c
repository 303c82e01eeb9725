/* The speech encoder's first convolution: samples placed and normalised, the norm's moments, and the convolution with
 * norm and GELU in one pass.
 *
 * Group norm asks for each channel's mean and variance over the whole clip. Both follow from the means and covariances
 * of the convolution's taps, 10 and 55 numbers a clip, so that the output, 512 channels of it, is written once and
 * never read for its norm. Sums are in double, in pieces fixed by the clip's own length. */
#include <math.h>

#include "kernels/kernels.h"
#include "kernels/panel.h"
#include "kernels/rows.h"

/* Samples of a piece, rounded to whole strides; pieces of long clips are shared out. */
enum { PIECE = 32768, MOMENTS_MOST = SER_FRONT_KERNEL_MOST * (SER_FRONT_KERNEL_MOST + 3) / 2 };

typedef struct {
  ser_plan plan;
  ser_front_shape shape;
  int64_t piece, moments; /* samples of a piece; numbers a clip */
} front_plan;

static int64_t pieces_of(const front_plan *p, int64_t samples) {
  return samples > 0 ? (samples + p->piece - 1) / p->piece : 0;
}

/* Of one piece, and of the whole clip: sums of the samples and of their squares, about `about`, and of the windows. */
typedef struct {
  double sum, squares;
  double taps[MOMENTS_MOST];
} front_sums;

ser_status SER_ISA(cpu_front_prepare)(ser_device *device, ser_plan **plan, const ser_front_shape *shape,
                                      ser_error *err) {
  (void)err;
  front_plan *p = ser_cpu_plan(device, sizeof *p);
  p->shape = *shape;
  p->piece = PIECE / shape->stride * shape->stride;
  p->moments = SER_FRONT_MOMENTS(shape->kernel);
  p->plan.packed = (size_t)(SER_ROUND_UP(shape->channels, PANEL) * shape->kernel) * sizeof(float);
  int64_t pieces = shape->max_samples / p->piece + shape->max_clips;
  p->plan.workspace = (size_t)pieces * sizeof(front_sums) + (size_t)(2 * shape->max_clips) * sizeof(double) +
                      (size_t)(shape->max_clips + 1) * sizeof(int64_t);
  *plan = &p->plan;
  return SER_OK;
}

void SER_ISA(cpu_front_pack)(ser_stream *stream, const ser_plan *plan, void *packed, const float *w) {
  const front_plan *p = (const front_plan *)plan;
  int64_t kernel = p->shape.kernel, channels = p->shape.channels;
  (void)stream;
  for (int64_t first = 0; first < channels; first += PANEL) {
    int64_t columns = channels - first < PANEL ? channels - first : PANEL;
    SER_ISA(panel_pack_turned)((float *)packed + first * kernel, w + first * kernel, kernel, columns, kernel);
  }
}

/* ---- placing the samples ------------------------------------------------------------------------------------------
 */

typedef struct {
  const front_plan *p;
  int64_t *piece_start; /* [clips + 1] */
  front_sums *sums;     /* [pieces] */
  double *mean, *scale; /* [clips] */
  float *wave;
  double *moments;
  const float *pcm;
  const int64_t *sample_start;
  const ser_rows *rows;
} wave_context;

typedef struct {
  int64_t clip, first, end; /* its samples: [first, end) of the clip's `samples` */
  int64_t samples;
  const float *x; /* the clip's first */
} wave_piece;

static wave_piece find_piece(const wave_context *c, int64_t task) {
  int64_t low = 0, high = c->rows->clips; /* the clip whose pieces hold the task */
  while (high - low > 1) {
    int64_t middle = (low + high) / 2;
    if (c->piece_start[middle] <= task)
      low = middle;
    else
      high = middle;
  }
  wave_piece piece = {.clip = low, .first = (task - c->piece_start[low]) * c->p->piece};
  piece.x = c->pcm + c->sample_start[low];
  piece.samples = c->sample_start[low + 1] - c->sample_start[low];
  piece.end = piece.first + c->p->piece < piece.samples ? piece.first + c->p->piece : piece.samples;
  return piece;
}

static void sum_piece(void *context, size_t task, int thread) {
  const wave_context *c = context;
  wave_piece piece = find_piece(c, (int64_t)task);
  double sum = 0;
  (void)thread;
  for (int64_t i = piece.first; i < piece.end; i++) sum += (double)piece.x[i];
  c->sums[task].sum = sum;
}

/* taps += the sums and the products of a window's samples about the mean. */
static inline void add_window(double *taps, const float *x, double mean, int64_t kernel) {
  double y[SER_FRONT_KERNEL_MOST], *products = taps + kernel;
  for (int64_t j = 0; j < kernel; j++) {
    y[j] = (double)x[j] - mean;
    taps[j] += y[j];
  }
  for (int64_t j = 0; j < kernel; products += kernel - j, j++)
    for (int64_t k = j; k < kernel; k++) products[k - j] += y[j] * y[k];
}

/* Windows belong to the piece in which they begin. */
static void moments_of_piece(void *context, size_t task, int thread) {
  const wave_context *c = context;
  const ser_front_shape *s = &c->p->shape;
  wave_piece piece = find_piece(c, (int64_t)task);
  front_sums *to = &c->sums[task];
  double mean = c->mean[piece.clip], squares = 0, taps[MOMENTS_MOST] = {0};
  (void)thread;
  for (int64_t i = piece.first; i < piece.end; i++) {
    double apart = (double)piece.x[i] - mean;
    squares += apart * apart;
  }
  for (int64_t at = piece.first; s->over_time && at < piece.end && at + s->kernel <= piece.samples; at += s->stride)
    add_window(taps, piece.x + at, mean, s->kernel);
  to->squares = squares;
  memcpy(to->taps, taps, sizeof taps);
}

/* The clip's scale, and its moments, from the sums of its pieces in their order. */
static void finish_clip(const wave_context *c, int64_t clip) {
  const ser_front_shape *s = &c->p->shape;
  int64_t samples = c->sample_start[clip + 1] - c->sample_start[clip];
  double squares = 0, taps[MOMENTS_MOST] = {0};
  for (int64_t piece = c->piece_start[clip]; piece < c->piece_start[clip + 1]; piece++) {
    squares += c->sums[piece].squares;
    for (int64_t i = 0; i < c->p->moments; i++) taps[i] += c->sums[piece].taps[i];
  }
  double scale = s->normalise ? 1 / sqrt(squares / (double)samples + 1e-7) : 1;
  c->scale[clip] = scale;
  if (!s->over_time) return;
  double windows = (double)((samples - s->kernel) / s->stride + 1);
  double *m = c->moments + clip * c->p->moments, *covariance = m + s->kernel;
  const double *products = taps + s->kernel;
  for (int64_t j = 0; j < s->kernel; j++)
    for (int64_t k = j; k < s->kernel; k++)
      *covariance++ = (*products++ / windows - taps[j] / windows * (taps[k] / windows)) * scale * scale;
  for (int64_t j = 0; j < s->kernel; j++) m[j] = taps[j] / windows * scale;
}

/* One encoder row's samples. */
static void place_row(void *context, size_t task, int thread) {
  const wave_context *c = context;
  const ser_front_shape *s = &c->p->shape;
  int64_t row = (int64_t)task, clip = c->rows->clip_of_row[row], first = (row - c->rows->row_start[clip]) * s->hop;
  int64_t left = c->sample_start[clip + 1] - c->sample_start[clip] - first;
  const float *x = c->pcm + c->sample_start[clip] + first;
  float *to = c->wave + row * s->hop;
  (void)thread;
  int64_t count = left < 0 ? 0 : left < s->hop ? left : s->hop;
  if (s->normalise || s->over_time)
    for (int64_t i = 0; i < count; i++) to[i] = (float)(((double)x[i] - c->mean[clip]) * c->scale[clip]);
  else
    memcpy(to, x, (size_t)count * sizeof *to);
  memset(to + count, 0, (size_t)(s->hop - count) * sizeof *to);
}

void SER_ISA(cpu_front_wave)(ser_stream *stream, const ser_plan *plan, void *workspace, float *wave, double *moments,
                             const float *pcm, const int64_t *sample_start, const ser_rows *rows) {
  const front_plan *p = (const front_plan *)plan;
  int64_t clips = rows->clips;
  wave_context c = {p, workspace, NULL, NULL, NULL, wave, moments, pcm, sample_start, rows};
  SER_CHECK(clips <= p->shape.max_clips && sample_start[clips] - sample_start[0] <= p->shape.max_samples);
  c.mean = (double *)(c.piece_start + p->shape.max_clips + 1);
  c.scale = c.mean + p->shape.max_clips;
  c.sums = (front_sums *)(c.scale + p->shape.max_clips);
  c.piece_start[0] = 0;
  for (int64_t clip = 0; clip < clips; clip++)
    c.piece_start[clip + 1] = c.piece_start[clip] + pieces_of(p, sample_start[clip + 1] - sample_start[clip]);
  size_t pieces = (size_t)c.piece_start[clips];
  ser_cpu_parallel(stream, pieces, sum_piece, &c);
  for (int64_t clip = 0; clip < clips; clip++) {
    double sum = 0;
    for (int64_t i = c.piece_start[clip]; i < c.piece_start[clip + 1]; i++) sum += c.sums[i].sum;
    c.mean[clip] = sum / (double)(sample_start[clip + 1] - sample_start[clip]);
  }
  if (p->shape.normalise || p->shape.over_time) ser_cpu_parallel(stream, pieces, moments_of_piece, &c);
  for (int64_t clip = 0; clip < clips; clip++) finish_clip(&c, clip);
  ser_cpu_parallel(stream, (size_t)rows->rows, place_row, &c);
  memset(wave + rows->rows * p->shape.hop, 0, (size_t)p->shape.kernel * sizeof *wave);
}

/* ---- the norm ------------------------------------------------------------------------------------------------------
 */

void SER_ISA(cpu_front_norm)(ser_stream *stream, const ser_plan *plan, float *norm, const double *moments,
                             const float *w, const float *gamma, const float *beta, int64_t clips) {
  const front_plan *p = (const front_plan *)plan;
  int64_t kernel = p->shape.kernel, channels = p->shape.channels;
  (void)stream;
  for (int64_t clip = 0; clip < clips; clip++, moments += p->moments, norm += 2 * channels)
    for (int64_t c = 0; c < channels; c++) {
      const float *taps = w + c * kernel;
      const double *covariance = moments + kernel;
      double mean = 0, var = 0;
      for (int64_t j = 0; j < kernel; j++) {
        mean += (double)taps[j] * moments[j];
        for (int64_t k = j; k < kernel; k++) var += (k > j ? 2 : 1) * (double)taps[j] * (double)taps[k] * *covariance++;
      }
      double scale = (double)gamma[c] / sqrt((var > 0 ? var : 0) + (double)p->shape.eps);
      norm[c] = (float)scale;
      norm[channels + c] = (float)((double)beta[c] - mean * scale);
    }
}

/* ---- the convolution -----------------------------------------------------------------------------------------------
 */

typedef struct {
  const front_plan *p;
  float *out;
  const float *wave, *packed, *bias, *norm;
  row_norm by_row;
  const ser_rows *rows;
  int64_t first, count;
} front_context;

/* Rows of one clip (or, at the end of the batch, of none): they lie within one row of the encoder. */
static void front_rows(const front_context *c, float *out, int64_t row, int64_t count) {
  const ser_front_shape *s = &c->p->shape;
  int64_t frame = row * s->stride / s->hop;
  const float *x = c->wave + row * s->stride, *norm = NULL;
  if (s->over_time) norm = c->norm + (int64_t)c->rows->clip_of_row[frame] * 2 * s->channels;
  for (int64_t channel = 0; channel < s->channels; channel += PANEL) {
    int64_t columns = s->channels - channel < PANEL ? s->channels - channel : PANEL;
    float bias[PANEL] = {0};
    if (c->bias && !s->over_time) memcpy(bias, c->bias + channel, (size_t)columns * sizeof *bias);
    panel_out to = {out + channel, s->channels, bias, NULL, false};
    SER_ISA(panel_product_rows)(&to, x, s->stride, c->packed + channel * s->kernel, s->kernel, count, columns);
    for (int64_t at = 0; norm && at < columns; at += VW) {
      int64_t left = columns - at;
      vf scale = v_load_first(norm + channel + at, left), shift = v_load_first(norm + s->channels + channel + at, left);
      for (int64_t r = 0; r < count; r++) {
        float *y = out + r * s->channels + channel + at;
        v_store_first(y, v_gelu(v_load_first(y, left) * scale + shift), left);
      }
    }
  }
  for (int64_t r = 0; !norm && r < count; r++) row_norm_apply(out + r * s->channels, out + r * s->channels, &c->by_row);
}

/* The output's rows that belong to one row of the encoder, or what of them was asked for, a few at a time so that they
 * stay in the first-level cache for their norm. */
static void front_frame(void *context, size_t task, int thread) {
  const front_context *c = context;
  int64_t per_frame = c->p->shape.hop / c->p->shape.stride, frame = c->first / per_frame + (int64_t)task;
  int64_t row = frame * per_frame, end = row + per_frame, last = c->first + c->count;
  (void)thread;
  if (row < c->first) row = c->first;
  if (end > last) end = last;
  for (; row < end; row += 2 * PANEL_ROWS) {
    int64_t count = end - row < 2 * PANEL_ROWS ? end - row : 2 * PANEL_ROWS;
    front_rows(c, c->out + (row - c->first) * c->p->shape.channels, row, count);
  }
}

void SER_ISA(cpu_front_forward)(ser_stream *stream, const ser_plan *plan, float *out, const float *wave,
                                const void *packed, const float *bias, const float *norm, const float *gamma,
                                const float *beta, const ser_rows *rows, int64_t first, int64_t count) {
  const front_plan *p = (const front_plan *)plan;
  const ser_front_shape *s = &p->shape;
  int64_t per_frame = s->hop / s->stride;
  SER_CHECK(first + count <= rows->rows * per_frame);
  if (!count) return;
  front_context c = {p, out, wave, packed, bias, norm, {gamma, beta, s->eps, true, s->channels}, rows, first, count};
  ser_cpu_parallel(stream, (size_t)((first + count - 1) / per_frame - first / per_frame + 1), front_frame, &c);
}
