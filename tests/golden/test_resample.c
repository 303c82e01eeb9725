/* ser_resample against librosa.resample(res_type="soxr_hq"); goldens by make_resample.py. */
#include "support/harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "audio/audio.h"
#include "base/file.h"
#include "base/memory.h"

static void matches_librosa(void **state) {
  (void)state;
  ser_error err = {0};
  char *text, *bytes, *about = ser_path_join(test_source(), "tests/golden/data/resample.json");
  char *data = ser_path_join(test_source(), "tests/golden/data/resample.bin");
  size_t size, text_size;
  ASSERT_OK(ser_file_read(&text, &text_size, about, &err), err);
  ASSERT_OK(ser_file_read(&bytes, &size, data, &err), err);
  json_t *json = json_loads(text, 0, NULL);
  assert_non_null(json);
  int64_t input = json_integer_value(json_object_get(json, "input")), at = input;
  const float *values = (const float *)(void *)bytes;
  json_t *entry;
  size_t i;
  assert_true(json_array_size(json_object_get(json, "outputs")) >= 8);
  json_array_foreach(json_object_get(json, "outputs"), i, entry) {
    int from = (int)json_integer_value(json_object_get(entry, "from"));
    int to = (int)json_integer_value(json_object_get(entry, "to"));
    int64_t want = json_integer_value(json_object_get(entry, "count")), count;
    float *out;
    assert_true((size_t)(at + want) * 4 <= size);
    ASSERT_OK(ser_resample(&out, &count, values, input, from, to, &err), err);
    assert_int_equal(count, want);
    double worst = 0;
    for (int64_t k = 0; k < want; k++) worst = test_worse(worst, fabs((double)out[k] - (double)values[at + k]));
    /* Builds of soxr differ in the last bit of a float at most; values reach 2. */
    if (!(worst <= 5e-7)) fail_msg("%d to %d Hz: %g off", from, to, worst);
    free(out);
    at += want;
  }
  assert_int_equal((size_t)at * 4, size);
  json_decref(json);
  free(text);
  free(bytes);
  free(about);
  free(data);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(matches_librosa)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
