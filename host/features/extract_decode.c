/* The bulk job's decoding: a recording of the manifest, checked against its hash, as samples at the feature's rate. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "features/integers.h"
#include "features/internal.h"

enum { SMALL_FILE = 16 << 20 }; /* files up to this are read whole, once, for the hash and for decoding */

/* The manifest's word is anyone's: an absurd length asks for all of the room, and no more. */
int64_t extract_expected_bytes(const ser_row *row, const extract_target *target) {
  double seconds = row->seconds > 0 ? fmin(row->seconds, 1e6) : 10;
  int64_t samples = (int64_t)(seconds * (double)extract_rate(target)) + 1024;
  if (samples < extract_fitted(target)) samples = extract_fitted(target);
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

/* The clip's samples take their place in the room, as integers where they are, so that they leave for the device from
 * there; where there is no memory in the room they stay where they are. */
static void settle(extract_item *item) {
  ser_clip *clip = &item->clip;
  item->info = clip->info;
  item->signal = (ser_signal){.samples = clip->samples, .count = clip->count};
  if (!item->memory) return;
  bool int16 = clip->info.rate == clip->rate && clip->info.channels == 1 && ser_are_int16(clip->samples, clip->count);
  size_t bytes = (size_t)clip->count * (int16 ? sizeof(int16_t) : sizeof(float));
  if (bytes > item->bytes) return;
  if (int16)
    ser_to_int16(item->memory, clip->samples, clip->count);
  else
    memcpy(item->memory, clip->samples, bytes);
  item->signal = (ser_signal){.samples = item->memory, .int16 = int16, .pinned = true, .count = clip->count};
  ser_clip_free(clip);
}

/* The samples for one feature, from bytes that are those indexed; or the item's refusal. */
static ser_status decode_item(extract_item *item, const ser_audio_source *source, ser_error *err) {
  ser_reason reason = SER_REASON_NONE;
  char detail[256];
  SER_TRY(ser_audio_decode(&item->clip, &reason, detail, source, (int32_t)extract_rate(item->target), NULL, NULL, err));
  if (reason != SER_REASON_NONE) {
    refuse(item, !item->clip.info.passing, ser_format("%s: %s", ser_reason_name(reason), detail));
    return SER_OK;
  }
  if (extract_fitted(item->target) > 0)
    ser_fit_samples(&item->clip.samples, &item->clip.count, extract_fitted(item->target));
  item->refusal = extract_too_short(item->target, item->clip.count);
  if (!item->refusal) return SER_OK;
  item->status = SER_ENTRY_TOO_SHORT;
  item->remember = true;
  return SER_OK;
}

/* Decodes `row` for all items, or sets their refusals: the file's are those of all. */
static ser_status decode_row(extract_item *const *items, size_t count, const ser_row *row, ser_error *err) {
  ser_audio_source source;
  char *data;
  struct stat info = {0};
  for (size_t i = 0; i < count; i++) {
    items[i]->row = row;
    items[i]->status = SER_ENTRY_OK;
  }
  ser_status status = open_source(items[0], &source, &data, &info, err);
  for (size_t i = 1; i < count && items[0]->refusal; i++)
    refuse(items[i], items[0]->remember, ser_strdup(items[0]->refusal));
  for (size_t i = 0; i < count && status == SER_OK && !items[i]->refusal; i++)
    status = decode_item(items[i], &source, err);
  bool whole = data || !source.path || unchanged(row->path, &info);
  for (size_t i = 0; i < count && status == SER_OK; i++) {
    if (!whole && (!items[i]->refusal || items[i]->remember))
      refuse(items[i], false, ser_strdup("it changed while it was read; run `serenade index` again"));
    if (items[i]->refusal)
      ser_clip_free(&items[i]->clip);
    else
      settle(items[i]);
  }
  free(data);
  return status;
}

/* A refusal that is not the bytes' own: another row's file may do better. NULL: there is none. */
static const char *find_passing(extract_item *const *items, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (items[i]->refusal && !items[i]->remember) return items[i]->refusal;
  return NULL;
}

ser_status extract_decode(extract_item *const *items, size_t count, const extract_key *key, ser_error *err) {
  char *first = NULL;
  for (size_t r = 0; r < key->count; r++) {
    ser_status status = decode_row(items, count, key->rows[r], err);
    const char *passing = find_passing(items, count);
    if (status != SER_OK || !passing) {
      free(first);
      return status;
    }
    if (!first) first = ser_strdup(passing);
    for (size_t i = 0; i < count; i++) {
      free(items[i]->refusal);
      items[i]->refusal = NULL;
      items[i]->remember = false;
      ser_clip_free(&items[i]->clip);
    }
  }
  for (size_t i = 0; i < count; i++) {
    items[i]->row = key->rows[0];
    refuse(items[i], false, ser_strdup(first));
  }
  free(first);
  return SER_OK;
}
