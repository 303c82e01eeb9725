/* Embeddings of clips of unlike lengths, in batches through the encoder: copies on streams of their own, events between
 * them, as mfcc.c has it. */
#include "features/embed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "device/arrays.h"

enum { MOST_SLOTS = 3 };

/* One batch under way. What the host tells of it (`told`) goes over in one copy. */
typedef struct {
  int64_t clips_room, rows_room;
  float *pcm;
  int16_t *pcm16; /* where host memory is not the device's */
  void *told, *told_host;
  int64_t *sample_start, *row_start; /* [clips + 1] in told */
  int32_t *clip_of_row;              /* [rows] in told */
  float *out, *out_host;             /* [layers][clips][2][hidden], or [layers][rows][hidden]; out_host pinned */
  void *memory;
  ser_event *copied, *started, *computed, *done;

  size_t count;       /* signals; clips are those that are long enough */
  int64_t clips, *at; /* [clips + 1] first rows, on the host */
  int64_t *offset;    /* [clips_room + 1] of the results */
  float *alone;       /* the results of a clip longer than a batch */
} slot;

struct ser_embedder {
  ser_device *device;
  ser_encoder *encoder;
  ser_embed_config config;
  int64_t hop, field;
  bool host_memory;
  int64_t max_clips, max_rows, window, most_rows; /* most_rows: that the encoder has room for */
  ser_stream *in, *compute, *back;
  slot slots[MOST_SLOTS], single; /* single: for one clip longer than a batch; made when first needed */
  int slot_count, first, under_way;
  float *result; /* of the batch collected last, with room for more */
  size_t result_room;
  ser_device_work work;
};

/* ---- making ------------------------------------------------------------------------------------------------------ */

static size_t out_count(const ser_embedder *e, int64_t clips, int64_t rows) {
  int64_t of_layer = e->config.pool == SER_EMBED_FRAMES ? rows : 2 * clips;
  return (size_t)(ser_embed_layers(&e->config) * of_layer * e->config.hidden);
}

static size_t lay_out_told(slot *s, void *base) {
  const ser_array arrays[] = {{&s->sample_start, (size_t)(s->clips_room + 1) * sizeof(int64_t)},
                              {&s->row_start, (size_t)(s->clips_room + 1) * sizeof(int64_t)},
                              {&s->clip_of_row, (size_t)s->rows_room * sizeof(int32_t)}};
  return ser_arrays_place(arrays, 3, base);
}

static void slot_free(slot *s, const ser_embedder *e) {
  const ser_runtime *rt = e->device->rt;
  rt->free(e->device, s->memory);
  rt->unpin(e->device, s->told_host);
  if (!e->host_memory) rt->unpin(e->device, s->out_host);
  ser_event *events[] = {s->copied, s->started, s->computed, s->done};
  for (int i = 0; i < 4; i++) rt->event_destroy(events[i]);
  free(s->at);
  free(s->offset);
  free(s->alone);
  memset(s, 0, sizeof *s);
}

static ser_status slot_make(slot *s, const ser_embedder *e, int64_t clips, int64_t rows, ser_error *err) {
  const ser_runtime *rt = e->device->rt;
  memset(s, 0, sizeof *s);
  s->clips_room = clips;
  s->rows_room = rows;
  size_t samples = (size_t)(rows * e->hop + clips * e->field), told = lay_out_told(s, NULL);
  size_t out = out_count(e, clips, rows) * sizeof(float);
  const ser_array arrays[] = {{&s->pcm, samples * sizeof(float)},
                              {&s->pcm16, e->host_memory ? 0 : samples * sizeof(int16_t)},
                              {&s->told, told},
                              {&s->out, out}};
  s->memory = rt->alloc(e->device, ser_arrays_place(arrays, 4, NULL), err);
  if (!s->memory) return SER_FAILED;
  ser_arrays_place(arrays, 4, s->memory);
  s->told_host = rt->pin(e->device, told, err);
  if (!s->told_host) return SER_FAILED;
  s->out_host = e->host_memory ? s->out : rt->pin(e->device, out, err);
  if (!s->out_host) return SER_FAILED;
  s->at = ser_alloc((size_t)(clips + 1) * sizeof *s->at);
  s->offset = ser_alloc((size_t)(clips + 1) * sizeof *s->offset);
  ser_event **events[] = {&s->copied, &s->started, &s->computed, &s->done};
  for (int i = 0; i < 4; i++) SER_TRY(rt->event_create(e->device, events[i], err));
  return SER_OK;
}

static void rooms_free(ser_embedder *e) {
  for (int i = 0; i < MOST_SLOTS; i++) slot_free(&e->slots[i], e);
  slot_free(&e->single, e);
}

static ser_status encoder_room(ser_embedder *e, int64_t rows, ser_error *err) {
  e->most_rows = 0;
  SER_TRY(ser_encoder_room(e->encoder, e->compute, e->max_clips, rows, err));
  e->most_rows = rows;
  return SER_OK;
}

static ser_status rooms_make(ser_embedder *e, ser_error *err) {
  SER_TRY(encoder_room(e, e->max_rows, err));
  for (int i = 0; i < e->slot_count; i++) SER_TRY(slot_make(&e->slots[i], e, e->max_clips, e->max_rows, err));
  return SER_OK;
}

enum { LEAST_ROWS = 64 };

static bool halve(ser_embedder *e) {
  if (e->max_clips == 1 && e->max_rows <= LEAST_ROWS) return false;
  e->max_clips = e->max_clips > 1 ? e->max_clips / 2 : 1;
  if (e->max_rows > LEAST_ROWS) e->max_rows = e->max_rows / 2 > LEAST_ROWS ? e->max_rows / 2 : LEAST_ROWS;
  return true;
}

/* What the rooms for batches take of the device, about. */
static size_t rooms_bytes(const ser_embedder *e) {
  size_t samples = (size_t)(e->max_rows * e->hop + e->max_clips * e->field);
  size_t slots = samples * (sizeof(float) + sizeof(int16_t)) + out_count(e, e->max_clips, e->max_rows) * sizeof(float);
  return (size_t)e->slot_count * slots + ser_encoder_room_bytes(e->encoder, e->max_clips, e->max_rows);
}

/* Rooms as large as half of the device's free memory takes: what is loaded and laid out at the first launch has the
 * other half; and smaller ones where even that is refused. */
static ser_status rooms_that_fit(ser_embedder *e, ser_error *err) {
  int64_t most = e->max_clips;
  ser_device_properties is;
  ser_error why = {0};
  ser_status status;
  rooms_free(e);
  ser_encoder_room_free(e->encoder);
  e->device->rt->properties(e->device, &is);
  while (!e->host_memory && rooms_bytes(e) > is.memory_free / 2 && halve(e)) continue;
  while ((status = rooms_make(e, &why)) != SER_OK && why.lacks) {
    rooms_free(e);
    ser_encoder_room_free(e->encoder);
    if (!halve(e)) break;
  }
  if (status != SER_OK) {
    if (err) *err = why;
    return status;
  }
  if (e->max_clips < most)
    ser_info("little memory is free: embeddings are computed in batches of %lld %s, not of %lld",
             (long long)e->max_clips, SER_PLURAL(e->max_clips, "clip", "clips"), (long long)most);
  return SER_OK;
}

static ser_status create(ser_embedder *e, const ser_encoder_weights *weights, ser_error *err) {
  ser_stream **streams[] = {&e->in, &e->compute, &e->back};
  for (int i = 0; i < 3; i++) SER_TRY(e->device->rt->stream_create(e->device, streams[i], err));
  SER_TRY(ser_encoder_create(&e->encoder, e->device, e->compute, weights, e->config.normalize, err));
  return rooms_that_fit(e, err);
}

ser_status ser_embedder_create(ser_embedder **embedder, ser_device *device, const ser_encoder_weights *weights,
                               const ser_embed_config *config, const ser_embed_room *room, ser_error *err) {
  SER_CHECK(room->clips > 0 && room->rows > 1 && config->layers);
  ser_device_properties properties;
  device->rt->properties(device, &properties);
  ser_embedder *e = ser_alloc_zero(1, sizeof *e);
  e->device = device;
  e->config = *config;
  e->hop = ser_encoder_hop(&weights->config);
  e->field = ser_encoder_field(&weights->config);
  e->host_memory = properties.host_memory;
  e->slot_count = e->host_memory ? 1 : MOST_SLOTS;
  e->max_clips = room->clips;
  e->max_rows = room->rows;
  e->window = room->window ? room->window : SER_EMBED_WINDOW;
  ser_status status = create(e, weights, err);
  if (status != SER_OK) {
    ser_embedder_free(e);
    e = NULL;
  }
  *embedder = e;
  return status;
}

void ser_embedder_free(ser_embedder *e) {
  if (!e) return;
  const ser_runtime *rt = e->device->rt;
  ser_stream *streams[] = {e->in, e->compute, e->back};
  for (int i = 0; i < 3; i++)
    if (streams[i]) rt->sync(streams[i], NULL);
  rooms_free(e);
  ser_encoder_free(e->encoder);
  for (int i = 0; i < 3; i++) rt->stream_destroy(streams[i]);
  free(e->result);
  free(e);
}

int64_t ser_embedder_max_clips(const ser_embedder *e) {
  return e->max_clips;
}

int64_t ser_embedder_max_rows(const ser_embedder *e) {
  return e->max_rows;
}

int64_t ser_embedder_rows(const ser_embedder *e, int64_t samples) {
  int64_t frames = ser_encoder_frames(ser_encoder_settings(e->encoder), samples);
  return frames > 0 ? frames + 1 : 0;
}

bool ser_embedder_idle(const ser_embedder *e) {
  return !e->under_way;
}

bool ser_embedder_full(const ser_embedder *e) {
  return e->under_way == e->slot_count;
}

ser_device_work ser_embedder_work(const ser_embedder *e) {
  return e->work;
}

/* ---- a batch ------------------------------------------------------------------------------------------------------
 */

/* Samples [from, from + count) of a signal to place `at` of the slot. */
static void send(const ser_embedder *e, const slot *s, const ser_signal *signal, int64_t at, int64_t from,
                 int64_t count) {
  const ser_runtime *rt = e->device->rt;
  size_t size = signal->int16 ? sizeof(int16_t) : sizeof(float), bytes = (size_t)count * size;
  const char *samples = (const char *)signal->samples + (size_t)from * size;
  SER_CHECK(!signal->int16 || !e->host_memory);
  void *to = signal->int16 ? (void *)(s->pcm16 + at) : (void *)(s->pcm + at);
  if (signal->pinned)
    rt->write_later(e->in, to, samples, bytes);
  else
    rt->write(e->in, to, samples, bytes);
}

/* What lies in the slot goes through the encoder, and back. lengths [clips]: samples of each. */
static void compute(const ser_embedder *e, slot *s, bool int16, const int64_t *lengths) {
  const ser_runtime *rt = e->device->rt;
  ser_rows rows = {.clips = s->clips};
  size_t told = lay_out_told(s, s->told_host);
  s->sample_start[0] = 0;
  for (int64_t i = 0; i < s->clips; i++) s->sample_start[i + 1] = s->sample_start[i] + lengths[i];
  int64_t samples = s->sample_start[s->clips];
  rows.rows = ser_encoder_rows(s->row_start, s->clip_of_row, ser_encoder_settings(e->encoder), lengths, s->clips);
  memcpy(s->at, s->row_start, (size_t)(s->clips + 1) * sizeof *s->at);
  rt->write_later(e->in, s->told, s->told_host, told);
  lay_out_told(s, s->told);
  rt->record(e->in, s->copied);
  rt->follow(e->compute, s->copied);
  rt->record(e->compute, s->started);
  if (int16) e->device->ops->pcm_from_int16(e->compute, s->pcm, s->pcm16, samples);
  rows.row_start = s->row_start;
  rows.clip_of_row = s->clip_of_row;
  ser_encoder_output output = {.layers = e->config.layers};
  if (e->config.pool == SER_EMBED_FRAMES)
    output.frames = s->out;
  else
    output.pooled = s->out;
  ser_encoder_forward(e->encoder, e->compute, &output, s->pcm, s->sample_start, &rows);
  rt->record(e->compute, s->computed);
  rt->follow(e->back, s->computed);
  if (!e->host_memory) rt->read_later(e->back, s->out_host, s->out, out_count(e, s->clips, rows.rows) * sizeof(float));
  rt->record(e->back, s->done);
}

static void submit_batch(ser_embedder *e, slot *s, const ser_signal *signals) {
  int64_t at = 0, *lengths = ser_alloc((s->count + 1) * sizeof *lengths);
  s->clips = 0;
  for (size_t i = 0; i < s->count; i++) {
    if (s->offset[i + 1] == s->offset[i]) continue;
    send(e, s, &signals[i], at, 0, signals[i].count);
    lengths[s->clips++] = signals[i].count;
    at += signals[i].count;
  }
  if (s->clips)
    compute(e, s, signals->int16, lengths);
  else
    e->device->rt->record(e->back, s->done);
  free(lengths);
}

/* ---- a clip longer than a batch -----------------------------------------------------------------------------------
 */

static ser_status single_make(ser_embedder *e, int64_t rows, ser_error *err) {
  slot_free(&e->single, e);
  if (rows > e->most_rows) SER_TRY(encoder_room(e, rows, err));
  return slot_make(&e->single, e, 1, rows, err);
}

/* Room for a clip alone of so many rows: half again as much where that is to be had, so that a series of ever longer
 * clips does not make it anew for each; no more than a window's. Where the device lacks it, the batches give up half of
 * theirs, and half again: nothing else is under way. */
static ser_status single_room(ser_embedder *e, int64_t rows, ser_error *err) {
  int64_t more = rows + rows / 2;
  ser_error why = {0};
  if (rows <= e->single.rows_room) return SER_OK;
  if (more > e->window + 1) more = e->window + 1;
  if (more > rows && single_make(e, more, NULL) == SER_OK) return SER_OK;
  ser_status status = single_make(e, rows, &why);
  while (status != SER_OK && why.lacks && halve(e)) {
    SER_TRY(rooms_that_fit(e, err));
    status = single_make(e, rows, &why);
  }
  if (status == SER_OK) return SER_OK;
  slot_free(&e->single, e);
  if (!e->most_rows) SER_TRY(encoder_room(e, e->max_rows, err));
  return ser_fail(err, status, "a recording of %.0f s: %s", (double)(rows * e->hop) / (double)e->config.rate, why.text);
}

/* Frames of each of a clip's windows but the last, which may have fewer. */
static int64_t of_window(const ser_embedder *e, int64_t frames) {
  int64_t windows = (frames + e->window - 1) / e->window;
  return (frames + windows - 1) / windows;
}

/* Means and deviations over all windows from those of each: sums [layers][2][hidden] in double. */
static void add_pooled(double *sums, const float *pooled, int64_t count, int64_t hidden, double frames) {
  for (int64_t i = 0; i < count; i++) {
    const float *mean = pooled + i / hidden * 2 * hidden + i % hidden;
    double *to = sums + i / hidden * 2 * hidden + i % hidden, m = (double)mean[0], deviation = (double)mean[hidden];
    to[0] += frames * m;
    to[hidden] += frames * (deviation * deviation + m * m);
  }
}

static void finish_pooled(float *pooled, const double *sums, int64_t count, int64_t hidden, double frames) {
  for (int64_t i = 0; i < count; i++) {
    int64_t at = i / hidden * 2 * hidden + i % hidden;
    double mean = sums[at] / frames, var = sums[at + hidden] / frames - mean * mean;
    pooled[at] = (float)mean;
    pooled[at + hidden] = (float)sqrt(var > 0 ? var : 0);
  }
}

/* The clip's windows one after the other, through the single slot; the results as one batch of one clip would have
 * them. */
static ser_status submit_alone(ser_embedder *e, slot *s, const ser_signal *signal, int64_t frames, ser_error *err) {
  int64_t each = of_window(e, frames);
  int64_t layers = ser_embed_layers(&e->config), hidden = e->config.hidden;
  bool pooled = e->config.pool != SER_EMBED_FRAMES;
  double *sums = ser_alloc_zero((size_t)(layers * 2 * hidden), sizeof *sums);
  s->alone = ser_alloc(out_count(e, 1, frames) * sizeof *s->alone);
  ser_status status = SER_OK;
  for (int64_t first = 0; first < frames && status == SER_OK; first += each) {
    int64_t count = frames - first < each ? frames - first : each, from = first * e->hop;
    int64_t samples = first + count == frames ? signal->count - from : (count - 1) * e->hop + e->field;
    e->single.clips = 1;
    send(e, &e->single, signal, 0, from, samples);
    compute(e, &e->single, signal->int16, &samples);
    status = e->device->rt->await(e->single.done, err);
    if (status != SER_OK) break;
    e->work.seconds += e->device->rt->seconds(e->single.started, e->single.computed);
    if (pooled) add_pooled(sums, e->single.out_host, layers * hidden, hidden, (double)count);
    for (int64_t layer = 0; layer < layers && !pooled; layer++)
      memcpy(s->alone + (layer * frames + first) * hidden, e->single.out_host + layer * (count + 1) * hidden,
             (size_t)(count * hidden) * sizeof(float));
  }
  if (pooled) finish_pooled(s->alone, sums, layers * hidden, hidden, (double)frames);
  free(sums);
  s->clips = 1;
  s->at[0] = 0;
  s->at[1] = frames;
  e->device->rt->record(e->back, s->done);
  return status;
}

/* ---- batches in turn ----------------------------------------------------------------------------------------------
 */

/* How a batch's results lie: rows of each signal. */
static void set_offsets(const ser_embedder *e, slot *s, const ser_signal *signals, size_t count) {
  int64_t layers = ser_embed_layers(&e->config);
  s->count = count;
  s->offset[0] = 0;
  for (size_t i = 0; i < count; i++) {
    int64_t rows = ser_embedder_rows(e, signals[i].count);
    int64_t kept = !rows ? 0 : e->config.pool == SER_EMBED_FRAMES ? layers * (rows - 1) : layers;
    s->offset[i + 1] = s->offset[i] + kept;
  }
}

ser_status ser_embedder_submit(ser_embedder *e, const ser_signal *signals, size_t count, ser_error *err) {
  SER_CHECK(!ser_embedder_full(e) && count > 0 && count <= (size_t)e->max_clips);
  slot *s = &e->slots[(e->first + e->under_way) % e->slot_count];
  int64_t rows = 0;
  for (size_t i = 0; i < count; i++) rows += ser_embedder_rows(e, signals[i].count);
  bool alone = rows > e->max_rows;
  SER_CHECK(!alone || (count == 1 && ser_embedder_idle(e)));
  if (alone) SER_TRY(single_room(e, of_window(e, rows - 1) + 1, err));
  set_offsets(e, s, signals, count);
  free(s->alone);
  s->alone = NULL;
  if (alone)
    SER_TRY(submit_alone(e, s, signals, rows - 1, err));
  else
    submit_batch(e, s, signals);
  e->under_way++;
  return SER_OK;
}

/* [layer][clip][...] of the device becomes [clip][layer][...]. */
static void reorder(const ser_embedder *e, const slot *s, float *to) {
  const float *from = s->alone ? s->alone : s->out_host;
  int64_t layers = ser_embed_layers(&e->config), hidden = e->config.hidden, columns = ser_embed_columns(&e->config);
  int64_t nobodys = s->alone ? 0 : 1;
  for (int64_t clip = 0; clip < s->clips; clip++)
    for (int64_t layer = 0; layer < layers; layer++) {
      const float *x = from + (layer * s->clips + clip) * 2 * hidden;
      int64_t count = columns;
      if (e->config.pool == SER_EMBED_FRAMES) {
        x = from + (layer * s->at[s->clips] + s->at[clip]) * hidden;
        count = (s->at[clip + 1] - s->at[clip] - nobodys) * hidden;
      }
      memcpy(to, x, (size_t)count * sizeof *to);
      to += count;
    }
}

ser_status ser_embedder_collect(ser_embedder *e, const float **features, const int64_t **offset, ser_error *err) {
  SER_CHECK(e->under_way > 0);
  slot *s = &e->slots[e->first];
  e->first = (e->first + 1) % e->slot_count;
  e->under_way--;
  SER_TRY(e->device->rt->await(s->done, err));
  e->work.batches++;
  if (s->clips && !s->alone) e->work.seconds += e->device->rt->seconds(s->started, s->computed);
  size_t floats = (size_t)(s->offset[s->count] * ser_embed_columns(&e->config));
  if (floats > e->result_room) {
    free(e->result);
    e->result_room = floats + floats / 4;
    e->result = ser_alloc(e->result_room * sizeof *e->result);
  }
  if (s->clips) reorder(e, s, e->result);
  *features = e->result;
  *offset = s->offset;
  return SER_OK;
}
