/* Bytes of a recording, from a file or from memory, read at any place: what libsndfile and the container check share.
 * Private to host/audio. */
#ifndef SER_AUDIO_SOURCE_H
#define SER_AUDIO_SOURCE_H

#include <stdint.h>

#include "audio/audio.h"

enum { SOURCE_BUFFER = 1 << 16 };

typedef struct {
  const uint8_t *data; /* memory, or NULL */
  int fd;              /* the file, or -1 */
  int64_t size;
  int64_t position; /* libsndfile's */
  int64_t furthest; /* the highest position that was read up to */
  int problem;      /* errno of the first read that failed, or 0: what is missing then is not the bytes' own */
  int64_t buffered_at, buffered;
  uint8_t *buffer;  /* [SOURCE_BUFFER], files only */
  int64_t patch_at; /* where not 0: reads see the four bytes of `patch` there, a length that a writer left at 0 */
  uint8_t patch[4];
} byte_source;

/* False where a file cannot be opened: errno says why. */
bool byte_source_open(byte_source *source, const ser_audio_source *from);
void byte_source_close(byte_source *source);

/* Copies up to count bytes at offset; returns how many there were. */
int64_t byte_source_read(byte_source *source, void *to, int64_t offset, int64_t count);

#endif
