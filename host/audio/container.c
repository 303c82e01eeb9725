/* Judges whether a file is as long as its own header says, for libsndfile opens a cut file without a word.
 *
 *   WAV (RIFF, RIFX, RF64, BW64), AIFF, AIFC, IFF (8SVX, 16SV)   the sound chunk (data, SSND, BODY) must lie within the
 *       file, and so must every chunk behind it that the form's size still covers. A form's size that is merely wrong,
 *       and bytes behind the form, are no cut: many writers do that.
 *   W64, CAF, AU, NIST SPHERE, Creative Voice  the same for their sound chunk.
 *   Ogg                                        the last page must be whole and carry the end-of-stream flag.
 *   FLAC, MP3 and all others                   nothing here: decoding compares the frames that come with those
 * promised.
 *
 * A sound chunk of size 0, 0x7ffff000 to 0x80000000, or 0xffffff00 and above comes from a writer that could not seek
 * back (a pipe, a crash): it reaches to the end of the file. A size of 0 in a form whose own size fits is truly empty.
 */
#include "audio/container.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DETAIL = 256 };

static uint64_t number(const uint8_t *bytes, int count, bool big) {
  uint64_t value = 0;
  for (int i = 0; i < count; i++) value = value << 8 | bytes[big ? i : count - 1 - i];
  return value;
}

static bool is(const uint8_t *bytes, const char *name) {
  return !memcmp(bytes, name, 4);
}

/* What a writer leaves behind that could not come back to write the length. */
static bool open_ended(uint64_t size) {
  return size == 0 || (size >= 0x7ffff000u && size <= 0x80000000u) || (size >= 0xffffff00u && size <= 0xffffffffu);
}

static ser_reason cut(char *detail, uint64_t promised, int64_t there) {
  snprintf(detail, DETAIL, "cut short: the header promises %llu bytes, the file has %lld; copy it again",
           (unsigned long long)promised, (long long)there);
  return SER_REASON_TRUNCATED;
}

static ser_reason cut_header(char *detail) {
  snprintf(detail, DETAIL, "cut short: the file ends within its header; copy it again");
  return SER_REASON_TRUNCATED;
}

static bool printable(const uint8_t *id) {
  for (int i = 0; i < 4; i++)
    if (id[i] < 0x20 || id[i] > 0x7e) return false;
  return true;
}

/* Chunks behind the sound, as far as the form reaches: one that runs over the file's end tells of a cut. */
static ser_reason check_tail(char *detail, byte_source *source, uint64_t at, uint64_t form_end, bool big) {
  uint64_t size = (uint64_t)source->size;
  uint8_t head[8];
  while (at + 8 <= form_end && at < size) {
    if (byte_source_read(source, head, (int64_t)at, 8) < 8) return cut(detail, form_end, source->size);
    if (!printable(head)) return SER_REASON_NONE; /* junk */
    uint64_t end = at + 8 + number(head + 4, 4, big);
    if (end > form_end + 1) return SER_REASON_NONE; /* junk too: no chunk leaves its form */
    if (end > size) return cut(detail, form_end, source->size);
    at = end + (end & 1);
  }
  return SER_REASON_NONE;
}

/* A length of 0 that no one came back to: libsndfile is shown the real one. */
static void mend_length(byte_source *source, uint64_t at, uint64_t length, bool big) {
  if (length > 0x7fffff00u) return;
  source->patch_at = (int64_t)at;
  for (int i = 0; i < 4; i++) source->patch[i] = (uint8_t)(length >> 8 * (big ? 3 - i : i));
}

/* RIFF, RIFX, RF64, BW64 and FORM: id, size, type, then chunks on even places. */
static ser_reason check_form(char *detail, byte_source *source, const uint8_t *head) {
  bool form = is(head, "FORM"), big = form || is(head, "RIFX");
  const char *sound = !form ? "data" : is(head + 8, "AIFF") || is(head + 8, "AIFC") ? "SSND" : "BODY";
  bool wide = is(head, "RF64") || is(head, "BW64");
  uint64_t size = (uint64_t)source->size, form_end = 8 + number(head + 4, 4, big), wide_data = 0;
  bool form_known = !open_ended(form_end - 8) && !wide;
  uint8_t chunk[24];
  for (uint64_t at = 12; at < size;) {
    if (byte_source_read(source, chunk, (int64_t)at, 8) < 8) break;
    uint64_t length = number(chunk + 4, 4, big), body = at + 8;
    if (wide && is(chunk, "ds64")) {
      if (byte_source_read(source, chunk, (int64_t)body, 16) < 16) return cut_header(detail);
      form_end = 8 + number(chunk, 8, false);
      wide_data = number(chunk + 8, 8, false);
      form_known = form_end > 8;
    } else if (is(chunk, sound)) {
      if (wide && length == 0xffffffffu && wide_data) length = wide_data;
      if (length == 0 && form_known && form_end == size) {
        snprintf(detail, DETAIL, "holds no samples: its sound chunk is empty; get the file anew, or take it out");
        return SER_REASON_EMPTY;
      }
      if (length == 0 && body < size) mend_length(source, at + 4, size - body, big);
      if (open_ended(length)) return SER_REASON_NONE;
      if (body + length > size) return cut(detail, body + length, source->size);
      uint64_t end = body + length;
      return form_known ? check_tail(detail, source, end + (end & 1), form_end, big) : SER_REASON_NONE;
    }
    uint64_t next = body + length + (length & 1);
    /* Some writers leave out the pad byte behind an odd chunk: the next name then starts one byte earlier. */
    if ((length & 1) && byte_source_read(source, chunk, (int64_t)(next - 1), 5) == 5 && !printable(chunk + 1) &&
        printable(chunk))
      next -= 1;
    if (next > size) return cut_header(detail);
    at = next;
  }
  /* No sound chunk: cut if the form says that more should follow, else no business of this check. */
  if (form_known && form_end > size) return cut_header(detail);
  return SER_REASON_NONE;
}

/* Sony's Wave64: chunks named by 16 bytes, with 64-bit sizes that count their own 24-byte head, on places of 8. */
static ser_reason check_w64(char *detail, byte_source *source) {
  uint8_t chunk[24];
  for (uint64_t at = 40; byte_source_read(source, chunk, (int64_t)at, 24) == 24;) {
    uint64_t length = number(chunk + 16, 8, false);
    if (is(chunk, "data"))
      return length > 24 && length < UINT64_MAX / 4 && at + length > (uint64_t)source->size
                 ? cut(detail, at + length, source->size)
                 : SER_REASON_NONE;
    if (length < 24 || length > UINT64_MAX / 4) return SER_REASON_NONE;
    at += (length + 7) & ~(uint64_t)7;
  }
  return cut_header(detail);
}

/* Apple's CAF: 4-letter names with signed 64-bit sizes; a sound chunk of -1 reaches to the end. */
static ser_reason check_caf(char *detail, byte_source *source) {
  uint8_t chunk[12];
  for (uint64_t at = 8; byte_source_read(source, chunk, (int64_t)at, 12) == 12;) {
    uint64_t length = number(chunk + 4, 8, true);
    if (is(chunk, "data") && length == UINT64_MAX) return SER_REASON_NONE;
    if (length > UINT64_MAX / 4) return SER_REASON_NONE;
    at += 12 + length;
    if (at > (uint64_t)source->size) return cut(detail, at, source->size);
    if (is(chunk, "data")) return SER_REASON_NONE;
  }
  return cut_header(detail);
}

/* Sun's .snd: the place of the sound and its size, 0xffffffff where it was not known. */
static ser_reason check_au(char *detail, byte_source *source, const uint8_t *head) {
  bool big = is(head, ".snd");
  uint64_t length = number(head + 8, 4, big), end = number(head + 4, 4, big) + length;
  return !open_ended(length) && end > (uint64_t)source->size ? cut(detail, end, source->size) : SER_REASON_NONE;
}

/* NIST's SPHERE: a header of text, whose second line is its size and whose lines "NAME -i NUMBER" tell the rest. Files
 * that are coded (mu-law has one byte a sample) carry the same three numbers. */
static ser_reason check_sphere(char *detail, byte_source *source) {
  static const char *const names[] = {"\nsample_count -i ", "\nchannel_count -i ", "\nsample_n_bytes -i "};
  char text[1025];
  int64_t got = byte_source_read(source, text, 0, sizeof text - 1);
  text[got] = 0;
  uint64_t promised = 1;
  if (strstr(text, "embedded-")) return SER_REASON_NONE; /* packed: the numbers are those of the sound unpacked */
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *at = strstr(text, names[i]);
    uint64_t value = at ? strtoull(at + strlen(names[i]), NULL, 10) : 1; /* a header may leave out that it is mono */
    if (!at && i == 0) return got < (int64_t)sizeof text - 1 ? cut_header(detail) : SER_REASON_NONE;
    if (value > UINT32_MAX || promised > UINT32_MAX) return SER_REASON_NONE; /* damaged: libsndfile says how */
    promised *= value;
  }
  uint64_t end = promised + strtoull(text + strlen("NIST_1A\n"), NULL, 10);
  return end > (uint64_t)source->size ? cut(detail, end, source->size) : SER_REASON_NONE;
}

/* Creative Voice: blocks of a type and a 24-bit size, from the place on that the header tells. libsndfile reads the
 * first one that holds sound (1; 9 with a header of its own); what may come before are texts, marks and settings. The
 * end's block, one byte, is left out by some writers. */
static ser_reason check_voc(char *detail, byte_source *source, const uint8_t *head) {
  uint8_t block[4] = {0};
  for (uint64_t at = number(head + 20, 2, false); byte_source_read(source, block, (int64_t)at, 4) == 4;) {
    uint64_t end = at + 4 + number(block + 1, 3, false);
    if (block[0] == 0 || block[0] > 9) return SER_REASON_NONE; /* no sound: libsndfile says so */
    if (end > (uint64_t)source->size) return cut(detail, end, source->size);
    if (block[0] == 1 || block[0] == 9) return SER_REASON_NONE;
    at = end;
  }
  return block[0] == 0 ? SER_REASON_NONE : cut_header(detail);
}

/* The last page's head lies within the last 64 KiB + 283 bytes, for no page is longer. */
static ser_reason check_ogg(char *detail, byte_source *source) {
  static const int64_t LONGEST_PAGE = 27 + 255 + 255 * 255;
  uint8_t head[27 + 255], four[4];
  int64_t low = source->size > 2 * LONGEST_PAGE ? source->size - 2 * LONGEST_PAGE : 0;
  for (int64_t at = source->size - 27; at >= low; at--) {
    if (byte_source_read(source, four, at, 4) < 4 || !is(four, "OggS")) continue;
    int64_t got = byte_source_read(source, head, at, (int64_t)sizeof head);
    if (got < 27 || head[4] != 0) continue; /* the letters by chance */
    int64_t end = at + 27 + head[26];
    for (int i = 0; i < head[26] && 27 + i < got; i++) end += head[27 + i];
    if (end > source->size) return cut(detail, (uint64_t)end, source->size);
    if (head[5] & 4) return SER_REASON_NONE;
    break;
  }
  snprintf(detail, DETAIL, "cut short: its last Ogg page does not end the stream; copy it again");
  return SER_REASON_TRUNCATED;
}

ser_reason container_check(char *detail, byte_source *source) {
  static const char pointer[] = "version https://git-lfs.github.com/spec/v1";
  uint8_t head[64] = {0};
  if (source->size == 0) {
    snprintf(detail, DETAIL, "the file is empty (0 bytes); copy it again");
    return SER_REASON_EMPTY;
  }
  int64_t got = byte_source_read(source, head, 0, (int64_t)sizeof head);
  if (got >= (int64_t)sizeof pointer - 1 && !memcmp(head, pointer, sizeof pointer - 1)) {
    snprintf(detail, DETAIL,
             "a Git LFS pointer, not the recording itself; fetch it with `git lfs pull` in a clone of its repository");
    return SER_REASON_LFS_POINTER;
  }
  if (got < 4) return SER_REASON_NONE;
  bool riff = is(head, "RIFF") || is(head, "RIFX") || is(head, "RF64") || is(head, "BW64");
  if (riff && (got < 12 || is(head + 8, "WAVE")))
    return got < 12 ? cut_header(detail) : check_form(detail, source, head);
  if (is(head, "FORM") && got < 12) return cut_header(detail);
  if (is(head, "FORM") &&
      (is(head + 8, "AIFF") || is(head + 8, "AIFC") || is(head + 8, "8SVX") || is(head + 8, "16SV")))
    return check_form(detail, source, head);
  if (is(head, "riff")) return check_w64(detail, source);
  if (is(head, "caff")) return check_caf(detail, source);
  if ((is(head, ".snd") || is(head, "dns.")) && got >= 24) return check_au(detail, source, head);
  if (got >= 8 && !memcmp(head, "NIST_1A\n", 8)) return check_sphere(detail, source);
  if (is(head, "OggS")) return check_ogg(detail, source);
  if (got >= 22 && !memcmp(head, "Creative Voice File\x1a", 20)) return check_voc(detail, source, head);
  return SER_REASON_NONE;
}
