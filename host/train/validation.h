/* The validation clips of a training through folded inference, once an epoch. */
#ifndef SER_TRAIN_VALIDATION_H
#define SER_TRAIN_VALIDATION_H

#include "train/feed.h"
#include "train/streams.h"

typedef struct {
  ser_device *device;
  const ser_streams *streams;
  ser_model *model;
  ser_feed *feed;
  const int32_t *list; /* [clips] clips of the dataset, on the host */
  int64_t clips, batch;
} ser_validation_options;

typedef struct ser_validation ser_validation;

/* What it is given outlives it. */
ser_status ser_validation_create(ser_validation **validation, const ser_validation_options *options, ser_error *err);
void ser_validation_free(ser_validation *validation); /* NULL is fine; nothing of its streams may still run */

/* Answers for all clips with these parameters, [flat_count] on the host; waits once, and checks for interruption. */
ser_status ser_validation_run(ser_validation *validation, const float *parameters, ser_error *err);
/* What the last run gave: probabilities [clips][stride]. */
const float *ser_validation_answers(const ser_validation *validation, int64_t *stride);

#endif
