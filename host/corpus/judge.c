/* Judges a recording by its samples, decoded once in blocks.
 *
 * silent   its lowest and highest sample are at most SER_SILENT_SPAN apart, in every channel.
 * clipped  runs of three or more equal samples at 0.98 of full scale and above make at least one sample in 10 000.
 *          0.98 is where mu-law ends; neither RAVDESS nor TESS has one such run. Lossy files blur their flat tops:
 * there it is seen only where the decoder clips.
 */
#include "corpus/judge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "base/memory.h"

static const float FULL_SCALE = 0.98f;
static const double CLIPPED_SHARE = 1e-4;
enum { CLIPPED_RUN = 3 };

typedef struct {
  float lowest, highest, last;
  int64_t run; /* equal samples at full scale up to now */
} channel_state;

typedef struct {
  XXH3_state_t *hash;
  channel_state *channels;
  int32_t count;
  int64_t clipped, samples;
} listening;

static void listen_to_channel(listening *all, channel_state *channel, const float *first, int64_t frames,
                              int32_t step) {
  float lowest = channel->lowest, highest = channel->highest;
  for (int64_t i = 0; i < frames; i++) {
    float value = first[i * step];
    lowest = value < lowest ? value : lowest;
    highest = value > highest ? value : highest;
  }
  channel->lowest = lowest;
  channel->highest = highest;
  if (fmaxf(-lowest, highest) < FULL_SCALE) return; /* never loud up to now, so no run has begun */
  for (int64_t i = 0; i < frames; i++) {
    float value = first[i * step];
    if (fabsf(value) < FULL_SCALE)
      channel->run = 0;
    else if (channel->run && value == channel->last)
      channel->run++;
    else
      channel->run = 1;
    if (channel->run >= CLIPPED_RUN) all->clipped += channel->run == CLIPPED_RUN ? CLIPPED_RUN : 1;
    channel->last = value;
  }
}

/* The mean over channels, as decoding takes it, with one zero: bytes that are the same for the same sound. */
static void hash_mono(listening *all, const float *interleaved, int64_t frames, int32_t channels) {
  float mono[1024];
  for (int64_t at = 0; at < frames; at += 1024) {
    int64_t count = frames - at < 1024 ? frames - at : 1024;
    for (int64_t i = 0; i < count; i++) {
      const float *frame = interleaved + (at + i) * channels;
      float sum = frame[0];
      for (int32_t c = 1; c < channels; c++) sum += frame[c];
      mono[i] = (channels == 1 ? sum : sum / (float)channels) + 0.0f;
    }
    XXH3_128bits_update(all->hash, mono, (size_t)count * sizeof *mono);
  }
}

static void listen_to_block(void *context, const float *interleaved, int64_t frames, int32_t channels) {
  listening *all = context;
  if (!all->channels) {
    all->channels = ser_alloc_zero((size_t)channels, sizeof *all->channels);
    all->count = channels;
    for (int32_t c = 0; c < channels; c++) all->channels[c] = (channel_state){.lowest = INFINITY, .highest = -INFINITY};
  }
  for (int32_t c = 0; c < channels; c++) listen_to_channel(all, all->channels + c, interleaved + c, frames, channels);
  hash_mono(all, interleaved, frames, channels);
  all->samples += frames * channels;
}

bool reason_refuses(ser_reason reason) {
  return reason == SER_REASON_UNREADABLE || reason == SER_REASON_TRUNCATED || reason == SER_REASON_LFS_POINTER ||
         reason == SER_REASON_EMPTY || reason == SER_REASON_NON_FINITE;
}

bool reason_excludes(ser_reason reason) {
  return reason == SER_REASON_SILENT || reason == SER_REASON_DUPLICATE || reason == SER_REASON_LABEL_CONFLICT;
}

const char *ser_reason_meaning(ser_reason reason) {
  static const char *const meanings[] = {
      [SER_REASON_NONE] = "",
      [SER_REASON_UNREADABLE] = "cannot be read as audio; get the file anew, or take it out",
      [SER_REASON_TRUNCATED] = "is cut short; get the file anew",
      [SER_REASON_LFS_POINTER] = "is a Git LFS pointer, not the recording; fetch it with 'git lfs pull'",
      [SER_REASON_EMPTY] = "holds no sound; get the file anew, or take it out",
      [SER_REASON_NON_FINITE] = "holds samples that are not numbers; export it again",
      [SER_REASON_SILENT] = "is silent",
      [SER_REASON_DUPLICATE] = "is the same recording as one that stays",
      [SER_REASON_LABEL_CONFLICT] = "is the same recording as one with another emotion",
      [SER_REASON_CLIPPED] = "is clipped; that excludes nothing",
      [SER_REASON_SPEAKER_CONFLICT] = "is the same recording as one of another speaker",
      [SER_REASON_TOO_SHORT] = "is too short",
  };
  return meanings[reason];
}

void ser_row_refusal(char words[256], const ser_row *row) {
  verdict found;
  ser_error err = {0};
  bool same = judge_file(&found, row->path, &err) == SER_OK && found.reason == row->reason;
  snprintf(words, 256, "%s", same ? found.detail : ser_reason_meaning(row->reason));
}

bool row_judged(const ser_row *row) {
  return row->status == SER_FILTERED ? !row->unjudged : row->status != SER_NEW;
}

void row_judge(ser_row *row, ser_reason reason, ser_audit_mode mode) {
  row->reason = reason;
  row->unjudged = false;
  if (row->status == SER_FILTERED) return;
  row->status = reason_refuses(reason)                                 ? SER_REFUSED
                : reason_excludes(reason) && mode == SER_AUDIT_EXCLUDE ? SER_EXCLUDED
                                                                       : SER_ROW_OK;
}

void row_forget(ser_row *row) {
  row->reason = SER_REASON_NONE;
  row->unjudged = row->status == SER_FILTERED;
  if (!row->unjudged) row->status = SER_NEW;
}

static void conclude(verdict *out, const listening *all) {
  float span = 0;
  for (int32_t c = 0; c < all->count; c++) {
    float here = all->channels[c].highest - all->channels[c].lowest;
    span = here > span ? here : span;
  }
  double share = all->samples ? (double)all->clipped / (double)all->samples : 0;
  if (span <= SER_SILENT_SPAN) {
    out->reason = SER_REASON_SILENT;
    snprintf(out->detail, sizeof out->detail,
             span > 0 ? "silent: its peak is %.1f dBFS" : "silent: all samples are equal",
             20 * log10((double)span / 2));
  } else if (share >= CLIPPED_SHARE) {
    out->reason = SER_REASON_CLIPPED;
    snprintf(out->detail, sizeof out->detail, "clipped: %.2f%% of its samples lie in flat tops at full scale",
             100 * share);
  }
}

ser_status judge_file(verdict *out, const char *path, ser_error *err) {
  memset(out, 0, sizeof *out);
  listening all = {.hash = XXH3_createState()};
  SER_CHECK(all.hash != NULL);
  XXH3_128bits_reset(all.hash);
  ser_clip clip;
  ser_status status = ser_audio_decode(&clip, &out->reason, out->detail, &(ser_audio_source){.path = path},
                                       SER_RATE_NO_SAMPLES, listen_to_block, &all, err);
  out->info = clip.info;
  if (status == SER_OK && out->reason == SER_REASON_NONE) {
    XXH3_128bits_update(all.hash, &clip.info.rate, sizeof clip.info.rate);
    XXH128_canonical_t form;
    XXH128_canonicalFromHash(&form, XXH3_128bits_digest(all.hash));
    memcpy(out->samples.bytes, form.digest, sizeof out->samples.bytes);
    conclude(out, &all);
  }
  ser_clip_free(&clip);
  XXH3_freeState(all.hash);
  free(all.channels);
  return status;
}
