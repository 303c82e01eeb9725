/* The entries of the runtime's table (device/runtime.h says what each does) and what else the files of cuda/ share. */
#ifndef SER_CUDA_RUNTIME_H
#define SER_CUDA_RUNTIME_H

#include "cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* probe.cu: the lowest architecture that the module holds code for (75, 80 ...), and whether the device runs it. */
int cuda_lowest_architecture(void);
ser_status cuda_probe(cuda_device *device, ser_error *err);

/* choose.c */
ser_status cuda_choose_conv(ser_device *device, const ser_conv_shape *shape, ser_error *err);

/* memory.c. What alloc leaves of the device's memory: kernels are loaded when they are first launched, and the
 * libraries have rooms of their own; they would not find any when all has been given away. */
enum { CUDA_HEADROOM = 64 << 20 };
void *cuda_alloc(ser_device *device, size_t bytes, ser_error *err);
void cuda_free(ser_device *device, void *memory);
void *cuda_pin(ser_device *device, size_t bytes, ser_error *err);
bool cuda_is_pinned(const cuda_device *device, const void *memory);
/* One at a time in the process: the capture of a graph, and a call that makes or frees memory. The runtime itself lets
 * other threads go on during a capture of one thread's; what stands beside it or in for it need not. The same thread
 * may take its turn again. */
void cuda_turn_begin(void);
void cuda_turn_end(void);

/* stream.c */
ser_status cuda_stream_create(ser_device *device, ser_stream **stream, ser_error *err);
void cuda_stream_destroy(ser_stream *stream);
void cuda_write(ser_stream *stream, void *to, const void *from_host, size_t bytes);
void cuda_write_later(ser_stream *stream, void *to, const void *from_pinned, size_t bytes);
void cuda_copy(ser_stream *stream, void *to, const void *from, size_t bytes);
void cuda_zero(ser_stream *stream, void *memory, size_t bytes);
ser_status cuda_read(ser_stream *stream, void *to_host, const void *from, size_t bytes, ser_error *err);
void cuda_read_later(ser_stream *stream, void *to_pinned, const void *from, size_t bytes);
ser_status cuda_sync(ser_stream *stream, ser_error *err);
/* The stream's error, where it has one. */
ser_status cuda_stream_status(const ser_stream *stream, ser_error *err);
/* Waits for the work of all streams of the device: before memory goes that they may still use. */
void cuda_settle(cuda_device *device);

/* event.c */
ser_status cuda_event_create(ser_device *device, ser_event **event, ser_error *err);
void cuda_event_destroy(ser_event *event);
void cuda_record(ser_stream *stream, ser_event *event);
void cuda_follow(ser_stream *stream, ser_event *event);
ser_status cuda_await(ser_event *event, ser_error *err);
double cuda_seconds(const ser_event *from, const ser_event *to);

/* graph.c */
ser_status cuda_graph_begin(ser_stream *stream, ser_error *err);
ser_status cuda_graph_end(ser_stream *stream, ser_graph **graph, ser_error *err);
void cuda_graph_launch(ser_stream *stream, ser_graph *graph);
void cuda_graph_destroy(ser_graph *graph);

/* kernels/peak.cu */
int64_t cuda_peak_fma(ser_stream *stream, int64_t rounds);
int64_t cuda_peak_copy(ser_stream *stream, void *to, const void *from, size_t bytes);

/* marks.c */
void cuda_phase(ser_device *device, const char *name);
void cuda_range_begin(ser_device *device, const char *name);
void cuda_range_end(ser_device *device);

/* error.c. Memory that cannot be had, with the device's figures; `what` was asked for, or by whom. */
ser_status cuda_no_memory(ser_error *err, const char *what);
/* A failure that is not a call's own: words for the stream, which is of no use from then on. */
void cuda_refuse(ser_stream *stream, const char *text);
/* A device has begun to work for this process: one that answers no more from now on has ended. */
void cuda_begun(void);
bool cuda_has_ended(void);

#ifdef __cplusplus
}
#endif

#endif
