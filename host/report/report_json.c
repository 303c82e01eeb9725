/* report.json, for scripts. Shares are between 0 and 1; keys stand in this order:
 *
 *     version        1, of this layout
 *     serenade       the program's version
 *     title, model   texts
 *     manifest       its absolute path; only where it is not the run's own
 *     notes          [texts]
 *     labels         [texts], the order of everything below; all that the model knows
 *     clips          different ones
 *     answers        counted in the figures: several for a clip where several models answer it
 *     war, uar, macro_f1, weighted_f1
 *     macro, weighted    {precision, recall, f1}
 *     classes        {LABEL: {precision, recall, f1, support, predicted}}; means leave out those with neither of the
 *                    last two
 *     confusion      [[counts]], rows actual, columns predicted
 *     by_corpus, by_speaker, by_sex   {NAME: {clips, answers, war, uar, macro_f1, weighted_f1}}
 *     folds, seeds   {each: {NAME: as above}, mean: {the four}, deviation: {the four}}; only where there are several
 */
#include "report/figures.h"

#include <jansson.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/version.h"

static void set(json_t *object, const char *key, json_t *value) {
  SER_CHECK(json_object_set_new(object, key, value) == 0);
}

static void append(json_t *array, json_t *value) {
  SER_CHECK(json_array_append_new(array, value) == 0);
}

/* A JSON string; bytes that are no UTF-8 (a speaker's name in an old encoding) become question marks. */
static json_t *text_of(const char *bytes, size_t size) {
  json_t *string = json_stringn(bytes, size);
  if (string) return string;
  char *plain = ser_alloc(size);
  for (size_t i = 0; i < size; i++) plain[i] = (unsigned char)bytes[i] < 0x80 ? bytes[i] : '?';
  string = json_stringn(plain, size);
  free(plain);
  return string;
}

static json_t *text(const char *string) {
  ser_text whole = {0};
  ser_text_puts(&whole, string ? string : "");
  json_t *value = text_of(whole.data, whole.size);
  free(whole.data);
  return value;
}

static void add_note(void *context, const char *note, size_t size) {
  append(context, text_of(note, size));
}

static json_t *three(double precision, double recall, double f1) {
  json_t *object = json_object();
  set(object, "precision", json_real(precision));
  set(object, "recall", json_real(recall));
  set(object, "f1", json_real(f1));
  return object;
}

static void set_headlines(json_t *object, const ser_metrics *metrics) {
  for (int i = 0; i < SER_HEADLINES; i++) set(object, ser_headline_keys[i], json_real(ser_headline(metrics, i)));
}

static json_t *groups_of(const ser_groups *groups) {
  json_t *object = json_object();
  for (size_t i = 0; i < groups->count; i++) {
    json_t *group = json_object(), *name = text(groups->groups[i].name);
    set(group, "clips", json_integer((json_int_t)groups->groups[i].clips));
    set(group, "answers", json_integer(groups->groups[i].metrics.total));
    set_headlines(group, &groups->groups[i].metrics);
    set(object, json_string_value(name), group);
    json_decref(name);
  }
  return object;
}

static json_t *spread_of(const ser_groups *groups) {
  json_t *object = json_object(), *means = json_object(), *deviations = json_object();
  set(object, "each", groups_of(groups));
  for (int i = 0; i < SER_HEADLINES; i++) {
    double mean, deviation;
    ser_spread(&mean, &deviation, groups, i);
    set(means, ser_headline_keys[i], json_real(mean));
    set(deviations, ser_headline_keys[i], json_real(deviation));
  }
  set(object, "mean", means);
  set(object, "deviation", deviations);
  return object;
}

static json_t *classes_of(const ser_metrics *m, const char *const *labels) {
  json_t *object = json_object();
  for (int c = 0; c < m->classes; c++) {
    json_t *one = three(m->precision[c], m->recall[c], m->f1[c]);
    set(one, "support", json_integer(m->support[c]));
    set(one, "predicted", json_integer(m->predicted[c]));
    set(object, labels[c], one);
  }
  return object;
}

static json_t *confusion_of(const ser_metrics *m) {
  json_t *rows = json_array();
  for (int i = 0; i < m->classes; i++) {
    json_t *row = json_array();
    for (int j = 0; j < m->classes; j++) append(row, json_integer(m->confusion[i][j]));
    append(rows, row);
  }
  return rows;
}

void ser_report_json(ser_text *out, const ser_report *report, const ser_figures *figures) {
  const ser_metrics *m = &figures->pooled;
  json_t *root = json_object(), *notes = json_array(), *labels = json_array();
  set(root, "version", json_integer(1));
  set(root, "serenade", json_string(SER_VERSION));
  set(root, "title", text(report->title));
  set(root, "model", text(report->model));
  if (report->manifest_path) set(root, "manifest", text(report->manifest_path));
  ser_each_note(report->notes, add_note, notes);
  set(root, "notes", notes);
  for (int c = 0; c < report->classes; c++) append(labels, json_string(report->labels[c]));
  set(root, "labels", labels);
  set(root, "clips", json_integer((json_int_t)figures->clips));
  set(root, "answers", json_integer(m->total));
  set_headlines(root, m);
  set(root, "macro", three(m->macro_precision, m->macro_recall, m->macro_f1));
  set(root, "weighted", three(m->weighted_precision, m->weighted_recall, m->weighted_f1));
  set(root, "classes", classes_of(m, report->labels));
  set(root, "confusion", confusion_of(m));
  set(root, "by_corpus", groups_of(&figures->corpora));
  set(root, "by_speaker", groups_of(&figures->speakers));
  set(root, "by_sex", groups_of(&figures->sexes));
  if (figures->folds.count > 1) set(root, "folds", spread_of(&figures->folds));
  if (figures->seeds.count > 1) set(root, "seeds", spread_of(&figures->seeds));
  char *dump = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
  SER_CHECK(dump);
  ser_text_puts(out, dump);
  ser_text_puts(out, "\n");
  free(dump);
  json_decref(root);
}

bool ser_report_is_of(const char *folder, const char *manifest_path) {
  char *path = ser_path_join(folder, "report.json");
  json_t *root = json_load_file(path, 0, NULL), *wanted = text(manifest_path);
  bool same = json_equal(json_object_get(root, "manifest"), wanted);
  json_decref(root);
  json_decref(wanted);
  free(path);
  return same;
}
