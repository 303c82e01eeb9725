/* What the CUDA forms of the MFCC operations share: their plan. */
#ifndef SER_KERNELS_MFCC_CUDA_H
#define SER_KERNELS_MFCC_CUDA_H

#include "kernels/cuda_kernels.h"
#include "kernels/mfcc_rows.h"

enum { MFCC_COLUMNS = 16 }; /* coefficients that a block of mfcc_finish makes: the DCT's table is padded to that */

typedef struct {
  cuda_plan base;
  ser_mfcc_shape shape;
  int64_t slab;   /* frames that are transformed at once */
  int64_t stride; /* floats from a frame of a slab to the next: n_fft + 2, since spectra take the frames' place */
  int64_t padded; /* coefficients rounded up to MFCC_COLUMNS */
  int lanes;      /* of a warp, that add up one band: a power of two */
  size_t slab_bytes;
  cufftHandle fft; /* of a slab, in place */
  bool fft_made;
  void *tables;          /* the device memory of all of them */
  const float *window;   /* [n_fft] periodic Hann */
  const float2 *slopes;  /* [n_fft / 2 + 1] weights of a bin in the band it rises in and in the one it falls in */
  const float *dct;      /* [mels][padded] */
  const int32_t *region; /* [mels + 2] first bin at or above each edge of the mel bands; the last is n_fft / 2 + 1 */
} mfcc_cuda_plan;

#endif
