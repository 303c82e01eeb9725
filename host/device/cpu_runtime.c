/* The CPU backend's runtime: host memory, a pool of threads, streams that run each operation at once. */
#include "device/cpu_runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "device/cpu.h"

typedef struct {
  ser_device device;
  ser_pool *pool;
  int64_t (*peak_loop)(float *kept, int64_t rounds);
  char isa[32];
  atomic_llong allocations, bytes, peak;
} cpu_device;

/* Before each allocation lies its size, in a cache line of its own so that the memory stays aligned. */
enum { HEADER = 64 };

static void cpu_close(ser_device *device) {
  cpu_device *cpu = (cpu_device *)device;
  ser_pool_free(cpu->pool);
  free(cpu);
}

static void read_processor_name(char *name, size_t size) {
  snprintf(name, size, "unknown processor");
  FILE *file = fopen("/proc/cpuinfo", "r");
  if (!file) return;
  char line[256];
  while (fgets(line, sizeof line, file)) {
    char *colon = strchr(line, ':');
    if (strncmp(line, "model name", 10) || !colon) continue;
    line[strcspn(line, "\n")] = 0;
    snprintf(name, size, "%s", colon + 1 + (colon[1] == ' '));
    break;
  }
  fclose(file);
}

static void cpu_properties(const ser_device *device, ser_device_properties *out) {
  const cpu_device *cpu = (const cpu_device *)device;
  memset(out, 0, sizeof *out);
  snprintf(out->backend, sizeof out->backend, "cpu");
  snprintf(out->isa, sizeof out->isa, "%s", cpu->isa);
  read_processor_name(out->name, sizeof out->name);
  out->threads = ser_pool_threads(cpu->pool);
  out->trainings = out->threads; /* one a thread: no barriers inside a step */
  out->memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGE_SIZE);
  out->memory_free = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGE_SIZE);
  out->host_memory = true;
  snprintf(out->precision, sizeof out->precision, "fp32");
  snprintf(out->conv, sizeof out->conv, "cpu");
}

static void cpu_counters(const ser_device *device, ser_device_counters *out) {
  const cpu_device *cpu = (const cpu_device *)device;
  memset(out, 0, sizeof *out);
  out->allocations = atomic_load(&cpu->allocations);
  out->bytes = atomic_load(&cpu->bytes);
  out->peak = atomic_load(&cpu->peak);
}

/* Large memory in large pages where the system gives them: hundreds of megabytes of weights are touched for the first
 * time several times as fast, and read with fewer misses in the tables of pages. */
static char *reserve(size_t bytes) {
  enum { LARGE_PAGE = 2 << 20 };
  size_t align = bytes < 2 * LARGE_PAGE ? HEADER : LARGE_PAGE;
  if (bytes > SIZE_MAX - 2 * LARGE_PAGE) return NULL;
  char *memory = aligned_alloc(align, SER_ROUND_UP(bytes + HEADER, align));
  if (memory && align == LARGE_PAGE) (void)madvise(memory, SER_ROUND_UP(bytes + HEADER, align), MADV_HUGEPAGE);
  return memory;
}

static void *cpu_alloc(ser_device *device, size_t bytes, ser_error *err) {
  cpu_device *cpu = (cpu_device *)device;
  char *memory = reserve(bytes);
  if (!memory) {
    ser_fail_memory(err, SER_LACKS_DEVICE_MEMORY, "out of memory (%zu bytes asked for); use a smaller batch", bytes);
    return NULL;
  }
  *(size_t *)memory = bytes;
  atomic_fetch_add(&cpu->allocations, 1);
  long long held = atomic_fetch_add(&cpu->bytes, (long long)bytes) + (long long)bytes;
  long long peak = atomic_load(&cpu->peak);
  while (held > peak && !atomic_compare_exchange_weak(&cpu->peak, &peak, held)) {
  }
  return memory + HEADER;
}

static void cpu_free(ser_device *device, void *memory) {
  if (!memory) return;
  cpu_device *cpu = (cpu_device *)device;
  char *start = (char *)memory - HEADER;
  atomic_fetch_sub(&cpu->bytes, (long long)*(size_t *)start);
  free(start);
}

static ser_status cpu_stream_create(ser_device *device, ser_stream **stream, ser_error *err) {
  (void)err;
  *stream = ser_alloc_zero(1, sizeof **stream);
  (*stream)->device = device;
  (*stream)->pool = ((cpu_device *)device)->pool;
  return SER_OK;
}

static void cpu_stream_destroy(ser_stream *stream) {
  free(stream);
}

static void cpu_write(ser_stream *stream, void *to, const void *from_host, size_t bytes) {
  (void)stream;
  if (bytes) memcpy(to, from_host, bytes);
}

static void cpu_copy(ser_stream *stream, void *to, const void *from, size_t bytes) {
  (void)stream;
  if (bytes) memmove(to, from, bytes);
}

/* Bytes of one task: memory of gigabytes, touched for the first time, takes seconds. */
enum { ZERO_CHUNK = 4 << 20 };

typedef struct {
  char *memory;
  size_t bytes;
} zero_work;

static void zero_chunk(void *context, size_t task, int thread) {
  const zero_work *work = context;
  size_t at = task * ZERO_CHUNK, left = work->bytes - at;
  (void)thread;
  memset(work->memory + at, 0, left < ZERO_CHUNK ? left : ZERO_CHUNK);
}

static void cpu_zero(ser_stream *stream, void *memory, size_t bytes) {
  zero_work work = {memory, bytes};
  ser_cpu_parallel(stream, (bytes + ZERO_CHUNK - 1) / ZERO_CHUNK, zero_chunk, &work);
}

static ser_status cpu_sync(ser_stream *stream, ser_error *err) {
  return atomic_load(&stream->cut) ? ser_interrupt_check(err) : SER_OK;
}

static ser_status cpu_read(ser_stream *stream, void *to_host, const void *from, size_t bytes, ser_error *err) {
  SER_TRY(cpu_sync(stream, err));
  if (bytes) memcpy(to_host, from, bytes);
  return SER_OK;
}

static void cpu_read_later(ser_stream *stream, void *to_host, const void *from, size_t bytes) {
  cpu_copy(stream, to_host, from, bytes);
}

/* Everything has run when the call that enqueued it returns: an event is the time of day, and its stream. */
struct ser_event {
  ser_stream *stream; /* NULL until recorded */
  double at;
};

static ser_status cpu_event_create(ser_device *device, ser_event **event, ser_error *err) {
  (void)device;
  (void)err;
  *event = ser_alloc_zero(1, sizeof **event);
  return SER_OK;
}

static void cpu_event_destroy(ser_event *event) {
  free(event);
}

static void cpu_record(ser_stream *stream, ser_event *event) {
  *event = (ser_event){stream, ser_seconds()};
}

static void cpu_follow(ser_stream *stream, ser_event *event) {
  if (event->stream && atomic_load(&event->stream->cut)) atomic_store(&stream->cut, true);
}

static ser_status cpu_await(ser_event *event, ser_error *err) {
  return event->stream ? cpu_sync(event->stream, err) : SER_OK;
}

static double cpu_seconds(const ser_event *from, const ser_event *to) {
  return to->at - from->at;
}

static ser_status cpu_graph_begin(ser_stream *stream, ser_error *err) {
  (void)stream;
  return ser_fail(err, SER_FAILED, "the CPU backend has no graphs");
}

static ser_status cpu_graph_end(ser_stream *stream, ser_graph **graph, ser_error *err) {
  *graph = NULL;
  return cpu_graph_begin(stream, err);
}

static void cpu_graph_launch(ser_stream *stream, ser_graph *graph) {
  (void)stream;
  SER_CHECK(!graph);
}

static void cpu_graph_destroy(ser_graph *graph) {
  SER_CHECK(!graph);
}

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

static int64_t cpu_peak_fma(ser_stream *stream, int64_t rounds) {
  int threads = ser_pool_threads(stream->pool);
  fma_work work = {.loop = ((const cpu_device *)stream->device)->peak_loop, .rounds = rounds};
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

static int64_t cpu_peak_copy(ser_stream *stream, void *to, const void *from, size_t bytes) {
  size_t threads = (size_t)ser_pool_threads(stream->pool);
  copy_work work = {to, from, bytes, (bytes / threads + 64) / 64 * 64};
  ser_cpu_parallel(stream, threads, copy_task, &work);
  return (int64_t)(2 * bytes);
}

static void cpu_phase(ser_device *device, const char *name) {
  (void)device;
  (void)name;
}

static void cpu_range_end(ser_device *device) {
  (void)device;
}

static ser_status cpu_choose_conv(ser_device *device, const ser_conv_shape *shape, ser_error *err) {
  (void)device;
  (void)shape;
  (void)err;
  return SER_OK;
}

static const ser_runtime cpu_runtime = {
    .close = cpu_close,
    .properties = cpu_properties,
    .counters = cpu_counters,
    .choose_conv = cpu_choose_conv,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .stream_create = cpu_stream_create,
    .stream_destroy = cpu_stream_destroy,
    .write = cpu_write,
    .copy = cpu_copy,
    .zero = cpu_zero,
    .read = cpu_read,
    .sync = cpu_sync,
    .pin = cpu_alloc,
    .unpin = cpu_free,
    .write_later = cpu_write,
    .read_later = cpu_read_later,
    .event_create = cpu_event_create,
    .event_destroy = cpu_event_destroy,
    .record = cpu_record,
    .follow = cpu_follow,
    .await = cpu_await,
    .seconds = cpu_seconds,
    .graph_begin = cpu_graph_begin,
    .graph_end = cpu_graph_end,
    .graph_launch = cpu_graph_launch,
    .graph_destroy = cpu_graph_destroy,
    .peak_fma = cpu_peak_fma,
    .peak_copy = cpu_peak_copy,
    .phase = cpu_phase,
    .range_begin = cpu_phase,
    .range_end = cpu_range_end,
};

typedef struct {
  ser_stream *stream;
  ser_task_fn body;
  void *context;
} stoppable;

static void run_unless_stopped(void *context, size_t task, int thread) {
  const stoppable *work = context;
  if (ser_interrupted())
    atomic_store(&work->stream->cut, true);
  else
    work->body(work->context, task, thread);
}

void ser_cpu_parallel(ser_stream *stream, size_t tasks, ser_task_fn body, void *context) {
  stoppable work = {stream, body, context};
  ser_pool_run(stream->pool, tasks, run_unless_stopped, &work);
}

int ser_cpu_threads(const ser_device *device) {
  return ser_pool_threads(((const cpu_device *)device)->pool);
}

static void plan_free(ser_plan *plan) {
  free(plan);
}

void *ser_cpu_plan(ser_device *device, size_t bytes) {
  SER_CHECK(bytes >= sizeof(ser_plan));
  atomic_fetch_add(&((cpu_device *)device)->allocations, 1);
  ser_plan *plan = ser_alloc_aligned(bytes);
  memset(plan, 0, bytes);
  plan->free = plan_free;
  return plan;
}

typedef struct {
  const char *name;
  const ser_ops *ops;
  int64_t (*peak_loop)(float *kept, int64_t rounds);
  bool here; /* the processor has it */
} isa_choice;

static size_t list_isas(isa_choice out[3]) {
  size_t count = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  out[count++] = (isa_choice){"avx512", &ser_cpu_ops_avx512, ser_peak_fma_avx512,
                              __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")};
  out[count++] = (isa_choice){"avx2", &ser_cpu_ops_avx2, ser_peak_fma_avx2,
                              __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")};
#endif
  out[count++] = (isa_choice){"base", &ser_cpu_ops_base, ser_peak_fma_base, true};
  return count;
}

static ser_status choose_isa(isa_choice *chosen, ser_error *err) {
  isa_choice list[3];
  size_t count = list_isas(list);
  const char *wanted = getenv("SERENADE_ISA");
  for (size_t i = 0; i < count; i++) {
    if (wanted && *wanted && strcmp(wanted, list[i].name)) continue;
    *chosen = list[i];
    if (list[i].here) return SER_OK;
    if (wanted && *wanted)
      return ser_fail(err, SER_USAGE, "SERENADE_ISA=%s: this processor lacks it; unset the variable", wanted);
  }
  return ser_fail(err, SER_USAGE, "SERENADE_ISA=%s is none of avx512, avx2, base; unset the variable", wanted);
}

ser_status ser_cpu_open(ser_device **device, int threads, ser_error *err) {
  isa_choice isa = {0};
  SER_TRY(choose_isa(&isa, err));
  cpu_device *cpu = ser_alloc_zero(1, sizeof *cpu);
  cpu->device.rt = &cpu_runtime;
  cpu->device.ops = isa.ops;
  cpu->peak_loop = isa.peak_loop;
  cpu->pool = ser_pool_create(threads > 0 ? threads : ser_cores());
  snprintf(cpu->isa, sizeof cpu->isa, "%s", isa.name);
  *device = &cpu->device;
  return SER_OK;
}
