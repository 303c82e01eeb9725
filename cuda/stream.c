/* Streams of the CUDA backend, and the copies on them. None of them is the default stream or waits for it. */
#include "cuda/runtime.h"

#include <stdlib.h>

ser_status cuda_stream_create(ser_device *device, ser_stream **stream, ser_error *err) {
  cuda_device *cuda = (cuda_device *)device;
  cudaStream_t made;
  *stream = NULL;
  CUDA_TRY(CUDA_RUNTIME, cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), err);
  void *scratch = cuda_alloc(device, CUDA_SCRATCH, err);
  if (!scratch) {
    CUDA_END(cudaStreamDestroy(made));
    return SER_FAILED;
  }
  ser_stream *own = ser_alloc_zero(1, sizeof *own);
  own->device = cuda;
  own->cuda = made;
  own->scratch = scratch;
  own->next = cuda->streams;
  cuda->streams = own;
  *stream = own;
  return SER_OK;
}

/* Its work is over first: it may use memory that is freed next. */
void cuda_stream_destroy(ser_stream *stream) {
  if (!stream) return;
  ser_stream **link = &stream->device->streams;
  while (*link != stream) link = &(*link)->next;
  *link = stream->next;
  CUDA_END(cudaStreamSynchronize(stream->cuda));
  CUDA_END(cudaStreamDestroy(stream->cuda));
  cuda_free(&stream->device->device, stream->scratch);
  free(stream);
}

void cuda_settle(cuda_device *device) {
  for (ser_stream *stream = device->streams; stream; stream = stream->next)
    if (!stream->capturing) CUDA_END(cudaStreamSynchronize(stream->cuda));
}

ser_status cuda_stream_status(const ser_stream *stream, ser_error *err) {
  if (!stream->failed) return SER_OK;
  if (err) *err = stream->error;
  return stream->error.status;
}

/* A captured copy would read the host's memory at each launch, not now. */
static bool refuse_in_capture(ser_stream *stream, const char *what) {
  if (!stream->capturing) return false;
  cuda_refuse(stream, what);
  return true;
}

void cuda_write_later(ser_stream *stream, void *to, const void *from_pinned, size_t bytes) {
  if (!bytes) return;
  if (CUDA_DO(stream, cudaMemcpyAsync(to, from_pinned, bytes, cudaMemcpyHostToDevice, stream->cuda)))
    cuda_counters(stream)->written += (int64_t)bytes;
}

/* Memory that is not pinned is staged before the call returns, but where the device may read it by itself; pinned
 * memory is read when its turn comes. */
void cuda_write(ser_stream *stream, void *to, const void *from_host, size_t bytes) {
  if (refuse_in_capture(stream, "a write that waits stands in a graph")) return;
  cuda_write_later(stream, to, from_host, bytes);
  if (!stream->device->reads_pageable && !cuda_is_pinned(stream->device, from_host)) return;
  stream->device->counters.waits++;
  CUDA_DO(stream, cudaStreamSynchronize(stream->cuda));
}

void cuda_copy(ser_stream *stream, void *to, const void *from, size_t bytes) {
  if (bytes) CUDA_DO(stream, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream->cuda));
}

void cuda_zero(ser_stream *stream, void *memory, size_t bytes) {
  if (bytes) CUDA_DO(stream, cudaMemsetAsync(memory, 0, bytes, stream->cuda));
}

void cuda_read_later(ser_stream *stream, void *to_pinned, const void *from, size_t bytes) {
  if (!bytes) return;
  if (CUDA_DO(stream, cudaMemcpyAsync(to_pinned, from, bytes, cudaMemcpyDeviceToHost, stream->cuda)))
    cuda_counters(stream)->read += (int64_t)bytes;
}

ser_status cuda_sync(ser_stream *stream, ser_error *err) {
  if (refuse_in_capture(stream, "something that waits stands in a graph")) return cuda_stream_status(stream, err);
  stream->device->counters.waits++;
  CUDA_DO(stream, cudaStreamSynchronize(stream->cuda));
  return cuda_stream_status(stream, err);
}

ser_status cuda_read(ser_stream *stream, void *to_host, const void *from, size_t bytes, ser_error *err) {
  cuda_read_later(stream, to_host, from, bytes);
  return cuda_sync(stream, err);
}
