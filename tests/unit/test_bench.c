/* What bench makes of its figures: bounds by the better of two measurements of the machine, shares, and what is said of
 * one that cannot be. No time is tested. */
#include "support/harness.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/bench.h"
#include "device/peak.h"

static bench_result line_of(const char *name, const char *unit, double median) {
  bench_result line = {.median = median, .min = 0.9 * median, .max = 1.1 * median, .runs = 3};
  strcpy(line.name, name);
  strcpy(line.unit, unit);
  return line;
}

static void bounds_follow_the_peak(void **state) {
  (void)state;
  bench b = {.count = 4};
  b.results[0] = line_of("peak.fma", "GFLOP/s", 100); /* 110 at best */
  b.results[1] = line_of("train", "clips/s", 880);
  b.results[2] = line_of("predict", "ms", 20);
  b.results[3] = line_of("peak.copy", "GB/s", 20);
  bench_bound_operations(&b.results[1], 1e8, "peak.fma over the operations"); /* 1100 clips/s */
  bench_bound(&b.results[2], 10, "the start");
  bench_settle(&b);
  assert_true(b.results[1].share > 0.7999 && b.results[1].share < 0.8001);
  assert_true(b.results[2].share > 0.4999 && b.results[2].share < 0.5001);
  ser_text text = {0};
  bench_text(&text, &b);
  assert_non_null(strstr(text.data, "1100.0    80%"));
  assert_non_null(strstr(text.data, "10.0    50%"));
  assert_null(strstr(text.data, "above 100%"));
  assert_non_null(strstr(text.data, "peak.fma over the operations"));
  b.results[0].max = 80; /* measured in a slow moment */
  bench_settle(&b);
  text.size = 0;
  bench_text(&text, &b);
  assert_non_null(strstr(text.data, "800.0   110%"));
  assert_non_null(strstr(text.data, "A share above 100%: the machine was slower"));
  free(text.data);
}

/* The second measurement counts where it is the better one, and adds no line. */
static void the_better_peak_stays(void **state) {
  (void)state;
  ser_error err = {0};
  bench b = {.runs = 1};
  ASSERT_OK(ser_device_open(&b.device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &err), err);
  ASSERT_OK(b.device->rt->stream_create(b.device, &b.stream, &err), err);
  ASSERT_OK(bench_peak_again(&b, &err), err); /* never measured, no business */
  assert_int_equal(b.count, 0);
  b.count = 2;
  b.results[0] = line_of("peak.fma", "GFLOP/s", 1e-9);
  b.results[1] = line_of("train", "clips/s", 880);
  ASSERT_OK(bench_peak_again(&b, &err), err);
  assert_int_equal(b.count, 2);
  assert_string_equal(b.results[1].name, "train");
  assert_string_equal(b.results[0].name, "peak.fma");
  assert_true(b.results[0].max > 1e-3);
  b.results[0] = line_of("peak.fma", "GFLOP/s", 1e12);
  ASSERT_OK(bench_peak_again(&b, &err), err);
  assert_true(b.results[0].median == 1e12);
  b.device->rt->stream_destroy(b.stream);
  ser_device_close(b.device);
}

/* What a bench left that was killed is removed by the next one; a living one's folder and the user's own stay. */
static void killed_folders_are_swept(void **state) {
  (void)state;
  ser_error err = {0};
  char **names, *folder, *root = test_folder_make("bench"), *own = ser_path_join(root, "serenade-bench-notes");
  size_t count;
  ASSERT_OK(ser_make_folders(own, &err), err);
  for (int i = 0; i < 2; i++) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) { /* ends with its folder in place, as a killed one does */
      ser_error ours = {0};
      bool made = bench_make_folder(&folder, root, &ours) == SER_OK;
      char *inside = made ? ser_path_join(folder, "cache/shards") : NULL;
      _exit(made && ser_make_folders(inside, &ours) == SER_OK ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    ASSERT_OK(ser_folder_names(&names, &count, root, &err), err);
    assert_int_equal(count, 2); /* the user's and the last child's */
    ser_names_free(names, count);
  }
  char *folders[2];
  for (int i = 0; i < 2; i++) ASSERT_OK(bench_make_folder(&folders[i], root, &err), err);
  for (int i = 0; i < 2; i++) assert_true(ser_is_folder(folders[i]));
  assert_true(ser_is_folder(own));
  ASSERT_OK(ser_folder_names(&names, &count, root, &err), err);
  assert_int_equal(count, 3);
  ser_names_free(names, count);
  for (int i = 0; i < 2; i++) free(folders[i]);
  free(own);
  test_folder_remove(root);
}

static void another_backend(const ser_device *device, ser_device_properties *out) {
  (void)device;
  memset(out, 0, sizeof *out);
  strcpy(out->backend, "other");
}

/* The limits are the CPU backend's: the device and the stream of another one are not touched. */
static void another_backend_has_no_peak(void **state) {
  (void)state;
  const ser_runtime runtime = {.properties = another_backend};
  ser_device device = {.rt = &runtime};
  char from[64] = {1}, to[64] = {0};
  assert_int_equal(ser_peak_run(&device, NULL, 1), 0);
  assert_int_equal(ser_peak_copy(&device, NULL, to, from, sizeof to), 0);
  assert_int_equal(to[0], 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(bounds_follow_the_peak), cmocka_unit_test(the_better_peak_stays),
                                     cmocka_unit_test(killed_folders_are_swept),
                                     cmocka_unit_test(another_backend_has_no_peak)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
