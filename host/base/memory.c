/* Host memory and growing texts. */
#include "base/memory.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *memory, size_t bytes) {
  if (memory || !bytes) return memory;
  fprintf(stderr, "serenade: out of memory (%zu bytes asked for); use fewer --threads or --jobs, or a smaller batch\n",
          bytes);
  exit(1);
}

void *ser_alloc(size_t bytes) {
  return must(malloc(bytes ? bytes : 1), bytes + 1);
}

void *ser_alloc_zero(size_t count, size_t size) {
  return must(calloc(count ? count : 1, size ? size : 1), SIZE_MAX);
}

void *ser_realloc(void *memory, size_t bytes) {
  return must(realloc(memory, bytes ? bytes : 1), bytes + 1);
}

void *ser_alloc_aligned(size_t bytes) {
  size_t rounded = (bytes + 63) / 64 * 64;
  return must(aligned_alloc(64, rounded ? rounded : 64), bytes + 1);
}

char *ser_strdup(const char *text) {
  if (!text) return NULL;
  size_t size = strlen(text) + 1;
  return memcpy(ser_alloc(size), text, size);
}

static void add_formatted(ser_text *text, const char *format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  int size = vsnprintf(NULL, 0, format, arguments);
  if (size > 0) {
    ser_text_add(text, NULL, (size_t)size);
    vsnprintf(text->data + text->size - (size_t)size, (size_t)size + 1, format, again);
  }
  va_end(again);
}

char *ser_format(const char *format, ...) {
  ser_text text = {0};
  ser_text_add(&text, "", 0);
  va_list arguments;
  va_start(arguments, format);
  add_formatted(&text, format, arguments);
  va_end(arguments);
  return text.data;
}

void ser_text_add(ser_text *text, const char *bytes, size_t size) {
  if (text->size + size + 1 > text->capacity) {
    text->capacity = 2 * (text->size + size + 1);
    text->data = ser_realloc(text->data, text->capacity);
  }
  if (bytes) memcpy(text->data + text->size, bytes, size);
  text->size += size;
  text->data[text->size] = 0;
}

void ser_text_puts(ser_text *text, const char *string) {
  ser_text_add(text, string, strlen(string));
}

void ser_text_printf(ser_text *text, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  add_formatted(text, format, arguments);
  va_end(arguments);
}
