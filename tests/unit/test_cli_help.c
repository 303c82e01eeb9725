/* --help: what it must tell of every command, that its examples work, and that every corpus is told. */
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/memory.h"
#include "support/program.h"

static int set_up(void **state) {
  (void)state;
  test_program_start("help");
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  test_program_end();
  return 0;
}

/* Each corpus has its option, told in index --help, and its key. */
static void test_corpora(void **state) {
  (void)state;
  for (int i = 0; i < SER_CORPORA; i++) {
    char *line = ser_format("S index --help | grep -qe '--%s ' && S info config | grep -q '^corpora.%s  *text '",
                            ser_corpus_names[i], ser_corpus_names[i]);
    test_must(line);
    free(line);
  }
}

/* The examples of --help, one after another, on somebody's own folders: each works on what those before have left. */
static void test_examples(void **state) {
  (void)state;
  static const char *const commands[] = {"index", "audit",   "extract", "train", "evaluate",
                                         "info",  "predict", "cache",   "run"}; /* bench: minutes */
  for (int i = 0; i < 48; i++) {
    char *ravdess =
        ser_format("own/data/RAVDESS/Actor_%02d/03-01-%02d-01-01-01-%02d.wav", i % 24 + 1, 3 + i / 24, i % 24 + 1);
    char *tess = ser_format("own/data/TESS/OAF_word%d_%s.wav", i / 2, i % 2 ? "sad" : "happy");
    test_put_wav(ravdess, 100 + (uint64_t)i, 0.5);
    test_put_wav(tess, 200 + (uint64_t)i, 0.5);
    free(ravdess);
    free(tess);
  }
  char *weights = ser_format("mkdir own/weights && cp -r '%s/tests/golden/embedding/wav2vec2_base' "
                             "own/weights/wav2vec2-base",
                             test_source());
  test_must(weights);
  free(weights);
  test_put_file("own/configs/reference.yaml", "model: {blocks: 1, filters: 4}\ntrain: {epochs: 1, batch: 8}\n");
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    char *line =
        ser_format("S %s --help | sed -n '/^Example/,$ s/^  serenade/S/p; /^Options/q' >lines && test -s lines && "
                   "cd own && . ../lines",
                   commands[i]);
    test_must(line);
    free(line);
  }
}

/* --help of every command: usage, an example, every option that its table has. */
static void test_help(void **state) {
  (void)state;
  static const char *const commands[] = {"index",   "audit", "extract", "train", "evaluate",
                                         "predict", "run",   "bench",   "info",  "cache"};
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    char *said, *line = ser_format("S %s --help", commands[i]);
    assert_int_equal(test_run_line(line, &said), 0);
    char *printed = test_printed();
    if (!strstr(printed, "usage: serenade") || !strstr(printed, "Example:") || !strstr(printed, "--quiet"))
      fail_msg("%s lacks usage, an example or the common options:\n%s", line, printed);
    assert_string_equal(said, "");
    free(said);
    free(printed);
    free(line);
  }
}

/* --version tells whether the CUDA backend is in the build, and loads nothing of CUDA to know it. */
static void test_version(void **state) {
  (void)state;
  char *said;
  test_run_line("S info device --device cuda", &said);
  bool without = strstr(said, "this build has no CUDA backend") != NULL;
  free(said);
  test_must(without ? "S --version | grep -qx 'CUDA backend: none in this build'"
                    : "S --version | grep -q '^CUDA backend: built with CUDA [1-9][0-9.]* for architectures [0-9a-z]'");
  test_must("LD_DEBUG=files $P --version 2>loaded && ! grep -q 'libcudart\\|serenade_cuda' loaded");
}

/* What several stages of bench measure: theirs, and what their bounds are made of. */
static void test_bench_stages(void **state) {
  (void)state;
  test_must(
      "S bench peak,decode --runs 1 --device cpu >lines && grep -q '^peak.fma ' lines && grep -q '^decode ' lines");
  test_must("! grep -q '^mfcc \\|^train \\|^forward \\|^predict ' lines");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_help), cmocka_unit_test(test_examples),
                                     cmocka_unit_test(test_corpora), cmocka_unit_test(test_version),
                                     cmocka_unit_test(test_bench_stages)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
