/* The feature cache: sealed immutable HDF5 shards, no locks, a derived index. The only user of HDF5; within a process
 * one thread at a time uses a ser_cache (several processes may use one folder at once).
 *
 *     CACHE/FORMAT                            "serenade-cache 1"
 *     CACHE/<feature>-<hash of config>/       config.json, shards/<xxh128>.h5, tmp/, quarantine/, index
 */
#ifndef SER_CACHE_CACHE_H
#define SER_CACHE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/memory.h"

typedef enum {
  SER_ENTRY_OK = 0,
  SER_ENTRY_TOO_SHORT = 1,
  SER_ENTRY_REFUSED = 2,
  SER_ENTRY_MISSING = 255
} ser_entry_status;

typedef struct ser_cache ser_cache;

/* Opens (and makes, where `create`) the folder of one feature configuration. config_json is canonical: keys sorted, no
 * spaces, its hash names the folder. columns: C. attributes_json: what is told in each shard beside it (versions,
 * backend, units; as `decoder` what judges recordings: entries without features hold for the same decoder alone, for
 * another one they are missing; `stored` float16: features are rounded to half precision when they are added). Reads
 * the index, lists shards, reads the keys of unknown ones, drops what is damaged (quarantine, told by ser_warn). An
 * unknown FORMAT is refused with what to do. */
ser_status ser_cache_open(ser_cache **cache, const char *folder, const char *feature, const char *config_json,
                          const char *attributes_json, int64_t columns, bool create, ser_error *err);
/* Seals what is pending, writes the index, frees. NULL is fine. */
ser_status ser_cache_close(ser_cache *cache, ser_error *err);
const char *ser_cache_folder(const ser_cache *cache);
/* Whether the folder is a cache, of whatever version. */
bool ser_cache_is(const char *folder);

/* MISSING where the key is not sealed yet; rows (or NULL) gets T. */
ser_entry_status ser_cache_find(const ser_cache *cache, const ser_hash *key, int64_t *rows);

/* Adds an entry to the pending shard (features [rows][C], rows 0 unless OK); seals at 32 MB or 10 s since the first. */
ser_status ser_cache_add(ser_cache *cache, const ser_hash *key, ser_entry_status status, const float *features,
                         int64_t rows, ser_error *err);
ser_status ser_cache_seal(ser_cache *cache, ser_error *err);
/* Seals where the pending shard is older than 10 s; called by jobs while they wait. */
ser_status ser_cache_tick(ser_cache *cache, ser_error *err);

/* Reads the features of many keys into one ragged array: offset [count + 1] rows, features [offset[count]][C] (both
 * freed by the caller). Each touched shard is rehashed against its name, each row against row_hash. A key that is
 * missing, not OK or damaged is SER_FAILED naming the key and saying to run extract again; all shards of the keys have
 * been looked at by then, so that one extraction brings back what all damaged ones held. */
ser_status ser_cache_read(ser_cache *cache, int64_t **offset, float **features, const ser_hash *keys, size_t count,
                          ser_error *err);

/* Shards found damaged (told, and moved to quarantine) since the cache was opened. */
size_t ser_cache_damaged(const ser_cache *cache);

/* C of the features that a configuration describes, or 0 where this version does not know it. */
typedef int64_t (*ser_cache_columns_fn)(const char *config_json);

/* `serenade cache verify|merge|gc` and `info cache`: over every feature folder of a cache. The report is lines for
 * people. verify: SER_FAILED where something is damaged (and quarantines it). merge: shards of `from` are linked or
 * copied into `into`. gc: small shards are rewritten as few, what stands twice goes, tmp files of dead processes and
 * quarantine are removed; SER_FAILED where another gc works. How many columns are right the configuration says, never
 * a shard: where columns_of does not know it, shards are held against their hashes alone, and gc rewrites none. */
ser_status ser_cache_verify(const char *folder, ser_cache_columns_fn columns_of, ser_text *report, ser_error *err);
ser_status ser_cache_merge(const char *into, const char *from, ser_cache_columns_fn columns_of, ser_text *report,
                           ser_error *err);
ser_status ser_cache_gc(const char *folder, ser_cache_columns_fn columns_of, ser_text *report, ser_error *err);
ser_status ser_cache_info(const char *folder, ser_cache_columns_fn columns_of, ser_text *report, ser_error *err);

#endif
