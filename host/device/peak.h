/* The limits of the machine that a device computes on, for `serenade bench`: multiply-adds and copies, nothing else. */
#ifndef SER_DEVICE_PEAK_H
#define SER_DEVICE_PEAK_H

#include "device/runtime.h"

/* Runs multiply-adds in the device's own instruction set on all of its threads; gives the floating-point operations
 * done (two for each multiply-add). Only the CPU backend has it: 0 elsewhere. */
int64_t ser_peak_run(ser_device *device, ser_stream *stream, int64_t rounds);

/* Copies `bytes` from one host buffer to another on all of the device's threads; gives the bytes read and written.
 * Only the CPU backend has it: 0 elsewhere. */
int64_t ser_peak_copy(ser_device *device, ser_stream *stream, void *to, const void *from, size_t bytes);

/* The loops, one for each build of kernels/. What starts in `kept` and ends there keeps the compiler from leaving work
 * out: it is 0 at first. */
int64_t ser_peak_fma_base(float *kept, int64_t rounds);
#if defined(__x86_64__)
int64_t ser_peak_fma_avx2(float *kept, int64_t rounds);
int64_t ser_peak_fma_avx512(float *kept, int64_t rounds);
#endif

#endif
