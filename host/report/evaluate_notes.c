/* What a report says in words: whether the figures are of new speakers and new clips, and what was left out. Of a run's
 * own test part the split says it (ser_split_read, split.txt); of another manifest it is found here, by bytes and by
 * names. */
#include "report/evaluate.h"

#include <stdlib.h>
#include <string.h>

#include "report/score.h"

/* ---- sets of texts ------------------------------------------------------------------------------------------------
 */

typedef struct {
  const char **names;
  size_t count, capacity;
} name_set;

static void put_name(name_set *set, const char *name) {
  if (!*name) return; /* an unknown speaker overlaps with nobody */
  SER_GROW(set->names, set->count, set->capacity);
  set->names[set->count++] = name;
}

static int compare_names(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void settle(name_set *set) {
  size_t kept = 0;
  if (set->count) qsort(set->names, set->count, sizeof *set->names, compare_names);
  for (size_t i = 0; i < set->count; i++)
    if (!kept || strcmp(set->names[i], set->names[kept - 1])) set->names[kept++] = set->names[i];
  set->count = kept;
}

static size_t shared(const name_set *a, const name_set *b) {
  size_t both = 0;
  for (size_t i = 0, j = 0; i < a->count && j < b->count;) {
    int order = strcmp(a->names[i], b->names[j]);
    both += order == 0;
    i += order <= 0;
    j += order >= 0;
  }
  return both;
}

/* ---- another manifest ----------------------------------------------------------------------------------------------
 */

static int compare_hashes(const void *a, const void *b) {
  return ser_hash_compare(a, b);
}

/* Rows of the run's manifest that some fold trained on or chose its epoch on. */
static bool took_part(const ser_evaluation *e, size_t row) {
  for (int fold = 0; fold < e->split.folds; fold++) {
    ser_part part = e->split.part[(size_t)fold * e->split.rows + row];
    if (part == SER_TRAIN || part == SER_VALIDATION) return true;
  }
  return false;
}

static void note_other(ser_text *notes, const ser_evaluation *e, size_t models) {
  ser_hash *keys = ser_alloc(e->trained.count * sizeof *keys);
  size_t count = 0, seen = 0, rows = 0;
  name_set known = {0}, heard = {0};
  for (size_t i = 0; i < e->trained.count; i++) {
    if (!took_part(e, i)) continue;
    keys[count++] = e->trained.rows[i].hash;
    put_name(&known, e->trained.rows[i].speaker);
  }
  if (count) qsort(keys, count, sizeof *keys, compare_hashes);
  for (size_t i = 0; i < e->given.count; i++) {
    if (!e->usable[i]) continue;
    rows++;
    seen += count && bsearch(&e->given.rows[i].hash, keys, count, sizeof *keys, compare_hashes) != NULL;
    put_name(&heard, e->given.rows[i].speaker);
  }
  settle(&known);
  settle(&heard);
  if (seen)
    ser_text_printf(notes,
                    "%zu of the %zu clips were trained or validated on in this run: figures that include them are no "
                    "test.\n",
                    seen, rows);
  if (shared(&heard, &known))
    ser_text_printf(notes,
                    "Speakers overlap: %zu of the %zu speakers are also speakers of the training, so these figures say "
                    "little about speakers that the model has never heard.\n",
                    shared(&heard, &known), heard.count);
  if (models > 1)
    ser_text_printf(notes, "Each clip is answered by each of %zu models and counts once for each.\n", models);
  free(keys);
  free(known.names);
  free(heard.names);
}

void ser_evaluation_notes(ser_text *notes, const ser_evaluation *e, size_t models) {
  if (e->other) {
    note_other(notes, e, models);
  } else {
    if (e->split.made.data) ser_text_puts(notes, e->split.made.data);
    if (e->split.notes.data) ser_text_puts(notes, e->split.notes.data);
  }
  if (e->changed)
    ser_text_puts(notes,
                  "The manifest of the run has changed since the training: other recordings can be used, or they "
                  "have other labels, speakers or bytes.\n");
  if (e->unusable)
    ser_text_printf(notes, "%zu %s not be used (unreadable, too short ...) and %s in no figure.\n", e->unusable,
                    SER_PLURAL(e->unusable, "recording could", "recordings could"),
                    SER_PLURAL(e->unusable, "is", "are"));
  if (e->unknown)
    ser_text_printf(notes, "%zu %s that the model has no label for %s in no figure.\n", e->unknown,
                    SER_PLURAL(e->unknown, "recording of an emotion", "recordings of emotions"),
                    SER_PLURAL(e->unknown, "is", "are"));
}

/* A sentence on the labels that are marked, if there are any: before, "happy, sad or angry", then for one or several.
 */
static void note_labels(ser_text *notes, const char *before, const bool *marked, int classes, const char *const *labels,
                        const char *one, const char *several) {
  int count = 0, at = 0;
  for (int c = 0; c < classes; c++) count += marked[c];
  if (!count) return;
  ser_text_puts(notes, before);
  for (int c = 0; c < classes; c++) {
    if (!marked[c]) continue;
    ser_text_printf(notes, "%s%s", !at ? " " : at + 1 < count ? ", " : " or ", labels[c]);
    at++;
  }
  ser_text_printf(notes, "%s\n", SER_PLURAL(count, one, several));
}

/* Whether the fold has training clips of an emotion. */
static bool trained_on(const ser_evaluation *e, int fold, int emotion) {
  for (size_t i = 0; i < e->split.rows; i++)
    if (e->split.part[(size_t)fold * e->split.rows + i] == SER_TRAIN && e->trained.rows[i].emotion == emotion)
      return true;
  return false;
}

void ser_label_notes(ser_text *notes, const ser_evaluation *e, const ser_prediction *predictions, size_t count) {
  const char *labels[SER_EMOTIONS];
  bool never[SER_EMOTIONS], partly[SER_EMOTIONS], absent[SER_EMOTIONS];
  int classes = ser_model_labels(labels, &e->models[0]);
  bool *asked = ser_alloc_zero((size_t)e->split.folds, sizeof *asked); /* folds whose models answered */
  for (int c = 0; c < classes; c++) absent[c] = true;
  for (size_t i = 0; i < count; i++) {
    absent[predictions[i].truth] = false;
    asked[predictions[i].fold] = true;
  }
  for (int c = 0; c < classes; c++) {
    bool any = false, all = true;
    for (int f = 0; f < e->split.folds; f++) {
      bool there = asked[f] && trained_on(e, f, e->models[0].emotions[c]);
      any |= there;
      all &= there || !asked[f];
    }
    never[c] = !any;
    partly[c] = any && !all;
  }
  free(asked);
  note_labels(notes, "No training clip is", never, classes, labels, ": the model cannot have learnt this emotion.",
              ": the model cannot have learnt these emotions.");
  note_labels(notes, "In some folds no training clip is", partly, classes, labels,
              ": their models cannot have learnt this emotion.", ": their models cannot have learnt these emotions.");
  note_labels(notes, e->other ? "No clip here is" : "No clip of the test part is", absent, classes, labels,
              ": the figures do not tell how well it is recognised.",
              ": the figures do not tell how well these are recognised.");
}

void ser_one_answer_note(ser_text *notes, const ser_prediction *predictions, size_t count, const char *const *labels) {
  bool alike = true, of_one = true;
  for (size_t i = 1; i < count; i++) {
    alike &= predictions[i].answer == predictions[0].answer;
    of_one &= predictions[i].truth == predictions[0].truth;
  }
  if (count && alike && !of_one)
    ser_text_printf(notes,
                    "Every clip is answered with %s: the model has not learnt to tell emotions apart. Early in a "
                    "training that is so, until the running means of batch norm have settled (some hundred steps); "
                    "history.csv shows whether more epochs help.\n",
                    labels[predictions[0].answer]);
}

void ser_evaluation_model_line(ser_text *line, const ser_evaluation *e, size_t first, size_t models) {
  const ser_model_info *m = &e->models[first];
  const ser_model_config *c = &m->model;
  ser_text_printf(line, "%s branch%s, %lld %s of %lld %s, pooled over %s frames, on %s",
                  c->branch == SER_BRANCH_TIMNET ? "timnet" : "reference", c->residual ? " with residuals" : "",
                  (long long)c->blocks, SER_PLURAL(c->blocks, "block", "blocks"), (long long)c->filters,
                  SER_PLURAL(c->filters, "filter", "filters"), c->pool == SER_POOL_REAL ? "real" : "all",
                  ser_feature_names[m->feature]);
  if (models == 1)
    ser_text_printf(line, "; seed %lld, fold %d, epoch %lld (%s)", (long long)m->seed, m->fold, (long long)m->epoch,
                    m->chosen_by);
  else
    ser_text_printf(line, "; %zu models", models);
}
