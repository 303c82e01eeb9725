/* Units, strata and speakers of a manifest's usable rows. Everything is ordered by content (hashes of the files' bytes,
 * names), so that neither the order of the rows nor the folder that holds the corpora changes a split. */
#include "corpus/split_plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/philox.h"

static uint64_t bytes_at(const ser_hash *hash, int at) {
  uint64_t value = 0;
  for (int i = 0; i < 8; i++) value = value << 8 | hash->bytes[at + i];
  return value;
}

uint64_t split_draw(const split_plan *plan, uint64_t purpose, const ser_hash *thing) {
  uint64_t high = bytes_at(thing, 0) ^ purpose * 0x9E3779B97F4A7C15u;
  ser_philox bits = ser_philox_at(plan->seed, high, bytes_at(thing, 8));
  return (uint64_t)bits.v[0] << 32 | bits.v[1];
}

/* ---- units ---- */

static ser_hash row_hash(const ser_row *row) {
  static const ser_hash none;
  return ser_hash_compare(&row->hash, &none) ? row->hash : ser_hash_bytes(row->path, strlen(row->path));
}

typedef struct {
  ser_hash hash;
  size_t row, set; /* set: the row number that stands for all with the same audio */
} placed;

static int compare_hashes(const void *a, const void *b, void *context) {
  const placed *x = a, *y = b;
  const ser_row *rows = context;
  int order = ser_hash_compare(&x->hash, &y->hash);
  return order ? order : strcmp(rows[x->row].path, rows[y->row].path);
}

/* Do the bytes alone explain the row's relation: has a row of the same hash stayed, or another label? */
static bool bytes_explain(const placed *all, size_t count, size_t i, const ser_row *rows) {
  const ser_row *row = rows + all[i].row;
  size_t first = i;
  while (first && !ser_hash_compare(&all[first - 1].hash, &all[i].hash)) first--;
  for (size_t k = first; k < count && !ser_hash_compare(&all[k].hash, &all[i].hash); k++) {
    const ser_row *other = rows + all[k].row;
    bool stayed = other->reason != SER_REASON_DUPLICATE, unlike = other->emotion != row->emotion;
    if (row->reason == SER_REASON_DUPLICATE ? stayed : unlike) return true;
  }
  return false;
}

/* An audit that only reports leaves rows in use that have the same samples in other bytes. Which the others are, the
 * manifest does not say, but they have the same rate and length: all of those go together with it. */
static void join_same_samples(placed *all, size_t count, const ser_row *rows) {
  for (size_t i = 0; i < count; i++) {
    const ser_row *row = rows + all[i].row;
    bool relation = row->reason == SER_REASON_DUPLICATE || row->reason == SER_REASON_LABEL_CONFLICT;
    if (!relation || bytes_explain(all, count, i, rows)) continue;
    for (size_t k = 0; k < count; k++) {
      const ser_row *other = rows + all[k].row;
      if (other->rate != row->rate || other->frames != row->frames || all[k].set == all[i].set) continue;
      size_t from = all[k].set;
      for (size_t m = 0; m < count; m++)
        if (all[m].set == from) all[m].set = all[i].set;
    }
  }
}

static int compare_sets(const void *a, const void *b) {
  const placed *x = a, *y = b;
  return (x->set > y->set) - (x->set < y->set);
}

static void make_units(split_plan *plan) {
  const ser_row *rows = plan->manifest->rows;
  placed *all = ser_alloc_zero(plan->manifest->count, sizeof *all);
  size_t count = 0;
  for (size_t i = 0; i < plan->manifest->count; i++)
    if (ser_row_usable(rows + i)) all[count++] = (placed){.hash = row_hash(rows + i), .row = i};
  if (count) qsort_r(all, count, sizeof *all, compare_hashes, (void *)rows);
  for (size_t i = 0; i < count; i++)
    all[i].set = i && !ser_hash_compare(&all[i].hash, &all[i - 1].hash) ? all[i - 1].set : i;
  join_same_samples(all, count, rows);
  /* Sets are numbered by their place in the order of hashes; within one, that order stays. */
  placed *sorted = ser_alloc_zero(count, sizeof *sorted);
  size_t *starts = ser_alloc_zero(count + 1, sizeof *starts);
  for (size_t i = 0; i < count; i++) starts[all[i].set + 1]++;
  for (size_t i = 0; i < count; i++) starts[i + 1] += starts[i];
  for (size_t i = 0; i < count; i++) sorted[starts[all[i].set]++] = all[i];
  plan->row_count = count;
  plan->rows = ser_alloc_zero(count, sizeof *plan->rows);
  plan->units = ser_alloc_zero(count, sizeof *plan->units);
  for (size_t i = 0; i < count; i++) {
    plan->rows[i] = sorted[i].row;
    if (!i || compare_sets(sorted + i, sorted + i - 1))
      plan->units[plan->unit_count++] = (split_unit){.first = i, .hash = sorted[i].hash};
    plan->units[plan->unit_count - 1].count++;
  }
  free(starts);
  free(sorted);
  free(all);
}

/* ---- strata of corpus and emotion ---- */

typedef struct {
  const char *corpus;
  int emotion;
  size_t unit;
} stratum_key;

static int compare_strata(const void *a, const void *b) {
  const stratum_key *x = a, *y = b;
  int order = strcmp(x->corpus, y->corpus);
  if (order) return order;
  if (x->emotion != y->emotion) return x->emotion < y->emotion ? -1 : 1;
  return (x->unit > y->unit) - (x->unit < y->unit);
}

static void make_strata(split_plan *plan) {
  stratum_key *keys = ser_alloc_zero(plan->unit_count, sizeof *keys);
  for (size_t i = 0; i < plan->unit_count; i++) {
    const ser_row *row = plan->manifest->rows + plan->rows[plan->units[i].first];
    keys[i] = (stratum_key){row->corpus, row->emotion, i};
  }
  if (plan->unit_count) qsort(keys, plan->unit_count, sizeof *keys, compare_strata);
  for (size_t i = 0; i < plan->unit_count; i++) {
    bool next = !i || strcmp(keys[i].corpus, keys[i - 1].corpus) || keys[i].emotion != keys[i - 1].emotion;
    plan->stratum_count += next;
    plan->units[keys[i].unit].stratum = plan->stratum_count - 1;
  }
  free(keys);
}

/* ---- speakers ---- */

typedef struct {
  const char *name, *corpus, *sex;
  size_t unit, row, group;
} voice;

/* By name, whatever the corpus: the same name in two corpora may be one person. Without a name: by corpus. */
static int compare_voices(const void *a, const void *b) {
  const voice *x = a, *y = b;
  int order = strcmp(x->name, y->name);
  if (!order && !*x->name) order = strcmp(x->corpus, y->corpus);
  return order;
}

static int compare_voices_fully(const void *a, const void *b) {
  const voice *x = a, *y = b;
  int order = compare_voices(a, b);
  if (!order) order = strcmp(x->corpus, y->corpus);
  if (!order) order = strcmp(y->sex, x->sex); /* an empty one last */
  return order ? order : (x->row > y->row) - (x->row < y->row);
}

static size_t find_root(size_t *parents, size_t i) {
  while (parents[i] != i) i = parents[i] = parents[parents[i]];
  return i;
}

/* Gives each voice its group: speakers of one unit are joined, the lowest number stands for them. */
static size_t join_voices(voice *voices, const split_plan *plan, size_t names) {
  size_t *parents = ser_alloc_zero(names, sizeof *parents),
         *of_unit = ser_alloc_zero(plan->unit_count, sizeof *of_unit);
  size_t joined = 0;
  for (size_t i = 0; i < names; i++) parents[i] = i;
  for (size_t i = 0; i < plan->unit_count; i++) of_unit[i] = SIZE_MAX;
  for (size_t i = 0; i < plan->row_count; i++) {
    size_t *first = of_unit + voices[i].unit;
    if (*first == SIZE_MAX) *first = voices[i].group;
    size_t a = find_root(parents, *first), b = find_root(parents, voices[i].group);
    if (a == b) continue;
    parents[a < b ? b : a] = a < b ? a : b;
    joined++;
  }
  for (size_t i = 0; i < plan->row_count; i++) voices[i].group = find_root(parents, voices[i].group);
  free(parents);
  free(of_unit);
  return joined;
}

static void make_speakers(split_plan *plan) {
  size_t rows = plan->row_count, names = 0;
  voice *voices = ser_alloc_zero(rows, sizeof *voices);
  for (size_t u = 0; u < plan->unit_count; u++)
    for (size_t i = 0; i < plan->units[u].count; i++) {
      size_t at = plan->units[u].first + i;
      const ser_row *row = plan->manifest->rows + plan->rows[at];
      voices[at] = (voice){row->speaker, row->corpus, row->sex, u, plan->rows[at], 0};
    }
  if (rows) qsort(voices, rows, sizeof *voices, compare_voices_fully);
  for (size_t i = 0; i < rows; i++) {
    names += !i || compare_voices(voices + i, voices + i - 1);
    voices[i].group = names - 1;
  }
  plan->joined = join_voices(voices, plan, names);
  size_t *number = ser_alloc_zero(names, sizeof *number);
  plan->speakers = ser_alloc_zero(names, sizeof *plan->speakers);
  for (size_t i = 0; i < names; i++) number[i] = SIZE_MAX;
  for (size_t i = 0; i < rows; i++) {
    const voice *at = voices + i;
    if (number[at->group] == SIZE_MAX) {
      ser_text key = {0};
      ser_text_printf(&key, "%s\n%s", at->corpus, at->name);
      number[at->group] = plan->speaker_count;
      plan->speakers[plan->speaker_count++] = (split_speaker){.name = at->name,
                                                              .corpus = at->corpus,
                                                              .sex = at->sex,
                                                              .named = *at->name != 0,
                                                              .hash = ser_hash_bytes(key.data, key.size)};
      free(key.data);
    }
    split_speaker *speaker = plan->speakers + number[at->group];
    speaker->rows++;
    speaker->by_emotion[plan->manifest->rows[at->row].emotion]++;
    plan->units[at->unit].speaker = number[at->group];
  }
  free(number);
  free(voices);
}

ser_status split_plan_make(split_plan *plan, const ser_manifest *manifest, int64_t seed, ser_error *err) {
  *plan = (split_plan){.manifest = manifest, .seed = (uint64_t)seed};
  make_units(plan);
  if (!plan->row_count) {
    split_plan_free(plan);
    return ser_fail(err, SER_FAILED,
                    "the manifest has no usable recording: all %zu are filtered, excluded or refused; see its columns "
                    "status and reason",
                    manifest->count);
  }
  make_strata(plan);
  make_speakers(plan);
  return SER_OK;
}

void split_plan_free(split_plan *plan) {
  free(plan->rows);
  free(plan->units);
  free(plan->speakers);
  memset(plan, 0, sizeof *plan);
}
