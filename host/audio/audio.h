/* Decoding: any file that libsndfile may open, as mono float samples at the rate that a feature asks for. The only user
 * of libsndfile and of the resampler. Functions may be called from several threads at once. */
#ifndef SER_AUDIO_AUDIO_H
#define SER_AUDIO_AUDIO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* Why a file cannot be used, or what is told of it; the names are the manifest's reasons. */
typedef enum {
  SER_REASON_NONE,
  SER_REASON_UNREADABLE,
  SER_REASON_TRUNCATED,
  SER_REASON_LFS_POINTER,
  SER_REASON_EMPTY,
  SER_REASON_NON_FINITE,
  SER_REASON_SILENT,
  SER_REASON_DUPLICATE,
  SER_REASON_LABEL_CONFLICT,
  SER_REASON_CLIPPED,
  SER_REASON_SPEAKER_CONFLICT,
  SER_REASON_TOO_SHORT, /* never in a manifest: features say it of clips */
} ser_reason;
const char *ser_reason_name(ser_reason reason); /* "" for NONE */
bool ser_reason_parse(ser_reason *reason, const char *name);

/* What the header says. */
typedef struct {
  int32_t rate, channels;
  int64_t frames;     /* samples per channel; 0 where the container does not say */
  char container[32]; /* libsndfile's name of the major format: "WAV", "AIFF", "FLAC", "OGG" ... */
  bool passing;       /* with a reason: opening or reading failed, the bytes are not judged; another time may do */
} ser_audio_info;

/* Reads the header. Where the file cannot be used, reason says why (unreadable, lfs_pointer, empty, truncated) and
 * detail (if not NULL, at least 256 bytes) says it in words; the status is SER_OK all the same. SER_FAILED only where
 * the machine fails (no memory for handles, say). */
ser_status ser_audio_probe(ser_audio_info *info, ser_reason *reason, char *detail, const char *path, ser_error *err);

/* Whether the name is one of a recording, for what lies below folders: the suffix of a format that libsndfile may open,
 * in any case; hidden files are other systems' notes on files. What a file truly is, its content tells later. */
bool ser_audio_named(const char *path);

/* A decoded clip. */
typedef struct {
  float *samples; /* [count] mono, freed by ser_clip_free */
  int64_t count;
  int32_t rate;
  ser_audio_info info;
} ser_clip;
void ser_clip_free(ser_clip *clip);

/* A recording whose lowest and highest sample are at most so far apart is silent: half of it is -60 dBFS. An offset
 * does not hide it. The quietest clip of RAVDESS peaks at -44 dBFS, the quietest of TESS at -30. */
#define SER_SILENT_SPAN 0.002f

/* Called with each block of interleaved frames as decoded, before averaging and resampling; for the audit. */
typedef void (*ser_block_fn)(void *context, const float *interleaved, int64_t frames, int32_t channels);

/* Where the bytes come from: a path, or memory (`-`, tests), with a name for messages. */
typedef struct {
  const char *path; /* or the name that messages give */
  const void *data; /* NULL: read the path */
  int64_t size;
} ser_audio_source;

/* A rate that asks for no samples: the clip stays empty but for its info, and `each` sees every block. */
#define SER_RATE_NO_SAMPLES (-1)

/* Decodes, averages the channels and resamples (soxr HQ) to rate (0: the file's own) in blocks; count is
 * ceil(frames * rate / file rate) as librosa has it. reason and detail as in probe, and beyond what a header tells:
 * truncated and unreadable where fewer frames come than promised or the decoder complains, non_finite where a sample is
 * not a finite number (the mean over channels counts). On a reason the clip is empty; clip->info holds what is known.
 * each (or NULL) sees the blocks. Checks for interruption between blocks (SER_INTERRUPTED). */
ser_status ser_audio_decode(ser_clip *clip, ser_reason *reason, char *detail, const ser_audio_source *source,
                            int32_t rate, ser_block_fn each, void *context, ser_error *err);

/* The libraries that decode and resample, as versions: "libsndfile-1.2.0 libsoxr-0.1.3". */
enum { SER_AUDIO_LIBRARIES = 128 };
void ser_audio_libraries(char text[SER_AUDIO_LIBRARIES]);

/* What decides whether a recording can be used: libsndfile's version and the number of our own rules. A refusal that is
 * remembered holds for the same words alone. */
enum { SER_AUDIO_DECODER = 64 };
void ser_audio_decoder(char text[SER_AUDIO_DECODER]);

/* soxr HQ in one call, for tests and arrays in memory: [ceil(count * to / from)] samples. */
ser_status ser_resample(float **out, int64_t *out_count, const float *in, int64_t count, int32_t from, int32_t to,
                        ser_error *err);

#endif
