/* The gradients of the causal dilated convolution (torch's autograd of Conv1d behind a left padding), with the gradient
 * through batch norm, ReLU and dropout made on the fly. A task is a group of clips of one side, whose weight
 * gradients are summed in order; the groups' are summed in order at the end, so that no byte depends on the threads. */
#include "kernels/conv.h"
#include "kernels/kernels.h"

typedef struct {
  const conv_plan *p;
  const float *packed;      /* [S] w turned round, for dx */
  float *partial, *scratch; /* [S][groups][conv_partial_floats], [threads][p->scratch] */
  float *dx, *next;
  bool dbias, add_dx;
  const ser_activation *x;
  const ser_gradient *x_norm, *dy;
  int64_t batch, groups; /* of one side */
} backward_context;

/* The gradient at the output of a clip in a tile with margins; returns its first row. */
static float *read_gradient(float *tile, const backward_context *k, ser_clip clip) {
  const ser_dims *out = &k->p->out;
  float *first = tile_clear_margins(tile, out->cp, out->tp);
  for (int64_t c = 0; c < out->cp; c++) {
    grad_row row = grad_row_of(k->dy, clip, c, out);
    grad_write(first + c * tile_pitch(out->tp), &row, out);
  }
  return first;
}

static void data_gradient(const backward_context *k, const float *dy, ser_clip clip) {
  const conv_plan *p = k->p;
  const ser_dims *in = &p->in;
  float *dx = k->dx + clip.at * in->cp * in->tp;
  const float *packed = k->packed + clip.side * p->packed;
  tile_shape shape = {p->out.c, in->c, p->shape.kernel, -p->shape.dilation, p->offset, in->t, in->tp};
  SER_ISA(tile_product)(dx, in->tp, dy, packed, NULL, &shape, k->add_dx ? TILE_ADD : TILE_WRITE);
  if (!k->next) return;
  float *next = k->next + clip.at * 2 * in->cp;
  for (int64_t c = 0; c < in->cp; c++) {
    grad_row row = grad_row_of(k->x_norm, clip, c, in);
    grad_sums(&next[c], &next[in->cp + c], &row, dx + c * in->tp, in);
  }
}

static void backward_group(void *context, size_t task, int thread) {
  const backward_context *k = context;
  const conv_plan *p = k->p;
  const ser_dims *out = &p->out;
  int64_t side = (int64_t)task / k->groups, first = (int64_t)task % k->groups * CONV_GROUP;
  int64_t end = first + CONV_GROUP < k->batch ? first + CONV_GROUP : k->batch;
  float *a_tile = k->scratch + thread * p->scratch, *dy_tile = a_tile + p->a_tile, *lanes = dy_tile + p->dy_tile;
  float *dw = k->partial + (int64_t)task * conv_partial_floats(p), *dbias = dw + p->weights;
  tile_shape shape = {p->in.c, out->c, p->shape.kernel, p->shape.dilation, -p->offset, out->t, out->tp};
  memset(dbias, 0, (size_t)out->c * sizeof *dbias);
  for (int64_t b = first; b < end; b++) {
    ser_clip clip = clip_of(side, b, k->batch);
    const float *a = SER_ISA(conv_read_tile)(a_tile, p, k->x, clip), *dy = read_gradient(dy_tile, k, clip);
    SER_ISA(tile_gradient)(lanes, dy, a, &shape, b > first);
    for (int64_t o = 0; o < out->c && k->dbias; o++) {
      vf sum = {0};
      for (int64_t t = 0; t < out->t; t += VW) sum += v_load(dy + o * tile_pitch(out->tp) + t);
      dbias[o] += (float)v_total(sum);
    }
    if (k->dx) data_gradient(k, dy, clip);
  }
  SER_ISA(tile_gradient_finish)(dw, lanes, &shape);
}

/* Elements of one task of the sum over groups. */
enum { SUM_CHUNK = 1024 };

typedef struct {
  float *out;
  const float *partial;                         /* [S][groups][step] */
  int64_t step, groups, n, chunks, side_stride; /* chunks: of one side */
} sum_context;

/* out[i] = the groups' values at i, in order. */
static void sum_chunk(void *context, size_t task, int thread) {
  const sum_context *s = context;
  int64_t side = (int64_t)task / s->chunks, first = (int64_t)task % s->chunks * SUM_CHUNK;
  int64_t end = first + SUM_CHUNK < s->n ? first + SUM_CHUNK : s->n;
  const float *partial = s->partial + side * s->groups * s->step;
  float *out = s->out + side * s->side_stride;
  (void)thread;
  for (int64_t i = first; i < end; i++) {
    double sum = 0;
    for (int64_t g = 0; g < s->groups; g++) sum += (double)partial[g * s->step + i];
    out[i] = (float)sum;
  }
}

static void sum_groups(ser_stream *stream, float *out, const float *partial, const conv_plan *p, int64_t groups,
                       int64_t n) {
  int64_t chunks = (n + SUM_CHUNK - 1) / SUM_CHUNK;
  sum_context context = {out, partial, conv_partial_floats(p), groups, n, chunks, p->shape.side_stride};
  ser_cpu_parallel(stream, (size_t)(p->shape.sides * chunks), sum_chunk, &context);
}

void SER_ISA(cpu_causal_conv_backward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *dx, float *dw,
                                       float *dbias, float *next, const ser_activation *x, const ser_gradient *x_norm,
                                       const ser_gradient *dy, const float *w, bool add_dx, int64_t batch) {
  const conv_plan *p = (const conv_plan *)plan;
  float *packed = workspace;
  if (dx) conv_pack(packed, p, w, true);
  backward_context context = {.p = p,
                              .packed = packed,
                              .partial = packed + p->shape.sides * p->packed,
                              .scratch = packed + p->shape.sides * p->packed + p->partial,
                              .dx = dx,
                              .next = next,
                              .dbias = dbias != NULL,
                              .add_dx = add_dx,
                              .x = x,
                              .x_norm = x_norm,
                              .dy = dy,
                              .batch = batch,
                              .groups = conv_groups(batch)};
  ser_cpu_parallel(stream, (size_t)(p->shape.sides * context.groups), backward_group, &context);
  sum_groups(stream, dw, context.partial, p, context.groups, p->weights);
  if (dbias) sum_groups(stream, dbias, context.partial + p->weights, p, context.groups, p->out.c);
}
