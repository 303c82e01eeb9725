/* Samples that are 16-bit integers, as those of recordings that nobody has resampled or mixed: half the way over a bus.
 */
#ifndef SER_FEATURES_INTEGERS_H
#define SER_FEATURES_INTEGERS_H

#include <stdbool.h>
#include <stdint.h>

/* Whether every sample is a whole number of 1 / 32768. What is not says so in its first samples. */
bool ser_are_int16(const float *samples, int64_t count);
/* Of samples that are. */
void ser_to_int16(int16_t *to, const float *samples, int64_t count);

#endif
