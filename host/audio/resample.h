/* A stream through soxr HQ, mono. Private to host/audio. */
#ifndef SER_AUDIO_RESAMPLE_H
#define SER_AUDIO_RESAMPLE_H

#include <stdint.h>

#include "base/status.h"

/* Samples that grow. */
typedef struct {
  float *data;
  int64_t count, capacity;
} sample_buffer;
void sample_buffer_reserve(sample_buffer *buffer, int64_t capacity);

typedef struct {
  struct soxr *soxr; /* NULL where the rates are equal */
  int32_t from, to;
  int64_t taken; /* input samples */
} resampler;

/* librosa.resample's length: ceil of the product in double. */
int64_t resampled_count(int64_t count, int32_t from, int32_t to);

const char *resampler_version(void); /* of the library */
ser_status resampler_open(resampler *stream, int32_t from, int32_t to, ser_error *err);
void resampler_close(resampler *stream);
/* Takes the next samples and appends what comes out. */
ser_status resampler_push(resampler *stream, sample_buffer *out, const float *in, int64_t count, ser_error *err);
/* Appends the rest and brings out to resampled_count (zeros behind, as librosa's fix_length). */
ser_status resampler_finish(resampler *stream, sample_buffer *out, ser_error *err);

#endif
