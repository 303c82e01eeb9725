/* Batch norm over clips and time: the statistics forward, the sums backward. Matches torch.nn.BatchNorm1d in training
 * mode (population variance to normalise, unbiased running variance). The passes over the tensors themselves are fused
 * into the convolutions; here are the small ends, in double. */
#include <math.h>

#include "kernels/kernels.h"
#include "kernels/temporal.h"

static void finish_side(float *scale, float *shift, float *mean, float *inv_std, float *running_mean,
                        float *running_var, const float *moments, const float *gamma, const float *beta,
                        const ser_batchnorm *norm, int64_t batch, ser_dims d) {
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
    double var = squares / n, r = 1 / sqrt(var + (double)norm->eps);
    mean[c] = (float)m;
    inv_std[c] = (float)r;
    scale[c] = (float)((double)gamma[c] * r);
    shift[c] = (float)((double)beta[c] - m * (double)gamma[c] * r);
    double unbiased = n > 1 ? squares / (n - 1) : var, momentum = (double)norm->momentum, keep = 1 - momentum;
    running_mean[c] = (float)(keep * (double)running_mean[c] + momentum * m);
    running_var[c] = (float)(keep * (double)running_var[c] + momentum * unbiased);
  }
}

void SER_ISA(cpu_batchnorm_finish)(ser_stream *stream, float *scale, float *shift, float *mean, float *inv_std,
                                   float *running_mean, float *running_var, const float *moments, const float *gamma,
                                   const float *beta, const ser_batchnorm *norm, const ser_tensor_shape *shape) {
  (void)stream;
  ser_dims d = dims_of(shape->channels, shape->time);
  for (int64_t side = 0; side < shape->sides; side++) {
    int64_t at = side * d.cp, running = side * norm->running_stride, parameters = side * norm->side_stride;
    finish_side(scale + at, shift + at, mean + at, inv_std + at, running_mean + running, running_var + running,
                moments + at * 2 * shape->batch, gamma + parameters, beta + parameters, norm, shape->batch, d);
  }
}

typedef struct {
  float *sums;
  const ser_gradient *gradient;
  ser_dims d;
  int64_t batch;
} sums_context;

static void sums_of_clip(void *context, size_t task, int thread) {
  (void)thread;
  const sums_context *s = context;
  ser_clip clip = clip_of_task(task, s->batch);
  float *out = s->sums + clip.at * 2 * s->d.cp;
  for (int64_t c = 0; c < s->d.cp; c++) {
    grad_row row = grad_row_of(s->gradient, clip, c, &s->d);
    grad_sums(&out[c], &out[s->d.cp + c], &row, row.da, &s->d);
  }
}

void SER_ISA(cpu_batchnorm_backward_sums)(ser_stream *stream, float *sums, const ser_gradient *gradient,
                                          const ser_tensor_shape *shape) {
  sums_context context = {sums, gradient, dims_of(shape->channels, shape->time), shape->batch};
  ser_cpu_parallel(stream, (size_t)(shape->sides * shape->batch), sums_of_clip, &context);
}

static void backward_finish_side(float *means, float *dgamma, float *dbeta, const float *sums, int64_t batch,
                                 ser_dims d) {
  double n = (double)batch * (double)d.t;
  for (int64_t c = 0; c < d.cp; c++) {
    double sum = 0, product = 0;
    for (int64_t b = 0; b < batch; b++) {
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

void SER_ISA(cpu_batchnorm_backward_finish)(ser_stream *stream, float *means, float *dgamma, float *dbeta,
                                            const float *sums, const ser_batchnorm *norm,
                                            const ser_tensor_shape *shape) {
  (void)stream;
  ser_dims d = dims_of(shape->channels, shape->time);
  for (int64_t side = 0; side < shape->sides; side++)
    backward_finish_side(means + side * 2 * d.cp, dgamma + side * norm->side_stride, dbeta + side * norm->side_stride,
                         sums + side * shape->batch * 2 * d.cp, shape->batch, d);
}
