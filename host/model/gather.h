/* Windows of features end to end, as they are brought to a device: gathered in pinned memory, and laid out there and on
 * the device alike, so that one copy brings them. */
#ifndef SER_MODEL_GATHER_H
#define SER_MODEL_GATHER_H

#include "device/ops.h"

/* Room for so many windows of at most `frames` rows. */
typedef struct {
  int64_t windows, frames, channels;
} ser_gather_room;

/* The rows come last: a copy ends where they do. */
typedef struct {
  int64_t *start, *length; /* [windows] in rows */
  int32_t *truth;          /* [windows] */
  float *rows;             /* [windows * frames][channels] */
} ser_gathered;

/* Lays the arrays out in memory that begins at base (NULL: none of them is anywhere), without the rows where they are
 * elsewhere; the bytes. */
size_t ser_gather_place(ser_gathered *gathered, const ser_gather_room *room, bool rows, void *base);

/* Window `at` of a clip's rows, behind those before it: the first ones, as many as a window has. */
void ser_gather_add(const ser_gathered *to, const ser_gather_room *room, int64_t at, const float *rows, int64_t count,
                    int32_t truth);

/* The bytes in use, from the first array to the last row of `count` windows. */
size_t ser_gather_bytes(const ser_gathered *gathered, const ser_gather_room *room, int64_t count);

#endif
