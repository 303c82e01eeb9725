/* Pickles that a table of tensors never is: what would run something is refused by its name, what is damaged as such,
 * and nothing grows beyond the pickle's size. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/philox.h"
#include "model/weights_pickle.h"
#include "support/harness.h"
#include "support/pytorch.h"

#define BYTES(text) text, sizeof(text) - 1
#define NAMES(what) "names " what ", which is no tensor; the file is refused and nothing of it was run"
#define TENSOR "ctorch._utils\n_rebuild_tensor_v2\n"
#define STORAGE                                                                                                        \
  "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"                                                                   \
  "0X\3\0\0\0cpuK\4tQ"

/* A copy that ends where the pickle does, so that sanitizers see a step beyond. */
static ser_status try_pickle(const char *bytes, size_t size, ser_error *err) {
  ser_pickle pickle;
  size_t taken;
  char *copy = ser_alloc(size);
  memcpy(copy, bytes, size);
  ser_status status = ser_pickle_read(&pickle, &taken, copy, size, "FILE", err);
  assert_true(taken <= size);
  if (status == SER_OK) {
    assert_non_null(pickle.root);
    ser_pickle_free(&pickle);
  } else {
    assert_null(pickle.blocks);
    if (!strstr(err->text, "FILE") || strchr(err->text, '\n')) fail_msg("a refusal reads: %s", err->text);
  }
  free(copy);
  return status;
}

/* As it stands alone, and as the pickle of a whole file. */
static void refused(const char *bytes, size_t size, const char *named) {
  ser_error err = {0};
  ser_text file = {0};
  const ser_text pickle = {(char *)(uintptr_t)bytes, size, size};
  if (try_pickle(bytes, size, &err) == SER_OK) fail_msg("taken, where \"%s\" should be told", named);
  if (!strstr(err.text, named)) fail_msg("\"%s\" does not tell \"%s\"", err.text, named);
  test_pytorch_zip(&file, &pickle, NULL, 0);
  assert_int_equal(test_weights_try(file.data, file.size, &err), SER_FAILED);
  if (!strstr(err.text, named)) fail_msg("\"%s\" does not tell \"%s\"", err.text, named);
  free(file.data);
}

/* Each would make the file "ran" if it were run. */
static void test_evil(void **state) {
  static const struct {
    const char *bytes;
    size_t size;
    const char *named;
  } rows[] = {
      {BYTES("\x80\2cos\nsystem\nX\10\0\0\0touch ran\x85R."), NAMES("os.system")},
      {BYTES("\x80\2cposix\nsystem\n(X\10\0\0\0touch rantR."), NAMES("posix.system")},
      {BYTES("\x80\4\x8c\2os\x8c\6system\x93\x8c\11touch ran\x85R."), NAMES("os.system")},
      {BYTES("\x80\4\x95\40\0\0\0\0\0\0\0\x8c\2os\x94\x8c\6system\x94\x93\x94\x8c\11touch ran\x94\x85\x94R\x94."),
       NAMES("os.system")},
      /* the name comes from the memo */
      {BYTES("\x80\4\x8c\6system\x94\x30\x8c\2os\x94h\0\x93)R."), NAMES("os.system")},
      {BYTES("\x80\2(S'touch ran'\nios\nsystem\n."), "pickle's operation 0x53"},
      {BYTES("\x80\2(ios\nsystem\n."), NAMES("os.system")},
      {BYTES("\x80\2(icollections\nOrderedDict\n."), NAMES("collections.OrderedDict")},
      {BYTES("\x80\2(cos\nsystem\nX\10\0\0\0touch rano."), NAMES("os.system")},
      {BYTES("\x80\2(ccollections\nOrderedDict\no."), "pickle's operation 0x6f"},
      {BYTES("\x80\2c__builtin__\neval\n)R."), NAMES("__builtin__.eval")},
      {BYTES("\x80\2cbuiltins\nexec\n)\x81."), NAMES("builtins.exec")},
      {BYTES("\x80\4cbuiltins\ngetattr\n)}\x92."), NAMES("builtins.getattr")},
      {BYTES("\x80\2csubprocess\nPopen\n)R."), NAMES("subprocess.Popen")},
      {BYTES("\x80\2ctorch\nload\n)R."), NAMES("torch.load")},
      {BYTES("\x80\2ctorch.hub\nload\n)R."), NAMES("torch.hub.load")},
      {BYTES("\x80\2ctorch._utils\n_rebuild_tensor_v2.__globals__\n)R."), "names torch._utils._rebuild_tensor_v2.__gl"},
      {BYTES("\x80\2cargparse\nNamespace\n)\x81}b."), NAMES("argparse.Namespace")},
      {BYTES("\x80\2cnumpy.core.multiarray\nscalar\n."), NAMES("numpy.core.multiarray.scalar")},
      {BYTES("\x80\2c\n\n."), NAMES(".")},
      {BYTES("\x80\4\x8c\3o\ns\x8c\6\x1b[31m\n\x93."), NAMES("o\\ns.\\x1b[31m\\n")},
      {BYTES("\x80\4\x8c\3os\0\x8c\6system\x93."), "names os.system"},
      /* allowed names in places where they are not */
      {BYTES("\x80\2ctorch\nFloatStorage\n)R."), "calls something"},
      {BYTES("\x80\2" TENSOR ")R."), "describes a tensor badly"},
      {BYTES("\x80\2" TENSOR ")\x81."), "makes a tensor in a way that does not exist"},
      {BYTES("\x80\2ctorch._utils\n_rebuild_parameter\n)R."), "makes a parameter of what is no tensor"},
      {BYTES("\x80\2ccollections\nOrderedDict\n}\x85R."), "makes a dictionary of something"},
      {BYTES("\x80\2ccollections\nOrderedDict\n}R."), "calls with what are no arguments"},
      {BYTES("\x80\2ctorch\nSize\n)R."), "makes a shape of what is none"},
      {BYTES("\x80\2X\2\0\0\0os)R."), "calls something"},
      {BYTES("\x80\2ctorch\nSize\n}b."), "sets the state of an object"},
      {BYTES("\x80\2" TENSOR "}b."), "sets the state of an object"},
      {BYTES("\x80\2X\1\0\0\0xQ."), "refers to something outside"},
      {BYTES("\x80\2(X\6\0\0\0modulecos\nsystem\ntQ."), NAMES("os.system")},
      {BYTES("\x80\2(X\6\0\0\0moduletQ."), "refers to something outside"},
      {BYTES("\x80\2(X\7\0\0\0storagetQ."), "describes a storage badly"},
      {BYTES("\x80\2(X\7\0\0\0storageX\1\0\0\0fX\1\0\0\0"
             "0X\1\0\0\0cK\4tQ."),
       "describes a storage badly"},
      {BYTES("\x80\2(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
             "0X\1\0\0\0cK\4)tQ."),
       "a view of a storage"},
      {BYTES("\x80\2" TENSOR "(" STORAGE "K\0))\x89}}X\3\0\0\0neg\x88stR."), "gives a tensor attributes"},
  };
  (void)state;
  char *folder = test_folder_make("pickle"), *here = getcwd(NULL, 0);
  assert_int_equal(chdir(folder), 0);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) refused(rows[i].bytes, rows[i].size, rows[i].named);
  assert_false(ser_file_exists("ran"));
  assert_int_equal(chdir(here), 0);
  free(here);
  test_folder_remove(folder);
}

static void test_damaged(void **state) {
  static const struct {
    const char *bytes;
    size_t size;
    const char *named;
  } rows[] = {
      {BYTES(""), "ends in the middle"},
      {BYTES("."), "other than one value"},
      {BYTES("NN."), "other than one value"},
      {BYTES("(N."), "other than one value"},
      {BYTES("\x80\1N."), "protocol other than 2 to 5"},
      {BYTES("\x80\6N."), "protocol other than 2 to 5"},
      {BYTES("\x80\4\x95\377\377\377\377\377\377\377\377N."), "ends in the middle"},
      {BYTES("X\377\377\377\377abc."), "longer than the file"},
      {BYTES("\x8d\377\377\377\377\377\377\377\377abc."), "longer than the file"},
      {BYTES("\x8e\377\377\377\377\377\377\377\177abc."), "longer than the file"},
      {BYTES("\x8b\377\377\377\177\1."), "longer than the file"},
      {BYTES("h\0."), "never remembered"},
      {BYTES("j\377\377\377\377."), "never remembered"},
      {BYTES("Nr\377\377\377\377."), "an impossible place"},
      {BYTES("q\0."), "takes more than it put there"},
      {BYTES("\x94."), "takes more than it put there"},
      {BYTES("0."), "takes more than it put there"},
      {BYTES("2."), "takes more than it put there"},
      {BYTES("t."), "closes what it never opened"},
      {BYTES("1."), "closes what it never opened"},
      {BYTES("N(\x85."), "takes more than it put there"}, /* what lies below a mark is not there */
      {BYTES("N(a."), "takes more than it put there"},
      {BYTES("](u."), "no container of that kind"},
      {BYTES("}(Nu."), "a key without a value"},
      {BYTES("NNa."), "no container of that kind"},
      {BYTES("}Na."), "no container of that kind"},
      {BYTES("NN\x93."), "by what is no text"},
      {BYTES("cno line"), "ends in the middle"},
      {BYTES("\xff."), "pickle's operation 0xff"},
      {BYTES("I1\n."), "pickle's operation 0x49"},
      {BYTES("\x97."), "pickle's operation 0x97"},
      {BYTES("\x82\1."), "pickle's operation 0x82"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) refused(rows[i].bytes, rows[i].size, rows[i].named);
}

/* What is harmless, in whatever protocol, and comes to nothing. */
static void test_harmless(void **state) {
  static const struct {
    const char *bytes;
    size_t size;
    ser_pickled_kind kind;
    int64_t number;
  } rows[] = {
      {BYTES("\x80\2N."), SER_PICKLED_NONE, 0},
      {BYTES("\x80\2\x88."), SER_PICKLED_BOOL, 1},
      {BYTES("\x80\2K\377."), SER_PICKLED_INT, 255},
      {BYTES("\x80\2M\377\377."), SER_PICKLED_INT, 65535},
      {BYTES("\x80\2J\377\377\377\377."), SER_PICKLED_INT, -1},
      {BYTES("\x80\2\x8a\0."), SER_PICKLED_INT, 0},
      {BYTES("\x80\2\x8a\1\200."), SER_PICKLED_INT, -128},
      {BYTES("\x80\2\x8a\2\200\0."), SER_PICKLED_INT, 128},
      {BYTES("\x80\2\x8a\10\377\377\377\377\377\377\377\177."), SER_PICKLED_INT, INT64_MAX},
      {BYTES("\x80\2\x8a\11\0\0\0\0\0\0\0\0\1."), SER_PICKLED_OTHER, 0},
      {BYTES("\x80\2G\0\0\0\0\0\0\0\0."), SER_PICKLED_OTHER, 0},
      {BYTES("\x80\3C\3abc."), SER_PICKLED_OTHER, 0},
      {BYTES("\x80\4\x8f(K\1K\2\x90."), SER_PICKLED_OTHER, 0},
      {BYTES("\x80\4(K\1K\2\x91."), SER_PICKLED_OTHER, 0},
      {BYTES("\x80\5\x96\3\0\0\0\0\0\0\0abc."), SER_PICKLED_OTHER, 0},
      {BYTES("\x80\4\x95\7\0\0\0\0\0\0\0\x8c\1a\x94\x85\x94."), SER_PICKLED_TUPLE, 0},
      {BYTES("\x80\2U\1a."), SER_PICKLED_TEXT, 0},
      {BYTES("\x80\2]q\0h\0a."), SER_PICKLED_LIST, 0},           /* a list of itself */
      {BYTES("\x80\2}q\0X\1\0\0\0ah\0s."), SER_PICKLED_DICT, 0}, /* a dictionary in itself */
      {BYTES("\x80\2NN0."), SER_PICKLED_NONE, 0},
      {BYTES("\x80\2ccollections\nOrderedDict\n)R}X\11\0\0\0_metadata}sb."), SER_PICKLED_DICT, 0},
      {BYTES("\x80\2ccollections\nOrderedDict\n)\x81."), SER_PICKLED_DICT, 0},
      {BYTES("\x80\2ctorch\nSize\n(K\1K\2t\x85R."), SER_PICKLED_TUPLE, 0},
      {BYTES("\x80\2" STORAGE "."), SER_PICKLED_STORAGE, 0},
      {BYTES("\x80\2" TENSOR "(" STORAGE "K\0K\4\x85K\1\x85\x89NtR."), SER_PICKLED_TENSOR, 0},
      {BYTES("\x80\2ctorch._utils\n_rebuild_tensor\n(" STORAGE "K\0K\4\x85K\1\x85tR."), SER_PICKLED_TENSOR, 0},
      {BYTES("\x80\2" TENSOR "(" STORAGE "K\0K\4\x85K\1\x85\x89N}tR."), SER_PICKLED_TENSOR, 0},
      {BYTES("\x80\2ctorch._utils\n_rebuild_parameter\n" TENSOR "(" STORAGE "K\0))\x89NtR\x88}\x87R."),
       SER_PICKLED_TENSOR, 0},
  };
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    ser_error err = {0};
    ser_pickle pickle;
    size_t taken;
    if (ser_pickle_read(&pickle, &taken, rows[i].bytes, rows[i].size, "FILE", &err) != SER_OK)
      fail_msg("row %zu: %s", i, err.text);
    if (pickle.root->kind != rows[i].kind) fail_msg("row %zu is of the kind %d", i, (int)pickle.root->kind);
    if (rows[i].kind == SER_PICKLED_INT || rows[i].kind == SER_PICKLED_BOOL)
      assert_true(pickle.root->number == rows[i].number);
    assert_int_equal(taken, rows[i].size);
    ser_pickle_free(&pickle);
    for (size_t size = 0; size < rows[i].size; size++)
      assert_int_equal(try_pickle(rows[i].bytes, size, &err), SER_FAILED);
  }
}

/* A pickle of `count` times some bytes between a beginning and an end: nesting and growth without end. */
static void repeated(const char *begin, const char *bytes, size_t size, size_t count, const char *end,
                     const char *named) {
  ser_text pickle = {0};
  ser_error err = {0};
  ser_text_puts(&pickle, begin);
  for (size_t i = 0; i < count; i++) ser_text_add(&pickle, bytes, size);
  ser_text_puts(&pickle, end);
  ser_status status = try_pickle(pickle.data, pickle.size, &err);
  if (named ? status == SER_OK || !strstr(err.text, named) : status != SER_OK)
    fail_msg("%zu times \"%s\": %s", count, bytes, status == SER_OK ? "taken" : err.text);
  free(pickle.data);
}

static void test_growth(void **state) {
  enum { MANY = 3000000, FEW = 300000 };
  (void)state;
  repeated("", "(", 1, MANY, ".", "more than a million deep");
  repeated("N", "\x85", 1, MANY, ".", "more than a million values");
  repeated("", "N0", 2, MANY, ".", "more than a million values");
  repeated("", "N", 1, MANY, ".", "more than a million values");
  repeated("N", "2", 1, MANY, ".", "more than a million values");
  repeated("N", "\x85", 1, FEW, ".", NULL); /* deep, but not too deep: freed without recursion */
  repeated("(", "N", 1, FEW, "t.", NULL);
  repeated("](", "K\1", 2, FEW, "e.", NULL);
  repeated("N", "\x94", 1, FEW, ".", NULL);
}

/* A table of tensors, cut and changed at random places. */
static void test_mutated(void **state) {
  static const int64_t shape[] = {2, 2};
  const test_pickled tensor = {"name", "FloatStorage", "0", 4, 0, 2, shape, NULL};
  ser_text pickle = {0};
  ser_error err = {0};
  (void)state;
  test_pickle_begin(&pickle);
  for (int i = 0; i < 3; i++) test_pickle_tensor(&pickle, &tensor, i % 2);
  test_pickle_end(&pickle);
  ASSERT_OK(try_pickle(pickle.data, pickle.size, &err), err);
  for (size_t size = 0; size < pickle.size; size++) assert_int_equal(try_pickle(pickle.data, size, &err), SER_FAILED);
  for (uint64_t i = 0; i < 20000; i++) {
    ser_philox random = ser_philox_at(11, 0, i);
    char before[3];
    size_t at[3];
    for (int k = 0; k < 3; k++) {
      at[k] = random.v[k] % pickle.size;
      before[k] = pickle.data[at[k]];
      if (k <= (int)(random.v[3] % 3)) pickle.data[at[k]] = (char)(random.v[3] >> (8 + 8 * k));
    }
    try_pickle(pickle.data, pickle.size, &err);
    for (int k = 3; k-- > 0;) pickle.data[at[k]] = before[k];
  }
  free(pickle.data);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_evil), cmocka_unit_test(test_damaged),
                                     cmocka_unit_test(test_harmless), cmocka_unit_test(test_growth),
                                     cmocka_unit_test(test_mutated)};
  return cmocka_run_group_tests_name("unit.weights_pickle", tests, NULL, NULL);
}
