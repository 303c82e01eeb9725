/* Windows over a clip that is longer than the model's window, and how their answers join to one. Arithmetic alone. */
#ifndef SER_REPORT_WINDOWS_H
#define SER_REPORT_WINDOWS_H

#include <stddef.h>
#include <stdint.h>

/* In units of a clip: frames, or samples where the signal is fitted to a fixed number of them. */
typedef struct {
  int64_t limit;  /* the model's own window: a clip of at most so many units is one window */
  int64_t length; /* of the windows of a longer clip: 1 .. limit */
  int64_t hop;    /* 1 .. length, so that nothing is skipped */
} ser_window_rule;

/* How many windows a clip of so many units has: 1 up to the limit; else windows every hop from 0 on, the last one
 * flush with the end. */
size_t ser_windows_count(const ser_window_rule *rule, int64_t units);
/* The first unit of window i and how many it has. */
int64_t ser_windows_start(const ser_window_rule *rule, int64_t units, size_t i);
int64_t ser_windows_length(const ser_window_rule *rule, int64_t units);

/* weights [ser_windows_count], adding up to 1: each unit of the clip counts once, shared out evenly among the windows
 * that cover it. So the last window, which overlaps more, does not make the end of a clip count for more. */
void ser_windows_weights(double *weights, const ser_window_rule *rule, int64_t units);

#endif
