/* The pool of threads and the bounded queue. */
#include "base/threads.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/status.h"

int ser_cores(void) {
  int cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
  FILE *file = fopen("/sys/fs/cgroup/cpu.max", "r");
  if (file) {
    double quota, period;
    if (fscanf(file, "%lf %lf", &quota, &period) == 2 && period > 0 && ceil(quota / period) < cores)
      cores = (int)ceil(quota / period);
    fclose(file);
  }
  return cores < 1 ? 1 : cores;
}

/* A worker spins this often on the generation before it sleeps: steps of a training loop follow each other within
 * microseconds, and a sleep and a wake would cost more than many of them. */
enum { SPINS = 2000 };

struct ser_pool {
  int threads;
  pthread_t *handles; /* [threads - 1] */
  pthread_mutex_t lock;
  pthread_cond_t wake, finished;
  atomic_uint generation;
  atomic_int running;
  atomic_bool stop;
  atomic_size_t next;
  bool dynamic;
  size_t tasks;
  ser_task_fn body;
  void *context;
};

typedef struct {
  ser_pool *pool;
  int thread;
} worker_start;

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

static void do_share(ser_pool *pool, int thread) {
  if (pool->dynamic) {
    size_t task;
    while ((task = atomic_fetch_add(&pool->next, 1)) < pool->tasks) pool->body(pool->context, task, thread);
    return;
  }
  size_t first = pool->tasks * (size_t)thread / (size_t)pool->threads;
  size_t last = pool->tasks * ((size_t)thread + 1) / (size_t)pool->threads;
  for (size_t task = first; task < last; task++) pool->body(pool->context, task, thread);
}

static void *worker(void *argument) {
  worker_start start = *(worker_start *)argument;
  free(argument);
  ser_pool *pool = start.pool;
  unsigned seen = 0;
  for (;;) {
    for (int i = 0; i < SPINS && atomic_load(&pool->generation) == seen; i++) relax();
    if (atomic_load(&pool->generation) == seen) {
      pthread_mutex_lock(&pool->lock);
      while (atomic_load(&pool->generation) == seen) pthread_cond_wait(&pool->wake, &pool->lock);
      pthread_mutex_unlock(&pool->lock);
    }
    seen = atomic_load(&pool->generation);
    if (atomic_load(&pool->stop)) return NULL;
    do_share(pool, start.thread);
    if (atomic_fetch_sub(&pool->running, 1) == 1) {
      pthread_mutex_lock(&pool->lock);
      pthread_cond_signal(&pool->finished);
      pthread_mutex_unlock(&pool->lock);
    }
  }
}

ser_pool *ser_pool_create(int threads) {
  ser_pool *pool = ser_alloc_zero(1, sizeof *pool);
  pool->threads = threads < 1 ? 1 : threads;
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->wake, NULL);
  pthread_cond_init(&pool->finished, NULL);
  pool->handles = ser_alloc_zero((size_t)pool->threads, sizeof *pool->handles);
  for (int i = 1; i < pool->threads; i++) {
    worker_start *start = ser_alloc(sizeof *start);
    *start = (worker_start){pool, i};
    if (pthread_create(&pool->handles[i - 1], NULL, worker, start) != 0) {
      free(start);
      ser_warn("only %d of %d threads could be started; the results are the same", i, pool->threads);
      pool->threads = i; /* the others read it when they are given work, not before */
    }
  }
  return pool;
}

static void announce(ser_pool *pool) {
  pthread_mutex_lock(&pool->lock);
  atomic_fetch_add(&pool->generation, 1);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->lock);
}

void ser_pool_free(ser_pool *pool) {
  if (!pool) return;
  atomic_store(&pool->stop, true);
  announce(pool);
  for (int i = 0; i < pool->threads - 1; i++) pthread_join(pool->handles[i], NULL);
  pthread_mutex_destroy(&pool->lock);
  pthread_cond_destroy(&pool->wake);
  pthread_cond_destroy(&pool->finished);
  free(pool->handles);
  free(pool);
}

int ser_pool_threads(const ser_pool *pool) {
  return pool->threads;
}

static void run(ser_pool *pool, size_t tasks, ser_task_fn body, void *context, bool dynamic) {
  if (pool->threads == 1 || tasks <= 1) {
    for (size_t task = 0; task < tasks; task++) body(context, task, 0);
    return;
  }
  pool->tasks = tasks;
  pool->body = body;
  pool->context = context;
  pool->dynamic = dynamic;
  atomic_store(&pool->next, 0);
  atomic_store(&pool->running, pool->threads - 1);
  announce(pool);
  do_share(pool, 0);
  for (int i = 0; i < SPINS && atomic_load(&pool->running); i++) relax();
  if (atomic_load(&pool->running)) {
    pthread_mutex_lock(&pool->lock);
    while (atomic_load(&pool->running)) pthread_cond_wait(&pool->finished, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
  }
}

void ser_pool_run(ser_pool *pool, size_t tasks, ser_task_fn body, void *context) {
  run(pool, tasks, body, context, false);
}

void ser_pool_run_dynamic(ser_pool *pool, size_t tasks, ser_task_fn body, void *context) {
  run(pool, tasks, body, context, true);
}

struct ser_queue {
  pthread_mutex_t lock;
  pthread_cond_t not_empty, not_full;
  void **items;
  size_t bound, first, count;
  bool closed;
};

ser_queue *ser_queue_create(size_t bound) {
  ser_queue *queue = ser_alloc_zero(1, sizeof *queue);
  queue->bound = bound ? bound : 1;
  queue->items = ser_alloc_zero(queue->bound, sizeof *queue->items);
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_mutex_init(&queue->lock, NULL);
  pthread_cond_init(&queue->not_empty, &attributes);
  pthread_cond_init(&queue->not_full, &attributes);
  pthread_condattr_destroy(&attributes);
  return queue;
}

void ser_queue_free(ser_queue *queue) {
  if (!queue) return;
  pthread_mutex_destroy(&queue->lock);
  pthread_cond_destroy(&queue->not_empty);
  pthread_cond_destroy(&queue->not_full);
  free(queue->items);
  free(queue);
}

bool ser_queue_put(ser_queue *queue, void *item) {
  SER_CHECK(item != NULL);
  pthread_mutex_lock(&queue->lock);
  while (!queue->closed && queue->count == queue->bound) pthread_cond_wait(&queue->not_full, &queue->lock);
  bool open = !queue->closed;
  if (open) {
    queue->items[(queue->first + queue->count++) % queue->bound] = item;
    pthread_cond_signal(&queue->not_empty);
  }
  pthread_mutex_unlock(&queue->lock);
  return open;
}

static void *take_first(ser_queue *queue) {
  if (!queue->count) return NULL;
  void *item = queue->items[queue->first];
  queue->first = (queue->first + 1) % queue->bound;
  queue->count--;
  pthread_cond_signal(&queue->not_full);
  return item;
}

void *ser_queue_take(ser_queue *queue) {
  pthread_mutex_lock(&queue->lock);
  while (!queue->closed && !queue->count) pthread_cond_wait(&queue->not_empty, &queue->lock);
  void *item = take_first(queue);
  pthread_mutex_unlock(&queue->lock);
  return item;
}

void *ser_queue_take_within(ser_queue *queue, double seconds, bool *closed) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  double whole;
  long nanoseconds = until.tv_nsec + (long)(1e9 * modf(seconds, &whole));
  until.tv_sec += (time_t)whole + nanoseconds / 1000000000;
  until.tv_nsec = nanoseconds % 1000000000;
  pthread_mutex_lock(&queue->lock);
  int late = 0;
  while (!queue->closed && !queue->count && !late)
    late = pthread_cond_timedwait(&queue->not_empty, &queue->lock, &until);
  void *item = take_first(queue);
  *closed = queue->closed && !item;
  pthread_mutex_unlock(&queue->lock);
  return item;
}

void ser_queue_close(ser_queue *queue) {
  pthread_mutex_lock(&queue->lock);
  queue->closed = true;
  pthread_cond_broadcast(&queue->not_empty);
  pthread_cond_broadcast(&queue->not_full);
  pthread_mutex_unlock(&queue->lock);
}
