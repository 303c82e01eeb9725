/* The steps of one training, on its device: from a batch's clips to Adam. What a step needs and what it leaves lies
 * there, so that the host only says how many clips it is of; where the device has graphs, a step is one launch. */
#ifndef SER_TRAIN_STEPS_H
#define SER_TRAIN_STEPS_H

#include "train/feed.h"
#include "train/streams.h"

typedef struct {
  ser_device *device;
  const ser_streams *streams;
  ser_model *model;
  ser_feed *feed;
  int64_t clips, batch; /* of an epoch, of a step */
  uint64_t seed;        /* of the dropout masks */
  ser_adam adam;
  float label_smoothing, focal_gamma;
  const float *class_weights; /* [SER_EMOTIONS] on the host, not kept; or NULL */
} ser_steps_options;

typedef struct ser_steps ser_steps;

/* Moments of 0. What it is given outlives it, but for the class weights. */
ser_status ser_steps_create(ser_steps **steps, const ser_steps_options *options, ser_error *err);
void ser_steps_free(ser_steps *steps); /* NULL is fine; nothing of its streams may still run */

int64_t ser_steps_count(const ser_steps *steps);               /* of an epoch */
int64_t ser_steps_clips(const ser_steps *steps, int64_t step); /* the last may have fewer */
/* How many steps are best enqueued before the host looks at what they left: a look waits. */
int64_t ser_steps_between_looks(const ser_steps *steps);

/* Adam's moments, [trained_count]. */
void ser_steps_write_moments(ser_steps *steps, const float *m, const float *v);

/* Begins an epoch behind `done` steps of the training; the one before has been read to its end. order: [clips] clips of
 * the dataset. */
void ser_steps_begin(ser_steps *steps, const int32_t *order, int64_t done);
/* Enqueues a step of the epoch; they come in their order. Where a step is one launch, it may wait for one of long ago:
 * a signal is not to find minutes of work enqueued. */
ser_status ser_steps_take(ser_steps *steps, int64_t step, ser_error *err);

/* What the epoch's steps left, on the host, as far as it was read: losses [clips], norms [steps][2] (gradient_norm),
 * logits [clips][stride]; behind the last step the model's parameters [flat_count] and Adam's moments
 * [trained_count]. */
typedef struct {
  const float *losses, *norms, *logits;
  int64_t stride;
  const float *parameters, *m, *v;
} ser_steps_left;
ser_steps_left ser_steps_left_of(const ser_steps *steps);
/* What steps [from, to) left; waits once. */
ser_status ser_steps_read(ser_steps *steps, int64_t from, int64_t to, ser_error *err);

#endif
