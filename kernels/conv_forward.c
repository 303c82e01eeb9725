/* Causal dilated convolution over time (torch.nn.Conv1d behind a left padding of (K - 1) * dilation), with the
 * activation of its input taken on the fly and the moments of its output for batch norm. */
#include "kernels/conv.h"
#include "kernels/kernels.h"

ser_status SER_ISA(cpu_conv_prepare)(ser_device *device, ser_plan **plan, const ser_conv_shape *shape, ser_error *err) {
  (void)err;
  conv_plan *p = ser_cpu_plan(device, sizeof *p);
  p->shape = *shape;
  p->in = dims_of(shape->in, shape->time);
  p->out = dims_of(shape->out, shape->time);
  p->plan.workspace = (size_t)(shape->batch * (p->in.cp + p->out.cp) * p->in.tp) * sizeof(float);
  *plan = &p->plan;
  return SER_OK;
}

typedef struct {
  const conv_plan *p;
  float *a, *y, *moments;
  const ser_activation *x;
  const float *w, *bias;
} forward_context;

static void moments_of_row(float *mean, float *squares, const float *y, const ser_dims *d) {
  double sum = 0, apart = 0;
  for (int64_t t = 0; t < d->t; t++) sum += (double)y[t];
  double m = sum / (double)d->t;
  for (int64_t t = 0; t < d->t; t++) apart += ((double)y[t] - m) * ((double)y[t] - m);
  *mean = (float)m;
  *squares = (float)apart;
}

static void forward_clip(void *context, size_t task, int thread) {
  (void)thread;
  const forward_context *f = context;
  const ser_dims *in = &f->p->in, *out = &f->p->out;
  int64_t b = (int64_t)task, taps = f->p->shape.kernel;
  float *a = f->a + b * in->cp * in->tp;
  for (int64_t c = 0; c < in->cp; c++) {
    act_row row = act_row_of(f->x, b, c, in);
    for (int64_t t = 0; t < in->tp; t += VW) v_store(a + c * in->tp + t, act_at(&row, t, in));
  }
  for (int64_t o = 0; o < out->cp; o++) {
    float *y = f->y + (b * out->cp + o) * out->tp;
    for (int64_t t = 0; t < out->tp; t++) y[t] = f->bias && o < out->c && t < out->t ? f->bias[o] : 0;
    for (int64_t i = 0; i < in->c && o < out->c; i++)
      for (int64_t k = 0; k < taps; k++) {
        int64_t offset = (taps - 1 - k) * f->p->shape.dilation;
        float w = f->w[(o * in->c + i) * taps + k];
        for (int64_t t = offset; t < out->t; t++) y[t] += w * a[i * in->tp + t - offset];
      }
    if (f->moments) moments_of_row(f->moments + b * 2 * out->cp + o, f->moments + (b * 2 + 1) * out->cp + o, y, out);
  }
}

void SER_ISA(cpu_causal_conv_forward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *y,
                                      float *moments, const ser_activation *x, const float *w, const float *bias,
                                      int64_t batch) {
  forward_context context = {(const conv_plan *)plan, workspace, y, moments, x, w, bias};
  ser_cpu_parallel(stream, (size_t)batch, forward_clip, &context);
}
