/* For a module that has no operations: its device is opened or refused, and no more. */
#include "cuda/cuda.h"

const ser_ops ser_cuda_ops = {0};
