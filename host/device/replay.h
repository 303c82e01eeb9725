/* Work that comes again and again with the same arguments: captured as a graph where the device has graphs, and from
 * then on one launch. Where it cannot be captured it is enqueued each time, and that is said. */
#ifndef SER_DEVICE_REPLAY_H
#define SER_DEVICE_REPLAY_H

#include "device/runtime.h"

/* Whoever replays, of one thing or of several that are much the same. */
typedef struct {
  ser_device *device;
  const char *what; /* "a training step", for the warning */
  bool captures;    /* the device has graphs, and has refused none of this one's */
} ser_replayer;
ser_replayer ser_replayer_make(ser_device *device, const char *what);

/* One piece of work; begins as zeros. */
typedef struct {
  ser_graph *graph; /* NULL: not captured */
  bool warm;        /* it was enqueued by itself before */
} ser_replay;

/* Enqueues the work, by itself or as its graph. `enqueue` does nothing else, always with the same arguments. The first
 * time it is never captured: what a device loads and allocates when it does something for the first time has no place
 * in a graph. */
typedef void (*ser_enqueue_fn)(void *context);
ser_status ser_replay_run(ser_replay *replay, ser_replayer *by, ser_stream *stream, ser_enqueue_fn enqueue,
                          void *context, ser_error *err);
void ser_replay_end(ser_replay *replay, const ser_device *device);

#endif
