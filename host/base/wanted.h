/* What a user names: whether it is there and of the kind that is wanted. `wanted` says what to give in its place, as in
 * "the manifest that `serenade index` made". What is not there or may not be read is SER_FAILED, a file where a folder
 * belongs, or a folder where a file does, SER_USAGE. */
#ifndef SER_BASE_WANTED_H
#define SER_BASE_WANTED_H

#include "base/status.h"

ser_status ser_want_file(const char *path, const char *wanted, ser_error *err);
ser_status ser_want_folder(const char *path, const char *wanted, ser_error *err);

#endif
