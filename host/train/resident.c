/* The data set where the operations of a device read it: in place on a device that follows host pointers, else copied
 * there once for all seeds and folds. Eight hours of speech are 200 MB. */
#include <string.h>

#include "base/log.h"
#include "train/feed.h"

static ser_status fill(ser_resident *resident, const ser_dataset *dataset, const ser_array *arrays, size_t count,
                       ser_error *err) {
  const void *const from[] = {dataset->features, dataset->offset, dataset->truth};
  const ser_runtime *rt = resident->device->rt;
  ser_stream *stream;
  SER_TRY(rt->stream_create(resident->device, &stream, err));
  for (size_t i = 0; i < count; i++) {
    void *to;
    memcpy(&to, arrays[i].place, sizeof to);
    rt->write(stream, to, from[i], arrays[i].bytes);
  }
  ser_status status = rt->sync(stream, err);
  rt->stream_destroy(stream);
  return status;
}

ser_status ser_resident_make(ser_resident *resident, ser_device *device, const ser_dataset *dataset, ser_error *err) {
  ser_device_properties properties;
  ser_error full = {0};
  device->rt->properties(device, &properties);
  if (properties.host_memory) {
    *resident = (ser_resident){.features = dataset->features, .offset = dataset->offset, .truth = dataset->truth};
    return SER_OK;
  }
  *resident = (ser_resident){.device = device};
  const ser_array arrays[] = {
      {&resident->features, (size_t)(dataset->offset[dataset->clips] * dataset->channels) * sizeof(float)},
      {&resident->offset, (dataset->clips + 1) * sizeof(int64_t)},
      {&resident->truth, dataset->clips * sizeof(int32_t)},
  };
  const size_t count = sizeof arrays / sizeof *arrays, bytes = ser_arrays_place(arrays, count, NULL);
  if (bytes <= properties.memory_free / 5 * 4) resident->memory = device->rt->alloc(device, bytes, &full);
  if (!resident->memory && full.status != SER_OK && !full.lacks) {
    if (err) *err = full;
    return full.status;
  }
  if (!resident->memory) {
    char needed[SER_SIZE_WORDS], there[SER_SIZE_WORDS];
    ser_info("the features take %s, the device has %s free: each batch is brought from the host",
             ser_size_words(needed, bytes), ser_size_words(there, properties.memory_free));
    return SER_OK;
  }
  ser_arrays_place(arrays, count, resident->memory);
  ser_status status = fill(resident, dataset, arrays, count, err);
  if (status != SER_OK) ser_resident_free(resident);
  return status;
}

void ser_resident_free(ser_resident *resident) {
  if (resident->memory) resident->device->rt->free(resident->device, resident->memory);
  *resident = (ser_resident){0};
}
