/* Made recordings in made layouts, for tests of corpora. */
#ifndef SER_TESTS_RECORDINGS_H
#define SER_TESTS_RECORDINGS_H

#include "corpus/manifest.h"
#include "support/harness.h"

/* Writes a short clip (0.05 s at 8 kHz, the seed's own noise) at root/below and makes the folders on the way. */
void test_put_clip(const char *root, const char *below, uint64_t seed);

/* The same for any bytes. */
void test_put_bytes(const char *root, const char *below, const void *bytes, size_t size);
void test_put_text(const char *root, const char *below, const char *text);

/* Writes samples [frames][channels] at 8 kHz; format: libsndfile's. */
void test_put_audio(const char *folder, const char *name, const float *samples, int64_t frames, int channels,
                    int format);

/* Indexes the lines of a lab's table: "name,emotion,speaker". */
void test_index_table(const char *folder, ser_manifest *manifest, const char *lines, int64_t emotions,
                      const ser_manifest *before);

/* An audit that must succeed, and whose counts must add up. */
ser_audit_summary test_audit(ser_manifest *manifest, ser_audit_mode mode, bool again);

void test_write_and_read(const char *folder, ser_manifest *manifest); /* as a command leaves it to the next */
void test_row_is(const ser_manifest *manifest, const char *name, ser_row_status status, ser_reason reason);

/* The row of a manifest whose path ends in "/" and this; fails the test where there is none. */
ser_row *test_row(const ser_manifest *manifest, const char *ending);

#endif
