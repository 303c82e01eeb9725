/* What audits remember of files that share their sound under other bytes: a second audit decodes none of them, and
 * nothing is believed that has changed since: rows that went, came or were changed, labels, the file itself. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sndfile.h>

#include "base/file.h"
#include "support/recordings.h"

enum {
  WAV16 = SF_FORMAT_WAV | SF_FORMAT_PCM_16,
  FLAC16 = SF_FORMAT_FLAC | SF_FORMAT_PCM_16,
  AIFF16 = SF_FORMAT_AIFF | SF_FORMAT_PCM_16,
  COUNT = 3000
};

static char *folder, *manifest_path, *heard_path;

static int make_folder(void **state) {
  (void)state;
  folder = test_folder_make("heard");
  manifest_path = ser_path_join(folder, "m.csv");
  heard_path = ser_path_join(folder, "m.csv.heard");
  return 0;
}

static int remove_folder(void **state) {
  (void)state;
  free(manifest_path);
  free(heard_path);
  test_folder_remove(folder);
  return 0;
}

static void put(const char *name, uint64_t seed, int format) {
  float *samples = test_speech(seed, COUNT, 8000);
  test_put_audio(folder, name, samples, COUNT, 1, format);
  free(samples);
}

/* Audits as the program does; how many files were decoded. The manifest is what a command leaves to the next. */
static size_t audit(ser_manifest *manifest) {
  ser_error err = {0};
  ser_audit_summary summary;
  ASSERT_OK(ser_audit(manifest, &summary, &(ser_audit_options){.jobs = 2, .heard = manifest_path}, &err), err);
  size_t decoded = summary.decoded;
  ser_audit_summary_free(&summary);
  ASSERT_OK(ser_manifest_write(manifest, manifest_path, &err), err);
  ser_manifest_free(manifest);
  ser_manifest_init(manifest);
  ASSERT_OK(ser_manifest_read(manifest, manifest_path, &err), err);
  return decoded;
}

/* The table indexed anew over what stands in the manifest, and audited. */
static size_t again(ser_manifest *manifest, const char *lines) {
  ser_manifest before = *manifest;
  test_index_table(folder, manifest, lines, 6, &before);
  ser_manifest_free(&before);
  return audit(manifest);
}

/* f and z are of the same length as the others and no copies of them: what verdicts alone could not tell apart. */
static const char first_lines[] = "f.wav,sad,x\ng1.wav,sad,x\ng2.flac,sad,x\nl1.wav,sad,x\nl2.flac,happy,x\n"
                                  "s1.wav,sad,x\ns2.aiff,sad,y\nz.wav,sad,x\n";

static void put_first(void) {
  put("f.wav", 1, WAV16);
  put("g1.wav", 2, WAV16);
  put("g2.flac", 2, FLAC16);
  put("l1.wav", 3, WAV16);
  put("l2.flac", 3, FLAC16);
  put("s1.wav", 4, WAV16);
  put("s2.aiff", 4, AIFF16);
  put("z.wav", 5, WAV16);
}

static void check_first(const ser_manifest *manifest) {
  test_row_is(manifest, "f.wav", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(manifest, "g1.wav", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(manifest, "g2.flac", SER_EXCLUDED, SER_REASON_DUPLICATE);
  test_row_is(manifest, "l1.wav", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  test_row_is(manifest, "l2.flac", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  test_row_is(manifest, "s1.wav", SER_ROW_OK, SER_REASON_SPEAKER_CONFLICT);
  test_row_is(manifest, "s2.aiff", SER_EXCLUDED, SER_REASON_DUPLICATE);
  test_row_is(manifest, "z.wav", SER_ROW_OK, SER_REASON_NONE);
}

static void start(ser_manifest *manifest) {
  put_first();
  test_index_table(folder, manifest, first_lines, 6, NULL);
  assert_int_equal(audit(manifest), 8);
  check_first(manifest);
}

static void nothing_is_decoded_twice(void **state) {
  (void)state;
  ser_manifest manifest;
  ser_text first = {0}, second = {0};
  start(&manifest);
  ser_manifest_text(&first, &manifest);
  assert_int_equal(again(&manifest, first_lines), 0);
  ser_manifest_text(&second, &manifest);
  assert_string_equal(first.data, second.data);
  unlink(heard_path); /* derived: without it the copies, and all of their length, are decoded */
  assert_int_equal(again(&manifest, first_lines), 8);
  check_first(&manifest);
  assert_int_equal(again(&manifest, first_lines), 0);
  free(first.data);
  free(second.data);
  ser_manifest_free(&manifest);
}

/* A first copy that goes: the second stays, though another file of its length could stand for it. */
static void a_row_that_went_is_noticed(void **state) {
  (void)state;
  ser_manifest manifest;
  start(&manifest);
  again(&manifest, "f.wav,sad,x\ng2.flac,sad,x\nl2.flac,happy,x\ns2.aiff,sad,y\nz.wav,sad,x\n");
  assert_int_equal(manifest.count, 5);
  for (size_t i = 0; i < manifest.count; i++) {
    assert_int_equal(manifest.rows[i].status, SER_ROW_OK);
    assert_int_equal(manifest.rows[i].reason, SER_REASON_NONE);
  }
  assert_false(ser_file_exists(heard_path)); /* nothing is shared any more */
  ser_manifest_free(&manifest);

  start(&manifest); /* taken out of the manifest by hand, without an index */
  ser_manifest fewer = {.rows = ser_alloc_zero(manifest.count, sizeof *fewer.rows)};
  for (size_t i = 0; i < manifest.count; i++)
    if (strcmp(ser_path_name(manifest.rows[i].path), "g1.wav")) fewer.rows[fewer.count++] = manifest.rows[i];
  ser_audit_summary summary;
  ser_error err = {0};
  ASSERT_OK(ser_audit(&fewer, &summary, &(ser_audit_options){.jobs = 2, .heard = manifest_path}, &err), err);
  test_row_is(&fewer, "g2.flac", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&fewer, "s2.aiff", SER_EXCLUDED, SER_REASON_DUPLICATE);
  ser_audit_summary_free(&summary);
  free(fewer.rows);
  ser_manifest_free(&manifest);
}

/* A clipped copy is clipped again once it is no duplicate. */
static void what_a_relation_hid_comes_back(void **state) {
  (void)state;
  ser_manifest manifest;
  float *samples = test_speech(1, COUNT, 8000);
  for (int i = 0; i < COUNT; i++) samples[i] = fmaxf(-1, fminf(1, 20 * samples[i]));
  test_put_audio(folder, "a.wav", samples, COUNT, 1, WAV16);
  test_put_audio(folder, "b.flac", samples, COUNT, 1, FLAC16);
  test_index_table(folder, &manifest, "a.wav,sad,\nb.flac,sad,\n", 6, NULL);
  audit(&manifest);
  test_row_is(&manifest, "a.wav", SER_ROW_OK, SER_REASON_CLIPPED);
  test_row_is(&manifest, "b.flac", SER_EXCLUDED, SER_REASON_DUPLICATE);
  assert_int_equal(again(&manifest, "a.wav,sad,\nb.flac,sad,\n"), 0);
  test_row_is(&manifest, "a.wav", SER_ROW_OK, SER_REASON_CLIPPED);
  again(&manifest, "b.flac,sad,\n");
  test_row_is(&manifest, "b.flac", SER_ROW_OK, SER_REASON_CLIPPED);
  ser_manifest_free(&manifest);
  free(samples);
}

/* New copies take their places among the old ones; of these only what is not remembered is decoded. */
static void a_row_that_came_is_compared(void **state) {
  (void)state;
  ser_manifest manifest;
  start(&manifest);
  put("a.aiff", 2, AIFF16);
  put("y.flac", 5, FLAC16);
  char *lines = ser_format("%sa.aiff,sad,x\ny.flac,angry,x\n", first_lines);
  assert_int_equal(again(&manifest, lines), 4); /* the two, f and z */
  test_row_is(&manifest, "a.aiff", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&manifest, "g1.wav", SER_EXCLUDED, SER_REASON_DUPLICATE);
  test_row_is(&manifest, "g2.flac", SER_EXCLUDED, SER_REASON_DUPLICATE);
  test_row_is(&manifest, "y.flac", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  test_row_is(&manifest, "z.wav", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  assert_int_equal(again(&manifest, lines), 0);
  ser_manifest_free(&manifest);
  free(lines);
}

/* Another sound under an old name, and other labels for the same sounds. */
static void what_changed_is_related_anew(void **state) {
  (void)state;
  ser_manifest manifest;
  start(&manifest);
  put("g1.wav", 6, WAV16);
  again(&manifest, first_lines);
  test_row_is(&manifest, "g1.wav", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&manifest, "g2.flac", SER_ROW_OK, SER_REASON_NONE);
  put("g1.wav", 2, WAV16);
  again(&manifest, first_lines);
  check_first(&manifest);
  again(&manifest, "f.wav,happy,x\ng1.wav,sad,x\ng2.flac,happy,x\nl1.wav,happy,x\nl2.flac,happy,x\ns1.wav,sad,y\n"
                   "s2.aiff,sad,y\nz.wav,happy,x\n");
  test_row_is(&manifest, "f.wav", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&manifest, "g1.wav", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  test_row_is(&manifest, "g2.flac", SER_EXCLUDED, SER_REASON_LABEL_CONFLICT);
  test_row_is(&manifest, "l1.wav", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&manifest, "l2.flac", SER_EXCLUDED, SER_REASON_DUPLICATE);
  test_row_is(&manifest, "s1.wav", SER_ROW_OK, SER_REASON_NONE);
  test_row_is(&manifest, "s2.aiff", SER_EXCLUDED, SER_REASON_DUPLICATE);
  ser_manifest_free(&manifest);
}

/* A damaged file, one of another decoder and one that is somebody's own are not believed; the last one stays. */
static void only_our_own_memory_is_believed(void **state) {
  (void)state;
  ser_manifest manifest;
  ser_error err = {0};
  start(&manifest);
  char *good, *now;
  size_t size, size_now;
  ASSERT_OK(ser_file_read(&good, &size, heard_path, &err), err);
  for (int way = 0; way < 6; way++) {
    char *bad = ser_alloc(size + 1);
    size_t kept = size;
    memcpy(bad, good, size + 1);
    if (way == 0) bad[size - 40] = bad[size - 40] == '0' ? '1' : '0';
    if (way == 1) kept = size - 66; /* its last line is cut off */
    if (way == 2) kept = 20;
    if (way == 3) { /* another decoder's, else whole */
      char *decoder = strchr(bad, '\n') + 1, hex[SER_HASH_HEX];
      decoder[0] ^= 1;
      ser_hash hash = ser_hash_bytes(decoder, (size_t)(bad + size - decoder));
      ser_hash_hex(hex, &hash);
      memcpy(decoder - 33, hex, 32);
    }
    if (way == 4) bad[0] = 'S';
    if (way == 5) kept = 0;
    ASSERT_OK(ser_file_write(heard_path, bad, kept, &err), err);
    assert_int_equal(again(&manifest, first_lines), 8);
    check_first(&manifest);
    ASSERT_OK(ser_file_read(&now, &size_now, heard_path, &err), err);
    assert_int_equal(size_now, size);
    assert_memory_equal(now, way == 4 ? bad : good, size);
    free(now);
    free(bad);
  }
  free(good);
  ser_manifest_free(&manifest);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(nothing_is_decoded_twice, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_row_that_went_is_noticed, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(what_a_relation_hid_comes_back, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_row_that_came_is_compared, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(what_changed_is_related_anew, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(only_our_own_memory_is_believed, make_folder, remove_folder),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
