/* The audit of rows that the emotions' filter has dropped: judged like others, told, and carried between filters. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>
#include <sndfile.h>

#include "base/file.h"
#include "cli/counts.h"
#include "support/recordings.h"

static char *folder;

static int make_folder(void **state) {
  (void)state;
  folder = test_folder_make("filtered");
  return 0;
}

static int remove_folder(void **state) {
  (void)state;
  test_folder_remove(folder);
  return 0;
}

enum { WAV16 = SF_FORMAT_WAV | SF_FORMAT_PCM_16, WAVF = SF_FORMAT_WAV | SF_FORMAT_FLOAT, COUNT = 6000 };

/* What a row's file is and what it has in common with others, when its emotion is not asked for. */
static void put_filtered(void) {
  float *speech[8], zeros[COUNT] = {0}, loud[COUNT];
  for (uint64_t i = 0; i < 8; i++) speech[i] = test_speech(40 + i, COUNT - 10 * (int64_t)i, 8000);
  test_put_audio(folder, "a_sad.wav", speech[0], COUNT, 1, WAV16);
  test_put_audio(folder, "a_calm.flac", speech[0], COUNT, 1,
                 SF_FORMAT_FLAC | SF_FORMAT_PCM_16); /* other bytes, the same samples */
  test_put_audio(folder, "b_sad.wav", speech[1], COUNT - 10, 1, WAV16);
  test_put_audio(folder, "b_surprised.wav", speech[1], COUNT - 10, 1, WAV16); /* the same bytes */
  test_put_audio(folder, "c_calm.wav", speech[2], COUNT - 20, 1, WAV16);
  test_put_audio(folder, "c_calm_too.wav", speech[2], COUNT - 20, 1, WAV16);
  test_put_audio(folder, "d_calm.wav", speech[3], COUNT - 30, 1, WAV16);
  test_put_audio(folder, "d_surprised.wav", speech[3], COUNT - 30, 1, WAV16);
  test_put_audio(folder, "e_calm.wav", zeros, COUNT - 40, 1, WAV16);
  for (int i = 0; i < COUNT - 50; i++) loud[i] = fmaxf(-1, fminf(1, 20 * speech[5][i]));
  test_put_audio(folder, "f_calm.wav", loud, COUNT - 50, 1, WAV16);
  test_put_audio(folder, "g_calm.flac", speech[6], COUNT - 60, 1, SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
  char *cut = ser_path_join(folder, "g_calm.flac"); /* only decoding tells */
  assert_int_equal(truncate(cut, 5000), 0);
  test_put_text(folder, "h_calm.wav", "text");
  test_put_audio(folder, "i_calm.wav", speech[7], COUNT - 70, 1, WAV16);
  test_put_audio(folder, "j_sad.wav", speech[4], COUNT - 40, 1, WAV16);
  for (int i = 0; i < 8; i++) free(speech[i]);
  free(cut);
}

static const char filtered_lines[] =
    "a_sad.wav,sad,x\na_calm.flac,calm,x\nb_sad.wav,sad,x\nb_surprised.wav,surprised,x\nc_calm.wav,calm,x\n"
    "c_calm_too.wav,calm,x\nd_calm.wav,calm,x\nd_surprised.wav,surprised,x\ne_calm.wav,calm,x\nf_calm.wav,calm,x\n"
    "g_calm.flac,calm,x\nh_calm.wav,calm,x\ni_calm.wav,calm,x\nj_sad.wav,sad,x\n";

static void expect_filtered(const ser_manifest *manifest) {
  test_row_is(manifest, "a_sad.wav", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  test_row_is(manifest, "a_calm.flac", SER_FILTERED, SER_REASON_LABEL_CONFLICT);
  test_row_is(manifest, "b_sad.wav", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  test_row_is(manifest, "b_surprised.wav", SER_FILTERED, SER_REASON_LABEL_CONFLICT);
  test_row_is(manifest, "c_calm.wav", SER_FILTERED, SER_REASON_NONE);
  test_row_is(manifest, "c_calm_too.wav", SER_FILTERED, SER_REASON_DUPLICATE);
  test_row_is(manifest, "d_calm.wav", SER_FILTERED, SER_REASON_LABEL_CONFLICT);
  test_row_is(manifest, "d_surprised.wav", SER_FILTERED, SER_REASON_LABEL_CONFLICT);
  test_row_is(manifest, "e_calm.wav", SER_FILTERED, SER_REASON_SILENT);
  test_row_is(manifest, "f_calm.wav", SER_FILTERED, SER_REASON_CLIPPED);
  test_row_is(manifest, "g_calm.flac", SER_FILTERED, SER_REASON_TRUNCATED);
  test_row_is(manifest, "h_calm.wav", SER_FILTERED, SER_REASON_UNREADABLE);
  test_row_is(manifest, "i_calm.wav", SER_FILTERED, SER_REASON_NONE);
  test_row_is(manifest, "j_sad.wav", SER_ROW_OK, SER_REASON_NONE);
}

/* The filter spares no row from being judged: what is found is told, and only the others lose what is in doubt. */
static void filtered_rows_are_judged(void **state) {
  (void)state;
  ser_manifest manifest;
  ser_text first = {0}, second = {0}, said = {0};
  put_filtered();
  test_index_table(folder, &manifest, filtered_lines, 6, NULL);
  test_write_and_read(folder, &manifest);
  ser_audit_summary summary = test_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  expect_filtered(&manifest);
  assert_int_equal(summary.decoded, 10); /* 14 less three copies and what the index could not open */
  assert_int_equal(summary.ok, 1);
  assert_int_equal(summary.filtered, 11);
  assert_int_equal(summary.excluded, 2);
  assert_int_equal(summary.refused, 0);
  assert_int_equal(summary.by_reason[SER_REASON_LABEL_CONFLICT], 6);
  json_t *findings = json_loads(summary.findings_json, 0, NULL), *finding;
  size_t i, filtered = 0;
  assert_int_equal(json_array_size(findings), 11);
  json_array_foreach(findings, i, finding) filtered +=
      !strcmp(json_string_value(json_object_get(finding, "status")), "filtered");
  assert_int_equal(filtered, 9);
  json_decref(findings);
  cli_audit_text(&said, &manifest, &summary);
  assert_non_null(strstr(said.data, "14 recordings, 10 decoded now: 1 ok, 11 filtered, 2 excluded, 0 refused\n"));
  assert_non_null(strstr(said.data, "\nlabel_conflict: 6, 4 of them filtered (is the same"));
  assert_non_null(strstr(said.data, "\nunreadable: 1, 1 of them filtered (cannot be read"));
  assert_non_null(strstr(said.data, "  filtered: "));
  ser_audit_summary_free(&summary);
  /* A second audit reads nothing again but what the bytes do not explain, and leaves the same rows. */
  ser_manifest_text(&first, &manifest);
  test_write_and_read(folder, &manifest);
  summary = test_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  ser_manifest_text(&second, &manifest);
  assert_int_equal(summary.decoded, 2); /* a_sad.wav and a_calm.flac */
  assert_string_equal(first.data, second.data);
  ser_audit_summary_free(&summary);
  summary = test_audit(&manifest, SER_AUDIT_REPORT, false);
  test_row_is(&manifest, "a_sad.wav", SER_ROW_OK, SER_REASON_LABEL_CONFLICT);
  test_row_is(&manifest, "a_calm.flac", SER_FILTERED, SER_REASON_LABEL_CONFLICT);
  test_row_is(&manifest, "c_calm_too.wav", SER_FILTERED, SER_REASON_DUPLICATE);
  test_row_is(&manifest, "e_calm.wav", SER_FILTERED, SER_REASON_SILENT);
  ser_audit_summary_free(&summary);
  ser_manifest_free(&manifest);
  free(first.data);
  free(second.data);
  free(said.data);
}

/* Eight emotions after six, and six again: verdicts go along, nothing stale stays, and each end is that of an audit
 * that knew nothing before. */
static void six_emotions_then_eight(void **state) {
  (void)state;
  ser_manifest six, eight, back, fresh;
  ser_text a = {0}, b = {0};
  put_filtered();
  test_index_table(folder, &six, filtered_lines, 6, NULL);
  ser_audit_summary summary = test_audit(&six, SER_AUDIT_EXCLUDE, false);
  ser_audit_summary_free(&summary);
  test_write_and_read(folder, &six);
  test_index_table(folder, &eight, filtered_lines, 8, &six);
  test_write_and_read(folder, &eight);
  test_row_is(&eight, "e_calm.wav", SER_EXCLUDED, SER_REASON_SILENT); /* known before the audit */
  test_row_is(&eight, "i_calm.wav", SER_ROW_OK, SER_REASON_NONE);
  summary = test_audit(&eight, SER_AUDIT_EXCLUDE, false);
  assert_int_equal(summary.decoded, 2);
  assert_int_equal(summary.filtered, 0);
  assert_int_equal(summary.refused, 2);
  assert_int_equal(summary.excluded, 8);
  ser_audit_summary_free(&summary);
  test_index_table(folder, &fresh, filtered_lines, 8, NULL);
  summary = test_audit(&fresh, SER_AUDIT_EXCLUDE, false);
  ser_audit_summary_free(&summary);
  ser_manifest_text(&a, &eight);
  ser_manifest_text(&b, &fresh);
  assert_string_equal(a.data, b.data);
  test_index_table(folder, &back, filtered_lines, 6, &eight);
  test_write_and_read(folder, &back);
  summary = test_audit(&back, SER_AUDIT_EXCLUDE, false);
  assert_int_equal(summary.decoded, 2);
  expect_filtered(&back);
  ser_audit_summary_free(&summary);
  ser_manifest_free(&back);
  /* The filtered side of a conflict is taken away: the other is in doubt no longer, and nothing is said of it. */
  static const char rest[] = "a_sad.wav,sad,x\nb_sad.wav,sad,x\nc_calm_too.wav,calm,x\nd_surprised.wav,surprised,x\n";
  test_index_table(folder, &back, rest, 6, &six);
  summary = test_audit(&back, SER_AUDIT_EXCLUDE, false);
  test_row_is(&back, "a_sad.wav", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&back, "b_sad.wav", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&back, "c_calm_too.wav", SER_FILTERED, SER_REASON_NONE);
  test_row_is(&back, "d_surprised.wav", SER_FILTERED, SER_REASON_NONE);
  ser_audit_summary_free(&summary);
  ser_manifest_free(&six);
  ser_manifest_free(&eight);
  ser_manifest_free(&back);
  ser_manifest_free(&fresh);
  free(a.data);
  free(b.data);
}

/* A filtered row that is new beside judged ones, one that changed behind the manifest's back, one that vanished. */
static void filtered_rows_that_change(void **state) {
  (void)state;
  float *a = test_speech(51, COUNT, 8000), zeros[COUNT] = {0};
  test_put_audio(folder, "x.wav", a, COUNT, 1, WAV16);
  test_put_audio(folder, "y_calm.wav", a, COUNT / 2, 1, WAV16);
  test_put_audio(folder, "z_calm.wav", a, COUNT / 3, 1, WAV16);
  ser_manifest first, second;
  test_index_table(folder, &first, "x.wav,sad,\ny_calm.wav,calm,\n", 6, NULL);
  ser_audit_summary summary = test_audit(&first, SER_AUDIT_EXCLUDE, false);
  ser_audit_summary_free(&summary);
  test_index_table(folder, &second, "x.wav,sad,\ny_calm.wav,calm,\nz_calm.wav,calm,\n", 6, &first);
  summary = test_audit(&second, SER_AUDIT_EXCLUDE, false);
  assert_int_equal(summary.decoded, 1);
  ser_audit_summary_free(&summary);
  char *gone = ser_path_join(folder, "z_calm.wav");
  unlink(gone);
  test_put_audio(folder, "y_calm.wav", zeros, COUNT / 2 + 1, 1, WAV16);
  summary = test_audit(&second, SER_AUDIT_EXCLUDE, false);
  test_row_is(&second, "x.wav", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&second, "y_calm.wav", SER_FILTERED, SER_REASON_SILENT);
  test_row_is(&second, "z_calm.wav", SER_FILTERED, SER_REASON_UNREADABLE);
  assert_int_equal(test_row(&second, "y_calm.wav")->frames, COUNT / 2 + 1);
  assert_int_equal(summary.refused, 0);
  ser_audit_summary_free(&summary);
  ser_manifest_free(&first);
  ser_manifest_free(&second);
  free(gone);
  free(a);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(filtered_rows_are_judged, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(six_emotions_then_eight, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(filtered_rows_that_change, make_folder, remove_folder),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
