/* Status codes and error texts: how every function of Serenade reports what went wrong.
 *
 * A function that can fail returns a ser_status and takes a ser_error as its last argument. The text names the file or
 * key, what is wrong, and what to do about it, in one line without a final full stop. Callers add nothing but context
 * that the callee cannot know. Mistakes of our own (a broken invariant) stop the program with SER_CHECK instead.
 */
#ifndef SER_BASE_STATUS_H
#define SER_BASE_STATUS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

typedef enum {
  SER_OK = 0,          /* done */
  SER_FAILED = 1,      /* could not be done: exit status 1 */
  SER_USAGE = 2,       /* asked wrongly (arguments, configuration): exit status 2 */
  SER_PARTIAL = 3,     /* done, but some inputs were refused: exit status 3 */
  SER_INTERRUPTED = 4, /* stopped by SIGINT or SIGTERM: exit status 130 or 143 */
} ser_status;

/* Of what a failed call had too little, where that is known: who can do with less tries again. */
typedef enum { SER_LACKS_NOTHING, SER_LACKS_DEVICE_MEMORY, SER_LACKS_HOST_MEMORY } ser_lack;

typedef struct {
  ser_status status;
  ser_lack lacks;  /* what ser_fail sets is SER_LACKS_NOTHING */
  bool of_device;  /* a GPU failed, or its libraries did: what was finished before is good; ser_fail: false */
  char text[2048]; /* one line, UTF-8; empty when nothing went wrong */
} ser_error;

/* Sets err (if not NULL) and returns status, so that `return ser_fail(err, SER_FAILED, "...", ...)` reads in one line.
 */
ser_status ser_fail(ser_error *err, ser_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Fails for lack of memory. */
ser_status ser_fail_memory(ser_error *err, ser_lack lacks, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As ser_fail with errno's text appended: "FORMAT: No such file or directory". */
ser_status ser_fail_errno(ser_error *err, ser_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The exit status of a process that ends with this status. */
int ser_exit_code(ser_status status);

/* Prints the statement, file and line and aborts: for bugs of our own, never for bad input. */
_Noreturn void ser_bug(const char *statement, const char *file, int line);
#define SER_CHECK(condition) ((condition) ? (void)0 : ser_bug(#condition, __FILE__, __LINE__))

/* Returns from the calling function when the expression is not SER_OK. */
#define SER_TRY(expression)                                                                                            \
  do {                                                                                                                 \
    ser_status try_status_ = (expression);                                                                             \
    if (try_status_ != SER_OK) return try_status_;                                                                     \
  } while (0)

/* Goes to the label `done` (the function's one exit) when the expression is not SER_OK; `status` holds it. */
#define SER_TRY_DONE(expression)                                                                                       \
  do {                                                                                                                 \
    status = (expression);                                                                                             \
    if (status != SER_OK) goto done;                                                                                   \
  } while (0)

#endif
