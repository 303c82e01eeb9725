/* Metrics by hand: cases small enough to check on paper, and the text of the confusion matrix. */
#include "support/harness.h"

#include <stdlib.h>

#include "base/memory.h"
#include "report/metrics.h"

static void test_by_hand(void **state) {
  (void)state;
  /* actual 0: answers 0 0 1; actual 1: 1; actual 2 never occurs, but is answered once for actual 1 */
  const int32_t truth[] = {0, 0, 0, 1, 1}, answer[] = {0, 0, 1, 1, 2};
  ser_metrics m;
  ser_metrics_compute(&m, truth, answer, 5, 3);
  assert_int_equal(m.total, 5);
  assert_int_equal(m.confusion[0][0], 2);
  assert_int_equal(m.confusion[0][1], 1);
  assert_int_equal(m.confusion[1][2], 1);
  assert_int_equal(m.confusion[2][1], 0);
  assert_true(m.war == 3.0 / 5);
  assert_true(m.uar == (2.0 / 3 + 1.0 / 2) / 2);              /* two classes occur */
  assert_true(m.macro_recall == (2.0 / 3 + 1.0 / 2 + 0) / 3); /* over those that are answered too */
  assert_true(m.precision[1] == 0.5 && m.precision[2] == 0 && m.recall[2] == 0);
  assert_true(m.f1[0] == 0.8);
  assert_int_equal(m.support[2], 0);
  assert_int_equal(m.predicted[2], 1);
}

static void test_nothing(void **state) {
  (void)state;
  ser_metrics m;
  ser_metrics_compute(&m, NULL, NULL, 0, 6);
  assert_true(m.war == 0 && m.uar == 0 && m.macro_f1 == 0 && m.weighted_f1 == 0);
  assert_int_equal(m.total, 0);
}

static void test_confusion_text(void **state) {
  (void)state;
  const int32_t truth[] = {0, 0, 1}, answer[] = {0, 1, 1};
  const char *const labels[] = {"sad", "surprised"};
  ser_metrics m;
  ser_text text = {0};
  ser_metrics_compute(&m, truth, answer, 3, 2);
  ser_confusion_text(&text, &m, labels);
  assert_string_equal(text.data, "   actual        sad  surprised\n"
                                 "      sad          1          1\n"
                                 "surprised          0          1\n");
  free(text.data);
}

static void test_wide_counts(void **state) {
  (void)state;
  const char *const labels[] = {"a", "b"};
  ser_metrics m = {.classes = 2, .confusion = {{123456789012, 1}, {0, 2}}};
  ser_text text = {0};
  ser_confusion_text(&text, &m, labels);
  assert_string_equal(text.data, "actual             a             b\n"
                                 "     a  123456789012             1\n"
                                 "     b             0             2\n");
  free(text.data);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_by_hand),
      cmocka_unit_test(test_nothing),
      cmocka_unit_test(test_confusion_text),
      cmocka_unit_test(test_wide_counts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
