/* The directory of a ZIP archive in memory, as far as PyTorch's files need it: stored entries, ZIP64, data descriptors
 * (sizes that stand in the directory alone). */
#ifndef SER_MODEL_WEIGHTS_ZIP_H
#define SER_MODEL_WEIGHTS_ZIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct {
  const char *name; /* within the archive, not ended by NUL */
  size_t name_size;
  uint64_t size, packed, local; /* bytes of content, as they lie there, and where its local header is */
  unsigned method, flags;
} ser_zip_entry;

typedef struct {
  ser_zip_entry *entries; /* by name, in byte order */
  size_t count;
  const char *bytes, *path;
  size_t size, directory; /* of the file; where the directory begins */
} ser_zip;

ser_status ser_zip_open(ser_zip *zip, const char *bytes, size_t size, const char *path, ser_error *err);
void ser_zip_close(ser_zip *zip);
/* NULL where there is none. */
const ser_zip_entry *ser_zip_find(const ser_zip *zip, const char *name, size_t name_size);
/* The bytes of an entry. What is compressed or encrypted, or does not lie within the file, is refused by its name. */
ser_status ser_zip_content(const char **content, const ser_zip *zip, const ser_zip_entry *entry, ser_error *err);

#endif
