/* The bulk job's decoding: a recording of the manifest, checked against its hash, as samples at the feature's rate. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "features/internal.h"

enum { SMALL_FILE = 16 << 20 }; /* files up to this are read whole, once, for the hash and for decoding */

/* The manifest's word is anyone's: an absurd length asks for all of the room, and no more. */
int64_t extract_expected_bytes(const ser_row *row, const ser_mfcc_config *config) {
  double seconds = row->seconds > 0 ? fmin(row->seconds, 1e6) : 10;
  int64_t samples = (int64_t)(seconds * (double)config->rate) + 1024;
  if (samples < config->samples) samples = config->samples;
  return samples * (int64_t)sizeof(float);
}

static void refuse(extract_item *item, bool remember, char *why) {
  item->status = SER_ENTRY_REFUSED;
  item->remember = remember;
  free(item->refusal);
  item->refusal = why;
}

/* The bytes must be those that the key stands for, or the cache would answer for others. */
static void check_hash(extract_item *item, const ser_hash *found) {
  if (ser_hash_compare(found, &item->row->hash) != 0)
    refuse(item, false, ser_strdup("its bytes are not those that were indexed; run `serenade index` again"));
}

/* Opens the bytes of a recording: small files whole in *data, long ones by their path. Where they cannot be used, the
 * item has a refusal. SER_INTERRUPTED is all that it returns beside SER_OK. */
static ser_status open_source(extract_item *item, ser_audio_source *source, char **data, struct stat *info,
                              ser_error *why) {
  const char *path = item->row->path;
  size_t size;
  ser_hash hash;
  *data = NULL;
  *source = (ser_audio_source){.path = path};
  if (stat(path, info) != 0 || !S_ISREG(info->st_mode)) {
    refuse(item, false,
           ser_format("cannot be opened (%s); run `serenade index` again if it has moved",
                      S_ISDIR(info->st_mode) ? strerror(EISDIR) : strerror(errno)));
    return SER_OK;
  }
  bool small = info->st_size <= SMALL_FILE;
  ser_status status = small ? ser_file_read(data, &size, path, why) : ser_hash_file(&hash, path, why);
  if (status == SER_INTERRUPTED) return status;
  if (status != SER_OK) {
    refuse(item, false, ser_strdup(why->text));
    return SER_OK;
  }
  if (small) {
    hash = ser_hash_bytes(*data, size);
    source->data = *data;
    source->size = (int64_t)size;
  }
  check_hash(item, &hash);
  return SER_OK;
}

/* Whether a long file, hashed before and decoded after, stayed the same in between. */
static bool unchanged(const char *path, const struct stat *before) {
  struct stat now;
  return stat(path, &now) == 0 && now.st_size == before->st_size && now.st_mtim.tv_sec == before->st_mtim.tv_sec &&
         now.st_mtim.tv_nsec == before->st_mtim.tv_nsec;
}

static void judge_length(extract_item *item, const ser_mfcc_config *config) {
  int64_t frames = ser_mfcc_frames(item->clip.count, config->hop), least = ser_feature_min_frames(config);
  if (frames >= least) return;
  item->status = SER_ENTRY_TOO_SHORT;
  item->remember = true;
  item->refusal =
      ser_format("too short: %.3f s make %lld %s, features need %lld", (double)item->clip.count / item->clip.rate,
                 (long long)frames, SER_PLURAL(frames, "frame", "frames"), (long long)least);
}

/* Whether every sample is a whole number of 1 / 32768, as 16-bit recordings are that nobody has resampled. */
static bool are_int16(const float *samples, int64_t count) {
  bool all = true;
  for (int64_t i = 0; i < count; i++) {
    float value = samples[i] * 32768;
    all &= value >= -32768 && value <= 32767 && value == (float)(int32_t)value;
  }
  return all;
}

/* The clip's samples take their place in the room, as integers where they are, so that they leave for the device from
 * there; where there is no memory in the room they stay where they are. */
static void settle(extract_item *item) {
  ser_clip *clip = &item->clip;
  item->info = clip->info;
  item->signal = (ser_signal){.samples = clip->samples, .count = clip->count};
  if (!item->room.memory) return;
  bool int16 = clip->info.rate == clip->rate && clip->info.channels == 1 && are_int16(clip->samples, clip->count);
  size_t bytes = (size_t)clip->count * (int16 ? sizeof(int16_t) : sizeof(float));
  if (bytes > item->room.bytes) return;
  if (int16) {
    int16_t *to = item->room.memory;
    for (int64_t i = 0; i < clip->count; i++) to[i] = (int16_t)(clip->samples[i] * 32768);
  } else {
    memcpy(item->room.memory, clip->samples, bytes);
  }
  item->signal = (ser_signal){.samples = item->room.memory, .int16 = int16, .pinned = true, .count = clip->count};
  ser_clip_free(clip);
}

/* Decodes item->row, or sets the item's refusal. */
static ser_status decode_row(extract_item *item, const ser_mfcc_config *config, ser_error *err) {
  ser_audio_source source;
  ser_reason reason = SER_REASON_NONE;
  char detail[256], *data;
  struct stat info = {0};
  ser_status status = open_source(item, &source, &data, &info, err);
  if (status == SER_OK && !item->refusal)
    status = ser_audio_decode(&item->clip, &reason, detail, &source, (int32_t)config->rate, NULL, NULL, err);
  if (status == SER_OK && !item->refusal) {
    if (!data && !unchanged(item->row->path, &info))
      refuse(item, false, ser_strdup("it changed while it was read; run `serenade index` again"));
    else if (reason != SER_REASON_NONE)
      refuse(item, !item->clip.info.passing, ser_format("%s: %s", ser_reason_name(reason), detail));
    else if (config->samples > 0)
      ser_fit_samples(&item->clip.samples, &item->clip.count, config->samples);
    if (!item->refusal) judge_length(item, config);
  }
  free(data);
  if (item->refusal)
    ser_clip_free(&item->clip);
  else if (status == SER_OK)
    settle(item);
  return status;
}

ser_status extract_decode(extract_item *item, const extract_key *key, const ser_mfcc_config *config, ser_error *err) {
  char *first = NULL;
  for (size_t i = 0; i < key->count; i++) {
    item->row = key->rows[i];
    item->status = SER_ENTRY_OK;
    ser_status status = decode_row(item, config, err);
    if (status != SER_OK || !item->refusal || item->remember) {
      free(first);
      return status;
    }
    if (first)
      free(item->refusal);
    else
      first = item->refusal;
    item->refusal = NULL;
  }
  item->row = key->rows[0];
  item->refusal = first;
  item->status = SER_ENTRY_REFUSED;
  return SER_OK;
}
