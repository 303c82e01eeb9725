/* XXH3-128, in its canonical (big-endian) form: the names of files, configurations and rows. */
#ifndef SER_BASE_HASH_H
#define SER_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct {
  uint8_t bytes[16];
} ser_hash;

#define SER_HASH_HEX 33 /* 32 digits and the NUL */

ser_hash ser_hash_bytes(const void *data, size_t size);
/* Of a regular file, in blocks: memory does not grow, and a signal ends it (SER_INTERRUPTED). */
ser_status ser_hash_file(ser_hash *hash, const char *path, ser_error *err);
/* Of bytes that come in pieces. */
typedef struct ser_hasher ser_hasher;
ser_hasher *ser_hasher_create(void);
void ser_hasher_add(ser_hasher *hasher, const void *data, size_t size);
ser_hash ser_hasher_end(ser_hasher *hasher); /* and frees it */

void ser_hash_hex(char hex[SER_HASH_HEX], const ser_hash *hash);
bool ser_hash_parse(ser_hash *hash, const char *hex); /* false unless 32 hex digits and nothing behind them */
int ser_hash_compare(const ser_hash *a, const ser_hash *b);

#endif
