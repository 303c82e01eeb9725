/* Batch norm over clips and time: the statistics forward, the sums backward (torch.nn.BatchNorm1d in training mode). A
 * warp makes a channel, or a row; sums over clips and the small ends are in double, in an order that the shape fixes.
 */
#include "kernels/temporal_cuda.h"

typedef struct {
  float *scale, *shift, *mean, *inv_std, *running_mean, *running_var;
  const float *moments, *gamma, *beta;
  ser_batchnorm norm;
  cuda_dims d;
} finish_args;

static __global__ void batchnorm_finish_kernel(finish_args a) {
  int64_t row = cuda_row();
  const cuda_dims *d = &a.d;
  if (row >= (int64_t)d->sides * d->cp) return;
  int side = (int)row / d->cp, c = (int)row % d->cp;
  if (c >= d->c) {
    if (threadIdx.x == 0) a.scale[row] = a.shift[row] = a.mean[row] = a.inv_std[row] = 0;
    return;
  }
  const float *moments = a.moments + (int64_t)side * d->b * 2 * d->cp + c;
  double n = (double)d->b * (double)d->t, sum = 0, squares = 0;
  for (int b = (int)threadIdx.x; b < d->b; b += WARP) sum += (double)moments[(int64_t)b * 2 * d->cp];
  double mean = cuda_warp_sum(sum) / (double)d->b;
  /* Squares about the batch's mean from squares about each clip's own. */
  for (int b = (int)threadIdx.x; b < d->b; b += WARP) {
    double apart = (double)moments[(int64_t)b * 2 * d->cp] - mean;
    squares += (double)moments[((int64_t)b * 2 + 1) * d->cp] + (double)d->t * apart * apart;
  }
  squares = cuda_warp_sum(squares);
  if (threadIdx.x) return;
  int64_t own = side * a.norm.side_stride + c, running = side * a.norm.running_stride + c;
  double var = squares / n, r = 1 / sqrt(var + (double)a.norm.eps), gamma = (double)a.gamma[own];
  double unbiased = n > 1 ? squares / (n - 1) : var, momentum = (double)a.norm.momentum;
  a.mean[row] = (float)mean;
  a.inv_std[row] = (float)r;
  a.scale[row] = (float)(gamma * r);
  a.shift[row] = (float)((double)a.beta[own] - mean * gamma * r);
  a.running_mean[running] = (float)((1 - momentum) * (double)a.running_mean[running] + momentum * mean);
  a.running_var[running] = (float)((1 - momentum) * (double)a.running_var[running] + momentum * unbiased);
}

extern "C" void cuda_batchnorm_finish(ser_stream *stream, float *scale, float *shift, float *mean, float *inv_std,
                                      float *running_mean, float *running_var, const float *moments, const float *gamma,
                                      const float *beta, const ser_batchnorm *norm, const ser_tensor_shape *shape) {
  finish_args a = {scale,   shift, mean, inv_std, running_mean,       running_var,
                   moments, gamma, beta, *norm,   cuda_dims_of(shape)};
  CUDA_LAUNCH(stream, batchnorm_finish_kernel, cuda_row_blocks((int64_t)a.d.sides * a.d.cp), cuda_row_block(), 0, a);
}

static __global__ void batchnorm_backward_sums_kernel(float *sums, ser_gradient gradient, cuda_dims d) {
  int64_t row = cuda_row();
  if (row >= cuda_rows(&d)) return;
  cuda_place at = cuda_place_of(row, &d);
  cuda_grad_row r = cuda_grad_row_of(&gradient, row, at, &d);
  float sum = 0, product = 0;
  for (int t = (int)threadIdx.x; t < d.t; t += WARP) {
    float y = r.y[t], dz = fmaf(y, r.scale, r.shift) > 0 ? r.da[t] : 0;
    sum += dz;
    product = fmaf(dz, y - r.mean, product);
  }
  double all = cuda_warp_sum((double)sum), products = cuda_warp_sum((double)product);
  if (threadIdx.x) return;
  float *out = sums + ((int64_t)at.side * d.b + at.b) * 2 * d.cp + at.c;
  out[0] = (float)(all * (double)r.drop);
  out[d.cp] = (float)(products * (double)r.drop * (double)r.inv_std);
}

extern "C" void cuda_batchnorm_backward_sums(ser_stream *stream, float *sums, const ser_gradient *gradient,
                                             const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  CUDA_LAUNCH(stream, batchnorm_backward_sums_kernel, cuda_row_blocks(cuda_rows(&d)), cuda_row_block(), 0, sums,
              *gradient, d);
}

static __global__ void batchnorm_backward_finish_kernel(float *means, float *dgamma, float *dbeta, const float *sums,
                                                        int64_t side_stride, cuda_dims d) {
  int64_t row = cuda_row();
  if (row >= (int64_t)d.sides * d.cp) return;
  int side = (int)row / d.cp, c = (int)row % d.cp;
  const float *from = sums + (int64_t)side * d.b * 2 * d.cp + c;
  double sum = 0, product = 0, n = (double)d.b * (double)d.t;
  for (int b = (int)threadIdx.x; b < d.b; b += WARP) {
    sum += (double)from[(int64_t)b * 2 * d.cp];
    product += (double)from[((int64_t)b * 2 + 1) * d.cp];
  }
  sum = cuda_warp_sum(sum);
  product = cuda_warp_sum(product);
  if (threadIdx.x) return;
  means[2 * side * d.cp + c] = c < d.c ? (float)(sum / n) : 0;
  means[(2 * side + 1) * d.cp + c] = c < d.c ? (float)(product / n) : 0;
  if (c >= d.c) return;
  dbeta[side * side_stride + c] = (float)sum;
  dgamma[side * side_stride + c] = (float)product;
}

extern "C" void cuda_batchnorm_backward_finish(ser_stream *stream, float *means, float *dgamma, float *dbeta,
                                               const float *sums, const ser_batchnorm *norm,
                                               const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  CUDA_LAUNCH(stream, batchnorm_backward_finish_kernel, cuda_row_blocks((int64_t)d.sides * d.cp), cuda_row_block(), 0,
              means, dgamma, dbeta, sums, norm->side_stride, d);
}
