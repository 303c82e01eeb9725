/* Scoring windows of features: gathered and standardised as training does it, a batch at a time through the folded
 * inference:
 *
 *     copy stream:    windows of batch n + 1 to the device
 *     compute stream: batch n
 *     return stream:  answers of batch n - 1 back
 *
 * with events between them, from and to pinned memory; the host waits once a batch, when it collects. */
#include "report/score.h"

#include <math.h>
#include <stdlib.h>

#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "device/replay.h"
#include "model/gather.h"

/* A window is two blocks of the branch's kernel, so that a batch of a window a multiprocessor is two blocks on each. */
enum { LEAST = 32, STEP = 32, SLOTS = 2 };

/* One batch under way: its buffers and the events it passes. */
typedef struct {
  int64_t count;
  void *brought, *pinned; /* the windows there and here */
  ser_gathered there, here;
  float *answers, *answers_here; /* [batch][ser_inference_stride], on the device and pinned */
  ser_event *copied, *started, *computed, *done;
  ser_replay full; /* what the device does for a full batch of this slot */
} slot;

struct ser_scorer {
  ser_device *device;
  char *path; /* of the model */
  ser_stream *in, *compute, *out;
  ser_model *model;
  ser_model_info info;
  ser_gather_room room; /* of a batch */
  ser_inference *inference;
  float *tile, *mean, *inv_std; /* on the device */
  slot slots[SLOTS];
  int slot_count, first, under_way; /* slots are used in turn */
  ser_replayer replayer;
  bool warm; /* a full batch has been computed */
  ser_device_work work;
};

/* ---- making ------------------------------------------------------------------------------------------------------ */

static void slot_free(slot *s, const ser_scorer *scorer) {
  ser_device *device = scorer->device;
  const ser_runtime *rt = device->rt;
  ser_replay_end(&s->full, device);
  rt->free(device, s->brought);
  rt->free(device, s->answers);
  rt->unpin(device, s->pinned);
  rt->unpin(device, s->answers_here);
  rt->event_destroy(s->copied);
  rt->event_destroy(s->started);
  rt->event_destroy(s->computed);
  rt->event_destroy(s->done);
  *s = (slot){0};
}

static ser_status slot_make(slot *s, const ser_scorer *scorer, ser_error *err) {
  ser_device *device = scorer->device;
  const ser_runtime *rt = device->rt;
  size_t windows = ser_gather_place(&s->there, &scorer->room, true, NULL);
  size_t answers = (size_t)(scorer->room.windows * ser_inference_stride(scorer->inference)) * sizeof(float);
  SER_TRY(ser_device_alloc(&s->brought, device, windows, err));
  SER_TRY(ser_device_alloc(&s->answers, device, answers, err));
  if (!(s->pinned = rt->pin(device, windows, err))) return SER_FAILED;
  if (!(s->answers_here = rt->pin(device, answers, err))) return SER_FAILED;
  ser_gather_place(&s->there, &scorer->room, true, s->brought);
  ser_gather_place(&s->here, &scorer->room, true, s->pinned);
  SER_TRY(rt->event_create(device, &s->copied, err));
  SER_TRY(rt->event_create(device, &s->started, err));
  SER_TRY(rt->event_create(device, &s->computed, err));
  return rt->event_create(device, &s->done, err);
}

static void rooms_free(ser_scorer *s) {
  for (int i = 0; i < SLOTS; i++) slot_free(&s->slots[i], s);
  s->device->rt->free(s->device, s->tile);
  ser_inference_free(s->inference);
  s->tile = NULL;
  s->inference = NULL;
}

/* Bytes of the standardised windows of a batch, zeros beside them. */
static size_t tile_bytes(const ser_scorer *s) {
  const ser_gather_room *r = &s->room;
  int64_t padded = SER_ROUND_UP(r->channels, SER_CHANNEL_PAD) * SER_ROUND_UP(r->frames, SER_TIME_PAD);
  return (size_t)(r->windows * padded) * sizeof(float);
}

static ser_status rooms_make(ser_scorer *s, ser_error *err) {
  SER_TRY(ser_inference_create(&s->inference, s->model, s->compute, s->room.windows, err));
  SER_TRY(ser_device_alloc(&s->tile, s->device, tile_bytes(s), err));
  for (int i = 0; i < s->slot_count; i++) SER_TRY(slot_make(&s->slots[i], s, err));
  return SER_OK;
}

/* What the rooms take of the device at most: the activations are those of a branch that is computed a layer at a time,
 * which has five tensors in both directions. */
static size_t rooms_bytes(const ser_scorer *s) {
  const ser_model_config *c = &s->info.model;
  ser_gathered none;
  int64_t tensor = SER_ROUND_UP(c->filters, SER_CHANNEL_PAD) * SER_ROUND_UP(c->frames, SER_TIME_PAD);
  size_t activations = (size_t)(10 * s->room.windows * tensor) * sizeof(float);
  return (size_t)s->slot_count * ser_gather_place(&none, &s->room, true, NULL) + 3 * tile_bytes(s) + activations;
}

/* Begins with the largest batch for which half of the device's free memory is enough, and halves it until it fits. */
static ser_status rooms_that_fit(ser_scorer *s, const ser_device_properties *is, ser_error *err) {
  int64_t most = s->room.windows;
  ser_error why = {0}; /* of a size that is not the last one tried nobody is to hear */
  ser_lack lacked = SER_LACKS_DEVICE_MEMORY;
  ser_status status;
  while (!is->host_memory && s->room.windows > 1 && rooms_bytes(s) > is->memory_free / 2) s->room.windows /= 2;
  while ((status = rooms_make(s, &why)) != SER_OK && why.lacks && s->room.windows > 1) {
    lacked = why.lacks;
    rooms_free(s);
    s->room.windows /= 2;
  }
  if (status != SER_OK) {
    if (err) *err = why;
    return status;
  }
  if (s->room.windows < most)
    ser_info("little of the %s memory is free: windows are scored in batches of %lld, not of %lld",
             lacked == SER_LACKS_HOST_MEMORY ? "host's" : "device's", (long long)s->room.windows, (long long)most);
  return SER_OK;
}

/* On the host's own memory nothing is gained by more, or by two at a time. */
static int64_t usual_batch(const ser_device_properties *is) {
  if (is->host_memory || is->threads < LEAST) return LEAST;
  return is->threads < SER_SCORER_MOST ? SER_ROUND_UP(is->threads, STEP) : SER_SCORER_MOST;
}

static ser_status make(ser_scorer *s, const char *model_path, ser_error *err) {
  const ser_runtime *rt = s->device->rt;
  ser_device_properties is;
  SER_TRY(rt->stream_create(s->device, &s->in, err));
  SER_TRY(rt->stream_create(s->device, &s->compute, err));
  SER_TRY(rt->stream_create(s->device, &s->out, err));
  SER_TRY(ser_model_load(&s->model, &s->info, s->device, model_path, err));
  const ser_model_config *c = &s->info.model;
  size_t channels = (size_t)c->channels, padded = SER_ROUND_UP(channels, SER_CHANNEL_PAD);
  SER_TRY(ser_device_alloc(&s->mean, s->device, padded * sizeof(float), err));
  SER_TRY(ser_device_alloc(&s->inv_std, s->device, padded * sizeof(float), err));
  rt->zero(s->compute, s->mean, padded * sizeof(float));
  rt->zero(s->compute, s->inv_std, padded * sizeof(float));
  rt->write(s->compute, s->mean, s->info.mean, channels * sizeof(float));
  rt->write(s->compute, s->inv_std, s->info.inv_std, channels * sizeof(float));
  rt->properties(s->device, &is);
  s->replayer = ser_replayer_make(s->device, "the classifier");
  s->slot_count = is.host_memory ? 1 : SLOTS;
  s->room = (ser_gather_room){usual_batch(&is), c->frames, c->channels};
  return rooms_that_fit(s, &is, err);
}

ser_status ser_scorer_create(ser_scorer **scorer, ser_device *device, const char *model_path, ser_error *err) {
  ser_scorer *made = ser_alloc_zero(1, sizeof *made);
  made->device = device;
  made->path = ser_strdup(model_path);
  ser_status status = make(made, model_path, err);
  if (status != SER_OK) {
    ser_scorer_free(made);
    made = NULL;
  }
  *scorer = made;
  return status;
}

/* Waits for what is under way and forgets it. */
static void drop(ser_scorer *s) {
  ser_stream *streams[] = {s->in, s->compute, s->out};
  for (int i = 0; i < 3; i++)
    if (streams[i]) s->device->rt->sync(streams[i], NULL);
  s->first = s->under_way = 0;
}

void ser_scorer_free(ser_scorer *scorer) {
  if (!scorer) return;
  const ser_runtime *rt = scorer->device->rt;
  drop(scorer);
  rooms_free(scorer);
  rt->free(scorer->device, scorer->mean);
  rt->free(scorer->device, scorer->inv_std);
  ser_model_free(scorer->model);
  ser_model_info_free(&scorer->info);
  rt->stream_destroy(scorer->in);
  rt->stream_destroy(scorer->compute);
  rt->stream_destroy(scorer->out);
  free(scorer->path);
  free(scorer);
}

size_t ser_scorer_batch(const ser_scorer *scorer) {
  return (size_t)scorer->room.windows;
}

bool ser_scorer_idle(const ser_scorer *scorer) {
  return !scorer->under_way;
}

bool ser_scorer_full(const ser_scorer *scorer) {
  return scorer->under_way == scorer->slot_count;
}

/* ---- a batch ----------------------------------------------------------------------------------------------------- */

typedef struct {
  const ser_scorer *scorer;
  const slot *at;
  int64_t count;
} one_batch;

static void enqueue_batch(void *context) {
  const one_batch *batch = context;
  const ser_scorer *s = batch->scorer;
  const slot *at = batch->at;
  ser_tensor_shape shape = {1, batch->count, s->room.channels, s->room.frames};
  s->device->ops->gather_standardise(s->compute, s->tile, at->there.rows, at->there.start, at->there.length, s->mean,
                                     s->inv_std, &shape);
  ser_inference_enqueue(s->inference, s->compute, at->answers, s->tile, at->there.length, batch->count);
}

/* A full batch has the same operations on the slot's memory each time: one launch. What one slot has done first the
 * others need not do first again. */
static ser_status compute_batch(ser_scorer *s, slot *at, int64_t count, ser_error *err) {
  one_batch batch = {s, at, count};
  if (count < s->room.windows) {
    enqueue_batch(&batch);
    return SER_OK;
  }
  at->full.warm |= s->warm;
  s->warm = true;
  return ser_replay_run(&at->full, &s->replayer, s->compute, enqueue_batch, &batch, err);
}

static ser_status send_batch(ser_scorer *s, slot *at, const ser_score_input *windows, int64_t count, ser_error *err) {
  const ser_runtime *rt = s->device->rt;
  for (int64_t i = 0; i < count; i++) ser_gather_add(&at->here, &s->room, i, windows[i].rows, windows[i].count, 0);
  rt->write_later(s->in, at->brought, at->pinned, ser_gather_bytes(&at->here, &s->room, count));
  rt->record(s->in, at->copied);
  rt->follow(s->compute, at->copied);
  rt->record(s->compute, at->started);
  SER_TRY(compute_batch(s, at, count, err));
  rt->record(s->compute, at->computed);
  rt->follow(s->out, at->computed);
  rt->read_later(s->out, at->answers_here, at->answers,
                 (size_t)(count * ser_inference_stride(s->inference)) * sizeof(float));
  rt->record(s->out, at->done);
  at->count = count;
  s->under_way++;
  return SER_OK;
}

ser_status ser_scorer_submit(ser_scorer *scorer, const ser_score_input *windows, size_t count, ser_error *err) {
  SER_CHECK(!ser_scorer_full(scorer) && count > 0 && count <= ser_scorer_batch(scorer));
  SER_TRY(ser_interrupt_check(err));
  slot *at = &scorer->slots[(scorer->first + scorer->under_way) % scorer->slot_count];
  scorer->device->rt->range_begin(scorer->device, "score windows");
  ser_status status = send_batch(scorer, at, windows, (int64_t)count, err);
  scorer->device->rt->range_end(scorer->device);
  return status;
}

ser_status ser_scorer_collect(ser_scorer *scorer, float *probabilities, size_t *count, ser_error *err) {
  SER_CHECK(scorer->under_way > 0);
  const ser_runtime *rt = scorer->device->rt;
  const slot *at = &scorer->slots[scorer->first];
  int64_t classes = scorer->info.model.classes, stride = ser_inference_stride(scorer->inference);
  SER_TRY(rt->await(at->done, err));
  scorer->first = (scorer->first + 1) % scorer->slot_count;
  scorer->under_way--;
  scorer->work.batches++;
  scorer->work.seconds += rt->seconds(at->started, at->computed);
  *count = (size_t)at->count;
  for (int64_t i = 0; i < at->count * classes; i++) {
    probabilities[i] = at->answers_here[i / classes * stride + i % classes];
    if (!isfinite(probabilities[i]))
      return ser_fail(err, SER_FAILED,
                      "%s gives probabilities that are not finite: its weights are too large or damaged; name another "
                      "model, or train it again",
                      scorer->path);
  }
  return SER_OK;
}

ser_status ser_scorer_run(ser_scorer *scorer, float *probabilities, const ser_score_input *windows, size_t count,
                          ser_error *err) {
  size_t most = ser_scorer_batch(scorer), sent = 0, back = 0;
  ser_status status = SER_OK;
  SER_CHECK(ser_scorer_idle(scorer));
  while (back < count && status == SER_OK) {
    size_t some = count - sent < most ? count - sent : most;
    if (some && !ser_scorer_full(scorer)) {
      status = ser_scorer_submit(scorer, windows + sent, some, err);
      sent += some;
    } else {
      status = ser_scorer_collect(scorer, probabilities + back * (size_t)scorer->info.model.classes, &some, err);
      back += some;
    }
  }
  if (status != SER_OK) drop(scorer);
  return status;
}

ser_device_work ser_scorer_work(const ser_scorer *scorer) {
  return scorer->work;
}

int32_t ser_best_label(const float *probabilities, int64_t classes) {
  int32_t best = 0;
  for (int32_t c = 1; c < classes; c++)
    if (probabilities[c] > probabilities[best]) best = c;
  return best;
}

int ser_model_labels(const char *labels[SER_EMOTIONS], const ser_model_info *info) {
  for (int64_t c = 0; c < info->model.classes; c++) labels[c] = ser_emotion_names[info->emotions[c]];
  return (int)info->model.classes;
}
