/* Answers as text, JSON and CSV, one after the other as they come. */
#include "report/predict.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* ---- text -------------------------------------------------------------------------------------------------------- */

/* "angry      93.1%   sad 3.2  neutral 1.9 ...": the labels by falling probability, equals in their own order. */
static void put_ranking(ser_text *out, const ser_answer_format *format, const ser_span *span) {
  int order[SER_EMOTIONS], width = 0;
  for (int c = 0; c < format->classes; c++) {
    int at = c;
    for (; at > 0 && span->probabilities[order[at - 1]] < span->probabilities[c]; at--) order[at] = order[at - 1];
    order[at] = c;
    if ((int)strlen(format->labels[c]) > width) width = (int)strlen(format->labels[c]);
  }
  ser_text_printf(out, "%-*s %5.1f%%", width, format->labels[order[0]], 100 * (double)span->probabilities[order[0]]);
  for (int c = 1; c < format->classes; c++)
    ser_text_printf(out, "%s%s %.1f", c == 1 ? "   " : "  ", format->labels[order[c]],
                    100 * (double)span->probabilities[order[c]]);
  ser_text_puts(out, "\n");
}

static void add_text(ser_text *out, const ser_answer_format *format, const ser_answer *answer) {
  char *path = ser_shown(answer->path);
  ser_text_printf(out, "%-*s  ", format->path_width, path);
  free(path);
  put_ranking(out, format, &answer->whole);
  for (size_t w = 0; w < answer->window_count && answer->window_count > 1; w++) {
    char *span = ser_format("%9.2f - %.2f s", answer->windows[w].start, answer->windows[w].end);
    ser_text_printf(out, "%-*s  ", format->path_width, span);
    put_ranking(out, format, &answer->windows[w]);
    free(span);
  }
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

/* Paths are bytes, JSON is UTF-8: what is none becomes U+FFFD. */
static json_t *path_text(const char *path) {
  json_t *text = json_string(path);
  if (text) return text;
  ser_text mended = {0};
  for (const char *at = path; *at;) {
    size_t size = (unsigned char)*at >= 0xF0 ? 4 : (unsigned char)*at >= 0xE0 ? 3 : (unsigned char)*at >= 0xC0 ? 2 : 1;
    json_t *one = strnlen(at, size) == size ? json_stringn(at, size) : NULL;
    if (one)
      ser_text_add(&mended, at, size);
    else
      ser_text_puts(&mended, "\xEF\xBF\xBD");
    json_decref(one);
    at += one ? size : 1;
  }
  text = json_string(mended.data);
  free(mended.data);
  return text;
}

static void set(json_t *object, const char *key, json_t *value) {
  SER_CHECK(json_object_set_new(object, key, value) == 0);
}

static void set_span(json_t *object, const ser_answer_format *format, const ser_span *span) {
  json_t *probabilities = json_object();
  set(object, "emotion", json_string(format->labels[span->label]));
  for (int c = 0; c < format->classes; c++)
    set(probabilities, format->labels[c], json_real((double)span->probabilities[c]));
  set(object, "probabilities", probabilities);
}

static void add_json(ser_text *out, const ser_answer_format *format, const ser_answer *answer) {
  json_t *object = json_object(), *windows = json_array();
  set(object, "path", path_text(answer->path));
  set_span(object, format, &answer->whole);
  for (size_t w = 0; w < answer->window_count; w++) {
    json_t *window = json_object();
    set(window, "start", json_real(answer->windows[w].start));
    set(window, "end", json_real(answer->windows[w].end));
    set_span(window, format, &answer->windows[w]);
    SER_CHECK(json_array_append_new(windows, window) == 0);
  }
  set(object, "windows", windows);
  char *dump = json_dumps(object, JSON_REAL_PRECISION(9));
  SER_CHECK(dump);
  ser_text_puts(out, format->written ? ",\n" : "\n");
  ser_text_puts(out, dump);
  free(dump);
  json_decref(object);
}

/* ---- CSV --------------------------------------------------------------------------------------------------------- */

static void add_row(ser_text *out, const ser_answer_format *format, const char *path, const ser_span *span) {
  ser_csv_put(out, path);
  ser_text_printf(out, ",%.3f,%.3f,%s", span->start, span->end, format->labels[span->label]);
  for (int c = 0; c < format->classes; c++) ser_text_printf(out, ",%.9g", (double)span->probabilities[c]);
  ser_text_puts(out, "\n");
}

/* A clip that is one window has no second row: that would be the first again. */
static void add_csv(ser_text *out, const ser_answer_format *format, const ser_answer *answer) {
  size_t windows = format->windows && answer->window_count > 1 ? answer->window_count : 0;
  add_row(out, format, answer->path, &answer->whole);
  for (size_t w = 0; w < windows; w++) add_row(out, format, answer->path, &answer->windows[w]);
}

/* ------------------------------------------------------------------------------------------------------------------ */

void ser_answers_begin(ser_text *out, ser_answer_format *format) {
  format->written = 0;
  if (format->style == SER_FORMAT_JSON) ser_text_puts(out, "[");
  if (format->style != SER_FORMAT_CSV) return;
  ser_text_puts(out, "path,start,end,emotion");
  for (int c = 0; c < format->classes; c++) ser_text_printf(out, ",%s", format->labels[c]);
  ser_text_puts(out, "\n");
}

void ser_answers_add(ser_text *out, ser_answer_format *format, const ser_answer *answer) {
  if (answer->reason != SER_REASON_NONE) return;
  switch (format->style) {
  case SER_FORMAT_TEXT:
    add_text(out, format, answer);
    break;
  case SER_FORMAT_JSON:
    add_json(out, format, answer);
    break;
  case SER_FORMAT_CSV:
    add_csv(out, format, answer);
    break;
  }
  format->written++;
}

void ser_answers_end(ser_text *out, ser_answer_format *format) {
  if (format->style == SER_FORMAT_JSON) ser_text_puts(out, format->written ? "\n]\n" : "]\n");
}
