/* `serenade info`: the device, a model file, a cache, the keys of the configuration. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cache/cache.h"
#include "cli/cli.h"
#include "device/ops.h"
#include "features/features.h"
#include "model/encoder/parameters.h"
#include "model/model.h"

static ser_status describe_device(ser_text *text, const ser_common *common, ser_error *err) {
  const double gib = 1024.0 * 1024 * 1024;
  ser_device *device;
  ser_device_properties is;
  ser_error why_not = {0};
  SER_TRY(ser_device_open(&device, &common->device, err));
  device->rt->properties(device, &is);
  if (common->device.kind == SER_DEVICE_AUTO && is.host_memory) ser_device_cuda_absence(&why_not);
  ser_text_line(text, "backend:         %s", is.backend);
  ser_text_line(text, "device:          %s", is.name);
  if (is.host_memory) {
    ser_text_printf(text, "instruction set: %s\nthreads:         %d\nmemory:          %.1f GiB\n", is.isa, is.threads,
                    (double)is.memory / gib);
  } else {
    ser_text_printf(text,
                    "architecture:    %s\nmultiprocessors: %d\nmemory:          %.1f GiB, %.1f GiB of it free\n"
                    "convolutions:    %s\n",
                    is.isa, is.threads, (double)is.memory / gib, (double)is.memory_free / gib, is.conv);
  }
  ser_text_printf(text, "precision:       %s\n", is.precision);
  if (why_not.text[0]) ser_text_line(text, "CUDA:            not used: %s", why_not.text);
  ser_text_printf(text, "operations:      %zu\n", ser_op_count);
  for (size_t i = 0; i < ser_op_count; i++) ser_text_printf(text, "  %s\n", ser_op_entries[i].name);
  ser_device_close(device);
  return SER_OK;
}

/* Weights of an encoder that was made elsewhere, in a folder or a file. */
static ser_status describe_encoder(ser_text *text, const char *path, ser_error *err) {
  ser_encoder_weights weights;
  SER_TRY(ser_encoder_weights_open(&weights, path, err));
  ser_status status = ser_encoder_weights_hash(&weights, err);
  if (status == SER_OK) ser_encoder_describe(text, &weights);
  ser_encoder_weights_close(&weights);
  return status;
}

typedef struct {
  ser_text *text;
  const char *folder;
} models;

/* A model file, or every model of a run's folder, less those of settings that were changed (RUN/earlier). */
static ser_status visit_model(void *context, const char *path, ser_error *err) {
  const models *job = context;
  ser_text *text = job->text;
  bool pytorch = !strcmp(ser_path_name(path), "pytorch_model.bin");
  if (!pytorch && strcmp(ser_path_name(path), "model.safetensors")) return SER_OK;
  const char *below = path + strlen(job->folder);
  while (*below == '/') below++;
  if (!strncmp(below, "earlier/", 8)) return SER_OK;
  bool encoder = ser_encoder_is_there(path);
  if (pytorch && !encoder) return SER_OK;
  if (text->size) ser_text_puts(text, "\n");
  if (encoder) return describe_encoder(text, path, err);
  ser_text_line(text, "%s", path);
  return ser_model_describe(text, path, err);
}

static ser_status describe_model(ser_text *text, const char *path, ser_error *err) {
  models job = {text, path};
  if (ser_encoder_is_there(path)) return describe_encoder(text, path, err);
  if (ser_is_folder(path)) SER_TRY(ser_walk(path, visit_model, &job, err));
  if (text->size) return SER_OK;
  char *file;
  ser_error why = {0};
  ser_status found = ser_model_find(&file, path, &why);
  if (found != SER_OK && ser_is_folder(path))
    return ser_fail(err, found, "%.700s; or, of an encoder, %s", why.text, ser_encoder_files_wanted);
  if (found != SER_OK) return ser_fail(err, found, "%s", why.text);
  ser_status status = ser_model_describe(text, file, err);
  free(file);
  return status;
}

static ser_status run(const ser_common *common, int argc, char **argv, ser_error *err) {
  static const char *const topics[] = {"device", "model", "cache", "config", NULL};
  enum { DEVICE, MODEL, CACHE, CONFIG };
  int topic = DEVICE;
  ser_text text = {0};
  ser_status status = SER_OK;
  SER_TRY(ser_options_parse(&argc, argv, NULL, 0, err));
  if (argc > 1) SER_TRY(ser_option_choice(&topic, "what 'serenade info' tells", argv[1], topics, err));
  if (topic == MODEL) SER_TRY(ser_options_count(argc, argv, 2, 2, "the model's file or folder", err));
  if (topic == CACHE) SER_TRY(ser_options_count(argc, argv, 2, 2, "the cache's folder", err));
  if (topic == DEVICE || topic == CONFIG) SER_TRY(ser_options_count(argc, argv, 0, 1, "the topic", err));
  if (topic != DEVICE && (common->device_given || common->threads_given))
    return ser_fail(err, SER_USAGE, "info: %s belongs to 'serenade info device'; take it out",
                    common->device_given ? "--device" : "--threads");
  if (topic == DEVICE) status = describe_device(&text, common, err);
  if (topic == MODEL) status = describe_model(&text, argv[2], err);
  if (topic == CACHE) status = ser_cache_info(argv[2], ser_feature_cache_columns, &text, err);
  if (topic == CONFIG) ser_config_describe(&text);
  if (status == SER_OK) status = cli_print(&text, err);
  free(text.data);
  return status;
}

const ser_command ser_command_info = {
    "info",
    "tell of the device, a model, a cache, the configuration",
    "usage: serenade info [device | model FILE | cache DIR | config]\n"
    "\n"
    "  device      the backend, its processor and operations, why a GPU is not used (the default)\n"
    "  model FILE  what a model.safetensors (or the folder of a run) holds; also the weights of a wav2vec2 or HuBERT\n"
    "              encoder: a folder with config.json, preprocessor_config.json, and model.safetensors or\n"
    "              pytorch_model.bin, as the Hugging Face hub has them (facebook/wav2vec2-base and others)\n"
    "  cache DIR   the features of a cache, their sizes and configurations\n"
    "  config      every key of the configuration: type, range, default, meaning\n"
    "\n"
    "Example:\n"
    "  serenade info config | grep train\n"
    "  serenade info model runs/first\n",
    run,
    NULL,
    CLI_DEVICE | CLI_THREADS};
