/* Trainings on the device that the tests run on: the same bytes again, wherever the data set lies, resumed and side by
 * side; no allocation after the first epoch, and where a step is a graph no wait inside an epoch; on a GPU the same
 * numbers as on the CPU, within what two backends' roundings make of them. With the one argument "cudnn" a GPU's
 * convolutions are cuDNN's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/csv.h"
#include "base/file.h"
#include "base/log.h"
#include "base/threads.h"
#include "device/ops.h"
#include "support/harness.h"
#include "support/training.h"
#include "train/feed.h"

static const char *const kinds[][4] = {
    {"model.branch=reference", "model.residual=false", "model.pool=all", "model.dropout=0"},
    {"model.branch=reference", "model.residual=true", "model.pool=real", "model.dropout=0.1"},
    {"model.branch=timnet", "model.residual=false", "model.pool=real", "model.dropout=0.1"},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static test_rig rig_of(size_t kind) {
  ser_error err = {0};
  test_rig r = test_rig_make();
  for (int i = 0; i < 4; i++) ASSERT_OK(ser_config_set(&r.config, kinds[kind][i], &err), err);
  r.config.train.epochs = 3;
  return r;
}

static bool by_cudnn; /* the convolutions of a CUDA device; else as it has them of itself */

static ser_status open_one(ser_device **device, ser_error *err) {
  const ser_device_options options = {.kind = SER_DEVICE_CUDA, .conv = SER_CONV_CUDNN};
  return by_cudnn ? ser_device_open(device, &options, err) : test_device_open(device, 1, err);
}

static ser_device *open_device(void) {
  ser_error err = {0};
  ser_device *device;
  ASSERT_OK(open_one(&device, &err), err);
  return device;
}

/* Into a folder of that name; gives what the device has counted meanwhile. */
static ser_device_counters train(const test_rig *r, ser_device *device, const char *name) {
  ser_error err = {0};
  ser_device_counters before, after;
  char *folder = ser_path_join(r->folder, name);
  device->rt->counters(device, &before);
  ASSERT_OK(test_train_on(r, device, folder, false, &err), err);
  device->rt->counters(device, &after);
  free(folder);
  return (ser_device_counters){.allocations = after.allocations - before.allocations,
                               .launches = after.launches - before.launches,
                               .written = after.written - before.written,
                               .waits = after.waits - before.waits};
}

static void expect_same(const test_rig *r, const char *a, const char *b) {
  char *paths[2] = {ser_path_join(r->folder, a), ser_path_join(r->folder, b)};
  test_same_training(paths[0], paths[1]);
  free(paths[0]);
  free(paths[1]);
}

/* ---- the same bytes ------------------------------------------------------------------------------------------------
 */

typedef struct {
  test_rig r;
  ser_status status[3];
  ser_error errors[3];
} together;

static void train_beside(void *context, size_t task, int thread) {
  together *t = context;
  char *folder = ser_format("%s/beside-%d", t->r.folder, (int)task);
  ser_device *device;
  (void)thread;
  t->status[task] = open_one(&device, &t->errors[task]);
  if (t->status[task] == SER_OK) {
    t->status[task] = test_train_on(&t->r, device, folder, false, &t->errors[task]);
    ser_device_close(device);
  }
  free(folder);
}

static void test_same_bytes(void **state) {
  static const ser_resident nowhere;
  (void)state;
  for (size_t k = 0; k < KINDS; k++) {
    ser_error err = {0};
    ser_resident resident;
    ser_device *device = open_device(), *holder = open_device();
    together t = {.r = rig_of(k)};
    test_rig *r = &t.r;
    train(r, device, "whole");
    train(r, device, "again");
    expect_same(r, "whole", "again");
    r->config.train.epochs = 1;
    train(r, device, "resumed");
    r->config.train.epochs = 3;
    train(r, device, "resumed");
    expect_same(r, "whole", "resumed");
    r->resident = &nowhere;
    train(r, device, "brought");
    expect_same(r, "whole", "brought");
    ASSERT_OK(ser_resident_make(&resident, holder, &r->dataset, &err), err);
    r->resident = &resident;
    ser_pool *pool = ser_pool_create(3);
    ser_pool_run_dynamic(pool, 3, train_beside, &t);
    ser_pool_free(pool);
    for (int i = 0; i < 3; i++) {
      char *name = ser_format("beside-%d", i);
      ASSERT_OK(t.status[i], t.errors[i]);
      expect_same(r, "whole", name);
      free(name);
    }
    ser_resident_free(&resident);
    ser_device_close(holder);
    ser_device_close(device);
    test_rig_free(r);
  }
}

/* ---- what an epoch costs -------------------------------------------------------------------------------------------
 */

/* What a device makes once, with the first plan that needs it. */
static void make_handles(ser_device *device) {
  const ser_conv_shape shape = {1, 1, CHANNELS, CHANNELS, 16, 2, 1, CHANNELS * CHANNELS * 2};
  ser_error err = {0};
  ser_plan *plan;
  ASSERT_OK(device->ops->conv_prepare(device, &plan, &shape, &err), err);
  ser_plan_free(plan);
}

static void test_counted(void **state) {
  static const ser_resident nowhere;
  static const int64_t batches[2] = {16, 4};
  (void)state;
  for (int brought = 0; brought < 2; brought++) {
    int64_t waits[2];
    ser_device *device = open_device();
    ser_device_properties properties;
    device->rt->properties(device, &properties);
    make_handles(device);
    for (int i = 0; i < 2; i++) {
      test_rig r = rig_of(1);
      r.resident = brought ? &nowhere : NULL;
      r.config.train.batch = batches[i];
      ser_device_counters first = train(&r, device, "three");
      r.config.train.epochs = 5;
      ser_device_counters more = train(&r, device, "five");
      assert_int_equal(first.allocations, more.allocations);
      waits[i] = more.waits - first.waits;
      print_message("batches of %d, %s: %g launches, %g bytes written, %g waits an epoch\n", (int)batches[i],
                    brought ? "brought" : "on the device", (double)(more.launches - first.launches) / 2,
                    (double)(more.written - first.written) / 2, (double)waits[i] / 2);
      test_rig_free(&r);
    }
    if (properties.graphs && !brought) assert_int_equal(waits[0], waits[1]);
    ser_device_close(device);
  }
}

/* ---- a device that captures nothing --------------------------------------------------------------------------------
 */

static const ser_runtime *own;

/* As of a library that cannot be captured. */
static ser_status refuse_graph(ser_stream *stream, ser_graph **graph, ser_error *err) {
  ser_status status = own->graph_end(stream, graph, err);
  if (status == SER_OK) own->graph_destroy(*graph);
  *graph = NULL;
  return ser_fail(err, SER_FAILED, "this is not captured");
}

/* What cannot be one launch is many, with the same bytes, and that is said once. */
static void test_uncaptured(void **state) {
  static const char words[] = "serenade: warning: a training step cannot be captured as a graph, so its operations are "
                              "launched one by one, which may be slower: this is not captured\n";
  (void)state;
  ser_device_properties properties;
  ser_device *device = open_device();
  own = device->rt;
  own->properties(device, &properties);
  ser_runtime refusing = *own;
  refusing.graph_end = refuse_graph;
  test_rig r = rig_of(1);
  ser_device_counters whole = train(&r, device, "whole");
  device->rt = &refusing;
  test_listen();
  ser_device_counters alone = train(&r, device, "alone");
  char *said = test_heard(true), *found = strstr(said, words);
  device->rt = own;
  expect_same(&r, "whole", "alone");
  if (properties.graphs) {
    if (!found || strstr(found + 1, words)) fail_msg("it says: %s", said);
    assert_int_equal(whole.launches, alone.launches);
  } else {
    assert_string_equal(said, "");
  }
  free(said);
  ser_device_close(device);
  test_rig_free(&r);
}

/* ---- beside the CPU ------------------------------------------------------------------------------------------------
 */

static ser_csv read_history(const test_rig *r, const char *name) {
  ser_error err = {0};
  ser_csv table;
  char *path = ser_format("%s/%s/history.csv", r->folder, name);
  ASSERT_OK(ser_csv_read(&table, path, &err), err);
  free(path);
  return table;
}

/* The first epoch's losses: later ones drift apart, as Adam makes much of the last bits of small gradients. */
static void test_beside_cpu(void **state) {
  static const char *const columns[] = {"train_loss", "gradient_norm", "validation_loss"};
  (void)state;
  for (size_t k = 0; k < KINDS; k++) {
    test_rig r = rig_of(k);
    ser_error err = {0};
    ser_device *device = open_device(), *cpu;
    ASSERT_OK(ser_device_open(&cpu, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &err), err);
    r.config.train.epochs = 1;
    train(&r, device, "here");
    train(&r, cpu, "cpu");
    ser_csv here = read_history(&r, "here"), there = read_history(&r, "cpu");
    for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
      double got = strtod(ser_csv_cell(&here, 0, ser_csv_column(&here, columns[c])), NULL);
      double want = strtod(ser_csv_cell(&there, 0, ser_csv_column(&there, columns[c])), NULL);
      print_message("%s: %s %.9g, on the CPU %.9g\n", kinds[k][0], columns[c], got, want);
      assert_true(fabs(got - want) < 1e-5 * want); /* 8e-8 was seen, on the software device */
    }
    ser_csv_free(&here);
    ser_csv_free(&there);
    ser_device_close(device);
    ser_device_close(cpu);
    test_rig_free(&r);
  }
}

/* Twenty epochs of one step each: its loss. What the last bits of small gradients become grows from step to step. */
static void test_first_steps(void **state) {
  enum { STEPS = 20 };
  (void)state;
  for (size_t k = 0; k < KINDS; k++) {
    test_rig r = rig_of(k);
    ser_error err = {0};
    ser_device *device = open_device(), *cpu;
    double most = 0;
    ASSERT_OK(ser_device_open(&cpu, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &err), err);
    r.config.train.epochs = STEPS;
    r.config.train.batch = TRAINING;
    r.config.train.lr = 0.001;
    train(&r, device, "here");
    train(&r, cpu, "cpu");
    ser_csv here = read_history(&r, "here"), there = read_history(&r, "cpu");
    int loss = ser_csv_column(&here, "train_loss");
    for (size_t step = 0; step < STEPS; step++) {
      double got = strtod(ser_csv_cell(&here, step, loss), NULL), want = strtod(ser_csv_cell(&there, step, loss), NULL);
      most = test_worse(most, fabs(got - want) / want);
    }
    print_message("%s: losses of the first %d steps apart by %.2g\n", kinds[k][0], STEPS, most);
    assert_true(most < 1e-4); /* 2.8e-8 was seen, on the software device */
    ser_csv_free(&here);
    ser_csv_free(&there);
    ser_device_close(device);
    ser_device_close(cpu);
    test_rig_free(&r);
  }
}

/* The same of the reference model as it is configured, whose gradients turn last bits into 1e-2 of the loss within 17
 * steps if it is left to itself (on the CPU, too, from one instruction set to another): each step is taken from where
 * the CPU stood before it. */
static void test_each_step(void **state) {
  enum { STEPS = 20 };
  (void)state;
  ser_error err = {0};
  ser_config usual;
  ser_config_init(&usual);
  test_rig r = test_rig_make();
  r.config.model = usual.model;
  r.config.features.mfcc39.frames = 26; /* that of the longest clips */
  r.config.train.batch = TRAINING;
  r.config.train.lr = usual.train.lr;
  ser_config_free(&usual);
  ser_device *device = open_device(), *cpu;
  double most = 0;
  ASSERT_OK(ser_device_open(&cpu, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &err), err);
  for (int64_t step = 0; step < STEPS; step++) {
    char *copy = ser_format("rm -rf %s/here; if test -e %s/cpu; then cp -r %s/cpu %s/here; fi", r.folder, r.folder,
                            r.folder, r.folder);
    r.config.train.epochs = step + 1;
    assert_int_equal(system(copy), 0);
    train(&r, device, "here");
    train(&r, cpu, "cpu");
    ser_csv here = read_history(&r, "here"), there = read_history(&r, "cpu");
    int loss = ser_csv_column(&here, "train_loss");
    double got = strtod(ser_csv_cell(&here, (size_t)step, loss), NULL);
    double want = strtod(ser_csv_cell(&there, (size_t)step, loss), NULL);
    most = test_worse(most, fabs(got - want) / want);
    ser_csv_free(&here);
    ser_csv_free(&there);
    free(copy);
  }
  print_message("the reference model: losses of %d steps, each from the CPU's state, apart by %.2g\n", STEPS, most);
  assert_true(most < 1e-4); /* 1.2e-7 was seen, on the software device */
  ser_device_close(device);
  ser_device_close(cpu);
  test_rig_free(&r);
}

int main(int argc, char **argv) {
  by_cudnn = argc == 2 && !strcmp(argv[1], "cudnn");
  if (by_cudnn && !test_on_cuda()) test_skip("cuDNN is a CUDA device's");
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bytes),  cmocka_unit_test(test_counted),
                                     cmocka_unit_test(test_uncaptured),  cmocka_unit_test(test_beside_cpu),
                                     cmocka_unit_test(test_first_steps), cmocka_unit_test(test_each_step)};
  ser_log_set_quiet(true);
  return cmocka_run_group_tests_name("unit.train_device", tests, NULL, NULL);
}
