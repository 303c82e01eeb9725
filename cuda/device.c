/* The CUDA device: what it takes to be used, its properties, its libraries' handles, and the module's entry. */
#include "cuda/runtime.h"

#include <stdatomic.h>
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

/* This process has had a device: a command opens one for each of its stages, a job one for each of its trainings. */
static atomic_bool had_one;

static void cuda_close(ser_device *device) {
  cuda_device *cuda = (cuda_device *)device;
  if (cuda->lt) CUDA_END(cublasLtDestroy(cuda->lt));
  if (cuda->cudnn) CUDA_END(cudnnDestroy(cuda->cudnn));
  if (cuda->setup) CUDA_END(cudaStreamDestroy(cuda->setup));
  free(cuda->blocks);
  free(cuda);
}

/* How many trainings side by side keep the device busy. A step of the usual model (batch 64, 39 filters, 162 frames,
 * two sides) is 97 launches in a row. 34 of them are convolutions of 128 blocks forwards and up to 256 backwards, of
 * which two fit a multiprocessor at a time: they fill any device up to 128 multiprocessors, and their time shrinks with
 * its size. The other 63 have few blocks and take some 3 us each whatever the device, in which it could work for
 * another training. From operations at 40% of the peak the convolutions take about 33000 us of one multiprocessor with
 * 128 lanes: 250 us of 132 beside 300 to 450 us for the rest and for the host between epochs; 1900 us of a T4's 40 with
 * 64 lanes. For trainings that take turns at random (a closed queue with one server) 4 or 5 keep the first busy for 97%
 * of the time, 2 the second for 98%; more would only take turns in the second-level cache, where a training's last
 * tensors (some 10 MB) lie. An estimate, as long as nobody has measured it. Each has two streams,
 * and the driver up to 32 queues for them (host/device/cuda_load.c asks for so many). */
static int trainings_of(const cuda_device *cuda) {
  int trainings = 1 + cuda->multiprocessors / 32;
  return trainings > 8 ? 8 : trainings;
}

static void cuda_properties(const ser_device *device, ser_device_properties *out) {
  const cuda_device *cuda = (const cuda_device *)device;
  size_t available = 0, total = 0;
  CUDA_END(cudaMemGetInfo(&available, &total));
  available -= available < CUDA_HEADROOM ? available : CUDA_HEADROOM;
  *out = (ser_device_properties){
      .threads = cuda->multiprocessors, .memory = cuda->memory, .memory_free = available, .graphs = true};
  snprintf(out->backend, sizeof out->backend, "cuda");
  snprintf(out->name, sizeof out->name, "%s", cuda->name);
  snprintf(out->isa, sizeof out->isa, "sm_%d", cuda->capability);
  out->trainings = trainings_of(cuda);
  snprintf(out->precision, sizeof out->precision, "%s", cuda->precision == SER_PRECISION_TF32 ? "tf32" : "fp32");
  static const char *const forms[] = {[SER_CONV_AUTO] = "auto", [SER_CONV_CUDNN] = "cudnn", [SER_CONV_FUSED] = "fused"};
  snprintf(out->conv, sizeof out->conv, "%s", forms[cuda->conv]);
  snprintf(out->no_cudnn, sizeof out->no_cudnn, "%s", cuda->no_cudnn);
  snprintf(out->no_product, sizeof out->no_product, "%s", cuda->no_product);
}

static void cuda_counters_of(const ser_device *device, ser_device_counters *out) {
  *out = ((const cuda_device *)device)->counters;
  out->asked = cuda_asked();
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
    .peak_fma = cuda_peak_fma,
    .peak_copy = cuda_peak_copy,
    .phase = cuda_phase,
    .range_begin = cuda_range_begin,
    .range_end = cuda_range_end,
};

static ser_status read_attribute(int *value, enum cudaDeviceAttr attribute, ser_error *err) {
  CUDA_TRY(CUDA_RUNTIME, cudaDeviceGetAttribute(value, attribute, 0), err);
  return SER_OK;
}

static ser_status read_device(cuda_device *cuda, ser_error *err) {
  int major = 0, minor = 0, l2 = 0, shared = 0, pageable = 0;
  struct cudaDeviceProp named;
  CUDA_TRY(CUDA_RUNTIME, cudaGetDeviceProperties(&named, 0), err);
  SER_TRY(read_attribute(&major, cudaDevAttrComputeCapabilityMajor, err));
  SER_TRY(read_attribute(&minor, cudaDevAttrComputeCapabilityMinor, err));
  SER_TRY(read_attribute(&cuda->multiprocessors, cudaDevAttrMultiProcessorCount, err));
  SER_TRY(read_attribute(&l2, cudaDevAttrL2CacheSize, err));
  SER_TRY(read_attribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, err));
  SER_TRY(read_attribute(&pageable, cudaDevAttrPageableMemoryAccess, err));
  snprintf(cuda->name, sizeof cuda->name, "%.127s", named.name);
  cuda->capability = 10 * major + minor;
  cuda->memory = named.totalGlobalMem;
  cuda->l2 = (size_t)l2;
  cuda->reads_pageable = pageable != 0;
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
    return ser_fail(err, SER_USAGE, "precision tf32 needs an sm_%d or later, and %s is an sm_%d; give precision fp32",
                    TF32_FROM, cuda->name, cuda->capability);
  /* Who waits sleeps, since others have work for the core: a wish, which need not be heard. */
  CUDA_END(cudaSetDeviceFlags(cudaDeviceScheduleBlockingSync));
  CUDA_TRY(CUDA_RUNTIME, cudaSetDevice(0), err);
  size_t available = 0, total = 0;
  CUDA_TRY(CUDA_RUNTIME, cudaMemGetInfo(&available, &total), err);
  /* Of a further device our own memory is a part of what is taken, also when those before it are closed, since kernels
   * and libraries stay; what it lacks it says when it asks for it. */
  if (available / MIB < MEMORY_LEAST && !atomic_load(&had_one))
    return ser_fail(err, SER_FAILED,
                    "%s: too little memory: %zu MiB of %zu MiB are free, and at least %d MiB are needed; %s",
                    cuda->name, available / MIB, total / MIB, MEMORY_LEAST,
                    total / MIB < MEMORY_LEAST ? "take another GPU" : "end other programs that use the GPU");
  return SER_OK;
}

static ser_status make_setup(cuda_device *cuda, ser_error *err) {
  CUDA_TRY(CUDA_RUNTIME, cudaStreamCreateWithFlags(&cuda->setup, cudaStreamNonBlocking), err);
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
  SER_TRY_DONE(make_setup(cuda, err));
  cuda_begun();
  SER_TRY_DONE(cuda_probe(cuda, err));

done:
  if (status == SER_OK) {
    atomic_store(&had_one, true);
    *device = &cuda->device;
  } else {
    cuda_close(&cuda->device);
  }
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
