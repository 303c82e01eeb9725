/* Feeding a dataset's clips to a device, a batch at a time. */
#ifndef SER_TRAIN_FEED_H
#define SER_TRAIN_FEED_H

#include "train/train.h"

typedef struct ser_feed ser_feed;

/* Buffers for batches of up to max_batch clips of `frames` frames. mean, inv_std: [channels], on the host. */
ser_status ser_feed_create(ser_feed **feed, ser_device *device, ser_stream *stream, const ser_dataset *dataset,
                           const float *mean, const float *inv_std, int64_t frames, int64_t max_batch, ser_error *err);
void ser_feed_free(ser_feed *feed); /* NULL is fine */

/* Lays the first `frames` frames of the clips out as a tile (and its reverse), standardised, zero behind their ends,
 * and sets the batch's tile, reversed, lengths, truth and size; these hold until the next call. */
void ser_feed_take(ser_feed *feed, ser_stream *stream, ser_batch *batch, const size_t *clips, int64_t count,
                   bool reversed);

#endif
