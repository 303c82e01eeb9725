/* The CUDA form of batchnorm.c: batch norm's statistics forward, its sums backward, in double where values are few. A
 * warp takes a channel of one side, or a row; clips are summed in an order that the batch fixes. */
#include "kernels/cuda_kernels.h"
#include "kernels/temporal_cuda.h"

/* The warp's lanes take the clips in turn, [first, first + stride * clips) in steps of stride. */
static __device__ double sum_of_clips(const float *first, int64_t stride, int clips) {
  double sum = 0;
  for (int b = (int)threadIdx.x; b < clips; b += CUDA_WARP) sum += (double)first[b * stride];
  return cuda_warp_sum(sum);
}

/* Where the channel's row of the block is: a warp each, CUDA_ROWS neighbours share their sectors of memory. */
static __device__ inline cuda_row channel_of_warp(const cuda_dims &d) {
  int vector = (int)(blockIdx.x * CUDA_ROWS + threadIdx.y), side = vector / d.cp;
  return cuda_row_of(side, 0, vector - side * d.cp, d);
}

typedef struct {
  float *scale, *shift, *mean, *inv_std, *running_mean, *running_var;
  const float *moments, *gamma, *beta;
  ser_batchnorm norm;
} finish_arguments;

static __global__ void batchnorm_finish_kernel(finish_arguments a, cuda_dims d) {
  cuda_row row = channel_of_warp(d);
  if (row.side >= d.sides) return;
  if (row.c >= d.c) {
    if (threadIdx.x == 0) a.scale[row.vector] = a.shift[row.vector] = a.mean[row.vector] = a.inv_std[row.vector] = 0;
    return;
  }
  int64_t stride = 2 * d.cp;
  const float *means = a.moments + row.side * d.batch * stride + row.c, *squares_of = means + d.cp;
  double m = sum_of_clips(means, stride, d.batch) / (double)d.batch, squares = 0;
  for (int b = (int)threadIdx.x; b < d.batch; b += CUDA_WARP) {
    /* squares about the batch's mean from squares about each clip's own */
    double apart = (double)means[b * stride] - m;
    squares += (double)squares_of[b * stride] + (double)d.t * apart * apart;
  }
  squares = cuda_warp_sum(squares);
  if (threadIdx.x) return;
  double n = (double)d.batch * (double)d.t, var = squares / n, r = 1 / sqrt(var + (double)a.norm.eps);
  double gamma = (double)a.gamma[row.side * a.norm.side_stride + row.c];
  double beta = (double)a.beta[row.side * a.norm.side_stride + row.c];
  a.mean[row.vector] = (float)m;
  a.inv_std[row.vector] = (float)r;
  a.scale[row.vector] = (float)(gamma * r);
  a.shift[row.vector] = (float)(beta - m * gamma * r);
  double unbiased = n > 1 ? squares / (n - 1) : var, momentum = (double)a.norm.momentum, keep = 1 - momentum;
  int64_t running = row.side * a.norm.running_stride + row.c;
  a.running_mean[running] = (float)(keep * (double)a.running_mean[running] + momentum * m);
  a.running_var[running] = (float)(keep * (double)a.running_var[running] + momentum * unbiased);
}

void cuda_batchnorm_finish(ser_stream *stream, float *scale, float *shift, float *mean, float *inv_std,
                           float *running_mean, float *running_var, const float *moments, const float *gamma,
                           const float *beta, const ser_batchnorm *norm, const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  finish_arguments a = {scale, shift, mean, inv_std, running_mean, running_var, moments, gamma, beta, *norm};
  CUDA_LAUNCH(stream, batchnorm_finish_kernel, cuda_blocks(d.sides * d.cp, CUDA_ROWS), dim3(CUDA_WARP, CUDA_ROWS), 0, a,
              d);
}

static __global__ void batchnorm_backward_sums_kernel(float *sums, ser_gradient gradient, cuda_dims d) {
  int at = (int)(blockIdx.x * CUDA_ROWS + threadIdx.y);
  if (at >= d.sides * d.batch * d.cp) return;
  cuda_row row = cuda_row_at(at, d);
  cuda_grad grad = cuda_grad_of(gradient, row, d);
  float sum = 0, product = 0;
  for (int t = 4 * (int)threadIdx.x; t < d.tp; t += 4 * CUDA_WARP) {
    float4 da = *(const float4 *)(grad.da + t), y = *(const float4 *)(grad.y + t);
    cuda_grad_add(&sum, &product, grad, da.x, y.x);
    cuda_grad_add(&sum, &product, grad, da.y, y.y);
    cuda_grad_add(&sum, &product, grad, da.z, y.z);
    cuda_grad_add(&sum, &product, grad, da.w, y.w);
  }
  double dz = cuda_warp_sum((double)sum), dz_xhat = cuda_warp_sum((double)product);
  if (threadIdx.x) return;
  float *out = sums + (int64_t)(row.side * d.batch + row.b) * 2 * d.cp + row.c;
  out[0] = (float)(dz * (double)grad.drop);
  out[d.cp] = (float)(dz_xhat * (double)grad.drop * (double)grad.inv_std);
}

void cuda_batchnorm_backward_sums(ser_stream *stream, float *sums, const ser_gradient *gradient,
                                  const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  CUDA_LAUNCH(stream, batchnorm_backward_sums_kernel, cuda_blocks(d.sides * d.batch * d.cp, CUDA_ROWS),
              dim3(CUDA_WARP, CUDA_ROWS), 0, sums, *gradient, d);
}

static __global__ void batchnorm_backward_finish_kernel(float *means, float *dgamma, float *dbeta, const float *sums,
                                                        int64_t side_stride, cuda_dims d) {
  cuda_row row = channel_of_warp(d);
  if (row.side >= d.sides) return;
  bool real = row.c < d.c;
  int64_t stride = 2 * d.cp;
  const float *first = sums + row.side * d.batch * stride + row.c;
  double sum = sum_of_clips(first, stride, d.batch), product = sum_of_clips(first + d.cp, stride, d.batch);
  double n = (double)d.batch * (double)d.t;
  if (threadIdx.x) return;
  means[row.side * stride + row.c] = real ? (float)(sum / n) : 0;
  means[row.side * stride + d.cp + row.c] = real ? (float)(product / n) : 0;
  if (!real) return;
  dbeta[row.side * side_stride + row.c] = (float)sum;
  dgamma[row.side * side_stride + row.c] = (float)product;
}

void cuda_batchnorm_backward_finish(ser_stream *stream, float *means, float *dgamma, float *dbeta, const float *sums,
                                    const ser_batchnorm *norm, const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  CUDA_LAUNCH(stream, batchnorm_backward_finish_kernel, cuda_blocks(d.sides * d.cp, CUDA_ROWS),
              dim3(CUDA_WARP, CUDA_ROWS), 0, means, dgamma, dbeta, sums, norm->side_stride, d);
}
