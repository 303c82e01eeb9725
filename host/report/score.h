/* From features on the host to probabilities: the model, standardised windows, folded inference. Shared by evaluate
 * and predict, so that both answer alike. */
#ifndef SER_REPORT_SCORE_H
#define SER_REPORT_SCORE_H

#include "model/model.h"

/* A window of frames: `count` rows from `first` on; rows beyond the model's window are not read. */
typedef struct {
  const float *rows; /* [count][channels], on the host */
  int64_t count;
} ser_score_input;

typedef struct ser_scorer ser_scorer;

enum { SER_SCORER_MOST = 256 }; /* windows in a batch, on any device */

/* Loads the model file onto the device and folds it. Nothing is shared with other scorers of the device. Batches are as
 * large as keep the device busy, or as it has memory for. */
ser_status ser_scorer_create(ser_scorer **scorer, ser_device *device, const char *model_path, ser_error *err);
void ser_scorer_free(ser_scorer *scorer);          /* waits for what is under way; NULL is fine */
size_t ser_scorer_batch(const ser_scorer *scorer); /* the most windows of a batch */
bool ser_scorer_idle(const ser_scorer *scorer);    /* nothing is under way */
bool ser_scorer_full(const ser_scorer *scorer);    /* a batch must be collected before the next is submitted */

/* Sends a batch on its way, at least one window; the rows may be reused when it returns. A window's bytes depend on
 * itself alone. Checks for interruption. */
ser_status ser_scorer_submit(ser_scorer *scorer, const ser_score_input *windows, size_t count, ser_error *err);
/* Waits for the oldest batch: probabilities [*count][classes], room for a whole batch. */
ser_status ser_scorer_collect(ser_scorer *scorer, float *probabilities, size_t *count, ser_error *err);

/* Both in one, for any number of windows, while nothing else is under way: probabilities [count][classes]. */
ser_status ser_scorer_run(ser_scorer *scorer, float *probabilities, const ser_score_input *windows, size_t count,
                          ser_error *err);

ser_device_work ser_scorer_work(const ser_scorer *scorer); /* of the batches collected so far */

/* The label of the largest probability (or logit), the first of equals. */
int32_t ser_best_label(const float *probabilities, int64_t classes);

/* The labels of a model in their order, and their number. */
int ser_model_labels(const char *labels[SER_EMOTIONS], const ser_model_info *info);

#endif
