/* The runtime's table on every device: copies, pinned memory, events across streams, graphs, refusals, counters. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/harness.h"

enum { LARGE = 300001 }; /* floats: more than one transfer of the bus */

static void fill(float *host, size_t count, uint64_t seed) {
  for (size_t i = 0; i < count; i++) host[i] = test_random(seed, i);
}

static void same(const float *got, uint64_t seed, size_t from, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (got[i] != test_random(seed, from + i)) fail_msg("float %zu of %zu is %g", i, count, (double)got[i]);
}

static ser_device_counters counters_of(ser_device *device) {
  ser_device_counters counters;
  device->rt->counters(device, &counters);
  return counters;
}

/* Host memory that is used again at once, whatever its kind. */
static void check_copies(ser_device *device, ser_stream *stream, void *context) {
  (void)context;
  static const size_t sizes[] = {1, 3, 17, 1000, LARGE};
  const ser_runtime *rt = device->rt;
  ser_error err = {0};
  float *pageable = ser_alloc(LARGE * sizeof *pageable), *back = ser_alloc(LARGE * sizeof *back);
  float *pinned = rt->pin(device, LARGE * sizeof *pinned, &err);
  assert_non_null(pinned);
  for (size_t i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++) {
    size_t n = sizes[i / 2], skip = n > 5 ? 5 : 0;
    float *host = i % 2 ? pinned : pageable;
    test_buffer a = test_buffer_make(device, stream, n), b = test_buffer_make(device, stream, n);
    fill(host, n, i);
    rt->write(stream, a.data, host, n * sizeof *host);
    memset(host, 0xff, n * sizeof *host);
    rt->copy(stream, b.data, a.data, n * sizeof *host);
    rt->zero(stream, a.data + skip, (n - skip) * sizeof *host);
    test_buffer_read(&b, back);
    same(back, i, 0, n);
    test_buffer_read(&a, back);
    same(back, i, 0, skip);
    for (size_t k = skip; k < n; k++) assert_true(back[k] == 0);
    ASSERT_OK(rt->read(stream, host, b.data + skip, (n - skip) * sizeof *host, &err), err);
    same(host, i, skip, n - skip);
    test_buffer_free(&a);
    test_buffer_free(&b);
  }
  rt->write(stream, NULL, NULL, 0);
  rt->copy(stream, NULL, NULL, 0);
  rt->zero(stream, NULL, 0);
  ASSERT_OK(rt->read(stream, NULL, NULL, 0, &err), err);
  rt->unpin(device, pinned);
  free(pageable);
  free(back);
}

static void copies(void **state) {
  (void)state;
  test_each_device(check_copies, 2, NULL);
}

/* Two pinned buffers that take turns, as a loop over batches does: an event says when one is free again. */
static void check_later(ser_device *device, ser_stream *stream, void *context) {
  (void)context;
  enum { N = 5000, TURNS = 7 };
  const ser_runtime *rt = device->rt;
  ser_error err = {0};
  float *in[2], *out = rt->pin(device, TURNS * N * sizeof *out, &err);
  ser_event *free_again[2];
  test_buffer on_device = test_buffer_make(device, stream, N);
  assert_non_null(out);
  assert_int_equal((uintptr_t)out % 64, 0);
  for (int i = 0; i < 2; i++) {
    in[i] = rt->pin(device, N * sizeof *in[i], &err);
    assert_non_null(in[i]);
    ASSERT_OK(rt->event_create(device, &free_again[i], &err), err);
  }
  for (int turn = 0; turn < TURNS; turn++) {
    int i = turn % 2;
    ASSERT_OK(rt->await(free_again[i], &err), err);
    fill(in[i], N, (uint64_t)turn);
    rt->write_later(stream, on_device.data, in[i], N * sizeof *out);
    rt->record(stream, free_again[i]);
    rt->read_later(stream, out + turn * N, on_device.data, N * sizeof *out);
  }
  ASSERT_OK(rt->sync(stream, &err), err);
  for (int turn = 0; turn < TURNS; turn++) same(out + turn * N, (uint64_t)turn, 0, N);
  test_buffer_free(&on_device);
  for (int i = 0; i < 2; i++) {
    rt->event_destroy(free_again[i]);
    rt->unpin(device, in[i]);
  }
  rt->unpin(device, out);
  rt->unpin(device, NULL);
  rt->free(device, NULL);
}

static void later(void **state) {
  (void)state;
  test_each_device(check_later, 1, NULL);
}

/* What one stream makes another reads, handed back and forth. */
static void check_events(ser_device *device, ser_stream *stream, void *context) {
  (void)context;
  enum { N = 4000, TURNS = 6 };
  const ser_runtime *rt = device->rt;
  ser_error err = {0};
  ser_stream *streams[2] = {stream, NULL};
  ser_event *never, *made[2];
  float *host = ser_alloc(N * sizeof *host);
  test_buffer a = test_buffer_make(device, stream, N), b = test_buffer_make(device, stream, N);
  ASSERT_OK(rt->stream_create(device, &streams[1], &err), err);
  ASSERT_OK(rt->event_create(device, &never, &err), err);
  for (int i = 0; i < 2; i++) ASSERT_OK(rt->event_create(device, &made[i], &err), err);
  rt->follow(stream, never);
  ASSERT_OK(rt->await(never, &err), err);
  for (int turn = 0; turn < TURNS; turn++) {
    int i = turn % 2;
    if (turn) rt->follow(streams[i], made[!i]);
    if (i) {
      rt->copy(streams[i], b.data, a.data, N * sizeof *host);
      rt->zero(streams[i], a.data, N * sizeof *host);
    } else {
      fill(host, N, (uint64_t)turn);
      rt->copy(streams[i], a.data, b.data, N * sizeof *host);
      rt->write(streams[i], a.data, host, (size_t)(N - turn) * sizeof *host);
    }
    rt->record(streams[i], made[i]);
  }
  ASSERT_OK(rt->await(made[1], &err), err);
  assert_true(rt->seconds(made[0], made[1]) >= 0);
  ASSERT_OK(rt->read(streams[1], host, b.data, N * sizeof *host, &err), err);
  same(host, TURNS - 2, 0, N - (TURNS - 2));
  for (int i = 0; i < TURNS - 2; i++) /* what earlier turns left at the end */
    assert_true(host[N - 1 - i] == test_random((uint64_t)(i / 2 * 2), (uint64_t)(N - 1 - i)));
  for (int i = 0; i < 2; i++) rt->event_destroy(made[i]);
  rt->event_destroy(never);
  rt->event_destroy(NULL);
  rt->stream_destroy(streams[1]);
  rt->stream_destroy(NULL);
  test_buffer_free(&a);
  test_buffer_free(&b);
  free(host);
}

static void events(void **state) {
  (void)state;
  test_each_device(check_events, 1, NULL);
}

/* A graph is run at its launches alone, each a new step, and counts as if its work had been enqueued each time. */
static void check_graphs(ser_device *device, ser_stream *stream, void *context) {
  (void)context;
  enum { N = 1000, LAUNCHES = 3 };
  const ser_runtime *rt = device->rt;
  ser_error err = {0};
  ser_graph *graph = NULL;
  ser_device_properties is;
  rt->properties(device, &is);
  if (!is.graphs) {
    assert_int_equal(rt->graph_begin(stream, &err), SER_FAILED);
    assert_true(strstr(err.text, "no graphs"));
    rt->graph_destroy(NULL);
    return;
  }
  const ser_adam adam = {.lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f};
  ser_step step = {.place = -1}, *on_device = rt->alloc(device, sizeof step, &err);
  float *in = rt->pin(device, N * sizeof *in, &err), *out = rt->pin(device, N * sizeof *out, &err);
  test_buffer a = test_buffer_make(device, stream, N), b = test_buffer_make(device, stream, N);
  assert_true(on_device && in && out);
  rt->write(stream, on_device, &step, sizeof step);
  ASSERT_OK(rt->sync(stream, &err), err);
  ser_device_counters before = counters_of(device);
  ASSERT_OK(rt->graph_begin(stream, &err), err);
  device->ops->step_begin(stream, on_device, &adam);
  rt->write_later(stream, a.data, in, N * sizeof *in);
  rt->copy(stream, b.data, a.data, N * sizeof *in);
  rt->zero(stream, b.data, sizeof *in);
  rt->read_later(stream, out, b.data, N * sizeof *in);
  ASSERT_OK(rt->graph_end(stream, &graph, &err), err);
  ser_device_counters after = counters_of(device);
  assert_int_equal(after.launches, before.launches);
  assert_int_equal(after.written, before.written);
  for (int i = 0; i < LAUNCHES; i++) {
    fill(in, N, (uint64_t)i);
    rt->graph_launch(stream, graph);
    ASSERT_OK(rt->sync(stream, &err), err);
    assert_true(out[0] == 0);
    same(out + 1, (uint64_t)i, 1, N - 1);
  }
  ASSERT_OK(rt->read(stream, &step, on_device, sizeof step, &err), err);
  assert_int_equal(step.number, LAUNCHES);
  assert_int_equal(step.place, LAUNCHES - 1);
  after = counters_of(device);
  assert_int_equal(after.launches - before.launches, LAUNCHES);
  assert_int_equal(after.written - before.written, LAUNCHES * N * sizeof *in);
  assert_int_equal(after.read - before.read, LAUNCHES * N * sizeof *in + sizeof step);
  assert_int_equal(after.waits - before.waits, LAUNCHES + 1);
  rt->graph_launch(stream, graph); /* destroyed under way */
  rt->graph_destroy(graph);
  test_buffer_free(&a);
  test_buffer_free(&b);
  rt->unpin(device, in);
  rt->unpin(device, out);
  rt->free(device, on_device);
}

static void graphs(void **state) {
  (void)state;
  test_each_device(check_graphs, 1, NULL);
}

/* Memory that cannot be had leaves the device as it was; what waits cannot be captured, and only the capture is lost:
 * nothing of it was done, and its stream goes on. */
static void check_refusals(ser_device *device, ser_stream *stream, void *context) {
  (void)context;
  const ser_runtime *rt = device->rt;
  ser_error err = {0};
  ser_device_counters before = counters_of(device);
  assert_null(rt->alloc(device, SIZE_MAX - 64, &err));
  assert_true(strstr(err.text, "out of memory") && strstr(err.text, "18446744073709551551") &&
              strstr(err.text, "batch"));
  assert_int_equal(counters_of(device).allocations, before.allocations);
  assert_int_equal(counters_of(device).bytes, before.bytes);
  test_buffer buffer = test_buffer_make(device, stream, 10);
  ser_device_properties is;
  rt->properties(device, &is);
  if (!is.host_memory) { /* something is left for kernels and libraries */
    assert_null(rt->alloc(device, is.memory - (32 << 20), &err));
    assert_true(strstr(err.text, "out of memory") && strstr(err.text, "beside 64 MiB"));
  }
  if (is.graphs) {
    ser_stream *other;
    ser_graph *graph;
    float host = 3;
    ASSERT_OK(rt->stream_create(device, &other, &err), err);
    rt->write(other, buffer.data, &host, sizeof host);
    ASSERT_OK(rt->graph_begin(other, &err), err);
    rt->zero(other, buffer.data, sizeof host);
    rt->write(other, buffer.data, &host, sizeof host);
    assert_int_equal(rt->graph_end(other, &graph, &err), SER_FAILED);
    assert_null(graph);
    assert_true(strstr(err.text, "graph"));
    rt->copy(other, buffer.data + 1, buffer.data, sizeof host);
    host = 0;
    ASSERT_OK(rt->read(other, &host, buffer.data + 1, sizeof host, &err), err);
    assert_true(host == 3);
    rt->stream_destroy(other);
  }
  test_buffer_free(&buffer);
}

static void refusals(void **state) {
  (void)state;
  test_each_device(check_refusals, 1, NULL);
}

static void check_counters(ser_device *device, ser_stream *stream, void *context) {
  (void)context;
  const ser_runtime *rt = device->rt;
  ser_error err = {0};
  ser_device_properties is;
  ser_device_counters start = counters_of(device), now;
  rt->properties(device, &is);
  assert_true(is.name[0] && is.isa[0] && is.threads > 0 && is.trainings > 0 && is.memory > 0);
  assert_true(is.memory_free > 0 && is.memory_free <= is.memory);
  assert_string_equal(is.precision, "fp32");
  char *a = rt->alloc(device, 1000, &err), *b = rt->alloc(device, 0, &err), *c = rt->pin(device, 500, &err);
  assert_true(a && b && c && (uintptr_t)a % 64 == 0 && (uintptr_t)b % 64 == 0);
  now = counters_of(device);
  assert_int_equal(now.allocations - start.allocations, 3);
  assert_int_equal(now.bytes - start.bytes, 1500);
  rt->free(device, a);
  a = rt->alloc(device, 200, &err);
  now = counters_of(device);
  assert_int_equal(now.bytes - start.bytes, 700);
  assert_int_equal(now.peak, start.peak > start.bytes + 1500 ? start.peak : start.bytes + 1500);
  char host[200] = "";
  ser_device_counters before = counters_of(device);
  rt->write(stream, a, host, 150);
  ASSERT_OK(rt->read(stream, host, a, 100, &err), err);
  now = counters_of(device);
  if (is.host_memory) {
    assert_int_equal(now.written + now.read + now.waits + now.launches + now.calls + now.asked, 0);
  } else {
    assert_int_equal(now.written - start.written, 150);
    assert_int_equal(now.read - start.read, 100);
    assert_int_equal(now.waits - start.waits, 1);
    assert_int_equal(now.asked - before.asked, 3); /* two copies and the wait */
  }
  rt->phase(device, "tests.phase");
  rt->range_begin(device, "outer");
  rt->range_begin(device, "inner");
  rt->range_end(device);
  rt->range_end(device);
  rt->free(device, a);
  rt->free(device, b);
  rt->unpin(device, c);
  assert_int_equal(counters_of(device).bytes, start.bytes);
}

static void counters(void **state) {
  (void)state;
  test_each_device(check_counters, 3, NULL);
}

/* What bench measures with: copies of any size, whole and no more; operations in proportion to the rounds. */
static void check_peaks(ser_device *device, ser_stream *stream, void *context) {
  (void)context;
  static const size_t sizes[] = {0, 1, 15, 16, 17, 4096, 16 * 4 * 256, 16 * 4 * 256 + 3, 16 * 5000 + 7};
  enum { ROOM = 90000 };
  const ser_runtime *rt = device->rt;
  ser_error err = {0};
  unsigned char *host = ser_alloc(ROOM), *back = ser_alloc(ROOM);
  void *from = rt->alloc(device, ROOM, &err), *to = rt->alloc(device, ROOM, &err);
  assert_true(from && to);
  for (size_t i = 0; i < ROOM; i++) host[i] = (unsigned char)(1 + i % 251);
  rt->write(stream, from, host, ROOM);
  for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
    rt->zero(stream, to, ROOM);
    assert_int_equal(rt->peak_copy(stream, to, from, sizes[k]), 2 * (int64_t)sizes[k]);
    ASSERT_OK(rt->read(stream, back, to, ROOM, &err), err);
    assert_memory_equal(back, host, sizes[k]);
    for (size_t i = sizes[k]; i < ROOM; i++) assert_int_equal(back[i], 0);
  }
  int64_t once = rt->peak_fma(stream, 16);
  assert_true(once > 0);
  assert_int_equal(rt->peak_fma(stream, 48), 3 * once);
  assert_int_equal(rt->peak_fma(stream, 0), 0);
  ASSERT_OK(rt->sync(stream, &err), err);
  rt->free(device, from);
  rt->free(device, to);
  free(host);
  free(back);
}

static void peaks(void **state) {
  (void)state;
  test_each_device(check_peaks, 2, NULL);
}

/* What a device lacks is refused as a wrong wish, not as a fault; what it has is told. */
static void wishes(void **state) {
  (void)state;
  ser_error err = {0};
  ser_device *device;
  ser_device_properties is;
  ser_device_options options = {.kind = test_on_cuda() ? SER_DEVICE_CUDA : SER_DEVICE_CPU, .conv = SER_CONV_CUDNN};
  ASSERT_OK(ser_device_open(&device, &options, &err), err);
  device->rt->properties(device, &is);
  assert_string_equal(is.conv, test_on_cuda() ? "cudnn" : "cpu");
  if (test_on_cuda()) assert_non_null(getenv("CUDA_DEVICE_MAX_CONNECTIONS"));
  ser_device_close(device);
  options.precision = SER_PRECISION_TF32;
  ser_status status = ser_device_open(&device, &options, &err);
  if (test_on_cuda() && atoi(is.isa + 3) >= 80) {
    ASSERT_OK(status, err);
    device->rt->properties(device, &is);
    assert_string_equal(is.precision, "tf32");
    ser_device_close(device);
  } else {
    assert_int_equal(status, SER_USAGE);
    assert_null(device);
    assert_true(strstr(err.text, "tf32") && strstr(err.text, "give precision fp32"));
    assert_true(strstr(err.text, test_on_cuda() ? is.isa : "CPU"));
  }
}

/* Devices side by side, a thread each, some capturing while others allocate and wait. */
static void *work_alone(void *context) {
  enum { N = 3000, TURNS = 20 };
  uint64_t seed = (uint64_t)(uintptr_t)context;
  ser_error err = {0};
  ser_device *device;
  ser_stream *stream = NULL;
  float *host = ser_alloc(N * sizeof *host);
  bool good =
      test_device_open(&device, 1, &err) == SER_OK && device->rt->stream_create(device, &stream, &err) == SER_OK;
  ser_device_properties is = {0};
  if (good) device->rt->properties(device, &is);
  for (int turn = 0; turn < TURNS && good; turn++) {
    const ser_runtime *rt = device->rt;
    float *a = rt->alloc(device, N * sizeof *a, &err), *b = rt->alloc(device, N * sizeof *b, &err);
    ser_graph *graph = NULL;
    fill(host, N, seed + (uint64_t)turn);
    rt->write(stream, a, host, N * sizeof *a);
    if (is.graphs) good = good && rt->graph_begin(stream, &err) == SER_OK;
    rt->copy(stream, b, a, N * sizeof *a);
    if (is.graphs) {
      good = good && rt->graph_end(stream, &graph, &err) == SER_OK;
      if (good) rt->graph_launch(stream, graph);
    }
    good = good && rt->read(stream, host, b, N * sizeof *b, &err) == SER_OK;
    for (size_t i = 0; i < N && good; i++) good = host[i] == test_random(seed + (uint64_t)turn, i);
    rt->graph_destroy(graph);
    rt->free(device, a);
    rt->free(device, b);
  }
  if (!good) fprintf(stderr, "a device beside others: %s\n", err.text[0] ? err.text : "wrong numbers");
  free(host);
  if (stream) device->rt->stream_destroy(stream);
  ser_device_close(device);
  return good ? context : NULL;
}

static void side_by_side(void **state) {
  (void)state;
  enum { DEVICES = 4 };
  pthread_t threads[DEVICES];
  for (uintptr_t i = 0; i < DEVICES; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, work_alone, (void *)(100 * (i + 1))), 0);
  for (int i = 0; i < DEVICES; i++) {
    void *good;
    pthread_join(threads[i], &good);
    assert_non_null(good);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(copies), cmocka_unit_test(later),    cmocka_unit_test(events),
      cmocka_unit_test(graphs), cmocka_unit_test(refusals), cmocka_unit_test(counters),
      cmocka_unit_test(peaks),  cmocka_unit_test(wishes),   cmocka_unit_test(side_by_side)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
