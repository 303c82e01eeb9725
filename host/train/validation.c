/* The validation of a training: its clips a batch at a time through folded inference, the answers read when all are
 * through. Which batch is next lies on the device, as with steps, so that where the device has graphs one does all
 * batches of a size. */
#include "train/validation.h"

#include <stdlib.h>

#include "base/interrupt.h"
#include "base/memory.h"
#include "device/replay.h"

struct ser_validation {
  ser_validation_options o;
  ser_inference *inference;
  int64_t stride;
  ser_replayer replayer;
  ser_replay replays[2]; /* of a full batch, of the smaller last one */
  /* on the device */
  void *memory;
  int32_t *list;        /* [clips] */
  ser_step *at;         /* its place: the batch */
  float *batch_answers; /* [batch][stride] */
  float *answers;       /* [clips][stride] */
  float *answers_host;  /* the same, pinned */
};

static ser_status make(ser_validation *v, ser_error *err) {
  const ser_runtime *rt = v->o.device->rt;
  v->replayer = ser_replayer_make(v->o.device, "the validation");
  SER_TRY(ser_inference_create(&v->inference, v->o.model, v->o.streams->compute, v->o.batch, err));
  v->stride = ser_inference_stride(v->inference);
  size_t clips = (size_t)v->o.clips, row = (size_t)v->stride * sizeof(float);
  const ser_array arrays[] = {{&v->list, clips * sizeof *v->list},
                              {&v->at, sizeof *v->at},
                              {&v->batch_answers, (size_t)v->o.batch * row},
                              {&v->answers, clips * row}};
  if (!clips) return SER_OK;
  SER_TRY(
      ser_arrays_alloc(&v->memory, v->o.device, v->o.streams->compute, arrays, sizeof arrays / sizeof *arrays, err));
  rt->write(v->o.streams->compute, v->list, v->o.list, clips * sizeof *v->list);
  v->answers_host = rt->pin(v->o.device, clips * row, err);
  return v->answers_host ? SER_OK : SER_FAILED;
}

ser_status ser_validation_create(ser_validation **validation, const ser_validation_options *options, ser_error *err) {
  ser_validation *made = ser_alloc_zero(1, sizeof *made);
  made->o = *options;
  ser_status status = make(made, err);
  if (status != SER_OK) {
    ser_validation_free(made);
    made = NULL;
  }
  *validation = made;
  return status;
}

void ser_validation_free(ser_validation *v) {
  if (!v) return;
  for (int i = 0; i < 2; i++) ser_replay_end(&v->replays[i], v->o.device);
  ser_inference_free(v->inference);
  v->o.device->rt->free(v->o.device, v->memory);
  v->o.device->rt->unpin(v->o.device, v->answers_host);
  free(v);
}

typedef struct {
  ser_validation *validation;
  int64_t count; /* clips */
} one_batch;

static void enqueue_batch(void *context) {
  const one_batch *one = context;
  ser_validation *v = one->validation;
  const ser_ops *ops = v->o.device->ops;
  const ser_keep left = {v->answers, v->batch_answers, one->count * v->stride, v->o.batch * v->stride};
  const ser_adam none = {0};
  ser_batch batch = {0};
  ser_feed_take(v->o.feed, v->o.streams->compute, &batch, v->list, v->at, v->o.batch, one->count, 1);
  ser_inference_enqueue(v->inference, v->o.streams->compute, v->batch_answers, batch.tile, batch.lengths, one->count);
  ops->keep(v->o.streams->compute, &left, 1, v->at);
  ops->step_begin(v->o.streams->compute, v->at, &none);
}

ser_status ser_validation_run(ser_validation *v, const float *parameters, ser_error *err) {
  const ser_runtime *rt = v->o.device->rt;
  ser_streams_then_copy(v->o.streams);
  ser_inference_fold(v->inference, v->o.streams->copies, parameters);
  ser_streams_then_compute(v->o.streams);
  rt->zero(v->o.streams->compute, v->at, sizeof *v->at);
  for (int64_t first = 0; first < v->o.clips; first += v->o.batch) {
    int64_t left = v->o.clips - first, count = left < v->o.batch ? left : v->o.batch;
    SER_TRY(ser_interrupt_check(err));
    SER_TRY(ser_feed_bring(v->o.feed, v->o.streams->compute, v->o.list + first, count, err));
    SER_TRY(ser_replay_run(&v->replays[count < v->o.batch], &v->replayer, v->o.streams->compute, enqueue_batch,
                           &(one_batch){v, count}, err));
  }
  ser_streams_then_copy(v->o.streams);
  rt->read_later(v->o.streams->copies, v->answers_host, v->answers, (size_t)(v->o.clips * v->stride) * sizeof(float));
  return rt->sync(v->o.streams->copies, err);
}

const float *ser_validation_answers(const ser_validation *v, int64_t *stride) {
  *stride = v->stride;
  return v->answers_host;
}
