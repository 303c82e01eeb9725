/* The CUDA form of loss.c: softmax, and softmax with cross-entropy, label smoothing, focal weighting and class weights.
 * In double, a warp a row, the classes dealt to its lanes. */
#include "kernels/cuda_kernels.h"
#include "kernels/temporal_cuda.h"

/* log of the sum of exp(logits), without overflow, for the whole warp. NaN and infinite logits give NaN. */
static __device__ double log_sum_exp(const float *logits, int classes) {
  double largest = (double)logits[0], sum = 0;
  for (int k = (int)threadIdx.x; k < classes; k += CUDA_WARP) largest = fmax(largest, (double)logits[k]);
  for (int apart = CUDA_WARP / 2; apart; apart /= 2)
    largest = fmax(largest, __shfl_xor_sync(0xffffffffu, largest, apart));
  for (int k = (int)threadIdx.x; k < classes; k += CUDA_WARP) sum += exp((double)logits[k] - largest);
  return largest + log(cuda_warp_sum(sum));
}

static __global__ void softmax_kernel(float *probabilities, const float *logits, int classes, int64_t stride,
                                      int rows) {
  int row = (int)(blockIdx.x * CUDA_ROWS + threadIdx.y);
  if (row >= rows) return;
  const float *z = logits + row * stride;
  float *p = probabilities + row * stride;
  double log_sum = log_sum_exp(z, classes);
  for (int k = (int)threadIdx.x; k < stride; k += CUDA_WARP)
    p[k] = k < classes ? (float)exp((double)z[k] - log_sum) : 0;
}

void cuda_softmax(ser_stream *stream, float *probabilities, const float *logits, const ser_loss_shape *shape,
                  int64_t rows) {
  CUDA_LAUNCH(stream, softmax_kernel, cuda_blocks(rows, CUDA_ROWS), dim3(CUDA_WARP, CUDA_ROWS), 0, probabilities,
              logits, (int)shape->classes, shape->stride, (int)rows);
}

/* As loss.c's loss_of_row has it: l = weight * f * ce with ce = -sum of q log p and f = (1 - p_truth)^gamma, and
 * dz = weight * share * (f * (p - q) + ce * df/dz). A truth that is no class gives NaN, so that it shows. */
static __global__ void softmax_loss_kernel(float *losses, float *dlogits, const float *logits, const int32_t *truths,
                                           const float *class_weights, ser_loss_shape shape, int rows) {
  int row = (int)(blockIdx.x * CUDA_ROWS + threadIdx.y), classes = (int)shape.classes, lane = (int)threadIdx.x;
  if (row >= rows) return;
  const float *z = logits + row * shape.stride;
  float *dz = dlogits + row * shape.stride;
  int truth = truths[row];
  bool known = truth >= 0 && truth < classes;
  double log_sum = log_sum_exp(z, classes), smoothing = (double)shape.label_smoothing;
  double gamma = (double)shape.focal_gamma, even = smoothing / (double)classes;
  double weight = !known ? nan("") : class_weights ? (double)class_weights[truth] : 1;
  double ce = 0, rest = 0, p_truth = exp((double)z[known ? truth : 0] - log_sum);
  for (int k = lane; k < classes; k += CUDA_WARP) {
    double log_p = (double)z[k] - log_sum, q = even + (k == truth ? 1 - smoothing : 0);
    ce -= q * log_p;
    if (k != truth) rest += exp(log_p); /* 1 - p_truth without its cancellation */
  }
  ce = cuda_warp_sum(ce);
  rest = cuda_warp_sum(rest);
  double f = gamma > 0 ? pow(rest, gamma) : 1;
  double slope = gamma > 0 ? gamma * f * p_truth * ce : 0; /* f is 0 where rest is */
  for (int k = lane; k < shape.stride; k += CUDA_WARP) {
    double p = k < classes ? exp((double)z[k] - log_sum) : 0, q = even + (k == truth ? 1 - smoothing : 0);
    double focal = k == truth ? -slope : rest == 0 ? 0 : slope * (p / rest);
    dz[k] = k < classes ? (float)(weight / (double)rows * (f * (p - q) + focal)) : 0;
  }
  if (lane == 0) losses[row] = (float)(weight * f * ce);
}

void cuda_softmax_loss(ser_stream *stream, float *losses, float *dlogits, const float *logits, const int32_t *truth,
                       const float *class_weights, const ser_loss_shape *shape, int64_t rows) {
  CUDA_LAUNCH(stream, softmax_loss_kernel, cuda_blocks(rows, CUDA_ROWS), dim3(CUDA_WARP, CUDA_ROWS), 0, losses, dlogits,
              logits, truth, class_weights, *shape, (int)rows);
}
