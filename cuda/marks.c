/* What profilers and tests see of the program: phases as NVTX marks, ranges in a domain of our own. */
#include "cuda/runtime.h"

#include <pthread.h>

#include <nvtx3/nvToolsExt.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static nvtxDomainHandle_t domain;

static void make_domain(void) {
  domain = nvtxDomainCreateA("serenade");
}

void cuda_phase(ser_device *device, const char *name) {
  (void)device;
  nvtxMarkA(name);
}

void cuda_range_begin(ser_device *device, const char *name) {
  (void)device;
  pthread_once(&once, make_domain);
  nvtxEventAttributes_t attributes = {.version = NVTX_VERSION,
                                      .size = NVTX_EVENT_ATTRIB_STRUCT_SIZE,
                                      .messageType = NVTX_MESSAGE_TYPE_ASCII,
                                      .message.ascii = name};
  nvtxDomainRangePushEx(domain, &attributes);
}

void cuda_range_end(ser_device *device) {
  (void)device;
  nvtxDomainRangePop(domain);
}
