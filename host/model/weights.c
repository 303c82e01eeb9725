/* Opening a file of weights: mapped, told apart by its first bytes, its tensors sorted by name. */
#include "model/weights.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "model/safetensors.h"
#include "model/weights_torch.h"

static int by_name(const void *a, const void *b) {
  return strcmp(((const ser_weight *)a)->name, ((const ser_weight *)b)->name);
}

/* Takes the tensors' names and the metadata over. */
static ser_status read_safetensors(ser_weights *w, ser_error *err) {
  ser_tensors found;
  SER_TRY(ser_tensors_parse(&found, w->bytes, w->size, w->path, err));
  w->format = "safetensors";
  w->tensors = ser_alloc_zero(found.count + 1, sizeof *w->tensors);
  w->count = found.count;
  for (size_t i = 0; i < found.count; i++) {
    const ser_tensor *from = &found.tensors[i];
    ser_weight *to = &w->tensors[i];
    *to = (ser_weight){.name = from->name, .dimensions = from->dimensions, .bytes = from->bytes};
    memcpy(to->dtype, from->dtype, sizeof to->dtype);
    memcpy(to->shape, from->shape, sizeof to->shape);
    if (from->bytes) to->data = from->data;
    int64_t stride = 1;
    for (int d = to->dimensions; d-- > 0 && from->bytes; stride *= to->shape[d]) to->stride[d] = stride;
    found.tensors[i].name = NULL;
  }
  w->keys = found.keys;
  w->values = found.values;
  w->metadata_count = found.metadata_count;
  found.keys = found.values = NULL;
  found.metadata_count = 0;
  ser_tensors_free(&found);
  return SER_OK;
}

static bool begins(const ser_weights *w, const char *with, size_t size) {
  return w->size >= size && !memcmp(w->bytes, with, size);
}

/* What people have in a weights file's place, and what to do then. */
static ser_status refuse_kind(const ser_weights *w, ser_error *err) {
  const char *what = "is neither a safetensors nor a PyTorch file";
  const char *cure = "give a model's model.safetensors or pytorch_model.bin";
  if (!w->size) {
    what = "is empty";
    cure = "copy it again";
  } else if (begins(w, "version https://git-lfs", 23)) {
    what = "is only the pointer that Git LFS leaves in a file's place";
    cure = "fetch the file itself (git lfs pull, or download it)";
  } else if (begins(w, "<", 1)) {
    what = "is a web page";
    cure = "download the file itself";
  } else if (begins(w, "\x89HDF", 4)) {
    what = "is an HDF5 file, as TensorFlow's weights are";
  } else if (w->size > 262 && !memcmp(w->bytes + 257, "ustar", 5)) {
    what = "is a tar archive";
    cure = "unpack it; or, if PyTorch wrote it before 0.2, save it again with a newer one";
  } else if (begins(w, "\x80", 1)) {
    what = "is a pickle, but none that PyTorch's save writes";
  }
  return ser_fail(err, SER_FAILED, "%s %s; %s", w->path, what, cure);
}

static ser_status check_names(const ser_weights *w, ser_error *err) {
  for (size_t i = 1; i < w->count; i++)
    if (!strcmp(w->tensors[i - 1].name, w->tensors[i].name))
      return ser_fail(err, SER_FAILED, "%s holds two tensors of the name %.100s; save it again", w->path,
                      w->tensors[i].name);
  return SER_OK;
}

static ser_status read_kind(ser_weights *w, ser_error *err) {
  if (w->size > 8 && w->bytes[8] == '{')
    SER_TRY(read_safetensors(w, err));
  else if (begins(w, "PK\3\4", 4))
    SER_TRY(ser_torch_zip_read(w, err));
  else if (begins(w, SER_TORCH_LEGACY_MAGIC, sizeof SER_TORCH_LEGACY_MAGIC - 1))
    SER_TRY(ser_torch_legacy_read(w, err));
  else
    return refuse_kind(w, err);
  if (w->count) qsort(w->tensors, w->count, sizeof *w->tensors, by_name);
  return check_names(w, err);
}

ser_status ser_weights_parse(ser_weights *weights, const char *bytes, size_t size, const char *path, ser_error *err) {
  *weights = (ser_weights){.path = ser_strdup(path), .bytes = bytes, .size = size, .fd = -1};
  ser_status status = read_kind(weights, err);
  if (status != SER_OK) ser_weights_close(weights);
  return status;
}

ser_status ser_weights_open(ser_weights *weights, const char *path, ser_error *err) {
  struct stat info;
  memset(weights, 0, sizeof *weights);
  weights->fd = -1;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer is not waited for */
  if (fd < 0) return ser_fail_errno(err, SER_FAILED, "cannot open %s", path);
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return ser_fail(err, SER_FAILED, "%s is no file; give a model's model.safetensors or pytorch_model.bin", path);
  }
  size_t size = (size_t)info.st_size;
  void *bytes = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
  if (size && bytes == MAP_FAILED) {
    ser_fail_errno(err, SER_FAILED, "cannot map %s into memory", path);
    close(fd);
    return SER_FAILED;
  }
  if (size) (void)madvise(bytes, size, MADV_WILLNEED); /* all of it will be read: only sooner */
  ser_status status = ser_weights_parse(weights, bytes, size, path, err);
  if (status != SER_OK) {
    if (size) munmap(bytes, size);
    close(fd);
  } else {
    weights->fd = fd;
  }
  return status;
}

void ser_weights_close(ser_weights *weights) {
  for (size_t i = 0; i < weights->count; i++) free(weights->tensors[i].name);
  for (size_t i = 0; i < weights->metadata_count; i++) {
    free(weights->keys[i]);
    free(weights->values[i]);
  }
  free(weights->tensors);
  free(weights->keys);
  free(weights->values);
  free(weights->path);
  if (weights->fd >= 0) {
    munmap((void *)(uintptr_t)weights->bytes, weights->size);
    close(weights->fd);
  }
  memset(weights, 0, sizeof *weights);
  weights->fd = -1;
}

ser_status ser_weights_whole(const ser_weights *weights, ser_error *err) {
  struct stat info;
  if (weights->fd < 0 || (fstat(weights->fd, &info) == 0 && (size_t)info.st_size == weights->size)) return SER_OK;
  return ser_fail(err, SER_FAILED, "%s changed while it was read; wait until it is whole, then try again",
                  weights->path);
}

void ser_weights_release(const ser_weights *weights) {
  if (weights->fd >= 0) (void)madvise((void *)(uintptr_t)weights->bytes, weights->size, MADV_DONTNEED);
}

const ser_weight *ser_weights_find(const ser_weights *weights, const char *name) {
  const ser_weight key = {.name = (char *)(uintptr_t)name};
  return weights->count ? bsearch(&key, weights->tensors, weights->count, sizeof key, by_name) : NULL;
}

const char *ser_weights_metadata(const ser_weights *weights, const char *key) {
  for (size_t i = 0; i < weights->metadata_count; i++)
    if (!strcmp(weights->keys[i], key)) return weights->values[i];
  return NULL;
}
