/* The CUDA forms of the operations of device/ops.h: what kernels/table.cu gathers. Names are those of the table with
 * cuda_ before them; each stands in the file of its CPU twin. */
#ifndef SER_KERNELS_CUDA_KERNELS_H
#define SER_KERNELS_CUDA_KERNELS_H

#include "cuda/cuda.h"

extern "C" {

ser_status cuda_mfcc_prepare(ser_device *device, ser_plan **plan, const ser_mfcc_shape *shape, ser_error *err);
void cuda_logmel(ser_stream *stream, const ser_plan *plan, void *workspace, float *logmel, const float *pcm,
                 const int64_t *sample_start, const int64_t *frame_start, int64_t clips, int64_t frames);
void cuda_mfcc_finish(ser_stream *stream, const ser_plan *plan, void *workspace, float *features, const float *logmel,
                      const int64_t *frame_start, int64_t clips, int64_t frames);
void cuda_pcm_from_int16(ser_stream *stream, float *pcm, const int16_t *from, int64_t samples);
void cuda_take_batch(ser_stream *stream, int64_t *start, int64_t *length, int32_t *truth, const ser_clips *clips,
                     const int32_t *order, const ser_step *step, int64_t batch, int64_t count);
void cuda_gather_standardise(ser_stream *stream, float *tile, const float *features, const int64_t *start,
                             const int64_t *length, const float *mean, const float *inv_std,
                             const ser_tensor_shape *shape);
ser_status cuda_conv_prepare(ser_device *device, ser_plan **plan, const ser_conv_shape *shape, ser_error *err);
void cuda_causal_conv_forward(ser_stream *stream, const ser_plan *plan, void *workspace, float *y, float *moments,
                              const ser_activation *x, const float *w, const float *bias, int64_t batch);
void cuda_causal_conv_backward(ser_stream *stream, const ser_plan *plan, void *workspace, float *dx, float *dw,
                               float *dbias, float *next, const ser_activation *x, const ser_gradient *x_norm,
                               const ser_gradient *dy, const float *w, bool add_dx, int64_t batch);
void cuda_batchnorm_finish(ser_stream *stream, float *scale, float *shift, float *mean, float *inv_std,
                           float *running_mean, float *running_var, const float *moments, const float *gamma,
                           const float *beta, const ser_batchnorm *norm, const ser_tensor_shape *shape);
void cuda_batchnorm_backward_sums(ser_stream *stream, float *sums, const ser_gradient *gradient,
                                  const ser_tensor_shape *shape);
void cuda_batchnorm_backward_finish(ser_stream *stream, float *means, float *dgamma, float *dbeta, const float *sums,
                                    const ser_batchnorm *norm, const ser_tensor_shape *shape);
void cuda_join_forward(ser_stream *stream, float *out, const ser_activation *x, const ser_activation *a, ser_join join,
                       const ser_tensor_shape *shape);
void cuda_join_backward(ser_stream *stream, float *dx, float *da, const float *dout, const ser_activation *x,
                        const ser_activation *a, ser_join join, const ser_tensor_shape *shape);
void cuda_pool_forward(ser_stream *stream, float *pooled, const ser_activation *x, const int64_t *lengths,
                       const ser_tensor_shape *shape);
void cuda_pool_backward(ser_stream *stream, float *d, const float *dpooled, const int64_t *lengths, bool add,
                        const ser_tensor_shape *shape);
void cuda_scale_mix_forward(ser_stream *stream, float *out, const float *scales, const float *w, int64_t count,
                            const ser_tensor_shape *shape);
void cuda_scale_mix_backward(ser_stream *stream, float *dscales, float *dw, const float *dout, const float *scales,
                             const float *w, int64_t count, const ser_tensor_shape *shape);
void cuda_dropout_mask(ser_stream *stream, float *drop, float p, uint64_t seed, const ser_step *step, int64_t layers,
                       const ser_tensor_shape *shape);
ser_status cuda_linear_prepare(ser_device *device, ser_plan **plan, const ser_linear_shape *shape, ser_error *err);
void cuda_linear_forward(ser_stream *stream, const ser_plan *plan, void *workspace, float *out, const float *x,
                         const float *w, const float *bias, int64_t rows);
void cuda_linear_backward(ser_stream *stream, const ser_plan *plan, void *workspace, float *dx, float *dw, float *dbias,
                          const float *dout, const float *x, const float *w, int64_t rows);
ser_status cuda_product_prepare(ser_device *device, ser_plan **plan, const ser_product_shape *shape, ser_error *err);
void cuda_product_pack(ser_stream *stream, const ser_plan *plan, void *packed, const float *w);
void cuda_product_forward(ser_stream *stream, const ser_plan *plan, void *workspace, float *out, const float *x,
                          const void *packed, const float *bias, const float *residual, ser_product_end end,
                          int64_t rows);
ser_status cuda_front_prepare(ser_device *device, ser_plan **plan, const ser_front_shape *shape, ser_error *err);
void cuda_front_pack(ser_stream *stream, const ser_plan *plan, void *packed, const float *w);
void cuda_front_wave(ser_stream *stream, const ser_plan *plan, void *workspace, float *wave, double *moments,
                     const float *pcm, const int64_t *sample_start, const ser_rows *rows);
void cuda_front_norm(ser_stream *stream, const ser_plan *plan, float *norm, const double *moments, const float *w,
                     const float *gamma, const float *beta, int64_t clips);
void cuda_front_forward(ser_stream *stream, const ser_plan *plan, float *out, const float *wave, const void *packed,
                        const float *bias, const float *norm, const float *gamma, const float *beta,
                        const ser_rows *rows, int64_t first, int64_t count);
void cuda_layernorm_forward(ser_stream *stream, float *out, const float *x, const float *gamma, const float *beta,
                            float eps, bool gelu, int64_t channels, int64_t rows);
ser_status cuda_pos_conv_prepare(ser_device *device, ser_plan **plan, const ser_pos_conv_shape *shape, ser_error *err);
void cuda_pos_conv_pack(ser_stream *stream, const ser_plan *plan, void *packed, const float *w);
void cuda_pos_conv_forward(ser_stream *stream, const ser_plan *plan, void *workspace, float *out, const float *x,
                           const void *packed, const float *bias, const ser_rows *rows);
ser_status cuda_attention_prepare(ser_device *device, ser_plan **plan, const ser_attention_shape *shape,
                                  ser_error *err);
void cuda_attention_forward(ser_stream *stream, const ser_plan *plan, void *workspace, float *out, const float *qkv,
                            const ser_rows *rows);
void cuda_pool_rows(ser_stream *stream, float *pooled, const float *x, int64_t channels, const ser_rows *rows);
void cuda_softmax(ser_stream *stream, float *probabilities, const float *logits, const ser_loss_shape *shape,
                  int64_t rows);
void cuda_softmax_loss(ser_stream *stream, float *losses, float *dlogits, const float *logits, const int32_t *truth,
                       const float *class_weights, const ser_loss_shape *shape, int64_t rows);
void cuda_step_begin(ser_stream *stream, ser_step *step, const ser_adam *adam);
void cuda_adam(ser_stream *stream, float *p, float *m, float *v, const float *g, int64_t n, const ser_adam *adam,
               const ser_step *step);
void cuda_keep(ser_stream *stream, const ser_keep *parts, int count, const ser_step *step);
void cuda_gradient_norm(ser_stream *stream, float *out, const float *g, int64_t n);
ser_status cuda_branch_prepare(ser_device *device, ser_plan **plan, const ser_branch_shape *shape, ser_error *err);
void cuda_branch_infer(ser_stream *stream, const ser_plan *plan, void *workspace, float *pooled, const float *tile,
                       const float *weights, const int64_t *lengths, int64_t batch);
}

#endif
