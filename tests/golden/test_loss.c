/* The loss against PyTorch's numbers (make_loss.py): class weights, focal weighting, label smoothing, and all of them
 * together; each clip's loss and the gradient of the batch's by the logits. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/safetensors.h"
#include "support/harness.h"

static const ser_tensor *golden(const ser_tensors *g, const char *name, const char *dtype) {
  const ser_tensor *tensor = ser_tensors_find(g, name);
  if (!tensor || strcmp(tensor->dtype, dtype)) fail_msg("the golden has no %s tensor %s", dtype, name);
  return tensor;
}

/* The bits of whole numbers in a buffer of floats. */
static test_buffer labels(ser_device *device, ser_stream *stream, const int64_t *truth, size_t count) {
  float *bits = ser_alloc(count * sizeof *bits);
  for (size_t i = 0; i < count; i++) {
    int32_t label = (int32_t)truth[i];
    memcpy(&bits[i], &label, sizeof label);
  }
  test_buffer buffer = test_buffer_from(device, stream, bits, count);
  free(bits);
  return buffer;
}

static void check_cases(ser_device *device, ser_stream *stream, void *context) {
  const ser_tensors *g = context;
  const ser_tensor *logits = golden(g, "logits", "F32"), *cases = golden(g, "cases", "F64");
  int64_t clips = logits->shape[0], classes = logits->shape[1], stride = SER_ROUND_UP(classes, SER_CHANNEL_PAD);
  size_t n = (size_t)(clips * stride);
  float *z = ser_alloc_zero(n, sizeof *z), *dz = ser_alloc(n * sizeof *dz), *losses = ser_alloc((size_t)clips * 4);
  for (int64_t r = 0; r < clips; r++)
    memcpy(z + r * stride, (const float *)logits->data + r * classes, (size_t)classes * sizeof *z);
  test_buffer logits_in = test_buffer_from(device, stream, z, n);
  test_buffer truth_in = labels(device, stream, golden(g, "truth", "I64")->data, (size_t)clips);
  test_buffer weights_in = test_buffer_from(device, stream, golden(g, "weights", "F32")->data, (size_t)classes);
  double of_losses = 0, of_gradients = 0;
  for (int64_t i = 0; i < cases->shape[0]; i++) {
    const double *k = (const double *)cases->data + 3 * i; /* weighted, gamma, smoothing */
    const double *want = (const double *)golden(g, "losses", "F64")->data + i * clips;
    const double *slopes = (const double *)golden(g, "gradients", "F64")->data + i * clips * classes;
    test_buffer losses_out = test_buffer_make(device, stream, (size_t)clips);
    test_buffer dz_out = test_buffer_make(device, stream, n);
    ser_loss_shape shape = {clips, classes, stride, (float)k[2], (float)k[1]};
    const void *truth = truth_in.data;
    device->ops->softmax_loss(stream, losses_out.data, dz_out.data, logits_in.data, truth,
                              k[0] != 0 ? weights_in.data : NULL, &shape, clips);
    test_buffer_read(&losses_out, losses);
    test_buffer_read(&dz_out, dz);
    double loss = test_difference(losses, want, (size_t)clips), slope = 0;
    for (int64_t r = 0; r < clips; r++) /* times B: a clip's own gradient */
      for (int64_t c = 0; c < classes; c++) {
        float got = dz[r * stride + c] * (float)clips;
        slope = test_worse(slope, test_difference(&got, &(double){slopes[r * classes + c] * (double)clips}, 1));
      }
    if (!(loss < 3e-7) || !(slope < 3e-7)) /* seen: 5e-8 and 9e-8 */
      fail_msg("weighted %g, gamma %g, smoothing %g: losses %g off, gradients %g", k[0], k[1], k[2], loss, slope);
    of_losses = test_worse(of_losses, loss);
    of_gradients = test_worse(of_gradients, slope);
    test_buffer_free(&losses_out);
    test_buffer_free(&dz_out);
  }
  print_message("%d cases: losses within %.1e, gradients %.1e\n", (int)cases->shape[0], of_losses, of_gradients);
  test_buffer_free(&logits_in);
  test_buffer_free(&truth_in);
  test_buffer_free(&weights_in);
  free(z);
  free(dz);
  free(losses);
}

static void test_loss(void **state) {
  ser_tensors g;
  ser_error err = {0};
  char *path = ser_format("%s/tests/golden/loss.safetensors", test_source());
  (void)state;
  ASSERT_OK(ser_tensors_read(&g, path, &err), err);
  test_each_device(check_cases, 1, &g);
  ser_tensors_free(&g);
  free(path);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_loss)};
  return cmocka_run_group_tests_name("golden.loss", tests, NULL, NULL);
}
