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

enum { WAV16 = SF_FORMAT_WAV | SF_FORMAT_PCM_16, WAVF = SF_FORMAT_WAV | SF_FORMAT_FLOAT, COUNT = 6000 };

static void every_reason_of_a_file_alone(void **state) {
  (void)state;
  float *speech = test_speech(1, COUNT, 8000), values[2 * COUNT];
  test_put_audio(folder, "fine.wav", speech, COUNT, 1, WAV16);
  memset(values, 0, sizeof values);
  test_put_audio(folder, "zeros.wav", values, COUNT, 1, WAV16);
  test_put_audio(folder, "zeros_too.wav", values, COUNT, 1,
                 WAV16); /* the same bytes under another label: silent, no conflict */
  for (int i = 0; i < COUNT; i++) values[i] = 0.25f + 0.0009f * sinf(0.1f * (float)i);
  test_put_audio(folder, "offset.wav", values, COUNT, 1, WAVF);
  for (int i = 0; i < COUNT; i++) values[i] = 0.005f * sinf(0.1f * (float)i);
  test_put_audio(folder, "quiet.wav", values, COUNT, 1, WAV16); /* -46 dBFS, as RAVDESS's quietest clips are */
  for (int i = 0; i < COUNT; i++) values[i] = fmaxf(-1, fminf(1, 20 * speech[i]));
  test_put_audio(folder, "clipped.wav", values, COUNT, 1, WAV16);
  test_put_audio(folder, "clipped_mulaw.wav", values, COUNT, 1, SF_FORMAT_WAV | SF_FORMAT_ULAW);
  for (int i = 0; i < COUNT; i++) values[i] = fmaxf(-1.5f, fminf(1.5f, 20 * speech[i]));
  test_put_audio(folder, "clipped_above.wav", values, COUNT, 1, WAVF);
  for (int i = 0; i < COUNT; i++) values[i] = 0.9999f * sinf(0.7f * (float)i);
  test_put_audio(folder, "loud.wav", values, COUNT, 1, WAV16); /* full scale, but round */
  for (int i = 0; i < COUNT; i++) values[2 * i] = 0, values[2 * i + 1] = speech[i];
  test_put_audio(folder, "one_side.wav", values, COUNT, 2, WAV16); /* one silent channel is no silence */
  for (int i = 0; i < COUNT; i++) values[2 * i + 1] = fmaxf(-1, fminf(1, 20 * speech[i]));
  test_put_audio(folder, "one_clipped.wav", values, COUNT, 2, WAV16);
  memcpy(values, speech, COUNT * sizeof *speech);
  values[COUNT - 1] = NAN;
  test_put_audio(folder, "nan.wav", values, COUNT, 1, WAVF);
  test_put_audio(folder, "cut.flac", speech, COUNT, 1, SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
  char *cut = ser_path_join(folder, "cut.flac"); /* FLAC: only decoding tells */
  assert_int_equal(truncate(cut, 5000), 0);
  test_put_text(folder, "text.wav", "text");
  ser_manifest manifest;
  test_index_table(
      folder, &manifest,
      "fine.wav,sad,\nzeros.wav,sad,\nzeros_too.wav,happy,\noffset.wav,sad,\nquiet.wav,sad,\nclipped.wav,sad,\n"
      "clipped_mulaw.wav,sad,\nclipped_above.wav,sad,\nloud.wav,sad,\none_side.wav,sad,\none_clipped.wav,sad,\n"
      "nan.wav,sad,\ncut.flac,sad,\ntext.wav,sad,\ngone.wav,sad,\n",
      8, NULL);
  ser_audit_summary summary = test_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  test_row_is(&manifest, "fine.wav", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&manifest, "zeros.wav", SER_EXCLUDED, SER_REASON_SILENT);
  test_row_is(&manifest, "zeros_too.wav", SER_EXCLUDED, SER_REASON_SILENT);
  test_row_is(&manifest, "offset.wav", SER_EXCLUDED, SER_REASON_SILENT);
  test_row_is(&manifest, "quiet.wav", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&manifest, "clipped.wav", SER_ROW_OK, SER_REASON_CLIPPED);
  test_row_is(&manifest, "clipped_mulaw.wav", SER_ROW_OK, SER_REASON_CLIPPED);
  test_row_is(&manifest, "clipped_above.wav", SER_ROW_OK, SER_REASON_CLIPPED);
  test_row_is(&manifest, "loud.wav", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&manifest, "one_side.wav", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&manifest, "one_clipped.wav", SER_ROW_OK, SER_REASON_CLIPPED);
  test_row_is(&manifest, "nan.wav", SER_REFUSED, SER_REASON_NON_FINITE);
  test_row_is(&manifest, "cut.flac", SER_REFUSED, SER_REASON_TRUNCATED);
  test_row_is(&manifest, "text.wav", SER_REFUSED, SER_REASON_UNREADABLE);
  test_row_is(&manifest, "gone.wav", SER_REFUSED, SER_REASON_UNREADABLE);
  assert_int_equal(summary.by_reason[SER_REASON_SILENT], 3);
  assert_int_equal(summary.by_reason[SER_REASON_CLIPPED], 4);
  assert_int_equal(summary.by_reason[SER_REASON_UNREADABLE], 2);
  assert_non_null(strstr(summary.findings_json, "not a recording that libsndfile")); /* which the index judged */
  assert_non_null(strstr(summary.findings_json, "No such file"));
  ser_audit_summary_free(&summary);
  ser_manifest_free(&manifest);
  free(cut);
  free(speech);
}

/* Flat tops count from one sample in 10 000 on: here runs of three and of four among noise that is never loud. */
static void clipped_from_one_in_ten_thousand(void **state) {
  (void)state;
  enum { LONG = 40000 };
  float *values = ser_alloc(LONG * sizeof *values);
  for (int i = 0; i < LONG; i++) values[i] = 0.5f * test_random(7, (uint64_t)i);
  for (int i = 100; i < 103; i++) values[i] = 1;
  test_put_audio(folder, "under.wav", values, LONG, 1, WAVF); /* 3 of 40 000 */
  values[103] = 1;
  test_put_audio(folder, "at.wav", values, LONG, 1, WAVF); /* 4 of 40 000 */
  values[200] = values[201] = 1;                           /* two alike are no flat top */
  test_put_audio(folder, "under_again.wav", values + 101, LONG - 101, 1, WAVF);
  ser_manifest manifest;
  test_index_table(folder, &manifest, "under.wav,sad,\nat.wav,sad,\nunder_again.wav,sad,\n", 8, NULL);
  ser_audit_summary summary = test_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  test_row_is(&manifest, "under.wav", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&manifest, "at.wav", SER_ROW_OK, SER_REASON_CLIPPED);
  test_row_is(&manifest, "under_again.wav", SER_ROW_OK, SER_REASON_NONE);
  ser_audit_summary_free(&summary);
  ser_manifest_free(&manifest);
  free(values);
}

/* The same samples at another rate are another sound. */
static void another_rate_is_no_duplicate(void **state) {
  (void)state;
  float *a = test_speech(41, COUNT, 8000);
  char *slow = ser_path_join(folder, "slow.wav"), *fast = ser_path_join(folder, "fast.wav");
  test_write_wav(slow, a, COUNT, 8000);
  test_write_wav(fast, a, COUNT, 16000);
  test_put_audio(folder, "slow.flac", a, COUNT, 1, SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
  ser_manifest manifest;
  test_index_table(folder, &manifest, "slow.wav,sad,\nfast.wav,happy,\nslow.flac,sad,\n", 8, NULL);
  ser_audit_summary summary = test_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  test_row_is(&manifest, "slow.flac", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&manifest, "slow.wav", SER_EXCLUDED, SER_REASON_DUPLICATE);
  test_row_is(&manifest, "fast.wav", SER_ROW_OK, SER_REASON_NONE);
  ser_audit_summary_free(&summary);
  ser_manifest_free(&manifest);
  free(slow);
  free(fast);
  free(a);
}

/* The same audio: by bytes, by samples in another container, in a stereo copy; in one label or two, one speaker or two.
 */
static void relations(void **state) {
  (void)state;
  float *a = test_speech(11, COUNT, 8000), *b = test_speech(12, COUNT, 8000), *c = test_speech(13, COUNT, 8000);
  float *d = test_speech(14, COUNT, 8000), both[2 * COUNT];
  test_put_audio(folder, "a2.wav", a, COUNT, 1, WAV16);
  test_put_audio(folder, "a1.wav", a, COUNT, 1, WAV16);
  test_put_audio(folder, "a3.flac", a, COUNT, 1, SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
  test_put_audio(folder, "b1.wav", b, COUNT, 1, WAV16);
  test_put_audio(folder, "b2.aiff", b, COUNT, 1, SF_FORMAT_AIFF | SF_FORMAT_PCM_16);
  test_put_audio(folder, "b3.wav", b, COUNT, 1, WAV16);
  test_put_audio(folder, "c1.wav", c, COUNT, 1, WAVF);
  for (int i = 0; i < COUNT; i++) both[2 * i] = both[2 * i + 1] = c[i];
  test_put_audio(folder, "c2.wav", both, COUNT, 2, WAVF);
  test_put_audio(folder, "d1.wav", d, COUNT, 1, WAV16);
  test_put_audio(folder, "d2.wav", d, COUNT - 1, 1, WAV16); /* one sample shorter: another recording */
  test_put_audio(folder, "e1.wav", d, COUNT / 2, 1, WAV16);
  test_put_audio(folder, "e2.wav", d, COUNT / 2, 1, WAV16); /* in doubt because of a row that is filtered */
  ser_manifest manifest;
  test_index_table(
      folder, &manifest,
      "a2.wav,sad,x\na1.wav,sad,x\na3.flac,sad,x\nb1.wav,sad,x\nb2.aiff,happy,x\nb3.wav,sad,x\nc1.wav,angry,x\n"
      "c2.wav,angry,y\nd1.wav,sad,x\nd2.wav,sad,x\ne1.wav,sad,x\ne2.wav,calm,x\n",
      6, NULL);
  ser_audit_summary summary = test_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  test_row_is(&manifest, "a1.wav", SER_ROW_OK, SER_REASON_NONE); /* the first path in byte order stays */
  test_row_is(&manifest, "a2.wav", SER_EXCLUDED, SER_REASON_DUPLICATE);
  test_row_is(&manifest, "a3.flac", SER_EXCLUDED, SER_REASON_DUPLICATE);
  test_row_is(&manifest, "b1.wav", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  test_row_is(&manifest, "b2.aiff", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  test_row_is(&manifest, "b3.wav", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  test_row_is(&manifest, "c1.wav", SER_ROW_OK, SER_REASON_SPEAKER_CONFLICT);
  test_row_is(&manifest, "c2.wav", SER_EXCLUDED, SER_REASON_DUPLICATE);
  test_row_is(&manifest, "d1.wav", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&manifest, "d2.wav", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&manifest, "e1.wav", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  test_row_is(&manifest, "e2.wav", SER_FILTERED, SER_REASON_LABEL_CONFLICT);
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
  static const char *const same[][2] = {{"a1.wav", "a1.wav"},  {"a2.wav", "a1.wav"},  {"a3.flac", "a1.wav"},
                                        {"b1.wav", "b2.aiff"}, {"b2.aiff", "b1.wav"}, {"b3.wav", "b1.wav"},
                                        {"c1.wav", "c2.wav"},  {"c2.wav", "c1.wav"},  {"d1.wav", "d1.wav"},
                                        {"d2.wav", "d2.wav"},  {"e1.wav", "e2.wav"},  {"e2.wav", "e1.wav"}};
  for (size_t k = 0; k < manifest.count; k++) {
    assert_string_equal(ser_path_name(manifest.rows[k].path), same[k][0]);
    assert_string_equal(ser_path_name(manifest.rows[summary.same_as[k]].path), same[k][1]);
  }
  ser_audit_summary_free(&summary);

  /* The report mode tells the same and excludes nothing; back again is the same as before. */
  ser_text first = {0}, again = {0};
  ser_manifest_text(&first, &manifest);
  summary = test_audit(&manifest, SER_AUDIT_REPORT, false);
  test_row_is(&manifest, "a2.wav", SER_ROW_OK, SER_REASON_DUPLICATE);
  test_row_is(&manifest, "b2.aiff", SER_ROW_OK, SER_REASON_LABEL_CONFLICT);
  test_row_is(&manifest, "c1.wav", SER_ROW_OK, SER_REASON_SPEAKER_CONFLICT);
  test_row_is(&manifest, "e2.wav", SER_FILTERED, SER_REASON_LABEL_CONFLICT);
  assert_int_equal(summary.excluded, 0);
  assert_int_equal(summary.by_reason[SER_REASON_LABEL_CONFLICT], 5);
  ser_audit_summary_free(&summary);
  summary = test_audit(&manifest, SER_AUDIT_EXCLUDE, false);
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
  test_index_table(folder, &manifest, lines.data, 6, NULL);
  ser_audit_summary summary = test_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  assert_int_equal(summary.ok, 12);
  assert_int_equal(summary.by_reason[SER_REASON_DUPLICATE], 12);
  assert_int_equal(summary.decoded, 12);
  for (int i = 0; i < 12; i++) {
    char *kept = ser_format("in/%02d.wav", i), *copy = ser_format("in/copy/%02d.wav", i);
    test_row_is(&manifest, kept, SER_ROW_OK, SER_REASON_NONE);
    test_row_is(&manifest, copy, SER_EXCLUDED, SER_REASON_DUPLICATE);
    free(kept);
    free(copy);
  }
  ser_audit_summary_free(&summary);
  /* Judged once: nothing is decoded the second time, unless it is asked for. */
  ser_text first = {0}, second = {0};
  ser_manifest_text(&first, &manifest);
  test_index_table(folder, &later, lines.data, 6, &manifest);
  summary = test_audit(&later, SER_AUDIT_EXCLUDE, false);
  ser_manifest_text(&second, &later);
  assert_int_equal(summary.decoded, 0);
  assert_string_equal(first.data, second.data);
  ser_audit_summary_free(&summary);
  summary = test_audit(&later, SER_AUDIT_EXCLUDE, true);
  assert_int_equal(summary.decoded, 12);
  ser_audit_summary_free(&summary);
  /* The first copy goes: the second takes its place. */
  ser_manifest_free(&manifest);
  char *gone = strstr(lines.data, "in/copy");
  test_index_table(folder, &manifest, gone, 6, &later);
  assert_int_equal(manifest.count, 12);
  summary = test_audit(&manifest, SER_AUDIT_EXCLUDE, false);
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
  test_put_audio(folder, "old_a.wav", a, COUNT, 1, WAV16);
  test_put_audio(folder, "old_b.wav", b, COUNT - 7, 1, WAV16);
  ser_manifest first, second, third;
  test_index_table(folder, &first, "old_a.wav,sad,\nold_b.wav,sad,\n", 6, NULL);
  ser_audit_summary summary = test_audit(&first, SER_AUDIT_EXCLUDE, false);
  ser_audit_summary_free(&summary);
  test_put_audio(folder, "new_a.flac", a, COUNT, 1, SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
  test_index_table(folder, &second, "old_a.wav,sad,\nold_b.wav,sad,\nnew_a.flac,sad,\n", 6, &first);
  summary = test_audit(&second, SER_AUDIT_EXCLUDE, false);
  assert_int_equal(summary.decoded, 2);
  test_row_is(&second, "new_a.flac", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&second, "old_a.wav", SER_EXCLUDED, SER_REASON_DUPLICATE);
  test_row_is(&second, "old_b.wav", SER_ROW_OK, SER_REASON_NONE);
  ser_audit_summary_free(&summary);
  /* A relation that the bytes do not show is looked at again, and ends with its other side. */
  test_index_table(folder, &third, "old_a.wav,sad,\nold_b.wav,sad,\n", 6, &second);
  summary = test_audit(&third, SER_AUDIT_EXCLUDE, false);
  test_row_is(&third, "old_a.wav", SER_ROW_OK, SER_REASON_NONE);
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
  test_put_audio(folder, "x.wav", a, COUNT, 1, WAV16);
  test_put_audio(folder, "y.wav", a, COUNT / 2, 1, WAV16);
  ser_manifest manifest;
  test_index_table(folder, &manifest, "x.wav,sad,\ny.wav,sad,\n", 6, NULL);
  ser_hash before = test_row(&manifest, "x.wav")->hash;
  test_put_audio(folder, "x.wav", zeros, COUNT / 3, 1, WAV16);
  char *gone = ser_path_join(folder, "y.wav");
  unlink(gone);
  ser_audit_summary summary = test_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  const ser_row *row = test_row(&manifest, "x.wav");
  test_row_is(&manifest, "x.wav", SER_EXCLUDED, SER_REASON_SILENT);
  test_row_is(&manifest, "y.wav", SER_REFUSED, SER_REASON_UNREADABLE);
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
  test_index_table(folder, &manifest, "s.wav,sad,\n", 6, NULL);
  for (int by_index = 0; by_index < 2; by_index++) {
    reading_fails = true;
    ser_audit_summary summary = test_audit(&manifest, SER_AUDIT_EXCLUDE, true);
    ser_audit_summary_free(&summary);
    test_row_is(&manifest, "s.wav", SER_REFUSED, SER_REASON_UNREADABLE);
    test_write_and_read(folder, &manifest);
    if (by_index) {
      test_index_table(folder, &again, "s.wav,sad,\n", 6, &manifest); /* its header cannot be read either */
      test_row_is(&again, "s.wav", SER_REFUSED, SER_REASON_UNREADABLE);
      ser_manifest_free(&manifest);
      reading_fails = false;
      test_index_table(folder, &manifest, "s.wav,sad,\n", 6, &again);
      ser_manifest_free(&again);
      test_row_is(&manifest, "s.wav", SER_NEW, SER_REASON_NONE);
    }
    reading_fails = false;
    summary = test_audit(&manifest, SER_AUDIT_EXCLUDE, false);
    assert_int_equal(summary.decoded, 1);
    ser_audit_summary_free(&summary);
    test_row_is(&manifest, "s.wav", SER_ROW_OK, SER_REASON_NONE);
  }
  ser_manifest_free(&manifest);
}

/* On a signal the manifest keeps what was judged, and rows whose turn had not come stay new. */
static void a_signal_ends_the_audit(void **state) {
  (void)state;
  test_put_clip(folder, "s.wav", 1);
  ser_manifest manifest;
  test_index_table(folder, &manifest, "s.wav,sad,\n", 6, NULL);
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
  test_index_table(folder, &manifest, lines.data, 6, NULL);
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
  ser_audit_summary whole = test_audit(&manifest, SER_AUDIT_EXCLUDE, false);
  ser_audit_summary rest = test_audit(&after, SER_AUDIT_EXCLUDE, false);
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
      cmocka_unit_test_setup_teardown(clipped_from_one_in_ten_thousand, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(another_rate_is_no_duplicate, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(relations, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_copied_folder_changes_nothing, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_new_file_meets_the_old, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_changed_file_is_seen, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_failed_read_is_no_verdict, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_signal_ends_the_audit, make_folder, remove_folder),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
