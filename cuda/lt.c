/* Products of cuBLASLt with one algorithm each: lt.h says what they promise. */
#include "cuda/lt.h"

#include <stdio.h>
#include <string.h>

/* What an attribute is set to. */
typedef struct {
  int attribute;
  const void *value;
  size_t size;
} setting;

ser_status cuda_lt_layout(cublasLtMatrixLayout_t *layout, int64_t channels, int64_t columns, int64_t stride,
                          ser_error *err) {
  CUDA_TRY(CUDA_LT, cublasLtMatrixLayoutCreate(layout, CUDA_R_32F, (uint64_t)channels, (uint64_t)columns, stride), err);
  return SER_OK;
}

void cuda_lt_layout_end(cublasLtMatrixLayout_t layout) {
  if (layout) CUDA_END(cublasLtMatrixLayoutDestroy(layout));
}

void cuda_lt_end(cuda_lt_product *product) {
  if (product->matmul) CUDA_END(cublasLtMatmulDescDestroy(product->matmul));
}

int cuda_lt_rows(const cuda_lt_product *product, uint64_t rows) {
  const cublasLtMatrixLayout_t *layouts = product->form.by_rows;
  int status = CUDA_ASK(cublasLtMatrixLayoutSetAttribute(layouts[0], CUBLASLT_MATRIX_LAYOUT_COLS, &rows, sizeof rows));
  if (status) return status;
  return CUDA_ASK(cublasLtMatrixLayoutSetAttribute(layouts[1], CUBLASLT_MATRIX_LAYOUT_COLS, &rows, sizeof rows));
}

static ser_status describe(cuda_lt_product *p, cuda_device *device, ser_error *err) {
  const void *no_bias = (const void *)sizeof(float); /* to choose by: one that is there, on any float */
  const cuda_lt_form *f = &p->form;
  bool tf32 = device->precision == SER_PRECISION_TF32;
  CUDA_TRY(CUDA_LT,
           cublasLtMatmulDescCreate(&p->matmul, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F),
           err);
  const setting words[] = {{CUBLASLT_MATMUL_DESC_TRANSA, &f->turn_a, sizeof f->turn_a},
                           {CUBLASLT_MATMUL_DESC_TRANSB, &f->turn_b, sizeof f->turn_b},
                           {CUBLASLT_MATMUL_DESC_EPILOGUE, &f->epilogue, sizeof f->epilogue},
                           {CUBLASLT_MATMUL_DESC_BIAS_POINTER, &no_bias, sizeof no_bias}};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    CUDA_TRY(CUDA_LT,
             cublasLtMatmulDescSetAttribute(p->matmul, (cublasLtMatmulDescAttributes_t)words[i].attribute,
                                            words[i].value, words[i].size),
             err);
  return SER_OK;
}

static ser_status limit_choice(cublasLtMatmulPreference_t preference, const cuda_lt_form *f, ser_error *err) {
  const uint32_t whole = CUBLASLT_REDUCTION_SCHEME_NONE;
  const uint64_t workspace = 0;
  const setting limits[] = {{CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &whole, sizeof whole},
                            {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
                            {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &f->align_a, sizeof f->align_a},
                            {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &f->align_b, sizeof f->align_b},
                            {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &f->align_d, sizeof f->align_d},
                            {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &f->align_d, sizeof f->align_d}};
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
    CUDA_TRY(CUDA_LT,
             cublasLtMatmulPreferenceSetAttribute(preference, (cublasLtMatmulPreferenceAttributes_t)limits[i].attribute,
                                                  limits[i].value, limits[i].size),
             err);
  return SER_OK;
}

/* Whether the algorithm sums in one piece and does any number of rows: the same are tried whatever the plan's own, so
 * that plans of one product choose alike. */
static bool is_fit(const cuda_lt_product *p, const cublasLtMatmulAlgo_t *found) {
  const cuda_lt_form *f = &p->form;
  const uint64_t usual = f->usual_rows, rows[] = {1, 2, 3, 31, 32, 33, 64, usual - 1, usual, usual + 1, 16 * usual};
  int32_t parts = 0;
  int status = CUDA_ASK(
      cublasLtMatmulAlgoConfigGetAttribute(found, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts, sizeof parts, NULL));
  if (status || parts > 1) return false;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    cublasLtMatmulHeuristicResult_t result;
    if (cuda_lt_rows(p, rows[i])) return false;
    status = CUDA_ASK(cublasLtMatmulAlgoCheck(p->lt, p->matmul, f->a, f->b, f->d, f->d, found, &result));
    if (status || result.workspaceSize) return false;
  }
  return true;
}

/* What the library knows, the best first; none is no failure. */
static int list_algorithms(cublasLtMatmulHeuristicResult_t *found, int most, int *count, const cuda_lt_product *p,
                           cublasLtMatmulPreference_t preference) {
  const cuda_lt_form *f = &p->form;
  *count = 0;
  int status = CUDA_ASK(
      cublasLtMatmulAlgoGetHeuristic(p->lt, p->matmul, f->a, f->b, f->d, f->d, preference, most, found, count));
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? 0 : status;
}

/* The first that fits. */
static ser_status choose_algorithm(cuda_lt_product *p, cublasLtMatmulPreference_t preference, ser_error *err) {
  enum { MOST = 16 };
  cublasLtMatmulHeuristicResult_t found[MOST];
  int count = 0;
  SER_TRY(limit_choice(preference, &p->form, err));
  CUDA_TRY_SAID(CUDA_LT, cuda_lt_rows(p, p->form.usual_rows), err);
  CUDA_TRY_SAID(CUDA_LT, list_algorithms(found, MOST, &count, p, preference), err);
  for (int i = 0; i < count && !p->found; i++)
    if (found[i].state == CUBLAS_STATUS_SUCCESS && is_fit(p, &found[i].algo)) {
      p->algorithm = found[i].algo;
      p->found = true;
    }
  return SER_OK;
}

ser_status cuda_lt_prepare(cuda_lt_product *product, cuda_device *device, const cuda_lt_form *form, bool choose,
                           ser_error *err) {
  cublasLtMatmulPreference_t preference = NULL;
  memset(product, 0, sizeof *product);
  product->form = *form;
  SER_TRY(cuda_lt(&product->lt, device, err));
  SER_TRY(describe(product, device, err));
  if (!choose) return SER_OK;
  CUDA_TRY(CUDA_LT, cublasLtMatmulPreferenceCreate(&preference), err);
  ser_status status = choose_algorithm(product, preference, err);
  CUDA_END(cublasLtMatmulPreferenceDestroy(preference));
  return status;
}

void cuda_lt_multiply(ser_stream *stream, const cuda_lt_product *product, float *d, const float *a, const float *b,
                      const float *c, const float *bias) {
  const float one = 1, added = c ? 1 : 0;
  const cuda_lt_form *f = &product->form;
  if (bias)
    CUDA_SET(stream, CUDA_LT,
             cublasLtMatmulDescSetAttribute(product->matmul, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
  CUDA_CALL(stream, CUDA_LT,
            cublasLtMatmul(product->lt, product->matmul, &one, a, f->a, b, f->b, &added, c ? c : d, f->d, d, f->d,
                           &product->algorithm, NULL, 0, stream->cuda));
}

void cuda_lt_lacks(cuda_device *device, int64_t in, int64_t out) {
  if (!device->no_product[0])
    snprintf(device->no_product, sizeof device->no_product, "%lld x %lld", (long long)in, (long long)out);
}
