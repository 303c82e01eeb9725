/* The table of the CUDA backend's operations. */
#include "kernels/cuda_kernels.h"

#pragma weak cuda_mfcc_prepare
#pragma weak cuda_logmel
#pragma weak cuda_mfcc_finish
#pragma weak cuda_pcm_from_int16
#pragma weak cuda_take_batch
#pragma weak cuda_gather_standardise
#pragma weak cuda_conv_prepare
#pragma weak cuda_causal_conv_forward
#pragma weak cuda_causal_conv_backward
#pragma weak cuda_batchnorm_finish
#pragma weak cuda_batchnorm_backward_sums
#pragma weak cuda_batchnorm_backward_finish
#pragma weak cuda_join_forward
#pragma weak cuda_join_backward
#pragma weak cuda_pool_forward
#pragma weak cuda_pool_backward
#pragma weak cuda_scale_mix_forward
#pragma weak cuda_scale_mix_backward
#pragma weak cuda_dropout_mask
#pragma weak cuda_linear_prepare
#pragma weak cuda_linear_forward
#pragma weak cuda_linear_backward
#pragma weak cuda_softmax
#pragma weak cuda_softmax_loss
#pragma weak cuda_step_begin
#pragma weak cuda_adam
#pragma weak cuda_keep
#pragma weak cuda_gradient_norm
#pragma weak cuda_branch_prepare
#pragma weak cuda_branch_infer

extern "C" const ser_ops ser_cuda_ops = {
    .mfcc_prepare = cuda_mfcc_prepare,
    .logmel = cuda_logmel,
    .mfcc_finish = cuda_mfcc_finish,
    .pcm_from_int16 = cuda_pcm_from_int16,
    .take_batch = cuda_take_batch,
    .gather_standardise = cuda_gather_standardise,
    .conv_prepare = cuda_conv_prepare,
    .causal_conv_forward = cuda_causal_conv_forward,
    .causal_conv_backward = cuda_causal_conv_backward,
    .batchnorm_finish = cuda_batchnorm_finish,
    .batchnorm_backward_sums = cuda_batchnorm_backward_sums,
    .batchnorm_backward_finish = cuda_batchnorm_backward_finish,
    .join_forward = cuda_join_forward,
    .join_backward = cuda_join_backward,
    .pool_forward = cuda_pool_forward,
    .pool_backward = cuda_pool_backward,
    .scale_mix_forward = cuda_scale_mix_forward,
    .scale_mix_backward = cuda_scale_mix_backward,
    .dropout_mask = cuda_dropout_mask,
    .linear_prepare = cuda_linear_prepare,
    .linear_forward = cuda_linear_forward,
    .linear_backward = cuda_linear_backward,
    .softmax = cuda_softmax,
    .softmax_loss = cuda_softmax_loss,
    .step_begin = cuda_step_begin,
    .adam = cuda_adam,
    .keep = cuda_keep,
    .gradient_norm = cuda_gradient_norm,
    .branch_prepare = cuda_branch_prepare,
    .branch_infer = cuda_branch_infer,
};
