/* The names that a pickle of tensors may hold (weights_pickle.c): a few functions, whose effect is made by the machine
 * itself, and torch's types of storage. Any other name is refused. */
#ifndef SER_MODEL_WEIGHTS_NAMES_H
#define SER_MODEL_WEIGHTS_NAMES_H

#include "model/weights_pickle.h"

typedef enum {
  SER_CALL_DICT,
  SER_CALL_SIZE,
  SER_CALL_TENSOR,
  SER_CALL_TENSOR_V2,
  SER_CALL_PARAMETER,
  SER_CALL_NONE
} ser_pickled_call;

/* The number that a name's value has (ser_pickled.number); -1: it is not allowed. */
int64_t ser_pickled_row(ser_pickled_text module, ser_pickled_text name);
/* What the value, a name or anything, is when it is called: SER_CALL_NONE where it is no function. */
ser_pickled_call ser_pickled_call_of(const ser_pickled *value);
/* NULL where the value is no name of a type. */
const ser_storage_type *ser_pickled_storage_of(const ser_pickled *value);

#endif
