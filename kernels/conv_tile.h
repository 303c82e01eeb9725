/* The product under every temporal convolution: y[o][t] = sum over k, i of w[o][i][k] * a[i][t + shift[k]] on the tile
 * of one clip, time in the lanes of the vectors. Forwards the shifts are the taps' -(K - 1 - k) * dilation; the
 * gradient of the data is the same product with the channels' parts exchanged and the shifts' signs turned.
 *
 * A tile that is read has margins: each row is followed by TILE_MARGIN zeros, and so is the place before the first,
 * so that a vector which begins before a row or ends behind it reads zeros. */
#ifndef SER_KERNELS_CONV_TILE_H
#define SER_KERNELS_CONV_TILE_H

#include "kernels/temporal.h"

/* Register block: TILE_ROWS outputs by TILE_VECTORS vectors of time, with room for what they are made of: 12 + 4 of 16
 * registers, 24 + 4 of AVX-512's 32. */
#define TILE_ROWS (VW == 16 ? 8 : 4)
#define TILE_VECTORS 3
#define TILE_MARGIN (TILE_VECTORS * VW)

/* From row to row of a tile with margins. */
static inline int64_t tile_pitch(int64_t tp) {
  return tp + TILE_MARGIN;
}

/* Floats of a tile with margins; its first row begins TILE_MARGIN behind the start. */
static inline int64_t tile_floats(int64_t rows, int64_t tp) {
  return SER_ROUND_UP(TILE_MARGIN + rows * tile_pitch(tp), 16);
}

/* Writes the zeros around the rows; returns the first row. */
static inline float *tile_clear_margins(float *tile, int64_t rows, int64_t tp) {
  memset(tile, 0, TILE_MARGIN * sizeof *tile);
  for (int64_t r = 1; r <= rows; r++) memset(tile + r * tile_pitch(tp), 0, TILE_MARGIN * sizeof *tile);
  return tile + TILE_MARGIN;
}

typedef struct {
  int64_t in, out; /* channels; out rounded up to SER_CHANNEL_PAD is written */
  int64_t taps;
  int64_t step; /* shift[k] = k * step + first_shift: ascending where step > 0 */
  int64_t first_shift;
  int64_t time, tp;
} tile_shape;

/* Weights in the order in which the product reads them: [out / TILE_ROWS][K][in][TILE_ROWS], zeros behind `out`.
 * `from` is [out][in][K], or [in][out][K] where turned. */
static inline int64_t tile_packed_floats(int64_t out, int64_t in, int64_t taps) {
  return SER_ROUND_UP(out, SER_CHANNEL_PAD) * in * taps;
}
void SER_ISA(tile_pack)(float *packed, const float *from, int64_t out, int64_t in, int64_t taps, bool turned);

/* What happens to a sum before it is stored. */
typedef enum { TILE_WRITE, TILE_ADD, TILE_RELU } tile_end;

/* y: rows y_pitch apart, [0, Tp) of each is written, zeros from T on. a: the first row of a tile with margins. bias
 * [out] or NULL. */
void SER_ISA(tile_product)(float *y, int64_t y_pitch, const float *a, const float *packed, const float *bias,
                           const tile_shape *shape, tile_end end);

/* The gradient of the weights, dw[o][i][k] = sum over t of dy[o][t] * a[i][t + shift[k]], kept a vector of partial sums
 * each so that clips can be added up before the lanes are: sums [out / TILE_ROWS][K][in / TILE_VECTORS][TILE_ROWS]
 * [TILE_VECTORS] vectors. dy, a: first rows of tiles with margins; a has tile_gradient_rows(in) rows. Shifts are not
 * positive. */
static inline int64_t tile_gradient_rows(int64_t in) {
  return SER_ROUND_UP(in, TILE_VECTORS);
}
static inline int64_t tile_gradient_floats(int64_t out, int64_t in, int64_t taps) {
  return SER_ROUND_UP(out, SER_CHANNEL_PAD) * tile_gradient_rows(in) * taps * VW;
}
void SER_ISA(tile_gradient)(float *sums, const float *dy, const float *a, const tile_shape *shape, bool add);
/* dw [out][in][K] from the lanes. */
void SER_ISA(tile_gradient_finish)(float *dw, const float *sums, const tile_shape *shape);

#endif
