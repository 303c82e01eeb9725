/* Whether a device runs the code that this module holds: a kernel that does nothing is tried. */
#include "cuda/runtime.h"

/* In ascending order, as the compiler gives them: 750, 800, 900. */
static const int architectures[] = {__CUDA_ARCH_LIST__};

static __global__ void probe_kernel(void) {}

int cuda_lowest_architecture(void) {
  return architectures[0] / 10;
}

/* On the stream for tables: the device has no other yet. */
ser_status cuda_probe(cuda_device *device, ser_error *err) {
  ser_stream setup = {};
  setup.device = device;
  setup.cuda = device->setup;
  CUDA_LAUNCH(&setup, probe_kernel, 1, 1, 0);
  CUDA_DO(&setup, cudaStreamSynchronize(setup.cuda));
  return cuda_stream_status(&setup, err);
}
