#include "support/apart.h"

static const ser_runtime *real;
static ser_runtime apart;

static void properties(const ser_device *device, ser_device_properties *out) {
  real->properties(device, out);
  out->host_memory = false;
}

void test_device_apart(ser_device *device) {
  real = device->rt;
  apart = *real;
  apart.properties = properties;
  device->rt = &apart;
}
