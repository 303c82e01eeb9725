/* Events of the CUDA backend. */
#include "cuda/runtime.h"

#include <stdlib.h>

struct ser_event {
  cuda_device *device;
  cudaEvent_t cuda;
  bool recorded;
  ser_error error; /* of the stream, when it was recorded there */
};

/* Whoever awaits it sleeps: the cores have audio to read meanwhile. */
ser_status cuda_event_create(ser_device *device, ser_event **event, ser_error *err) {
  cudaEvent_t made;
  *event = NULL;
  CUDA_TRY(CUDA_RUNTIME, cudaEventCreateWithFlags(&made, cudaEventBlockingSync), err);
  ser_event *own = ser_alloc_zero(1, sizeof *own);
  own->device = (cuda_device *)device;
  own->cuda = made;
  *event = own;
  return SER_OK;
}

void cuda_event_destroy(ser_event *event) {
  if (!event) return;
  CUDA_END(cudaEventDestroy(event->cuda));
  free(event);
}

void cuda_record(ser_stream *stream, ser_event *event) {
  if (stream->capturing) cuda_refuse(stream, "an event is recorded in a graph");
  CUDA_DO(stream, cudaEventRecord(event->cuda, stream->cuda));
  event->recorded = true;
  event->error.status = SER_OK;
  cuda_stream_status(stream, &event->error);
}

/* What a stream does with the leavings of one that failed is worth nothing. */
void cuda_follow(ser_stream *stream, ser_event *event) {
  if (!event->recorded) return;
  if (stream->capturing) cuda_refuse(stream, "a stream follows an event in a graph");
  if (event->error.status) cuda_refuse(stream, event->error.text);
  CUDA_DO(stream, cudaStreamWaitEvent(stream->cuda, event->cuda, 0));
}

ser_status cuda_await(ser_event *event, ser_error *err) {
  if (!event->recorded) return SER_OK;
  if (event->error.status) return ser_fail(err, event->error.status, "%s", event->error.text);
  event->device->counters.waits++;
  CUDA_TRY(CUDA_RUNTIME, cudaEventSynchronize(event->cuda), err);
  return SER_OK;
}

double cuda_seconds(const ser_event *from, const ser_event *to) {
  float milliseconds = 0;
  CUDA_END(cudaEventElapsedTime(&milliseconds, from->cuda, to->cuda));
  return (double)milliseconds / 1000;
}
