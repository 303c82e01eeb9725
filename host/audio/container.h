/* Is the file as long as its container says? Private to host/audio. */
#ifndef SER_AUDIO_CONTAINER_H
#define SER_AUDIO_CONTAINER_H

#include "audio/source.h"

/* Looks at the bytes alone: SER_REASON_NONE, or empty, lfs_pointer, truncated with a text in detail[256]. */
ser_reason container_check(char *detail, byte_source *source);

#endif
