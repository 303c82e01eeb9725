/* The program's clock in the hand of a test: a program that uses this has it in the library's place. */
#ifndef SER_TESTS_CLOCK_H
#define SER_TESTS_CLOCK_H

#include <stdbool.h>

/* From now on an hour passes between any two looks at the clock, so that every tenth of a job is said; or the machine's
 * own time again. */
void test_clock_leaps(bool leaps);

#endif
