/* The device interface, first table: memory, streams and properties. The second table, the operations, is ops.h.
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

#include "base/config.h"
#include "base/status.h"

typedef struct ser_device ser_device;
typedef struct ser_stream ser_stream;
struct ser_ops;

typedef struct {
  char backend[16]; /* "cpu", "cuda" */
  char name[128];   /* the processor's or the GPU's own name */
  char isa[32];     /* the instruction set chosen: "avx512", "avx2", "base"; or "sm_90" */
  int threads;      /* compute threads; on a GPU the number of multiprocessors */
  uint64_t memory;  /* bytes */
  int trainings;    /* how many trainings side by side, each on a device of its own, keep it busiest */
} ser_device_properties;

/* Counters of one device since it was opened: tests ask them whether a loop allocated. */
typedef struct {
  int64_t allocations; /* alloc calls and plans made */
  int64_t bytes;       /* allocated now */
  int64_t peak;        /* most bytes at one time */
} ser_device_counters;

typedef struct {
  void (*close)(ser_device *device);
  void (*properties)(const ser_device *device, ser_device_properties *out);
  void (*counters)(const ser_device *device, ser_device_counters *out);

  /* 64-byte aligned, uninitialised. NULL when the device is out of memory, with the error set. */
  void *(*alloc)(ser_device *device, size_t bytes, ser_error *err);
  void (*free)(ser_device *device, void *memory); /* NULL is fine */

  ser_status (*stream_create)(ser_device *device, ser_stream **stream, ser_error *err);
  void (*stream_destroy)(ser_stream *stream); /* NULL is fine */

  /* Host to device; the host memory may be reused when it returns. */
  void (*write)(ser_stream *stream, void *to, const void *from_host, size_t bytes);
  void (*copy)(ser_stream *stream, void *to, const void *from, size_t bytes); /* on the device */
  void (*zero)(ser_stream *stream, void *memory, size_t bytes);
  /* Device to host; waits. */
  ser_status (*read)(ser_stream *stream, void *to_host, const void *from, size_t bytes, ser_error *err);
  ser_status (*sync)(ser_stream *stream, ser_error *err);
} ser_runtime;

struct ser_device {
  const ser_runtime *rt;
  const struct ser_ops *ops;
  /* the backend's own state follows */
};

/* Opens a device. AUTO takes CUDA where a device and its module are there, else the CPU. CUDA asked for by name where
 * it is not to be had is SER_USAGE with the reason. threads 0: all cores. The environment variable SERENADE_ISA=base,
 * avx2 or avx512 holds the CPU backend to an instruction set (for tests); one that the processor lacks is refused. */
ser_status ser_device_open(ser_device **device, ser_device_kind kind, int threads, ser_error *err);
void ser_device_close(ser_device *device); /* NULL is fine */

/* The device's alloc as a status: the pointer at `out`, of whatever type, becomes the memory, or NULL. */
ser_status ser_device_alloc(void *out, ser_device *device, size_t bytes, ser_error *err);

#endif
