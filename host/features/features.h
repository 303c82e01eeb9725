/* Features: their configurations, and computing them from samples on a device. The bulk job is extract.h. */
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

/* A clip's samples: mono, at config->rate. */
typedef struct {
  const void *samples; /* float, or int16_t where they are value * 32768: half the way over the bus */
  bool int16;          /* alike for all signals of a batch */
  bool pinned;         /* the device's pinned memory, left alone until the batch is collected */
  int64_t count;
} ser_signal;

/* Plans and buffers for batches of up to max_clips clips and max_frames frames, of which several are under way at a
 * time on a device of its own: while one is computed, the next is copied there and the last one's features back. Where
 * the device lacks the memory, batches are made smaller, down to one clip; the properties below tell. `staged`: samples
 * that are not pinned go through pinned room of the batch's, so that nothing waits for their copy. Longer single clips
 * are done in pieces, with room that is made when first needed; where the device lacks it and nothing is under way,
 * batches become smaller for it. */
ser_status ser_mfcc_create(ser_mfcc **mfcc, ser_device *device, const ser_mfcc_config *config, int64_t max_clips,
                           int64_t max_frames, bool staged, ser_error *err);
void ser_mfcc_free(ser_mfcc *mfcc); /* waits for what is under way; NULL is fine */
int64_t ser_mfcc_max_clips(const ser_mfcc *mfcc);
int64_t ser_mfcc_max_frames(const ser_mfcc *mfcc);
bool ser_mfcc_idle(const ser_mfcc *mfcc); /* nothing is under way */
bool ser_mfcc_full(const ser_mfcc *mfcc); /* a batch must be collected before the next is submitted */

/* Sends a batch on its way: at most max_clips signals, of at most max_frames frames unless it is one signal alone.
 * Signals that are too short get no rows. Samples that are not pinned may be reused when it returns. */
ser_status ser_mfcc_submit(ser_mfcc *mfcc, const ser_signal *signals, size_t count, ser_error *err);
/* Waits for the oldest batch: its features, rows of C, and offset [count + 1] in rows; they hold until the next
 * submit. */
ser_status ser_mfcc_collect(ser_mfcc *mfcc, const float **features, const int64_t **offset, ser_error *err);
/* Of the batches collected so far; a clip that goes in pieces counts as one, its seconds do not. */
ser_device_work ser_mfcc_work(const ser_mfcc *mfcc);

/* Both in one, for any number of clips: features[i] of clips [count]: frames[i] rows of C, all end to end in *features
 * (freed by the caller), offset [count + 1] in rows. Nothing else may be under way. */
ser_status ser_mfcc_compute(ser_mfcc *mfcc, float **features, int64_t *offset, const float *const *samples,
                            const int64_t *counts, size_t count, ser_error *err);

/* timnet: centre-pads with zeros or centre-crops to `samples` samples (the TIM-Net code's rule). Frees and replaces. */
void ser_fit_samples(float **samples, int64_t *count, int64_t to);

/* ---- caches (feature_cache.c) ------------------------------------------------------------------------------------ */

/* Opens the cache folder of a feature configuration for reading and writing. */
ser_status ser_feature_cache_open(ser_cache **cache, const char *folder, ser_feature_kind kind,
                                  const ser_mfcc_config *config, bool create, ser_error *err);

/* For the upkeep of caches: C of a configuration's canonical JSON, 0 where this version does not know it. */
int64_t ser_feature_cache_columns(const char *config_json);

#endif
