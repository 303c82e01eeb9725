/* Status codes and error texts. */
#include "base/status.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/interrupt.h"

static ser_status set_text(ser_error *err, ser_status status, const char *format, va_list arguments) {
  if (err) {
    err->status = status;
    err->lacks = SER_LACKS_NOTHING;
    err->of_device = false;
    vsnprintf(err->text, sizeof err->text, format, arguments);
  }
  return status;
}

ser_status ser_fail(ser_error *err, ser_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  set_text(err, status, format, arguments);
  va_end(arguments);
  return status;
}

ser_status ser_fail_memory(ser_error *err, ser_lack lacks, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  set_text(err, SER_FAILED, format, arguments);
  va_end(arguments);
  if (err) err->lacks = lacks;
  return SER_FAILED;
}

ser_status ser_fail_errno(ser_error *err, ser_status status, const char *format, ...) {
  int number = errno;
  va_list arguments;
  va_start(arguments, format);
  set_text(err, status, format, arguments);
  va_end(arguments);
  if (err) {
    size_t used = strlen(err->text);
    snprintf(err->text + used, sizeof err->text - used, ": %s", strerror(number));
  }
  return status;
}

int ser_exit_code(ser_status status) {
  if (status == SER_INTERRUPTED) return 128 + (ser_interrupted() ? ser_interrupted() : 2);
  return (int)status;
}

void ser_bug(const char *statement, const char *file, int line) {
  fprintf(stderr, "serenade: a bug of ours: '%s' does not hold at %s:%d; please report it\n", statement, file, line);
  abort();
}
