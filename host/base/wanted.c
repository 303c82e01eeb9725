/* Looking at what a user names before it is read. */
#include "base/wanted.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static ser_status want(const char *path, bool folder, const char *wanted, ser_error *err) {
  static const char *const kinds[] = {"file", "folder"};
  struct stat info;
  if (!*path) return ser_fail(err, SER_FAILED, "the name of a %s is empty; give %s", kinds[folder], wanted);
  bool there = stat(path, &info) == 0;
  if (!there && (errno == ENOENT || errno == ENOTDIR))
    return ser_fail(err, SER_FAILED, "there is no %s %s; give %s", kinds[folder], path, wanted);
  if (there && S_ISDIR(info.st_mode) != folder)
    return ser_fail(err, SER_USAGE, "%s is a %s; give %s", path, kinds[!folder], wanted);
  if (there && access(path, folder ? R_OK | X_OK : R_OK) == 0) return SER_OK;
  return ser_fail(err, SER_FAILED, "cannot read %s: %s; change that, or give another %s", path, strerror(errno),
                  kinds[folder]);
}

ser_status ser_want_file(const char *path, const char *wanted, ser_error *err) {
  return want(path, false, wanted, err);
}

ser_status ser_want_folder(const char *path, const char *wanted, ser_error *err) {
  return want(path, true, wanted, err);
}
