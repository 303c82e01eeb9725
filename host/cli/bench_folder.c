/* The temporary folder of a bench: made recordings, a model, caches. A bench that was killed leaves its own behind,
 * which the next one removes. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/bench.h"

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where) {
  (void)info;
  (void)kind;
  (void)where;
  return remove(path);
}

void bench_remove_folder(const char *path) {
  nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static const char opening[] = "serenade-bench-";

/* Folders of this user alone: the place may be everybody's. */
static void sweep(const char *root) {
  char **names = NULL;
  size_t count = 0, size = sizeof opening - 1;
  if (ser_folder_names(&names, &count, root, NULL) != SER_OK) return;
  for (size_t i = 0; i < count; i++) {
    struct stat info;
    if (strncmp(names[i], opening, size) != 0) continue;
    char *left = ser_path_join(root, names[i]);
    if (lstat(left, &info) == 0 && S_ISDIR(info.st_mode) && info.st_uid == geteuid() &&
        ser_writer_gone(names[i] + size, &info))
      bench_remove_folder(left);
    free(left);
  }
  ser_names_free(names, count);
}

ser_status bench_make_folder(char **folder, const char *root, ser_error *err) {
  char *mark = ser_writer_mark();
  sweep(root);
  *folder = ser_format("%s/%s%s", root, opening, mark);
  free(mark);
  if (mkdir(*folder, 0700) == 0) return SER_OK;
  ser_fail_errno(err, SER_FAILED, "cannot make the folder %s (TMPDIR names another)", *folder);
  free(*folder);
  *folder = NULL;
  return SER_FAILED;
}
