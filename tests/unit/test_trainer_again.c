/* A training that is there already: finished, of other settings, of fewer or more epochs, on another instruction set,
 * damaged. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/philox.h"
#include "model/safetensors.h"
#include "support/harness.h"
#include "support/training.h"
#include "train/internal.h"

static struct timespec written_at(const char *folder, const char *name) {
  struct stat info;
  char *path = ser_path_join(folder, name);
  assert_int_equal(stat(path, &info), 0);
  free(path);
  return info.st_mtim;
}

static void test_finished_is_left_alone(void **state) {
  test_rig r = test_rig_make();
  (void)state;
  char *folder = test_train(&r, "run", 1), *copy = test_train(&r, "copy", 1);
  char *model = ser_path_join(folder, "model.safetensors");
  struct timespec before = written_at(folder, "model.safetensors"), checkpoint = written_at(folder, "checkpoint");
  free(test_train(&r, "run", 1));
  struct timespec after = written_at(folder, "model.safetensors");
  assert_memory_equal(&before, &after, sizeof before);
  assert_int_equal(remove(model), 0); /* killed just before it was written */
  free(test_train(&r, "run", 1));
  test_same_training(folder, copy);
  after = written_at(folder, "checkpoint");
  assert_memory_equal(&checkpoint, &after, sizeof after);
  free(model);
  free(folder);
  free(copy);
  test_rig_free(&r);
}

static void test_other_settings(void **state) {
  test_rig r = test_rig_make();
  ser_error err = {0};
  (void)state;
  char *folder = test_train(&r, "run", 1);
  char *copy = test_train(&r, "copy", 1);
  r.config.train.lr = 0.02;
  assert_int_equal(test_train_in(&r, folder, 1, &err), SER_USAGE);
  assert_non_null(strstr(err.text, folder));
  test_same_file(folder, copy, "checkpoint"); /* nothing of it was touched */
  r.config.train.lr = 0.01;
  r.config.train.epochs = 7; /* fewer than it has had */
  assert_int_equal(test_train_in(&r, folder, 1, &err), SER_USAGE);
  assert_non_null(strstr(err.text, "has had 8 epochs already, more than train.epochs=7 asks for; ask for at least 8"));
  test_same_file(folder, copy, "checkpoint");
  r.config.train.epochs = 8;
  r.manifest.rows[3].hash.bytes[0] ^= 1; /* another recording in a clip's place */
  assert_int_equal(test_train_in(&r, folder, 1, &err), SER_USAGE);
  r.manifest.rows[3].hash.bytes[0] ^= 1;
  ASSERT_OK(test_train_in(&r, folder, 1, &err), err);
  r.config.train.lr = 0.02;
  ASSERT_OK(test_train_with(&r, folder, 1, true, &err), err);
  char *other = test_train(&r, "other", 1);
  test_same_training(folder, other);
  r.config.train.epochs = 5;
  ASSERT_OK(test_train_with(&r, folder, 1, true, &err), err);
  char *fewer = test_train(&r, "fewer", 1);
  test_same_training(folder, fewer);
  free(fewer);
  free(other);
  free(folder);
  free(copy);
  test_rig_free(&r);
}

/* The checkpoint's metadata at a key: copied, or NULL. With `drop` the file is written again without it. */
static char *checkpoint_metadata(const char *folder, const char *key, bool drop) {
  ser_error err = {0};
  ser_tensors t;
  ser_text file = {0};
  const char *keys[8], *values[8], *found = NULL;
  size_t count = 0;
  char *path = ser_path_join(folder, "checkpoint"), hex[SER_HASH_HEX];
  ASSERT_OK(ser_tensors_read(&t, path, &err), err);
  for (size_t i = 0; i < t.metadata_count; i++) {
    bool checksum = !strcmp(t.keys[i], "checksum");
    if (!strcmp(t.keys[i], key)) found = t.values[i];
    if (!strcmp(t.keys[i], key)) continue;
    keys[count] = t.keys[i];
    values[count++] = checksum ? "00000000000000000000000000000000" : t.values[i];
  }
  ser_tensors_text(&file, t.tensors, t.count, keys, values, count);
  ser_hash hash = ser_hash_bytes(file.data, file.size);
  ser_hash_hex(hex, &hash);
  memcpy(strstr(file.data + 8, "00000000000000000000000000000000"), hex, 32);
  if (drop) ASSERT_OK(ser_file_write(path, file.data, file.size, &err), err);
  char *copy = found ? ser_strdup(found) : NULL;
  ser_tensors_free(&t);
  free(file.data);
  free(path);
  return copy;
}

/* Whether a training goes on from the folder's checkpoint: SER_USAGE, and nothing touched, where it does not. */
static void expect_fit(const test_rig *r, const char *folder, bool fits, const char *other, const char *what) {
  ser_error err = {0};
  ser_status status = test_train_in(r, folder, 1, &err);
  if (status != (fits ? SER_OK : SER_USAGE)) fail_msg("%s: status %d, %s", what, status, err.text);
  char *words = ser_format("trained with %s; give another folder", other);
  if (!fits && !strstr(err.text, words)) fail_msg("%s: %s", what, err.text);
  free(words);
}

/* All that a training's numbers come from is the checkpoint's identity, one by one; what they do not come from is not.
 */
static void test_identity(void **state) {
  static const char *const settings[] = {
      "features.mfcc39.mels=64", "features.mfcc39.frames=21",
      "model.branch=timnet",     "model.blocks=3",
      "model.filters=9",         "model.kernel=3",
      "model.dropout=0.2",       "model.residual=true",
      "model.pool=real",         "train.batch=9",
      "train.lr=0.02",           "train.beta1=0.9",
      "train.beta2=0.9",         "train.eps=1e-7",
      "train.label_smoothing=0", "train.class_weights=balanced",
      "train.focal_gamma=1",     "train.patience=30",
      "train.select=war",
  };
  static const char clips[] = "the same settings, but other clips or labels";
  test_rig r = test_rig_make();
  ser_error err = {0};
  (void)state;
  r.config.train.epochs = 2;
  char *folder = test_train(&r, "run", 1);
  ser_config kept = r.config;
  for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
    ASSERT_OK(ser_config_set(&r.config, settings[i], &err), err);
    expect_fit(&r, folder, false, "other settings", settings[i]);
    r.config = kept; /* none of these holds memory */
  }
  static const struct {
    size_t clip;
    ser_part to;
    bool fits;
    const char *what;
  } moves[] = {{3, SER_TEST, false, "a training clip left out"},
               {3, SER_VALIDATION, false, "a training clip in the validation part"},
               {TRAINING, SER_TEST, false, "a validation clip left out"},
               {TRAINING, SER_TRAIN, false, "a validation clip in the training part"},
               {TRAINING + VALIDATION, SER_VALIDATION, false, "a test clip in the validation part"},
               {TRAINING + VALIDATION, SER_PART_NONE, true, "a test clip left out"}};
  for (size_t i = 0; i < sizeof moves / sizeof *moves; i++) {
    ser_part before = r.split.part[moves[i].clip];
    r.split.part[moves[i].clip] = moves[i].to;
    expect_fit(&r, folder, moves[i].fits, clips, moves[i].what);
    r.split.part[moves[i].clip] = before;
  }
  static const size_t labelled[] = {3, TRAINING, TRAINING + VALIDATION};
  for (size_t i = 0; i < 3; i++) {
    int32_t before = r.dataset.truth[labelled[i]];
    r.dataset.truth[labelled[i]] = (before + 1) % 6;
    expect_fit(&r, folder, i == 2, clips, i == 2 ? "a test clip's label" : "a clip's label");
    r.dataset.truth[labelled[i]] = before;
  }
  r.seed = 2;
  expect_fit(&r, folder, false, "other settings", "another seed");
  r.seed = 1;
  expect_fit(&r, folder, true, NULL, "nothing changed");
  free(checkpoint_metadata(folder, "settings", true)); /* as an earlier version left it */
  r.seed = 2;
  expect_fit(&r, folder, false, "other settings or clips", "settings that are not told");
  free(folder);
  test_rig_free(&r);
}

/* What the training said on stderr; the caller frees it. */
static char *train_and_listen(const test_rig *r, const char *name) {
  test_listen();
  free(test_train(r, name, 1));
  return test_heard(true);
}

/* Going on with another instruction set is told, each time, since its bytes may be others; with the same one, and from
 * a checkpoint of before that was noted, it is not. */
static void test_other_instruction_set(void **state) {
  test_rig r = test_rig_make();
  (void)state;
  r.config.train.epochs = 2;
  setenv("SERENADE_ISA", "base", 1);
  char *folder = test_train(&r, "run", 1), *said = train_and_listen(&r, "run");
  unsetenv("SERENADE_ISA");
  assert_string_equal(said, ""); /* there was nothing to do */
  free(said);
  free(test_train(&r, "same", 1));
  ser_device *device;
  ser_error err = {0};
  ASSERT_OK(ser_device_open(&device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &err), err);
  char *here = ser_computing_name(device), *both = ser_computing_join("cpu base", here);
  bool other = strcmp(here, "cpu base") != 0;
  ser_device_close(device);
  if (!other) print_message("this processor has no instruction set but the base: no warning to be seen\n");
  for (int64_t epochs = 3; epochs <= 4; epochs++) {
    r.config.train.epochs = epochs;
    said = train_and_listen(&r, "run");
    const char *warning = strstr(said, "warning: "), *names = epochs == 3 ? "computed with cpu base:" : both;
    if (other && !(warning && strstr(warning, names) && strstr(warning, here) && strstr(warning, "may differ")))
      fail_msg("going on with %s said: %s", here, said);
    assert_true(other || !warning);
    char *list = checkpoint_metadata(folder, "computed_on", false);
    assert_string_equal(list, both);
    free(list);
    free(said);
    said = train_and_listen(&r, "same");
    assert_null(strstr(said, "warning"));
    free(said);
    char *same = ser_path_join(r.folder, "same");
    free(checkpoint_metadata(same, "computed_on", true));
    free(same);
  }
  char *list = checkpoint_metadata(folder, "computed_on", false);
  assert_null(strstr(list + strlen("cpu base"), "cpu base")); /* each stands there once */
  free(list);
  free(both);
  free(here);
  free(folder);
  test_rig_free(&r);
}

static void test_damaged_checkpoint(void **state) {
  test_rig r = test_rig_make();
  ser_error err = {0};
  size_t size;
  char *bytes, *folder = test_train(&r, "run", 1), *path = ser_path_join(folder, "checkpoint");
  (void)state;
  ASSERT_OK(ser_file_read(&bytes, &size, path, &err), err);
  for (uint64_t i = 0; i < 40; i++) { /* a flipped bit anywhere, or a cut */
    ser_philox random = ser_philox_at(6, 0, i);
    size_t at = random.v[0] % size, kept = i % 4 ? size : at;
    bytes[at] = (char)(bytes[at] ^ (1 << i % 8));
    ASSERT_OK(ser_file_write(path, bytes, kept, &err), err);
    bytes[at] = (char)(bytes[at] ^ (1 << i % 8));
    ser_error refused = {0};
    assert_int_equal(test_train_in(&r, folder, 1, &refused), SER_FAILED);
    assert_non_null(strstr(refused.text, path));
    assert_non_null(strstr(refused.text, "remove it"));
  }
  ASSERT_OK(ser_file_write(path, bytes, size, &err), err);
  ASSERT_OK(test_train_in(&r, folder, 1, &err), err);
  free(bytes);
  free(path);
  free(folder);
  test_rig_free(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_finished_is_left_alone),
      cmocka_unit_test(test_other_settings),
      cmocka_unit_test(test_identity),
      cmocka_unit_test(test_other_instruction_set),
      cmocka_unit_test(test_damaged_checkpoint),
  };
  ser_log_set_quiet(true);
  return cmocka_run_group_tests_name("unit.trainer_again", tests, NULL, NULL);
}
