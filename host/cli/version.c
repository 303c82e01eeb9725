/* `serenade --version`: what was built, with what, and which libraries are there at run time. This file asks the
 * libraries for their versions and for nothing else; each is used by its own room alone. */
#include <cairo.h>
#include <hdf5.h>
#include <jansson.h>
#include <sndfile.h>
#include <soxr.h>
#include <xxhash.h>
#include <yaml.h>

#include "base/version.h"
#include "cli/cli.h"
#include "device/runtime.h"

ser_status ser_version_text(ser_text *text, ser_error *err) {
  ser_device *device;
  ser_device_properties properties;
  SER_TRY(ser_device_open(&device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, err));
  device->rt->properties(device, &properties);
  ser_device_close(device);
  ser_text_printf(text, "serenade %s\n", SER_VERSION);
  ser_text_printf(text, "build: %s, %s\n", SER_BUILD_TYPE, SER_COMPILER);
#if defined(__x86_64__)
  ser_text_printf(text, "instruction sets: base, avx2, avx512; %s is used here\n", properties.isa);
#else
  ser_text_printf(text, "instruction sets: base\n");
#endif
#ifdef SER_CUDA_BUILT
  ser_text_printf(text, "CUDA backend: built with %s ('serenade info device' tells of the GPU here)\n", SER_CUDA_BUILT);
#else
  ser_text_printf(text, "CUDA backend: none in this build\n");
#endif
  unsigned major = 0, minor = 0, release = 0;
  int yaml_major = 0, yaml_minor = 0, yaml_patch = 0;
  unsigned xxh = XXH_versionNumber();
  H5get_libversion(&major, &minor, &release);
  yaml_get_version(&yaml_major, &yaml_minor, &yaml_patch);
  ser_text_printf(text, "libraries: %s, %s, HDF5 %u.%u.%u, libyaml %d.%d.%d, jansson %s, xxHash %u.%u.%u, cairo %s\n",
                  sf_version_string(), soxr_version(), major, minor, release, yaml_major, yaml_minor, yaml_patch,
                  jansson_version_str(), xxh / 10000, xxh / 100 % 100, xxh % 100, cairo_version_string());
  return SER_OK;
}
