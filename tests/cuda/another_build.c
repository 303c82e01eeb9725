/* A module of another version of the program. */
#include "device/backend.h"

const ser_backend *ser_cuda_backend(void);
const ser_backend *ser_cuda_backend(void) {
  static const ser_backend backend = {.version = "0.0.1", sizeof(ser_runtime), sizeof(ser_ops)};
  return &backend;
}
