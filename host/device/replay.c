/* Replayed work: a graph where it can be one. */
#include "device/replay.h"

#include "base/log.h"

ser_replayer ser_replayer_make(ser_device *device, const char *what) {
  ser_device_properties is;
  device->rt->properties(device, &is);
  return (ser_replayer){device, what, is.graphs};
}

static ser_status capture(ser_replay *replay, const ser_runtime *rt, ser_stream *stream, ser_enqueue_fn enqueue,
                          void *context, ser_error *err) {
  SER_TRY(rt->graph_begin(stream, err));
  enqueue(context);
  return rt->graph_end(stream, &replay->graph, err);
}

/* Where the device has ended, or the stream had failed already, that is what there is to say: a wait tells. */
static ser_status do_without(ser_replayer *by, ser_stream *stream, const ser_error *why, ser_error *err) {
  SER_TRY(by->device->rt->sync(stream, err));
  by->captures = false;
  ser_warn("%s cannot be captured as a graph, so its operations are launched one by one, which may be slower: %s",
           by->what, why->text);
  return SER_OK;
}

ser_status ser_replay_run(ser_replay *replay, ser_replayer *by, ser_stream *stream, ser_enqueue_fn enqueue,
                          void *context, ser_error *err) {
  const ser_runtime *rt = by->device->rt;
  if (!replay->graph && by->captures && replay->warm) {
    ser_error why = {0};
    if (capture(replay, rt, stream, enqueue, context, &why) != SER_OK) SER_TRY(do_without(by, stream, &why, err));
  }
  if (replay->graph)
    rt->graph_launch(stream, replay->graph);
  else
    enqueue(context);
  replay->warm = true;
  return SER_OK;
}

void ser_replay_end(ser_replay *replay, const ser_device *device) {
  device->rt->graph_destroy(replay->graph);
  *replay = (ser_replay){0};
}
