/* Softmax, and softmax with its loss: label smoothing, focal weighting, class weights, as the CPU form has them.
 * Classes are few: a thread makes a row, in double. */
#include "kernels/temporal_cuda.h"

enum { LOSS_THREADS = 64 };

/* log of the sum of exp(logits), without overflow. NaN and infinite logits give NaN. */
static __device__ double log_sum_exp(const float *z, int classes) {
  double largest = (double)z[0], sum = 0;
  for (int k = 1; k < classes; k++)
    if ((double)z[k] > largest) largest = (double)z[k];
  for (int k = 0; k < classes; k++) sum += exp((double)z[k] - largest);
  return largest + log(sum);
}

static __global__ void softmax_kernel(float *probabilities, const float *logits, int classes, int stride,
                                      int64_t rows) {
  int64_t r = (int64_t)blockIdx.x * LOSS_THREADS + threadIdx.x;
  if (r >= rows) return;
  const float *z = logits + r * stride;
  float *p = probabilities + r * stride;
  double log_sum = log_sum_exp(z, classes);
  for (int k = 0; k < stride; k++) p[k] = k < classes ? (float)exp((double)z[k] - log_sum) : 0;
}

extern "C" void cuda_softmax(ser_stream *stream, float *probabilities, const float *logits, const ser_loss_shape *shape,
                             int64_t rows) {
  if (rows)
    CUDA_LAUNCH(stream, softmax_kernel, cuda_blocks(rows, LOSS_THREADS), LOSS_THREADS, 0, probabilities, logits,
                (int)shape->classes, (int)shape->stride, rows);
}

/* The maths stands beside the CPU form (loss.c: loss_of_row). A truth that is no class cannot be refused here: it gives
 * NaN, which the trainer refuses. */
static __global__ void softmax_loss_kernel(float *losses, float *dlogits, const float *logits, const int32_t *truths,
                                           const float *class_weights, ser_loss_shape shape, int64_t rows) {
  int64_t r = (int64_t)blockIdx.x * LOSS_THREADS + threadIdx.x;
  if (r >= rows) return;
  int classes = (int)shape.classes, stride = (int)shape.stride, truth = truths[r];
  const float *z = logits + r * stride;
  float *dz = dlogits + r * stride;
  bool broken = truth < 0 || truth >= classes;
  if (broken) truth = 0;
  double weight = broken ? (double)NAN : class_weights ? (double)class_weights[truth] : 1;
  double log_sum = log_sum_exp(z, classes), smoothing = (double)shape.label_smoothing;
  double gamma = (double)shape.focal_gamma, even = smoothing / (double)classes;
  double ce = 0, rest = 0, p_truth = exp((double)z[truth] - log_sum);
  for (int k = 0; k < classes; k++) {
    double log_p = (double)z[k] - log_sum;
    ce -= (even + (k == truth ? 1 - smoothing : 0)) * log_p;
    if (k != truth) rest += exp(log_p); /* 1 - p_truth without its cancellation */
  }
  double f = gamma > 0 ? pow(rest, gamma) : 1, slope = gamma > 0 ? gamma * f * p_truth * ce : 0;
  double share = weight / (double)rows;
  for (int k = 0; k < stride; k++) {
    if (k >= classes) {
      dz[k] = 0;
      continue;
    }
    double p = exp((double)z[k] - log_sum), q = even + (k == truth ? 1 - smoothing : 0);
    double focal = k == truth ? -slope : rest == 0 ? 0 : slope * (p / rest);
    dz[k] = (float)(share * (f * (p - q) + focal));
  }
  losses[r] = (float)(weight * f * ce);
}

extern "C" void cuda_softmax_loss(ser_stream *stream, float *losses, float *dlogits, const float *logits,
                                  const int32_t *truth, const float *class_weights, const ser_loss_shape *shape,
                                  int64_t rows) {
  if (rows)
    CUDA_LAUNCH(stream, softmax_loss_kernel, cuda_blocks(rows, LOSS_THREADS), LOSS_THREADS, 0, losses, dlogits, logits,
                truth, class_weights, *shape, rows);
}
