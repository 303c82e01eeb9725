/* The configuration: every way to get it wrong, with place and cure; values at the ends of their ranges; writing. */
#include "support/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/config_table.h"
#include "base/file.h"
#include "base/nearest.h"

static char *folder;

static int set_up(void **state) {
  (void)state;
  folder = test_folder_make("config");
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  test_folder_remove(folder);
  return 0;
}

/* Reads a text as a file named c.yaml; messages then begin with its path, which is cut off. */
static ser_status read_text(ser_config *config, const char *text, size_t size, ser_error *err) {
  char *path = ser_path_join(folder, "c.yaml");
  ASSERT_OK(ser_file_write(path, text, size, err), *err);
  ser_status status = ser_config_read(config, path, err);
  size_t before = strlen(folder) + 1;
  if (status != SER_OK && !strncmp(err->text, path, strlen(path)))
    memmove(err->text, err->text + before, strlen(err->text + before) + 1);
  free(path);
  return status;
}

typedef struct {
  const char *text;
  const char *place; /* how the message begins */
  const char *named; /* a part of it */
  const char *cure;  /* another */
} bad_input;

static const bad_input bad_files[] = {
    {"train:\n  epoch: 3\n", "c.yaml:2:3: ", "unknown key 'train.epoch'", "the nearest is train.epochs"},
    {"trian:\n  epochs: 3\n", "c.yaml:1:1: ", "unknown key 'trian'", "the nearest is train"},
    {"epochs: 3\n", "c.yaml:1:1: ", "unknown key 'epochs'", "the nearest is train.epochs"},
    {"features:\n  mfcc39:\n    hops: 256\n", "c.yaml:3:5: ", "unknown key 'features.mfcc39.hops'",
     "the nearest is features.mfcc39.hop "},
    {"features:\n  mfcc13:\n    hop: 256\n", "c.yaml:2:3: ", "unknown key 'features.mfcc13'",
     "the nearest is features.mfcc39 "},
    {"corpora:\n  cremd: /a\n", "c.yaml:2:3: ", "unknown key 'corpora.cremd'", "the nearest is corpora.cremad"},
    {"model: {Branch: timnet}\n", "c.yaml:1:9: ", "unknown key 'model.Branch'", "the nearest is model.branch"},
    {"wav2vec2:\n  pool: max\n", "c.yaml:2:9: ", "wav2vec2.pool is 'max'", "mean+std"},
    {"\n\ntrain:\n  epochs: 3\n  lr: fast\n", "c.yaml:5:7: ", "train.lr is 'fast'", "a number above 0 and at most 10"},
    {"train:\n  lr: 0\n", "c.yaml:2:7: ", "train.lr is '0'", "above 0"},
    {"train:\n  lr: .nan\n", "c.yaml:2:7: ", "train.lr is '.nan'", "a number above 0"},
    {"train:\n  lr: 1e999\n", "c.yaml:2:7: ", "train.lr is '1e999'", "at most 10"},
    {"train:\n  beta2: 1\n", "c.yaml:2:10: ", "train.beta2 is '1'", "from 0 and below 1"},
    {"train:\n  epochs: 2.5\n", "c.yaml:2:11: ", "train.epochs is '2.5'", "a whole number from 1"},
    {"train:\n  epochs: 0x10\n", "c.yaml:2:11: ", "train.epochs is '0x10'", "a whole number"},
    {"train:\n  epochs: 99999999999999999999\n", "c.yaml:2:11: ", "train.epochs is '99999999999999999999'",
     "at most 1000000"},
    {"train:\n  epochs:\n", "c.yaml:2:10: ", "train.epochs has no value", "give it one, or take the key out"},
    {"train:\n  epochs: [3, 4]\n", "c.yaml:2:11: ", "train.epochs is a list", "one value"},
    {"train:\n  epochs: {a: 1}\n", "c.yaml:2:11: ", "train.epochs takes a value", "not a mapping"},
    {"train:\n  seeds: [1, two]\n", "c.yaml:2:10: ", "train.seeds is 'two'", "a whole number from 0"},
    {"train:\n  seeds: [1, 2, 1]\n", "c.yaml:2:10: ", "train.seeds holds 1 twice", "take one out"},
    {"train:\n  seeds: [1, [2]]\n", "c.yaml:2:14: ", "train.seeds takes single values", "not a list"},
    {"train:\n  seeds: [-1]\n", "c.yaml:2:10: ", "train.seeds is '-1'", "from 0"},
    {"train: 5\n", "c.yaml:1:1: ", "train is a group of keys", "put its keys below it"},
    {"split:\n  kind: speakers\n", "c.yaml:2:9: ", "split.kind is 'speakers'",
     "random, speaker, file; the nearest is speaker"},
    {"split:\n  test: 1\n", "c.yaml:2:9: ", "split.test is '1'", "at most 0.9"},
    {"split:\n  test_speakers: [a, '']\n", "c.yaml:2:18: ", "split.test_speakers holds an empty name", "take it out"},
    {"split:\n  test_speakers: [a, b, a]\n", "c.yaml:2:18: ", "split.test_speakers holds a twice", "take one out"},
    {"emotions: 7\n", "c.yaml:1:11: ", "emotions is '7'", "one of 6, 8"},
    {"audit: yes\n", "c.yaml:1:8: ", "audit is 'yes'", "one of exclude, report"},
    {"precision: bf16\n", "c.yaml:1:12: ", "precision is 'bf16'", "one of fp32, tf32"},
    {"model:\n  residual: 2\n", "c.yaml:2:13: ", "model.residual is '2'", "true or false"},
    {"train:\n  epochs: 3\ntrain:\n  lr: 0.1\n", "c.yaml:3:1: ", "train is given twice (first in line 1)",
     "take one out"},
    {"train:\n  epochs: 3\n  epochs: 4\n", "c.yaml:3:3: ", "train.epochs is given twice (first in line 2)",
     "take one out"},
    {"train.epochs: 3\ntrain:\n  epochs: 4\n", "c.yaml:3:3: ", "train.epochs is given twice (first in line 1)",
     "take one out"},
    {"- train\n- split\n", "c.yaml:1:1: ", "a configuration is a mapping", "'train:'"},
    {"train\n", "c.yaml:1:1: ", "a configuration is a mapping", "'train:'"},
    {"{[1]: 2}\n", "c.yaml:1:2: ", "takes single values", "not a list"},
    {"train:\n  epochs: [1\n", "c.yaml:3:1: ", "not valid YAML", "mend the line"},
    {"train:\n\tepochs: 1\n", "c.yaml:2:1: ", "not valid YAML", "mend the line"},
    {"train:\n  epochs: *none\n", "c.yaml:2:11: ", "undefined alias", "mend the line"},
    {"corpora:\n  csv: \"a\xff\"\n", "c.yaml: ", "not valid YAML", "save the file as UTF-8"},
    {"corpora:\n  csv: \"a\\0b\"\n", "c.yaml:2:8: ", "corpora.csv holds a NUL", "take it out"},
    {"emotions: 6\n---\nemotions: 8\n", "c.yaml:3:1: ", "a second document", "one configuration"},
};

static void test_bad_files(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof bad_files / sizeof *bad_files; i++) {
    const bad_input *bad = &bad_files[i];
    ser_config config;
    ser_error err = {0};
    ser_config_init(&config);
    ser_status status = read_text(&config, bad->text, strlen(bad->text), &err);
    if (status != SER_USAGE) fail_msg("not refused: %s", bad->text);
    if (strncmp(err.text, bad->place, strlen(bad->place)) || !strstr(err.text, bad->named) ||
        !strstr(err.text, bad->cure))
      fail_msg("%s\ngave: %s\nwant: %s%s ... %s", bad->text, err.text, bad->place, bad->named, bad->cure);
    if (strchr(err.text, '\n')) fail_msg("more than one line: %s", err.text);
    ser_config_free(&config);
  }
}

static const bad_input bad_sets[] = {
    {"train.epochs", "--set train.epochs: ", "no '='", "KEY=VALUE"},
    {"train.epoch=3", "--set train.epoch=3: ", "unknown key 'train.epoch'", "train.epochs"},
    {"train=3", "--set train=3: ", "a group of keys", "name one of them"},
    {"=3", "--set =3: ", "unknown key ''", "'serenade info config' lists those that there are"},
    {"colour=3", "--set colour=3: ", "unknown key 'colour'; 'serenade info config' lists", "those that there are"},
    {"train.epochs=", "--set train.epochs=: ", "train.epochs is ''", "a whole number"},
    {"train.epochs=1 ", "--set train.epochs=1 : ", "train.epochs is '1 '", "a whole number"},
    {"train.seeds=[1, x]", "--set train.seeds=[1, x]: ", "train.seeds is 'x'", "a whole number"},
    {"train.select=acc", "--set train.select=acc: ", "train.select is 'acc'", "one of uar, war"},
    {"corpora.tess=\xff", "--set corpora.tess=\xff: ", "not UTF-8", "rename"},
    {"corpora.tess=\xed\xa0\x80", "--set ", "not UTF-8", "rename"},
};

static void test_bad_sets(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof bad_sets / sizeof *bad_sets; i++) {
    const bad_input *bad = &bad_sets[i];
    ser_config config;
    ser_error err = {0};
    ser_config_init(&config);
    assert_int_equal(ser_config_set(&config, bad->text, &err), SER_USAGE);
    if (strncmp(err.text, bad->place, strlen(bad->place)) || !strstr(err.text, bad->named) ||
        !strstr(err.text, bad->cure))
      fail_msg("--set %s\ngave: %s\nwant: %s%s ... %s", bad->text, err.text, bad->place, bad->named, bad->cure);
    ser_config_free(&config);
  }
}

/* Assignments with ';' between them, and what ser_config_check says of them; NULL: nothing. */
static const struct {
  const char *sets, *named, *cure;
} crossed[] = {
    {"", NULL, NULL},
    {"features.mfcc39.n_fft=2000", "features.mfcc39.n_fft is 2000", "power of two"},
    {"features.timnet.n_fft=1000", "features.timnet.n_fft is 1000", "power of two"},
    {"features.mfcc39.hop=4096", "features.mfcc39.hop (4096)", "lower the hop"},
    {"features.mfcc39.n_fft=256;features.mfcc39.hop=64;features.mfcc39.mels=129", "features.mfcc39.mels (129)",
     "lower it, or raise n_fft"},
    {"features.mfcc39.mels=12", "features.mfcc39.coefficients (13)", "lower it, or raise mels"},
    {"features.mfcc39.frames=8", "features.mfcc39.frames is 8", "raise it to 9"},
    {"features.mfcc39.frames=8;features.mfcc39.deltas=false", NULL, NULL},
    {"features.mfcc39.samples=4000", "features.mfcc39.samples (4000)", "raise it"},
    {"split.kind=file", "split.file names none", "set split.file"},
    {"split.file=a.csv", "split.kind is not file", "split.kind=file"},
    {"split.kind=file;split.file=a.csv", NULL, NULL},
    {"split.kind=file;split.file=a.csv;split.folds=3", "the file names the folds", "split.folds=0"},
    {"split.test_speakers=tess_yaf", "split.kind is not speaker", "split.kind=speaker"},
    {"split.kind=speaker;split.test_speakers=tess_yaf", NULL, NULL},
    {"split.kind=speaker;split.test_speakers=tess_yaf;split.folds=4", "exclude each other", "take one of them out"},
    {"split.folds=1", "split.folds is 1", "0 means one split"},
    {"split.test=0.9;split.validation=0.6", "leave 0.04 of the clips", "lower one of them"},
    {"train.seeds=[]", "train.seeds is empty", "at least one seed"},
    {"model.residual=true", NULL, NULL},
    {"model.residual=true;model.branch=timnet", "model.residual belongs to model.branch=reference", "false"},
    {"predict.window=3.77", "predict.window (3.77 s) is above what the model sees", "lower it, or raise"},
    {"predict.window=3.76", NULL, NULL},
    {"predict.window=0.208", "predict.window (0.208 s) is below what the features need (0.209 s)", "raise it"},
    {"predict.window=0.209", NULL, NULL},
    {"predict.window=0.02;features.mfcc39.deltas=false", "below what the features need (0.024 s)", "set 0"},
    {"predict.window=0.09;features.kind=timnet", "below what the features need (0.093 s)", "raise it"},
    {"predict.window=0.1;features.kind=timnet", NULL, NULL},
    {"predict.window=2;predict.hop=3", "predict.hop (3 s)", "lower it"},
    {"predict.hop=3.8", "predict.hop (3.8 s)", "lower it"},
    {"predict.hop=3.7", NULL, NULL},
};

static void test_rules_across_keys(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof crossed / sizeof *crossed; i++) {
    ser_config config;
    ser_error err = {0};
    ser_config_init(&config);
    char *sets = ser_strdup(crossed[i].sets), *rest = sets;
    for (char *one; (one = strsep(&rest, ";")) && *one;) ASSERT_OK(ser_config_set(&config, one, &err), err);
    ser_status status = ser_config_check(&config, &err);
    if (status != (crossed[i].named ? SER_USAGE : SER_OK))
      fail_msg("%s: status %d: %s", crossed[i].sets, status, err.text);
    if (crossed[i].named && (!strstr(err.text, crossed[i].named) || !strstr(err.text, crossed[i].cure)))
      fail_msg("%s gave: %s", crossed[i].sets, err.text);
    free(sets);
    ser_config_free(&config);
  }
}

/* Of keys that do not go together the one that was given last is blamed, where it was given. */
static void test_where_keys_were_given(void **state) {
  (void)state;
  static const struct {
    const char *yaml, *sets, *begin;
  } rows[] = {
      {"features:\n  mfcc39:\n    n_fft: 1000\n", "", "/c.yaml:3:12: features.mfcc39.n_fft is 1000"},
      {"features:\n  mfcc39:\n    n_fft: 1024\n", "features.mfcc39.n_fft=1000", "--set features.mfcc39.n_fft=1000: f"},
      {"features: {mfcc39: {mels: 8}}\n", "", "/c.yaml:1:27: features.mfcc39.coefficients (13) is above"},
      {"features: {mfcc39: {hop: 900, n_fft: 512}}\n", "", "/c.yaml:1:38: features.mfcc39.hop (900) is above"},
      {"features.mfcc39.hop: 900\n", "features.mfcc39.n_fft=512",
       "--set features.mfcc39.n_fft=512: features.mfcc39.hop"},
      {"split:\n  validation: 0.9\n  test: 0.9\n", "", "/c.yaml:3:9: split.test and split.validation"},
      {"split:\n  folds: 1\n", "train.epochs=3", "/c.yaml:2:10: split.folds is 1"},
      {"train:\n  seeds: []\n", "", "/c.yaml:2:10: train.seeds is empty"},
      {"", "split.file=a", "--set split.file=a: split.file is given"},
      {"model: {branch: timnet}\n", "model.residual=yes", "--set model.residual=yes: model.residual belongs"},
      {"predict:\n  hop: 5\n", "", "/c.yaml:2:8: predict.hop (5 s)"},
  };
  char *path = ser_path_join(folder, "c.yaml");
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    ser_config config, copy;
    ser_error err = {0};
    char *begin = ser_format("%s%s", *rows[i].begin == '/' ? folder : "", rows[i].begin);
    ASSERT_OK(ser_file_write(path, rows[i].yaml, strlen(rows[i].yaml), &err), err);
    ser_config_init(&config);
    ASSERT_OK(ser_config_read(&config, path, &err), err);
    if (*rows[i].sets) ASSERT_OK(ser_config_set(&config, rows[i].sets, &err), err);
    ser_config_copy(&copy, &config);
    ser_config_free(&config);
    assert_int_equal(ser_config_check(&copy, &err), SER_USAGE);
    if (strncmp(err.text, begin, strlen(begin))) fail_msg("%s; want: %s", err.text, begin);
    ser_config_came_from(&copy, "split.folds", "--folds");
    ser_config_refuse(&err, &copy, "threads split.folds", "%d", 7);
    assert_string_equal(err.text, "--folds: 7");
    ser_config_refuse(&err, &copy, "threads", "%d", 7); /* nobody gave it */
    assert_string_equal(err.text, "7");
    ser_config_free(&copy);
    free(begin);
  }
  free(path);
}

static void assert_same(const ser_config *a, const ser_config *b) {
  ser_text x = {0}, y = {0};
  ser_config_write(&x, a);
  ser_config_write(&y, b);
  assert_string_equal(x.data, y.data);
  free(x.data);
  free(y.data);
}

/* write -> read -> write gives the same bytes. */
static void assert_round_trip(const ser_config *config) {
  ser_config back;
  ser_error err = {0};
  ser_text text = {0};
  ser_config_write(&text, config);
  ser_config_init(&back);
  ASSERT_OK(read_text(&back, text.data, text.size, &err), err);
  assert_same(config, &back);
  ser_config_free(&back);
  free(text.data);
}

/* Every row at both ends of its range (just inside where an end is left out) and beyond them; each choice. */
static void test_every_row_at_its_ends(void **state) {
  (void)state;
  for (size_t i = 0; i < ser_parameter_count; i++) {
    const ser_parameter_row *row = &ser_parameter_rows[i];
    ser_config config;
    ser_error err = {0};
    ser_config_init(&config);
    char open, close, text[512];
    double ends[2];
    if (row->range) {
      assert_int_equal(sscanf(row->range, "%c%lf, %lf%c", &open, &ends[0], &ends[1], &close), 4);
      for (int end = 0; end < 2; end++) {
        bool out = end ? close == ')' : open == '(';
        snprintf(text, sizeof text, "%s=%.17g", row->key, ends[end]);
        assert_int_equal(ser_config_set(&config, text, &err), out ? SER_USAGE : SER_OK);
        double step = row->kind == KIND_REAL ? 1e-9 : 1;
        snprintf(text, sizeof text, "%s=%.17g", row->key, ends[end] + (end ? step : -step));
        assert_int_equal(ser_config_set(&config, text, &err), SER_USAGE);
        snprintf(text, sizeof text, "%s=%.17g", row->key, ends[end] + (end ? -step : step));
        ASSERT_OK(ser_config_set(&config, text, &err), err);
        assert_round_trip(&config);
      }
    }
    if (row->choices) {
      char *copy = ser_strdup(row->choices), *rest = copy;
      for (char *word; (word = strsep(&rest, " "));) {
        snprintf(text, sizeof text, "%s=%s", row->key, word);
        ASSERT_OK(ser_config_set(&config, text, &err), err);
        ser_text yaml = {0};
        ser_config_write(&yaml, &config);
        const char *name = strrchr(row->key, '.') ? strrchr(row->key, '.') + 1 : row->key;
        snprintf(text, sizeof text, "%s: %s\n", name, word);
        if (!strstr(yaml.data, text)) fail_msg("%s is not written as %s", row->key, text);
        free(yaml.data);
        assert_round_trip(&config);
      }
      free(copy);
    }
    ser_config_free(&config);
  }
}

/* Every key's default is what its row says and comes back. */
static void test_defaults(void **state) {
  (void)state;
  ser_config config, set;
  ser_error err = {0};
  ser_config_init(&config);
  ser_config_init(&set);
  for (size_t i = 0; i < ser_parameter_count; i++) {
    char *one = ser_format("%s=%s", ser_parameter_rows[i].key, ser_parameter_rows[i].preset);
    ASSERT_OK(ser_config_set(&set, one, &err), err);
    free(one);
  }
  assert_same(&config, &set);
  assert_round_trip(&config);
  ASSERT_OK(ser_config_check(&config, &err), err);
  assert_int_equal(config.features.mfcc39.rate, 22050);
  assert_int_equal(config.features.mfcc39.frames, 162);
  assert_true(config.features.mfcc39.deltas);
  assert_int_equal(config.features.timnet.coefficients, 39);
  assert_int_equal(config.features.timnet.samples, 110000);
  assert_true(config.train.beta1 == 0.93 && config.train.beta2 == 0.98 && config.train.eps == 1e-8);
  assert_true(config.split.test == 0.2 && config.split.validation == 0.1);
  assert_int_equal(config.train.seeds.count, 1);
  assert_int_equal(config.audit, SER_AUDIT_EXCLUDE);
  ser_config_free(&config);
  ser_config_free(&set);
}

/* Random values, texts with all that YAML finds hard, from a fixed seed. */
static void test_round_trip_property(void **state) {
  (void)state;
  static const char *const hard[] = {"a b",
                                     "\"",
                                     "\\",
                                     "'",
                                     "#x",
                                     ": y",
                                     "- z",
                                     "\t",
                                     "\n",
                                     "\r",
                                     "\x7f",
                                     "\x01",
                                     "\xc2\x85",
                                     "\xc2\xa0",
                                     "\xe2\x80\xa8",
                                     "\xef\xbb\xbf",
                                     "\xef\xbf\xbf",
                                     "\xc3\xa4",
                                     "\xf0\x9f\x98\x80",
                                     "[",
                                     "{",
                                     "%",
                                     "@",
                                     "null",
                                     "~",
                                     "yes",
                                     "1e3",
                                     "\\0",
                                     "\xed\x9f\xbf",
                                     "\xf4\x8f\xbf\xbf"};
  for (uint64_t round = 0; round < 200; round++) {
    ser_config config;
    ser_error err = {0};
    uint64_t draw = 0;
    ser_config_init(&config);
    for (size_t i = 0; i < ser_parameter_count; i++) {
      const ser_parameter_row *row = &ser_parameter_rows[i];
      double unit = 0.5 + 0.5 * (double)test_random(round, draw++), least, most;
      char open, close, *one = NULL;
      if (row->range) sscanf(row->range, "%c%lf, %lf%c", &open, &least, &most, &close);
      if (row->kind == KIND_REAL) one = ser_format("%s=%.17g", row->key, least + (unit + 1e-5) * 0.99 * (most - least));
      if (row->kind == KIND_INTEGER && row->range) one = ser_format("%s=%.0f", row->key, least + unit * (most - least));
      if (row->kind == KIND_INTEGERS) one = ser_format("%s=[%.0f,%.0f , 7]", row->key, unit * 1e15, 1e6 * unit);
      if (row->kind == KIND_TEXT && !row->choices) {
        ser_text text = {0};
        for (int part = 0; part < 4; part++)
          ser_text_puts(
              &text,
              hard[(size_t)((0.5 + 0.4999 * (double)test_random(round, draw++)) * (sizeof hard / sizeof *hard))]);
        one = ser_format("%s=%s", row->key, text.data);
        free(text.data);
      }
      if (row->kind == KIND_TEXTS) one = ser_format("%s=[sp %.0f, \"q\", \xc3\xa4]", row->key, 1000 * unit);
      if (one) ASSERT_OK(ser_config_set(&config, one, &err), err);
      free(one);
    }
    assert_round_trip(&config);
    ser_config copy;
    ser_config_copy(&copy, &config);
    assert_same(&copy, &config);
    ser_config_free(&config);
    ser_text still = {0};
    ser_config_write(&still, &copy); /* the copy owns what it holds */
    free(still.data);
    ser_config_free(&copy);
  }
}

static void test_forms_that_are_understood(void **state) {
  (void)state;
  static const char text[] = "# comment\n"
                             "corpora: {tess: 'a: b', csv: null}\n"
                             "features.mfcc39.hop: 256\n"
                             "train:\n"
                             "  seeds: 3\n"
                             "  lr: 1e-2\n"
                             "split:\n"
                             "  kind: speaker\n"
                             "  test_speakers:\n"
                             "    - tess_yaf\n"
                             "    - &x ravdess_01\n"
                             "model:\n";
  ser_config config;
  ser_error err = {0};
  ser_config_init(&config);
  ASSERT_OK(read_text(&config, text, sizeof text - 1, &err), err);
  assert_string_equal(config.corpora[SER_TESS], "a: b");
  assert_string_equal(config.corpora[SER_CSV], "");
  assert_int_equal(config.features.mfcc39.hop, 256);
  assert_int_equal(config.train.seeds.count, 1);
  assert_int_equal(config.train.seeds.values[0], 3);
  assert_true(config.train.lr == 0.01);
  assert_int_equal(config.split.test_speakers.count, 2);
  assert_string_equal(config.split.test_speakers.values[1], "ravdess_01");
  /* What a file does not name stays: files and --set stack. */
  ASSERT_OK(ser_config_set(&config, "train.seeds=[4, 5,6]", &err), err);
  ASSERT_OK(read_text(&config, "", 0, &err), err);
  ASSERT_OK(read_text(&config, "---\n# nothing\n", 14, &err), err);
  ASSERT_OK(read_text(&config, "emotions: 8\n", 12, &err), err);
  assert_int_equal(config.train.seeds.count, 3);
  assert_int_equal(config.train.seeds.values[2], 6);
  assert_int_equal(config.emotions, 8);
  /* A refused value leaves the old one. */
  assert_int_equal(ser_config_set(&config, "train.seeds=[1, 1]", &err), SER_USAGE);
  assert_int_equal(config.train.seeds.count, 3);
  ser_config_free(&config);
  ser_config_init(&config);
  assert_int_equal(ser_config_read(&config, "/nonexistent/c.yaml", &err), SER_FAILED);
  assert_non_null(strstr(err.text, "there is no file /nonexistent/c.yaml; give a configuration"));
  ser_config_free(&config);
}

static void test_description_names_every_key(void **state) {
  (void)state;
  ser_text text = {0};
  ser_config_describe(&text);
  for (size_t i = 0; i < ser_parameter_count; i++) {
    const ser_parameter_row *row = &ser_parameter_rows[i];
    char *line = ser_format("\n%s ", row->key), *at = strstr(text.data, line);
    char *end = at ? strchr(at + 1, '\n') : NULL;
    if (!end) {
      fail_msg("%s is not described", row->key);
      return;
    }
    *end = 0;
    if (!strstr(at, row->help) || (row->range && !strstr(at, row->range)) || !strstr(at, row->preset))
      fail_msg("the line of %s lacks something:%s", row->key, at);
    *end = '\n';
    free(line);
  }
  free(text.data);
}

/* Keys that differ, in the table's order, whatever their kind; beyond the first few their number; long values cut. */
static void test_changes(void **state) {
  (void)state;
  static const char *const settings[] = {"train.lr=0.1", "conv=fused", "model.residual=true", "train.seeds=[1,2]",
                                         "split.test_speakers=[a, b]"};
  ser_error err = {0};
  ser_config from, to;
  ser_text text = {0};
  ser_config_init(&from);
  ser_config_init(&to);
  assert_int_equal(ser_config_changes(&text, &from, &to, 9), 0);
  assert_int_equal(text.size, 0);
  for (size_t i = 0; i < 5; i++) ASSERT_OK(ser_config_set(&to, settings[i], &err), err);
  assert_int_equal(ser_config_changes(&text, &from, &to, 9), 5);
  assert_string_equal(text.data, "split.test_speakers: [] -> [\"a\", \"b\"]; model.residual: false -> true; train.lr: "
                                 "0.001 -> 0.1; train.seeds: [1] -> [1, 2]; conv: auto -> fused");
  text.size = 0;
  assert_int_equal(ser_config_changes(&text, &from, &to, 1), 5);
  assert_string_equal(text.data, "split.test_speakers: [] -> [\"a\", \"b\"]; and 4 more");
  text.size = 0;
  ASSERT_OK(ser_config_set(&from, "cache.dir=/a/path/that/is/long/enough/to/be/cut/in/\xc3\xa4\xc3\xa4\xc3\xa4", &err),
            err);
  assert_int_equal(ser_config_changes(&text, &from, &to, 1), 6);
  assert_string_equal(text.data,
                      "cache.dir: \"/a/path/that/is/long/enough/to/be/cut/in/\xc3\xa4... -> \"\"; and 5 more");
  free(text.data);
  ser_config_free(&from);
  ser_config_free(&to);
}

static void test_edit_distance(void **state) {
  (void)state;
  static const struct {
    const char *a, *b;
    size_t distance;
  } rows[] = {{"", "", 0},       {"", "abc", 3},           {"abc", "", 3},   {"train", "trian", 1},
              {"ABC", "abc", 0}, {"kitten", "sitting", 3}, {"ca", "abc", 3}, {"epoch", "epochs", 1}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    assert_int_equal(ser_edit_distance(rows[i].a, rows[i].b), rows[i].distance);
  char longer[1000];
  memset(longer, 'a', sizeof longer - 1);
  longer[sizeof longer - 1] = 0;
  assert_int_equal(ser_edit_distance(longer, "a"), 126);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_defaults),
      cmocka_unit_test(test_bad_files),
      cmocka_unit_test(test_bad_sets),
      cmocka_unit_test(test_rules_across_keys),
      cmocka_unit_test(test_where_keys_were_given),
      cmocka_unit_test(test_every_row_at_its_ends),
      cmocka_unit_test(test_round_trip_property),
      cmocka_unit_test(test_forms_that_are_understood),
      cmocka_unit_test(test_description_names_every_key),
      cmocka_unit_test(test_changes),
      cmocka_unit_test(test_edit_distance),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
