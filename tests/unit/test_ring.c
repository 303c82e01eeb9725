/* The ring of room for decoded clips: parts never overlap, what is back is used again in whatever order it came, too
 * large a clip goes alone, waiting ends when room comes or the ring is closed. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "features/ring.h"
#include "support/apart.h"
#include "support/harness.h"

enum { RING = 4096 };

typedef struct {
  ser_device *device;
  ser_ring *ring;
} fixture;

static fixture make(bool apart) {
  fixture f;
  ser_error err = {0};
  ser_device_options cpu = {.kind = SER_DEVICE_CPU, .threads = 1};
  ASSERT_OK(ser_device_open(&f.device, &cpu, &err), err);
  if (apart) test_device_apart(f.device);
  ASSERT_OK(ser_ring_create(&f.ring, f.device, RING, &err), err);
  return f;
}

static void end(fixture *f) {
  ser_device_counters counters;
  ser_ring_free(f->ring);
  f->device->rt->counters(f->device, &counters);
  assert_int_equal(counters.bytes, 0);
  ser_device_close(f->device);
}

typedef struct {
  ser_ring *ring;
  size_t bytes;
  atomic_int state; /* 0 waiting, 1 taken, 2 refused */
  ser_ring_part part;
} taker;

static void *take(void *context) {
  taker *t = context;
  bool taken = ser_ring_take(t->ring, &t->part, t->bytes);
  atomic_store(&t->state, taken ? 1 : 2);
  return NULL;
}

static pthread_t start(taker *t, ser_ring *ring, size_t bytes) {
  pthread_t thread;
  *t = (taker){.ring = ring, .bytes = bytes};
  assert_int_equal(pthread_create(&thread, NULL, take, t), 0);
  return thread;
}

static void a_part_waits_for_room(void **state) {
  (void)state;
  for (int apart = 0; apart < 2; apart++) {
    fixture f = make(apart);
    ser_ring_part a = {0}, b = {0};
    assert_true(ser_ring_take(f.ring, &a, 3000));
    assert_true(ser_ring_take(f.ring, &b, 1000));
    assert_int_equal(a.memory != NULL, apart);
    taker t;
    pthread_t thread = start(&t, f.ring, 500);
    usleep(20000);
    assert_int_equal(atomic_load(&t.state), 0);
    ser_ring_give(f.ring, &a);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&t.state), 1);
    ser_ring_give(f.ring, &t.part);
    ser_ring_give(f.ring, &b);
    ser_ring_give(f.ring, &b); /* given once more: nothing */
    end(&f);
  }
}

static void a_large_clip_goes_alone(void **state) {
  (void)state;
  fixture f = make(true);
  ser_ring_part small = {0};
  assert_true(ser_ring_take(f.ring, &small, 64));
  taker t;
  pthread_t thread = start(&t, f.ring, 10 * RING);
  usleep(20000);
  assert_int_equal(atomic_load(&t.state), 0);
  ser_ring_give(f.ring, &small);
  pthread_join(thread, NULL);
  assert_int_equal(atomic_load(&t.state), 1);
  assert_null(t.part.memory);
  taker next;
  thread = start(&next, f.ring, 64);
  usleep(20000);
  assert_int_equal(atomic_load(&next.state), 0);
  ser_ring_give(f.ring, &t.part);
  pthread_join(thread, NULL);
  assert_non_null(next.part.memory);
  ser_ring_give(f.ring, &next.part);
  end(&f);
}

static void closing_wakes_everybody(void **state) {
  (void)state;
  fixture f = make(false);
  ser_ring_part all = {0};
  assert_true(ser_ring_take(f.ring, &all, RING));
  taker t[2];
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) threads[i] = start(&t[i], f.ring, 64);
  ser_ring_close(f.ring);
  for (int i = 0; i < 2; i++) {
    pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&t[i].state), 2);
  }
  ser_ring_give(f.ring, &all);
  end(&f);
}

/* Parts of random sizes, given back in random order: each is marked as a whole, and its marks are still there when it
 * is given back; they never reach beyond the ring. */
static void parts_do_not_overlap(void **state) {
  (void)state;
  fixture f = make(true);
  enum { OUT = 8, ROUNDS = 20000 };
  ser_ring_part out[OUT] = {{0}};
  unsigned char *lowest = NULL, *highest = NULL;
  for (uint64_t i = 0; i < ROUNDS; i++) {
    size_t at = (size_t)((test_random(1, 2 * i) + 1) / 2 * OUT);
    if (out[at].turn) {
      const unsigned char *bytes = out[at].memory;
      for (size_t k = 0; k < out[at].bytes; k++) assert_int_equal(bytes[k], at);
      ser_ring_give(f.ring, &out[at]);
    }
    /* At most a sixteenth each: eight parts and what is lost at the end of the ring always fit. */
    assert_true(ser_ring_take(f.ring, &out[at], (size_t)((test_random(1, 2 * i + 1) + 1) / 2 * RING / 40)));
    unsigned char *memory = out[at].memory;
    memset(memory, (int)at, out[at].bytes);
    if (!lowest || memory < lowest) lowest = memory;
    if (memory + out[at].bytes > highest) highest = memory + out[at].bytes;
    /* An old part would hold the ring up: what is oldest of all goes back now and then. */
    if (i % 16 == 15)
      for (size_t k = 0; k < OUT; k++) ser_ring_give(f.ring, &out[k]);
  }
  assert_true(highest - lowest <= RING);
  for (size_t k = 0; k < OUT; k++) ser_ring_give(f.ring, &out[k]);
  end(&f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_part_waits_for_room),
      cmocka_unit_test(a_large_clip_goes_alone),
      cmocka_unit_test(closing_wakes_everybody),
      cmocka_unit_test(parts_do_not_overlap),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
