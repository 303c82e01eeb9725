/* Layer norm of one row, for whoever has it in the cache. */
#ifndef SER_KERNELS_ROWS_H
#define SER_KERNELS_ROWS_H

#include <math.h>

#include "kernels/math.h"

typedef struct {
  const float *gamma, *beta;
  float eps;
  bool gelu;
  int64_t channels;
} row_norm;

/* out may be x. Two passes: the mean, then the squares about it. */
static inline void row_norm_apply(float *out, const float *x, const row_norm *n) {
  int64_t whole = n->channels / VW * VW, rest = n->channels - whole;
  vf sum = v_load_first(x + whole, rest), apart = {0};
  for (int64_t c = 0; c < whole; c += VW) sum += v_load(x + c);
  float mean = (float)(v_sum(sum) / (double)n->channels);
  for (int64_t c = 0; c < n->channels; c += VW) {
    vf from = v_load_first(x + c, n->channels - c) - mean;
    if (c >= whole) from = (vf)((vi)from & v_first(rest));
    apart += from * from;
  }
  float scale = 1 / sqrtf((float)(v_sum(apart) / (double)n->channels) + n->eps);
  for (int64_t c = 0; c < n->channels; c += VW) {
    int64_t left = n->channels - c;
    vf y = (v_load_first(x + c, left) - mean) * scale;
    y = y * v_load_first(n->gamma + c, left) + v_load_first(n->beta + c, left);
    v_store_first(out + c, n->gelu ? v_gelu(y) : y, left);
  }
}

#endif
