/* Layer norm of rows (torch.nn.LayerNorm) and pooling of rows over the frames of a clip. */
#include <math.h>

#include "kernels/kernels.h"
#include "kernels/rows.h"

enum { ROWS_A_TASK = 16 };

typedef struct {
  float *out;
  const float *x;
  row_norm norm;
  int64_t rows;
} norm_context;

static void norm_rows(void *context, size_t task, int thread) {
  const norm_context *c = context;
  (void)thread;
  int64_t first = (int64_t)task * ROWS_A_TASK, channels = c->norm.channels;
  int64_t end = first + ROWS_A_TASK < c->rows ? first + ROWS_A_TASK : c->rows;
  for (int64_t row = first; row < end; row++) row_norm_apply(c->out + row * channels, c->x + row * channels, &c->norm);
}

void SER_ISA(cpu_layernorm_forward)(ser_stream *stream, float *out, const float *x, const float *gamma,
                                    const float *beta, float eps, bool gelu, int64_t channels, int64_t rows) {
  norm_context context = {out, x, {gamma, beta, eps, gelu, channels}, rows};
  ser_cpu_parallel(stream, (size_t)((rows + ROWS_A_TASK - 1) / ROWS_A_TASK), norm_rows, &context);
}

typedef struct {
  float *pooled;
  const float *x;
  int64_t channels, groups; /* of VW channels */
  const ser_rows *rows;
} pool_context;

/* Sums of up to this many rows are floats, sums of those doubles. */
enum { FLOAT_ROWS = 64 };

/* out[lane] = sum over the rows of x - from, or of its square, for up to VW channels. */
static void sum_rows(double out[VW], const float *x, int64_t stride, int64_t columns, int64_t rows, vf from,
                     bool squared) {
  for (int i = 0; i < VW; i++) out[i] = 0;
  for (int64_t first = 0; first < rows; first += FLOAT_ROWS) {
    int64_t end = first + FLOAT_ROWS < rows ? first + FLOAT_ROWS : rows;
    vf sum = {0};
    for (int64_t row = first; row < end; row++) {
      vf apart = v_load_first(x + row * stride, columns) - from;
      sum += squared ? apart * apart : apart;
    }
    for (int i = 0; i < VW; i++) out[i] += (double)sum[i];
  }
}

static void pool_channels(void *context, size_t task, int thread) {
  const pool_context *c = context;
  (void)thread;
  int64_t clip = (int64_t)task / c->groups, channel = (int64_t)task % c->groups * VW;
  int64_t first = c->rows->row_start[clip], frames = c->rows->row_start[clip + 1] - first - 1;
  float *mean = c->pooled + clip * 2 * c->channels + channel, *deviation = mean + c->channels;
  int64_t columns = c->channels - channel < VW ? c->channels - channel : VW;
  double sum[VW];
  float some[VW];
  const float *x = c->x + first * c->channels + channel;
  sum_rows(sum, x, c->channels, columns, frames, v_set(0), false);
  for (int i = 0; i < VW; i++) some[i] = (float)(sum[i] / (double)frames);
  memcpy(mean, some, (size_t)columns * sizeof *mean);
  sum_rows(sum, x, c->channels, columns, frames, v_load(some), true);
  for (int64_t i = 0; i < columns; i++) deviation[i] = (float)sqrt(sum[i] / (double)frames);
}

void SER_ISA(cpu_pool_rows)(ser_stream *stream, float *pooled, const float *x, int64_t channels, const ser_rows *rows) {
  pool_context context = {pooled, x, channels, (channels + VW - 1) / VW, rows};
  ser_cpu_parallel(stream, (size_t)(rows->clips * context.groups), pool_channels, &context);
}
