/* The two streams of a training: one computes, the other copies between the device and pinned memory. */
#ifndef SER_TRAIN_STREAMS_H
#define SER_TRAIN_STREAMS_H

#include "device/runtime.h"

typedef struct {
  ser_device *device;
  ser_stream *compute, *copies;
  ser_event *computed, *copied;
} ser_streams;

/* Begins as zeros; is freed also where it could not be made. */
ser_status ser_streams_make(ser_streams *streams, ser_device *device, ser_error *err);
void ser_streams_free(ser_streams *streams); /* waits for both */

/* What is copied from now on waits for what is computed up to now; and the other way round. */
void ser_streams_then_copy(const ser_streams *streams);
void ser_streams_then_compute(const ser_streams *streams);

#endif
