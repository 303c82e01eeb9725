/* Files of weights: each format as it should be and as it should not, what numbers become, what damage is named as. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "model/weights.h"
#include "support/harness.h"
#include "support/pytorch.h"

static const float numbers[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
static const int64_t shape_34[] = {3, 4}, shape_43[] = {4, 3}, swapped[] = {1, 4}, shape_5[] = {5}, two[] = {2},
                     shape_04[] = {0, 4}, many[] = {1 << 20, 1 << 20, 1 << 20}, nought[] = {0, 0, 0};

/* Tensors of one storage of 12 floats: whole, transposed, every second from the second on, none, one number. */
static void write_pickle(ser_text *pickle, bool legacy) {
  const test_pickled tensors[] = {{"whole", "FloatStorage", "0", 12, 0, 2, shape_34, NULL},
                                  {"turned", "FloatStorage", "0", 12, 0, 2, shape_43, swapped},
                                  {"second", "FloatStorage", "0", 12, 1, 1, shape_5, two},
                                  {"none", "FloatStorage", "0", 12, 0, 2, shape_04, NULL},
                                  {"one", "FloatStorage", "0", 12, 7, 0, NULL, NULL}};
  test_pickle_begin(pickle);
  for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) test_pickle_tensor(pickle, &tensors[i], legacy);
  test_pickle_end(pickle);
}

static void write_file(ser_text *file, bool legacy) {
  static const test_storage storage = {"0", numbers, sizeof numbers, 12};
  ser_text pickle = {0};
  write_pickle(&pickle, legacy);
  if (legacy)
    test_pytorch_legacy(file, &pickle, &storage, 1);
  else
    test_pytorch_zip(file, &pickle, &storage, 1);
  free(pickle.data);
}

static const ser_weight *find(const ser_weights *w, const char *name) {
  const ser_weight *found = ser_weights_find(w, name);
  if (!found) fail_msg("there is no tensor %s", name);
  return found;
}

static void check_tensors(const ser_weights *w) {
  float got[12];
  assert_int_equal(w->count, 5);
  assert_null(ser_weights_find(w, "other"));
  ser_weight_read(got, find(w, "whole"), 0, 12);
  assert_memory_equal(got, numbers, sizeof got);
  ser_weight_read(got, find(w, "turned"), 0, 12);
  for (int i = 0; i < 12; i++) assert_true(got[i] == (float)(i % 3 * 4 + i / 3));
  ser_weight_read(got, find(w, "turned"), 4, 5);
  for (int i = 0; i < 5; i++) assert_true(got[i] == (float)((i + 4) % 3 * 4 + (i + 4) / 3));
  ser_weight_read(got, find(w, "second"), 0, 5);
  for (int i = 0; i < 5; i++) assert_true(got[i] == (float)(2 * i + 1));
  assert_int_equal(find(w, "second")->bytes, 9 * 4);
  assert_int_equal(ser_weight_elements(find(w, "none")), 0);
  assert_null(find(w, "none")->data);
  assert_int_equal(find(w, "one")->dimensions, 0);
  ser_weight_read(got, find(w, "one"), 0, 1);
  assert_true(got[0] == 7);
  assert_null(ser_weight_floats(find(w, "turned")));
  assert_null(ser_weight_floats(find(w, "none")));
  const float *direct = ser_weight_floats(find(w, "whole")); /* NULL where the file does not align it */
  if (direct) assert_memory_equal(direct, numbers, sizeof numbers);
}

static void test_both_formats(void **state) {
  (void)state;
  for (int legacy = 0; legacy < 2; legacy++) {
    ser_error err = {0};
    ser_text file = {0};
    ser_weights w;
    char *folder = test_folder_make("weights"), *path = ser_path_join(folder, "any name");
    write_file(&file, legacy);
    ASSERT_OK(ser_file_write(path, file.data, file.size, &err), err);
    ASSERT_OK(ser_weights_open(&w, path, &err), err);
    assert_string_equal(w.format, legacy ? "PyTorch (before 1.6)" : "PyTorch (ZIP)");
    check_tensors(&w);
    ASSERT_OK(ser_weights_whole(&w, &err), err);
    ASSERT_OK(ser_file_write(path, "other", 5, &err), err); /* another file by that name: ours stays */
    ASSERT_OK(ser_weights_whole(&w, &err), err);
    check_tensors(&w);
    ser_weights_close(&w);
    free(file.data);
    free(path);
    test_folder_remove(folder);
  }
}

/* A file is cut or flipped anywhere: it is refused, or read within its bytes. */
static void test_cut_and_flipped(void **state) {
  (void)state;
  for (int legacy = 0; legacy < 2; legacy++) {
    ser_text file = {0};
    ser_error err = {0};
    write_file(&file, legacy);
    ASSERT_OK(test_weights_try(file.data, file.size, &err), err);
    for (size_t size = 0; size < file.size; size++)
      if (test_weights_try(file.data, size, &err) == SER_OK) fail_msg("%zu of %zu bytes are taken", size, file.size);
    for (size_t at = 0; at < file.size; at++)
      for (int bit = 0; bit < 8; bit++) {
        file.data[at] ^= (char)(1 << bit);
        test_weights_try(file.data, file.size, &err);
        file.data[at] ^= (char)(1 << bit);
      }
    free(file.data);
  }
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static void read_as(float *out, const char *dtype, const void *data, int64_t count, size_t size) {
  ser_weight weight = {.dimensions = 1, .shape = {count}, .stride = {1}, .data = data, .bytes = (size_t)count * size};
  strcpy(weight.dtype, dtype);
  assert_true(ser_weight_readable(&weight));
  ser_weight_read(out, &weight, 0, count);
}

static void test_half(void **state) {
  enum { ALL = 65536 };
  uint16_t *halves = ser_alloc(ALL * sizeof *halves);
  float *got = ser_alloc(ALL * sizeof *got);
  (void)state;
  for (int i = 0; i < ALL; i++) halves[i] = (uint16_t)i;
  read_as(got, "F16", halves, ALL, 2);
  for (int i = 0; i < ALL; i++) {
    int exponent = i >> 10 & 31, fraction = i & 1023;
    double want = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    if (exponent == 31) want = fraction ? NAN : INFINITY;
    if (i >> 15) want = -want;
    if (isnan(want) ? !isnan(got[i]) : got[i] != (float)want || !signbit(got[i]) != !signbit(want))
      fail_msg("half %04x is %g, not %g", i, got[i], want);
  }
  read_as(got, "BF16", halves, ALL, 2);
  for (int i = 0; i < ALL; i++) {
    uint32_t bits;
    memcpy(&bits, &got[i], sizeof bits);
    if (bits != (uint32_t)i << 16 && !isnan(got[i])) fail_msg("bfloat16 %04x is %08x", i, bits);
  }
  free(halves);
  free(got);
}

static void test_others(void **state) {
  const double wide[] = {0.1, -1e300, 1e-300, 3};
  float got[4];
  char bytes[17]; /* of no alignment */
  ser_weight weight = {.dimensions = 1, .shape = {4}, .stride = {1}, .dtype = "I64"};
  (void)state;
  read_as(got, "F64", wide, 4, 8);
  assert_true(got[0] == 0.1f && got[1] == -INFINITY && got[2] == 0 && got[3] == 3);
  memcpy(bytes + 1, numbers + 4, 16);
  read_as(got, "F32", bytes + 1, 4, 4);
  assert_memory_equal(got, numbers + 4, 16);
  assert_false(ser_weight_readable(&weight));
  weight.dimensions = 3;
  memcpy(weight.shape, many, sizeof many);
  assert_int_equal(ser_weight_elements(&weight), (int64_t)1 << 60);
  weight.dimensions = 4;
  weight.shape[3] = 16;
  assert_int_equal(ser_weight_elements(&weight), -1);
  weight.shape[0] = 0;
  assert_int_equal(ser_weight_elements(&weight), 0);
}

/* ---- what is not sound ------------------------------------------------------------------------------------------- */

static void refused(const ser_text *file, const char *named) {
  ser_error err = {0};
  if (test_weights_try(file->data, file->size, &err) == SER_OK) fail_msg("taken, where \"%s\" should be told", named);
  if (!strstr(err.text, named)) fail_msg("\"%s\" does not tell \"%s\"", err.text, named);
}

/* One tensor, "w", of the storage "0". */
static void one_tensor(ser_text *pickle, const char *storage, long long elements, long long offset, int dimensions,
                       const int64_t *shape, const int64_t *stride) {
  const test_pickled tensor = {"w", storage, "0", elements, offset, dimensions, shape, stride};
  *pickle = (ser_text){0};
  test_pickle_begin(pickle);
  test_pickle_tensor(pickle, &tensor, false);
  test_pickle_end(pickle);
}

static void test_storages(void **state) {
  static const int64_t huge[] = {INT64_MAX, 2}, far[] = {INT64_MAX, 1}, negative[] = {-1, 2}, nine[9] = {0};
  static const struct {
    const char *storage;
    long long elements, offset;
    int dimensions;
    const int64_t *shape, *stride;
    const char *named; /* NULL: it is sound */
  } rows[] = {{"FloatStorage", 12, 0, 2, shape_34, NULL, NULL},
              {"FloatStorage", 13, 0, 2, shape_34, NULL, "beyond its storage"},
              {"FloatStorage", 11, 0, 2, shape_34, NULL, "beyond its storage"},
              {"FloatStorage", 12, 1, 2, shape_34, NULL, "beyond its storage"},
              {"FloatStorage", 12, 12, 0, NULL, NULL, "beyond its storage"},
              {"FloatStorage", 12, INT64_MAX, 0, NULL, NULL, "beyond its storage"},
              {"FloatStorage", 12, -1, 0, NULL, NULL, "describes a tensor badly"},
              {"FloatStorage", 12, 0, 2, huge, far, "beyond its storage"},
              {"FloatStorage", 12, 0, 2, negative, swapped, "describes a tensor badly"},
              {"FloatStorage", 12, 0, 2, shape_34, negative, "describes a tensor badly"},
              {"FloatStorage", 12, 0, 9, nine, nine, "more than 8 dimensions"},
              {"FloatStorage", 12, 0, 3, many, nought, NULL}, /* one number, so often: no memory is taken for it */
              {"FloatStorage", INT64_MAX, 0, 2, shape_34, NULL, "beyond its storage"},
              {"FloatStorage", -1, 0, 2, shape_04, NULL, "describes a storage badly"},
              {"DoubleStorage", 12, 0, 2, shape_34, NULL, "beyond its storage"},
              {"DoubleStorage", 6, 0, 1, two, NULL, NULL},
              {"LongStorage", 6, 0, 1, two, NULL, NULL},
              {"BoolStorage", 48, 47, 0, NULL, NULL, NULL},
              {"QInt8Storage", 12, 0, 2, shape_34, NULL, "names torch.QInt8Storage, which is no tensor"}};
  const test_storage storage = {"0", numbers, sizeof numbers, 12}, other = {"1", numbers, sizeof numbers, 12};
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    ser_text pickle, file = {0};
    ser_error err = {0};
    one_tensor(&pickle, rows[i].storage, rows[i].elements, rows[i].offset, rows[i].dimensions, rows[i].shape,
               rows[i].stride);
    test_pytorch_zip(&file, &pickle, &storage, 1);
    if (rows[i].named) {
      refused(&file, rows[i].named);
    } else {
      ASSERT_OK(test_weights_try(file.data, file.size, &err), err);
    }
    free(file.data);
    free(pickle.data);
  }
  ser_text pickle, file = {0};
  one_tensor(&pickle, "FloatStorage", 12, 0, 2, shape_34, NULL);
  test_pytorch_zip(&file, &pickle, &other, 1);
  refused(&file, "names the storage 0, which is not there");
  free(file.data);
  free(pickle.data);
}

static void test_legacy(void **state) {
  const test_storage sound = {"0", numbers, sizeof numbers, 12}, shorter = {"0", numbers, sizeof numbers, 11};
  const test_storage twice[] = {sound, sound}, other[] = {sound, {"1", numbers, sizeof numbers, 12}};
  const struct {
    const test_storage *storages;
    size_t count;
    const char *named;
  } rows[] = {{&shorter, 1, "not as long as its pickle says"},
              {twice, 2, "or one twice"},
              {other, 2, "that no tensor has"},
              {&sound, 0, "lacks a storage"}};
  ser_text pickle = {0};
  (void)state;
  write_pickle(&pickle, true);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    ser_text file = {0};
    test_pytorch_legacy(&file, &pickle, rows[i].storages, rows[i].count);
    refused(&file, rows[i].named);
    free(file.data);
  }
  ser_text file = {0};
  test_pytorch_legacy(&file, &pickle, &sound, 1);
  char *little = file.data + 26 + 14; /* the value behind the key */
  while (*little != (char)0x88) little++;
  *little = (char)0x89;
  refused(&file, "big-endian");
  file.data[18] ^= 1;
  refused(&file, "its version is not 1001");
  free(file.data);
  free(pickle.data);
}

/* ---- files of other kinds ---------------------------------------------------------------------------------------- */

static void test_kinds(void **state) {
  static const struct {
    const char *bytes, *named;
  } rows[] = {{"", "is empty; copy it again"},
              {"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"},
              {"<!DOCTYPE html><html>", "is a web page; download the file itself"},
              {"\x89HDF\r\n\x1a\n....", "TensorFlow"},
              {"\x80\x04\x95.....", "none that PyTorch's save writes"},
              {"no weights at all", "neither a safetensors nor a PyTorch file"},
              {"PK\3\4 and then nothing", "it ends without a directory"}};
  ser_error err = {0};
  ser_weights w;
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    ser_text file = {0};
    ser_text_puts(&file, rows[i].bytes);
    if (!file.data) ser_text_add(&file, "", 0);
    refused(&file, rows[i].named);
    free(file.data);
  }
  char tar[512] = "some/file";
  memcpy(tar + 257, "ustar", 5);
  const ser_text file = {tar, sizeof tar, sizeof tar};
  refused(&file, "is a tar archive");
  assert_int_equal(ser_weights_open(&w, "/nowhere/model.safetensors", &err), SER_FAILED);
  assert_non_null(strstr(err.text, "cannot open /nowhere/model.safetensors"));
  assert_int_equal(ser_weights_open(&w, "/", &err), SER_FAILED);
  assert_non_null(strstr(err.text, "/ is no file"));
}

/* A file that is cut shorter while it is open is told, once somebody asks. */
static void test_cut_while_open(void **state) {
  ser_text file = {0};
  ser_error err = {0};
  ser_weights w;
  char *folder = test_folder_make("weights"), *path = ser_path_join(folder, "w.bin");
  (void)state;
  write_file(&file, false);
  ASSERT_OK(ser_file_write(path, file.data, file.size, &err), err);
  ASSERT_OK(ser_weights_open(&w, path, &err), err);
  assert_int_equal(truncate(path, (off_t)file.size / 2), 0);
  assert_int_equal(ser_weights_whole(&w, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "changed while it was read"));
  ser_weights_close(&w);
  free(file.data);
  free(path);
  test_folder_remove(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_both_formats), cmocka_unit_test(test_cut_and_flipped),
                                     cmocka_unit_test(test_half),         cmocka_unit_test(test_others),
                                     cmocka_unit_test(test_storages),     cmocka_unit_test(test_legacy),
                                     cmocka_unit_test(test_kinds),        cmocka_unit_test(test_cut_while_open)};
  return cmocka_run_group_tests_name("unit.weights", tests, NULL, NULL);
}
