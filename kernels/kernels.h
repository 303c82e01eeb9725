/* The CPU forms of the operations of device/ops.h: what kernels/table.c gathers. Names are those of the table with cpu_
 * before them, one copy for each instruction set (SER_ISA). */
#ifndef SER_KERNELS_KERNELS_H
#define SER_KERNELS_KERNELS_H

#include "device/cpu.h"
#include "kernels/simd.h"

extern const ser_ops SER_ISA(ser_cpu_ops);

#endif
