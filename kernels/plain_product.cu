/* A product of any matrices by a plain tiled kernel (plain_product.h). */
#include "kernels/plain_product.h"

enum { TILE = 32, TILE_WARPS = 8 };

static __device__ __forceinline__ void read_tile(float (*tile)[TILE + 1], const cuda_operand &from, int64_t first,
                                                 int64_t lines, int64_t k, int64_t depth) {
  for (int i = (int)threadIdx.y; i < TILE; i += TILE_WARPS) {
    int64_t line = first + i, at = k + (int)threadIdx.x;
    bool there = line < lines && at < depth;
    tile[i][threadIdx.x] = there ? from.at[line * from.line_step + at * from.step] : 0;
  }
}

static __global__ void plain_product_kernel(float *out, const __grid_constant__ cuda_operand a,
                                            const __grid_constant__ cuda_operand b, const float *bias,
                                            const float *residual, const __grid_constant__ cuda_product_size n) {
  __shared__ float as[TILE][TILE + 1], bs[TILE][TILE + 1];
  int64_t first = (int64_t)blockIdx.x * TILE, column = (int64_t)blockIdx.y * TILE + threadIdx.x;
  float sum[TILE / TILE_WARPS], start = bias && column < n.columns ? bias[column] : 0;
#pragma unroll
  for (int i = 0; i < TILE / TILE_WARPS; i++) {
    int64_t row = first + (int)threadIdx.y + i * TILE_WARPS;
    sum[i] = start;
    if (residual && row < n.rows && column < n.columns) sum[i] += residual[row * n.stride + column];
  }
  for (int64_t k = 0; k < n.depth; k += TILE) {
    __syncthreads();
    read_tile(as, a, first, n.rows, k, n.depth);
    read_tile(bs, b, (int64_t)blockIdx.y * TILE, n.columns, k, n.depth);
    __syncthreads();
    for (int j = 0; j < TILE; j++)
#pragma unroll
      for (int i = 0; i < TILE / TILE_WARPS; i++)
        sum[i] = fmaf(as[threadIdx.y + i * TILE_WARPS][j], bs[threadIdx.x][j], sum[i]);
  }
#pragma unroll
  for (int i = 0; i < TILE / TILE_WARPS; i++) {
    int64_t row = first + (int)threadIdx.y + i * TILE_WARPS;
    if (row < n.rows && column < n.columns) out[row * n.stride + column] = sum[i];
  }
}

void cuda_plain_product(ser_stream *stream, float *out, cuda_operand a, cuda_operand b, const float *bias,
                        const float *residual, const cuda_product_size *size) {
  dim3 blocks(cuda_blocks(size->rows, TILE), cuda_blocks(size->columns, TILE));
  CUDA_LAUNCH(stream, plain_product_kernel, blocks, dim3(TILE, TILE_WARPS), 0, out, a, b, bias, residual, *size);
}
