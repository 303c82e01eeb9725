/* Memory of the CUDA backend: on the device, pinned on the host, tables of plans, and the plans themselves. */
#include "cuda/runtime.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MIB = 1 << 20 };

static pthread_once_t turns_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t turns;

static void make_turns(void) {
  pthread_mutexattr_t recursive;
  pthread_mutexattr_init(&recursive);
  pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&turns, &recursive);
  pthread_mutexattr_destroy(&recursive);
}

void cuda_turn_begin(void) {
  pthread_once(&turns_once, make_turns);
  pthread_mutex_lock(&turns);
}

void cuda_turn_end(void) {
  pthread_mutex_unlock(&turns);
}

static void count_block(cuda_device *cuda, void *memory, size_t bytes, bool pinned) {
  SER_GROW(cuda->blocks, cuda->block_count, cuda->block_capacity);
  cuda->blocks[cuda->block_count++] = (cuda_block){memory, bytes, pinned};
  ser_device_counters *counters = &cuda->counters;
  counters->allocations++;
  counters->bytes += (int64_t)bytes;
  if (counters->bytes > counters->peak) counters->peak = counters->bytes;
}

/* A call that makes memory: its own words where there is none left, those of any failure else. */
typedef ser_status refuse_function(size_t bytes, ser_error *err);

static ser_status made(ser_error *err, size_t bytes, refuse_function *refuse, int status, const char *statement,
                       const char *file, int line) {
  if (status != cudaErrorMemoryAllocation)
    return status ? cuda_report(err, CUDA_RUNTIME, status, statement, file, line) : SER_OK;
  cuda_forget(status);
  return refuse(bytes, err);
}
#define MADE(err, bytes, refuse, call) made((err), (bytes), (refuse), CUDA_ASK(call), #call, __FILE__, __LINE__)

static ser_status refuse_device(size_t bytes, ser_error *err) {
  char what[128];
  snprintf(what, sizeof what, "%zu bytes (%zu MiB) asked for beside %d MiB for kernels and libraries", bytes,
           bytes / MIB, CUDA_HEADROOM / MIB);
  return cuda_no_memory(err, what);
}

/* Refuses what would take of the headroom. */
static ser_status leave_headroom(size_t bytes, ser_error *err) {
  size_t available = 0, total = 0;
  CUDA_TRY(CUDA_RUNTIME, cudaMemGetInfo(&available, &total), err);
  return available < CUDA_HEADROOM || available - CUDA_HEADROOM < bytes ? refuse_device(bytes, err) : SER_OK;
}

static ser_status refuse_pinned(size_t bytes, ser_error *err) {
  return ser_fail_memory(err, SER_LACKS_HOST_MEMORY,
                         "out of host memory that the GPU can reach: %zu bytes (%zu MiB) asked for; use a smaller "
                         "batch, or raise the limit on locked memory",
                         bytes, bytes / MIB);
}

/* The runtime's memory is aligned to 256 bytes; it gives none for a size of 0. */
void *cuda_alloc(ser_device *device, size_t bytes, ser_error *err) {
  void *memory = NULL;
  cuda_turn_begin();
  ser_status status = leave_headroom(bytes, err);
  if (status == SER_OK) status = MADE(err, bytes, refuse_device, cudaMalloc(&memory, bytes ? bytes : 1));
  cuda_turn_end();
  if (status != SER_OK) return NULL;
  count_block((cuda_device *)device, memory, bytes, false);
  return memory;
}

void *cuda_pin(ser_device *device, size_t bytes, ser_error *err) {
  void *memory = NULL;
  cuda_turn_begin();
  ser_status status = MADE(err, bytes, refuse_pinned, cudaHostAlloc(&memory, bytes ? bytes : 1, cudaHostAllocDefault));
  cuda_turn_end();
  if (status != SER_OK) return NULL;
  count_block((cuda_device *)device, memory, bytes, true);
  return memory;
}

bool cuda_is_pinned(const cuda_device *cuda, const void *memory) {
  for (size_t i = 0; i < cuda->block_count; i++) {
    const cuda_block *block = &cuda->blocks[i];
    const char *start = block->memory, *at = memory;
    if (block->pinned && at >= start && at < start + block->bytes) return true;
  }
  return false;
}

/* Both kinds. The runtime need not wait for work that uses the memory, so we do. */
void cuda_free(ser_device *device, void *memory) {
  if (!memory) return;
  cuda_device *cuda = (cuda_device *)device;
  size_t i = cuda->block_count;
  while (i && cuda->blocks[i - 1].memory != memory) i--;
  SER_CHECK(i > 0);
  cuda_block block = cuda->blocks[i - 1];
  cuda->blocks[i - 1] = cuda->blocks[--cuda->block_count];
  cuda->counters.bytes -= (int64_t)block.bytes;
  cuda_settle(cuda);
  cuda_turn_begin();
  CUDA_END(block.pinned ? cudaFreeHost(memory) : cudaFree(memory));
  cuda_turn_end();
}

static ser_status fill(cuda_device *device, void *memory, const void *from_host, size_t bytes, ser_error *err) {
  if (!bytes) return SER_OK;
  CUDA_TRY(CUDA_RUNTIME, cudaMemcpyAsync(memory, from_host, bytes, cudaMemcpyHostToDevice, device->setup), err);
  CUDA_TRY(CUDA_RUNTIME, cudaStreamSynchronize(device->setup), err);
  device->counters.written += (int64_t)bytes;
  return SER_OK;
}

ser_status cuda_table(void *out, cuda_device *device, const void *from_host, size_t bytes, ser_error *err) {
  void *memory = cuda_alloc(&device->device, bytes, err);
  ser_status status = memory ? fill(device, memory, from_host, bytes, err) : SER_FAILED;
  if (status != SER_OK) {
    cuda_free(&device->device, memory);
    memory = NULL;
  }
  memcpy(out, &memory, sizeof memory);
  return status;
}

void cuda_table_free(cuda_device *device, void *table) {
  cuda_free(&device->device, table);
}

static void plan_free(ser_plan *plan) {
  cuda_plan *own = (cuda_plan *)plan;
  if (own->end) own->end(own);
  free(own);
}

void *cuda_plan_make(ser_device *device, size_t bytes, void (*end)(cuda_plan *plan)) {
  SER_CHECK(bytes >= sizeof(cuda_plan));
  cuda_plan *plan = ser_alloc_zero(1, bytes);
  plan->plan.free = plan_free;
  plan->device = (cuda_device *)device;
  plan->end = end;
  plan->device->counters.allocations++;
  return plan;
}
