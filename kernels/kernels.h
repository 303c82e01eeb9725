/* The CPU forms of the operations of device/ops.h: what kernels/table.c gathers. Names are those of the table with cpu_
 * before them, one copy for each instruction set (SER_ISA). */
#ifndef SER_KERNELS_KERNELS_H
#define SER_KERNELS_KERNELS_H

#include "device/cpu.h"
#include "kernels/simd.h"

extern const ser_ops SER_ISA(ser_cpu_ops);

/* ---- audio: mfcc_plan.c, logmel.c, mfcc_finish.c, gather.c ------------------------------------------------------- */

ser_status SER_ISA(cpu_mfcc_prepare)(ser_device *device, ser_plan **plan, const ser_mfcc_shape *shape, ser_error *err);
void SER_ISA(cpu_logmel)(ser_stream *stream, const ser_plan *plan, void *workspace, float *logmel, const float *pcm,
                         const int64_t *sample_start, const int64_t *frame_start, int64_t clips, int64_t frames);
void SER_ISA(cpu_mfcc_finish)(ser_stream *stream, const ser_plan *plan, void *workspace, float *features,
                              const float *logmel, const int64_t *frame_start, int64_t clips, int64_t frames);
void SER_ISA(cpu_gather_standardise)(ser_stream *stream, float *tile, float *reversed, const float *features,
                                     const int64_t *start, const int64_t *length, const float *mean,
                                     const float *inv_std, const ser_tensor_shape *shape);

#endif
