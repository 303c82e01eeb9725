/* The causal dilated convolution by way of cuDNN (conv_forward.c and conv_backward.c say what it computes). cuDNN pads
 * both sides alike, we the past alone: so the activation is written into a tile with (K - 1) * dilation zeros in front
 * of each row, and cuDNN convolves that without padding, H being 1, straight into y by its strides. A last pass adds
 * the bias, clears the padding and takes the moments, or brings the gradient of the data home and takes its sums. The
 * sides are two calls: their tensors lie too far apart for one with groups.
 *
 * Algorithms are fixed, all of them deterministic, and in FP32 without tensor cores unless TF32 is asked for. What a
 * clip's bytes are is left to cuDNN: they are the same from run to run, but may change with the size of the batch. */
#include "kernels/conv_cuda.h"

#include <stdlib.h>

struct conv_cudnn {
  cudnnHandle_t handle;
  cudnnTensorDescriptor_t x, y; /* of tiles with a margin; of tensors as they are */
  cudnnFilterDescriptor_t w;
  cudnnConvolutionDescriptor_t conv;
  cudnnConvolutionFwdAlgo_t forward;
  int64_t batch; /* that x and y are set for */
  int margin, pitch;
  size_t tile, dy; /* floats of both sides' activations or gradients of the data, of their gradients at y */
  size_t room;     /* bytes that cuDNN needs */
};

static const cudnnConvolutionBwdDataAlgo_t data_algorithm = CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
static const cudnnConvolutionBwdFilterAlgo_t filter_algorithm = CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;

/* ---- the plan -----------------------------------------------------------------------------------------------------
 */

/* Sets the number of clips: numbers in memory of the host, nothing is made. */
static int set_batch(struct conv_cudnn *c, const conv_plan *p, int64_t batch) {
  if (c->batch == batch) return CUDNN_STATUS_SUCCESS;
  int n = (int)batch, width = c->margin + p->in.t;
  c->batch = 0;
  int status = (int)cudnnSetTensor4dDescriptorEx(c->x, CUDNN_DATA_FLOAT, n, p->in.c, 1, width, p->in.cp * c->pitch,
                                                 c->pitch, c->pitch, 1);
  if (!status)
    status = (int)cudnnSetTensor4dDescriptorEx(c->y, CUDNN_DATA_FLOAT, n, p->out.c, 1, p->out.t, p->out.cp * p->out.tp,
                                               p->out.tp, p->out.tp, 1);
  if (!status) c->batch = batch;
  return status;
}

static ser_status make_descriptors(struct conv_cudnn *c, const conv_plan *p, ser_error *err) {
  const ser_conv_shape *s = &p->shape;
  /* The default, not TENSOR_OP: that is TF32 from sm_80 on and nothing less. */
  cudnnMathType_t math = p->base.device->precision == SER_PRECISION_TF32 ? CUDNN_DEFAULT_MATH : CUDNN_FMA_MATH;
  CUDA_TRY(CUDA_DNN, cudnnCreateTensorDescriptor(&c->x), err);
  CUDA_TRY(CUDA_DNN, cudnnCreateTensorDescriptor(&c->y), err);
  CUDA_TRY(CUDA_DNN, cudnnCreateFilterDescriptor(&c->w), err);
  CUDA_TRY(CUDA_DNN, cudnnCreateConvolutionDescriptor(&c->conv), err);
  CUDA_TRY(CUDA_DNN,
           cudnnSetFilter4dDescriptor(c->w, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NCHW, p->out.c, p->in.c, 1, (int)s->kernel),
           err);
  CUDA_TRY(CUDA_DNN,
           cudnnSetConvolution2dDescriptor(c->conv, 0, 0, 1, 1, 1, conv_dilation(s), CUDNN_CROSS_CORRELATION,
                                           CUDNN_DATA_FLOAT),
           err);
  CUDA_TRY(CUDA_DNN, cudnnSetConvolutionMathType(c->conv, math), err);
  return SER_OK;
}

/* The most that the three ask for with any number of clips: it need not grow with them. */
static ser_status find_room(struct conv_cudnn *c, const conv_plan *p, ser_error *err) {
  for (int64_t batch = 1; batch <= p->shape.batch; batch++) {
    size_t bytes[3] = {0};
    CUDA_TRY(CUDA_DNN, set_batch(c, p, batch), err);
    CUDA_TRY(CUDA_DNN,
             cudnnGetConvolutionForwardWorkspaceSize(c->handle, c->x, c->w, c->conv, c->y, c->forward, &bytes[0]), err);
    CUDA_TRY(
        CUDA_DNN,
        cudnnGetConvolutionBackwardDataWorkspaceSize(c->handle, c->w, c->y, c->conv, c->x, data_algorithm, &bytes[1]),
        err);
    CUDA_TRY(CUDA_DNN,
             cudnnGetConvolutionBackwardFilterWorkspaceSize(c->handle, c->x, c->y, c->conv, c->w, filter_algorithm,
                                                            &bytes[2]),
             err);
    for (int i = 0; i < 3; i++) c->room = bytes[i] > c->room ? bytes[i] : c->room;
  }
  return SER_OK;
}

ser_status conv_cudnn_prepare(conv_plan *p, ser_error *err) {
  const ser_conv_shape *s = &p->shape;
  struct conv_cudnn *c = (struct conv_cudnn *)ser_alloc_zero(1, sizeof *c);
  p->cudnn = c;
  c->forward = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
  c->margin = (p->shape.kernel - 1) * conv_dilation(s);
  c->pitch = c->margin + p->in.tp; /* without a margin the layout of the tensor itself */
  c->tile = (size_t)SER_ROUND_UP(s->sides * s->batch * p->in.cp * c->pitch, 64);
  c->dy = (size_t)(s->sides * s->batch * p->out.cp * p->out.tp);
  c->dy = SER_ROUND_UP(c->dy, 64);
  SER_TRY(cuda_dnn(&c->handle, p->base.device, err));
  SER_TRY(make_descriptors(c, p, err));
  SER_TRY(find_room(c, p, err));
  p->base.plan.workspace = (c->tile + c->dy) * sizeof(float) + c->room;
  return SER_OK;
}

void conv_cudnn_end(conv_plan *p) {
  struct conv_cudnn *c = p->cudnn;
  if (!c) return;
  if (c->x) cudnnDestroyTensorDescriptor(c->x);
  if (c->y) cudnnDestroyTensorDescriptor(c->y);
  if (c->w) cudnnDestroyFilterDescriptor(c->w);
  if (c->conv) cudnnDestroyConvolutionDescriptor(c->conv);
  free(c);
  p->cudnn = NULL;
}

/* ---- kernels: a warp a row -----------------------------------------------------------------------------------------
 */

enum { WARPS = 8 };

/* A row's channel, clip (which counts through the sides) and side. */
typedef struct {
  int c, side;
  size_t clip;
} row_place;

static __device__ __forceinline__ bool row_place_of(row_place *at, int channels, int batch, int64_t rows) {
  int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
  at->c = (int)(row % channels);
  at->clip = (size_t)(row / channels);
  at->side = (int)(at->clip / batch);
  return row < rows;
}

static __device__ __forceinline__ float warp_sum(float v) {
  for (int step = 16; step; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
  return v;
}

/* tile [S][B][Cp][pitch]: the activation behind `margin` zeros. rows: S * B * C. */
__global__ void conv_tile_kernel(float *tile, const __grid_constant__ ser_gradient x, conv_dims d, int margin,
                                 int batch, int64_t rows) {
  row_place at;
  if (!row_place_of(&at, d.c, batch, rows)) return;
  conv_row row = conv_row_of(conv_row_part(&x, at.side, at.clip, at.c, d.cp), false);
  size_t place = at.clip * d.cp + at.c;
  float *to = tile + place * (margin + d.tp);
  const float *from = x.y.x + place * d.tp;
  for (int t = threadIdx.x % 32; t < margin; t += 32) to[t] = 0;
  for (int t = threadIdx.x % 32; t < d.t; t += 32) to[margin + t] = conv_activation(&row, __ldg(from + t), !x.y.scale);
}

/* dy [S][B][Cp][Tp]. */
__global__ void conv_gradient_kernel(float *dy, const __grid_constant__ ser_gradient g, conv_dims d, int batch,
                                     int64_t rows) {
  row_place at;
  if (!row_place_of(&at, d.c, batch, rows)) return;
  conv_row row = conv_row_of(conv_row_part(&g, at.side, at.clip, at.c, d.cp), true);
  size_t place = (at.clip * d.cp + at.c) * d.tp;
  for (int t = threadIdx.x % 32; t < d.t; t += 32)
    dy[place + t] = conv_gradient(&row, __ldg(g.da + place + t), __ldg(g.y.x + place + t), false);
}

/* y with its bias and zero padding, and its moments in two passes. rows: S * B * Cp. */
__global__ void conv_finish_kernel(float *y, float *moments, const float *bias, int64_t bias_side, conv_dims d,
                                   int batch, int64_t rows) {
  row_place at;
  if (!row_place_of(&at, d.cp, batch, rows)) return;
  bool real = at.c < d.c;
  float add = bias && real ? __ldg(bias + at.side * bias_side + at.c) : 0, sum = 0, squares = 0;
  float *row = y + (at.clip * d.cp + at.c) * d.tp;
  for (int t = threadIdx.x % 32; t < d.tp; t += 32) {
    float v = real && t < d.t ? row[t] + add : 0;
    row[t] = v;
    sum += v;
  }
  if (!moments) return;
  float mean = warp_sum(sum) / (float)d.t;
  for (int t = threadIdx.x % 32; t < d.t; t += 32) squares = fmaf(row[t] - mean, row[t] - mean, squares);
  squares = warp_sum(squares);
  if (threadIdx.x % 32) return;
  moments[at.clip * 2 * d.cp + at.c] = mean;
  moments[(at.clip * 2 + 1) * d.cp + at.c] = squares;
}

/* dx from the tile, its padding, and the sums for the norm in front. rows: S * B * Cp. */
typedef struct {
  float *dx, *next; /* next or NULL */
  const float *tile;
  ser_gradient x_norm;
  conv_dims d;
  int margin, batch;
  bool add;
  int64_t rows;
} home_work;

__global__ void conv_home_kernel(const __grid_constant__ home_work k) {
  const conv_dims *d = &k.d;
  row_place at;
  if (!row_place_of(&at, d->cp, k.batch, k.rows)) return;
  bool real = at.c < d->c, summed = k.next && real;
  conv_row row = {};
  if (summed) row = conv_row_of(conv_row_part(&k.x_norm, at.side, at.clip, at.c, d->cp), true);
  size_t place = at.clip * d->cp + at.c;
  const float *from = k.tile + place * (k.margin + d->tp) + k.margin, *x = k.x_norm.y.x + place * d->tp;
  float *to = k.dx + place * d->tp, dz = 0, product = 0;
  for (int t = threadIdx.x % 32; t < d->tp; t += 32) {
    float v = real && t < d->t ? from[t] + (k.add ? to[t] : 0) : 0;
    to[t] = v;
    if (!summed || t >= d->t || !(fmaf(__ldg(x + t), row.scale, row.shift) > 0)) continue;
    dz += v;
    product = fmaf(v, __ldg(x + t) - row.mean, product);
  }
  if (!k.next) return;
  dz = warp_sum(dz) * row.drop;
  product = warp_sum(product) * row.drop;
  if (threadIdx.x % 32) return;
  k.next[at.clip * 2 * d->cp + at.c] = dz;
  float inv_std = summed ? __ldg(k.x_norm.inv_std + (size_t)at.side * d->cp + at.c) : 0;
  k.next[(at.clip * 2 + 1) * d->cp + at.c] = product * inv_std;
}

/* dbias of one channel on one side, a block's: every warp takes some clips, in order. */
__global__ void conv_bias_kernel(float *dbias, const float *dy, int64_t bias_side, conv_dims d, int batch) {
  __shared__ double of_warp[WARPS];
  int o = (int)(blockIdx.x % d.c), side = (int)(blockIdx.x / d.c), warp = (int)threadIdx.x / 32;
  double sum = 0;
  for (int b = warp; b < batch; b += WARPS) {
    const float *row = dy + (((size_t)side * batch + b) * d.cp + o) * d.tp;
    float part = 0;
    for (int t = threadIdx.x % 32; t < d.t; t += 32) part += __ldg(row + t);
    sum += (double)warp_sum(part);
  }
  if (threadIdx.x % 32 == 0) of_warp[warp] = sum;
  __syncthreads();
  if (threadIdx.x) return;
  for (int w = 1; w < WARPS; w++) sum += of_warp[w];
  dbias[side * bias_side + o] = (float)sum;
}

/* ---- running ------------------------------------------------------------------------------------------------------
 */

static const float one = 1, zero = 0;

/* The activation as cuDNN reads it: x itself where nothing is to be done to it. */
static const float *read_tile(ser_stream *stream, const conv_plan *p, float *tile, const ser_activation *x,
                              int64_t batch) {
  const struct conv_cudnn *c = p->cudnn;
  int64_t rows = p->shape.sides * batch * p->in.c;
  ser_gradient from = {};
  from.y = *x;
  if (!x->scale && !c->margin) return x->x;
  CUDA_LAUNCH(stream, conv_tile_kernel, cuda_blocks(rows, WARPS), 32 * WARPS, 0, tile, from, p->in, c->margin,
              (int)batch, rows);
  return tile;
}

static void begin(ser_stream *stream, const conv_plan *p, int64_t batch) {
  CUDA_CALL(stream, CUDA_DNN, cudnnSetStream(p->cudnn->handle, stream->cuda));
  CUDA_CALL(stream, CUDA_DNN, set_batch(p->cudnn, p, batch));
}

void conv_cudnn_forward(ser_stream *stream, const conv_plan *p, void *workspace, float *y, float *moments,
                        const ser_activation *x, const float *w, const float *bias, int64_t batch) {
  const struct conv_cudnn *c = p->cudnn;
  const ser_conv_shape *s = &p->shape;
  float *tile = (float *)workspace;
  void *room = tile + c->tile + c->dy;
  int64_t x_side = batch * p->in.cp * c->pitch, y_side = batch * p->out.cp * p->out.tp;
  begin(stream, p, batch);
  const float *a = read_tile(stream, p, tile, x, batch);
  for (int64_t side = 0; side < s->sides; side++)
    CUDA_CALL(stream, CUDA_DNN,
              cudnnConvolutionForward(c->handle, &one, c->x, a + side * x_side, c->w, w + side * s->side_stride,
                                      c->conv, c->forward, room, c->room, &zero, c->y, y + side * y_side));
  int64_t rows = s->sides * batch * p->out.cp;
  CUDA_LAUNCH(stream, conv_finish_kernel, cuda_blocks(rows, WARPS), 32 * WARPS, 0, y, moments, bias, s->side_stride,
              p->out, (int)batch, rows);
}

/* dx by way of the tile, which nobody needs any more. */
static void data_gradient(ser_stream *stream, const conv_plan *p, float *tile, void *room, home_work *k,
                          const float *dy, const float *w) {
  const struct conv_cudnn *c = p->cudnn;
  int64_t x_side = k->batch * (int64_t)p->in.cp * c->pitch, y_side = k->batch * (int64_t)p->out.cp * p->out.tp;
  for (int64_t side = 0; side < p->shape.sides; side++)
    CUDA_CALL(stream, CUDA_DNN,
              cudnnConvolutionBackwardData(c->handle, &one, c->w, w + side * p->shape.side_stride, c->y,
                                           dy + side * y_side, c->conv, data_algorithm, room, c->room, &zero, c->x,
                                           tile + side * x_side));
  k->tile = tile;
  k->d = p->in;
  k->margin = c->margin;
  k->rows = p->shape.sides * k->batch * p->in.cp;
  CUDA_LAUNCH(stream, conv_home_kernel, cuda_blocks(k->rows, WARPS), 32 * WARPS, 0, *k);
}

void conv_cudnn_backward(ser_stream *stream, const conv_plan *p, void *workspace, float *dx, float *dw, float *dbias,
                         float *next, const ser_activation *x, const ser_gradient *x_norm, const ser_gradient *dy,
                         const float *w, bool add_dx, int64_t batch) {
  const struct conv_cudnn *c = p->cudnn;
  const ser_conv_shape *s = &p->shape;
  float *tile = (float *)workspace, *dy_tile = tile + c->tile;
  void *room = dy_tile + c->dy;
  int64_t x_side = batch * p->in.cp * c->pitch, y_side = batch * p->out.cp * p->out.tp;
  begin(stream, p, batch);
  const float *a = read_tile(stream, p, tile, x, batch), *g = dy->da;
  if (dy->y.scale) {
    int64_t rows = s->sides * batch * p->out.c;
    CUDA_LAUNCH(stream, conv_gradient_kernel, cuda_blocks(rows, WARPS), 32 * WARPS, 0, dy_tile, *dy, p->out, (int)batch,
                rows);
    g = dy_tile;
  }
  for (int64_t side = 0; side < s->sides; side++)
    CUDA_CALL(stream, CUDA_DNN,
              cudnnConvolutionBackwardFilter(c->handle, &one, c->x, a + side * x_side, c->y, g + side * y_side, c->conv,
                                             filter_algorithm, room, c->room, &zero, c->w, dw + side * s->side_stride));
  if (dbias)
    CUDA_LAUNCH(stream, conv_bias_kernel, (unsigned)(s->sides * p->out.c), 32 * WARPS, 0, dbias, g, s->side_stride,
                p->out, (int)batch);
  if (!dx) return;
  home_work k = {};
  k.dx = dx;
  k.next = next;
  if (next) k.x_norm = *x_norm;
  k.batch = (int)batch;
  k.add = add_dx;
  data_gradient(stream, p, tile, room, &k, g, w);
}
