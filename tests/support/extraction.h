/* Recordings in a folder of their own, and extracting their features into a cache there. */
#ifndef SER_TESTS_EXTRACTION_H
#define SER_TESTS_EXTRACTION_H

#include "features/extract.h"

/* A folder of recordings, their manifest, a configuration and a device. */
typedef struct {
  char *folder, *cache;
  ser_manifest manifest;
  ser_config config;
  ser_device *device;
} test_scene;

test_scene test_scene_make(int threads);
void test_scene_free(test_scene *s);

ser_row *test_scene_add_row(test_scene *s, const char *name); /* of a file that lies there */
/* Noise that rises and falls: features of no two clips are the same. */
ser_row *test_scene_add_noise(test_scene *s, const char *name, uint64_t seed, int64_t count, int rate);
/* Clips of many lengths and rates: from the shortest that has features on. */
void test_scene_add_clips(test_scene *s, int count);

ser_status test_scene_extract(ser_extract_summary *summary, test_scene *s, ser_feature_kind kind, int jobs,
                              ser_error *err);
/* Extracts and expects these counts, and `named` among the refusals (NULL: that there are none). */
void test_scene_expect(test_scene *s, ser_feature_kind kind, int jobs, size_t present, size_t computed,
                       size_t too_short, size_t refused, const char *named);

/* The features of every usable row as the cache has them; the caller frees both. */
void test_scene_read(test_scene *s, ser_feature_kind kind, int64_t **offset, float **features);
ser_entry_status test_scene_cached(test_scene *s, const ser_hash *key);

#endif
