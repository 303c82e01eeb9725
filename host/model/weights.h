/* The tensors of a model that was made elsewhere, as its file holds them: mapped into memory, never copied as a whole.
 * What kind of file it is, is told by its content: safetensors, PyTorch's ZIP files, or what PyTorch wrote before 1.6.
 *
 * The mapping is read-only and private, and the file stays open with it. A file that is replaced (renamed over) does no
 * harm; one that somebody cuts shorter while it is read ends the program with SIGBUS, as it does every program that
 * maps files: its size is checked against every tensor when it is opened, and ser_weights_whole asks again afterwards.
 */
#ifndef SER_MODEL_WEIGHTS_H
#define SER_MODEL_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct {
  char *name;
  char dtype[8]; /* as safetensors has it: F32, F16, BF16, F64 can be read as float32; I64, BOOL and others cannot */
  int dimensions;
  int64_t shape[8], stride[8]; /* stride in elements, not negative; 0 and overlaps are possible */
  const void *data;            /* the first element, of any alignment; NULL where there is none */
  size_t bytes;                /* from there to behind the last one: they lie within the file */
} ser_weight;

typedef struct {
  char *path;
  const char *format;  /* for people: "safetensors" and the like */
  ser_weight *tensors; /* by name, in byte order; no name twice */
  size_t count;
  char **keys, **values; /* what a safetensors file says of itself */
  size_t metadata_count;
  const char *bytes; /* the file */
  size_t size;
  int fd;
} ser_weights;

ser_status ser_weights_open(ser_weights *weights, const char *path, ser_error *err);
/* The same of bytes in memory, which must stay there; path is for messages. */
ser_status ser_weights_parse(ser_weights *weights, const char *bytes, size_t size, const char *path, ser_error *err);
void ser_weights_close(ser_weights *weights);
/* Whether the file still is as long as it was when it was opened: SER_FAILED where somebody writes to it. */
ser_status ser_weights_whole(const ser_weights *weights, ser_error *err);

/* Gives back the memory that the file's pages took; whatever is read again comes from the file again. */
void ser_weights_release(const ser_weights *weights);

const ser_weight *ser_weights_find(const ser_weights *weights, const char *name); /* or NULL */
const char *ser_weights_metadata(const ser_weights *weights, const char *key);    /* or NULL */

bool ser_weight_readable(const ser_weight *weight);    /* whether it is of a type that float32 can be made of */
int64_t ser_weight_elements(const ser_weight *weight); /* -1: more than 64 bits count */
/* The elements [first, first + count) in row-major order, as float32. It must be readable, and have as many. */
void ser_weight_read(float *out, const ser_weight *weight, int64_t first, int64_t count);
/* All elements in row-major order where the file itself holds them so, as aligned float32; else NULL. */
const float *ser_weight_floats(const ser_weight *weight);

#endif
