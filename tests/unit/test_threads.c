/* The pool and the queue; also built with ThreadSanitizer. */
#include "support/harness.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/threads.h"

enum { TASKS = 1000 };

typedef struct {
  int visits[TASKS];
  int thread[TASKS];
} task_marks;

static void mark(void *context, size_t task, int thread) {
  task_marks *marks = context;
  marks->visits[task]++;
  marks->thread[task] = thread;
}

static void every_task_runs_once(void **state) {
  (void)state;
  for (int threads = 1; threads <= 5; threads++) {
    ser_pool *pool = ser_pool_create(threads);
    assert_int_equal(ser_pool_threads(pool), threads);
    for (size_t tasks = 0; tasks <= TASKS; tasks += tasks < 8 ? 1 : 124) {
      task_marks *marks = ser_alloc_zero(2, sizeof *marks);
      ser_pool_run(pool, tasks, mark, &marks[0]);
      ser_pool_run_dynamic(pool, tasks, mark, &marks[1]);
      for (size_t i = 0; i < TASKS; i++) {
        assert_int_equal(marks[0].visits[i], i < tasks);
        assert_int_equal(marks[1].visits[i], i < tasks);
        assert_in_range(marks[1].thread[i], 0, threads - 1);
        if (i && i < tasks) assert_true(marks[0].thread[i] >= marks[0].thread[i - 1]); /* contiguous shares */
      }
      free(marks);
    }
    ser_pool_free(pool);
  }
}

/* Where the system gives no thread, the caller does all of the work. */
static void a_pool_does_with_what_it_gets(void **state) {
  (void)state;
  pthread_attr_t before, huge;
  assert_int_equal(pthread_getattr_default_np(&before), 0);
  assert_int_equal(pthread_attr_init(&huge), 0);
  assert_int_equal(pthread_attr_setstacksize(&huge, (size_t)1 << 52), 0); /* more than there are addresses */
  assert_int_equal(pthread_setattr_default_np(&huge), 0);
  ser_pool *pool = ser_pool_create(4);
  assert_int_equal(pthread_setattr_default_np(&before), 0);
  assert_int_equal(ser_pool_threads(pool), 1);
  task_marks *marks = ser_alloc_zero(1, sizeof *marks);
  ser_pool_run(pool, TASKS, mark, marks);
  for (size_t i = 0; i < TASKS; i++) assert_int_equal(marks->visits[i], 1);
  free(marks);
  ser_pool_free(pool);
  pthread_attr_destroy(&huge);
  pthread_attr_destroy(&before);
}

static void a_pool_wakes_again_after_sleeping(void **state) {
  (void)state;
  ser_pool *pool = ser_pool_create(3);
  task_marks *marks = ser_alloc_zero(1, sizeof *marks);
  for (int i = 0; i < 300; i++) {
    ser_pool_run(pool, 7, mark, marks);
    if (i % 100 == 0) { /* long enough for the workers to stop spinning */
      struct timespec nap = {0, 5000000};
      nanosleep(&nap, NULL);
    }
  }
  for (int i = 0; i < 7; i++) assert_int_equal(marks->visits[i], 300);
  free(marks);
  ser_pool_free(pool);
}

typedef struct {
  ser_queue *queue;
  size_t sum, count;
} consumer;

static void *consume(void *argument) {
  consumer *self = argument;
  size_t *item;
  while ((item = ser_queue_take(self->queue))) {
    self->sum += *item;
    self->count++;
    free(item);
  }
  return NULL;
}

static void a_queue_loses_nothing(void **state) {
  (void)state;
  ser_queue *queue = ser_queue_create(3);
  consumer consumers[4];
  pthread_t handles[4];
  for (int i = 0; i < 4; i++) {
    consumers[i] = (consumer){queue, 0, 0};
    pthread_create(&handles[i], NULL, consume, &consumers[i]);
  }
  for (size_t i = 1; i <= 5000; i++) {
    size_t *item = ser_alloc(sizeof *item);
    *item = i;
    assert_true(ser_queue_put(queue, item));
  }
  ser_queue_close(queue);
  size_t sum = 0, count = 0;
  for (int i = 0; i < 4; i++) {
    pthread_join(handles[i], NULL);
    sum += consumers[i].sum;
    count += consumers[i].count;
  }
  assert_int_equal(count, 5000);
  assert_int_equal(sum, 5000 * 5001 / 2);
  ser_queue_free(queue);
}

static void a_closed_queue_says_so(void **state) {
  (void)state;
  ser_queue *queue = ser_queue_create(2);
  int item = 1;
  bool closed = true;
  assert_null(ser_queue_take_within(queue, 0.001, &closed));
  assert_false(closed);
  assert_true(ser_queue_put(queue, &item));
  ser_queue_close(queue);
  assert_false(ser_queue_put(queue, &item));
  assert_ptr_equal(ser_queue_take_within(queue, 1, &closed), &item);
  assert_false(closed);
  assert_null(ser_queue_take_within(queue, 1, &closed));
  assert_true(closed);
  assert_null(ser_queue_take(queue));
  ser_queue_free(queue);
}

static void there_is_a_core(void **state) {
  (void)state;
  assert_true(ser_cores() >= 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_task_runs_once),  cmocka_unit_test(a_pool_wakes_again_after_sleeping),
      cmocka_unit_test(a_queue_loses_nothing), cmocka_unit_test(a_closed_queue_says_so),
      cmocka_unit_test(there_is_a_core),       cmocka_unit_test(a_pool_does_with_what_it_gets),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
