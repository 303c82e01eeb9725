/* Finding a CUDA device and the module that drives it. */
#include "device/cuda_load.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
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
static bool there;                 /* a device, or a driver for one, whether it can be used or not */
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
    else if ((there = read_version(library, "cudaRuntimeGetVersion", &runtime)))
      ser_fail(&reason, SER_FAILED,
               "the NVIDIA driver is too old: it knows CUDA %d.%d, this build needs %d.%d; install a newer driver",
               driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
  } else {
    void *at = symbol(library, "cudaGetErrorString");
    words_fn words;
    memcpy(&words, &at, sizeof words);
    there = true;
    if (at) ser_fail(&reason, SER_FAILED, "the CUDA device cannot be used: %s", words(status));
  }
}

/* Streams share the driver's queues to the GPU, 8 unless it is told otherwise before it begins: a stream that waits for
 * another one's event would hold back all that are behind it in its queue, another training's steps, say. 32 is the
 * most. What the user has set stays. */
__attribute__((constructor)) static void ask_for_queues(void) { /* before there are threads, which may read it */
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
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

/* The file where it is there: SERENADE_CUDA_MODULE, or else beside the program, as the build leaves it, or in the
 * installed tree's lib/serenade. NULL, and the reason, where it is not. */
static char *find_module(void) {
  static const char *const folders[] = {"", "/../lib/serenade"};
  const char *given = getenv("SERENADE_CUDA_MODULE");
  if (given && *given && ser_file_exists(given)) return ser_strdup(given);
  if (given && *given) {
    ser_fail(&reason, SER_FAILED,
             "there is a CUDA device, but %s, which drives it, is not there; set SERENADE_CUDA_MODULE to where it is, "
             "or leave it empty",
             given);
    return NULL;
  }
  char program[4096];
  ssize_t size = readlink("/proc/self/exe", program, sizeof program - 1);
  program[size > 0 ? size : 0] = 0;
  char *slash = strrchr(program, '/');
  if (slash) *slash = 0;
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
    char *path = ser_format("%s%s/" SER_CUDA_MODULE, program, folders[i]);
    if (ser_file_exists(path)) return path;
    free(path);
  }
  ser_fail(&reason, SER_FAILED,
           "there is a CUDA device, but " SER_CUDA_MODULE ", which drives it, is neither in %s%s nor in %s%s; install "
           "Serenade anew, or set SERENADE_CUDA_MODULE to where it is",
           program, folders[0], program, folders[1]);
  return NULL;
}

/* A file that a full disk or a broken copy has cut short is mapped all the same, and ends the process with SIGBUS when
 * it is read: its own header says how long it must be. What is no ELF file at all is left to the linker's words. */
static bool is_whole(const char *path) {
  ElfW(Ehdr) head;
  FILE *file = fopen(path, "rb");
  if (!file) return true;
  size_t got = fread(&head, 1, sizeof head, file);
  long long size = fseeko(file, 0, SEEK_END) ? -1 : (long long)ftello(file);
  fclose(file);
  if (got < SELFMAG || memcmp(head.e_ident, ELFMAG, SELFMAG)) return true;
  return got == sizeof head && head.e_shoff > 0 && head.e_shoff < (uint64_t)size &&
         (uint64_t)size - head.e_shoff >= (uint64_t)head.e_shnum * head.e_shentsize;
}

static void load_module(void) {
  if (!device_is_there()) return;
  there = true;
  char *path = find_module();
  if (!path) return;
  if (!is_whole(path)) {
    ser_fail(&reason, SER_FAILED, "there is a CUDA device, but its module %s is cut short; install Serenade anew",
             path);
    free(path);
    return;
  }
  void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  void *at = module ? dlsym(module, SER_CUDA_ENTRY) : NULL;
  ser_backend_fn entry;
  memcpy(&entry, &at, sizeof entry);
  const ser_backend *found = at ? entry() : NULL;
  if (!module)
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

bool ser_cuda_is_there(void) {
  pthread_once(&once, load_module);
  return there;
}

#else

bool ser_cuda_is_there(void) {
  return false;
}

ser_status ser_cuda_open(ser_device **device, const ser_device_options *options, ser_error *err) {
  (void)options;
  *device = NULL;
  return ser_fail(
      err, SER_FAILED,
      "this build has no CUDA backend: no CUDA toolkit with cuDNN was found when it was made, or it was made "
      "with SERENADE_CUDA=OFF; build it where there is one");
}

#endif
