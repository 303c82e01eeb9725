/* The encoder's positional convolution: grouped, over 128 frames, within each clip; GELU, and the frame itself added.
 *
 * The frames of a block and their neighbours are copied, a group's channels side by side and zeros where the clip ends;
 * then frame t's window lies at t * (channels of a group), and the convolution is a product of rows that overlap. */
#include "kernels/kernels.h"
#include "kernels/math.h"
#include "kernels/panel.h"

enum { BLOCK = 16 * PANEL_ROWS }; /* frames of a task */

typedef struct {
  ser_plan plan;
  ser_pos_conv_shape shape;
  int64_t width, depth; /* channels of a group; inputs of an output */
  int64_t scratch;      /* floats a thread */
} pos_conv_plan;

ser_status SER_ISA(cpu_pos_conv_prepare)(ser_device *device, ser_plan **plan, const ser_pos_conv_shape *shape,
                                         ser_error *err) {
  (void)err;
  pos_conv_plan *p = ser_cpu_plan(device, sizeof *p);
  p->shape = *shape;
  p->width = shape->channels / shape->groups;
  p->depth = p->width * shape->kernel;
  p->scratch = SER_ROUND_UP((BLOCK + shape->kernel - 1) * p->width, 16);
  p->plan.packed = (size_t)(shape->groups * SER_ROUND_UP(p->width, PANEL) * p->depth) * sizeof(float);
  p->plan.workspace = (size_t)(ser_cpu_threads(device) * p->scratch) * sizeof(float);
  *plan = &p->plan;
  return SER_OK;
}

typedef struct {
  const pos_conv_plan *p;
  float *packed;
  const float *w;
} pack_context;

/* A group's weights, [width][width][kernel], as panels whose inputs run as the window does: frames, then channels. */
static void pack_group(void *context, size_t task, int thread) {
  const pack_context *c = context;
  const pos_conv_plan *p = c->p;
  int64_t kernel = p->shape.kernel, group = (int64_t)task;
  float *to = c->packed + group * SER_ROUND_UP(p->width, PANEL) * p->depth;
  const float *w = c->w + group * p->width * p->depth;
  (void)thread;
  for (int64_t first = 0; first < p->width; first += PANEL)
    for (int64_t k = 0; k < kernel; k++)
      for (int64_t i = 0; i < p->width; i++)
        for (int64_t o = first; o < first + PANEL; o++) *to++ = o < p->width ? w[(o * p->width + i) * kernel + k] : 0;
}

void SER_ISA(cpu_pos_conv_pack)(ser_stream *stream, const ser_plan *plan, void *packed, const float *w) {
  const pos_conv_plan *p = (const pos_conv_plan *)plan;
  pack_context context = {p, packed, w};
  ser_cpu_parallel(stream, (size_t)p->shape.groups, pack_group, &context);
}

typedef struct {
  const pos_conv_plan *p;
  float *out, *scratch;
  const float *x, *packed, *bias;
  const ser_rows *rows;
} pos_conv_context;

/* Frames [first - kernel / 2, ...) of the clip, for `count` windows, of one group. */
static void read_window(float *to, const pos_conv_context *c, int64_t clip, int64_t first, int64_t count,
                        int64_t group) {
  const pos_conv_plan *p = c->p;
  int64_t start = c->rows->row_start[clip], frames = c->rows->row_start[clip + 1] - start - 1;
  size_t bytes = (size_t)p->width * sizeof *to;
  for (int64_t i = 0; i < count + p->shape.kernel - 1; i++, to += p->width) {
    int64_t frame = first - p->shape.kernel / 2 + i;
    if (frame < 0 || frame >= frames)
      memset(to, 0, bytes);
    else
      memcpy(to, c->x + (start + frame) * p->shape.channels + group * p->width, bytes);
  }
}

static void convolve(const pos_conv_context *c, const float *window, int64_t row, int64_t count, int64_t group) {
  const pos_conv_plan *p = c->p;
  int64_t channels = p->shape.channels;
  const float *w = c->packed + group * SER_ROUND_UP(p->width, PANEL) * p->depth;
  for (int64_t from = 0; from < p->depth; from += PANEL_DEPTH) {
    int64_t depth = p->depth - from < PANEL_DEPTH ? p->depth - from : PANEL_DEPTH;
    for (int64_t o = 0; o < p->width; o += PANEL) {
      int64_t columns = p->width - o < PANEL ? p->width - o : PANEL, at = group * p->width + o;
      float bias[PANEL] = {0};
      memcpy(bias, c->bias + at, (size_t)columns * sizeof *bias);
      panel_out to = {c->out + row * channels + at, channels, from ? NULL : bias, NULL, false};
      SER_ISA(panel_product_rows)(&to, window + from, p->width, w + o * p->depth + from * PANEL, depth, count, columns);
    }
  }
}

/* A block of frames of one clip and one group of channels. */
static void pos_conv_task(void *context, size_t task, int thread) {
  const pos_conv_context *c = context;
  const pos_conv_plan *p = c->p;
  int64_t group = (int64_t)task % p->shape.groups, block = (int64_t)task / p->shape.groups, clip = 0;
  const int64_t *start = c->rows->row_start;
  for (; block >= (start[clip + 1] - start[clip] - 1 + BLOCK - 1) / BLOCK; clip++)
    block -= (start[clip + 1] - start[clip] - 1 + BLOCK - 1) / BLOCK;
  int64_t frames = start[clip + 1] - start[clip] - 1, first = block * BLOCK, row = start[clip] + first;
  int64_t count = frames - first < BLOCK ? frames - first : BLOCK;
  float *window = c->scratch + thread * p->scratch;
  read_window(window, c, clip, first, count, group);
  convolve(c, window, row, count, group);
  for (int64_t r = row; r < row + count; r++)
    for (int64_t i = 0; i < p->width; i += VW) {
      int64_t at = r * p->shape.channels + group * p->width + i, left = p->width - i;
      v_store_first(c->out + at, v_load_first(c->x + at, left) + v_gelu(v_load_first(c->out + at, left)), left);
    }
  if (first + count == frames)
    memset(c->out + (row + count) * p->shape.channels + group * p->width, 0, (size_t)p->width * sizeof(float));
}

void SER_ISA(cpu_pos_conv_forward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *out,
                                   const float *x, const void *packed, const float *bias, const ser_rows *rows) {
  const pos_conv_plan *p = (const pos_conv_plan *)plan;
  pos_conv_context context = {p, out, workspace, x, packed, bias, rows};
  int64_t blocks = 0;
  for (int64_t clip = 0; clip < rows->clips; clip++)
    blocks += (rows->row_start[clip + 1] - rows->row_start[clip] - 1 + BLOCK - 1) / BLOCK;
  ser_cpu_parallel(stream, (size_t)(blocks * p->shape.groups), pos_conv_task, &context);
}
