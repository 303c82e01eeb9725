/* Decoding: every container and sample format, cut and odd files, channel mean, resampling in blocks, memory. */
#include "support/harness.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sndfile.h>
#include <soxr.h>

#include "audio/audio.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/interrupt.h"
#include "base/memory.h"

#define SOURCE(text) (&(ser_audio_source){.path = (text)})

static char *folder;

static int make_folder(void **state) {
  (void)state;
  folder = test_folder_make("audio");
  return 0;
}

static int remove_folder(void **state) {
  (void)state;
  test_folder_remove(folder);
  return 0;
}

static char *in_folder(const char *name) {
  return ser_path_join(folder, name);
}

/* Writes interleaved samples; false where this libsndfile cannot write the format. */
static bool write_audio(const char *path, const float *samples, int64_t frames, int channels, int rate, int format) {
  SF_INFO info = {.samplerate = rate, .channels = channels, .format = format};
  if (!sf_format_check(&info)) return false;
  SNDFILE *file = sf_open(path, SFM_WRITE, &info);
  if (!file) return false;
  sf_command(file, SFC_SET_CLIPPING, NULL, SF_TRUE);
  bool fine = sf_writef_float(file, samples, frames) == frames;
  sf_close(file);
  return fine;
}

static char *read_bytes(const char *path, size_t *size) {
  ser_error err = {0};
  char *data;
  ASSERT_OK(ser_file_read(&data, size, path, &err), err);
  return data;
}

static void write_bytes(const char *path, const void *data, size_t size) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
}

/* Decodes bytes that were changed in memory. */
static ser_reason decode_bytes(const void *data, size_t size, int64_t *count) {
  ser_error err = {0};
  ser_clip clip;
  ser_reason reason;
  char detail[256];
  ASSERT_OK(
      ser_audio_decode(&clip, &reason, detail, &(ser_audio_source){"memory", data, (int64_t)size}, 0, NULL, NULL, &err),
      err);
  if (reason != SER_REASON_NONE) {
    assert_null(clip.samples);
    assert_true(detail[0] != 0);
  }
  if (count) *count = clip.count;
  ser_clip_free(&clip);
  return reason;
}

static const struct {
  const char *name, *container;
  int format;
  double tolerance;
  bool optional; /* not in every build of libsndfile */
} formats[] = {
    {"u8.wav", "WAV", SF_FORMAT_WAV | SF_FORMAT_PCM_U8, 1.0 / 127, false},
    {"16.wav", "WAV", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 1.0 / 32767, false},
    {"24.WAV", "WAV", SF_FORMAT_WAV | SF_FORMAT_PCM_24, 1.0 / 8388607, false},
    {"32.wav", "WAV", SF_FORMAT_WAV | SF_FORMAT_PCM_32, 1e-6, false},
    {"ex.wav", "WAV", SF_FORMAT_WAVEX | SF_FORMAT_PCM_16, 1.0 / 32767, false},
    {"float.wav", "WAV", SF_FORMAT_WAV | SF_FORMAT_FLOAT, 0, false},
    {"double.wav", "WAV", SF_FORMAT_WAV | SF_FORMAT_DOUBLE, 0, false},
    {"ulaw.wav", "WAV", SF_FORMAT_WAV | SF_FORMAT_ULAW, 0.03, false},
    {"alaw.wav", "WAV", SF_FORMAT_WAV | SF_FORMAT_ALAW, 0.03, false},
    {"big.wav", "WAV", SF_ENDIAN_BIG | SF_FORMAT_WAV | SF_FORMAT_PCM_16, 1.0 / 32767, false},
    {"rf64.wav", "RF64", SF_FORMAT_RF64 | SF_FORMAT_PCM_16, 1.0 / 32767, false},
    {"sony.w64", "W64", SF_FORMAT_W64 | SF_FORMAT_PCM_16, 1.0 / 32767, false},
    {"aiff.wav", "AIFF", SF_FORMAT_AIFF | SF_FORMAT_PCM_16, 1.0 / 32767, false},
    {"aifc.aif", "AIFF", SF_FORMAT_AIFF | SF_FORMAT_FLOAT, 0, false},
    {"sun.au", "AU", SF_FORMAT_AU | SF_FORMAT_PCM_16, 1.0 / 32767, false},
    {"apple.caf", "CAF", SF_FORMAT_CAF | SF_FORMAT_PCM_16, 1.0 / 32767, false},
    {"sphere.wav", "NIST", SF_FORMAT_NIST | SF_FORMAT_PCM_16, 1.0 / 32767, false},
    {"sphere24.sph", "NIST", SF_FORMAT_NIST | SF_FORMAT_PCM_24, 1.0 / 8388607, false},
    {"sphereulaw.sph", "NIST", SF_FORMAT_NIST | SF_FORMAT_ULAW, 0.03, false},
    {"16.svx", "IFF", SF_FORMAT_SVX | SF_FORMAT_PCM_16, 1.0 / 32767, false},
    {"8.iff", "IFF", SF_FORMAT_SVX | SF_FORMAT_PCM_S8, 1.0 / 127, false},
    {"16.voc", "VOC", SF_FORMAT_VOC | SF_FORMAT_PCM_16, 1.0 / 32767, false},
    {"16.flac", "FLAC", SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 1.0 / 32767, false},
    {"24.flac", "FLAC", SF_FORMAT_FLAC | SF_FORMAT_PCM_24, 1.0 / 8388607, false},
    {"vorbis.ogg", "OGG", SF_FORMAT_OGG | SF_FORMAT_VORBIS, 0.3, false},
    {"layer3.mp3", "MPEG", SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, 0.5, true},
};

/* Every format decodes to what was written, from a file and from memory alike, whatever the suffix says. */
static void formats_decode(void **state) {
  (void)state;
  enum { COUNT = 22051, RATE = 22050 };
  float *speech = test_speech(3, COUNT, RATE);
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
    char *path = in_folder(formats[i].name), detail[256];
    if (!write_audio(path, speech, COUNT, 1, RATE, formats[i].format)) {
      assert_true(formats[i].optional);
      free(path);
      continue;
    }
    ser_error err = {0};
    ser_audio_info info;
    ser_reason reason;
    ASSERT_OK(ser_audio_probe(&info, &reason, detail, path, &err), err);
    if (reason != SER_REASON_NONE) fail_msg("%s: %s", formats[i].name, detail);
    assert_string_equal(info.container, formats[i].container);
    assert_int_equal(info.rate, RATE);
    assert_int_equal(info.channels, 1);
    if (!formats[i].optional) assert_int_equal(info.frames, COUNT);

    ser_clip clip, again;
    ASSERT_OK(ser_audio_decode(&clip, &reason, detail, SOURCE(path), 0, NULL, NULL, &err), err);
    if (reason != SER_REASON_NONE) fail_msg("%s: %s", formats[i].name, detail);
    assert_int_equal(clip.rate, RATE);
    assert_int_equal(clip.count, clip.info.frames);
    if (!formats[i].optional) assert_int_equal(clip.count, COUNT);
    double worst = 0;
    for (int64_t k = 0; k < COUNT && k < clip.count && !formats[i].optional; k++)
      worst = test_worse(worst, fabs((double)clip.samples[k] - (double)speech[k]));
    if (!(worst <= formats[i].tolerance)) fail_msg("%s: %g off", formats[i].name, worst);

    size_t size;
    char *bytes = read_bytes(path, &size);
    ASSERT_OK(
        ser_audio_decode(&again, &reason, detail, &(ser_audio_source){"-", bytes, (int64_t)size}, 0, NULL, NULL, &err),
        err);
    assert_int_equal(reason, SER_REASON_NONE);
    assert_int_equal(again.count, clip.count);
    assert_memory_equal(again.samples, clip.samples, (size_t)clip.count * sizeof *clip.samples);
    ser_clip_free(&clip);
    ser_clip_free(&again);
    free(bytes);
    free(path);
  }
  free(speech);
}

/* A file cut anywhere is refused: truncated, or unreadable where so little is left that no one can tell. */
static void cuts_are_seen(void **state) {
  (void)state;
  enum { COUNT = 4000, RATE = 16000 }; /* even: no pad byte that could go unmissed */
  float *speech = test_speech(4, COUNT, RATE);
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
    char *path = in_folder(formats[i].name);
    if (formats[i].optional || !write_audio(path, speech, COUNT, 1, RATE, formats[i].format)) {
      free(path);
      continue;
    }
    size_t size;
    char *bytes = read_bytes(path, &size);
    assert_int_equal(decode_bytes(bytes, size, NULL), SER_REASON_NONE);
    size -= !strcmp(formats[i].container, "VOC"); /* which may end without its end's block */
    for (size_t kept = size - 1; kept > 0; kept -= kept > 997 && kept < size - 20 ? 997 : 1) {
      ser_reason reason = decode_bytes(bytes, kept, NULL);
      bool told = reason == SER_REASON_TRUNCATED || (kept < 800 && reason == SER_REASON_UNREADABLE);
      if (!told) fail_msg("%s cut to %zu of %zu bytes: '%s'", formats[i].name, kept, size, ser_reason_name(reason));
    }
    free(bytes);
    free(path);
  }
  free(speech);
}

/* Creative Voice with eight bits: other blocks, in stereo two of them, and a text before the sound. */
static void cut_voices_are_seen(void **state) {
  (void)state;
  float *speech = test_speech(4, 8000, 20000);
  for (int channels = 1; channels <= 2; channels++) {
    char *path = in_folder("8.voc"), *with_text;
    assert_true(write_audio(path, speech, 4000, channels, 20000, SF_FORMAT_VOC | SF_FORMAT_PCM_U8));
    size_t size;
    int64_t count;
    char *bytes = read_bytes(path, &size);
    with_text = ser_alloc(size + 10);
    memcpy(with_text, bytes, 26);
    memcpy(with_text + 26, "\5\6\0\0spoken", 10);
    memcpy(with_text + 36, bytes + 26, size - 26);
    for (int text = 0; text < 2; text++) {
      char *file = text ? with_text : bytes;
      size_t all = text ? size + 10 : size;
      assert_int_equal(decode_bytes(file, all, &count), SER_REASON_NONE);
      assert_int_equal(count, 4000);
      for (size_t kept = all - 2; kept > 45; kept -= 7)
        if (decode_bytes(file, kept, NULL) != SER_REASON_TRUNCATED)
          fail_msg("%d channels, cut to %zu of %zu bytes: not told", channels, kept, all);
    }
    free(with_text);
    free(bytes);
    free(path);
  }
  free(speech);
}

/* 44-byte WAV header and `count` 16-bit samples. */
static char *plain_wav(int64_t count, uint32_t riff_size, uint32_t data_size, size_t *size) {
  *size = 44 + 2 * (size_t)count;
  char *bytes = ser_alloc_zero(*size + 512, 1);
  uint32_t words[] = {riff_size, 16, 0x00010001, 8000, 16000, 0x00100002, data_size};
  memcpy(bytes, "RIFF", 4);
  memcpy(bytes + 4, words, 4);
  memcpy(bytes + 8, "WAVEfmt ", 8);
  memcpy(bytes + 16, words + 1, 20);
  memcpy(bytes + 36, "data", 4);
  memcpy(bytes + 40, words + 6, 4);
  for (int64_t i = 0; i < count; i++) {
    int16_t value = (int16_t)(1000 * sin(0.05 * (double)i));
    memcpy(bytes + 44 + 2 * i, &value, 2);
  }
  return bytes;
}

static void headers_of_streams_and_sloppy_writers(void **state) {
  (void)state;
  enum { COUNT = 500, DATA = 2 * COUNT };
  const struct {
    uint32_t riff, data;
    ser_reason reason;
    int64_t count;
  } cases[] = {
      {36 + DATA, DATA, SER_REASON_NONE, COUNT},
      {0xffffffff, 0xffffffff, SER_REASON_NONE, COUNT}, /* ffmpeg into a pipe */
      {0x7ffff024, 0x7ffff000, SER_REASON_NONE, COUNT}, /* espeak-ng, sox into a pipe */
      {0x80000024, 0x80000000, SER_REASON_NONE, COUNT}, /* arecord into a pipe */
      {36, 0, SER_REASON_NONE, COUNT},                  /* a writer that was killed */
      {0, 0, SER_REASON_NONE, COUNT},
      {36 + DATA, 0, SER_REASON_EMPTY, 0},       /* a finished header that says: nothing */
      {44 + DATA, DATA, SER_REASON_NONE, COUNT}, /* the form's size off by 8 */
      {20 + DATA, DATA, SER_REASON_NONE, COUNT},
      {36 + DATA, DATA + 2, SER_REASON_TRUNCATED, 0},
      {36 + 3 * DATA, 3 * DATA, SER_REASON_TRUNCATED, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    size_t size;
    int64_t count;
    char *bytes = plain_wav(COUNT, cases[i].riff, cases[i].data, &size);
    ser_reason reason = decode_bytes(bytes, size, &count);
    if (reason != cases[i].reason || count != cases[i].count)
      fail_msg("case %zu: '%s' with %ld samples", i, ser_reason_name(reason), (long)count);
    free(bytes);
  }
}

static void chunks_behind_the_sound(void **state) {
  (void)state;
  enum { COUNT = 501, DATA = 2 * COUNT };
  size_t size;
  int64_t count;
  /* Junk behind the form is left alone. */
  char *bytes = plain_wav(COUNT, 36 + DATA, DATA, &size);
  memset(bytes + size, 0xa5, 300);
  assert_int_equal(decode_bytes(bytes, size + 300, &count), SER_REASON_NONE);
  assert_int_equal(count, COUNT);
  free(bytes);
  /* A chunk that the form covers: whole, it is nothing; cut, the copy is not whole. */
  bytes = plain_wav(COUNT, 36 + DATA + 108, DATA, &size);
  memcpy(bytes + size, "LIST\x64\0\0\0INFO", 12);
  assert_int_equal(decode_bytes(bytes, size + 108, &count), SER_REASON_NONE);
  assert_int_equal(count, COUNT);
  assert_int_equal(decode_bytes(bytes, size + 60, NULL), SER_REASON_TRUNCATED);
  assert_int_equal(decode_bytes(bytes, size + 5, NULL), SER_REASON_TRUNCATED);
  free(bytes);
  /* Sound of an odd number of bytes, with and without its pad byte, and an odd chunk before it. */
  bytes = plain_wav(COUNT, 36 + DATA, DATA, &size);
  memcpy(bytes + 28, (uint32_t[]){8000, 0x00080001}, 8);
  memcpy(bytes + 40, (uint32_t[]){DATA - 1}, 4);
  assert_int_equal(decode_bytes(bytes, size, &count), SER_REASON_NONE);
  assert_int_equal(count, DATA - 1);
  assert_int_equal(decode_bytes(bytes, size - 1, &count), SER_REASON_NONE);
  assert_int_equal(decode_bytes(bytes, size - 2, NULL), SER_REASON_TRUNCATED);
  free(bytes);
}

static void files_that_hold_no_sound(void **state) {
  (void)state;
  const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 81234\n";
  static const char zeros[4096];
  size_t size;
  char *empty_wav = plain_wav(0, 36, 0, &size);
  const struct {
    const char *name;
    const void *data;
    size_t size;
    ser_reason reason;
    const char *words;
  } cases[] = {
      {"pointer.wav", pointer, sizeof pointer - 1, SER_REASON_LFS_POINTER, "git lfs pull"},
      {"nothing.wav", "", 0, SER_REASON_EMPTY, "0 bytes"},
      {"silence.wav", empty_wav, size, SER_REASON_EMPTY, "no samples"},
      {"text.wav", "not a recording at all\n", 23, SER_REASON_UNREADABLE, "libsndfile"},
      {"zeros.wav", zeros, sizeof zeros, SER_REASON_UNREADABLE, "libsndfile"},
      {"raw.vox", zeros, sizeof zeros, SER_REASON_UNREADABLE, "libsndfile"}, /* by content, not by suffix */
      {"head.wav", empty_wav, 20, SER_REASON_TRUNCATED, "header"},
      {"absent.wav", NULL, 0, SER_REASON_UNREADABLE, "No such file"},
      {".", NULL, 0, SER_REASON_UNREADABLE, "directory"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *path = in_folder(cases[i].name), detail[256];
    if (cases[i].data) write_bytes(path, cases[i].data, cases[i].size);
    ser_error err = {0};
    ser_audio_info info;
    ser_reason probed, decoded;
    ser_clip clip;
    ASSERT_OK(ser_audio_probe(&info, &probed, detail, path, &err), err);
    if (probed != cases[i].reason || !strstr(detail, cases[i].words))
      fail_msg("%s: '%s': %s", cases[i].name, ser_reason_name(probed), detail);
    assert_int_equal(info.passing, cases[i].data == NULL); /* what cannot be opened now is not judged by its bytes */
    ASSERT_OK(ser_audio_decode(&clip, &decoded, NULL, SOURCE(path), 22050, NULL, NULL, &err), err);
    assert_int_equal(decoded, probed);
    assert_int_equal(clip.info.passing, info.passing);
    assert_null(clip.samples);
    ser_clip_free(&clip);
    free(path);
  }
  free(empty_wav);
}

static void values_above_one_stay_and_non_finite_is_told(void **state) {
  (void)state;
  float values[3000];
  for (int i = 0; i < 3000; i++) values[i] = 3.5f * test_random(9, (uint64_t)i);
  char *path = in_folder("loud.wav"), detail[256];
  assert_true(write_audio(path, values, 3000, 1, 16000, SF_FORMAT_WAV | SF_FORMAT_FLOAT));
  ser_error err = {0};
  ser_clip clip;
  ser_reason reason;
  ASSERT_OK(ser_audio_decode(&clip, &reason, detail, SOURCE(path), 0, NULL, NULL, &err), err);
  assert_memory_equal(clip.samples, values, sizeof values);
  ser_clip_free(&clip);
  const float bad[] = {NAN, INFINITY, -INFINITY};
  for (int i = 0; i < 3; i++) {
    values[2999 - 1400 * i] = bad[i];
    assert_true(write_audio(path, values, 3000, 1, 16000, SF_FORMAT_WAV | SF_FORMAT_FLOAT));
    ASSERT_OK(ser_audio_decode(&clip, &reason, detail, SOURCE(path), 22050, NULL, NULL, &err), err);
    assert_int_equal(reason, SER_REASON_NON_FINITE);
    char *where = ser_format("the first after %.3f s", (2999 - 1400 * i) / 16000.0);
    if (!strstr(detail, where)) fail_msg("'%s' does not say '%s'", detail, where);
    free(where);
    assert_null(clip.samples);
    values[2999 - 1400 * i] = 0;
  }
  free(path);
}

typedef struct {
  int64_t frames;
  int32_t channels;
  double sum;
} seen;

static void look(void *context, const float *interleaved, int64_t frames, int32_t channels) {
  seen *all = context;
  all->frames += frames;
  all->channels = channels;
  for (int64_t i = 0; i < frames * channels; i++) all->sum += (double)interleaved[i];
}

static void channels_are_averaged(void **state) {
  (void)state;
  enum { FRAMES = 40000 };
  for (int channels = 1; channels <= 6; channels++) {
    float *values = ser_alloc(sizeof(float) * (size_t)(FRAMES * channels));
    double sum = 0;
    for (int64_t i = 0; i < FRAMES * channels; i++) sum += (double)(values[i] = test_random(5, (uint64_t)i));
    char *path = in_folder("channels.wav");
    assert_true(write_audio(path, values, FRAMES, channels, 44100, SF_FORMAT_WAV | SF_FORMAT_FLOAT));
    ser_error err = {0};
    ser_clip clip;
    ser_reason reason;
    seen all = {0};
    ASSERT_OK(ser_audio_decode(&clip, &reason, NULL, SOURCE(path), 0, look, &all, &err), err);
    assert_int_equal(clip.count, FRAMES);
    assert_int_equal(clip.info.channels, channels);
    assert_int_equal(all.frames, FRAMES);
    assert_int_equal(all.channels, channels);
    assert_true(all.sum == sum);
    for (int64_t i = 0; i < FRAMES; i++) {
      double mean = 0;
      for (int c = 0; c < channels; c++) mean += (double)values[i * channels + c] / channels;
      assert_true(fabs((double)clip.samples[i] - mean) < 3e-7);
    }
    ser_clip_free(&clip);
    all = (seen){0};
    ASSERT_OK(ser_audio_decode(&clip, &reason, NULL, SOURCE(path), SER_RATE_NO_SAMPLES, look, &all, &err), err);
    assert_int_equal(reason, SER_REASON_NONE);
    assert_null(clip.samples);
    assert_int_equal(clip.info.frames, FRAMES);
    assert_int_equal(all.frames, FRAMES);
    ser_clip_free(&clip);
    free(values);
    free(path);
  }
}

/* Blocks change nothing: the stream equals soxr in one call, and the length is librosa's. */
static void resampling_in_blocks_equals_one_call(void **state) {
  (void)state;
  const int rates[] = {8000, 11025, 16000, 22050, 24414, 44100, 48000, 96000, 192000};
  const int64_t counts[] = {1, 100, 30001};
  for (size_t r = 0; r < sizeof rates / sizeof *rates; r++)
    for (size_t n = 0; n < 3; n++)
      for (int to = 16000; to <= 22050; to += 6050) {
        int64_t count = counts[n] * (r > 6 ? 3 : 1), want = (count * to + rates[r] - 1) / rates[r], got;
        float *speech = test_speech(r, count, rates[r]);
        char *path = in_folder("rate.wav");
        assert_true(write_audio(path, speech, count, 1, rates[r], SF_FORMAT_WAV | SF_FORMAT_FLOAT));
        ser_error err = {0};
        ser_clip clip;
        ser_reason reason;
        ASSERT_OK(ser_audio_decode(&clip, &reason, NULL, SOURCE(path), to, NULL, NULL, &err), err);
        assert_int_equal(clip.count, want);
        assert_int_equal(clip.rate, to);
        float *whole, *direct = ser_alloc_zero((size_t)want + 64, sizeof *direct);
        ASSERT_OK(ser_resample(&whole, &got, speech, count, rates[r], to, &err), err);
        assert_int_equal(got, want);
        assert_memory_equal(whole, clip.samples, (size_t)want * sizeof *whole);
        size_t made = 0;
        soxr_io_spec_t io = soxr_io_spec(SOXR_FLOAT32_I, SOXR_FLOAT32_I);
        soxr_quality_spec_t quality = soxr_quality_spec(SOXR_HQ, 0);
        if (rates[r] != to) {
          assert_null(soxr_oneshot(rates[r], to, 1, speech, (size_t)count, NULL, direct, (size_t)want + 64, &made, &io,
                                   &quality, NULL));
          assert_true(made <= (size_t)want && made + 1 >= (size_t)want);
        } else {
          memcpy(direct, speech, (size_t)count * sizeof *direct);
        }
        assert_memory_equal(whole, direct, (size_t)want * sizeof *whole);
        ser_clip_free(&clip);
        free(whole);
        free(direct);
        free(speech);
        free(path);
      }
}

/* Ten minutes of 192 kHz stereo (here silence in a file with a hole) in far less than a gigabyte. */
static void memory_stays_bounded(void **state) {
  (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  const uint32_t seconds = 20;
#else
  const uint32_t seconds = 600;
#endif
  size_t size;
  uint32_t data = seconds * 192000 * 4;
  char *bytes = plain_wav(0, 36 + data, data, &size), *path = in_folder("long.wav");
  memcpy(bytes + 20, (uint32_t[]){0x00020001, 192000, 768000, 0x00100004}, 16);
  write_bytes(path, bytes, size);
  assert_int_equal(truncate(path, (off_t)size + data), 0);
  ser_error err = {0};
  ser_clip clip;
  ser_reason reason;
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  ASSERT_OK(ser_audio_decode(&clip, &reason, NULL, SOURCE(path), 22050, NULL, NULL, &err), err);
  getrusage(RUSAGE_SELF, &after);
  assert_int_equal(reason, SER_REASON_NONE);
  assert_int_equal(clip.count, (int64_t)seconds * 22050);
  long grown = (after.ru_maxrss - before.ru_maxrss) / 1024, kept = (long)(clip.count * 4 >> 20);
  if (grown > kept * 5 / 2 + 64) fail_msg("decoding took %ld MiB for a clip of %ld MiB", grown, kept);
  ser_clip_free(&clip);
  unlink(path);
  free(bytes);
  free(path);
}

static void a_signal_ends_decoding(void **state) {
  (void)state;
  float *speech = test_speech(1, 20000, 16000);
  char *path = in_folder("signal.wav");
  test_write_wav(path, speech, 20000, 16000);
  pid_t child = fork();
  if (child == 0) {
    ser_interrupt_install();
    raise(SIGTERM);
    ser_error err = {0};
    ser_clip clip;
    ser_reason reason;
    ser_status status = ser_audio_decode(&clip, &reason, NULL, SOURCE(path), 22050, NULL, NULL, &err);
    ser_hash hash; /* of a long file, it must not be waited for either */
    ser_status hashed = ser_hash_file(&hash, path, &err);
    _exit(status == SER_INTERRUPTED && !clip.samples && hashed == SER_INTERRUPTED ? 0 : 1);
  }
  int result;
  assert_int_equal(waitpid(child, &result, 0), child);
  assert_true(WIFEXITED(result) && WEXITSTATUS(result) == 0);
  free(speech);
  free(path);
}

static void reasons_have_names(void **state) {
  (void)state;
  for (int i = 0; i <= SER_REASON_TOO_SHORT; i++) {
    ser_reason reason;
    assert_true(ser_reason_parse(&reason, ser_reason_name((ser_reason)i)));
    assert_int_equal(reason, i);
  }
  ser_reason reason;
  assert_false(ser_reason_parse(&reason, "spoiled"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(formats_decode),
      cmocka_unit_test(cuts_are_seen),
      cmocka_unit_test(cut_voices_are_seen),
      cmocka_unit_test(headers_of_streams_and_sloppy_writers),
      cmocka_unit_test(chunks_behind_the_sound),
      cmocka_unit_test(files_that_hold_no_sound),
      cmocka_unit_test(values_above_one_stay_and_non_finite_is_told),
      cmocka_unit_test(channels_are_averaged),
      cmocka_unit_test(resampling_in_blocks_equals_one_call),
      cmocka_unit_test(memory_stays_bounded),
      cmocka_unit_test(a_signal_ends_decoding),
      cmocka_unit_test(reasons_have_names),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
