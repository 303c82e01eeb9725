/* SIGINT and SIGTERM as a flag. */
#include "base/interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static atomic_int received;

static void on_signal(int number) {
  if (atomic_exchange(&received, number)) _exit(128 + number); /* asked twice: the user means it */
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
