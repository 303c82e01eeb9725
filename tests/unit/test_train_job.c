/* The training job on a small made corpus: seeds and folds side by side, the files of a run folder, going on with it,
 * and the same bytes however the work is shared out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "support/clock.h"
#include "support/cache.h"
#include "support/harness.h"
#include "train/internal.h"

enum { CLIPS = 24, RATE = 16000 };

typedef struct {
  char *folder, *manifest;
  ser_config config;
} rig;

/* Four speakers, three emotions, two clips each; a CSV names them, the index makes the manifest of it. One clip may be
 * too short for a frame's differences. */
static rig rig_make(bool one_is_short) {
  static const char *const emotions[3] = {"happy", "sad", "angry"};
  ser_error err = {0};
  ser_text csv = {0};
  rig r = {.folder = test_folder_make("job")};
  ser_text_puts(&csv, "path,emotion,speaker\n");
  for (int i = 0; i < CLIPS; i++) {
    int64_t count = one_is_short && i == 3 ? RATE / 40 : RATE / 2 + 700 * i;
    float *samples = test_speech((uint64_t)i, count, RATE);
    char *wav = ser_format("%s/%02d.wav", r.folder, i);
    test_write_wav(wav, samples, count, RATE);
    ser_text_printf(&csv, "%02d.wav,%s,speaker%d\n", i, emotions[i % 3], i / 6);
    free(wav);
    free(samples);
  }
  char *list = ser_path_join(r.folder, "clips.csv");
  ASSERT_OK(ser_file_write(list, csv.data, csv.size, &err), err);
  ser_manifest manifest;
  ser_index_summary summary = {0};
  ser_index_options options = {.roots[SER_CSV] = list, .emotions = 6, .jobs = 1};
  ser_manifest_init(&manifest);
  ASSERT_OK(ser_index(&manifest, &summary, &options, NULL, &err), err);
  r.manifest = ser_path_join(r.folder, "manifest.csv");
  ASSERT_OK(ser_manifest_write(&manifest, r.manifest, &err), err);
  ser_manifest_free(&manifest);
  free(summary.notes.data);
  free(csv.data);
  free(list);
  ser_config_init(&r.config);
  static const char *const settings[] = {"split.kind=speaker", "split.folds=2",       "train.seeds=[1,2]",
                                         "train.epochs=2",     "model.blocks=2",      "model.filters=8",
                                         "train.batch=8",      "split.validation=0.3"};
  for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
    ASSERT_OK(ser_config_set(&r.config, settings[i], &err), err);
  return r;
}

static void rig_free(rig *r) {
  ser_config_free(&r->config);
  free(r->manifest);
  test_folder_remove(r->folder);
}

static ser_status run_job(const rig *r, const char *run, bool resume, ser_error *err) {
  bool partial = true;
  size_t trained;
  ser_train_options options = {.config = &r->config, .folder = run, .manifest = r->manifest, .resume = resume};
  ser_status status = ser_train_job(&trained, &partial, &options, err);
  if (status == SER_OK) assert_false(partial);
  return status;
}

static char *bytes_of(const char *folder, const char *name, size_t *size) {
  ser_error err = {0};
  char *bytes, *path = ser_path_join(folder, name);
  ASSERT_OK(ser_file_read(&bytes, size, path, &err), err);
  free(path);
  return bytes;
}

static void assert_same(const char *a, const char *b, const char *name) {
  size_t size[2];
  char *bytes[2] = {bytes_of(a, name, &size[0]), bytes_of(b, name, &size[1])};
  if (size[0] != size[1] || memcmp(bytes[0], bytes[1], size[0])) fail_msg("%s differs between %s and %s", name, a, b);
  free(bytes[0]);
  free(bytes[1]);
}

static const char *const parts[] = {"seed-1/fold-0", "seed-1/fold-1", "seed-2/fold-0", "seed-2/fold-1"};

/* Four trainings on one core, on two (two by two) and on three (three, then one with all): the same bytes. */
static void test_shared_out(void **state) {
  rig r = rig_make(false);
  char *runs[3];
  (void)state;
  for (int i = 0; i < 3; i++) {
    ser_error err = {0};
    runs[i] = ser_format("%s/run-%d", r.folder, i + 1);
    ser_device *device;
    ser_device_properties properties;
    r.config.threads = i + 1;
    ASSERT_OK(ser_device_open(&device, &(ser_device_options){.kind = r.config.device, .threads = i + 1}, &err), err);
    device->rt->properties(device, &properties);
    assert_int_equal(properties.trainings, i + 1);
    ser_device_close(device);
    ASSERT_OK(run_job(&r, runs[i], false, &err), err);
  }
  for (int i = 1; i < 3; i++) {
    assert_same(runs[0], runs[i], "split.csv");
    for (size_t part = 0; part < 4; part++) {
      static const char *const names[] = {"model.safetensors", "history.csv", "checkpoint"};
      for (size_t n = 0; n < 3; n++) {
        char *name = ser_format("%s/%s", parts[part], names[n]);
        assert_same(runs[0], runs[i], name);
        free(name);
      }
    }
  }
  size_t size;
  char *config = bytes_of(runs[1], "config.yaml", &size);
  assert_non_null(strstr(config, "seeds"));
  assert_non_null(strstr(config, "# instruction set: "));
  assert_non_null(strstr(config, "# threads: 2"));
  free(config);
  for (int i = 0; i < 3; i++) free(runs[i]);
  rig_free(&r);
}

/* Onto a run that is there: refused without resume; with it, what is missing is made and the rest left as it is. */
static void test_goes_on(void **state) {
  rig r = rig_make(false);
  ser_error err = {0};
  ser_config config;
  (void)state;
  r.config.threads = 1;
  char *run = ser_path_join(r.folder, "run"), *other = ser_path_join(r.folder, "other");
  ASSERT_OK(run_job(&r, run, false, &err), err);
  assert_int_equal(run_job(&r, run, false, &err), SER_USAGE);
  assert_non_null(strstr(err.text, run));
  assert_non_null(strstr(err.text, "--resume"));
  ASSERT_OK(run_job(&r, other, false, &err), err);
  char *model = ser_format("%s/%s/model.safetensors", run, parts[2]);
  char *checkpoint = ser_format("%s/%s/checkpoint", run, parts[1]);
  assert_int_equal(remove(model), 0);
  assert_int_equal(remove(checkpoint), 0); /* this one is trained anew */
  ASSERT_OK(run_job(&r, run, true, &err), err);
  for (size_t part = 0; part < 4; part++) {
    char *name = ser_format("%s/model.safetensors", parts[part]);
    assert_same(run, other, name);
    free(name);
  }
  /* The resolved configuration is one that can be read, with the same values. */
  char *path = ser_path_join(run, "config.yaml");
  ser_text before = {0}, after = {0};
  ser_config_init(&config);
  ASSERT_OK(ser_config_read(&config, path, &err), err);
  ser_config_write(&before, &r.config);
  ser_config_write(&after, &config);
  assert_string_equal(before.data, after.data);
  ser_config_free(&config);
  free(before.data);
  free(after.data);
  free(path);
  free(model);
  free(checkpoint);
  free(run);
  free(other);
  rig_free(&r);
}

/* A model that the caller knows as finished stays without its checkpoint, but not where it is of another split. */
static void test_finished_without_checkpoint(void **state) {
  rig r = rig_make(false);
  ser_error err = {0};
  bool partial;
  size_t trained;
  (void)state;
  ASSERT_OK(ser_config_set(&r.config, "train.seeds=[1]", &err), err);
  char *run = ser_path_join(r.folder, "run"), *other = ser_path_join(r.folder, "other");
  char *checkpoint = ser_format("%s/%s/checkpoint", run, parts[0]);
  ser_train_options options = {
      .config = &r.config, .folder = run, .manifest = r.manifest, .resume = true, .anew = true, .finished = true};
  ASSERT_OK(ser_train_job(&trained, &partial, &options, &err), err);
  ASSERT_OK(run_job(&r, other, false, &err), err);
  assert_int_equal(remove(checkpoint), 0);
  ASSERT_OK(ser_train_job(&trained, &partial, &options, &err), err);
  assert_int_equal(trained, 0);
  assert_false(ser_file_exists(checkpoint));
  assert_same(run, other, "seed-1/fold-0/model.safetensors");
  ASSERT_OK(ser_config_set(&r.config, "split.seed=7", &err), err);
  ASSERT_OK(ser_train_job(&trained, &partial, &options, &err), err);
  assert_int_equal(trained, 2);
  assert_true(ser_file_exists(checkpoint));
  assert_int_equal(remove(checkpoint), 0);
  options.finished = false;
  ASSERT_OK(ser_train_job(&trained, &partial, &options, &err), err);
  assert_int_equal(trained, 1);
  free(checkpoint);
  free(run);
  free(other);
  rig_free(&r);
}

/* config.yaml keeps what the run was started on, whatever the last start was. */
static void test_starts(void **state) {
  rig r = rig_make(false);
  ser_error err = {0};
  ser_device *device;
  size_t size;
  (void)state;
  char *run = ser_path_join(r.folder, "run");
  ASSERT_OK(ser_config_set(&r.config, "train.seeds=[1]", &err), err);
  setenv("SERENADE_ISA", "base", 1);
  ASSERT_OK(run_job(&r, run, false, &err), err);
  unsetenv("SERENADE_ISA");
  char *config = bytes_of(run, "config.yaml", &size);
  assert_non_null(strstr(config, "# instruction set: base\n"));
  assert_non_null(strstr(config, "# started on: cpu base\n"));
  free(config);
  ASSERT_OK(ser_device_open(&device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &err), err);
  char *here = ser_computing_name(device), *both = ser_computing_join("cpu base", here);
  char *line = ser_format("# started on: %s\n", both);
  ser_device_close(device);
  for (int again = 0; again < 2; again++) {
    ASSERT_OK(run_job(&r, run, true, &err), err);
    config = bytes_of(run, "config.yaml", &size);
    assert_non_null(strstr(config, line));
    free(config);
  }
  free(here);
  free(both);
  free(line);
  free(run);
  rig_free(&r);
}

/* What a clip's features lack is said of the clip, and training goes on without it. */
static void test_too_short(void **state) {
  rig r = rig_make(true);
  ser_error err = {0};
  bool partial = false;
  size_t trained;
  (void)state;
  char *run = ser_path_join(r.folder, "run");
  ASSERT_OK(ser_config_set(&r.config, "train.seeds=[1]", &err), err);
  ser_train_options options = {.config = &r.config, .folder = run, .manifest = r.manifest};
  ASSERT_OK(ser_train_job(&trained, &partial, &options, &err), err);
  assert_true(partial);
  free(run);
  rig_free(&r);
}

/* A shard that rotted since: one warning, its clips are computed anew, and the training is as it would have been. */
static void test_rotten_shard(void **state) {
  rig r = rig_make(true);
  ser_error err = {0};
  ser_text said = {0};
  (void)state;
  ASSERT_OK(ser_config_set(&r.config, "train.seeds=[1]", &err), err);
  char *runs[2] = {ser_path_join(r.folder, "run"), ser_path_join(r.folder, "again")};
  char *cache = ser_path_join(runs[0], "cache"), *set = ser_format("cache.dir=%s", cache);
  ASSERT_OK(ser_config_set(&r.config, set, &err), err);
  for (int i = 0; i < 2; i++) {
    bool partial = false;
    size_t trained;
    ser_train_options options = {.config = &r.config, .folder = runs[i], .manifest = r.manifest};
    ASSERT_OK(ser_train_job(&trained, &partial, &options, &err), err);
    assert_true(partial); /* one clip is too short, before and after */
    if (i == 0) assert_int_equal(test_damage_shards(cache), 1);
  }
  assert_same(runs[0], runs[1], "seed-1/fold-0/model.safetensors");
  ASSERT_OK(ser_cache_info(cache, ser_feature_cache_columns, &said, &err), err);
  assert_non_null(strstr(said.data, "clips          23,"));
  free(said.data);
  free(set);
  free(cache);
  free(runs[0]);
  free(runs[1]);
  rig_free(&r);
}

/* A recording that is no longer the one that was indexed ends the job with its name, rather than being left out. */
static void test_changed(void **state) {
  rig r = rig_make(false);
  ser_error err = {0};
  float other[RATE / 2] = {0.5f, -0.25f};
  (void)state;
  char *wav = ser_path_join(r.folder, "03.wav"), *run = ser_path_join(r.folder, "run");
  test_write_wav(wav, other, RATE / 2, RATE);
  assert_int_equal(run_job(&r, run, false, &err), SER_FAILED);
  assert_non_null(strstr(err.text, wav));
  assert_non_null(strstr(err.text, "index"));
  free(wav);
  free(run);
  rig_free(&r);
}

/* split.txt tells what the parts do not show, and goes when another split has nothing of the kind to tell. */
static void test_split_told(void **state) {
  rig r = rig_make(false);
  ser_error err = {0};
  ser_text list = {0};
  size_t size;
  (void)state;
  ser_text_puts(&list, "path,part\n");
  for (int i = 0; i < CLIPS; i++)
    ser_text_printf(&list, "%02d.wav,%s\n", i == 20 ? 99 : i, i % 4 ? "train" : "test"); /* 20.wav is not in it */
  char *path = ser_path_join(r.folder, "list.csv"), *set = ser_format("split.file=%s", path);
  char *run = ser_path_join(r.folder, "run"), *told = ser_path_join(run, "split.txt");
  ASSERT_OK(ser_file_write(path, list.data, list.size, &err), err);
  const char *const settings[] = {"split.kind=file", set, "split.folds=0", "train.seeds=[1]"};
  for (size_t i = 0; i < 4; i++) ASSERT_OK(ser_config_set(&r.config, settings[i], &err), err);
  ASSERT_OK(run_job(&r, run, false, &err), err);
  char *text = bytes_of(run, "split.txt", &size);
  assert_non_null(
      strstr(text, "1 line of list.csv names a recording that the manifest does not have (99.wav for one)"));
  assert_non_null(strstr(text, "list.csv names no validation part: "));
  free(text);
  ASSERT_OK(ser_config_set(&r.config, "split.kind=random", &err), err);
  assert_int_equal(run_job(&r, run, true, &err), SER_USAGE); /* the checkpoint is of other clips */
  assert_false(ser_file_exists(told));
  free(told);
  free(set);
  free(path);
  free(run);
  free(list.data);
  rig_free(&r);
}

/* Progress names the training whose epoch it tells: by what tells the job's trainings apart. */
static void test_progress_names(void **state) {
  static const struct {
    const char *seeds, *folds, *words;
  } jobs[] = {{"train.seeds=[1,2]", "split.folds=2", " seed 2 fold 0 epoch 2 of 2, loss "},
              {"train.seeds=[1,2]", "split.folds=0", " seed 1 epoch 2 of 2, loss "},
              {"train.seeds=[1]", "split.folds=2", " fold 1 epoch 1 of 2, loss "},
              {"train.seeds=[1]", "split.folds=0", "/s) epoch 1 of 2, loss "}};
  rig r = rig_make(false);
  (void)state;
  r.config.threads = 1;
  for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
    ser_error err = {0};
    ASSERT_OK(ser_config_set(&r.config, jobs[i].seeds, &err), err);
    ASSERT_OK(ser_config_set(&r.config, jobs[i].folds, &err), err);
    char *run = ser_format("%s/told-%zu", r.folder, i);
    ser_log_set_quiet(false);
    test_clock_leaps(true);
    test_listen();
    ser_status status = run_job(&r, run, false, &err);
    char *said = test_heard(true);
    test_clock_leaps(false);
    ser_log_set_quiet(true);
    ASSERT_OK(status, err);
    if (!strstr(said, jobs[i].words)) fail_msg("nothing of '%s' in: %s", jobs[i].words, said);
    free(said);
    free(run);
  }
  rig_free(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_shared_out),
                                     cmocka_unit_test(test_goes_on),
                                     cmocka_unit_test(test_finished_without_checkpoint),
                                     cmocka_unit_test(test_starts),
                                     cmocka_unit_test(test_too_short),
                                     cmocka_unit_test(test_rotten_shard),
                                     cmocka_unit_test(test_changed),
                                     cmocka_unit_test(test_progress_names),
                                     cmocka_unit_test(test_split_told)};
  ser_log_set_quiet(true);
  return cmocka_run_group_tests_name("unit.train_job", tests, NULL, NULL);
}
