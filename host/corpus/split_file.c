/* split.csv: path, part, fold, written by a run and read by its resume; and the same table as others give it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "corpus/split_plan.h"

void ser_split_text(ser_text *text, const ser_split *split, const ser_manifest *manifest) {
  SER_CHECK(split->rows == manifest->count);
  ser_text_puts(text, "path,part,fold\n");
  for (int f = 0; f < split->folds; f++)
    for (size_t i = 0; i < manifest->count; i++) {
      if (!ser_row_usable(manifest->rows + i)) continue;
      ser_csv_put(text, manifest->rows[i].path);
      ser_text_printf(text, ",%s,%d\n", ser_part_names[split->part[(size_t)f * split->rows + i]], f);
    }
}

/* ---- reading ---- */

typedef struct {
  const ser_manifest *manifest;
  const char *path; /* of the table */
  bool strict;
  ser_csv table;
  int path_column, part_column, fold_column;
  size_t *by_path, *by_name; /* rows of the manifest in these orders */
  int64_t *folds;            /* the numbers that the table gives, sorted */
  size_t fold_count;
  size_t absent, unusable; /* paths that the manifest does not have, or may not use */
  const char *first_absent;
  ser_error *err;
} table_reading;

static int compare_paths(const void *a, const void *b, void *context) {
  const ser_row *rows = context;
  return strcmp(rows[*(const size_t *)a].path, rows[*(const size_t *)b].path);
}

static int compare_names(const void *a, const void *b, void *context) {
  const ser_row *rows = context;
  return strcmp(ser_path_name(rows[*(const size_t *)a].path), ser_path_name(rows[*(const size_t *)b].path));
}

static ser_status fail_line(const table_reading *in, size_t line, const char *what, const char *cell,
                            const char *cure) {
  return ser_fail(in->err, SER_FAILED, "%s: line %zu: %s '%s' %s", in->path, in->table.lines[line], what, cell, cure);
}

static int compare_numbers(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static ser_status read_fold(int64_t *fold, const table_reading *in, size_t line) {
  const char *cell = ser_csv_cell(&in->table, line, in->fold_column);
  char *end;
  *fold = 0;
  if (in->fold_column < 0 || (!*cell && !in->strict)) return SER_OK;
  errno = 0;
  *fold = strtoll(cell, &end, 10);
  if (!*cell || *end || errno) return fail_line(in, line, "the fold", cell, "is no whole number");
  return SER_OK;
}

static ser_status list_folds(table_reading *in) {
  in->folds = ser_alloc_zero(in->table.rows, sizeof *in->folds);
  for (size_t i = 0; i < in->table.rows; i++) SER_TRY(read_fold(in->folds + i, in, i));
  qsort(in->folds, in->table.rows, sizeof *in->folds, compare_numbers);
  for (size_t i = 0; i < in->table.rows; i++)
    if (!i || in->folds[i] != in->folds[in->fold_count - 1]) in->folds[in->fold_count++] = in->folds[i];
  if (in->fold_count > 1000)
    return ser_fail(in->err, SER_FAILED, "%s names %zu folds; at most 1000 can be used", in->path, in->fold_count);
  return SER_OK;
}

static ser_status read_part(ser_part *part, const table_reading *in, size_t line) {
  static const struct {
    const char *name;
    ser_part part;
  } names[] = {{"", SER_PART_NONE},     {"none", SER_PART_NONE},        {"train", SER_TRAIN},
               {"training", SER_TRAIN}, {"validation", SER_VALIDATION}, {"valid", SER_VALIDATION},
               {"val", SER_VALIDATION}, {"dev", SER_VALIDATION},        {"development", SER_VALIDATION},
               {"test", SER_TEST},      {"testing", SER_TEST},          {"eval", SER_TEST}};
  const char *cell = ser_csv_cell(&in->table, line, in->part_column);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (strcasecmp(cell, names[i].name)) continue;
    *part = names[i].part;
    return SER_OK;
  }
  return fail_line(in, line, "the part", cell, "is none of train, validation, test");
}

static size_t find_exact(const table_reading *in, const char *path) {
  size_t low = 0, high = in->manifest->count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    int order = strcmp(in->manifest->rows[in->by_path[middle]].path, path);
    if (!order) return in->by_path[middle];
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return SIZE_MAX;
}

/* Does the path end in "/" and the given one? */
static bool ends_in(const char *path, const char *given) {
  size_t size = strlen(path), part = strlen(given);
  return size > part && path[size - part - 1] == '/' && !strcmp(path + size - part, given);
}

/* A published list names files below a folder that it does not know: the one row whose path ends so. */
static ser_status find_ending(size_t *row, const table_reading *in, size_t line, const char *given) {
  const char *name = ser_path_name(given);
  size_t low = 0, high = in->manifest->count;
  *row = SIZE_MAX;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (strcmp(ser_path_name(in->manifest->rows[in->by_name[middle]].path), name) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  for (; low < in->manifest->count; low++) {
    const ser_row *candidate = in->manifest->rows + in->by_name[low];
    if (strcmp(ser_path_name(candidate->path), name)) break;
    if (!ends_in(candidate->path, given)) continue;
    if (*row != SIZE_MAX && ser_row_usable(in->manifest->rows + *row) && ser_row_usable(candidate))
      return ser_fail(in->err, SER_FAILED, "%s: line %zu: %s may be %s or %s; write more of the path", in->path,
                      in->table.lines[line], given, in->manifest->rows[*row].path, candidate->path);
    if (*row == SIZE_MAX || ser_row_usable(candidate)) *row = in->by_name[low];
  }
  return SER_OK;
}

static ser_status find_row(size_t *row, table_reading *in, size_t line) {
  const char *given = ser_csv_cell(&in->table, line, in->path_column);
  *row = find_exact(in, given);
  if (*row != SIZE_MAX) return SER_OK;
  if (in->strict)
    return fail_line(in, line, "the path", given, "is not in the manifest; start a new run for another manifest");
  char *folder = ser_path_folder(in->path), *joined = ser_path_join(folder, given),
       *absolute = ser_path_absolute(joined);
  *row = find_exact(in, absolute);
  free(folder);
  free(joined);
  free(absolute);
  while (!strncmp(given, "./", 2)) given += 2;
  return *row == SIZE_MAX && *given ? find_ending(row, in, line, given) : SER_OK;
}

static ser_status take_line(ser_split *split, table_reading *in, bool *listed, size_t line) {
  size_t row;
  int64_t number;
  ser_part part = SER_PART_NONE;
  SER_TRY(read_part(&part, in, line));
  SER_TRY(read_fold(&number, in, line));
  SER_TRY(find_row(&row, in, line));
  if (row == SIZE_MAX) {
    if (!in->absent++) in->first_absent = ser_csv_cell(&in->table, line, in->path_column);
    return SER_OK;
  }
  if (!ser_row_usable(in->manifest->rows + row)) {
    in->unusable++;
    return SER_OK;
  }
  int64_t *fold = bsearch(&number, in->folds, in->fold_count, sizeof *in->folds, compare_numbers);
  size_t at = (size_t)(fold - in->folds) * split->rows + row;
  if (listed[at] && split->part[at] != part)
    return fail_line(in, line, "the path", in->manifest->rows[row].path, "has another part in an earlier line");
  listed[at] = true;
  split->part[at] = part;
  return SER_OK;
}

static ser_status check_parts(const ser_split *split, const table_reading *in) {
  for (int f = 0; f < split->folds; f++) {
    size_t counts[4] = {0};
    for (size_t i = 0; i < split->rows; i++) counts[split->part[(size_t)f * split->rows + i]]++;
    const char *missing = !counts[SER_TEST] ? "test" : !counts[SER_TRAIN] ? "train" : NULL;
    if (missing)
      return ser_fail(in->err, SER_FAILED, "%s: fold %lld has no usable recording of the part %s%s%s", in->path,
                      (long long)in->folds[f], missing, in->absent ? "; not in the manifest is, for one, " : "",
                      in->absent ? in->first_absent : "");
  }
  return SER_OK;
}

/* What the parts do not show. Recordings that the table leaves out are seen there (split_describe). */
static void note_lines(ser_split *split, const table_reading *in) {
  if (in->absent)
    ser_text_line(&split->made, "%zu %s of %s %s that the manifest does not have (%s for one).", in->absent,
                  SER_PLURAL(in->absent, "line", "lines"), ser_path_name(in->path),
                  SER_PLURAL(in->absent, "names a recording", "name recordings"), in->first_absent);
  if (in->unusable)
    ser_text_line(&split->made, "%zu %s of %s %s filtered, excluded or refused.", in->unusable,
                  SER_PLURAL(in->unusable, "line", "lines"), ser_path_name(in->path),
                  SER_PLURAL(in->unusable, "names a recording that is", "name recordings that are"));
}

static ser_status open_table(table_reading *in) {
  SER_TRY(ser_csv_read(&in->table, in->path, in->err));
  in->path_column = ser_csv_column(&in->table, "path");
  in->part_column = ser_csv_column(&in->table, "part");
  in->fold_column = ser_csv_column(&in->table, "fold");
  if (in->path_column < 0 || in->part_column < 0 || (in->strict && in->fold_column < 0))
    return ser_fail(in->err, SER_USAGE,
                    "%s: line 1: the columns path and part were expected, and fold where there are several", in->path);
  if (!in->table.rows) return ser_fail(in->err, SER_FAILED, "%s lists no recordings: it has a header alone", in->path);
  size_t count = in->manifest->count;
  in->by_path = ser_alloc_zero(count, sizeof *in->by_path);
  in->by_name = ser_alloc_zero(count, sizeof *in->by_name);
  for (size_t i = 0; i < count; i++) in->by_path[i] = in->by_name[i] = i;
  if (count) qsort_r(in->by_path, count, sizeof *in->by_path, compare_paths, in->manifest->rows);
  if (count) qsort_r(in->by_name, count, sizeof *in->by_name, compare_names, in->manifest->rows);
  return list_folds(in);
}

ser_status split_read_table(ser_split *split, const ser_manifest *manifest, const char *path, bool strict,
                            ser_error *err) {
  table_reading in = {.manifest = manifest, .path = path, .strict = strict, .err = err};
  bool *listed = NULL;
  memset(split, 0, sizeof *split);
  ser_status status = SER_OK;
  SER_TRY_DONE(open_table(&in));
  *split = (ser_split){.folds = (int)in.fold_count, .rows = manifest->count};
  split->part = ser_alloc_zero(in.fold_count * manifest->count, sizeof *split->part);
  listed = ser_alloc_zero(in.fold_count * manifest->count, sizeof *listed);
  for (size_t i = 0; i < in.table.rows; i++) SER_TRY_DONE(take_line(split, &in, listed, i));
  SER_TRY_DONE(check_parts(split, &in));
  note_lines(split, &in);
done:
  ser_csv_free(&in.table);
  free(in.by_path);
  free(in.by_name);
  free(in.folds);
  free(listed);
  if (status != SER_OK) ser_split_free(split);
  return status;
}

ser_status ser_split_read(ser_split *split, const ser_manifest *manifest, const char *path, ser_error *err) {
  SER_TRY(split_read_table(split, manifest, path, true, err));
  split_describe(split, manifest);
  return SER_OK;
}
