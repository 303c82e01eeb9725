/* A weight's elements as float32, whatever type and strides it has in its file. Bytes are copied before they are looked
 * at: nothing says that a file aligns its numbers. */
#include <math.h>
#include <string.h>

#include "base/half.h"

#include "model/weights.h"

typedef enum { F32, F16, BF16, F64, NONE } type_of_number;

static const size_t type_sizes[] = {4, 2, 2, 8, 0};

static type_of_number type_of(const ser_weight *weight) {
  static const char *const names[] = {"F32", "F16", "BF16", "F64"};
  for (int i = 0; i < 4; i++)
    if (!strcmp(weight->dtype, names[i])) return (type_of_number)i;
  return NONE;
}

bool ser_weight_readable(const ser_weight *weight) {
  return type_of(weight) != NONE;
}

int64_t ser_weight_elements(const ser_weight *weight) {
  int64_t count = 1;
  for (int i = 0; i < weight->dimensions; i++)
    if (!weight->shape[i]) return 0;
  for (int i = 0; i < weight->dimensions; i++)
    if (__builtin_mul_overflow(count, weight->shape[i], &count)) return -1;
  return count;
}

/* Whether the elements follow each other in row-major order. */
static bool is_contiguous(const ser_weight *weight) {
  int64_t stride = 1;
  for (int i = weight->dimensions; i-- > 0; stride *= weight->shape[i])
    if (weight->shape[i] != 1 && weight->stride[i] != stride) return false;
  return true;
}

const float *ser_weight_floats(const ser_weight *weight) {
  bool there = weight->data && (uintptr_t)weight->data % sizeof(float) == 0;
  return there && type_of(weight) == F32 && is_contiguous(weight) ? weight->data : NULL;
}

static float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* count elements, `stride` apart. */
static void read_run(float *out, const char *from, type_of_number type, int64_t stride, int64_t count) {
  const int64_t step = stride * (int64_t)type_sizes[type];
  if (type == F32 && stride == 1) {
    memcpy(out, from, (size_t)count * sizeof *out);
    return;
  }
  for (int64_t i = 0; i < count; i++, from += step) {
    uint16_t half;
    double wide;
    switch (type) {
    case F32:
      memcpy(&out[i], from, sizeof *out);
      break;
    case F16:
      memcpy(&half, from, sizeof half);
      out[i] = ser_from_half(half);
      break;
    case BF16:
      memcpy(&half, from, sizeof half);
      out[i] = from_bits((uint32_t)half << 16);
      break;
    default:
      memcpy(&wide, from, sizeof wide);
      out[i] = (float)wide;
    }
  }
}

void ser_weight_read(float *out, const ser_weight *weight, int64_t first, int64_t count) {
  const type_of_number of = type_of(weight);
  int64_t place[8] = {0}, rest = first;
  int last = weight->dimensions - 1;
  SER_CHECK(of != NONE && first >= 0 && count >= 0 && ser_weight_elements(weight) - first >= count);
  if (!count) return;
  if (is_contiguous(weight)) {
    read_run(out, (const char *)weight->data + (size_t)first * type_sizes[of], of, 1, count);
    return;
  }
  for (int i = last; i >= 0; i--) {
    place[i] = rest % weight->shape[i];
    rest /= weight->shape[i];
  }
  while (count) { /* a row of the last dimension, or what is wanted of it, at a time */
    int64_t at = 0, run = weight->shape[last] - place[last];
    for (int i = 0; i <= last; i++) at += place[i] * weight->stride[i];
    if (run > count) run = count;
    read_run(out, (const char *)weight->data + (size_t)at * type_sizes[of], of, weight->stride[last], run);
    out += run;
    count -= run;
    place[last] += run;
    for (int i = last; i > 0 && place[i] == weight->shape[i]; i--) {
      place[i] = 0;
      place[i - 1]++;
    }
  }
}
