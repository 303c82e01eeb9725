/* Figures of a report: metrics pooled and of groups of predictions, and their spread over folds and seeds. */
#include "report/figures.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum { BY_CORPUS, BY_SPEAKER, BY_SEX, BY_FOLD, BY_SEED } grouping;

/* A prediction and the key that it is sorted by: a number for folds and seeds, else a text. */
typedef struct {
  const char *text;
  int64_t number;
  size_t index;
} keyed;

static keyed key_of(const ser_report *report, size_t index, grouping by) {
  const ser_prediction *p = &report->predictions[index];
  const ser_row *row = &report->manifest->rows[p->row];
  keyed key = {"", 0, index};
  switch (by) {
  case BY_CORPUS:
    key.text = row->corpus;
    break;
  case BY_SPEAKER:
    key.text = row->speaker;
    break;
  case BY_SEX:
    key.text = row->sex;
    break;
  case BY_FOLD:
    key.number = p->fold;
    break;
  case BY_SEED:
    key.number = p->seed;
    break;
  }
  if (!key.text) key.text = "";
  return key;
}

static int compare_keys(const void *left, const void *right) {
  const keyed *a = left, *b = right;
  if (a->number != b->number) return a->number < b->number ? -1 : 1;
  int order = strcmp(a->text, b->text);
  if (order) return order;
  return a->index < b->index ? -1 : a->index > b->index;
}

static bool same_group(const keyed *a, const keyed *b) {
  return a->number == b->number && !strcmp(a->text, b->text);
}

static int compare_rows(const void *left, const void *right) {
  size_t a = *(const size_t *)left, b = *(const size_t *)right;
  return (a > b) - (a < b);
}

/* How many different rows there are among these; they are sorted. */
static size_t count_clips(size_t *rows, size_t count) {
  size_t clips = 0;
  if (count) qsort(rows, count, sizeof *rows, compare_rows);
  for (size_t i = 0; i < count; i++) clips += !i || rows[i] != rows[i - 1];
  return clips;
}

static void make_groups(ser_groups *groups, const ser_report *report, grouping by) {
  keyed *keys = ser_alloc(report->count * sizeof *keys);
  int32_t *truth = ser_alloc(report->count * sizeof *truth), *answer = ser_alloc(report->count * sizeof *answer);
  size_t *rows = ser_alloc(report->count * sizeof *rows);
  for (size_t i = 0; i < report->count; i++) keys[i] = key_of(report, i, by);
  qsort(keys, report->count, sizeof *keys, compare_keys);
  size_t capacity = 0;
  *groups = (ser_groups){0};
  for (size_t first = 0, last; first < report->count; first = last) {
    for (last = first; last < report->count && same_group(&keys[first], &keys[last]); last++) {
      truth[last - first] = report->predictions[keys[last].index].truth;
      answer[last - first] = report->predictions[keys[last].index].answer;
      rows[last - first] = report->predictions[keys[last].index].row;
    }
    SER_GROW(groups->groups, groups->count, capacity);
    ser_group *group = &groups->groups[groups->count++];
    const char *text = *keys[first].text ? keys[first].text : "unknown";
    group->name = by == BY_FOLD || by == BY_SEED ? ser_format("%" PRId64, keys[first].number) : ser_strdup(text);
    ser_metrics_compute(&group->metrics, truth, answer, last - first, report->classes);
    group->clips = count_clips(rows, last - first);
  }
  free(keys);
  free(rows);
  free(truth);
  free(answer);
}

void ser_figures_make(ser_figures *figures, const ser_report *report) {
  int32_t *truth = ser_alloc(report->count * sizeof *truth), *answer = ser_alloc(report->count * sizeof *answer);
  size_t *rows = ser_alloc(report->count * sizeof *rows);
  for (size_t i = 0; i < report->count; i++) {
    rows[i] = report->predictions[i].row;
    truth[i] = report->predictions[i].truth;
    answer[i] = report->predictions[i].answer;
  }
  ser_metrics_compute(&figures->pooled, truth, answer, report->count, report->classes);
  figures->clips = count_clips(rows, report->count);
  free(rows);
  free(truth);
  free(answer);
  make_groups(&figures->corpora, report, BY_CORPUS);
  make_groups(&figures->speakers, report, BY_SPEAKER);
  make_groups(&figures->sexes, report, BY_SEX);
  make_groups(&figures->folds, report, BY_FOLD);
  make_groups(&figures->seeds, report, BY_SEED);
}

static void free_groups(ser_groups *groups) {
  for (size_t i = 0; i < groups->count; i++) free(groups->groups[i].name);
  free(groups->groups);
}

void ser_figures_free(ser_figures *figures) {
  free_groups(&figures->corpora);
  free_groups(&figures->speakers);
  free_groups(&figures->sexes);
  free_groups(&figures->folds);
  free_groups(&figures->seeds);
}

const char *const ser_headline_keys[SER_HEADLINES] = {"war", "uar", "macro_f1", "weighted_f1"};
const char *const ser_headline_names[SER_HEADLINES] = {"WAR (accuracy)", "UAR (mean recall)", "macro F1",
                                                       "weighted F1"};

double ser_headline(const ser_metrics *metrics, int which) {
  const double values[SER_HEADLINES] = {metrics->war, metrics->uar, metrics->macro_f1, metrics->weighted_f1};
  return values[which];
}

void ser_spread(double *mean, double *deviation, const ser_groups *groups, int which) {
  double sum = 0, squares = 0;
  for (size_t i = 0; i < groups->count; i++) sum += ser_headline(&groups->groups[i].metrics, which);
  *mean = groups->count ? sum / (double)groups->count : 0;
  for (size_t i = 0; i < groups->count; i++) {
    double difference = ser_headline(&groups->groups[i].metrics, which) - *mean;
    squares += difference * difference;
  }
  *deviation = groups->count > 1 ? sqrt(squares / (double)(groups->count - 1)) : 0;
}

void ser_each_note(const char *notes, void (*each)(void *context, const char *note, size_t size), void *context) {
  while (notes && *notes) {
    size_t size = strcspn(notes, "\n");
    if (size) each(context, notes, size);
    notes += size + (notes[size] == '\n');
  }
}
