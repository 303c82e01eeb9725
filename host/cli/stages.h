/* The stages that train and run are made of, and the state of a run folder. */
#ifndef SER_CLI_STAGES_H
#define SER_CLI_STAGES_H

#include "cli/cli.h"
#include "corpus/manifest.h"

/* ---- the run folder (run_folder.c) ------------------------------------------------------------------------------- */

/* What results are made from, as hashes in hex. */
typedef struct {
  char training[SER_HASH_HEX]; /* all that the numbers come from, but train.epochs: a training may go on for longer */
  char recipe[SER_HASH_HEX];   /* the same without the seeds: seeds may be added */
  char named[SER_HASH_HEX];    /* what files of the run only name: the recordings' paths, predict.* */
} cli_inputs;

/* RUN/run.json: what the results in RUN were made from. The texts are hashes in hex, "" for none. */
typedef struct {
  const char *folder;
  size_t there;                 /* so much of the folder's path was there before it was opened */
  int lock;                     /* the folder's descriptor, locked; -1: not open */
  char training[SER_HASH_HEX];  /* of the training that stands in RUN, finished or not */
  char recipe[SER_HASH_HEX];    /* of the same */
  int64_t epochs;               /* train.epochs of it */
  int64_t reached;              /* the epochs that it has had, as far as cli_run_compare saw; not in the file */
  char trained[SER_HASH_HEX];   /* the same as training, once all epochs were done */
  char named[SER_HASH_HEX];     /* what the files of the finished training name */
  char evaluated[SER_HASH_HEX]; /* inputs of the reports */
  char reports[SER_HASH_HEX];   /* the reports as evaluation left them */
  char finished[SER_HASH_HEX];  /* recipe of the models that are there, where each had its epochs to the end */
  char config[SER_HASH_HEX];    /* config.yaml as the training left it */
  char notes[SER_HASH_HEX];     /* split.txt as the training left it; "": there was none */
  int64_t models;               /* how many model files the finished training left */
} cli_run;

/* Makes the folder where it is missing, locks it against a second process, reads run.json, which is made anew where it
 * is missing or damaged and RUN's other files show what it said. A folder that is no run and holds more than caches and
 * what the configuration reads is SER_USAGE. *fresh (or NULL): there was no run yet. */
ser_status cli_run_open(cli_run *run, const char *folder, const ser_config *config, bool *fresh, ser_error *err);
ser_status cli_run_save(const cli_run *run, ser_error *err);
/* Folders that were made by opening and are empty are removed. */
void cli_run_close(cli_run *run);

/* The hash of the models in RUN (earlier ones left out), and how many there are. */
ser_status cli_models(char hex[SER_HASH_HEX], int64_t *count, const char *folder, ser_error *err);
/* The hash of the reports in RUN, those of every seed and fold among them. */
ser_status cli_reports(char hex[SER_HASH_HEX], const char *folder, ser_error *err);

/* Whether RUN/split.csv is there and the one that all models in RUN were trained with. */
ser_status cli_split_fits(bool *fits, const char *folder, ser_error *err);

/* Takes note of config.yaml and split.txt as they stand, which the training has written. */
ser_status cli_files_note(cli_run *run, ser_error *err);
/* Whether config.yaml and split.txt are those that the training left, and each model's history is there, as far as
 * training can write them again. What is not is told. */
ser_status cli_files_whole(bool *whole, const cli_run *run, ser_error *err);

/* Whether results in RUN, if there are any, come from these inputs, or are the first epochs or some of the seeds of
 * theirs. A training that was cut off is judged by the epochs that its checkpoints hold, not by those that it was to
 * have. */
ser_status cli_run_compare(bool *fits, cli_run *run, const cli_inputs *inputs, const ser_config *config,
                           ser_error *err);

/* Makes RUN the place of a training from these inputs: results of others move to RUN/earlier/<hash>-<epochs>, and
 * results of these that were moved there before come back. It tells of `changes`. What Serenade did not make stays, and
 * so does what the configuration reads. Safe against a kill at any moment. */
ser_status cli_run_turn_to(cli_run *run, const cli_inputs *inputs, const ser_config *config, const char *changes,
                           ser_error *err);

/* Fills in what run.json would say, from RUN's config.yaml, manifest.csv, models and checkpoints (run_judge.c). false:
 * they are not all there, or do not belong together, and nothing is filled in. */
bool cli_run_judge(cli_run *run);

/* ---- what results depend on (inputs.c) --------------------------------------------------------------------------- */

ser_status cli_inputs_make(cli_inputs *inputs, const ser_config *config, const ser_manifest *manifest, ser_error *err);
/* In words, what is other than what stands in RUN was made from: keys with their old and new values, recordings. For
 * RUN as it was, before its manifest.csv and config.yaml are written anew. The caller frees it. */
char *cli_changes(const cli_run *run, const ser_config *config, const ser_manifest *manifest);

/* ---- stages (stages.c) ------------------------------------------------------------------------------------------- */

/* SER_USAGE where the configuration names no corpus. */
ser_status cli_need_corpus(const ser_config *config, ser_error *err);
/* Opens the device that is asked for, and holds the configuration to what it was where that was left to us: a stage
 * that finds the GPU full, or free, which it was not when the command began, does not change over. */
ser_status cli_settle_device(ser_config *config, ser_error *err);
/* What would fail after the recordings were decoded is looked at first: the device, the file of a given split. */
ser_status cli_can_begin(ser_config *config, ser_error *err);

/* Index and audit, trusting what the manifest at path knows, which is left as it is: what is found out on the way is
 * kept in PATH.next. partial is set when recordings are refused. */
ser_status cli_manifest(ser_manifest *manifest, const ser_config *config, const char *path, bool *partial,
                        ser_error *err);

/* Extracts the wanted kinds of features in one pass over the recordings; `said` gets a line for each, the last without
 * its end. */
ser_status cli_extract(const ser_config *config, const bool wanted[SER_FEATURES], const char *cache,
                       const ser_manifest *manifest, ser_text *said, bool *partial, ser_error *err);

/* Index, audit (or the manifest that is given, not NULL), extract, train. Where RUN holds results of other inputs: anew
 * keeps them aside and trains anew, else that is SER_USAGE. */
ser_status cli_train(cli_run *run, const ser_config *config, const char *given_manifest, bool anew, bool *partial,
                     ser_error *err);

/* Evaluates what is not evaluated yet. */
ser_status cli_evaluate(cli_run *run, const ser_config *config, bool *partial, ser_error *err);

#endif
