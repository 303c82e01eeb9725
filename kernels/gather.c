/* Batches for a model: which clips of a data set, and their ragged features standardised, transposed to [B][Cp][Tp],
 * zeros behind, and for side 1 the same backwards in time. (x - mean) * inv_std, as
 * sklearn.preprocessing.StandardScaler with inv_std = 1 / scale_. */
#include "kernels/kernels.h"
#include "kernels/transpose.h"

void SER_ISA(cpu_take_batch)(ser_stream *stream, int64_t *start, int64_t *length, int32_t *truth,
                             const ser_clips *clips, const int32_t *order, const ser_step *step, int64_t batch,
                             int64_t count) {
  (void)stream;
  const int32_t *taken = order + (step ? step->place * batch : 0);
  for (int64_t b = 0; b < count; b++) {
    const int64_t *offset = &clips->offset[taken[b]];
    int64_t rows = offset[1] - offset[0];
    start[b] = offset[0];
    length[b] = rows < clips->frames ? rows : clips->frames;
    truth[b] = clips->truth[taken[b]];
  }
}

typedef struct {
  float *tile, *reversed; /* sides 0 and 1; reversed NULL: there is only one */
  const float *features;
  const int64_t *start, *length;
  const float *mean, *inv_std;
  int64_t channels, time, channels_padded, time_padded;
} gather_job;

static inline vf standardised(const float *row, vf mean, vf inv_std, int64_t width) {
  vf v = v_set(0);
  if (width == VW)
    v = v_load(row);
  else
    memcpy(&v, row, (size_t)width * sizeof(float));
  return (v - mean) * inv_std;
}

/* Channels [c, c + width) of one clip. x: its rows, [frames][channels]; tile: its [Cp][Tp]. Rows are read VW wide where
 * width is VW. */
static void gather_channels(float *tile, const gather_job *job, const float *x, int64_t frames, int64_t c,
                            int64_t width) {
  vf mean = v_set(0), inv_std = v_set(0);
  memcpy(&mean, job->mean + c, (size_t)width * sizeof(float));
  memcpy(&inv_std, job->inv_std + c, (size_t)width * sizeof(float));
  for (int64_t t = 0; t < job->time_padded; t += VW) {
    vf v[VW];
    V_UNROLL
    for (int i = 0; i < VW; i++)
      v[i] = t + i < frames ? standardised(x + (t + i) * job->channels + c, mean, inv_std, width) : v_set(0);
    v_transpose(v);
    for (int i = 0; i < width; i++) v_store(tile + (c + i) * job->time_padded + t, v[i]);
  }
}

/* to [Tp] = the first `time` values of from, backwards, and zeros. */
static void reverse_row(float *to, const float *from, int64_t time, int64_t padded) {
  int64_t t = 0;
  for (; t + VW <= time; t += VW) v_store(to + t, v_reverse(v_load(from + time - VW - t)));
  for (; t < time; t++) to[t] = from[time - 1 - t];
  memset(to + time, 0, (size_t)(padded - time) * sizeof *to);
}

static void gather_clip(void *context, size_t b, int thread) {
  (void)thread;
  const gather_job *job = context;
  int64_t floats = job->channels_padded * job->time_padded, channels = job->channels;
  int64_t frames = job->length[b] < job->time ? job->length[b] : job->time;
  float *tile = job->tile + (int64_t)b * floats;
  const float *x = job->features + job->start[b] * channels;
  /* The last block overlaps the one before it, so that no row is read beyond its end. */
  for (int64_t c = 0; c < channels; c += VW) {
    if (channels < VW)
      gather_channels(tile, job, x, frames, 0, channels);
    else
      gather_channels(tile, job, x, frames, c + VW <= channels ? c : channels - VW, VW);
  }
  memset(tile + channels * job->time_padded, 0,
         (size_t)((job->channels_padded - channels) * job->time_padded) * sizeof *tile);
  if (!job->reversed) return;
  float *reversed = job->reversed + (int64_t)b * floats;
  for (int64_t c = 0; c < job->channels_padded; c++)
    reverse_row(reversed + c * job->time_padded, tile + c * job->time_padded, job->time, job->time_padded);
}

void SER_ISA(cpu_gather_standardise)(ser_stream *stream, float *tile, const float *features, const int64_t *start,
                                     const int64_t *length, const float *mean, const float *inv_std,
                                     const ser_tensor_shape *shape) {
  int64_t cp = SER_ROUND_UP(shape->channels, SER_CHANNEL_PAD), tp = SER_ROUND_UP(shape->time, SER_TIME_PAD);
  gather_job job = {.tile = tile,
                    .reversed = shape->sides > 1 ? tile + shape->batch * cp * tp : NULL,
                    .features = features,
                    .start = start,
                    .length = length,
                    .mean = mean,
                    .inv_std = inv_std,
                    .channels = shape->channels,
                    .time = shape->time,
                    .channels_padded = cp,
                    .time_padded = tp};
  ser_cpu_parallel(stream, (size_t)shape->batch, gather_clip, &job);
}
