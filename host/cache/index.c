/* The index: which shard and row hold a key, sorted, with a file that is derived from the shards and may vanish at any
 * time. The file: a head, the shards, the entries as they stand in memory, and XXH3-128 of all that. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cache/internal.h"

typedef struct {
  char magic[24];  /* "serenade-index 2" */
  uint64_t order;  /* BYTE_ORDER as this machine writes it */
  uint64_t shards; /* index_shard [shards], then cache_entry [entries], then the checksum */
  uint64_t entries;
} index_head;

typedef struct {
  ser_hash name, decoder;
  int64_t size, mtime_ns;
} index_shard;

static const char MAGIC[24] = "serenade-index 2";
static const uint64_t ORDER = 0x0102030405060708u;

void cache_index_free(cache_index *index) {
  free(index->shards);
  free(index->entries);
  memset(index, 0, sizeof *index);
}

static int compare_entries(const void *left, const void *right) {
  const cache_entry *a = left, *b = right;
  int order = ser_hash_compare(&a->key, &b->key);
  if (order) return order;
  if (a->status != b->status) return a->status < b->status ? -1 : 1;
  if (a->shard != b->shard) return a->shard < b->shard ? -1 : 1;
  return (a->row > b->row) - (a->row < b->row);
}

/* The parts of the file, checked against its size and checksum; false where something does not fit. */
static bool open_parts(index_head *head, const index_shard **shards, const cache_entry **entries, const char *data,
                       size_t size) {
  ser_hash told, found;
  if (size < sizeof *head + sizeof told) return false;
  memcpy(head, data, sizeof *head);
  if (memcmp(head->magic, MAGIC, sizeof MAGIC) != 0 || head->order != ORDER) return false;
  size_t body = size - sizeof *head - sizeof told;
  if (head->shards > body / sizeof(index_shard)) return false;
  size_t names = head->shards * sizeof(index_shard);
  if (head->entries > (body - names) / sizeof(cache_entry) || names + head->entries * sizeof(cache_entry) != body)
    return false;
  memcpy(&told, data + size - sizeof told, sizeof told);
  found = ser_hash_bytes(data, size - sizeof told);
  if (ser_hash_compare(&told, &found) != 0) return false;
  *shards = (const index_shard *)(data + sizeof *head);
  *entries = (const cache_entry *)(data + sizeof *head + names);
  return true;
}

static bool entries_fit(const cache_entry *entries, size_t count, size_t shards) {
  for (size_t i = 0; i < count; i++) {
    if (entries[i].shard >= shards || entries[i].status > SER_ENTRY_REFUSED) return false;
    if (i && compare_entries(&entries[i - 1], &entries[i]) >= 0) return false;
  }
  return true;
}

ser_status cache_index_load(cache_index *index, const char *folder, ser_error *err) {
  char *data, *path = ser_path_join(folder, "index");
  size_t size;
  index_head head;
  const index_shard *shards;
  const cache_entry *entries;
  ser_status status = ser_file_read(&data, &size, path, err);
  free(path);
  SER_TRY(status);
  if (!open_parts(&head, &shards, &entries, data, size) || !entries_fit(entries, head.entries, head.shards)) {
    free(data);
    return ser_fail(err, SER_FAILED, "the index of %s is damaged or of another version", folder);
  }
  index->shard_count = index->shard_capacity = head.shards;
  index->shards = ser_alloc_zero(head.shards, sizeof *index->shards);
  for (size_t i = 0; i < head.shards; i++)
    index->shards[i] = (cache_shard){
        .name = shards[i].name, .decoder = shards[i].decoder, .size = shards[i].size, .mtime_ns = shards[i].mtime_ns};
  index->entry_count = head.entries;
  index->entries = ser_alloc(head.entries * sizeof *entries);
  if (head.entries) memcpy(index->entries, entries, head.entries * sizeof *entries);
  free(data);
  return SER_OK;
}

ser_status cache_index_save(const cache_index *index, const char *folder, ser_error *err) {
  char *path = ser_path_join(folder, "index");
  struct stat info;
  ser_text file = {0};
  index_head head = {.order = ORDER, .entries = index->entry_count};
  memcpy(head.magic, MAGIC, sizeof MAGIC);
  uint32_t *number = ser_alloc(index->shard_count * sizeof *number);
  for (size_t i = 0; i < index->shard_count; i++)
    number[i] = index->shards[i].gone ? UINT32_MAX : (uint32_t)head.shards++;
  ser_text_add(&file, (const char *)&head, sizeof head);
  for (size_t i = 0; i < index->shard_count; i++) {
    const cache_shard *shard = &index->shards[i];
    index_shard stored = {shard->name, shard->decoder, shard->size, shard->mtime_ns};
    if (!shard->gone) ser_text_add(&file, (const char *)&stored, sizeof stored);
  }
  /* Numbers keep their order as gone shards fall out, so the entries stay sorted. */
  for (size_t i = 0; i < index->entry_count; i++) {
    cache_entry entry = index->entries[i];
    entry.shard = number[entry.shard];
    ser_text_add(&file, (const char *)&entry, sizeof entry);
  }
  ser_hash checksum = ser_hash_bytes(file.data, file.size);
  ser_text_add(&file, (const char *)&checksum, sizeof checksum);
  ser_status status = cache_write_file(&info, folder, path, file.data, file.size, err);
  free(path);
  free(number);
  free(file.data);
  return status;
}

void cache_index_add(cache_index *index, const cache_shard *shard, const cache_table *table) {
  SER_CHECK(index->shard_count < UINT32_MAX && table->count < UINT32_MAX);
  SER_GROW(index->shards, index->shard_count, index->shard_capacity);
  uint32_t number = (uint32_t)index->shard_count;
  index->shards[index->shard_count] = *shard;
  index->shards[index->shard_count++].decoder = cache_decoder(table->attributes);
  size_t all = index->entry_count + (size_t)table->count;
  index->entries = ser_realloc(index->entries, all * sizeof *index->entries);
  for (int64_t i = 0; i < table->count; i++) {
    uint64_t frames = table->offset[i + 1] - table->offset[i];
    index->entries[index->entry_count++] =
        (cache_entry){table->key[i], number, (uint32_t)i, (uint32_t)frames, table->status[i]};
  }
}

void cache_index_sort(cache_index *index) {
  if (index->entry_count) qsort(index->entries, index->entry_count, sizeof *index->entries, compare_entries);
}

void cache_index_drop_gone(cache_index *index) {
  size_t kept = 0;
  for (size_t i = 0; i < index->entry_count; i++)
    if (!index->shards[index->entries[i].shard].gone) index->entries[kept++] = index->entries[i];
  index->entry_count = kept;
}

const cache_entry *cache_index_find(const cache_index *index, const ser_hash *key, const ser_hash *decoder) {
  size_t low = 0, high = index->entry_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (ser_hash_compare(&index->entries[middle].key, key) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  for (; low < index->entry_count && ser_hash_compare(&index->entries[low].key, key) == 0; low++) {
    const cache_entry *entry = &index->entries[low];
    if (entry->status == SER_ENTRY_OK || ser_hash_compare(&index->shards[entry->shard].decoder, decoder) == 0)
      return entry;
  }
  return NULL;
}
