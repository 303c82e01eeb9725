/* Splits: properties over random manifests, exact counts, given files, what the notes say. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/philox.h"
#include "corpus/loader.h"
#include "support/recordings.h"

static uint32_t random_below(uint64_t seed, uint64_t at, uint32_t bound) {
  return ser_philox_at(seed, 0x5917, at).v[0] % bound;
}

static void set(char **text, char *value) {
  free(*text);
  *text = value;
}

static ser_row *add_row(ser_manifest *manifest, const char *prefix, int corpus, int speaker, int emotion, int clip) {
  char *path = ser_format("%s/corpus%d/speaker%d/%d_%d.wav", prefix, corpus, speaker, emotion, clip);
  ser_row *row = manifest_add(manifest, path);
  row->hash = ser_hash_bytes(path + strlen(prefix), strlen(path) - strlen(prefix));
  free(path);
  set(&row->corpus, ser_format("corpus%d", corpus));
  set(&row->speaker, ser_format("c%d_s%d", corpus, speaker));
  set(&row->sex, ser_strdup(speaker % 2 ? "male" : "female"));
  set(&row->statement, ser_format("sentence %d", clip % 3));
  row->emotion = emotion;
  row->status = SER_ROW_OK;
  row->rate = 8000;
  row->frames = 1000 + clip;
  return row;
}

/* Up to four corpora of 2 to 9 speakers of unlike sizes; some rows cannot be used, some clips are there twice. */
static void make_random(ser_manifest *manifest, uint64_t seed, const char *prefix, bool duplicates) {
  uint64_t at = 0;
  ser_manifest_init(manifest);
  int corpora = 1 + (int)random_below(seed, at++, 4);
  for (int c = 0; c < corpora; c++) {
    int speakers = 2 + (int)random_below(seed, at++, 8);
    for (int s = 0; s < speakers; s++) {
      int clips = 8 + (int)random_below(seed, at++, 30);
      for (int k = 0; k < clips; k++) {
        ser_row *row = add_row(manifest, prefix, c, s, (int)random_below(seed, at++, 6), k);
        uint32_t lot = random_below(seed, at++, 20);
        if (lot == 0) row->status = SER_EXCLUDED;
        if (lot == 1) row->status = SER_FILTERED;
        if (lot == 2) row->status = SER_REFUSED;
        if (lot == 3) row->status = SER_NEW;
        if (lot > 4 || !duplicates || manifest->count < 2) continue;
        size_t other = manifest->count - 2 - random_below(seed, at++, manifest->count > 6 ? 5 : 1);
        row->hash = manifest->rows[other].hash;
        row->emotion = manifest->rows[other].emotion;
      }
    }
  }
}

static void reverse(ser_manifest *manifest) {
  for (size_t i = 0; i < manifest->count / 2; i++) {
    ser_row kept = manifest->rows[i];
    manifest->rows[i] = manifest->rows[manifest->count - 1 - i];
    manifest->rows[manifest->count - 1 - i] = kept;
  }
}

static ser_part part_at(const ser_split *split, int fold, size_t row) {
  return split->part[(size_t)fold * split->rows + row];
}

static bool any_speaker_on(const ser_split *split, const ser_manifest *manifest, int fold, const char *speaker,
                           ser_part part) {
  for (size_t i = 0; i < manifest->count; i++)
    if (part_at(split, fold, i) == part && !strcmp(manifest->rows[i].speaker, speaker)) return true;
  return false;
}

/* What every split must hold. */
static void check(const ser_split *split, const ser_manifest *manifest, const ser_config *config) {
  int folds = config->split.folds > 1 ? (int)config->split.folds : 1;
  bool by_speaker = config->split.kind == SER_SPLIT_SPEAKER;
  assert_int_equal(split->folds, folds);
  assert_int_equal(split->rows, manifest->count);
  for (int f = 0; f < folds; f++) {
    size_t counts[4] = {0};
    for (size_t i = 0; i < manifest->count; i++) {
      counts[part_at(split, f, i)]++;
      assert_int_equal(part_at(split, f, i) != SER_PART_NONE, ser_row_usable(manifest->rows + i));
      for (size_t k = i < 60 ? 0 : i - 60; k < i && part_at(split, f, i); k++) /* copies lie near by */
        if (part_at(split, f, k) && !ser_hash_compare(&manifest->rows[i].hash, &manifest->rows[k].hash))
          assert_int_equal(part_at(split, f, i), part_at(split, f, k));
    }
    assert_true(counts[SER_TRAIN] && counts[SER_VALIDATION] && counts[SER_TEST]);
    bool heard = false;
    for (size_t i = 0; i < manifest->count && by_speaker; i++) {
      const char *speaker = manifest->rows[i].speaker;
      if (i && !strcmp(speaker, manifest->rows[i - 1].speaker) && part_at(split, f, i) == part_at(split, f, i - 1))
        continue;
      if (part_at(split, f, i) == SER_TEST) {
        assert_false(any_speaker_on(split, manifest, f, speaker, SER_TRAIN));
        assert_false(any_speaker_on(split, manifest, f, speaker, SER_VALIDATION));
      }
      if (part_at(split, f, i) == SER_VALIDATION) heard |= any_speaker_on(split, manifest, f, speaker, SER_TRAIN);
    }
    if (heard) assert_non_null(strstr(split->notes.data, "Validation clips come from the training speakers"));
  }
  for (size_t i = 0; i < manifest->count && folds > 1; i++) {
    int tested = 0;
    for (int f = 0; f < folds; f++) tested += part_at(split, f, i) == SER_TEST;
    assert_int_equal(tested, ser_row_usable(manifest->rows + i));
  }
}

static void properties(void **state) {
  (void)state;
  static const char *const settings[] = {"split.kind=random", "split.kind=speaker", "split.folds=2", "split.folds=3"};
  for (uint64_t seed = 0; seed < 24; seed++) {
    ser_error err = {0};
    ser_manifest manifest, moved;
    ser_config config;
    make_random(&manifest, seed, "/here", seed % 3 == 1);
    make_random(&moved, seed, "/somewhere/else", seed % 3 == 1);
    reverse(&moved);
    for (int kind = 0; kind < 2; kind++)
      for (int folds = 1; folds < 4; folds++) {
        ser_split split, again;
        ser_config_init(&config);
        ASSERT_OK(ser_config_set(&config, settings[kind], &err), err);
        if (folds > 1) ASSERT_OK(ser_config_set(&config, settings[folds], &err), err);
        if (seed % 2) ASSERT_OK(ser_config_set(&config, "split.validation_by=clips", &err), err);
        config.split.seed = (int64_t)seed;
        ser_status status = ser_split_make(&split, &manifest, &config, &err);
        if (status == SER_USAGE && kind == 1 && folds == 3) { /* two speakers, or three that share audio */
          ser_config_free(&config);
          continue;
        }
        if (status == SER_FAILED && kind == 1 && strstr(err.text, "share audio")) {
          ser_config_free(&config);
          continue;
        }
        ASSERT_OK(status, err);
        check(&split, &manifest, &config);
        ASSERT_OK(ser_split_make(&again, &moved, &config, &err), err);
        for (int f = 0; f < folds; f++)
          for (size_t i = 0; i < manifest.count; i++)
            assert_int_equal(part_at(&split, f, i), part_at(&again, f, manifest.count - 1 - i));
        assert_string_equal(split.notes.data, again.notes.data);
        ser_split_free(&split);
        ser_split_free(&again);
        ser_config_free(&config);
      }
    ser_manifest_free(&manifest);
    ser_manifest_free(&moved);
  }
}

static void make_even(ser_manifest *manifest, int corpora, int speakers, int clips) {
  ser_manifest_init(manifest);
  for (int c = 0; c < corpora; c++)
    for (int s = 0; s < speakers; s++)
      for (int e = 0; e < 6; e++)
        for (int k = 0; k < clips; k++) add_row(manifest, "/d", c, s, e, k);
}

static void make_split(ser_split *split, const ser_manifest *manifest, const char *const *settings) {
  ser_error err = {0};
  ser_config config;
  ser_config_init(&config);
  for (; *settings; settings++) ASSERT_OK(ser_config_set(&config, *settings, &err), err);
  ASSERT_OK(ser_config_check(&config, &err), err);
  ASSERT_OK(ser_split_make(split, manifest, &config, &err), err);
  ser_config_free(&config);
}
#define SETTINGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void counts_match_the_fractions(void **state) {
  (void)state;
  for (uint64_t seed = 100; seed < 115; seed++) {
    ser_manifest manifest;
    ser_split split;
    size_t all = 0, test = 0, validation = 0;
    double strata[4][6][2] = {{{0}}};
    make_random(&manifest, seed, "/d", false);
    make_split(&split, &manifest, SETTINGS("split.test=0.23", "split.validation=0.11"));
    for (size_t i = 0; i < manifest.count; i++) {
      ser_part part = part_at(&split, 0, i);
      const ser_row *row = manifest.rows + i;
      all += part != SER_PART_NONE;
      test += part == SER_TEST;
      validation += part == SER_VALIDATION;
      strata[row->corpus[6] - '0'][row->emotion][0] += part != SER_PART_NONE;
      strata[row->corpus[6] - '0'][row->emotion][1] += part == SER_TEST;
    }
    assert_int_equal(test, llround(0.23 * (double)all));
    assert_int_equal(validation, llround(0.11 * (double)(all - test)));
    for (int c = 0; c < 4; c++)
      for (int e = 0; e < 6; e++) assert_true(fabs(strata[c][e][1] - 0.23 * strata[c][e][0]) < 1.1);
    ser_split_free(&split);
    ser_manifest_free(&manifest);
  }
}

static void folds_are_even(void **state) {
  (void)state;
  ser_manifest manifest;
  ser_split split;
  make_even(&manifest, 2, 9, 5); /* 5 female and 4 male speakers a corpus; 45 clips a stratum */
  make_split(&split, &manifest, SETTINGS("split.folds=4"));
  for (int f = 0; f < 4; f++) {
    int total = 0, strata[2][6] = {{0}};
    for (size_t i = 0; i < manifest.count; i++) {
      if (part_at(&split, f, i) != SER_TEST) continue;
      strata[manifest.rows[i].corpus[6] - '0'][manifest.rows[i].emotion]++;
      total++;
    }
    assert_int_equal(total, 540 / 4);
    for (int c = 0; c < 2; c++)
      for (int e = 0; e < 6; e++) assert_true(strata[c][e] == 11 || strata[c][e] == 12);
  }
  ser_split_free(&split);
  make_split(&split, &manifest, SETTINGS("split.folds=4", "split.kind=speaker"));
  for (int f = 0; f < 4; f++) {
    int speakers[2][2] = {{0}};
    for (size_t i = 0; i < manifest.count; i += 30) /* the first clip of each speaker */
      if (part_at(&split, f, i) == SER_TEST)
        speakers[manifest.rows[i].corpus[6] - '0'][!strcmp(manifest.rows[i].sex, "male")]++;
    for (int c = 0; c < 2; c++) {
      assert_int_equal(speakers[c][1], 1);
      assert_true(speakers[c][0] == 1 || speakers[c][0] == 2);
    }
  }
  ser_split_free(&split);
  ser_manifest_free(&manifest);
}

/* 24 speakers, half of them women: a fifth is 5, of both sexes. */
static void speakers_are_drawn_by_sex(void **state) {
  (void)state;
  ser_manifest manifest;
  ser_split split;
  make_even(&manifest, 1, 24, 2);
  make_split(&split, &manifest, SETTINGS("split.kind=speaker"));
  int test[2] = {0}, validation = 0;
  for (size_t i = 0; i < manifest.count; i += 12) {
    test[!strcmp(manifest.rows[i].sex, "male")] += part_at(&split, 0, i) == SER_TEST;
    validation += part_at(&split, 0, i) == SER_VALIDATION;
  }
  assert_int_equal(test[0] + test[1], 5);
  assert_true(test[0] == 2 || test[0] == 3);
  assert_int_equal(validation, 2);
  assert_non_null(strstr(split.notes.data, "No speaker of the test part is heard in training"));
  assert_null(strstr(split.notes.data, "Validation clips"));
  ser_split_free(&split);
  make_split(&split, &manifest, SETTINGS("split.kind=speaker", "split.validation_by=clips"));
  assert_non_null(strstr(split.notes.data, "Validation clips come from the training speakers."));
  ser_split_free(&split);
  ser_manifest_free(&manifest);
}

/* Trained on one, tested on the other: validation clips come from the one that is left. */
static void two_speakers(void **state) {
  (void)state;
  ser_manifest manifest;
  ser_split split;
  make_even(&manifest, 1, 2, 20);
  make_split(&split, &manifest, SETTINGS("split.kind=speaker", "split.test_speakers=[c0_s1]"));
  size_t counts[2][4] = {{0}};
  for (size_t i = 0; i < manifest.count; i++) counts[manifest.rows[i].speaker[4] - '0'][part_at(&split, 0, i)]++;
  assert_int_equal(counts[1][SER_TEST], 120);
  assert_int_equal(counts[0][SER_VALIDATION], 12);
  assert_int_equal(counts[0][SER_TRAIN], 108);
  assert_non_null(strstr(split.notes.data, "fewer than three speakers remain"));
  ser_split_free(&split);
  ser_manifest_free(&manifest);
}

/* With three speakers left beside the test part, validation speakers are apart; with two, they are not. */
static void three_speakers_are_the_limit(void **state) {
  (void)state;
  for (int speakers = 3; speakers <= 4; speakers++) {
    ser_manifest manifest;
    ser_split split;
    make_even(&manifest, 1, speakers, 4);
    make_split(&split, &manifest, SETTINGS("split.kind=speaker", "split.test_speakers=[c0_s0]"));
    bool shared = false;
    for (size_t i = 0; i < manifest.count; i++)
      if (part_at(&split, 0, i) == SER_VALIDATION)
        shared |= any_speaker_on(&split, &manifest, 0, manifest.rows[i].speaker, SER_TRAIN);
    assert_int_equal(shared, speakers == 3);
    ser_split_free(&split);
    ser_manifest_free(&manifest);
  }
}

/* A corpus of two speakers beside one of twelve: whole speakers alone validate, so one corpus does not, and half of the
 * small one is a large test part. Both are told. */
static void a_corpus_of_two_beside_a_large_one(void **state) {
  (void)state;
  ser_manifest manifest;
  ser_split split;
  ser_manifest_init(&manifest);
  for (int s = 0; s < 14; s++)
    for (int e = 0; e < 6; e++)
      for (int k = 0; k < (s < 2 ? 12 : 2); k++) add_row(&manifest, "/d", s < 2, s, e, k);
  make_split(&split, &manifest, SETTINGS("split.kind=speaker"));
  size_t validation[2] = {0}, test = 0;
  for (size_t i = 0; i < manifest.count; i++) {
    validation[manifest.rows[i].corpus[6] - '0'] += part_at(&split, 0, i) == SER_VALIDATION;
    test += part_at(&split, 0, i) == SER_TEST;
  }
  assert_true(validation[0] > 0 && validation[1] == 0);
  assert_int_equal(test, 72 + 2 * 12); /* one of two, two of twelve */
  assert_non_null(strstr(split.notes.data, "The epoch is chosen without corpus1: it stands in training, but not"));
  assert_non_null(
      strstr(split.made.data, "The test part holds 33.3% of the recordings, where split.test asks for 20.0%"));
  ser_split_free(&split);
  make_split(&split, &manifest, SETTINGS("split.kind=speaker", "split.validation_by=clips"));
  assert_null(strstr(split.notes.data, "chosen without"));
  ser_split_free(&split);
  ser_manifest_free(&manifest);
}

/* Speakers who share audio (kept by `audit: report`) and a speaker known by two names never stand on two sides. */
static void shared_audio_joins_speakers(void **state) {
  (void)state;
  ser_manifest manifest;
  ser_split split;
  make_even(&manifest, 1, 6, 4);
  ser_row *one = test_row(&manifest, "speaker0/0_0.wav"), *other = test_row(&manifest, "speaker1/0_0.wav");
  other->hash = one->hash;
  other->reason = SER_REASON_DUPLICATE;
  make_split(&split, &manifest, SETTINGS("split.kind=speaker", "split.test_speakers=[c0_s1]"));
  assert_true(any_speaker_on(&split, &manifest, 0, "c0_s0", SER_TEST));
  assert_false(any_speaker_on(&split, &manifest, 0, "c0_s0", SER_TRAIN));
  assert_non_null(strstr(split.made.data, "1 speaker shares audio with another and stands"));
  ser_split_free(&split);
  /* The same samples in other bytes: known by their reason, and by rate and length. */
  other->hash.bytes[0] ^= 0xff;
  other->frames = one->frames = 777;
  make_split(&split, &manifest, SETTINGS("split.kind=speaker", "split.test_speakers=[c0_s1]"));
  assert_true(any_speaker_on(&split, &manifest, 0, "c0_s0", SER_TEST));
  ser_split_free(&split);
  /* Both twice, byte for byte: that the copies explain each other does not hide what they are copies of. */
  ser_row *again = test_row(&manifest, "speaker0/0_1.wav"), *too = test_row(&manifest, "speaker1/0_1.wav");
  ser_hash hashes[] = {again->hash, too->hash};
  again->hash = one->hash;
  too->hash = other->hash;
  too->frames = again->frames = 777;
  too->reason = again->reason = SER_REASON_DUPLICATE;
  make_split(&split, &manifest, SETTINGS("split.kind=speaker", "split.test_speakers=[c0_s1]"));
  assert_true(any_speaker_on(&split, &manifest, 0, "c0_s0", SER_TEST));
  ser_split_free(&split);
  again->hash = hashes[0];
  too->hash = hashes[1];
  too->reason = again->reason = SER_REASON_NONE;
  other->reason = SER_REASON_NONE;
  make_split(&split, &manifest, SETTINGS("split.kind=speaker", "split.test_speakers=[c0_s1]"));
  assert_false(any_speaker_on(&split, &manifest, 0, "c0_s0", SER_TEST));
  ser_split_free(&split);
  ser_manifest_free(&manifest);
}

static void random_splits_say_that_speakers_overlap(void **state) {
  (void)state;
  ser_manifest manifest;
  ser_split split, other;
  make_even(&manifest, 1, 4, 10);
  make_split(&split, &manifest, SETTINGS("split.kind=random"));
  assert_non_null(strstr(split.notes.data, "Speakers overlap: 4 of the 4 speakers"));
  assert_non_null(strstr(split.notes.data, "Every sentence of the test part is spoken in training too (corpus0)"));
  make_split(&other, &manifest, SETTINGS("split.kind=random", "split.seed=2"));
  assert_memory_not_equal(split.part, other.part, split.rows * sizeof *split.part);
  ser_split_free(&split);
  ser_split_free(&other);
  ser_manifest_free(&manifest);
}

static void the_file_of_a_run_is_read_back(void **state) {
  (void)state;
  ser_error err = {0};
  char *folder = test_folder_make("splits"), *path = ser_path_join(folder, "split.csv");
  ser_manifest manifest;
  make_random(&manifest, 5, "/a, \"b\"", false);
  static const char *const kinds[] = {"split.kind=random", "split.kind=speaker"};
  for (int k = 0; k < 2; k++)
    for (int folds = 0; folds < 2; folds++) {
      ser_split made, back;
      ser_text text = {0}, again = {0};
      make_split(&made, &manifest, SETTINGS(kinds[k], folds ? "split.folds=2" : "split.folds=0"));
      ser_split_text(&text, &made, &manifest);
      test_put_text(folder, "split.csv", text.data);
      ASSERT_OK(ser_split_read(&back, &manifest, path, &err), err);
      assert_int_equal(back.folds, made.folds);
      assert_memory_equal(back.part, made.part, (size_t)made.folds * made.rows * sizeof *made.part);
      ser_split_text(&again, &back, &manifest);
      assert_string_equal(text.data, again.data);
      assert_string_equal(back.notes.data, made.notes.data);
      free(text.data);
      free(again.data);
      ser_split_free(&made);
      ser_split_free(&back);
    }
  ser_split back;
  test_put_text(folder, "split.csv", "path,part,fold\n/not/there.wav,train,0\n");
  assert_int_equal(ser_split_read(&back, &manifest, path, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "split.csv: line 2: the path '/not/there.wav' is not in the manifest"));
  ser_manifest_free(&manifest);
  free(path);
  test_folder_remove(folder);
}

/* A published list: folds by number, paths below a folder that it does not know, no validation part. */
static void given_splits(void **state) {
  (void)state;
  ser_error err = {0};
  char *folder = test_folder_make("given"), *path = ser_path_join(folder, "list.csv");
  char *setting = ser_format("split.file=%s", path);
  ser_manifest manifest;
  ser_split split;
  ser_text list = {0};
  make_even(&manifest, 1, 4, 3);
  manifest.rows[0].status = SER_EXCLUDED;
  ser_text_puts(&list, "fold,part,path\n");
  for (int fold = 1; fold <= 2; fold++)
    for (size_t i = 0; i < manifest.count - 1; i++) {
      int speaker = manifest.rows[i].speaker[4] - '0';
      ser_text_printf(&list, "%d,%s,%s\n", fold * 10, speaker / 2 == fold - 1 ? "Test" : "train",
                      manifest.rows[i].path + strlen("/d/corpus0/"));
    }
  ser_text_puts(&list, "10,train,speaker9/0_0.wav\n");
  test_put_text(folder, "list.csv", list.data);
  make_split(&split, &manifest, SETTINGS("split.kind=file", setting));
  assert_int_equal(split.folds, 2);
  for (int f = 0; f < 2; f++) {
    size_t counts[4] = {0};
    for (size_t i = 0; i < manifest.count; i++) {
      counts[part_at(&split, f, i)]++;
      int speaker = manifest.rows[i].speaker[4] - '0';
      if (i > 0 && i + 1 < manifest.count) assert_int_equal(part_at(&split, f, i) == SER_TEST, speaker / 2 == f);
    }
    assert_int_equal(counts[SER_PART_NONE], 2); /* the excluded one, and the one that is not listed */
    assert_true(counts[SER_VALIDATION] == 3 || counts[SER_VALIDATION] == 4);
  }
  assert_non_null(strstr(split.made.data, "1 line of list.csv names a recording that the manifest does not have"));
  assert_non_null(strstr(split.made.data, "2 lines of list.csv name recordings that are filtered, excluded"));
  assert_non_null(strstr(split.made.data, "list.csv names no validation part of some folds: "));
  assert_non_null(strstr(split.notes.data, "Left out: 1 of the 71 usable recordings stands in no part of the split"));
  assert_int_equal(split.idle, 1);
  assert_non_null(strstr(split.notes.data, "No speaker of the test part is heard"));
  ser_split_free(&split);

  const struct {
    const char *text, *words;
  } wrong[] = {
      {"path,part\nspeaker1/0_0.wav,learn\n", "line 2: the part 'learn' is none of train"},
      {"path,fold\nspeaker1/0_0.wav,1\n", "line 1: the columns path and part were expected"},
      {"path,part,fold\nspeaker1/0_0.wav,train,one\n", "line 2: the fold 'one' is no whole number"},
      {"path,part\nspeaker1/0_0.wav,train\nspeaker1/0_0.wav,test\n",
       "line 3: the path '/d/corpus0/speaker1/0_0.wav' has"},
      {"path,part\nspeaker1/0_0.wav,train\n", "no usable recording of the part test"},
      {"path,part\nspeaker1/0_0.wav,test\n", "no usable recording of the part train"},
      {"path,part\n", "lists no recordings"},
      {"path,part\n0_0.wav,test\n", "line 2: 0_0.wav may be /d/corpus0/speaker"},
  };
  ser_config config;
  ser_config_init(&config);
  ASSERT_OK(ser_config_set(&config, "split.kind=file", &err), err);
  ASSERT_OK(ser_config_set(&config, setting, &err), err);
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    test_put_text(folder, "list.csv", wrong[i].text);
    assert_int_equal(ser_split_make(&split, &manifest, &config, &err),
                     strstr(wrong[i].words, "were expected") ? SER_USAGE : SER_FAILED);
    if (!strstr(err.text, wrong[i].words)) fail_msg("%zu: %s", i, err.text);
    assert_null(split.part);
  }
  ser_config_free(&config);
  free(list.data);
  free(setting);
  free(path);
  ser_manifest_free(&manifest);
  test_folder_remove(folder);
}

static void impossible_splits_are_named(void **state) {
  (void)state;
  ser_manifest even, one, none;
  make_even(&even, 1, 2, 1);
  make_even(&one, 1, 1, 2);
  make_even(&none, 1, 1, 1);
  for (size_t i = 0; i < none.count; i++) none.rows[i].status = SER_REFUSED;
  const struct {
    const ser_manifest *manifest;
    const char *setting;
    ser_status status;
    const char *words;
  } cases[] = {
      {&none, "split.kind=random", SER_FAILED, "no usable recording: all 6 are"},
      {&one, "split.kind=speaker", SER_FAILED, "needs at least two speakers"},
      {&even, "split.folds=3", SER_USAGE, "only 2 speakers"},
      {&even, "split.test_speakers=[anna]", SER_USAGE, "has the speaker anna; there are c0_s0, c0_s1"},
      {&even, "split.test_speakers=[c0_s0, c0_s1]", SER_USAGE, "takes every speaker"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    ser_error err = {0};
    ser_config config;
    ser_split split;
    ser_config_init(&config);
    ASSERT_OK(ser_config_set(&config, "split.kind=speaker", &err), err);
    ASSERT_OK(ser_config_set(&config, cases[i].setting, &err), err);
    assert_int_equal(ser_split_make(&split, cases[i].manifest, &config, &err), cases[i].status);
    if (!strstr(err.text, cases[i].words)) fail_msg("%zu: %s", i, err.text);
    assert_null(split.part);
    ser_config_free(&config);
  }
  ser_manifest_free(&even);
  ser_manifest_free(&one);
  ser_manifest_free(&none);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(properties),
      cmocka_unit_test(counts_match_the_fractions),
      cmocka_unit_test(folds_are_even),
      cmocka_unit_test(speakers_are_drawn_by_sex),
      cmocka_unit_test(two_speakers),
      cmocka_unit_test(three_speakers_are_the_limit),
      cmocka_unit_test(a_corpus_of_two_beside_a_large_one),
      cmocka_unit_test(shared_audio_joins_speakers),
      cmocka_unit_test(random_splits_say_that_speakers_overlap),
      cmocka_unit_test(the_file_of_a_run_is_read_back),
      cmocka_unit_test(given_splits),
      cmocka_unit_test(impossible_splits_are_named),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
