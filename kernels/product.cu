/* The CUDA form of product.c: products with weights that stay, by cuBLASLt, which has the bias and the residual in its
 * epilogue; GELU is a pass of ours, since the library knows the tanh form alone.
 *
 * Rows that overlap (in_stride < in) are columns of a matrix that the library refuses, the distance of its columns
 * being less than their length. So the inputs are cut into pieces of in_stride, a product each, whose rows lie end to
 * end; the later ones add to the first's.
 *
 * Rows and packed weights begin on 16 bytes where the strides and `in` are multiples of 4; where not, or where the
 * library has no algorithm that suits us, a plain kernel of ours multiplies. */
#include "cuda/lt.h"
#include "kernels/cuda_kernels.h"
#include "kernels/plain_product.h"
#include "kernels/rows_cuda.h"

/* The products that algorithms are chosen for have so many rows: a batch's. */
static const uint64_t usual_rows = 4096;

enum { PIECES_MOST = 8 };

typedef enum { FIRST, FIRST_BIAS, LAST, PRODUCTS } product; /* the last piece, where it is shorter than the first */

typedef struct {
  cuda_plan plan;
  ser_product_shape shape;
  bool plain;
  int64_t pieces, depth, last; /* inputs of a piece, and of the last */
  cublasLtMatrixLayout_t w, x, w_last, x_last, out;
  cuda_lt_product product[PRODUCTS];
} product_plan;

/* ---- the plan ---- */

static void end_plan(cuda_plan *plan) {
  product_plan *p = (product_plan *)plan;
  cublasLtMatrixLayout_t layouts[] = {p->w, p->x, p->w_last, p->x_last, p->out};
  for (int i = 0; i < PRODUCTS; i++) cuda_lt_end(&p->product[i]);
  for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) cuda_lt_layout_end(layouts[i]);
}

static ser_status prepare_library(product_plan *p, ser_error *err) {
  const ser_product_shape *s = &p->shape;
  const int64_t rows = (int64_t)usual_rows;
  const uint32_t each = 16;
  SER_TRY(cuda_lt_layout(&p->w, p->depth, s->out, s->in, err));
  SER_TRY(cuda_lt_layout(&p->x, p->depth, rows, s->in_stride, err));
  SER_TRY(cuda_lt_layout(&p->w_last, p->last, s->out, s->in, err));
  SER_TRY(cuda_lt_layout(&p->x_last, p->last, rows, s->in_stride, err));
  SER_TRY(cuda_lt_layout(&p->out, s->out, rows, s->out_stride, err));
  for (int i = 0; i < PRODUCTS && !p->plain; i++) {
    if (i == LAST && p->last == p->depth) continue;
    cublasLtMatrixLayout_t w = i == LAST ? p->w_last : p->w, x = i == LAST ? p->x_last : p->x;
    cublasLtEpilogue_t end = i == FIRST_BIAS ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    cuda_lt_form form = {w, x, p->out, CUBLAS_OP_T, CUBLAS_OP_N, end, each, each, each, {x, p->out}, usual_rows};
    SER_TRY(cuda_lt_prepare(&p->product[i], p->plan.device, &form, true, err));
    p->plain = !p->product[i].found;
    if (p->plain) cuda_lt_lacks(p->plan.device, s->in, s->out);
  }
  return SER_OK;
}

ser_status cuda_product_prepare(ser_device *device, ser_plan **plan, const ser_product_shape *shape, ser_error *err) {
  product_plan *p = (product_plan *)cuda_plan_make(device, sizeof *p, end_plan);
  *plan = NULL;
  p->shape = *shape;
  p->depth = shape->in < shape->in_stride ? shape->in : shape->in_stride;
  p->pieces = (shape->in + p->depth - 1) / p->depth;
  p->last = shape->in - (p->pieces - 1) * p->depth;
  p->plain = shape->in % 4 || shape->in_stride % 4 || shape->out_stride % 4 || p->pieces > PIECES_MOST;
  p->plan.plan.packed = (size_t)(shape->out * shape->in) * sizeof(float);
  ser_status status = p->plain ? SER_OK : prepare_library(p, err);
  if (status == SER_OK)
    *plan = &p->plan.plan;
  else
    ser_plan_free(&p->plan.plan);
  return status;
}

/* The products read the weights as they are: a piece is some of their columns. */
void cuda_product_pack(ser_stream *stream, const ser_plan *plan, void *packed, const float *w) {
  CUDA_DO(stream, cudaMemcpyAsync(packed, w, plan->packed, cudaMemcpyDeviceToDevice, stream->cuda));
}

/* ---- GELU ---- */

enum { GELU_LANES = 64, GELU_ROWS = 4 };

/* In place; 64 threads take a row, four outputs each at once. */
static __global__ void gelu_rows_kernel(float *out, int columns, int64_t stride, int64_t rows, bool aligned) {
  int64_t row = (int64_t)blockIdx.x * GELU_ROWS + threadIdx.y;
  if (row >= rows) return;
  out += row * stride;
  for (int column = 4 * (int)threadIdx.x; column < columns; column += 4 * GELU_LANES) {
    float4 v = cuda_read_four(out, column, columns, aligned);
    v = make_float4(cuda_gelu(v.x), cuda_gelu(v.y), cuda_gelu(v.z), cuda_gelu(v.w));
    cuda_write_four(out, column, v, columns, aligned);
  }
}

static void gelu_rows(ser_stream *stream, float *out, const ser_product_shape *s, int64_t rows) {
  bool aligned = s->out % 4 == 0 && s->out_stride % 4 == 0 && cuda_is_aligned(out);
  CUDA_LAUNCH(stream, gelu_rows_kernel, cuda_blocks(rows, GELU_ROWS), dim3(GELU_LANES, GELU_ROWS), 0, out, (int)s->out,
              s->out_stride, rows, aligned);
}

/* ---- the products ---- */

static void multiply(ser_stream *stream, const product_plan *p, float *out, const float *x, const float *w,
                     const float *bias, const float *residual, int64_t rows) {
  for (int64_t piece = 0; piece < p->pieces; piece++) {
    bool shorter = piece == p->pieces - 1 && p->last < p->depth;
    const cuda_lt_product *product = &p->product[shorter ? LAST : piece || !bias ? FIRST : FIRST_BIAS];
    CUDA_SAID(stream, CUDA_LT, cuda_lt_rows(product, (uint64_t)rows));
    cuda_lt_multiply(stream, product, out, w + piece * p->depth, x + piece * p->depth, piece ? out : residual,
                     piece ? NULL : bias);
  }
}

void cuda_product_forward(ser_stream *stream, const ser_plan *plan, void *workspace, float *out, const float *x,
                          const void *packed, const float *bias, const float *residual, ser_product_end end,
                          int64_t rows) {
  (void)workspace;
  const product_plan *p = (const product_plan *)plan;
  const ser_product_shape *s = &p->shape;
  const float *w = (const float *)packed;
  if (!rows) return;
  if (p->plain) {
    cuda_product_size size = {rows, s->out, s->in, s->out_stride};
    cuda_plain_product(stream, out, (cuda_operand){x, s->in_stride, 1}, (cuda_operand){w, s->in, 1}, bias, residual,
                       &size);
  } else {
    SER_CHECK(cuda_is_aligned(x) && cuda_is_aligned(w) && cuda_is_aligned(residual) && cuda_is_aligned(out));
    multiply(stream, p, out, x, w, bias, residual, rows);
  }
  if (end == SER_PRODUCT_GELU) gelu_rows(stream, out, s, rows);
}
