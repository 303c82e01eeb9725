/* Windows over a long clip: where they lie and what each counts for. */
#include "report/windows.h"

#include "base/memory.h"

#include <stdlib.h>

size_t ser_windows_count(const ser_window_rule *rule, int64_t units) {
  if (units <= rule->limit) return 1;
  return 1 + (size_t)((units - rule->length + rule->hop - 1) / rule->hop);
}

int64_t ser_windows_start(const ser_window_rule *rule, int64_t units, size_t i) {
  if (units <= rule->limit) return 0;
  int64_t start = (int64_t)i * rule->hop, last = units - rule->length;
  return start < last ? start : last;
}

int64_t ser_windows_length(const ser_window_rule *rule, int64_t units) {
  return units <= rule->limit ? units : rule->length;
}

/* Starts and ends, both ascending, cut the clip into stretches that the same windows cover; a window's weight is the
 * sum over its stretches of length / cover, taken as a difference of running sums. */
void ser_windows_weights(double *weights, const ser_window_rule *rule, int64_t units) {
  size_t count = ser_windows_count(rule, units), started = 0, ended = 0;
  int64_t length = ser_windows_length(rule, units), at = 0;
  double *before = ser_alloc(count * sizeof *before); /* the running sum at each window's start */
  double running = 0;
  while (ended < count) {
    int64_t end = ser_windows_start(rule, units, ended) + length;
    int64_t start = started < count ? ser_windows_start(rule, units, started) : end;
    int64_t next = start < end ? start : end;
    if (started > ended) running += (double)(next - at) / (double)(started - ended);
    at = next;
    if (start < end)
      before[started++] = running;
    else {
      weights[ended] = (running - before[ended]) / (double)units;
      ended++;
    }
  }
  free(before);
}
