/* Reports: predictions, metrics pooled and by group, as text, JSON and pictures. */
#ifndef SER_REPORT_REPORT_H
#define SER_REPORT_REPORT_H

#include "corpus/manifest.h"
#include "report/metrics.h"

/* One answer. Texts belong to the manifest. */
typedef struct {
  size_t row;   /* the manifest's */
  int64_t seed; /* of the training that answered */
  int fold;
  int32_t truth, answer; /* label indices */
  float probabilities[SER_MAX_CLASSES];
} ser_prediction;

/* What a report is made of. */
typedef struct {
  const ser_manifest *manifest;
  const ser_prediction *predictions;
  size_t count;
  int classes;
  const char *const *labels; /* [classes] */
  const char *title;         /* "test", "fold 2 of 4" ... */
  const char *notes;         /* sentences, a line each: speakers overlap, ... ("" or NULL: none) */
  const char *model;         /* one line on what was evaluated */
  const char *manifest_path; /* absolute, of a manifest that is not the run's own; else NULL */
} ser_report;

/* Writes report.json, report.txt, predictions.csv (path, fold, truth, answer, LABEL...), confusion.png and
 * confusion.svg into the folder: WAR, UAR, macro and weighted F1, confusion matrix, scikit-learn's report, pooled and
 * by corpus, speaker and sex; with several folds, the mean and deviation of the folds beside the pooled figures. With
 * several seeds it is a summary: figures pooled over the seeds, their mean and deviation, and no predictions.csv, which
 * has no column for the seed. count 0 is refused: there is nothing to tell. */
ser_status ser_report_write(const ser_report *report, const char *folder, ser_error *err);

/* Whether the folder's report.json is that of this manifest (ser_report.manifest_path). */
bool ser_report_is_of(const char *folder, const char *manifest_path);

/* Evaluates a finished run (every seed and fold) and writes its reports: the test parts of its split, or, with
 * manifest_path, every usable row of that manifest into RUN/evaluate-NAME/ (evaluate-NAME-2 ... where that is of
 * another manifest). Several seeds or folds: each in its own folder and the summary (pooled out-of-fold figures, means)
 * in RUN. partial as in ser_train_job. A line per figure goes to `said`. */
ser_status ser_evaluate_job(const char *run_folder, const char *manifest_path, const ser_device_options *device,
                            ser_text *said, bool *partial, ser_error *err);

/* What ser_evaluate_job said of the reports that stand in RUN; no file is changed (said.c). */
ser_status ser_evaluate_said(ser_text *said, const char *run_folder, ser_error *err);
/* The lines of one report, by its report.json: its own figures, and where folds or seeds were pooled, their mean. */
ser_status ser_report_say(ser_text *said, const char *folder, ser_error *err);

/* The confusion matrix as a picture; kind by the path's suffix (.png, .svg). Legible in grey. Atomic. */
ser_status ser_confusion_picture(const ser_metrics *metrics, const char *const *labels, const char *title,
                                 const char *path, ser_error *err);

#endif
