/* Where only the container tells that a file is cut, or that it is not: Ogg between two pages, AIFF's sound chunk. */
#include "support/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sndfile.h>

#include "audio/audio.h"
#include "base/file.h"

/* The bytes of a recording in this format; the caller frees them. */
static char *make_audio(size_t *size, int format, int64_t frames, int rate) {
  char *folder = test_folder_make("cut"), *path = ser_path_join(folder, "made"), *bytes;
  float *speech = test_speech(5, frames, rate);
  SF_INFO info = {.samplerate = rate, .channels = 1, .format = format};
  SNDFILE *file = sf_open(path, SFM_WRITE, &info);
  ser_error err = {0};
  assert_non_null(file);
  assert_int_equal(sf_writef_float(file, speech, frames), frames);
  sf_close(file);
  ASSERT_OK(ser_file_read(&bytes, size, path, &err), err);
  free(speech);
  free(path);
  test_folder_remove(folder);
  return bytes;
}

static ser_reason decode_bytes(const void *data, size_t size, int64_t *count, char *detail) {
  ser_error err = {0};
  ser_clip clip;
  ser_reason reason;
  ser_audio_source source = {"memory", data, (int64_t)size};
  ASSERT_OK(ser_audio_decode(&clip, &reason, detail, &source, 0, NULL, NULL, &err), err);
  *count = clip.count;
  ser_clip_free(&clip);
  return reason;
}

/* Every page but the last one is whole, and a decoder is content: that the stream was to go on one flag tells alone. */
static void ogg_between_two_pages(void **state) {
  (void)state;
  size_t size, pages = 0;
  int64_t count;
  char detail[256], *bytes = make_audio(&size, SF_FORMAT_OGG | SF_FORMAT_VORBIS, 48000 * 4, 48000);
  assert_int_equal(decode_bytes(bytes, size, &count, detail), SER_REASON_NONE);
  assert_int_equal(count, 48000 * 4);
  for (size_t at = 0, end; at < size; at = end) {
    assert_memory_equal(bytes + at, "OggS", 4);
    const unsigned char *head = (const unsigned char *)bytes + at;
    end = at + 27 + head[26];
    for (int i = 0; i < head[26]; i++) end += head[27 + i];
    if (end == size) break;
    if (decode_bytes(bytes, end, &count, detail) != SER_REASON_TRUNCATED)
      fail_msg("cut behind page %zu: not told", pages);
    assert_non_null(strstr(detail, "does not end the stream"));
    pages++;
  }
  assert_true(pages > 4);
  free(bytes);
}

static void put_big(char *to, uint32_t value) {
  for (int i = 0; i < 4; i++) to[i] = (char)(value >> 8 * (3 - i));
}

/* AIFF's sound chunk is held against the file; a length that its writer left open reaches to the end. */
static void aiff_by_its_sound_chunk(void **state) {
  (void)state;
  enum { COUNT = 500, DATA = 2 * COUNT + 8 };
  size_t size;
  int64_t count;
  char detail[256], *bytes = make_audio(&size, SF_FORMAT_AIFF | SF_FORMAT_PCM_16, COUNT, 8000);
  char *sound = memmem(bytes, size, "SSND", 4);
  assert_non_null(sound);
  assert_int_equal(bytes + size - sound, 8 + DATA); /* it ends the file */
  uint32_t form = (uint32_t)size - 8;
  const struct {
    uint32_t form, sound;
    ser_reason reason;
  } cases[] = {
      {form, DATA, SER_REASON_NONE},
      {0xffffffff, 0xffffffff, SER_REASON_NONE},
      {0x7ffff000, 0x7ffff000, SER_REASON_NONE},
      {form + DATA, DATA, SER_REASON_NONE}, /* the form's size off: no cut */
      {form, DATA + 2, SER_REASON_TRUNCATED},
      {form + 2 * DATA, 3 * DATA, SER_REASON_TRUNCATED},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    put_big(bytes + 4, cases[i].form);
    put_big(sound + 4, cases[i].sound);
    ser_reason reason = decode_bytes(bytes, size, &count, detail);
    if (reason != cases[i].reason || count != (reason == SER_REASON_NONE ? COUNT : 0))
      fail_msg("case %zu: '%s' with %ld samples: %s", i, ser_reason_name(reason), (long)count, detail);
    if (reason == SER_REASON_TRUNCATED) {
      char promised[64];
      snprintf(promised, sizeof promised, "promises %zu bytes", (size_t)(sound - bytes) + 8 + cases[i].sound);
      assert_non_null(strstr(detail, promised));
    }
  }
  free(bytes);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(ogg_between_two_pages),
                                     cmocka_unit_test(aiff_by_its_sound_chunk)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
