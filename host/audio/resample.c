/* Resampling as librosa.resample(res_type="soxr_hq") has it: soxr's HQ recipe (20 bits, linear phase) on float32, then
 * cut or filled with zeros to ceil(count * to / from). The stream's blocks change no value: soxr buffers them itself.
 */
#include "audio/resample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <soxr.h>

#include "audio/audio.h"
#include "base/memory.h"

void sample_buffer_reserve(sample_buffer *buffer, int64_t capacity) {
  if (capacity <= buffer->capacity) return;
  int64_t grown = buffer->capacity + buffer->capacity / 2;
  buffer->capacity = capacity > grown ? capacity : grown;
  buffer->data = ser_realloc(buffer->data, (size_t)buffer->capacity * sizeof *buffer->data);
}

int64_t resampled_count(int64_t count, int32_t from, int32_t to) {
  return from == to ? count : (int64_t)ceil((double)count * ((double)to / from));
}

const char *resampler_version(void) {
  return soxr_version();
}

ser_status resampler_open(resampler *stream, int32_t from, int32_t to, ser_error *err) {
  *stream = (resampler){.from = from, .to = to};
  if (from == to) return SER_OK;
  soxr_error_t problem = NULL;
  soxr_io_spec_t io = soxr_io_spec(SOXR_FLOAT32_I, SOXR_FLOAT32_I);
  soxr_quality_spec_t quality = soxr_quality_spec(SOXR_HQ, 0);
  soxr_runtime_spec_t runtime = soxr_runtime_spec(1);
  stream->soxr = soxr_create(from, to, 1, &problem, &io, &quality, &runtime);
  if (problem || !stream->soxr)
    return ser_fail(err, SER_FAILED, "cannot resample from %d Hz to %d Hz: %s", from, to,
                    problem ? problem : "soxr gave nothing");
  return SER_OK;
}

void resampler_close(resampler *stream) {
  if (stream->soxr) soxr_delete(stream->soxr);
  stream->soxr = NULL;
}

ser_status resampler_push(resampler *stream, sample_buffer *out, const float *in, int64_t count, ser_error *err) {
  stream->taken += count;
  if (!stream->soxr) {
    sample_buffer_reserve(out, out->count + count);
    memcpy(out->data + out->count, in, (size_t)count * sizeof *in);
    out->count += count;
    return SER_OK;
  }
  for (;;) {
    /* in == NULL flushes: soxr then gives what it held back, as often as it is asked. */
    int64_t room = resampled_count(in ? count : 4096, stream->from, stream->to) + 64;
    sample_buffer_reserve(out, out->count + room);
    size_t used = 0, made = 0;
    soxr_error_t problem =
        soxr_process(stream->soxr, in, in ? (size_t)count : 0, &used, out->data + out->count, (size_t)room, &made);
    if (problem) return ser_fail(err, SER_FAILED, "cannot resample: %s", problem);
    out->count += (int64_t)made;
    if (in) {
      in += used;
      count -= (int64_t)used;
      if (count == 0) return SER_OK;
    } else if (made == 0) {
      return SER_OK;
    }
  }
}

ser_status resampler_finish(resampler *stream, sample_buffer *out, ser_error *err) {
  int64_t want = resampled_count(stream->taken, stream->from, stream->to);
  if (stream->soxr) SER_TRY(resampler_push(stream, out, NULL, 0, err));
  sample_buffer_reserve(out, want);
  if (out->count < want) memset(out->data + out->count, 0, (size_t)(want - out->count) * sizeof *out->data);
  out->count = want;
  return SER_OK;
}

ser_status ser_resample(float **out, int64_t *out_count, const float *in, int64_t count, int32_t from, int32_t to,
                        ser_error *err) {
  enum { BLOCK = 1 << 16 };
  *out = NULL;
  *out_count = 0;
  if (from <= 0 || to <= 0) return ser_fail(err, SER_FAILED, "cannot resample from %d Hz to %d Hz", from, to);
  resampler stream;
  sample_buffer buffer = {0};
  SER_TRY(resampler_open(&stream, from, to, err));
  sample_buffer_reserve(&buffer, resampled_count(count, from, to) + 1);
  ser_status status = SER_OK;
  for (int64_t at = 0; status == SER_OK && at < count; at += BLOCK)
    status = resampler_push(&stream, &buffer, in + at, count - at < BLOCK ? count - at : BLOCK, err);
  if (status == SER_OK) status = resampler_finish(&stream, &buffer, err);
  resampler_close(&stream);
  if (status != SER_OK) {
    free(buffer.data);
    return status;
  }
  *out = buffer.data;
  *out_count = buffer.count;
  return SER_OK;
}
