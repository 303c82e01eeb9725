/* A product of any matrices by a plain tiled kernel: slow beside the library's, for what that does not do. */
#ifndef SER_KERNELS_PLAIN_PRODUCT_H
#define SER_KERNELS_PLAIN_PRODUCT_H

#include "cuda/cuda.h"

/* Element (line, k) lies at at[line * line_step + k * step]. */
typedef struct {
  const float *at;
  int64_t line_step, step;
} cuda_operand;

typedef struct {
  int64_t rows, columns, depth;
  int64_t stride; /* from row to row of out, and of residual */
} cuda_product_size;

/* out[row][column] = bias[column] + residual[row][column] + the sum over k < depth of a(row, k) b(column, k), in the
 * order of k. bias or NULL; residual or NULL, and it may be out. */
void cuda_plain_product(ser_stream *stream, float *out, cuda_operand a, cuda_operand b, const float *bias,
                        const float *residual, const cuda_product_size *size);

#endif
