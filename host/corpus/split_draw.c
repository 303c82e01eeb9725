/* The draws: clips by largest remainders, speakers by the best of many draws, folds by dealing. */
#include "corpus/split_plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  size_t thing;  /* a unit, a speaker or a stratum */
  size_t group;  /* what is ordered first */
  double weight; /* then this, from large to small */
  uint64_t key;  /* then by lot */
} lot;

static int compare_lots(const void *a, const void *b) {
  const lot *x = a, *y = b;
  if (x->group != y->group) return x->group < y->group ? -1 : 1;
  if (x->weight != y->weight) return x->weight > y->weight ? -1 : 1;
  if (x->key != y->key) return x->key < y->key ? -1 : 1;
  return (x->thing > y->thing) - (x->thing < y->thing);
}

/* ---- clips ---- */

/* quotas[stratum] of `total` rows in proportion to counts[stratum], whole numbers by largest remainders. */
static void share_out(size_t *quotas, const split_plan *plan, const size_t *counts, size_t total, uint64_t purpose) {
  lot *lots = ser_alloc_zero(plan->stratum_count, sizeof *lots);
  size_t all = 0, given = 0;
  for (size_t s = 0; s < plan->stratum_count; s++) all += counts[s];
  for (size_t s = 0; s < plan->stratum_count; s++) {
    ser_hash name = ser_hash_bytes(&s, sizeof s);
    quotas[s] = all ? total * counts[s] / all : 0;
    given += quotas[s];
    lots[s] = (lot){s, 0, (double)(total * counts[s] - quotas[s] * all), split_draw(plan, purpose, &name)};
  }
  qsort(lots, plan->stratum_count, sizeof *lots, compare_lots);
  for (size_t i = 0; given < total && i < plan->stratum_count; i++, given++) quotas[lots[i].thing]++;
  free(lots);
}

static lot *sort_units(const split_plan *plan, const bool *eligible, uint64_t purpose, size_t *count) {
  lot *lots = ser_alloc_zero(plan->unit_count, sizeof *lots);
  *count = 0;
  for (size_t i = 0; i < plan->unit_count; i++)
    if (!eligible || eligible[i])
      lots[(*count)++] = (lot){i, plan->units[i].stratum, 0, split_draw(plan, purpose, &plan->units[i].hash)};
  if (*count) qsort(lots, *count, sizeof *lots, compare_lots);
  return lots;
}

void split_take_clips(bool *chosen, const split_plan *plan, const bool *eligible, double share, uint64_t purpose) {
  size_t *counts = ser_alloc_zero(plan->stratum_count, sizeof *counts), all = 0, units;
  size_t *quotas = ser_alloc_zero(plan->stratum_count, sizeof *quotas);
  lot *lots = sort_units(plan, eligible, purpose, &units);
  bool any = false;
  for (size_t i = 0; i < units; i++) {
    counts[lots[i].group] += plan->units[lots[i].thing].count;
    all += plan->units[lots[i].thing].count;
  }
  size_t total = (size_t)llround(share * (double)all);
  if (total < 1) total = 1;
  if (total + 1 > all) total = all ? all - 1 : 0;
  share_out(quotas, plan, counts, total, purpose);
  memset(chosen, 0, plan->unit_count * sizeof *chosen);
  for (size_t i = 0; i < units; i++) {
    const split_unit *unit = plan->units + lots[i].thing;
    if (unit->count > quotas[unit->stratum]) continue;
    quotas[unit->stratum] -= unit->count;
    chosen[lots[i].thing] = true;
    any = true;
  }
  /* Where every unit is larger than its stratum's quota, the smallest one still makes the part. */
  size_t smallest = 0;
  for (size_t i = 1; i < units; i++)
    if (plan->units[lots[i].thing].count < plan->units[lots[smallest].thing].count) smallest = i;
  if (!any && units > 1) chosen[lots[smallest].thing] = true;
  free(counts);
  free(quotas);
  free(lots);
}

void split_deal_clips(int *fold_of_unit, const split_plan *plan, int folds) {
  size_t units, *total = ser_alloc_zero((size_t)folds, sizeof *total),
                *here = ser_alloc_zero((size_t)folds, sizeof *here);
  lot *lots = sort_units(plan, NULL, PURPOSE_FOLDS, &units);
  for (size_t i = 0; i < units; i++) {
    if (i && lots[i].group != lots[i - 1].group) memset(here, 0, (size_t)folds * sizeof *here);
    int best = 0;
    for (int f = 1; f < folds; f++)
      if (here[f] < here[best] || (here[f] == here[best] && total[f] < total[best])) best = f;
    fold_of_unit[lots[i].thing] = best;
    here[best] += plan->units[lots[i].thing].count;
    total[best] += plan->units[lots[i].thing].count;
  }
  free(total);
  free(here);
  free(lots);
}

/* ---- speakers ---- */

enum { SEXES = 3, DRAWS = 64 };

static size_t sex_of(const split_speaker *speaker) {
  return !strcmp(speaker->sex, "female") ? 0 : !strcmp(speaker->sex, "male") ? 1 : 2;
}

typedef struct {
  double rows, by_sex[SEXES], by_emotion[SER_EMOTIONS];
} tally;

static void count_speaker(tally *all, const split_speaker *speaker) {
  all->rows += (double)speaker->rows;
  all->by_sex[sex_of(speaker)] += (double)speaker->rows;
  for (int e = 0; e < SER_EMOTIONS; e++) all->by_emotion[e] += (double)speaker->by_emotion[e];
}

/* How far the taken speakers are from the wanted share, and from the pool's sexes and emotions. */
static double distance(const tally *taken, const tally *pool, double share) {
  double far = fabs(taken->rows - share * pool->rows) / pool->rows;
  for (int s = 0; s < SEXES; s++) far += 0.5 * fabs(taken->by_sex[s] / taken->rows - pool->by_sex[s] / pool->rows);
  for (int e = 0; e < SER_EMOTIONS; e++)
    far += 0.5 * fabs(taken->by_emotion[e] / taken->rows - pool->by_emotion[e] / pool->rows);
  return far;
}

/* One draw: the sex that lacks most gives the next speaker, until one more would lead away from the share. */
static double draw_speakers(bool *taken, const split_plan *plan, const size_t *pool, size_t count, double share,
                            uint64_t purpose, int draw) {
  lot *lots = ser_alloc_zero(count, sizeof *lots);
  tally all = {0}, now = {0};
  for (size_t i = 0; i < count; i++) {
    const split_speaker *speaker = plan->speakers + pool[i];
    count_speaker(&all, speaker);
    lots[i] = (lot){i, sex_of(speaker), 0, split_draw(plan, purpose + ((uint64_t)draw << 32), &speaker->hash)};
    taken[i] = false;
  }
  qsort(lots, count, sizeof *lots, compare_lots);
  for (size_t number = 0; number + 1 < count; number++) {
    const split_speaker *next = NULL;
    size_t which = 0;
    double lack = -INFINITY;
    for (size_t i = 0; i < count; i++) {
      size_t sex = lots[i].group;
      double here = share * all.by_sex[sex] - now.by_sex[sex];
      if (taken[lots[i].thing] || here <= lack) continue;
      lack = here;
      which = lots[i].thing;
      next = plan->speakers + pool[which];
    }
    double target = share * all.rows;
    if (number && fabs(now.rows + (double)next->rows - target) >= fabs(now.rows - target)) break;
    taken[which] = true;
    count_speaker(&now, next);
  }
  free(lots);
  return distance(&now, &all, share);
}

static void take_from_pool(bool *chosen, const split_plan *plan, const size_t *pool, size_t count, double share,
                           uint64_t purpose) {
  bool *taken = ser_alloc_zero(count, sizeof *taken), *best = ser_alloc_zero(count, sizeof *best);
  double nearest = INFINITY;
  for (int draw = 0; draw < DRAWS; draw++) {
    double far = draw_speakers(taken, plan, pool, count, share, purpose, draw);
    if (far >= nearest) continue;
    nearest = far;
    memcpy(best, taken, count * sizeof *best);
  }
  for (size_t i = 0; i < count; i++)
    if (best[i]) chosen[pool[i]] = true;
  free(taken);
  free(best);
}

void split_take_speakers(bool *chosen, const split_plan *plan, const bool *eligible, double share, size_t fewest,
                         uint64_t purpose) {
  size_t *pool = ser_alloc_zero(plan->speaker_count, sizeof *pool), count = 0;
  bool *seen = ser_alloc_zero(plan->speaker_count, sizeof *seen), any = false;
  memset(chosen, 0, plan->speaker_count * sizeof *chosen);
  for (size_t i = 0; i < plan->speaker_count; i++) {
    if (seen[i]) continue;
    count = 0;
    for (size_t k = i; k < plan->speaker_count; k++) {
      if (strcmp(plan->speakers[k].corpus, plan->speakers[i].corpus)) continue;
      seen[k] = true;
      if (eligible[k]) pool[count++] = k;
    }
    if (count < fewest) continue;
    take_from_pool(chosen, plan, pool, count, share, purpose);
    any = true;
  }
  count = 0;
  for (size_t i = 0; i < plan->speaker_count; i++)
    if (eligible[i]) pool[count++] = i;
  if (!any && count > 1) take_from_pool(chosen, plan, pool, count, share, purpose);
  free(pool);
  free(seen);
}

/* By corpus and sex; large speakers first, by lot where they are equally large. */
void split_deal_speakers(int *fold_of_speaker, const split_plan *plan, int folds) {
  size_t count = plan->speaker_count, corpora = 0;
  size_t *corpus_of = ser_alloc_zero(count, sizeof *corpus_of);
  for (size_t i = 0; i < count; i++) {
    size_t same = 0;
    while (same < i && strcmp(plan->speakers[same].corpus, plan->speakers[i].corpus)) same++;
    corpus_of[i] = same < i ? corpus_of[same] : corpora++;
  }
  lot *lots = ser_alloc_zero(count, sizeof *lots);
  for (size_t i = 0; i < count; i++) {
    const split_speaker *speaker = plan->speakers + i;
    lots[i] = (lot){i, corpus_of[i] * SEXES + sex_of(speaker), (double)speaker->rows,
                    split_draw(plan, PURPOSE_FOLDS, &speaker->hash)};
  }
  qsort(lots, count, sizeof *lots, compare_lots);
  size_t *here = ser_alloc_zero((size_t)folds, sizeof *here), *total = ser_alloc_zero((size_t)folds, sizeof *total);
  size_t *corpus = ser_alloc_zero((size_t)folds, sizeof *corpus);
  for (size_t i = 0; i < count; i++) {
    if (i && lots[i].group != lots[i - 1].group) memset(here, 0, (size_t)folds * sizeof *here);
    if (i && lots[i].group / SEXES != lots[i - 1].group / SEXES) memset(corpus, 0, (size_t)folds * sizeof *corpus);
    int best = 0;
    for (int f = 1; f < folds; f++) {
      if (here[f] != here[best]       ? here[f] < here[best]
          : corpus[f] != corpus[best] ? corpus[f] < corpus[best]
                                      : total[f] < total[best])
        best = f;
    }
    size_t rows = plan->speakers[lots[i].thing].rows;
    fold_of_speaker[lots[i].thing] = best;
    here[best]++;
    corpus[best] += rows;
    total[best] += rows;
  }
  free(corpus_of);
  free(lots);
  free(here);
  free(total);
  free(corpus);
}
