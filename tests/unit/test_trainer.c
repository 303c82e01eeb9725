/* The trainer on a small made dataset: it learns; the same seed gives the same bytes whatever the threads, wherever it
 * was cut off, killed and resumed; and what goes wrong is named. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/csv.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/philox.h"
#include "support/harness.h"
#include "support/training.h"
#include "train/internal.h"

static ser_csv read_history(const char *folder) {
  ser_error err = {0};
  ser_csv table;
  char *path = ser_path_join(folder, "history.csv");
  ASSERT_OK(ser_csv_read(&table, path, &err), err);
  free(path);
  return table;
}

static double history_value(const ser_csv *table, size_t row, const char *name) {
  int column = ser_csv_column(table, name);
  assert_true(column >= 0);
  return strtod(ser_csv_cell(table, row, column), NULL);
}

/* ---- learning ---------------------------------------------------------------------------------------------------- */

static void test_learns(void **state) {
  static const struct {
    ser_branch branch;
    bool residual;
    ser_pooling pool;
  } kinds[] = {{SER_BRANCH_REFERENCE, false, SER_POOL_ALL},
               {SER_BRANCH_REFERENCE, true, SER_POOL_REAL},
               {SER_BRANCH_TIMNET, false, SER_POOL_ALL}};
  (void)state;
  for (size_t i = 0; i < 3; i++) {
    test_rig r = test_rig_make();
    r.config.model.branch = kinds[i].branch;
    r.config.model.residual = kinds[i].residual;
    r.config.model.pool = kinds[i].pool;
    r.config.model.dropout = 0; /* of so few filters it takes too much to overfit */
    r.config.train.epochs = 60;
    char *folder = test_train(&r, "run", 1);
    ser_csv h = read_history(folder);
    assert_int_equal(h.rows, 60);
    assert_true(history_value(&h, 59, "train_loss") < 0.7 * history_value(&h, 0, "train_loss"));
    assert_true(history_value(&h, 59, "train_war") > 0.9);
    double best = 0;
    for (size_t e = 0; e < h.rows; e++) best = fmax(best, history_value(&h, e, "validation_uar"));
    assert_true(best > 0.9); /* on clips that it was not trained on */
    ser_csv_free(&h);
    free(folder);
    test_rig_free(&r);
  }
}

/* The model file holds the best epoch: its answers on the validation clips are those that the history tells of it. */
static void test_model_is_the_best_epoch(void **state) {
  ser_error err = {0};
  ser_device *device;
  ser_stream *stream;
  ser_model *model;
  ser_model_info info;
  ser_inference *inference;
  test_rig r = test_rig_make();
  (void)state;
  r.config.train.epochs = 12;
  r.config.train.lr = 0.03; /* rough, so that the best is not simply the last */
  char *folder = test_train(&r, "run", 1), *path = ser_path_join(folder, "model.safetensors");
  ser_csv h = read_history(folder);
  ASSERT_OK(ser_device_open(&device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &err), err);
  ASSERT_OK(device->rt->stream_create(device, &stream, &err), err);
  ASSERT_OK(ser_model_load(&model, &info, device, path, &err), err);
  ASSERT_OK(ser_inference_create(&inference, model, stream, 1, &err), err);
  int64_t cp = SER_ROUND_UP(CHANNELS, SER_CHANNEL_PAD), tp = SER_ROUND_UP(20, SER_TIME_PAD);
  double loss = 0;
  for (size_t i = TRAINING; i < TRAINING + VALIDATION; i++) {
    float p[SER_EMOTIONS], *tile = ser_alloc_zero((size_t)(cp * tp), sizeof *tile);
    int64_t rows = r.dataset.offset[i + 1] - r.dataset.offset[i], length = rows < 20 ? rows : 20;
    for (int64_t t = 0; t < length; t++)
      for (int64_t c = 0; c < CHANNELS; c++)
        tile[c * tp + t] =
            (r.dataset.features[(r.dataset.offset[i] + t) * CHANNELS + c] - info.mean[c]) * info.inv_std[c];
    ASSERT_OK(ser_inference_run(inference, stream, p, tile, &length, 1, &err), err);
    loss -= log((double)p[r.dataset.truth[i]]) / VALIDATION;
    free(tile);
  }
  double told = history_value(&h, (size_t)info.epoch - 1, "validation_loss");
  if (!(fabs(told - loss) < 1e-5 * told))
    fail_msg("validation loss %g, told %g of epoch %d", loss, told, (int)info.epoch);
  assert_string_equal(info.chosen_by, "validation UAR");
  assert_int_equal((int)history_value(&h, (size_t)info.epoch - 1, "best"), 1);
  for (size_t e = (size_t)info.epoch; e < h.rows; e++) assert_int_equal((int)history_value(&h, e, "best"), 0);
  ser_inference_free(inference);
  ser_model_free(model);
  ser_model_info_free(&info);
  device->rt->stream_destroy(stream);
  ser_device_close(device);
  ser_csv_free(&h);
  free(path);
  free(folder);
  test_rig_free(&r);
}

/* ---- the same bytes -----------------------------------------------------------------------------------------------
 */

static void test_threads(void **state) {
  test_rig r = test_rig_make();
  (void)state;
  char *one = test_train(&r, "one", 1), *two = test_train(&r, "two", 2), *three = test_train(&r, "three", 3);
  test_same_training(one, two);
  test_same_training(one, three);
  free(one);
  free(two);
  free(three);
  test_rig_free(&r);
}

/* Stopped after each number of epochs and gone on from there. */
static void test_resume_after_each_epoch(void **state) {
  test_rig r = test_rig_make();
  ser_error err = {0};
  (void)state;
  r.config.train.epochs = 6;
  char *whole = test_train(&r, "whole", 1), *steps = ser_path_join(r.folder, "steps");
  for (int64_t epochs = 1; epochs <= 6; epochs++) { /* one epoch each time */
    r.config.train.epochs = epochs;
    ASSERT_OK(test_train_in(&r, steps, 1 + (int)(epochs % 2), &err), err);
  }
  test_same_training(whole, steps);
  for (int64_t first = 1; first < 6; first += 2) {
    char name[16];
    snprintf(name, sizeof name, "at-%d", (int)first);
    r.config.train.epochs = first;
    free(test_train(&r, name, 1));
    r.config.train.epochs = 6;
    char *folder = test_train(&r, name, 1);
    test_same_training(whole, folder);
    free(folder);
  }
  free(whole);
  free(steps);
  test_rig_free(&r);
}

/* A process that trains and is stopped by a signal after some milliseconds; its exit status. */
static int train_until(const test_rig *r, const char *folder, int signal_number, int64_t microseconds) {
  pid_t child = fork();
  if (!child) {
    ser_error err = {0};
    _exit((int)test_train_in(r, folder, 1, &err));
  }
  assert_true(child > 0);
  int status = 0;
  usleep((useconds_t)microseconds);
  kill(child, signal_number);
  while (waitpid(child, &status, 0) < 0) assert_int_equal(errno, EINTR);
  return status;
}

/* Whether a file stands half-written beside its place: the kill landed while it was being written. */
static bool has_leftover(const char *folder) {
  bool found = false;
  DIR *open_folder = opendir(folder);
  for (struct dirent *entry; open_folder && (entry = readdir(open_folder));)
    found = found || strstr(entry->d_name, ".tmp-");
  if (open_folder) closedir(open_folder);
  return found;
}

/* Killed and interrupted again and again, at moments spread over its time, until it is done. */
static void test_killed(void **state) {
  test_rig r = test_rig_make();
  int landed = 0, writing = 0, done = 0;
  (void)state;
  r.config.train.epochs = 100;
  ser_interrupt_install(); /* the children inherit it, so that no signal comes too early */
  char *whole = test_train(&r, "whole", 1), *folder = ser_path_join(r.folder, "killed");
  for (uint64_t i = 0; i < 20 && !done; i++) {
    ser_philox random = ser_philox_at(4, 0, i);
    int signal_number = i % 3 == 2 ? SIGTERM : SIGKILL;
    int status = train_until(&r, folder, signal_number, 2000 + (int64_t)(random.v[0] % 40000));
    if (WIFSIGNALED(status)) {
      assert_int_equal(WTERMSIG(status), SIGKILL);
      landed++;
      writing += has_leftover(folder);
    } else {
      assert_true(WEXITSTATUS(status) == SER_OK || WEXITSTATUS(status) == SER_INTERRUPTED);
      landed += WEXITSTATUS(status) == SER_INTERRUPTED;
      done = WEXITSTATUS(status) == SER_OK;
    }
  }
  char *backup = ser_path_join(folder, "checkpoint.tmp-backup"); /* the user's own: no writer gives that name */
  ser_error err = {0};
  ASSERT_OK(ser_file_write(backup, "x", 1, &err), err);
  free(test_train(&r, "killed", 1));
  test_same_training(whole, folder);
  assert_int_equal(unlink(backup), 0);
  assert_false(has_leftover(folder));
  print_message("%d kills and interruptions landed before the training was done, %d while a file was being written\n",
                landed, writing);
  assert_true(landed > 0);
  free(backup);
  free(whole);
  free(folder);
  test_rig_free(&r);
}

/* ---- what goes wrong -----------------------------------------------------------------------------------------------
 */

static void test_not_finite(void **state) {
  test_rig r = test_rig_make();
  ser_error err = {0};
  (void)state;
  r.config.train.epochs = 2;
  char *folder = test_train(&r, "run", 1), *path = ser_path_join(folder, "checkpoint"), *kept, *now;
  size_t kept_size, now_size;
  ASSERT_OK(ser_file_read(&kept, &kept_size, path, &err), err);
  /* In the third epoch a clip has gone bad: 5 batches an epoch, so one of steps 11 to 15. */
  r.config.train.epochs = 4;
  float good = r.dataset.features[0];
  r.dataset.features[0] = NAN;
  assert_int_equal(test_train_in(&r, folder, 1, &err), SER_FAILED);
  int step = 0, epoch = 0;
  const char *at = strstr(err.text, "at step ");
  assert_non_null(at);
  assert_int_equal(sscanf(at, "at step %d (epoch %d)", &step, &epoch), 2);
  assert_true(step >= 11 && step <= 15);
  assert_int_equal(epoch, 3);
  assert_non_null(strstr(err.text, path));
  assert_non_null(strstr(err.text, "(epoch 2)"));
  ASSERT_OK(ser_file_read(&now, &now_size, path, &err), err);
  assert_int_equal(now_size, kept_size);
  assert_memory_equal(now, kept, kept_size);
  free(now);
  /* Mended, it goes on from there as if nothing had been. */
  r.dataset.features[0] = good;
  ASSERT_OK(test_train_in(&r, folder, 1, &err), err);
  char *whole = test_train(&r, "whole", 1);
  test_same_training(whole, folder);
  /* Before the first checkpoint there is none to name. */
  r.config.train.lr = 1e38;
  char *first = ser_path_join(r.folder, "first");
  assert_int_equal(test_train_in(&r, first, 1, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "before the first checkpoint"));
  free(kept);
  free(first);
  free(whole);
  free(path);
  free(folder);
  test_rig_free(&r);
}

/* A validation clip that has gone bad is no answer like another: it ends the run too. */
static void test_validation_not_finite(void **state) {
  test_rig r = test_rig_make();
  ser_error err = {0};
  (void)state;
  r.config.train.epochs = 2;
  char *folder = test_train(&r, "run", 1), *path = ser_path_join(folder, "checkpoint");
  r.config.train.epochs = 4;
  r.dataset.features[r.dataset.offset[TRAINING] * CHANNELS] = NAN;
  assert_int_equal(test_train_in(&r, folder, 1, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "the validation loss is not finite at step 15 (epoch 3)"));
  assert_non_null(strstr(err.text, path));
  free(path);
  free(folder);
  test_rig_free(&r);
}

static void test_no_training_clips(void **state) {
  test_rig r = test_rig_make();
  ser_error err = {0};
  (void)state;
  for (size_t i = 0; i < CLIPS; i++) r.split.part[i] = SER_TEST;
  assert_int_equal(test_train_in(&r, r.folder, 1, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "no usable training clips"));
  test_rig_free(&r);
}

static void test_no_validation_clips(void **state) {
  test_rig r = test_rig_make();
  ser_error err = {0};
  ser_model_info info;
  (void)state;
  for (size_t i = TRAINING; i < CLIPS; i++) r.split.part[i] = SER_TEST;
  r.config.train.epochs = 3;
  char *folder = test_train(&r, "run", 1), *path = ser_path_join(folder, "model.safetensors");
  ASSERT_OK(ser_model_load(NULL, &info, NULL, path, &err), err);
  assert_int_equal(info.epoch, 3);
  assert_string_equal(info.chosen_by, "last epoch (no validation clips)");
  ser_csv h = read_history(folder);
  assert_string_equal(ser_csv_cell(&h, 1, ser_csv_column(&h, "validation_uar")), "");
  ser_csv_free(&h);
  ser_model_info_free(&info);
  free(path);
  free(folder);
  test_rig_free(&r);
}

/* A batch of one clip, as the last of an epoch may be: its frames are enough for a batch norm. With no other clip
 * beside it every step is such a one. */
static void test_one_clip(void **state) {
  test_rig r = test_rig_make();
  ser_error err = {0};
  ser_model_info info;
  (void)state;
  for (size_t i = 1; i < TRAINING; i++) r.split.part[i] = SER_TEST;
  r.config.model.dropout = 0;
  r.config.train.epochs = 30;
  char *folder = test_train(&r, "run", 1), *path = ser_path_join(folder, "model.safetensors");
  ser_csv h = read_history(folder);
  assert_int_equal(h.rows, 30);
  for (size_t e = 0; e < h.rows; e++) {
    assert_true(isfinite(history_value(&h, e, "train_loss")) && isfinite(history_value(&h, e, "validation_loss")));
    assert_true(history_value(&h, e, "gradient_norm") > 0);
  }
  assert_true(history_value(&h, 29, "train_loss") < 0.7 * history_value(&h, 0, "train_loss"));
  assert_true(history_value(&h, 29, "train_war") == 1);
  ASSERT_OK(ser_model_load(NULL, &info, NULL, path, &err), err);
  ser_model_info_free(&info);
  ser_csv_free(&h);
  free(path);
  free(folder);
  test_rig_free(&r);
}

/* Labels of the validation clips that cannot be learned: it stops `patience` epochs after its best. */
static void test_patience(void **state) {
  test_rig r = test_rig_make();
  (void)state;
  for (size_t i = TRAINING; i < CLIPS; i++) r.dataset.truth[i] = (int32_t)(ser_philox_at(2, 0, i).v[0] % 6);
  r.config.train.epochs = 200;
  r.config.train.patience = 4;
  char *folder = test_train(&r, "run", 1);
  ser_csv h = read_history(folder);
  size_t best = 0;
  for (size_t e = 0; e < h.rows; e++)
    if (history_value(&h, e, "best") == 1) best = e + 1;
  assert_true(h.rows < 200);
  assert_int_equal(h.rows, best + 4);
  ser_csv_free(&h);
  free(folder);
  test_rig_free(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_learns),
      cmocka_unit_test(test_model_is_the_best_epoch),
      cmocka_unit_test(test_threads),
      cmocka_unit_test(test_resume_after_each_epoch),
      cmocka_unit_test(test_killed),
      cmocka_unit_test(test_not_finite),
      cmocka_unit_test(test_validation_not_finite),
      cmocka_unit_test(test_no_training_clips),
      cmocka_unit_test(test_no_validation_clips),
      cmocka_unit_test(test_one_clip),
      cmocka_unit_test(test_patience),
  };
  ser_log_set_quiet(true);
  return cmocka_run_group_tests_name("unit.trainer", tests, NULL, NULL);
}
