/* Errors of the CUDA runtime and of its libraries in words: the statement, its place, what the device says. */
#include "cuda/runtime.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static const char *const library_names[] = {"CUDA", "cuBLASLt", "cuDNN", "cuFFT"};

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
  case CUDA_FFT: /* it has no words */
    snprintf(words, size, "error %d", status);
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

static atomic_bool begun;

void cuda_begun(void) {
  atomic_store(&begun, true);
}

/* Whether the device has ended for this process: it is asked something that does no harm, neither to a capture, of this
 * thread's or another's, nor to work under way. A device that never began may be had later. */
static bool has_ended(void) {
  if (!atomic_load(&begun)) return false;
  enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  bool changed = cudaThreadExchangeStreamCaptureMode(&mode) == cudaSuccess;
  cudaError_t answer = cudaStreamQuery(cudaStreamPerThread);
  if (changed) cudaThreadExchangeStreamCaptureMode(&mode);
  cudaGetLastError();
  return answer != cudaSuccess && answer != cudaErrorNotReady && answer != cudaErrorMemoryAllocation;
}

ser_status cuda_report(ser_error *err, cuda_library library, int status, const char *statement, const char *file,
                       int line) {
  char words[512], behind[256] = "";
  describe(library, status, words, sizeof words);
  /* Taken out of the runtime, so that no later launch is blamed for it. */
  cudaError_t kept = cudaGetLastError();
  if (kept != cudaSuccess && library != CUDA_RUNTIME)
    snprintf(behind, sizeof behind, " (%s)", cudaGetErrorString(kept));
  const char *cure = has_ended() ? "; the device can do no more for this process: start it again" : "";
  return ser_fail(err, SER_FAILED, "the CUDA device failed: %s: %s%s, in '%s' at %s:%d%s", library_names[library],
                  words, behind, statement, short_path(file), line, cure);
}

void cuda_forget(int status) {
  if (status) cudaGetLastError();
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
