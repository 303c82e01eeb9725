/* Tables and lines about manifests. */
#include "cli/counts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/threads.h"

enum { FILTERED = SER_EMOTIONS, EXCLUDED, REFUSED, COLUMNS };

typedef struct {
  const char *corpus;
  size_t cells[COLUMNS], usable;
} line;

static int compare_lines(const void *a, const void *b) {
  return strcmp(((const line *)a)->corpus, ((const line *)b)->corpus);
}

static void count_row(line *at, const ser_row *row) {
  if (row->status == SER_FILTERED) at->cells[FILTERED]++;
  if (row->status == SER_EXCLUDED) at->cells[EXCLUDED]++;
  if (row->status == SER_REFUSED) at->cells[REFUSED]++;
  if (!ser_row_usable(row)) return;
  at->usable++;
  if (row->emotion >= 0 && row->emotion < SER_EMOTIONS) at->cells[row->emotion]++;
}

void cli_counts_text(ser_text *text, const ser_manifest *manifest) {
  static const char *const others[] = {"filtered", "excluded", "refused"};
  line *lines = NULL, total = {.corpus = "total"};
  size_t count = 0, capacity = 0;
  for (size_t i = 0; i < manifest->count; i++) {
    const ser_row *row = &manifest->rows[i];
    size_t at = 0;
    while (at < count && strcmp(lines[at].corpus, row->corpus)) at++;
    if (at == count) {
      SER_GROW(lines, count, capacity);
      lines[count++] = (line){.corpus = row->corpus};
    }
    count_row(&lines[at], row);
    count_row(&total, row);
  }
  if (count) qsort(lines, count, sizeof *lines, compare_lines);
  ser_text_printf(text, "%-10s %7s", "corpus", "usable");
  for (int c = 0; c < COLUMNS; c++)
    if (total.cells[c]) ser_text_printf(text, " %9s", c < SER_EMOTIONS ? ser_emotion_names[c] : others[c - FILTERED]);
  ser_text_puts(text, "\n");
  for (size_t i = 0; i <= count; i++) {
    const line *at = i < count ? &lines[i] : &total;
    if (i == count && count == 1) break;
    char *corpus = ser_shown(at->corpus);
    ser_text_printf(text, "%-10s %7zu", corpus, at->usable);
    free(corpus);
    for (int c = 0; c < COLUMNS; c++)
      if (total.cells[c]) ser_text_printf(text, " %9zu", at->cells[c]);
    ser_text_puts(text, "\n");
  }
  free(lines);
}

void cli_audit_text(ser_text *text, const ser_manifest *manifest, const ser_audit_summary *summary) {
  enum { SHOWN = 5 };
  ser_text_printf(text, "%zu %s, %zu decoded now: %zu ok, %zu filtered, %zu excluded, %zu refused\n", summary->rows,
                  SER_PLURAL(summary->rows, "recording", "recordings"), summary->decoded, summary->ok,
                  summary->filtered, summary->excluded, summary->refused);
  for (int reason = SER_REASON_UNREADABLE; reason < SER_REASON_TOO_SHORT; reason++) {
    size_t count = summary->by_reason[reason], filtered = 0;
    if (!count) continue;
    for (size_t i = 0; i < manifest->count; i++)
      filtered += (int)manifest->rows[i].reason == reason && manifest->rows[i].status == SER_FILTERED;
    ser_text_printf(text, "\n%s: %zu", ser_reason_name((ser_reason)reason), count);
    if (filtered) ser_text_printf(text, ", %zu of them filtered", filtered);
    ser_text_printf(text, " (%s)\n", ser_reason_meaning((ser_reason)reason));
    size_t shown = 0;
    for (size_t i = 0; i < manifest->count && shown < SHOWN; i++) {
      const ser_row *row = &manifest->rows[i];
      if ((int)row->reason != reason) continue;
      shown++;
      ser_text_line(text, "  %s: %s", ser_row_status_names[row->status], row->path);
      if (summary->same_as[i] != i) ser_text_line(text, "      as: %s", manifest->rows[summary->same_as[i]].path);
    }
    if (count > shown)
      ser_text_printf(text, "  ... and %zu more (the manifest and --json name them all)\n", count - shown);
  }
}

size_t cli_name_refused(const ser_manifest *manifest) {
  size_t count = 0;
  for (size_t i = 0; i < manifest->count; i++) {
    const ser_row *row = &manifest->rows[i];
    char words[256];
    if (row->status != SER_REFUSED) continue;
    ser_row_refusal(words, row);
    ser_complain("%s: %s: %s", row->path, ser_reason_name(row->reason), words);
    count++;
  }
  return count;
}

int cli_jobs(int64_t jobs) {
  return jobs > 0 ? (int)jobs : ser_cores();
}
