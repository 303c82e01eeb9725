/* Reports: every file is written, JSON and CSV read back with the numbers that went in, pictures have their size and
 * are the same each time, groups and spreads are those of the predictions. */
#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cairo.h>
#include <jansson.h>

#include "base/file.h"
#include "report/figures.h"
#include "report/score.h"

enum { CLIPS = 90, CLASSES = 6 };
static const char *const labels[] = {"neutral", "happy", "sad", "angry", "fearful", "disgust"};

typedef struct {
  char *folder;
  ser_manifest manifest;
  ser_row rows[CLIPS];
  ser_prediction predictions[CLIPS * 3];
  ser_report report;
} made;

/* Rows hold texts that may be written to. */
static char corpora[2][8] = {"ravdess", "tess"};
static char speakers[4][12] = {"ravdess_01", "tess_oaf", "ravdess_02", ""};
static char sexes[3][8] = {"male", "female", ""};

static void draw(ser_prediction *p, size_t row, int fold, int64_t seed, uint64_t number) {
  p->row = row;
  p->fold = fold;
  p->seed = seed;
  p->truth = (int32_t)(row % CLASSES);
  float sum = 0;
  for (int c = 0; c < CLASSES; c++) {
    p->probabilities[c] = 0.01f + (1 + test_random(number, row * CLASSES + (uint64_t)c)) * (c == p->truth ? 2 : 1);
    sum += p->probabilities[c];
  }
  for (int c = 0; c < CLASSES; c++) p->probabilities[c] /= sum;
  p->answer = ser_best_label(p->probabilities, CLASSES);
}

static int set_up(void **state) {
  made *m = ser_alloc_zero(1, sizeof *m);
  m->folder = test_folder_make("report");
  for (size_t i = 0; i < CLIPS; i++) {
    m->rows[i] = (ser_row){.path = ser_format("/data/a, \"quoted\" folder/clip %03zu.wav", i),
                           .corpus = corpora[i % 2],
                           .speaker = speakers[i % 4],
                           .sex = sexes[i % 3],
                           .emotion = (int)(i % CLASSES)};
    draw(&m->predictions[i], i, (int)(i % 3), 7, 1);
  }
  m->manifest = (ser_manifest){.rows = m->rows, .count = CLIPS};
  m->report = (ser_report){.manifest = &m->manifest,
                           .predictions = m->predictions,
                           .count = CLIPS,
                           .classes = CLASSES,
                           .labels = labels,
                           .title = "Test part",
                           .notes = "Speakers overlap: all of them.\nA second note.\n",
                           .model = "a model"};
  *state = m;
  return 0;
}

static int tear_down(void **state) {
  made *m = *state;
  for (size_t i = 0; i < CLIPS; i++) free(m->rows[i].path);
  test_folder_remove(m->folder);
  free(m);
  return 0;
}

static json_t *load(const made *m) {
  char *path = ser_path_join(m->folder, "report.json");
  json_error_t error;
  json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
  if (!root) fail_msg("%s: %s", path, error.text);
  free(path);
  return root;
}

static double real(const json_t *object, const char *key) {
  json_t *value = json_object_get(object, key);
  if (!json_is_number(value)) fail_msg("report.json has no number %s", key);
  return json_number_value(value);
}

/* The figures of the predictions for which the filter holds, counted anew. */
static ser_metrics count(const made *m, int (*keep)(const made *, size_t)) {
  int32_t truth[CLIPS * 3], answer[CLIPS * 3];
  size_t n = 0;
  ser_metrics metrics;
  for (size_t i = 0; i < m->report.count; i++) {
    if (!keep(m, i)) continue;
    truth[n] = m->predictions[i].truth;
    answer[n++] = m->predictions[i].answer;
  }
  ser_metrics_compute(&metrics, truth, answer, n, CLASSES);
  return metrics;
}
static int everything(const made *m, size_t i) {
  return m && i < SIZE_MAX;
}
static int of_tess(const made *m, size_t i) {
  return m->predictions[i].row % 2 == 1;
}
static int without_speaker(const made *m, size_t i) {
  return m->predictions[i].row % 4 == 3;
}
static int of_women(const made *m, size_t i) {
  return m->predictions[i].row % 3 == 1;
}
static int of_fold_two(const made *m, size_t i) {
  return m->predictions[i].fold == 2;
}

static void assert_figures(const json_t *object, const ser_metrics *want) {
  assert_int_equal(json_integer_value(json_object_get(object, "answers")), want->total);
  assert_true(fabs(real(object, "war") - want->war) < 1e-14);
  assert_true(fabs(real(object, "uar") - want->uar) < 1e-14);
  assert_true(fabs(real(object, "macro_f1") - want->macro_f1) < 1e-14);
  assert_true(fabs(real(object, "weighted_f1") - want->weighted_f1) < 1e-14);
}

static void assert_group(const json_t *root, const char *by, const char *name, ser_metrics want) {
  json_t *group = json_object_get(json_object_get(root, by), name);
  if (!group) fail_msg("report.json has no %s in %s", name, by);
  assert_figures(group, &want);
}

static void test_json(void **state) {
  made *m = *state;
  ser_error err = {0};
  ASSERT_OK(ser_report_write(&m->report, m->folder, &err), err);
  json_t *root = load(m);
  ser_metrics all = count(m, everything);
  assert_figures(root, &all);
  assert_int_equal(json_integer_value(json_object_get(root, "version")), 1);
  assert_string_equal(json_string_value(json_array_get(json_object_get(root, "notes"), 1)), "A second note.");
  assert_int_equal(json_array_size(json_object_get(root, "notes")), 2);
  assert_string_equal(json_string_value(json_array_get(json_object_get(root, "labels"), 4)), "fearful");
  for (size_t i = 0; i < CLASSES; i++)
    for (size_t j = 0; j < CLASSES; j++)
      assert_int_equal(json_integer_value(json_array_get(json_array_get(json_object_get(root, "confusion"), i), j)),
                       all.confusion[i][j]);
  const json_t *sad = json_object_get(json_object_get(root, "classes"), "sad");
  assert_true(fabs(real(sad, "recall") - all.recall[2]) < 1e-14);
  assert_int_equal(json_integer_value(json_object_get(sad, "support")), all.support[2]);
  assert_group(root, "by_corpus", "tess", count(m, of_tess));
  assert_group(root, "by_speaker", "unknown", count(m, without_speaker));
  assert_group(root, "by_sex", "female", count(m, of_women));
  assert_int_equal(json_object_size(json_object_get(root, "by_speaker")), 4);
  assert_null(json_object_get(root, "seeds"));
  json_decref(root);
}

static void test_folds(void **state) {
  made *m = *state;
  ser_error err = {0};
  ASSERT_OK(ser_report_write(&m->report, m->folder, &err), err);
  json_t *root = load(m), *folds = json_object_get(root, "folds"), *each = json_object_get(folds, "each");
  assert_int_equal(json_object_size(each), 3);
  ser_metrics second = count(m, of_fold_two);
  assert_figures(json_object_get(each, "2"), &second);
  double war[3], mean = 0, squares = 0;
  const char *const names[] = {"0", "1", "2"};
  for (int i = 0; i < 3; i++) mean += (war[i] = real(json_object_get(each, names[i]), "war")) / 3;
  for (int i = 0; i < 3; i++) squares += (war[i] - mean) * (war[i] - mean);
  assert_true(squares > 0);
  assert_true(fabs(real(json_object_get(folds, "mean"), "war") - mean) < 1e-12);
  assert_true(fabs(real(json_object_get(folds, "deviation"), "war") - sqrt(squares / 2)) < 1e-12);
  json_decref(root);
}

/* Only two emotions occur: the head, "By corpus" and the report's rows are over these, everywhere alike; the confusion
 * matrix keeps all labels. The values are scikit-learn's (f1_score, recall_score, classification_report, no labels). */
static void test_two_emotions(void **state) {
  made *m = *state;
  ser_error err = {0};
  char *data, *path = ser_path_join(m->folder, "report.txt");
  size_t size;
  for (size_t i = 0; i < 4; i++) {
    m->predictions[i].row = 0;
    m->predictions[i].fold = 0;
    m->predictions[i].truth = i < 2 ? 1 : 2;
    m->predictions[i].answer = i ? 2 : 1;
  }
  m->report.count = 4;
  ASSERT_OK(ser_report_write(&m->report, m->folder, &err), err);
  json_t *root = load(m), *group = json_object_get(json_object_get(root, "by_corpus"), "ravdess");
  const json_t *macro = json_object_get(root, "macro");
  assert_true(fabs(real(root, "macro_f1") - (2.0 / 3 + 4.0 / 5) / 2) < 1e-14);
  assert_true(real(root, "macro_f1") == real(group, "macro_f1") && real(root, "macro_f1") == real(macro, "f1"));
  assert_true(real(macro, "recall") == 0.75 && real(root, "uar") == 0.75);
  assert_int_equal(json_array_size(json_object_get(root, "confusion")), CLASSES);
  assert_int_equal(json_object_size(json_object_get(root, "classes")), CLASSES);
  json_decref(root);
  ASSERT_OK(ser_file_read(&data, &size, path, &err), err);
  assert_non_null(strstr(data, "\n       happy     1.0000    0.5000    0.6667         2\n"
                               "         sad     0.6667    1.0000    0.8000         2\n\n"
                               "    accuracy                         0.7500         4\n"
                               "   macro avg     0.8333    0.7500    0.7333         4\n"));
  assert_null(strstr(data, "neutral     0.0000"));
  assert_non_null(strstr(data, "\nneutral        0        0"));
  free(data);
  free(path);
}

/* Three seeds over the same clips: a summary without predictions. */
static void test_seeds(void **state) {
  made *m = *state;
  ser_error err = {0};
  for (size_t i = 0; i < CLIPS * 3; i++) draw(&m->predictions[i], i % CLIPS, 0, (int64_t)(10 - i / CLIPS), i / CLIPS);
  m->report.count = CLIPS * 3;
  ASSERT_OK(ser_report_write(&m->report, m->folder, &err), err);
  json_t *root = load(m), *each = json_object_get(json_object_get(root, "seeds"), "each");
  assert_int_equal(json_object_size(each), 3);
  assert_string_equal(json_object_iter_key(json_object_iter(each)), "8"); /* by number: 8, 9, 10 */
  double mean = (real(json_object_get(each, "8"), "uar") + real(json_object_get(each, "9"), "uar") +
                 real(json_object_get(each, "10"), "uar")) /
                3;
  assert_true(fabs(real(json_object_get(json_object_get(root, "seeds"), "mean"), "uar") - mean) < 1e-12);
  assert_true(fabs(real(root, "uar") - mean) < 1e-12); /* the same clips for every seed */
  assert_int_equal(json_integer_value(json_object_get(root, "clips")), CLIPS);
  assert_int_equal(json_integer_value(json_object_get(root, "answers")), 3 * CLIPS);
  json_t *tess = json_object_get(json_object_get(root, "by_corpus"), "tess");
  assert_int_equal(json_integer_value(json_object_get(tess, "clips")), CLIPS / 2);
  assert_int_equal(json_integer_value(json_object_get(tess, "answers")), 3 * CLIPS / 2);
  char *data, *text = ser_path_join(m->folder, "report.txt");
  size_t size;
  ASSERT_OK(ser_file_read(&data, &size, text, &err), err);
  assert_non_null(strstr(data, "\nclips                     90\nanswers                  270\n"));
  assert_non_null(strstr(data, "\ncorpus    answers "));
  assert_non_null(strstr(data, "\nseed          clips "));
  free(data);
  free(text);
  char *path = ser_path_join(m->folder, "predictions.csv");
  assert_false(ser_file_exists(path));
  free(path);
  json_decref(root);
}

static void test_predictions(void **state) {
  made *m = *state;
  ser_error err = {0};
  ser_csv table;
  char *path = ser_path_join(m->folder, "predictions.csv");
  ASSERT_OK(ser_report_write(&m->report, m->folder, &err), err);
  ASSERT_OK(ser_csv_read(&table, path, &err), err);
  assert_int_equal(table.rows, CLIPS);
  assert_int_equal(table.columns, 4 + CLASSES);
  const char *const names[] = {"path", "fold", "truth", "answer", "neutral"};
  for (size_t i = 0; i < 5; i++) assert_string_equal(table.names[i], names[i]);
  for (size_t i = 0; i < CLIPS; i++) {
    const ser_prediction *p = &m->predictions[i];
    assert_string_equal(ser_csv_cell(&table, i, 0), m->rows[p->row].path);
    assert_int_equal(atoi(ser_csv_cell(&table, i, 1)), p->fold);
    assert_string_equal(ser_csv_cell(&table, i, 2), labels[p->truth]);
    assert_string_equal(ser_csv_cell(&table, i, 3), labels[p->answer]);
    for (int c = 0; c < CLASSES; c++) assert_true(strtof(ser_csv_cell(&table, i, 4 + c), NULL) == p->probabilities[c]);
  }
  ser_csv_free(&table);
  free(path);
}

static void test_text(void **state) {
  made *m = *state;
  ser_error err = {0};
  ser_text want = {0};
  char *path = ser_path_join(m->folder, "report.txt"), *data;
  size_t size;
  ser_metrics all = count(m, everything);
  ASSERT_OK(ser_report_write(&m->report, m->folder, &err), err);
  ASSERT_OK(ser_file_read(&data, &size, path, &err), err);
  assert_non_null(strstr(data, "- Speakers overlap: all of them.\n"));
  ser_classification_report(&want, &all, labels);
  assert_non_null(strstr(data, want.data));
  free(want.data);
  want = (ser_text){0};
  ser_confusion_text(&want, &all, labels);
  assert_non_null(strstr(data, want.data));
  char *war = ser_format("WAR (accuracy)      %7.2f%%", 100 * all.war);
  assert_non_null(strstr(data, war));
  for (const char *line = data, *end; *line; line = end + 1) { /* notes are wrapped, tables are narrow */
    end = strchr(line, '\n');
    assert_non_null(end);
    assert_true(end - line <= 100);
  }
  free(war);
  free(want.data);
  free(data);
  free(path);
}

static void test_long_note(void **state) {
  made *m = *state;
  ser_text note = {0}, text = {0};
  ser_figures figures;
  for (int i = 0; i < 60; i++) ser_text_printf(&note, "word%d ", i);
  m->report.notes = note.data;
  ser_figures_make(&figures, &m->report);
  ser_report_text(&text, &m->report, &figures);
  const char *at = strstr(text.data, "- word0 ");
  assert_non_null(at);
  for (int i = 0; i < 60; i++) { /* nothing is lost at the breaks */
    char word[16];
    snprintf(word, sizeof word, "word%d", i);
    assert_non_null(at = strstr(at, word));
  }
  for (const char *line = strstr(text.data, "- word0 "), *end; line < at; line = end + 1) {
    end = strchr(line, '\n');
    assert_true(end - line <= 100 && end[-1] != ' ');
  }
  ser_figures_free(&figures);
  free(note.data);
  free(text.data);
}

static void test_nothing(void **state) {
  made *m = *state;
  ser_error err = {0};
  m->report.count = 0;
  assert_int_equal(ser_report_write(&m->report, m->folder, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "no answer"));
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

static char *draw_to(const made *m, const char *name, const ser_metrics *metrics, size_t *size) {
  ser_error err = {0};
  char *path = ser_path_join(m->folder, name), *data;
  ASSERT_OK(ser_confusion_picture(metrics, labels, "A title", path, &err), err);
  ASSERT_OK(ser_file_read(&data, size, path, &err), err);
  free(path);
  return data;
}

/* How much ink is on a picture: 1 is all black. */
static double ink(const made *m, const char *name, int *width, int *height) {
  char *path = ser_path_join(m->folder, name);
  cairo_surface_t *surface = cairo_image_surface_create_from_png(path);
  assert_int_equal(cairo_surface_status(surface), CAIRO_STATUS_SUCCESS);
  *width = cairo_image_surface_get_width(surface);
  *height = cairo_image_surface_get_height(surface);
  const unsigned char *pixels = cairo_image_surface_get_data(surface);
  int stride = cairo_image_surface_get_stride(surface);
  double sum = 0;
  for (int y = 0; y < *height; y++)
    for (int x = 0; x < 4 * *width; x++) sum += x % 4 == 3 ? 0 : 255 - pixels[y * stride + x];
  cairo_surface_destroy(surface);
  free(path);
  return sum / 765 / *width / *height;
}

static void test_png(void **state) {
  const made *m = *state;
  ser_metrics all = count(m, everything), right = {.classes = CLASSES, .total = CLASSES};
  for (int c = 0; c < CLASSES; c++) right.confusion[c][c] = right.support[c] = 1;
  size_t size, again;
  char *first = draw_to(m, "a.png", &all, &size), *second = draw_to(m, "b.png", &all, &again);
  assert_int_equal(size, again);
  assert_memory_equal(first, second, size);
  free(first);
  free(second);
  int width, height, want_width, want_height;
  double mixed = ink(m, "a.png", &width, &height);
  ser_confusion_picture_size(&want_width, &want_height, &all, labels);
  assert_int_equal(width, want_width);
  assert_int_equal(height, want_height);
  assert_true(width > 1000 && height > 700);
  assert_true(mixed > 0.02 && mixed < 0.6);
  free(draw_to(m, "right.png", &right, &size));
  assert_true(ink(m, "right.png", &width, &height) > 0.05); /* six cells in the darkest shade */
}

static void test_svg(void **state) {
  const made *m = *state;
  ser_metrics all = count(m, everything);
  size_t size, again;
  char *first = draw_to(m, "a.svg", &all, &size);
  free(draw_to(m, "between.png", &all, &again)); /* surfaces in between change no name in the file */
  char *second = draw_to(m, "b.svg", &all, &again);
  assert_int_equal(size, again);
  assert_memory_equal(first, second, size);
  assert_non_null(strstr(first, "<svg "));
  assert_non_null(strstr(first, "</svg>"));
  assert_non_null(strstr(first, "glyph")); /* its texts are there */
  free(first);
  free(second);
}

static void test_other_suffix(void **state) {
  const made *m = *state;
  ser_error err = {0};
  ser_metrics all = count(m, everything);
  assert_int_equal(ser_confusion_picture(&all, labels, "t", "picture.gif", &err), SER_USAGE);
  assert_non_null(strstr(err.text, "picture.gif"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_json, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_folds, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_two_emotions, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_seeds, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_predictions, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_text, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_long_note, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_nothing, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_png, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_svg, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_other_suffix, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
