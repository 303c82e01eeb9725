/* What the bulk job's two halves share: recordings on their way from a file to the device. */
#ifndef SER_FEATURES_INTERNAL_H
#define SER_FEATURES_INTERNAL_H

#include "features/features.h"
#include "features/ring.h"

/* A key that the cache lacks: the rows with these bytes, usable ones first, at least one. */
typedef struct {
  const ser_row *const *rows; /* [count] */
  size_t count;
} extract_key;

/* The same on its way. */
typedef struct {
  const ser_row *row;  /* that is read */
  ser_ring_part room;  /* asked for before it was decoded */
  ser_audio_info info; /* of the recording */
  ser_signal signal;   /* empty where it was refused */
  ser_clip clip;       /* the samples, where they do not lie in the room */
  ser_entry_status status;
  bool remember; /* the refusal is the bytes' own: it goes into the cache */
  char *refusal; /* why, in words; NULL where the clip is good */
} extract_item;

/* Bytes of samples as the manifest has them, at the feature's rate; a guess where it has none. */
int64_t extract_expected_bytes(const ser_row *row, const ser_mfcc_config *config);

/* Decodes the key's recording into the item, its samples into the item's room where that is memory; or sets the item's
 * refusal. Where a file has vanished, has changed or cannot be read, a copy stands in, even one that does not count. If
 * none can, the first row's words are told. SER_INTERRUPTED is all that it returns beside SER_OK. */
ser_status extract_decode(extract_item *item, const extract_key *key, const ser_mfcc_config *config, ser_error *err);

#endif
