/* What bench makes of its figures: bounds by the better of two measurements of the machine, shares, and what is said of
 * one that cannot be; what a batch needs of a device and which limit is the nearest. No time is tested. */
#include "support/harness.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/bench.h"

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

/* ---- on a device ------------------------------------------------------------------------------------------------- */

static bool near(double got, double wanted) {
  return got > 0.999999 * wanted && got < 1.000001 * wanted;
}

/* By hand: 20 channels are 24 rows, 30 frames 32 columns; 8 filters are 8 rows. */
static void bytes_are_those_of_the_operations(void **state) {
  (void)state;
  ser_mfcc_config mfcc = {.n_fft = 256, .hop = 100, .mels = 40, .coefficients = 13, .deltas = true};
  assert_true(near(bench_bytes_mfcc(&mfcc, 1000, 11), 4 * (1000 + 11 * (2 * 40 + 39))));
  ser_model_config c = {.blocks = 3, .filters = 8, .kernel = 2, .channels = 20, .frames = 30};
  double tile = 4 * 5 * 24 * 32, side = 4 * 5 * 8 * 32, features = 4 * 140 * 20;
  assert_true(near(bench_bytes_forward(&c, 5, 140), features + 3 * tile));
  double plain = features + 6 * tile + 2 * (2 + 3 * 4 + 4 + 3 * 8) * side + 36 * 1000;
  assert_true(near(bench_bytes_train(&c, 5, 140, 1000), plain));
  c.residual = true; /* three more a block forwards, one backwards */
  assert_true(near(bench_bytes_train(&c, 5, 140, 1000), plain + 2 * 3 * 4 * side));
  assert_true(near(bench_flops_clip(&c), 2.0 * 2 * 30 * 8 * (20 + 2 * 3 * 2 * 8)));
}

/* A device of 1 TFLOP/s, 100 GB/s, a bus of 10 and 5 GB/s, 4 and 1 us a launch, at their best. */
static bench on_a_device(void) {
  bench b = {.on_device = true, .runs = 3, .count = 6};
  b.results[0] = line_of("peak.fma", "GFLOP/s", 1000 / 1.1);
  b.results[1] = line_of("peak.copy", "GB/s", 100 / 1.1);
  b.results[2] = line_of("peak.to", "GB/s", 10 / 1.1);
  b.results[3] = line_of("peak.from", "GB/s", 5 / 1.1);
  b.results[4] = line_of("peak.launch", "us", 4 / 0.9);
  b.results[5] = line_of("peak.graph", "us", 1 / 0.9);
  return b;
}

static void the_nearest_limit_is_named(void **state) {
  (void)state;
  bench b = on_a_device();
  bench_work work = {.batches = 1, .operations = 1e9, .bytes = 5e7, .written = 1e6, .read = 1e6, .launches = 10};
  assert_true(near(bench_least_seconds(&b, &work), 1e-3));
  assert_string_equal(work.limit, "fma");
  work.bytes = 2e8;
  assert_true(near(bench_least_seconds(&b, &work), 2e-3));
  assert_string_equal(work.limit, "memory");
  work.read = 2e7; /* both ways at once: the longer counts */
  work.written = 3e7;
  assert_true(near(bench_least_seconds(&b, &work), 4e-3));
  assert_true(near(bench_bus_seconds(&b, &work), 4e-3));
  assert_string_equal(work.limit, "bus");
  work.launches = 1000;
  work.calls = 500;
  assert_true(near(bench_least_seconds(&b, &work), 6e-3));
  assert_string_equal(work.limit, "launches");
  work.in_graph = true;
  assert_true(near(bench_least_seconds(&b, &work), 4e-3));
  assert_string_equal(work.limit, "bus");
  b.count = 0;
  assert_true(bench_least_seconds(&b, &work) == 0);
  assert_null(work.limit);
}

static bench_result stage_of(const char *name, double median, bench_work work) {
  bench_result line = line_of(name, "clips/s", median);
  line.work = work;
  return line;
}

/* A device's line is bound by the nearest limit, or by the host where that is nearer; and nothing is wider than a
 * terminal. */
static void a_device_has_its_own_table(void **state) {
  (void)state;
  bench b = on_a_device();
  const bench_work step = {.batches = 4,
                           .clips = 64,
                           .seconds = 2e-3,
                           .busy = 0.96,
                           .launches = 113,
                           .waits = 0.25,
                           .operations = 1e9,
                           .bytes = 1e8,
                           .in_graph = true,
                           .written = 12,
                           .read = 1234567};
  b.results[b.count++] = stage_of("train", 32000, step);
  b.results[b.count++] =
      stage_of("extract", 800, (bench_work){.batches = 2, .clips = 50, .bytes = 1e8, .seconds = 1e-3});
  bench_bound(&b.results[7], 1000, "decode alone");
  bench_settle(&b);
  assert_true(near(b.results[6].bound, 64 / 1e-3) && near(b.results[6].share, 0.5));
  assert_true(near(b.results[7].bound, 1000) && near(b.results[7].share, 0.8));
  assert_string_equal(b.results[7].bound_is, "decode alone");
  assert_string_equal(b.results[7].work.limit, "memory");
  ser_text text = {0};
  bench_text_device(&text, &b);
  assert_non_null(strstr(text.data, "train             64     2.000   96%     113     0   0.2       0.0    1234.6"));
  assert_non_null(strstr(text.data, "    500.0   50%      50.0   50%"));
  bench_text(&text, &b);
  for (char *line = text.data, *end; *line; line = end + (*end != 0)) {
    end = line + strcspn(line, "\n");
    assert_true(end - line <= 120);
  }
  text.size = 0;
  b.on_device = false;
  for (size_t i = 0; i < b.count; i++) b.results[i].work = (bench_work){0};
  bench_text_device(&text, &b);
  assert_int_equal(text.size, 0);
  free(text.data);
}

static void expect_brake(const bench *b, const char *words) {
  ser_text text = {0};
  bench_text_brake(&text, b);
  assert_non_null(text.data);
  if (!strstr(text.data, words)) fail_msg("'%s' does not say '%s'", text.data, words);
  free(text.data);
}

/* A clip takes 1 ms. */
static void what_holds_back_is_named(void **state) {
  (void)state;
  bench b = on_a_device();
  size_t first = b.count;
  ser_text nothing = {0};
  bench_text_brake(&nothing, &b);
  assert_null(nothing.data);
  b.results[b.count++] = line_of("decode.read", "clips/s", 5000);
  b.results[b.count++] = line_of("decode.resample", "clips/s", 1000 / 0.6);
  b.results[b.count++] = line_of("mfcc", "clips/s", 20000);
  b.results[b.count++] =
      stage_of("extract", 1000, (bench_work){.batches = 2, .clips = 50, .seconds = 1e-3, .written = 1e8});
  b.threads = 2;
  expect_brake(&b,
               "extract takes 1000 us a clip. Side by side: 2 cores 800 us (reading 25%, resampling 75%), the bus 200 "
               "us, the\ndevice 20 us; the longest of them leaves 200 us.\nWhat holds it back is resampling");
  b.results[first].median = 1000 / 0.7;
  b.results[first + 1].median = 1e5;
  expect_brake(&b, "What holds it back is reading, on the host's cores\n");
  b.results[first + 3].work.written = 5e8;
  expect_brake(&b, "What holds it back is the bus\n");
  b.results[first + 3].work.seconds = 0.06;
  expect_brake(&b, "What holds it back is the device\n");
  b.results[first + 3].median = 100;
  expect_brake(&b, "What holds it back is the rest (");
  b.results[first + 3].set_up = 0.0125;
  expect_brake(&b, "Setting up and taking down, once in a run whatever its length, took 12.5 ms beside it.\n");
  b.results[first + 3].set_up = 0;
  b.on_device = false;
  b.results[first + 3].median = 1000 / 1.1;
  expect_brake(
      &b, "reading 64%, resampling 1%, mfcc 5%, the rest (queues, hashes, cache) 31%. What holds it back is reading\n");
}

typedef struct {
  ser_device device;
  ser_device_counters counters;
} counted_device;

static void counters_of(const ser_device *device, ser_device_counters *out) {
  *out = ((const counted_device *)device)->counters;
}

static void no_range_begin(ser_device *device, const char *name) {
  (void)device;
  (void)name;
}

static void no_range_end(ser_device *device) {
  (void)device;
}

/* Two batches of 0.25 and 0.75 seconds by the device's clock. */
static ser_status two_batches(void *context, ser_error *err) {
  bench *b = context;
  ser_device_counters *counters = &((counted_device *)b->device)->counters;
  (void)err;
  counters->launches += 21;
  counters->calls += 8;
  counters->waits += 1;
  counters->written += 3000;
  counters->read += 500;
  b->ran.batches += 2;
  b->ran.seconds += 1;
  return SER_OK;
}

static void work_is_a_mean_of_batches(void **state) {
  (void)state;
  ser_error err = {0};
  const ser_runtime runtime = {.counters = counters_of, .range_begin = no_range_begin, .range_end = no_range_end};
  counted_device device = {.device = {.rt = &runtime}, .counters = {.launches = 1000, .allocations = 7}};
  bench b = {.on_device = true, .runs = 2, .device = &device.device, .clips = {.count = 90}};
  bench_result *line;
  ASSERT_OK(bench_measure(&b, &line, "stage", "clips/s", 90, two_batches, &b, &err), err);
  bench_needs(&b, line, 5000, 700);
  const bench_work *work = &line->work;
  assert_true(work->batches == 2 && work->clips == 45 && work->seconds == 0.5);
  assert_true(work->launches == 10.5 && work->calls == 4 && work->waits == 0.5 && work->allocations == 0);
  assert_true(work->written == 1500 && work->read == 250 && work->operations == 2500 && work->bytes == 350);
  b.on_device = false; /* a processor's line has none */
  ASSERT_OK(bench_measure(&b, &line, "stage", "us", 1000, two_batches, &b, &err), err);
  bench_needs(&b, line, 5000, 700);
  assert_true(line->work.batches == 0 && line->work.clips == 0 && line->median >= line->min);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(bounds_follow_the_peak),     cmocka_unit_test(the_better_peak_stays),
      cmocka_unit_test(killed_folders_are_swept),   cmocka_unit_test(bytes_are_those_of_the_operations),
      cmocka_unit_test(the_nearest_limit_is_named), cmocka_unit_test(a_device_has_its_own_table),
      cmocka_unit_test(what_holds_back_is_named),   cmocka_unit_test(work_is_a_mean_of_batches)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
