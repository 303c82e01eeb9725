/* The CUDA form of attention.c: softmax(Q K' / sqrt(width)) V of the frames of each clip, head by head.
 *
 * A block takes QUERIES frames of one clip and one head, and goes over the clip's keys from the first on, KEYS at a
 * time: scores live in registers, their exponents in shared memory where the keys were, and each query's running
 * maximum, sum and weighted values in the registers of the eight threads that share it. So a clip's bytes do not depend
 * on its neighbours, and scores never lie in memory.
 *
 * In shared memory rows are a few floats longer than their head, so that eight rows that are read at once begin in
 * different banks; for the same a thread's queries and keys lie apart: as many as threads share them. Its outputs are
 * fours, 32 apart. */
#include "kernels/cuda_kernels.h"
#include "kernels/rows_cuda.h"

enum {
  LANES = 8,     /* threads that share a query */
  EACH = 4,      /* queries of a thread */
  MOST_WIDE = 64 /* the narrower kernel's widest head */
};

/* The forms of the kernel: heads of up to WIDTH, blocks of QUERIES by KEYS. */
template <int WIDTH_, int QUERIES_, int KEYS_> struct form {
  static const int WIDTH = WIDTH_, QUERIES = QUERIES_, KEYS = KEYS_;
  static const int GROUPS = QUERIES / EACH, THREADS = GROUPS * LANES;
  static const int PITCH = WIDTH + 4, SCORE_PITCH = KEYS + 4;
  static const int KEY_ROOM = KEYS * PITCH > QUERIES *SCORE_PITCH ? KEYS *PITCH : QUERIES *SCORE_PITCH;
  static const int SHARED = (QUERIES * PITCH + KEY_ROOM + KEYS * PITCH) * (int)sizeof(float);
};
typedef form<64, 64, 64> narrow;
typedef form<128, 32, 32> wide;

typedef struct {
  cuda_plan plan;
  ser_attention_shape shape;
} attention_plan;

typedef struct {
  float *out;
  const float *qkv;
  const int64_t *row_start;
  int clips, heads, width;
  float scale; /* of scores, in powers of two */
} attention_form;

/* What a thread knows of its queries. */
template <class F> struct running {
  float sums[EACH][F::WIDTH / LANES]; /* of weighted values */
  float most[EACH];                   /* the largest score so far */
  float total[EACH];                  /* the thread's part of the sum of weights */
};

/* `count` rows of one head, zero behind them and behind the head's width. */
template <class F>
static __device__ __forceinline__ void read_rows(float *to, const float *from, int64_t stride, int rows, int count,
                                                 int width) {
  for (int i = (int)threadIdx.x; i < rows * (F::WIDTH / 4); i += F::THREADS) {
    int row = i / (F::WIDTH / 4), at = i % (F::WIDTH / 4) * 4;
    bool there = row < count && at < width;
    *(float4 *)(to + row * F::PITCH + at) =
        there ? *(const float4 *)(from + row * stride + at) : make_float4(0, 0, 0, 0);
  }
}

static __device__ __forceinline__ float dot(float4 a, float4 b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

/* scores[i][j]: query i of the thread, its key j; NaN where one is, -infinity where there is no such key. */
template <class F>
static __device__ __forceinline__ void score(float (*scores)[F::KEYS / LANES], const float *queries, const float *keys,
                                             int lane, int count) {
#pragma unroll
  for (int i = 0; i < EACH; i++)
#pragma unroll
    for (int j = 0; j < F::KEYS / LANES; j++) scores[i][j] = 0;
#pragma unroll 1 /* unrolled more, it needs more registers than four blocks have */
  for (int at = 0; at < F::WIDTH; at += 4) {
    float4 q[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) q[i] = *(const float4 *)(queries + i * F::GROUPS * F::PITCH + at);
#pragma unroll
    for (int j = 0; j < F::KEYS / LANES; j++) {
      float4 k = *(const float4 *)(keys + (lane + j * LANES) * F::PITCH + at);
#pragma unroll
      for (int i = 0; i < EACH; i++) scores[i][j] = dot(q[i], k, scores[i][j]);
    }
  }
#pragma unroll
  for (int j = 0; j < F::KEYS / LANES; j++)
#pragma unroll
    for (int i = 0; i < EACH; i++)
      if (lane + j * LANES >= count) scores[i][j] = -INFINITY;
}

/* Scores become weights, exp((score - most) * scale), in shared memory; what was summed before is brought to the new
 * maximum. A score that is NaN makes its query's sums NaN. */
template <class F>
static __device__ __forceinline__ void weigh(float *weights, running<F> *r, float (*scores)[F::KEYS / LANES], int lane,
                                             float scale) {
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    float top = r->most[i], sum = 0;
#pragma unroll
    for (int j = 0; j < F::KEYS / LANES; j++) top = fmaxf(top, scores[i][j]);
#pragma unroll
    for (int apart = LANES / 2; apart; apart /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, apart));
    float before = exp2f((r->most[i] - top) * scale);
#pragma unroll
    for (int j = 0; j < F::KEYS / LANES; j++) {
      float weight = exp2f((scores[i][j] - top) * scale);
      weights[i * F::GROUPS * F::SCORE_PITCH + lane + j * LANES] = weight;
      sum += weight;
    }
    r->most[i] = top;
    r->total[i] = fmaf(r->total[i], before, sum);
#pragma unroll
    for (int c = 0; c < F::WIDTH / LANES; c++) r->sums[i][c] *= before;
  }
}

template <class F>
static __device__ __forceinline__ void add_values(running<F> *r, const float *weights, const float *values, int lane) {
#pragma unroll 2
  for (int key = 0; key < F::KEYS; key += 4) {
    float4 w[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) w[i] = *(const float4 *)(weights + i * F::GROUPS * F::SCORE_PITCH + key);
#pragma unroll
    for (int c = 0; c < F::WIDTH / LANES; c += 4) {
      const float *at = values + key * F::PITCH + 4 * lane + c * LANES;
      float4 v0 = *(const float4 *)at, v1 = *(const float4 *)(at + F::PITCH);
      float4 v2 = *(const float4 *)(at + 2 * F::PITCH), v3 = *(const float4 *)(at + 3 * F::PITCH);
#pragma unroll
      for (int i = 0; i < EACH; i++) {
        r->sums[i][c] = dot(w[i], make_float4(v0.x, v1.x, v2.x, v3.x), r->sums[i][c]);
        r->sums[i][c + 1] = dot(w[i], make_float4(v0.y, v1.y, v2.y, v3.y), r->sums[i][c + 1]);
        r->sums[i][c + 2] = dot(w[i], make_float4(v0.z, v1.z, v2.z, v3.z), r->sums[i][c + 2]);
        r->sums[i][c + 3] = dot(w[i], make_float4(v0.w, v1.w, v2.w, v3.w), r->sums[i][c + 3]);
      }
    }
  }
}

/* The thread's queries, the first of which is `query` of the clip; the row behind the clip's frames is nobody's. */
template <class F>
static __device__ __forceinline__ void write_rows(float *out, running<F> *r, int64_t stride, int64_t query,
                                                  int64_t frames, int width, int lane) {
#pragma unroll
  for (int i = 0; i < EACH; i++, query += F::GROUPS) {
    float total = r->total[i];
#pragma unroll
    for (int apart = LANES / 2; apart; apart /= 2) total += __shfl_xor_sync(0xffffffffu, total, apart);
#pragma unroll
    for (int c = 0; c < F::WIDTH / LANES; c += 4) {
      int at = 4 * lane + c * LANES;
      const float *v = r->sums[i] + c;
      float4 mean = make_float4(v[0] / total, v[1] / total, v[2] / total, v[3] / total);
      if (query == frames) mean = make_float4(0, 0, 0, 0);
      if (query <= frames && at < width) *(float4 *)(out + query * stride + at) = mean;
    }
  }
}

template <class F>
static __global__ void __launch_bounds__(F::THREADS, 512 / F::THREADS)
    attention_kernel(const __grid_constant__ attention_form n) {
  extern __shared__ float4 room[];
  float *queries = (float *)room, *keys = queries + F::QUERIES * F::PITCH, *values = keys + F::KEY_ROOM;
  int lane = (int)threadIdx.x % LANES, mine = (int)threadIdx.x / LANES;
  int64_t channels = (int64_t)n.heads * n.width, stride = 3 * channels;
  cuda_part part = cuda_part_of(n.row_start, n.clips, blockIdx.x, F::QUERIES);
  int64_t frames = part.length - 1, head = (int64_t)blockIdx.y * n.width;
  if (part.first > frames) return;
  const float *qkv = n.qkv + part.start * stride + head;
  float *weights = keys + mine * F::SCORE_PITCH;
  running<F> r = {};
#pragma unroll
  for (int i = 0; i < EACH; i++) r.most[i] = -INFINITY;
  int64_t left = frames - part.first;
  read_rows<F>(queries, qkv + part.first * stride, stride, F::QUERIES, left < F::QUERIES ? (int)left : F::QUERIES,
               n.width);
  for (int64_t key = 0; key < frames && left > 0; key += F::KEYS) {
    int count = frames - key < F::KEYS ? (int)(frames - key) : F::KEYS;
    float scores[EACH][F::KEYS / LANES];
    __syncthreads(); /* what was in the room has been read */
    read_rows<F>(keys, qkv + key * stride + channels, stride, F::KEYS, count, n.width);
    read_rows<F>(values, qkv + key * stride + 2 * channels, stride, F::KEYS, count, n.width);
    __syncthreads();
    score<F>(scores, queries + mine * F::PITCH, keys, lane, count);
    __syncthreads(); /* weights come where the keys were */
    weigh<F>(weights, &r, scores, lane, n.scale);
    __syncwarp(); /* a query's weights are of one warp */
    add_values<F>(&r, weights, values, lane);
  }
  write_rows<F>(n.out + part.start * channels + head, &r, channels, part.first + mine, frames, n.width, lane);
}

template <class F> static ser_status allow(ser_error *err) {
  CUDA_TRY(CUDA_RUNTIME,
           cudaFuncSetAttribute(attention_kernel<F>, cudaFuncAttributeMaxDynamicSharedMemorySize, F::SHARED), err);
  return SER_OK;
}

ser_status cuda_attention_prepare(ser_device *device, ser_plan **plan, const ser_attention_shape *shape,
                                  ser_error *err) {
  attention_plan *p = (attention_plan *)cuda_plan_make(device, sizeof *p, NULL);
  ser_status status = shape->width <= MOST_WIDE ? allow<narrow>(err) : allow<wide>(err);
  p->shape = *shape;
  *plan = status == SER_OK ? &p->plan.plan : NULL;
  if (status != SER_OK) ser_plan_free(&p->plan.plan);
  return status;
}

template <class F> static void launch(ser_stream *stream, const attention_form *n, const ser_rows *rows) {
  dim3 blocks((unsigned)cuda_parts(rows->rows, rows->clips, F::QUERIES), (unsigned)n->heads);
  CUDA_LAUNCH(stream, attention_kernel<F>, blocks, F::THREADS, F::SHARED, *n);
}

void cuda_attention_forward(ser_stream *stream, const ser_plan *plan, void *workspace, float *out, const float *qkv,
                            const ser_rows *rows) {
  (void)workspace;
  const ser_attention_shape *s = &((const attention_plan *)plan)->shape;
  const float scale = 1.44269504f / sqrtf((float)s->width); /* exp(x) = 2^(x / ln 2) */
  attention_form n = {out, qkv, rows->row_start, (int)rows->clips, (int)s->heads, (int)s->width, scale};
  SER_CHECK(cuda_is_aligned(out) && cuda_is_aligned(qkv));
  if (!rows->rows) return;
  if (s->width <= MOST_WIDE)
    launch<narrow>(stream, &n, rows);
  else
    launch<wide>(stream, &n, rows);
}
