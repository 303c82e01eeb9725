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

/* Loads the model file onto the device and folds it. Nothing is shared with other scorers of the device. */
ser_status ser_scorer_create(ser_scorer **scorer, ser_device *device, const char *model_path, ser_error *err);
void ser_scorer_free(ser_scorer *scorer); /* NULL is fine */

/* probabilities [count][classes]; a window's bytes depend on itself alone. Checks for interruption. */
ser_status ser_scorer_run(ser_scorer *scorer, float *probabilities, const ser_score_input *windows, size_t count,
                          ser_error *err);

ser_device_work ser_scorer_work(const ser_scorer *scorer); /* so far */

/* The label of the largest probability (or logit), the first of equals. */
int32_t ser_best_label(const float *probabilities, int64_t classes);

/* The labels of a model in their order, and their number. */
int ser_model_labels(const char *labels[SER_EMOTIONS], const ser_model_info *info);

#endif
