/* The CUDA backend's module: whether a device is there, and opening it. Nothing of CUDA is loaded before this is asked,
 * and the module, with its libraries of hundreds of megabytes, only where a device is there. */
#ifndef SER_DEVICE_CUDA_LOAD_H
#define SER_DEVICE_CUDA_LOAD_H

#include "device/runtime.h"

/* SER_OK; SER_FAILED with the reason in words where no device can be had; SER_USAGE where it lacks what is asked of it.
 * Asks the CUDA runtime (libcudart), not the driver's own interface. The module is never unloaded. */
ser_status ser_cuda_open(ser_device **device, const ser_device_options *options, ser_error *err);
/* Whether the machine has a CUDA device, be it one that cannot be used. */
bool ser_cuda_is_there(void);

#endif
