/* The speech encoders against transformers (make_encoder.py): the convolutions' features and every hidden state of
 * clips of unlike length in one batch; pooling; and that a clip's numbers do not depend on its batch. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/encoder.h"

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

static void check_pooled(const test_encoded *o, int64_t layer, int64_t clip, int64_t hidden) {
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
  const test_clips *all;
} model_context;

static void every_layer(const test_encoder *r, const char *name) {
  static const int64_t in_order[TEST_ENCODER_CLIPS] = {0, 1, 2, 3, 4, 5, 6, 7};
  const ser_encoder_config *c = ser_encoder_settings(r->encoder);
  int64_t hidden = c->hidden_size, wide = c->conv_dim[c->conv_count - 1], frames = 0;
  ser_tensors expected;
  test_encoder_tensors(&expected, name, "expected.safetensors");
  const ser_tensor *features = ser_tensors_find(&expected, "features"), *states = ser_tensors_find(&expected, "hidden");
  test_encoded o = test_encode(r, in_order, r->all->count, ~0ull >> (63 - c->num_hidden_layers));
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
  test_encoded_free(&o);
  ser_tensors_free(&expected);
}

/* ---- among others -------------------------------------------------------------------------------------------------
 */

/* Each clip alone, and behind others, for the last layer and one below. */
static void alone(const test_encoder *r) {
  static const int64_t turned[] = {6, 1, 7, 3, 0, 5, 6, 2, 4, 3, 6};
  const ser_encoder_config *c = ser_encoder_settings(r->encoder);
  int64_t hidden = c->hidden_size, count = sizeof turned / sizeof *turned;
  uint64_t layers = 1ull << c->num_hidden_layers | 2;
  double most = test_on_cuda() && !test_rows_exact() ? 1e-5 : 0;
  test_encoded many = test_encode(r, turned, count, layers);
  for (int64_t clip = 0; clip < count; clip++) {
    test_encoded one = test_encode(r, &turned[clip], 1, layers);
    for (int64_t layer = 0; layer < one.layers; layer++) {
      const float *among = many.hidden + (layer * many.rows + many.row_start[clip]) * hidden;
      test_same_alone(one.hidden + layer * one.rows * hidden, among, (size_t)((one.rows - 1) * hidden), most);
      test_same_alone(one.pooled + layer * 2 * hidden, many.pooled + (layer * count + clip) * 2 * hidden,
                      (size_t)(2 * hidden), most);
    }
    test_encoded_free(&one);
  }
  test_encoded_free(&many);
}

static void one_device(ser_device *device, ser_stream *stream, void *context) {
  const model_context *m = context;
  ser_error err = {0};
  ser_encoder_weights weights;
  char *path = test_encoder_path(m->name, "");
  ASSERT_OK(ser_encoder_weights_open(&weights, path, &err), err);
  test_encoder r = {device, stream, NULL, m->all};
  ASSERT_OK(ser_encoder_create(&r.encoder, device, stream, &weights, weights.config.do_normalize, &err), err);
  ser_encoder_weights_close(&weights);
  ASSERT_OK(ser_encoder_room(r.encoder, stream, TEST_ENCODER_CLIPS, 512, &err), err);
  every_layer(&r, m->name);
  alone(&r);
  ser_encoder_free(r.encoder);
  free(path);
}

static void each_model(void **state) {
  (void)state;
  static const char *const names[] = {"wav2vec2_base",   "wav2vec2_large", "wav2vec2_layer",
                                      "wav2vec2_stable", "hubert_base",    "hubert_large"};
  test_clips all = test_clips_read();
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    test_each_device(one_device, 2, &(model_context){names[i], &all});
  ser_tensors_free(&all.file);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(each_model)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
