/* Host memory. Running out of it ends the program with a message: nothing in Serenade can go on without it, and all
 * that is on disk is complete at every moment. */
#ifndef SER_BASE_MEMORY_H
#define SER_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

void *ser_alloc(size_t bytes);                   /* uninitialised; never NULL */
void *ser_alloc_zero(size_t count, size_t size); /* zeroed, overflow checked; never NULL */
void *ser_realloc(void *memory, size_t bytes);   /* never NULL */
void *ser_alloc_aligned(size_t bytes);           /* 64-byte aligned, uninitialised; free() frees it */
char *ser_strdup(const char *text);              /* NULL gives NULL */
char *ser_format(const char *format, ...) __attribute__((format(printf, 1, 2))); /* the caller frees it */

/* How many bytes from the start are well-formed UTF-8 without surrogates, as CSV, YAML and JSON files hold it. */
size_t ser_utf8_span(const char *bytes, size_t size);
bool ser_is_utf8(const char *text);

/* Makes room for one more element in a growing array: SER_GROW(rows, count, capacity). */
#define SER_GROW(array, count, capacity)                                                                               \
  do {                                                                                                                 \
    if ((count) == (capacity)) {                                                                                       \
      (capacity) = (capacity) ? 2 * (capacity) : 16;                                                                   \
      (array) = ser_realloc((array), (size_t)(capacity) * sizeof *(array));                                            \
    }                                                                                                                  \
  } while (0)

/* A text that grows. Zero-initialise; free(text.data) ends it. data is NULL while empty, else NUL-terminated. */
typedef struct {
  char *data;
  size_t size, capacity;
} ser_text;

void ser_text_add(ser_text *text, const char *bytes, size_t size);
void ser_text_puts(ser_text *text, const char *string);
void ser_text_printf(ser_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
