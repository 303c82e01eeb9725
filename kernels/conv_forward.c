/* Causal dilated convolution over time (torch.nn.Conv1d behind a left padding of (K - 1) * dilation), with the
 * activation of its input taken on the fly and the moments of its output for batch norm taken while it is in the
 * cache. A task is a clip on one side. */
#include "kernels/conv.h"
#include "kernels/kernels.h"

ser_status SER_ISA(cpu_conv_prepare)(ser_device *device, ser_plan **plan, const ser_conv_shape *shape, ser_error *err) {
  (void)err;
  conv_plan *p = ser_cpu_plan(device, sizeof *p);
  p->shape = *shape;
  p->in = dims_of(shape->in, shape->time);
  p->out = dims_of(shape->out, shape->time);
  p->offset = (shape->kernel - 1) * shape->dilation;
  p->weights = shape->out * shape->in * shape->kernel;
  int64_t forward = tile_packed_floats(shape->out, shape->in, shape->kernel);
  int64_t backward = tile_packed_floats(shape->in, shape->out, shape->kernel);
  p->packed = SER_ROUND_UP(forward > backward ? forward : backward, 16);
  p->partial = shape->sides * conv_groups(shape->batch) * conv_partial_floats(p);
  p->a_tile = tile_floats(tile_gradient_rows(shape->in), p->in.tp);
  p->dy_tile = tile_floats(p->out.cp, p->out.tp);
  p->scratch = p->a_tile + p->dy_tile + tile_gradient_floats(shape->out, shape->in, shape->kernel);
  p->plan.workspace =
      (size_t)(shape->sides * p->packed + p->partial + ser_cpu_threads(device) * p->scratch) * sizeof(float);
  *plan = &p->plan;
  return SER_OK;
}

float *SER_ISA(conv_read_tile)(float *tile, const conv_plan *p, const ser_activation *x, ser_clip clip) {
  float *first = tile_clear_margins(tile, tile_gradient_rows(p->in.c), p->in.tp);
  for (int64_t c = 0; c < tile_gradient_rows(p->in.c); c++) {
    float *to = first + c * tile_pitch(p->in.tp);
    if (c < p->in.c) {
      act_row row = act_row_of(x, clip, c, &p->in);
      act_write(to, &row, &p->in);
    } else {
      memset(to, 0, (size_t)p->in.tp * sizeof *to);
    }
  }
  return first;
}

typedef struct {
  const conv_plan *p;
  const float *packed;
  float *scratch, *y, *moments;
  const ser_activation *x;
  const float *bias;
  int64_t batch;
} forward_context;

/* Two passes: the mean, then the squares about it. */
static void moments_of_row(float *mean, float *squares, const float *y, const ser_dims *d) {
  vf sum = {0}, apart = {0};
  for (int64_t t = 0; t < d->t; t += VW) sum += v_load(y + t); /* zero from column T on */
  float m = (float)(v_total(sum) / (double)d->t);
  int64_t t = 0;
  for (; t + VW <= d->t; t += VW) {
    vf from = v_load(y + t) - m;
    apart += from * from;
  }
  if (t < d->t) {
    vf from = v_keep(v_load(y + t) - m, d->t - t);
    apart += from * from;
  }
  *mean = m;
  *squares = (float)v_total(apart);
}

static void forward_clip(void *context, size_t task, int thread) {
  const forward_context *f = context;
  const conv_plan *p = f->p;
  const ser_dims *out = &p->out;
  ser_clip clip = clip_of_task(task, f->batch);
  const float *a = SER_ISA(conv_read_tile)(f->scratch + thread * p->scratch, p, f->x, clip);
  const float *packed = f->packed + clip.side * p->packed;
  const float *bias = f->bias ? f->bias + clip.side * p->shape.side_stride : NULL;
  float *y = f->y + clip.at * out->cp * out->tp;
  tile_shape shape = {p->in.c, out->c, p->shape.kernel, p->shape.dilation, -p->offset, out->t, out->tp};
  SER_ISA(tile_product)(y, out->tp, a, packed, bias, &shape, TILE_WRITE);
  if (!f->moments) return;
  float *mean = f->moments + clip.at * 2 * out->cp, *squares = mean + out->cp;
  for (int64_t o = 0; o < out->cp; o++) moments_of_row(&mean[o], &squares[o], y + o * out->tp, out);
}

void SER_ISA(cpu_causal_conv_forward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *y,
                                      float *moments, const ser_activation *x, const float *w, const float *bias,
                                      int64_t batch) {
  const conv_plan *p = (const conv_plan *)plan;
  float *packed = workspace;
  conv_pack(packed, p, w, false);
  float *scratch = packed + p->shape.sides * p->packed + p->partial;
  forward_context context = {p, packed, scratch, y, moments, x, bias, batch};
  ser_cpu_parallel(stream, (size_t)(p->shape.sides * batch), forward_clip, &context);
}
