/* Whether a device runs the code that this module holds: a kernel that does nothing is tried. */
#include "cuda/runtime.h"

/* In ascending order, as the compiler gives them: 750, 800, 900. */
static const int architectures[] = {__CUDA_ARCH_LIST__};

static __global__ void probe_kernel(void) {}

int cuda_lowest_architecture(void) {
  return architectures[0] / 10;
}

ser_status cuda_probe(cudaStream_t stream, ser_error *err) {
  probe_kernel<<<1, 1, 0, stream>>>();
  CUDA_TRY(CUDA_RUNTIME, cudaGetLastError(), err);
  CUDA_TRY(CUDA_RUNTIME, cudaStreamSynchronize(stream), err);
  return SER_OK;
}
