/* How far two words are apart, for messages that name what was probably meant. */
#ifndef SER_BASE_NEAREST_H
#define SER_BASE_NEAREST_H

#include <stdbool.h>
#include <stddef.h>

/* Edits (insert, delete, replace, swap of neighbours: optimal string alignment) that make b of a; letters are compared
 * without their case. Of words beyond 127 bytes the first 127 count. */
size_t ser_edit_distance(const char *a, const char *b);

/* Whether one is likely to be a misspelling of the other: at most a third of its letters are wrong. Dashes before an
 * option's name are no letters. */
bool ser_is_near(const char *given, const char *candidate);

#endif
