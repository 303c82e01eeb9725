#include "kernels/cuda_kernels.h"
static __global__ void step_kernel(ser_step *s){ s->number++; s->place++; }
void cuda_step_begin(ser_stream *stream, ser_step *step, const ser_adam *){ CUDA_LAUNCH(stream, step_kernel, 1, 1, 0, step); }
