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

/* The row of a manifest whose path ends in "/" and this; fails the test where there is none. */
ser_row *test_row(const ser_manifest *manifest, const char *ending);

#endif
