/* The audit: each reason made, relations between files, trust in earlier verdicts, the report mode. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>
#include <sndfile.h>

#include "base/file.h"
#include "base/interrupt.h"
#include "cli/counts.h"
#include "support/recordings.h"

static char *folder;

static int make_folder(void **state) {
  (void)state;
  folder = test_folder_make("audit");
  return 0;
}

static int remove_folder(void **state) {
  (void)state;
  test_folder_remove(folder);
  return 0;
}

static void put_audio(const char *name, const float *samples, int64_t frames, int channels, int format) {
  SF_INFO info = {.samplerate = 8000, .channels = channels, .format = format};
  char *path = ser_path_join(folder, name);
  SNDFILE *file = sf_open(path, SFM_WRITE, &info);
  assert_non_null(file);
  assert_int_equal(sf_writef_float(file, samples, frames), frames);
  sf_close(file);
  free(path);
}

enum { WAV16 = SF_FORMAT_WAV | SF_FORMAT_PCM_16, WAVF = SF_FORMAT_WAV | SF_FORMAT_FLOAT, COUNT = 6000 };

/* Indexes the lines of a table: "name,emotion,speaker". */
static void index_table(ser_manifest *manifest, const char *lines, int64_t emotions, const ser_manifest *before) {
  ser_error err = {0};
  ser_index_summary summary;
  char *text = ser_format("path,emotion,speaker\n%s", lines), *csv = ser_path_join(folder, "list.csv");
  test_put_text(folder, "list.csv", text);
  ASSERT_OK(
      ser_index(manifest, &summary, &(ser_index_options){.csv = csv, .emotions = emotions, .jobs = 2}, before, &err),
      err);
  free(summary.notes.data);
  free(text);
  free(csv);
}

static ser_audit_summary run_audit(ser_manifest *manifest, ser_audit_mode mode, bool again) {
  ser_error err = {0};
  ser_audit_summary summary;
  ASSERT_OK(ser_audit(manifest, &summary, &(ser_audit_options){.mode = mode, .again = again, .jobs = 2}, &err), err);
  assert_int_equal(summary.rows, manifest->count);
  assert_int_equal(summary.ok + summary.filtered + summary.excluded + summary.refused, manifest->count);
  return summary;
}

static void expect(const ser_manifest *manifest, const char *name, ser_row_status status, ser_reason reason) {
  const ser_row *row = test_row(manifest, name);
  if (row->status != status || row->reason != reason)
    fail_msg("%s: %s '%s' instead of %s '%s'", name, ser_row_status_names[row->status], ser_reason_name(row->reason),
             ser_row_status_names[status], ser_reason_name(reason));
}

static void every_reason_of_a_file_alone(void **state) {
  (void)state;
  float *speech = test_speech(1, COUNT, 8000), values[2 * COUNT];
  put_audio("fine.wav", speech, COUNT, 1, WAV16);
  memset(values, 0, sizeof values);
  put_audio("zeros.wav", values, COUNT, 1, WAV16);
  put_audio("zeros_too.wav", values, COUNT, 1, WAV16); /* the same bytes under another label: silent, no conflict */
  for (int i = 0; i < COUNT; i++) values[i] = 0.25f + 0.0009f * sinf(0.1f * (float)i);
  put_audio("offset.wav", values, COUNT, 1, WAVF);
  for (int i = 0; i < COUNT; i++) values[i] = 0.005f * sinf(0.1f * (float)i);
  put_audio("quiet.wav", values, COUNT, 1, WAV16); /* -46 dBFS, as RAVDESS's quietest clips are */
  for (int i = 0; i < COUNT; i++) values[i] = fmaxf(-1, fminf(1, 20 * speech[i]));
  put_audio("clipped.wav", values, COUNT, 1, WAV16);
  put_audio("clipped_mulaw.wav", values, COUNT, 1, SF_FORMAT_WAV | SF_FORMAT_ULAW);
  for (int i = 0; i < COUNT; i++) values[i] = fmaxf(-1.5f, fminf(1.5f, 20 * speech[i]));
  put_audio("clipped_above.wav", values, COUNT, 1, WAVF);
  for (int i = 0; i < COUNT; i++) values[i] = 0.9999f * sinf(0.7f * (float)i);
  put_audio("loud.wav", values, COUNT, 1, WAV16); /* full scale, but round */
  for (int i = 0; i < COUNT; i++) values[2 * i] = 0, values[2 * i + 1] = speech[i];
  put_audio("one_side.wav", values, COUNT, 2, WAV16); /* one silent channel is no silence */
  for (int i = 0; i < COUNT; i++) values[2 * i + 1] = fmaxf(-1, fminf(1, 20 * speech[i]));
  put_audio("one_clipped.wav", values, COUNT, 2, WAV16);
  memcpy(values, speech, COUNT * sizeof *speech);
  values[COUNT - 1] = NAN;
  put_audio("nan.wav", values, COUNT, 1, WAVF);
  put_audio("cut.flac", speech, COUNT, 1, SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
  char *cut = ser_path_join(folder, "cut.flac"); /* FLAC: only decoding tells */
  assert_int_equal(truncate(cut, 5000), 0);
  test_put_text(folder, "text.wav", "text");
  ser_manifest manifest;
  index_table(&manifest,
              "fine.wav,sad,\nzeros.wav,sad,\nzeros_too.wav,happy,\noffset.wav,sad,\nquiet.wav,sad,\nclipped.wav,sad,\n"
              "clipped_mulaw.wav,sad,\nclipped_above.wav,sad,\nloud.wav,sad,\none_side.wav,sad,\none_clipped.wav,sad,\n"
              "nan.wav,sad,\ncut.flac,sad,\ntext.wav,sad,\ngone.wav,sad,\n",
              8, NULL);
  ser_audit_summary summary = run_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  expect(&manifest, "fine.wav", SER_ROW_OK, SER_REASON_NONE);
  expect(&manifest, "zeros.wav", SER_EXCLUDED, SER_REASON_SILENT);
  expect(&manifest, "zeros_too.wav", SER_EXCLUDED, SER_REASON_SILENT);
  expect(&manifest, "offset.wav", SER_EXCLUDED, SER_REASON_SILENT);
  expect(&manifest, "quiet.wav", SER_ROW_OK, SER_REASON_NONE);
  expect(&manifest, "clipped.wav", SER_ROW_OK, SER_REASON_CLIPPED);
  expect(&manifest, "clipped_mulaw.wav", SER_ROW_OK, SER_REASON_CLIPPED);
  expect(&manifest, "clipped_above.wav", SER_ROW_OK, SER_REASON_CLIPPED);
  expect(&manifest, "loud.wav", SER_ROW_OK, SER_REASON_NONE);
  expect(&manifest, "one_side.wav", SER_ROW_OK, SER_REASON_NONE);
  expect(&manifest, "one_clipped.wav", SER_ROW_OK, SER_REASON_CLIPPED);
  expect(&manifest, "nan.wav", SER_REFUSED, SER_REASON_NON_FINITE);
  expect(&manifest, "cut.flac", SER_REFUSED, SER_REASON_TRUNCATED);
  expect(&manifest, "text.wav", SER_REFUSED, SER_REASON_UNREADABLE);
  expect(&manifest, "gone.wav", SER_REFUSED, SER_REASON_UNREADABLE);
  assert_int_equal(summary.by_reason[SER_REASON_SILENT], 3);
  assert_int_equal(summary.by_reason[SER_REASON_CLIPPED], 4);
  assert_int_equal(summary.by_reason[SER_REASON_UNREADABLE], 2);
  ser_audit_summary_free(&summary);
  ser_manifest_free(&manifest);
  free(cut);
  free(speech);
}

/* The same audio: by bytes, by samples in another container, in a stereo copy; in one label or two, one speaker or two.
 */
static void relations(void **state) {
  (void)state;
  float *a = test_speech(11, COUNT, 8000), *b = test_speech(12, COUNT, 8000), *c = test_speech(13, COUNT, 8000);
  float *d = test_speech(14, COUNT, 8000), both[2 * COUNT];
  put_audio("a2.wav", a, COUNT, 1, WAV16);
  put_audio("a1.wav", a, COUNT, 1, WAV16);
  put_audio("a3.flac", a, COUNT, 1, SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
  put_audio("b1.wav", b, COUNT, 1, WAV16);
  put_audio("b2.aiff", b, COUNT, 1, SF_FORMAT_AIFF | SF_FORMAT_PCM_16);
  put_audio("b3.wav", b, COUNT, 1, WAV16);
  put_audio("c1.wav", c, COUNT, 1, WAVF);
  for (int i = 0; i < COUNT; i++) both[2 * i] = both[2 * i + 1] = c[i];
  put_audio("c2.wav", both, COUNT, 2, WAVF);
  put_audio("d1.wav", d, COUNT, 1, WAV16);
  put_audio("d2.wav", d, COUNT - 1, 1, WAV16); /* one sample shorter: another recording */
  put_audio("e1.wav", d, COUNT / 2, 1, WAV16);
  put_audio("e2.wav", d, COUNT / 2, 1, WAV16); /* in doubt because of a row that is filtered */
  ser_manifest manifest;
  index_table(&manifest,
              "a2.wav,sad,x\na1.wav,sad,x\na3.flac,sad,x\nb1.wav,sad,x\nb2.aiff,happy,x\nb3.wav,sad,x\nc1.wav,angry,x\n"
              "c2.wav,angry,y\nd1.wav,sad,x\nd2.wav,sad,x\ne1.wav,sad,x\ne2.wav,calm,x\n",
              6, NULL);
  ser_audit_summary summary = run_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  expect(&manifest, "a1.wav", SER_ROW_OK, SER_REASON_NONE); /* the first path in byte order stays */
  expect(&manifest, "a2.wav", SER_EXCLUDED, SER_REASON_DUPLICATE);
  expect(&manifest, "a3.flac", SER_EXCLUDED, SER_REASON_DUPLICATE);
  expect(&manifest, "b1.wav", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  expect(&manifest, "b2.aiff", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  expect(&manifest, "b3.wav", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  expect(&manifest, "c1.wav", SER_ROW_OK, SER_REASON_SPEAKER_CONFLICT);
  expect(&manifest, "c2.wav", SER_EXCLUDED, SER_REASON_DUPLICATE);
  expect(&manifest, "d1.wav", SER_ROW_OK, SER_REASON_NONE);
  expect(&manifest, "d2.wav", SER_ROW_OK, SER_REASON_NONE);
  expect(&manifest, "e1.wav", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  expect(&manifest, "e2.wav", SER_FILTERED, SER_REASON_LABEL_CONFLICT);
  assert_int_equal(summary.decoded, 9); /* files with bytes of their own */
  json_t *findings = json_loads(summary.findings_json, 0, NULL), *finding;
  size_t i, conflicts = 0;
  assert_int_equal(json_array_size(findings), 9);
  json_array_foreach(findings, i, finding) {
    const char *reason = json_string_value(json_object_get(finding, "reason"));
    const char *path = json_string_value(json_object_get(finding, "path"));
    const char *detail = json_string_value(json_object_get(finding, "detail"));
    assert_true(reason && path && detail && json_is_array(json_object_get(finding, "others")));
    if (strstr(path, "/b")) {
      conflicts += !strcmp(reason, "label_conflict");
      assert_int_equal(json_array_size(json_object_get(finding, "others")), 2);
      assert_true(strstr(detail, "happy") && strstr(detail, "sad"));
    }
    if (strstr(path, "c1.wav")) assert_true(!strcmp(reason, "speaker_conflict") && strstr(detail, "x, y"));
  }
  assert_int_equal(conflicts, 3);
  json_decref(findings);
  ser_audit_summary_free(&summary);

  /* The report mode tells the same and excludes nothing; back again is the same as before. */
  ser_text first = {0}, again = {0};
  ser_manifest_text(&first, &manifest);
  summary = run_audit(&manifest, SER_AUDIT_REPORT, false);
  expect(&manifest, "a2.wav", SER_ROW_OK, SER_REASON_DUPLICATE);
  expect(&manifest, "b2.aiff", SER_ROW_OK, SER_REASON_LABEL_CONFLICT);
  expect(&manifest, "c1.wav", SER_ROW_OK, SER_REASON_SPEAKER_CONFLICT);
  expect(&manifest, "e2.wav", SER_FILTERED, SER_REASON_LABEL_CONFLICT);
  assert_int_equal(summary.excluded, 0);
  assert_int_equal(summary.by_reason[SER_REASON_LABEL_CONFLICT], 5);
  ser_audit_summary_free(&summary);
  summary = run_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  ser_manifest_text(&again, &manifest);
  assert_string_equal(first.data, again.data);
  ser_audit_summary_free(&summary);
  free(first.data);
  free(again.data);
  ser_manifest_free(&manifest);
  free(a);
  free(b);
  free(c);
  free(d);
}

/* What a row's file is and what it has in common with others, when its emotion is not asked for. */
static void put_filtered(void) {
  float *speech[8], zeros[COUNT] = {0}, loud[COUNT];
  for (uint64_t i = 0; i < 8; i++) speech[i] = test_speech(40 + i, COUNT - 10 * (int64_t)i, 8000);
  put_audio("a_sad.wav", speech[0], COUNT, 1, WAV16);
  put_audio("a_calm.flac", speech[0], COUNT, 1, SF_FORMAT_FLAC | SF_FORMAT_PCM_16); /* other bytes, the same samples */
  put_audio("b_sad.wav", speech[1], COUNT - 10, 1, WAV16);
  put_audio("b_surprised.wav", speech[1], COUNT - 10, 1, WAV16); /* the same bytes */
  put_audio("c_calm.wav", speech[2], COUNT - 20, 1, WAV16);
  put_audio("c_calm_too.wav", speech[2], COUNT - 20, 1, WAV16);
  put_audio("d_calm.wav", speech[3], COUNT - 30, 1, WAV16);
  put_audio("d_surprised.wav", speech[3], COUNT - 30, 1, WAV16);
  put_audio("e_calm.wav", zeros, COUNT - 40, 1, WAV16);
  for (int i = 0; i < COUNT - 50; i++) loud[i] = fmaxf(-1, fminf(1, 20 * speech[5][i]));
  put_audio("f_calm.wav", loud, COUNT - 50, 1, WAV16);
  put_audio("g_calm.flac", speech[6], COUNT - 60, 1, SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
  char *cut = ser_path_join(folder, "g_calm.flac"); /* only decoding tells */
  assert_int_equal(truncate(cut, 5000), 0);
  test_put_text(folder, "h_calm.wav", "text");
  put_audio("i_calm.wav", speech[7], COUNT - 70, 1, WAV16);
  put_audio("j_sad.wav", speech[4], COUNT - 40, 1, WAV16);
  for (int i = 0; i < 8; i++) free(speech[i]);
  free(cut);
}

static const char filtered_lines[] =
    "a_sad.wav,sad,x\na_calm.flac,calm,x\nb_sad.wav,sad,x\nb_surprised.wav,surprised,x\nc_calm.wav,calm,x\n"
    "c_calm_too.wav,calm,x\nd_calm.wav,calm,x\nd_surprised.wav,surprised,x\ne_calm.wav,calm,x\nf_calm.wav,calm,x\n"
    "g_calm.flac,calm,x\nh_calm.wav,calm,x\ni_calm.wav,calm,x\nj_sad.wav,sad,x\n";

static void expect_filtered(const ser_manifest *manifest) {
  expect(manifest, "a_sad.wav", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  expect(manifest, "a_calm.flac", SER_FILTERED, SER_REASON_LABEL_CONFLICT);
  expect(manifest, "b_sad.wav", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  expect(manifest, "b_surprised.wav", SER_FILTERED, SER_REASON_LABEL_CONFLICT);
  expect(manifest, "c_calm.wav", SER_FILTERED, SER_REASON_NONE);
  expect(manifest, "c_calm_too.wav", SER_FILTERED, SER_REASON_DUPLICATE);
  expect(manifest, "d_calm.wav", SER_FILTERED, SER_REASON_LABEL_CONFLICT);
  expect(manifest, "d_surprised.wav", SER_FILTERED, SER_REASON_LABEL_CONFLICT);
  expect(manifest, "e_calm.wav", SER_FILTERED, SER_REASON_SILENT);
  expect(manifest, "f_calm.wav", SER_FILTERED, SER_REASON_CLIPPED);
  expect(manifest, "g_calm.flac", SER_FILTERED, SER_REASON_TRUNCATED);
  expect(manifest, "h_calm.wav", SER_FILTERED, SER_REASON_UNREADABLE);
  expect(manifest, "i_calm.wav", SER_FILTERED, SER_REASON_NONE);
  expect(manifest, "j_sad.wav", SER_ROW_OK, SER_REASON_NONE);
}

static void write_and_read(ser_manifest *manifest) {
  ser_error err = {0};
  char *path = ser_path_join(folder, "between.csv");
  ASSERT_OK(ser_manifest_write(manifest, path, &err), err);
  ser_manifest_free(manifest);
  ASSERT_OK(ser_manifest_read(manifest, path, &err), err);
  free(path);
}

/* The filter spares no row from being judged: what is found is told, and only the others lose what is in doubt. */
static void filtered_rows_are_judged(void **state) {
  (void)state;
  ser_manifest manifest;
  ser_text first = {0}, second = {0}, said = {0};
  put_filtered();
  index_table(&manifest, filtered_lines, 6, NULL);
  write_and_read(&manifest);
  ser_audit_summary summary = run_audit(&manifest, SER_AUDIT_EXCLUDE, false);
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
  write_and_read(&manifest);
  summary = run_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  ser_manifest_text(&second, &manifest);
  assert_int_equal(summary.decoded, 2); /* a_sad.wav and a_calm.flac */
  assert_string_equal(first.data, second.data);
  ser_audit_summary_free(&summary);
  summary = run_audit(&manifest, SER_AUDIT_REPORT, false);
  expect(&manifest, "a_sad.wav", SER_ROW_OK, SER_REASON_LABEL_CONFLICT);
  expect(&manifest, "a_calm.flac", SER_FILTERED, SER_REASON_LABEL_CONFLICT);
  expect(&manifest, "c_calm_too.wav", SER_FILTERED, SER_REASON_DUPLICATE);
  expect(&manifest, "e_calm.wav", SER_FILTERED, SER_REASON_SILENT);
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
  index_table(&six, filtered_lines, 6, NULL);
  ser_audit_summary summary = run_audit(&six, SER_AUDIT_EXCLUDE, false);
  ser_audit_summary_free(&summary);
  write_and_read(&six);
  index_table(&eight, filtered_lines, 8, &six);
  write_and_read(&eight);
  expect(&eight, "e_calm.wav", SER_EXCLUDED, SER_REASON_SILENT); /* known before the audit */
  expect(&eight, "i_calm.wav", SER_ROW_OK, SER_REASON_NONE);
  summary = run_audit(&eight, SER_AUDIT_EXCLUDE, false);
  assert_int_equal(summary.decoded, 2);
  assert_int_equal(summary.filtered, 0);
  assert_int_equal(summary.refused, 2);
  assert_int_equal(summary.excluded, 8);
  ser_audit_summary_free(&summary);
  index_table(&fresh, filtered_lines, 8, NULL);
  summary = run_audit(&fresh, SER_AUDIT_EXCLUDE, false);
  ser_audit_summary_free(&summary);
  ser_manifest_text(&a, &eight);
  ser_manifest_text(&b, &fresh);
  assert_string_equal(a.data, b.data);
  index_table(&back, filtered_lines, 6, &eight);
  write_and_read(&back);
  summary = run_audit(&back, SER_AUDIT_EXCLUDE, false);
  assert_int_equal(summary.decoded, 2);
  expect_filtered(&back);
  ser_audit_summary_free(&summary);
  ser_manifest_free(&back);
  /* The filtered side of a conflict is taken away: the other is in doubt no longer, and nothing is said of it. */
  static const char rest[] = "a_sad.wav,sad,x\nb_sad.wav,sad,x\nc_calm_too.wav,calm,x\nd_surprised.wav,surprised,x\n";
  index_table(&back, rest, 6, &six);
  summary = run_audit(&back, SER_AUDIT_EXCLUDE, false);
  expect(&back, "a_sad.wav", SER_ROW_OK, SER_REASON_NONE);
  expect(&back, "b_sad.wav", SER_ROW_OK, SER_REASON_NONE);
  expect(&back, "c_calm_too.wav", SER_FILTERED, SER_REASON_NONE);
  expect(&back, "d_surprised.wav", SER_FILTERED, SER_REASON_NONE);
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
  put_audio("x.wav", a, COUNT, 1, WAV16);
  put_audio("y_calm.wav", a, COUNT / 2, 1, WAV16);
  put_audio("z_calm.wav", a, COUNT / 3, 1, WAV16);
  ser_manifest first, second;
  index_table(&first, "x.wav,sad,\ny_calm.wav,calm,\n", 6, NULL);
  ser_audit_summary summary = run_audit(&first, SER_AUDIT_EXCLUDE, false);
  ser_audit_summary_free(&summary);
  index_table(&second, "x.wav,sad,\ny_calm.wav,calm,\nz_calm.wav,calm,\n", 6, &first);
  summary = run_audit(&second, SER_AUDIT_EXCLUDE, false);
  assert_int_equal(summary.decoded, 1);
  ser_audit_summary_free(&summary);
  char *gone = ser_path_join(folder, "z_calm.wav");
  unlink(gone);
  put_audio("y_calm.wav", zeros, COUNT / 2 + 1, 1, WAV16);
  summary = run_audit(&second, SER_AUDIT_EXCLUDE, false);
  expect(&second, "x.wav", SER_ROW_OK, SER_REASON_NONE);
  expect(&second, "y_calm.wav", SER_FILTERED, SER_REASON_SILENT);
  expect(&second, "z_calm.wav", SER_FILTERED, SER_REASON_UNREADABLE);
  assert_int_equal(test_row(&second, "y_calm.wav")->frames, COUNT / 2 + 1);
  assert_int_equal(summary.refused, 0);
  ser_audit_summary_free(&summary);
  ser_manifest_free(&first);
  ser_manifest_free(&second);
  free(gone);
  free(a);
}

/* A copied folder changes no figure, is not decoded again, and its rows stay with their reason. */
static void a_copied_folder_changes_nothing(void **state) {
  (void)state;
  ser_text lines = {0};
  for (int copy = 0; copy < 2; copy++)
    for (int i = 0; i < 12; i++) {
      char *name = ser_format("%s/%02d.wav", copy ? "in/copy" : "in", i);
      test_put_clip(folder, name, (uint64_t)i);
      ser_text_printf(&lines, "%s,%s,s%d\n", name, ser_emotion_names[i % 6], i % 4);
      free(name);
    }
  ser_manifest manifest, later;
  index_table(&manifest, lines.data, 6, NULL);
  ser_audit_summary summary = run_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  assert_int_equal(summary.ok, 12);
  assert_int_equal(summary.by_reason[SER_REASON_DUPLICATE], 12);
  assert_int_equal(summary.decoded, 12);
  for (int i = 0; i < 12; i++) {
    char *kept = ser_format("in/%02d.wav", i), *copy = ser_format("in/copy/%02d.wav", i);
    expect(&manifest, kept, SER_ROW_OK, SER_REASON_NONE);
    expect(&manifest, copy, SER_EXCLUDED, SER_REASON_DUPLICATE);
    free(kept);
    free(copy);
  }
  ser_audit_summary_free(&summary);
  /* Judged once: nothing is decoded the second time, unless it is asked for. */
  ser_text first = {0}, second = {0};
  ser_manifest_text(&first, &manifest);
  index_table(&later, lines.data, 6, &manifest);
  summary = run_audit(&later, SER_AUDIT_EXCLUDE, false);
  ser_manifest_text(&second, &later);
  assert_int_equal(summary.decoded, 0);
  assert_string_equal(first.data, second.data);
  ser_audit_summary_free(&summary);
  summary = run_audit(&later, SER_AUDIT_EXCLUDE, true);
  assert_int_equal(summary.decoded, 12);
  ser_audit_summary_free(&summary);
  /* The first copy goes: the second takes its place. */
  ser_manifest_free(&manifest);
  char *gone = strstr(lines.data, "in/copy");
  index_table(&manifest, gone, 6, &later);
  assert_int_equal(manifest.count, 12);
  summary = run_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  assert_int_equal(summary.ok, 12);
  ser_audit_summary_free(&summary);
  free(lines.data);
  free(first.data);
  free(second.data);
  ser_manifest_free(&manifest);
  ser_manifest_free(&later);
}

/* A new file is held against those judged before, though only its likes are decoded again. */
static void a_new_file_meets_the_old(void **state) {
  (void)state;
  float *a = test_speech(21, COUNT, 8000), *b = test_speech(22, COUNT - 7, 8000);
  put_audio("old_a.wav", a, COUNT, 1, WAV16);
  put_audio("old_b.wav", b, COUNT - 7, 1, WAV16);
  ser_manifest first, second, third;
  index_table(&first, "old_a.wav,sad,\nold_b.wav,sad,\n", 6, NULL);
  ser_audit_summary summary = run_audit(&first, SER_AUDIT_EXCLUDE, false);
  ser_audit_summary_free(&summary);
  put_audio("new_a.flac", a, COUNT, 1, SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
  index_table(&second, "old_a.wav,sad,\nold_b.wav,sad,\nnew_a.flac,sad,\n", 6, &first);
  summary = run_audit(&second, SER_AUDIT_EXCLUDE, false);
  assert_int_equal(summary.decoded, 2);
  expect(&second, "new_a.flac", SER_ROW_OK, SER_REASON_NONE);
  expect(&second, "old_a.wav", SER_EXCLUDED, SER_REASON_DUPLICATE);
  expect(&second, "old_b.wav", SER_ROW_OK, SER_REASON_NONE);
  ser_audit_summary_free(&summary);
  /* A relation that the bytes do not show is looked at again, and ends with its other side. */
  index_table(&third, "old_a.wav,sad,\nold_b.wav,sad,\n", 6, &second);
  summary = run_audit(&third, SER_AUDIT_EXCLUDE, false);
  expect(&third, "old_a.wav", SER_ROW_OK, SER_REASON_NONE);
  assert_int_equal(summary.decoded, 1);
  ser_audit_summary_free(&summary);
  ser_manifest_free(&first);
  ser_manifest_free(&second);
  ser_manifest_free(&third);
  free(a);
  free(b);
}

/* A file that changes between index and audit is judged as it is now. */
static void a_changed_file_is_seen(void **state) {
  (void)state;
  float *a = test_speech(31, COUNT, 8000), zeros[COUNT] = {0};
  put_audio("x.wav", a, COUNT, 1, WAV16);
  put_audio("y.wav", a, COUNT / 2, 1, WAV16);
  ser_manifest manifest;
  index_table(&manifest, "x.wav,sad,\ny.wav,sad,\n", 6, NULL);
  ser_hash before = test_row(&manifest, "x.wav")->hash;
  put_audio("x.wav", zeros, COUNT / 3, 1, WAV16);
  char *gone = ser_path_join(folder, "y.wav");
  unlink(gone);
  ser_audit_summary summary = run_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  const ser_row *row = test_row(&manifest, "x.wav");
  expect(&manifest, "x.wav", SER_EXCLUDED, SER_REASON_SILENT);
  expect(&manifest, "y.wav", SER_REFUSED, SER_REASON_UNREADABLE);
  assert_int_equal(row->frames, COUNT / 3);
  assert_int_equal(row->size, 44 + 2 * (COUNT / 3));
  assert_memory_not_equal(&row->hash, &before, sizeof before);
  ser_audit_summary_free(&summary);
  ser_manifest_free(&manifest);
  free(gone);
  free(a);
}

/* The C library's own pread, which decoding reads with; it fails while this is set. */
static atomic_bool reading_fails;

ssize_t pread(int fd, void *to, size_t count, off_t at) {
  if (!reading_fails) return syscall(SYS_pread64, fd, to, count, at);
  errno = EIO;
  return -1;
}

/* A disk or a mount that fails while files are judged says nothing of their bytes: the next audit or index looks again.
 */
static void a_failed_read_is_no_verdict(void **state) {
  (void)state;
  test_put_clip(folder, "s.wav", 1);
  ser_manifest manifest, again;
  index_table(&manifest, "s.wav,sad,\n", 6, NULL);
  for (int by_index = 0; by_index < 2; by_index++) {
    reading_fails = true;
    ser_audit_summary summary = run_audit(&manifest, SER_AUDIT_EXCLUDE, true);
    ser_audit_summary_free(&summary);
    expect(&manifest, "s.wav", SER_REFUSED, SER_REASON_UNREADABLE);
    write_and_read(&manifest);
    if (by_index) {
      index_table(&again, "s.wav,sad,\n", 6, &manifest); /* its header cannot be read either */
      expect(&again, "s.wav", SER_REFUSED, SER_REASON_UNREADABLE);
      ser_manifest_free(&manifest);
      reading_fails = false;
      index_table(&manifest, "s.wav,sad,\n", 6, &again);
      ser_manifest_free(&again);
      expect(&manifest, "s.wav", SER_NEW, SER_REASON_NONE);
    }
    reading_fails = false;
    summary = run_audit(&manifest, SER_AUDIT_EXCLUDE, false);
    assert_int_equal(summary.decoded, 1);
    ser_audit_summary_free(&summary);
    expect(&manifest, "s.wav", SER_ROW_OK, SER_REASON_NONE);
  }
  ser_manifest_free(&manifest);
}

/* On a signal the manifest keeps what was judged, and rows whose turn had not come stay new. */
static void a_signal_ends_the_audit(void **state) {
  (void)state;
  test_put_clip(folder, "s.wav", 1);
  ser_manifest manifest;
  index_table(&manifest, "s.wav,sad,\n", 6, NULL);
  pid_t child = fork();
  if (child == 0) {
    ser_error err = {0};
    ser_audit_summary summary;
    ser_interrupt_install();
    raise(SIGINT);
    ser_status status = ser_audit(&manifest, &summary, &(ser_audit_options){.jobs = 1}, &err);
    _exit(status == SER_INTERRUPTED && !summary.findings_json && manifest.rows[0].status == SER_NEW ? 0 : 1);
  }
  int result;
  assert_int_equal(waitpid(child, &result, 0), child);
  assert_true(WIFEXITED(result) && WEXITSTATUS(result) == 0);
  ser_manifest_free(&manifest);
}

/* kill -9 while it audits: what was written on the way is a whole manifest, is trusted, and the next audit ends where
 * one that was never cut ends. */
static void a_kill_loses_only_what_was_not_kept(void **state) {
  (void)state;
  enum { CLIPS = 700 };
  ser_text lines = {0};
  for (int i = 0; i < CLIPS; i++) {
    char *name = ser_format("c%03d.wav", i);
    test_put_clip(folder, name, 1000 + (uint64_t)i);
    ser_text_printf(&lines, "%s,sad,\n", name);
    free(name);
  }
  ser_manifest manifest, after;
  ser_error err = {0};
  index_table(&manifest, lines.data, 6, NULL);
  char *kept = ser_path_join(folder, "kept.csv");
  pid_t child = fork();
  if (child == 0) {
    ser_audit_summary summary;
    ser_audit(&manifest, &summary, &(ser_audit_options){.jobs = 1, .keep = kept}, &err);
    pause();
  }
  struct timespec nap = {0, 1000000};
  while (!ser_file_exists(kept)) nanosleep(&nap, NULL);
  kill(child, SIGKILL);
  assert_int_equal(waitpid(child, NULL, 0), child);
  ser_manifest_init(&after);
  ASSERT_OK(ser_manifest_read(&after, kept, &err), err);
  assert_int_equal(after.count, CLIPS);
  size_t judged = 0;
  for (size_t i = 0; i < CLIPS; i++) judged += after.rows[i].status == SER_ROW_OK;
  assert_true(judged >= 256);
  ser_audit_summary whole = run_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  ser_audit_summary rest = run_audit(&after, SER_AUDIT_EXCLUDE, false);
  assert_int_equal(rest.ok, whole.ok);
  ser_text a = {0}, b = {0};
  ser_manifest_text(&a, &manifest);
  ser_manifest_text(&b, &after);
  assert_string_equal(a.data, b.data);
  free(a.data);
  free(b.data);
  free(lines.data);
  free(kept);
  ser_audit_summary_free(&whole);
  ser_audit_summary_free(&rest);
  ser_manifest_free(&after);
  ser_manifest_free(&manifest);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(a_kill_loses_only_what_was_not_kept, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(every_reason_of_a_file_alone, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(relations, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(filtered_rows_are_judged, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(six_emotions_then_eight, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(filtered_rows_that_change, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_copied_folder_changes_nothing, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_new_file_meets_the_old, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_changed_file_is_seen, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_failed_read_is_no_verdict, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_signal_ends_the_audit, make_folder, remove_folder),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
