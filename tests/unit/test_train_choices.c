/* The decisions of a training one by one: the best epoch, when to stop, orders, weights, standardisation, folders. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "support/harness.h"
#include "train/internal.h"

static void test_best_epoch(void **state) {
  static const struct {
    double war, uar, loss;
    int by_uar, by_war; /* whether it takes the place of the best before it */
  } epochs[] = {{0.5, 0.4, 1.0, 1, 1}, {0.5, 0.4, 1.0, 0, 0}, {0.5, 0.4, 0.9, 1, 1},
                {0.6, 0.3, 0.1, 0, 1}, {0.4, 0.5, 9.0, 1, 0}, {0.6, 0.5, 8.0, 1, 0}};
  const ser_epoch *best[2] = {NULL, NULL};
  ser_epoch list[6];
  (void)state;
  for (int i = 0; i < 6; i++) {
    list[i] = (ser_epoch){
        .validation_war = epochs[i].war, .validation_uar = epochs[i].uar, .validation_loss = epochs[i].loss};
    bool by_uar = ser_epoch_better(&list[i], best[0], SER_SELECT_UAR);
    bool by_war = ser_epoch_better(&list[i], best[1], SER_SELECT_WAR);
    assert_int_equal(by_uar, epochs[i].by_uar);
    assert_int_equal(by_war, epochs[i].by_war);
    if (by_uar) best[0] = &list[i];
    if (by_war) best[1] = &list[i];
  }
  ser_epoch none = {.validation_loss = NAN, .validation_war = NAN, .validation_uar = NAN};
  assert_true(ser_epoch_better(&none, NULL, SER_SELECT_UAR));
  assert_true(ser_epoch_better(&none, &none, SER_SELECT_UAR));
  assert_true(ser_training_over(10, 1, 10, 0));
  assert_false(ser_training_over(9, 1, 10, 0));
  assert_false(ser_training_over(5, 3, 10, 3));
  assert_true(ser_training_over(6, 3, 10, 3));
}

static void test_shuffle(void **state) {
  enum { N = 500 };
  size_t a[N], b[N], stayed = 0;
  (void)state;
  for (uint64_t epoch = 0; epoch < 3; epoch++) {
    bool seen[N] = {false};
    ser_shuffle(a, N, 1, epoch);
    ser_shuffle(b, N, 1, epoch);
    assert_memory_equal(a, b, sizeof a);
    for (size_t i = 0; i < N; i++) {
      assert_true(a[i] < N && !seen[a[i]]);
      seen[a[i]] = true;
      stayed += a[i] == i;
    }
    ser_shuffle(b, N, 1, epoch + 1);
    assert_memory_not_equal(a, b, sizeof a);
    ser_shuffle(b, N, 2, epoch);
    assert_memory_not_equal(a, b, sizeof a);
  }
  assert_true(stayed < 20); /* one an epoch is to be expected */
}

static void test_balanced_weights(void **state) {
  int32_t truth[] = {0, 0, 0, 2, 2, 5, 1, 1};
  size_t clips[] = {0, 1, 2, 3, 4, 5}; /* not those of class 1 */
  float weights[6];
  ser_dataset d = {.truth = truth, .classes = 6};
  (void)state;
  ser_balanced_weights(weights, &d, clips, 6);
  const float want[6] = {6.0f / 9, 0, 1, 0, 0, 2};
  for (int i = 0; i < 6; i++) assert_true(fabsf(weights[i] - want[i]) < 1e-6f);
}

/* Two clips of three, the second one longer than the window; one channel that never changes. */
static void test_standardisation(void **state) {
  float features[] = {1, 5, 3, 5, 1000, 1000, 2, 5, 4, 5, 777, 777};
  int64_t offset[] = {0, 2, 3, 6};
  size_t clips[] = {0, 2};
  float mean[2], inv_std[2];
  ser_dataset d = {.features = features, .offset = offset, .channels = 2, .clips = 3};
  (void)state;
  ser_standardisation(mean, inv_std, &d, clips, 2, 2);
  assert_true(mean[0] == 2.5f && mean[1] == 5);
  assert_true(fabs((double)inv_std[0] - 1 / sqrt(1.25)) < 1e-7);
  assert_true(inv_std[1] == 1);
}

static void test_run_parts(void **state) {
  int64_t seeds[] = {7, 9};
  ser_config config;
  ser_run_parts parts;
  (void)state;
  ser_config_init(&config);
  ser_run_parts_make(&parts, &config, "RUN", 1);
  assert_int_equal(parts.count, 1);
  assert_string_equal(parts.folders[0], "RUN");
  ser_run_parts_free(&parts);
  ser_int_list kept = config.train.seeds;
  config.train.seeds = (ser_int_list){2, seeds};
  ser_run_parts_make(&parts, &config, "RUN", 3);
  assert_int_equal(parts.count, 6);
  assert_string_equal(parts.folders[5], "RUN/seed-9/fold-2");
  assert_int_equal(parts.seeds[3], 9);
  assert_int_equal(parts.folds[3], 0);
  ser_run_parts_free(&parts);
  config.train.seeds = kept;
  ser_config_free(&config);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_best_epoch),      cmocka_unit_test(test_shuffle),   cmocka_unit_test(test_balanced_weights),
      cmocka_unit_test(test_standardisation), cmocka_unit_test(test_run_parts),
  };
  return cmocka_run_group_tests_name("unit.train_choices", tests, NULL, NULL);
}
