/* Evaluating a run that is laid out by hand around small random models: which clips are answered, that the answers are
 * those of predict, where reports go, what is told, and what is refused. */
#include "support/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/file.h"
#include "model/safetensors.h"
#include "report/evaluate.h"
#include "report/predict.h"
#include "report/report.h"
#include "support/cache.h"
#include "support/model.h"
#include "train/train.h"

enum { CLIPS = 24, RATE = 22050, FOLDS = 2 };

typedef struct {
  char *folder, *run;
} made;

static char *clip_name(const made *m, int i) {
  return ser_format("%s/clip%02d.wav", m->folder, i);
}

static void write_text(const char *folder, const char *name, const ser_text *text) {
  ser_error err = {0};
  char *path = ser_path_join(folder, name);
  ASSERT_OK(ser_file_write(path, text->data, text->size, &err), err);
  free(path);
}

/* The manifest's rows as a CSV; emotions go round, speakers change every six clips. */
static void write_manifest(const made *m, const char *path, int first, int last, const char *status) {
  ser_error err = {0};
  ser_text text = {0};
  ser_text_puts(&text, "path,corpus,speaker,sex,emotion,intensity,statement,rate,channels,frames,seconds,size,mtime_ns,"
                       "hash,status,reason\n");
  for (int i = first; i < last; i++) {
    char *clip = clip_name(m, i), hex[SER_HASH_HEX];
    ser_hash hash;
    ASSERT_OK(ser_hash_file(&hash, clip, &err), err);
    ser_hash_hex(hex, &hash);
    ser_text_printf(&text, "%s,lab,lab_%d,female,%s,,,%d,1,9000,0.4,18044,1,%s,%s,%s\n", clip, i / 6,
                    ser_emotion_names[i % 6], RATE, hex, status, strcmp(status, "refused") ? "" : "truncated");
    free(clip);
  }
  ASSERT_OK(ser_file_write(path, text.data, text.size, &err), err);
  free(text.data);
}

/* In fold f the clips i with i % FOLDS == f are the test part. */
static void write_split(const made *m, int folds) {
  ser_text text = {0};
  ser_text_puts(&text, "path,part,fold\n");
  for (int f = 0; f < folds; f++)
    for (int i = 0; i < CLIPS; i++) {
      char *clip = clip_name(m, i);
      ser_text_printf(&text, "%s,%s,%d\n", clip, i % FOLDS == f ? "test" : i % 5 ? "train" : "validation", f);
      free(clip);
    }
  write_text(m->run, "split.csv", &text);
  free(text.data);
}

static void write_config(const made *m, const char *seeds) {
  ser_error err = {0};
  ser_text text = {0};
  ser_config config;
  char *set = ser_format("train.seeds=%s", seeds);
  ser_config_init(&config);
  ASSERT_OK(ser_config_set(&config, set, &err), err);
  ser_config_write(&text, &config);
  write_text(m->run, "config.yaml", &text);
  free(text.data);
  free(set);
  ser_config_free(&config);
}

static int set_up(void **state) {
  made *m = ser_alloc_zero(1, sizeof *m);
  ser_error err = {0};
  m->folder = test_folder_make("evaluate");
  m->run = ser_path_join(m->folder, "RUN");
  ASSERT_OK(ser_make_folders(m->run, &err), err);
  for (int i = 0; i < CLIPS; i++) {
    char *path = clip_name(m, i);
    int64_t samples = i == 4 ? 3000 : 9000 + 300 * i; /* clip 4 is too short for features */
    float *piece = test_speech((uint64_t)i, 2000, RATE), *speech = ser_alloc((size_t)samples * sizeof *speech);
    for (int64_t s = 0; s < samples; s++) speech[s] = piece[s % 2000];
    test_write_wav(path, speech, samples, RATE);
    free(speech);
    free(piece);
    free(path);
  }
  char *manifest = ser_path_join(m->run, "manifest.csv");
  write_manifest(m, manifest, 0, CLIPS, "ok");
  free(manifest);
  write_config(m, "[5]");
  write_split(m, 1);
  *state = m;
  return 0;
}

static int tear_down(void **state) {
  made *m = *state;
  test_folder_remove(m->folder);
  free(m->run);
  free(m);
  return 0;
}

/* The model's file says that it was trained with RUN's split and manifest as they are now. */
static void belong(const made *m, const char *model) {
  ser_error err = {0};
  ser_hash hash;
  ser_manifest manifest;
  ser_tensors t;
  ser_text file = {0};
  char split[SER_HASH_HEX], used[SER_HASH_HEX];
  char *paths[] = {ser_path_join(m->run, "split.csv"), ser_path_join(m->run, "manifest.csv")};
  ASSERT_OK(ser_hash_file(&hash, paths[0], &err), err);
  ser_hash_hex(split, &hash);
  ser_manifest_init(&manifest);
  ASSERT_OK(ser_manifest_read(&manifest, paths[1], &err), err);
  ser_manifest_usable_hash(used, &manifest);
  ASSERT_OK(ser_tensors_read(&t, model, &err), err);
  const char *values[16];
  for (size_t i = 0; i < t.metadata_count; i++) {
    bool of_split = !strcmp(t.keys[i], "split_hash"), of_manifest = !strcmp(t.keys[i], "manifest_hash");
    values[i] = of_split ? split : of_manifest ? used : t.values[i];
  }
  ser_tensors_text(&file, t.tensors, t.count, (const char *const *)t.keys, values, t.metadata_count);
  ASSERT_OK(ser_file_write(model, file.data, file.size, &err), err);
  ser_tensors_free(&t);
  ser_manifest_free(&manifest);
  free(file.data);
  free(paths[0]);
  free(paths[1]);
}

static char *write_model(const made *m, const char *part, uint64_t seed) {
  ser_error err = {0};
  char *folder = ser_path_join(m->run, part), *path = ser_path_join(folder, "model.safetensors");
  ASSERT_OK(ser_make_folders(folder, &err), err);
  test_model_write(path, SER_MFCC39, 6, seed);
  belong(m, path);
  free(folder);
  return path;
}

static ser_status evaluate(const made *m, const char *manifest, ser_text *said, bool *partial, ser_error *err) {
  return ser_evaluate_job(m->run, manifest, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, said, partial,
                          err);
}

static json_t *load(const made *m, const char *name) {
  char *path = ser_path_join(m->run, name);
  json_error_t error;
  json_t *root = json_load_file(path, 0, &error);
  if (!root) fail_msg("%s: %s", path, error.text);
  free(path);
  return root;
}

static bool noted(const json_t *report, const char *words) {
  const json_t *notes = json_object_get(report, "notes");
  for (size_t i = 0; i < json_array_size(notes); i++)
    if (strstr(json_string_value(json_array_get(notes, i)), words)) return true;
  return false;
}

typedef struct {
  const ser_csv *table;
  size_t at;
} comparing;

/* Each answer of predict against its row of predictions.csv: the same float. */
static ser_status compare_answer(void *context, const ser_answer *answer, ser_error *err) {
  comparing *c = context;
  (void)err;
  assert_string_equal(answer->path, ser_csv_cell(c->table, c->at, 0));
  for (int label = 0; label < 6; label++)
    assert_true(strtof(ser_csv_cell(c->table, c->at, 4 + label), NULL) == answer->whole.probabilities[label]);
  assert_string_equal(ser_csv_cell(c->table, c->at, 3), ser_emotion_names[answer->whole.label]);
  c->at++;
  return SER_OK;
}

static void test_one_model(void **state) {
  const made *m = *state;
  ser_error err = {0};
  ser_text said = {0};
  bool partial;
  ser_csv table;
  char *model = write_model(m, ".", 1), *path = ser_path_join(m->run, "predictions.csv");
  ASSERT_OK(evaluate(m, NULL, &said, &partial, &err), err);
  assert_true(partial); /* clip 4 */
  ASSERT_OK(ser_csv_read(&table, path, &err), err);
  assert_int_equal(table.rows, CLIPS / 2 - 1);
  ser_audio_source sources[CLIPS] = {{0}};
  for (size_t i = 0; i < table.rows; i++) {
    int clip = 2 * (int)(i + (i >= 2)); /* 0, 2, 6, 8 ... */
    char *want = clip_name(m, clip);
    assert_string_equal(ser_csv_cell(&table, i, 0), want);
    assert_string_equal(ser_csv_cell(&table, i, 2), ser_emotion_names[clip % 6]);
    sources[i].path = ser_csv_cell(&table, i, 0);
    free(want);
  }
  ser_predict_options options = {
      .model = model, .device = {.kind = SER_DEVICE_CPU, .threads = 1}, .jobs = 1, .window = -1};
  ser_predictor *predictor;
  comparing c = {&table, 0};
  ASSERT_OK(ser_predictor_open(&predictor, &options, &err), err);
  ASSERT_OK(ser_predict(predictor, sources, table.rows, compare_answer, &c, &err), err);
  assert_int_equal(c.at, table.rows);
  ser_predictor_close(predictor);
  json_t *report = load(m, "report.json");
  assert_true(noted(report, "Speakers overlap: 4 of the 4"));
  assert_true(noted(report, "1 recording could not be used (unreadable, too short ...) and is in no figure."));
  assert_non_null(strstr(said.data, "(11 clips)"));
  json_decref(report);
  ser_csv_free(&table);
  free(said.data);
  free(model);
  free(path);
}

/* What the training kept of how its split was made, and what the split leaves out, reach the report. */
static void test_split_notes(void **state) {
  const made *m = *state;
  ser_error err = {0};
  ser_text said = {0}, text = {0}, kept = {0};
  bool partial;
  ser_text_puts(&text, "path,part,fold\n");
  for (int i = 0; i < CLIPS; i++) {
    char *clip = clip_name(m, i);
    ser_text_printf(&text, "%s,%s,0\n", clip, i > 20 ? "" : i % 2 ? "train" : "test");
    free(clip);
  }
  write_text(m->run, "split.csv", &text);
  ser_text_puts(&kept, "3 lines of list.csv name recordings that the manifest does not have (x.wav for one).\n");
  write_text(m->run, "split.txt", &kept);
  free(write_model(m, ".", 1));
  ASSERT_OK(evaluate(m, NULL, &said, &partial, &err), err);
  json_t *report = load(m, "report.json");
  assert_true(noted(report, "3 lines of list.csv name recordings that the manifest does not have (x.wav for one)."));
  assert_true(noted(report, "Left out: 3 of the 24 usable recordings stand in no part of the split"));
  assert_true(
      noted(report, "No training clip is neutral, sad or fearful: the model cannot have learnt these emotions."));
  assert_true(noted(report, "No clip of the test part is happy, angry or disgust: the figures do not tell"));
  json_decref(report);
  free(said.data);
  free(text.data);
  free(kept.data);
}

/* A shard that rotted since: what it held is computed anew, and the answers are the same. */
static void test_rotten_shard(void **state) {
  const made *m = *state;
  ser_error err = {0};
  char *path = ser_path_join(m->run, "predictions.csv"), *cache = ser_path_join(m->run, "cache"), *bytes[2];
  size_t size[2];
  free(write_model(m, ".", 1));
  for (int i = 0; i < 2; i++) {
    ser_text said = {0};
    bool partial;
    ASSERT_OK(evaluate(m, NULL, &said, &partial, &err), err);
    ASSERT_OK(ser_file_read(&bytes[i], &size[i], path, &err), err);
    assert_int_equal(remove(path), 0);
    if (i == 0) assert_int_equal(test_damage_shards(cache), 1);
    free(said.data);
  }
  assert_int_equal(size[0], size[1]);
  assert_memory_equal(bytes[0], bytes[1], size[0]);
  free(bytes[0]);
  free(bytes[1]);
  free(cache);
  free(path);
}

/* Two seeds of two folds: reports of each part, of each seed out of folds, and a summary. */
static void test_seeds_and_folds(void **state) {
  const made *m = *state;
  ser_error err = {0};
  ser_text said = {0};
  bool partial;
  static const char *const parts[] = {"seed-5/fold-0", "seed-5/fold-1", "seed-9/fold-0", "seed-9/fold-1"};
  write_config(m, "[5, 9]");
  write_split(m, FOLDS);
  for (size_t i = 0; i < 4; i++) free(write_model(m, parts[i], 20 + i));
  ASSERT_OK(evaluate(m, NULL, &said, &partial, &err), err);
  int64_t confusion[2][6][6] = {{{0}}}; /* of seed 5 and seed 9, summed over their folds */
  for (size_t i = 0; i < 6; i++) {
    char *name = ser_format("%s/report.json", i < 4 ? parts[i] : i == 4 ? "seed-5" : "seed-9");
    json_t *report = load(m, name), *rows = json_object_get(report, "confusion");
    assert_int_equal(json_integer_value(json_object_get(report, "clips")), i == 0 || i == 2   ? 11
                                                                           : i == 1 || i == 3 ? 12
                                                                                              : 23);
    for (size_t r = 0; r < 36; r++) {
      json_int_t n = json_integer_value(json_array_get(json_array_get(rows, r / 6), r % 6));
      int64_t *sum = &confusion[i < 4 ? i / 2 : i - 4][r / 6][r % 6];
      if (i < 4)
        *sum += n;
      else
        assert_int_equal(*sum, n); /* out of folds: the sum of the folds */
    }
    assert_int_equal(json_object_size(json_object_get(json_object_get(report, "folds"), "each")), i < 4 ? 0 : 2);
    assert_true(i < 4 || strstr(json_string_value(json_object_get(report, "model")), "; 2 models")); /* of four */
    json_decref(report);
    free(name);
  }
  json_t *part = load(m, "seed-5/fold-1/report.json");
  assert_true(noted(part, "No training clip is happy, angry or disgust: "));
  assert_false(noted(part, "In some folds"));
  json_decref(part);
  json_t *summary = load(m, "report.json"), *seeds = json_object_get(summary, "seeds");
  assert_int_equal(json_integer_value(json_object_get(summary, "clips")), 23);
  assert_int_equal(json_integer_value(json_object_get(summary, "answers")), 46);
  assert_non_null(strstr(said.data, "(46 answers for 23 clips)"));
  ser_text again = {0};
  ASSERT_OK(ser_evaluate_said(&again, m->run, &err), err);
  assert_string_equal(again.data, said.data);
  free(again.data);
  assert_int_equal(json_object_size(json_object_get(seeds, "each")), 2);
  assert_true(noted(summary, "In some folds no training clip is neutral, happy, sad, angry, fearful or disgust: "));
  assert_false(noted(summary, "No clip of the test part"));
  char *at_seed = ser_path_join(m->run, "seed-9/predictions.csv"), *at_run = ser_path_join(m->run, "predictions.csv");
  assert_true(ser_file_exists(at_seed));
  assert_false(ser_file_exists(at_run)); /* it has no column for the seed */
  assert_non_null(strstr(said.data, "mean of 2 seeds: WAR"));
  json_decref(summary);
  free(at_seed);
  free(at_run);
  free(said.data);
}

static void test_other_manifest(void **state) {
  const made *m = *state;
  ser_error err = {0};
  ser_text said = {0};
  bool partial;
  free(write_model(m, ".", 1));
  char *path = ser_path_join(m->folder, "new lab.v2.csv");
  write_manifest(m, path, 6, 18, "new");
  ASSERT_OK(evaluate(m, path, &said, &partial, &err), err);
  assert_false(partial);
  json_t *report = load(m, "evaluate-new lab.v2/report.json");
  assert_int_equal(json_integer_value(json_object_get(report, "clips")), 12);
  assert_true(noted(report, "6 of the 12 clips were trained or validated on"));
  assert_true(noted(report, "Speakers overlap: 2 of the 2"));
  assert_string_equal(json_string_value(json_object_get(report, "manifest")), path);
  json_decref(report);
  /* The same manifest again takes its folder again; others of that name leave its reports alone. */
  static const char *const places[] = {"evaluate-new lab.v2-2/report.json", "evaluate-new lab.v2-3/report.json"};
  char *others[] = {ser_path_join(m->folder, "a/new lab.v2.csv"), ser_path_join(m->folder, "b/new lab.v2.csv")};
  for (int turn = 0; turn < 3; turn++) {
    char *other = turn ? others[turn - 1] : path, *above = ser_path_folder(other);
    ASSERT_OK(ser_make_folders(above, &err), err);
    write_manifest(m, other, 6, 18 - 2 * turn, "new");
    ASSERT_OK(evaluate(m, other, &said, &partial, &err), err);
    report = load(m, "evaluate-new lab.v2/report.json");
    assert_int_equal(json_integer_value(json_object_get(report, "clips")), 12);
    json_decref(report);
    free(above);
  }
  ASSERT_OK(evaluate(m, others[0], &said, &partial, &err), err);
  for (int i = 0; i < 2; i++) {
    report = load(m, places[i]);
    assert_int_equal(json_integer_value(json_object_get(report, "clips")), 10 - 2 * i);
    assert_string_equal(json_string_value(json_object_get(report, "manifest")), others[i]);
    json_decref(report);
    free(others[i]);
  }
  char *fourth = ser_path_join(m->run, "evaluate-new lab.v2-4");
  assert_false(ser_file_exists(fourth));
  free(fourth);
  write_manifest(m, path, 0, 3, "refused"); /* nothing usable */
  assert_int_equal(evaluate(m, path, &said, &partial, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "no answer"));
  char *at_run = ser_path_join(m->run, "report.json");
  assert_false(ser_file_exists(at_run));
  free(at_run);
  free(path);
  free(said.data);
}

/* What the models say rules over what config.yaml says now. */
static void test_models_rule(void **state) {
  const made *m = *state;
  ser_error err = {0};
  ser_text said = {0}, yaml = {0}, edited = {0};
  bool partial;
  ser_config config;
  char *path = ser_path_join(m->run, "predictions.csv"), *before, *after;
  size_t size, again;
  free(write_model(m, ".", 1));
  ASSERT_OK(evaluate(m, NULL, &said, &partial, &err), err);
  ASSERT_OK(ser_file_read(&before, &size, path, &err), err);
  ser_config_init(&config);
  ASSERT_OK(ser_config_set(&config, "features.mfcc39.mels=40", &err), err);
  ASSERT_OK(ser_config_set(&config, "emotions=8", &err), err);
  ser_config_write(&yaml, &config);
  write_text(m->run, "config.yaml", &yaml);
  ASSERT_OK(evaluate(m, NULL, &edited, &partial, &err), err);
  ASSERT_OK(ser_file_read(&after, &again, path, &err), err);
  assert_int_equal(size, again);
  assert_memory_equal(before, after, size);
  assert_string_equal(said.data, edited.data);
  ser_config_free(&config);
  free(before);
  free(after);
  free(path);
  free(yaml.data);
  free(said.data);
  free(edited.data);
}

/* A split that the model was not trained with is no test: refused, with the cure, and of another manifest too, whose
 * report would say wrongly what was trained on. Nothing is written. */
static void test_other_split(void **state) {
  const made *m = *state;
  ser_error err = {0};
  ser_text said = {0};
  bool partial;
  char *model = write_model(m, ".", 1), *report = ser_path_join(m->run, "report.json");
  char *other = ser_path_join(m->folder, "other.csv");
  char *split = ser_path_join(m->run, "split.csv"), *text, *at;
  size_t size;
  write_manifest(m, other, 6, 18, "ok");
  ASSERT_OK(ser_file_read(&text, &size, split, &err), err);
  at = strstr(text, ",train,"); /* a clip that was trained on is called a test */
  ser_text edited = {0};
  ser_text_printf(&edited, "%.*s,test,%s", (int)(at - text), text, at + strlen(",train,"));
  write_text(m->run, "split.csv", &edited);
  for (int given = 0; given < 2; given++) {
    err = (ser_error){0};
    assert_int_equal(evaluate(m, given ? other : NULL, &said, &partial, &err), SER_FAILED);
    assert_non_null(strstr(err.text, split));
    assert_non_null(strstr(err.text, "is not the split that"));
    assert_non_null(strstr(err.text, "--resume -o "));
    assert_false(ser_file_exists(report));
  }
  ASSERT_OK(ser_file_write(split, text, size, &err), err);
  ASSERT_OK(evaluate(m, NULL, &said, &partial, &err), err);
  ASSERT_OK(evaluate(m, other, &said, &partial, &err), err);
  free(said.data);
  free(edited.data);
  free(text);
  free(split);
  free(other);
  free(report);
  free(model);
}

/* RUN's manifest, indexed or audited again: other times and rows that are not used change nothing; another label is
 * told in the report, and the label that stands there now counts. */
static void test_changed_manifest(void **state) {
  const made *m = *state;
  ser_error err = {0};
  ser_manifest manifest;
  bool partial;
  char *model = write_model(m, ".", 1), *path = ser_path_join(m->run, "manifest.csv");
  for (int relabelled = 0; relabelled < 2; relabelled++) {
    ser_text said = {0};
    ser_manifest_init(&manifest);
    ASSERT_OK(ser_manifest_read(&manifest, path, &err), err);
    for (size_t i = 0; i < manifest.count; i++) manifest.rows[i].mtime_ns += 1000;
    manifest.rows[0].status = SER_ROW_OK;
    manifest.rows[0].reason = SER_REASON_CLIPPED;
    if (relabelled) manifest.rows[2].emotion = SER_DISGUST;
    ASSERT_OK(ser_manifest_write(&manifest, path, &err), err);
    ser_manifest_free(&manifest);
    ASSERT_OK(evaluate(m, NULL, &said, &partial, &err), err);
    json_t *report = load(m, "report.json");
    assert_int_equal(noted(report, "The manifest of the run has changed since the training"), relabelled);
    json_decref(report);
    free(said.data);
  }
  free(model);
  free(path);
}

static void test_refused(void **state) {
  const made *m = *state;
  ser_error err = {0};
  ser_text said = {0};
  bool partial;
  assert_int_equal(evaluate(m, NULL, &said, &partial, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "model.safetensors is missing"));
  assert_int_equal(ser_evaluate_job(m->folder, NULL, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &said,
                                    &partial, &err),
                   SER_USAGE);
  assert_non_null(strstr(err.text, "holds no run"));
  write_config(m, "[5, 9]");
  free(write_model(m, "seed-5/fold-0", 1));
  char *other = write_model(m, "seed-9/fold-0", 2);
  test_model_write(other, SER_MFCC39, 8, 2);
  assert_int_equal(evaluate(m, NULL, &said, &partial, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "other labels or features"));
  free(other);
  assert_null(said.data);
}

static void test_one_answer(void **state) {
  (void)state;
  static const char *const labels[] = {"neutral", "happy", "sad"};
  ser_prediction predictions[3] = {{.truth = 0, .answer = 2}, {.truth = 1, .answer = 2}, {.truth = 2, .answer = 2}};
  ser_text notes = {0};
  ser_one_answer_note(&notes, predictions, 0, labels);
  ser_one_answer_note(&notes, predictions, 1, labels); /* a single clip's one answer says nothing */
  assert_null(notes.data);
  ser_one_answer_note(&notes, predictions, 3, labels);
  assert_non_null(strstr(notes.data, "Every clip is answered with sad"));
  predictions[1].answer = 1;
  ser_text other = {0};
  ser_one_answer_note(&other, predictions, 3, labels);
  assert_null(other.data);
  free(notes.data);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_one_model, set_up, tear_down),
      cmocka_unit_test(test_one_answer),
      cmocka_unit_test_setup_teardown(test_split_notes, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_rotten_shard, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_seeds_and_folds, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_other_manifest, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_models_rule, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_other_split, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_changed_manifest, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
