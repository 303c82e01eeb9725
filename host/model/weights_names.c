/* The names that may stand in a pickle of tensors, all of them. */
#include "model/weights_names.h"

#include <string.h>

static const struct {
  const char *module, *name;
  ser_pickled_call call;
} functions[] = {
    {"collections", "OrderedDict", SER_CALL_DICT},
    {"torch", "Size", SER_CALL_SIZE},
    {"torch._utils", "_rebuild_tensor", SER_CALL_TENSOR},
    {"torch._utils", "_rebuild_tensor_v2", SER_CALL_TENSOR_V2},
    {"torch._utils", "_rebuild_parameter", SER_CALL_PARAMETER},
};
#define FUNCTIONS (sizeof functions / sizeof *functions)

static const ser_storage_type storage_types[] = {
    {"FloatStorage", "F32", 4}, {"HalfStorage", "F16", 2}, {"BFloat16Storage", "BF16", 2}, {"DoubleStorage", "F64", 8},
    {"LongStorage", "I64", 8},  {"IntStorage", "I32", 4},  {"ShortStorage", "I16", 2},     {"CharStorage", "I8", 1},
    {"ByteStorage", "U8", 1},   {"BoolStorage", "BOOL", 1}};
#define STORAGE_TYPES (sizeof storage_types / sizeof *storage_types)
/* What torch says where a storage itself was saved; no tensor is made of it without a type. */
static const ser_storage_type untyped = {"UntypedStorage", "U8", 1};

/* Functions first, then storages. */
int64_t ser_pickled_row(ser_pickled_text module, ser_pickled_text name) {
#define IS(text, word) ((text).size == strlen(word) && !memcmp((text).bytes, word, (text).size))
  for (size_t i = 0; i < FUNCTIONS; i++)
    if (IS(module, functions[i].module) && IS(name, functions[i].name)) return (int64_t)i;
  for (size_t i = 0; i < STORAGE_TYPES; i++)
    if (IS(module, "torch") && IS(name, storage_types[i].name)) return (int64_t)(FUNCTIONS + i);
  if (IS(module, "torch.storage") && IS(name, untyped.name)) return FUNCTIONS + STORAGE_TYPES;
  return -1;
#undef IS
}

ser_pickled_call ser_pickled_call_of(const ser_pickled *value) {
  return value->kind == SER_PICKLED_NAME && value->number < (int64_t)FUNCTIONS ? functions[value->number].call
                                                                               : SER_CALL_NONE;
}

const ser_storage_type *ser_pickled_storage_of(const ser_pickled *value) {
  if (value->kind != SER_PICKLED_NAME || value->number < (int64_t)FUNCTIONS) return NULL;
  size_t row = (size_t)value->number - FUNCTIONS;
  return row < STORAGE_TYPES ? &storage_types[row] : &untyped;
}
