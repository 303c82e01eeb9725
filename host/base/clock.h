/* Time that only moves forward, for progress, waits and measurements; never part of a result. */
#ifndef SER_BASE_CLOCK_H
#define SER_BASE_CLOCK_H

double ser_seconds(void); /* CLOCK_MONOTONIC */

#endif
