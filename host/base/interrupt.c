/* SIGINT and SIGTERM as a flag. */
#include "base/interrupt.h"

#include <signal.h>
#include <stdint.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static atomic_int received;
static atomic_llong received_at = INT64_MAX; /* CLOCK_MONOTONIC, nanoseconds */

/* Wrappers send one signal twice (to the process and to its group), so a second one ends the process at once only where
 * it comes a while after the first: then the user means it. */
static const int64_t SAME_WISH = 300000000; /* nanoseconds */

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time); /* safe in a handler */
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void on_signal(int number) {
  int none = 0;
  if (atomic_compare_exchange_strong(&received, &none, number))
    atomic_store(&received_at, now());
  else if (now() - atomic_load(&received_at) > SAME_WISH)
    _exit(128 + number);
}

void ser_interrupt_install(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  signal(SIGPIPE, SIG_IGN); /* a closed pipe is reported by the write that meets it */
  signal(SIGXFSZ, SIG_IGN); /* so is a limit on the size of files */
}

int ser_interrupted(void) {
  return atomic_load_explicit(&received, memory_order_relaxed);
}

ser_status ser_interrupt_check(ser_error *err) {
  int number = ser_interrupted();
  if (!number) return SER_OK;
  return ser_fail(err, SER_INTERRUPTED, "interrupted by %s", number == SIGINT ? "SIGINT" : "SIGTERM");
}
