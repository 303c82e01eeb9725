/* The product under every temporal convolution; see conv_tile.h. */
#include "kernels/conv_tile.h"

void SER_ISA(tile_pack)(float *packed, const float *from, int64_t out, int64_t in, int64_t taps, bool turned) {
  int64_t per_out = turned ? taps : in * taps, per_in = turned ? out * taps : taps;
  for (int64_t first = 0; first < SER_ROUND_UP(out, SER_CHANNEL_PAD); first += TILE_ROWS)
    for (int64_t k = 0; k < taps; k++)
      for (int64_t i = 0; i < in; i++)
        for (int64_t o = first; o < first + TILE_ROWS; o++)
          *packed++ = o < out ? from[o * per_out + i * per_in + k] : 0;
}

/* A register block: TILE_ROWS rows by `vectors` vectors from column t on. */
static inline __attribute__((always_inline)) void block(float *y, int64_t y_pitch, const float *a, const float *w,
                                                        const float *bias, const tile_shape *s, int64_t t, tile_end end,
                                                        const int vectors) {
  vf sum[TILE_ROWS][TILE_VECTORS];
  int64_t pitch = tile_pitch(s->tp);
  V_UNROLL
  for (int r = 0; r < TILE_ROWS; r++) {
    V_UNROLL
    for (int v = 0; v < vectors; v++) sum[r][v] = v_set(bias ? bias[r] : 0);
  }
  for (int64_t k = 0; k < s->taps; k++) {
    int64_t from = t + s->first_shift + k * s->step;
    if (from <= -vectors * VW || from >= s->time) continue; /* the tap sees nothing but zeros */
    const float *x = a + from, *wk = w + k * s->in * TILE_ROWS;
    for (int64_t i = 0; i < s->in; i++, x += pitch, wk += TILE_ROWS) {
      vf column[TILE_VECTORS];
      V_UNROLL
      for (int v = 0; v < vectors; v++) column[v] = v_load(x + v * VW);
      V_UNROLL
      for (int r = 0; r < TILE_ROWS; r++) {
        V_UNROLL
        for (int v = 0; v < vectors; v++) sum[r][v] += wk[r] * column[v];
      }
    }
  }
  V_UNROLL
  for (int r = 0; r < TILE_ROWS; r++) {
    V_UNROLL
    for (int v = 0; v < vectors; v++) {
      float *to = y + r * y_pitch + t + v * VW;
      vf out = sum[r][v];
      if (end == TILE_RELU) out = v_relu(out);
      if (end == TILE_ADD) out += v_load(to);
      v_store(to, v_keep(out, s->time - t - v * VW));
    }
  }
}

void SER_ISA(tile_product)(float *y, int64_t y_pitch, const float *a, const float *packed, const float *bias,
                           const tile_shape *s, tile_end end) {
  int64_t rows = SER_ROUND_UP(s->out, SER_CHANNEL_PAD), per_block = s->taps * s->in * TILE_ROWS;
  int64_t used = SER_ROUND_UP(s->time, VW);
  for (int64_t t = 0; t < used; t += TILE_VECTORS * VW)
    for (int64_t o = 0; o < rows; o += TILE_ROWS) {
      float *to = y + o * y_pitch, few[TILE_ROWS] = {0};
      const float *w = packed + o / TILE_ROWS * per_block;
      for (int64_t r = 0; r < TILE_ROWS && bias; r++) few[r] = o + r < s->out ? bias[o + r] : 0;
      switch ((used - t) / VW) {
      case 1:
        block(to, y_pitch, a, w, few, s, t, end, 1);
        break;
      case 2:
        block(to, y_pitch, a, w, few, s, t, end, 2);
        break;
      default:
        block(to, y_pitch, a, w, few, s, t, end, 3);
        break;
      }
    }
  for (int64_t o = 0; o < rows; o++) memset(y + o * y_pitch + used, 0, (size_t)(s->tp - used) * sizeof *y);
}

void SER_ISA(tile_gradient)(float *sums, const float *dy, const float *a, const tile_shape *s, bool add) {
  int64_t rows = SER_ROUND_UP(s->out, SER_CHANNEL_PAD), pitch = tile_pitch(s->tp);
  for (int64_t o = 0; o < rows; o += TILE_ROWS)
    for (int64_t k = 0; k < s->taps; k++) {
      int64_t shift = s->first_shift + k * s->step, first = -shift / VW * VW; /* before it the tap sees zeros */
      for (int64_t i = 0; i < s->in; i += TILE_VECTORS, sums += TILE_ROWS * TILE_VECTORS * VW) {
        const float *g = dy + o * pitch, *x = a + i * pitch + shift;
        vf sum[TILE_ROWS][TILE_VECTORS];
        V_UNROLL
        for (int r = 0; r < TILE_ROWS; r++) {
          V_UNROLL
          for (int v = 0; v < TILE_VECTORS; v++) sum[r][v] = add ? v_load(sums + (r * TILE_VECTORS + v) * VW) : (vf){0};
        }
        for (int64_t t = first; t < s->time; t += VW) {
          vf column[TILE_VECTORS];
          V_UNROLL
          for (int v = 0; v < TILE_VECTORS; v++) column[v] = v_load(x + v * pitch + t);
          V_UNROLL
          for (int r = 0; r < TILE_ROWS; r++) {
            vf gradient = v_load(g + r * pitch + t);
            V_UNROLL
            for (int v = 0; v < TILE_VECTORS; v++) sum[r][v] += gradient * column[v];
          }
        }
        V_UNROLL
        for (int r = 0; r < TILE_ROWS; r++) {
          V_UNROLL
          for (int v = 0; v < TILE_VECTORS; v++) v_store(sums + (r * TILE_VECTORS + v) * VW, sum[r][v]);
        }
      }
    }
}

void SER_ISA(tile_gradient_finish)(float *dw, const float *sums, const tile_shape *s) {
  int64_t rows = SER_ROUND_UP(s->out, SER_CHANNEL_PAD);
  for (int64_t first = 0; first < rows; first += TILE_ROWS)
    for (int64_t k = 0; k < s->taps; k++)
      for (int64_t from = 0; from < s->in; from += TILE_VECTORS)
        for (int64_t o = first; o < first + TILE_ROWS; o++)
          for (int64_t i = from; i < from + TILE_VECTORS; i++, sums += VW)
            if (o < s->out && i < s->in) dw[(o * s->in + i) * s->taps + k] = (float)v_total(v_load(sums));
}
