/* Caches of large clips, for tests of gc: each has 2 MB, so that a shard of eight and more of them is no small one;
 * fifteen do not make it seal itself. The i-th has the same number everywhere, which the variant changes a little. */
#ifndef SER_TESTS_LARGE_H
#define SER_TESTS_LARGE_H

#include "cache/cache.h"

void test_large_add(ser_cache *cache, int64_t clip, int variant);

/* Seals what was added as one shard, and closes. Its path, which the caller frees. */
char *test_large_finish(ser_cache *cache);

/* A shard of [first, last), from behind or forward: another writer's order, and so another name for the same clips.
 * Its path, which the caller frees. */
char *test_large_fill(const char *folder, int64_t first, int64_t last, int variant);
char *test_large_fill_forward(const char *folder, int64_t first, int64_t last);

/* What a reader gets is [first, last), with the index and without it. */
void test_large_check(const char *folder, int64_t first, int64_t last, int variant);

size_t test_large_entries(const char *folder); /* those that stand twice count twice */

/* Runs gc; its report must hold both texts. */
void test_gc(const char *folder, const char *shards, const char *gone);
#define TEST_NOTHING_GONE ", 0 rewritten; removed 0 doubled,"

void test_expect_file(char *path, bool there); /* frees the path */

#endif
