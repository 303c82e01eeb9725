/* Features: their configurations, computing them from samples on a device, and the bulk extraction job. */
#ifndef SER_FEATURES_FEATURES_H
#define SER_FEATURES_FEATURES_H

#include "cache/cache.h"
#include "corpus/manifest.h"
#include "device/ops.h"

/* ---- configuration (feature_config.c) --------------------------------------------------------------------------- */

/* Canonical JSON (keys sorted, no spaces), without backend or instruction set: its hash names the cache folder.
 * The caller frees it. */
char *ser_feature_json(ser_feature_kind kind, const ser_mfcc_config *config);
/* The reverse, for model files. SER_FAILED names the key. The model's window is no part of it: frames becomes 0. */
ser_status ser_feature_parse(ser_feature_kind *kind, ser_mfcc_config *config, const char *json, ser_error *err);
int64_t ser_feature_columns(const ser_mfcc_config *config);    /* C: 39 by default */
int64_t ser_feature_min_frames(const ser_mfcc_config *config); /* 9 with deltas, else 1 */

/* ---- from samples to features (mfcc.c) -----------------------------------------------------------------------------
 */

typedef struct ser_mfcc ser_mfcc;

/* Plans and buffers for batches of up to max_clips clips and max_frames frames; longer single clips are split off into
 * a plan of their own size that is made when first met. */
ser_status ser_mfcc_create(ser_mfcc **mfcc, ser_device *device, const ser_mfcc_config *config, int64_t max_clips,
                           int64_t max_frames, ser_error *err);
void ser_mfcc_free(ser_mfcc *mfcc);

/* features[i] of clips [count]: frames[i] rows of C, all end to end in *features (freed by the caller), offset
 * [count + 1] in rows. Samples are mono at config->rate. Clips that are too short get no rows. */
ser_status ser_mfcc_compute(ser_mfcc *mfcc, float **features, int64_t *offset, const float *const *samples,
                            const int64_t *counts, size_t count, ser_error *err);

/* timnet: centre-pads with zeros or centre-crops to `samples` samples (the TIM-Net code's rule). Frees and replaces. */
void ser_fit_samples(float **samples, int64_t *count, int64_t to);

/* ---- the bulk job (extract.c)
 * ----------------------------------------------------------------------------------------- */

typedef struct {
  ser_feature_kind kind;
  const ser_mfcc_config *config;
  const char *cache_folder;
  int jobs; /* decode workers; 0: all cores */
  ser_device *device;
  bool known_told; /* refusals that the cache remembers are counted, not told: the caller has told them */
} ser_extract_options;

typedef struct {
  size_t wanted, present, computed, too_short, refused; /* distinct keys */
  double seconds, audio_seconds;                        /* of this run */
  ser_text refusals;                                    /* one line each: path: reason in words */
} ser_extract_summary;

/* Computes what the cache lacks for the manifest's usable rows: decode workers -> bounded queue -> batches on the
 * device
 * -> the one cache thread. Memory is bounded whatever the number of files. Interrupted: what is computed is sealed. */
ser_status ser_extract(ser_extract_summary *summary, const ser_manifest *manifest, const ser_extract_options *options,
                       ser_error *err);

/* Opens the cache folder of a feature configuration for reading and writing. */
ser_status ser_feature_cache_open(ser_cache **cache, const char *folder, ser_feature_kind kind,
                                  const ser_mfcc_config *config, bool create, ser_error *err);

/* For the upkeep of caches: C of a configuration's canonical JSON, 0 where this version does not know it. */
int64_t ser_feature_cache_columns(const char *config_json);

#endif
