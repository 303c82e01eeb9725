/* What a backend that is a shared module hands to the program: one symbol that gives one of these. Both sides are built
 * from the same headers; whether they were is seen from the version and the sizes of the tables. */
#ifndef SER_DEVICE_BACKEND_H
#define SER_DEVICE_BACKEND_H

#include "device/ops.h"

typedef struct {
  char version[16]; /* SER_VERSION */
  size_t runtime_size, ops_size;
  ser_status (*open)(ser_device **device, const ser_device_options *options, ser_error *err);
} ser_backend;

#define SER_CUDA_ENTRY "ser_cuda_backend"
typedef const ser_backend *(*ser_backend_fn)(void);

#endif
