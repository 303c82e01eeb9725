/* XXH3-128 of bytes and files. */
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/interrupt.h"
#include "base/memory.h"

static ser_hash canonical(XXH128_hash_t value) {
  XXH128_canonical_t form;
  XXH128_canonicalFromHash(&form, value);
  ser_hash hash;
  memcpy(hash.bytes, form.digest, sizeof hash.bytes);
  return hash;
}

ser_hash ser_hash_bytes(const void *data, size_t size) {
  return canonical(XXH3_128bits(data, size));
}

/* An XXH3 state by another name, so that only this file knows xxhash.h. */
ser_hasher *ser_hasher_create(void) {
  XXH3_state_t *state = XXH3_createState();
  SER_CHECK(state != NULL);
  XXH3_128bits_reset(state);
  return (ser_hasher *)state;
}

void ser_hasher_add(ser_hasher *hasher, const void *data, size_t size) {
  if (size) XXH3_128bits_update((XXH3_state_t *)hasher, data, size);
}

ser_hash ser_hasher_end(ser_hasher *hasher) {
  XXH3_state_t *state = (XXH3_state_t *)hasher;
  ser_hash hash = canonical(XXH3_128bits_digest(state));
  XXH3_freeState(state);
  return hash;
}

ser_status ser_hash_file(ser_hash *hash, const char *path, ser_error *err) {
  enum { BLOCK = 1 << 17 };
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer is not waited for */
  struct stat info;
  if (fd < 0) return ser_fail_errno(err, SER_FAILED, "cannot open %s", path);
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return ser_fail(err, SER_FAILED, "%s is no file", path);
  }
  ser_status status = SER_OK;
  char *block = ser_alloc(BLOCK);
  ser_hasher *hasher = ser_hasher_create();
  for (;;) {
    ssize_t got = read(fd, block, BLOCK);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) status = ser_fail_errno(err, SER_FAILED, "cannot read %s", path);
    if (got <= 0 || (status = ser_interrupt_check(err)) != SER_OK) break;
    ser_hasher_add(hasher, block, (size_t)got);
  }
  *hash = ser_hasher_end(hasher);
  free(block);
  close(fd);
  return status;
}

void ser_hash_hex(char hex[SER_HASH_HEX], const ser_hash *hash) {
  for (int i = 0; i < 16; i++) sprintf(hex + 2 * i, "%02x", hash->bytes[i]);
}

bool ser_hash_parse(ser_hash *hash, const char *hex) {
  if (strlen(hex) != 32 || strspn(hex, "0123456789abcdefABCDEF") != 32) return false;
  for (int i = 0; i < 16; i++) {
    unsigned byte;
    sscanf(hex + 2 * i, "%2x", &byte);
    hash->bytes[i] = (uint8_t)byte;
  }
  return true;
}

int ser_hash_compare(const ser_hash *a, const ser_hash *b) {
  return memcmp(a->bytes, b->bytes, sizeof a->bytes);
}
