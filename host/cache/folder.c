/* The layout of a cache on disk: its FORMAT, the feature folders, and shards as files named for their bytes. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/wanted.h"
#include "cache/internal.h"

ser_status cache_format_check(const char *root, bool create, ser_error *err) {
  char *path = ser_path_join(root, "FORMAT"), *text = NULL;
  size_t size;
  ser_status status = SER_OK;
  if (!create || ser_file_exists(root)) SER_TRY_DONE(ser_want_folder(root, "the folder of a feature cache", err));
  if (!ser_file_exists(path)) {
    if (!create)
      SER_TRY_DONE(ser_fail(err, SER_USAGE,
                            "%s is no feature cache (it has no file FORMAT); give the folder that `serenade extract "
                            "--cache` made",
                            root));
    SER_TRY_DONE(ser_make_folders(root, err));
    SER_TRY_DONE(ser_file_write(path, CACHE_FORMAT "\n", strlen(CACHE_FORMAT "\n"), err));
  }
  SER_TRY_DONE(ser_file_read(&text, &size, path, err));
  text[strcspn(text, "\r\n")] = 0;
  if (strcmp(text, CACHE_FORMAT) != 0)
    status =
        ser_fail(err, SER_FAILED,
                 "%s: its FORMAT says '%.60s', this version of Serenade reads '%s'; use the version that made it, or "
                 "give another cache folder and extract again",
                 root, text, CACHE_FORMAT);
done:
  free(text);
  free(path);
  return status;
}

bool ser_cache_is(const char *folder) {
  static const char opening[] = "serenade-cache ";
  char *path = ser_path_join(folder, "FORMAT"), *text = NULL;
  size_t size;
  bool is = ser_file_exists(path) && ser_file_read(&text, &size, path, NULL) == SER_OK &&
            !strncmp(text, opening, sizeof opening - 1);
  free(text);
  free(path);
  return is;
}

bool cache_folder_parse(char **feature, ser_hash *hash, const char *name) {
  const char *dash = strrchr(name, '-');
  if (!dash || dash == name || !ser_hash_parse(hash, dash + 1)) return false;
  if (feature) *feature = ser_format("%.*s", (int)(dash - name), name);
  return true;
}

ser_status cache_feature_folders(char ***names, size_t *count, const char *root, ser_error *err) {
  SER_TRY(ser_folder_names(names, count, root, err));
  size_t kept = 0;
  for (size_t i = 0; i < *count; i++) {
    ser_hash hash;
    char *path = ser_path_join(root, (*names)[i]);
    if (cache_folder_parse(NULL, &hash, (*names)[i]) && ser_is_folder(path))
      (*names)[kept++] = (*names)[i];
    else
      free((*names)[i]);
    free(path);
  }
  *count = kept;
  return SER_OK;
}

bool cache_shard_name_parse(ser_hash *hash, const char *name) {
  char hex[SER_HASH_HEX], again[SER_HASH_HEX];
  if (strlen(name) != 35 || strcmp(name + 32, ".h5") != 0) return false;
  memcpy(hex, name, 32);
  hex[32] = 0;
  if (!ser_hash_parse(hash, hex)) return false;
  ser_hash_hex(again, hash);
  return strcmp(hex, again) == 0; /* capital digits name another file */
}

char *cache_shard_path(const char *folder, const ser_hash *name) {
  char hex[SER_HASH_HEX];
  ser_hash_hex(hex, name);
  return ser_format("%s/shards/%s.h5", folder, hex);
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static int64_t mtime_of(const struct stat *info) {
  return (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec;
}

ser_status cache_write_file(struct stat *info, const char *folder, const char *place, const char *data, size_t size,
                            ser_error *err) {
  char *mark = ser_writer_mark(), *tmp = ser_format("%s/tmp/%s", folder, mark);
  ser_status status = SER_FAILED;
  int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  bool good = fd >= 0 && ser_write_all(fd, data, size) && fsync(fd) == 0 && fstat(fd, info) == 0;
  int problem = errno;
  if (fd >= 0 && close(fd) != 0 && good) {
    problem = errno;
    good = false;
  }
  if (good) {
    status = ser_file_rename(tmp, place, err);
  } else {
    errno = problem;
    ser_fail_errno(err, SER_FAILED,
                   "cannot write %zu bytes into %s; what was sealed before is kept, make room and run the same command "
                   "again",
                   size, folder);
  }
  if (status != SER_OK && fd >= 0) unlink(tmp);
  free(mark);
  free(tmp);
  return status;
}

ser_status cache_write_shard(cache_shard *shard, const char *folder, const char *image, size_t size, ser_error *err) {
  ser_hash name = ser_hash_bytes(image, size);
  char *place = cache_shard_path(folder, &name);
  struct stat info;
  ser_status status = cache_write_file(&info, folder, place, image, size, err);
  if (status == SER_OK) *shard = (cache_shard){.name = name, .size = info.st_size, .mtime_ns = mtime_of(&info)};
  free(place);
  return status;
}

bool cache_sync_shards(const char *folder) {
  char *shards = ser_path_join(folder, "shards");
  int fd = open(shards, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  bool good = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP || errno == ENOSYS);
  int problem = errno;
  if (fd >= 0) close(fd);
  free(shards);
  errno = problem;
  return good;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* A regular shard is about 32 MB: anything far beyond is hashed before it is given memory. */
enum { HASH_FIRST = 256 << 20 };

static cache_load not_its_name(ser_error *err) {
  ser_fail(err, SER_FAILED, "its bytes do not match its name");
  return CACHE_DAMAGED;
}

/* The whole file into the scratch; errno tells what failed. */
static bool read_image(cache_scratch *scratch, const char *path, size_t expected) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  scratch->size = 0;
  for (;;) {
    if (scratch->image_capacity < expected + 1 || scratch->image_capacity == scratch->size) {
      if (expected < 2 * scratch->size) expected = 2 * scratch->size;
      scratch->image_capacity = expected + expected / 8 + 4096;
      scratch->image = ser_realloc(scratch->image, scratch->image_capacity);
    }
    ssize_t got = read(fd, scratch->image + scratch->size, scratch->image_capacity - scratch->size);
    if (got < 0 && errno == EINTR) continue;
    int problem = errno;
    if (got <= 0) {
      close(fd);
      errno = problem;
      return got == 0;
    }
    scratch->size += (size_t)got;
  }
}

cache_load cache_load_bytes(cache_scratch *scratch, const char *folder, const ser_hash *name, ser_error *err) {
  char *path = cache_shard_path(folder, name);
  struct stat info;
  ser_hash hash = {{0}};
  cache_load load = CACHE_LOADED;
  scratch->size = 0;
  bool good = stat(path, &info) == 0;
  if (good && (!S_ISREG(info.st_mode) || (info.st_size > HASH_FIRST && ser_hash_file(&hash, path, err) == SER_OK &&
                                          ser_hash_compare(&hash, name) != 0))) {
    load = not_its_name(err);
  } else if (!good || !read_image(scratch, path, (size_t)info.st_size)) {
    load = errno == ENOENT ? CACHE_VANISHED : CACHE_UNREADABLE;
    ser_fail(err, SER_FAILED, "%s", load == CACHE_VANISHED ? "it is no longer there" : strerror(errno));
  } else {
    hash = ser_hash_bytes(scratch->image, scratch->size);
    if (ser_hash_compare(&hash, name) != 0) load = not_its_name(err);
  }
  free(path);
  return load;
}

bool cache_quarantine(const char *folder, const ser_hash *name) {
  char hex[SER_HASH_HEX];
  ser_hash_hex(hex, name);
  char *from = cache_shard_path(folder, name), *to = ser_format("%s/quarantine/%s.h5", folder, hex);
  char *home = ser_format("%s/quarantine", folder);
  ser_error ignored;
  for (int i = 1; i < 1000 && ser_file_exists(to); i++) {
    free(to);
    to = ser_format("%s/%s-%d.h5", home, hex, i);
  }
  bool good = ser_make_folders(home, &ignored) == SER_OK && ser_file_rename(from, to, &ignored) == SER_OK;
  free(home);
  free(to);
  free(from);
  return good;
}
