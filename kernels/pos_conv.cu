/* The CUDA form of pos_conv.c: the encoder's positional convolution, grouped, over 128 frames, within each clip; GELU,
 * and the frame itself added.
 *
 * A block makes FRAMES frames of one clip and up to 48 or 64 channels of one group; a thread 8 frames, end to end, by 6
 * or 8 channels in registers. The sum runs over the group's inputs, IN at a time, whose frames lie in shared memory
 * with time contiguous, and within them over the taps, TAPS at a time: the thread's frames for 8 taps are 15 numbers in
 * registers, so that 8 taps of one input take 20 loads from shared memory to 384 (or 512) multiply-adds. Weights come
 * packed in this order, the next step's on their way from memory meanwhile, in two rooms by turns. Inputs, taps and
 * outputs that fill up a step have weights of zero. */
#include "kernels/cuda_kernels.h"
#include "kernels/rows_cuda.h"

enum {
  FRAMES = 64,
  EACH_FRAMES = 8, /* of a thread */
  LANES = 8,       /* threads that share those frames, each with other channels */
  THREADS = FRAMES / EACH_FRAMES * LANES,
  WARP_FRAMES = CUDA_WARP / LANES * EACH_FRAMES,
  IN = 4,
  TAPS = 8,
  FIXED_SHARED = 48 << 10 /* bytes that a block may have without asking */
};

typedef struct {
  int channels, groups, width, kernel; /* width: channels of a group */
  int taps, pitch;                     /* the kernel in whole steps; from input to input in shared memory */
  int outs, out_blocks, in_blocks;     /* outputs of a block; blocks and steps that a group needs */
} pos_conv_form;

typedef struct {
  cuda_plan plan;
  pos_conv_form form;
  size_t shared;
} pos_conv_plan;

static int blocks_of(int n, int each) {
  return (n + each - 1) / each;
}

ser_status cuda_pos_conv_prepare(ser_device *device, ser_plan **plan, const ser_pos_conv_shape *shape, ser_error *err) {
  int width = (int)(shape->channels / shape->groups), kernel = (int)shape->kernel;
  pos_conv_form f = {(int)shape->channels, (int)shape->groups, width, kernel, 0, 0, 0, 0, 0};
  f.taps = SER_ROUND_UP(kernel, TAPS);
  f.pitch = FRAMES + f.taps + 4; /* four more: inputs begin in different banks */
  f.outs = LANES * (width <= 6 * LANES ? 6 : 8);
  f.out_blocks = blocks_of(width, f.outs);
  f.in_blocks = blocks_of(width, IN);
  size_t shared = (size_t)(IN * f.pitch + 2 * IN * TAPS * f.outs) * sizeof(float);
  *plan = NULL;
  if (shared > FIXED_SHARED)
    return ser_fail(err, SER_USAGE,
                    "a positional convolution over %d frames is more than the CUDA device does: use "
                    "--device cpu",
                    kernel);
  pos_conv_plan *p = (pos_conv_plan *)cuda_plan_make(device, sizeof *p, NULL);
  p->form = f;
  p->shared = shared;
  p->plan.plan.packed = (size_t)f.groups * f.out_blocks * f.in_blocks * IN * f.taps * f.outs * sizeof(float);
  *plan = &p->plan.plan;
  return SER_OK;
}

/* packed [groups][out blocks][in blocks][taps / TAPS][IN][TAPS][outs]: a step's weights end to end. */
static __global__ void pos_conv_pack_kernel(float *packed, const float *w, const __grid_constant__ pos_conv_form f) {
  int o = (int)threadIdx.x, step = (int)blockIdx.x, block = (int)blockIdx.y;
  int group = block / f.out_blocks, tap_blocks = f.taps / TAPS;
  int output = block % f.out_blocks * f.outs + o;
  packed += ((int64_t)block * gridDim.x + step) * IN * TAPS * f.outs;
  for (int i = 0; i < IN * TAPS; i++) {
    int input = step / tap_blocks * IN + i / TAPS, tap = step % tap_blocks * TAPS + i % TAPS;
    bool there = output < f.width && input < f.width && tap < f.kernel;
    packed[i * f.outs + o] = there ? w[((int64_t)(group * f.width + output) * f.width + input) * f.kernel + tap] : 0;
  }
}

void cuda_pos_conv_pack(ser_stream *stream, const ser_plan *plan, void *packed, const float *w) {
  const pos_conv_form *f = &((const pos_conv_plan *)plan)->form;
  dim3 blocks((unsigned)(f->in_blocks * (f->taps / TAPS)), (unsigned)(f->groups * f->out_blocks));
  CUDA_LAUNCH(stream, pos_conv_pack_kernel, blocks, (unsigned)f->outs, 0, (float *)packed, w, *f);
}

/* The frames about the block's, of the inputs from `input` on, zeros beyond the clip and the group:
 * to [IN][pitch]. x: the clip's first frame, of the group. */
static __device__ __forceinline__ void read_frames(float *to, const float *x, int input, int64_t first, int64_t frames,
                                                   const pos_conv_form &f, bool aligned) {
  for (int column = (int)threadIdx.x; column < FRAMES + f.taps; column += THREADS) {
    int64_t frame = first - f.kernel / 2 + column;
    float4 v = make_float4(0, 0, 0, 0);
    if (frame >= 0 && frame < frames) v = cuda_read_four(x + frame * f.channels, input, f.width, aligned);
    to[column] = v.x;
    to[f.pitch + column] = v.y;
    to[2 * f.pitch + column] = v.z;
    to[3 * f.pitch + column] = v.w;
  }
}

/* Which of the block's outputs is the thread's number e: four end to end, and two or four of the next 32. */
template <int EACH> static __device__ __forceinline__ int output_of(int e, int lane) {
  return e < 4 ? 4 * lane + e : 4 * LANES + (EACH - 4) * lane + e - 4;
}

/* One step's inputs and taps. frames: the thread's first, of the step's first input and tap; weights: the step's. */
template <int EACH>
static __device__ __forceinline__ void add_step(float (*sums)[EACH], const float *frames, int pitch,
                                                const float *weights, int lane) {
#pragma unroll 1
  for (int i = 0; i < IN; i++) {
    float x[EACH_FRAMES + TAPS];
#pragma unroll
    for (int k = 0; k < EACH_FRAMES + TAPS; k += 4) {
      float4 v = *(const float4 *)(frames + i * pitch + k);
      x[k] = v.x;
      x[k + 1] = v.y;
      x[k + 2] = v.z;
      x[k + 3] = v.w;
    }
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++) {
      const float *at = weights + (i * TAPS + tap) * EACH * LANES;
      float4 low = *(const float4 *)(at + 4 * lane);
      float w[8] = {low.x, low.y, low.z, low.w, 0, 0, 0, 0};
      if (EACH == 6) {
        float2 high = *(const float2 *)(at + 4 * LANES + 2 * lane);
        w[4] = high.x;
        w[5] = high.y;
      } else {
        float4 high = *(const float4 *)(at + 4 * LANES + 4 * lane);
        w[4] = high.x;
        w[5] = high.y;
        w[6] = high.z;
        w[7] = high.w;
      }
#pragma unroll
      for (int t = 0; t < EACH_FRAMES; t++)
#pragma unroll
        for (int e = 0; e < EACH; e++) sums[t][e] = fmaf(x[t + tap], w[e], sums[t][e]);
    }
  }
}

/* The thread's frames from `frame` of the clip on; out, x and bias are the group's. The row behind the clip's frames is
 * nobody's. */
template <int EACH>
static __device__ __forceinline__ void finish(float *out, const float *x, const float *bias, float (*sums)[EACH],
                                              int64_t frame, int64_t frames, int first, int lane,
                                              const pos_conv_form &f) {
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    int o = first + output_of<EACH>(e, lane);
    if (o >= f.width) continue;
    float start = bias[o];
#pragma unroll
    for (int t = 0; t < EACH_FRAMES; t++) {
      int64_t at = (frame + t) * f.channels + o;
      if (frame + t < frames)
        out[at] = x[at] + cuda_gelu(sums[t][e] + start);
      else if (frame + t == frames)
        out[at] = 0;
    }
  }
}

template <int EACH>
static __global__ void __launch_bounds__(THREADS, EACH == 6 ? 8 : 6)
    pos_conv_kernel(float *out, const float *x, const float *packed, const float *bias, const int64_t *row_start,
                    int clips, bool aligned, const __grid_constant__ pos_conv_form f) {
  enum { STEP = IN * TAPS * EACH * LANES, FOURS = STEP / 4 / THREADS };
  extern __shared__ float4 room[];
  float *frames = (float *)(room + 2 * STEP / 4), sums[EACH_FRAMES][EACH] = {};
  int thread = (int)threadIdx.x, lane = thread % LANES, mine = thread / LANES * EACH_FRAMES;
  int group = (int)blockIdx.y / f.out_blocks, taps = f.taps / TAPS, steps = f.in_blocks * taps;
  cuda_part part = cuda_part_of(row_start, clips, blockIdx.x, FRAMES);
  int64_t length = part.length - 1, at = part.start * f.channels + group * f.width;
  if (part.first > length) return;
  bool idle = part.first + mine / WARP_FRAMES * WARP_FRAMES >= length; /* of the whole warp */
  const float4 *next = (const float4 *)packed + (int64_t)blockIdx.y * steps * (STEP / 4) + thread;
  float4 ahead[FOURS];
  if (part.first == length) steps = 0;
  for (int step = -1; step < steps; step++, next += STEP / 4) {
    if (step + 1 < steps)
#pragma unroll
      for (int i = 0; i < FOURS; i++) ahead[i] = next[i * THREADS];
    if (step >= 0 && !idle)
      add_step<EACH>(sums, frames + mine + step % taps * TAPS, f.pitch, (float *)(room + step % 2 * (STEP / 4)), lane);
    if (step + 1 < steps)
#pragma unroll
      for (int i = 0; i < FOURS; i++) room[(step + 1) % 2 * (STEP / 4) + i * THREADS + thread] = ahead[i];
    if ((step + 1) % taps == 0 && step + 1 < steps) {
      __syncthreads(); /* the frames there have been read */
      read_frames(frames, x + at, (step + 1) / taps * IN, part.first, length, f, aligned);
    }
    __syncthreads();
  }
  finish<EACH>(out + at, x + at, bias + group * f.width, sums, part.first + mine, length,
               (int)blockIdx.y % f.out_blocks * EACH * LANES, lane, f);
}

void cuda_pos_conv_forward(ser_stream *stream, const ser_plan *plan, void *workspace, float *out, const float *x,
                           const void *packed, const float *bias, const ser_rows *rows) {
  (void)workspace;
  const pos_conv_plan *p = (const pos_conv_plan *)plan;
  const pos_conv_form *f = &p->form;
  const float *w = (const float *)packed;
  bool aligned = f->width % 4 == 0 && cuda_is_aligned(x);
  dim3 blocks((unsigned)cuda_parts(rows->rows, rows->clips, FRAMES), (unsigned)(f->groups * f->out_blocks));
  if (!rows->rows) return;
  if (f->outs == 6 * LANES)
    CUDA_LAUNCH(stream, pos_conv_kernel<6>, blocks, THREADS, p->shared, out, x, w, bias, rows->row_start,
                (int)rows->clips, aligned, *f);
  else
    CUDA_LAUNCH(stream, pos_conv_kernel<8>, blocks, THREADS, p->shared, out, x, w, bias, rows->row_start,
                (int)rows->clips, aligned, *f);
}
