/* Comma-separated tables as RFC 4180 has them: quoted fields may hold commas, quotes (doubled) and line ends; lines end
 * with LF or CRLF; a UTF-8 byte order mark is skipped. The first line names the columns. */
#ifndef SER_BASE_CSV_H
#define SER_BASE_CSV_H

#include <stddef.h>

#include "base/memory.h"
#include "base/status.h"

typedef struct {
  size_t columns, rows;
  char **names;  /* [columns] */
  char **cells;  /* [rows][columns]; an absent trailing cell is "" */
  size_t *lines; /* [rows] line number in the file, for messages */
} ser_csv;

/* Refuses, naming file and line: a row with more cells than the header, an unclosed quote, an empty file, a header
 * whose columns are separated by semicolons or tabs. */
ser_status ser_csv_read(ser_csv *table, const char *path, ser_error *err);
void ser_csv_free(ser_csv *table);

/* The column's number, or -1. */
int ser_csv_column(const ser_csv *table, const char *name);
const char *ser_csv_cell(const ser_csv *table, size_t row, int column); /* "" for column -1 */

/* Appends a cell, quoted where it must be; the caller adds commas and line ends. */
void ser_csv_put(ser_text *text, const char *cell);

#endif
