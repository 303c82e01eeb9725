/* Within the room: inputs decoded ahead by worker threads, handed out in their order. Memory is bounded: so many clips
 * at most wait, and while those that wait hold more than 64 MB only the next in order is begun. */
#ifndef SER_REPORT_DECODE_AHEAD_H
#define SER_REPORT_DECODE_AHEAD_H

#include "audio/audio.h"

typedef struct {
  ser_clip clip;
  ser_reason reason;
  char detail[256];  /* the reason in words */
  bool silent;       /* as the audit judges it, of the mean over channels, which is what is heard */
  ser_status status; /* other than SER_OK: the machine failed or the job was interrupted; err says it */
  ser_error err;
} ser_decoded;
void ser_decoded_free(ser_decoded *decoded); /* NULL is fine */

typedef struct ser_ahead ser_ahead;

/* inputs [count] stay the caller's and must live until the stop. */
ser_ahead *ser_ahead_start(const ser_audio_source *inputs, size_t count, int32_t rate, int jobs);
void ser_ahead_stop(ser_ahead *ahead); /* NULL is fine */

/* The next input's clip, which is the caller's from then on; NULL behind the last, or, unless `wait`, where it is not
 * decoded yet. */
ser_decoded *ser_ahead_take(ser_ahead *ahead, bool wait);

#endif
