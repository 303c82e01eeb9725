/* The rows of ragged clips, for the MFCC operations of either backend. */
#ifndef SER_KERNELS_MFCC_ROWS_H
#define SER_KERNELS_MFCC_ROWS_H

#include <stdint.h>

#include "base/everywhere.h"

/* The clip that a row belongs to: the last one that starts at or before it and is not empty. */
SER_EVERYWHERE static inline int mfcc_clip_of_row(const int64_t *frame_start, int clips, int64_t row) {
  int low = 0, high = clips; /* frame_start[low] <= row < frame_start[high] */
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (frame_start[middle] <= row)
      low = middle;
    else
      high = middle;
  }
  return low;
}

#endif
