/* Errors of the CUDA runtime and of its libraries in words: the statement, its place, what the device says. */
#include "cuda/runtime.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { MIB = 1 << 20 };

static const char *const library_names[] = {"CUDA", "cuBLASLt", "cuDNN", "cuFFT"};

/* The library has none. */
static const char *fft_words(cufftResult status) {
  switch (status) {
  case CUFFT_INVALID_PLAN:
    return "the plan is not valid";
  case CUFFT_ALLOC_FAILED:
    return "it could not allocate memory";
  case CUFFT_INVALID_VALUE:
    return "an argument is not valid";
  case CUFFT_EXEC_FAILED:
    return "the transform could not be run on the GPU";
  case CUFFT_SETUP_FAILED:
    return "the library could not begin";
  case CUFFT_INVALID_SIZE:
    return "it does not know transforms of this size";
  case CUFFT_INVALID_DEVICE:
    return "the plan is of another GPU";
  case CUFFT_NO_WORKSPACE:
    return "the plan has no work area";
  case CUFFT_NOT_SUPPORTED:
    return "it does not know what was asked";
  default:
    return "an internal error";
  }
}

static void describe(cuda_library library, int status, char *words, size_t size) {
  switch (library) {
  case CUDA_RUNTIME:
    snprintf(words, size, "%s", cudaGetErrorString((cudaError_t)status));
    break;
  case CUDA_LT:
    snprintf(words, size, "%s", cublasLtGetStatusString((cublasStatus_t)status));
    break;
  case CUDA_DNN:
    snprintf(words, size, "%s", cudnnGetErrorString((cudnnStatus_t)status));
    break;
  case CUDA_FFT:
    snprintf(words, size, "%s (error %d)", fft_words((cufftResult)status), status);
    break;
  }
}

/* The last folder and the name of a source file: builds name it by its whole path. */
static const char *short_path(const char *file) {
  const char *from = file;
  int slashes = 0;
  for (const char *at = file + strlen(file); at > file && slashes < 2; at--)
    if (at[-1] == '/' && ++slashes == 2) from = at;
  return from;
}

static atomic_llong asked;

void cuda_count_asked(void) {
  atomic_fetch_add_explicit(&asked, 1, memory_order_relaxed);
}

int64_t cuda_asked(void) {
  return atomic_load(&asked);
}

static atomic_bool begun;

void cuda_begun(void) {
  atomic_store(&begun, true);
}

/* Whether the device has ended for this process: it is asked something that does no harm, neither to a capture, of this
 * thread's or another's, nor to work under way. A device that never began may be had later. */
bool cuda_has_ended(void) {
  if (!atomic_load(&begun)) return false;
  enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  bool changed = CUDA_ASK(cudaThreadExchangeStreamCaptureMode(&mode)) == cudaSuccess;
  int answer = CUDA_ASK(cudaStreamQuery(cudaStreamPerThread));
  if (changed) CUDA_ASK(cudaThreadExchangeStreamCaptureMode(&mode));
  CUDA_ASK(cudaGetLastError());
  return answer != cudaSuccess && answer != cudaErrorNotReady && answer != cudaErrorMemoryAllocation;
}

static bool is_lack_of_memory(cuda_library library, int status) {
  switch (library) {
  case CUDA_RUNTIME:
    return status == cudaErrorMemoryAllocation;
  case CUDA_LT:
    return status == CUBLAS_STATUS_ALLOC_FAILED;
  case CUDA_DNN:
    return status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
  case CUDA_FFT:
    return status == CUFFT_ALLOC_FAILED;
  }
  return false;
}

ser_status cuda_no_memory(ser_error *err, const char *what) {
  size_t available = 0, total = 0;
  CUDA_END(cudaMemGetInfo(&available, &total));
  return ser_fail_memory(
      err, SER_LACKS_DEVICE_MEMORY,
      "the GPU is out of memory: %s, %zu MiB of %zu MiB free; end other programs that use the GPU, or train with a "
      "smaller train.batch",
      what, available / MIB, total / MIB);
}

ser_status cuda_report(ser_error *err, cuda_library library, int status, const char *statement, const char *file,
                       int line) {
  char words[512], behind[256] = "", what[1024];
  describe(library, status, words, sizeof words);
  /* Taken out of the runtime, so that no later launch is blamed for it. */
  int kept = CUDA_ASK(cudaGetLastError());
  if (kept != cudaSuccess && library != CUDA_RUNTIME)
    snprintf(behind, sizeof behind, " (%s)", cudaGetErrorString((cudaError_t)kept));
  snprintf(what, sizeof what, "%s: %s%s, in '%s' at %s:%d", library_names[library], words, behind, statement,
           short_path(file), line);
  if (is_lack_of_memory(library, status) || kept == cudaErrorMemoryAllocation) return cuda_no_memory(err, what);
  const char *cure = cuda_has_ended() ? "; the device can do no more for this process: start it again" : "";
  ser_fail(err, SER_FAILED, "the CUDA device failed: %s%s", what, cure);
  if (err) err->of_device = true;
  return SER_FAILED;
}

void cuda_forget(int status) {
  if (status) CUDA_ASK(cudaGetLastError());
}

bool cuda_note(ser_stream *stream, cuda_library library, int status, const char *statement, const char *file,
               int line) {
  if (stream->failed) return false;
  if (!status) return true;
  stream->failed = true;
  cuda_report(&stream->error, library, status, statement, file, line);
  return false;
}

void cuda_refuse(ser_stream *stream, const char *text) {
  if (stream->failed) return;
  stream->failed = true;
  ser_fail(&stream->error, SER_FAILED, "%s", text);
}
