/* A tool that listens to the program's NVTX ranges, as a profiler does: NVTX_INJECTION64_PATH names this module, and it
 * adds to the file that SERENADE_RANGES names a line for each range that begins: how many it stands in, its name.
 * At the program's end: how many of those in our domain are still open. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nvtx3/nvToolsExt.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static FILE *file;
static int open_ranges; /* of all threads */
static _Thread_local int depth;
static int ours;

static nvtxDomainHandle_t domain_create(const char *name) {
  return strcmp(name, "serenade") ? NULL : (nvtxDomainHandle_t)&ours;
}

static int range_push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t *attributes) {
  if (domain != (nvtxDomainHandle_t)&ours) return 0;
  pthread_mutex_lock(&lock);
  open_ranges++;
  if (file) fprintf(file, "%d %s\n", depth, attributes->message.ascii);
  pthread_mutex_unlock(&lock);
  return depth++;
}

/* One that was never begun stays in the count, below zero. */
static int range_pop(nvtxDomainHandle_t domain) {
  if (domain != (nvtxDomainHandle_t)&ours) return 0;
  pthread_mutex_lock(&lock);
  open_ranges--;
  pthread_mutex_unlock(&lock);
  return --depth;
}

static void __attribute__((destructor)) tell(void) {
  if (!file) return;
  fprintf(file, "open: %d\n", open_ranges);
  fclose(file);
}

int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get) __attribute__((visibility("default")));
int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get) {
  const NvtxExportTableCallbacks *callbacks = get(NVTX_ETID_CALLBACKS);
  const char *path = getenv("SERENADE_RANGES");
  NvtxFunctionTable table;
  unsigned size;
  if (!callbacks || !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size)) return 0;
  *table[NVTX_CBID_CORE2_DomainCreateA] = (NvtxFunctionPointer)domain_create;
  *table[NVTX_CBID_CORE2_DomainRangePushEx] = (NvtxFunctionPointer)range_push;
  *table[NVTX_CBID_CORE2_DomainRangePop] = (NvtxFunctionPointer)range_pop;
  if (path) file = fopen(path, "a");
  return file != NULL;
}
