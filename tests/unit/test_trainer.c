/* The trainer on a small made dataset: it learns; the same seed gives the same bytes whatever the threads, wherever it
 * was cut off, killed and resumed; and what goes wrong is named. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/csv.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/philox.h"
#include "model/safetensors.h"
#include "support/harness.h"
#include "train/internal.h"

enum { CLIPS = 60, CHANNELS = 39, TRAINING = 33, VALIDATION = 15 }; /* 33 = 4 x 8 + 1: the last batch is one clip */

/* A dataset, a split and a configuration that a test may change. */
typedef struct {
  char *folder;
  ser_config config;
  ser_manifest manifest;
  ser_dataset dataset;
  ser_split split;
} rig;

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

static rig rig_make(void) {
  rig r = {.folder = test_folder_make("train")};
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

static void rig_free(rig *r) {
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

static ser_status train_with(const rig *r, const char *folder, int threads, bool anew, ser_error *err) {
  ser_device *device;
  ser_error opened = {0};
  ASSERT_OK(ser_device_open(&device, SER_DEVICE_CPU, threads, &opened), opened);
  ser_training training = {.config = &r->config,
                           .manifest = &r->manifest,
                           .dataset = &r->dataset,
                           .split = &r->split,
                           .seed = 1,
                           .folder = folder,
                           .manifest_hash = "00112233445566778899aabbccddeeff",
                           .split_hash = "ffeeddccbbaa99887766554433221100",
                           .anew = anew};
  ser_status status = ser_train_one(device, &training, err);
  ser_device_counters counters;
  device->rt->counters(device, &counters);
  assert_int_equal(counters.bytes, 0); /* whatever happened, nothing is left on the device */
  ser_device_close(device);
  return status;
}

static ser_status train_in(const rig *r, const char *folder, int threads, ser_error *err) {
  return train_with(r, folder, threads, false, err);
}

static char *train(const rig *r, const char *name, int threads) {
  ser_error err = {0};
  char *folder = ser_path_join(r->folder, name);
  ASSERT_OK(train_in(r, folder, threads, &err), err);
  return folder;
}

static void assert_same_file(const char *a, const char *b, const char *name) {
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

static void assert_same_training(const char *a, const char *b) {
  assert_same_file(a, b, "model.safetensors");
  assert_same_file(a, b, "history.csv");
  assert_same_file(a, b, "checkpoint");
}

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
    rig r = rig_make();
    r.config.model.branch = kinds[i].branch;
    r.config.model.residual = kinds[i].residual;
    r.config.model.pool = kinds[i].pool;
    r.config.model.dropout = 0; /* of so few filters it takes too much to overfit */
    r.config.train.epochs = 60;
    char *folder = train(&r, "run", 1);
    ser_csv h = read_history(folder);
    assert_int_equal(h.rows, 60);
    assert_true(history_value(&h, 59, "train_loss") < 0.7 * history_value(&h, 0, "train_loss"));
    assert_true(history_value(&h, 59, "train_war") > 0.9);
    double best = 0;
    for (size_t e = 0; e < h.rows; e++) best = fmax(best, history_value(&h, e, "validation_uar"));
    assert_true(best > 0.9); /* on clips that it was not trained on */
    ser_csv_free(&h);
    free(folder);
    rig_free(&r);
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
  rig r = rig_make();
  (void)state;
  r.config.train.epochs = 12;
  r.config.train.lr = 0.03; /* rough, so that the best is not simply the last */
  char *folder = train(&r, "run", 1), *path = ser_path_join(folder, "model.safetensors");
  ser_csv h = read_history(folder);
  ASSERT_OK(ser_device_open(&device, SER_DEVICE_CPU, 1, &err), err);
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
  rig_free(&r);
}

/* ---- the same bytes -----------------------------------------------------------------------------------------------
 */

static void test_threads(void **state) {
  rig r = rig_make();
  (void)state;
  char *one = train(&r, "one", 1), *two = train(&r, "two", 2), *three = train(&r, "three", 3);
  assert_same_training(one, two);
  assert_same_training(one, three);
  free(one);
  free(two);
  free(three);
  rig_free(&r);
}

/* Stopped after each number of epochs and gone on from there. */
static void test_resume_after_each_epoch(void **state) {
  rig r = rig_make();
  ser_error err = {0};
  (void)state;
  r.config.train.epochs = 6;
  char *whole = train(&r, "whole", 1), *steps = ser_path_join(r.folder, "steps");
  for (int64_t epochs = 1; epochs <= 6; epochs++) { /* one epoch each time */
    r.config.train.epochs = epochs;
    ASSERT_OK(train_in(&r, steps, 1 + (int)(epochs % 2), &err), err);
  }
  assert_same_training(whole, steps);
  for (int64_t first = 1; first < 6; first += 2) {
    char name[16];
    snprintf(name, sizeof name, "at-%d", (int)first);
    r.config.train.epochs = first;
    free(train(&r, name, 1));
    r.config.train.epochs = 6;
    char *folder = train(&r, name, 1);
    assert_same_training(whole, folder);
    free(folder);
  }
  free(whole);
  free(steps);
  rig_free(&r);
}

/* A process that trains and is stopped by a signal after some milliseconds; its exit status. */
static int train_until(const rig *r, const char *folder, int signal_number, int64_t microseconds) {
  pid_t child = fork();
  if (!child) {
    ser_error err = {0};
    _exit((int)train_in(r, folder, 1, &err));
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
  rig r = rig_make();
  int landed = 0, writing = 0, done = 0;
  (void)state;
  r.config.train.epochs = 100;
  ser_interrupt_install(); /* the children inherit it, so that no signal comes too early */
  char *whole = train(&r, "whole", 1), *folder = ser_path_join(r.folder, "killed");
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
  free(train(&r, "killed", 1));
  assert_same_training(whole, folder);
  assert_false(has_leftover(folder));
  print_message("%d kills and interruptions landed before the training was done, %d while a file was being written\n",
                landed, writing);
  assert_true(landed > 0);
  free(whole);
  free(folder);
  rig_free(&r);
}

/* ---- a training that is there already ------------------------------------------------------------------------------
 */

static struct timespec written_at(const char *folder, const char *name) {
  struct stat info;
  char *path = ser_path_join(folder, name);
  assert_int_equal(stat(path, &info), 0);
  free(path);
  return info.st_mtim;
}

static void test_finished_is_left_alone(void **state) {
  rig r = rig_make();
  (void)state;
  char *folder = train(&r, "run", 1), *copy = train(&r, "copy", 1);
  char *model = ser_path_join(folder, "model.safetensors");
  struct timespec before = written_at(folder, "model.safetensors"), checkpoint = written_at(folder, "checkpoint");
  free(train(&r, "run", 1));
  struct timespec after = written_at(folder, "model.safetensors");
  assert_memory_equal(&before, &after, sizeof before);
  assert_int_equal(remove(model), 0); /* killed just before it was written */
  free(train(&r, "run", 1));
  assert_same_training(folder, copy);
  after = written_at(folder, "checkpoint");
  assert_memory_equal(&checkpoint, &after, sizeof after);
  free(model);
  free(folder);
  free(copy);
  rig_free(&r);
}

static void test_other_settings(void **state) {
  rig r = rig_make();
  ser_error err = {0};
  (void)state;
  char *folder = train(&r, "run", 1);
  char *copy = train(&r, "copy", 1);
  r.config.train.lr = 0.02;
  assert_int_equal(train_in(&r, folder, 1, &err), SER_USAGE);
  assert_non_null(strstr(err.text, folder));
  assert_same_file(folder, copy, "checkpoint"); /* nothing of it was touched */
  r.config.train.lr = 0.01;
  r.config.train.epochs = 7; /* fewer than it has had */
  assert_int_equal(train_in(&r, folder, 1, &err), SER_USAGE);
  assert_non_null(strstr(err.text, "has had 8 epochs already, more than train.epochs=7 asks for; ask for at least 8"));
  assert_same_file(folder, copy, "checkpoint");
  r.config.train.epochs = 8;
  r.manifest.rows[3].hash.bytes[0] ^= 1; /* another recording in a clip's place */
  assert_int_equal(train_in(&r, folder, 1, &err), SER_USAGE);
  r.manifest.rows[3].hash.bytes[0] ^= 1;
  ASSERT_OK(train_in(&r, folder, 1, &err), err);
  r.config.train.lr = 0.02;
  ASSERT_OK(train_with(&r, folder, 1, true, &err), err);
  char *other = train(&r, "other", 1);
  assert_same_training(folder, other);
  r.config.train.epochs = 5;
  ASSERT_OK(train_with(&r, folder, 1, true, &err), err);
  char *fewer = train(&r, "fewer", 1);
  assert_same_training(folder, fewer);
  free(fewer);
  free(other);
  free(folder);
  free(copy);
  rig_free(&r);
}

/* What the training said on stderr; the caller frees it. */
static char *train_and_listen(const rig *r, const char *name) {
  ser_error err = {0};
  size_t size;
  char *said, *path = ser_path_join(r->folder, "stderr");
  fflush(stderr);
  int kept = dup(STDERR_FILENO), file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  assert_true(kept >= 0 && file >= 0 && dup2(file, STDERR_FILENO) >= 0);
  free(train(r, name, 1));
  fflush(stderr);
  assert_true(dup2(kept, STDERR_FILENO) >= 0);
  close(kept);
  close(file);
  ASSERT_OK(ser_file_read(&said, &size, path, &err), err);
  free(path);
  return said;
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

/* Going on with another instruction set is told, each time, since its bytes may be others; with the same one, and from
 * a checkpoint of before that was noted, it is not. */
static void test_other_instruction_set(void **state) {
  rig r = rig_make();
  (void)state;
  r.config.train.epochs = 2;
  setenv("SERENADE_ISA", "base", 1);
  char *folder = train(&r, "run", 1), *said = train_and_listen(&r, "run");
  unsetenv("SERENADE_ISA");
  assert_string_equal(said, ""); /* there was nothing to do */
  free(said);
  free(train(&r, "same", 1));
  ser_device *device;
  ser_error err = {0};
  ASSERT_OK(ser_device_open(&device, SER_DEVICE_CPU, 1, &err), err);
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
  rig_free(&r);
}

static void test_damaged_checkpoint(void **state) {
  rig r = rig_make();
  ser_error err = {0};
  size_t size;
  char *bytes, *folder = train(&r, "run", 1), *path = ser_path_join(folder, "checkpoint");
  (void)state;
  ASSERT_OK(ser_file_read(&bytes, &size, path, &err), err);
  for (uint64_t i = 0; i < 40; i++) { /* a flipped bit anywhere, or a cut */
    ser_philox random = ser_philox_at(6, 0, i);
    size_t at = random.v[0] % size, kept = i % 4 ? size : at;
    bytes[at] = (char)(bytes[at] ^ (1 << i % 8));
    ASSERT_OK(ser_file_write(path, bytes, kept, &err), err);
    bytes[at] = (char)(bytes[at] ^ (1 << i % 8));
    ser_error refused = {0};
    assert_int_equal(train_in(&r, folder, 1, &refused), SER_FAILED);
    assert_non_null(strstr(refused.text, path));
    assert_non_null(strstr(refused.text, "remove it"));
  }
  ASSERT_OK(ser_file_write(path, bytes, size, &err), err);
  ASSERT_OK(train_in(&r, folder, 1, &err), err);
  free(bytes);
  free(path);
  free(folder);
  rig_free(&r);
}

/* ---- what goes wrong -----------------------------------------------------------------------------------------------
 */

static void test_not_finite(void **state) {
  rig r = rig_make();
  ser_error err = {0};
  (void)state;
  r.config.train.epochs = 2;
  char *folder = train(&r, "run", 1), *path = ser_path_join(folder, "checkpoint"), *kept, *now;
  size_t kept_size, now_size;
  ASSERT_OK(ser_file_read(&kept, &kept_size, path, &err), err);
  /* In the third epoch a clip has gone bad: 5 batches an epoch, so one of steps 11 to 15. */
  r.config.train.epochs = 4;
  float good = r.dataset.features[0];
  r.dataset.features[0] = NAN;
  assert_int_equal(train_in(&r, folder, 1, &err), SER_FAILED);
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
  ASSERT_OK(train_in(&r, folder, 1, &err), err);
  char *whole = train(&r, "whole", 1);
  assert_same_training(whole, folder);
  /* Before the first checkpoint there is none to name. */
  r.config.train.lr = 1e38;
  char *first = ser_path_join(r.folder, "first");
  assert_int_equal(train_in(&r, first, 1, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "before the first checkpoint"));
  free(kept);
  free(first);
  free(whole);
  free(path);
  free(folder);
  rig_free(&r);
}

/* A validation clip that has gone bad is no answer like another: it ends the run too. */
static void test_validation_not_finite(void **state) {
  rig r = rig_make();
  ser_error err = {0};
  (void)state;
  r.config.train.epochs = 2;
  char *folder = train(&r, "run", 1), *path = ser_path_join(folder, "checkpoint");
  r.config.train.epochs = 4;
  r.dataset.features[r.dataset.offset[TRAINING] * CHANNELS] = NAN;
  assert_int_equal(train_in(&r, folder, 1, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "the validation loss is not finite at step 15 (epoch 3)"));
  assert_non_null(strstr(err.text, path));
  free(path);
  free(folder);
  rig_free(&r);
}

static void test_no_training_clips(void **state) {
  rig r = rig_make();
  ser_error err = {0};
  (void)state;
  for (size_t i = 0; i < CLIPS; i++) r.split.part[i] = SER_TEST;
  assert_int_equal(train_in(&r, r.folder, 1, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "no usable training clips"));
  rig_free(&r);
}

static void test_no_validation_clips(void **state) {
  rig r = rig_make();
  ser_error err = {0};
  ser_model_info info;
  (void)state;
  for (size_t i = TRAINING; i < CLIPS; i++) r.split.part[i] = SER_TEST;
  r.config.train.epochs = 3;
  char *folder = train(&r, "run", 1), *path = ser_path_join(folder, "model.safetensors");
  ASSERT_OK(ser_model_load(NULL, &info, NULL, path, &err), err);
  assert_int_equal(info.epoch, 3);
  assert_string_equal(info.chosen_by, "last epoch (no validation clips)");
  ser_csv h = read_history(folder);
  assert_string_equal(ser_csv_cell(&h, 1, ser_csv_column(&h, "validation_uar")), "");
  ser_csv_free(&h);
  ser_model_info_free(&info);
  free(path);
  free(folder);
  rig_free(&r);
}

/* Labels of the validation clips that cannot be learned: it stops `patience` epochs after its best. */
static void test_patience(void **state) {
  rig r = rig_make();
  (void)state;
  for (size_t i = TRAINING; i < CLIPS; i++) r.dataset.truth[i] = (int32_t)(ser_philox_at(2, 0, i).v[0] % 6);
  r.config.train.epochs = 200;
  r.config.train.patience = 4;
  char *folder = train(&r, "run", 1);
  ser_csv h = read_history(folder);
  size_t best = 0;
  for (size_t e = 0; e < h.rows; e++)
    if (history_value(&h, e, "best") == 1) best = e + 1;
  assert_true(h.rows < 200);
  assert_int_equal(h.rows, best + 4);
  ser_csv_free(&h);
  free(folder);
  rig_free(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_learns),
      cmocka_unit_test(test_model_is_the_best_epoch),
      cmocka_unit_test(test_threads),
      cmocka_unit_test(test_resume_after_each_epoch),
      cmocka_unit_test(test_killed),
      cmocka_unit_test(test_finished_is_left_alone),
      cmocka_unit_test(test_other_settings),
      cmocka_unit_test(test_other_instruction_set),
      cmocka_unit_test(test_damaged_checkpoint),
      cmocka_unit_test(test_not_finite),
      cmocka_unit_test(test_validation_not_finite),
      cmocka_unit_test(test_no_training_clips),
      cmocka_unit_test(test_no_validation_clips),
      cmocka_unit_test(test_patience),
  };
  ser_log_set_quiet(true);
  return cmocka_run_group_tests_name("unit.trainer", tests, NULL, NULL);
}
