/* Reading and writing comma-separated tables (RFC 4180). */
#include "base/csv.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

typedef struct {
  char *at, *end;
  size_t line;
} csv_input;

/* Takes the next cell, unquoted in place; *last tells whether it ends its row. False where a quote is not closed. */
static bool take_cell(csv_input *in, char **cell, bool *last) {
  char *out = *cell = in->at;
  if (in->at < in->end && *in->at == '"') {
    in->at++;
    for (;; in->at++) {
      if (in->at >= in->end) return false;
      if (*in->at == '"') {
        if (in->at[1] != '"') break;
        in->at++;
      }
      if (*in->at == '\n') in->line++;
      *out++ = *in->at;
    }
    in->at++;
  }
  while (in->at < in->end && *in->at != ',' && *in->at != '\n' &&
         !(*in->at == '\r' && (in->at + 1 == in->end || in->at[1] == '\n')))
    *out++ = *in->at++;
  *last = in->at >= in->end || *in->at != ',';
  if (in->at < in->end && *in->at == '\r') in->at++;
  if (in->at < in->end && *in->at == '\n') in->line++;
  if (in->at < in->end) in->at++;
  *out = 0;
  return true;
}

static ser_status read_header(ser_csv *table, csv_input *in, const char *path, ser_error *err) {
  size_t capacity = 0;
  for (bool last = false; !last;) {
    char *cell;
    if (!take_cell(in, &cell, &last))
      return ser_fail(err, SER_FAILED, "%s: line 1: a quote is not closed; mend the file", path);
    SER_GROW(table->names, table->columns, capacity);
    table->names[table->columns++] = ser_strdup(cell);
  }
  while (table->columns > 1 && !*table->names[table->columns - 1]) free(table->names[--table->columns]);
  if (table->columns == 1 && strpbrk(table->names[0], ";\t"))
    return ser_fail(err, SER_FAILED, "%s: line 1: %s stand between the columns; save the table with commas instead",
                    path, strchr(table->names[0], ';') ? "semicolons" : "tabs");
  return SER_OK;
}

static ser_status read_row(ser_csv *table, csv_input *in, size_t *capacity, const char *path, ser_error *err) {
  if (table->rows == *capacity) {
    *capacity = *capacity ? 2 * *capacity : 64;
    table->cells = ser_realloc(table->cells, *capacity * table->columns * sizeof *table->cells);
    table->lines = ser_realloc(table->lines, *capacity * sizeof *table->lines);
  }
  char **row = table->cells + table->rows * table->columns;
  table->lines[table->rows] = in->line;
  size_t taken = 0;
  for (bool last = false; !last;) {
    size_t line = in->line;
    char *cell;
    if (!take_cell(in, &cell, &last)) {
      for (size_t i = 0; i < taken; i++) free(row[i]);
      return ser_fail(err, SER_FAILED, "%s: line %zu: a quote is not closed; mend the file", path, line);
    }
    if (taken == table->columns && !*cell) continue; /* a comma too many says nothing */
    if (taken == table->columns) {
      for (size_t i = 0; i < taken; i++) free(row[i]);
      return ser_fail(err, SER_FAILED, "%s: line %zu has more cells than the header's %zu; mend the line", path, line,
                      table->columns);
    }
    row[taken++] = ser_strdup(cell);
  }
  bool blank = true; /* what spreadsheets leave behind the last row: commas alone */
  for (size_t i = 0; i < taken; i++) blank = blank && !row[i][strspn(row[i], " \t\r\n")];
  if (blank)
    for (size_t i = 0; i < taken; i++) free(row[i]);
  if (blank) return SER_OK;
  while (taken < table->columns) row[taken++] = ser_strdup("");
  table->rows++;
  return SER_OK;
}

/* Tables in another encoding (a spreadsheet's own, UTF-16) would be read wrongly, and written as no UTF-8. */
static ser_status check_encoding(const char *data, size_t size, const char *path, ser_error *err) {
  const char *nul = memchr(data, 0, size);
  size_t good = ser_utf8_span(data, nul ? (size_t)(nul - data) : size), line = 1;
  if (good == size) return SER_OK;
  if (nul) good = (size_t)(nul - data);
  for (size_t i = 0; i < good; i++) line += data[i] == '\n';
  if (nul)
    return ser_fail(err, SER_FAILED,
                    "%s: line %zu holds a NUL byte: the table is UTF-16 or no text; save it as CSV in UTF-8", path,
                    line);
  return ser_fail(err, SER_FAILED, "%s: line %zu is not UTF-8; save the table as CSV in UTF-8", path, line);
}

ser_status ser_csv_read(ser_csv *table, const char *path, ser_error *err) {
  memset(table, 0, sizeof *table);
  char *data;
  size_t size;
  SER_TRY(ser_file_read(&data, &size, path, err));
  csv_input in = {data, data + size, 1};
  for (size_t i = 0, old = !memchr(data, '\n', size); old && i < size;
       i++) /* lines as the first Macintoshes ended them */
    if (data[i] == '\r') data[i] = '\n';
  if (size >= 3 && !memcmp(data, "\xef\xbb\xbf", 3)) in.at += 3;
  ser_status status = check_encoding(data, size, path, err);
  if (status == SER_OK && in.at >= in.end)
    status = ser_fail(err, SER_FAILED, "%s is empty: a header line was expected", path);
  if (status == SER_OK) status = read_header(table, &in, path, err);
  size_t capacity = 0;
  while (status == SER_OK && in.at < in.end) {
    if (*in.at == '\n' || *in.at == '\r') { /* an empty line */
      in.line += *in.at == '\n';
      in.at++;
      continue;
    }
    status = read_row(table, &in, &capacity, path, err);
  }
  free(data);
  if (status != SER_OK) ser_csv_free(table);
  return status;
}

void ser_csv_free(ser_csv *table) {
  for (size_t i = 0; i < table->columns; i++) free(table->names[i]);
  for (size_t i = 0; i < table->rows * table->columns; i++) free(table->cells[i]);
  free(table->names);
  free(table->cells);
  free(table->lines);
  memset(table, 0, sizeof *table);
}

int ser_csv_column(const ser_csv *table, const char *name) {
  for (size_t i = 0; i < table->columns; i++)
    if (!strcmp(table->names[i], name)) return (int)i;
  return -1;
}

const char *ser_csv_cell(const ser_csv *table, size_t row, int column) {
  return column < 0 ? "" : table->cells[row * table->columns + (size_t)column];
}

void ser_csv_put(ser_text *text, const char *cell) {
  if (!strpbrk(cell, ",\"\r\n")) {
    ser_text_puts(text, cell);
    return;
  }
  ser_text_puts(text, "\"");
  for (; *cell; cell++) {
    if (*cell == '"') ser_text_puts(text, "\"");
    ser_text_add(text, cell, 1);
  }
  ser_text_puts(text, "\"");
}
