/* What the CPU backend's kernels may ask of its runtime. Only host/device and kernels/ include this. */
#ifndef SER_DEVICE_CPU_H
#define SER_DEVICE_CPU_H

#include <stdatomic.h>

#include "base/threads.h"
#include "device/ops.h"

/* CPU streams run each operation at once, on the caller's thread and the device's pool. */
struct ser_stream {
  ser_device *device;
  ser_pool *pool;
  atomic_bool cut; /* a task was left out: what the stream computed is not whole */
};

/* For each task in [0, tasks): body(context, task, thread). Static shares; see base/threads.h. After a signal the tasks
 * that have not begun are left out, and the stream is cut: whoever reads from it hears of it. Work that grows with the
 * model or the batch therefore belongs into tasks. */
void ser_cpu_parallel(ser_stream *stream, size_t tasks, ser_task_fn body, void *context);

int ser_cpu_threads(const ser_device *device); /* for plans: workspace per thread */

/* Plans are made and counted by the device: zeroed, freed with ser_plan_free. */
void *ser_cpu_plan(ser_device *device, size_t bytes);

/* One table a build of kernels/: the same sources for each instruction set. */
extern const ser_ops ser_cpu_ops_base;
#if defined(__x86_64__)
extern const ser_ops ser_cpu_ops_avx2, ser_cpu_ops_avx512;
#endif

/* The processor's limit, a loop for each build of kernels/: `rounds` of multiply-adds in each chain; gives the
 * operations done. What starts in `kept` and ends there keeps the compiler from leaving work out: it is 0 at first. */
int64_t ser_peak_fma_base(float *kept, int64_t rounds);
#if defined(__x86_64__)
int64_t ser_peak_fma_avx2(float *kept, int64_t rounds);
int64_t ser_peak_fma_avx512(float *kept, int64_t rounds);
#endif

#endif
