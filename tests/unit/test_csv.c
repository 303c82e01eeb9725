/* Tables: what RFC 4180 allows is read, what is wrong is refused with file and line, cells come back as written. */
#include <stdlib.h>
#include <string.h>

#include "base/csv.h"
#include "base/file.h"
#include "base/memory.h"
#include "support/harness.h"

static void write_text(const char *path, const char *text) {
  ser_error err = {0};
  ASSERT_OK(ser_file_write(path, text, strlen(text), &err), err);
}

static void csv_reads_what_rfc_4180_allows(void **state) {
  (void)state;
  char *folder = test_folder_make("csv");
  char *path = ser_path_join(folder, "t.csv");
  write_text(path, "\xef\xbb\xbf"
                   "a,\"b,c\",d\r\n1,\"say \"\"hi\"\"\",\"two\nlines\"\r\n\r\n2,,\n3,x,y");
  ser_csv table;
  ser_error err = {0};
  ASSERT_OK(ser_csv_read(&table, path, &err), err);
  assert_int_equal(table.columns, 3);
  assert_int_equal(table.rows, 3);
  assert_string_equal(table.names[0], "a");
  assert_int_equal(ser_csv_column(&table, "b,c"), 1);
  assert_int_equal(ser_csv_column(&table, "nobody"), -1);
  assert_string_equal(ser_csv_cell(&table, 0, 1), "say \"hi\"");
  assert_string_equal(ser_csv_cell(&table, 0, 2), "two\nlines");
  assert_string_equal(ser_csv_cell(&table, 1, 1), "");
  assert_string_equal(ser_csv_cell(&table, 2, 2), "y");
  assert_string_equal(ser_csv_cell(&table, 2, -1), "");
  assert_int_equal(table.lines[0], 2);
  assert_int_equal(table.lines[1], 5);
  ser_csv_free(&table);
  /* what spreadsheets leave: rows of commas and blanks alone; lines ended by carriage returns */
  write_text(path, "a,b\n1,2\n,\n , \t\n  \n3,\n,\n");
  ASSERT_OK(ser_csv_read(&table, path, &err), err);
  assert_int_equal(table.rows, 2);
  assert_string_equal(ser_csv_cell(&table, 1, 0), "3");
  assert_int_equal(table.lines[1], 6);
  ser_csv_free(&table);
  write_text(path, "a,b,,\n1,2,,,\n3\n");
  ASSERT_OK(ser_csv_read(&table, path, &err), err);
  assert_int_equal(table.columns, 2);
  assert_int_equal(table.rows, 2);
  assert_string_equal(ser_csv_cell(&table, 0, 1), "2");
  ser_csv_free(&table);
  write_text(path, "a,b\r1,2\r\r3,4\r");
  ASSERT_OK(ser_csv_read(&table, path, &err), err);
  assert_int_equal(table.columns, 2);
  assert_int_equal(table.rows, 2);
  assert_string_equal(ser_csv_cell(&table, 1, 1), "4");
  assert_int_equal(table.lines[1], 4);
  ser_csv_free(&table);
  free(path);
  test_folder_remove(folder);
}

static void csv_refuses_with_file_and_line(void **state) {
  (void)state;
  static const struct {
    const char *text, *named;
  } cases[] = {
      {"", "is empty"},
      {"a,b\n1,2\n1,2,3\n", "line 3 has more cells"},
      {"a,b\n1,\"2\n", "line 2: a quote is not closed"},
      {"a,\"b\n", "line 1: a quote is not closed"},
      {"a,b\n1,2\nJos\xe9,3\n", "line 3 is not UTF-8; save the table"},
      {"a,b\n\xed\xa0\x80,3\n", "line 2 is not UTF-8"}, /* a surrogate */
      {"a,b\n1,\xe2\x82", "line 2 is not UTF-8"},
      {"\xff\xfe"
       "a",
       "line 1 is not UTF-8"},
  };
  char *folder = test_folder_make("csv");
  char *path = ser_path_join(folder, "bad.csv");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    write_text(path, cases[i].text);
    ser_csv table;
    ser_error err = {0};
    assert_int_equal(ser_csv_read(&table, path, &err), SER_FAILED);
    assert_non_null(strstr(err.text, "bad.csv"));
    if (!strstr(err.text, cases[i].named)) fail_msg("'%s' does not say '%s'", err.text, cases[i].named);
  }
  static const struct {
    const char *text;
    size_t size;
    int line;
  } nuls[] = {{"\xff\xfe"
               "a\0,\0b\0\n\0",
               10, 1},
              {"a,b\n1,2\n\0", 9, 3},
              {"a,b\nJos\xe9,2\n3,\0\n", 15, 3}};
  for (size_t i = 0; i < sizeof nuls / sizeof *nuls; i++) {
    ser_csv table;
    ser_error err = {0};
    char *words = ser_format("bad.csv: line %d holds a NUL byte: the table is UTF-16 or no text", nuls[i].line);
    ASSERT_OK(ser_file_write(path, nuls[i].text, nuls[i].size, &err), err);
    assert_int_equal(ser_csv_read(&table, path, &err), SER_FAILED);
    if (!strstr(err.text, words)) fail_msg("'%s' does not say '%s'", err.text, words);
    free(words);
  }
  free(path);
  test_folder_remove(folder);
}

static void csv_cells_come_back(void **state) {
  (void)state;
  static const char *const cells[] = {"plain", "", "a,b", "\"", "line\nend", "\r", "\xc3\xa9", " space "};
  enum { COUNT = sizeof cells / sizeof *cells };
  char *folder = test_folder_make("csv");
  char *path = ser_path_join(folder, "t.csv");
  ser_text text = {0};
  ser_text_puts(&text, "n,cell\n");
  for (int i = 0; i < COUNT; i++) {
    ser_text_printf(&text, "%d,", i);
    ser_csv_put(&text, cells[i]);
    ser_text_puts(&text, "\n");
  }
  write_text(path, text.data);
  ser_csv table;
  ser_error err = {0};
  ASSERT_OK(ser_csv_read(&table, path, &err), err);
  assert_int_equal(table.rows, COUNT);
  for (size_t i = 0; i < COUNT; i++) assert_string_equal(ser_csv_cell(&table, i, 1), cells[i]);
  ser_csv_free(&table);
  free(text.data);
  free(path);
  test_folder_remove(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(csv_reads_what_rfc_4180_allows),
      cmocka_unit_test(csv_refuses_with_file_and_line),
      cmocka_unit_test(csv_cells_come_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
