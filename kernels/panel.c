/* Register tiles; see panel.h. */
#include "kernels/panel.h"

#include "kernels/math.h"
#include "kernels/transpose.h"

void SER_ISA(panel_pack_rows)(float *to, const float *x, int64_t stride, int64_t rows, int64_t depth) {
  enum { READ = VW > PANEL_ROWS ? VW : PANEL_ROWS };
  for (int64_t row = 0; row < rows; row += PANEL_ROWS) {
    const float *from[READ];
    int64_t i = 0;
    for (int64_t r = 0; r < READ; r++) from[r] = x + (row + (r < PANEL_ROWS && row + r < rows ? r : 0)) * stride;
#if VW != 4
    /* Whole vectors: what a store writes behind a tile's column, the next one writes anew. So the last column is not
     * among them. */
    for (; i + VW < depth; i += VW) {
      vf v[VW];
      V_UNROLL
      for (int r = 0; r < VW; r++) v[r] = v_load(from[r] + i);
      v_transpose(v);
      V_UNROLL
      for (int k = 0; k < VW; k++) v_store(to + (i + k) * PANEL_ROWS, v[k]);
    }
#endif
    for (; i < depth; i++)
      for (int r = 0; r < PANEL_ROWS; r++) to[i * PANEL_ROWS + r] = from[r][i];
    to += depth * PANEL_ROWS;
  }
}

void SER_ISA(panel_pack_turned)(float *to, const float *x, int64_t stride, int64_t columns, int64_t depth) {
  for (int64_t o = 0; o < PANEL; o += VW) {
    int64_t i = 0;
    for (; o + VW <= columns && i + VW <= depth; i += VW) {
      vf v[VW];
      V_UNROLL
      for (int r = 0; r < VW; r++) v[r] = v_load(x + (o + r) * stride + i);
      v_transpose(v);
      V_UNROLL
      for (int k = 0; k < VW; k++) v_store(to + (i + k) * PANEL + o, v[k]);
    }
    for (; i < depth; i++)
      for (int64_t r = o; r < o + VW; r++) to[i * PANEL + r] = r < columns ? x[r * stride + i] : 0;
  }
}

/* Done to finished sums while they are in the first-level cache. */
static inline void gelu_of(float *out, int64_t stride, int rows) {
  for (int r = 0; r < rows; r++, out += stride) {
    v_store(out, v_gelu(v_load(out)));
    v_store(out + VW, v_gelu(v_load(out + VW)));
  }
}

/* Row r of a tile at depth i is a[r * row_step + i * step]. Of a tile with fewer rows the first stands in for those
 * that lack: they are computed and not stored. */
static inline __attribute__((always_inline)) void tile(const panel_out *to, const float *a, int64_t row_step,
                                                       int64_t step, const float *w, int64_t depth, int rows) {
  vf sum[PANEL_ROWS][2];
  const float *row[PANEL_ROWS];
  V_UNROLL
  for (int r = 0; r < PANEL_ROWS; r++) {
    int64_t there = r < rows ? r : 0;
    const float *from = to->bias ? to->bias : to->out + there * to->stride;
    sum[r][0] = v_load(from);
    sum[r][1] = v_load(from + VW);
    row[r] = a + (step == 1 ? there : r) * row_step;
    if (!to->bias || !to->residual) continue;
    sum[r][0] += v_load(to->residual + there * to->stride);
    sum[r][1] += v_load(to->residual + there * to->stride + VW);
  }
  for (int64_t i = 0; i < depth; i++, w += PANEL) {
    vf w0 = v_load(w), w1 = v_load(w + VW);
    V_UNROLL
    for (int r = 0; r < PANEL_ROWS; r++) {
      vf x = v_set(row[r][i * step]);
      sum[r][0] += x * w0;
      sum[r][1] += x * w1;
    }
  }
  V_UNROLL
  for (int r = 0; r < PANEL_ROWS; r++) {
    if (r >= rows) continue;
    v_store(to->out + r * to->stride, sum[r][0]);
    v_store(to->out + r * to->stride + VW, sum[r][1]);
  }
  if (to->gelu) gelu_of(to->out, to->stride, rows);
}

/* A panel that sticks out at the right edge, through a tile of its own. */
static inline __attribute__((always_inline)) void edge_tile(const panel_out *to, const float *a, int64_t row_step,
                                                            int64_t step, const float *w, int64_t depth, int rows,
                                                            int64_t columns) {
  float sums[PANEL_ROWS * PANEL] = {0}, residual[PANEL_ROWS * PANEL] = {0}, bias[PANEL] = {0};
  panel_out inner = {sums, PANEL, to->bias ? bias : NULL, to->bias && to->residual ? residual : NULL, to->gelu};
  size_t bytes = (size_t)columns * sizeof(float);
  for (int r = 0; r < rows; r++) {
    if (!to->bias) memcpy(sums + r * PANEL, to->out + r * to->stride, bytes);
    if (inner.residual) memcpy(residual + r * PANEL, to->residual + r * to->stride, bytes);
  }
  if (to->bias) memcpy(bias, to->bias, bytes);
  tile(&inner, a, row_step, step, w, depth, rows);
  for (int r = 0; r < rows; r++) memcpy(to->out + r * to->stride, sums + r * PANEL, bytes);
}

static inline __attribute__((always_inline)) void tiles(const panel_out *out, const float *a, int64_t row_step,
                                                        int64_t step, int64_t tile_step, const float *w, int64_t depth,
                                                        int64_t rows, int64_t columns) {
  panel_out to = *out;
  for (int64_t row = 0; row < rows; row += PANEL_ROWS, a += tile_step) {
    int few = rows - row < PANEL_ROWS ? (int)(rows - row) : PANEL_ROWS;
    if (columns < PANEL)
      edge_tile(&to, a, row_step, step, w, depth, few, columns);
    else if (few == PANEL_ROWS)
      tile(&to, a, row_step, step, w, depth, PANEL_ROWS);
    else
      tile(&to, a, row_step, step, w, depth, few);
    to.out += PANEL_ROWS * to.stride;
    if (to.residual) to.residual += PANEL_ROWS * to.stride;
  }
}

void SER_ISA(panel_product)(const panel_out *out, const float *a, const float *w, int64_t depth, int64_t rows,
                            int64_t columns) {
  tiles(out, a, 1, PANEL_ROWS, PANEL_ROWS * depth, w, depth, rows, columns);
}

void SER_ISA(panel_product_rows)(const panel_out *out, const float *a, int64_t stride, const float *w, int64_t depth,
                                 int64_t rows, int64_t columns) {
  tiles(out, a, stride, 1, PANEL_ROWS * stride, w, depth, rows, columns);
}
