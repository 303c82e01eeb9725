/* Metrics against scikit-learn: tests/golden/metrics.json, made by make_metrics.py. Numbers to 1e-12, the report's text
 * byte for byte. */
#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/memory.h"
#include "report/metrics.h"

static void assert_numbers(const char *name, const char *what, const double *got, const json_t *want) {
  for (size_t i = 0; i < json_array_size(want); i++) {
    double expected = json_number_value(json_array_get(want, i));
    if (!(fabs(got[i] - expected) <= 1e-12))
      fail_msg("%s: %s[%zu] is %.17g, scikit-learn has %.17g", name, what, i, got[i], expected);
  }
}

static void assert_number(const char *name, const json_t *golden, const char *key, double got) {
  double expected = json_number_value(json_object_get(golden, key));
  if (!(fabs(got - expected) <= 1e-12)) fail_msg("%s: %s is %.17g, scikit-learn has %.17g", name, key, got, expected);
}

/* Truths and answers that have the golden's confusion matrix, in an order of their own. */
static size_t expand(const json_t *confusion, int32_t **truth, int32_t **answer) {
  size_t count = 0, capacity = 0, spare = 0;
  *truth = NULL;
  *answer = NULL;
  for (size_t i = json_array_size(confusion); i-- > 0;)
    for (size_t j = 0; j < json_array_size(confusion); j++) {
      json_int_t times = json_integer_value(json_array_get(json_array_get(confusion, i), j));
      for (json_int_t n = 0; n < times; n++) {
        size_t at = count;
        SER_GROW(*truth, at, capacity);
        SER_GROW(*answer, at, spare);
        (*truth)[count] = (int32_t)i;
        (*answer)[count++] = (int32_t)j;
      }
    }
  return count;
}

static void check_case(const json_t *golden) {
  const char *name = json_string_value(json_object_get(golden, "name"));
  const json_t *names = json_object_get(golden, "labels"), *confusion = json_object_get(golden, "confusion");
  const char *labels[SER_MAX_CLASSES];
  int classes = (int)json_array_size(names);
  for (int c = 0; c < classes; c++) labels[c] = json_string_value(json_array_get(names, (size_t)c));
  int32_t *truth, *answer;
  size_t count = expand(confusion, &truth, &answer);
  ser_metrics m;
  ser_metrics_compute(&m, truth, answer, count, classes);
  for (int i = 0; i < classes; i++) {
    for (int j = 0; j < classes; j++)
      assert_int_equal(m.confusion[i][j],
                       json_integer_value(json_array_get(json_array_get(confusion, (size_t)i), (size_t)j)));
    assert_int_equal(m.support[i], json_integer_value(json_array_get(json_object_get(golden, "support"), (size_t)i)));
  }
  assert_number(name, golden, "war", m.war);
  assert_number(name, golden, "uar", m.uar);
  assert_numbers(name, "precision", m.precision, json_object_get(golden, "precision"));
  assert_numbers(name, "recall", m.recall, json_object_get(golden, "recall"));
  assert_numbers(name, "f1", m.f1, json_object_get(golden, "f1"));
  assert_numbers(name, "macro", (double[]){m.macro_precision, m.macro_recall, m.macro_f1},
                 json_object_get(golden, "macro"));
  assert_numbers(name, "weighted", (double[]){m.weighted_precision, m.weighted_recall, m.weighted_f1},
                 json_object_get(golden, "weighted"));
  ser_text text = {0};
  ser_classification_report(&text, &m, labels);
  const char *want = json_string_value(json_object_get(golden, "report"));
  if (strcmp(text.data, want) != 0) fail_msg("%s: the report is\n%s\nscikit-learn has\n%s", name, text.data, want);
  free(text.data);
  free(truth);
  free(answer);
}

static void test_scikit_learn(void **state) {
  (void)state;
  char *path = ser_format("%s/tests/golden/metrics.json", test_source());
  json_error_t error;
  json_t *golden = json_load_file(path, 0, &error);
  if (!golden) fail_msg("%s: %s", path, error.text);
  json_t *cases = json_object_get(golden, "cases");
  assert_true(json_array_size(cases) >= 100);
  for (size_t i = 0; i < json_array_size(cases); i++) check_case(json_array_get(cases, i));
  printf("%zu cases of scikit-learn %s\n", json_array_size(cases),
         json_string_value(json_object_get(golden, "scikit-learn")));
  json_decref(golden);
  free(path);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_scikit_learn)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
