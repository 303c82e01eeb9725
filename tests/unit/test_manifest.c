/* The manifest as a file: what is written comes back, whatever the texts; wrong cells are named. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "corpus/loader.h"
#include "support/recordings.h"

static const char header[] = "path,corpus,speaker,sex,emotion,intensity,statement,rate,channels,frames,seconds,size,"
                             "mtime_ns,hash,status,reason";

static char *folder;

static int make_folder(void **state) {
  (void)state;
  folder = test_folder_make("manifest");
  return 0;
}

static int remove_folder(void **state) {
  (void)state;
  test_folder_remove(folder);
  return 0;
}

static void set(char **text, const char *value) {
  free(*text);
  *text = ser_strdup(value);
}

/* Rows with the texts, numbers, statuses and reasons that are hard on a CSV. */
static void fill(ser_manifest *manifest) {
  static const char *const texts[] = {
      "plain", "", "a,b", "say \"hello\"", "two\nlines", "\xc3\xa4\xe2\x82\xac", " space ", "1e5", "\r", "'"};
  ser_manifest_init(manifest);
  manifest->extra_columns = 2;
  manifest->extra_names = ser_alloc_zero(2, sizeof *manifest->extra_names);
  manifest->extra_names[0] = ser_strdup("take, number");
  manifest->extra_names[1] = ser_strdup("remark");
  for (int i = 0; i < 60; i++) {
    char *path = ser_format("/data/%s/%d.wav", texts[i % 10], i);
    ser_row *row = manifest_add(manifest, path);
    free(path);
    set(&row->corpus, texts[(i + 3) % 10]);
    set(&row->speaker, texts[(i + 1) % 10]);
    set(&row->statement, texts[(i + 7) % 10]);
    set(&row->sex, i % 3 == 0 ? "male" : i % 3 == 1 ? "female" : "");
    row->emotion = i % SER_EMOTIONS;
    row->status = (ser_row_status)(i % 5);
    row->reason = (ser_reason)(i % SER_REASON_TOO_SHORT);
    row->unjudged = row->status == SER_FILTERED && row->reason == SER_REASON_NONE && i % 2;
    row->extra = ser_alloc_zero(2, sizeof *row->extra);
    row->extra[0] = ser_strdup(texts[(i + 2) % 10]);
    row->extra[1] = ser_strdup(texts[(i + 5) % 10]);
    if (i % 7 == 0) continue; /* a file that was not there: no numbers */
    row->rate = 8000 + i;
    row->channels = 1 + i % 2;
    row->frames = (int64_t)1 << (i % 40);
    row->seconds = (double)row->frames / row->rate;
    row->size = row->frames + 44;
    row->mtime_ns = i % 2 ? 1700000000123456789 + i : -5 - i;
    row->hash = ser_hash_bytes(&i, sizeof i);
  }
}

static void assert_same(const ser_manifest *a, const ser_manifest *b) {
  assert_int_equal(a->count, b->count);
  assert_int_equal(a->extra_columns, b->extra_columns);
  for (size_t i = 0; i < a->count; i++) {
    const ser_row *x = a->rows + i, *y = b->rows + i;
    assert_string_equal(x->path, y->path);
    assert_string_equal(x->corpus, y->corpus);
    assert_string_equal(x->speaker, y->speaker);
    assert_string_equal(x->sex, y->sex);
    assert_string_equal(x->intensity, y->intensity);
    assert_string_equal(x->statement, y->statement);
    assert_int_equal(x->emotion, y->emotion);
    assert_int_equal(x->rate, y->rate);
    assert_int_equal(x->channels, y->channels);
    assert_int_equal(x->frames, y->frames);
    assert_true(x->seconds == y->seconds);
    assert_int_equal(x->size, y->size);
    assert_int_equal(x->mtime_ns, y->mtime_ns);
    assert_memory_equal(&x->hash, &y->hash, sizeof x->hash);
    assert_int_equal(x->status, y->status);
    assert_int_equal(x->reason, y->reason);
    assert_int_equal(x->unjudged, y->unjudged);
    for (size_t c = 0; c < a->extra_columns; c++) assert_string_equal(x->extra[c], y->extra[c]);
  }
}

static void written_is_read(void **state) {
  (void)state;
  ser_error err = {0};
  ser_manifest made, back;
  ser_text first = {0}, second = {0};
  char *path = ser_path_join(folder, "manifest.csv");
  fill(&made);
  ASSERT_OK(ser_manifest_write(&made, path, &err), err);
  ASSERT_OK(ser_manifest_read(&back, path, &err), err);
  assert_same(&made, &back);
  ser_manifest_text(&first, &made);
  ser_manifest_text(&second, &back);
  assert_string_equal(first.data, second.data);
  assert_memory_equal(first.data, header, strlen(header));
  assert_true(first.data[strlen(header)] == ',');
  free(first.data);
  free(second.data);
  ser_manifest_free(&made);
  ser_manifest_free(&back);
  free(path);
}

/* Columns in another order, and others among them. */
static void columns_are_found_by_name(void **state) {
  (void)state;
  ser_error err = {0};
  ser_manifest back;
  test_put_text(folder, "order.csv",
                "room,reason,status,hash,mtime_ns,size,seconds,frames,channels,rate,statement,intensity,emotion,sex,"
                "speaker,corpus,path\r\nA,,new,,,,,,,,,,sad,,x,y,/a.wav\r\n");
  char *path = ser_path_join(folder, "order.csv");
  ASSERT_OK(ser_manifest_read(&back, path, &err), err);
  assert_int_equal(back.count, 1);
  assert_string_equal(back.rows[0].path, "/a.wav");
  assert_int_equal(back.rows[0].emotion, SER_SAD);
  assert_int_equal(back.rows[0].rate, -1);
  assert_string_equal(back.rows[0].extra[0], "A");
  assert_string_equal(back.extra_names[0], "room");
  ser_manifest_free(&back);
  free(path);
}

static void wrong_cells_are_named(void **state) {
  (void)state;
  static const char fine[] = "/a.wav,c,s,male,sad,,,8000,1,4,0.5,52,7,00112233445566778899aabbccddeeff,ok,";
  const struct {
    const char *line, *words;
  } cases[] = {
      {"a.wav,c,s,male,sad,,,8000,1,4,0.5,52,7,,ok,", "column path is 'a.wav'"},
      {",c,s,male,sad,,,8000,1,4,0.5,52,7,,ok,", "column path"},
      {"/a.wav,c,s,man,sad,,,8000,1,4,0.5,52,7,,ok,", "column sex is 'man'"},
      {"/a.wav,c,s,male,sadness,,,8000,1,4,0.5,52,7,,ok,", "column emotion is 'sadness': one of neutral, happy"},
      {"/a.wav,c,s,male,sad,,,8k,1,4,0.5,52,7,,ok,", "column rate is '8k'"},
      {"/a.wav,c,s,male,sad,,,8000,-2,4,0.5,52,7,,ok,", "column channels is '-2'"},
      {"/a.wav,c,s,male,sad,,,8000,1,4.5,0.5,52,7,,ok,", "column frames is '4.5'"},
      {"/a.wav,c,s,male,sad,,,8000,1,4,nan,52,7,,ok,", "column seconds is 'nan'"},
      {"/a.wav,c,s,male,sad,,,8000,1,4,0.5,99999999999999999999,7,,ok,", "column size"},
      {"/a.wav,c,s,male,sad,,,8000,1,4,0.5,52,x,,ok,", "column mtime_ns is 'x'"},
      {"/a.wav,c,s,male,sad,,,8000,1,4,0.5,52,7,0011,ok,", "column hash is '0011'"},
      {"/a.wav,c,s,male,sad,,,8000,1,4,0.5,52,7,,fine,", "column status is 'fine': one of new, ok"},
      {"/a.wav,c,s,male,sad,,,8000,1,4,0.5,52,7,,ok,loud", "column reason is 'loud'"},
      {"/a.wav,c,s,male,sad,,,8000,1,4,0.5,52,7,,ok,new", "column reason is 'new'"}, /* but for what is filtered */
      {"/a.wav,c,s,male,sad,,,8000,1,4,0.5,52,7,,ok,too_short", "column reason is 'too_short'"},
  };
  char *path = ser_path_join(folder, "wrong.csv");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    ser_error err = {0};
    ser_manifest back;
    char *text = ser_format("%s\n%s\n%s\n", header, fine, cases[i].line);
    test_put_text(folder, "wrong.csv", text);
    assert_int_equal(ser_manifest_read(&back, path, &err), SER_FAILED);
    if (!strstr(err.text, cases[i].words) || !strstr(err.text, "wrong.csv: line 3: ")) fail_msg("%zu: %s", i, err.text);
    free(text);
  }
  ser_error err = {0};
  ser_manifest back;
  test_put_text(folder, "wrong.csv", "path,emotion\n/a.wav,sad\n");
  assert_int_equal(ser_manifest_read(&back, path, &err), SER_USAGE);
  assert_non_null(strstr(err.text, "the column corpus is missing"));
  char *twice = ser_format("%s\n%s\n%s\n", header, fine, fine);
  test_put_text(folder, "wrong.csv", twice);
  assert_int_equal(ser_manifest_read(&back, path, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "wrong.csv lists /a.wav twice; keep one line"));
  free(twice);
  free(path);
}

static void emotions_are_spelled_in_many_ways(void **state) {
  (void)state;
  const struct {
    const char *name;
    int emotion;
  } cases[] = {{"neutral", SER_NEUTRAL},
               {"Happiness", SER_HAPPY},
               {"SAD", SER_SAD},
               {"anger", SER_ANGRY},
               {"Fear", SER_FEARFUL},
               {"disgusted", SER_DISGUST},
               {"calm", SER_CALM},
               {"ps", SER_SURPRISED},
               {"pleasant surprise", SER_SURPRISED},
               {"", -1},
               {"bored", -1},
               {"Pleasant-Surprised", SER_SURPRISED},
               {"happyy", -1},
               {"neutral and much more than any name may hold", -1}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    assert_int_equal(ser_emotion_parse(cases[i].name), cases[i].emotion);
  for (int i = 0; i < SER_EMOTIONS; i++) assert_int_equal(ser_emotion_parse(ser_emotion_names[i]), i);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(written_is_read),
      cmocka_unit_test(columns_are_found_by_name),
      cmocka_unit_test(wrong_cells_are_named),
      cmocka_unit_test(emotions_are_spelled_in_many_ways),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
