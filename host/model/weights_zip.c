/* ZIP archives (APPNOTE 6.3: local headers, central directory, end record, and the ZIP64 forms of the last two).
 *
 * Checked: that the directory is whole and tells of as many entries as the end record, that no name is there twice,
 * and, of an entry that is read, its method, its two sizes, its local header's name, and that it ends before the
 * directory. CRCs are not: PyTorch lets its writers leave them out, and they would take longer than everything else. */
#include "model/weights_zip.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { END_SIZE = 22, LOCATOR_SIZE = 20, END64_SIZE = 56, ENTRY_SIZE = 46, LOCAL_SIZE = 30 };

static uint64_t number(const char *at, int width) {
  uint64_t value = 0;
  for (int i = 0; i < width; i++) value |= (uint64_t)(unsigned char)at[i] << (8 * i);
  return value;
}

#define REFUSE(zip, err, ...) refuse(zip, err, ser_format(__VA_ARGS__))
static ser_status refuse(const ser_zip *zip, ser_error *err, char *what) {
  ser_fail(err, SER_FAILED, "%s is not a sound PyTorch (ZIP) file: %s; copy it again", zip->path, what);
  free(what);
  return SER_FAILED;
}

static char *shown(const ser_zip_entry *entry) {
  char *name = ser_format("%.*s", entry->name_size < 100 ? (int)entry->name_size : 100, entry->name);
  char *form = ser_shown(name);
  free(name);
  return form;
}

static ser_status refuse_entry(const ser_zip *zip, const ser_zip_entry *entry, const char *what, ser_error *err) {
  char *name = shown(entry);
  ser_status status = REFUSE(zip, err, "its entry %s %s", name, what);
  free(name);
  return status;
}

/* The end record is the last thing in the file but for a comment that it tells the length of. */
static const char *find_end(const ser_zip *zip) {
  if (zip->size < END_SIZE) return NULL;
  size_t most = zip->size - END_SIZE < 65535 ? zip->size - END_SIZE : 65535;
  for (size_t comment = 0; comment <= most; comment++) {
    const char *end = zip->bytes + zip->size - END_SIZE - comment;
    if (!memcmp(end, "PK\5\6", 4) && number(end + 20, 2) == comment) return end;
  }
  return NULL;
}

/* Where the directory is, how long, how many entries. */
static ser_status read_end(ser_zip *zip, uint64_t *begin, uint64_t *size, uint64_t *count, ser_error *err) {
  const char *end = find_end(zip);
  if (!end) return REFUSE(zip, err, "it ends without a directory, as what was not copied to its end does");
  size_t at = (size_t)(end - zip->bytes);
  *count = number(end + 10, 2);
  *size = number(end + 12, 4);
  *begin = number(end + 16, 4);
  if (at >= LOCATOR_SIZE && !memcmp(end - LOCATOR_SIZE, "PK\6\7", 4)) {
    uint64_t far = number(end - LOCATOR_SIZE + 8, 8);
    if (at < LOCATOR_SIZE + END64_SIZE || far > at - LOCATOR_SIZE - END64_SIZE || memcmp(zip->bytes + far, "PK\6\6", 4))
      return REFUSE(zip, err, "its ZIP64 record is not where it says");
    *count = number(zip->bytes + far + 32, 8);
    *size = number(zip->bytes + far + 40, 8);
    *begin = number(zip->bytes + far + 48, 8);
    at = (size_t)far;
  }
  if (*begin > at || *size > at - *begin) return REFUSE(zip, err, "its directory lies outside of it");
  if (*count > *size / ENTRY_SIZE) return REFUSE(zip, err, "its directory is shorter than its entries");
  return SER_OK;
}

/* The ZIP64 field replaces, in this order, those numbers that did not fit. */
static bool widen(ser_zip_entry *entry, const char *extra, size_t size) {
  while (size >= 4) {
    size_t field = (size_t)number(extra + 2, 2);
    if (field > size - 4) return false;
    if (number(extra, 2) == 1) {
      uint64_t *const wide[] = {&entry->size, &entry->packed, &entry->local};
      const char *at = extra + 4;
      for (int i = 0; i < 3; i++) {
        if (*wide[i] != 0xffffffff) continue;
        if (extra + 4 + field < at + 8) return false;
        *wide[i] = number(at, 8);
        at += 8;
      }
    }
    extra += 4 + field;
    size -= 4 + field;
  }
  return true;
}

static int compare(const char *a, size_t a_size, const char *b, size_t b_size) {
  int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
  return order ? order : a_size < b_size ? -1 : a_size > b_size;
}

static int by_name(const void *a, const void *b) {
  const ser_zip_entry *x = a, *y = b;
  return compare(x->name, x->name_size, y->name, y->name_size);
}

static ser_status read_directory(ser_zip *zip, uint64_t begin, uint64_t size, uint64_t count, ser_error *err) {
  const char *at = zip->bytes + begin, *end = at + size;
  zip->directory = (size_t)begin;
  zip->entries = ser_alloc_zero((size_t)count + 1, sizeof *zip->entries);
  for (uint64_t i = 0; i < count; i++) {
    ser_zip_entry *entry = &zip->entries[zip->count];
    if (end - at < ENTRY_SIZE || memcmp(at, "PK\1\2", 4)) return REFUSE(zip, err, "its directory is damaged");
    size_t name = (size_t)number(at + 28, 2), extra = (size_t)number(at + 30, 2), comment = (size_t)number(at + 32, 2);
    if ((size_t)(end - at) - ENTRY_SIZE < name + extra + comment)
      return REFUSE(zip, err, "its directory ends in the middle");
    *entry = (ser_zip_entry){at + ENTRY_SIZE,
                             name,
                             number(at + 24, 4),
                             number(at + 20, 4),
                             number(at + 42, 4),
                             (unsigned)number(at + 10, 2),
                             (unsigned)number(at + 8, 2)};
    if (!widen(entry, at + ENTRY_SIZE + name, extra)) return refuse_entry(zip, entry, "has a damaged ZIP64 field", err);
    zip->count++;
    at += ENTRY_SIZE + name + extra + comment;
  }
  qsort(zip->entries, zip->count, sizeof *zip->entries, by_name);
  for (size_t i = 1; i < zip->count; i++)
    if (!by_name(&zip->entries[i - 1], &zip->entries[i]))
      return refuse_entry(zip, &zip->entries[i], "is there twice", err);
  return SER_OK;
}

ser_status ser_zip_open(ser_zip *zip, const char *bytes, size_t size, const char *path, ser_error *err) {
  uint64_t begin = 0, length = 0, count = 0;
  *zip = (ser_zip){.bytes = bytes, .path = path, .size = size};
  SER_TRY(read_end(zip, &begin, &length, &count, err));
  ser_status status = read_directory(zip, begin, length, count, err);
  if (status != SER_OK) ser_zip_close(zip);
  return status;
}

void ser_zip_close(ser_zip *zip) {
  free(zip->entries);
  memset(zip, 0, sizeof *zip);
}

const ser_zip_entry *ser_zip_find(const ser_zip *zip, const char *name, size_t name_size) {
  const ser_zip_entry key = {.name = name, .name_size = name_size};
  return zip->count ? bsearch(&key, zip->entries, zip->count, sizeof key, by_name) : NULL;
}

ser_status ser_zip_content(const char **content, const ser_zip *zip, const ser_zip_entry *entry, ser_error *err) {
  enum { ENCRYPTED = 1, DESCRIPTOR = 8 };
  if (entry->flags & ENCRYPTED) return refuse_entry(zip, entry, "is encrypted, which PyTorch never does", err);
  if (entry->method) return refuse_entry(zip, entry, "is compressed, which PyTorch never does", err);
  if (entry->size != entry->packed) return refuse_entry(zip, entry, "has two sizes", err);
  if (entry->local > zip->directory || zip->directory - entry->local < LOCAL_SIZE)
    return refuse_entry(zip, entry, "lies outside of the file", err);
  const char *local = zip->bytes + entry->local;
  if (memcmp(local, "PK\3\4", 4)) return refuse_entry(zip, entry, "is not where the directory says", err);
  uint64_t before = LOCAL_SIZE + number(local + 26, 2) + number(local + 28, 2), room = zip->directory - entry->local;
  if (before > room || entry->size > room - before) return refuse_entry(zip, entry, "lies outside of the file", err);
  if (compare(local + LOCAL_SIZE, (size_t)number(local + 26, 2), entry->name, entry->name_size))
    return refuse_entry(zip, entry, "has another name in its own header", err);
  uint64_t told = number(local + 22, 4);
  if (!(entry->flags & DESCRIPTOR) && told != 0xffffffff && told != entry->size)
    return refuse_entry(zip, entry, "has another size in its own header", err);
  *content = local + before;
  return SER_OK;
}
