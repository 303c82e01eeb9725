/* Masks of spatial dropout (torch.nn.Dropout1d) from counter-based numbers: the same bytes as the CPU's. A thread makes
 * the four channels of one draw. */
#include "base/philox.h"
#include "kernels/temporal_cuda.h"

enum { MASK_THREADS = 128 };

/* Draws are counted along drop [layers][S][B][Cp / 4]. */
static __global__ void dropout_mask_kernel(float *drop, float p, uint64_t seed, const ser_step *step, int layers,
                                           cuda_dims d) {
  int64_t draw = (int64_t)blockIdx.x * MASK_THREADS + threadIdx.x;
  int quads = d.cp / 4;
  if (draw >= (int64_t)layers * d.sides * d.b * quads) return;
  int64_t clip = draw / quads, layered = clip / d.b;
  int quad = (int)(draw % quads), b = (int)(clip % d.b);
  int side = (int)(layered % d.sides), layer = (int)(layered / d.sides);
  uint64_t row = (uint64_t)((int64_t)side * layers + layer) * (uint64_t)d.b + (uint64_t)b;
  ser_philox random = ser_philox_at(seed, (uint64_t)(step->number - 1), row * (uint64_t)quads + (uint64_t)quad);
  float kept = 1 / (1 - p), v[4];
#pragma unroll
  for (int i = 0; i < 4; i++) v[i] = 4 * quad + i >= d.c || ser_uniform(random.v[i]) < p ? 0 : kept;
  ((float4 *)drop)[draw] = make_float4(v[0], v[1], v[2], v[3]);
}

extern "C" void cuda_dropout_mask(ser_stream *stream, float *drop, float p, uint64_t seed, const ser_step *step,
                                  int64_t layers, const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  int64_t draws = layers * cuda_rows(&d) / 4;
  CUDA_LAUNCH(stream, dropout_mask_kernel, cuda_blocks(draws, MASK_THREADS), MASK_THREADS, 0, drop, p, seed, step,
              (int)layers, d);
}
