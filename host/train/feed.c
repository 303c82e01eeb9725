/* Feeding clips to a device: the windows of a batch, gathered on the host, standardised and laid out as tiles on the
 * device. The features themselves stay on the host (eight hours of speech are 200 MB, and every worker has a device of
 * its own); what is copied for a batch is a two-hundredth of its step. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "train/feed.h"

struct ser_feed {
  ser_device *device;
  const ser_dataset *dataset;
  int64_t max_batch, frames;
  float *rows_host;     /* [max_batch * frames][channels] */
  int64_t *places_host; /* start [max_batch], length [max_batch] */
  int32_t *truth_host;  /* [max_batch] */
  void *memory;
  float *rows, *tile, *reversed, *mean, *inv_std;
  int64_t *start, *length;
  int32_t *truth;
};

static void lay_out(ser_feed *feed, char *base, size_t *used) {
  int64_t c = feed->dataset->channels, cp = SER_ROUND_UP(c, SER_CHANNEL_PAD);
  int64_t tensor = feed->max_batch * cp * SER_ROUND_UP(feed->frames, SER_TIME_PAD);
  const struct {
    void *place;
    size_t bytes;
  } parts[] = {
      {&feed->rows, (size_t)(feed->max_batch * feed->frames * c) * sizeof(float)},
      {&feed->tile, (size_t)tensor * sizeof(float)},
      {&feed->reversed, (size_t)tensor * sizeof(float)},
      {&feed->mean, (size_t)cp * sizeof(float)},
      {&feed->inv_std, (size_t)cp * sizeof(float)},
      {&feed->start, (size_t)feed->max_batch * sizeof(int64_t)},
      {&feed->length, (size_t)feed->max_batch * sizeof(int64_t)},
      {&feed->truth, (size_t)feed->max_batch * sizeof(int32_t)},
  };
  *used = 0;
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    char *at = base ? base + *used : NULL;
    memcpy(parts[i].place, &at, sizeof at);
    *used += SER_ROUND_UP(parts[i].bytes, 64);
  }
}

ser_status ser_feed_create(ser_feed **feed, ser_device *device, ser_stream *stream, const ser_dataset *dataset,
                           const float *mean, const float *inv_std, int64_t frames, int64_t max_batch, ser_error *err) {
  ser_feed *made = ser_alloc_zero(1, sizeof *made);
  size_t bytes;
  *feed = made;
  made->device = device;
  made->dataset = dataset;
  made->max_batch = max_batch;
  made->frames = frames;
  made->rows_host = ser_alloc((size_t)(max_batch * frames * dataset->channels) * sizeof(float));
  made->places_host = ser_alloc_zero(2 * (size_t)max_batch, sizeof(int64_t));
  made->truth_host = ser_alloc_zero((size_t)max_batch, sizeof(int32_t));
  lay_out(made, NULL, &bytes);
  made->memory = device->rt->alloc(device, bytes, err);
  if (!made->memory) {
    ser_feed_free(made);
    *feed = NULL;
    return SER_FAILED;
  }
  lay_out(made, made->memory, &bytes);
  device->rt->zero(stream, made->memory, bytes);
  device->rt->write(stream, made->mean, mean, (size_t)dataset->channels * sizeof(float));
  device->rt->write(stream, made->inv_std, inv_std, (size_t)dataset->channels * sizeof(float));
  return SER_OK;
}

void ser_feed_free(ser_feed *feed) {
  if (!feed) return;
  feed->device->rt->free(feed->device, feed->memory);
  free(feed->rows_host);
  free(feed->places_host);
  free(feed->truth_host);
  free(feed);
}

void ser_feed_take(ser_feed *feed, ser_stream *stream, ser_batch *batch, const size_t *clips, int64_t count,
                   bool reversed) {
  SER_CHECK(count > 0 && count <= feed->max_batch);
  const ser_runtime *rt = feed->device->rt;
  const ser_dataset *data = feed->dataset;
  int64_t rows = 0, *start = feed->places_host, *length = feed->places_host + feed->max_batch;
  for (int64_t b = 0; b < count; b++) {
    int64_t first = data->offset[clips[b]], frames = data->offset[clips[b] + 1] - first;
    start[b] = rows;
    length[b] = frames < feed->frames ? frames : feed->frames;
    feed->truth_host[b] = data->truth[clips[b]];
    memcpy(feed->rows_host + rows * data->channels, data->features + first * data->channels,
           (size_t)(length[b] * data->channels) * sizeof(float));
    rows += length[b];
  }
  rt->write(stream, feed->rows, feed->rows_host, (size_t)(rows * data->channels) * sizeof(float));
  rt->write(stream, feed->start, start, (size_t)count * sizeof *start);
  rt->write(stream, feed->length, length, (size_t)count * sizeof *length);
  rt->write(stream, feed->truth, feed->truth_host, (size_t)count * sizeof(int32_t));
  ser_tensor_shape shape = {count, data->channels, feed->frames};
  feed->device->ops->gather_standardise(stream, feed->tile, reversed ? feed->reversed : NULL, feed->rows, feed->start,
                                        feed->length, feed->mean, feed->inv_std, &shape);
  batch->tile = feed->tile;
  batch->reversed = reversed ? feed->reversed : NULL;
  batch->lengths = feed->length;
  batch->truth = feed->truth;
  batch->batch = count;
}
