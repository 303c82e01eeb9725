/* CREMA-D: ACTOR_SENTENCE_EMOTION_LEVEL.wav (Cao et al. 2014). Older copies hold 1040_ITH_SAD_X.wav. The sex is in
 * VideoDemographics.csv where that lies in the root or up to two folders above it; the same 43 women are listed here
 * for copies without it. Its repository holds each clip as MP3 too: where a clip is there in another form, the MP3 is
 * dropped. */
#include "corpus/loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"

enum { FIRST_ACTOR = 1001, LAST_ACTOR = 1091, ACTORS = LAST_ACTOR - FIRST_ACTOR + 1 };

static const short women[] = {2,  3,  4,  6,  7,  8,  9,  10, 12, 13, 18, 20, 21, 24, 25, 28, 29, 30, 37, 43, 46, 47,
                              49, 52, 53, 54, 55, 56, 58, 60, 61, 63, 72, 73, 74, 75, 76, 78, 79, 82, 84, 89, 91};

static const char *listed_sex(int actor) {
  for (size_t i = 0; i < sizeof women / sizeof *women; i++)
    if (women[i] == actor - 1000) return "female";
  return "male";
}

static int find(const char *const *names, int count, const char *name) {
  for (int i = 0; i < count; i++)
    if (!strcmp(names[i], name)) return i;
  return -1;
}

static bool read_labels(labels *out, const char **other, const char *path) {
  static const char *const sentences[] = {"ieo", "tie", "iom", "iww", "tai", "mti",
                                          "iwl", "ith", "dfa", "its", "tsi", "wsi"};
  static const char *const emotions[] = {"neu", "hap", "sad", "ang", "fea", "dis"}; /* in the labels' order */
  static const char *const levels[] = {"xx", "x", "lo", "md", "hi"};
  static const char *const intensities[] = {"", "", "low", "medium", "high"};
  char stem[STEM], *parts[4];
  (void)other;
  if (stem_parts(stem, parts, 4, path, '_') != 4) return false;
  int actor = whole_number(parts[0], 4, FIRST_ACTOR, LAST_ACTOR), sentence = find(sentences, 12, parts[1]);
  int emotion = find(emotions, 6, parts[2]), level = find(levels, 5, parts[3]);
  if (actor < 0 || sentence < 0 || emotion < 0 || level < 0) return false;
  out->emotion = emotion;
  out->intensity = intensities[level];
  out->sex = listed_sex(actor);
  snprintf(out->statement, sizeof out->statement, "%c%c%c", parts[1][0] - 32, parts[1][1] - 32, parts[1][2] - 32);
  snprintf(out->speaker, sizeof out->speaker, "cremad_%d", actor);
  return true;
}

/* The path of VideoDemographics.csv in the root or above it, or NULL. */
static char *find_table(const char *root) {
  char *folder = ser_path_absolute(root);
  for (int up = 0; up < 3; up++) {
    char *path = ser_path_join(folder, "VideoDemographics.csv"), *above = ser_path_folder(folder);
    free(folder);
    folder = above;
    if (ser_file_exists(path)) {
      free(folder);
      return path;
    }
    free(path);
  }
  free(folder);
  return NULL;
}

static ser_status read_table(const char *sexes[ACTORS], const char *path, ser_error *err) {
  ser_csv table;
  SER_TRY(ser_csv_read(&table, path, err));
  int actor = ser_csv_column(&table, "ActorID"), sex = ser_csv_column(&table, "Sex");
  ser_status status = SER_OK;
  if (actor < 0 || sex < 0)
    status = ser_fail(err, SER_FAILED, "%s: line 1: the columns ActorID and Sex were expected; mend or remove the file",
                      path);
  for (size_t i = 0; status == SER_OK && i < table.rows; i++) {
    int number = whole_number(ser_csv_cell(&table, i, actor), 4, FIRST_ACTOR, LAST_ACTOR);
    const char *cell = ser_csv_cell(&table, i, sex);
    if (number < 0) continue;
    if (!strcasecmp(cell, "male")) sexes[number - FIRST_ACTOR] = "male";
    if (!strcasecmp(cell, "female")) sexes[number - FIRST_ACTOR] = "female";
  }
  ser_csv_free(&table);
  return status;
}

typedef struct {
  char stem[STEM];
  size_t row;
  bool mp3;
} form;

static int compare_forms(const void *a, const void *b) {
  const form *x = a, *y = b;
  int order = strcmp(x->stem, y->stem);
  return order ? order : x->mp3 - y->mp3;
}

/* Drops the MP3 of clips that are there in another form as well. */
static void drop_mp3(ser_manifest *manifest, size_t first, ser_index_summary *summary) {
  size_t count = manifest->count - first, dropped = 0;
  form *forms = ser_alloc_zero(count, sizeof *forms);
  bool *marked = ser_alloc_zero(manifest->count, sizeof *marked);
  for (size_t i = 0; i < count; i++) {
    const char *path = manifest->rows[first + i].path, *dot = strrchr(path, '.');
    char *part;
    stem_parts(forms[i].stem, &part, 1, path, 0);
    forms[i].row = first + i;
    forms[i].mp3 = dot && !strcasecmp(dot, ".mp3");
  }
  if (count) qsort(forms, count, sizeof *forms, compare_forms);
  for (size_t i = 0, start = 0; i < count; i++) {
    if (strcmp(forms[i].stem, forms[start].stem)) start = i;
    if (!forms[i].mp3 || forms[start].mp3) continue;
    marked[forms[i].row] = true;
    dropped++;
  }
  manifest_drop(manifest, marked);
  if (dropped)
    ser_text_printf(&summary->notes, "cremad: %zu MP3 %s left out\n", dropped,
                    SER_PLURAL(dropped, "copy of a clip", "copies of clips"));
  summary->ignored += dropped;
  free(forms);
  free(marked);
}

static ser_status finish(ser_manifest *manifest, size_t first, const char *root, ser_index_summary *summary,
                         ser_error *err) {
  drop_mp3(manifest, first, summary);
  char *path = find_table(root);
  if (!path) return SER_OK;
  const char *sexes[ACTORS] = {0};
  ser_status status = read_table(sexes, path, err);
  for (size_t i = first; status == SER_OK && i < manifest->count; i++) {
    ser_row *row = manifest->rows + i;
    const char *sex = sexes[atoi(row->speaker + strlen("cremad_")) - FIRST_ACTOR];
    if (!sex) continue;
    free(row->sex);
    row->sex = ser_strdup(sex);
  }
  free(path);
  return status;
}

const corpus_loader cremad_loader = {"cremad", "1001_DFA_ANG_XX.wav", read_labels, finish};
