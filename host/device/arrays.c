#include "device/arrays.h"

#include <string.h>

size_t ser_arrays_place(const ser_array *arrays, size_t count, void *base) {
  size_t used = 0;
  for (size_t i = 0; i < count; i++) {
    char *at = base ? (char *)base + used : NULL;
    memcpy(arrays[i].place, &at, sizeof at);
    used += SER_ROUND_UP(arrays[i].bytes, 64);
  }
  return used;
}

ser_status ser_arrays_alloc(void **memory, ser_device *device, ser_stream *stream, const ser_array *arrays,
                            size_t count, ser_error *err) {
  size_t bytes = ser_arrays_place(arrays, count, NULL);
  *memory = device->rt->alloc(device, bytes, err);
  if (!*memory) return SER_FAILED;
  ser_arrays_place(arrays, count, *memory);
  device->rt->zero(stream, *memory, bytes);
  return SER_OK;
}
