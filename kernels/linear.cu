/* The CUDA form of linear.c: dense layers over strided rows, and their gradients. Small ones, such as a classifier's
 * head, by kernels of ours, where a launch is most of the time; others by cuBLASLt. Where the library has no algorithm
 * that suits us, or rows begin on any float, which it has few for, a plain kernel of ours multiplies.
 *
 * The library's x is [in] by rows, out is [out] by rows and w is [in] by [out]. */
#include "cuda/lt.h"
#include "kernels/cuda_kernels.h"
#include "kernels/plain_product.h"
#include "kernels/temporal_cuda.h"

enum {
  SMALL_IN = 256, /* the most of a small layer */
  SMALL_OUT = 32,
  SMALL_LANES = 8,     /* the fewest threads that share a row */
  SMALL_THREADS = 128, /* forward: a shared tile of at most 16 rows or 4 */
  BACK_WARPS = 8       /* sums over rows are split among the warps of a block: rows w, w + 8, w + 16 ... */
};

/* The product that an algorithm is chosen for has so many rows. */
static const uint64_t usual_rows = 256;

typedef enum { FORWARD, FORWARD_BIAS, DATA_GRADIENT, WEIGHT_GRADIENT, PRODUCTS } product;

typedef struct {
  cuda_plan plan;
  ser_linear_shape shape;
  bool small, plain;
  cublasLtMatrixLayout_t w, x, out;
  cuda_lt_product product[PRODUCTS];
} linear_plan;

typedef struct {
  int rows, in, out, in_stride, out_stride;
} linear_dims;

static linear_dims dims_of(const linear_plan *plan, int64_t rows) {
  const ser_linear_shape *s = &plan->shape;
  linear_dims d = {(int)rows, (int)s->in, (int)s->out, (int)s->in_stride, (int)s->out_stride};
  return d;
}

/* ---- the plan ---- */

static void end_plan(cuda_plan *plan) {
  linear_plan *p = (linear_plan *)plan;
  for (int i = 0; i < PRODUCTS; i++) cuda_lt_end(&p->product[i]);
  cuda_lt_layout_end(p->w);
  cuda_lt_layout_end(p->x);
  cuda_lt_layout_end(p->out);
}

/* Parameters lie end to end and may begin on any float; rows begin on 16 bytes where their stride says so. */
static uint32_t alignment_of(int64_t stride) {
  return stride % 4 ? 4 : 16;
}

/* What the products multiply and how. */
static cuda_lt_form form_of(const linear_plan *p, product which) {
  const uint32_t w = 4, x = alignment_of(p->shape.in_stride), out = alignment_of(p->shape.out_stride);
  const cublasLtEpilogue_t end = which == FORWARD_BIAS ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  cuda_lt_form f = {p->w, p->x, p->out, CUBLAS_OP_T, CUBLAS_OP_N, end, w, x, out, {p->x, p->out}, usual_rows};
  if (which == DATA_GRADIENT)
    f = (cuda_lt_form){p->w, p->out, p->x, CUBLAS_OP_N, CUBLAS_OP_N, end, w, out, x, {p->x, p->out}, usual_rows};
  if (which == WEIGHT_GRADIENT)
    f = (cuda_lt_form){p->x, p->out, p->w, CUBLAS_OP_N, CUBLAS_OP_T, end, x, out, w, {p->x, p->out}, usual_rows};
  return f;
}

/* Without an algorithm that fits, or where rows begin on any float, for which the library has few, p is plain. */
static ser_status prepare_library(linear_plan *p, ser_error *err) {
  const ser_linear_shape *s = &p->shape;
  const int64_t rows = (int64_t)usual_rows;
  SER_TRY(cuda_lt_layout(&p->w, s->in, s->out, s->in, err));
  SER_TRY(cuda_lt_layout(&p->x, s->in, rows, s->in_stride, err));
  SER_TRY(cuda_lt_layout(&p->out, s->out, rows, s->out_stride, err));
  p->plain = s->in_stride % 4 || s->out_stride % 4;
  for (int i = 0; i < PRODUCTS; i++) {
    cuda_lt_form form = form_of(p, (product)i);
    SER_TRY(cuda_lt_prepare(&p->product[i], p->plan.device, &form, !p->plain, err));
    if (!p->plain && !p->product[i].found) cuda_lt_lacks(p->plan.device, s->in, s->out);
    p->plain |= !p->product[i].found;
  }
  return SER_OK;
}

ser_status cuda_linear_prepare(ser_device *device, ser_plan **plan, const ser_linear_shape *shape, ser_error *err) {
  linear_plan *p = (linear_plan *)cuda_plan_make(device, sizeof *p, end_plan);
  *plan = NULL;
  p->shape = *shape;
  p->small = shape->in <= SMALL_IN && shape->out <= SMALL_OUT;
  ser_status status = p->small ? SER_OK : prepare_library(p, err);
  if (status == SER_OK)
    *plan = &p->plan.plan;
  else
    ser_plan_free(&p->plan.plan);
  return status;
}

/* ---- small layers ---- */

/* `lanes` threads, a power of two that is not below `out`, share a row; the weights and the block's rows lie in shared
 * memory, w turned round: [in][lanes + 1]. Odd pitches put what a warp writes beneath each other into different banks.
 */
static __global__ void linear_small_kernel(float *out, const float *x, const float *w, const float *bias, int lanes,
                                           linear_dims d) {
  extern __shared__ float tile[];
  int thread = (int)threadIdx.x, rows = SMALL_THREADS / lanes, first = (int)blockIdx.x * rows;
  int pitch = d.in | 1, weight_pitch = lanes | 1;
  float *ws = tile, *xs = tile + d.in * weight_pitch;
  for (int i = thread; i < d.in * d.out; i += SMALL_THREADS) {
    int o = i / d.in;
    ws[(i - o * d.in) * weight_pitch + o] = w[i];
  }
  for (int i = thread; i < rows * d.in; i += SMALL_THREADS) {
    int r = i / d.in, column = i - r * d.in;
    if (first + r < d.rows) xs[r * pitch + column] = x[(int64_t)(first + r) * d.in_stride + column];
  }
  __syncthreads();
  int r = thread / lanes, o = thread % lanes;
  if (first + r >= d.rows) return;
  float sum = bias && o < d.out ? bias[o] : 0;
  if (o < d.out)
    for (int i = 0; i < d.in; i++) sum = fmaf(xs[r * pitch + i], ws[i * weight_pitch + o], sum);
  out += (int64_t)(first + r) * d.out_stride;
  for (int column = o; column < d.out_stride; column += lanes) out[column] = column < d.out ? sum : 0;
}

static void small_forward(ser_stream *stream, float *out, const float *x, const float *w, const float *bias,
                          linear_dims d) {
  int lanes = SMALL_LANES;
  while (lanes < d.out) lanes *= 2;
  int rows = SMALL_THREADS / lanes;
  size_t shared = (size_t)(d.in * (lanes | 1) + rows * (d.in | 1)) * sizeof(float);
  CUDA_LAUNCH(stream, linear_small_kernel, cuda_blocks(d.rows, rows), SMALL_THREADS, shared, out, x, w, bias, lanes, d);
}

/* One element of dx, its padding too. */
static __device__ inline void small_dx(float *dx, const float *dout, const float *w, int64_t at, const linear_dims &d) {
  if (at >= (int64_t)d.rows * d.in_stride) return;
  int row = (int)((unsigned)at / (unsigned)d.in_stride), i = (int)at - row * d.in_stride;
  float sum = 0;
  if (i < d.in)
    for (int o = 0; o < d.out; o++) sum = fmaf(dout[(int64_t)row * d.out_stride + o], w[o * d.in + i], sum);
  dx[at] = sum;
}

/* dw of output o and 32 of the inputs, and dbias where they are the first. */
static __device__ void small_dw(float *dw, float *dbias, const float *dout, const float *x, int o, int first,
                                const linear_dims &d) {
  __shared__ float parts[BACK_WARPS][CUDA_WARP];
  __shared__ double room[CUDA_WARP];
  int lane = (int)threadIdx.x % CUDA_WARP, warp = (int)threadIdx.x / CUDA_WARP, i = first + lane;
  float sum = 0;
  if (i < d.in)
    for (int row = warp; row < d.rows; row += BACK_WARPS)
      sum = fmaf(dout[(int64_t)row * d.out_stride + o], x[(int64_t)row * d.in_stride + i], sum);
  parts[warp][lane] = sum;
  __syncthreads();
  if (warp == 0 && i < d.in) {
    for (int k = 1; k < BACK_WARPS; k++) sum += parts[k][lane];
    dw[o * d.in + i] = sum;
  }
  if (!dbias || first) return;
  double total = 0;
  for (int row = (int)threadIdx.x; row < d.rows; row += BACK_WARPS * CUDA_WARP)
    total += (double)dout[(int64_t)row * d.out_stride + o];
  total = cuda_block_sum(total, room);
  if (threadIdx.x == 0) dbias[o] = (float)total;
}

/* The first `dx_blocks` blocks do dx, the others dw and dbias. */
static __global__ void linear_small_backward_kernel(float *dx, float *dw, float *dbias, const float *dout,
                                                    const float *x, const float *w, int dx_blocks, linear_dims d) {
  int block = (int)blockIdx.x - dx_blocks, tiles = (d.in + CUDA_WARP - 1) / CUDA_WARP;
  if (block < 0)
    small_dx(dx, dout, w, (int64_t)blockIdx.x * (BACK_WARPS * CUDA_WARP) + threadIdx.x, d);
  else
    small_dw(dw, dbias, dout, x, block / tiles, block % tiles * CUDA_WARP, d);
}

static void small_backward(ser_stream *stream, float *dx, float *dw, float *dbias, const float *dout, const float *x,
                           const float *w, linear_dims d) {
  unsigned threads = BACK_WARPS * CUDA_WARP, tiles = cuda_blocks(d.in, CUDA_WARP);
  unsigned dx_blocks = dx ? cuda_blocks((int64_t)d.rows * d.in_stride, threads) : 0;
  CUDA_LAUNCH(stream, linear_small_backward_kernel, dx_blocks + tiles * (unsigned)d.out, threads, 0, dx, dw, dbias,
              dout, x, w, (int)dx_blocks, d);
}

/* ---- any layer ---- */

static void plain_product(ser_stream *stream, const linear_plan *p, product which, float *out, const float *a,
                          const float *b, const float *bias, int count) {
  const ser_linear_shape *s = &p->shape;
  cuda_product_size size = {count, s->out, s->in, s->out_stride};
  cuda_operand left = {a, s->in_stride, 1}, right = {b, s->in, 1}; /* x and w */
  if (which == DATA_GRADIENT) {                                    /* dout and w */
    size = (cuda_product_size){count, s->in, s->out, s->in_stride};
    left = (cuda_operand){a, s->out_stride, 1};
    right = (cuda_operand){b, 1, s->in};
  } else if (which == WEIGHT_GRADIENT) { /* dout and x */
    size = (cuda_product_size){s->out, s->in, count, s->in};
    left = (cuda_operand){a, 1, s->out_stride};
    right = (cuda_operand){b, 1, s->in_stride};
  }
  cuda_plain_product(stream, out, left, right, bias, NULL, &size);
}

static void clear_padding(ser_stream *stream, float *rows, int columns, int stride, int count) {
  if (stride == columns) return;
  CUDA_DO(stream, cudaMemset2DAsync(rows + columns, (size_t)stride * sizeof *rows, 0,
                                    (size_t)(stride - columns) * sizeof *rows, (size_t)count, stream->cuda));
}

void cuda_linear_forward(ser_stream *stream, const ser_plan *plan, void *workspace, float *out, const float *x,
                         const float *w, const float *bias, int64_t rows) {
  (void)workspace;
  const linear_plan *p = (const linear_plan *)plan;
  linear_dims d = dims_of(p, rows);
  if (p->small) {
    small_forward(stream, out, x, w, bias, d);
    return;
  }
  if (p->plain) {
    plain_product(stream, p, FORWARD, out, x, w, bias, d.rows);
  } else {
    const cuda_lt_product *product = &p->product[bias ? FORWARD_BIAS : FORWARD];
    CUDA_SAID(stream, CUDA_LT, cuda_lt_rows(product, (uint64_t)rows));
    cuda_lt_multiply(stream, product, out, w, x, NULL, bias);
  }
  clear_padding(stream, out, d.out, d.out_stride, d.rows);
}

/* A warp's lanes are outputs; the rows are split among the warps. */
static __global__ void linear_bias_gradient_kernel(float *dbias, const float *dout, linear_dims d) {
  __shared__ double parts[BACK_WARPS][CUDA_WARP];
  int o = (int)blockIdx.x * CUDA_WARP + (int)threadIdx.x;
  double sum = 0;
  if (o < d.out)
    for (int row = (int)threadIdx.y; row < d.rows; row += BACK_WARPS)
      sum += (double)dout[(int64_t)row * d.out_stride + o];
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y || o >= d.out) return;
  for (int k = 1; k < BACK_WARPS; k++) sum += parts[k][threadIdx.x];
  dbias[o] = (float)sum;
}

void cuda_linear_backward(ser_stream *stream, const ser_plan *plan, void *workspace, float *dx, float *dw, float *dbias,
                          const float *dout, const float *x, const float *w, int64_t rows) {
  (void)workspace;
  const linear_plan *p = (const linear_plan *)plan;
  linear_dims d = dims_of(p, rows);
  if (p->small) {
    small_backward(stream, dx, dw, dbias, dout, x, w, d);
    return;
  }
  if (!p->plain) CUDA_SAID(stream, CUDA_LT, cuda_lt_rows(&p->product[DATA_GRADIENT], (uint64_t)rows));
  if (dx) {
    if (p->plain)
      plain_product(stream, p, DATA_GRADIENT, dx, dout, w, NULL, d.rows);
    else
      cuda_lt_multiply(stream, &p->product[DATA_GRADIENT], dx, w, dout, NULL, NULL);
    clear_padding(stream, dx, d.in, d.in_stride, d.rows);
  }
  if (p->plain)
    plain_product(stream, p, WEIGHT_GRADIENT, dw, dout, x, NULL, d.rows);
  else
    cuda_lt_multiply(stream, &p->product[WEIGHT_GRADIENT], dw, x, dout, NULL, NULL);
  if (dbias)
    CUDA_LAUNCH(stream, linear_bias_gradient_kernel, cuda_blocks(d.out, CUDA_WARP), dim3(CUDA_WARP, BACK_WARPS), 0,
                dbias, dout, d);
}
