/* Several arrays in one stretch of a device's memory, or of the host's. */
#ifndef SER_DEVICE_ARRAYS_H
#define SER_DEVICE_ARRAYS_H

#include "device/ops.h"

/* Arrays laid out end to end, each at a multiple of 64 bytes. `place` is the address of a pointer, of whatever type. */
typedef struct {
  void *place;
  size_t bytes;
} ser_array;
/* Sets the pointers for memory that begins at base (NULL: they become NULL), and gives the bytes of all. */
size_t ser_arrays_place(const ser_array *arrays, size_t count, void *base);
/* Zeroed memory of the device for all of them; NULL and SER_FAILED where there is not enough. */
ser_status ser_arrays_alloc(void **memory, ser_device *device, ser_stream *stream, const ser_array *arrays,
                            size_t count, ser_error *err);

#endif
