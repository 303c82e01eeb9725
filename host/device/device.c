/* Choosing a backend, and the list of operations. */
#include "device/runtime.h"

#include <string.h>

#include "device/cpu_runtime.h"
#include "device/ops.h"

ser_status ser_device_open(ser_device **device, ser_device_kind kind, int threads, ser_error *err) {
  *device = NULL;
  if (kind == SER_DEVICE_CUDA)
    return ser_fail(err, SER_USAGE,
                    "this build has no CUDA backend; give cpu as the device, or auto for what is there");
  return ser_cpu_open(device, threads, err);
}

void ser_device_close(ser_device *device) {
  if (device) device->rt->close(device);
}

ser_status ser_device_alloc(void *out, ser_device *device, size_t bytes, ser_error *err) {
  void *memory = device->rt->alloc(device, bytes, err);
  memcpy(out, &memory, sizeof memory);
  return memory ? SER_OK : SER_FAILED;
}

#define ENTRY(name)                                                                                                    \
  { #name, offsetof(ser_ops, name) }
const ser_op_entry ser_op_entries[] = {
    ENTRY(mfcc_prepare),
    ENTRY(logmel),
    ENTRY(mfcc_finish),
    ENTRY(gather_standardise),
    ENTRY(conv_prepare),
    ENTRY(causal_conv_forward),
    ENTRY(causal_conv_backward),
    ENTRY(batchnorm_finish),
    ENTRY(batchnorm_backward_sums),
    ENTRY(batchnorm_backward_finish),
    ENTRY(join_forward),
    ENTRY(join_backward),
    ENTRY(pool_forward),
    ENTRY(pool_backward),
    ENTRY(scale_mix_forward),
    ENTRY(scale_mix_backward),
    ENTRY(dropout_mask),
    ENTRY(linear_prepare),
    ENTRY(linear_forward),
    ENTRY(linear_backward),
    ENTRY(softmax),
    ENTRY(softmax_loss),
    ENTRY(adam),
    ENTRY(gradient_norm),
    ENTRY(branch_prepare),
    ENTRY(branch_infer),
};
const size_t ser_op_count = sizeof ser_op_entries / sizeof *ser_op_entries;
_Static_assert(sizeof ser_op_entries / sizeof *ser_op_entries == sizeof(ser_ops) / sizeof(void (*)(void)),
               "every operation of the table is listed");
