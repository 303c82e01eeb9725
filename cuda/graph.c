/* Graphs of the CUDA backend: captured from a stream, launched as one. */
#include "cuda/runtime.h"

#include <stdlib.h>

struct ser_graph {
  cuda_device *device;
  cudaGraphExec_t cuda;
  ser_device_counters work; /* of one launch */
};

/* Other threads go on enqueuing and waiting meanwhile; and a library may load in this one what it needs. */
static ser_status begin_capture(ser_stream *stream, ser_error *err) {
  CUDA_TRY(CUDA_RUNTIME, cudaStreamBeginCapture(stream->cuda, cudaStreamCaptureModeRelaxed), err);
  return SER_OK;
}

ser_status cuda_graph_begin(ser_stream *stream, ser_error *err) {
  SER_CHECK(!stream->capturing);
  SER_TRY(cuda_stream_status(stream, err));
  cuda_turn_begin();
  ser_status status = begin_capture(stream, err);
  if (status != SER_OK) {
    cuda_turn_end();
    return status;
  }
  stream->capturing = true;
  stream->captured = (ser_device_counters){0};
  return SER_OK;
}

ser_status cuda_graph_end(ser_stream *stream, ser_graph **graph, ser_error *err) {
  SER_CHECK(stream->capturing);
  *graph = NULL;
  stream->capturing = false;
  cudaGraph_t captured = NULL;
  cudaGraphExec_t made = NULL;
  if (stream->failed) /* what is captured is worth nothing, but the capture must end */
    CUDA_END(cudaStreamEndCapture(stream->cuda, &captured));
  else
    CUDA_DO(stream, cudaStreamEndCapture(stream->cuda, &captured));
  cuda_turn_end();
  CUDA_DO(stream, cudaGraphInstantiate(&made, captured, 0));
  if (captured) CUDA_END(cudaGraphDestroy(captured));
  if (made) CUDA_DO(stream, cudaGraphUpload(made, stream->cuda));
  if (stream->failed) {
    if (made) CUDA_END(cudaGraphExecDestroy(made));
    ser_status status = cuda_stream_status(stream, err);
    stream->failed = cuda_has_ended(); /* else only the capture is lost, of which nothing was run */
    return status;
  }
  *graph = ser_alloc_zero(1, sizeof **graph);
  **graph = (ser_graph){stream->device, made, stream->captured};
  stream->device->counters.allocations++;
  return SER_OK;
}

void cuda_graph_launch(ser_stream *stream, ser_graph *graph) {
  SER_CHECK(!stream->capturing);
  if (!CUDA_DO(stream, cudaGraphLaunch(graph->cuda, stream->cuda))) return;
  ser_device_counters *counters = &graph->device->counters;
  counters->launches += graph->work.launches;
  counters->calls += graph->work.calls;
  counters->written += graph->work.written;
  counters->read += graph->work.read;
}

void cuda_graph_destroy(ser_graph *graph) {
  if (!graph) return;
  cuda_settle(graph->device);
  CUDA_END(cudaGraphExecDestroy(graph->cuda));
  free(graph);
}
