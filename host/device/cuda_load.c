/* Finding a CUDA device and the module that drives it. */
#include "device/cuda_load.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/version.h"
#include "device/backend.h"

#ifdef SER_CUDART /* the runtime's soname, and where the build found it */

/* What is asked of libcudart, in the words of its C interface; its statuses are numbers here. */
enum { NO_DEVICE = 100, INSUFFICIENT_DRIVER = 35 };
typedef int (*count_fn)(int *);
typedef const char *(*words_fn)(int);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const ser_backend *backend; /* NULL: `reason` says why */
static ser_error reason;

static void *symbol(void *library, const char *name) {
  void *found = dlsym(library, name);
  if (!found) ser_fail(&reason, SER_FAILED, "the CUDA runtime " SER_CUDART " has no %s; install CUDA anew", name);
  return found;
}

static bool read_version(void *library, const char *name, int *version) {
  void *at = symbol(library, name);
  count_fn function;
  memcpy(&function, &at, sizeof function);
  *version = 0;
  return at && function(version) == 0;
}

/* No driver and one that is too old give the same status; the driver's version tells them apart. */
static void explain(void *library, int status) {
  int driver = 0, runtime = 0;
  if (status == NO_DEVICE) {
    ser_fail(&reason, SER_FAILED, "there is no CUDA device in this machine, or none is visible (CUDA_VISIBLE_DEVICES)");
  } else if (status == INSUFFICIENT_DRIVER) {
    if (!read_version(library, "cudaDriverGetVersion", &driver) || !driver)
      ser_fail(&reason, SER_FAILED, "there is no NVIDIA driver on this machine; install one to use its GPU");
    else if (read_version(library, "cudaRuntimeGetVersion", &runtime))
      ser_fail(&reason, SER_FAILED,
               "the NVIDIA driver is too old: it knows CUDA %d.%d, this build needs %d.%d; install a newer driver",
               driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
  } else {
    void *at = symbol(library, "cudaGetErrorString");
    words_fn words;
    memcpy(&words, &at, sizeof words);
    if (at) ser_fail(&reason, SER_FAILED, "the CUDA device cannot be used: %s", words(status));
  }
}

static bool device_is_there(void) {
  void *library = dlopen(SER_CUDART, RTLD_NOW | RTLD_GLOBAL);
  if (!library) library = dlopen(SER_CUDART_FOLDER "/" SER_CUDART, RTLD_NOW | RTLD_GLOBAL);
  if (!library) {
    ser_fail(&reason, SER_FAILED, "the CUDA runtime " SER_CUDART " is not installed, or not where libraries are found");
    return false;
  }
  void *at = symbol(library, "cudaGetDeviceCount");
  count_fn count;
  memcpy(&count, &at, sizeof count);
  int devices = 0, status = at ? count(&devices) : 0;
  if (at && !status && !devices) status = NO_DEVICE;
  if (status) explain(library, status);
  return at && !status;
}

/* Beside the program, as the build leaves it, or in the installed tree's lib/serenade. */
static char *module_path(void) {
  const char *given = getenv("SERENADE_CUDA_MODULE");
  if (given && *given) return ser_strdup(given);
  char program[4096];
  ssize_t size = readlink("/proc/self/exe", program, sizeof program - 1);
  if (size <= 0) return ser_strdup(SER_CUDA_MODULE);
  program[size] = 0;
  char *slash = strrchr(program, '/');
  *slash = 0;
  char *beside = ser_format("%s/" SER_CUDA_MODULE, program);
  if (ser_file_exists(beside)) return beside;
  free(beside);
  return ser_format("%s/../lib/serenade/" SER_CUDA_MODULE, program);
}

static void load_module(void) {
  if (!device_is_there()) return;
  char *path = module_path();
  void *module = ser_file_exists(path) ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
  void *at = module ? dlsym(module, SER_CUDA_ENTRY) : NULL;
  ser_backend_fn entry;
  memcpy(&entry, &at, sizeof entry);
  const ser_backend *found = at ? entry() : NULL;
  if (!ser_file_exists(path))
    ser_fail(&reason, SER_FAILED,
             "there is a CUDA device, but %s, which drives it, is not there; install Serenade anew", path);
  else if (!module)
    ser_fail(&reason, SER_FAILED, "there is a CUDA device, but its module cannot be loaded: %s", dlerror());
  else if (!found || strncmp(found->version, SER_VERSION, sizeof found->version) ||
           found->runtime_size != sizeof(ser_runtime) || found->ops_size != sizeof(ser_ops))
    ser_fail(&reason, SER_FAILED, "%s is of another build than this program; install Serenade anew", path);
  else
    backend = found;
  free(path);
}

ser_status ser_cuda_open(ser_device **device, const ser_device_options *options, ser_error *err) {
  pthread_once(&once, load_module);
  if (!backend) return ser_fail(err, SER_FAILED, "%s", reason.text);
  return backend->open(device, options, err);
}

#else

ser_status ser_cuda_open(ser_device **device, const ser_device_options *options, ser_error *err) {
  (void)options;
  *device = NULL;
  return ser_fail(err, SER_FAILED,
                  "this build has no CUDA backend: no CUDA toolkit was found when it was made; build it where there is "
                  "one");
}

#endif
