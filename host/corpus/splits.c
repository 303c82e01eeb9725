/* Splits: random (stratified by corpus and emotion), by speaker, or given in a file; train, validation and test.
 *
 * split.test is the share of the usable clips that the test part gets; split.validation is the share of the others that
 * chooses the epoch. Units of the same audio and, in speaker splits, speakers are never torn apart. The draw goes by
 * Philox over the hash of each file's bytes: same manifest and configuration, same split, whatever the order of rows.
 */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "corpus/split_plan.h"

const char *const ser_part_names[4] = {"", "train", "validation", "test"};

static void set_unit(ser_part *part, const split_plan *plan, size_t unit, ser_part value) {
  for (size_t i = 0; i < plan->units[unit].count; i++) part[plan->rows[plan->units[unit].first + i]] = value;
}

/* Rows of a unit with the part. Only a file given by the user tears a unit apart. */
static size_t unit_rows(const ser_part *part, const split_plan *plan, size_t unit, ser_part value) {
  size_t count = 0;
  for (size_t i = 0; i < plan->units[unit].count; i++) count += part[plan->rows[plan->units[unit].first + i]] == value;
  return count;
}

static bool training(const ser_part *part, const split_plan *plan, size_t unit) {
  return unit_rows(part, plan, unit, SER_TRAIN) && !unit_rows(part, plan, unit, SER_TEST);
}

static void to_validation(ser_part *part, const split_plan *plan, size_t unit) {
  for (size_t i = 0; i < plan->units[unit].count; i++) {
    ser_part *row = part + plan->rows[plan->units[unit].first + i];
    if (*row == SER_TRAIN) *row = SER_VALIDATION;
  }
}

static bool validate_by_speakers(ser_part *part, const split_plan *plan, double share, uint64_t purpose) {
  bool *eligible = ser_alloc_zero(plan->speaker_count, sizeof *eligible);
  bool *chosen = ser_alloc_zero(plan->speaker_count, sizeof *chosen);
  size_t remain = 0;
  for (size_t u = 0; u < plan->unit_count; u++)
    if (training(part, plan, u)) eligible[plan->units[u].speaker] = true;
  for (size_t i = 0; i < plan->speaker_count; i++) remain += eligible[i];
  if (remain >= 3) {
    split_take_speakers(chosen, plan, eligible, share, 3, purpose);
    for (size_t u = 0; u < plan->unit_count; u++)
      if (training(part, plan, u) && chosen[plan->units[u].speaker]) to_validation(part, plan, u);
  }
  free(eligible);
  free(chosen);
  return remain >= 3;
}

void split_add_validation(ser_part *part, const split_plan *plan, double share, bool by_speakers, int fold) {
  uint64_t purpose = PURPOSE_VALIDATION + (uint64_t)fold;
  if (share <= 0 || (by_speakers && validate_by_speakers(part, plan, share, purpose))) return;
  bool *eligible = ser_alloc_zero(plan->unit_count, sizeof *eligible);
  bool *chosen = ser_alloc_zero(plan->unit_count, sizeof *chosen);
  for (size_t u = 0; u < plan->unit_count; u++) eligible[u] = training(part, plan, u);
  split_take_clips(chosen, plan, eligible, share, purpose);
  for (size_t u = 0; u < plan->unit_count; u++)
    if (chosen[u]) to_validation(part, plan, u);
  free(eligible);
  free(chosen);
}

static void start_split(ser_split *split, const ser_manifest *manifest, int folds) {
  *split = (ser_split){.folds = folds, .rows = manifest->count};
  split->part = ser_alloc_zero((size_t)folds * manifest->count, sizeof *split->part);
}

static ser_status too_many_folds(int64_t folds, size_t count, const char *what, ser_error *err) {
  return ser_fail(err, SER_USAGE, "split.folds is %lld, but there are only %zu %s; set split.folds to that at most",
                  (long long)folds, count, what);
}

static ser_status split_random(ser_split *split, const split_plan *plan, const ser_config *config, ser_error *err) {
  int folds = config->split.folds > 1 ? (int)config->split.folds : 1;
  if (plan->unit_count < 3)
    return ser_fail(err, SER_FAILED,
                    "a split needs at least three different recordings, but the manifest has %zu usable",
                    plan->unit_count);
  if ((size_t)folds > plan->unit_count) return too_many_folds(folds, plan->unit_count, "different recordings", err);
  start_split(split, plan->manifest, folds);
  int *fold_of = ser_alloc_zero(plan->unit_count, sizeof *fold_of);
  bool *test = ser_alloc_zero(plan->unit_count, sizeof *test);
  if (folds > 1)
    split_deal_clips(fold_of, plan, folds);
  else
    split_take_clips(test, plan, NULL, config->split.test, PURPOSE_TEST);
  for (int f = 0; f < folds; f++) {
    ser_part *part = split->part + (size_t)f * split->rows;
    for (size_t u = 0; u < plan->unit_count; u++)
      set_unit(part, plan, u, (folds > 1 ? fold_of[u] == f : test[u]) ? SER_TEST : SER_TRAIN);
    split_add_validation(part, plan, config->split.validation, false, f);
  }
  free(fold_of);
  free(test);
  return SER_OK;
}

/* The speakers that split.test_speakers names, and those joined with them. */
static ser_status given_speakers(bool *test, const split_plan *plan, const ser_text_list *names, ser_error *err) {
  const ser_row *rows = plan->manifest->rows;
  for (int64_t n = 0; n < names->count; n++) {
    bool found = false;
    for (size_t u = 0; u < plan->unit_count; u++)
      for (size_t i = 0; i < plan->units[u].count; i++)
        if (!strcmp(rows[plan->rows[plan->units[u].first + i]].speaker, names->values[n]))
          found = test[plan->units[u].speaker] = true;
    if (found) continue;
    ser_text known = {0};
    for (size_t i = 0; i < plan->speaker_count && i < 30; i++)
      ser_text_printf(&known, "%s%s", i ? ", " : "", plan->speakers[i].name);
    ser_status status =
        ser_fail(err, SER_USAGE, "split.test_speakers: no usable recording has the speaker %s; there are %s%s",
                 names->values[n], known.data, plan->speaker_count > 30 ? " and others" : "");
    free(known.data);
    return status;
  }
  return SER_OK;
}

static ser_status draw_test_speakers(bool *test, const split_plan *plan, const ser_config *config, ser_error *err) {
  const ser_text_list *names = &config->split.test_speakers;
  bool *eligible = ser_alloc_zero(plan->speaker_count, sizeof *eligible);
  ser_status status = SER_OK;
  for (size_t i = 0; i < plan->speaker_count; i++) eligible[i] = true;
  if (names->count)
    status = given_speakers(test, plan, names, err);
  else
    split_take_speakers(test, plan, eligible, config->split.test, 2, PURPOSE_TEST);
  size_t count = 0;
  for (size_t i = 0; i < plan->speaker_count; i++) count += test[i];
  if (status == SER_OK && count == plan->speaker_count)
    status = ser_fail(err, SER_USAGE, "split.test_speakers takes every speaker; leave at least one to train on");
  free(eligible);
  return status;
}

/* Whole speakers seldom come out at the share that was asked for; far from it, that is told. */
static void note_share(ser_split *split, const split_plan *plan, double asked) {
  size_t test = 0;
  for (size_t i = 0; i < split->rows; i++) test += split->part[i] == SER_TEST;
  double share = (double)test / (double)plan->row_count;
  if (share - asked < 0.05 && asked - share < 0.05) return;
  ser_text_line(&split->made,
                "The test part holds %.1f%% of the recordings, where split.test asks for %.1f%%: speakers are taken "
                "whole, at least one of each corpus that has two.",
                100 * share, 100 * asked);
}

static ser_status split_by_speaker(ser_split *split, const split_plan *plan, const ser_config *config, ser_error *err) {
  int folds = config->split.folds > 1 ? (int)config->split.folds : 1;
  if (plan->speaker_count < 2)
    return ser_fail(
        err, SER_FAILED,
        "a speaker split needs at least two speakers, but the manifest's usable recordings have %zu%s; name "
        "more in its column speaker, or set split.kind=random",
        plan->speaker_count, plan->joined ? " (those that share audio count as one)" : "");
  if ((size_t)folds > plan->speaker_count) return too_many_folds(folds, plan->speaker_count, "speakers", err);
  ser_status status = SER_OK;
  int *fold_of = ser_alloc_zero(plan->speaker_count, sizeof *fold_of);
  bool *test = ser_alloc_zero(plan->speaker_count, sizeof *test);
  if (folds > 1)
    split_deal_speakers(fold_of, plan, folds);
  else
    SER_TRY_DONE(draw_test_speakers(test, plan, config, err));
  start_split(split, plan->manifest, folds);
  for (int f = 0; f < folds; f++) {
    ser_part *part = split->part + (size_t)f * split->rows;
    for (size_t u = 0; u < plan->unit_count; u++) {
      size_t speaker = plan->units[u].speaker;
      set_unit(part, plan, u, (folds > 1 ? fold_of[speaker] == f : test[speaker]) ? SER_TEST : SER_TRAIN);
    }
    split_add_validation(part, plan, config->split.validation, config->split.validation_by == SER_BY_SPEAKERS, f);
  }
  if (folds == 1 && !config->split.test_speakers.count) note_share(split, plan, config->split.test);
done:
  free(fold_of);
  free(test);
  return status;
}

static bool speakers_apart(const ser_part *part, const split_plan *plan) {
  bool *trained = ser_alloc_zero(plan->speaker_count, sizeof *trained), apart = true;
  for (size_t u = 0; u < plan->unit_count; u++)
    if (unit_rows(part, plan, u, SER_TRAIN)) trained[plan->units[u].speaker] = true;
  for (size_t u = 0; u < plan->unit_count; u++)
    apart &= !(unit_rows(part, plan, u, SER_TEST) && trained[plan->units[u].speaker]);
  free(trained);
  return apart;
}

static size_t validation_rows(const ser_part *part, size_t rows) {
  size_t count = 0;
  for (size_t i = 0; i < rows; i++) count += part[i] == SER_VALIDATION;
  return count;
}

/* The file's parts; a fold without validation clips gets them from its training clips: by speakers only where its test
 * speakers are apart from those. */
static ser_status split_from_file(ser_split *split, const split_plan *plan, const ser_config *config, ser_error *err) {
  size_t drawn = 0;
  SER_TRY(split_read_table(split, plan->manifest, config->split.file, false, err));
  for (int f = 0; f < split->folds; f++) {
    ser_part *part = split->part + (size_t)f * split->rows;
    bool by_speakers = config->split.validation_by == SER_BY_SPEAKERS && speakers_apart(part, plan);
    if (validation_rows(part, split->rows)) continue;
    split_add_validation(part, plan, config->split.validation, by_speakers, f);
    drawn += validation_rows(part, split->rows);
  }
  if (drawn)
    ser_text_line(&split->made, "%s names no validation part%s: %zu %s drawn for it from the training part.",
                  ser_path_name(config->split.file), split->folds > 1 ? " of some folds" : "", drawn,
                  SER_PLURAL(drawn, "recording was", "recordings were"));
  return SER_OK;
}

ser_status ser_split_make(ser_split *split, const ser_manifest *manifest, const ser_config *config, ser_error *err) {
  memset(split, 0, sizeof *split);
  split_plan plan;
  SER_TRY(split_plan_make(&plan, manifest, config->split.seed, err));
  ser_status status = SER_FAILED;
  switch (config->split.kind) {
  case SER_SPLIT_RANDOM:
    status = split_random(split, &plan, config, err);
    break;
  case SER_SPLIT_SPEAKER:
    status = split_by_speaker(split, &plan, config, err);
    break;
  case SER_SPLIT_FILE:
    status = split_from_file(split, &plan, config, err);
    break;
  }
  if (status == SER_OK) {
    if (plan.joined && config->split.kind == SER_SPLIT_SPEAKER)
      ser_text_printf(&split->made, "%zu %s audio with another and %s on its side.\n", plan.joined,
                      SER_PLURAL(plan.joined, "speaker shares", "speakers share"),
                      SER_PLURAL(plan.joined, "stands", "stand"));
    split_describe(split, manifest);
  } else {
    ser_split_free(split);
  }
  split_plan_free(&plan);
  return status;
}

void ser_split_free(ser_split *split) {
  free(split->part);
  free(split->notes.data);
  free(split->made.data);
  memset(split, 0, sizeof *split);
}
