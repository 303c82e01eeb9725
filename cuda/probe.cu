/* Whether a device can run the code that this module holds, asked of the runtime by a kernel that does nothing. */
#include "cuda/runtime.h"

/* In ascending order, as the compiler gives them: 750, 800, 900. */
static const int architectures[] = {__CUDA_ARCH_LIST__};

static __global__ void probe_kernel(void) {}

int cuda_lowest_architecture(void) {
  return architectures[0] / 10;
}

ser_status cuda_probe(ser_error *err) {
  cudaFuncAttributes attributes;
  CUDA_TRY(CUDA_RUNTIME, cudaFuncGetAttributes(&attributes, (const void *)probe_kernel), err);
  return SER_OK;
}
