/* What splits are drawn from: units that must stay together, their strata, their speakers. Private to host/corpus. */
#ifndef SER_CORPUS_SPLIT_PLAN_H
#define SER_CORPUS_SPLIT_PLAN_H

#include "corpus/manifest.h"

/* Rows with the same audio: they go together. */
typedef struct {
  size_t first, count; /* in plan.rows */
  ser_hash hash;       /* of the file's bytes (of its path where the manifest has none): what the draw goes by */
  size_t stratum;      /* of corpus and emotion */
  size_t speaker;      /* in plan.speakers */
} split_unit;

/* Speakers, joined where they share audio; clips that name none are one speaker a corpus. */
typedef struct {
  const char *name, *corpus, *sex; /* of the first in byte order */
  bool named;
  size_t rows, by_emotion[SER_EMOTIONS];
  ser_hash hash; /* of corpus and name */
} split_speaker;

typedef struct {
  const ser_manifest *manifest;
  uint64_t seed;
  size_t row_count, *rows; /* usable rows, those of a unit side by side */
  size_t unit_count;
  split_unit *units; /* in byte order of their hashes: the order of the manifest's rows has no say */
  size_t stratum_count;
  split_speaker *speakers; /* in byte order of corpus and name */
  size_t speaker_count;
  size_t joined; /* speakers that were joined with another */
} split_plan;

ser_status split_plan_make(split_plan *plan, const ser_manifest *manifest, int64_t seed, ser_error *err);
void split_plan_free(split_plan *plan);

/* 64 repeatable bits for a thing and a purpose. */
uint64_t split_draw(const split_plan *plan, uint64_t purpose, const ser_hash *thing);

/* Marks units (among those eligible) that make up `share` of the eligible rows in each stratum, by largest remainders:
 * at least one row, and never all. */
void split_take_clips(bool *chosen, const split_plan *plan, const bool *eligible, double share, uint64_t purpose);

/* Marks whole speakers (among those eligible) that make up about `share` of the rows of each corpus and sex in it, for
 * corpora with at least `fewest` eligible speakers; where no corpus has as many, of all corpora taken as one. At least
 * one speaker of each such corpus, and never all. The draw that comes closest out of many is taken. */
void split_take_speakers(bool *chosen, const split_plan *plan, const bool *eligible, double share, size_t fewest,
                         uint64_t purpose);

/* Deals units, or speakers, to k folds as evenly as possible in each stratum (for speakers: of corpus and sex). */
void split_deal_clips(int *fold_of_unit, const split_plan *plan, int folds);
void split_deal_speakers(int *fold_of_speaker, const split_plan *plan, int folds);

enum { PURPOSE_TEST = 1, PURPOSE_FOLDS = 2, PURPOSE_VALIDATION = 1000 /* and the fold */ };

/* Chooses the validation part of one fold from its training rows. by_speakers asks for whole speakers, which is done
 * where at least three are left. */
void split_add_validation(ser_part *part, const split_plan *plan, double share, bool by_speakers, int fold);

/* Sentences on what a split proves (split->notes) and the rows that it leaves out, read off the split itself. */
void split_describe(ser_split *split, const ser_manifest *manifest);

/* A CSV of path, part and optionally fold. Strict: as ser_split_text writes it, every path in the manifest. */
ser_status split_read_table(ser_split *split, const ser_manifest *manifest, const char *path, bool strict,
                            ser_error *err);

#endif
