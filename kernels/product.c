/* Products with weights that stay (torch.nn.Linear, and convolutions whose rows overlap), for many rows.
 *
 * Weights are packed once, a panel of outputs after the other, inputs in order; rows are packed a block at a time. The
 * sum over the inputs runs in blocks of PANEL_DEPTH, in one order for every element, whatever task it falls into: a
 * row's bytes depend on that row alone. */
#include "kernels/kernels.h"
#include "kernels/panel.h"

enum { BLOCK_ROWS = 168 }; /* rows of a task, packed: they stay in the second-level cache */

typedef struct {
  ser_plan plan;
  ser_product_shape shape;
  int64_t scratch; /* floats a thread */
  float no_bias[];
} product_plan;

ser_status SER_ISA(cpu_product_prepare)(ser_device *device, ser_plan **plan, const ser_product_shape *shape,
                                        ser_error *err) {
  (void)err;
  product_plan *p = ser_cpu_plan(device, sizeof *p + (size_t)shape->out * sizeof *p->no_bias);
  p->shape = *shape;
  p->scratch = BLOCK_ROWS * PANEL_DEPTH;
  p->plan.packed = (size_t)(SER_ROUND_UP(shape->out, PANEL) * shape->in) * sizeof(float);
  p->plan.workspace = (size_t)(ser_cpu_threads(device) * p->scratch) * sizeof(float);
  *plan = &p->plan;
  return SER_OK;
}

/* ---- packing ------------------------------------------------------------------------------------------------------
 */

typedef struct {
  const product_plan *p;
  float *packed;
  const float *w;
} pack_context;

static void pack_panel(void *context, size_t task, int thread) {
  const pack_context *c = context;
  (void)thread;
  const ser_product_shape *s = &c->p->shape;
  int64_t first = (int64_t)task * PANEL, columns = s->out - first < PANEL ? s->out - first : PANEL;
  SER_ISA(panel_pack_turned)(c->packed + first * s->in, c->w + first * s->in, s->in, columns, s->in);
}

void SER_ISA(cpu_product_pack)(ser_stream *stream, const ser_plan *plan, void *packed, const float *w) {
  const product_plan *p = (const product_plan *)plan;
  pack_context context = {p, packed, w};
  ser_cpu_parallel(stream, (size_t)((p->shape.out + PANEL - 1) / PANEL), pack_panel, &context);
}

/* ---- sharing out ---------------------------------------------------------------------------------------------------
 */

typedef struct {
  const product_plan *p;
  float *out, *scratch;
  const float *x, *packed, *bias, *residual;
  bool gelu;
  int64_t rows, block, panels, panel_block, across; /* a task: `block` rows by panel_block panels */
} forward_context;

static void forward_task(void *context, size_t task, int thread) {
  const forward_context *c = context;
  const ser_product_shape *s = &c->p->shape;
  float *scratch = c->scratch + thread * c->p->scratch;
  int64_t first = (int64_t)task / c->across * c->block, panel = (int64_t)task % c->across * c->panel_block;
  int64_t rows = c->rows - first < c->block ? c->rows - first : c->block;
  int64_t end = panel + c->panel_block < c->panels ? panel + c->panel_block : c->panels;
  for (int64_t from = 0; from < s->in; from += PANEL_DEPTH) {
    int64_t depth = s->in - from < PANEL_DEPTH ? s->in - from : PANEL_DEPTH;
    SER_ISA(panel_pack_rows)(scratch, c->x + first * s->in_stride + from, s->in_stride, rows, depth);
    for (int64_t column = panel * PANEL; column < end * PANEL; column += PANEL) {
      const float *w = c->packed + column * s->in + from * PANEL;
      int64_t columns = s->out - column < PANEL ? s->out - column : PANEL, at = first * s->out_stride + column;
      panel_out to = {c->out + at, s->out_stride, from ? NULL : c->bias + column, c->residual ? c->residual + at : NULL,
                      c->gelu && from + depth == s->in};
      SER_ISA(panel_product)(&to, scratch, w, depth, rows, columns);
    }
  }
}

/* Blocks of rows alone while there are enough of them for all threads; else the outputs are shared out, too. */
static void share_out(forward_context *c, int threads) {
  int64_t blocks = (c->rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
  c->block = SER_ROUND_UP((c->rows + blocks - 1) / blocks, PANEL_ROWS);
  blocks = (c->rows + c->block - 1) / c->block;
  double best = 0;
  for (int64_t across = 1; across <= c->panels && across <= 4 * threads; across++) {
    int64_t panels = (c->panels + across - 1) / across, tasks = blocks * ((c->panels + panels - 1) / panels);
    int64_t turns = (tasks + threads - 1) / threads;
    /* of the time of all threads, what is spent on tiles; each more of `across` packs the rows once more */
    double used = (double)(blocks * c->panels) / (double)(turns * threads * panels) / (1 + 0.5 / (double)panels);
    if (used <= best * 1.01) continue;
    best = used;
    c->panel_block = panels;
  }
  c->across = (c->panels + c->panel_block - 1) / c->panel_block;
}

void SER_ISA(cpu_product_forward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *out, const float *x,
                                  const void *packed, const float *bias, const float *residual, ser_product_end end,
                                  int64_t rows) {
  const product_plan *p = (const product_plan *)plan;
  forward_context c = {.p = p, .out = out, .scratch = workspace, .x = x, .packed = packed, .bias = bias};
  if (!rows) return;
  c.residual = residual;
  c.gelu = end == SER_PRODUCT_GELU;
  c.rows = rows;
  if (!bias) c.bias = p->no_bias;
  c.panels = (p->shape.out + PANEL - 1) / PANEL;
  share_out(&c, ser_cpu_threads(stream->device));
  ser_cpu_parallel(stream, (size_t)((rows + c.block - 1) / c.block * c.across), forward_task, &c);
}
