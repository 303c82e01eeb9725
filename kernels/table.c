/* The CPU backend's table of operations, one copy for each instruction set. */
#include "kernels/kernels.h"

const ser_ops SER_ISA(ser_cpu_ops) = {

    .conv_prepare = SER_ISA(cpu_conv_prepare),
    .causal_conv_forward = SER_ISA(cpu_causal_conv_forward),
    .causal_conv_backward = SER_ISA(cpu_causal_conv_backward),
    .batchnorm_finish = SER_ISA(cpu_batchnorm_finish),
    .batchnorm_backward_sums = SER_ISA(cpu_batchnorm_backward_sums),
    .batchnorm_backward_finish = SER_ISA(cpu_batchnorm_backward_finish),
    .join_forward = SER_ISA(cpu_join_forward),
    .join_backward = SER_ISA(cpu_join_backward),
    .pool_forward = SER_ISA(cpu_pool_forward),
    .pool_backward = SER_ISA(cpu_pool_backward),
    .scale_mix_forward = SER_ISA(cpu_scale_mix_forward),
    .scale_mix_backward = SER_ISA(cpu_scale_mix_backward),
    .dropout_mask = SER_ISA(cpu_dropout_mask),
    .linear_prepare = SER_ISA(cpu_linear_prepare),
    .linear_forward = SER_ISA(cpu_linear_forward),
    .linear_backward = SER_ISA(cpu_linear_backward),
    .softmax = SER_ISA(cpu_softmax),
    .softmax_loss = SER_ISA(cpu_softmax_loss),
    .step_begin = SER_ISA(cpu_step_begin),
    .adam = SER_ISA(cpu_adam),
    .keep = SER_ISA(cpu_keep),
    .gradient_norm = SER_ISA(cpu_gradient_norm),
    .branch_prepare = SER_ISA(cpu_branch_prepare),
    .branch_infer = SER_ISA(cpu_branch_infer),

    /* audio */
    .mfcc_prepare = SER_ISA(cpu_mfcc_prepare),
    .logmel = SER_ISA(cpu_logmel),
    .mfcc_finish = SER_ISA(cpu_mfcc_finish),
    .pcm_from_int16 = SER_ISA(cpu_pcm_from_int16),
    .take_batch = SER_ISA(cpu_take_batch),
    .gather_standardise = SER_ISA(cpu_gather_standardise),
};
