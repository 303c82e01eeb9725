#include "support/clock.h"

#include <stdatomic.h>
#include <time.h>

#include "base/clock.h"

static atomic_llong hours = -1; /* -1: the clock is the machine's */

void test_clock_leaps(bool leaps) {
  atomic_store(&hours, leaps ? 0 : -1);
}

double ser_seconds(void) {
  struct timespec time;
  if (atomic_load(&hours) >= 0) return 3600.0 * (double)atomic_fetch_add(&hours, 1);
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}
