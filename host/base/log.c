/* Messages and progress on stderr. */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"

struct ser_progress {
  char what[64], unit[32], note[96];
  int64_t total, done;
  double started, drawn;
  int64_t said; /* the tenth that was said last, where there is no terminal */
  bool live;
};

static atomic_bool quiet_level;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static ser_progress *current; /* under lock */

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

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

static void draw(ser_progress *progress) {
  double elapsed = now() - progress->started;
  double rate = elapsed > 0 ? (double)progress->done / elapsed : 0;
  double share = progress->total > 0 ? (double)progress->done / (double)progress->total : 0;
  char left[32], line[320], bar[25];
  span(left, sizeof left, rate > 0 ? (double)(progress->total - progress->done) / rate : 0);
  int filled = (int)(share * 24);
  for (int i = 0; i < 24; i++) bar[i] = i < filled ? '#' : '.';
  bar[24] = 0;
  snprintf(line, sizeof line, "%s [%s] %3.0f %%  %lld/%lld %s  %.1f/s  %s left  %s", progress->what, bar, 100 * share,
           (long long)progress->done, (long long)progress->total, progress->unit, rate, left, progress->note);
  struct winsize window;
  int width = ioctl(2, TIOCGWINSZ, &window) == 0 && window.ws_col > 10 ? window.ws_col - 1 : 79;
  if ((int)strlen(line) > width) line[width] = 0;
  fprintf(stderr, "\r\033[K%s", line);
  fflush(stderr);
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

void ser_info_lines(const char *lines) {
  for (size_t size; lines && *lines; lines += size + (lines[size] == '\n')) {
    size = strcspn(lines, "\n");
    ser_info("%.*s", (int)size, lines);
  }
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
  progress->started = now();
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
  double time = now();
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
              (long long)progress->total, progress->unit, (double)progress->done / (time - progress->started),
              *progress->note ? " " : "", progress->note);
    }
  }
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
