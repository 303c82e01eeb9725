/* Scoring: a window's answers are the same bytes one at a time and among others, with one batch under way or two, on a
 * device with memory of its own (a CPU plays one) and on one that is short of it; and nothing is made from batch to
 * batch. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "report/score.h"
#include "support/apart.h"
#include "support/harness.h"
#include "support/model.h"

enum { WINDOWS = 103, ROWS = 175, CHANNELS = 39, CLASSES = 6 };

typedef struct {
  const char *model;
  float *rows; /* [WINDOWS][ROWS][CHANNELS] */
  ser_score_input windows[WINDOWS];
  float want[WINDOWS * CLASSES]; /* one at a time */
} fixture;

static ser_scorer *make(ser_device *device, const fixture *f) {
  ser_error err = {0};
  ser_scorer *scorer;
  ASSERT_OK(ser_scorer_create(&scorer, device, f->model, &err), err);
  return scorer;
}

static void check(const fixture *f, const float *got, size_t first, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (memcmp(got + i * CLASSES, f->want + (first + i) * CLASSES, CLASSES * sizeof *got))
      fail_msg("window %zu has other answers among others", first + i);
}

static void run_all(const fixture *f, ser_scorer *scorer) {
  ser_error err = {0};
  float got[WINDOWS * CLASSES];
  ASSERT_OK(ser_scorer_run(scorer, got, f->windows, WINDOWS, &err), err);
  check(f, got, 0, WINDOWS);
}

/* By hand: as many batches as the device takes; what is given is forgotten at once. */
static void in_turn(const fixture *f, ser_scorer *scorer, int slots) {
  ser_error err = {0};
  float got[SER_SCORER_MOST * CLASSES], *mine = ser_alloc(ROWS * CHANNELS * sizeof *mine);
  size_t sent = 0, back = 0, count;
  int under_way = 0, most = 0;
  while (back < WINDOWS) {
    if (sent == WINDOWS || ser_scorer_full(scorer)) {
      ASSERT_OK(ser_scorer_collect(scorer, got, &count, &err), err);
      check(f, got, back, count);
      back += count;
      under_way--;
      continue;
    }
    memcpy(mine, f->windows[sent].rows, ROWS * CHANNELS * sizeof *mine);
    ser_score_input one = {mine, f->windows[sent].count};
    ASSERT_OK(ser_scorer_submit(scorer, &one, 1, &err), err);
    memset(mine, 0xff, ROWS * CHANNELS * sizeof *mine);
    sent++;
    if (++under_way > most) most = under_way;
  }
  assert_true(ser_scorer_idle(scorer));
  assert_int_equal(most, slots);
  free(mine);
}

static void one_way(ser_device *device, const fixture *f, int slots, size_t batch) {
  ser_device_counters before, after;
  ser_scorer *scorer = make(device, f);
  assert_int_equal(ser_scorer_batch(scorer), batch);
  run_all(f, scorer); /* where there are graphs, those of full batches are made here */
  device->rt->counters(device, &before);
  run_all(f, scorer);
  in_turn(f, scorer, slots);
  device->rt->counters(device, &after);
  assert_int_equal(before.allocations, after.allocations);
  assert_int_equal(ser_scorer_work(scorer).batches, 2 * ((WINDOWS + batch - 1) / batch) + WINDOWS);
  ser_scorer_free(scorer);
}

/* ---- devices ----------------------------------------------------------------------------------------------------- */

static const ser_runtime *told; /* the device's own */
static uint64_t room;           /* the free memory that is told */

static void tell_room(const ser_device *device, ser_device_properties *out) {
  told->properties(device, out);
  out->memory_free = room;
}

static void each_device(ser_device *device, ser_stream *stream, void *context) {
  fixture *f = context;
  ser_error err = {0};
  ser_device_properties is;
  (void)stream;
  device->rt->properties(device, &is);
  ser_scorer *scorer = make(device, f);
  for (size_t i = 0; i < WINDOWS; i++)
    ASSERT_OK(ser_scorer_run(scorer, f->want + i * CLASSES, &f->windows[i], 1, &err), err);
  size_t batch = ser_scorer_batch(scorer);
  ser_scorer_free(scorer);
  assert_true(batch >= 32 && (is.host_memory ? batch == 32 : batch >= (size_t)is.threads || batch == SER_SCORER_MOST));
  if (is.host_memory) {
    one_way(device, f, 1, batch);
    test_device_apart(device);
  }
  one_way(device, f, 2, batch);
  /* One window takes a quarter of a megabyte, and half of what is free is left so. */
  ser_runtime runtime = *device->rt;
  const ser_runtime *before = told = device->rt;
  runtime.properties = tell_room;
  device->rt = &runtime;
  room = 0;
  one_way(device, f, 2, 1);
  for (room = 2000000; room <= 8000000; room *= 4) {
    scorer = make(device, f);
    size_t smaller = ser_scorer_batch(scorer);
    ser_scorer_free(scorer);
    assert_true(smaller > 1 && smaller < batch && smaller <= room / 500000);
    one_way(device, f, 2, smaller);
  }
  device->rt = before;
}

static void test_answers(void **state) {
  (void)state;
  fixture f;
  char *folder = test_folder_make("score"), *model = ser_path_join(folder, "model.safetensors");
  test_model_write(model, SER_MFCC39, CLASSES, 5);
  f.model = model;
  f.rows = ser_alloc(WINDOWS * ROWS * CHANNELS * sizeof *f.rows);
  for (size_t i = 0; i < WINDOWS * ROWS * CHANNELS; i++) f.rows[i] = 40 * test_random(9, i);
  for (size_t i = 0; i < WINDOWS; i++)
    f.windows[i] = (ser_score_input){f.rows + i * ROWS * CHANNELS, 9 + (int64_t)(i * 37 % (ROWS - 8))};
  test_each_device(each_device, 2, &f);
  free(f.rows);
  free(model);
  test_folder_remove(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_answers)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
