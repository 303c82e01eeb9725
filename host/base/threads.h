/* A pool of threads for loops that are split by shape, and bounded queues between workers.
 *
 * Which thread runs which task never changes a result: tasks write places of their own, and sums over tasks are taken
 * in the order of the tasks by the caller. */
#ifndef SER_BASE_THREADS_H
#define SER_BASE_THREADS_H

#include <stdbool.h>
#include <stddef.h>

/* Cores that this process may use (its affinity mask, and the cgroup's quota where there is one). At least 1. */
int ser_cores(void);

typedef struct ser_pool ser_pool;

/* threads counts the caller, which takes part: a pool of 1 starts none. Where the system gives fewer, that is warned of
 * and the pool has those. */
ser_pool *ser_pool_create(int threads);
void ser_pool_free(ser_pool *pool); /* NULL is fine */
int ser_pool_threads(const ser_pool *pool);

/* Calls body(context, task, thread) once for each task in [0, tasks), thread in [0, threads), and returns when all are
 * done. Tasks are split statically: thread i takes a contiguous share. Not reentrant; one caller at a time. */
typedef void (*ser_task_fn)(void *context, size_t task, int thread);
void ser_pool_run(ser_pool *pool, size_t tasks, ser_task_fn body, void *context);

/* The same, but threads take the next task when they are free: for tasks of unlike lengths. */
void ser_pool_run_dynamic(ser_pool *pool, size_t tasks, ser_task_fn body, void *context);

/* A queue of pointers with a bound. Closing it wakes everybody: put then gives false, take gives what is left and
 * then NULL. */
typedef struct ser_queue ser_queue;
ser_queue *ser_queue_create(size_t bound);
void ser_queue_free(ser_queue *queue);
bool ser_queue_put(ser_queue *queue, void *item); /* waits while full; false when closed: the item is still yours */
void *ser_queue_take(ser_queue *queue);           /* waits while empty; NULL when closed and empty */
void *ser_queue_take_within(ser_queue *queue, double seconds, bool *closed); /* NULL also when time is up */
void ser_queue_close(ser_queue *queue);

#endif
