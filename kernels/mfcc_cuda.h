/* The plan of the MFCC operations on a GPU, and where a row stands. */
#ifndef SER_KERNELS_MFCC_CUDA_H
#define SER_KERNELS_MFCC_CUDA_H

#include "kernels/cuda_kernels.h"

typedef struct {
  cuda_plan plan;
  ser_mfcc_shape shape;
  int slab;        /* frames that one transform takes */
  cufftHandle fft; /* of `slab` frames, in place: rows of n_fft + 2 floats become n_fft / 2 + 1 bins */
  bool has_fft;
  size_t fft_bytes; /* its work area, behind the rows in the workspace */
  /* on the device */
  float *window;   /* [n_fft] periodic Hann */
  float *slopes;   /* [n_fft / 2 + 1][2] weights of a bin in the band it rises in and in the one it falls in */
  float *dct;      /* [mels][coefficients] */
  int32_t *region; /* [mels + 2] first bin at or above each edge of the mel bands; the last is n_fft / 2 + 1 */
} mfcc_plan;

/* The clip that a row belongs to: the last one that starts at or before it and is not empty. */
static __device__ inline int clip_of_row(const int64_t *frame_start, int clips, int64_t row) {
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
