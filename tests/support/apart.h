/* A CPU device that says its memory is not the host's, so that what is written for GPUs (pinned rings, several batches
 * under way, data that is uploaded) runs on every machine. */
#ifndef SER_TESTS_APART_H
#define SER_TESTS_APART_H

#include "device/ops.h"

/* One device at a time. */
void test_device_apart(ser_device *device);

#endif
