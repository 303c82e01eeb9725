/* A small made dataset with a split and a configuration, and trainings on it. */
#ifndef SER_TESTS_TRAINING_H
#define SER_TESTS_TRAINING_H

#include "train/train.h"

enum { CLIPS = 60, CHANNELS = 39, TRAINING = 33, VALIDATION = 15 }; /* 33 = 4 x 8 + 1: the last batch is one clip */

/* A dataset, a split and a configuration that a test may change. */
typedef struct {
  char *folder;
  ser_config config;
  ser_manifest manifest;
  ser_dataset dataset;
  ser_split split;
  const ser_resident *resident; /* NULL: each training brings the dataset */
  int64_t seed;
} test_rig;

test_rig test_rig_make(void);
void test_rig_free(test_rig *rig);

/* One training into a folder; nothing may be left on the device, whatever came of it. test_train_on: on a device of the
 * caller's, whose operations may be its own. */
ser_status test_train_on(const test_rig *rig, ser_device *device, const char *folder, bool anew, ser_error *err);
ser_status test_train_with(const test_rig *rig, const char *folder, int threads, bool anew, ser_error *err);
ser_status test_train_in(const test_rig *rig, const char *folder, int threads, ser_error *err);
/* One that must not fail, into a folder of this name in the rig's; the caller frees its path. */
char *test_train(const test_rig *rig, const char *name, int threads);

/* Fail the test where a file, or what a training leaves, differs between two folders. */
void test_same_file(const char *a, const char *b, const char *name);
void test_same_training(const char *a, const char *b);

#endif
