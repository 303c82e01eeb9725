/* The causal dilated convolution by way of cuDNN (conv_forward.c and conv_backward.c say what it computes). cuDNN pads
 * both sides alike, we the past alone: so the activation is written into a tile with (K - 1) * dilation zeros in front
 * of each row, and cuDNN convolves that without padding, H being 1. A last pass brings what it made home, into the
 * layout with padding: y with its bias and moments, or the gradient of the data with its sums. The sides are two calls:
 * their tensors lie too far apart for one with groups.
 *
 * All that cuDNN reads and makes is packed, without a gap between rows, channels or clips. Its algorithms for gradients
 * ask that of dy (NVIDIA's table: "NCHW CHW-packed") and refuse other strides; x, dx and y might have any, but packed
 * ones are what is commonly given, and cost little here: nearly all of them go through a pass of ours anyway. Sides
 * begin on 256 bytes. All three algorithms dilate from cuDNN 7.3 on.
 *
 * Algorithms are fixed, all of them deterministic, and in FP32 without tensor cores unless TF32 is asked for. What a
 * clip's bytes are is left to cuDNN: they are the same from run to run, but may change with the size of the batch. */
#include "kernels/conv_cuda.h"

#include <stdlib.h>

struct conv_cudnn {
  cudnnHandle_t handle;
  cudnnTensorDescriptor_t x, y; /* of the tile or dx; of y or dy */
  cudnnFilterDescriptor_t w;
  cudnnConvolutionDescriptor_t conv;
  cudnnConvolutionFwdAlgo_t forward;
  int64_t batch; /* that x and y are set for */
  int margin;
  size_t tile, out; /* floats of both sides' tiles, of both sides' y or dy */
  size_t room;      /* bytes that cuDNN needs */
};

static const cudnnConvolutionBwdDataAlgo_t data_algorithm = CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
static const cudnnConvolutionBwdFilterAlgo_t filter_algorithm = CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;

/* ---- the plan -----------------------------------------------------------------------------------------------------
 */

/* No tensor's strides are given by hand: NCHW means packed. */
static int set_packed(cudnnTensorDescriptor_t tensor, int64_t clips, int channels, int width) {
  return CUDA_ASK(
      cudnnSetTensor4dDescriptor(tensor, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, (int)clips, channels, 1, width));
}

/* Floats from side to side of such a tensor. */
static int64_t packed_side(int64_t clips, int channels, int width) {
  return SER_ROUND_UP(clips * channels * width, 64);
}

/* Sets the number of clips: numbers in memory of the host, nothing is made. */
static int set_batch(struct conv_cudnn *c, const conv_plan *p, int64_t batch) {
  if (c->batch == batch) return CUDNN_STATUS_SUCCESS;
  c->batch = 0;
  int status = set_packed(c->x, batch, p->in.c, c->margin + p->in.t);
  if (!status) status = set_packed(c->y, batch, p->out.c, p->out.t);
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

/* The most that the three ask for with any number of clips: it need not grow with them, nor does cuDNN promise that it
 * does. Each question costs the library some work, so of large batches only so many sizes are asked for, evenly spread
 * and the largest among them; cuDNN refuses to run where one between them needs more than all of these.
 *
 * Fewer would not be safe. A plan is not told which sizes it will run (a training's two, of which the smaller follows
 * from the data; any, where the folded branch is done by parts), and one that asked for the largest alone would end a
 * training at its last batch wherever that needs more. Asked later, size by size, the answer would come too late: the
 * workspace is a part of what the caller allocated, and nothing is allocated in a loop. Two convolutions of a block
 * share a plan, so a training of 8 blocks and batches of 64 asks 9 times 64 times 3 questions, once. */
static const int64_t all_sizes = 64, sizes_between = 64;

static int64_t next_size(int64_t batch, int64_t most) {
  if (batch == most) return most + 1;
  int64_t next = batch < all_sizes ? batch + 1 : batch + (most + sizes_between - 1) / sizes_between;
  return next < most ? next : most;
}

static ser_status find_room(struct conv_cudnn *c, const conv_plan *p, ser_error *err) {
  for (int64_t batch = 1; batch <= p->shape.batch; batch = next_size(batch, p->shape.batch)) {
    size_t bytes[3] = {0};
    CUDA_TRY_SAID(CUDA_DNN, set_batch(c, p, batch), err);
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
  c->tile = (size_t)(s->sides * packed_side(s->batch, p->in.c, c->margin + p->in.t));
  c->out = (size_t)(s->sides * packed_side(s->batch, p->out.c, p->out.t));
  SER_TRY(cuda_dnn(&c->handle, p->base.device, err));
  SER_TRY(make_descriptors(c, p, err));
  SER_TRY(find_room(c, p, err));
  p->base.plan.workspace = (c->tile + c->out) * sizeof(float) + c->room;
  return SER_OK;
}

void conv_cudnn_end(conv_plan *p) {
  struct conv_cudnn *c = p->cudnn;
  if (!c) return;
  if (c->x) CUDA_END(cudnnDestroyTensorDescriptor(c->x));
  if (c->y) CUDA_END(cudnnDestroyTensorDescriptor(c->y));
  if (c->w) CUDA_END(cudnnDestroyFilterDescriptor(c->w));
  if (c->conv) CUDA_END(cudnnDestroyConvolutionDescriptor(c->conv));
  free(c);
  p->cudnn = NULL;
}

/* ---- kernels: a warp a row -----------------------------------------------------------------------------------------
 */

/* The warp's row, false where there is none. */
static __device__ __forceinline__ bool row_of(cuda_row *row, const cuda_dims &d) {
  int64_t at = (int64_t)blockIdx.x * CUDA_ROWS + threadIdx.x / 32;
  if (at >= (int64_t)d.sides * d.batch * d.cp) return false;
  *row = cuda_row_at((int)at, d);
  return true;
}

/* A tensor as cuDNN has it: [S][B][C][margin + T], sides so many floats apart. */
typedef struct {
  float *data;
  int64_t side;
  int margin;
} conv_packed;

/* Where the row begins, its margin included; not for a channel of the padding, which is not there. */
static __device__ __forceinline__ float *packed_row(const conv_packed &p, const cuda_row &row, const cuda_dims &d) {
  return p.data + row.side * p.side + ((int64_t)row.b * d.c + row.c) * (p.margin + d.t);
}

/* The activation behind its margin of zeros. */
__global__ void conv_tile_kernel(conv_packed tile, const __grid_constant__ ser_activation x, cuda_dims d) {
  cuda_row row;
  if (!row_of(&row, d) || row.c >= d.c) return;
  cuda_act act = cuda_act_of(x, row, d);
  float *to = packed_row(tile, row, d);
  for (int t = threadIdx.x % 32; t < tile.margin; t += 32) to[t] = 0;
  for (int t = threadIdx.x % 32; t < d.t; t += 32) to[tile.margin + t] = cuda_act_value(act, act.x[t]);
}

/* The gradient at y, whose rows have no margin. */
__global__ void conv_gradient_kernel(conv_packed dy, const __grid_constant__ ser_gradient g, cuda_dims d) {
  cuda_row row;
  if (!row_of(&row, d) || row.c >= d.c) return;
  cuda_grad grad = cuda_grad_of(g, row, d);
  float *to = packed_row(dy, row, d);
  for (int t = threadIdx.x % 32; t < d.t; t += 32)
    to[t] = cuda_grad_value(grad, grad.da[t], grad.plain ? 0 : grad.y[t]);
}

/* y from what cuDNN made, with its bias and zero padding, and its moments in two passes. */
__global__ void conv_finish_kernel(float *y, float *moments, conv_packed made, const float *bias, int64_t bias_side,
                                   cuda_dims d) {
  cuda_row row;
  if (!row_of(&row, d)) return;
  bool real = row.c < d.c;
  const float *from = packed_row(made, row, d);
  float add = bias && real ? bias[row.side * bias_side + row.c] : 0, *values = y + (size_t)row.at * d.tp;
  float sum = 0, squares = 0;
  for (int t = threadIdx.x % 32; t < d.tp; t += 32) {
    float v = real && t < d.t ? from[t] + add : 0;
    values[t] = v;
    sum += v;
  }
  if (!moments) return;
  float mean = (float)(cuda_warp_sum((double)sum) / d.t);
  for (int t = threadIdx.x % 32; t < d.t; t += 32) squares = fmaf(values[t] - mean, values[t] - mean, squares);
  squares = (float)cuda_warp_sum((double)squares);
  if (threadIdx.x % 32) return;
  float *to = moments + (size_t)(row.at - row.c) * 2 + row.c;
  to[0] = mean;
  to[d.cp] = squares;
}

/* dx from the tile, its padding, and the sums for the norm in front. */
typedef struct {
  float *dx, *next; /* next or NULL */
  conv_packed tile;
  ser_gradient x_norm;
  cuda_dims d;
  bool add;
} home_work;

__global__ void conv_home_kernel(const __grid_constant__ home_work k) {
  const cuda_dims &d = k.d;
  cuda_row row;
  if (!row_of(&row, d)) return;
  bool real = row.c < d.c, summed = k.next && real;
  cuda_grad grad = {};
  if (summed) grad = cuda_grad_of(k.x_norm, row, d);
  const float *from = packed_row(k.tile, row, d) + k.tile.margin;
  float *to = k.dx + (size_t)row.at * d.tp, dz = 0, product = 0;
  for (int t = threadIdx.x % 32; t < d.tp; t += 32) {
    float v = real && t < d.t ? from[t] + (k.add ? to[t] : 0) : 0;
    to[t] = v;
    if (summed && t < d.t) cuda_grad_add(&dz, &product, grad, v, grad.y[t]);
  }
  if (!k.next) return;
  double dz_sum = cuda_warp_sum((double)dz) * grad.drop;
  double product_sum = cuda_warp_sum((double)product) * grad.drop * grad.inv_std;
  if (threadIdx.x % 32) return;
  float *next = k.next + (size_t)(row.at - row.c) * 2 + row.c;
  next[0] = (float)dz_sum;
  next[d.cp] = (float)product_sum;
}

/* dbias of one channel on one side, a block's: every warp takes some clips, in order. */
__global__ void conv_bias_kernel(float *dbias, conv_packed dy, int64_t bias_side, cuda_dims d) {
  __shared__ double room[32];
  int o = (int)blockIdx.x % d.c, side = (int)blockIdx.x / d.c;
  double sum = 0;
  for (int b = threadIdx.x / 32; b < d.batch; b += CUDA_ROWS) {
    const float *values = packed_row(dy, cuda_row_of(side, b, o, d), d);
    float part = 0;
    for (int t = threadIdx.x % 32; t < d.t; t += 32) part += values[t];
    sum += (double)part;
  }
  sum = cuda_block_sum(sum, room);
  if (threadIdx.x == 0) dbias[side * bias_side + o] = (float)sum;
}

/* ---- running ------------------------------------------------------------------------------------------------------
 */

static const float one = 1, zero = 0;
static const unsigned row_threads = 32 * CUDA_ROWS;

static unsigned row_blocks(const cuda_dims *d) {
  return cuda_blocks((int64_t)d->sides * d->batch * d->cp, CUDA_ROWS);
}

/* What a run works with: the parts of the workspace. */
typedef struct {
  const struct conv_cudnn *c;
  cuda_dims in, out;
  conv_packed tile, made; /* made: y or dy */
  void *room;
} cudnn_run;

static cudnn_run begin(ser_stream *stream, const conv_plan *p, void *workspace, int64_t batch) {
  struct conv_cudnn *c = p->cudnn;
  cudnn_run run = {};
  CUDA_SET(stream, CUDA_DNN, cudnnSetStream(c->handle, stream->cuda));
  CUDA_SAID(stream, CUDA_DNN, set_batch(c, p, batch));
  run.c = c;
  run.in = p->in;
  run.out = p->out;
  run.in.batch = run.out.batch = (int)batch;
  float *tile = (float *)workspace, *made = tile + c->tile;
  run.tile = {tile, packed_side(batch, run.in.c, c->margin + run.in.t), c->margin};
  run.made = {made, packed_side(batch, run.out.c, run.out.t), 0};
  run.room = made + c->out;
  return run;
}

static void fill_tile(ser_stream *stream, const cudnn_run *run, const ser_activation *x) {
  CUDA_LAUNCH(stream, conv_tile_kernel, row_blocks(&run->in), row_threads, 0, run->tile, *x, run->in);
}

void conv_cudnn_forward(ser_stream *stream, const conv_plan *p, void *workspace, float *y, float *moments,
                        const ser_activation *x, const float *w, const float *bias, int64_t batch) {
  const ser_conv_shape *s = &p->shape;
  cudnn_run run = begin(stream, p, workspace, batch);
  const struct conv_cudnn *c = run.c;
  fill_tile(stream, &run, x);
  for (int64_t side = 0; side < s->sides; side++)
    CUDA_CALL(stream, CUDA_DNN,
              cudnnConvolutionForward(c->handle, &one, c->x, run.tile.data + side * run.tile.side, c->w,
                                      w + side * s->side_stride, c->conv, c->forward, run.room, c->room, &zero, c->y,
                                      run.made.data + side * run.made.side));
  CUDA_LAUNCH(stream, conv_finish_kernel, row_blocks(&run.out), row_threads, 0, y, moments, run.made, bias,
              s->side_stride, run.out);
}

/* dx by way of the tile, which nobody needs any more. */
static void data_gradient(ser_stream *stream, const conv_plan *p, const cudnn_run *run, home_work *k, const float *w) {
  const struct conv_cudnn *c = run->c;
  for (int64_t side = 0; side < p->shape.sides; side++)
    CUDA_CALL(stream, CUDA_DNN,
              cudnnConvolutionBackwardData(c->handle, &one, c->w, w + side * p->shape.side_stride, c->y,
                                           run->made.data + side * run->made.side, c->conv, data_algorithm, run->room,
                                           c->room, &zero, c->x, run->tile.data + side * run->tile.side));
  k->tile = run->tile;
  k->d = run->in;
  CUDA_LAUNCH(stream, conv_home_kernel, row_blocks(&run->in), row_threads, 0, *k);
}

void conv_cudnn_backward(ser_stream *stream, const conv_plan *p, void *workspace, float *dx, float *dw, float *dbias,
                         float *next, const ser_activation *x, const ser_gradient *x_norm, const ser_gradient *dy,
                         const float *w, bool add_dx, int64_t batch) {
  const ser_conv_shape *s = &p->shape;
  cudnn_run run = begin(stream, p, workspace, batch);
  const struct conv_cudnn *c = run.c;
  fill_tile(stream, &run, x);
  CUDA_LAUNCH(stream, conv_gradient_kernel, row_blocks(&run.out), row_threads, 0, run.made, *dy, run.out);
  for (int64_t side = 0; side < s->sides; side++)
    CUDA_CALL(stream, CUDA_DNN,
              cudnnConvolutionBackwardFilter(c->handle, &one, c->x, run.tile.data + side * run.tile.side, c->y,
                                             run.made.data + side * run.made.side, c->conv, filter_algorithm, run.room,
                                             c->room, &zero, c->w, dw + side * s->side_stride));
  if (dbias)
    CUDA_LAUNCH(stream, conv_bias_kernel, (unsigned)(s->sides * run.out.c), row_threads, 0, dbias, run.made,
                s->side_stride, run.out);
  if (!dx) return;
  home_work k = {};
  k.dx = dx;
  k.next = next;
  if (next) k.x_norm = *x_norm;
  k.add = add_dx;
  data_gradient(stream, p, &run, &k, w);
}
