/* Feeding a dataset's clips to a device, a batch at a time. */
#ifndef SER_TRAIN_FEED_H
#define SER_TRAIN_FEED_H

#include "device/arrays.h"
#include "train/train.h"

/* ---- resident.c: the data set as a device's operations read it, for all trainings of a job --------------------------
 */

struct ser_resident {
  const float *features; /* [rows][channels]; NULL: they stay on the host, and the windows of each batch are brought */
  const int64_t *offset; /* [clips + 1] */
  const int32_t *truth;  /* [clips] */
  ser_device *device;    /* whose memory it is; NULL: nobody's, or the dataset's own */
  void *memory;
};

/* The dataset's own arrays where the device reads host memory; else a copy on the device, where it takes no more than
 * four fifths of what is free there. On an error there is nothing to free. */
ser_status ser_resident_make(ser_resident *resident, ser_device *device, const ser_dataset *dataset, ser_error *err);
void ser_resident_free(ser_resident *resident);

/* ---- feed.c --------------------------------------------------------------------------------------------------------
 */

typedef struct ser_feed ser_feed;

/* Buffers for batches of up to max_batch clips of `frames` frames. mean, inv_std: [channels], on the host. The dataset
 * and the resident one outlive the feed. */
ser_status ser_feed_create(ser_feed **feed, ser_device *device, ser_stream *stream, const ser_dataset *dataset,
                           const ser_resident *resident, const float *mean, const float *inv_std, int64_t frames,
                           int64_t max_batch, ser_error *err);
void ser_feed_free(ser_feed *feed); /* NULL is fine; nothing of its stream may still run */

/* Before each take: brings the windows of a batch's clips to the device where the data set is not there; else nothing.
 * Waits only for the batch before the last. */
ser_status ser_feed_bring(ser_feed *feed, ser_stream *stream, const int32_t *clips, int64_t count, ser_error *err);

/* Enqueues, and nothing else (it may be captured): lays the first frames of `count` clips out as a tile of `sides`
 * sides, standardised, zero behind their ends, and sets the batch's tile, lengths, truth and size; these hold until the
 * next take. The clips are those of order[place * batch + b], on the device, as take_batch has it (step NULL: place 0),
 * or those that were brought. */
void ser_feed_take(ser_feed *feed, ser_stream *stream, ser_batch *batch, const int32_t *order, const ser_step *step,
                   int64_t most, int64_t count, int64_t sides);

#endif
