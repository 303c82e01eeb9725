/* The device interface, first table: memory, streams, events, graphs and properties. The second table, the operations,
 * is ops.h.
 *
 * Model code sees a ser_device and nothing behind it. Buffers are plain pointers that only the device's own operations
 * may follow; the host reaches their contents through write and read. Operations are enqueued on a stream and do not
 * wait; only read and sync do. Nothing allocates while running: memory comes from alloc, plans from the operations'
 * prepare, both before the loop.
 *
 * An operation that fails while it runs leaves its error in the stream; every later operation on that stream does
 * nothing, and the next read or sync reports it. After a signal (base/interrupt.h) an operation may leave its work
 * undone: the next read or sync is then SER_INTERRUPTED and gives nothing, and what the stream wrote since is to be
 * thrown away.
 */
#ifndef SER_DEVICE_RUNTIME_H
#define SER_DEVICE_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/device_options.h"
#include "base/status.h"

typedef struct ser_device ser_device;
typedef struct ser_stream ser_stream;
typedef struct ser_event ser_event;
typedef struct ser_graph ser_graph;
struct ser_ops;
struct ser_conv_shape;

typedef struct {
  char backend[16];     /* "cpu", "cuda" */
  char name[128];       /* the processor's or the GPU's own name */
  char isa[32];         /* the instruction set chosen: "avx512", "avx2", "base"; or "sm_90" */
  int threads;          /* compute threads; on a GPU the number of multiprocessors */
  uint64_t memory;      /* bytes */
  uint64_t memory_free; /* bytes that alloc could still give, as far as the device tells */
  int trainings;        /* how many trainings side by side, each on a device of its own, keep it busiest */
  bool host_memory;     /* operations may follow host pointers: what lies on the host need not be written */
  bool graphs;          /* streams can be captured */
  char precision[8];    /* "fp32", "tf32" */
  char conv[8];         /* how convolutions run: "cpu", "cudnn", "fused"; "auto" before choose_conv */
  char no_product[64];  /* "768 x 3072": the first dense layer or product that the device's library has no algorithm
                           for, so that a slower kernel of ours does it; "": there is none */
  char no_cudnn[1024];  /* why choose_conv could not measure cuDNN and took "fused"; "": it could, or was not to */
} ser_device_properties;

/* Counters of one device since it was opened: tests ask them whether a loop allocated, benchmarks what a batch costs.
 * What a backend does not do stays 0. */
typedef struct {
  int64_t allocations;   /* alloc calls, pinned ones too, and plans made */
  int64_t bytes;         /* allocated now */
  int64_t peak;          /* most bytes at one time */
  int64_t launches;      /* kernels of ours; those in a graph at each of its launches */
  int64_t calls;         /* of the device's libraries, the same way */
  int64_t written, read; /* bytes over the bus */
  int64_t waits;         /* times the host waited */
  int64_t asked;         /* calls of the device's interface, work or not: of the whole process, on all its devices */
} ser_device_counters;

/* What a job has had of its device: batches, and the device's own time of computing them, by events. For benchmarks. */
typedef struct {
  int64_t batches;
  double seconds;
} ser_device_work;

typedef struct {
  void (*close)(ser_device *device);
  void (*properties)(const ser_device *device, ser_device_properties *out);
  void (*counters)(const ser_device *device, ser_device_counters *out);

  /* Settles how convolutions run where that was left to the device (conv auto), by measuring convolutions of this
   * shape, which has the largest dilation, and of the same with dilation 1; before their plans are made. Where there is
   * nothing to choose it does nothing. A cuDNN that fails is no failure: properties.no_cudnn has its words. */
  ser_status (*choose_conv)(ser_device *device, const struct ser_conv_shape *shape, ser_error *err);

  /* 64-byte aligned, uninitialised. NULL when the device is out of memory, with the error set. */
  void *(*alloc)(ser_device *device, size_t bytes, ser_error *err);
  void (*free)(ser_device *device, void *memory); /* NULL is fine */

  /* Host memory that the device reaches by itself, for write_later and read_later. 64-byte aligned. */
  void *(*pin)(ser_device *device, size_t bytes, ser_error *err);
  void (*unpin)(ser_device *device, void *memory); /* NULL is fine */

  ser_status (*stream_create)(ser_device *device, ser_stream **stream, ser_error *err);
  void (*stream_destroy)(ser_stream *stream); /* NULL is fine */

  /* Host to device; the host memory may be reused when it returns. */
  void (*write)(ser_stream *stream, void *to, const void *from_host, size_t bytes);
  void (*copy)(ser_stream *stream, void *to, const void *from, size_t bytes); /* on the device */
  void (*zero)(ser_stream *stream, void *memory, size_t bytes);
  /* Device to host; waits. */
  ser_status (*read)(ser_stream *stream, void *to_host, const void *from, size_t bytes, ser_error *err);
  ser_status (*sync)(ser_stream *stream, ser_error *err);
  /* As write and read, but nothing waits: the pinned host memory is the device's until an event behind them, or the
   * stream, has been waited for. */
  void (*write_later)(ser_stream *stream, void *to, const void *from_pinned, size_t bytes);
  void (*read_later)(ser_stream *stream, void *to_pinned, const void *from, size_t bytes);

  /* Events: a point in a stream. `follow` makes later work of a stream wait for the event on the device; `await` makes
   * the host wait, and reports what failed on the stream where it was recorded. `seconds`: between two events that have
   * been waited for. An event that was never recorded is passed by. */
  ser_status (*event_create)(ser_device *device, ser_event **event, ser_error *err);
  void (*event_destroy)(ser_event *event); /* NULL is fine */
  void (*record)(ser_stream *stream, ser_event *event);
  void (*follow)(ser_stream *stream, ser_event *event);
  ser_status (*await)(ser_event *event, ser_error *err);
  double (*seconds)(const ser_event *from, const ser_event *to);

  /* Graphs, where properties.graphs: what is enqueued on the stream between begin and end is not run but kept, to be
   * enqueued again by each launch with the same arguments. What changes from launch to launch lies in device memory
   * (ops.h: ser_step). Nothing that waits or allocates may stand between. Elsewhere begin is SER_FAILED. Where end
   * fails nothing between has been run, and the stream goes on as before begin, unless the device itself has ended. */
  ser_status (*graph_begin)(ser_stream *stream, ser_error *err);
  ser_status (*graph_end)(ser_stream *stream, ser_graph **graph, ser_error *err);
  void (*graph_launch)(ser_stream *stream, ser_graph *graph);
  void (*graph_destroy)(ser_graph *graph); /* NULL is fine */

  /* The device's own limits, for those who measure; no model calls them. Enqueued. peak_fma: multiply-adds on all of
   * the device, `rounds` in each of its chains, that touch no memory; gives the floating-point operations done, two for
   * each multiply-add. 0 rounds: a launch of nothing. peak_copy: from one buffer of the device to another, each as
   * alloc gave it; gives the bytes read and written. */
  int64_t (*peak_fma)(ser_stream *stream, int64_t rounds);
  int64_t (*peak_copy)(ser_stream *stream, void *to, const void *from, size_t bytes);

  /* For those who look on (profilers, tests): a phase of the whole program begins; ranges, which nest, in the thread.
   */
  void (*phase)(ser_device *device, const char *name);
  void (*range_begin)(ser_device *device, const char *name);
  void (*range_end)(ser_device *device);
} ser_runtime;

struct ser_device {
  const ser_runtime *rt;
  const struct ser_ops *ops;
  /* the backend's own state follows */
};

/* Opens a device. AUTO takes CUDA where a device and its module are there, else the CPU. CUDA asked for by name where
 * it is not to be had is SER_FAILED with the reason; a precision that the device lacks is SER_USAGE. The environment
 * variable SERENADE_ISA=base, avx2 or avx512 holds the CPU backend to an instruction set (for tests); one that the
 * processor lacks is refused. */
ser_status ser_device_open(ser_device **device, const ser_device_options *options, ser_error *err);
/* Tells the user once which GPU is used, or why one that is there is not, where that was left to us. */
void ser_device_tell(const ser_device *device, const ser_device_options *asked);
/* The device's choose_conv; where cuDNN could not be had for it, the user is warned of what failed. */
ser_status ser_device_choose_conv(ser_device *device, const struct ser_conv_shape *shape, ser_error *err);
/* Warns the user once where products go another way than the device's library (properties.no_product): behind the
 * prepare of a model. */
void ser_device_tell_products(const ser_device *device);
void ser_device_close(ser_device *device); /* NULL is fine */
/* Why AUTO does not take CUDA, in words; SER_OK where it does. */
ser_status ser_device_cuda_absence(ser_error *why);

/* The device's alloc as a status: the pointer at `out`, of whatever type, becomes the memory, or NULL. */
ser_status ser_device_alloc(void *out, ser_device *device, size_t bytes, ser_error *err);

#endif
