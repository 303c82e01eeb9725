/* Joining a block's input x with its output a: x + a, or x * sigmoid(a) (TIM-Net's gate), and the gradients. A warp
 * makes a row, four columns a lane at a time. */
#include "kernels/temporal_cuda.h"

static __device__ inline float sigmoid(float x) {
  return 1 / (1 + expf(-x));
}

static __device__ inline float join(float x, float a, bool gate) {
  return gate ? x * sigmoid(a) : x + a;
}

static __global__ void join_forward_kernel(float *out, ser_activation x, ser_activation a, bool gate, cuda_dims d) {
  int64_t row = cuda_row();
  if (row >= cuda_rows(&d)) return;
  cuda_place at = cuda_place_of(row, &d);
  cuda_act_row xr = cuda_act_row_of(&x, row, at, &d), ar = cuda_act_row_of(&a, row, at, &d);
  float4 *to = (float4 *)(out + row * d.tp);
  for (int q = (int)threadIdx.x; q < d.tp / 4; q += WARP) {
    float4 xv = ((const float4 *)xr.x)[q], av = ((const float4 *)ar.x)[q], v;
    int t = 4 * q;
    v.x = t + 0 < d.t ? join(cuda_act(&xr, xv.x), cuda_act(&ar, av.x), gate) : 0;
    v.y = t + 1 < d.t ? join(cuda_act(&xr, xv.y), cuda_act(&ar, av.y), gate) : 0;
    v.z = t + 2 < d.t ? join(cuda_act(&xr, xv.z), cuda_act(&ar, av.z), gate) : 0;
    v.w = t + 3 < d.t ? join(cuda_act(&xr, xv.w), cuda_act(&ar, av.w), gate) : 0;
    to[q] = v;
  }
}

extern "C" void cuda_join_forward(ser_stream *stream, float *out, const ser_activation *x, const ser_activation *a,
                                  ser_join join, const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  CUDA_LAUNCH(stream, join_forward_kernel, cuda_row_blocks(cuda_rows(&d)), cuda_row_block(), 0, out, *x, *a,
              join == SER_JOIN_GATE, d);
}

/* One column: dx in .x, da in .y. */
static __device__ inline float2 join_gradient(float g, float x, float a, const cuda_act_row *xr, const cuda_act_row *ar,
                                              bool gate) {
  if (!gate) return make_float2(g, g);
  float s = sigmoid(cuda_act(ar, a)), dx = g * s;
  return make_float2(dx, dx * cuda_act(xr, x) * (1 - s));
}

/* dx may be dout: each lane reads what it then writes. */
static __global__ void join_backward_kernel(float *dx, float *da, const float *dout, ser_activation x, ser_activation a,
                                            bool gate, cuda_dims d) {
  int64_t row = cuda_row();
  if (row >= cuda_rows(&d)) return;
  cuda_place at = cuda_place_of(row, &d);
  cuda_act_row xr = cuda_act_row_of(&x, row, at, &d), ar = cuda_act_row_of(&a, row, at, &d);
  for (int q = (int)threadIdx.x; q < d.tp / 4; q += WARP) {
    float4 g = ((const float4 *)(dout + row * d.tp))[q], xv = g, av = g, to_x, to_a;
    if (gate) {
      xv = ((const float4 *)xr.x)[q];
      av = ((const float4 *)ar.x)[q];
    }
    float2 v = join_gradient(g.x, xv.x, av.x, &xr, &ar, gate);
    to_x.x = v.x;
    to_a.x = v.y;
    v = join_gradient(g.y, xv.y, av.y, &xr, &ar, gate);
    to_x.y = v.x;
    to_a.y = v.y;
    v = join_gradient(g.z, xv.z, av.z, &xr, &ar, gate);
    to_x.z = v.x;
    to_a.z = v.y;
    v = join_gradient(g.w, xv.w, av.w, &xr, &ar, gate);
    to_x.w = v.x;
    to_a.w = v.y;
    ((float4 *)(dx + row * d.tp))[q] = to_x;
    ((float4 *)(da + row * d.tp))[q] = to_a;
  }
}

extern "C" void cuda_join_backward(ser_stream *stream, float *dx, float *da, const float *dout, const ser_activation *x,
                                   const ser_activation *a, ser_join join, const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  CUDA_LAUNCH(stream, join_backward_kernel, cuda_row_blocks(cuda_rows(&d)), cuda_row_block(), 0, dx, da, dout, *x, *a,
              join == SER_JOIN_GATE, d);
}
