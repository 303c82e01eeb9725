#include "support/encoder.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

char *test_encoder_path(const char *name, const char *file) {
  return ser_format("%s/tests/golden/embedding/%s%s%s", test_source(), name, *file ? "/" : "", file);
}

void test_encoder_tensors(ser_tensors *tensors, const char *name, const char *file) {
  ser_error err = {0};
  char *path = test_encoder_path(name, file);
  ASSERT_OK(ser_tensors_read(tensors, path, &err), err);
  free(path);
}

test_clips test_clips_read(void) {
  test_clips c = {0};
  test_encoder_tensors(&c.file, "clips.safetensors", "");
  const ser_tensor *lengths = ser_tensors_find(&c.file, "lengths");
  c.samples = ser_tensors_find(&c.file, "samples")->data;
  c.count = lengths->shape[0];
  assert_true(c.count <= TEST_ENCODER_CLIPS);
  memcpy(c.length, lengths->data, lengths->bytes);
  for (int64_t i = 0; i < c.count; i++) c.start[i + 1] = c.start[i] + c.length[i];
  return c;
}

/* ---- a batch ------------------------------------------------------------------------------------------------------
 */

static void *on_device(const test_encoder *r, const void *from, size_t bytes) {
  ser_error err = {0};
  void *memory = r->device->rt->alloc(r->device, bytes, &err);
  if (!memory) fail_msg("%s", err.text);
  if (from)
    r->device->rt->write(r->stream, memory, from, bytes);
  else
    r->device->rt->zero(r->stream, memory, bytes);
  return memory;
}

static float *from_device(const test_encoder *r, float *memory, int64_t count) {
  ser_error err = {0};
  float *host = ser_alloc((size_t)count * sizeof *host);
  ASSERT_OK(r->device->rt->read(r->stream, host, memory, (size_t)count * sizeof *host, &err), err);
  r->device->rt->free(r->device, memory);
  return host;
}

/* Runs the clips of these numbers as one batch. */
test_encoded test_encode(const test_encoder *r, const int64_t *which, int64_t count, uint64_t layers) {
  const ser_encoder_config *c = ser_encoder_settings(r->encoder);
  test_encoded o = {.clips = count};
  int64_t samples = 0, length[TEST_ENCODER_CLIPS], start[TEST_ENCODER_CLIPS + 1] = {0};
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

void test_encoded_free(test_encoded *o) {
  free(o->features);
  free(o->hidden);
  free(o->pooled);
}
