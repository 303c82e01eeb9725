/* A feature cache of made clips, and ways to damage its files. */
#ifndef SER_TESTS_CACHE_H
#define SER_TESTS_CACHE_H

#include "cache/cache.h"

#define TEST_CACHE_CONFIG "{\"feature\":\"test\",\"rate\":16000}"
#define TEST_CACHE_ATTRIBUTES "{\"backend\":\"cpu\",\"units\":\"dB\",\"serenade\":\"0\"}"
enum { TEST_CACHE_COLUMNS = 5 };

ser_cache *test_cache_open(const char *folder, bool create);
void test_cache_close(ser_cache *cache);

/* What upkeep asks: the columns of TEST_CACHE_CONFIG; 0, not known, of any other. */
int64_t test_cache_columns(const char *config_json);

/* The i-th made clip: its key, its features of 0 to 100 rows; every seventh is too short, every eleventh refused. */
ser_hash test_cache_key(int64_t i);
ser_status test_cache_add(ser_cache *cache, int64_t i, ser_error *err);
void test_cache_fill(ser_cache *cache, int64_t first, int64_t last); /* adds [first, last) and seals */

/* How many of the clips [first, last) are there; those that are must have their status and length. */
size_t test_cache_count(ser_cache *cache, int64_t first, int64_t last);
/* Those with features must all be there, with their bytes. */
void test_cache_check(ser_cache *cache, int64_t first, int64_t last);

/* Files in a part of the feature's folder (shards, tmp, quarantine), and the only shard's path, which the caller frees.
 */
size_t test_cache_files(const ser_cache *cache, const char *part);
char *test_cache_shard(const ser_cache *cache);

/* Changes a file in place and keeps its time, as a failing disk does: flips a bit ('f'), zeroes 4 KiB ('z') or cuts it
 * ('c') at this place, counted from the end where it is negative. */
void test_damage(const char *path, long at, int mode);
/* Flips a bit in every shard below a cache's folder; how many there are. */
size_t test_damage_shards(const char *folder);

#endif
