/* The data set on a device, in place, copied there once or brought batch by batch: the same training, to the byte. And
 * that a step of a training has no part of the host in it, so that it can be captured. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "support/harness.h"
#include "support/training.h"
#include "train/feed.h"

/* ---- a device that does not follow host pointers
 * ---------------------------------------------------------------------
 */

/* What the hooks go by; one training at a time. */
static struct {
  const ser_runtime *rt; /* the device's own tables */
  const ser_ops *ops;
  uint64_t room;       /* its free memory */
  size_t refused;      /* allocations of this many bytes, and of up to 2048 more, fail; 0: none */
  bool in_step;        /* between step_begin and keep */
  int64_t steps, host; /* steps; calls of the runtime inside one */
  int64_t allocations; /* inside or between steps of an epoch, from the first on */
  ser_lack lacks;      /* what the refused lack */
  int64_t pinned, later;
} ear;

static void hear(void) {
  ear.host += ear.in_step;
}

static void hear_properties(const ser_device *device, ser_device_properties *out) {
  ear.rt->properties(device, out);
  out->host_memory = false;
  out->memory_free = ear.room;
}

static void *hear_alloc(ser_device *device, size_t bytes, ser_error *err) {
  hear();
  ear.allocations += ear.steps > 0;
  if (!ear.refused || bytes < ear.refused || bytes > ear.refused + 2048) return ear.rt->alloc(device, bytes, err);
  ser_fail_memory(err, ear.lacks, "no room");
  return NULL;
}

static void *hear_pin(ser_device *device, size_t bytes, ser_error *err) {
  ear.pinned++;
  return ear.rt->pin(device, bytes, err);
}

static void hear_write(ser_stream *stream, void *to, const void *from, size_t bytes) {
  hear();
  ear.rt->write(stream, to, from, bytes);
}

static void hear_write_later(ser_stream *stream, void *to, const void *from, size_t bytes) {
  hear();
  ear.later++;
  ear.rt->write_later(stream, to, from, bytes);
}

static void hear_copy(ser_stream *stream, void *to, const void *from, size_t bytes) {
  hear();
  ear.rt->copy(stream, to, from, bytes);
}

static void hear_zero(ser_stream *stream, void *memory, size_t bytes) {
  hear();
  ear.rt->zero(stream, memory, bytes);
}

static ser_status hear_read(ser_stream *stream, void *to, const void *from, size_t bytes, ser_error *err) {
  hear();
  return ear.rt->read(stream, to, from, bytes, err);
}

static ser_status hear_sync(ser_stream *stream, ser_error *err) {
  hear();
  return ear.rt->sync(stream, err);
}

static ser_status hear_await(ser_event *event, ser_error *err) {
  hear();
  return ear.rt->await(event, err);
}

/* The validation keeps what a batch leaves and goes on to the next one, with no optimiser. */
static void hear_begin(ser_stream *stream, ser_step *step, const ser_adam *adam) {
  assert_false(ear.in_step);
  ear.in_step = adam->lr > 0;
  ear.steps += ear.in_step;
  ear.ops->step_begin(stream, step, adam);
}

static void hear_keep(ser_stream *stream, const ser_keep *parts, int count, const ser_step *step) {
  assert_true(ear.in_step || count == 1);
  ear.ops->keep(stream, parts, count, step);
  ear.in_step = false;
}

static ser_device *open_hooked(ser_runtime *rt, ser_ops *ops) {
  ser_error err = {0};
  ser_device *device;
  ASSERT_OK(ser_device_open(&device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &err), err);
  ear.rt = device->rt;
  ear.ops = device->ops;
  *rt = *device->rt;
  rt->properties = hear_properties;
  rt->alloc = hear_alloc;
  rt->pin = hear_pin;
  rt->write = hear_write;
  rt->write_later = hear_write_later;
  rt->copy = hear_copy;
  rt->zero = hear_zero;
  rt->read = hear_read;
  rt->sync = hear_sync;
  rt->await = hear_await;
  *ops = *device->ops;
  ops->step_begin = hear_begin;
  ops->keep = hear_keep;
  device->rt = rt;
  device->ops = ops;
  return device;
}

/* ---- the same bytes
 * --------------------------------------------------------------------------------------------------
 */

typedef struct {
  const char *name;
  uint64_t room;
  bool refused; /* the features, in spite of the room */
  bool shared;  /* the job's copy, held by another device */
  bool brought;
} way;

/* Twice, as two seeds of a job would, but with the same seed. */
static void train_hooked(test_rig *r, const way *w, const char *whole) {
  ser_error err = {0};
  ser_runtime rt, holder_rt;
  ser_ops ops, holder_ops;
  ser_resident resident = {0};
  memset(&ear, 0, sizeof ear);
  ear.room = w->room;
  ear.lacks = SER_LACKS_DEVICE_MEMORY;
  if (w->refused) ear.refused = (size_t)(r->dataset.offset[CLIPS] * CHANNELS) * sizeof(float);
  ser_device *holder = open_hooked(&holder_rt, &holder_ops), *device = open_hooked(&rt, &ops);
  if (w->shared) ASSERT_OK(ser_resident_make(&resident, holder, &r->dataset, &err), err);
  r->resident = w->shared ? &resident : NULL;
  for (int i = 0; i < 2; i++) {
    char *name = ser_format("%s-%d", w->name, i), *folder = ser_path_join(r->folder, name);
    ear.steps = 0;
    ASSERT_OK(test_train_on(r, device, folder, false, &err), err);
    test_same_training(whole, folder);
    assert_int_equal(ear.steps, 15);
    free(name);
    free(folder);
  }
  assert_int_equal(ear.host, 0);
  assert_int_equal(ear.allocations, 0);
  /* Of each training: folded weights, what is read of an epoch, the validation's answers; two batches that are brought.
   * Copies: weights at first; in an epoch its order, its state and the weights; one a batch that is brought, of
   * training and validation. */
  assert_int_equal(ear.pinned, 2 * (3 + (w->brought ? 2 : 0)));
  assert_int_equal(ear.later, 2 * (1 + 3 * (3 + (w->brought ? 5 + 2 : 0))));
  ser_resident_free(&resident);
  ser_device_close(device);
  ser_device_close(holder);
  r->resident = NULL;
}

/* Where it is not for lack of memory that the features cannot lie on the device, that is the end. */
static void test_other_failure(void **state) {
  (void)state;
  test_rig r = test_rig_make();
  ser_runtime rt;
  ser_ops ops;
  ser_resident resident;
  ser_error err = {0};
  memset(&ear, 0, sizeof ear);
  ear.room = UINT64_MAX;
  ear.refused = (size_t)(r.dataset.offset[CLIPS] * CHANNELS) * sizeof(float);
  ser_device *device = open_hooked(&rt, &ops);
  assert_int_equal(ser_resident_make(&resident, device, &r.dataset, &err), SER_FAILED);
  assert_string_equal(err.text, "no room");
  ser_device_close(device);
  test_rig_free(&r);
}

static void test_ways(void **state) {
  static const way ways[] = {
      {"copied", UINT64_MAX, false, false, false}, {"shared", UINT64_MAX, false, true, false},
      {"no-room", 1000, false, false, true},       {"shared-no-room", 1000, false, true, true},
      {"refused", UINT64_MAX, true, false, true},
  };
  static const char *const kinds[][3] = {
      {"model.branch=reference", "model.pool=real", "model.dropout=0.1"},
      {"model.branch=timnet", "model.pool=all", "model.dropout=0"},
  };
  (void)state;
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    test_rig r = test_rig_make();
    ser_error err = {0};
    for (int i = 0; i < 3; i++) ASSERT_OK(ser_config_set(&r.config, kinds[k][i], &err), err);
    r.config.train.epochs = 3;
    char *whole = test_train(&r, "whole", 1);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) train_hooked(&r, &ways[i], whole);
    free(whole);
    test_rig_free(&r);
  }
}

/* Where a device reads host memory, nothing is copied; where it does not, four fifths of its room are the most. */
static void test_resident(void **state) {
  test_rig r = test_rig_make();
  ser_error err = {0};
  ser_device *device;
  ser_device_counters counters;
  ser_runtime rt;
  ser_ops ops;
  ser_resident resident;
  (void)state;
  ASSERT_OK(ser_device_open(&device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &err), err);
  ASSERT_OK(ser_resident_make(&resident, device, &r.dataset, &err), err);
  assert_ptr_equal(resident.features, r.dataset.features);
  assert_ptr_equal(resident.offset, r.dataset.offset);
  assert_ptr_equal(resident.truth, r.dataset.truth);
  device->rt->counters(device, &counters);
  assert_int_equal(counters.allocations, 0);
  ser_resident_free(&resident);
  ser_device_close(device);

  memset(&ear, 0, sizeof ear);
  device = open_hooked(&rt, &ops);
  size_t features = (size_t)(r.dataset.offset[CLIPS] * CHANNELS) * sizeof(float);
  ear.room = features + 4096; /* there would be room */
  ASSERT_OK(ser_resident_make(&resident, device, &r.dataset, &err), err);
  assert_null(resident.features);
  ser_resident_free(&resident);
  ear.room = (features + 4096) / 4 * 5;
  ASSERT_OK(ser_resident_make(&resident, device, &r.dataset, &err), err);
  assert_memory_equal(resident.features, r.dataset.features, features);
  assert_memory_equal(resident.offset, r.dataset.offset, (CLIPS + 1) * sizeof(int64_t));
  assert_memory_equal(resident.truth, r.dataset.truth, CLIPS * sizeof(int32_t));
  ser_resident_free(&resident);
  device->rt->counters(device, &counters);
  assert_int_equal(counters.bytes, 0);
  ser_device_close(device);
  test_rig_free(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_other_failure), cmocka_unit_test(test_ways),
                                     cmocka_unit_test(test_resident)};
  ser_log_set_quiet(true);
  return cmocka_run_group_tests_name("unit.feed", tests, NULL, NULL);
}
