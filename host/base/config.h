/* The configuration: one table of parameters (key, type, range, default, meaning) that reads the YAML files, checks
 * them, takes --set, writes the resolved file, and prints itself for `serenade info config`. */
#ifndef SER_BASE_CONFIG_H
#define SER_BASE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/device_options.h"
#include "base/memory.h"
#include "base/status.h"

typedef enum { SER_AUDIT_EXCLUDE, SER_AUDIT_REPORT } ser_audit_mode;
typedef enum { SER_SPLIT_RANDOM, SER_SPLIT_SPEAKER, SER_SPLIT_FILE } ser_split_kind;
typedef enum { SER_BY_SPEAKERS, SER_BY_CLIPS } ser_validation_by;
typedef enum { SER_BRANCH_REFERENCE, SER_BRANCH_TIMNET } ser_branch;
typedef enum { SER_POOL_ALL, SER_POOL_REAL } ser_pooling;
typedef enum { SER_WEIGHTS_NONE, SER_WEIGHTS_BALANCED } ser_class_weights;
typedef enum { SER_SELECT_UAR, SER_SELECT_WAR } ser_select;
/* In the order of ser_feature_names; features.kind, what the temporal branch reads, is one of the first two. */
typedef enum { SER_MFCC39, SER_TIMNET, SER_WAV2VEC2, SER_FEATURES } ser_feature_kind;
typedef enum { SER_EMBED_MEAN, SER_EMBED_MEAN_STD, SER_EMBED_FRAMES } ser_embed_pool;
typedef enum { SER_NORMALIZE_AUTO, SER_NORMALIZE_YES, SER_NORMALIZE_NO } ser_normalize;

typedef struct {
  int64_t count;
  int64_t *values;
} ser_int_list;

typedef struct {
  int64_t count;
  char **values;
} ser_text_list;

/* The parameters of one MFCC preset (facts: librosa.feature.mfcc); keys features.<preset>.* */
typedef struct {
  int64_t rate;         /* Hz; clips are resampled to it */
  int64_t n_fft;        /* window and FFT length in samples, a power of two */
  int64_t hop;          /* samples between frames */
  int64_t mels;         /* mel bands */
  int64_t coefficients; /* cepstral coefficients kept */
  int64_t frames;       /* the model's window in frames */
  int64_t samples;      /* timnet: the signal is centre-padded or -cropped to this first; 0: as it is */
  bool deltas;          /* mfcc39: delta and delta-delta behind the coefficients */
} ser_mfcc_config;

/* The corpora, in the order of their names: keys corpora.NAME, options --NAME, places in the configuration and in an
 * index's roots. A lab's own table is the last. */
typedef enum { SER_RAVDESS, SER_CREMAD, SER_TESS, SER_SAVEE, SER_CSV, SER_CORPORA } ser_corpus;
extern const char *const ser_corpus_names[SER_CORPORA];
/* "--ravdess, --cremad ... or --csv" for the prefix "--"; the caller frees it. */
char *ser_corpus_list(const char *prefix);

/* Where a key got its value: "FILE:LINE:COLUMN", "--set KEY=VALUE", "--device cuda"; NULL where it has its default. */
typedef struct {
  char *where;
  int64_t turn; /* of two, the one that was given later has the higher turn */
} ser_origin;

/* Every value of the configuration; texts and lists belong to it. Field order follows the table in config.c. */
typedef struct {
  char *corpora[SER_CORPORA]; /* folders, and a file for csv; "" where not given */
  char *cache_dir;            /* cache.dir; "" means RUN/cache for run and train */
  int64_t emotions;
  ser_audit_mode audit;
  struct {
    ser_split_kind kind;
    double test, validation;
    ser_validation_by validation_by;
    int64_t folds; /* 0: one split */
    ser_text_list test_speakers;
    char *file;
    int64_t seed;
  } split;
  struct {
    ser_feature_kind kind; /* features.kind: what the model reads */
    ser_mfcc_config mfcc39, timnet;
  } features;
  struct {
    char *weights; /* folder of the encoder's weights, or a file in it; "" where not given */
    char *layers;  /* "last", "all", or a number */
    ser_embed_pool pool;
    ser_normalize normalize;
  } wav2vec2;
  struct {
    ser_branch branch;
    int64_t blocks, filters, kernel;
    double dropout;
    bool residual;
    ser_pooling pool;
  } model;
  struct {
    int64_t epochs, batch;
    double lr, beta1, beta2, eps, label_smoothing;
    ser_class_weights class_weights;
    double focal_gamma;
    int64_t patience;
    ser_select select;
    ser_int_list seeds;
  } train;
  struct {
    double window, hop; /* predict.window, predict.hop in seconds; 0: the model's own window, half of it */
  } predict;
  ser_device_kind device, settled; /* settled: where auto has led this command; auto: not known yet, and no key */
  ser_precision precision;
  ser_conv_choice conv;
  int64_t threads;     /* 0: all cores */
  int64_t jobs;        /* decode workers; 0: all cores */
  ser_origin *origins; /* one a row of the table */
  int64_t turns;
} ser_config;

/* The defaults of the table. Every ser_config is made by this and ended by ser_config_free. */
void ser_config_init(ser_config *config);
void ser_config_free(ser_config *config);
void ser_config_copy(ser_config *to, const ser_config *from); /* `to` is uninitialised */

/* Reads a YAML file over the values that are there. Errors name file, line, column and the nearest right key, range or
 * choice; status SER_USAGE. */
ser_status ser_config_read(ser_config *config, const char *path, ser_error *err);

/* One `key=value` of --set, through the same table; lists as 1,2,3 or [1, 2, 3]. */
ser_status ser_config_set(ser_config *config, const char *assignment, ser_error *err);

/* Says where a key's value comes from that was stored by hand, as that of an option is. */
void ser_config_came_from(ser_config *config, const char *key, const char *where);
/* SER_USAGE about keys, with blanks between them: "WHERE: ...", WHERE being where the one that was given last was. */
ser_status ser_config_refuse(ser_error *err, const ser_config *config, const char *keys, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* What no single row can check: kernels and windows that fit together, a file split without a file ... */
ser_status ser_config_check(const ser_config *config, ser_error *err);

/* The resolved configuration as YAML: every key, in the table's order, the same bytes for the same values. */
void ser_config_write(ser_text *yaml, const ser_config *config);

/* The keys whose values differ, as "train.lr: 0.001 -> 0.1; model.blocks: 8 -> 4", behind what is there; at most `most`
 * of them, then how many more. Gives how many differ. */
size_t ser_config_changes(ser_text *text, const ser_config *from, const ser_config *to, size_t most);

/* The table for people: key, type, range, default, meaning (`info config`). */
void ser_config_describe(ser_text *text);

/* The device that the configuration asks for, or has been settled on, with so many threads (0: all cores). */
ser_device_options ser_config_device(const ser_config *config, int threads);

/* The preset that a feature kind, one of the first two, names. */
const ser_mfcc_config *ser_config_mfcc(const ser_config *config, ser_feature_kind kind);
/* The shortest window over long recordings that makes sense, in seconds, rounded up to milliseconds: the frames that
 * the features need (9 with deltas), or one analysis of the signal where that is fitted to samples; the model's own
 * window where that is shorter. */
double ser_config_least_window(const ser_mfcc_config *mfcc);
extern const char *const ser_feature_names[SER_FEATURES]; /* "mfcc39", "timnet", "wav2vec2" */

#endif
