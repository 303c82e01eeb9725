/* Host memory. Running out of it ends the program with a message: nothing in Serenade can go on without it, and all
 * that is on disk is complete at every moment. */
#ifndef SER_BASE_MEMORY_H
#define SER_BASE_MEMORY_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *ser_alloc(size_t bytes);                   /* uninitialised; never NULL */
void *ser_alloc_zero(size_t count, size_t size); /* zeroed, overflow checked; never NULL */
void *ser_realloc(void *memory, size_t bytes);   /* never NULL */
void *ser_alloc_aligned(size_t bytes);           /* 64-byte aligned, uninitialised; free() frees it */
char *ser_strdup(const char *text);              /* NULL gives NULL */
char *ser_format(const char *format, ...) __attribute__((format(printf, 1, 2))); /* the caller frees it */

/* So many bytes for people, in the largest unit of which there is one: "24 bytes", "1.5 KiB", "2.0 GiB". Gives `words`.
 */
enum { SER_SIZE_WORDS = 32 };
const char *ser_size_words(char words[SER_SIZE_WORDS], uint64_t bytes);

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

/* The word for one thing or for several: "1 file", "2 files". */
#define SER_PLURAL(count, one, many) ((count) == 1 ? (one) : (many))

/* A text that grows. Zero-initialise; free(text.data) ends it. data is NULL while empty, else NUL-terminated. */
typedef struct {
  char *data;
  size_t size, capacity;
} ser_text;

void ser_text_add(ser_text *text, const char *bytes, size_t size);
void ser_text_puts(ser_text *text, const char *string);
void ser_text_printf(ser_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void ser_text_vprintf(ser_text *text, const char *format, va_list arguments) __attribute__((format(printf, 2, 0)));

/* One line for people and its end. Names of files and labels may hold anything: what would break the line or reach the
 * terminal as a command is shown as \n, \x1b, \u0085 and the like. */
void ser_text_line(ser_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void ser_text_line_from(ser_text *text, const char *format, va_list arguments) __attribute__((format(printf, 2, 0)));
char *ser_shown(const char *name); /* the same for a name, to stand in a line; the caller frees it */
/* A path as one word of a command that is to be pasted into a shell, and that stays what it is in such a line: as it
 * is, 'in quotes', or $'with \n', where a leading dash has become "./-". The caller frees it. */
char *ser_quoted(const char *path);

#endif
