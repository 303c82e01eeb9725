#include "model/gather.h"

#include <string.h>

#include "device/arrays.h"

size_t ser_gather_place(ser_gathered *gathered, const ser_gather_room *room, bool rows, void *base) {
  size_t most = (size_t)room->windows;
  const ser_array arrays[] = {
      {&gathered->start, most * sizeof(int64_t)},
      {&gathered->length, most * sizeof(int64_t)},
      {&gathered->truth, most * sizeof(int32_t)},
      {&gathered->rows, rows ? most * (size_t)(room->frames * room->channels) * sizeof(float) : 0},
  };
  return ser_arrays_place(arrays, sizeof arrays / sizeof *arrays, base);
}

static int64_t rows_before(const ser_gathered *g, int64_t at) {
  return at ? g->start[at - 1] + g->length[at - 1] : 0;
}

void ser_gather_add(const ser_gathered *to, const ser_gather_room *room, int64_t at, const float *rows, int64_t count,
                    int32_t truth) {
  SER_CHECK(at < room->windows);
  to->start[at] = rows_before(to, at);
  to->length[at] = count < room->frames ? count : room->frames;
  to->truth[at] = truth;
  memcpy(to->rows + to->start[at] * room->channels, rows, (size_t)(to->length[at] * room->channels) * sizeof *to->rows);
}

size_t ser_gather_bytes(const ser_gathered *gathered, const ser_gather_room *room, int64_t count) {
  return (size_t)((char *)(gathered->rows + rows_before(gathered, count) * room->channels) - (char *)gathered->start);
}
