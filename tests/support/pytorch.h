/* PyTorch's files made by hand, sound and otherwise: pickles of tensors, ZIP archives, the format before 1.6. */
#ifndef SER_TESTS_PYTORCH_H
#define SER_TESTS_PYTORCH_H

#include "base/memory.h"
#include "base/status.h"
#include "model/weights.h"

/* An archive that grows. What an entry's headers say is what it is, unless these fields, which hold for the next entry
 * alone, say otherwise. */
typedef struct {
  ser_text bytes, directory;
  size_t count;
  bool wide;              /* ZIP64 fields and records */
  bool described;         /* sizes in the directory alone */
  int method, flags;      /* of the next entry */
  long long shift, grow;  /* where it lies and how large it is, off by so much */
  const char *local_name; /* its name in its own header */
} test_zip;

void test_zip_add(test_zip *zip, const char *name, const void *bytes, size_t size);
void test_zip_end(test_zip *zip); /* then bytes is the file; the caller frees bytes.data */

/* One tensor more in a pickle of protocol 2: strides NULL are those of a contiguous one. */
typedef struct {
  const char *name, *storage, *key; /* storage: "FloatStorage" and the like */
  long long elements, offset;
  int dimensions;
  const int64_t *shape, *stride;
} test_pickled;
void test_pickle_begin(ser_text *pickle); /* an OrderedDict */
void test_pickle_tensor(ser_text *pickle, const test_pickled *tensor, bool legacy);
void test_pickle_end(ser_text *pickle);

/* The whole file around a pickle and storages. */
typedef struct {
  const char *key;
  const void *bytes;
  size_t size, elements;
} test_storage;
void test_pytorch_zip(ser_text *file, const ser_text *pickle, const test_storage *storages, size_t count);
void test_pytorch_legacy(ser_text *file, const ser_text *pickle, const test_storage *storages, size_t count);

/* Parses a copy that ends where the bytes end (sanitizers see a step beyond), reads every number of what can be read,
 * and frees it. A refusal must name the path, "FILE", in one line. */
ser_status test_weights_try(const char *bytes, size_t size, ser_error *err);

#endif
