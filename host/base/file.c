/* Files and paths. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/interrupt.h"
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

bool ser_write_all(int fd, const void *data, size_t size) {
  const char *bytes = data;
  while (size) {
    ssize_t put = write(fd, bytes, size);
    if (put < 0 && errno == EINTR) continue;
    if (put == 0) errno = EIO; /* no file does that; it would go on for ever */
    if (put <= 0) return false;
    bytes += put;
    size -= (size_t)put;
  }
  return true;
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

/* ---- files that are not in their place yet ----------------------------------------------------------------------- */

static void host_name(char host[128]) {
  memset(host, 0, 128);
  if (gethostname(host, 127) != 0) strcpy(host, "host");
  for (char *at = host; *at; at++)
    if (*at == '/') *at = '_';
}

/* Where a process id means something: the machine since its last start, and the PID namespace. 0 where that cannot be
 * told. Containers may share their host's name, and machines the numbers of their first namespaces. */
static uint32_t place_of_pids(void) {
  struct stat space;
  char *boot, *text;
  size_t size;
  ser_error ignored;
  if (stat("/proc/self/ns/pid", &space) != 0 ||
      ser_file_read(&boot, &size, "/proc/sys/kernel/random/boot_id", &ignored) != SER_OK)
    return 0;
  text = ser_format("%s %llu", boot, (unsigned long long)space.st_ino);
  ser_hash hash = ser_hash_bytes(text, strlen(text));
  free(text);
  free(boot);
  return (uint32_t)hash.bytes[0] << 24 | (uint32_t)hash.bytes[1] << 16 | (uint32_t)hash.bytes[2] << 8 | hash.bytes[3];
}

char *ser_writer_mark(void) {
  char host[128];
  uint64_t random = 0;
  host_name(host);
  if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random) random = (uint64_t)clock();
  return ser_format("%s-%08x-%ld-%016llx", host, place_of_pids(), (long)getpid(), (unsigned long long)random);
}

/* The parts of a mark, from behind: host names hold dashes too. NULL: it is none, else the dash that ends the host. */
static const char *mark_parse(uint32_t *place, long *pid, const char *mark) {
  static const char digits[] = "0123456789abcdef";
  const char *end = mark + strlen(mark), *random = end - 17, *number, *home;
  if (end - mark < 17 || *random != '-' || strspn(random + 1, digits) != 16) return NULL;
  for (number = random; number > mark && number[-1] >= '0' && number[-1] <= '9';) number--;
  if (number == random || random - number > 10 || number - mark < 11 || number[-1] != '-') return NULL;
  home = number - 10;
  if (*home != '-' || strspn(home + 1, digits) != 8) return NULL;
  *pid = strtol(number, NULL, 10);
  *place = (uint32_t)strtoul(home + 1, NULL, 16);
  return *pid > 0 ? home : NULL;
}

bool ser_writer_gone(const char *mark, const struct stat *info) {
  char host[128];
  uint32_t place, here = place_of_pids();
  long pid;
  const char *home = mark_parse(&place, &pid, mark);
  if (!home) return false;
  host_name(host);
  if (here && here == place && (size_t)(home - mark) == strlen(host) && !strncmp(mark, host, strlen(host)))
    return kill((pid_t)pid, 0) != 0 && errno == ESRCH;
  return time(NULL) - info->st_mtim.tv_sec > 24 * 3600;
}

void ser_file_sweep(const char *path) {
  char *folder = ser_path_folder(path), *before = ser_format("%s.tmp-", ser_path_name(path)), **names = NULL;
  size_t count = 0, size = strlen(before);
  ser_error ignored;
  if (ser_folder_names(&names, &count, folder, &ignored) != SER_OK) count = 0;
  for (size_t i = 0; i < count; i++) {
    struct stat info;
    if (strncmp(names[i], before, size) != 0) continue;
    char *left = ser_path_join(folder, names[i]);
    if (lstat(left, &info) == 0 && S_ISREG(info.st_mode) && ser_writer_gone(names[i] + size, &info)) unlink(left);
    free(left);
  }
  ser_names_free(names, count);
  free(before);
  free(folder);
}

/* A pipe that nobody reads yet is waited for, with an eye on signals: an open that waits would sleep through one that
 * came just before it. */
static ser_status open_straight(int *fd, const char *path, bool pipe, ser_error *err) {
  while ((*fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC)) < 0 && ((pipe && errno == ENXIO) || errno == EINTR)) {
    SER_TRY(ser_interrupt_check(err));
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
  }
  if (*fd >= 0) fcntl(*fd, F_SETFL, fcntl(*fd, F_GETFL) & ~O_NONBLOCK);
  return SER_OK;
}

/* What is not a plain file (a pipe, a terminal, /dev/stdout) has no name to be renamed onto: it is written as it is. */
static ser_status write_straight(int fd, const char *path, const void *data, size_t size, ser_error *err) {
  const char *bytes = data;
  while (fd >= 0 && size) {
    ssize_t put = write(fd, bytes, size);
    if (put < 0 && errno == EINTR && !ser_interrupted()) continue;
    if (put <= 0) break;
    bytes += put;
    size -= (size_t)put;
  }
  if (fd >= 0 && !size) return SER_OK;
  int reason = errno;
  if (reason == EINTR) SER_TRY(ser_interrupt_check(err)); /* nobody reads the pipe, or no longer */
  errno = reason;
  return ser_fail_errno(err, SER_FAILED, "cannot write %s", path);
}

/* stdout may be a file by another name: what was printed to it must stay. */
static bool is_stdout(const struct stat *info) {
  struct stat out;
  return fstat(STDOUT_FILENO, &out) == 0 && out.st_dev == info->st_dev && out.st_ino == info->st_ino;
}

static ser_status write_beside(const char *path, const void *data, size_t size, ser_error *err) {
  ser_status status = SER_OK;
  struct stat before;
  bool there = stat(path, &before) == 0;
  char *mark = ser_writer_mark(), *beside = ser_format("%s.tmp-%s", path, mark);
  ser_file_sweep(path); /* first: on a full disk it makes room */
  int fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) {
    status = ser_fail_errno(err, SER_FAILED, "cannot write %s", path);
  } else {
    if (there) fchmod(fd, before.st_mode & 07777); /* what was private stays so; where it cannot, it is the writer's */
    if (!ser_write_all(fd, data, size) || fsync(fd) != 0)
      status = ser_fail_errno(err, SER_FAILED, "cannot write %s (the old one, if any, is untouched)", path);
    if (close(fd) != 0 && status == SER_OK) status = ser_fail_errno(err, SER_FAILED, "cannot write %s", path);
    if (status == SER_OK) status = ser_file_rename(beside, path, err);
    if (status != SER_OK) unlink(beside);
  }
  free(mark);
  free(beside);
  return status;
}

ser_status ser_file_write(const char *path, const void *data, size_t size, ser_error *err) {
  struct stat info;
  if (stat(path, &info) == 0) {
    if (S_ISDIR(info.st_mode)) return ser_fail(err, SER_FAILED, "cannot write %s: it is a folder; name a file", path);
    if (is_stdout(&info)) {
      fflush(stdout);
      return write_straight(STDOUT_FILENO, path, data, size, err);
    }
    if (!S_ISREG(info.st_mode)) {
      int fd = -1;
      SER_TRY(open_straight(&fd, path, S_ISFIFO(info.st_mode), err));
      ser_status status = write_straight(fd, path, data, size, err);
      if (fd >= 0 && close(fd) != 0 && status == SER_OK)
        status = ser_fail_errno(err, SER_FAILED, "cannot write %s", path);
      return status;
    }
  }
  if (lstat(path, &info) != 0 || !S_ISLNK(info.st_mode)) return write_beside(path, data, size, err);
  char *target = realpath(path, NULL); /* the link stays, its target is replaced */
  if (!target) return ser_fail(err, SER_FAILED, "cannot write %s: it is a link to nothing; remove it", path);
  ser_status status = write_beside(target, data, size, err);
  free(target);
  return status;
}

bool ser_file_replaced(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISREG(info.st_mode) && !is_stdout(&info);
}

ser_status ser_output_check(const char *path, const char *option, ser_error *err) {
  struct stat info;
  if (!*path || !strcmp(path, "-"))
    return ser_fail(err, SER_USAGE, "%s '%s' names no file; give one (/dev/stdout where the output is to be piped)",
                    option, path);
  if (ser_is_folder(path)) return ser_fail(err, SER_USAGE, "%s %s is a folder; name a file", option, path);
  bool there = stat(path, &info) == 0;
  if (there && !ser_file_replaced(path)) return SER_OK;
  if (!there && lstat(path, &info) == 0)
    return ser_fail(err, SER_FAILED, "%s %s is a link to nothing; remove it", option, path);
  char *real = realpath(path, NULL), *folder = ser_path_folder(real ? real : path);
  ser_status status = SER_OK;
  if (!ser_is_folder(folder))
    status = ser_fail(err, SER_FAILED, "%s %s: there is no folder %s; make it first", option, path, folder);
  else if (access(folder, W_OK | X_OK) != 0)
    status = ser_fail_errno(err, SER_FAILED, "%s %s: cannot write into the folder %s", option, path, folder);
  free(folder);
  free(real);
  return status;
}

bool ser_same_file(const char *a, const char *b) {
  struct stat one, other;
  return stat(a, &one) == 0 && stat(b, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
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

/* The folder above an absolute path as the system sees it: that of a link's target, not of the link. "" is the root.
 * What is no folder has none, and keeps its "..". Takes path over. */
static char *path_above(char *path) {
  struct stat info;
  char *real = lstat(path, &info) == 0 && S_ISLNK(info.st_mode) ? realpath(path, NULL) : ser_strdup(path);
  char *above = NULL;
  if (!*path)
    above = ser_strdup("");
  else if (real && ser_is_folder(real))
    above = ser_format("%.*s", (int)(strrchr(real, '/') - real), real);
  else
    above = ser_format("%s/..", path);
  free(real);
  free(path);
  return above;
}

char *ser_path_absolute(const char *path) {
  char *here = NULL, *out = ser_strdup("");
  if (path[0] != '/') here = getcwd(NULL, 0);
  char *joined = here ? ser_path_join(here, path) : ser_strdup(path);
  free(here);
  for (const char *at = joined; *at;) {
    while (*at == '/') at++;
    size_t part = strcspn(at, "/");
    if (part == 2 && at[0] == '.' && at[1] == '.') {
      out = path_above(out);
    } else if (part && !(part == 1 && at[0] == '.')) {
      char *longer = ser_format("%s/%.*s", out, (int)part, at);
      free(out);
      out = longer;
    }
    at += part;
  }
  free(joined);
  if (*out) return out;
  free(out);
  return ser_strdup("/");
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

/* The names in a folder but "." and "..", sorted. with_kinds: of files and folders alone, links followed, a folder's
 * name with a slash behind it. */
static ser_status list_folder(char ***names, size_t *count, const char *folder, bool with_kinds, ser_error *err) {
  ser_status status = SER_OK;
  size_t capacity = 0;
  *names = NULL;
  *count = 0;
  DIR *handle = opendir(folder);
  if (!handle) return ser_fail_errno(err, SER_FAILED, "cannot list the folder %s", folder);
  for (;;) {
    errno = 0; /* the only way to tell the end from an error */
    struct dirent *entry = readdir(handle);
    if (!entry) break;
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    struct stat info = {.st_mode = S_IFREG}; /* also of a link to nothing: whoever opens it says what is wrong */
    if (with_kinds) (void)fstatat(dirfd(handle), entry->d_name, &info, 0);
    if (!S_ISDIR(info.st_mode) && !S_ISREG(info.st_mode)) continue;
    SER_GROW(*names, *count, capacity);
    (*names)[(*count)++] = ser_format("%s%s", entry->d_name, S_ISDIR(info.st_mode) ? "/" : "");
  }
  if (errno)
    status = ser_fail_errno(err, SER_FAILED, "cannot list the whole folder %s; run the same command again", folder);
  closedir(handle);
  if (status != SER_OK) {
    ser_names_free(*names, *count);
    *names = NULL;
    *count = 0;
  }
  if (*count) qsort(*names, *count, sizeof **names, compare_names);
  return status;
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
  ser_status status = list_folder(&names, &count, folder, true, err);
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
  return list_folder(names, count, folder, false, err);
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
