/* Feeding clips to a device: batches drawn from the data set that lies there, standardised and laid out as tiles. Where
 * the device has no room for the data set, the windows of a batch are gathered on the host and brought through pinned
 * memory on a stream of their own, beside the step before; what is copied for a batch is a two-hundredth of its step on
 * a CPU. */
#include <stdlib.h>

#include "base/memory.h"
#include "model/gather.h"
#include "train/feed.h"

/* Two, so that one is filled while the other is copied. A step finds its clips in one place: it may be a graph. */
typedef struct {
  void *pinned, *there; /* there: on the device */
  ser_gathered clips;
  ser_event *copied, *taken; /* to `there`, from there */
} slot;

struct ser_feed {
  ser_device *device;
  const ser_dataset *dataset;
  const ser_resident *resident;
  ser_gather_room room; /* of a batch */
  void *memory;
  float *tile, *mean, *inv_std; /* [2][B][Cp][Tp], [Cp], [Cp] */
  void *brought;                /* where clips come to, or NULL */
  ser_gathered clips;
  ser_stream *copies;
  slot slots[2];
  int next;
};

static ser_status make_slot(slot *s, ser_feed *feed, ser_error *err) {
  const ser_runtime *rt = feed->device->rt;
  size_t bytes = ser_gather_place(&s->clips, &feed->room, true, NULL);
  SER_TRY(ser_device_alloc(&s->there, feed->device, bytes, err));
  s->pinned = rt->pin(feed->device, bytes, err);
  if (!s->pinned) return SER_FAILED;
  ser_gather_place(&s->clips, &feed->room, true, s->pinned);
  SER_TRY(rt->event_create(feed->device, &s->copied, err));
  return rt->event_create(feed->device, &s->taken, err);
}

static ser_status make(ser_feed *feed, ser_stream *stream, const float *mean, const float *inv_std, ser_error *err) {
  int64_t c = feed->dataset->channels, cp = SER_ROUND_UP(c, SER_CHANNEL_PAD);
  int64_t tensor = feed->room.windows * cp * SER_ROUND_UP(feed->room.frames, SER_TIME_PAD);
  bool bring = !feed->resident->features;
  const ser_array arrays[] = {
      {&feed->tile, (size_t)(2 * tensor) * sizeof(float)},
      {&feed->mean, (size_t)cp * sizeof(float)},
      {&feed->inv_std, (size_t)cp * sizeof(float)},
      {&feed->brought, ser_gather_place(&feed->clips, &feed->room, bring, NULL)},
  };
  SER_TRY(ser_arrays_alloc(&feed->memory, feed->device, stream, arrays, sizeof arrays / sizeof *arrays, err));
  ser_gather_place(&feed->clips, &feed->room, bring, feed->brought);
  feed->device->rt->write(stream, feed->mean, mean, (size_t)c * sizeof(float));
  feed->device->rt->write(stream, feed->inv_std, inv_std, (size_t)c * sizeof(float));
  if (bring) SER_TRY(feed->device->rt->stream_create(feed->device, &feed->copies, err));
  for (int i = 0; bring && i < 2; i++) SER_TRY(make_slot(&feed->slots[i], feed, err));
  return SER_OK;
}

ser_status ser_feed_create(ser_feed **feed, ser_device *device, ser_stream *stream, const ser_dataset *dataset,
                           const ser_resident *resident, const float *mean, const float *inv_std, int64_t frames,
                           int64_t max_batch, ser_error *err) {
  ser_feed *made = ser_alloc_zero(1, sizeof *made);
  made->device = device;
  made->dataset = dataset;
  made->resident = resident;
  made->room = (ser_gather_room){max_batch, frames, dataset->channels};
  ser_status status = make(made, stream, mean, inv_std, err);
  if (status != SER_OK) {
    ser_feed_free(made);
    made = NULL;
  }
  *feed = made;
  return status;
}

void ser_feed_free(ser_feed *feed) {
  if (!feed) return;
  const ser_runtime *rt = feed->device->rt;
  for (int i = 0; i < 2; i++) {
    rt->unpin(feed->device, feed->slots[i].pinned);
    rt->free(feed->device, feed->slots[i].there);
    rt->event_destroy(feed->slots[i].copied);
    rt->event_destroy(feed->slots[i].taken);
  }
  rt->stream_destroy(feed->copies);
  rt->free(feed->device, feed->memory);
  free(feed);
}

/* The clips' windows end to end; the bytes that are used. */
static size_t gather(const slot *s, const ser_feed *feed, const int32_t *list, int64_t count) {
  const ser_dataset *data = feed->dataset;
  for (int64_t b = 0; b < count; b++) {
    int64_t first = data->offset[list[b]], frames = data->offset[list[b] + 1] - first;
    ser_gather_add(&s->clips, &feed->room, b, data->features + first * data->channels, frames, data->truth[list[b]]);
  }
  return ser_gather_bytes(&s->clips, &feed->room, count);
}

ser_status ser_feed_bring(ser_feed *feed, ser_stream *stream, const int32_t *list, int64_t count, ser_error *err) {
  const ser_runtime *rt = feed->device->rt;
  slot *s = &feed->slots[feed->next];
  SER_CHECK(count > 0 && count <= feed->room.windows);
  if (feed->resident->features) return SER_OK;
  feed->next = !feed->next;
  SER_TRY(rt->await(s->copied, err));
  size_t bytes = gather(s, feed, list, count);
  rt->follow(feed->copies, s->taken);
  rt->write_later(feed->copies, s->there, s->pinned, bytes);
  rt->record(feed->copies, s->copied);
  rt->follow(stream, s->copied);
  rt->copy(stream, feed->brought, s->there, bytes);
  rt->record(stream, s->taken);
  return SER_OK;
}

void ser_feed_take(ser_feed *feed, ser_stream *stream, ser_batch *batch, const int32_t *order, const ser_step *step,
                   int64_t most, int64_t count, int64_t sides) {
  SER_CHECK(count > 0 && count <= feed->room.windows);
  const ser_ops *ops = feed->device->ops;
  const ser_resident *resident = feed->resident;
  ser_tensor_shape shape = {sides, count, feed->dataset->channels, feed->room.frames};
  if (resident->features) {
    ser_clips all = {resident->offset, resident->truth, feed->room.frames};
    ops->take_batch(stream, feed->clips.start, feed->clips.length, feed->clips.truth, &all, order, step, most, count);
  }
  ops->gather_standardise(stream, feed->tile, resident->features ? resident->features : feed->clips.rows,
                          feed->clips.start, feed->clips.length, feed->mean, feed->inv_std, &shape);
  batch->tile = feed->tile;
  batch->lengths = feed->clips.length;
  batch->truth = feed->clips.truth;
  batch->batch = count;
}
