/* What the files of the bulk job share: recordings on their way from a file to the device and into the caches. */
#ifndef SER_FEATURES_INTERNAL_H
#define SER_FEATURES_INTERNAL_H

#include <stdatomic.h>

#include "base/log.h"
#include "features/extract.h"
#include "features/ring.h"

enum {
  EXTRACT_BATCH = 128, /* clips, the most of any device */
  EXTRACT_BATCHES = 4, /* under way, and the one being filled */
};

/* Room that the samples of one recording take between the workers and the caches, for all features: given back by the
 * last item that lies in it. */
typedef struct {
  ser_ring_part part;
  atomic_int items;
} extract_room;

/* A recording on its way to one feature. */
typedef struct {
  const ser_row *row; /* that is read */
  struct extract_target *target;
  extract_room *room;
  void *memory; /* its part of the room; NULL where the room only counts */
  size_t bytes;
  ser_audio_info info; /* of the recording */
  ser_signal signal;   /* empty where it was refused */
  ser_clip clip;       /* the samples, where they do not lie in the room */
  ser_entry_status status;
  bool remember; /* the refusal is the bytes' own: it goes into the cache */
  char *refusal; /* why, in words; NULL where the clip is good */
} extract_item;

/* ---- a feature of the job (extract_target.c) ----------------------------------------------------------------------
 */

/* A line for the user; lines are told in the manifest's order. */
typedef struct {
  const ser_row *row;
  char *why;
} extract_note;

typedef struct {
  extract_item *items[EXTRACT_BATCH];
  size_t count;
  int64_t load; /* what it takes of the device's room for a batch: frames, or an encoder's rows */
} extract_batch;

typedef struct extract_target {
  const ser_extract_feature *feature;
  ser_device *device;
  ser_ring *ring;
  ser_cache *cache;
  ser_extract_summary *summary;
  ser_progress *progress;
  extract_note *notes; /* of what cannot be used */
  size_t note_count, note_capacity;

  ser_mfcc *mfcc; /* one of the two computes */
  ser_embedder *embedder;
  int64_t enough; /* a batch with such a load takes no further clip */
  extract_batch
      batches[EXTRACT_BATCHES]; /* used in turn: those under way from `oldest` on, then the one being filled */
  size_t oldest, under_way;
} extract_target;

const char *extract_name(const extract_target *target);
int64_t extract_rate(const extract_target *target);
int64_t extract_columns(const extract_target *target);
int64_t extract_fitted(const extract_target *target); /* samples that a signal is fitted to; 0: as it is */
/* Why so many samples are too few, in words that the caller frees; NULL: they are enough. */
char *extract_too_short(const extract_target *target, int64_t samples);

ser_status extract_target_open(extract_target *target, const char *cache_folder, ser_error *err);
/* The device's part: rooms, plans, streams. The seconds of both count as set-up. */
ser_status extract_target_start(extract_target *target, ser_error *err);
void extract_target_end(extract_target *target); /* waits for the device; gives back all items */
/* Counts a clip that cannot be used and keeps the words for it (`why` is the target's from now on; NULL: told before).
 */
void extract_note_down(extract_target *target, const ser_row *row, ser_entry_status status, char *why);
void extract_tell_notes(extract_target *target);

void extract_item_free(extract_item *item, ser_ring *ring);
/* Takes the item into the batch that is being filled, or its refusal into the notes and the cache; *taken is false
 * where it does not go with that batch, which is to be sent first. */
ser_status extract_take(bool *taken, extract_target *target, extract_item *item, ser_error *err);
bool extract_ready(const extract_target *target); /* the batch being filled takes no more */
bool extract_empty(const extract_target *target); /* nothing is being filled */
/* Sends the batch that is being filled on its way; collects where the device takes no more. */
ser_status extract_send(extract_target *target, ser_error *err);
/* The oldest batch under way: its features go into the cache, its clips' room is free again. */
ser_status extract_collect(extract_target *target, ser_error *err);

/* ---- decoding (extract_decode.c) ----------------------------------------------------------------------------------
 */

/* A key that caches lack: the rows with these bytes, usable ones first, at least one. */
typedef struct {
  const ser_row *const *rows; /* [count] */
  size_t count;
  unsigned lacking; /* bit t: target t does */
} extract_key;

/* Bytes of samples as the manifest has them, at the feature's rate; a guess where it has none. */
int64_t extract_expected_bytes(const ser_row *row, const extract_target *target);

/* Decodes the key's recording for each of the items, which differ in their targets: its samples into the item's memory
 * where that is some; or sets the item's refusal. Where a file has vanished, has changed or cannot be read, a copy
 * stands in, even one that does not count. If none can, the first row's words are told. SER_INTERRUPTED is all that it
 * returns beside SER_OK. */
ser_status extract_decode(extract_item *const *items, size_t count, const extract_key *key, ser_error *err);

#endif
