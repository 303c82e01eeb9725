/* What the convolution's two halves share: its plan. */
#ifndef SER_KERNELS_CONV_H
#define SER_KERNELS_CONV_H

#include "kernels/temporal.h"

typedef struct {
  ser_plan plan;
  ser_conv_shape shape;
  ser_dims in, out;
} conv_plan;

#endif
