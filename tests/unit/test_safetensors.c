/* Safetensors: what is written is read back, the bytes are those of the format, and what is malformed is refused by
 * name. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/philox.h"
#include "model/safetensors.h"
#include "support/harness.h"

static const float numbers[6] = {1, -2.5f, 3e-39f, 3e38f, 0, -0.0f};
static const int64_t whole[2] = {-1, INT64_MAX};

static ser_tensor tensor_of(const char *name, const char *dtype, const void *data, size_t bytes, int dimensions,
                            int64_t a, int64_t b) {
  ser_tensor t = {.name = (char *)name, .dimensions = dimensions, .shape = {a, b}, .data = data, .bytes = bytes};
  snprintf(t.dtype, sizeof t.dtype, "%s", dtype);
  return t;
}

static void write_sample(ser_text *out) {
  const ser_tensor tensors[] = {
      tensor_of("weights", "F32", numbers, sizeof numbers, 2, 2, 3),
      tensor_of("none", "F32", NULL, 0, 2, 0, 5),
      tensor_of("scalar", "F32", numbers + 1, 4, 0, 0, 0),
      tensor_of("wide \"quoted\" \xc3\xa9", "I64", whole, sizeof whole, 1, 2, 0),
  };
  static const char *const keys[] = {"labels", "note"}, *const values[] = {"[\"sad\",\"angry\"]", "line\nend \\"};
  ser_tensors_text(out, tensors, 4, keys, values, 2);
}

static void test_round_trip(void **state) {
  ser_error err = {0};
  ser_text text = {0}, again = {0};
  ser_tensors got;
  (void)state;
  char *folder = test_folder_make("safetensors"), *path = ser_path_join(folder, "a.safetensors");
  write_sample(&text);
  write_sample(&again);
  assert_int_equal(text.size, again.size);
  assert_memory_equal(text.data, again.data, text.size);
  ASSERT_OK(ser_file_write(path, text.data, text.size, &err), err);
  ASSERT_OK(ser_tensors_read(&got, path, &err), err);
  assert_int_equal(got.count, 4);
  assert_int_equal(got.metadata_count, 2);
  assert_string_equal(ser_tensors_metadata(&got, "labels"), "[\"sad\",\"angry\"]");
  assert_string_equal(ser_tensors_metadata(&got, "note"), "line\nend \\");
  assert_null(ser_tensors_metadata(&got, "other"));
  const ser_tensor *w = ser_tensors_find(&got, "weights");
  assert_non_null(w);
  assert_int_equal(w->dimensions, 2);
  assert_int_equal(w->shape[0], 2);
  assert_int_equal(w->shape[1], 3);
  assert_int_equal((size_t)((const char *)w->data - got.file) % 8, 0);
  assert_memory_equal(w->data, numbers, sizeof numbers);
  assert_int_equal(ser_tensors_find(&got, "none")->bytes, 0);
  assert_int_equal(ser_tensors_find(&got, "scalar")->dimensions, 0);
  assert_memory_equal(ser_tensors_find(&got, "wide \"quoted\" \xc3\xa9")->data, whole, sizeof whole);
  assert_null(ser_tensors_find(&got, "weight"));
  ser_tensors_free(&got);
  free(text.data);
  free(again.data);
  free(path);
  test_folder_remove(folder);
}

/* The bytes of one small file, written out by hand from the format's description. */
static void test_exact_bytes(void **state) {
  static const char header[] = "{\"__metadata__\":{\"k\":\"v\"},\"x\":{\"dtype\":\"U8\",\"shape\":[3],"
                               "\"data_offsets\":[0,3]}}";
  ser_text text = {0};
  const ser_tensor tensor = tensor_of("x", "U8", "abc", 3, 1, 3, 0);
  static const char *const key[] = {"k"}, *const value[] = {"v"};
  (void)state;
  ser_tensors_text(&text, &tensor, 1, key, value, 1);
  size_t padded = (sizeof header - 1 + 7) / 8 * 8;
  assert_int_equal(text.size, 8 + padded + 3);
  assert_int_equal((unsigned char)text.data[0], padded);
  for (int i = 1; i < 8; i++) assert_int_equal(text.data[i], 0);
  assert_memory_equal(text.data + 8, header, sizeof header - 1);
  for (size_t i = sizeof header - 1; i < padded; i++) assert_int_equal(text.data[8 + i], ' ');
  assert_memory_equal(text.data + 8 + padded, "abc", 3);
  free(text.data);
}

/* ---- what is malformed ------------------------------------------------------------------------------------------- */

static ser_status read_bytes(const char *bytes, size_t size, ser_error *err) {
  ser_tensors got;
  ser_error written = {0};
  char *folder = test_folder_make("safetensors"), *path = ser_path_join(folder, "bad.safetensors");
  ASSERT_OK(ser_file_write(path, bytes, size, &written), written);
  ser_status status = ser_tensors_read(&got, path, err);
  if (status == SER_OK) {
    ser_tensors_free(&got);
  } else {
    assert_non_null(strstr(err->text, path));
    assert_null(strchr(err->text, '\n'));
    assert_null(got.file);
  }
  free(path);
  test_folder_remove(folder);
  return status;
}

static ser_status read_header(const char *header, size_t data, ser_error *err) {
  ser_text text = {0};
  char zeros[64] = {0}, length[8] = {0};
  length[0] = (char)(strlen(header) & 255);
  length[1] = (char)(strlen(header) >> 8);
  ser_text_add(&text, length, 8);
  ser_text_puts(&text, header);
  ser_text_add(&text, zeros, data);
  ser_status status = read_bytes(text.data, text.size, err);
  free(text.data);
  return status;
}

#define X "\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"

static void test_malformed(void **state) {
  static const struct {
    const char *header;
    size_t data;
    const char *named; /* NULL: it is sound */
  } table[] = {
      {"{" X "}", 8, NULL},
      {"{}", 0, NULL},
      {"{" X "}   ", 8, NULL},
      {"{" X "}", 7, "outside"},
      {"{" X "}", 9, "behind the last"},
      {"{}", 1, "behind the last"},
      {"[]", 0, "object"},
      {" {}", 0, "object"},
      {"{", 0, "no JSON"},
      {"", 0, "no JSON"},
      {"{" X "," X "}", 8, "no JSON"},
      {"{\"x\":1}", 0, "no tensor"},
      {"{\"__metadata__\":[]}", 0, "__metadata__"},
      {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__"},
      {"{\"x\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype"},
      {"{\"x\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype"},
      {"{\"x\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype"},
      {"{\"x\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "shape"},
      {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8, "shape"},
      {"{\"x\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "shape"},
      {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "shape"},
      {"{\"x\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,2],\"data_offsets\":[0,8]}}", 8, "shape"},
      {"{\"x\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "takes 12 bytes"},
      {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "outside"},
      {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "outside"},
      {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "outside"},
      {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "outside"},
      {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "gap"},
      {"{" X ",\"y\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "overlap"},
      {"{" X ",\"y\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "overlap"},
      {"{" X ",\"y\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}", 16, "gap"},
      {"{" X ",\"y\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", 8, NULL},
      {"{" X ",\"y\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[8,8]}}", 8, NULL},
      {"{" X ",\"y\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[4,4]}}", 8, "gap"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    ser_error err = {0};
    ser_status status = read_header(table[i].header, table[i].data, &err);
    if (!table[i].named && status != SER_OK) fail_msg("refused: %s: %s", table[i].header, err.text);
    if (table[i].named && status == SER_OK) fail_msg("taken: %s", table[i].header);
    if (table[i].named && !strstr(err.text, table[i].named))
      fail_msg("%s: \"%s\" does not name %s", table[i].header, err.text, table[i].named);
  }
}

static void test_cut_and_flipped(void **state) {
  ser_text text = {0};
  (void)state;
  write_sample(&text);
  for (size_t size = 0; size < text.size; size += size < 16 ? 1 : 13) {
    ser_error err = {0};
    assert_int_equal(read_bytes(text.data, size, &err), SER_FAILED);
  }
  static const unsigned char huge[16] = {255, 255, 255, 255, 255, 255, 255, 255, '{', '}'};
  ser_error err = {0};
  assert_int_equal(read_bytes((const char *)huge, sizeof huge, &err), SER_FAILED);
  /* A flipped byte may leave the file sound; it must never lead out of it (the sanitizers watch). */
  for (uint64_t i = 0; i < 300; i++) {
    ser_philox random = ser_philox_at(5, 0, i);
    size_t at = random.v[0] % text.size;
    char before = text.data[at];
    text.data[at] = (char)random.v[1];
    read_bytes(text.data, text.size, &err);
    text.data[at] = before;
  }
  free(text.data);
}

static void test_missing(void **state) {
  ser_error err = {0};
  ser_tensors got;
  (void)state;
  assert_int_equal(ser_tensors_read(&got, "/nowhere/a.safetensors", &err), SER_FAILED);
  assert_non_null(strstr(err.text, "/nowhere/a.safetensors"));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_exact_bytes),
                                     cmocka_unit_test(test_malformed), cmocka_unit_test(test_cut_and_flipped),
                                     cmocka_unit_test(test_missing)};
  return cmocka_run_group_tests_name("unit.safetensors", tests, NULL, NULL);
}
