/* Results on stdout: what does not get there whole (a full disk, a closed pipe) is no result, and says why. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static ser_status not_whole(int number, ser_error *err) {
  return ser_fail(err, SER_FAILED, "cannot write the results to stdout: %s; what was written there is not whole",
                  number ? strerror(number) : "a write failed");
}

ser_status cli_print(const ser_text *text, ser_error *err) {
  errno = 0;
  if (!text->size || fwrite(text->data, 1, text->size, stdout) == text->size) return SER_OK;
  return not_whole(errno, err);
}

ser_status cli_finish_stdout(ser_status status, ser_error *err) {
  errno = 0;
  bool broken = ferror(stdout) != 0;
  if (fflush(stdout) != 0) broken = true;
  if (!broken || status == SER_FAILED || status == SER_USAGE || status == SER_INTERRUPTED) return status;
  return not_whole(errno, err);
}
