/* The progress bar's line: what it shows in how many columns, and that no word is ever cut. */
#include "support/harness.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"

static const ser_progress_figures extract = {
    .what = "extract mfcc39", .unit = "clips", .note = "", .done = 350, .total = 700, .rate = 25.04};
static const ser_progress_figures train = {.what = "train",
                                           .unit = "clips",
                                           .note = "epoch 17 of 60, loss 1.2345, validation WAR 43.1 UAR 40.2",
                                           .done = 17000,
                                           .total = 100000,
                                           .rate = 1000};

static void shows(ser_progress_figures figures, int width, const char *want) {
  ser_text line = {0};
  figures.width = width;
  ser_progress_line(&line, &figures);
  assert_string_equal(line.data, want);
  free(line.data);
}

static void test_lines(void **state) {
  (void)state;
  shows(extract, 119, "extract mfcc39 [############............]  50%  350/700 clips  25.0/s  0:14 left");
  shows(extract, 79, "extract mfcc39 [###########............]  50%  350/700 clips  25.0/s  0:14 left");
  shows(extract, 59, "extract mfcc39  50%  350/700 clips  25.0/s  0:14 left");
  shows(extract, 39, "extract mfcc39 [###...]  50%  0:14 left");
  shows(extract, 25, "extract mfcc39  50%");
  shows(extract, 12, " [##..]  50%");
  shows(train, 140,
        "train [####....................]  17%  17000/100000 clips  1000.0/s  1:23 left  epoch 17 of 60, loss 1.2345, "
        "validation WAR 43.1 UAR 40.2");
  shows(train, 79, "train [#........]  17%  17000/100000 clips  1000.0/s  1:23 left  epoch 17 of 60");
  shows(train, 39, "train [##.............]  17%  1:23 left");
}

/* At every width: not wider, the share always there, and nothing but whole pieces of the full line. */
static void test_every_width(void **state) {
  (void)state;
  static const char *const pieces[] = {"train",
                                       "  17%",
                                       "  17000/100000 clips",
                                       "  1000.0/s",
                                       "  1:23 left",
                                       "  epoch 17 of 60",
                                       ", loss 1.2345",
                                       ", validation WAR 43.1 UAR 40.2"};
  for (int width = 10; width < 160; width++) {
    ser_progress_figures figures = train;
    ser_text line = {0};
    figures.width = width;
    ser_progress_line(&line, &figures);
    assert_true((int)strlen(line.data) <= width);
    assert_non_null(strstr(line.data, "17%"));
    const char *at = line.data;
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
      if (!strncmp(at, pieces[i], strlen(pieces[i]))) at += strlen(pieces[i]);
      if (i == 0 && !strncmp(at, " [", 2)) at = strchr(at, ']') + 1;
    }
    assert_string_equal(at, "");
    free(line.data);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_lines), cmocka_unit_test(test_every_width)};
  return cmocka_run_group_tests_name("unit.progress", tests, NULL, NULL);
}
