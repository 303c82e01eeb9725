/* The CUDA form of join.c: joining a block's input x with its output a, x + a or x * sigmoid(a), and the gradients. A
 * warp takes a row, four columns a lane. */
#include "kernels/cuda_kernels.h"
#include "kernels/temporal_cuda.h"

static __device__ inline float sigmoid(float x) {
  return 1 / (1 + expf(-x));
}

static __global__ void join_forward_kernel(float *out, ser_activation x, ser_activation a, ser_join join, cuda_dims d) {
  int at = (int)(blockIdx.x * CUDA_ROWS + threadIdx.y);
  if (at >= d.sides * d.batch * d.cp) return;
  cuda_row row = cuda_row_at(at, d);
  cuda_act xs = cuda_act_of(x, row, d), as = cuda_act_of(a, row, d);
  out += (int64_t)at * d.tp;
  for (int t = 4 * (int)threadIdx.x; t < d.tp; t += 4 * CUDA_WARP) {
    float4 xv = cuda_act_four(xs, t, d), av = cuda_act_four(as, t, d);
    float4 sum = make_float4(xv.x + av.x, xv.y + av.y, xv.z + av.z, xv.w + av.w);
    if (join == SER_JOIN_GATE)
      sum = make_float4(xv.x * sigmoid(av.x), xv.y * sigmoid(av.y), xv.z * sigmoid(av.z), xv.w * sigmoid(av.w));
    *(float4 *)(out + t) = sum;
  }
}

void cuda_join_forward(ser_stream *stream, float *out, const ser_activation *x, const ser_activation *a, ser_join join,
                       const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  CUDA_LAUNCH(stream, join_forward_kernel, cuda_blocks(d.sides * d.batch * d.cp, CUDA_ROWS), dim3(CUDA_WARP, CUDA_ROWS),
              0, out, *x, *a, join, d);
}

/* g becomes dx, da is written. */
static __device__ inline void gate_backward(float *g, float *da, float x, float a) {
  float s = sigmoid(a);
  *g *= s;
  *da = *g * x * (1 - s);
}

/* dx may be dout: each lane reads its columns before it writes them. */
static __global__ void join_backward_kernel(float *dx, float *da, const float *dout, ser_activation x, ser_activation a,
                                            ser_join join, cuda_dims d) {
  int at = (int)(blockIdx.x * CUDA_ROWS + threadIdx.y);
  if (at >= d.sides * d.batch * d.cp) return;
  cuda_row row = cuda_row_at(at, d);
  cuda_act xs = cuda_act_of(x, row, d), as = cuda_act_of(a, row, d);
  int64_t first = (int64_t)at * d.tp;
  for (int t = 4 * (int)threadIdx.x; t < d.tp; t += 4 * CUDA_WARP) {
    float4 g = *(const float4 *)(dout + first + t), da_four = g;
    if (join == SER_JOIN_GATE) {
      float4 xv = cuda_act_four(xs, t, d), av = cuda_act_four(as, t, d);
      gate_backward(&g.x, &da_four.x, xv.x, av.x);
      gate_backward(&g.y, &da_four.y, xv.y, av.y);
      gate_backward(&g.z, &da_four.z, xv.z, av.z);
      gate_backward(&g.w, &da_four.w, xv.w, av.w);
    }
    *(float4 *)(dx + first + t) = g;
    *(float4 *)(da + first + t) = da_four;
  }
}

void cuda_join_backward(ser_stream *stream, float *dx, float *da, const float *dout, const ser_activation *x,
                        const ser_activation *a, ser_join join, const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  CUDA_LAUNCH(stream, join_backward_kernel, cuda_blocks(d.sides * d.batch * d.cp, CUDA_ROWS),
              dim3(CUDA_WARP, CUDA_ROWS), 0, dx, da, dout, *x, *a, join, d);
}
