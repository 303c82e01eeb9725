/* Decoding ahead of the device: a ring of places, filled by workers, emptied in order. */
#include "report/decode_ahead.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/memory.h"

/* Samples that may wait before only the next one in order is begun: 64 MB. */
enum { BUDGET = 16 << 20 };

struct ser_ahead {
  const ser_audio_source *inputs;
  size_t count, places, begun, taken;
  int32_t rate;
  int64_t waiting;    /* samples decoded and not taken */
  ser_decoded **ring; /* [places]; NULL: not decoded yet */
  bool stop;
  int workers;
  pthread_t *threads;
  pthread_mutex_t lock;
  pthread_cond_t changed;
};

void ser_decoded_free(ser_decoded *decoded) {
  if (!decoded) return;
  ser_clip_free(&decoded->clip);
  free(decoded);
}

typedef struct {
  float lowest, highest;
} levels;

/* Of the samples as they are in the file: resampling rings where an offset begins and ends. */
static void listen_to(void *context, const float *interleaved, int64_t frames, int32_t channels) {
  levels *l = context;
  float lowest = l->lowest, highest = l->highest;
  for (int64_t i = 0; i < frames; i++) {
    float sum = 0;
    for (int32_t c = 0; c < channels; c++) sum += interleaved[i * channels + c];
    sum /= (float)channels;
    lowest = sum < lowest ? sum : lowest;
    highest = sum > highest ? sum : highest;
  }
  *l = (levels){lowest, highest};
}

static ser_decoded *decode(const ser_ahead *ahead, size_t input) {
  ser_decoded *decoded = ser_alloc_zero(1, sizeof *decoded);
  levels l = {INFINITY, -INFINITY};
  decoded->status = ser_audio_decode(&decoded->clip, &decoded->reason, decoded->detail, &ahead->inputs[input],
                                     ahead->rate, listen_to, &l, &decoded->err);
  decoded->silent = decoded->clip.count > 0 && l.highest - l.lowest <= SER_SILENT_SPAN;
  return decoded;
}

static bool may_begin(const ser_ahead *ahead) {
  if (ahead->begun >= ahead->taken + ahead->places) return false;
  return ahead->begun == ahead->taken || ahead->waiting < BUDGET;
}

static void *work(void *argument) {
  ser_ahead *ahead = argument;
  pthread_mutex_lock(&ahead->lock);
  for (;;) {
    while (!ahead->stop && ahead->begun < ahead->count && !may_begin(ahead))
      pthread_cond_wait(&ahead->changed, &ahead->lock);
    if (ahead->stop || ahead->begun == ahead->count) break;
    size_t input = ahead->begun++;
    pthread_mutex_unlock(&ahead->lock);
    ser_decoded *decoded = decode(ahead, input);
    pthread_mutex_lock(&ahead->lock);
    ahead->ring[input % ahead->places] = decoded;
    ahead->waiting += decoded->clip.count;
    pthread_cond_broadcast(&ahead->changed);
  }
  pthread_mutex_unlock(&ahead->lock);
  return NULL;
}

ser_ahead *ser_ahead_start(const ser_audio_source *inputs, size_t count, int32_t rate, int jobs) {
  ser_ahead *ahead = ser_alloc_zero(1, sizeof *ahead);
  ahead->inputs = inputs;
  ahead->count = count;
  ahead->rate = rate;
  size_t workers = jobs < 1 ? 1 : (size_t)jobs;
  if (workers > count) workers = count;
  ahead->places = 32 + 2 * workers;
  ahead->ring = ser_alloc_zero(ahead->places, sizeof *ahead->ring);
  ahead->threads = ser_alloc_zero(workers, sizeof *ahead->threads);
  pthread_mutex_init(&ahead->lock, NULL);
  pthread_cond_init(&ahead->changed, NULL);
  for (size_t i = 0; i < workers; i++, ahead->workers++)
    if (pthread_create(&ahead->threads[i], NULL, work, ahead) != 0) break;
  return ahead;
}

void ser_ahead_stop(ser_ahead *ahead) {
  if (!ahead) return;
  pthread_mutex_lock(&ahead->lock);
  ahead->stop = true;
  pthread_cond_broadcast(&ahead->changed);
  pthread_mutex_unlock(&ahead->lock);
  for (int i = 0; i < ahead->workers; i++) pthread_join(ahead->threads[i], NULL);
  for (size_t i = 0; i < ahead->places; i++) ser_decoded_free(ahead->ring[i]);
  pthread_mutex_destroy(&ahead->lock);
  pthread_cond_destroy(&ahead->changed);
  free(ahead->ring);
  free(ahead->threads);
  free(ahead);
}

/* Where not one thread could be started, the taker does the work itself. */
static void decode_here(ser_ahead *ahead) {
  ser_decoded *decoded = decode(ahead, ahead->begun++);
  ahead->ring[ahead->taken % ahead->places] = decoded;
  ahead->waiting += decoded->clip.count;
}

ser_decoded *ser_ahead_take(ser_ahead *ahead, bool wait) {
  ser_decoded *decoded = NULL;
  pthread_mutex_lock(&ahead->lock);
  if (ahead->taken < ahead->count) {
    ser_decoded **place = &ahead->ring[ahead->taken % ahead->places];
    if (!ahead->workers && wait) decode_here(ahead);
    while (wait && !*place) pthread_cond_wait(&ahead->changed, &ahead->lock);
    decoded = *place;
    if (decoded) {
      *place = NULL;
      ahead->taken++;
      ahead->waiting -= decoded->clip.count;
      pthread_cond_broadcast(&ahead->changed);
    }
  }
  pthread_mutex_unlock(&ahead->lock);
  return decoded;
}
