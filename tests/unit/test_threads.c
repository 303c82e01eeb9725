/* The pool runs every task once, on threads within its range; the queue keeps its bound, its order and its items. */
#include "support/harness.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"

typedef struct {
  atomic_int *seen; /* [tasks] */
  atomic_int outside;
  int threads;
} counted;

static void count_task(void *context, size_t task, int thread) {
  counted *all = context;
  atomic_fetch_add(&all->seen[task], 1);
  if (thread < 0 || thread >= all->threads) atomic_fetch_add(&all->outside, 1);
}

static void pool_runs_every_task_once(void **state) {
  (void)state;
  static const size_t sizes[] = {0, 1, 2, 3, 7, 64, 1001};
  for (int threads = 1; threads <= 5; threads++) {
    ser_pool *pool = ser_pool_create(threads);
    assert_int_equal(ser_pool_threads(pool), threads);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
      for (int dynamic = 0; dynamic < 2; dynamic++) {
        counted all = {ser_alloc_zero(sizes[s] + 1, sizeof(atomic_int)), 0, threads};
        (dynamic ? ser_pool_run_dynamic : ser_pool_run)(pool, sizes[s], count_task, &all);
        for (size_t i = 0; i < sizes[s]; i++) assert_int_equal(atomic_load(&all.seen[i]), 1);
        assert_int_equal(atomic_load(&all.seen[sizes[s]]), 0);
        assert_int_equal(atomic_load(&all.outside), 0);
        free(all.seen);
      }
    }
    ser_pool_free(pool);
  }
}

/* Plain writes to places of their own, read after the run: what ThreadSanitizer judges. */
static void square_task(void *context, size_t task, int thread) {
  (void)thread;
  ((size_t *)context)[task] = task * task;
}

static void pool_hands_results_over(void **state) {
  (void)state;
  ser_pool *pool = ser_pool_create(4);
  size_t results[257];
  for (int round = 0; round < 50; round++) {
    memset(results, 0xff, sizeof results);
    (round % 2 ? ser_pool_run_dynamic : ser_pool_run)(pool, 257, square_task, results);
    for (size_t i = 0; i < 257; i++) assert_int_equal(results[i], i * i);
  }
  ser_pool_free(pool);
}

typedef struct {
  ser_queue *queue;
  int first, count;
  int refused;
} producer;

static void *produce(void *context) {
  producer *p = context;
  for (int i = 0; i < p->count; i++) {
    int *item = ser_alloc(sizeof *item);
    *item = p->first + i;
    if (!ser_queue_put(p->queue, item)) {
      free(item);
      p->refused++;
    }
  }
  return NULL;
}

static void queue_loses_nothing(void **state) {
  (void)state;
  ser_queue *queue = ser_queue_create(3);
  producer producers[3] = {{queue, 0, 500, 0}, {queue, 1000, 500, 0}, {queue, 2000, 500, 0}};
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) assert_int_equal(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
  int next[3] = {0, 1000, 2000};
  for (int taken = 0; taken < 1500; taken++) {
    int *item = ser_queue_take(queue);
    assert_non_null(item);
    assert_int_equal(*item, next[*item / 1000]++); /* each producer's items in its own order */
    free(item);
  }
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  ser_queue_close(queue);
  assert_null(ser_queue_take(queue));
  ser_queue_free(queue);
}

static void closing_wakes_and_drains(void **state) {
  (void)state;
  ser_queue *queue = ser_queue_create(2);
  producer blocked = {queue, 0, 4, 0};
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, produce, &blocked), 0);
  int *item = ser_queue_take(queue);
  assert_int_equal(*item, 0);
  free(item);
  ser_queue_close(queue);
  pthread_join(thread, NULL);
  int left = 0;
  while ((item = ser_queue_take(queue))) {
    assert_int_equal(*item, ++left);
    free(item);
  }
  assert_int_equal(1 + left + blocked.refused, 4);
  assert_true(left <= 2 + 1);
  ser_queue_free(queue);

  queue = ser_queue_create(1);
  bool closed = true;
  assert_null(ser_queue_take_within(queue, 0.01, &closed));
  assert_false(closed);
  ser_queue_close(queue);
  assert_null(ser_queue_take_within(queue, 0.01, &closed));
  assert_true(closed);
  ser_queue_free(queue);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(pool_runs_every_task_once),
      cmocka_unit_test(pool_hands_results_over),
      cmocka_unit_test(queue_loses_nothing),
      cmocka_unit_test(closing_wakes_and_drains),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
