/* The recordings that are measured: real ones below a folder, or made ones that have speech's spectrum and pauses. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/philox.h"
#include "cli/bench.h"

enum { MOST_CLIPS = 256, MADE_CLIPS = 96, MADE_RATE = 48000 };

/* ---- made speech ---------------------------------------------------------------------------------------------------
 */

typedef struct {
  double b0, a1, a2, y1, y2;
} resonator;

static resonator resonator_at(double hz, double width) {
  double r = exp(-M_PI * width / MADE_RATE);
  return (resonator){.b0 = 1 - r, .a1 = 2 * r * cos(2 * M_PI * hz / MADE_RATE), .a2 = -r * r};
}

static double resonate(resonator *f, double x) {
  double y = f->b0 * x + f->a1 * f->y1 + f->a2 * f->y2;
  f->y2 = f->y1;
  f->y1 = y;
  return y;
}

static double uniform(uint64_t seed, uint64_t index) {
  return (double)ser_uniform(ser_philox_at(seed, 0x5eec4, index).v[0]);
}

/* Pulses of a gliding pitch and noise through three resonances that change with each syllable, with pauses between. */
static int16_t *make_speech(uint64_t seed, int64_t count) {
  int16_t *samples = ser_alloc((size_t)count * sizeof *samples);
  resonator formants[3];
  memset(formants, 0, sizeof formants);
  double pitch = 90 + 130 * uniform(seed, 0), phase = 0;
  int64_t syllable = -1, length = MADE_RATE * 11 / 50;
  for (int64_t i = 0; i < count; i++) {
    if (i / length != syllable) {
      syllable = i / length;
      const double low[3] = {300, 900, 2300}, spread[3] = {500, 1300, 900};
      for (int f = 0; f < 3; f++) {
        double hz = low[f] + spread[f] * uniform(seed, 10 + 4 * (uint64_t)syllable + (uint64_t)f);
        resonator next = resonator_at(hz, 60 + 40 * f);
        next.y1 = formants[f].y1;
        next.y2 = formants[f].y2;
        formants[f] = next;
      }
    }
    double within = (double)(i % length) / (double)length, t = (double)i / MADE_RATE;
    bool pause = uniform(seed, 13 + 4 * (uint64_t)syllable) < 0.15;
    double loud = pause ? 0.002 : sin(M_PI * within);
    phase += pitch * (1 + 0.12 * sin(2 * M_PI * 0.6 * t)) / MADE_RATE;
    double pulse = phase >= 1 ? 12 : 0, hiss = 2 * uniform(seed, 1000000 + (uint64_t)i) - 1;
    phase -= floor(phase);
    double value = 0, source = pulse + 0.15 * hiss;
    for (int f = 0; f < 3; f++) value += resonate(&formants[f], source);
    value = 2500 * loud * value + 3 * hiss;
    samples[i] = (int16_t)(value > 32767 ? 32767 : value < -32768 ? -32768 : value);
  }
  return samples;
}

static void put32(unsigned char *at, uint32_t value) {
  for (int i = 0; i < 4; i++) at[i] = (unsigned char)(value >> (8 * i));
}

static ser_status write_wav(const char *path, const int16_t *samples, int64_t count, ser_error *err) {
  size_t bytes = (size_t)count * 2;
  unsigned char *file = ser_alloc(44 + bytes);
  memcpy(file, "RIFF----WAVEfmt ", 16);
  memcpy(file + 16, "\x10\0\0\0\1\0\1\0--------\2\0\x10\0data", 24); /* PCM, one channel, 16 bits */
  put32(file + 4, (uint32_t)(36 + bytes));
  put32(file + 24, MADE_RATE);
  put32(file + 28, MADE_RATE * 2);
  put32(file + 40, (uint32_t)bytes);
  for (size_t i = 0; i < (size_t)count; i++) {
    file[44 + 2 * i] = (unsigned char)(samples[i] & 255);
    file[45 + 2 * i] = (unsigned char)((uint16_t)samples[i] >> 8);
  }
  ser_status status = ser_file_write(path, file, 44 + bytes, err);
  free(file);
  return status;
}

typedef struct {
  bench *b;
  ser_error *errors;    /* [count] of its own for each task */
  ser_reason *reasons;  /* [count] */
  ser_status *statuses; /* [count] */
} clip_work;

static void make_task(void *context, size_t task, int thread) {
  clip_work *work = context;
  (void)thread;
  int64_t count = (int64_t)(MADE_RATE * (1.8 + 2.4 * uniform(7, task)));
  int16_t *samples = make_speech(100 + task, count);
  char *path = ser_format("%s/made-%03zu.wav", work->b->folder, task);
  work->b->clips.paths[task] = path;
  work->statuses[task] = write_wav(path, samples, count, &work->errors[task]);
  free(samples);
}

/* ---- finding and decoding ------------------------------------------------------------------------------------------
 */

typedef struct {
  char **paths;
  size_t count, capacity;
} path_list;

static ser_status add_path(void *context, const char *path, ser_error *err) {
  (void)err;
  path_list *list = context;
  SER_GROW(list->paths, list->count, list->capacity);
  list->paths[list->count++] = ser_strdup(path);
  return SER_OK;
}

/* Audio below the folder, by its header; at most MOST_CLIPS, evenly spread over the sorted paths. */
static ser_status find_recordings(bench *b, ser_error *err) {
  path_list all = {0};
  ser_status status = ser_walk(b->data, add_path, &all, err);
  size_t audio = 0;
  for (size_t i = 0; i < all.count; i++) {
    ser_audio_info info;
    ser_reason reason = SER_REASON_NONE;
    if (status == SER_OK) status = ser_audio_probe(&info, &reason, NULL, all.paths[i], err);
    if (status == SER_OK && reason == SER_REASON_NONE)
      all.paths[audio++] = all.paths[i];
    else
      free(all.paths[i]);
  }
  if (status == SER_OK && !audio)
    status = ser_fail(err, SER_USAGE, "%s: no recording there can be read; name a folder of audio files", b->data);
  size_t wanted = audio < MOST_CLIPS ? audio : MOST_CLIPS;
  b->clips.paths = ser_alloc_zero(wanted + 1, sizeof *b->clips.paths);
  for (size_t i = 0; i < audio; i++) {
    size_t place = wanted ? i * wanted / audio : 0;
    if (status == SER_OK && !b->clips.paths[place])
      b->clips.paths[place] = all.paths[i];
    else
      free(all.paths[i]);
  }
  b->clips.count = status == SER_OK ? wanted : 0;
  free(all.paths);
  return status;
}

static void decode_task(void *context, size_t task, int thread) {
  clip_work *work = context;
  bench_clips *clips = &work->b->clips;
  (void)thread;
  ser_audio_source source = {.path = clips->paths[task]};
  int32_t rate = (int32_t)work->b->config.features.mfcc39.rate;
  ser_reason *reason = &work->reasons[task];
  ser_error *err = &work->errors[task];
  work->statuses[task] = ser_audio_decode(&clips->whole[task], reason, NULL, &source, 0, NULL, NULL, err);
  if (work->statuses[task] == SER_OK && *reason == SER_REASON_NONE)
    work->statuses[task] = ser_audio_decode(&clips->clips[task], reason, NULL, &source, rate, NULL, NULL, err);
}

static ser_status first_failure(const clip_work *work, size_t count, ser_error *err) {
  for (size_t i = 0; i < count; i++)
    if (work->statuses[i] != SER_OK) return ser_fail(err, work->statuses[i], "%s", work->errors[i].text);
  return SER_OK;
}

/* Drops what cannot be used, so that every stage sees the same clips. */
static void keep_usable(bench_clips *clips, const clip_work *work, int64_t least) {
  size_t kept = 0;
  for (size_t i = 0; i < clips->count; i++) {
    if (work->reasons[i] != SER_REASON_NONE || clips->clips[i].count < least) {
      ser_warn("%s: left out: %s", clips->paths[i],
               ser_reason_name(work->reasons[i] ? work->reasons[i] : SER_REASON_TOO_SHORT));
      free(clips->paths[i]);
      ser_clip_free(&clips->whole[i]);
      ser_clip_free(&clips->clips[i]);
      continue;
    }
    clips->paths[kept] = clips->paths[i];
    clips->whole[kept] = clips->whole[i];
    clips->clips[kept] = clips->clips[i];
    clips->samples[kept] = clips->clips[i].samples;
    clips->counts[kept] = clips->clips[i].count;
    clips->seconds += (double)clips->whole[i].count / clips->whole[i].rate;
    kept++;
  }
  clips->count = kept;
}

ser_status bench_clips_load(bench *b, ser_error *err) {
  bench_clips *clips = &b->clips;
  clips->made = !b->data;
  if (b->data) {
    SER_TRY(find_recordings(b, err));
  } else {
    clips->count = MADE_CLIPS;
    clips->paths = ser_alloc_zero(MADE_CLIPS, sizeof *clips->paths);
  }
  size_t count = clips->count;
  clips->whole = ser_alloc_zero(count, sizeof *clips->whole);
  clips->clips = ser_alloc_zero(count, sizeof *clips->clips);
  clips->samples = ser_alloc_zero(count, sizeof *clips->samples);
  clips->counts = ser_alloc_zero(count, sizeof *clips->counts);
  clip_work work = {b, ser_alloc_zero(count, sizeof *work.errors), ser_alloc_zero(count, sizeof *work.reasons),
                    ser_alloc_zero(count, sizeof *work.statuses)};
  if (clips->made) ser_pool_run_dynamic(b->pool, count, make_task, &work);
  ser_status status = first_failure(&work, count, err);
  if (status == SER_OK) {
    ser_pool_run_dynamic(b->pool, count, decode_task, &work);
    status = first_failure(&work, count, err);
  }
  const ser_mfcc_config *mfcc = &b->config.features.mfcc39;
  if (status == SER_OK) keep_usable(clips, &work, (ser_feature_min_frames(mfcc) - 1) * mfcc->hop);
  if (status == SER_OK && !clips->count)
    status = ser_fail(err, SER_FAILED, "%s: no recording there can be used; name a folder of audio files", b->data);
  free(work.errors);
  free(work.reasons);
  free(work.statuses);
  return status;
}

void bench_clips_free(bench_clips *clips) {
  for (size_t i = 0; i < clips->count; i++) {
    free(clips->paths[i]);
    if (clips->whole) ser_clip_free(&clips->whole[i]);
    if (clips->clips) ser_clip_free(&clips->clips[i]);
  }
  free(clips->paths);
  free(clips->whole);
  free(clips->clips);
  free(clips->samples);
  free(clips->counts);
  memset(clips, 0, sizeof *clips);
}
