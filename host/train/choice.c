/* Small decisions of a training, each a function of its arguments alone: the best epoch, when to stop, the order of an
 * epoch's clips, the weights of classes (scikit-learn's compute_class_weight("balanced")). */
#include <math.h>
#include <string.h>

#include "base/philox.h"
#include "train/internal.h"

static double score(const ser_epoch *epoch, ser_select select) {
  return select == SER_SELECT_WAR ? epoch->validation_war : epoch->validation_uar;
}

bool ser_epoch_better(const ser_epoch *epoch, const ser_epoch *best, ser_select select) {
  if (!best || isnan(score(epoch, select))) return true;
  if (score(epoch, select) != score(best, select)) return score(epoch, select) > score(best, select);
  return epoch->validation_loss < best->validation_loss;
}

bool ser_training_over(int64_t epochs_done, int64_t best_epoch, int64_t epochs, int64_t patience) {
  return epochs_done >= epochs || (patience > 0 && epochs_done - best_epoch >= patience);
}

void ser_shuffle(size_t *order, size_t count, uint64_t seed, uint64_t epoch) {
  for (size_t i = 0; i < count; i++) order[i] = i;
  for (size_t i = count; i > 1; i--) {
    uint64_t bits = ser_philox_at(seed, SER_RANDOM_SHUFFLE | epoch, i).v[0];
    size_t j = (size_t)((bits * i) >> 32), swapped = order[j];
    order[j] = order[i - 1];
    order[i - 1] = swapped;
  }
}

void ser_balanced_weights(float *weights, const ser_dataset *dataset, const size_t *clips, size_t count) {
  size_t counts[SER_EMOTIONS] = {0}, present = 0;
  for (size_t i = 0; i < count; i++) counts[dataset->truth[clips[i]]]++;
  for (int64_t c = 0; c < dataset->classes; c++) present += counts[c] > 0;
  for (int64_t c = 0; c < dataset->classes; c++)
    weights[c] = counts[c] ? (float)((double)count / ((double)present * (double)counts[c])) : 0;
}
