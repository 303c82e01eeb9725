/* What one corpus's file knows: how its recordings are named. Private to host/corpus. */
#ifndef SER_CORPUS_LOADER_H
#define SER_CORPUS_LOADER_H

#include "corpus/manifest.h"

/* What a name tells of its recording. */
typedef struct {
  char speaker[48], statement[48];
  const char *sex, *intensity; /* "" where not told */
  int emotion;
} labels;

typedef struct {
  const char *name;     /* the manifest's corpus */
  const char *expected; /* an example of a name, for messages */
  /* Reads the labels off a path (absolute). False for a file that is none of this corpus's recordings; *other then
   * says what it is, in the plural ("song files"), or is left NULL for a name that has nothing to do with the corpus.
   */
  bool (*read_labels)(labels *out, const char **other, const char *path);
  /* After all rows of the corpus, [first, manifest->count), are there (or NULL): drops rows and mends labels. */
  ser_status (*finish)(ser_manifest *manifest, size_t first, const char *root, ser_index_summary *summary,
                       ser_error *err);
} corpus_loader;

extern const corpus_loader ravdess_loader, cremad_loader, tess_loader, savee_loader;

/* A lab's own table (--csv): rows for what it lists. */
ser_status lab_load(ser_manifest *manifest, ser_index_summary *summary, const char *csv_path, ser_error *err);

/* The manifest's own column of this name, in whatever case it is given; NULL where it has none. */
const char *manifest_column(const char *name);

/* What an index had found out when it was cut off, beside the place of the manifest: read is empty where there is none
 * that can be used. */
void partial_read(ser_manifest *manifest, const char *manifest_path);
ser_status partial_write(const ser_manifest *manifest, const char *manifest_path, ser_error *err);

/* Appends an empty row (texts "", numbers -1) of the path. */
ser_row *manifest_add(ser_manifest *manifest, const char *path);
void manifest_free_row(ser_row *row, size_t extra_columns); /* what it holds */
void manifest_drop(ser_manifest *manifest,
                   const bool *marked); /* the marked rows [count]; the others keep their order */

/* The name without folder and suffix, in lower case, cut into parts at the separator: how many, at most `most`; -1
 * where the suffix is none of a recording's, the name is too long or has more parts. */
enum { STEM = 96 };
int stem_parts(char stem[STEM], char *parts[], int most, const char *path, char separator);

/* The name of the folder that the file lies in, in lower case; "" where it is too long. */
void folder_name(char name[STEM], const char *path);

/* The number that the whole text is, in [low, high]; -1 otherwise. Exactly `digits` digits. */
int whole_number(const char *text, int digits, int low, int high);

#endif
