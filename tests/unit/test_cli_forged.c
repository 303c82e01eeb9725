/* Names of files, corpora and speakers that hold a line of their own and a terminal's commands: no message and no text
 * of the program begins a line with them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/program.h"

/* Recordings with plain names, and what is trained on them. */
static int set_up(void **state) {
  static const char *const emotions[] = {"neutral", "happy", "sad"};
  ser_text lab = {0};
  (void)state;
  test_program_start("forged");
  ser_text_puts(&lab, "path,emotion,speaker\n");
  for (int i = 0; i < 30; i++) {
    char name[32];
    snprintf(name, sizeof name, "clips/c%02d.wav", i);
    test_put_wav(name, (uint64_t)i, 0.5);
    ser_text_printf(&lab, "%s,%s,s%d\n", name, emotions[i % 3], i / 3 % 5);
  }
  test_put_file("lab.csv", lab.data);
  test_put_file("good.yaml", "corpora: {csv: lab.csv}\nmodel: {blocks: 1, filters: 4}\ntrain: {epochs: 1, batch: 8}\n");
  test_must("S train good.yaml -o run");
  free(lab.data);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  test_program_end();
  return 0;
}

#define ODD "\nserenade: forged\033[31m"

/* Names of files, corpora and speakers that hold a line of their own and a terminal's commands. */
static void make_odd(void) {
  ser_text table = {0}, parts = {0};
  ser_text_puts(&table, "path,emotion,speaker,corpus\n");
  ser_text_puts(&parts, "path,part\n\"none" ODD "\",test\n");
  for (int i = 0; i < 12; i++) {
    char *name = ser_format("odd/%d" ODD ".wav", i);
    test_put_wav(name, 40 + (uint64_t)(i % 11), i ? 0.5 : 0.01); /* one is too short, one is there twice */
    ser_text_printf(&table, "\"%s\",%s,\"s%d" ODD "\",\"corpus" ODD "\"\n", name, i % 2 ? "happy" : "sad", i % 4);
    if (i > 3)
      ser_text_printf(&parts, "\"%s/%s\",%s\n", test_program_folder(), name,
                      i < 8    ? "train"
                      : i < 10 ? "validation"
                               : "test");
    free(name);
  }
  test_put_file("odd/no sound" ODD ".wav", "text");
  ser_text_puts(&table, "\"odd/no sound" ODD ".wav\",sad,,\n");
  test_put_file("odd.csv", table.data);
  test_put_file("odd.split", parts.data);
  test_put_file("odd.yaml", "corpora: {csv: odd.csv}\nmodel: {blocks: 1, filters: 4}\ntrain: {epochs: 1, batch: 8}\n");
  test_must("d=odd/$(printf 'r\\nserenade: forged')run; mkdir \"$d\"; cp run/model.safetensors \"$d\"");
  free(table.data);
  free(parts.data);
}

/* How many of the two texts begin a line with what a name holds. */
static int count_forged(const char *line) {
  char *said;
  int odd = 0;
  test_run_line(line, &said);
  char *texts[2] = {said, test_printed()};
  for (int t = 0; t < 2; t++) {
    if (strstr(texts[t], "\nserenade: forged") || strchr(texts[t], '\033')) {
      print_error("%s\n  %s\n", line, texts[t]);
      odd++;
    }
    free(texts[t]);
  }
  return odd;
}

/* No message and no text begins a line with an odd name. */
static void test_no_line_is_forged(void **state) {
  (void)state;
  static const char *const lines[] = {
      "S index --csv odd.csv -o odd.csv.m --emotions 8",
      "S audit odd.csv.m",
      "S extract odd.csv.m --cache oddcache",
      "S index --tess odd -o n.csv",
      "S index --tess nowhere -o \"$(printf 'x\\nserenade: forged/m.csv')\"",
      "S predict run odd/*",
      "S predict run odd/* --format text --window 0.2 --hop 0.1",
      "S predict run \"$(printf 'none\\nserenade: forged')\"",
      "S info model odd.run",
      "S info model \"$(printf 'none\\nserenade: forged')\"",
      "S evaluate run --manifest odd.csv.m",
      "S run odd.yaml -o odd.run",
      "S evaluate odd.run",
      "cd odd/*run && S info model .; cd -; S info model odd",
      "S run odd.yaml -o odd.run2 --set split.kind=file --set split.file=odd.split",
      "cat odd.run/report.txt odd.run2/report.txt",
      "S \"$(printf 'x\\nserenade: forged')\"",
  };
  make_odd();
  int odd = 0;
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) odd += count_forged(lines[i]);
  assert_int_equal(odd, 0);
  char *said;
  assert_int_equal(test_run_line("S index --csv odd.csv -o odd.m", &said), 3);
  assert_non_null(strstr(said, "odd/no sound\\nserenade: forged\\x1b[31m.wav: unreadable: not a recording"));
  free(said);
  test_must("grep -q '^serenade: forged' odd.m"); /* a table keeps the true name, quoted */
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_line_is_forged)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
