/* Dense layers (torch.nn.Linear) over strided rows, and their gradients: small ones by kernels of ours, where a launch
 * is all that a library would take longer for; larger ones as cuBLASLt products. For the library a row-major matrix is
 * a column-major one turned round: out [rows][out] is an out x rows matrix with out_stride from column to column.
 *
 * One algorithm serves a layer whatever the number of rows, without splitting sums, chosen for the most rows. */
#include "kernels/temporal_cuda.h"

enum { SMALL_IN = 256, SMALL_OUT = 32, ROWS = 4, THREADS = 128, BIAS_THREADS = 128 };

/* One product: D = op(A) B, with its descriptors. */
typedef struct {
  cublasLtMatmulDesc_t matmul;
  cublasLtMatrixLayout_t a, b, d;
  cublasLtMatmulAlgo_t algorithm;
} product;

typedef struct {
  cuda_plan plan;
  ser_linear_shape shape;
  bool small;
  cublasLtHandle_t lt;
  product forward, dx, dw;
} linear_plan;

/* ---- making ------------------------------------------------------------------------------------------------------ */

static void product_end(product *p) {
  if (p->matmul) cublasLtMatmulDescDestroy(p->matmul);
  cublasLtMatrixLayout_t layouts[] = {p->a, p->b, p->d};
  for (int i = 0; i < 3; i++)
    if (layouts[i]) cublasLtMatrixLayoutDestroy(layouts[i]);
}

static void plan_end(cuda_plan *plan) {
  linear_plan *p = (linear_plan *)plan;
  product_end(&p->forward);
  product_end(&p->dx);
  product_end(&p->dw);
}

typedef struct {
  int64_t rows, columns, step; /* column-major; step from column to column */
} matrix;

static ser_status make_layout(cublasLtMatrixLayout_t *layout, matrix m, ser_error *err) {
  CUDA_TRY(CUDA_LT, cublasLtMatrixLayoutCreate(layout, CUDA_R_32F, (uint64_t)m.rows, (uint64_t)m.columns, m.step), err);
  return SER_OK;
}

/* The first algorithm that the library proposes and that does not split the sums. */
static ser_status choose(product *p, cublasLtHandle_t lt, ser_error *err) {
  enum { MOST = 8 };
  cublasLtMatmulPreference_t preference;
  cublasLtMatmulHeuristicResult_t found[MOST];
  uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_NONE;
  uint64_t workspace = 0;
  int count = 0;
  CUDA_TRY(CUDA_LT, cublasLtMatmulPreferenceCreate(&preference), err);
  int status = (int)cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                         &schemes, sizeof schemes);
  if (!status)
    status = (int)cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                       sizeof workspace);
  if (!status)
    status =
        (int)cublasLtMatmulAlgoGetHeuristic(lt, p->matmul, p->a, p->b, p->d, p->d, preference, MOST, found, &count);
  cublasLtMatmulPreferenceDestroy(preference);
  CUDA_TRY(CUDA_LT, status, err);
  for (int i = 0; i < count; i++) {
    int32_t parts = 1;
    if (found[i].state != CUBLAS_STATUS_SUCCESS) continue;
    CUDA_TRY(CUDA_LT,
             cublasLtMatmulAlgoConfigGetAttribute(&found[i].algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts, sizeof parts,
                                                  NULL),
             err);
    if (parts > 1) continue;
    p->algorithm = found[i].algo;
    return SER_OK;
  }
  return ser_fail(err, SER_FAILED,
                  "cuBLASLt has no algorithm for a dense layer of this shape that does not split sums");
}

static ser_status make_product(product *p, const linear_plan *plan, matrix a, bool a_turned, matrix b, bool b_turned,
                               matrix d, bool bias, ser_error *err) {
  cublasComputeType_t type =
      plan->plan.device->precision == SER_PRECISION_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  cublasOperation_t op_a = a_turned ? CUBLAS_OP_T : CUBLAS_OP_N, op_b = b_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
  CUDA_TRY(CUDA_LT, cublasLtMatmulDescCreate(&p->matmul, type, CUDA_R_32F), err);
  CUDA_TRY(CUDA_LT, cublasLtMatmulDescSetAttribute(p->matmul, CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof op_a), err);
  CUDA_TRY(CUDA_LT, cublasLtMatmulDescSetAttribute(p->matmul, CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof op_b), err);
  if (bias)
    CUDA_TRY(CUDA_LT,
             cublasLtMatmulDescSetAttribute(p->matmul, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue), err);
  SER_TRY(make_layout(&p->a, a, err));
  SER_TRY(make_layout(&p->b, b, err));
  SER_TRY(make_layout(&p->d, d, err));
  return choose(p, plan->lt, err);
}

static ser_status make_products(linear_plan *p, ser_error *err) {
  const ser_linear_shape *s = &p->shape;
  matrix w = {s->in, s->out, s->in}, x = {s->in, s->rows, s->in_stride}, out = {s->out, s->rows, s->out_stride};
  SER_TRY(cuda_lt(&p->lt, p->plan.device, err));
  SER_TRY(make_product(&p->forward, p, w, true, x, false, out, true, err));
  SER_TRY(make_product(&p->dx, p, w, false, out, false, x, false, err));
  return make_product(&p->dw, p, x, false, out, true, w, false, err);
}

extern "C" ser_status cuda_linear_prepare(ser_device *device, ser_plan **plan, const ser_linear_shape *shape,
                                          ser_error *err) {
  linear_plan *p = (linear_plan *)cuda_plan_make(device, sizeof *p, plan_end);
  p->shape = *shape;
  p->small = shape->in <= SMALL_IN && shape->out <= SMALL_OUT;
  ser_status status = SER_OK;
  if (!p->small) {
    status = make_products(p, err);
    /* A bias of zeros, for those who give none: whether there is one must not change the algorithm. */
    p->plan.plan.workspace = (size_t)SER_ROUND_UP(shape->out, 16) * sizeof(float);
  }
  if (status != SER_OK) {
    ser_plan_free(&p->plan.plan);
    p = NULL;
  }
  *plan = p ? &p->plan.plan : NULL;
  return status;
}

/* ---- small layers ------------------------------------------------------------------------------------------------ */

typedef struct {
  int in, out, in_stride, out_stride;
} sizes;

static sizes sizes_of(const linear_plan *p) {
  sizes s = {(int)p->shape.in, (int)p->shape.out, (int)p->shape.in_stride, (int)p->shape.out_stride};
  return s;
}

/* A warp a row, a lane an output; the block's rows share the weights, turned round. */
static __global__ void linear_forward_kernel(float *out, const float *x, const float *w, const float *bias, sizes s,
                                             int64_t rows) {
  extern __shared__ float shared[]; /* w [in][SMALL_OUT + 1], x [ROWS][in] */
  float *weights = shared, *own = shared + s.in * (SMALL_OUT + 1) + (int)threadIdx.y * s.in;
  int64_t row = (int64_t)blockIdx.x * ROWS + threadIdx.y;
  int lane = (int)threadIdx.x, thread = (int)threadIdx.y * WARP + lane;
  for (int k = thread; k < s.in * s.out; k += THREADS) {
    int o = k / s.in, i = k - o * s.in;
    weights[i * (SMALL_OUT + 1) + o] = w[k];
  }
  if (row < rows)
    for (int i = lane; i < s.in; i += WARP) own[i] = x[row * s.in_stride + i];
  __syncthreads();
  if (row >= rows) return;
  float sum = bias && lane < s.out ? bias[lane] : 0;
  if (lane < s.out) {
    for (int i = 0; i < s.in; i++) sum = fmaf(own[i], weights[i * (SMALL_OUT + 1) + lane], sum);
    out[row * s.out_stride + lane] = sum;
  }
  for (int o = s.out + lane; o < s.out_stride; o += WARP) out[row * s.out_stride + o] = 0;
}

/* A thread an element of dx. */
static __global__ void linear_dx_kernel(float *dx, const float *dout, const float *w, sizes s, int64_t rows) {
  int64_t row = (int64_t)blockIdx.x * ROWS + threadIdx.y;
  if (row >= rows) return;
  for (int i = (int)threadIdx.x; i < s.in_stride; i += WARP) {
    float sum = 0;
    for (int o = 0; o < s.out && i < s.in; o++) sum = fmaf(dout[row * s.out_stride + o], w[o * s.in + i], sum);
    dx[row * s.in_stride + i] = sum;
  }
}

/* A thread an element of dw; rows in order. */
static __global__ void linear_dw_kernel(float *dw, const float *dout, const float *x, sizes s, int64_t rows) {
  int k = (int)(blockIdx.x * THREADS + threadIdx.x);
  if (k >= s.in * s.out) return;
  int o = k / s.in, i = k - o * s.in;
  float sum = 0;
  for (int64_t r = 0; r < rows; r++) sum = fmaf(dout[r * s.out_stride + o], x[r * s.in_stride + i], sum);
  dw[k] = sum;
}

/* ---- of all sizes ------------------------------------------------------------------------------------------------ */

/* A block an output; the threads' sums in double, added by halves. */
static __global__ void linear_dbias_kernel(float *dbias, const float *dout, int64_t out_stride, int64_t rows) {
  __shared__ double sums[BIAS_THREADS];
  double sum = 0;
  for (int64_t r = threadIdx.x; r < rows; r += BIAS_THREADS) sum += (double)dout[r * out_stride + blockIdx.x];
  sums[threadIdx.x] = sum;
  for (int half = BIAS_THREADS / 2; half; half /= 2) {
    __syncthreads();
    if ((int)threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) dbias[blockIdx.x] = (float)sums[0];
}

/* Zeros from column `from` of each row to its end. */
static __global__ void linear_padding_kernel(float *rows_of, int from, int stride, int64_t rows) {
  int64_t row = (int64_t)blockIdx.x * ROWS + threadIdx.y;
  if (row >= rows) return;
  for (int i = from + (int)threadIdx.x; i < stride; i += WARP) rows_of[row * stride + i] = 0;
}

static void clear_padding(ser_stream *stream, float *rows_of, int64_t from, int64_t stride, int64_t rows) {
  if (from < stride)
    CUDA_LAUNCH(stream, linear_padding_kernel, cuda_blocks(rows, ROWS), dim3(WARP, ROWS), 0, rows_of, (int)from,
                (int)stride, rows);
}

/* Runs a product; `varying` are the layouts that follow the number of rows, as columns. */
static void run_product(ser_stream *stream, const linear_plan *p, const product *of, const float *a, const float *b,
                        float *d, const cublasLtMatrixLayout_t *varying, int count, int64_t rows) {
  const float one = 1, none = 0;
  uint64_t columns = (uint64_t)rows;
  for (int i = 0; i < count; i++)
    CUDA_CALL(stream, CUDA_LT,
              cublasLtMatrixLayoutSetAttribute(varying[i], CUBLASLT_MATRIX_LAYOUT_COLS, &columns, sizeof columns));
  CUDA_CALL(stream, CUDA_LT,
            cublasLtMatmul(p->lt, of->matmul, &one, a, of->a, b, of->b, &none, d, of->d, d, of->d, &of->algorithm, NULL,
                           0, stream->cuda));
}

static void forward_large(ser_stream *stream, const linear_plan *p, float *zeros, float *out, const float *x,
                          const float *w, const float *bias, int64_t rows) {
  const cublasLtMatrixLayout_t varying[] = {p->forward.b, p->forward.d};
  if (!bias) {
    CUDA_DO(stream, cudaMemsetAsync(zeros, 0, p->plan.plan.workspace, stream->cuda));
    bias = zeros;
  }
  CUDA_CALL(stream, CUDA_LT,
            cublasLtMatmulDescSetAttribute(p->forward.matmul, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
  run_product(stream, p, &p->forward, w, x, out, varying, 2, rows);
  clear_padding(stream, out, p->shape.out, p->shape.out_stride, rows);
}

extern "C" void cuda_linear_forward(ser_stream *stream, const ser_plan *plan, void *workspace, float *out,
                                    const float *x, const float *w, const float *bias, int64_t rows) {
  const linear_plan *p = (const linear_plan *)plan;
  size_t shared = (size_t)(p->shape.in * (SMALL_OUT + 1 + ROWS)) * sizeof(float);
  if (!rows) return;
  if (p->small)
    CUDA_LAUNCH(stream, linear_forward_kernel, cuda_blocks(rows, ROWS), dim3(WARP, ROWS), shared, out, x, w, bias,
                sizes_of(p), rows);
  else
    forward_large(stream, p, (float *)workspace, out, x, w, bias, rows);
}

static void backward_large(ser_stream *stream, const linear_plan *p, float *dx, float *dw, const float *dout,
                           const float *x, const float *w, int64_t rows) {
  const cublasLtMatrixLayout_t of_dx[] = {p->dx.b, p->dx.d}, of_dw[] = {p->dw.a, p->dw.b};
  if (dx) {
    run_product(stream, p, &p->dx, w, dout, dx, of_dx, 2, rows);
    clear_padding(stream, dx, p->shape.in, p->shape.in_stride, rows);
  }
  run_product(stream, p, &p->dw, x, dout, dw, of_dw, 2, rows);
}

extern "C" void cuda_linear_backward(ser_stream *stream, const ser_plan *plan, void *workspace, float *dx, float *dw,
                                     float *dbias, const float *dout, const float *x, const float *w, int64_t rows) {
  const linear_plan *p = (const linear_plan *)plan;
  sizes s = sizes_of(p);
  (void)workspace;
  if (!p->small) {
    backward_large(stream, p, dx, dw, dout, x, w, rows);
  } else {
    if (dx && rows)
      CUDA_LAUNCH(stream, linear_dx_kernel, cuda_blocks(rows, ROWS), dim3(WARP, ROWS), 0, dx, dout, w, s, rows);
    CUDA_LAUNCH(stream, linear_dw_kernel, cuda_blocks(s.in * s.out, THREADS), THREADS, 0, dw, dout, x, s, rows);
  }
  if (dbias)
    CUDA_LAUNCH(stream, linear_dbias_kernel, (unsigned)s.out, BIAS_THREADS, 0, dbias, dout, p->shape.out_stride, rows);
}
