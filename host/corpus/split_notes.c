/* What a split proves and what it does not, in sentences for the report, read off the parts themselves. */
#include <stdlib.h>
#include <string.h>

#include "corpus/split_plan.h"

enum { IN_TRAIN = 1, IN_VALIDATION = 2, IN_TEST = 4 };

/* Something that clips share (a speaker, a sentence of a corpus) and the parts of one fold where it is met. */
typedef struct {
  const char *corpus, *name;
  size_t row;
  unsigned parts;
} meeting;

static int compare_meetings(const void *a, const void *b) {
  const meeting *x = a, *y = b;
  int order = strcmp(x->corpus, y->corpus);
  return order ? order : strcmp(x->name, y->name);
}

typedef enum { OF_SPEAKERS, OF_STATEMENTS, OF_AUDIO } meeting_kind;

/* One entry for each distinct speaker, sentence or file of the fold; *count of them. The caller frees it and, for
 * audio, the text that the names lie in. */
static meeting *meet(size_t *count, char **names, const ser_split *split, const ser_manifest *manifest, int fold,
                     meeting_kind kind) {
  static const unsigned bits[4] = {0, IN_TRAIN, IN_VALIDATION, IN_TEST};
  meeting *all = ser_alloc_zero(split->rows, sizeof *all);
  size_t found = 0, kept = 0;
  *names = kind == OF_AUDIO ? ser_alloc_zero(split->rows, SER_HASH_HEX) : NULL;
  for (size_t i = 0; i < split->rows; i++) {
    const ser_row *row = manifest->rows + i;
    unsigned part = bits[split->part[(size_t)fold * split->rows + i]];
    const char *name = kind == OF_SPEAKERS ? row->speaker : row->statement;
    if (kind == OF_AUDIO) {
      ser_hash_hex(*names + i * SER_HASH_HEX, &row->hash);
      name = *names + i * SER_HASH_HEX;
      if (strspn(name, "0") == 32) continue;
    }
    if (part && *name) all[found++] = (meeting){kind == OF_STATEMENTS ? row->corpus : "", name, i, part};
  }
  if (found) qsort(all, found, sizeof *all, compare_meetings);
  for (size_t i = 0; i < found; i++) {
    if (kept && !compare_meetings(all + kept - 1, all + i))
      all[kept - 1].parts |= all[i].parts;
    else
      all[kept++] = all[i];
  }
  *count = kept;
  return all;
}

/* Sums over the folds. */
typedef struct {
  size_t test, test_heard;      /* speakers of the test part; those also in train or validation */
  size_t validation, val_heard; /* speakers of the validation part; those also in train */
  size_t left_few;              /* folds with fewer than three speakers beside the test part */
  size_t torn;                  /* files whose copies stand on both sides */
} tally;

static void count_fold(tally *sum, const ser_split *split, const ser_manifest *manifest, int fold) {
  size_t count, beside = 0;
  char *names;
  meeting *all = meet(&count, &names, split, manifest, fold, OF_SPEAKERS);
  for (size_t i = 0; i < count; i++) {
    bool test = all[i].parts & IN_TEST, validation = all[i].parts & IN_VALIDATION, train = all[i].parts & IN_TRAIN;
    sum->test += test;
    sum->test_heard += test && (train || validation);
    sum->validation += validation;
    sum->val_heard += validation && train;
    beside += train || validation;
  }
  sum->left_few += beside < 3;
  free(all);
  all = meet(&count, &names, split, manifest, fold, OF_AUDIO);
  for (size_t i = 0; i < count; i++) sum->torn += (all[i].parts & (all[i].parts - 1)) != 0;
  free(all);
  free(names);
}

/* Corpora of which every sentence of the test part is met in training too, in the first fold. */
static void note_statements(ser_text *notes, const ser_split *split, const ser_manifest *manifest) {
  size_t count, told = 0;
  char *names;
  meeting *all = meet(&count, &names, split, manifest, 0, OF_STATEMENTS);
  ser_text corpora = {0};
  for (size_t i = 0, end; i < count; i = end) {
    size_t test = 0, heard = 0;
    for (end = i; end < count && !strcmp(all[end].corpus, all[i].corpus); end++) {
      test += (all[end].parts & IN_TEST) != 0;
      heard += (all[end].parts & IN_TEST) && (all[end].parts & IN_TRAIN);
    }
    if (test && heard == test) ser_text_printf(&corpora, "%s%s", told++ ? ", " : "", all[i].corpus);
  }
  if (told) ser_text_line(notes, "Every sentence of the test part is spoken in training too (%s).", corpora.data);
  free(corpora.data);
  free(all);
}

typedef struct {
  const char *name;
  bool trained, validated; /* in this fold */
  bool missed;             /* in some fold trained on and not validated */
} corpus_parts;

static int compare_corpora(const void *a, const void *b) {
  return strcmp(((const corpus_parts *)a)->name, ((const corpus_parts *)b)->name);
}

/* Corpora that are trained on in some fold whose validation part has no clip of them: the epoch is chosen without. */
static void note_unvalidated(ser_split *split, const ser_manifest *manifest) {
  corpus_parts *corpora = NULL;
  size_t count = 0, capacity = 0, told = 0;
  ser_text list = {0};
  for (int f = 0; f < split->folds; f++) {
    const ser_part *part = split->part + (size_t)f * split->rows;
    for (size_t i = 0; i < split->rows; i++) {
      size_t at = 0;
      while (at < count && strcmp(corpora[at].name, manifest->rows[i].corpus)) at++;
      if (at == count) {
        SER_GROW(corpora, count, capacity);
        corpora[count++] = (corpus_parts){.name = manifest->rows[i].corpus};
      }
      corpora[at].trained |= part[i] == SER_TRAIN;
      corpora[at].validated |= part[i] == SER_VALIDATION;
    }
    for (size_t at = 0; at < count; at++) {
      corpora[at].missed |= corpora[at].trained && !corpora[at].validated;
      corpora[at].trained = corpora[at].validated = false;
    }
  }
  if (count) qsort(corpora, count, sizeof *corpora, compare_corpora);
  for (size_t at = 0; at < count; at++)
    if (corpora[at].missed) ser_text_printf(&list, "%s%s", told++ ? ", " : "", corpora[at].name);
  if (told)
    ser_text_line(&split->notes,
                  "The epoch is chosen without %s: %s in training, but not in validation%s (split.validation_by=clips "
                  "takes some clips of every corpus).",
                  list.data, told == 1 ? "it stands" : "they stand", split->folds > 1 ? " of some folds" : "");
  free(list.data);
  free(corpora);
}

static void note_idle(ser_split *split, const ser_manifest *manifest) {
  size_t usable = 0;
  split->idle = 0;
  for (size_t i = 0; i < split->rows; i++) {
    bool any = false;
    for (int f = 0; f < split->folds; f++) any |= split->part[(size_t)f * split->rows + i] != SER_PART_NONE;
    usable += ser_row_usable(manifest->rows + i);
    split->idle += ser_row_usable(manifest->rows + i) && !any;
  }
  if (split->idle)
    ser_text_printf(&split->notes,
                    "Left out: %zu of the %zu usable recordings %s in no part of the split, neither trained on nor "
                    "tested.\n",
                    split->idle, usable, SER_PLURAL(split->idle, "stands", "stand"));
}

void split_describe(ser_split *split, const ser_manifest *manifest) {
  tally sum = {0};
  size_t unnamed = 0;
  ser_text *notes = &split->notes;
  note_idle(split, manifest);
  for (int f = 0; f < split->folds; f++) count_fold(&sum, split, manifest, f);
  for (size_t i = 0; i < split->rows; i++) unnamed += ser_row_usable(manifest->rows + i) && !*manifest->rows[i].speaker;
  const char *over = split->folds > 1 ? " (counted over the folds)" : "";
  if (sum.test_heard)
    ser_text_printf(notes,
                    "Speakers overlap: %zu of the %zu speakers of the test part are also heard in training or "
                    "validation%s, so these figures do not tell how well the model does with new speakers.\n",
                    sum.test_heard, sum.test, over);
  else if (sum.test)
    ser_text_puts(notes, "No speaker of the test part is heard in training or validation.\n");
  if (sum.val_heard && !sum.test_heard)
    ser_text_printf(notes, "Validation clips come from the training speakers%s.\n",
                    sum.left_few ? ", for fewer than three speakers remain beside the test part" : "");
  if (sum.validation) note_unvalidated(split, manifest);
  if (unnamed)
    ser_text_printf(notes, "%zu %s no speaker.\n", unnamed, SER_PLURAL(unnamed, "recording names", "recordings name"));
  note_statements(notes, split, manifest);
  if (sum.torn)
    ser_text_printf(notes, "%zu %s copies of the same bytes on two sides%s, as the given split has it.\n", sum.torn,
                    SER_PLURAL(sum.torn, "recording has", "recordings have"), over);
}
