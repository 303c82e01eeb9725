/* The machine's limits on all threads of a CPU device. */
#include "device/peak.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "device/cpu.h"

typedef struct {
  int64_t (*loop)(float *kept, int64_t rounds);
  int64_t rounds;
  struct {
    float kept;
    char apart[60]; /* a cache line each */
  } * threads;
} fma_work;

static void fma_task(void *context, size_t task, int thread) {
  fma_work *work = context;
  (void)thread;
  work->loop(&work->threads[task].kept, work->rounds);
}

/* Streams and threads of another backend are none of ours. */
static bool on_cpu(const ser_device_properties *properties) {
  return !strcmp(properties->backend, "cpu");
}

int64_t ser_peak_run(ser_device *device, ser_stream *stream, int64_t rounds) {
  ser_device_properties properties;
  device->rt->properties(device, &properties);
  if (!on_cpu(&properties)) return 0;
  fma_work work = {.loop = ser_peak_fma_base, .rounds = rounds};
#if defined(__x86_64__)
  if (!strcmp(properties.isa, "avx2")) work.loop = ser_peak_fma_avx2;
  if (!strcmp(properties.isa, "avx512")) work.loop = ser_peak_fma_avx512;
#endif
  int threads = ser_cpu_threads(device);
  work.threads = ser_alloc_zero((size_t)threads, sizeof *work.threads);
  ser_cpu_parallel(stream, (size_t)threads, fma_task, &work);
  free(work.threads);
  float kept = 0;
  return threads * rounds * work.loop(&kept, 1); /* all threads do the same */
}

typedef struct {
  char *to;
  const char *from;
  size_t bytes, share;
} copy_work;

static void copy_task(void *context, size_t task, int thread) {
  const copy_work *work = context;
  (void)thread;
  size_t at = task * work->share;
  if (at >= work->bytes) return;
  memcpy(work->to + at, work->from + at, work->bytes - at < work->share ? work->bytes - at : work->share);
}

int64_t ser_peak_copy(ser_device *device, ser_stream *stream, void *to, const void *from, size_t bytes) {
  ser_device_properties properties;
  device->rt->properties(device, &properties);
  if (!on_cpu(&properties)) return 0;
  size_t threads = (size_t)ser_cpu_threads(device);
  copy_work work = {to, from, bytes, (bytes / threads + 64) / 64 * 64};
  ser_cpu_parallel(stream, threads, copy_task, &work);
  return (int64_t)(2 * bytes);
}
