/* The base room: Philox's and XXH3's published values, CSV as RFC 4180 has it, files that appear whole or not at all.
 */
#include "support/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/csv.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/philox.h"

/* The known-answer values of Random123 for philox4x32-10. */
static void philox_known_answers(void **state) {
  (void)state;
  ser_philox zero = ser_philox_at(0, 0, 0);
  const uint32_t want_zero[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  assert_memory_equal(zero.v, want_zero, sizeof want_zero);
  ser_philox ones = ser_philox_at(UINT64_MAX, UINT64_MAX, UINT64_MAX);
  const uint32_t want_ones[4] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
  assert_memory_equal(ones.v, want_ones, sizeof want_ones);
  ser_philox pi = ser_philox_at(0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u);
  const uint32_t want_pi[4] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
  assert_memory_equal(pi.v, want_pi, sizeof want_pi);
  assert_true(ser_uniform(0) == 0.0f);
  assert_true(ser_uniform(UINT32_MAX) < 1.0f);
}

static void hash_of_files_and_bytes(void **state) {
  (void)state;
  char hex[SER_HASH_HEX];
  ser_hash empty = ser_hash_bytes("", 0);
  ser_hash_hex(hex, &empty);
  assert_string_equal(hex, "99aa06d3014798d86001c324468d497f"); /* XXH3_128bits of nothing */
  ser_hash again;
  assert_true(ser_hash_parse(&again, hex));
  assert_int_equal(ser_hash_compare(&again, &empty), 0);
  assert_false(ser_hash_parse(&again, "99aa06d3014798d86001c324468d497"));
  assert_false(ser_hash_parse(&again, "99aa06d3014798d86001c324468d497fa"));
  assert_false(ser_hash_parse(&again, "99aa06d3014798d86001c324468d497g"));

  char *folder = test_folder_make("hash");
  char *path = ser_path_join(folder, "bytes");
  size_t size = 3 * 1024 * 1024 + 17;
  char *bytes = ser_alloc(size);
  for (size_t i = 0; i < size; i++) bytes[i] = (char)(i * 31 >> 3);
  ser_error err = {0};
  ASSERT_OK(ser_file_write(path, bytes, size, &err), err);
  ser_hash whole = ser_hash_bytes(bytes, size), streamed;
  ASSERT_OK(ser_hash_file(&streamed, path, &err), err);
  assert_int_equal(ser_hash_compare(&whole, &streamed), 0);
  free(bytes);
  free(path);
  test_folder_remove(folder);
}

static ser_status parse(ser_csv *table, const char *folder, const char *text, ser_error *err) {
  char *path = ser_path_join(folder, "table.csv");
  ASSERT_OK(ser_file_write(path, text, strlen(text), err), *err);
  ser_status status = ser_csv_read(table, path, err);
  free(path);
  return status;
}

static void csv_quotes_and_line_ends(void **state) {
  (void)state;
  char *folder = test_folder_make("csv");
  ser_error err = {0};
  ser_csv table;
  ASSERT_OK(parse(&table, folder, "\xef\xbb\xbfpath,note\r\n\"a,b\",\"say \"\"hi\"\"\"\r\nc,\"two\nlines\"\nd\n", &err),
            err);
  assert_int_equal(table.columns, 2);
  assert_int_equal(table.rows, 3);
  assert_int_equal(ser_csv_column(&table, "path"), 0);
  assert_int_equal(ser_csv_column(&table, "absent"), -1);
  assert_string_equal(ser_csv_cell(&table, 0, 0), "a,b");
  assert_string_equal(ser_csv_cell(&table, 0, 1), "say \"hi\"");
  assert_string_equal(ser_csv_cell(&table, 1, 1), "two\nlines");
  assert_string_equal(ser_csv_cell(&table, 2, 1), "");
  assert_int_equal(table.lines[2], 5);
  ser_csv_free(&table);

  static const char *const bad[] = {"", "a,b\n1,2,3\n", "a,b\n\"1,2\n"};
  for (size_t i = 0; i < 3; i++) {
    assert_int_not_equal(parse(&table, folder, bad[i], &err), SER_OK);
    assert_non_null(strstr(err.text, "table.csv"));
  }

  ser_text text = {0};
  ser_csv_put(&text, "plain");
  ser_text_puts(&text, ",");
  ser_csv_put(&text, "a \"b\", c\n");
  assert_string_equal(text.data, "plain,\"a \"\"b\"\", c\n\"");
  free(text.data);
  test_folder_remove(folder);
}

static ser_status collect(void *context, const char *path, ser_error *err) {
  (void)err;
  ser_text_printf(context, "%s\n", ser_path_name(path));
  return SER_OK;
}

static void files_and_folders(void **state) {
  (void)state;
  ser_error err = {0};
  char *folder = test_folder_make("files");
  char *deep = ser_path_join(folder, "b/c");
  ASSERT_OK(ser_make_folders(deep, &err), err);
  ASSERT_OK(ser_make_folders(deep, &err), err);
  static const char *const names[] = {"z.wav", "a.wav", "b/c/m.wav", "b.wav"};
  for (size_t i = 0; i < 4; i++) {
    char *path = ser_path_join(folder, names[i]);
    ASSERT_OK(ser_file_write(path, "first", 5, &err), err);
    ASSERT_OK(ser_file_write(path, "second", 6, &err), err);
    char *data;
    size_t size;
    ASSERT_OK(ser_file_read(&data, &size, path, &err), err);
    assert_int_equal(size, 6);
    assert_string_equal(data, "second");
    free(data);
    free(path);
  }
  char *loop = ser_path_join(deep, "loop");
  assert_int_equal(symlink("../..", loop), 0);
  ser_text seen = {0};
  ASSERT_OK(ser_walk(folder, collect, &seen, &err), err);
  assert_string_equal(seen.data, "a.wav\nb.wav\nm.wav\nz.wav\n"); /* byte order; no temporary files left; no loop */
  free(seen.data);
  assert_int_not_equal(ser_file_write("/nonexistent/folder/x", "", 0, &err), SER_OK);
  assert_non_null(strstr(err.text, "/nonexistent/folder/x"));
  free(loop);
  free(deep);
  test_folder_remove(folder);
}

static void paths(void **state) {
  (void)state;
  static const struct {
    const char *folder, *name, *joined;
  } joins[] = {{"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"a", "/b", "/b"}};
  for (size_t i = 0; i < 3; i++) {
    char *joined = ser_path_join(joins[i].folder, joins[i].name);
    assert_string_equal(joined, joins[i].joined);
    free(joined);
  }
  char *absolute = ser_path_absolute("/x/./y/../z");
  assert_string_equal(absolute, "/x/z");
  free(absolute);
  char *folder = ser_path_folder("name");
  assert_string_equal(folder, ".");
  free(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(philox_known_answers),
      cmocka_unit_test(hash_of_files_and_bytes),
      cmocka_unit_test(csv_quotes_and_line_ends),
      cmocka_unit_test(files_and_folders),
      cmocka_unit_test(paths),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
