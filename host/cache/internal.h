/* What the files of the cache share. Only this folder includes it.
 *
 * cache.c opens, adds, seals, finds and reads; folder.c knows the layout on disk; shard.c alone speaks HDF5, always on
 * images in memory; index.c keeps the table of entries and its file; upkeep.c serves `serenade cache`, compact.c its
 * gc. */
#ifndef SER_CACHE_INTERNAL_H
#define SER_CACHE_INTERNAL_H

#include <sys/stat.h>

#include "cache/cache.h"

#define CACHE_FORMAT "serenade-cache 1"

/* ---- a shard as a table (shard.c) ---------------------------------------------------------------------------------
 */

/* The memory that loading a shard needs, used again from shard to shard: tens of megabytes that would otherwise be
 * mapped and touched anew each time. Zero-initialise; cache_scratch_free ends it. */
typedef struct {
  char *image; /* [size] */
  size_t size, image_capacity;
  float *features;
  size_t features_capacity; /* floats */
} cache_scratch;

void cache_scratch_free(cache_scratch *scratch);

/* One shard's content. shard_decode allocates every array but features; cache_table_free frees those. */
typedef struct {
  int64_t count, columns; /* N, C */
  ser_hash *key;          /* [N] hash of the recording's bytes */
  ser_hash *row_hash;     /* [N] hash of the entry's features, as little-endian float32 */
  uint8_t *status;        /* [N] ser_entry_status */
  uint64_t *offset;       /* [N + 1] in rows of features */
  float *features;        /* [offset[N]][C], borrowed (from the scratch), or NULL where it was not asked for */
  char *configuration;    /* the canonical JSON it was computed with */
  char *attributes;       /* JSON: units, versions, backend */
} cache_table;

void cache_table_free(cache_table *table);

/* The file image of the table; *image is freed by the caller. The same table gives the same bytes. */
ser_status shard_encode(char **image, size_t *size, const cache_table *table, ser_error *err);

/* Reads the scratch's image, whose hash has been checked. SER_FAILED says what is wrong with it, without naming the
 * file; the table is then empty. with_features: also /features, which stay valid until the scratch is used again. */
ser_status shard_decode(cache_table *table, cache_scratch *scratch, bool with_features, ser_error *err);

/* The hash of the member `decoder` of a shard's attributes, zeros where there is none: entries without features hold
 * for this decoder alone. */
ser_hash cache_decoder(const char *attributes);

/* Whether a shard with these attributes stores its features in half precision (the member `stored` is float16). In
 * memory they are float32 all the same, and so hashed. */
bool cache_is_half(const char *attributes);

/* The first entry whose features do not match row_hash, or -1. */
int64_t cache_table_check(const cache_table *table);

/* ---- the index (index.c) ------------------------------------------------------------------------------------------
 */

typedef struct {
  ser_hash name;    /* of the file's bytes */
  ser_hash decoder; /* cache_decoder of its attributes */
  int64_t size, mtime_ns;
  bool gone; /* no longer in the folder, or damaged: its entries are dropped */
} cache_shard;

typedef struct {
  ser_hash key;
  uint32_t shard, row; /* in cache_index.shards, and in the shard's table */
  uint32_t frames;     /* T */
  uint32_t status;     /* ser_entry_status */
} cache_entry;

/* Entries are sorted by key, then status (OK first), shard and row: duplicates stand side by side. */
typedef struct {
  cache_shard *shards;
  size_t shard_count, shard_capacity;
  cache_entry *entries;
  size_t entry_count;
} cache_index;

void cache_index_free(cache_index *index);
/* SER_FAILED (the index stays empty) where the file is absent, damaged or of another version or byte order. */
ser_status cache_index_load(cache_index *index, const char *folder, ser_error *err);
ser_status cache_index_save(const cache_index *index, const char *folder, ser_error *err);
/* Appends the entries of one table under a new shard; cache_index_sort must follow before anything is looked up. */
void cache_index_add(cache_index *index, const cache_shard *shard, const cache_table *table);
void cache_index_sort(cache_index *index);
/* Removes the entries of every shard that is marked gone. */
void cache_index_drop_gone(cache_index *index);
/* The entry that stands for the key, or NULL: the first with features, else the first of a shard of this decoder. */
const cache_entry *cache_index_find(const cache_index *index, const ser_hash *key, const ser_hash *decoder);

/* ---- the folder (folder.c) ----------------------------------------------------------------------------------------
 */

/* Checks CACHE/FORMAT, writing it where there is none and `create`. */
ser_status cache_format_check(const char *root, bool create, ser_error *err);

/* Whether a name is <feature>-<32 hex digits>; feature (or NULL) is freed by the caller. */
bool cache_folder_parse(char **feature, ser_hash *hash, const char *name);

/* Names of the feature folders below a cache's root, sorted. */
ser_status cache_feature_folders(char ***names, size_t *count, const char *root, ser_error *err);

bool cache_shard_name_parse(ser_hash *hash, const char *name); /* <32 hex digits>.h5 */
char *cache_shard_path(const char *folder, const ser_hash *name);

/* Writes a file of the feature folder: tmp/, fsync, rename to its place, fsync of that folder. On any error nothing is
 * left. info: of the file. */
ser_status cache_write_file(struct stat *info, const char *folder, const char *place, const char *data, size_t size,
                            ser_error *err);

/* The same for the shard that has these bytes. */
ser_status cache_write_shard(cache_shard *shard, const char *folder, const char *image, size_t size, ser_error *err);

/* Brings the names in shards/ onto the disk. false: errno says why; true, too, where the file system syncs no folders.
 */
bool cache_sync_shards(const char *folder);

/* How loading a shard ended. */
typedef enum { CACHE_LOADED, CACHE_VANISHED, CACHE_DAMAGED, CACHE_UNREADABLE } cache_load;

/* Reads the shard's bytes into the scratch and checks them against its name. The text in err says what is wrong,
 * without the name. */
cache_load cache_load_bytes(cache_scratch *scratch, const char *folder, const ser_hash *name, ser_error *err);

/* Moves a shard to quarantine/ (never over another file there). false where that was not possible. */
bool cache_quarantine(const char *folder, const ser_hash *name);

/* ---- the cache (cache.c) ------------------------------------------------------------------------------------------
 */

struct ser_cache {
  char *folder; /* CACHE/<feature>-<hash> */
  char *configuration, *attributes;
  ser_hash decoder; /* of the attributes */
  int64_t columns;  /* 0: not known, and not checked (upkeep of a configuration of another version) */
  cache_index index;
  bool changed;      /* the index file is out of date */
  bool deep;         /* check every row of every shard that is read while opening */
  ser_text *report;  /* or NULL: where damage is told beside ser_warn */
  ser_hash *damaged; /* shards found damaged since opening */
  size_t damaged_count, damaged_capacity;
  ser_hash *unreadable; /* shards whose bytes could not be had since opening: told once each */
  size_t unreadable_count, unreadable_capacity;

  cache_scratch scratch; /* of the shard loaded last; emptied when a read or a listing ends */

  bool half; /* cache_is_half of the attributes */
  /* the pending shard: its features are the cache's own */
  cache_table pending;
  int64_t pending_capacity, features_capacity;
  double pending_since; /* seconds, CLOCK_MONOTONIC */
};

typedef struct {
  bool create, ignore_index, deep;
  ser_text *report;
} cache_open_options;

/* Opens CACHE/<feature>-<hash>, whose FORMAT has been checked. columns 0: not known. */
ser_status cache_open_folder(ser_cache **cache, const char *folder, const char *configuration, const char *attributes,
                             int64_t columns, const cache_open_options *options, ser_error *err);

/* Lists the folder: takes in unknown shards, drops vanished ones. */
ser_status cache_refresh(ser_cache *cache, ser_error *err);

/* Why a table whose bytes are good does not belong into this cache, or NULL: another configuration or number of
 * columns, or (where they were loaded) features that do not match their hashes. */
const char *cache_misfit(const ser_cache *cache, const cache_table *table);

/* Loads and decodes a known shard; damaged ones are quarantined and told, and their entries (as those of vanished
 * ones) are dropped. err is set unless CACHE_LOADED. The table's features stand in cache->scratch. */
cache_load cache_load_shard(cache_table *table, ser_cache *cache, size_t shard, bool with_features, ser_error *err);

/* ---- gc (compact.c) -----------------------------------------------------------------------------------------------
 */

/* Shards that gc took out of the folder: those written anew, and those whose every entry stands elsewhere. */
typedef struct {
  size_t rewritten, doubled;
} cache_gone;

/* Joins small shards and removes what stands twice. cache->columns must be known, and no other gc at work: two that
 * know of different shards could each rely on what the other one removes. */
ser_status cache_compact(cache_gone *gone, ser_cache *cache, ser_error *err);

#endif
