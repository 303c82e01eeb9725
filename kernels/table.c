/* The CPU backend's table of operations, one copy for each instruction set. */
#include "kernels/kernels.h"

const ser_ops SER_ISA(ser_cpu_ops) = {
    /* audio */
    .mfcc_prepare = SER_ISA(cpu_mfcc_prepare),
    .logmel = SER_ISA(cpu_logmel),
    .mfcc_finish = SER_ISA(cpu_mfcc_finish),
    .gather_standardise = SER_ISA(cpu_gather_standardise),
};
