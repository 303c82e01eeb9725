#include "features/integers.h"

bool ser_are_int16(const float *samples, int64_t count) {
  enum { BLOCK = 1024 };
  bool all = true;
  for (int64_t first = 0; first < count && all; first += BLOCK) {
    int64_t end = first + BLOCK < count ? first + BLOCK : count;
    for (int64_t i = first; i < end; i++) {
      float value = samples[i] * 32768;
      all &= value >= -32768 && value <= 32767 && value == (float)(int32_t)value;
    }
  }
  return all;
}

void ser_to_int16(int16_t *to, const float *samples, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = (int16_t)(samples[i] * 32768);
}
