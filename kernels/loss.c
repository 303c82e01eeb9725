/* Softmax, and softmax with cross-entropy: label smoothing (torch.nn.CrossEntropyLoss), focal weighting (Lin et al.,
 * ICCV 2017) and class weights. Classes are few: everything here is computed in double, a row after the other. */
#include <math.h>

#include "kernels/kernels.h"

/* log of the sum of exp(logits), without overflow. NaN and infinite logits give NaN. */
static double log_sum_exp(const float *logits, int64_t classes) {
  double largest = (double)logits[0], sum = 0;
  for (int64_t k = 1; k < classes; k++)
    if ((double)logits[k] > largest) largest = (double)logits[k];
  for (int64_t k = 0; k < classes; k++) sum += exp((double)logits[k] - largest);
  return largest + log(sum);
}

void SER_ISA(cpu_softmax)(ser_stream *stream, float *probabilities, const float *logits, const ser_loss_shape *shape,
                          int64_t rows) {
  (void)stream;
  for (int64_t r = 0; r < rows; r++) {
    const float *z = logits + r * shape->stride;
    float *p = probabilities + r * shape->stride;
    double log_sum = log_sum_exp(z, shape->classes);
    for (int64_t k = 0; k < shape->stride; k++) p[k] = k < shape->classes ? (float)exp((double)z[k] - log_sum) : 0;
  }
}

/* One row: returns the loss l = weight * f * ce with ce = -sum of q log p and f = (1 - p_truth)^gamma, and writes
 * dz = weight * share * (f * (p - q) + ce * df/dz). With rest = 1 - p_truth:
 * df/dz_truth = -gamma * f * p_truth, df/dz_k = gamma * f * p_truth * p_k / rest, where p_k <= rest. */
static double loss_of_row(float *dz, const float *z, int64_t truth, double weight, double share,
                          const ser_loss_shape *shape) {
  int64_t classes = shape->classes;
  double log_sum = log_sum_exp(z, classes), smoothing = (double)shape->label_smoothing;
  double gamma = (double)shape->focal_gamma, even = smoothing / (double)classes;
  double ce = 0, rest = 0, p_truth = exp((double)z[truth] - log_sum);
  for (int64_t k = 0; k < classes; k++) {
    double log_p = (double)z[k] - log_sum, q = even + (k == truth ? 1 - smoothing : 0);
    ce -= q * log_p;
    if (k != truth) rest += exp(log_p); /* 1 - p_truth without its cancellation */
  }
  double f = gamma > 0 ? pow(rest, gamma) : 1;
  double slope = gamma > 0 ? gamma * f * p_truth * ce : 0; /* f is 0 where rest is */
  for (int64_t k = 0; k < shape->stride; k++) {
    if (k >= classes) {
      dz[k] = 0;
      continue;
    }
    double p = exp((double)z[k] - log_sum), q = even + (k == truth ? 1 - smoothing : 0);
    double focal = k == truth ? -slope : rest == 0 ? 0 : slope * (p / rest);
    dz[k] = (float)(weight * share * (f * (p - q) + focal));
  }
  return weight * f * ce;
}

void SER_ISA(cpu_softmax_loss)(ser_stream *stream, float *losses, float *dlogits, const float *logits,
                               const int32_t *truth, const float *class_weights, const ser_loss_shape *shape,
                               int64_t rows) {
  (void)stream;
  for (int64_t r = 0; r < rows; r++) {
    SER_CHECK(truth[r] >= 0 && truth[r] < shape->classes);
    double weight = class_weights ? (double)class_weights[truth[r]] : 1;
    losses[r] = (float)loss_of_row(dlogits + r * shape->stride, logits + r * shape->stride, truth[r], weight,
                                   1 / (double)rows, shape);
  }
}
