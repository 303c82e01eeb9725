/* Dense layers (torch.nn.Linear) over strided rows, and their gradients. Rows are independent and every sum runs in one
 * order over its index, so that a row's bytes depend on neither the number of rows nor the threads. */
#include "kernels/kernels.h"
#include "kernels/simd.h"

typedef struct {
  ser_plan plan;
  ser_linear_shape shape;
  int64_t padded; /* out rounded up to whole vectors of any instruction set */
} linear_plan;

ser_status SER_ISA(cpu_linear_prepare)(ser_device *device, ser_plan **plan, const ser_linear_shape *shape,
                                       ser_error *err) {
  (void)err;
  linear_plan *p = ser_cpu_plan(device, sizeof *p);
  p->shape = *shape;
  p->padded = SER_ROUND_UP(shape->out, 16);
  p->plan.workspace = (size_t)(p->padded * (shape->in + 1)) * sizeof(float);
  *plan = &p->plan;
  return SER_OK;
}

typedef struct {
  const linear_plan *p;
  float *packed, *out, *dx, *dw, *dbias; /* packed: bias [padded], then w turned round [in][padded] */
  const float *x, *w, *dout;
  int64_t rows;
} linear_context;

static void forward_row(void *context, size_t task, int thread) {
  (void)thread;
  const linear_context *c = context;
  const ser_linear_shape *s = &c->p->shape;
  const float *x = c->x + (int64_t)task * s->in_stride;
  float *out = c->out + (int64_t)task * s->out_stride;
  for (int64_t o = 0; o < s->out; o += VW) {
    vf sum = v_load(c->packed + o);
    const float *w = c->packed + c->p->padded + o;
    for (int64_t i = 0; i < s->in; i++) sum += x[i] * v_load(w + i * c->p->padded);
    int64_t left = s->out - o < VW ? s->out - o : VW;
    memcpy(out + o, &sum, (size_t)left * sizeof(float));
  }
  for (int64_t o = s->out; o < s->out_stride; o++) out[o] = 0;
}

void SER_ISA(cpu_linear_forward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *out, const float *x,
                                 const float *w, const float *bias, int64_t rows) {
  const linear_plan *p = (const linear_plan *)plan;
  float *packed = workspace;
  for (int64_t o = 0; o < p->padded; o++) packed[o] = bias && o < p->shape.out ? bias[o] : 0;
  for (int64_t i = 0; i < p->shape.in; i++)
    for (int64_t o = 0; o < p->padded; o++)
      packed[(i + 1) * p->padded + o] = o < p->shape.out ? w[o * p->shape.in + i] : 0;
  linear_context context = {.p = p, .packed = packed, .out = out, .x = x, .rows = rows};
  ser_cpu_parallel(stream, (size_t)rows, forward_row, &context);
}

/* out[i] = sum over k of a[k * a_step] * b[k * b_step + i], i in [0, n). */
static void weighted_rows(float *out, const float *a, int64_t a_step, const float *b, int64_t b_step, int64_t count,
                          int64_t n) {
  int64_t i = 0;
  for (; i + VW <= n; i += VW) {
    vf sum = {0};
    for (int64_t k = 0; k < count; k++) sum += a[k * a_step] * v_load(b + k * b_step + i);
    v_store(out + i, sum);
  }
  for (; i < n; i++) {
    float sum = 0;
    for (int64_t k = 0; k < count; k++) sum += a[k * a_step] * b[k * b_step + i];
    out[i] = sum;
  }
}

static void backward_row(void *context, size_t task, int thread) {
  (void)thread;
  const linear_context *c = context;
  const ser_linear_shape *s = &c->p->shape;
  float *dx = c->dx + (int64_t)task * s->in_stride;
  weighted_rows(dx, c->dout + (int64_t)task * s->out_stride, 1, c->w, s->in, s->out, s->in);
  for (int64_t i = s->in; i < s->in_stride; i++) dx[i] = 0;
}

static void backward_output(void *context, size_t task, int thread) {
  (void)thread;
  const linear_context *c = context;
  const ser_linear_shape *s = &c->p->shape;
  int64_t o = (int64_t)task;
  weighted_rows(c->dw + o * s->in, c->dout + o, s->out_stride, c->x, s->in_stride, c->rows, s->in);
  if (!c->dbias) return;
  double sum = 0;
  for (int64_t r = 0; r < c->rows; r++) sum += (double)c->dout[r * s->out_stride + o];
  c->dbias[o] = (float)sum;
}

void SER_ISA(cpu_linear_backward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *dx, float *dw,
                                  float *dbias, const float *dout, const float *x, const float *w, int64_t rows) {
  (void)workspace;
  const linear_plan *p = (const linear_plan *)plan;
  linear_context context = {.p = p, .dx = dx, .dw = dw, .dbias = dbias, .x = x, .w = w, .dout = dout, .rows = rows};
  if (dx) ser_cpu_parallel(stream, (size_t)rows, backward_row, &context);
  ser_cpu_parallel(stream, (size_t)p->shape.out, backward_output, &context);
}
