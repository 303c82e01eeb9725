/* A lab's own recordings: a CSV with path and emotion, and optionally speaker, corpus, sex, intensity and statement.
 * Names of these columns may have capital letters and, as their values, blanks around them: " happy" is happy, and "s1
 * " no other speaker than "s1". Relative paths are relative to the CSV's folder. Other columns are kept as they are;
 * what the manifest computes itself (rate, hash, status and so on) is computed anew, so that a manifest may be given
 * too. */
#include "corpus/loader.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "base/wanted.h"

static const char blanks[] = " \t\r\n";

static void strip(char *text) {
  size_t skipped = strspn(text, blanks), size = strlen(text);
  while (size > skipped && strchr(blanks, text[size - 1])) size--;
  memmove(text, text + skipped, size - skipped);
  text[size - skipped] = 0;
}

/* Column names as they are spelled here, and what stands in these columns without blanks around it; but paths, which
 * may have them, and the columns of others stay as they are. */
static ser_status tidy(ser_csv *table, const char *csv_path, ser_error *err) {
  for (size_t c = 0; c < table->columns; c++) {
    strip(table->names[c]);
    const char *own = manifest_column(table->names[c]);
    if (!own) continue;
    if (ser_csv_column(table, own) >= 0 && (size_t)ser_csv_column(table, own) < c)
      return ser_fail(err, SER_FAILED, "%s: line 1: the column %s is there twice; keep one", csv_path, own);
    strcpy(table->names[c], own); /* which has as many letters */
    for (size_t i = 0; i < table->rows && strcmp(own, "path"); i++) strip(table->cells[i * table->columns + c]);
  }
  return SER_OK;
}

static const char *read_sex(const char *cell) {
  static const char *const spellings[][2] = {{"male", "male"},     {"m", "male"},   {"man", "male"},
                                             {"female", "female"}, {"f", "female"}, {"woman", "female"}};
  for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++)
    if (!strcasecmp(cell, spellings[i][0])) return spellings[i][1];
  return "";
}

static void take(char **text, const ser_csv *table, size_t row, const char *column, const char *otherwise) {
  const char *cell = ser_csv_cell(table, row, ser_csv_column(table, column));
  free(*text);
  *text = ser_strdup(*cell ? cell : otherwise);
}

static char *absolute_path(const char *folder, const char *name) {
  char *joined = ser_path_join(folder, name), *absolute = ser_path_absolute(joined);
  free(joined);
  return absolute;
}

/* The path as it is given, or without the blanks around it where only that is a file's. */
static char *find_recording(const char *folder, const char *given) {
  char *plain = ser_strdup(given);
  strip(plain);
  char *path = absolute_path(folder, given), *stripped = absolute_path(folder, plain);
  bool better = !ser_file_exists(path) && ser_file_exists(stripped);
  free(plain);
  free(better ? path : stripped);
  return better ? stripped : path;
}

/* All emotions that are none of ours at once, each with its first line. */
static ser_status check_emotions(const ser_csv *table, const char *csv_path, ser_error *err) {
  enum { MOST = 8 };
  int column = ser_csv_column(table, "emotion");
  const char *odd[MOST];
  size_t first[MOST], lines[MOST] = {0}, count = 0, more = 0;
  for (size_t i = 0; i < table->rows; i++) {
    const char *emotion = ser_csv_cell(table, i, column);
    size_t at = 0;
    if (ser_emotion_parse(emotion) >= 0) continue;
    while (at < count && strcmp(odd[at], emotion)) at++;
    if (at == MOST) {
      more++;
      continue;
    }
    if (at == count) {
      odd[count] = emotion;
      first[count++] = table->lines[i];
    }
    lines[at]++;
  }
  if (!count) return SER_OK;
  ser_text list = {0};
  for (size_t i = 0; i < count; i++)
    ser_text_printf(&list, "%s'%s' (%zu %s, line %zu%s)", i ? ", " : "", odd[i], lines[i],
                    SER_PLURAL(lines[i], "line", "lines"), first[i], lines[i] == 1 ? "" : " first");
  if (more) ser_text_printf(&list, " and more (%zu %s)", more, SER_PLURAL(more, "line", "lines"));
  ser_status status = ser_fail(err, SER_FAILED,
                               "%s: none of neutral, happy, sad, angry, fearful, disgust, calm, surprised: %s; mend "
                               "them or remove the lines",
                               csv_path, list.data);
  free(list.data);
  return status;
}

static ser_status load_row(ser_manifest *manifest, const ser_csv *table, size_t i, const char *csv_path,
                           const char *folder, ser_error *err) {
  const char *path = ser_csv_cell(table, i, ser_csv_column(table, "path"));
  const char *emotion = ser_csv_cell(table, i, ser_csv_column(table, "emotion"));
  if (!path[strspn(path, blanks)])
    return ser_fail(err, SER_FAILED, "%s: line %zu: the path is missing; give one or remove the line", csv_path,
                    table->lines[i]);
  char *found = find_recording(folder, path);
  ser_row *row = manifest_add(manifest, found);
  free(found);
  row->emotion = ser_emotion_parse(emotion);
  take(&row->corpus, table, i, "corpus", "csv");
  take(&row->speaker, table, i, "speaker", "");
  take(&row->intensity, table, i, "intensity", "");
  take(&row->statement, table, i, "statement", "");
  free(row->sex);
  row->sex = ser_strdup(read_sex(ser_csv_cell(table, i, ser_csv_column(table, "sex"))));
  row->extra = ser_alloc_zero(manifest->extra_columns + 1, sizeof *row->extra);
  for (size_t c = 0, e = 0; c < table->columns; c++)
    if (!manifest_column(table->names[c])) row->extra[e++] = ser_strdup(ser_csv_cell(table, i, (int)c));
  return SER_OK;
}

ser_status lab_load(ser_manifest *manifest, ser_index_summary *summary, const char *csv_path, ser_error *err) {
  ser_csv table;
  SER_TRY(ser_want_file(csv_path, "a table of recordings: path, emotion", err));
  SER_TRY(ser_csv_read(&table, csv_path, err));
  ser_status status = SER_OK;
  size_t odd_sexes = 0;
  char *folder = ser_path_folder(csv_path);
  SER_TRY_DONE(tidy(&table, csv_path, err));
  if (ser_csv_column(&table, "path") < 0 || ser_csv_column(&table, "emotion") < 0) {
    status = ser_fail(err, SER_USAGE,
                      "%s: line 1: the columns path and emotion were expected (and optionally speaker, "
                      "corpus, sex and others)",
                      csv_path);
    goto done;
  }
  SER_TRY_DONE(check_emotions(&table, csv_path, err));
  manifest->extra_names = ser_alloc_zero(table.columns, sizeof *manifest->extra_names);
  for (size_t c = 0; c < table.columns; c++)
    if (!manifest_column(table.names[c])) manifest->extra_names[manifest->extra_columns++] = ser_strdup(table.names[c]);
  for (size_t i = 0; i < table.rows; i++) {
    SER_TRY_DONE(load_row(manifest, &table, i, csv_path, folder, err));
    const char *sex = ser_csv_cell(&table, i, ser_csv_column(&table, "sex"));
    odd_sexes += *sex && !*manifest->rows[manifest->count - 1].sex;
  }
  if (odd_sexes)
    ser_text_printf(&summary->notes, "csv: %zu %s a sex other than male or female; it is left empty\n", odd_sexes,
                    SER_PLURAL(odd_sexes, "row names", "rows name"));
  if (!table.rows) status = ser_fail(err, SER_FAILED, "%s lists no recordings: it has a header alone", csv_path);
done:
  free(folder);
  ser_csv_free(&table);
  return status;
}
