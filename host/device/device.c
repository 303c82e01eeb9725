/* Choosing a backend, and the list of operations. */
#include "device/runtime.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/log.h"
#include "device/cpu_runtime.h"
#include "device/cuda_load.h"
#include "device/ops.h"

/* Why AUTO took the CPU when it first did: another attempt might fail otherwise, or not at all. */
static pthread_mutex_t passed_lock = PTHREAD_MUTEX_INITIALIZER;
static ser_error passed_over;

static void keep_reason(const ser_error *why) {
  pthread_mutex_lock(&passed_lock);
  if (!passed_over.text[0]) passed_over = *why;
  pthread_mutex_unlock(&passed_lock);
}

static bool kept_reason(ser_error *why) {
  pthread_mutex_lock(&passed_lock);
  bool kept = passed_over.text[0];
  if (kept) *why = passed_over;
  pthread_mutex_unlock(&passed_lock);
  return kept;
}

/* AUTO keeps to itself why it takes the CPU: ser_device_cuda_absence tells who wants to know. */
ser_status ser_device_open(ser_device **device, const ser_device_options *options, ser_error *err) {
  *device = NULL;
  ser_error why = {0};
  if (options->kind != SER_DEVICE_CPU) {
    ser_status status = ser_cuda_open(device, options, &why);
    if (status == SER_OK) return SER_OK;
    if (options->kind == SER_DEVICE_CUDA && status == SER_FAILED)
      return ser_fail(err, status, "CUDA cannot be used: %s; or give the device cpu", why.text);
    if (options->kind == SER_DEVICE_CUDA || status == SER_USAGE) return ser_fail(err, status, "%s", why.text);
    keep_reason(&why);
  }
  if (options->precision != SER_PRECISION_FP32 && options->kind == SER_DEVICE_AUTO)
    return ser_fail(err, SER_USAGE, "precision tf32 needs a GPU: %s; or give precision fp32", why.text);
  if (options->precision != SER_PRECISION_FP32)
    return ser_fail(err, SER_USAGE,
                    "precision tf32 is not to be had on the CPU; give precision fp32, or --device cuda");
  return ser_cpu_open(device, options->threads, err);
}

ser_status ser_device_cuda_absence(ser_error *why) {
  const ser_device_options options = {.kind = SER_DEVICE_CUDA};
  ser_device *device = NULL;
  if (kept_reason(why)) return why->status;
  ser_status status = ser_cuda_open(&device, &options, why);
  ser_device_close(device);
  return status;
}

void ser_device_tell(const ser_device *device, const ser_device_options *asked) {
  static atomic_bool told;
  ser_device_properties is;
  ser_error why = {0};
  device->rt->properties(device, &is);
  if ((is.host_memory && (asked->kind != SER_DEVICE_AUTO || !ser_cuda_is_there())) || atomic_exchange(&told, true))
    return;
  if (!is.host_memory)
    ser_info("device: %s, %s, %s", is.name, is.isa, is.precision);
  else if (ser_device_cuda_absence(&why) != SER_OK)
    ser_info("the CPU computes, since the GPU cannot be used: %s", why.text);
  else
    ser_info("the CPU computes, since the GPU could not be used when this began; it could be by now");
}

ser_status ser_device_choose_conv(ser_device *device, const ser_conv_shape *shape, ser_error *err) {
  ser_device_properties before, after;
  device->rt->properties(device, &before);
  SER_TRY(device->rt->choose_conv(device, shape, err));
  device->rt->properties(device, &after);
  if (after.no_cudnn[0] && !before.no_cudnn[0])
    ser_warn("conv auto: cuDNN cannot be used here, so the fused kernels do the convolutions, unmeasured beside it: %s",
             after.no_cudnn);
  return SER_OK;
}

void ser_device_tell_products(const ser_device *device) {
  static atomic_bool told;
  ser_device_properties is;
  device->rt->properties(device, &is);
  if (is.no_product[0] && !atomic_exchange(&told, true))
    ser_warn(
        "cuBLASLt has no algorithm that sums a product of %s numbers in one piece for any number of rows: a kernel "
        "of ours does such products, several times slower; please report it with `serenade --version`",
        is.no_product);
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
    ENTRY(pcm_from_int16),
    ENTRY(take_batch),
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
    ENTRY(product_prepare),
    ENTRY(product_pack),
    ENTRY(product_forward),
    ENTRY(front_prepare),
    ENTRY(front_pack),
    ENTRY(front_wave),
    ENTRY(front_norm),
    ENTRY(front_forward),
    ENTRY(layernorm_forward),
    ENTRY(pos_conv_prepare),
    ENTRY(pos_conv_pack),
    ENTRY(pos_conv_forward),
    ENTRY(attention_prepare),
    ENTRY(attention_forward),
    ENTRY(pool_rows),
    ENTRY(softmax),
    ENTRY(softmax_loss),
    ENTRY(step_begin),
    ENTRY(adam),
    ENTRY(keep),
    ENTRY(gradient_norm),
    ENTRY(branch_prepare),
    ENTRY(branch_infer),
};
const size_t ser_op_count = sizeof ser_op_entries / sizeof *ser_op_entries;
_Static_assert(sizeof ser_op_entries / sizeof *ser_op_entries == sizeof(ser_ops) / sizeof(void (*)(void)),
               "every operation of the table is listed");
