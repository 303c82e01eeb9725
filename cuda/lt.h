/* Products of cuBLASLt, each with one algorithm, whatever the number of rows and whoever makes the plan, that never
 * splits a sum: so a row's bytes depend on that row alone.
 *
 * The library multiplies matrices whose columns are contiguous: rows of ours, [rows][channels], are its
 * [channels] by rows. Descriptions are made with a plan; a run sets the number of rows and the bias in them. */
#ifndef SER_CUDA_LT_H
#define SER_CUDA_LT_H

#include "cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* d = a b, each turned where it is said, with the epilogue's bias and, where a run gives it, another matrix of d's form
 * added. The layouts belong to the plan, which ends them. */
typedef struct {
  cublasLtMatrixLayout_t a, b, d;
  cublasOperation_t turn_a, turn_b;
  cublasLtEpilogue_t epilogue;
  uint32_t align_a, align_b, align_d; /* bytes */
  cublasLtMatrixLayout_t by_rows[2];  /* those of the three that have as many columns as a run has rows */
  uint64_t usual_rows;                /* an algorithm is chosen for so many */
} cuda_lt_form;

typedef struct {
  cuda_lt_form form;
  cublasLtHandle_t lt;
  cublasLtMatmulDesc_t matmul;
  cublasLtMatmulAlgo_t algorithm;
  bool found; /* the library has an algorithm that suits us */
} cuda_lt_product;

/* Channels by `columns`, rows `stride` floats apart. */
ser_status cuda_lt_layout(cublasLtMatrixLayout_t *layout, int64_t channels, int64_t columns, int64_t stride,
                          ser_error *err);
void cuda_lt_layout_end(cublasLtMatrixLayout_t layout);

/* Describes the product and, where `choose`, looks for its algorithm; none is no failure. The product ends with
 * cuda_lt_end, also where this fails. */
ser_status cuda_lt_prepare(cuda_lt_product *product, cuda_device *device, const cuda_lt_form *form, bool choose,
                           ser_error *err);
void cuda_lt_end(cuda_lt_product *product);

/* For the products of the same layouts from now on. */
int cuda_lt_rows(const cuda_lt_product *product, uint64_t rows);
/* c is NULL, or added; it may be d. bias is for an epilogue that has one. */
void cuda_lt_multiply(ser_stream *stream, const cuda_lt_product *product, float *d, const float *a, const float *b,
                      const float *c, const float *bias);

/* Keeps the first product that the library lacks an algorithm for, so that the user hears of it. */
void cuda_lt_lacks(cuda_device *device, int64_t in, int64_t out);

#ifdef __cplusplus
}
#endif

#endif
