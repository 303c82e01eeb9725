/* Other emotions at a later index: rows that leave the filter are judged as the audit judged their partners, so that no
 * training meets one half of a conflict. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "support/recordings.h"

static char *folder;

static int make_folder(void **state) {
  (void)state;
  folder = test_folder_make("emotions");
  return 0;
}

static int remove_folder(void **state) {
  (void)state;
  test_folder_remove(folder);
  return 0;
}

/* Clips of the table's lines "name,emotion"; the name's first letter is the sound. */
static void index_clips(ser_manifest *manifest, const char *lines, int64_t emotions, const ser_manifest *before) {
  ser_error err = {0};
  ser_index_summary summary;
  char *text = ser_format("path,emotion\n%s", lines), *csv = ser_path_join(folder, "list.csv");
  test_put_text(folder, "list.csv", text);
  for (const char *at = lines; *at; at = strchr(at, '\n') + 1) {
    char *name = ser_format("%.*s", (int)strcspn(at, ","), at), *path = ser_path_join(folder, name);
    if (!ser_file_exists(path)) test_put_clip(folder, name, (uint64_t)*at);
    free(path);
    free(name);
  }
  const ser_index_options options = {.roots[SER_CSV] = csv, .emotions = emotions, .jobs = 1};
  ASSERT_OK(ser_index(manifest, &summary, &options, before, &err), err);
  free(summary.notes.data);
  free(text);
  free(csv);
}

static void audit(ser_manifest *manifest, ser_audit_mode mode) {
  ser_error err = {0};
  ser_audit_summary summary;
  ASSERT_OK(ser_audit(manifest, &summary, &(ser_audit_options){.mode = mode, .jobs = 1}, &err), err);
  ser_audit_summary_free(&summary);
}

static void both_halves_of_a_conflict(void **state) {
  (void)state;
  static const char lines[] =
      "a_calm.wav,calm\na_neutral.wav,neutral\nb.wav,happy\nc_calm.wav,calm\nc_calm_too.wav,calm\n";
  static const ser_row_status doubtful[] = {[SER_AUDIT_EXCLUDE] = SER_EXCLUDED, [SER_AUDIT_REPORT] = SER_ROW_OK};
  static const ser_audit_mode modes[] = {SER_AUDIT_EXCLUDE, SER_AUDIT_REPORT};
  for (int i = 0; i < 2; i++) {
    ser_manifest six, eight, back;
    ser_text told = {0}, again = {0};
    index_clips(&six, lines, 6, NULL);
    audit(&six, modes[i]);
    test_row_is(&six, "a_calm.wav", SER_FILTERED, SER_REASON_LABEL_CONFLICT);
    test_row_is(&six, "a_neutral.wav", doubtful[modes[i]], SER_REASON_LABEL_CONFLICT);
    index_clips(&eight, lines, 8, &six);
    test_row_is(&eight, "a_calm.wav", doubtful[modes[i]], SER_REASON_LABEL_CONFLICT);
    test_row_is(&eight, "a_neutral.wav", doubtful[modes[i]], SER_REASON_LABEL_CONFLICT);
    test_row_is(&eight, "b.wav", SER_ROW_OK, SER_REASON_NONE);
    test_row_is(&eight, "c_calm.wav", SER_ROW_OK, SER_REASON_NONE);
    test_row_is(&eight, "c_calm_too.wav", doubtful[modes[i]], SER_REASON_DUPLICATE);
    ser_manifest_text(&told, &eight);
    audit(&eight, modes[i]); /* which has nothing to change */
    ser_manifest_text(&again, &eight);
    assert_string_equal(told.data, again.data);
    index_clips(&back, lines, 6, &eight);
    test_row_is(&back, "a_calm.wav", SER_FILTERED, SER_REASON_LABEL_CONFLICT);
    test_row_is(&back, "a_neutral.wav", doubtful[modes[i]], SER_REASON_LABEL_CONFLICT);
    free(told.data);
    free(again.data);
    ser_manifest_free(&six);
    ser_manifest_free(&eight);
    ser_manifest_free(&back);
  }
}

/* Where the filter hid all that the audit found, no row tells its mode: no side is used until the next audit. */
static void a_conflict_that_was_filtered_whole(void **state) {
  (void)state;
  static const char lines[] = "a_calm.wav,calm\na_surprised.wav,surprised\nb.wav,happy\n";
  ser_manifest six, eight;
  index_clips(&six, lines, 6, NULL);
  audit(&six, SER_AUDIT_REPORT);
  index_clips(&eight, lines, 8, &six);
  test_row_is(&eight, "a_calm.wav", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  test_row_is(&eight, "a_surprised.wav", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  audit(&eight, SER_AUDIT_REPORT);
  test_row_is(&eight, "a_calm.wav", SER_ROW_OK, SER_REASON_LABEL_CONFLICT);
  test_row_is(&eight, "a_surprised.wav", SER_ROW_OK, SER_REASON_LABEL_CONFLICT);
  ser_manifest_free(&six);
  ser_manifest_free(&eight);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(both_halves_of_a_conflict, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_conflict_that_was_filtered_whole, make_folder, remove_folder),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
