/* MANIFEST.heard: a line of the form's name and the hash of what follows, one of the decoder, then two hashes a line.
 */
#include "corpus/heard.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audio/audio.h"
#include "base/file.h"
#include "base/memory.h"

static const char FORM[] = "serenade-heard 1 ";
enum { DIGITS = SER_HASH_HEX - 1, HEAD = sizeof FORM - 1 + DIGITS + 1, LINE = 2 * DIGITS + 2 };

static char *name_of(const char *manifest_path) {
  return ser_format("%s.heard", manifest_path);
}

static void put_text(ser_text *text, const heard_table *table) {
  ser_text rest = {0};
  char decoder[SER_AUDIO_DECODER], bytes[SER_HASH_HEX], samples[SER_HASH_HEX];
  ser_audio_decoder(decoder);
  ser_text_printf(&rest, "%s\n", decoder);
  for (size_t i = 0; i < table->count; i++) {
    ser_hash_hex(bytes, &table->sounds[i].bytes);
    ser_hash_hex(samples, &table->sounds[i].samples);
    ser_text_printf(&rest, "%s %s\n", bytes, samples);
  }
  ser_hash hash = ser_hash_bytes(rest.data, rest.size);
  ser_hash_hex(bytes, &hash);
  ser_text_printf(text, "%s%s\n%s", FORM, bytes, rest.data);
  free(rest.data);
}

/* Takes the hash that these 32 characters spell, whatever stands behind them. */
static bool take_hash(ser_hash *hash, const char *at) {
  char hex[SER_HASH_HEX];
  memcpy(hex, at, DIGITS);
  hex[DIGITS] = 0;
  return ser_hash_parse(hash, hex);
}

/* Whether it is such a file, whole, of this decoder; *lines: where its hashes begin. */
static bool is_whole(const char **lines, const char *text, size_t size) {
  char decoder[SER_AUDIO_DECODER];
  ser_hash said, hash;
  if (size <= HEAD || strncmp(text, FORM, sizeof FORM - 1) || !take_hash(&said, text + sizeof FORM - 1)) return false;
  hash = ser_hash_bytes(text + HEAD, size - HEAD);
  ser_audio_decoder(decoder);
  *lines = text + HEAD + strlen(decoder) + 1;
  return !ser_hash_compare(&said, &hash) && !strncmp(text + HEAD, decoder, strlen(decoder)) &&
         text[HEAD + strlen(decoder)] == '\n' && (size_t)(text + size - *lines) % LINE == 0;
}

void heard_read(heard_table *table, const char *manifest_path) {
  char *path = name_of(manifest_path), *text = NULL;
  const char *at;
  size_t size;
  ser_error ignored;
  *table = (heard_table){0};
  if (ser_file_exists(path) && ser_file_read(&text, &size, path, &ignored) == SER_OK && is_whole(&at, text, size)) {
    table->sounds = ser_alloc_zero((size_t)(text + size - at) / LINE + 1, sizeof *table->sounds);
    for (; at < text + size; at += LINE) {
      heard_sound *sound = &table->sounds[table->count++];
      if (take_hash(&sound->bytes, at) && take_hash(&sound->samples, at + DIGITS + 1)) continue;
      table->count = 0; /* not ours */
      break;
    }
  }
  free(text);
  free(path);
}

void heard_write(const heard_table *table, const char *manifest_path) {
  struct stat info;
  if (stat(manifest_path, &info) == 0 && !S_ISREG(info.st_mode)) return; /* beside a pipe nothing is kept */
  char *path = name_of(manifest_path), *before = NULL;
  size_t size = 0;
  ser_text text = {0};
  ser_error ignored;
  put_text(&text, table);
  bool there = ser_file_exists(path) && ser_file_read(&before, &size, path, &ignored) == SER_OK;
  bool ours = there && (!size || !strncmp(before, FORM, sizeof FORM - 1)), same = there && !strcmp(before, text.data);
  if (table->count && !same && (ours || !there)) (void)ser_file_write(path, text.data, text.size, &ignored);
  if (!table->count && ours) unlink(path);
  free(text.data);
  free(before);
  free(path);
}

static int compare_sounds(const void *a, const void *b) {
  return ser_hash_compare(&((const heard_sound *)a)->bytes, &((const heard_sound *)b)->bytes);
}

const ser_hash *heard_find(const heard_table *table, const ser_hash *bytes) {
  heard_sound key = {.bytes = *bytes};
  const heard_sound *found =
      table->count ? bsearch(&key, table->sounds, table->count, sizeof key, compare_sounds) : NULL;
  return found ? &found->samples : NULL;
}
