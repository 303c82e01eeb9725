/* Metrics of classification and their text forms. Numbers match scikit-learn (1.9) bit by bit, sums included, so that
 * the text of classification_report(digits=4, zero_division=0) matches to the letter, with the names of the classes
 * that occur among truths or answers, which all means but uar are over. war is accuracy_score; uar is
 * balanced_accuracy_score: recall averaged over the classes that occur in the truth; precision, recall and F1 are those
 * of precision_recall_fscore_support (average=None, "macro", "weighted"); confusion is confusion_matrix: rows actual,
 * columns predicted. */
#include "report/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"

/* numpy's order of adding up (pairwise summation): one after the other below eight, eight in a tree. */
static double sum(const double *values, int count) {
  if (count == 8)
    return ((values[0] + values[1]) + (values[2] + values[3])) + ((values[4] + values[5]) + (values[6] + values[7]));
  double total = 0;
  for (int i = 0; i < count; i++) total += values[i];
  return total;
}

static double share(int64_t part, int64_t whole) {
  return whole ? (double)part / (double)whole : 0;
}

bool ser_class_occurs(const ser_metrics *metrics, int label) {
  return metrics->support[label] || metrics->predicted[label];
}

/* Over the classes that occur: others would change the order of adding up. */
static double macro_mean(const ser_metrics *m, const double *values) {
  double occurring[SER_MAX_CLASSES];
  int count = 0;
  for (int c = 0; c < m->classes; c++)
    if (ser_class_occurs(m, c)) occurring[count++] = values[c];
  return count ? sum(occurring, count) / count : 0;
}

static double weighted_mean(const ser_metrics *m, const double *values) {
  double products[SER_MAX_CLASSES];
  int count = 0;
  for (int c = 0; c < m->classes; c++)
    if (ser_class_occurs(m, c)) products[count++] = values[c] * (double)m->support[c];
  return m->total ? sum(products, count) / (double)m->total : 0;
}

void ser_metrics_compute(ser_metrics *metrics, const int32_t *truth, const int32_t *answer, size_t count, int classes) {
  SER_CHECK(classes >= 1 && classes <= SER_MAX_CLASSES);
  memset(metrics, 0, sizeof *metrics);
  ser_metrics *m = metrics;
  m->classes = classes;
  m->total = (int64_t)count;
  for (size_t i = 0; i < count; i++) {
    SER_CHECK(truth[i] >= 0 && truth[i] < classes && answer[i] >= 0 && answer[i] < classes);
    m->confusion[truth[i]][answer[i]]++;
    m->support[truth[i]]++;
    m->predicted[answer[i]]++;
  }
  double occurring[SER_MAX_CLASSES];
  int64_t right = 0;
  int occur = 0;
  for (int c = 0; c < classes; c++) {
    int64_t hits = m->confusion[c][c];
    right += hits;
    m->precision[c] = share(hits, m->predicted[c]);
    m->recall[c] = share(hits, m->support[c]);
    m->f1[c] = share(2 * hits, m->support[c] + m->predicted[c]);
    if (m->support[c]) occurring[occur++] = m->recall[c];
  }
  m->war = share(right, m->total);
  m->uar = occur ? sum(occurring, occur) / occur : 0;
  m->macro_precision = macro_mean(m, m->precision);
  m->macro_recall = macro_mean(m, m->recall);
  m->macro_f1 = macro_mean(m, m->f1);
  m->weighted_precision = weighted_mean(m, m->precision);
  m->weighted_recall = weighted_mean(m, m->recall);
  m->weighted_f1 = weighted_mean(m, m->f1);
}

/* Characters of a UTF-8 text, as Python counts them. */
static int characters(const char *text) {
  int count = 0;
  for (; *text; text++) count += ((unsigned char)*text & 0xC0) != 0x80;
  return count;
}

static int widest(const char *const *labels, int classes, int least) {
  for (int c = 0; c < classes; c++)
    if (characters(labels[c]) > least) least = characters(labels[c]);
  return least;
}

/* The text flush right in so many characters. */
static void put_right(ser_text *text, const char *what, int width) {
  ser_text_printf(text, "%*s%s", width > characters(what) ? width - characters(what) : 0, "", what);
}

/* scikit-learn prints supports with a decimal where no answer at all is right: its counts are floats then. */
static void put_support(ser_text *text, const ser_metrics *metrics, int64_t support) {
  if (metrics->war == 0)
    ser_text_printf(text, " %9.1f\n", (double)support);
  else
    ser_text_printf(text, " %9" PRId64 "\n", support);
}

static void put_row(ser_text *text, const ser_metrics *metrics, const char *heading, int width, double precision,
                    double recall, double f1, int64_t support) {
  put_right(text, heading, width);
  ser_text_printf(text, "  %9.4f %9.4f %9.4f", precision, recall, f1);
  put_support(text, metrics, support);
}

void ser_classification_report(ser_text *text, const ser_metrics *metrics, const char *const *labels) {
  const ser_metrics *m = metrics;
  int width = (int)strlen("weighted avg");
  for (int c = 0; c < m->classes; c++)
    if (ser_class_occurs(m, c)) width = widest(&labels[c], 1, width);
  ser_text_printf(text, "%*s  %9s %9s %9s %9s\n\n", width, "", "precision", "recall", "f1-score", "support");
  for (int c = 0; c < m->classes; c++)
    if (ser_class_occurs(m, c))
      put_row(text, m, labels[c], width, m->precision[c], m->recall[c], m->f1[c], m->support[c]);
  ser_text_puts(text, "\n");
  put_right(text, "accuracy", width);
  ser_text_printf(text, "  %9s %9s %9.4f", "", "", m->war);
  put_support(text, m, m->total);
  put_row(text, m, "macro avg", width, m->macro_precision, m->macro_recall, m->macro_f1, m->total);
  put_row(text, m, "weighted avg", width, m->weighted_precision, m->weighted_recall, m->weighted_f1, m->total);
}

void ser_confusion_text(ser_text *text, const ser_metrics *metrics, const char *const *labels) {
  int name = widest(labels, metrics->classes, 6), column = widest(labels, metrics->classes, 5) + 2;
  for (int i = 0; i < metrics->classes; i++)
    for (int j = 0; j < metrics->classes; j++) {
      int digits = snprintf(NULL, 0, "%" PRId64, metrics->confusion[i][j]) + 2;
      if (digits > column) column = digits;
    }
  put_right(text, "actual", name);
  for (int j = 0; j < metrics->classes; j++) put_right(text, labels[j], column);
  ser_text_puts(text, "\n");
  for (int i = 0; i < metrics->classes; i++) {
    put_right(text, labels[i], name);
    for (int j = 0; j < metrics->classes; j++) ser_text_printf(text, "%*" PRId64, column, metrics->confusion[i][j]);
    ser_text_puts(text, "\n");
  }
}
