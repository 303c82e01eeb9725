/* The CUDA device: what it takes to be used, its properties, its libraries' handles, and the module's entry. */
#include "cuda/runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/version.h"
#include "device/backend.h"

enum {
  MIB = 1 << 20,
  MEMORY_LEAST = 256, /* MiB free: the libraries' own and the smallest model's */
  TF32_FROM = 80      /* architectures */
};

static void cuda_close(ser_device *device) {
  cuda_device *cuda = (cuda_device *)device;
  if (cuda->lt) cublasLtDestroy(cuda->lt);
  if (cuda->cudnn) cudnnDestroy(cuda->cudnn);
  if (cuda->setup) cudaStreamDestroy(cuda->setup);
  cudaGetLastError();
  free(cuda->blocks);
  free(cuda);
}

static void cuda_properties(const ser_device *device, ser_device_properties *out) {
  const cuda_device *cuda = (const cuda_device *)device;
  size_t available = 0, total = 0;
  if (cudaMemGetInfo(&available, &total) != cudaSuccess) cudaGetLastError();
  *out = (ser_device_properties){
      .threads = cuda->multiprocessors, .memory = cuda->memory, .memory_free = available, .graphs = true};
  snprintf(out->backend, sizeof out->backend, "cuda");
  snprintf(out->name, sizeof out->name, "%s", cuda->name);
  snprintf(out->isa, sizeof out->isa, "sm_%d", cuda->capability);
  /* A training's kernels have blocks for about 16 multiprocessors; more than 8 streams gain little. */
  int trainings = cuda->multiprocessors / 16;
  out->trainings = trainings < 1 ? 1 : trainings > 8 ? 8 : trainings;
  snprintf(out->precision, sizeof out->precision, "%s", cuda->precision == SER_PRECISION_TF32 ? "tf32" : "fp32");
  static const char *const forms[] = {[SER_CONV_AUTO] = "auto", [SER_CONV_CUDNN] = "cudnn", [SER_CONV_FUSED] = "fused"};
  snprintf(out->conv, sizeof out->conv, "%s", forms[cuda->conv]);
}

static void cuda_counters_of(const ser_device *device, ser_device_counters *out) {
  *out = ((const cuda_device *)device)->counters;
}

static const ser_runtime runtime = {
    .close = cuda_close,
    .properties = cuda_properties,
    .counters = cuda_counters_of,
    .choose_conv = cuda_choose_conv,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .pin = cuda_pin,
    .unpin = cuda_free,
    .stream_create = cuda_stream_create,
    .stream_destroy = cuda_stream_destroy,
    .write = cuda_write,
    .copy = cuda_copy,
    .zero = cuda_zero,
    .read = cuda_read,
    .sync = cuda_sync,
    .write_later = cuda_write_later,
    .read_later = cuda_read_later,
    .event_create = cuda_event_create,
    .event_destroy = cuda_event_destroy,
    .record = cuda_record,
    .follow = cuda_follow,
    .await = cuda_await,
    .seconds = cuda_seconds,
    .graph_begin = cuda_graph_begin,
    .graph_end = cuda_graph_end,
    .graph_launch = cuda_graph_launch,
    .graph_destroy = cuda_graph_destroy,
    .phase = cuda_phase,
    .range_begin = cuda_range_begin,
    .range_end = cuda_range_end,
};

static ser_status read_attribute(int *value, enum cudaDeviceAttr attribute, ser_error *err) {
  CUDA_TRY(CUDA_RUNTIME, cudaDeviceGetAttribute(value, attribute, 0), err);
  return SER_OK;
}

static ser_status read_device(cuda_device *cuda, ser_error *err) {
  int major = 0, minor = 0, l2 = 0, shared = 0;
  struct cudaDeviceProp named;
  CUDA_TRY(CUDA_RUNTIME, cudaGetDeviceProperties(&named, 0), err);
  SER_TRY(read_attribute(&major, cudaDevAttrComputeCapabilityMajor, err));
  SER_TRY(read_attribute(&minor, cudaDevAttrComputeCapabilityMinor, err));
  SER_TRY(read_attribute(&cuda->multiprocessors, cudaDevAttrMultiProcessorCount, err));
  SER_TRY(read_attribute(&l2, cudaDevAttrL2CacheSize, err));
  SER_TRY(read_attribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, err));
  snprintf(cuda->name, sizeof cuda->name, "%.127s", named.name);
  cuda->capability = 10 * major + minor;
  cuda->memory = named.totalGlobalMem;
  cuda->l2 = (size_t)l2;
  cuda->shared_most = (size_t)shared;
  return SER_OK;
}

/* The architecture is asked first: it needs nothing of the device. */
static ser_status refuse_unfit(const cuda_device *cuda, const ser_device_options *options, ser_error *err) {
  if (cuda->capability < cuda_lowest_architecture())
    return ser_fail(err, SER_FAILED,
                    "%s: architecture too old: the GPU is an sm_%d, this build is for sm_%d and later; build it with "
                    "-DSERENADE_CUDA_ARCHITECTURES=%d, if its CUDA toolkit still knows that",
                    cuda->name, cuda->capability, cuda_lowest_architecture(), cuda->capability);
  if (options->precision == SER_PRECISION_TF32 && cuda->capability < TF32_FROM)
    return ser_fail(err, SER_USAGE, "precision tf32 needs an sm_%d or later, and %s is an sm_%d; take it out",
                    TF32_FROM, cuda->name, cuda->capability);
  CUDA_TRY(CUDA_RUNTIME, cudaSetDevice(0), err);
  size_t available = 0, total = 0;
  CUDA_TRY(CUDA_RUNTIME, cudaMemGetInfo(&available, &total), err);
  if (available / MIB < MEMORY_LEAST)
    return ser_fail(err, SER_FAILED,
                    "%s: too little memory: %zu MiB of %zu MiB are free, and at least %d MiB are needed; end other "
                    "programs that use the GPU",
                    cuda->name, available / MIB, total / MIB, MEMORY_LEAST);
  return SER_OK;
}

/* The first of the devices that the process may see. */
static ser_status cuda_open(ser_device **device, const ser_device_options *options, ser_error *err) {
  *device = NULL;
  ser_status status = SER_OK;
  cuda_device *cuda = ser_alloc_zero(1, sizeof *cuda);
  cuda->device.rt = &runtime;
  cuda->device.ops = &ser_cuda_ops;
  cuda->precision = options->precision;
  cuda->conv = options->conv;
  SER_TRY_DONE(read_device(cuda, err));
  SER_TRY_DONE(refuse_unfit(cuda, options, err));
  int failed = (int)cudaStreamCreateWithFlags(&cuda->setup, cudaStreamNonBlocking);
  if (failed) status = cuda_report(err, CUDA_RUNTIME, failed, "cudaStreamCreateWithFlags", __FILE__, __LINE__);
  if (status == SER_OK) status = cuda_probe(cuda->setup, err);

done:
  if (status == SER_OK)
    *device = &cuda->device;
  else
    cuda_close(&cuda->device);
  return status;
}

ser_status cuda_lt(cublasLtHandle_t *handle, cuda_device *device, ser_error *err) {
  if (!device->lt) {
    CUDA_TRY(CUDA_LT, cublasLtCreate(&device->lt), err);
    device->counters.allocations++;
  }
  *handle = device->lt;
  return SER_OK;
}

ser_status cuda_dnn(cudnnHandle_t *handle, cuda_device *device, ser_error *err) {
  if (!device->cudnn) {
    CUDA_TRY(CUDA_DNN, cudnnCreate(&device->cudnn), err);
    device->counters.allocations++;
  }
  *handle = device->cudnn;
  return SER_OK;
}

/* The module's one symbol (device/backend.h). */
const ser_backend *ser_cuda_backend(void) __attribute__((visibility("default")));
const ser_backend *ser_cuda_backend(void) {
  static const ser_backend backend = {SER_VERSION, sizeof(ser_runtime), sizeof(ser_ops), cuda_open};
  return &backend;
}
