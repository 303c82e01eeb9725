/* A file of weights from somewhere: whatever its bytes are, it is refused in one line, or every number of it can be
 * read. The first form is libFuzzer's (built where the compiler is Clang); the second runs everywhere, as a test: files
 * that are named, changed in ROUNDS ways drawn from a fixed seed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/philox.h"
#include "model/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* Reads the ends of every tensor; more would only be slower. */
static void read_all(const ser_weights *w) {
  enum { MOST = 4096 };
  static float numbers[MOST];
  for (size_t i = 0; i < w->count; i++) {
    const int64_t count = ser_weight_elements(&w->tensors[i]), some = count < MOST ? count : MOST;
    if (!ser_weight_readable(&w->tensors[i]) || count < 1) continue;
    ser_weight_read(numbers, &w->tensors[i], 0, some);
    ser_weight_read(numbers, &w->tensors[i], count - some, some);
    SER_CHECK(ser_weights_find(w, w->tensors[i].name) == &w->tensors[i]);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  ser_weights w;
  ser_error err = {0};
  if (ser_weights_parse(&w, (const char *)bytes, size, "FILE", &err) == SER_OK) {
    read_all(&w);
    ser_weights_close(&w);
  } else {
    SER_CHECK(strstr(err.text, "FILE") && !strchr(err.text, '\n'));
  }
  return 0;
}

#ifndef SER_LIBFUZZER

enum { ROUNDS = 3000 };

/* Where the bytes that mean something are: a pickle and a ZIP's directory are small beside the numbers, so most changes
 * go to the first and last bytes, or to what looks like text. */
static size_t place(const char *bytes, size_t size, uint32_t draw, uint32_t how) {
  size_t at = draw % size;
  if (how % 4 == 0) return at;
  if (how % 4 == 1) return draw % (size < 4096 ? size : 4096);
  if (how % 4 == 2) return size - 1 - draw % (size < 4096 ? size : 4096);
  for (size_t i = 0; i < size; i++, at = (at + 1) % size)
    if (bytes[at] >= 'A' && bytes[at] <= 'z') return at;
  return at;
}

/* A copy that is cut, or changed in up to four places: to any byte, by a bit, or to one that ends a number's range. */
static size_t mutate(char *out, const char *bytes, size_t size, uint64_t round) {
  static const char ends[] = {0, 1, 0x7f, (char)0x80, (char)0xff, '.', '(', 'R'};
  const ser_philox first = ser_philox_at(17, 0, round);
  memcpy(out, bytes, size);
  for (uint32_t i = 0; i <= first.v[0] % 4; i++) {
    const ser_philox r = ser_philox_at(17, 1 + i, round);
    const size_t at = place(bytes, size, r.v[0], r.v[1]);
    if (r.v[2] % 3 == 0) out[at] = (char)r.v[3];
    if (r.v[2] % 3 == 1) out[at] ^= (char)(1 << r.v[3] % 8);
    if (r.v[2] % 3 == 2) out[at] = ends[r.v[3] % sizeof ends];
  }
  return first.v[1] % 8 ? size : 1 + first.v[2] % size;
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    char *bytes;
    size_t size, taken = 0;
    ser_error err = {0};
    if (ser_file_read(&bytes, &size, argv[i], &err) != SER_OK) {
      fprintf(stderr, "%s\n", err.text);
      return 1;
    }
    LLVMFuzzerTestOneInput((const uint8_t *)bytes, size);
    for (uint64_t round = 0; round < ROUNDS; round++) {
      char *draft = ser_alloc(size);
      const size_t left = mutate(draft, bytes, size, round);
      char *exact = memcpy(ser_alloc(left), draft, left); /* ends where it ends: sanitizers see a step beyond */
      LLVMFuzzerTestOneInput((const uint8_t *)exact, left);
      ser_weights w;
      if (ser_weights_parse(&w, exact, left, "FILE", NULL) == SER_OK) {
        taken++;
        ser_weights_close(&w);
      }
      free(exact);
      free(draft);
    }
    printf("%s: %d changed files, %zu of them read, the others refused\n", argv[i], ROUNDS, taken);
    free(bytes);
  }
  return argc > 1 ? 0 : 1;
}

#endif
