/* The product under dense layers, strided and positional convolutions and attention: rows of one matrix times a panel
 * of two vectors of outputs, [depth][PANEL], in register tiles. Every element's sum runs over the depth in one order,
 * whatever tile it falls into. */
#ifndef SER_KERNELS_PANEL_H
#define SER_KERNELS_PANEL_H

#include "device/ops.h"
#include "kernels/simd.h"

#if VW == 16
enum { PANEL_ROWS = 14 }; /* of a register tile: 28 sums, 2 vectors of weights, 1 of a row's, of 32 registers */
#else
enum { PANEL_ROWS = 6 }; /* 12 sums, 2 and 1, of 16 */
#endif
enum {
  PANEL = 2 * VW,
  PANEL_DEPTH = 384 /* at most at a time: a panel and a tile of rows fit the first-level cache together */
};

/* Where sums start and go. Sums start at bias + residual, or, where bias is NULL, at what lies in out. */
typedef struct {
  float *out;
  int64_t stride;        /* of out and residual */
  const float *bias;     /* [PANEL] or NULL */
  const float *residual; /* beside bias; or NULL */
  bool gelu;             /* of the finished sums */
} panel_out;

/* out[r][c] = sums of `rows` rows, `columns` (PANEL at most) outputs. a: rows packed by panel_pack_rows. */
void SER_ISA(panel_product)(const panel_out *out, const float *a, const float *w, int64_t depth, int64_t rows,
                            int64_t columns);
/* The same with the rows as they lie, `stride` apart. */
void SER_ISA(panel_product_rows)(const panel_out *out, const float *a, int64_t stride, const float *w, int64_t depth,
                                 int64_t rows, int64_t columns);

/* Rows of x for panel_product: a tile of PANEL_ROWS after the other, within it [depth][PANEL_ROWS]; the
 * last tile is filled up with its first row. Takes SER_ROUND_UP(rows, PANEL_ROWS) * depth floats. */
void SER_ISA(panel_pack_rows)(float *to, const float *x, int64_t stride, int64_t rows, int64_t depth);

/* A panel [depth][PANEL] of which output o is x[o * stride + i], i < depth; zero from `columns` on. */
void SER_ISA(panel_pack_turned)(float *to, const float *x, int64_t stride, int64_t columns, int64_t depth);

#endif
