/* Room for decoded clips on their way to the device: one stretch of memory that is handed out in turn, round and round,
 * so that memory has a bound and, on a device of its own, copies leave from pinned memory. Threads may take and give at
 * once. */
#ifndef SER_FEATURES_RING_H
#define SER_FEATURES_RING_H

#include "device/ops.h"

typedef struct ser_ring ser_ring;

/* `bytes` of the device's pinned memory, less where that is not to be had; where host memory is the device's, no memory
 * at all: the ring then only counts. */
ser_status ser_ring_create(ser_ring **ring, ser_device *device, size_t bytes, ser_error *err);
void ser_ring_free(ser_ring *ring); /* NULL is fine */

/* A part of the ring. memory is NULL where the ring only counts, or the part is larger than the whole ring. */
typedef struct {
  void *memory;
  size_t bytes;
  uint64_t turn; /* 0: none taken */
} ser_ring_part;

/* Waits until so many bytes are free in one stretch; what is larger than the ring gets its turn when nothing else is
 * out. false: the ring was closed. */
bool ser_ring_take(ser_ring *ring, ser_ring_part *part, size_t bytes);
void ser_ring_give(ser_ring *ring, ser_ring_part *part); /* none taken is fine */
void ser_ring_close(ser_ring *ring);                     /* wakes all that wait */

#endif
