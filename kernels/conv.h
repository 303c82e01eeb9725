/* What the convolution's two halves share: the plan and its workspace. */
#ifndef SER_KERNELS_CONV_H
#define SER_KERNELS_CONV_H

#include "kernels/conv_tile.h"

/* Clips of a side whose weight gradients are summed together before they meet those of other groups. */
enum { CONV_GROUP = 4 };

typedef struct {
  ser_plan plan;
  ser_conv_shape shape;
  ser_dims in, out;
  int64_t offset; /* of the first tap, the earliest: (K - 1) * dilation */
  int64_t weights;
  /* The workspace in floats: packed weights of each side, then the partial gradients of each side's groups, then each
   * thread's scratch: the tiles of the activation and of the gradient, and the weight gradient's vectors. `packed` is
   * that of one side, `partial` that of all. */
  int64_t packed, partial, a_tile, dy_tile, scratch;
} conv_plan;

static inline int64_t conv_groups(int64_t batch) {
  return (batch + CONV_GROUP - 1) / CONV_GROUP;
}

/* Floats of a group's partial gradients: dw, then dbias. */
static inline int64_t conv_partial_floats(const conv_plan *p) {
  return SER_ROUND_UP(p->weights + p->shape.out, 16);
}

/* Packs the weights of each side (turned round for the gradient of the data). */
static inline void conv_pack(float *packed, const conv_plan *p, const float *w, bool turned) {
  const ser_conv_shape *s = &p->shape;
  int64_t out = turned ? s->in : s->out, in = turned ? s->out : s->in;
  for (int64_t side = 0; side < s->sides; side++) {
    const float *from = w + side * s->side_stride;
    SER_ISA(tile_pack)(packed + side * p->packed, from, out, in, s->kernel, turned);
  }
}

/* Reads the activation of a clip into a tile with margins; returns its first row. */
float *SER_ISA(conv_read_tile)(float *tile, const conv_plan *p, const ser_activation *x, ser_clip clip);

#endif
