/* MFCC features of clips of unlike lengths (librosa.feature.mfcc and .delta), in batches through the device's
 * operations. All memory is made beforehand but the result and room for clips longer than a batch. */
#include "features/features.h"

#include <stdlib.h>
#include <string.h>

/* A plan with the buffers of its runs. */
typedef struct {
  int64_t max_clips, max_frames;
  ser_plan *plan;
  void *workspace;
  float *pcm;                          /* [max_frames * hop]: a clip of T frames has fewer than T * hop samples */
  int64_t *sample_start, *frame_start; /* [max_clips + 1] */
  float *logmel;                       /* [max_frames][mels] */
  float *features;                     /* [max_frames][C] */
} batch_room;

struct ser_mfcc {
  ser_device *device;
  ser_stream *stream;
  ser_mfcc_config config;
  batch_room usual, single; /* single: for one clip that is longer than a usual batch; made when first needed */
  int64_t *sample_start, *frame_start; /* [max_clips + 1] on the host */
};

static void room_free(batch_room *room, ser_device *device) {
  ser_plan_free(room->plan);
  void *buffers[] = {room->workspace, room->pcm, room->sample_start, room->frame_start, room->logmel, room->features};
  for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) device->rt->free(device, buffers[i]);
  memset(room, 0, sizeof *room);
}

static ser_status room_make(batch_room *room, ser_device *device, const ser_mfcc_config *config, int64_t max_clips,
                            int64_t max_frames, ser_error *err) {
  ser_mfcc_shape shape = {config->n_fft,        config->hop,    config->rate, config->mels,
                          config->coefficients, config->deltas, max_clips,    max_frames};
  ser_status status;
  memset(room, 0, sizeof *room);
  SER_TRY_DONE(device->ops->mfcc_prepare(device, &room->plan, &shape, err));
  SER_TRY_DONE(ser_device_alloc(&room->workspace, device, room->plan->workspace, err));
  SER_TRY_DONE(ser_device_alloc(&room->pcm, device, (size_t)(max_frames * config->hop) * sizeof(float), err));
  SER_TRY_DONE(ser_device_alloc(&room->sample_start, device, (size_t)(max_clips + 1) * sizeof(int64_t), err));
  SER_TRY_DONE(ser_device_alloc(&room->frame_start, device, (size_t)(max_clips + 1) * sizeof(int64_t), err));
  SER_TRY_DONE(ser_device_alloc(&room->logmel, device, (size_t)(max_frames * config->mels) * sizeof(float), err));
  SER_TRY_DONE(ser_device_alloc(&room->features, device,
                                (size_t)(max_frames * ser_feature_columns(config)) * sizeof(float), err));
  room->max_clips = max_clips;
  room->max_frames = max_frames;
done:
  if (status != SER_OK) room_free(room, device);
  return status;
}

ser_status ser_mfcc_create(ser_mfcc **out, ser_device *device, const ser_mfcc_config *config, int64_t max_clips,
                           int64_t max_frames, ser_error *err) {
  *out = NULL;
  SER_CHECK(max_clips > 0 && max_frames > 0);
  ser_mfcc *mfcc = ser_alloc_zero(1, sizeof *mfcc);
  mfcc->device = device;
  mfcc->config = *config;
  mfcc->sample_start = ser_alloc_zero((size_t)max_clips + 1, sizeof *mfcc->sample_start);
  mfcc->frame_start = ser_alloc_zero((size_t)max_clips + 1, sizeof *mfcc->frame_start);
  ser_status status = device->rt->stream_create(device, &mfcc->stream, err);
  if (status == SER_OK) status = room_make(&mfcc->usual, device, config, max_clips, max_frames, err);
  if (status != SER_OK) {
    ser_mfcc_free(mfcc);
    return status;
  }
  *out = mfcc;
  return SER_OK;
}

void ser_mfcc_free(ser_mfcc *mfcc) {
  if (!mfcc) return;
  room_free(&mfcc->usual, mfcc->device);
  room_free(&mfcc->single, mfcc->device);
  mfcc->device->rt->stream_destroy(mfcc->stream);
  free(mfcc->sample_start);
  free(mfcc->frame_start);
  free(mfcc);
}

/* The room that takes a clip of so many frames alone; it grows by half again at least, so that a series of ever longer
 * clips does not make a plan for each. */
static ser_status single_room(ser_mfcc *mfcc, int64_t frames, ser_error *err) {
  if (frames <= mfcc->single.max_frames) return SER_OK;
  int64_t half_again = mfcc->single.max_frames + mfcc->single.max_frames / 2;
  room_free(&mfcc->single, mfcc->device);
  return room_make(&mfcc->single, mfcc->device, &mfcc->config, 1, frames > half_again ? frames : half_again, err);
}

/* Runs clips [first, last) in a room; their rows go to features [frames][C]. */
static ser_status run_batch(ser_mfcc *mfcc, const batch_room *room, float *features, const int64_t *offset,
                            const float *const *samples, const int64_t *counts, size_t first, size_t last,
                            ser_error *err) {
  const ser_runtime *rt = mfcc->device->rt;
  const ser_ops *ops = mfcc->device->ops;
  ser_stream *stream = mfcc->stream;
  int64_t clips = 0, frames = offset[last] - offset[first];
  for (size_t i = first; i < last; i++) {
    if (offset[i + 1] == offset[i]) continue;
    int64_t start = mfcc->sample_start[clips];
    rt->write(stream, room->pcm + start, samples[i], (size_t)counts[i] * sizeof(float));
    clips++;
    mfcc->sample_start[clips] = start + counts[i];
    mfcc->frame_start[clips] = offset[i + 1] - offset[first];
  }
  if (!clips) return SER_OK;
  size_t starts = (size_t)(clips + 1) * sizeof(int64_t);
  rt->write(stream, room->sample_start, mfcc->sample_start, starts);
  rt->write(stream, room->frame_start, mfcc->frame_start, starts);
  ops->logmel(stream, room->plan, room->workspace, room->logmel, room->pcm, room->sample_start, room->frame_start,
              clips, frames);
  ops->mfcc_finish(stream, room->plan, room->workspace, room->features, room->logmel, room->frame_start, clips, frames);
  return rt->read(stream, features, room->features,
                  (size_t)(frames * ser_feature_columns(&mfcc->config)) * sizeof(float), err);
}

/* The end of the batch that begins at clip `first`: as many clips as the usual room takes, at least one. */
static size_t batch_end(const ser_mfcc *mfcc, const int64_t *offset, size_t first, size_t count) {
  size_t last = first + 1, most = first + (size_t)mfcc->usual.max_clips;
  while (last < count && last < most && offset[last + 1] - offset[first] <= mfcc->usual.max_frames) last++;
  return last;
}

ser_status ser_mfcc_compute(ser_mfcc *mfcc, float **features, int64_t *offset, const float *const *samples,
                            const int64_t *counts, size_t count, ser_error *err) {
  int64_t least = ser_feature_min_frames(&mfcc->config), columns = ser_feature_columns(&mfcc->config);
  offset[0] = 0;
  for (size_t i = 0; i < count; i++) {
    int64_t frames = ser_mfcc_frames(counts[i], mfcc->config.hop);
    offset[i + 1] = offset[i] + (frames < least ? 0 : frames);
  }
  *features = ser_alloc((size_t)(offset[count] * columns) * sizeof **features);
  ser_status status = SER_OK;
  for (size_t first = 0, last; first < count && status == SER_OK; first = last) {
    last = batch_end(mfcc, offset, first, count);
    int64_t frames = offset[last] - offset[first];
    bool single = frames > mfcc->usual.max_frames;
    if (single) status = single_room(mfcc, frames, err);
    if (status != SER_OK) break;
    status = run_batch(mfcc, single ? &mfcc->single : &mfcc->usual, *features + offset[first] * columns, offset,
                       samples, counts, first, last, err);
  }
  if (status == SER_OK) return SER_OK;
  free(*features);
  *features = NULL;
  return status;
}

/* TIM-Net's code: an odd sample of padding goes behind, an odd sample too many is cut behind. */
void ser_fit_samples(float **samples, int64_t *count, int64_t to) {
  int64_t have = *count;
  if (have == to) return;
  float *fitted = ser_alloc_zero((size_t)to, sizeof *fitted);
  if (have < to)
    memcpy(fitted + (to - have) / 2, *samples, (size_t)have * sizeof *fitted);
  else
    memcpy(fitted, *samples + (have - to) / 2, (size_t)to * sizeof *fitted);
  free(*samples);
  *samples = fitted;
  *count = to;
}
