/* The pickles in PyTorch's files, read without running anything: an explicit stack machine that knows the few
 * operations with which a table of tensors is written, and the few names that stand in one. Every other name is refused
 * by that name. Nothing here calls, imports or makes an object of any class; what is built are the values below. */
#ifndef SER_MODEL_WEIGHTS_PICKLE_H
#define SER_MODEL_WEIGHTS_PICKLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* torch's types of storage: their name in the pickle, as safetensors calls the type, and the bytes of an element. */
typedef struct {
  const char *name;
  char dtype[8];
  size_t size;
} ser_storage_type;

typedef enum {
  SER_PICKLED_OTHER, /* harmless, and of no use here: a float, bytes, a set, a number beyond 64 bits */
  SER_PICKLED_NONE,
  SER_PICKLED_BOOL,
  SER_PICKLED_INT,
  SER_PICKLED_TEXT,
  SER_PICKLED_TUPLE,
  SER_PICKLED_LIST,
  SER_PICKLED_DICT,
  SER_PICKLED_NAME, /* one that is allowed; what is done with it depends on what follows */
  SER_PICKLED_STORAGE,
  SER_PICKLED_TENSOR,
} ser_pickled_kind;

typedef struct ser_pickled ser_pickled;

typedef struct {
  const ser_pickled *storage;
  int64_t offset; /* of its first element in the storage; this and the others not negative, and otherwise unchecked */
  int dimensions;
  int64_t shape[8], stride[8];
} ser_pickled_tensor;

typedef struct {
  const char *bytes; /* within the pickle, with any bytes in them */
  size_t size;
} ser_pickled_text;

struct ser_pickled {
  ser_pickled_kind kind;
  union {
    int64_t number; /* BOOL, INT; the row of a NAME */
    ser_pickled_text text;
    struct {
      ser_pickled **items; /* of a DICT: key, value, key, value ... */
      size_t count, capacity;
    } list; /* TUPLE, LIST, DICT */
    struct {
      const ser_storage_type *type;
      ser_pickled_text key;
      int64_t elements;
    } storage;
    ser_pickled_tensor *tensor;
  };
};

typedef struct {
  ser_pickled **blocks; /* every value that was made: they may hold each other in circles */
  size_t count, capacity, used;
  ser_pickled *root;
} ser_pickle;

/* Reads one pickle from the start of the bytes, and how many of them it took. The values refer to the bytes. path is
 * the file's, for messages. */
ser_status ser_pickle_read(ser_pickle *pickle, size_t *taken, const char *bytes, size_t size, const char *path,
                           ser_error *err);
void ser_pickle_free(ser_pickle *pickle);

/* Each value that was made, in the order of the pickle: index below `used`. */
const ser_pickled *ser_pickle_value(const ser_pickle *pickle, size_t index);
bool ser_pickled_is(const ser_pickled *value, const char *text);                     /* whether it is this text */
const ser_pickled *ser_pickled_find(const ser_pickled *dictionary, const char *key); /* the last of it, or NULL */

#endif
