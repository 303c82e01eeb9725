/* Safetensors: an 8-byte little-endian header length, a JSON header, the tensors' bytes. Float32 tensors are what
 * Serenade writes; reading refuses anything that is not well formed (overlaps, gaps, sizes that do not fit). */
#ifndef SER_MODEL_SAFETENSORS_H
#define SER_MODEL_SAFETENSORS_H

#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"

typedef struct {
  char *name;
  char dtype[8]; /* "F32", "F64", "I64", "U8" ... */
  int dimensions;
  int64_t shape[8];
  const void *data; /* within the file's bytes when read; the caller's when written */
  size_t bytes;
} ser_tensor;

typedef struct {
  ser_tensor *tensors;
  size_t count;
  char **keys, **values; /* __metadata__ */
  size_t metadata_count;
  char *file; /* the bytes, owned; NULL: they are whoever's called ser_tensors_parse */
} ser_tensors;

ser_status ser_tensors_read(ser_tensors *tensors, const char *path, ser_error *err);
/* The same of bytes that stay the caller's, and that the tensors lie in (in a mapped file, say); path is for messages.
 */
ser_status ser_tensors_parse(ser_tensors *tensors, const char *bytes, size_t size, const char *path, ser_error *err);
void ser_tensors_free(ser_tensors *tensors);
const ser_tensor *ser_tensors_find(const ser_tensors *tensors, const char *name); /* or NULL */
const char *ser_tensors_metadata(const ser_tensors *tensors, const char *key);    /* or NULL */
/* The file's bytes: header keys in the order given, data aligned to 8 bytes; the same input, the same bytes. */
void ser_tensors_text(ser_text *out, const ser_tensor *tensors, size_t count, const char *const *keys,
                      const char *const *values, size_t metadata_count);

#endif
