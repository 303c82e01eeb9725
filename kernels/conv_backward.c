/* The gradients of the causal dilated convolution, with the gradient through batch norm, ReLU and dropout made on the
 * fly. */
#include "kernels/conv.h"
#include "kernels/kernels.h"

typedef struct {
  const conv_plan *p;
  float *a, *g; /* [B][Cp][Tp]: the input's activation, the gradient at the output */
  float *dx, *dw, *dbias, *next;
  const ser_activation *x;
  const ser_gradient *x_norm, *dy;
  const float *w;
  bool add_dx;
  int64_t batch;
} backward_context;

static void data_gradient(const backward_context *k, const float *g, float *dx) {
  const ser_dims *in = &k->p->in, *out = &k->p->out;
  int64_t taps = k->p->shape.kernel;
  for (int64_t i = 0; i < in->cp; i++) {
    float *row = dx + i * in->tp;
    if (!k->add_dx) memset(row, 0, (size_t)in->tp * sizeof *row);
    for (int64_t o = 0; o < out->c && i < in->c; o++)
      for (int64_t j = 0; j < taps; j++) {
        int64_t offset = (taps - 1 - j) * k->p->shape.dilation;
        float w = k->w[(o * in->c + i) * taps + j];
        for (int64_t t = offset; t < out->t; t++) row[t - offset] += w * g[o * out->tp + t];
      }
  }
}

static void backward_clip(void *context, size_t task, int thread) {
  (void)thread;
  const backward_context *k = context;
  const ser_dims *in = &k->p->in, *out = &k->p->out;
  int64_t b = (int64_t)task;
  float *a = k->a + b * in->cp * in->tp, *g = k->g + b * out->cp * out->tp;
  for (int64_t c = 0; c < in->cp; c++) {
    act_row row = act_row_of(k->x, b, c, in);
    for (int64_t t = 0; t < in->tp; t += VW) v_store(a + c * in->tp + t, act_at(&row, t, in));
  }
  for (int64_t c = 0; c < out->cp; c++) {
    grad_row row = grad_row_of(k->dy, b, c, out);
    for (int64_t t = 0; t < out->tp; t += VW) v_store(g + c * out->tp + t, grad_at(&row, t, out));
  }
  if (!k->dx) return;
  float *dx = k->dx + b * in->cp * in->tp;
  data_gradient(k, g, dx);
  if (!k->next) return;
  for (int64_t c = 0; c < in->cp; c++) {
    grad_row row = grad_row_of(k->x_norm, b, c, in);
    vf sum = {0}, product = {0};
    for (int64_t t = 0; t < in->tp; t += VW) {
      vf dz, xhat;
      grad_parts(&row, v_load(dx + c * in->tp + t), t, &dz, &xhat);
      sum += dz;
      product += dz * xhat;
    }
    k->next[b * 2 * in->cp + c] = dot_sum(sum);
    k->next[(b * 2 + 1) * in->cp + c] = dot_sum(product);
  }
}

static void weight_gradient(void *context, size_t task, int thread) {
  (void)thread;
  const backward_context *k = context;
  const ser_dims *in = &k->p->in, *out = &k->p->out;
  int64_t o = (int64_t)task, taps = k->p->shape.kernel;
  for (int64_t i = 0; i < in->c; i++)
    for (int64_t j = 0; j < taps; j++) {
      int64_t offset = (taps - 1 - j) * k->p->shape.dilation;
      double sum = 0;
      for (int64_t b = 0; b < k->batch; b++) {
        const float *g = k->g + (b * out->cp + o) * out->tp, *a = k->a + (b * in->cp + i) * in->tp;
        for (int64_t t = offset; t < out->t; t++) sum += (double)g[t] * (double)a[t - offset];
      }
      k->dw[(o * in->c + i) * taps + j] = (float)sum;
    }
  if (!k->dbias) return;
  double sum = 0;
  for (int64_t b = 0; b < k->batch; b++)
    for (int64_t t = 0; t < out->t; t++) sum += (double)k->g[(b * out->cp + o) * out->tp + t];
  k->dbias[o] = (float)sum;
}

void SER_ISA(cpu_causal_conv_backward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *dx, float *dw,
                                       float *dbias, float *next, const ser_activation *x, const ser_gradient *x_norm,
                                       const ser_gradient *dy, const float *w, bool add_dx, int64_t batch) {
  const conv_plan *p = (const conv_plan *)plan;
  float *a = workspace;
  backward_context context = {.p = p,
                              .a = a,
                              .g = a + batch * p->in.cp * p->in.tp,
                              .dx = dx,
                              .dw = dw,
                              .dbias = dbias,
                              .next = next,
                              .x = x,
                              .x_norm = x_norm,
                              .dy = dy,
                              .w = w,
                              .add_dx = add_dx,
                              .batch = batch};
  ser_cpu_parallel(stream, (size_t)batch, backward_clip, &context);
  ser_cpu_parallel(stream, (size_t)p->out.c, weight_gradient, &context);
}
