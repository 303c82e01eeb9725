/* A small made dataset, and trainings on it. */
#include "support/training.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "support/harness.h"

/* Noise, with a tone of the class's own on some channels; lengths on both sides of the window of 20 frames. */
static void fill_dataset(ser_dataset *d) {
  *d = (ser_dataset){.clips = CLIPS, .channels = CHANNELS, .classes = 6};
  d->row = ser_alloc(CLIPS * sizeof *d->row);
  d->by_row = ser_alloc(CLIPS * sizeof *d->by_row);
  d->offset = ser_alloc((CLIPS + 1) * sizeof *d->offset);
  d->truth = ser_alloc(CLIPS * sizeof *d->truth);
  d->offset[0] = 0;
  for (size_t i = 0; i < CLIPS; i++) {
    d->row[i] = d->by_row[i] = i;
    d->truth[i] = (int32_t)(i % 6);
    d->offset[i + 1] = d->offset[i] + 9 + (int64_t)(i * 5 % 17);
  }
  d->features = ser_alloc((size_t)(d->offset[CLIPS] * CHANNELS) * sizeof(float));
  for (size_t i = 0; i < CLIPS; i++)
    for (int64_t k = d->offset[i] * CHANNELS; k < d->offset[i + 1] * CHANNELS; k++) {
      float tone = k % CHANNELS % 6 == d->truth[i] ? 15.0f : 0;
      d->features[k] = -100 + 10 * test_random(9, (uint64_t)k) + tone;
    }
  for (int i = 0; i < SER_EMOTIONS; i++) d->emotions[i] = i;
}

test_rig test_rig_make(void) {
  test_rig r = {.folder = test_folder_make("train"), .seed = 1};
  ser_config_init(&r.config);
  r.config.features.mfcc39.frames = 20;
  r.config.model.blocks = 2;
  r.config.model.filters = 8;
  r.config.train.batch = 8;
  r.config.train.epochs = 8;
  r.config.train.lr = 0.01;
  fill_dataset(&r.dataset);
  r.manifest = (ser_manifest){.rows = ser_alloc_zero(CLIPS, sizeof(ser_row)), .count = CLIPS};
  for (size_t i = 0; i < CLIPS; i++) r.manifest.rows[i].hash = ser_hash_bytes(&i, sizeof i);
  r.split = (ser_split){.folds = 1, .rows = CLIPS, .part = ser_alloc_zero(CLIPS, sizeof(ser_part))};
  for (size_t i = 0; i < CLIPS; i++)
    r.split.part[i] = i < TRAINING ? SER_TRAIN : i < TRAINING + VALIDATION ? SER_VALIDATION : SER_TEST;
  return r;
}

void test_rig_free(test_rig *r) {
  ser_config_free(&r->config);
  free(r->dataset.row);
  free(r->dataset.by_row);
  free(r->dataset.offset);
  free(r->dataset.truth);
  free(r->dataset.features);
  free(r->split.part);
  free(r->manifest.rows);
  test_folder_remove(r->folder);
}

ser_status test_train_on(const test_rig *r, ser_device *device, const char *folder, bool anew, ser_error *err) {
  ser_training training = {.config = &r->config,
                           .manifest = &r->manifest,
                           .dataset = &r->dataset,
                           .resident = r->resident,
                           .split = &r->split,
                           .seed = r->seed,
                           .folder = folder,
                           .manifest_hash = "00112233445566778899aabbccddeeff",
                           .split_hash = "ffeeddccbbaa99887766554433221100",
                           .anew = anew};
  bool trained;
  ser_status status = ser_train_one(&trained, device, &training, err);
  ser_device_counters counters;
  device->rt->counters(device, &counters);
  assert_int_equal(counters.bytes, 0); /* whatever happened, nothing is left on the device */
  return status;
}

ser_status test_train_with(const test_rig *r, const char *folder, int threads, bool anew, ser_error *err) {
  ser_device *device;
  ser_error opened = {0};
  ASSERT_OK(ser_device_open(&device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = threads}, &opened),
            opened);
  ser_status status = test_train_on(r, device, folder, anew, err);
  ser_device_close(device);
  return status;
}

ser_status test_train_in(const test_rig *r, const char *folder, int threads, ser_error *err) {
  return test_train_with(r, folder, threads, false, err);
}

char *test_train(const test_rig *r, const char *name, int threads) {
  ser_error err = {0};
  char *folder = ser_path_join(r->folder, name);
  ASSERT_OK(test_train_in(r, folder, threads, &err), err);
  return folder;
}

void test_same_file(const char *a, const char *b, const char *name) {
  ser_error err = {0};
  char *paths[2] = {ser_path_join(a, name), ser_path_join(b, name)}, *bytes[2];
  size_t size[2];
  for (int i = 0; i < 2; i++) ASSERT_OK(ser_file_read(&bytes[i], &size[i], paths[i], &err), err);
  if (size[0] != size[1] || memcmp(bytes[0], bytes[1], size[0])) fail_msg("%s and %s differ", paths[0], paths[1]);
  for (int i = 0; i < 2; i++) {
    free(paths[i]);
    free(bytes[i]);
  }
}

void test_same_training(const char *a, const char *b) {
  test_same_file(a, b, "model.safetensors");
  test_same_file(a, b, "history.csv");
  test_same_file(a, b, "checkpoint");
}
