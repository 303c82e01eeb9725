/* Opening the CPU backend; only device.c asks for it. */
#ifndef SER_DEVICE_CPU_RUNTIME_H
#define SER_DEVICE_CPU_RUNTIME_H

#include "device/runtime.h"

ser_status ser_cpu_open(ser_device **device, int threads, ser_error *err);

#endif
