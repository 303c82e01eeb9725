/* Attention (softmax(Q K' / sqrt(width)) V) of the frames of each clip, head by head, by tiles of keys: scores never
 * lie in memory beyond a tile. The running maximum and sum of each query are carried from tile to tile, which begin at
 * the clip's first frame: a clip's bytes do not depend on its neighbours. */
#include <math.h>

#include "kernels/kernels.h"
#include "kernels/math.h"
#include "kernels/panel.h"

enum {
  QUERIES = 168, /* of a task: whole tiles of any instruction set */
  KEYS = 192     /* of a tile */
};

typedef struct {
  ser_plan plan;
  ser_attention_shape shape;
  int64_t padded;  /* a head's width in whole panels */
  int64_t scratch; /* floats a thread */
} attention_plan;

/* A thread's room. */
typedef struct {
  float *queries; /* packed rows */
  float *keys;    /* panels [KEYS / PANEL][width][PANEL] */
  float *values;  /* panels [padded / PANEL][KEYS][PANEL] */
  float *scores;  /* [QUERIES][KEYS] */
  float *sums;    /* [QUERIES][padded] */
  float *most;    /* [QUERIES]: the largest score so far */
  double *total;  /* [QUERIES]: the sum of exp(score - most) */
} attention_room;

static int64_t lay_out(attention_room *room, float *at, const attention_plan *p) {
  int64_t sizes[] = {QUERIES * p->shape.width,
                     KEYS * p->shape.width,
                     KEYS * p->padded,
                     QUERIES * KEYS,
                     QUERIES * p->padded,
                     QUERIES,
                     2 * QUERIES};
  float **parts[] = {&room->queries, &room->keys, &room->values, &room->scores, &room->sums, &room->most, NULL};
  int64_t used = 0;
  for (int i = 0; i < 7; i++) {
    if (at && parts[i]) *parts[i] = at + used;
    if (at && !parts[i]) room->total = (double *)(void *)(at + used);
    used += SER_ROUND_UP(sizes[i], 16);
  }
  return used;
}

ser_status SER_ISA(cpu_attention_prepare)(ser_device *device, ser_plan **plan, const ser_attention_shape *shape,
                                          ser_error *err) {
  (void)err;
  attention_plan *p = ser_cpu_plan(device, sizeof *p);
  attention_room room;
  p->shape = *shape;
  p->padded = SER_ROUND_UP(shape->width, PANEL);
  p->scratch = lay_out(&room, NULL, p);
  p->plan.workspace = (size_t)(ser_cpu_threads(device) * p->scratch) * sizeof(float);
  *plan = &p->plan;
  return SER_OK;
}

typedef struct {
  const attention_plan *p;
  float *out, *scratch;
  const float *qkv;
  const ser_rows *rows;
} attention_context;

static void pack_keys(const attention_room *room, const attention_plan *p, const float *keys, int64_t stride,
                      int64_t count) {
  int64_t width = p->shape.width;
  const float *values = keys + p->shape.heads * width;
  for (int64_t first = 0; first < count; first += PANEL) {
    int64_t columns = count - first < PANEL ? count - first : PANEL;
    SER_ISA(panel_pack_turned)(room->keys + first * width, keys + first * stride, stride, columns, width);
  }
  for (int64_t o = 0; o < width; o += PANEL)
    for (int64_t key = 0; key < count; key++)
      for (int64_t v = 0; v < PANEL; v += VW) {
        vf some = o + v < width ? v_load_first(values + key * stride + o + v, width - o - v) : v_set(0);
        v_store(room->values + o * KEYS + key * PANEL + v, some);
      }
}

/* Scores become exp((score - most) * scale), zero from `count` on; what was summed before is brought to the new
 * maximum. */
static void weigh(const attention_room *room, int64_t query, int64_t count, const attention_plan *p, bool first) {
  float *score = room->scores + query * KEYS, *sums = room->sums + query * p->padded;
  const float scale = 1 / sqrtf((float)p->shape.width);
  vf most = v_set(-INFINITY), sum = {0};
  for (int64_t i = 0; i < count; i += VW)
    most = v_max(most, v_select(v_first(count - i), v_load(score + i), v_set(-INFINITY)));
  float top = first ? -INFINITY : room->most[query];
  for (int i = 0; i < VW; i++) top = most[i] > top || most[i] != most[i] ? most[i] : top; /* NaN stays */
  for (int64_t i = 0; i < count; i += VW) {
    vf weight = v_exp((v_load(score + i) - top) * scale);
    if (count - i < VW) weight = (vf)((vi)weight & v_first(count - i));
    sum += weight;
    v_store(score + i, weight);
  }
  double total = v_sum(sum);
  if (!first) {
    vf before = v_exp(v_set((room->most[query] - top) * scale));
    total += room->total[query] * (double)before[0];
    for (int64_t i = 0; i < p->padded && room->most[query] != top; i += VW)
      v_store(sums + i, v_load(sums + i) * before);
  }
  room->total[query] = total;
  room->most[query] = top;
}

/* A block of queries of one clip and head. */
static void attend(void *context, size_t task, int thread) {
  const attention_context *c = context;
  const attention_plan *p = c->p;
  const int64_t *start = c->rows->row_start;
  int64_t heads = p->shape.heads, width = p->shape.width, stride = 3 * heads * width, clip = 0;
  int64_t head = (int64_t)task % heads, block = (int64_t)task / heads;
  for (; block >= (start[clip + 1] - start[clip] - 1 + QUERIES - 1) / QUERIES; clip++)
    block -= (start[clip + 1] - start[clip] - 1 + QUERIES - 1) / QUERIES;
  int64_t frames = start[clip + 1] - start[clip] - 1, from = block * QUERIES;
  int64_t queries = frames - from < QUERIES ? frames - from : QUERIES;
  const float *qkv = c->qkv + start[clip] * stride + head * width, *keys = qkv + heads * width;
  static const float none[PANEL];
  attention_room room;
  lay_out(&room, c->scratch + thread * p->scratch, p);
  SER_ISA(panel_pack_rows)(room.queries, qkv + from * stride, stride, queries, width);
  memset(room.sums, 0, (size_t)(queries * p->padded) * sizeof *room.sums);
  for (int64_t key = 0; key < frames; key += KEYS) {
    int64_t count = frames - key < KEYS ? frames - key : KEYS;
    pack_keys(&room, p, keys + key * stride, stride, count);
    for (int64_t k = 0; k < count; k += PANEL) {
      panel_out to = {room.scores + k, KEYS, none, NULL, false};
      SER_ISA(panel_product)(&to, room.queries, room.keys + k * width, width, queries, PANEL);
    }
    for (int64_t query = 0; query < queries; query++) weigh(&room, query, count, p, key == 0);
    for (int64_t o = 0; o < width; o += PANEL) {
      panel_out to = {room.sums + o, p->padded, NULL, NULL, false};
      SER_ISA(panel_product_rows)(&to, room.scores, KEYS, room.values + o * KEYS, count, queries, PANEL);
    }
  }
  float *out = c->out + (start[clip] + from) * heads * width + head * width;
  for (int64_t query = 0; query < queries; query++, out += heads * width)
    for (int64_t i = 0; i < width; i += VW)
      v_store_first(out + i, v_load(room.sums + query * p->padded + i) * (float)(1 / room.total[query]), width - i);
  if (from + queries == frames) memset(out, 0, (size_t)width * sizeof *out);
}

void SER_ISA(cpu_attention_forward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *out,
                                    const float *qkv, const ser_rows *rows) {
  const attention_plan *p = (const attention_plan *)plan;
  attention_context context = {p, out, workspace, qkv, rows};
  int64_t blocks = 0;
  for (int64_t clip = 0; clip < rows->clips; clip++)
    blocks += (rows->row_start[clip + 1] - rows->row_start[clip] - 1 + QUERIES - 1) / QUERIES;
  ser_cpu_parallel(stream, (size_t)(blocks * p->shape.heads), attend, &context);
}
