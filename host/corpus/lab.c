/* A lab's own recordings: a CSV with path and emotion, and optionally speaker, corpus, sex, intensity and statement.
 * Relative paths are relative to the CSV's folder. Other columns are kept as they are; what the manifest computes
 * itself (rate, hash, status and so on) is computed anew, so that a manifest may be given too. */
#include "corpus/loader.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"

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

static ser_status load_row(ser_manifest *manifest, const ser_csv *table, size_t i, const char *csv_path,
                           const char *folder, ser_error *err) {
  const char *path = ser_csv_cell(table, i, ser_csv_column(table, "path"));
  const char *emotion = ser_csv_cell(table, i, ser_csv_column(table, "emotion"));
  if (!*path)
    return ser_fail(err, SER_FAILED, "%s: line %zu: the path is missing; give one or remove the line", csv_path,
                    table->lines[i]);
  int label = ser_emotion_parse(emotion);
  if (label < 0)
    return ser_fail(
        err, SER_FAILED,
        "%s: line %zu: emotion '%s' is none of neutral, happy, sad, angry, fearful, disgust, calm, surprised; "
        "mend it or remove the line",
        csv_path, table->lines[i], emotion);
  char *joined = ser_path_join(folder, path), *absolute = ser_path_absolute(joined);
  ser_row *row = manifest_add(manifest, absolute);
  free(joined);
  free(absolute);
  row->emotion = label;
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
  SER_TRY(ser_csv_read(&table, csv_path, err));
  ser_status status = SER_OK;
  size_t odd_sexes = 0;
  char *folder = ser_path_folder(csv_path);
  if (ser_csv_column(&table, "path") < 0 || ser_csv_column(&table, "emotion") < 0) {
    status = ser_fail(err, SER_FAILED,
                      "%s: line 1: the columns path and emotion were expected (and optionally speaker, "
                      "corpus, sex and others)",
                      csv_path);
    goto done;
  }
  manifest->extra_names = ser_alloc_zero(table.columns, sizeof *manifest->extra_names);
  for (size_t c = 0; c < table.columns; c++)
    if (!manifest_column(table.names[c])) manifest->extra_names[manifest->extra_columns++] = ser_strdup(table.names[c]);
  for (size_t i = 0; i < table.rows; i++) {
    SER_TRY_DONE(load_row(manifest, &table, i, csv_path, folder, err));
    const char *sex = ser_csv_cell(&table, i, ser_csv_column(&table, "sex"));
    odd_sexes += *sex && !*manifest->rows[manifest->count - 1].sex;
  }
  if (odd_sexes)
    ser_text_printf(&summary->notes, "csv: %zu rows name a sex other than male or female; it is left empty\n",
                    odd_sexes);
  if (!table.rows) status = ser_fail(err, SER_FAILED, "%s lists no recordings: it has a header alone", csv_path);
done:
  free(folder);
  ser_csv_free(&table);
  return status;
}
