/* The CUDA form of dropout.c: masks of spatial dropout from counter-based numbers, the CPU's to the byte. */
#include "base/philox.h"
#include "kernels/cuda_kernels.h"
#include "kernels/temporal_cuda.h"

enum { DROP_THREADS = 128, DROP_EACH = 4 }; /* channels of a draw */

/* A draw a thread; `blocks` of them do a plane [B][Cp], the mask of one layer on one side. */
static __global__ void dropout_mask_kernel(float *drop, float p, float kept, uint64_t seed, const ser_step *step,
                                           int layers, unsigned blocks, cuda_dims d) {
  int plane = (int)(blockIdx.x / blocks), draws = d.batch * (d.cp / DROP_EACH);
  int i = (int)(blockIdx.x - plane * blocks) * DROP_THREADS + (int)threadIdx.x;
  if (i >= draws) return;
  int layer = plane / d.sides, side = plane - layer * d.sides, c = i % (d.cp / DROP_EACH) * DROP_EACH;
  uint64_t first = ((uint64_t)side * (uint64_t)layers + (uint64_t)layer) * (uint64_t)draws;
  ser_philox random = ser_philox_at(seed, (uint64_t)(step->number - 1), first + (uint64_t)i);
  float mask[DROP_EACH];
  for (int k = 0; k < DROP_EACH; k++) mask[k] = c + k >= d.c || ser_uniform(random.v[k]) < p ? 0 : kept;
  ((float4 *)drop)[(int64_t)plane * draws + i] = make_float4(mask[0], mask[1], mask[2], mask[3]);
}

void cuda_dropout_mask(ser_stream *stream, float *drop, float p, uint64_t seed, const ser_step *step, int64_t layers,
                       const ser_tensor_shape *shape) {
  cuda_dims d = cuda_dims_of(shape);
  unsigned blocks = cuda_blocks(d.batch * (d.cp / DROP_EACH), DROP_THREADS);
  CUDA_LAUNCH(stream, dropout_mask_kernel, (unsigned)(layers * d.sides) * blocks, DROP_THREADS, 0, drop, p, 1 / (1 - p),
              seed, step, (int)layers, blocks, d);
}
