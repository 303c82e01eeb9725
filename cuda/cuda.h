/* What the files of the CUDA backend share: the device, its streams, the one way of calling and launching. Included by
 * cuda/ and kernels/NAME.cu alone.
 *
 * A device is used by one thread at a time; several devices may be open side by side on the same GPU (one a training).
 * Every call of the runtime or a library goes through CUDA_ASK, which counts it and gives its status, and nearly all
 * through those that say what becomes of that: CUDA_DO, CUDA_SET and CUDA_CALL for what is done on a stream, CUDA_TRY
 * and CUDA_END for what belongs to none. Every launch goes through CUDA_LAUNCH, and so has a stream. (The test
 * unit.cuda_calls holds the sources to it.) The first that fails on a stream leaves its words there (statement, file,
 * line and the device's own); from then on the stream's operations do nothing, and the next read, sync or await reports
 * it. */
#ifndef SER_CUDA_CUDA_H
#define SER_CUDA_CUDA_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <cufft.h>

#ifdef __cplusplus
#define _Noreturn [[noreturn]]
extern "C" {
#endif

#include "base/memory.h"
#include "device/ops.h"

/* One allocation: the runtime does not tell sizes. */
typedef struct {
  void *memory;
  size_t bytes;
  bool pinned;
} cuda_block;

typedef struct {
  ser_device device;
  ser_precision precision;
  ser_conv_choice conv; /* auto until choose_conv has measured: fused until then */
  char no_cudnn[sizeof((ser_device_properties *)0)->no_cudnn]; /* as in the properties */
  char no_product[sizeof((ser_device_properties *)0)->no_product];
  int capability; /* 75, 80, 90 ... */
  int multiprocessors;
  size_t l2, shared_most; /* bytes: second-level cache; shared memory that a block may ask for */
  bool reads_pageable;    /* the host's memory as it is, at whatever time: nothing of it is staged */
  char name[128];
  uint64_t memory;
  ser_device_counters counters;
  cuda_block *blocks;
  size_t block_count, block_capacity;
  ser_stream *streams; /* all that are open */
  cudaStream_t setup;  /* for filling the tables of plans */
  /* Made by the first prepare that needs them. */
  cublasLtHandle_t lt;
  cudnnHandle_t cudnn;
} cuda_device;

enum { CUDA_SCRATCH = 4096 };

struct ser_stream {
  cuda_device *device;
  cudaStream_t cuda;
  void *scratch;                /* CUDA_SCRATCH bytes of the device, for operations that have no workspace */
  ser_stream *next;             /* of the device's list */
  bool failed;                  /* error holds the first that went wrong */
  bool capturing;               /* what is enqueued goes into a graph: counts belong to that */
  ser_device_counters captured; /* of the capture under way */
  ser_error error;
};

/* One name for the statuses of the runtime and of the libraries: 0 is success in all of them. */
typedef enum { CUDA_RUNTIME, CUDA_LT, CUDA_DNN, CUDA_FFT } cuda_library;

/* Keeps what went wrong in the stream; false where `status` is not success, or where the stream had failed before. */
bool cuda_note(ser_stream *stream, cuda_library library, int status, const char *statement, const char *file, int line);
/* The same for what belongs to no stream (making plans, memory). */
ser_status cuda_report(ser_error *err, cuda_library library, int status, const char *statement, const char *file,
                       int line);

/* The one way of asking the runtime or a library for anything: the status as a number, and one more on the count. */
#define CUDA_ASK(call) (cuda_count_asked(), (int)(call))
void cuda_count_asked(void);
int64_t cuda_asked(void); /* by the whole process so far */

/* A call of the runtime that enqueues on a stream: nothing where the stream has failed. */
#define CUDA_DO(stream, call) CUDA_SET(stream, CUDA_RUNTIME, call)
/* The same of a library, for what is only set on the host. */
#define CUDA_SET(stream, library, call)                                                                                \
  ((stream)->failed ? false : cuda_note((stream), (library), CUDA_ASK(call), #call, __FILE__, __LINE__))
/* A call of a library that works on a stream; counted as work. */
#define CUDA_CALL(stream, library, call)                                                                               \
  ((stream)->failed                                                                                                    \
       ? false                                                                                                         \
       : (cuda_count_call(stream), cuda_note((stream), (library), CUDA_ASK(call), #call, __FILE__, __LINE__)))
/* In a function that returns ser_status: returns the error, with its words in err, where the call fails. */
#define CUDA_TRY(library, call, err) CUDA_TRY_STATUS(library, CUDA_ASK(call), #call, err)
/* The same two for what a function of ours gives that has asked for several things: the first status that is no
 * success. */
#define CUDA_SAID(stream, library, status)                                                                             \
  ((stream)->failed ? false : cuda_note((stream), (library), (status), #status, __FILE__, __LINE__))
#define CUDA_TRY_SAID(library, status, err) CUDA_TRY_STATUS(library, status, #status, err)
#define CUDA_TRY_STATUS(library, status, statement, err)                                                               \
  do {                                                                                                                 \
    int cuda_try_ = (status);                                                                                          \
    if (cuda_try_) return cuda_report((err), (library), cuda_try_, (statement), __FILE__, __LINE__);                   \
  } while (0)

/* What gives something back, or may fail without harm: the runtime forgets it, so that no later call is blamed. What a
 * dead device says then matters to nobody. */
#define CUDA_END(call) cuda_forget(CUDA_ASK(call))
void cuda_forget(int status);

/* Where work on the stream counts: the device's counters, or those of the graph that is being captured. */
static inline ser_device_counters *cuda_counters(ser_stream *stream) {
  return stream->capturing ? &stream->captured : &stream->device->counters;
}
static inline void cuda_count_call(ser_stream *stream) {
  cuda_counters(stream)->calls++;
}
static inline void cuda_count_launch(ser_stream *stream) {
  cuda_counters(stream)->launches++;
}

/* Launches a kernel: CUDA_LAUNCH(stream, kernel, blocks, threads, shared bytes, arguments ...). */
#define CUDA_LAUNCH(stream, kernel, blocks, threads, shared, ...)                                                      \
  do {                                                                                                                 \
    if ((stream)->failed) break;                                                                                       \
    kernel<<<(blocks), (threads), (shared), (stream)->cuda>>>(__VA_ARGS__);                                            \
    cuda_count_launch(stream);                                                                                         \
    cuda_note((stream), CUDA_RUNTIME, CUDA_ASK(cudaGetLastError()), #kernel, __FILE__, __LINE__);                      \
  } while (0)

/* A zeroed plan of that size on the host, counted; `end` (or NULL) releases what it holds, the plan itself is freed
 * behind it. The plan begins with a cuda_plan. */
typedef struct cuda_plan {
  ser_plan plan;
  cuda_device *device;
  void (*end)(struct cuda_plan *plan);
} cuda_plan;
void *cuda_plan_make(ser_device *device, size_t bytes, void (*end)(cuda_plan *plan));

/* Device memory of a plan's own tables, counted, and filled from the host before it returns. */
ser_status cuda_table(void *out, cuda_device *device, const void *from_host, size_t bytes, ser_error *err);
void cuda_table_free(cuda_device *device, void *table);

/* The libraries' handles, made when first asked for. */
ser_status cuda_lt(cublasLtHandle_t *handle, cuda_device *device, ser_error *err);
ser_status cuda_dnn(cudnnHandle_t *handle, cuda_device *device, ser_error *err);

/* The operations (kernels/table.cu). */
extern const ser_ops ser_cuda_ops;

#ifdef __cplusplus
}
#endif

/* Blocks of `threads` that cover n. */
static inline unsigned cuda_blocks(int64_t n, int64_t threads) {
  return (unsigned)((n + threads - 1) / threads);
}

#endif
