/* What a device is asked for: the words of the configuration's keys device, precision and conv. */
#ifndef SER_BASE_DEVICE_OPTIONS_H
#define SER_BASE_DEVICE_OPTIONS_H

typedef enum { SER_DEVICE_AUTO, SER_DEVICE_CPU, SER_DEVICE_CUDA } ser_device_kind;
typedef enum { SER_PRECISION_FP32, SER_PRECISION_TF32 } ser_precision;
/* A GPU's temporal convolutions: cuDNN's, our fused kernels, or whichever was quicker when it was measured. */
typedef enum { SER_CONV_AUTO, SER_CONV_CUDNN, SER_CONV_FUSED } ser_conv_choice;

/* Zero: whatever is there, all cores, fp32, convolutions as the device likes. */
typedef struct {
  ser_device_kind kind;
  int threads; /* of the CPU backend; 0: all cores */
  ser_precision precision;
  ser_conv_choice conv;
} ser_device_options;

#endif
