/* What audits remember beside a manifest, in MANIFEST.heard: of files whose sound has copies under other bytes (a FLAC
 * and a WAV of one recording) what that sound is, so that the next audit relates them without decoding. It is derived
 * from bytes alone, never from labels or from which rows there are, and may be deleted at any time. Private to
 * host/corpus. */
#ifndef SER_CORPUS_HEARD_H
#define SER_CORPUS_HEARD_H

#include <stddef.h>

#include "base/hash.h"

typedef struct {
  ser_hash bytes;   /* of the file */
  ser_hash samples; /* as judge.h has it */
} heard_sound;

/* In byte order of `bytes`, each once. */
typedef struct {
  heard_sound *sounds; /* [count] */
  size_t count;
} heard_table;

/* Empty where there is none, it is damaged, or another version of the decoder heard it. The caller frees sounds. */
void heard_read(heard_table *table, const char *manifest_path);
/* Where it cannot be written (a full disk, a folder of others) the next audit decodes, so nothing is told. An empty
 * table leaves no file. */
void heard_write(const heard_table *table, const char *manifest_path);
const ser_hash *heard_find(const heard_table *table, const ser_hash *bytes); /* the samples, or NULL */

#endif
