/* What tests share. */
#include "support/harness.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sndfile.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/philox.h"

enum { GUARD = 64 };
static const uint32_t guard_bits = 0x7fc0abcdu; /* a NaN of our own */

test_buffer test_buffer_make(ser_device *device, ser_stream *stream, size_t count) {
  ser_error err = {0};
  size_t all = count + 2 * GUARD;
  test_buffer buffer = {device, stream, device->rt->alloc(device, all * 4, &err), NULL, count};
  if (!buffer.base) fail_msg("%s", err.text);
  buffer.data = (float *)buffer.base + GUARD;
  uint32_t *host = ser_alloc(all * 4);
  for (size_t i = 0; i < all; i++) host[i] = i >= GUARD && i < GUARD + count ? 0x7fffffffu : guard_bits;
  device->rt->write(stream, buffer.base, host, all * 4);
  free(host);
  return buffer;
}

test_buffer test_buffer_from(ser_device *device, ser_stream *stream, const float *host, size_t count) {
  test_buffer buffer = test_buffer_make(device, stream, count);
  device->rt->write(stream, buffer.data, host, count * 4);
  return buffer;
}

void test_buffer_read(const test_buffer *buffer, float *host) {
  ser_error err = {0};
  size_t all = buffer->count + 2 * GUARD;
  uint32_t *bits = ser_alloc(all * 4);
  ASSERT_OK(buffer->device->rt->read(buffer->stream, bits, buffer->base, all * 4, &err), err);
  for (size_t i = 0; i < GUARD; i++) {
    if (bits[i] != guard_bits) fail_msg("the guard before a buffer was written to, %zu floats before it", GUARD - i);
    if (bits[GUARD + buffer->count + i] != guard_bits)
      fail_msg("the guard behind a buffer was written to, %zu floats behind its end", i + 1);
  }
  if (host) memcpy(host, bits + GUARD, buffer->count * 4);
  free(bits);
}

void test_buffer_free(test_buffer *buffer) {
  test_buffer_read(buffer, NULL);
  buffer->device->rt->free(buffer->device, buffer->base);
  memset(buffer, 0, sizeof *buffer);
}

/* SERENADE_TEST_DEVICE=cuda: tests of operations run there instead of on the CPU. */
bool test_on_cuda(void) {
  const char *wanted = getenv("SERENADE_TEST_DEVICE");
  if (!wanted || !*wanted || !strcmp(wanted, "cpu")) return false;
  if (strcmp(wanted, "cuda")) fail_msg("SERENADE_TEST_DEVICE=%s is neither cpu nor cuda", wanted);
  return true;
}

static ser_conv_choice conv; /* the form of convolutions that tests run with now */
static bool both_convs;

void test_both_convs(void) {
  both_convs = true;
}

ser_status test_device_open(ser_device **device, int threads, ser_error *err) {
  ser_device_options options = {
      .kind = test_on_cuda() ? SER_DEVICE_CUDA : SER_DEVICE_CPU, .threads = threads, .conv = conv};
  return ser_device_open(device, &options, err);
}

static void run_body(void (*body)(ser_device *device, ser_stream *stream, void *context), ser_device *device,
                     void *context) {
  ser_error err = {0};
  ser_stream *stream;
  ASSERT_OK(device->rt->stream_create(device, &stream, &err), err);
  body(device, stream, context);
  device->rt->stream_destroy(stream);
  ser_device_close(device);
}

static void each_isa(void (*body)(ser_device *device, ser_stream *stream, void *context), int threads, void *context) {
  static const char *const isas[] = {"base", "avx2", "avx512"};
  static bool told[sizeof isas / sizeof *isas];
  const char *before = getenv("SERENADE_ISA");
  char *kept = ser_strdup(before);
  for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
    ser_error err = {0};
    ser_device *device;
    setenv("SERENADE_ISA", isas[i], 1);
    if (test_device_open(&device, threads, &err) == SER_OK) {
      run_body(body, device, context);
    } else {
      if (!told[i]) printf("skipped on %s: %s\n", isas[i], err.text);
      told[i] = true;
    }
  }
  if (kept)
    setenv("SERENADE_ISA", kept, 1);
  else
    unsetenv("SERENADE_ISA");
  free(kept);
}

void test_each_device(void (*body)(ser_device *device, ser_stream *stream, void *context), int threads, void *context) {
  ser_error err = {0};
  ser_device *device;
  if (!test_on_cuda()) {
    each_isa(body, threads, context);
    return;
  }
  static const ser_conv_choice convs[] = {SER_CONV_FUSED, SER_CONV_CUDNN};
  for (size_t i = 0; i < (both_convs ? 2 : 1); i++) {
    conv = convs[i];
    ASSERT_OK(test_device_open(&device, threads, &err), err);
    run_body(body, device, context);
  }
  conv = SER_CONV_AUTO;
}

const int64_t test_odd_sizes[TEST_ODD_SIZES] = {2, 31, 32, 33, 39, 40, 1000};

bool test_rows_exact(void) {
  const char *asked = getenv("SERENADE_TEST_ROW_EXACT");
  return asked && !strcmp(asked, "1");
}

void test_same_clip(ser_device *device, const float *got, const float *want, size_t count, bool exact) {
  ser_device_properties properties;
  device->rt->properties(device, &properties);
  bool library = !strcmp(properties.conv, "cudnn") && !(exact && test_rows_exact());
  test_same_alone(got, want, count, library ? 1e-5 : 0);
}

void test_same_alone(const float *got, const float *want, size_t count, double most) {
  for (size_t i = 0; i < count; i++) {
    if (!memcmp(got + i, want + i, sizeof *got)) continue;
    double apart = fabs((double)got[i] - (double)want[i]) / fmax(1, fabs((double)want[i]));
    if (!(most > 0 && apart <= most))
      fail_msg("value %zu is %.9g alone, %.9g among others", i, (double)got[i], (double)want[i]);
  }
}

float test_random(uint64_t seed, uint64_t index) {
  return 2 * ser_uniform(ser_philox_at(seed, 0x7e57, index).v[0]) - 1;
}

double test_worse(double a, double b) {
  return isnan(a) || b <= a ? a : b;
}

double test_difference(const float *got, const double *want, size_t count) {
  double largest = 0;
  for (size_t i = 0; i < count; i++) {
    double scale = fabs(want[i]) > 1 ? fabs(want[i]) : 1;
    double difference = fabs((double)got[i] - want[i]) / scale;
    if (!(difference <= largest)) largest = isnan(difference) ? INFINITY : difference;
  }
  return largest;
}

char *test_folder_make(const char *name) {
  const char *root = getenv("TMPDIR");
  char *folder = ser_format("%s/serenade-%s-XXXXXX", root && *root ? root : "/tmp", name);
  if (!mkdtemp(folder)) fail_msg("cannot make %s", folder);
  return folder;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where) {
  (void)info;
  (void)kind;
  (void)where;
  return remove(path);
}

void test_folder_remove(char *folder) {
  if (!folder) return;
  nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
  free(folder);
}

void test_write_wav(const char *path, const float *samples, int64_t count, int rate) {
  SF_INFO info = {.samplerate = rate, .channels = 1, .format = SF_FORMAT_WAV | SF_FORMAT_PCM_16};
  SNDFILE *file = sf_open(path, SFM_WRITE, &info);
  if (!file) fail_msg("cannot write %s", path);
  if (sf_write_float(file, samples, count) != count) fail_msg("cannot write %s", path);
  sf_close(file);
}

float *test_speech(uint64_t seed, int64_t count, int rate) {
  const double two_pi = 6.283185307179586;
  float *samples = ser_alloc((size_t)count * sizeof *samples);
  double pitch = 110 + 60 * (1 + (double)test_random(seed, 0));
  double formant[3] = {500 + 200 * (double)test_random(seed, 1), 1500 + 400 * (double)test_random(seed, 2), 2600};
  for (int64_t i = 0; i < count; i++) {
    double t = (double)i / rate, value = 0;
    double f0 = pitch * (1 + 0.1 * sin(two_pi * 0.7 * t));
    for (int h = 1; h <= 24 && h * f0 < rate * 0.45; h++) {
      double weight = 0;
      for (int f = 0; f < 3; f++) weight += exp(-pow((h * f0 - formant[f]) / 180, 2)) / (f + 1);
      value += (0.02 / h + weight) * sin(two_pi * h * pitch * t + 0.1 * sin(two_pi * 0.7 * t) * h);
    }
    double loudness = 0.15 * (0.55 + 0.45 * sin(two_pi * 3.1 * t + (double)seed));
    samples[i] = (float)(loudness * value + 0.003 * (double)test_random(seed + 1, (uint64_t)i));
  }
  return samples;
}

/* stderr itself while its place is taken, and what takes it. */
static int listen_kept = -1, listen_file = -1;

void test_listen(void) {
  FILE *file = tmpfile();
  fflush(stderr);
  listen_kept = dup(STDERR_FILENO);
  listen_file = file ? dup(fileno(file)) : -1;
  assert_true(listen_kept >= 0 && listen_file >= 0 && dup2(listen_file, STDERR_FILENO) >= 0);
  fclose(file);
}

char *test_heard(bool end) {
  fflush(stderr);
  off_t size = lseek(listen_file, 0, SEEK_END);
  char *said = ser_alloc_zero(1, (size_t)size + 1);
  ssize_t got = pread(listen_file, said, (size_t)size, 0);
  if (end) {
    dup2(listen_kept, STDERR_FILENO);
    close(listen_kept);
    close(listen_file);
  }
  assert_true(got == size);
  return said;
}

const char *test_source(void) {
  const char *path = getenv("SERENADE_SOURCE");
  if (!path) fail_msg("SERENADE_SOURCE is not set: run the tests with ctest");
  return path;
}

const char *test_binary(void) {
  const char *path = getenv("SERENADE_BINARY");
  if (!path) fail_msg("SERENADE_BINARY is not set: run the tests with ctest");
  return path;
}

void test_skip(const char *why) {
  printf("skipped: %s\n", why);
  fflush(stdout);
  exit(77);
}

char *test_writer_mark(long pid) {
  char *mark = ser_writer_mark(), *own = ser_format("-%ld-", (long)getpid()), *found = NULL;
  for (char *at = mark; (at = strstr(at, own)); at++) found = at;
  assert_non_null(found);
  char *other = ser_format("%.*s-%ld-0123456789abcdef", (int)(found - mark), mark, pid);
  free(mark);
  free(own);
  return other;
}
