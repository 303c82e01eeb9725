/* Host memory and growing texts. */
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *ser_size_words(char words[SER_SIZE_WORDS], uint64_t bytes) {
  static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double size = (double)bytes;
  int unit = 0;
  for (; size >= 1024; unit++) size /= 1024;
  snprintf(words, SER_SIZE_WORDS, "%.*f %s", unit ? 1 : 0, size, units[unit]);
  return words;
}

static void *must(void *memory, size_t bytes) {
  char words[SER_SIZE_WORDS];
  if (memory) return memory;
  fprintf(stderr, "serenade: out of memory (%s asked for); use fewer --threads or --jobs, or a smaller batch\n",
          ser_size_words(words, bytes));
  exit(1);
}

void *ser_alloc(size_t bytes) {
  return must(malloc(bytes ? bytes : 1), bytes);
}

void *ser_alloc_zero(size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) bytes = SIZE_MAX; /* told as 16 EiB, which nobody has */
  return must(calloc(count ? count : 1, size ? size : 1), bytes);
}

void *ser_realloc(void *memory, size_t bytes) {
  return must(realloc(memory, bytes ? bytes : 1), bytes);
}

void *ser_alloc_aligned(size_t bytes) {
  size_t rounded = bytes > SIZE_MAX - 63 ? SIZE_MAX - 63 : (bytes + 63) / 64 * 64;
  return must(aligned_alloc(64, rounded ? rounded : 64), bytes);
}

char *ser_strdup(const char *text) {
  if (!text) return NULL;
  size_t size = strlen(text) + 1;
  return memcpy(ser_alloc(size), text, size);
}

size_t ser_utf8_span(const char *bytes, size_t size) {
  const unsigned char *at = (const unsigned char *)bytes;
  for (size_t i = 0; i < size;) {
    size_t more = at[i] < 0x80   ? 0
                  : at[i] < 0xc2 ? size
                  : at[i] < 0xe0 ? 1
                  : at[i] < 0xf0 ? 2
                  : at[i] < 0xf5 ? 3
                                 : size;
    if (more >= size - i) return i;
    for (size_t k = 1; k <= more; k++)
      if ((at[i + k] & 0xc0) != 0x80) return i;
    if ((at[i] == 0xe0 && at[i + 1] < 0xa0) || (at[i] == 0xed && at[i + 1] > 0x9f) ||
        (at[i] == 0xf0 && at[i + 1] < 0x90) || (at[i] == 0xf4 && at[i + 1] > 0x8f))
      return i;
    i += more + 1;
  }
  return size;
}

bool ser_is_utf8(const char *text) {
  size_t size = strlen(text);
  return ser_utf8_span(text, size) == size;
}

void ser_text_vprintf(ser_text *text, const char *format, va_list arguments) {
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
  ser_text_vprintf(&text, format, arguments);
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
  ser_text_vprintf(text, format, arguments);
  va_end(arguments);
}

/* ---- lines for people ---- */

/* How many bytes from the start are one character; 0 where they are none in UTF-8. */
static size_t character(const char *bytes, size_t size) {
  unsigned char lead = (unsigned char)*bytes;
  size_t length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  return length <= size && ser_utf8_span(bytes, length) == length ? length : 0;
}

static void add_shown(ser_text *text, const char *bytes, size_t size) {
  for (size_t i = 0, length; i < size; i += length ? length : 1) {
    unsigned char at = (unsigned char)bytes[i];
    length = character(bytes + i, size - i);
    if (at == '\n' || at == '\r' || at == '\t')
      ser_text_puts(text, at == '\n' ? "\\n" : at == '\r' ? "\\r" : "\\t");
    else if (at < 0x20 || at == 0x7f || (!length && at < 0xa0)) /* a byte that is no UTF-8 may be one of Latin-1 */
      ser_text_printf(text, "\\x%02x", at);
    else if (length && at == 0xc2 && (unsigned char)bytes[i + 1] < 0xa0) /* control characters of Latin-1 */
      ser_text_printf(text, "\\u%04x", (unsigned char)bytes[i + 1]);
    else
      ser_text_add(text, bytes + i, length ? length : 1);
  }
}

void ser_text_line_from(ser_text *text, const char *format, va_list arguments) {
  ser_text raw = {0};
  ser_text_vprintf(&raw, format, arguments);
  add_shown(text, raw.data, raw.size);
  ser_text_puts(text, "\n");
  free(raw.data);
}

void ser_text_line(ser_text *text, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  ser_text_line_from(text, format, arguments);
  va_end(arguments);
}

char *ser_shown(const char *name) {
  ser_text text = {0};
  ser_text_add(&text, "", 0);
  add_shown(&text, name, strlen(name));
  return text.data;
}

char *ser_quoted(const char *path) {
  static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  char *named = ser_format("%s%s", *path == '-' ? "./" : "", path), *shown = ser_shown(named);
  bool as_shown = ser_is_utf8(named) && !strcmp(named, shown);
  free(shown);
  if (*named && strspn(named, safe) == strlen(named)) return named;
  ser_text text = {0};
  ser_text_puts(&text, as_shown ? "'" : "$'");
  for (const unsigned char *at = (const unsigned char *)named; *at; at++)
    if (as_shown && *at == '\'')
      ser_text_puts(&text, "'\\''");
    else if (as_shown || (*at >= 0x20 && *at < 0x7f && *at != '\'' && *at != '\\'))
      ser_text_add(&text, (const char *)at, 1);
    else
      ser_text_printf(&text, "\\%03o", *at);
  ser_text_puts(&text, "'");
  free(named);
  return text.data;
}
