/* The speech encoders against transformers (make_encoder.py): the convolutions' features and every hidden state of
 * clips of unlike length in one batch; pooling; and that a clip's numbers do not depend on its batch. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/encoder/encoder.h"
#include "model/safetensors.h"
#include "support/harness.h"

enum { CLIPS_MOST = 16 };

typedef struct {
  ser_tensors file;
  const float *samples;
  int64_t count, length[CLIPS_MOST], start[CLIPS_MOST + 1];
} clips;

static char *golden_path(const char *name, const char *file) {
  return ser_format("%s/tests/golden/embedding/%s%s%s", test_source(), name, *file ? "/" : "", file);
}

static void read_tensors(ser_tensors *tensors, const char *name, const char *file) {
  ser_error err = {0};
  char *path = golden_path(name, file);
  ASSERT_OK(ser_tensors_read(tensors, path, &err), err);
  free(path);
}

static clips read_clips(void) {
  clips c = {0};
  read_tensors(&c.file, "clips.safetensors", "");
  const ser_tensor *lengths = ser_tensors_find(&c.file, "lengths");
  c.samples = ser_tensors_find(&c.file, "samples")->data;
  c.count = lengths->shape[0];
  assert_true(c.count <= CLIPS_MOST);
  memcpy(c.length, lengths->data, lengths->bytes);
  for (int64_t i = 0; i < c.count; i++) c.start[i + 1] = c.start[i] + c.length[i];
  return c;
}

/* ---- a batch ------------------------------------------------------------------------------------------------------
 */

typedef struct {
  ser_device *device;
  ser_stream *stream;
  ser_encoder *encoder;
  const clips *all;
} rig;

/* What a batch gave, on the host. */
typedef struct {
  int64_t clips, rows, row_start[CLIPS_MOST + 1], layers;
  float *features, *hidden, *pooled;
} outcome;

static void *on_device(const rig *r, const void *from, size_t bytes) {
  ser_error err = {0};
  void *memory = r->device->rt->alloc(r->device, bytes, &err);
  if (!memory) fail_msg("%s", err.text);
  if (from)
    r->device->rt->write(r->stream, memory, from, bytes);
  else
    r->device->rt->zero(r->stream, memory, bytes);
  return memory;
}

static float *from_device(const rig *r, float *memory, int64_t count) {
  ser_error err = {0};
  float *host = ser_alloc((size_t)count * sizeof *host);
  ASSERT_OK(r->device->rt->read(r->stream, host, memory, (size_t)count * sizeof *host, &err), err);
  r->device->rt->free(r->device, memory);
  return host;
}

/* Runs the clips of these numbers as one batch. */
static outcome compute(const rig *r, const int64_t *which, int64_t count, uint64_t layers) {
  const ser_encoder_config *c = ser_encoder_settings(r->encoder);
  outcome o = {.clips = count};
  int64_t samples = 0, length[CLIPS_MOST], start[CLIPS_MOST + 1] = {0};
  for (int64_t i = 0; i < count; i++) {
    length[i] = r->all->length[which[i]];
    start[i + 1] = samples += length[i];
  }
  float *pcm = ser_alloc((size_t)samples * sizeof *pcm);
  for (int64_t i = 0; i < count; i++)
    memcpy(pcm + start[i], r->all->samples + r->all->start[which[i]], (size_t)length[i] * sizeof *pcm);
  int32_t *clip_of_row = ser_alloc((size_t)samples * sizeof *clip_of_row);
  o.rows = ser_encoder_rows(o.row_start, clip_of_row, c, length, count);
  void *inputs[] = {on_device(r, pcm, (size_t)samples * sizeof *pcm),
                    on_device(r, start, (size_t)(count + 1) * sizeof *start),
                    on_device(r, o.row_start, (size_t)(count + 1) * sizeof *o.row_start),
                    on_device(r, clip_of_row, (size_t)o.rows * sizeof *clip_of_row)};
  ser_rows rows = {inputs[2], inputs[3], count, o.rows};
  for (uint64_t left = layers; left; left &= left - 1) o.layers++;
  int64_t wide = c->conv_dim[c->conv_count - 1];
  ser_encoder_output output = {layers, on_device(r, NULL, (size_t)(o.layers * count * 2 * c->hidden_size) * 4),
                               on_device(r, NULL, (size_t)(o.layers * o.rows * c->hidden_size) * 4),
                               on_device(r, NULL, (size_t)(o.rows * wide) * 4)};
  ser_encoder_forward(r->encoder, r->stream, &output, inputs[0], inputs[1], &rows);
  o.pooled = from_device(r, output.pooled, o.layers * count * 2 * c->hidden_size);
  o.hidden = from_device(r, output.frames, o.layers * o.rows * c->hidden_size);
  o.features = from_device(r, output.features, o.rows * wide);
  for (int i = 0; i < 4; i++) r->device->rt->free(r->device, inputs[i]);
  free(pcm);
  free(clip_of_row);
  return o;
}

static void outcome_free(outcome *o) {
  free(o->features);
  free(o->hidden);
  free(o->pooled);
}

/* ---- against transformers -----------------------------------------------------------------------------------------
 */

/* The largest difference, relative to the root mean square of what is wanted. */
static double apart(const float *got, const float *want, int64_t count) {
  double worst = 0, squares = 0;
  for (int64_t i = 0; i < count; i++) {
    worst = test_worse(worst, fabs((double)got[i] - (double)want[i]));
    squares += (double)want[i] * (double)want[i] / (double)count;
  }
  return worst / sqrt(squares);
}

static void check_pooled(const outcome *o, int64_t layer, int64_t clip, int64_t hidden) {
  int64_t first = o->row_start[clip], frames = o->row_start[clip + 1] - first - 1;
  const float *x = o->hidden + (layer * o->rows + first) * hidden;
  const float *pooled = o->pooled + (layer * o->clips + clip) * 2 * hidden;
  for (int64_t i = 0; i < hidden; i++) {
    double mean = 0, var = 0;
    for (int64_t t = 0; t < frames; t++) mean += (double)x[t * hidden + i] / (double)frames;
    for (int64_t t = 0; t < frames; t++) var += pow((double)x[t * hidden + i] - mean, 2) / (double)frames;
    assert_true(fabs((double)pooled[i] - mean) <= 1e-5 && fabs((double)pooled[hidden + i] - sqrt(var)) <= 1e-5);
  }
}

typedef struct {
  const char *name;
  const clips *all;
} model_context;

static void every_layer(const rig *r, const char *name) {
  static const int64_t in_order[CLIPS_MOST] = {0, 1, 2, 3, 4, 5, 6, 7};
  const ser_encoder_config *c = ser_encoder_settings(r->encoder);
  int64_t hidden = c->hidden_size, wide = c->conv_dim[c->conv_count - 1], frames = 0;
  ser_tensors expected;
  read_tensors(&expected, name, "expected.safetensors");
  const ser_tensor *features = ser_tensors_find(&expected, "features"), *states = ser_tensors_find(&expected, "hidden");
  outcome o = compute(r, in_order, r->all->count, ~0ull >> (63 - c->num_hidden_layers));
  assert_int_equal(o.layers, states->shape[0]);
  double off[2] = {0, 0};
  for (int64_t clip = 0; clip < o.clips; clip++) {
    int64_t first = o.row_start[clip], count = o.row_start[clip + 1] - first - 1;
    off[0] = test_worse(off[0],
                        apart(o.features + first * wide, (const float *)features->data + frames * wide, count * wide));
    for (int64_t layer = 0; layer < o.layers; layer++) {
      const float *want = (const float *)states->data + (layer * states->shape[1] + frames) * hidden;
      off[1] = test_worse(off[1], apart(o.hidden + (layer * o.rows + first) * hidden, want, count * hidden));
      check_pooled(&o, layer, clip, hidden);
    }
    frames += count;
  }
  assert_int_equal(frames, states->shape[1]);
  print_message("%s: features %.2g, hidden states %.2g apart\n", name, off[0], off[1]);
  assert_true(off[0] <= 2e-5 && off[1] <= 2e-5);
  outcome_free(&o);
  ser_tensors_free(&expected);
}

/* ---- among others -------------------------------------------------------------------------------------------------
 */

/* Each clip alone, and behind others, for the last layer and one below. */
static void alone(const rig *r) {
  static const int64_t turned[] = {6, 1, 7, 3, 0, 5, 6, 2, 4, 3, 6};
  const ser_encoder_config *c = ser_encoder_settings(r->encoder);
  int64_t hidden = c->hidden_size, count = sizeof turned / sizeof *turned;
  uint64_t layers = 1ull << c->num_hidden_layers | 2;
  double most = test_on_cuda() && !test_rows_exact() ? 1e-5 : 0;
  outcome many = compute(r, turned, count, layers);
  for (int64_t clip = 0; clip < count; clip++) {
    outcome one = compute(r, &turned[clip], 1, layers);
    for (int64_t layer = 0; layer < one.layers; layer++) {
      const float *among = many.hidden + (layer * many.rows + many.row_start[clip]) * hidden;
      test_same_alone(one.hidden + layer * one.rows * hidden, among, (size_t)((one.rows - 1) * hidden), most);
      test_same_alone(one.pooled + layer * 2 * hidden, many.pooled + (layer * count + clip) * 2 * hidden,
                      (size_t)(2 * hidden), most);
    }
    outcome_free(&one);
  }
  outcome_free(&many);
}

static void one_device(ser_device *device, ser_stream *stream, void *context) {
  const model_context *m = context;
  ser_error err = {0};
  ser_encoder_weights weights;
  char *path = golden_path(m->name, "");
  ASSERT_OK(ser_encoder_weights_open(&weights, path, &err), err);
  rig r = {device, stream, NULL, m->all};
  ASSERT_OK(ser_encoder_create(&r.encoder, device, stream, &weights, weights.config.do_normalize, &err), err);
  ser_encoder_weights_close(&weights);
  ASSERT_OK(ser_encoder_room(r.encoder, stream, CLIPS_MOST, 512, &err), err);
  every_layer(&r, m->name);
  alone(&r);
  ser_encoder_free(r.encoder);
  free(path);
}

static void each_model(void **state) {
  (void)state;
  static const char *const names[] = {"wav2vec2_base",   "wav2vec2_large", "wav2vec2_layer",
                                      "wav2vec2_stable", "hubert_base",    "hubert_large"};
  clips all = read_clips();
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    test_each_device(one_device, 2, &(model_context){names[i], &all});
  ser_tensors_free(&all.file);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(each_model)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
