/* The standardisation of features: mean and deviation of each channel over real frames of training clips (numpy's mean
 * and std over the frames laid end to end, in two passes). */
#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "train/train.h"

static int64_t real_frames(const ser_dataset *dataset, size_t clip, int64_t frames) {
  int64_t length = dataset->offset[clip + 1] - dataset->offset[clip];
  return length < frames ? length : frames;
}

void ser_standardisation(float *mean, float *inv_std, const ser_dataset *dataset, const size_t *clips, size_t count,
                         int64_t frames) {
  int64_t channels = dataset->channels, total = 0;
  double *sum = ser_alloc_zero((size_t)channels, sizeof *sum), *squares = ser_alloc_zero((size_t)channels, sizeof *sum);
  for (int pass = 0; pass < 2; pass++) {
    double *into = pass ? squares : sum;
    for (size_t i = 0; i < count; i++) {
      const float *row = dataset->features + dataset->offset[clips[i]] * channels;
      int64_t rows = real_frames(dataset, clips[i], frames);
      total += pass ? 0 : rows;
      for (int64_t t = 0; t < rows; t++, row += channels)
        for (int64_t c = 0; c < channels; c++) {
          double value = (double)row[c] - (pass ? sum[c] : 0);
          into[c] += pass ? value * value : value;
        }
    }
    for (int64_t c = 0; c < channels && total; c++) into[c] /= (double)total;
  }
  for (int64_t c = 0; c < channels; c++) {
    double deviation = sqrt(squares[c]);
    mean[c] = (float)sum[c];
    inv_std[c] = (float)(deviation > 0 ? 1 / deviation : 1);
  }
  free(sum);
  free(squares);
}
