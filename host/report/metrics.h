/* Metrics of classification, as scikit-learn computes them: accuracy (WAR), mean recall over the classes that occur
 * (UAR = balanced_accuracy_score), precision, recall, F1 and support of each class, macro and weighted means, the
 * confusion matrix (rows actual, columns predicted). zero_division = 0. A class occurs where it is among the truths or
 * the answers: means and rows of the report are over these alone, as where scikit-learn is told no labels. */
#ifndef SER_REPORT_METRICS_H
#define SER_REPORT_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"

enum { SER_MAX_CLASSES = 8 };

typedef struct {
  int classes;
  int64_t confusion[SER_MAX_CLASSES][SER_MAX_CLASSES];
  int64_t total;
  double war, uar;
  double precision[SER_MAX_CLASSES], recall[SER_MAX_CLASSES], f1[SER_MAX_CLASSES];
  int64_t support[SER_MAX_CLASSES], predicted[SER_MAX_CLASSES];
  double macro_precision, macro_recall, macro_f1; /* over the classes that occur */
  double weighted_precision, weighted_recall, weighted_f1;
} ser_metrics;

void ser_metrics_compute(ser_metrics *metrics, const int32_t *truth, const int32_t *answer, size_t count, int classes);
/* Among the truths or the answers. */
bool ser_class_occurs(const ser_metrics *metrics, int label);
/* scikit-learn's classification_report(digits=4), to the letter. */
void ser_classification_report(ser_text *text, const ser_metrics *metrics, const char *const *labels);
/* The confusion matrix as a table of text, rows actual. */
void ser_confusion_text(ser_text *text, const ser_metrics *metrics, const char *const *labels);

#endif
