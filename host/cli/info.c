/* `serenade info`: the device, a model file, a cache, the keys of the configuration. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "device/ops.h"

static ser_status describe_device(ser_text *text, const ser_common *common, ser_error *err) {
  ser_device *device;
  ser_device_properties is;
  SER_TRY(ser_device_open(&device, common->device, common->threads, err));
  device->rt->properties(device, &is);
  ser_text_printf(text,
                  "backend:         %s\ndevice:          %s\ninstruction set: %s\nthreads:         %d\n"
                  "memory:          %.1f GiB\nprecision:       fp32\noperations:      %zu\n",
                  is.backend, is.name, is.isa, is.threads, (double)is.memory / (1024.0 * 1024 * 1024), ser_op_count);
  for (size_t i = 0; i < ser_op_count; i++) ser_text_printf(text, "  %s\n", ser_op_entries[i].name);
  ser_device_close(device);
  return SER_OK;
}

static ser_status run(const ser_common *common, int argc, char **argv, ser_error *err) {
  static const char *const topics[] = {"device", "model", "cache", "config", NULL};
  int topic = 0;
  ser_text text = {0};
  SER_TRY(ser_options_parse(&argc, argv, NULL, 0, err));
  if (argc > 1) SER_TRY(ser_option_choice(&topic, "what 'serenade info' tells", argv[1], topics, err));
  ser_status status = SER_OK;
  if (topic == 0) status = describe_device(&text, common, err);
  if (topic == 3) ser_config_describe(&text);
  if (status == SER_OK && text.data) fputs(text.data, stdout);
  free(text.data);
  return status;
}

const ser_command ser_command_info = {
    "info", "tell of the device, a model, a cache, the configuration",
    "usage: serenade info [device | model FILE | cache DIR | config]\n"
    "\n"
    "  device      the backend, its instruction set, threads and operations (the default)\n"
    "  model FILE  what a model.safetensors (or the folder of a run) holds\n"
    "  cache DIR   the features of a cache, their sizes and configurations\n"
    "  config      every key of the configuration: type, range, default, meaning\n"
    "\n"
    "Example:\n"
    "  serenade info config | grep train\n",
    run};
