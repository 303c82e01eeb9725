/* The CPU backend's table of operations, one copy for each instruction set. */
#include "kernels/kernels.h"

const ser_ops SER_ISA(ser_cpu_ops) = {
    .mfcc_prepare = NULL,
};
