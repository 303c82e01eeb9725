/* A device that fails: the first failure stays in its stream with the statement, its place and the device's words; all
 * that comes after it is harmless, and another device says why it cannot be opened. What fails is chosen by who runs
 * this; the program's one argument says what it is. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/harness.h"

static const char *failure; /* "kernel", "launch", "memcpy", "memset", "event", "malloc", "hostalloc" */

static bool fails(const char *what) {
  return !strcmp(failure, what);
}

/* Work on a stream: a copy, a fill, a kernel, a graph. */
static ser_status work(ser_device *device, ser_stream *stream, void *memory, bool with_graph, ser_error *err) {
  const ser_runtime *rt = device->rt;
  const ser_adam adam = {.lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f};
  ser_step step = {.place = -1};
  ser_graph *graph = NULL;
  rt->write(stream, memory, &step, sizeof step);
  device->ops->step_begin(stream, memory, &adam);
  rt->zero(stream, (char *)memory + 512, 512);
  if (with_graph && rt->graph_begin(stream, err) == SER_OK) {
    device->ops->step_begin(stream, memory, &adam);
    ser_status status = rt->graph_end(stream, &graph, err);
    if (status == SER_OK) rt->graph_launch(stream, graph);
    rt->graph_destroy(graph);
  }
  rt->copy(stream, (char *)memory + 256, memory, sizeof step);
  return rt->read(stream, &step, (char *)memory + 256, sizeof step, err);
}

static void the_first_error_stays(void **state) {
  (void)state;
  static const char *const words[][2] = {{"kernel", "illegal memory access"}, {"launch", "_kernel"},
                                         {"memcpy", "cudaMemcpyAsync"},       {"memset", "cudaMemsetAsync"},
                                         {"event", "cudaEventCreate"},        {"malloc", "GPU is out of memory: 4096 "},
                                         {"hostalloc", "out of host memory"}};
  ser_error err = {0}, again = {0}, graph = {0};
  ser_device *device, *other;
  ser_stream *stream;
  ser_event *event = NULL;
  ASSERT_OK(test_device_open(&device, 1, &err), err);
  const ser_runtime *rt = device->rt;
  ASSERT_OK(rt->stream_create(device, &stream, &err), err);
  char *memory = rt->alloc(device, 4096, &err), *pinned = NULL;
  if (memory) pinned = rt->pin(device, 4096, &err);
  if (pinned) rt->event_create(device, &event, &err);
  if (!err.text[0]) {
    assert_int_equal(work(device, stream, memory, true, &err), SER_FAILED);
    /* The same words each time, and nothing that is enqueued does harm. */
    assert_int_equal(work(device, stream, memory, false, &again), SER_FAILED);
    assert_string_equal(again.text, err.text);
    assert_int_equal(rt->graph_begin(stream, &graph), SER_FAILED);
    assert_string_equal(graph.text, err.text);
    rt->write_later(stream, memory, pinned, 4096);
    rt->read_later(stream, pinned, memory, 4096);
    rt->record(stream, event);
    assert_int_equal(rt->await(event, &again), SER_FAILED);
    assert_string_equal(again.text, err.text);
    /* Who follows it has its error, too. */
    ser_stream *follower;
    if (rt->stream_create(device, &follower, &again) == SER_OK) {
      rt->follow(follower, event);
      assert_int_equal(rt->sync(follower, &again), SER_FAILED);
      assert_string_equal(again.text, err.text);
      rt->stream_destroy(follower);
    }
  }
  bool told = false;
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (fails(words[i][0]) && strstr(err.text, words[i][1])) told = true;
  if (!told) fail_msg("with a failure of %s it says: %s", failure, err.text);
  if (!strstr(err.text, "out of")) assert_true(strstr(err.text, " at cuda/") || strstr(err.text, " at kernels/"));
  ser_status opened = test_device_open(&other, 1, &again);
  if (fails("kernel")) {
    assert_int_equal(opened, SER_FAILED);
    assert_true(strstr(err.text, "start it again") && strstr(again.text, "start it again"));
    assert_null(rt->alloc(device, 100, &again));
    assert_true(strstr(again.text, "illegal memory access"));
  } else {
    assert_null(strstr(err.text, "start it again"));
    ASSERT_OK(opened, again);
    ser_stream *fresh; /* what has failed once may work again, on another stream */
    ASSERT_OK(other->rt->stream_create(other, &fresh, &again), again);
    void *room = other->rt->alloc(other, 4096, &again);
    assert_non_null(room);
    ASSERT_OK(work(other, fresh, room, true, &again), again);
    other->rt->free(other, room);
    other->rt->stream_destroy(fresh);
    ser_device_close(other);
  }
  rt->event_destroy(event);
  rt->free(device, memory);
  rt->unpin(device, pinned);
  rt->stream_destroy(stream);
  ser_device_close(device);
}

/* A launch that fails while a graph is captured: the graph is refused with its words, nothing of it has been run, and
 * the stream goes on as before, also with the next attempt at the same graph. */
static void only_the_capture_is_lost(void **state) {
  (void)state;
  const ser_adam adam = {.lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f};
  ser_step step = {.place = -1};
  ser_error err = {0};
  ser_device *device;
  ser_stream *stream;
  ser_graph *graph;
  ASSERT_OK(test_device_open(&device, 1, &err), err);
  const ser_runtime *rt = device->rt;
  ASSERT_OK(rt->stream_create(device, &stream, &err), err);
  ser_step *there = rt->alloc(device, sizeof step, &err);
  assert_non_null(there);
  rt->write(stream, there, &step, sizeof step);
  device->ops->step_begin(stream, there, &adam);
  for (int turn = 0; turn < 2; turn++) {
    ASSERT_OK(rt->graph_begin(stream, &err), err);
    device->ops->step_begin(stream, there, &adam);
    ser_status status = rt->graph_end(stream, &graph, &err);
    assert_int_equal(status, turn ? SER_OK : SER_FAILED);
    if (!turn) assert_null(graph);
    if (!turn && (!strstr(err.text, "in 'step_begin_kernel' at kernels/") || strstr(err.text, "start it again")))
      fail_msg("it says: %s", err.text);
    device->ops->step_begin(stream, there, &adam);
  }
  rt->graph_launch(stream, graph);
  ASSERT_OK(rt->read(stream, &step, there, sizeof step, &err), err);
  assert_int_equal(step.number, 4);
  rt->graph_destroy(graph);
  rt->free(device, there);
  rt->stream_destroy(stream);
  ser_device_close(device);
}

/* A library that cannot begin: the plan is refused with the library's own words, and made when it can. */
static void a_library_fails(void **state) {
  (void)state;
  const ser_mfcc_shape audio = {2048, 512, 22050, 128, 13, true, 4, 100};
  const ser_linear_shape dense = {4, 768, 64, 768, 64};
  const ser_conv_shape conv = {1, 4, 39, 39, 162, 2, 1, 39 * 39 * 2};
  const ser_device_options options = {.kind = SER_DEVICE_CUDA, .conv = SER_CONV_CUDNN};
  const char *name = fails("cufft") ? "cuFFT" : fails("cublas") ? "cuBLASLt" : "cuDNN";
  ser_error err = {0};
  ser_device *device;
  ASSERT_OK(ser_device_open(&device, &options, &err), err);
  for (int turn = 0; turn < 2; turn++) {
    ser_plan *plan = NULL;
    ser_status status;
    if (fails("cufft"))
      status = device->ops->mfcc_prepare(device, &plan, &audio, &err);
    else if (fails("cublas"))
      status = device->ops->linear_prepare(device, &plan, &dense, &err);
    else
      status = device->ops->conv_prepare(device, &plan, &conv, &err);
    assert_int_equal(status, turn ? SER_OK : SER_FAILED);
    if (!turn && !strstr(err.text, name)) fail_msg("with a failure of %s it says: %s", failure, err.text);
    if (!turn) assert_null(plan);
    /* The software device's cuDNN has another failure. */
    if (!turn && !fails("cudnn")) assert_true(strstr(err.text, "GPU is out of memory") && strstr(err.text, "MiB free"));
    if (!turn && fails("cufft")) assert_true(strstr(err.text, "could not allocate"));
    ser_plan_free(plan);
  }
  ser_device_close(device);
}

int main(int argc, char **argv) {
  if (argc != 2 || !getenv("SERENADE_SOFTGPU"))
    test_skip("no software device, and a real one does not fail when asked");
  failure = argv[1];
  bool library = fails("cufft") || fails("cublas") || fails("cudnn");
  const struct CMUnitTest tests[] = {library            ? (struct CMUnitTest)cmocka_unit_test(a_library_fails)
                                     : fails("capture") ? (struct CMUnitTest)cmocka_unit_test(only_the_capture_is_lost)
                                                        : (struct CMUnitTest)cmocka_unit_test(the_first_error_stays)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
