/* A report's files: text, JSON, the predictions as CSV, the confusion matrix as pictures. */
#include "report/report.h"

#include <stdlib.h>

#include "base/file.h"
#include "report/figures.h"

/* path, fold, truth, answer, then each label's probability with the nine digits that give a float back. */
static void predictions_text(ser_text *text, const ser_report *report) {
  ser_text_puts(text, "path,fold,truth,answer");
  for (int c = 0; c < report->classes; c++) {
    ser_text_puts(text, ",");
    ser_csv_put(text, report->labels[c]);
  }
  ser_text_puts(text, "\n");
  for (size_t i = 0; i < report->count; i++) {
    const ser_prediction *p = &report->predictions[i];
    ser_csv_put(text, report->manifest->rows[p->row].path);
    ser_text_printf(text, ",%d,%s,%s", p->fold, report->labels[p->truth], report->labels[p->answer]);
    for (int c = 0; c < report->classes; c++) ser_text_printf(text, ",%.9g", (double)p->probabilities[c]);
    ser_text_puts(text, "\n");
  }
}

static ser_status write_text(const char *folder, const char *name, const ser_text *text, ser_error *err) {
  char *path = ser_path_join(folder, name);
  ser_status status = ser_file_write(path, text->data, text->size, err);
  free(path);
  return status;
}

static ser_status write_picture(const ser_report *report, const ser_metrics *metrics, const char *folder,
                                const char *name, ser_error *err) {
  char *path = ser_path_join(folder, name);
  ser_status status = ser_confusion_picture(metrics, report->labels, report->title, path, err);
  free(path);
  return status;
}

ser_status ser_report_write(const ser_report *report, const char *folder, ser_error *err) {
  if (!report->count)
    return ser_fail(err, SER_FAILED, "%s: there is no answer to report on (%s); see which clips could be used", folder,
                    report->title);
  ser_status status;
  ser_text predictions = {0}, words = {0}, json = {0};
  ser_figures figures;
  ser_figures_make(&figures, report);
  SER_TRY_DONE(ser_make_folders(folder, err));
  if (figures.seeds.count == 1) {
    predictions_text(&predictions, report);
    SER_TRY_DONE(write_text(folder, "predictions.csv", &predictions, err));
  }
  ser_report_text(&words, report, &figures);
  SER_TRY_DONE(write_text(folder, "report.txt", &words, err));
  SER_TRY_DONE(write_picture(report, &figures.pooled, folder, "confusion.png", err));
  SER_TRY_DONE(write_picture(report, &figures.pooled, folder, "confusion.svg", err));
  ser_report_json(&json, report, &figures);
  SER_TRY_DONE(write_text(folder, "report.json", &json, err)); /* last: where it stands, all of it stands */
done:
  ser_figures_free(&figures);
  free(predictions.data);
  free(words.data);
  free(json.data);
  return status;
}
