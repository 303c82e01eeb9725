/* What choose_conv settles: one of the two forms where it was left to the device, and nothing is left over; the fused
 * one where cuDNN fails, be it at the last dilation alone, which the one argument "refused" says will happen. */
#include <stdlib.h>
#include <string.h>

#include "support/harness.h"

enum { BATCH = 3, CHANNELS = 39, TIME = 50, KERNEL = 2 };
static const ser_conv_shape shape = {
    .sides = 2,
    .batch = BATCH,
    .in = CHANNELS,
    .out = CHANNELS,
    .time = TIME,
    .kernel = KERNEL,
    .dilation = 16,
    .side_stride = SER_ROUND_UP(CHANNELS * CHANNELS * KERNEL, 16),
};
static bool refused;

static const char *form_of(ser_device *device, ser_device_properties *is) {
  device->rt->properties(device, is);
  return is->conv;
}

static ser_device *open_with(ser_conv_choice conv) {
  const ser_device_options options = {.kind = SER_DEVICE_CUDA, .conv = conv};
  ser_device *device;
  ser_error err = {0};
  ASSERT_OK(ser_device_open(&device, &options, &err), err);
  return device;
}

/* A cuDNN that cannot be used is named, with the statement that failed and what is done instead; else nothing is said.
 */
static void expect_words(const char *said, const ser_device_properties *is) {
  if (!refused) {
    assert_string_equal(said, "");
    assert_string_equal(is->no_cudnn, "");
    return;
  }
  if (!strstr(is->no_cudnn, "cuDNN: ") || !strstr(is->no_cudnn, " at ")) fail_msg("it tells: %s", is->no_cudnn);
  if (!strstr(said, "conv auto: cuDNN cannot be used here, so the fused kernels") || !strstr(said, is->no_cudnn))
    fail_msg("it says: %s", said);
}

static void one_is_chosen(void **state) {
  (void)state;
  ser_device *device = open_with(SER_CONV_AUTO);
  ser_device_properties is;
  ser_device_counters before, after;
  ser_error err = {0};
  ser_plan *plan;
  ser_stream *stream;
  char chosen[sizeof is.conv];
  assert_string_equal(form_of(device, &is), "auto");
  assert_string_equal(is.no_cudnn, "");
  device->rt->counters(device, &before);
  test_listen();
  ser_status settled = ser_device_choose_conv(device, &shape, &err);
  char *said = test_heard(true);
  ASSERT_OK(settled, err);
  device->rt->counters(device, &after);
  assert_int_equal(after.bytes, before.bytes);
  strcpy(chosen, form_of(device, &is));
  assert_true(!strcmp(chosen, "fused") || (!refused && !strcmp(chosen, "cudnn")));
  expect_words(said, &is);
  free(said);
  /* It is settled, which is said once, and the device is fit for work. */
  test_listen();
  settled = ser_device_choose_conv(device, &shape, &err);
  said = test_heard(true);
  ASSERT_OK(settled, err);
  assert_string_equal(said, "");
  free(said);
  assert_string_equal(form_of(device, &is), chosen);
  ASSERT_OK(device->rt->stream_create(device, &stream, &err), err);
  ASSERT_OK(device->ops->conv_prepare(device, &plan, &shape, &err), err);
  ASSERT_OK(device->rt->sync(stream, &err), err);
  ser_plan_free(plan);
  device->rt->stream_destroy(stream);
  ser_device_close(device);
}

static void what_is_settled_stays(void **state) {
  (void)state;
  static const ser_conv_choice forms[] = {SER_CONV_CUDNN, SER_CONV_FUSED};
  for (int i = 0; i < 2; i++) {
    ser_device *device = open_with(forms[i]);
    ser_device_properties is;
    ser_device_counters before, after;
    ser_error err = {0};
    device->rt->counters(device, &before);
    ASSERT_OK(device->rt->choose_conv(device, &shape, &err), err);
    device->rt->counters(device, &after);
    assert_int_equal(after.launches, before.launches);
    assert_string_equal(form_of(device, &is), i ? "fused" : "cudnn");
    ser_device_close(device);
  }
}

int main(int argc, char **argv) {
  refused = argc == 2 && !strcmp(argv[1], "refused");
  if (refused && !getenv("SERENADE_SOFTGPU")) test_skip("no software device, and a real one does not fail when asked");
  const struct CMUnitTest tests[] = {cmocka_unit_test(one_is_chosen), cmocka_unit_test(what_is_settled_stays)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
