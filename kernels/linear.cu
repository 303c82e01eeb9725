/* The CUDA form of linear.c: dense layers over strided rows, and their gradients. Small ones, such as a classifier's
 * head, by kernels of ours, where a launch is most of the time; others by cuBLASLt. Where the library has no algorithm
 * that suits us, or rows begin on any float, which it has few for, a plain kernel of ours multiplies.
 *
 * The library multiplies matrices whose columns are contiguous: its x is [in] by rows, out is [out] by rows and w is
 * [in] by [out]. Each product has one algorithm, whatever the number of rows and whoever makes the plan, and it never
 * splits a sum, so that a row's bytes depend on that row alone. */
#include "kernels/cuda_kernels.h"
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
  cublasLtHandle_t lt;
  cublasLtMatrixLayout_t w, x, out;
  cublasLtMatmulDesc_t product[PRODUCTS];
  cublasLtMatmulAlgo_t algorithm[PRODUCTS];
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
  for (int i = 0; i < PRODUCTS; i++)
    if (p->product[i]) CUDA_END(cublasLtMatmulDescDestroy(p->product[i]));
  if (p->w) CUDA_END(cublasLtMatrixLayoutDestroy(p->w));
  if (p->x) CUDA_END(cublasLtMatrixLayoutDestroy(p->x));
  if (p->out) CUDA_END(cublasLtMatrixLayoutDestroy(p->out));
}

static int set_rows(const linear_plan *p, uint64_t rows) {
  int status = CUDA_ASK(cublasLtMatrixLayoutSetAttribute(p->x, CUBLASLT_MATRIX_LAYOUT_COLS, &rows, sizeof rows));
  if (status) return status;
  return CUDA_ASK(cublasLtMatrixLayoutSetAttribute(p->out, CUBLASLT_MATRIX_LAYOUT_COLS, &rows, sizeof rows));
}

/* What the products multiply and how. */
typedef struct {
  cublasLtMatrixLayout_t a, b, d;
  cublasOperation_t turn_a, turn_b;
  cublasLtEpilogue_t epilogue;
} product_form;

static product_form form_of(const linear_plan *p, product which) {
  switch (which) {
  case FORWARD:
    return (product_form){p->w, p->x, p->out, CUBLAS_OP_T, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT};
  case FORWARD_BIAS:
    return (product_form){p->w, p->x, p->out, CUBLAS_OP_T, CUBLAS_OP_N, CUBLASLT_EPILOGUE_BIAS};
  case DATA_GRADIENT:
    return (product_form){p->w, p->out, p->x, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT};
  default:
    return (product_form){p->x, p->out, p->w, CUBLAS_OP_N, CUBLAS_OP_T, CUBLASLT_EPILOGUE_DEFAULT};
  }
}

/* Parameters lie end to end and may begin on any float; rows begin on 16 bytes where their stride says so. */
static uint32_t alignment_of(const linear_plan *p, cublasLtMatrixLayout_t layout) {
  int64_t stride = layout == p->x ? p->shape.in_stride : layout == p->out ? p->shape.out_stride : 1;
  return stride % 4 ? 4 : 16;
}

static ser_status limit_choice(cublasLtMatmulPreference_t preference, const linear_plan *p, const product_form *form,
                               ser_error *err) {
  const uint32_t whole = CUBLASLT_REDUCTION_SCHEME_NONE;
  const uint64_t workspace = 0;
  const uint32_t a = alignment_of(p, form->a), b = alignment_of(p, form->b), d = alignment_of(p, form->d);
  const struct {
    cublasLtMatmulPreferenceAttributes_t attribute;
    const void *value;
    size_t size;
  } limits[] = {{CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &whole, sizeof whole},
                {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &a, sizeof a},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &b, sizeof b},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &d, sizeof d},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &d, sizeof d}};
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
    CUDA_TRY(CUDA_LT,
             cublasLtMatmulPreferenceSetAttribute(preference, limits[i].attribute, limits[i].value, limits[i].size),
             err);
  return SER_OK;
}

/* Whether the algorithm sums in one piece and does any number of rows: the same are tried whatever the plan's own, so
 * that plans of one layer choose alike. */
static bool is_fit(const linear_plan *p, product which, const product_form *form, const cublasLtMatmulAlgo_t *found) {
  static const uint64_t rows[] = {1, 2, 3, 31, 32, 33, 64, usual_rows - 1, usual_rows, usual_rows + 1, 4096};
  int32_t parts = 0;
  int status = CUDA_ASK(
      cublasLtMatmulAlgoConfigGetAttribute(found, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts, sizeof parts, NULL));
  if (status || parts > 1) return false;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    cublasLtMatmulHeuristicResult_t result;
    if (set_rows(p, rows[i])) return false;
    status =
        CUDA_ASK(cublasLtMatmulAlgoCheck(p->lt, p->product[which], form->a, form->b, form->d, form->d, found, &result));
    if (status || result.workspaceSize) return false;
  }
  return true;
}

/* What the library knows, the best first; none is no failure. */
static int list_algorithms(cublasLtMatmulHeuristicResult_t *found, int most, int *count, const linear_plan *p,
                           product which, cublasLtMatmulPreference_t preference) {
  product_form form = form_of(p, which);
  *count = 0;
  int status = CUDA_ASK(cublasLtMatmulAlgoGetHeuristic(p->lt, p->product[which], form.a, form.b, form.d, form.d,
                                                       preference, most, found, count));
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? 0 : status;
}

/* The first that fits. Without any, or where rows begin on any float, for which the library has few, p is plain. */
static ser_status choose(linear_plan *p, product which, cublasLtMatmulPreference_t preference, ser_error *err) {
  enum { MOST = 16 };
  cublasLtMatmulHeuristicResult_t found[MOST];
  product_form form = form_of(p, which);
  int count = 0;
  SER_TRY(limit_choice(preference, p, &form, err));
  CUDA_TRY_SAID(CUDA_LT, set_rows(p, usual_rows), err);
  CUDA_TRY_SAID(CUDA_LT, list_algorithms(found, MOST, &count, p, which, preference), err);
  if (p->shape.in_stride % 4 || p->shape.out_stride % 4) count = 0;
  for (int i = 0; i < count; i++)
    if (found[i].state == CUBLAS_STATUS_SUCCESS && is_fit(p, which, &form, &found[i].algo)) {
      p->algorithm[which] = found[i].algo;
      return SER_OK;
    }
  p->plain = true;
  return SER_OK;
}

static ser_status describe(linear_plan *p, product which, ser_error *err) {
  const void *no_bias = (const void *)sizeof(float); /* to choose by: one that is there, on any float */
  bool tf32 = p->plan.device->precision == SER_PRECISION_TF32;
  product_form form = form_of(p, which);
  cublasLtMatmulDesc_t *made = &p->product[which];
  CUDA_TRY(CUDA_LT,
           cublasLtMatmulDescCreate(made, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F), err);
  const struct {
    cublasLtMatmulDescAttributes_t attribute;
    const void *value;
    size_t size;
  } words[] = {{CUBLASLT_MATMUL_DESC_TRANSA, &form.turn_a, sizeof form.turn_a},
               {CUBLASLT_MATMUL_DESC_TRANSB, &form.turn_b, sizeof form.turn_b},
               {CUBLASLT_MATMUL_DESC_EPILOGUE, &form.epilogue, sizeof form.epilogue},
               {CUBLASLT_MATMUL_DESC_BIAS_POINTER, &no_bias, sizeof no_bias}};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    CUDA_TRY(CUDA_LT, cublasLtMatmulDescSetAttribute(*made, words[i].attribute, words[i].value, words[i].size), err);
  return SER_OK;
}

static ser_status prepare_library(linear_plan *p, ser_error *err) {
  const ser_linear_shape *s = &p->shape;
  ser_status status = SER_OK;
  cublasLtMatmulPreference_t preference = NULL;
  uint64_t in = (uint64_t)s->in, out = (uint64_t)s->out;
  SER_TRY(cuda_lt(&p->lt, p->plan.device, err));
  CUDA_TRY(CUDA_LT, cublasLtMatrixLayoutCreate(&p->w, CUDA_R_32F, in, out, s->in), err);
  CUDA_TRY(CUDA_LT, cublasLtMatrixLayoutCreate(&p->x, CUDA_R_32F, in, usual_rows, s->in_stride), err);
  CUDA_TRY(CUDA_LT, cublasLtMatrixLayoutCreate(&p->out, CUDA_R_32F, out, usual_rows, s->out_stride), err);
  for (int i = 0; i < PRODUCTS; i++) SER_TRY(describe(p, (product)i, err));
  CUDA_TRY(CUDA_LT, cublasLtMatmulPreferenceCreate(&preference), err);
  for (int i = 0; i < PRODUCTS && status == SER_OK && !p->plain; i++) status = choose(p, (product)i, preference, err);
  CUDA_END(cublasLtMatmulPreferenceDestroy(preference));
  return status;
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

/* ---- any layer, plainly ---- */

enum { TILE = 32, TILE_WARPS = 8 };

/* Element (line, k) lies at at[line * line_step + k * step]. */
typedef struct {
  const float *at;
  int64_t line_step, step;
} operand;

static __device__ __forceinline__ void read_tile(float (*tile)[TILE + 1], const operand &from, int first, int lines,
                                                 int k, int depth) {
  for (int i = (int)threadIdx.y; i < TILE; i += TILE_WARPS) {
    int line = first + i, at = k + (int)threadIdx.x;
    bool there = line < lines && at < depth;
    tile[i][threadIdx.x] = there ? from.at[line * from.line_step + at * from.step] : 0;
  }
}

/* out[row][column] = bias[column] + the sum over k < depth of a(row, k) b(column, k), in the order of k. */
static __global__ void linear_plain_kernel(float *out, int64_t stride, const __grid_constant__ operand a,
                                           const __grid_constant__ operand b, const float *bias, int rows, int columns,
                                           int depth) {
  __shared__ float as[TILE][TILE + 1], bs[TILE][TILE + 1];
  int first = (int)blockIdx.y * TILE, column = (int)(blockIdx.x * TILE + threadIdx.x);
  float sum[TILE / TILE_WARPS], start = bias && column < columns ? bias[column] : 0;
#pragma unroll
  for (int i = 0; i < TILE / TILE_WARPS; i++) sum[i] = start;
  for (int k = 0; k < depth; k += TILE) {
    __syncthreads();
    read_tile(as, a, first, rows, k, depth);
    read_tile(bs, b, (int)blockIdx.x * TILE, columns, k, depth);
    __syncthreads();
    for (int j = 0; j < TILE; j++)
#pragma unroll
      for (int i = 0; i < TILE / TILE_WARPS; i++)
        sum[i] = fmaf(as[threadIdx.y + i * TILE_WARPS][j], bs[threadIdx.x][j], sum[i]);
  }
#pragma unroll
  for (int i = 0; i < TILE / TILE_WARPS; i++) {
    int row = first + (int)threadIdx.y + i * TILE_WARPS;
    if (row < rows && column < columns) out[row * stride + column] = sum[i];
  }
}

static void plain_product(ser_stream *stream, const linear_plan *p, product which, float *out, const float *a,
                          const float *b, const float *bias, int count) {
  const ser_linear_shape *s = &p->shape;
  int rows = count, columns = (int)s->out, depth = (int)s->in;
  int64_t stride = s->out_stride;
  operand left = {a, s->in_stride, 1}, right = {b, s->in, 1}; /* x and w */
  if (which == DATA_GRADIENT) {                               /* dout and w */
    columns = (int)s->in;
    depth = (int)s->out;
    stride = s->in_stride;
    left = (operand){a, s->out_stride, 1};
    right = (operand){b, 1, s->in};
  } else if (which == WEIGHT_GRADIENT) { /* dout and x */
    rows = (int)s->out;
    columns = (int)s->in;
    depth = count;
    stride = s->in;
    left = (operand){a, 1, s->out_stride};
    right = (operand){b, 1, s->in_stride};
  }
  dim3 blocks(cuda_blocks(columns, TILE), cuda_blocks(rows, TILE));
  CUDA_LAUNCH(stream, linear_plain_kernel, blocks, dim3(TILE, TILE_WARPS), 0, out, stride, left, right, bias, rows,
              columns, depth);
}

/* ---- the library ---- */

static void multiply(ser_stream *stream, const linear_plan *p, product which, float *d, const float *a,
                     const float *b) {
  const float one = 1, zero = 0;
  product_form form = form_of(p, which);
  CUDA_CALL(stream, CUDA_LT,
            cublasLtMatmul(p->lt, p->product[which], &one, a, form.a, b, form.b, &zero, d, form.d, d, form.d,
                           &p->algorithm[which], NULL, 0, stream->cuda));
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
    CUDA_SAID(stream, CUDA_LT, set_rows(p, (uint64_t)rows));
    if (bias)
      CUDA_SET(stream, CUDA_LT,
               cublasLtMatmulDescSetAttribute(p->product[FORWARD_BIAS], CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                              sizeof bias));
    multiply(stream, p, bias ? FORWARD_BIAS : FORWARD, out, w, x);
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
  if (!p->plain) CUDA_SAID(stream, CUDA_LT, set_rows(p, (uint64_t)rows));
  if (dx) {
    if (p->plain)
      plain_product(stream, p, DATA_GRADIENT, dx, dout, w, NULL, d.rows);
    else
      multiply(stream, p, DATA_GRADIENT, dx, w, dout);
    clear_padding(stream, dx, d.in, d.in_stride, d.rows);
  }
  if (p->plain)
    plain_product(stream, p, WEIGHT_GRADIENT, dw, dout, x, NULL, d.rows);
  else
    multiply(stream, p, WEIGHT_GRADIENT, dw, x, dout);
  if (dbias)
    CUDA_LAUNCH(stream, linear_bias_gradient_kernel, cuda_blocks(d.out, CUDA_WARP), dim3(CUDA_WARP, BACK_WARPS), 0,
                dbias, dout, d);
}
