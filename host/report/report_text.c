/* report.txt: what a person wants to read first stands first; the tables follow. */
#include "report/figures.h"

#include <inttypes.h>
#include <string.h>

enum { LINE = 100, GROUP_NAME = 40 };

/* Breaks a note into lines of at most LINE characters, the later ones indented. */
static void put_note(void *context, const char *note, size_t size) {
  ser_text *text = context;
  size_t column = 2;
  ser_text_puts(text, "- ");
  for (size_t at = 0; at < size;) {
    size_t word = at;
    while (word < size && note[word] != ' ') word++;
    if (column > 2 && column + 1 + (word - at) > LINE) {
      ser_text_puts(text, "\n  ");
      column = 2;
    } else if (column > 2) {
      ser_text_puts(text, " ");
      column++;
    }
    ser_text_add(text, note + at, word - at);
    column += word - at;
    at = word + 1;
  }
  ser_text_puts(text, "\n");
}

static void put_heading(ser_text *text, const char *heading) {
  ser_text_printf(text, "\n%s\n", heading);
  for (size_t i = 0; i < strlen(heading); i++) ser_text_puts(text, "-");
  ser_text_puts(text, "\n");
}

static int name_width(const ser_groups *groups, const char *what) {
  size_t width = strlen(what);
  for (size_t i = 0; i < groups->count; i++)
    if (strlen(groups->groups[i].name) > width) width = strlen(groups->groups[i].name);
  return (int)(width > GROUP_NAME ? GROUP_NAME : width);
}

static void put_groups(ser_text *text, const ser_groups *groups, const char *what, bool spread) {
  int width = name_width(groups, spread ? "deviation" : what);
  bool clips = true; /* one answer each */
  for (size_t i = 0; i < groups->count; i++)
    clips = clips && (int64_t)groups->groups[i].clips == groups->groups[i].metrics.total;
  ser_text_printf(text, "%-*s  %8s  %7s  %7s  %8s  %11s\n", width, what, clips ? "clips" : "answers", "WAR", "UAR",
                  "macro F1", "weighted F1");
  for (size_t i = 0; i < groups->count; i++) {
    const ser_metrics *m = &groups->groups[i].metrics;
    ser_text_line(text, "%-*s  %8" PRId64 "  %6.2f%%  %6.2f%%  %7.2f%%  %10.2f%%", width, groups->groups[i].name,
                  m->total, 100 * m->war, 100 * m->uar, 100 * m->macro_f1, 100 * m->weighted_f1);
  }
  if (!spread) return;
  double mean[SER_HEADLINES], deviation[SER_HEADLINES];
  for (int i = 0; i < SER_HEADLINES; i++) ser_spread(&mean[i], &deviation[i], groups, i);
  const double *rows[] = {mean, deviation};
  static const char *const names[] = {"mean", "deviation"};
  for (int i = 0; i < 2; i++)
    ser_text_printf(text, "%-*s  %8s  %6.2f%%  %6.2f%%  %7.2f%%  %10.2f%%\n", width, names[i], "", 100 * rows[i][0],
                    100 * rows[i][1], 100 * rows[i][2], 100 * rows[i][3]);
}

static void put_headlines(ser_text *text, const ser_report *report, const ser_figures *figures) {
  const ser_groups *groups = figures->seeds.count > 1 ? &figures->seeds : &figures->folds;
  bool several = groups->count > 1;
  const char *what = figures->seeds.count > 1 ? "seeds" : "folds";
  if (several) ser_text_printf(text, "%-18s  %8s  mean of %zu %s\n", "", "pooled", groups->count, what);
  for (int i = 0; i < SER_HEADLINES; i++) {
    ser_text_printf(text, "%-18s  %7.2f%%", ser_headline_names[i], 100 * ser_headline(&figures->pooled, i));
    if (several) {
      double mean, deviation;
      ser_spread(&mean, &deviation, groups, i);
      ser_text_printf(text, "  %.2f%% (deviation %.2f)", 100 * mean, 100 * deviation);
    }
    ser_text_puts(text, "\n");
  }
  ser_text_printf(text, "%-18s  %8zu\n", "clips", figures->clips);
  if (figures->clips != report->count) ser_text_printf(text, "%-18s  %8zu\n", "answers", report->count);
}

void ser_report_text(ser_text *text, const ser_report *report, const ser_figures *figures) {
  ser_text_line(text, "%s", report->title);
  if (report->model && *report->model) ser_text_printf(text, "%s\n", report->model);
  ser_text_puts(text, "\n");
  put_headlines(text, report, figures);
  if (report->notes && *report->notes) {
    put_heading(text, "To be known");
    ser_each_note(report->notes, put_note, text);
  }
  put_heading(text, "Each emotion");
  ser_classification_report(text, &figures->pooled, report->labels);
  put_heading(text, "Confusion: rows actual, columns predicted");
  ser_confusion_text(text, &figures->pooled, report->labels);
  if (figures->seeds.count > 1) {
    put_heading(text, "Seeds");
    put_groups(text, &figures->seeds, "seed", true);
  } else if (figures->folds.count > 1) {
    put_heading(text, "Folds");
    put_groups(text, &figures->folds, "fold", true);
  }
  put_heading(text, "By corpus");
  put_groups(text, &figures->corpora, "corpus", false);
  put_heading(text, "By sex");
  put_groups(text, &figures->sexes, "sex", false);
  put_heading(text, "By speaker");
  put_groups(text, &figures->speakers, "speaker", false);
  ser_text_puts(text,
                "\nUAR is over the emotions that have clips; macro F1 over those and the ones that are answered.\n");
}
