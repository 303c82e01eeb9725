/* The manifest: one row a recording, as a CSV that pandas.read_csv reads as it is. Writing what was read gives the same
 * bytes; texts, even with commas and line ends, come back as they went. */
#include "corpus/manifest.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/file.h"
#include "base/wanted.h"
#include "corpus/loader.h"

const char *const ser_emotion_names[SER_EMOTIONS] = {"neutral", "happy",   "sad",  "angry",
                                                     "fearful", "disgust", "calm", "surprised"};
/* The reason of a filtered row that no audit has heard: what its status would be if its emotion were asked for. */
static const char UNJUDGED[] = "new";
const char *const ser_row_status_names[5] = {"new", "ok", "filtered", "excluded", "refused"};

enum {
  PATH,
  CORPUS,
  SPEAKER,
  SEX,
  EMOTION,
  INTENSITY,
  STATEMENT,
  RATE,
  CHANNELS,
  FRAMES,
  SECONDS,
  SIZE,
  MTIME_NS,
  HASH,
  STATUS,
  REASON,
  COLUMNS,
};
static const char *const column_names[COLUMNS] = {"path",      "corpus", "speaker",  "sex",    "emotion", "intensity",
                                                  "statement", "rate",   "channels", "frames", "seconds", "size",
                                                  "mtime_ns",  "hash",   "status",   "reason"};

const char *manifest_column(const char *name) {
  for (int i = 0; i < COLUMNS; i++)
    if (!strcasecmp(column_names[i], name)) return column_names[i];
  return NULL;
}

int ser_emotion_parse(const char *name) {
  static const struct {
    const char *name;
    ser_emotion emotion;
  } spellings[] = {
      {"neutrality", SER_NEUTRAL},
      {"neu", SER_NEUTRAL},
      {"happiness", SER_HAPPY},
      {"hap", SER_HAPPY},
      {"joy", SER_HAPPY},
      {"sadness", SER_SAD},
      {"anger", SER_ANGRY},
      {"ang", SER_ANGRY},
      {"fear", SER_FEARFUL},
      {"fea", SER_FEARFUL},
      {"disgusted", SER_DISGUST},
      {"dis", SER_DISGUST},
      {"calmness", SER_CALM},
      {"surprise", SER_SURPRISED},
      {"sur", SER_SURPRISED},
      {"ps", SER_SURPRISED},
      {"su", SER_SURPRISED},
      {"pleasant_surprise", SER_SURPRISED},
      {"pleasant_surprised", SER_SURPRISED},
  };
  char plain[32];
  size_t size = strlen(name);
  if (size >= sizeof plain) return -1;
  for (size_t i = 0; i <= size; i++) plain[i] = name[i] == ' ' || name[i] == '-' ? '_' : name[i];
  for (int i = 0; i < SER_EMOTIONS; i++)
    if (!strcasecmp(plain, ser_emotion_names[i])) return i;
  for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++)
    if (!strcasecmp(plain, spellings[i].name)) return (int)spellings[i].emotion;
  return -1;
}

void ser_manifest_init(ser_manifest *manifest) {
  memset(manifest, 0, sizeof *manifest);
}

void manifest_free_row(ser_row *row, size_t extra_columns) {
  char *texts[] = {row->path, row->corpus, row->speaker, row->sex, row->intensity, row->statement};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) free(texts[i]);
  for (size_t i = 0; row->extra && i < extra_columns; i++) free(row->extra[i]);
  free(row->extra);
}

void ser_manifest_free(ser_manifest *manifest) {
  for (size_t i = 0; i < manifest->count; i++) manifest_free_row(manifest->rows + i, manifest->extra_columns);
  for (size_t i = 0; i < manifest->extra_columns; i++) free(manifest->extra_names[i]);
  free(manifest->rows);
  free(manifest->extra_names);
  memset(manifest, 0, sizeof *manifest);
}

bool ser_row_usable(const ser_row *row) {
  return row->status == SER_NEW || row->status == SER_ROW_OK;
}

void ser_manifest_usable_text(ser_text *text, const ser_manifest *manifest) {
  for (size_t i = 0; i < manifest->count; i++) {
    const ser_row *row = &manifest->rows[i];
    char digits[SER_HASH_HEX];
    if (!ser_row_usable(row)) continue;
    ser_hash_hex(digits, &row->hash);
    ser_text_printf(text, "%s\t%s\t%s\t%s\t%d\t%s\n", row->path, row->corpus, row->speaker, row->sex, row->emotion,
                    digits);
  }
}

void ser_manifest_usable_hash(char hex[SER_HASH_HEX], const ser_manifest *manifest) {
  ser_text text = {0};
  ser_manifest_usable_text(&text, manifest);
  ser_hash hash = ser_hash_bytes(text.data, text.size);
  ser_hash_hex(hex, &hash);
  free(text.data);
}

/* ---- reading ---- */

typedef struct {
  const ser_csv *table;
  const char *path; /* of the manifest */
  int columns[COLUMNS];
  ser_error *err;
} reading;

static ser_status wrong(const reading *in, size_t row, int column, const char *cure) {
  return ser_fail(in->err, SER_FAILED, "%s: line %zu: column %s is '%s': %s", in->path, in->table->lines[row],
                  column_names[column], ser_csv_cell(in->table, row, in->columns[column]), cure);
}

static ser_status read_count(int64_t *value, const reading *in, size_t row, int column) {
  const char *cell = ser_csv_cell(in->table, row, in->columns[column]);
  char *end;
  *value = -1;
  if (!*cell) return SER_OK;
  errno = 0;
  *value = strtoll(cell, &end, 10);
  if (*end || errno || *value < 0) return wrong(in, row, column, "a whole number was expected, or nothing");
  return SER_OK;
}

static ser_status read_named(int *value, const reading *in, size_t row, int column, const char *const *names,
                             int count) {
  const char *cell = ser_csv_cell(in->table, row, in->columns[column]);
  for (int i = 0; i < count; i++) {
    if (strcmp(cell, names[i])) continue;
    *value = i;
    return SER_OK;
  }
  ser_text choices = {0};
  for (int i = 0; i < count; i++) ser_text_printf(&choices, "%s%s", i ? ", " : "one of ", names[i]);
  ser_text_puts(&choices, " was expected");
  ser_status status = wrong(in, row, column, choices.data);
  free(choices.data);
  return status;
}

static ser_status read_numbers(ser_row *out, const reading *in, size_t row) {
  int64_t rate, channels;
  SER_TRY(read_count(&rate, in, row, RATE));
  SER_TRY(read_count(&channels, in, row, CHANNELS));
  SER_TRY(read_count(&out->frames, in, row, FRAMES));
  SER_TRY(read_count(&out->size, in, row, SIZE));
  if (rate > INT32_MAX) return wrong(in, row, RATE, "no rate is that high");
  if (channels > INT32_MAX) return wrong(in, row, CHANNELS, "no recording has that many");
  out->rate = (int32_t)rate;
  out->channels = (int32_t)channels;

  const char *cell = ser_csv_cell(in->table, row, in->columns[MTIME_NS]); /* may lie before 1970 */
  char *end;
  out->mtime_ns = -1;
  if (*cell) {
    errno = 0;
    out->mtime_ns = strtoll(cell, &end, 10);
    if (*end || errno) return wrong(in, row, MTIME_NS, "a whole number was expected, or nothing");
  }
  cell = ser_csv_cell(in->table, row, in->columns[SECONDS]);
  out->seconds = -1;
  if (*cell) {
    out->seconds = strtod(cell, &end);
    if (*end || !(out->seconds >= 0) || isinf(out->seconds))
      return wrong(in, row, SECONDS, "a length in seconds was expected, or nothing");
  }
  cell = ser_csv_cell(in->table, row, in->columns[HASH]);
  if (*cell && !ser_hash_parse(&out->hash, cell))
    return wrong(in, row, HASH, "32 hex digits were expected, or nothing");
  return SER_OK;
}

static ser_status read_texts(ser_row *out, const reading *in, size_t row) {
  const char *path = ser_csv_cell(in->table, row, in->columns[PATH]);
  if (!*path) return wrong(in, row, PATH, "a path was expected");
  if (path[0] != '/') return wrong(in, row, PATH, "an absolute path was expected; run `serenade index` again");
  out->path = ser_strdup(path);
  out->corpus = ser_strdup(ser_csv_cell(in->table, row, in->columns[CORPUS]));
  out->speaker = ser_strdup(ser_csv_cell(in->table, row, in->columns[SPEAKER]));
  out->sex = ser_strdup(ser_csv_cell(in->table, row, in->columns[SEX]));
  out->intensity = ser_strdup(ser_csv_cell(in->table, row, in->columns[INTENSITY]));
  out->statement = ser_strdup(ser_csv_cell(in->table, row, in->columns[STATEMENT]));
  if (*out->sex && strcmp(out->sex, "male") && strcmp(out->sex, "female"))
    return wrong(in, row, SEX, "male, female or nothing was expected");
  return SER_OK;
}

static ser_status read_row(ser_row *out, const reading *in, size_t row) {
  int status;
  SER_TRY(read_texts(out, in, row));
  SER_TRY(read_named(&out->emotion, in, row, EMOTION, ser_emotion_names, SER_EMOTIONS));
  SER_TRY(read_numbers(out, in, row));
  SER_TRY(read_named(&status, in, row, STATUS, ser_row_status_names, 5));
  out->status = (ser_row_status)status;
  const char *reason = ser_csv_cell(in->table, row, in->columns[REASON]);
  out->unjudged = out->status == SER_FILTERED && !strcmp(reason, UNJUDGED);
  if (out->unjudged) return SER_OK;
  if (!ser_reason_parse(&out->reason, reason) || out->reason == SER_REASON_TOO_SHORT)
    return wrong(in, row, REASON, "not a reason that a manifest knows; run `serenade audit` again");
  return SER_OK;
}

/* The manifest's own columns must all be there (that is how a version 1 manifest is known); others are kept. */
static ser_status read_header(ser_manifest *manifest, reading *in, int **extra_columns, const char *path_column) {
  for (int i = 0; i < COLUMNS; i++) {
    in->columns[i] = ser_csv_column(in->table, i == PATH ? path_column : column_names[i]);
    if (in->columns[i] < 0)
      return ser_fail(in->err, SER_USAGE,
                      "%s: line 1: the column %s is missing, so this is no manifest of this version; make it with "
                      "`serenade index`",
                      in->path, column_names[i]);
  }
  *extra_columns = ser_alloc_zero(in->table->columns, sizeof **extra_columns);
  manifest->extra_names = ser_alloc_zero(in->table->columns, sizeof *manifest->extra_names);
  for (size_t c = 0; c < in->table->columns; c++) {
    bool own = false;
    for (int i = 0; i < COLUMNS; i++) own |= in->columns[i] == (int)c;
    if (own) continue;
    (*extra_columns)[manifest->extra_columns] = (int)c;
    manifest->extra_names[manifest->extra_columns++] = ser_strdup(in->table->names[c]);
  }
  return SER_OK;
}

static int compare_paths(const void *a, const void *b) {
  return strcmp((*(const ser_row *const *)a)->path, (*(const ser_row *const *)b)->path);
}

/* A recording that stands twice would be taken for a copy of itself. */
static ser_status refuse_twice(const ser_manifest *manifest, const char *path, ser_error *err) {
  const ser_row **sorted = ser_alloc_zero(manifest->count + 1, sizeof *sorted);
  ser_status status = SER_OK;
  for (size_t i = 0; i < manifest->count; i++) sorted[i] = manifest->rows + i;
  qsort(sorted, manifest->count, sizeof *sorted, compare_paths);
  for (size_t i = 1; i < manifest->count && status == SER_OK; i++)
    if (!compare_paths(sorted + i - 1, sorted + i))
      status = ser_fail(err, SER_FAILED, "%s lists %s twice; keep one line", path, sorted[i]->path);
  free(sorted);
  return status;
}

static ser_status read_file(ser_manifest *manifest, const char *path, const char *path_column, ser_error *err) {
  ser_csv table = {0};
  int *extra_columns = NULL;
  reading in = {.table = &table, .path = path, .err = err};
  ser_manifest_init(manifest);
  ser_status status = SER_OK;
  SER_TRY(ser_want_file(path, "a manifest that `serenade index` made", err));
  SER_TRY(ser_csv_read(&table, path, err));
  SER_TRY_DONE(read_header(manifest, &in, &extra_columns, path_column));
  manifest->capacity = table.rows;
  manifest->rows = ser_alloc_zero(table.rows + 1, sizeof *manifest->rows);
  for (size_t i = 0; i < table.rows; i++) {
    ser_row *row = manifest->rows + manifest->count++;
    SER_TRY_DONE(read_row(row, &in, i));
    row->extra = ser_alloc_zero(manifest->extra_columns + 1, sizeof *row->extra);
    for (size_t c = 0; c < manifest->extra_columns; c++)
      row->extra[c] = ser_strdup(ser_csv_cell(&table, i, extra_columns[c]));
  }
  status = refuse_twice(manifest, path, err);
done:
  free(extra_columns);
  ser_csv_free(&table);
  if (status != SER_OK) ser_manifest_free(manifest);
  return status;
}

ser_status ser_manifest_read(ser_manifest *manifest, const char *path, ser_error *err) {
  return read_file(manifest, path, column_names[PATH], err);
}

/* ---- writing ---- */

static void put_count(ser_text *text, int64_t value) {
  ser_text_puts(text, ",");
  if (value >= 0) ser_text_printf(text, "%lld", (long long)value);
}

/* The shortest of 15 or 17 digits that reads back as the same number. */
static void put_seconds(ser_text *text, double value) {
  char digits[40];
  snprintf(digits, sizeof digits, "%.15g", value);
  if (strtod(digits, NULL) != value) snprintf(digits, sizeof digits, "%.17g", value);
  ser_text_puts(text, ",");
  if (value >= 0) ser_text_puts(text, digits);
}

static void put_text(ser_text *text, const char *cell) {
  ser_text_puts(text, ",");
  ser_csv_put(text, cell ? cell : "");
}

static void put_row(ser_text *text, const ser_row *row, size_t extra_columns) {
  static const ser_hash none;
  char hex[SER_HASH_HEX];
  ser_hash_hex(hex, &row->hash);
  ser_csv_put(text, row->path);
  put_text(text, row->corpus);
  put_text(text, row->speaker);
  put_text(text, row->sex);
  put_text(text, ser_emotion_names[row->emotion]);
  put_text(text, row->intensity);
  put_text(text, row->statement);
  put_count(text, row->rate);
  put_count(text, row->channels);
  put_count(text, row->frames);
  put_seconds(text, row->seconds);
  put_count(text, row->size);
  ser_text_puts(text, ",");
  if (row->size >= 0) ser_text_printf(text, "%lld", (long long)row->mtime_ns);
  put_text(text, ser_hash_compare(&row->hash, &none) ? hex : "");
  put_text(text, ser_row_status_names[row->status]);
  put_text(text, row->status == SER_FILTERED && row->unjudged ? UNJUDGED : ser_reason_name(row->reason));
  for (size_t i = 0; i < extra_columns; i++) put_text(text, row->extra ? row->extra[i] : "");
  ser_text_puts(text, "\n");
}

static void put_table(ser_text *text, const ser_manifest *manifest, const char *path_column) {
  ser_text_puts(text, path_column);
  for (int i = PATH + 1; i < COLUMNS; i++) ser_text_printf(text, ",%s", column_names[i]);
  for (size_t i = 0; i < manifest->extra_columns; i++) put_text(text, manifest->extra_names[i]);
  ser_text_puts(text, "\n");
  for (size_t i = 0; i < manifest->count; i++) put_row(text, manifest->rows + i, manifest->extra_columns);
}

void ser_manifest_text(ser_text *text, const ser_manifest *manifest) {
  put_table(text, manifest, column_names[PATH]);
}

ser_status ser_manifest_write(const ser_manifest *manifest, const char *path, ser_error *err) {
  ser_text text = {0};
  ser_manifest_text(&text, manifest);
  ser_status status = ser_file_write(path, text.data, text.size, err);
  free(text.data);
  return status;
}

/* ---- a manifest that is not whole ---- */

static const char path_so_far[] = "path_so_far"; /* so that nothing takes it for a manifest */

static char *partial_name(const char *manifest_path) {
  return ser_format("%s.partial", manifest_path);
}

void partial_read(ser_manifest *manifest, const char *manifest_path) {
  char *path = partial_name(manifest_path);
  ser_error err = {0};
  ser_manifest_init(manifest);
  if (ser_file_exists(path)) read_file(manifest, path, path_so_far, &err);
  free(path);
}

ser_status partial_write(const ser_manifest *manifest, const char *manifest_path, ser_error *err) {
  char *path = partial_name(manifest_path);
  ser_text text = {0};
  put_table(&text, manifest, path_so_far);
  ser_status status = ser_file_write(path, text.data, text.size, err);
  free(text.data);
  free(path);
  return status;
}

void ser_index_done(const char *manifest_path) {
  char *path = partial_name(manifest_path);
  unlink(path);
  free(path);
}
