/* Safetensors files, read and written as the Python package safetensors does: what it refuses, we refuse. */
#include "model/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

/* The longest header that the format's own reader takes. */
#define HEADER_MOST ((uint64_t)100 * 1000 * 1000)

static size_t dtype_size(const char *dtype) {
  static const struct {
    const char *name;
    size_t size;
  } known[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"U16", 2}, {"I16", 2}, {"F16", 2}, {"BF16", 2},
               {"U32", 4},  {"I32", 4}, {"F32", 4}, {"U64", 8}, {"I64", 8}, {"F64", 8}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(dtype, known[i].name)) return known[i].size;
  return 0;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

typedef struct {
  ser_tensors *tensors;
  const char *path;
  const char *data; /* behind the header */
  size_t data_size;
  ser_error *err;
} reading;

#define REFUSE(r, ...) refuse(r, ser_format(__VA_ARGS__))
static ser_status refuse(const reading *r, char *what) {
  ser_fail(r->err, SER_FAILED, "%s is not a sound safetensors file: %s; copy or make it again", r->path, what);
  free(what);
  return SER_FAILED;
}

static ser_status read_metadata(reading *r, json_t *object) {
  const char *key;
  json_t *value;
  ser_tensors *t = r->tensors;
  if (!json_is_object(object)) return REFUSE(r, "__metadata__ is no object");
  t->keys = ser_alloc_zero(json_object_size(object) + 1, sizeof *t->keys);
  t->values = ser_alloc_zero(json_object_size(object) + 1, sizeof *t->values);
  json_object_foreach(object, key, value) {
    if (!json_is_string(value)) return REFUSE(r, "__metadata__ holds something other than text at \"%.64s\"", key);
    t->keys[t->metadata_count] = ser_strdup(key);
    t->values[t->metadata_count++] = ser_strdup(json_string_value(value));
  }
  return SER_OK;
}

/* A whole number that is not negative, or -1. */
static int64_t whole(const json_t *value) {
  return json_is_integer(value) && json_integer_value(value) >= 0 ? (int64_t)json_integer_value(value) : -1;
}

static ser_status read_shape(const reading *r, ser_tensor *tensor, const json_t *shape) {
  if (!json_is_array(shape) || json_array_size(shape) > 8)
    return REFUSE(r, "tensor \"%.64s\" has no shape of at most 8 dimensions", tensor->name);
  tensor->dimensions = (int)json_array_size(shape);
  size_t bytes = dtype_size(tensor->dtype);
  for (int i = 0; i < tensor->dimensions; i++) {
    tensor->shape[i] = whole(json_array_get(shape, (size_t)i));
    if (tensor->shape[i] < 0 || __builtin_mul_overflow(bytes, (size_t)tensor->shape[i], &bytes))
      return REFUSE(r, "tensor \"%.64s\" has an impossible shape", tensor->name);
  }
  if (bytes != tensor->bytes)
    return REFUSE(r, "tensor \"%.64s\" takes %zu bytes by its shape, but %zu by its offsets", tensor->name, bytes,
                  tensor->bytes);
  return SER_OK;
}

static ser_status read_tensor(reading *r, const char *name, const json_t *entry) {
  ser_tensor *tensor = &r->tensors->tensors[r->tensors->count++];
  tensor->name = ser_strdup(name);
  const char *dtype = json_string_value(json_object_get(entry, "dtype"));
  if (!dtype || !dtype_size(dtype)) return REFUSE(r, "tensor \"%.64s\" has no dtype that is known", name);
  memcpy(tensor->dtype, dtype, strlen(dtype) + 1);
  const json_t *offsets = json_object_get(entry, "data_offsets");
  int64_t begin = whole(json_array_get(offsets, 0)), end = whole(json_array_get(offsets, 1));
  if (json_array_size(offsets) != 2 || begin < 0 || end < begin || (uint64_t)end > r->data_size)
    return REFUSE(r, "tensor \"%.64s\" lies outside the file's %zu bytes of data", name, r->data_size);
  tensor->data = r->data + begin;
  tensor->bytes = (size_t)(end - begin);
  return read_shape(r, tensor, json_object_get(entry, "shape"));
}

/* By place; where an empty tensor starts with a full one, the empty one comes first. */
static int by_place(const void *a, const void *b) {
  const ser_tensor *const *x = a, *const *y = b;
  const char *xe = (const char *)(*x)->data + (*x)->bytes, *ye = (const char *)(*y)->data + (*y)->bytes;
  if ((*x)->data != (*y)->data) return (const char *)(*x)->data < (const char *)(*y)->data ? -1 : 1;
  return xe < ye ? -1 : xe > ye;
}

/* The tensors must tile the data: no gap, no overlap, nothing behind the last. */
static ser_status check_tiling(const reading *r) {
  const ser_tensors *t = r->tensors;
  const ser_tensor **order = ser_alloc((t->count + 1) * sizeof *order);
  for (size_t i = 0; i < t->count; i++) order[i] = &t->tensors[i];
  qsort(order, t->count, sizeof *order, by_place);
  const char *at = r->data;
  ser_status status = SER_OK;
  for (size_t i = 0; i < t->count && status == SER_OK; i++) {
    if ((const char *)order[i]->data != at)
      status = REFUSE(r, "there is a gap or an overlap before tensor \"%.64s\"", order[i]->name);
    at = (const char *)order[i]->data + order[i]->bytes;
  }
  if (status == SER_OK && at != r->data + r->data_size)
    status = REFUSE(r, "%zu bytes behind the last tensor belong to none", (size_t)(r->data + r->data_size - at));
  free(order);
  return status;
}

static ser_status read_header(reading *r, json_t *header) {
  const char *name;
  json_t *entry;
  r->tensors->tensors = ser_alloc_zero(json_object_size(header) + 1, sizeof *r->tensors->tensors);
  json_object_foreach(header, name, entry) {
    if (!strcmp(name, "__metadata__"))
      SER_TRY(read_metadata(r, entry));
    else if (!json_is_object(entry))
      return REFUSE(r, "\"%.64s\" describes no tensor", name);
    else
      SER_TRY(read_tensor(r, name, entry));
  }
  return check_tiling(r);
}

static ser_status parse(reading *r, const char *bytes, size_t size) {
  uint64_t length = 0;
  json_error_t json_error;
  if (size < 8) return REFUSE(r, "it has %zu %s", size, SER_PLURAL(size, "byte", "bytes"));
  for (int i = 0; i < 8; i++) length |= (uint64_t)(unsigned char)bytes[i] << (8 * i);
  if (size > 8 && length > HEADER_MOST && bytes[8] != '{')
    return ser_fail(r->err, SER_USAGE, "%s is no safetensors file; name the model.safetensors of a run", r->path);
  if (length > HEADER_MOST || length > size - 8)
    return REFUSE(r, "its header of %llu bytes does not fit into its %zu bytes", (unsigned long long)length, size);
  r->data = bytes + 8 + length;
  r->data_size = size - 8 - (size_t)length;
  json_t *header = json_loadb(bytes + 8, (size_t)length, JSON_REJECT_DUPLICATES, &json_error);
  if (!header) return REFUSE(r, "its header is no JSON (%.100s)", json_error.text);
  ser_status status = json_is_object(header) && bytes[8] == '{' ? read_header(r, header)
                                                                : REFUSE(r, "its header does not begin with an object");
  json_decref(header);
  return status;
}

ser_status ser_tensors_parse(ser_tensors *tensors, const char *bytes, size_t size, const char *path, ser_error *err) {
  reading r = {.tensors = tensors, .path = path, .err = err};
  memset(tensors, 0, sizeof *tensors);
  ser_status status = parse(&r, bytes, size);
  if (status != SER_OK) ser_tensors_free(tensors);
  return status;
}

ser_status ser_tensors_read(ser_tensors *tensors, const char *path, ser_error *err) {
  char *file;
  size_t size;
  memset(tensors, 0, sizeof *tensors);
  SER_TRY(ser_file_read(&file, &size, path, err));
  ser_status status = ser_tensors_parse(tensors, file, size, path, err);
  if (status == SER_OK)
    tensors->file = file;
  else
    free(file);
  return status;
}

void ser_tensors_free(ser_tensors *tensors) {
  for (size_t i = 0; i < tensors->count; i++) free(tensors->tensors[i].name);
  for (size_t i = 0; i < tensors->metadata_count; i++) {
    free(tensors->keys[i]);
    free(tensors->values[i]);
  }
  free(tensors->tensors);
  free(tensors->keys);
  free(tensors->values);
  free(tensors->file);
  memset(tensors, 0, sizeof *tensors);
}

const ser_tensor *ser_tensors_find(const ser_tensors *tensors, const char *name) {
  for (size_t i = 0; i < tensors->count; i++)
    if (!strcmp(tensors->tensors[i].name, name)) return &tensors->tensors[i];
  return NULL;
}

const char *ser_tensors_metadata(const ser_tensors *tensors, const char *key) {
  for (size_t i = 0; i < tensors->metadata_count; i++)
    if (!strcmp(tensors->keys[i], key)) return tensors->values[i];
  return NULL;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static void put_string(ser_text *out, const char *string) {
  json_t *value = json_string(string);
  SER_CHECK(value); /* names and metadata are UTF-8 */
  char *quoted = json_dumps(value, JSON_ENCODE_ANY);
  ser_text_puts(out, quoted);
  free(quoted);
  json_decref(value);
}

static void put_tensor(ser_text *out, const ser_tensor *tensor, size_t begin) {
  put_string(out, tensor->name);
  ser_text_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", tensor->dtype);
  for (int i = 0; i < tensor->dimensions; i++)
    ser_text_printf(out, "%s%lld", i ? "," : "", (long long)tensor->shape[i]);
  ser_text_printf(out, "],\"data_offsets\":[%zu,%zu]}", begin, begin + tensor->bytes);
}

void ser_tensors_text(ser_text *out, const ser_tensor *tensors, size_t count, const char *const *keys,
                      const char *const *values, size_t metadata_count) {
  ser_text header = {0};
  ser_text_puts(&header, "{");
  if (metadata_count) ser_text_puts(&header, "\"__metadata__\":{");
  for (size_t i = 0; i < metadata_count; i++) {
    if (i) ser_text_puts(&header, ",");
    put_string(&header, keys[i]);
    ser_text_puts(&header, ":");
    put_string(&header, values[i]);
  }
  if (metadata_count) ser_text_puts(&header, "}");
  size_t begin = 0;
  for (size_t i = 0; i < count; i++) {
    if (i || metadata_count) ser_text_puts(&header, ",");
    put_tensor(&header, &tensors[i], begin);
    begin += tensors[i].bytes;
  }
  ser_text_puts(&header, "}");
  while (header.size % 8) ser_text_puts(&header, " ");
  unsigned char length[8];
  for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)header.size >> (8 * i));
  ser_text_add(out, (const char *)length, 8);
  ser_text_add(out, header.data, header.size);
  free(header.data);
  for (size_t i = 0; i < count; i++)
    if (tensors[i].bytes) ser_text_add(out, tensors[i].data, tensors[i].bytes);
}
