/* The folded temporal branch for inference: both directions of a clip from its tile to its pooled vectors, in scratch
 * that stays in the cache. The same answers as the training operations with batch norms folded into the weights. */
#include "kernels/kernels.h"
#include "kernels/math.h"
#include "kernels/temporal.h"

typedef struct {
  ser_plan plan;
  ser_branch_shape shape;
  ser_dims in, d;
  int64_t scales;   /* pooled vectors a clip */
  int64_t per_side; /* floats of one direction's weights */
  int threads;
} branch_plan;

ser_status SER_ISA(cpu_branch_prepare)(ser_device *device, ser_plan **plan, const ser_branch_shape *shape,
                                       ser_error *err) {
  (void)err;
  branch_plan *p = ser_cpu_plan(device, sizeof *p);
  p->shape = *shape;
  p->in = dims_of(shape->channels_in, shape->time);
  p->d = dims_of(shape->channels, shape->time);
  p->scales = shape->every_scale ? shape->blocks : 1;
  p->per_side = shape->channels * (shape->channels_in + 1) +
                2 * shape->blocks * shape->channels * (shape->channels * shape->kernel + 1);
  p->threads = ser_cpu_threads(device);
  int64_t scratch = (p->in.cp + 3 * p->d.cp) * p->d.tp;
  p->plan.workspace = (size_t)(2 * p->scales * shape->batch * p->d.cp + p->threads * scratch) * sizeof(float);
  *plan = &p->plan;
  return SER_OK;
}

typedef struct {
  const branch_plan *p;
  float *sides;   /* [2][scales][batch][Cp] pooled */
  float *scratch; /* for each thread */
  const float *tile, *weights;
  const int64_t *lengths;
  int64_t batch;
} branch_context;

/* y = bias + the convolution of a; ReLU where asked. y, a: [Cp][Tp]. */
static void convolve(float *y, const float *a, const float *w, const float *bias, const ser_dims *d, int64_t in,
                     int64_t taps, int64_t dilation, bool relu) {
  for (int64_t o = 0; o < d->cp; o++) {
    float *row = y + o * d->tp;
    for (int64_t t = 0; t < d->tp; t++) row[t] = o < d->c && t < d->t ? bias[o] : 0;
    for (int64_t i = 0; i < in && o < d->c; i++)
      for (int64_t k = 0; k < taps; k++) {
        int64_t offset = (taps - 1 - k) * dilation;
        float wk = w[(o * in + i) * taps + k];
        for (int64_t t = offset; t < d->t; t++) row[t] += wk * a[i * d->tp + t - offset];
      }
    for (int64_t t = 0; t < d->tp && relu; t += VW) v_store(row + t, v_relu(v_load(row + t)));
  }
}

static void pool(const branch_context *k, float *pooled, const float *a, int64_t b, bool reversed) {
  const ser_dims *d = &k->p->d;
  int64_t length = !k->lengths || k->lengths[b] > d->t ? d->t : k->lengths[b] > 0 ? k->lengths[b] : 0;
  int64_t first = reversed ? d->t - length : 0;
  for (int64_t c = 0; c < d->cp; c++) {
    double sum = 0;
    for (int64_t t = first; t < first + length; t++) sum += (double)a[c * d->tp + t];
    pooled[c] = length ? (float)(sum / (double)length) : 0;
  }
}

static void join(float *x, const float *a, const branch_plan *p) {
  for (int64_t i = 0; i < p->d.cp * p->d.tp; i += VW) {
    vf xv = v_load(x + i), av = v_load(a + i);
    v_store(x + i, p->shape.join == 0 ? av : p->shape.join == 1 + SER_JOIN_GATE ? xv * v_sigmoid(av) : xv + av);
  }
}

static void side_of_clip(void *context, size_t task, int thread) {
  const branch_context *k = context;
  const branch_plan *p = k->p;
  const ser_dims *d = &p->d;
  int64_t b = (int64_t)task / 2, side = (int64_t)task % 2, tile = d->cp * d->tp, taps = p->shape.kernel;
  float *input = k->scratch + thread * (p->in.cp * d->tp + 3 * tile);
  float *x = input + p->in.cp * d->tp, *h = x + tile, *a = h + tile;
  memcpy(input, k->tile + b * p->in.cp * d->tp, (size_t)(p->in.cp * d->tp) * sizeof(float));
  for (int64_t c = 0; c < p->in.c && side; c++)
    for (int64_t t = 0; t < d->t; t++) input[c * d->tp + t] = k->tile[(b * p->in.cp + c) * d->tp + d->t - 1 - t];
  const float *w = k->weights + side * p->per_side;
  convolve(x, input, w, w + d->c * p->in.c, d, p->in.c, 1, 1, false);
  w += d->c * (p->in.c + 1);
  for (int64_t block = 0; block < p->shape.blocks; block++) {
    int64_t dilation = (int64_t)1 << block, size = d->c * d->c * taps;
    convolve(h, x, w, w + size, d, d->c, taps, dilation, true);
    w += size + d->c;
    convolve(a, h, w, w + size, d, d->c, taps, dilation, true);
    w += size + d->c;
    join(x, a, p);
    int64_t scale = p->shape.every_scale ? block : 0;
    if (p->shape.every_scale || block + 1 == p->shape.blocks)
      pool(k, k->sides + ((side * p->scales + scale) * k->batch + b) * d->cp, x, b, side);
  }
}

void SER_ISA(cpu_branch_infer)(ser_stream *stream, const ser_plan *plan, void *workspace, float *pooled,
                               const float *tile, const float *weights, const int64_t *lengths, int64_t batch) {
  const branch_plan *p = (const branch_plan *)plan;
  int64_t side = p->scales * batch * p->d.cp;
  float *sides = workspace;
  branch_context context = {p, sides, sides + 2 * side, tile, weights, lengths, batch};
  ser_cpu_parallel(stream, (size_t)(2 * batch), side_of_clip, &context);
  for (int64_t i = 0; i < side; i++) pooled[i] = sides[i] + sides[side + i];
}
