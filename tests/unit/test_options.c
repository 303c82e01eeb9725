/* Options of the command line: forms, lists, `--`, `-`, common ones wherever they stand, and every way to err. */
#include "support/harness.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "cli/cli.h"

enum { MOST = 16 };

/* Splits a line at blanks; "''" stands for an empty argument. */
static int words(char *line, char **argv) {
  int argc = 0;
  for (char *word = strtok(line, " "); word; word = strtok(NULL, " "))
    argv[argc++] = strcmp(word, "''") ? word : word + 2;
  argv[argc] = NULL;
  return argc;
}

static char *joined(int argc, char **argv) {
  ser_text text = {0};
  for (int i = 1; i < argc; i++) ser_text_printf(&text, "%s<%s>", i > 1 ? " " : "", argv[i]);
  return text.data ? text.data : ser_strdup("");
}

static void test_forms(void **state) {
  (void)state;
  static const struct {
    const char *line, *output, *jobs, *sets, *left;
    bool rehash;
  } rows[] = {
      {"x", NULL, NULL, "", "", false},
      {"x a b", NULL, NULL, "", "<a> <b>", false},
      {"x -o out a", "out", NULL, "", "<a>", false},
      {"x -oout a", "out", NULL, "", "<a>", false},
      {"x -o=out a", "out", NULL, "", "<a>", false},
      {"x a --jobs 3 b", NULL, "3", "", "<a> <b>", false},
      {"x --jobs=3", NULL, "3", "", "", false},
      {"x --jobs= a", NULL, "", "", "<a>", false},
      {"x --rehash --rehash", NULL, NULL, "", "", true},
      {"x --set a=1 --set=b=2 c --set d=--e", NULL, NULL, "a=1;b=2;d=--e;", "<c>", false},
      {"x --rehash a", NULL, NULL, "", "<a>", true},
      {"x - a", NULL, NULL, "", "<-> <a>", false},
      {"x -o - a", "-", NULL, "", "<a>", false},
      {"x a -- --rehash -o", NULL, NULL, "", "<a> <--rehash> <-o>", false},
      {"x -- -- a", NULL, NULL, "", "<--> <a>", false},
      {"x --jobs -3", NULL, "-3", "", "", false},
      {"x --jobs=--", NULL, "--", "", "", false},
      {"x '' a", NULL, NULL, "", "<> <a>", false},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const char *output = NULL, *jobs = NULL, **sets = NULL;
    size_t set_count = 0;
    bool rehash = false;
    const ser_option options[] = {{.name = "--output", .value = &output},
                                  {.name = "-o", .value = &output},
                                  {.name = "--jobs", .value = &jobs},
                                  {.name = "--set", .list = &sets, .list_count = &set_count},
                                  {.name = "--rehash", .flag = &rehash}};
    char *line = ser_strdup(rows[i].line), *argv[MOST];
    int argc = words(line, argv);
    ser_error err = {0};
    ASSERT_OK(ser_options_parse(&argc, argv, options, 5, &err), err);
    char *left = joined(argc, argv);
    ser_text all = {0};
    ser_text_puts(&all, "");
    for (size_t j = 0; j < set_count; j++) ser_text_printf(&all, "%s;", sets[j]);
    assert_string_equal(left, rows[i].left);
    assert_string_equal(all.data ? all.data : "", rows[i].sets);
    assert_string_equal(output ? output : "none", rows[i].output ? rows[i].output : "none");
    assert_string_equal(jobs ? jobs : "none", rows[i].jobs ? rows[i].jobs : "none");
    assert_int_equal(rehash, rows[i].rehash);
    free(left);
    free(all.data);
    free(sets);
    free(line);
  }
}

static void test_errors(void **state) {
  (void)state;
  static const struct {
    const char *line, *named, *cure;
  } rows[] = {
      {"x --job 3", "unknown option --job;", "the nearest is --jobs (see serenade x --help)"},
      {"x --job=3", "unknown option --job;", "--jobs"},
      {"x --rehsah", "unknown option --rehsah;", "--rehash"},
      {"x --thread 3", "unknown option --thread;", "--threads"},
      {"x -x", "unknown option -x;", "'serenade x --help' lists those that there are"},
      {"x --jobs3", "unknown option --jobs3;", "--jobs"},
      {"x --jobs", "--jobs needs a value", "write --jobs VALUE"},
      {"x -o --rehash", "-o needs a value", "join one that begins"},
      {"x -o --", "-o needs a value", "join one that begins with a dash by '='"},
      {"x --jobs -o 3", "--jobs needs a value", "join one that begins"},
      {"x --jobs 3 --jobs 4", "--jobs is given twice", "take one out"},
      {"x --jobs 3 a --jobs=3", "--jobs is given twice", "take one out"},
      {"x --output a -ob", "-o is given twice", "take one out"},
      {"x --rehash=yes", "--rehash takes no value", "write --rehash alone"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const char *output = NULL, *jobs = NULL;
    bool flag = false;
    const ser_option options[] = {{.name = "-o", .value = &output},
                                  {.name = "--jobs", .value = &jobs},
                                  {.name = "--rehash", .flag = &flag},
                                  {.name = "--output", .value = &output}};
    char *line = ser_strdup(rows[i].line), *argv[MOST];
    int argc = words(line, argv);
    ser_error err = {0};
    assert_int_equal(ser_options_parse(&argc, argv, options, 4, &err), SER_USAGE);
    if (!strstr(err.text, rows[i].named) || !strstr(err.text, rows[i].cure))
      fail_msg("%s gave: %s", rows[i].line, err.text);
    free(line);
  }
}

static void test_common(void **state) {
  (void)state;
  static const struct {
    const char *line, *left;
    int device, threads;
    long long seed;
    bool quiet, help, version;
  } rows[] = {
      {"serenade", "", -1, -1, -1, false, false, false},
      {"serenade --quiet info --threads 3", "<info>", -1, 3, -1, true, false, false},
      {"serenade info --device=cpu -q --seed=7 device", "<info> <device>", SER_DEVICE_CPU, -1, 7, true, false, false},
      {"serenade --device cuda predict -- --quiet --help", "<predict> <--> <--quiet> <--help>", SER_DEVICE_CUDA, -1, -1,
       false, false, false},
      {"serenade train -h", "<train>", -1, -1, -1, false, true, false},
      {"serenade --version", "", -1, -1, -1, false, false, true},
      {"serenade index --threadsx 4", "<index> <--threadsx> <4>", -1, -1, -1, false, false, false},
      {"serenade --threads=0 --quiet --quiet", "", -1, 0, -1, true, false, false},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char *line = ser_strdup(rows[i].line), *argv[MOST];
    int argc = words(line, argv);
    ser_common common = {.seed = -1};
    ser_asked asked = {0};
    ser_error err = {0};
    ASSERT_OK(ser_options_common(&common, &asked, &argc, argv, &err), err);
    char *left = joined(argc, argv);
    assert_string_equal(left, rows[i].left);
    assert_int_equal(common.device_given ? (int)common.device.kind : -1, rows[i].device);
    assert_int_equal(common.threads_given ? common.device.threads : -1, rows[i].threads);
    assert_int_equal(common.seed, rows[i].seed);
    assert_int_equal(common.quiet, rows[i].quiet);
    assert_int_equal(asked.help, rows[i].help);
    assert_int_equal(asked.version, rows[i].version);
    free(left);
    free(line);
  }
}

static void test_common_errors(void **state) {
  (void)state;
  static const struct {
    const char *line, *named, *cure;
  } rows[] = {
      {"serenade info --device gpu", "--device is 'gpu'", "one of auto, cpu, cuda; the nearest is cpu"},
      {"serenade info --threads many", "--threads is 'many'", "a whole number from 0 to 4096"},
      {"serenade info --threads -1", "--threads is '-1'", "from 0"},
      {"serenade info --threads", "--threads needs a value", "write --threads VALUE"},
      {"serenade --threads 2 info --threads=2", "--threads is given twice", "take one out"},
      {"serenade --device cpu info --device auto", "--device is given twice", "take one out"},
      {"serenade --seed 0 info --seed 1", "--seed is given twice", "take one out"},
      {"serenade --quiet=yes info", "--quiet takes no value", "write --quiet alone"},
      {"serenade info -q=1", "-q takes no value", "write -q alone"},
      {"serenade info --version=2", "--version takes no value", "write --version alone"},
      {"serenade info --seed 1e3", "--seed is '1e3'", "a whole number from 0"},
      {"serenade info --seed 99999999999999999999", "--seed is '99999999999999999999'", "a whole number from 0"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char *line = ser_strdup(rows[i].line), *argv[MOST];
    int argc = words(line, argv);
    ser_common common = {.seed = -1};
    ser_asked asked = {0};
    ser_error err = {0};
    assert_int_equal(ser_options_common(&common, &asked, &argc, argv, &err), SER_USAGE);
    if (!strstr(err.text, rows[i].named) || !strstr(err.text, rows[i].cure))
      fail_msg("%s gave: %s", rows[i].line, err.text);
    free(line);
  }
}

static void test_far_choices(void **state) {
  (void)state;
  static const char *const words[] = {"text", "json", "csv", NULL};
  int chosen = 0;
  ser_error err = {0};
  assert_int_equal(ser_option_choice(&chosen, "--format", "xml", words, &err), SER_USAGE);
  assert_string_equal(err.text, "--format is 'xml', but it must be one of text, json, csv");
  assert_int_equal(ser_option_choice(&chosen, "--format", "jsno", words, &err), SER_USAGE);
  assert_string_equal(err.text, "--format is 'jsno', but it must be one of text, json, csv; the nearest is json");
}

static void test_counts(void **state) {
  (void)state;
  char name[] = "x", a[] = "a", b[] = "b", *argv[] = {name, a, b, NULL};
  ser_error err = {0};
  ASSERT_OK(ser_options_count(3, argv, 1, 2, "the manifest", &err), err);
  ASSERT_OK(ser_options_count(3, argv, 1, -1, "the manifest", &err), err);
  assert_int_equal(ser_options_count(1, argv, 1, 2, "the manifest", &err), SER_USAGE);
  assert_string_equal(err.text, "x: the manifest is missing (see serenade x --help)");
  assert_int_equal(ser_options_count(3, argv, 1, 1, "the manifest", &err), SER_USAGE);
  assert_string_equal(err.text, "x: 'b' is one argument too many; take it out (see serenade x --help)");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forms),         cmocka_unit_test(test_errors), cmocka_unit_test(test_common),
      cmocka_unit_test(test_common_errors), cmocka_unit_test(test_counts), cmocka_unit_test(test_far_choices),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
