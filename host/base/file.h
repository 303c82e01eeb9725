/* Files and paths. Whatever Serenade writes appears whole or not at all: beside its place, synced, renamed. */
#ifndef SER_BASE_FILE_H
#define SER_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/status.h"

/* Reads a whole file; *data is NUL-terminated behind its *size bytes and freed by the caller. */
ser_status ser_file_read(char **data, size_t *size, const char *path, ser_error *err);

/* Writes the file atomically: PATH.tmp-<mark> in the same folder, fsync, rename, fsync of the folder. What killed
 * writers of the same PATH left there is removed first. A link stays, and its target is what is replaced; what is no
 * plain file (a pipe, a terminal, /dev/stdout) is written straight. */
ser_status ser_file_write(const char *path, const void *data, size_t size, ser_error *err);

/* Whether a file that the user names for an output (by this option) can be written, as far as that can be told before
 * the work: SER_USAGE for "", "-" and folders, SER_FAILED where the folder is missing or closed to us. */
ser_status ser_output_check(const char *path, const char *option, ser_error *err);
bool ser_file_replaced(const char *path); /* a plain file, not our stdout: one that ser_file_write puts another for */
bool ser_same_file(const char *a, const char *b); /* both there, and one, by whatever names */

/* "<host>-<place>-<pid>-<random>" (8, then 16 hex digits; place: the machine's start and the PID namespace): marks a
 * file that is being written and not in its place yet. The caller frees it. */
char *ser_writer_mark(void);

/* Whether this is a mark and the file's writer is gone: any other name is somebody's own file. A process of the same
 * place is asked for; on a shared file system nobody can ask for those of others: theirs count as left behind after a
 * day. */
bool ser_writer_gone(const char *mark, const struct stat *info);

/* Removes what writers of this file that were killed on the way left beside it. */
void ser_file_sweep(const char *path);

/* All of the bytes, however many calls that takes. false: errno says why. */
bool ser_write_all(int fd, const void *data, size_t size);

/* Renames a finished file onto its place and syncs the folder. */
ser_status ser_file_rename(const char *from, const char *to, ser_error *err);

/* Makes the folder and its parents (mode 0777 less the umask); fine if it is there. */
ser_status ser_make_folders(const char *path, ser_error *err);

bool ser_file_exists(const char *path);
bool ser_is_folder(const char *path);

/* "a/b", without doubling the slash; an absolute b stands alone. The caller frees it. */
char *ser_path_join(const char *folder, const char *name);

/* The absolute form without "." and "..". Symbolic links are kept, but for one that ".." leads out of: there the system
 * goes to the folder above its target. ".." behind what is no folder stays. The caller frees it. */
char *ser_path_absolute(const char *path);

const char *ser_path_name(const char *path); /* behind the last slash, within path */
char *ser_path_folder(const char *path);     /* before it, "." if none; the caller frees it */

/* The names in a folder but "." and "..", in byte order; ser_names_free frees them. */
ser_status ser_folder_names(char ***names, size_t *count, const char *folder, ser_error *err);
void ser_names_free(char **names, size_t count);

/* Calls visit for each regular file below folder, in byte order of the paths, links followed (one to nothing is visited
 * too), folder loops skipped.
 * path is folder joined with what lies below it. A visit that returns other than SER_OK ends the walk with it. */
typedef ser_status (*ser_visit_fn)(void *context, const char *path, ser_error *err);
ser_status ser_walk(const char *folder, ser_visit_fn visit, void *context, ser_error *err);

#endif
