/* What the loaders share: taking file names apart, and rows. */
#include "corpus/loader.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

static void lower(char *text) {
  for (; *text; text++)
    if (*text >= 'A' && *text <= 'Z') *text = (char)(*text + 32);
}

int stem_parts(char stem[STEM], char *parts[], int most, const char *path, char separator) {
  const char *name = ser_path_name(path);
  if (strlen(name) >= STEM || !ser_audio_named(name)) return -1;
  strcpy(stem, name);
  lower(stem);
  *strrchr(stem, '.') = 0;
  int count = 1;
  parts[0] = stem;
  for (char *at = stem; separator && (at = strchr(at, separator)); count++) {
    *at++ = 0;
    if (count == most) return -1;
    parts[count] = at;
  }
  return count;
}

void folder_name(char name[STEM], const char *path) {
  char *folder = ser_path_folder(path);
  const char *last = ser_path_name(folder);
  name[0] = 0;
  if (strlen(last) < STEM) strcpy(name, last);
  lower(name);
  free(folder);
}

int whole_number(const char *text, int digits, int low, int high) {
  int value = 0;
  if (strlen(text) != (size_t)digits) return -1;
  for (; *text; text++) {
    if (*text < '0' || *text > '9') return -1;
    value = 10 * value + (*text - '0');
  }
  return value >= low && value <= high ? value : -1;
}

ser_row *manifest_add(ser_manifest *manifest, const char *path) {
  SER_GROW(manifest->rows, manifest->count, manifest->capacity);
  ser_row *row = manifest->rows + manifest->count++;
  *row = (ser_row){.path = ser_strdup(path),
                   .corpus = ser_strdup(""),
                   .speaker = ser_strdup(""),
                   .sex = ser_strdup(""),
                   .intensity = ser_strdup(""),
                   .statement = ser_strdup(""),
                   .rate = -1,
                   .channels = -1,
                   .frames = -1,
                   .seconds = -1,
                   .size = -1,
                   .mtime_ns = -1};
  return row;
}

void manifest_drop(ser_manifest *manifest, const bool *marked) {
  size_t kept = 0;
  for (size_t i = 0; i < manifest->count; i++)
    if (marked[i])
      manifest_free_row(manifest->rows + i, manifest->extra_columns);
    else
      manifest->rows[kept++] = manifest->rows[i];
  manifest->count = kept;
}
