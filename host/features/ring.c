/* The ring of room for decoded clips. Parts are given back in about the order in which they were taken, but not quite:
 * the ring's end moves on over the parts that are back. */
#include "features/ring.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/memory.h"

enum { MOST_PARTS = 4096, ALIGN = 64, LEAST = 1 << 20 };

typedef struct {
  size_t start, end;
  bool back;
} stretch;

struct ser_ring {
  ser_device *device;
  char *memory; /* NULL: the ring only counts */
  size_t bytes, head;
  stretch *parts;       /* of turns [first, next), at turn % MOST_PARTS */
  uint64_t first, next; /* turns count from 1 */
  bool closed;
  pthread_mutex_t lock;
  pthread_cond_t moved;
};

ser_status ser_ring_create(ser_ring **out, ser_device *device, size_t bytes, ser_error *err) {
  ser_device_properties properties;
  void *memory = NULL;
  *out = NULL;
  device->rt->properties(device, &properties);
  while (!properties.host_memory && !(memory = device->rt->pin(device, bytes, err))) {
    if (bytes <= LEAST) return SER_FAILED;
    bytes = bytes / 2 > LEAST ? bytes / 2 : LEAST;
  }
  ser_ring *ring = ser_alloc_zero(1, sizeof *ring);
  ring->device = device;
  ring->memory = memory;
  ring->bytes = bytes / ALIGN * ALIGN;
  ring->parts = ser_alloc_zero(MOST_PARTS, sizeof *ring->parts);
  ring->first = ring->next = 1;
  pthread_mutex_init(&ring->lock, NULL);
  pthread_cond_init(&ring->moved, NULL);
  *out = ring;
  return SER_OK;
}

void ser_ring_free(ser_ring *ring) {
  if (!ring) return;
  if (ring->memory) ring->device->rt->unpin(ring->device, ring->memory);
  pthread_cond_destroy(&ring->moved);
  pthread_mutex_destroy(&ring->lock);
  free(ring->parts);
  free(ring);
}

/* Where a stretch of so many bytes begins, or SIZE_MAX: behind the last part, or at the start again. One that does not
 * fit the ring at all begins at 0 when nothing is out. */
static size_t find(const ser_ring *ring, size_t bytes) {
  if (ring->first == ring->next) return 0;
  if (ring->next - ring->first == MOST_PARTS) return SIZE_MAX;
  size_t tail = ring->parts[ring->first % MOST_PARTS].start;
  if (ring->head > tail) {
    if (ring->head <= ring->bytes && ring->bytes - ring->head >= bytes) return ring->head;
    return tail >= bytes ? 0 : SIZE_MAX;
  }
  return tail - ring->head >= bytes ? ring->head : SIZE_MAX; /* it has gone round; head == tail: full */
}

bool ser_ring_take(ser_ring *ring, ser_ring_part *part, size_t bytes) {
  size_t at = SIZE_MAX;
  bytes = SER_ROUND_UP(bytes ? bytes : 1, ALIGN);
  pthread_mutex_lock(&ring->lock);
  while (!ring->closed && (at = find(ring, bytes)) == SIZE_MAX) pthread_cond_wait(&ring->moved, &ring->lock);
  bool taken = !ring->closed;
  if (taken) {
    char *memory = ring->memory && bytes <= ring->bytes ? ring->memory + at : NULL;
    *part = (ser_ring_part){memory, bytes, ring->next};
    ring->parts[ring->next++ % MOST_PARTS] = (stretch){at, at + bytes, false};
    ring->head = at + bytes;
  }
  pthread_mutex_unlock(&ring->lock);
  return taken;
}

void ser_ring_give(ser_ring *ring, ser_ring_part *part) {
  if (!part->turn) return;
  pthread_mutex_lock(&ring->lock);
  ring->parts[part->turn % MOST_PARTS].back = true;
  while (ring->first < ring->next && ring->parts[ring->first % MOST_PARTS].back) ring->first++;
  pthread_cond_broadcast(&ring->moved);
  pthread_mutex_unlock(&ring->lock);
  *part = (ser_ring_part){0};
}

void ser_ring_close(ser_ring *ring) {
  pthread_mutex_lock(&ring->lock);
  ring->closed = true;
  pthread_cond_broadcast(&ring->moved);
  pthread_mutex_unlock(&ring->lock);
}
