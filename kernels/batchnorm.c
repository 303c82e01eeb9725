/* Batch norm over clips and time: the statistics forward, the sums backward. Matches torch.nn.BatchNorm1d in training
 * mode (population variance to normalise, unbiased running variance). The passes over the tensors themselves are fused
 * into the convolutions; here are the small ends, in double. */
#include <math.h>

#include "kernels/kernels.h"
#include "kernels/temporal.h"

void SER_ISA(cpu_batchnorm_finish)(ser_stream *stream, float *scale, float *shift, float *mean, float *inv_std,
                                   float *running_mean, float *running_var, const float *moments, const float *gamma,
                                   const float *beta, float eps, float momentum, const ser_tensor_shape *shape) {
  (void)stream;
  ser_dims d = dims_of(shape->channels, shape->time);
  int64_t batch = shape->batch;
  double n = (double)batch * (double)d.t;
  for (int64_t c = 0; c < d.cp; c++) {
    if (c >= d.c) {
      scale[c] = shift[c] = mean[c] = inv_std[c] = 0;
      continue;
    }
    double sum = 0, squares = 0;
    for (int64_t b = 0; b < batch; b++) sum += (double)moments[b * 2 * d.cp + c];
    double m = sum / (double)batch;
    for (int64_t b = 0; b < batch; b++) { /* squares about the batch's mean from squares about each clip's own */
      double apart = (double)moments[b * 2 * d.cp + c] - m;
      squares += (double)moments[(b * 2 + 1) * d.cp + c] + (double)d.t * apart * apart;
    }
    double var = squares / n, r = 1 / sqrt(var + (double)eps);
    mean[c] = (float)m;
    inv_std[c] = (float)r;
    scale[c] = (float)((double)gamma[c] * r);
    shift[c] = (float)((double)beta[c] - m * (double)gamma[c] * r);
    double unbiased = n > 1 ? squares / (n - 1) : var, keep = 1 - (double)momentum;
    running_mean[c] = (float)(keep * (double)running_mean[c] + (double)momentum * m);
    running_var[c] = (float)(keep * (double)running_var[c] + (double)momentum * unbiased);
  }
}

typedef struct {
  float *sums;
  const ser_gradient *gradient;
  ser_dims d;
} sums_context;

static void sums_of_clip(void *context, size_t task, int thread) {
  (void)thread;
  const sums_context *s = context;
  int64_t b = (int64_t)task;
  float *out = s->sums + b * 2 * s->d.cp;
  for (int64_t c = 0; c < s->d.cp; c++) {
    grad_row row = grad_row_of(s->gradient, b, c, &s->d);
    grad_sums(&out[c], &out[s->d.cp + c], &row, row.da, &s->d);
  }
}

void SER_ISA(cpu_batchnorm_backward_sums)(ser_stream *stream, float *sums, const ser_gradient *gradient,
                                          const ser_tensor_shape *shape) {
  sums_context context = {sums, gradient, dims_of(shape->channels, shape->time)};
  ser_cpu_parallel(stream, (size_t)shape->batch, sums_of_clip, &context);
}

void SER_ISA(cpu_batchnorm_backward_finish)(ser_stream *stream, float *means, float *dgamma, float *dbeta,
                                            const float *sums, const ser_tensor_shape *shape) {
  (void)stream;
  ser_dims d = dims_of(shape->channels, shape->time);
  double n = (double)shape->batch * (double)d.t;
  for (int64_t c = 0; c < d.cp; c++) {
    double sum = 0, product = 0;
    for (int64_t b = 0; b < shape->batch; b++) {
      sum += (double)sums[b * 2 * d.cp + c];
      product += (double)sums[(b * 2 + 1) * d.cp + c];
    }
    means[c] = c < d.c ? (float)(sum / n) : 0;
    means[d.cp + c] = c < d.c ? (float)(product / n) : 0;
    if (c >= d.c) continue;
    dbeta[c] = (float)sum;
    dgamma[c] = (float)product;
  }
}
