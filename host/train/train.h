/* Training: from a manifest, a cache and a configuration to a run folder with a model, its history and checkpoints. */
#ifndef SER_TRAIN_TRAIN_H
#define SER_TRAIN_TRAIN_H

#include "base/log.h"
#include "features/features.h"
#include "model/model.h"

/* ---- the data of one fold (dataset.c)
 * --------------------------------------------------------------------------------- */

/* Features of a manifest's usable rows in memory, and which rows stand where. */
typedef struct {
  size_t clips;
  size_t *row;     /* [clips] the manifest's row */
  int64_t *offset; /* [clips + 1] rows of features */
  float *features; /* [offset[clips]][channels] */
  int32_t *truth;  /* [clips] label index */
  int64_t channels;
  int emotions[SER_EMOTIONS];
  int64_t classes;
  size_t *by_row; /* [manifest rows] the clip, or SIZE_MAX where there are no features (too short, refused) */
} ser_dataset;
ser_status ser_dataset_load(ser_dataset *dataset, const ser_manifest *manifest, ser_cache *cache, int64_t channels,
                            int64_t emotions, ser_error *err);
void ser_dataset_free(ser_dataset *dataset);

/* Mean and 1 / standard deviation (population; 1 where it is 0) of each channel over the first `frames` real frames of
 * the listed clips, in double, in the order of the clips. */
void ser_standardisation(float *mean, float *inv_std, const ser_dataset *dataset, const size_t *clips, size_t count,
                         int64_t frames);

/* ---- one training (trainer.c)
 * ------------------------------------------------------------------------------------------- */

/* A dataset on a device (feed.h). */
typedef struct ser_resident ser_resident;

/* One (seed, fold): trains in `folder` (history.csv, checkpoint, model.safetensors), resuming from its checkpoint where
 * there is one. A finished one is left alone, but for a history.csv that is missing. Non-finite loss: SER_FAILED naming
 * the step and the last good checkpoint. What is written holds no times; same inputs, same bytes, whatever the threads,
 * kills and resumes. */
typedef struct {
  const ser_config *config;
  const ser_manifest *manifest;
  const ser_dataset *dataset;
  const ser_resident *resident; /* the same on the device, for all trainings there; NULL: it brings its own */
  const ser_split *split;
  int fold;
  int64_t seed;
  const char *folder;
  const char *manifest_hash, *split_hash; /* hex */
  ser_progress *progress;                 /* counts the clips trained on; or NULL */
  const char *name; /* in the progress: which of a job's trainings this is, as in "seed 2 fold 1"; NULL: the only one */
  bool anew;        /* a checkpoint of other settings or clips is replaced, with a warning; else it is SER_USAGE */
  bool finished; /* a model that is there was trained to its end from these inputs: it stays without a checkpoint too */
} ser_training;
/* The model that a configuration asks for. */
ser_model_config ser_training_model(const ser_config *config, int64_t channels, int64_t classes);
/* The hash of all settings that the numbers of a training come from, but train.epochs and the split. */
void ser_training_settings(char hex[SER_HASH_HEX], const ser_config *config, int64_t seed);
/* trained: whether there were epochs to train. */
ser_status ser_train_one(bool *trained, ser_device *device, const ser_training *training, ser_error *err);
/* The epochs that a checkpoint holds (checkpoint.c). */
ser_status ser_checkpoint_epochs(int64_t *epochs, const char *path, ser_error *err);
/* Whether the checkpoint is of a training of this configuration (one of an earlier version, that does not tell its
 * settings, is not), and whether that is over. Of a damaged one nothing is known: it fits, and is not over. */
void ser_checkpoint_judge(bool *fits, bool *over, const char *path, const ser_config *config, int64_t seed, int fold);

/* ---- the job (run.c): extract what is missing, split, every seed and fold side by side
 * ------------------------------------- */

typedef struct {
  const ser_config *config;
  const char *folder;   /* RUN */
  const char *manifest; /* path of the manifest */
  bool resume;
  bool anew;      /* with resume: as in ser_training */
  bool finished;  /* as in ser_training */
  bool extracted; /* the caller has extracted and told what was refused */
} ser_train_options;

/* Makes RUN/config.yaml, RUN/split.csv (and split.txt), the caches, and trains (as many seeds and folds side by side as
 * the device says, each with a device of its own that has its share of the threads). A RUN that exists is SER_USAGE
 * without resume. trained: how many seeds and folds had epochs to train; where that were some, the others are told.
 * partial: set when some inputs were refused on the way (exit 3). */
ser_status ser_train_job(size_t *trained, bool *partial, const ser_train_options *options, ser_error *err);

/* Whether config.yaml tells that the run was started on the CPU, and on nothing else up to now. */
bool ser_run_of_cpu(const char *folder);

/* The folders of a run's trainings: RUN itself, or RUN/seed-S/fold-K. */
typedef struct {
  size_t count;
  char **folders;
  char **names; /* "seed 2 fold 1", or what of it tells them apart; NULL of the only one */
  int64_t *seeds;
  int *folds;
} ser_run_parts;
void ser_run_parts_make(ser_run_parts *parts, const ser_config *config, const char *folder, int folds);
void ser_run_parts_free(ser_run_parts *parts);

#endif
