/* MFCC features of clips of unlike lengths (librosa.feature.mfcc and .delta), in batches through the device's
 * operations:
 *
 *     copy stream:    samples of batch n + 1 to the device
 *     compute stream: batch n
 *     return stream:  features of batch n - 1 back
 *
 * with events between them. All memory is made beforehand but room for clips longer than a batch. */
#include "features/features.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "features/integers.h"

enum { MOST_SLOTS = 3 };

/* One batch under way: its buffers and the events it passes. */
typedef struct {
  size_t count;
  int64_t *offset;      /* [max_clips + 1] */
  float *pcm;           /* [max_frames * hop]: a clip of T frames has fewer than T * hop samples */
  int16_t *pcm16;       /* the same, where host memory is not the device's */
  int64_t *starts;      /* [2][max_clips + 1] sample_start, frame_start */
  float *features;      /* [max_frames][C] */
  int64_t *starts_host; /* pinned */
  float *features_host; /* pinned; where host memory is the device's, `features` */
  float *pcm_host;      /* pinned, as pcm, where `staged`: samples that do not lie in pinned memory */
  float *alone;         /* the features of a clip longer than a batch, instead */
  bool alone_or_none;   /* no batch was computed: nothing to time */
  ser_event *copied, *started, *computed, *done;
} slot;

struct ser_mfcc {
  ser_device *device;
  ser_mfcc_config config;
  bool host_memory, staged;
  int64_t max_clips, max_frames, margin; /* margin: frames that the edge of a piece spoils */
  ser_stream *in, *compute, *out;
  ser_plan *plan;
  void *workspace;
  float *logmel; /* [max_frames][mels] */
  slot slots[MOST_SLOTS];
  int slot_count, first, under_way; /* slots are used in turn */
  ser_device_work work;
  /* For one clip that is longer than a batch; made when first needed. The batches' plan does for it, too. */
  struct {
    int64_t frames;
    float *logmel, *features;
    int64_t *starts; /* [2] */
  } single;
};

/* ---- making ------------------------------------------------------------------------------------------------------ */

static ser_status make_plan(ser_mfcc *m, ser_error *err) {
  const ser_mfcc_config *c = &m->config;
  ser_mfcc_shape shape = {c->n_fft, c->hop, c->rate, c->mels, c->coefficients, c->deltas, m->max_clips, m->max_frames};
  SER_TRY(m->device->ops->mfcc_prepare(m->device, &m->plan, &shape, err));
  return ser_device_alloc(&m->workspace, m->device, m->plan->workspace, err);
}

static ser_status pin(void *out, ser_device *device, size_t bytes, ser_error *err) {
  void *memory = device->rt->pin(device, bytes, err);
  memcpy(out, &memory, sizeof memory);
  return memory ? SER_OK : SER_FAILED;
}

static void slot_free(slot *s, const ser_mfcc *m) {
  const ser_runtime *rt = m->device->rt;
  rt->free(m->device, s->pcm);
  rt->free(m->device, s->pcm16);
  rt->free(m->device, s->starts);
  rt->free(m->device, s->features);
  rt->unpin(m->device, s->starts_host);
  if (!m->host_memory) rt->unpin(m->device, s->features_host);
  rt->unpin(m->device, s->pcm_host);
  rt->event_destroy(s->copied);
  rt->event_destroy(s->started);
  rt->event_destroy(s->computed);
  rt->event_destroy(s->done);
  free(s->offset);
  free(s->alone);
  memset(s, 0, sizeof *s);
}

static ser_status slot_make(slot *s, const ser_mfcc *m, ser_error *err) {
  ser_device *device = m->device;
  size_t samples = (size_t)(m->max_frames * m->config.hop), starts = 2 * (size_t)(m->max_clips + 1) * sizeof(int64_t);
  size_t features = (size_t)(m->max_frames * ser_feature_columns(&m->config)) * sizeof(float);
  s->offset = ser_alloc_zero((size_t)m->max_clips + 1, sizeof *s->offset);
  SER_TRY(ser_device_alloc(&s->pcm, device, samples * sizeof(float), err));
  if (!m->host_memory) SER_TRY(ser_device_alloc(&s->pcm16, device, samples * sizeof(int16_t), err));
  SER_TRY(ser_device_alloc(&s->starts, device, starts, err));
  SER_TRY(ser_device_alloc(&s->features, device, features, err));
  SER_TRY(pin(&s->starts_host, device, starts, err));
  if (m->host_memory)
    s->features_host = s->features;
  else
    SER_TRY(pin(&s->features_host, device, features, err));
  if (m->staged) SER_TRY(pin(&s->pcm_host, device, samples * sizeof(float), err));
  SER_TRY(device->rt->event_create(device, &s->copied, err));
  SER_TRY(device->rt->event_create(device, &s->started, err));
  SER_TRY(device->rt->event_create(device, &s->computed, err));
  return device->rt->event_create(device, &s->done, err);
}

static void rooms_free(ser_mfcc *m) {
  for (int i = 0; i < MOST_SLOTS; i++) slot_free(&m->slots[i], m);
  ser_plan_free(m->plan);
  m->device->rt->free(m->device, m->workspace);
  m->device->rt->free(m->device, m->logmel);
  m->plan = NULL;
  m->workspace = m->logmel = NULL;
}

static ser_status rooms_make(ser_mfcc *m, ser_error *err) {
  SER_TRY(make_plan(m, err));
  SER_TRY(ser_device_alloc(&m->logmel, m->device, (size_t)(m->max_frames * m->config.mels) * sizeof(float), err));
  for (int i = 0; i < m->slot_count; i++) SER_TRY(slot_make(&m->slots[i], m, err));
  return SER_OK;
}

static int64_t least_frames(const ser_mfcc *m) {
  return 4 * m->margin + 64;
}

/* false: they are as small as may be. */
static bool halve(ser_mfcc *m) {
  int64_t least = least_frames(m);
  if (m->max_clips == 1 && m->max_frames == least) return false;
  m->max_clips = m->max_clips > 1 ? m->max_clips / 2 : 1;
  m->max_frames = m->max_frames / 2 > least ? m->max_frames / 2 : least;
  return true;
}

/* What the batches' rooms take of the device beside the plan, which has a slab of its own size. */
static size_t rooms_bytes(const ser_mfcc *m) {
  const ser_mfcc_config *c = &m->config;
  int64_t samples = m->max_frames * c->hop, values = m->max_frames * ser_feature_columns(c), starts = m->max_clips + 1;
  size_t of_slot = (size_t)samples * (sizeof(float) + sizeof(int16_t)) + (size_t)values * sizeof(float) +
                   2 * (size_t)starts * sizeof(int64_t);
  return (size_t)m->slot_count * of_slot + (size_t)(m->max_frames * c->mels) * sizeof(float);
}

/* Makes the batches' rooms: the largest for which half of the device's free memory is enough, halved until they fit. */
static ser_status rooms_that_fit(ser_mfcc *m, ser_error *err) {
  int64_t most = m->max_clips;
  ser_device_properties is;
  ser_error why = {0}; /* of a size that is not the last one tried nobody is to hear */
  ser_lack lacked = SER_LACKS_DEVICE_MEMORY;
  ser_status status;
  rooms_free(m);
  m->device->rt->properties(m->device, &is);
  while (!m->host_memory && rooms_bytes(m) > is.memory_free / 2 && halve(m)) continue;
  while ((status = rooms_make(m, &why)) != SER_OK && why.lacks) {
    lacked = why.lacks;
    rooms_free(m);
    if (!halve(m)) break;
  }
  if (status != SER_OK) {
    if (err) *err = why;
    return status;
  }
  if (m->max_clips < most)
    ser_info("little of the %s memory is free: features are computed in batches of %lld %s, not of %lld",
             lacked == SER_LACKS_HOST_MEMORY ? "host's" : "device's", (long long)m->max_clips,
             SER_PLURAL(m->max_clips, "clip", "clips"), (long long)most);
  return SER_OK;
}

ser_status ser_mfcc_create(ser_mfcc **out, ser_device *device, const ser_mfcc_config *config, int64_t max_clips,
                           int64_t max_frames, bool staged, ser_error *err) {
  SER_CHECK(max_clips > 0 && max_frames > 0);
  ser_device_properties properties;
  device->rt->properties(device, &properties);
  ser_mfcc *m = ser_alloc_zero(1, sizeof *m);
  m->device = device;
  m->config = *config;
  m->host_memory = properties.host_memory;
  m->slot_count = m->host_memory ? 1 : MOST_SLOTS;
  m->staged = staged && !m->host_memory;
  m->max_clips = max_clips;
  m->max_frames = max_frames;
  m->margin = (config->n_fft / 2 + config->hop - 1) / config->hop;
  if (m->max_frames < least_frames(m)) m->max_frames = least_frames(m);
  ser_stream **streams[] = {&m->in, &m->compute, &m->out};
  ser_status status = SER_OK;
  for (int i = 0; i < 3 && status == SER_OK; i++) status = device->rt->stream_create(device, streams[i], err);
  if (status == SER_OK) status = rooms_that_fit(m, err);
  if (status != SER_OK) {
    ser_mfcc_free(m);
    m = NULL;
  }
  *out = m;
  return status;
}

static void single_free(ser_mfcc *m) {
  const ser_runtime *rt = m->device->rt;
  void *buffers[] = {m->single.logmel, m->single.features, m->single.starts};
  for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) rt->free(m->device, buffers[i]);
  memset(&m->single, 0, sizeof m->single);
}

void ser_mfcc_free(ser_mfcc *m) {
  if (!m) return;
  const ser_runtime *rt = m->device->rt;
  ser_stream *streams[] = {m->in, m->compute, m->out};
  for (int i = 0; i < 3; i++)
    if (streams[i]) rt->sync(streams[i], NULL);
  single_free(m);
  rooms_free(m);
  for (int i = 0; i < 3; i++) rt->stream_destroy(streams[i]);
  free(m);
}

int64_t ser_mfcc_max_clips(const ser_mfcc *m) {
  return m->max_clips;
}

int64_t ser_mfcc_max_frames(const ser_mfcc *m) {
  return m->max_frames;
}

bool ser_mfcc_idle(const ser_mfcc *m) {
  return !m->under_way;
}

bool ser_mfcc_full(const ser_mfcc *m) {
  return m->under_way == m->slot_count;
}

/* ---- a batch ----------------------------------------------------------------------------------------------------- */

/* Whether the signal crosses as integers: it is of them, or it is staged, and could be. */
static bool as_int16(const slot *s, const ser_signal *signal) {
  return signal->int16 || (s->pcm_host && !signal->pinned && ser_are_int16(signal->samples, signal->count));
}

/* Samples [from, from + count) of a signal, as integers or floats, into the slot's pinned memory. */
static void stage(const slot *s, const ser_signal *signal, bool int16, int64_t at, int64_t from, int64_t count) {
  size_t size = signal->int16 ? sizeof(int16_t) : sizeof(float);
  const char *samples = (const char *)signal->samples + (size_t)from * size;
  if (int16 && !signal->int16)
    ser_to_int16((int16_t *)s->pcm_host + at, (const float *)signal->samples + from, count);
  else
    memcpy((char *)s->pcm_host + (size_t)at * size, samples, (size_t)count * size);
}

/* Samples [from, from + count) of a signal to place `at` of the slot. */
static void send(const ser_mfcc *m, const slot *s, const ser_signal *signal, bool int16, int64_t at, int64_t from,
                 int64_t count) {
  const ser_runtime *rt = m->device->rt;
  size_t size = int16 ? sizeof(int16_t) : sizeof(float), bytes = (size_t)count * size;
  const char *samples = (const char *)signal->samples + (size_t)from * size;
  SER_CHECK(!int16 || s->pcm16);
  void *to = int16 ? (void *)(s->pcm16 + at) : (void *)(s->pcm + at);
  bool staged = s->pcm_host && !signal->pinned;
  if (staged) {
    stage(s, signal, int16, at, from, count);
    samples = (const char *)s->pcm_host + (size_t)at * size;
  }
  if (signal->pinned || staged)
    rt->write_later(m->in, to, samples, bytes);
  else
    rt->write(m->in, to, samples, bytes);
}

/* What lies in the slot, behind the copies: floats from integers where those came, and the log-mel rows. */
static void compute_logmel(const ser_mfcc *m, const slot *s, bool int16, int64_t clips, int64_t samples,
                           int64_t frames) {
  const ser_runtime *rt = m->device->rt;
  const ser_ops *ops = m->device->ops;
  size_t starts = (size_t)(m->max_clips + 1 + clips + 1) * sizeof(int64_t); /* both, and what lies between */
  const int64_t *sample_start = s->starts, *frame_start = s->starts + m->max_clips + 1;
  rt->write_later(m->in, s->starts, s->starts_host, starts);
  rt->record(m->in, s->copied);
  rt->follow(m->compute, s->copied);
  rt->record(m->compute, s->started);
  if (int16) ops->pcm_from_int16(m->compute, s->pcm, s->pcm16, samples);
  ops->logmel(m->compute, m->plan, m->workspace, m->logmel, s->pcm, sample_start, frame_start, clips, frames);
}

/* The same of all signals of a batch that lie here and there on the host: end to end in pinned memory, from where one
 * copy takes them over, as integers where all of them can be. Whether they are. */
static bool send_staged(const ser_mfcc *m, const slot *s, const ser_signal *signals, const int64_t *sample_start) {
  bool int16 = true;
  int64_t clips = 0;
  for (size_t i = 0; i < s->count && int16; i++) int16 = as_int16(s, &signals[i]);
  for (size_t i = 0; i < s->count; i++) {
    if (s->offset[i + 1] == s->offset[i]) continue;
    stage(s, &signals[i], int16, sample_start[clips], 0, signals[i].count);
    clips++;
  }
  size_t bytes = (size_t)sample_start[clips] * (int16 ? sizeof(int16_t) : sizeof(float));
  m->device->rt->write_later(m->in, int16 ? (void *)s->pcm16 : (void *)s->pcm, s->pcm_host, bytes);
  return int16;
}

static void submit_batch(ser_mfcc *m, slot *s, const ser_signal *signals) {
  const ser_runtime *rt = m->device->rt;
  int64_t clips = 0, frames = s->offset[s->count];
  int64_t *sample_start = s->starts_host, *frame_start = s->starts_host + m->max_clips + 1;
  bool int16 = s->count && signals->int16, staged = s->count && s->pcm_host && !signals->pinned;
  sample_start[0] = frame_start[0] = 0;
  for (size_t i = 0; i < s->count; i++) {
    if (s->offset[i + 1] == s->offset[i]) continue;
    if (!staged) send(m, s, &signals[i], int16, sample_start[clips], 0, signals[i].count);
    clips++;
    sample_start[clips] = sample_start[clips - 1] + signals[i].count;
    frame_start[clips] = s->offset[i + 1];
  }
  if (staged && clips) int16 = send_staged(m, s, signals, sample_start);
  if (clips) {
    compute_logmel(m, s, int16, clips, sample_start[clips], frames);
    m->device->ops->mfcc_finish(m->compute, m->plan, m->workspace, s->features, m->logmel, s->starts + m->max_clips + 1,
                                clips, frames);
  }
  s->alone_or_none = !clips;
  rt->record(m->compute, s->computed);
  rt->follow(m->out, s->computed);
  if (clips && !m->host_memory)
    rt->read_later(m->out, s->features_host, s->features,
                   (size_t)(frames * ser_feature_columns(&m->config)) * sizeof(float));
  rt->record(m->out, s->done);
}

/* ---- a clip longer than a batch ---------------------------------------------------------------------------------- */

static ser_status single_make(ser_mfcc *m, int64_t frames, ser_error *err) {
  ser_status status;
  SER_TRY_DONE(ser_device_alloc(&m->single.logmel, m->device, (size_t)(frames * m->config.mels) * sizeof(float), err));
  SER_TRY_DONE(ser_device_alloc(&m->single.features, m->device,
                                (size_t)(frames * ser_feature_columns(&m->config)) * sizeof(float), err));
  SER_TRY_DONE(ser_device_alloc(&m->single.starts, m->device, 2 * sizeof(int64_t), err));
  m->single.frames = frames;
done:
  if (status != SER_OK) single_free(m);
  return status;
}

/* Room for a clip of so many frames; it grows by half again at least, so that a series of ever longer clips does not
 * make a plan for each. Where the device lacks it, the batches give up half of theirs, and half again, unless one is
 * under way. */
static ser_status single_room(ser_mfcc *m, int64_t frames, ser_error *err) {
  int64_t half_again = m->single.frames + m->single.frames / 2;
  ser_error why = {0};
  if (frames <= m->single.frames) return SER_OK;
  single_free(m);
  if (frames < half_again && single_make(m, half_again, NULL) == SER_OK) return SER_OK;
  ser_status status = single_make(m, frames, &why);
  while (status != SER_OK && why.lacks && !m->under_way && halve(m)) {
    SER_TRY(rooms_that_fit(m, err));
    status = single_make(m, frames, &why);
  }
  if (status == SER_OK) return SER_OK;
  return ser_fail(err, status, "a recording of %.0f s: %s", (double)(frames * m->config.hop) / (double)m->config.rate,
                  why.text);
}

/* Log-mel rows [first, last) of the signal: they are computed with a margin of frames on both sides, which see the
 * piece's edges in place of the signal's samples and are thrown away. */
static ser_status piece(ser_mfcc *m, slot *s, const ser_signal *signal, bool int16, int64_t frames, int64_t first,
                        int64_t last, ser_error *err) {
  const ser_runtime *rt = m->device->rt;
  int64_t hop = m->config.hop, mels = m->config.mels;
  int64_t from = first > m->margin ? first - m->margin : 0, to = last + m->margin < frames ? last + m->margin : frames;
  /* The rows before `to`, no more: to == frames ends with the signal. */
  int64_t start = from * hop, end = to == frames ? signal->count : (to - 1) * hop + hop / 2;
  int64_t *sample_start = s->starts_host, *frame_start = s->starts_host + m->max_clips + 1;
  sample_start[0] = frame_start[0] = 0;
  sample_start[1] = end - start;
  frame_start[1] = to - from;
  send(m, s, signal, int16, 0, start, end - start);
  compute_logmel(m, s, int16, 1, end - start, to - from);
  rt->copy(m->compute, m->single.logmel + first * mels, m->logmel + (first - from) * mels,
           (size_t)((last - first) * mels) * sizeof(float));
  return rt->sync(m->compute, err); /* the slot's buffers are used again */
}

/* Features of the clip, through the slot's room for those of a batch. */
static ser_status fetch_alone(ser_mfcc *m, slot *s, int64_t frames, ser_error *err) {
  const ser_runtime *rt = m->device->rt;
  int64_t columns = ser_feature_columns(&m->config);
  s->alone = ser_alloc((size_t)(frames * columns) * sizeof(float));
  for (int64_t first = 0; first < frames; first += m->max_frames) {
    int64_t rows = frames - first < m->max_frames ? frames - first : m->max_frames;
    size_t bytes = (size_t)(rows * columns) * sizeof(float);
    rt->read_later(m->out, s->features_host, m->single.features + first * columns, bytes);
    SER_TRY(rt->sync(m->out, err));
    memcpy(s->alone + first * columns, s->features_host, bytes);
  }
  return SER_OK;
}

static ser_status submit_alone(ser_mfcc *m, slot *s, const ser_signal *signal, ser_error *err) {
  const ser_runtime *rt = m->device->rt;
  int64_t frames = s->offset[s->count], step = m->max_frames - 2 * m->margin;
  bool int16 = as_int16(s, signal);
  for (int64_t first = 0; first < frames; first += step)
    SER_TRY(piece(m, s, signal, int16, frames, first, first + step < frames ? first + step : frames, err));
  s->starts_host[0] = 0;
  s->starts_host[1] = frames;
  rt->write_later(m->in, m->single.starts, s->starts_host, 2 * sizeof(int64_t));
  rt->record(m->in, s->copied);
  rt->follow(m->compute, s->copied);
  m->device->ops->mfcc_finish(m->compute, m->plan, m->workspace, m->single.features, m->single.logmel, m->single.starts,
                              1, frames);
  rt->record(m->compute, s->computed);
  rt->follow(m->out, s->computed);
  SER_TRY(fetch_alone(m, s, frames, err));
  rt->record(m->out, s->done);
  s->alone_or_none = true;
  return SER_OK;
}

/* ---- batches in turn --------------------------------------------------------------------------------------------- */

static int64_t frames_of(const ser_mfcc *m, int64_t samples) {
  int64_t frames = ser_mfcc_frames(samples, m->config.hop);
  return frames < ser_feature_min_frames(&m->config) ? 0 : frames;
}

ser_status ser_mfcc_submit(ser_mfcc *m, const ser_signal *signals, size_t count, ser_error *err) {
  SER_CHECK(!ser_mfcc_full(m) && count <= (size_t)m->max_clips);
  slot *s = &m->slots[(m->first + m->under_way) % m->slot_count];
  const ser_signal *longest = NULL;
  int64_t frames = 0;
  for (size_t i = 0; i < count; i++) {
    frames += frames_of(m, signals[i].count);
    if (frames_of(m, signals[i].count)) longest = &signals[i];
  }
  bool alone = frames > m->max_frames;
  SER_CHECK(!alone || frames_of(m, longest->count) == frames);
  if (alone) SER_TRY(single_room(m, frames, err));
  s->count = count;
  free(s->alone);
  s->alone = NULL;
  s->offset[0] = 0;
  for (size_t i = 0; i < count; i++) s->offset[i + 1] = s->offset[i] + frames_of(m, signals[i].count);
  if (alone)
    SER_TRY(submit_alone(m, s, longest, err));
  else
    submit_batch(m, s, signals);
  m->under_way++;
  return SER_OK;
}

ser_status ser_mfcc_collect(ser_mfcc *m, const float **features, const int64_t **offset, ser_error *err) {
  SER_CHECK(m->under_way > 0);
  slot *s = &m->slots[m->first];
  m->first = (m->first + 1) % m->slot_count;
  m->under_way--;
  *features = s->alone ? s->alone : s->features_host;
  *offset = s->offset;
  SER_TRY(m->device->rt->await(s->done, err));
  m->work.batches++;
  if (!s->alone_or_none) m->work.seconds += m->device->rt->seconds(s->started, s->computed);
  return SER_OK;
}

ser_device_work ser_mfcc_work(const ser_mfcc *m) {
  return m->work;
}

/* The end of the batch that begins at clip `first`: as many clips as the room takes, at least one. */
static size_t batch_end(const ser_mfcc *m, const int64_t *offset, size_t first, size_t count) {
  size_t last = first + 1, most = first + (size_t)m->max_clips;
  while (last < count && last < most && offset[last + 1] - offset[first] <= m->max_frames) last++;
  return last;
}

/* Submits clips [first, ...) as a batch; where the next one begins. */
static ser_status submit_some(ser_mfcc *m, size_t *first, const int64_t *offset, const float *const *samples,
                              const int64_t *counts, size_t count, ser_error *err) {
  size_t last = batch_end(m, offset, *first, count);
  ser_signal *signals = ser_alloc_zero(last - *first, sizeof *signals);
  for (size_t i = *first; i < last; i++) signals[i - *first] = (ser_signal){.samples = samples[i], .count = counts[i]};
  ser_status status = ser_mfcc_submit(m, signals, last - *first, err);
  free(signals);
  *first = last;
  return status;
}

ser_status ser_mfcc_compute(ser_mfcc *m, float **features, int64_t *offset, const float *const *samples,
                            const int64_t *counts, size_t count, ser_error *err) {
  size_t columns = (size_t)ser_feature_columns(&m->config), next = 0;
  ser_status status = SER_OK;
  SER_CHECK(ser_mfcc_idle(m));
  offset[0] = 0;
  for (size_t i = 0; i < count; i++) offset[i + 1] = offset[i] + frames_of(m, counts[i]);
  *features = ser_alloc((size_t)offset[count] * columns * sizeof **features);
  float *to = *features;
  while (status == SER_OK && (next < count || !ser_mfcc_idle(m))) {
    bool is_long = next < count && offset[next + 1] - offset[next] > m->max_frames; /* it may need the others' room */
    if (next < count && !ser_mfcc_full(m) && !(is_long && m->under_way)) {
      status = submit_some(m, &next, offset, samples, counts, count, err);
      continue;
    }
    const float *rows;
    const int64_t *places;
    size_t clips = m->slots[m->first].count;
    status = ser_mfcc_collect(m, &rows, &places, err);
    if (status != SER_OK) break;
    memcpy(to, rows, (size_t)places[clips] * columns * sizeof *to);
    to += (size_t)places[clips] * columns;
  }
  if (status == SER_OK) return SER_OK;
  m->under_way = 0;
  free(*features);
  *features = NULL;
  return status;
}

/* TIM-Net's code: an odd sample of padding goes behind, an odd sample too many is cut behind. */
void ser_fit_samples(float **samples, int64_t *count, int64_t to) {
  int64_t have = *count;
  if (have == to) return;
  float *fitted = ser_alloc_zero((size_t)to, sizeof *fitted);
  if (have < to)
    memcpy(fitted + (to - have) / 2, *samples, (size_t)have * sizeof *fitted);
  else
    memcpy(fitted, *samples + (have - to) / 2, (size_t)to * sizeof *fitted);
  free(*samples);
  *samples = fitted;
  *count = to;
}
