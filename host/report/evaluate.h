/* Within the room: a finished run opened for evaluation, and what its reports say in words. */
#ifndef SER_REPORT_EVALUATE_H
#define SER_REPORT_EVALUATE_H

#include "report/report.h"
#include "train/train.h"

typedef struct {
  const char *folder;       /* RUN */
  ser_config config;        /* RUN/config.yaml as it stands now */
  ser_manifest trained;     /* RUN/manifest.csv */
  ser_split split;          /* RUN/split.csv and split.txt, over the rows of `trained` */
  ser_run_parts parts;      /* every seed and fold */
  ser_model_info *models;   /* [parts.count]; they agree on labels and features */
  ser_manifest given;       /* --manifest's rows, else empty */
  char *manifest_path;      /* theirs, absolute, else NULL */
  bool other;               /* `given` is what is evaluated */
  bool changed;             /* `trained` is not what the models were trained with */
  char *out;                /* where the reports go */
  ser_run_parts out_parts;  /* the folders of each part's report */
  char *cache;              /* folder */
  bool *usable;             /* [rows of the manifest] have features and a label of the models */
  size_t unknown, unusable; /* rows left out: of emotions without a label; that could not be used */
} ser_evaluation;

/* Reads and checks a run (evaluate_run.c). Free it whatever came of it. */
ser_status ser_evaluation_open(ser_evaluation *evaluation, const char *run_folder, const char *manifest_path,
                               ser_error *err);
void ser_evaluation_free(ser_evaluation *evaluation);

/* The manifest whose rows are evaluated. */
const ser_manifest *ser_evaluation_manifest(const ser_evaluation *evaluation);
/* The label index of a row's emotion, or -1. */
int32_t ser_evaluation_label(const ser_evaluation *evaluation, const ser_row *row);
/* Whether a row stands in the evaluated part of a fold (fold -1: of any), whatever its features. */
bool ser_evaluation_wants(const ser_evaluation *evaluation, size_t row, int fold);

/* Sentences for a report of so many models: do speakers overlap, were clips trained on, what was left out
 * (evaluate_notes.c). */
void ser_evaluation_notes(ser_text *notes, const ser_evaluation *evaluation, size_t models);
/* Sentences where labels have no clip among the answered ones, or had none in the training of the folds that answered
 * (evaluate_notes.c). */
void ser_label_notes(ser_text *notes, const ser_evaluation *evaluation, const ser_prediction *predictions,
                     size_t count);
/* A sentence where all clips, of two emotions at least, got the same answer: such figures look like a broken program.
 */
void ser_one_answer_note(ser_text *notes, const ser_prediction *predictions, size_t count, const char *const *labels);
/* One line on the models of so many parts from `first` on. */
void ser_evaluation_model_line(ser_text *line, const ser_evaluation *evaluation, size_t first, size_t models);

#endif
