/* Within the room: the figures that report.txt and report.json tell, computed once. */
#ifndef SER_REPORT_FIGURES_H
#define SER_REPORT_FIGURES_H

#include "report/report.h"

/* The predictions that share a corpus, a speaker, a sex, a fold or a seed. */
typedef struct {
  char *name; /* "unknown" where the manifest leaves it open */
  ser_metrics metrics;
  size_t clips; /* different ones: each may be answered by several models */
} ser_group;

typedef struct {
  ser_group *groups; /* in byte order of the names; folds and seeds by number */
  size_t count;
} ser_groups;

typedef struct {
  ser_metrics pooled;
  size_t clips; /* as in a group */
  ser_groups corpora, speakers, sexes, folds, seeds;
} ser_figures;

void ser_figures_make(ser_figures *figures, const ser_report *report);
void ser_figures_free(ser_figures *figures);

/* The four figures that stand for a run. */
enum { SER_HEADLINES = 4 };
extern const char *const ser_headline_keys[SER_HEADLINES];  /* war uar macro_f1 weighted_f1 */
extern const char *const ser_headline_names[SER_HEADLINES]; /* for people */
double ser_headline(const ser_metrics *metrics, int which);

/* Mean and standard deviation (of a sample: n - 1; 0 for one group) of a figure over groups. */
void ser_spread(double *mean, double *deviation, const ser_groups *groups, int which);

/* Calls each with every note, without its line end; what is empty is skipped. */
void ser_each_note(const char *notes, void (*each)(void *context, const char *note, size_t size), void *context);

void ser_report_text(ser_text *text, const ser_report *report, const ser_figures *figures); /* report_text.c */
void ser_report_json(ser_text *text, const ser_report *report, const ser_figures *figures); /* report_json.c */

/* The picture's size in pixels of the PNG (picture.c): for tests. */
void ser_confusion_picture_size(int *width, int *height, const ser_metrics *metrics, const char *const *labels);

#endif
