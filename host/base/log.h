/* Messages and progress, all on stderr; results go to stdout elsewhere. The level is the process's own, set once by
 * the program from --quiet; it is the one piece of process-wide state besides the interrupt flag. */
#ifndef SER_BASE_LOG_H
#define SER_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/memory.h"

void ser_log_set_quiet(bool quiet); /* quiet: only warnings and errors */
bool ser_log_is_quiet(void);

/* One line each, whatever the names in it hold (see ser_text_line); a live progress bar is cleared first and redrawn
 * after. Safe from any thread. */
void ser_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void ser_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));     /* "serenade: warning: ..." */
void ser_complain(const char *format, ...) __attribute__((format(printf, 1, 2))); /* "serenade: ...": errors */

/* Each of several lines, a table or refusals say; NULL is fine. */
void ser_info_lines(const char *lines);
void ser_warn_lines(const char *lines);
void ser_complain_lines(const char *lines);

/* Progress of one job: on a terminal a live bar with rate and time left, elsewhere a line at the start of the work's
 * second ten per cent and so on, never more often than every five seconds. One at a time; safe from any thread. */
typedef struct ser_progress ser_progress;
ser_progress *ser_progress_begin(const char *what, const char *unit, int64_t total);
void ser_progress_add(ser_progress *progress, int64_t done);
void ser_progress_found(ser_progress *progress, int64_t done);    /* done by earlier runs: counted, but in no rate */
void ser_progress_note(ser_progress *progress, const char *note); /* shown behind the bar: "loss 1.23" */
void ser_progress_end(ser_progress *progress);                    /* NULL is fine */

/* What a bar shows. */
typedef struct {
  const char *what, *unit, *note;
  int64_t done, total;
  double rate; /* of this run, a second */
  int width;   /* columns of the terminal that may be written to */
} ser_progress_figures;
/* The bar as one line of at most so many columns: where they are few the bar shrinks, then what is least worth knowing
 * goes, whole. For tests; ser_progress_add draws it. */
void ser_progress_line(ser_text *line, const ser_progress_figures *figures);

#endif
