/* Messages and progress on stderr. */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"

struct ser_progress {
  char what[64], unit[32], note[160];
  int64_t total, done, found; /* found: of done, what earlier runs did */
  double started, drawn;
  int64_t said; /* the tenth that was said last, where there is no terminal */
  bool live;
};

static atomic_bool quiet_level;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static ser_progress *current; /* under lock */

void ser_log_set_quiet(bool quiet) {
  atomic_store(&quiet_level, quiet);
}

bool ser_log_is_quiet(void) {
  return atomic_load(&quiet_level);
}

static void span(char *text, size_t size, double seconds) {
  long whole = (long)(seconds + 0.5);
  if (whole >= 3600)
    snprintf(text, size, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60, whole % 60);
  else
    snprintf(text, size, "%ld:%02ld", whole / 60, whole % 60);
}

/* What this run has done a second: what it found done is no work of its own. */
static double rate_of(const ser_progress *progress, double time) {
  double elapsed = time - progress->started;
  return elapsed > 0 ? (double)(progress->done - progress->found) / elapsed : 0;
}

/* The pieces behind the bar, in their order on the line; a note's parts, which ", " divides, come last. */
enum { SHARE, COUNT, RATE, LEFT, NOTES, PIECES = NOTES + 6, PIECE = 96 };

static void make_pieces(char pieces[PIECES][PIECE], const ser_progress_figures *f, double share) {
  snprintf(pieces[SHARE], PIECE, " %3.0f%%", 100 * share);
  snprintf(pieces[COUNT], PIECE, "  %lld/%lld %s", (long long)f->done, (long long)f->total, f->unit);
  snprintf(pieces[RATE], PIECE, "  %.1f/s", f->rate);
  char left[32];
  span(left, sizeof left, f->rate > 0 ? (double)(f->total - f->done) / f->rate : 0);
  snprintf(pieces[LEFT], PIECE, "  %s left", left);
  const char *at = f->note;
  for (int i = NOTES; i < PIECES; i++) {
    const char *end = strstr(at, ", ");
    int length = end ? (int)(end - at) : (int)strlen(at);
    snprintf(pieces[i], PIECE, "%s%.*s", !length ? "" : i == NOTES ? "  " : ", ", length, at);
    at += end ? length + 2 : length;
  }
}

void ser_progress_line(ser_text *line, const ser_progress_figures *f) {
  enum { MOST = 24, LEAST = 4 }; /* cells of the bar */
  static const int by_worth[NOTES] = {SHARE, LEFT, COUNT, RATE};
  char pieces[PIECES][PIECE];
  double share = f->total > 0 ? (double)f->done / (double)f->total : 0;
  make_pieces(pieces, f, share);
  size_t room = (size_t)f->width, used = strlen(f->what);
  bool named = used + strlen(pieces[SHARE]) <= room, fits = true;
  if (!named) used = 0;
  for (int i = 0; i < PIECES; i++) { /* whole pieces while there is room; from the first that finds none on, none */
    char *piece = pieces[i < NOTES ? by_worth[i] : i];
    fits = fits && used + strlen(piece) <= room;
    if (fits) used += strlen(piece);
    if (!fits) *piece = 0;
  }
  size_t cells = room > used + 3 ? room - used - 3 : 0, filled;
  if (cells > MOST) cells = MOST;
  filled = (size_t)(share * (double)cells);
  if (named) ser_text_puts(line, f->what);
  if (cells >= LEAST) ser_text_puts(line, " [");
  for (size_t i = 0; i < cells && cells >= LEAST; i++) ser_text_puts(line, i < filled ? "#" : ".");
  if (cells >= LEAST) ser_text_puts(line, "]");
  for (int i = 0; i < PIECES; i++) ser_text_puts(line, pieces[i]);
}

static void draw(ser_progress *progress) {
  struct winsize window;
  ser_text line = {0};
  const ser_progress_figures figures = {
      .what = progress->what,
      .unit = progress->unit,
      .note = progress->note,
      .done = progress->done,
      .total = progress->total,
      .rate = rate_of(progress, ser_seconds()),
      .width = ioctl(2, TIOCGWINSZ, &window) == 0 && window.ws_col > 10 ? window.ws_col - 1 : 79};
  ser_progress_line(&line, &figures);
  fprintf(stderr, "\r\033[K%s", line.data);
  fflush(stderr);
  free(line.data);
}

static void say(const char *before, const char *format, va_list arguments) {
  ser_text line = {0};
  ser_text_line_from(&line, format, arguments);
  pthread_mutex_lock(&lock);
  if (current && current->live) fputs("\r\033[K", stderr);
  fputs(before, stderr);
  fputs(line.data, stderr);
  if (current && current->live) draw(current);
  pthread_mutex_unlock(&lock);
  free(line.data);
}

void ser_info(const char *format, ...) {
  if (ser_log_is_quiet()) return;
  va_list arguments;
  va_start(arguments, format);
  say("", format, arguments);
  va_end(arguments);
}

static void each_line(void (*tell)(const char *format, ...), const char *lines) {
  for (size_t size; lines && *lines; lines += size + (lines[size] == '\n')) {
    size = strcspn(lines, "\n");
    tell("%.*s", (int)size, lines);
  }
}

void ser_info_lines(const char *lines) {
  each_line(ser_info, lines);
}

void ser_warn_lines(const char *lines) {
  each_line(ser_warn, lines);
}

void ser_complain_lines(const char *lines) {
  each_line(ser_complain, lines);
}

void ser_warn(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say("serenade: warning: ", format, arguments);
  va_end(arguments);
}

void ser_complain(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say("serenade: ", format, arguments);
  va_end(arguments);
}

ser_progress *ser_progress_begin(const char *what, const char *unit, int64_t total) {
  ser_progress *progress = ser_alloc_zero(1, sizeof *progress);
  snprintf(progress->what, sizeof progress->what, "%s", what);
  snprintf(progress->unit, sizeof progress->unit, "%s", unit);
  progress->total = total;
  progress->started = ser_seconds();
  progress->drawn = progress->started;
  progress->live = isatty(2) && !ser_log_is_quiet();
  pthread_mutex_lock(&lock);
  current = progress;
  pthread_mutex_unlock(&lock);
  return progress;
}

void ser_progress_add(ser_progress *progress, int64_t done) {
  if (!progress) return;
  pthread_mutex_lock(&lock);
  progress->done += done;
  double time = ser_seconds();
  if (progress->live) {
    if (time - progress->drawn > 0.1) {
      progress->drawn = time;
      draw(progress);
    }
  } else if (!ser_log_is_quiet() && time - progress->drawn > 5 && progress->total > 0) {
    int64_t tenth = 10 * progress->done / progress->total;
    if (tenth > progress->said) {
      progress->said = tenth;
      progress->drawn = time;
      fprintf(stderr, "%s: %lld of %lld %s (%.1f/s)%s%s\n", progress->what, (long long)progress->done,
              (long long)progress->total, progress->unit, rate_of(progress, time), *progress->note ? " " : "",
              progress->note);
    }
  }
  pthread_mutex_unlock(&lock);
}

void ser_progress_found(ser_progress *progress, int64_t done) {
  if (!progress) return;
  pthread_mutex_lock(&lock);
  progress->done += done;
  progress->found += done;
  pthread_mutex_unlock(&lock);
}

void ser_progress_note(ser_progress *progress, const char *note) {
  if (!progress) return;
  pthread_mutex_lock(&lock);
  snprintf(progress->note, sizeof progress->note, "%s", note);
  pthread_mutex_unlock(&lock);
}

void ser_progress_end(ser_progress *progress) {
  if (!progress) return;
  pthread_mutex_lock(&lock);
  if (progress->live) fputs("\r\033[K", stderr);
  current = NULL;
  pthread_mutex_unlock(&lock);
  free(progress);
}
