/* ZIP archives: what PyTorch's may look like, and what is refused by an entry's name. */
#include <stdlib.h>
#include <string.h>

#include "support/harness.h"
#include "support/pytorch.h"

static const float numbers[6] = {1, 2, 3, 4, 5, 6};

static ser_text table(void) {
  static const int64_t shape[] = {6};
  const test_pickled tensor = {"w", "FloatStorage", "0", 6, 0, 1, shape, NULL};
  ser_text pickle = {0};
  test_pickle_begin(&pickle);
  test_pickle_tensor(&pickle, &tensor, false);
  test_pickle_end(&pickle);
  return pickle;
}

static void expect(test_zip *zip, const char *named) {
  ser_error err = {0};
  test_zip_end(zip);
  ser_status status = test_weights_try(zip->bytes.data, zip->bytes.size, &err);
  if (!named && status != SER_OK) fail_msg("refused: %s", err.text);
  if (named && status == SER_OK) fail_msg("taken, where \"%s\" should be told", named);
  if (named && !strstr(err.text, named)) fail_msg("\"%s\" does not tell \"%s\"", err.text, named);
  free(zip->bytes.data);
  *zip = (test_zip){0};
}

static void add_table(test_zip *zip, const char *name) {
  ser_text pickle = table();
  test_zip_add(zip, name, pickle.data, pickle.size);
  free(pickle.data);
}

static void test_forms(void **state) {
  (void)state;
  for (int form = 0; form < 4; form++) {
    test_zip zip = {.wide = form & 1, .described = form & 2};
    add_table(&zip, "any name/data.pkl");
    test_zip_add(&zip, "any name/data/0", numbers, sizeof numbers);
    expect(&zip, NULL);
  }
  test_zip zip = {0};
  test_zip_add(&zip, "a/data/0", numbers, sizeof numbers); /* the order does not matter, nor what else there is */
  test_zip_add(&zip, "a/.data/serialization_id", "12", 2);
  test_zip_add(&zip, "a/code/x.py", "import os", 9);
  add_table(&zip, "a/data.pkl");
  expect(&zip, NULL);
}

static void test_records(void **state) {
  static const struct {
    const char *name, *content, *named;
  } rows[] = {{"a/byteorder", "little", NULL},
              {"a/byteorder", "big", "big-endian"},
              {"a/version", "3\n", NULL},
              {"a/version", "10", NULL},
              {"a/version", "11", "newer than this program knows"},
              {"a/version", "x", "its version is no number"},
              {"a/version", "-1", "its version is no number"},
              {"a/version", "999999999999999999999999", "newer than this program knows"},
              {"a/constants.pkl", "", "is a TorchScript program"}};
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_zip zip = {0};
    add_table(&zip, "a/data.pkl");
    test_zip_add(&zip, "a/data/0", numbers, sizeof numbers);
    test_zip_add(&zip, rows[i].name, rows[i].content, strlen(rows[i].content));
    expect(&zip, rows[i].named);
  }
  test_zip zip = {0};
  test_zip_add(&zip, "a/readme.txt", "x", 1);
  expect(&zip, "holds no data.pkl");
  test_zip_add(&zip, "data.pkl", "N.", 2);
  expect(&zip, "holds no data.pkl");
  test_zip_add(&zip, "a/data.pkl", "\x80\2N.", 4);
  expect(&zip, "holds no table of tensors");
  test_zip_add(&zip, "a/data.pkl", "\x80\2}X\5\0\0\0modelNs.", 16);
  expect(&zip, "holds no table of tensors");
}

/* One entry is not what it should be: the storage, then the pickle. */
static void test_entries(void **state) {
  static const struct {
    int method, flags;
    long long shift, grow;
    const char *local, *named;
  } rows[] = {{8, 0, 0, 0, NULL, "is compressed, which PyTorch never does"},
              {0, 1, 0, 0, NULL, "is encrypted"},
              {0, 0, 4, 0, NULL, "is not where the directory says"},
              {0, 0, 1 << 20, 0, NULL, "lies outside of the file"},
              {0, 0, 0xffffff00, 0, NULL, "lies outside of the file"},
              {0, 0, 0, 1 << 20, NULL, "lies outside of the file"},
              {0, 0, 0, 0, "a/other", "has another name in its own header"}};
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    for (int bad = 0; bad < 2; bad++)
      for (int form = 0; form < 4; form++) {
        test_zip zip = {.wide = form & 1, .described = form & 2};
        for (int k = 0; k < 2; k++) {
          if (k == bad) {
            zip.method = rows[i].method;
            zip.flags = rows[i].flags;
            zip.shift = rows[i].shift;
            zip.grow = rows[i].grow;
            zip.local_name = rows[i].local;
          }
          if (k) {
            add_table(&zip, "a/data.pkl");
          } else {
            test_zip_add(&zip, "a/data/0", numbers, sizeof numbers);
          }
        }
        char *named = ser_format("its entry %s %s", bad ? "a/data.pkl" : "a/data/0", rows[i].named);
        expect(&zip, named);
        free(named);
      }
  test_zip zip = {0};
  add_table(&zip, "a/data.pkl");
  test_zip_add(&zip, "a/data/0", numbers, sizeof numbers);
  test_zip_add(&zip, "a/data/0", numbers, sizeof numbers);
  expect(&zip, "its entry a/data/0 is there twice");
  add_table(&zip, "a/data.pkl");
  test_zip_add(&zip, "a/data/0", numbers, sizeof numbers - 4);
  expect(&zip, "its tensor w reaches beyond its storage");
}

/* The records at the end, field by field. */
static void test_directory(void **state) {
  static const struct {
    bool wide;
    int back; /* from the end */
    unsigned char bytes[8];
    int width;
    const char *named;
  } rows[] = {
      {false, 22, {0}, 1, "ends without a directory"},
      {false, 2, {1}, 1, "ends without a directory"}, /* a comment that is not there */
      {false, 12, {3}, 1, "directory"},               /* entries */
      {false, 12, {255, 255}, 2, "shorter than its entries"},
      {false, 10, {255, 255, 255, 127}, 4, "lies outside of it"},
      {false, 6, {255, 255, 255, 127}, 4, "lies outside of it"},
      {false, 6, {0, 0, 0, 0}, 4, "its directory is damaged"},
      {true, 34, {255, 255, 255, 255, 255, 255, 255, 255}, 8, "ZIP64 record is not where it says"},
      {true, 34, {1, 0, 0, 0, 0, 0, 0, 0}, 8, "ZIP64 record is not where it says"},
      {true, 98 - 32, {255, 255, 255, 255, 255, 255, 255, 255}, 8, "shorter than its entries"},
      {true, 98 - 40, {255, 255, 255, 255, 255, 255, 255, 255}, 8, "lies outside of it"},
      {true, 98 - 48, {255, 255, 255, 255, 255, 255, 255, 255}, 8, "lies outside of it"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_zip zip = {.wide = rows[i].wide};
    ser_error err = {0};
    add_table(&zip, "a/data.pkl");
    test_zip_add(&zip, "a/data/0", numbers, sizeof numbers);
    test_zip_end(&zip);
    memcpy(zip.bytes.data + zip.bytes.size - rows[i].back, rows[i].bytes, (size_t)rows[i].width);
    if (test_weights_try(zip.bytes.data, zip.bytes.size, &err) == SER_OK) fail_msg("row %zu is taken", i);
    if (!strstr(err.text, rows[i].named)) fail_msg("row %zu: \"%s\" does not tell \"%s\"", i, err.text, rows[i].named);
    free(zip.bytes.data);
  }
}

/* Anything may stand in names and comments. */
static void test_comment(void **state) {
  ser_error err = {0};
  test_zip zip = {0};
  (void)state;
  add_table(&zip, "a/data.pkl");
  test_zip_add(&zip, "a/data/0", numbers, sizeof numbers);
  test_zip_end(&zip);
  zip.bytes.data[zip.bytes.size - 2] = 31;
  ser_text_puts(&zip.bytes, "PK\5\6 a comment of some 30 bytes");
  ASSERT_OK(test_weights_try(zip.bytes.data, zip.bytes.size, &err), err);
  free(zip.bytes.data);
  zip = (test_zip){0};
  add_table(&zip, "a/data.pkl");
  zip.method = 8;
  test_zip_add(&zip, "a/data/0\n\x1b[31m", numbers, sizeof numbers);
  expect(&zip, "names the storage 0, which is not there");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_forms), cmocka_unit_test(test_records),
                                     cmocka_unit_test(test_entries), cmocka_unit_test(test_directory),
                                     cmocka_unit_test(test_comment)};
  return cmocka_run_group_tests_name("unit.weights_zip", tests, NULL, NULL);
}
