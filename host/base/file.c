/* Files and paths. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

ser_status ser_file_read(char **data, size_t *size, const char *path, ser_error *err) {
  ser_status status = SER_OK;
  char *bytes = NULL;
  size_t used = 0, capacity = 0;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ser_fail_errno(err, SER_FAILED, "cannot open %s", path);
  struct stat info;
  if (fstat(fd, &info) == 0 && info.st_size > 0) capacity = (size_t)info.st_size + 1;
  if (capacity < 4096) capacity = 4096;
  bytes = ser_alloc(capacity);
  for (;;) {
    if (used + 1 >= capacity) bytes = ser_realloc(bytes, capacity *= 2);
    ssize_t got = read(fd, bytes + used, capacity - used - 1);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      status = ser_fail_errno(err, SER_FAILED, "cannot read %s", path);
      break;
    }
    if (got == 0) break;
    used += (size_t)got;
  }
  close(fd);
  if (status != SER_OK) {
    free(bytes);
    return status;
  }
  bytes[used] = 0;
  *data = bytes;
  *size = used;
  return SER_OK;
}

static ser_status write_all(int fd, const char *bytes, size_t size) {
  while (size) {
    ssize_t put = write(fd, bytes, size);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return SER_FAILED;
    bytes += put;
    size -= (size_t)put;
  }
  return SER_OK;
}

static void sync_folder_of(const char *path) {
  char *folder = ser_path_folder(path);
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    fsync(fd); /* some file systems refuse it for folders: the rename itself stands all the same */
    close(fd);
  }
  free(folder);
}

ser_status ser_file_rename(const char *from, const char *to, ser_error *err) {
  if (rename(from, to) != 0) return ser_fail_errno(err, SER_FAILED, "cannot rename %s to %s", from, to);
  sync_folder_of(to);
  return SER_OK;
}

ser_status ser_file_write(const char *path, const void *data, size_t size, ser_error *err) {
  static atomic_uint serial;
  ser_status status = SER_OK;
  char *beside;
  int fd;
  do { /* a killed process of the same number may have left a file of this name */
    beside = ser_format("%s.tmp-%ld-%u", path, (long)getpid(), atomic_fetch_add(&serial, 1));
    fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (fd < 0 && errno == EEXIST && (free(beside), true));
  if (fd < 0) {
    status = ser_fail_errno(err, SER_FAILED, "cannot write %s", path);
  } else {
    if (write_all(fd, data, size) != SER_OK || fsync(fd) != 0)
      status = ser_fail_errno(err, SER_FAILED, "cannot write %s (the old one, if any, is untouched)", path);
    if (close(fd) != 0 && status == SER_OK) status = ser_fail_errno(err, SER_FAILED, "cannot write %s", path);
    if (status == SER_OK) status = ser_file_rename(beside, path, err);
    if (status != SER_OK) unlink(beside);
  }
  free(beside);
  return status;
}

ser_status ser_make_folders(const char *path, ser_error *err) {
  char *copy = ser_strdup(path);
  ser_status status = SER_OK;
  for (char *at = copy + 1; status == SER_OK; at++) {
    if (*at != '/' && *at != 0) continue;
    char kept = *at;
    *at = 0;
    if (mkdir(copy, 0777) != 0 && !(errno == EEXIST && ser_is_folder(copy)))
      status = ser_fail_errno(err, SER_FAILED, "cannot make the folder %s", copy);
    *at = kept;
    if (!kept) break;
  }
  free(copy);
  return status;
}

bool ser_file_exists(const char *path) {
  struct stat info;
  return stat(path, &info) == 0;
}

bool ser_is_folder(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

char *ser_path_join(const char *folder, const char *name) {
  if (name[0] == '/' || !folder[0]) return ser_strdup(name);
  size_t size = strlen(folder);
  return ser_format("%s%s%s", folder, folder[size - 1] == '/' ? "" : "/", name);
}

char *ser_path_absolute(const char *path) {
  char *here = NULL;
  if (path[0] != '/') here = getcwd(NULL, 0);
  char *joined = here ? ser_path_join(here, path) : ser_strdup(path);
  free(here);
  char *out = ser_alloc(strlen(joined) + 2);
  size_t size = 0;
  for (const char *at = joined; *at;) {
    while (*at == '/') at++;
    size_t part = strcspn(at, "/");
    if (part == 2 && at[0] == '.' && at[1] == '.') {
      while (size && out[--size] != '/') {
      }
    } else if (part && !(part == 1 && at[0] == '.')) {
      out[size++] = '/';
      memcpy(out + size, at, part);
      size += part;
    }
    at += part;
  }
  if (!size) out[size++] = '/';
  out[size] = 0;
  free(joined);
  return out;
}

const char *ser_path_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

char *ser_path_folder(const char *path) {
  const char *slash = strrchr(path, '/');
  if (!slash) return ser_strdup(".");
  return ser_format("%.*s", slash == path ? 1 : (int)(slash - path), path);
}

typedef struct {
  dev_t device;
  ino_t inode;
} folder_id;

typedef struct {
  folder_id *open; /* the folders above the present one, against loops of links */
  size_t depth, capacity;
  ser_visit_fn visit;
  void *context;
} walk_state;

static int compare_names(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names below folder, each folder's with a slash behind it: so sorting the names sorts the paths. */
static ser_status list_folder(char ***names, size_t *count, const char *folder, ser_error *err) {
  DIR *handle = opendir(folder);
  if (!handle) return ser_fail_errno(err, SER_FAILED, "cannot list the folder %s", folder);
  size_t capacity = 0;
  struct dirent *entry;
  while ((entry = readdir(handle))) {
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    struct stat info; /* a link to nothing is visited like a file: whoever opens it says what is wrong */
    if (fstatat(dirfd(handle), entry->d_name, &info, 0) != 0) info.st_mode = S_IFREG;
    if (!S_ISDIR(info.st_mode) && !S_ISREG(info.st_mode)) continue;
    SER_GROW(*names, *count, capacity);
    (*names)[(*count)++] = ser_format("%s%s", entry->d_name, S_ISDIR(info.st_mode) ? "/" : "");
  }
  closedir(handle);
  if (*count) qsort(*names, *count, sizeof **names, compare_names);
  return SER_OK;
}

static ser_status walk_folder(walk_state *walk, const char *folder, ser_error *err) {
  struct stat info;
  if (stat(folder, &info) != 0) return ser_fail_errno(err, SER_FAILED, "cannot open the folder %s", folder);
  for (size_t i = 0; i < walk->depth; i++)
    if (walk->open[i].device == info.st_dev && walk->open[i].inode == info.st_ino) return SER_OK;
  SER_GROW(walk->open, walk->depth, walk->capacity);
  walk->open[walk->depth++] = (folder_id){info.st_dev, info.st_ino};

  char **names = NULL;
  size_t count = 0;
  ser_status status = list_folder(&names, &count, folder, err);
  for (size_t i = 0; i < count; i++) {
    size_t last = strlen(names[i]) - 1;
    bool is_folder = names[i][last] == '/';
    if (is_folder) names[i][last] = '\0';
    char *path = ser_path_join(folder, names[i]);
    if (status == SER_OK) status = is_folder ? walk_folder(walk, path, err) : walk->visit(walk->context, path, err);
    free(path);
    free(names[i]);
  }
  free(names);
  walk->depth--;
  return status;
}

ser_status ser_folder_names(char ***names, size_t *count, const char *folder, ser_error *err) {
  *names = NULL;
  *count = 0;
  size_t capacity = 0;
  DIR *handle = opendir(folder);
  if (!handle) return ser_fail_errno(err, SER_FAILED, "cannot list the folder %s", folder);
  for (struct dirent *entry; (entry = readdir(handle));) {
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    SER_GROW(*names, *count, capacity);
    (*names)[(*count)++] = ser_strdup(entry->d_name);
  }
  closedir(handle);
  if (*count) qsort(*names, *count, sizeof **names, compare_names);
  return SER_OK;
}

void ser_names_free(char **names, size_t count) {
  for (size_t i = 0; i < count; i++) free(names[i]);
  free(names);
}

ser_status ser_walk(const char *folder, ser_visit_fn visit, void *context, ser_error *err) {
  walk_state walk = {.visit = visit, .context = context};
  ser_status status = walk_folder(&walk, folder, err);
  free(walk.open);
  return status;
}
