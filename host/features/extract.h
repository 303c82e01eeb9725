/* The bulk extraction job: features of a manifest's recordings into a cache. */
#ifndef SER_FEATURES_EXTRACT_H
#define SER_FEATURES_EXTRACT_H

#include "features/embed.h"

/* One of the features that a job computes. */
typedef struct {
  ser_feature_kind kind;
  const ser_mfcc_config *mfcc;        /* of the first two kinds */
  const ser_embed_config *embed;      /* of wav2vec2 */
  const ser_encoder_weights *weights; /* beside it */
} ser_extract_feature;

typedef struct {
  const ser_extract_feature *features; /* [feature_count], of unlike kinds */
  size_t feature_count;
  const char *cache_folder;
  int jobs; /* decode workers; 0: all cores */
  ser_device *device;
  bool known_told; /* refusals that the cache remembers are counted, not told: the caller has told them */
} ser_extract_options;

/* Of one feature. */
typedef struct {
  size_t wanted, present, computed, too_short, refused; /* distinct keys */
  double seconds, audio_seconds;                        /* of this run */
  double set_up;                                        /* of them, for rooms, plans and streams, made and freed */
  ser_device_work work;
  ser_text refusals; /* one line each: path: reason in words */
} ser_extract_summary;

/* Computes what the cache lacks for the manifest's usable rows, each recording read once for all features: decode
 * workers -> bounded queue -> batches on the device -> the one cache thread. Memory is bounded whatever the number of
 * files. Interrupted: what is computed is sealed. summaries [feature_count]. */
ser_status ser_extract(ser_extract_summary *summaries, const ser_manifest *manifest, const ser_extract_options *options,
                       ser_error *err);

/* Opens the cache folder of embeddings for reading and writing. */
ser_status ser_embed_cache_open(ser_cache **cache, const char *folder, const ser_embed_config *config, bool create,
                                ser_error *err);

#endif
