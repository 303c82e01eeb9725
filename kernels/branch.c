/* The folded temporal branch for inference: both directions of a clip from its tile to its pooled vectors, in scratch
 * that stays in the cache. The same answers as the training operations with batch norms folded into the weights. A task
 * is one direction of one clip, so that a single clip keeps two threads busy. */
#include "kernels/conv_tile.h"
#include "kernels/kernels.h"
#include "kernels/math.h"

typedef struct {
  ser_plan plan;
  ser_branch_shape shape;
  ser_dims in, d;
  int64_t scales; /* pooled vectors a clip */
  int64_t convs;  /* a direction: the 1x1 convolution and two a block */
  /* Floats: weights and packed weights of the 1x1 convolution and of another, bias included; of the packed weights
   * altogether; of the pooled vectors of one direction; of a thread's scratch and of the tile of the input in it. */
  int64_t first_weights, weights, first_packed, packed, all_packed, pooled, scratch, input;
} branch_plan;

ser_status SER_ISA(cpu_branch_prepare)(ser_device *device, ser_plan **plan, const ser_branch_shape *shape,
                                       ser_error *err) {
  (void)err;
  branch_plan *p = ser_cpu_plan(device, sizeof *p);
  const ser_branch_shape *s = shape;
  p->shape = *s;
  p->in = dims_of(s->channels_in, s->time);
  p->d = dims_of(s->channels, s->time);
  p->scales = s->every_scale ? s->blocks : 1;
  p->convs = 1 + 2 * s->blocks;
  p->first_weights = s->channels * (s->channels_in + 1);
  p->weights = s->channels * (s->channels * s->kernel + 1);
  p->first_packed = SER_ROUND_UP(tile_packed_floats(s->channels, s->channels_in, 1), 16);
  p->packed = SER_ROUND_UP(tile_packed_floats(s->channels, s->channels, s->kernel), 16);
  p->all_packed = 2 * (p->first_packed + (p->convs - 1) * p->packed);
  p->pooled = p->scales * s->batch * p->d.cp;
  p->input = tile_floats(p->in.cp, p->in.tp);
  p->scratch = p->input + 3 * tile_floats(p->d.cp, p->d.tp);
  p->plan.workspace =
      (size_t)(p->all_packed + SER_ROUND_UP(2 * p->pooled, 16) + ser_cpu_threads(device) * p->scratch) * sizeof(float);
  *plan = &p->plan;
  return SER_OK;
}

typedef struct {
  const branch_plan *p;
  float *packed;  /* [2] directions of p->convs convolutions */
  float *pooled;  /* [2][scales][batch][Cp] */
  float *scratch; /* for each thread */
  const float *tile, *weights;
  const int64_t *lengths;
  int64_t batch;
} branch_context;

/* Where the weights of a direction's convolution lie, [channels][in][K] and then bias [channels]. */
static const float *weights_of(const branch_context *k, int64_t side, int64_t conv) {
  const branch_plan *p = k->p;
  const float *first = k->weights + side * (p->first_weights + (p->convs - 1) * p->weights);
  return conv ? first + p->first_weights + (conv - 1) * p->weights : first;
}

static float *packed_of(const branch_context *k, int64_t side, int64_t conv) {
  const branch_plan *p = k->p;
  float *first = k->packed + side * (p->all_packed / 2);
  return conv ? first + p->first_packed + (conv - 1) * p->packed : first;
}

static void pack_conv(void *context, size_t task, int thread) {
  (void)thread;
  const branch_context *k = context;
  const ser_branch_shape *s = &k->p->shape;
  int64_t side = (int64_t)task / k->p->convs, conv = (int64_t)task % k->p->convs;
  SER_ISA(tile_pack)
  (packed_of(k, side, conv), weights_of(k, side, conv), s->channels, conv ? s->channels : s->channels_in,
   conv ? s->kernel : 1, false);
}

/* y = convolution `conv` of a direction of a; both are first rows of tiles with margins. */
static void convolve(const branch_context *k, float *y, const float *a, int64_t side, int64_t conv) {
  const ser_branch_shape *s = &k->p->shape;
  int64_t in = conv ? s->channels : s->channels_in, taps = conv ? s->kernel : 1;
  int64_t dilation = conv ? (int64_t)1 << (conv - 1) / 2 : 1, tp = k->p->d.tp;
  tile_shape shape = {in, s->channels, taps, dilation, -(taps - 1) * dilation, s->time, tp};
  const float *bias = weights_of(k, side, conv) + s->channels * in * taps;
  SER_ISA(tile_product)(y, tile_pitch(tp), a, packed_of(k, side, conv), bias, &shape, conv ? TILE_RELU : TILE_WRITE);
}

/* The clip's tile, turned round for the direction that runs backwards. */
static void read_input(const branch_context *k, float *to, int64_t b, bool reversed) {
  const ser_dims *in = &k->p->in;
  for (int64_t c = 0; c < in->c; c++) {
    const float *from = k->tile + (b * in->cp + c) * in->tp;
    float *row = to + c * tile_pitch(in->tp);
    memcpy(row, from, (size_t)in->tp * sizeof *row);
    for (int64_t t = 0; t < in->t && reversed; t++) row[t] = from[in->t - 1 - t];
  }
}

/* x = x joined with a; their padding is zero and stays so. */
static void join(float *x, const float *a, const branch_plan *p) {
  for (int64_t c = 0; c < p->d.c; c++)
    for (int64_t t = 0; t < p->d.t; t += VW) {
      int64_t at = c * tile_pitch(p->d.tp) + t;
      vf xv = v_load(x + at), av = v_load(a + at);
      v_store(x + at, p->shape.join == 1 + SER_JOIN_GATE ? xv * v_sigmoid(av) : xv + av);
    }
}

/* Means over the clip's real columns: the first ones, or the last ones of the direction that runs backwards. */
static void pool(const branch_context *k, float *pooled, const float *x, int64_t b, bool reversed) {
  const ser_dims *d = &k->p->d;
  int64_t length = !k->lengths || k->lengths[b] > d->t ? d->t : k->lengths[b] > 0 ? k->lengths[b] : 0;
  int64_t first = reversed ? d->t - length : 0, end = first + length;
  for (int64_t c = 0; c < d->cp; c++) {
    const float *row = x + c * tile_pitch(d->tp);
    vf sum = {0};
    for (int64_t t = first / VW * VW; t < end; t += VW) {
      vf v = v_keep(v_load(row + t), end - t);
      sum += t >= first ? v : (vf)((vi)v & ~v_first(first - t));
    }
    pooled[c] = length ? (float)(v_total(sum) / (double)length) : 0;
  }
}

static void side_of_clip(void *context, size_t task, int thread) {
  const branch_context *k = context;
  const branch_plan *p = k->p;
  int64_t b = (int64_t)task / 2, side = (int64_t)task % 2, tile = tile_floats(p->d.cp, p->d.tp);
  float *scratch = k->scratch + thread * p->scratch;
  float *input = tile_clear_margins(scratch, p->in.cp, p->in.tp);
  float *x = tile_clear_margins(scratch + p->input, p->d.cp, p->d.tp);
  float *h = tile_clear_margins(scratch + p->input + tile, p->d.cp, p->d.tp);
  float *a = tile_clear_margins(scratch + p->input + 2 * tile, p->d.cp, p->d.tp);
  read_input(k, input, b, side);
  convolve(k, x, input, side, 0);
  for (int64_t block = 0; block < p->shape.blocks; block++) {
    convolve(k, h, x, side, 1 + 2 * block);
    convolve(k, p->shape.join ? a : x, h, side, 2 + 2 * block);
    if (p->shape.join) join(x, a, p);
    int64_t scale = p->shape.every_scale ? block : 0;
    if (p->shape.every_scale || block + 1 == p->shape.blocks)
      pool(k, k->pooled + ((side * p->scales + scale) * k->batch + b) * p->d.cp, x, b, side);
  }
}

void SER_ISA(cpu_branch_infer)(ser_stream *stream, const ser_plan *plan, void *workspace, float *pooled,
                               const float *tile, const float *weights, const int64_t *lengths, int64_t batch) {
  const branch_plan *p = (const branch_plan *)plan;
  float *packed = workspace, *sides = packed + p->all_packed;
  float *scratch = sides + SER_ROUND_UP(2 * p->pooled, 16);
  branch_context context = {p, packed, sides, scratch, tile, weights, lengths, batch};
  ser_cpu_parallel(stream, (size_t)(2 * p->convs), pack_conv, &context);
  ser_cpu_parallel(stream, (size_t)(2 * batch), side_of_clip, &context);
  int64_t side = p->scales * batch * p->d.cp;
  for (int64_t i = 0; i < side; i++) pooled[i] = sides[i] + sides[side + i];
}
