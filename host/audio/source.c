/* Bytes of a recording, from a file or from memory. */
#include "audio/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

bool byte_source_open(byte_source *source, const ser_audio_source *from) {
  *source = (byte_source){.data = from->data, .fd = -1, .size = from->size};
  if (from->data) return true;
  struct stat info;
  source->fd = open(from->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer is not waited for */
  if (source->fd < 0) return false;
  if (fstat(source->fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    int why = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
    byte_source_close(source);
    errno = why;
    return false;
  }
  source->size = info.st_size;
  source->buffer = ser_alloc(SOURCE_BUFFER);
  return true;
}

void byte_source_close(byte_source *source) {
  if (source->fd >= 0) close(source->fd);
  free(source->buffer);
  *source = (byte_source){.fd = -1};
}

static int64_t read_file(byte_source *source, uint8_t *to, int64_t offset, int64_t count) {
  int64_t done = 0;
  while (done < count) {
    ssize_t got = pread(source->fd, to + done, (size_t)(count - done), offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && !source->problem) source->problem = errno;
    if (got <= 0) break;
    done += got;
  }
  return done;
}

int64_t byte_source_read(byte_source *source, void *to, int64_t offset, int64_t count) {
  if (offset < 0 || offset >= source->size || count <= 0) return 0;
  if (count > source->size - offset) count = source->size - offset;
  int64_t done = 0;
  if (source->data) {
    memcpy(to, source->data + offset, (size_t)count);
    done = count;
  } else if (count >= SOURCE_BUFFER) {
    done = read_file(source, to, offset, count);
  }
  while (!source->data && count < SOURCE_BUFFER && done < count) {
    int64_t at = offset + done - source->buffered_at;
    if (at < 0 || at >= source->buffered) {
      source->buffered_at = offset + done;
      source->buffered = read_file(source, source->buffer, offset + done, SOURCE_BUFFER);
      if (source->buffered <= 0) break;
      at = 0;
    }
    int64_t part = source->buffered - at < count - done ? source->buffered - at : count - done;
    memcpy((uint8_t *)to + done, source->buffer + at, (size_t)part);
    done += part;
  }
  for (int i = 0; i < 4 && source->patch_at; i++) {
    int64_t at = source->patch_at + i - offset;
    if (at >= 0 && at < done) ((uint8_t *)to)[at] = source->patch[i];
  }
  if (offset + done > source->furthest) source->furthest = offset + done;
  return done;
}
