/* What the files of host/train share and nobody else sees. */
#ifndef SER_TRAIN_INTERNAL_H
#define SER_TRAIN_INTERNAL_H

#include "train/train.h"

/* What is kept of an epoch; the columns of history.csv. */
typedef struct {
  double train_loss, train_war, gradient_norm;
  double validation_loss, validation_war, validation_uar; /* NaN where there are no validation clips */
} ser_epoch;
enum { SER_EPOCH_VALUES = sizeof(ser_epoch) / sizeof(double) };

/* ---- checkpoint.c: a training between two epochs, whole -----------------------------------------------------------
 */

typedef struct {
  char identity[SER_HASH_HEX]; /* of all settings and data that its numbers come from */
  char settings[SER_HASH_HEX]; /* of the settings alone (ser_training_settings); "": not told */
  int64_t seed, fold;
  int64_t epoch;      /* finished epochs */
  int64_t step;       /* optimiser steps taken */
  int64_t best_epoch; /* from 1; 0: none yet */
  int64_t flat_count, trained_count;
  float *parameters, *best; /* [flat_count] */
  float *m, *v;             /* [trained_count], Adam's moments */
  ser_epoch *history;       /* [epoch], room for history_capacity */
  int64_t history_capacity;
  char *computed_on; /* backends and instruction sets of its epochs: "cpu avx2, cpu avx512"; NULL: not told */
} ser_checkpoint;

void ser_checkpoint_init(ser_checkpoint *checkpoint, int64_t flat_count, int64_t trained_count);
void ser_checkpoint_free(ser_checkpoint *checkpoint);
/* Atomic; the file carries a checksum over all of its bytes. */
ser_status ser_checkpoint_write(const ser_checkpoint *checkpoint, const char *path, ser_error *err);
/* Into an initialised checkpoint whose counts are the model's. `fits` is false, and nothing read but what the file
 * tells of its settings, where it belongs to another identity. Damage is SER_FAILED, naming the file and the cure. */
ser_status ser_checkpoint_read(ser_checkpoint *checkpoint, bool *fits, const char *identity, const char *path,
                               ser_error *err);

/* "cpu avx2": what decides about the last bits of a training on this device. The caller frees it. */
char *ser_computing_name(ser_device *device);
/* The same of a device of these properties, were its convolutions run as `conv` says. */
char *ser_computing_words(const ser_device_properties *properties, const char *conv);
bool ser_computing_has(const char *list, const char *name); /* a list as below */
/* A list as in computed_on (NULL: an empty one) with `name` in it, behind the others where it is new. */
char *ser_computing_join(const char *list, const char *name);

/* history.csv of the epochs so far: epoch, then ser_epoch's values (empty where NaN), then best: 1 where the epoch was
 * the best so far. */
void ser_history_text(ser_text *text, const ser_epoch *history, int64_t epochs, ser_select select);

/* ---- parts.c ------------------------------------------------------------------------------------------------------
 */

/* Atomic, and only where the bytes differ from those that are there. */
ser_status ser_write_if_new(const char *path, const ser_text *text, ser_error *err);

/* ---- choice.c: which epoch, which order ---------------------------------------------------------------------------
 */

/* Whether an epoch takes the best one's place (NULL: there is none yet): a higher UAR (or WAR) on validation, the same
 * and a lower validation loss; an equal one stays behind the earlier. Without validation clips the last is taken. */
bool ser_epoch_better(const ser_epoch *epoch, const ser_epoch *best, ser_select select);
/* Whether a training is over: all epochs done, or `patience` (if not 0) of them without a better one. */
bool ser_training_over(int64_t epochs_done, int64_t best_epoch, int64_t epochs, int64_t patience);
/* The order of an epoch: a Fisher-Yates shuffle of 0 .. count - 1 from (seed, epoch) alone. */
void ser_shuffle(size_t *order, size_t count, uint64_t seed, uint64_t epoch);
/* n / (k n_c) for each class of the listed clips, k the classes that occur; 0 for a class that does not. */
void ser_balanced_weights(float *weights, const ser_dataset *dataset, const size_t *clips, size_t count);

#endif
