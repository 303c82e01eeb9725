/* Models with random weights. */
#include "support/model.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/version.h"
#include "features/features.h"
#include "support/harness.h"

/* frames 0: the feature kind's own. */
static void write_model(const char *path, ser_feature_kind kind, int classes, uint64_t seed, int64_t blocks,
                        int64_t filters, int64_t frames) {
  ser_error err = {0};
  ser_config config;
  ser_device *device;
  ser_stream *stream;
  ser_model *model;
  ser_config_init(&config);
  ser_model_info info = {.feature = kind, .mfcc = *ser_config_mfcc(&config, kind), .epoch = 1, .chosen_by = "chance"};
  if (frames) info.mfcc.frames = frames;
  info.model =
      (ser_model_config){.branch = SER_BRANCH_REFERENCE,
                         .blocks = blocks,
                         .filters = filters,
                         .kernel = 2,
                         .channels = ser_feature_columns(&info.mfcc),
                         .frames = info.mfcc.samples ? 1 + info.mfcc.samples / info.mfcc.hop : info.mfcc.frames,
                         .classes = classes,
                         .dropout = 0.1};
  for (int i = 0; i < SER_EMOTIONS; i++) info.emotions[i] = i;
  info.mean = ser_alloc_zero((size_t)info.model.channels, sizeof(float));
  info.inv_std = ser_alloc((size_t)info.model.channels * sizeof(float));
  for (int64_t c = 0; c < info.model.channels; c++) info.inv_std[c] = 0.02f;
  snprintf(info.manifest_hash, sizeof info.manifest_hash, "%032d", 0);
  snprintf(info.split_hash, sizeof info.split_hash, "%032d", 0);
  snprintf(info.version, sizeof info.version, "%s", SER_VERSION);
  ASSERT_OK(ser_device_open(&device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &err), err);
  ASSERT_OK(device->rt->stream_create(device, &stream, &err), err);
  ASSERT_OK(ser_model_create(&model, device, &info.model, &err), err);
  ASSERT_OK(ser_model_initialise(model, stream, seed, &err), err);
  ASSERT_OK(ser_model_save(model, stream, &info, path, &err), err);
  ser_model_free(model);
  device->rt->stream_destroy(stream);
  ser_device_close(device);
  ser_model_info_free(&info);
  ser_config_free(&config);
}

void test_model_write(const char *path, ser_feature_kind kind, int classes, uint64_t seed) {
  write_model(path, kind, classes, seed, 2, 12, 0);
}

void test_model_write_wide(const char *path, int classes, uint64_t seed, int64_t filters, int64_t frames) {
  write_model(path, SER_MFCC39, classes, seed, 1, filters, frames);
}
