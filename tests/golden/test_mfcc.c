/* Features against librosa's (mfcc.json, mfcc.bin, made by make_mfcc.py), for each instruction set: every case alone,
 * and all cases of one configuration in one batch. Signals are made here by the script's rules, of integers alone. */
#include "support/harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/file.h"
#include "base/memory.h"
#include "features/features.h"

/* What the issue of the feature asks; what is seen is printed. */
static const double tolerance = 2e-3;

/* ---- signals ----------------------------------------------------------------------------------------------------- */

static int64_t sine_table[65536];

static void make_sine_table(void) {
  for (int i = 0; i < 65536; i++) sine_table[i] = lrint(30000 * sin(2 * M_PI * i / 65536));
}

/* phase: a turn is 2^32. */
static int64_t sine(int64_t phase) {
  return sine_table[phase >> 16 & 65535];
}

static int64_t noise(int64_t seed, int64_t i) {
  uint32_t x = (uint32_t)i * 0x9E3779B1u + (uint32_t)seed * 0x85EBCA77u;
  x ^= x >> 16;
  x *= 0x7FEB352Du;
  x ^= x >> 15;
  x *= 0x846CA68Bu;
  x ^= x >> 16;
  return (int64_t)(x >> 16) - 32768;
}

enum { VOWELS = 5, HARMONICS = 16 };
static const int64_t formants[VOWELS][2] = {{730, 1090}, {270, 2290}, {300, 870}, {530, 1840}, {570, 840}};

static void make_speech(int64_t *x, int64_t seed, int64_t samples, int64_t rate) {
  int64_t length = rate / 5, f0 = 110 + seed % 7 * 20, step = (f0 << 32) / rate, phase = 0;
  int64_t amplitude[VOWELS][HARMONICS + 1];
  for (int v = 0; v < VOWELS; v++)
    for (int64_t h = 1; h <= HARMONICS; h++) {
      amplitude[v][h] = 8;
      for (int f = 0; f < 2; f++) {
        int64_t away = h * f0 - formants[v][f];
        amplitude[v][h] += 1000 * 6400 / (6400 + away * away);
      }
    }
  for (int64_t i = 0; i < samples; i++) {
    int64_t syllable = i / length, vowel = (syllable * 3 + seed) % VOWELS, voiced = 0;
    int64_t envelope = sine_table[i % length * 32768 / length], hiss = noise(seed, i) >> 3;
    for (int64_t h = 1; h <= HARMONICS; h++) voiced += sine(h * phase) * amplitude[vowel][h] >> 11;
    x[i] = (syllable % 4 == 3 ? hiss : voiced + (hiss >> 6)) * envelope >> 16;
    phase += step + (sine(i * (((int64_t)3 << 32) / rate)) * (step >> 5) >> 15);
  }
}

typedef struct {
  const char *kind;
  int64_t samples, seed, rate, a, b;
} signal_rule;

static int64_t sample_of(const signal_rule *s, int64_t i, int64_t spoken, const int16_t *espeak, int64_t stored) {
  const char *kind = s->kind;
  if (!strcmp(kind, "zero")) return 0;
  if (!strcmp(kind, "noise")) return noise(s->seed, i) * s->a >> 15;
  if (!strcmp(kind, "tone")) return sine(i * ((s->a << 32) / (1000 * s->rate)));
  if (!strcmp(kind, "impulse")) return i == s->a ? 32767 : 0;
  if (!strcmp(kind, "speech")) return spoken * s->a >> (8 + s->b);
  if (!strcmp(kind, "gap")) return i >= s->a && i < s->b ? 0 : spoken;
  if (!strcmp(kind, "floor"))
    return i < s->samples / 2 ? sine(i * ((s->a << 32) / (1000 * s->rate))) : noise(s->seed, i) >> 15;
  if (!strcmp(kind, "edges")) return noise(s->seed, i) >> (i < s->a || i >= s->samples - s->b ? 2 : 13);
  assert_string_equal(kind, "espeak");
  return espeak[i % stored];
}

static char *golden_path(const char *name) {
  return ser_format("%s/tests/golden/%s", test_source(), name);
}

static void read_golden(char **data, size_t *size, const char *name) {
  ser_error err = {0};
  char *path = golden_path(name);
  ASSERT_OK(ser_file_read(data, size, path, &err), err);
  free(path);
}

/* The samples of a rule as floats, held against the checksum that the script noted. */
static float *make_signal(const signal_rule *s, int64_t checksum) {
  char *espeak;
  size_t size;
  read_golden(&espeak, &size, "espeak.s16");
  float *samples = ser_alloc((size_t)s->samples * sizeof *samples);
  int64_t *spoken = ser_alloc_zero((size_t)s->samples, sizeof *spoken), sum = 0;
  if (!strcmp(s->kind, "speech") || !strcmp(s->kind, "gap")) make_speech(spoken, s->seed, s->samples, s->rate);
  for (int64_t i = 0; i < s->samples; i++) {
    int64_t value = sample_of(s, i, spoken[i], (const int16_t *)(const void *)espeak, (int64_t)(size / 2));
    value = value > 32767 ? 32767 : value < -32768 ? -32768 : value;
    samples[i] = (float)value / 32768;
    sum += value * (i % 1009 + 1);
  }
  free(spoken);
  free(espeak);
  if (sum != checksum) fail_msg("a made signal (%s) is not what make_mfcc.py made: checksum", s->kind);
  return samples;
}

/* ---- cases ------------------------------------------------------------------------------------------------------- */

typedef struct {
  const char *name; /* within the JSON */
  ser_mfcc_config config;
  float *samples;
  int64_t count, frames;
  const float *want; /* [frames][columns] */
} golden_case;

typedef struct {
  json_t *root;
  char *blob;
  golden_case *cases;
  size_t count;
} golden_set;

static int64_t number(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  if (!json_is_integer(value)) fail_msg("mfcc.json: no number %s", key);
  return json_integer_value(value);
}

static void read_case(golden_case *c, const json_t *row) {
  const json_t *s = json_object_get(row, "signal"), *config = json_object_get(row, "config");
  c->name = json_string_value(json_object_get(row, "name"));
  c->config = (ser_mfcc_config){.rate = number(config, "rate"),
                                .n_fft = number(config, "n_fft"),
                                .hop = number(config, "hop"),
                                .mels = number(config, "mels"),
                                .coefficients = number(config, "coefficients"),
                                .samples = number(config, "samples"),
                                .deltas = json_is_true(json_object_get(config, "deltas"))};
  signal_rule rule = {json_string_value(json_object_get(s, "kind")),
                      number(s, "samples"),
                      number(s, "seed"),
                      number(s, "rate"),
                      number(s, "a"),
                      number(s, "b")};
  c->samples = make_signal(&rule, number(row, "checksum"));
  c->count = rule.samples;
  c->frames = number(row, "frames");
  if (c->config.samples) ser_fit_samples(&c->samples, &c->count, c->config.samples);
}

static int read_goldens(void **state) {
  golden_set *set = ser_alloc_zero(1, sizeof *set);
  char *json;
  size_t size, at = 0;
  json_error_t where;
  make_sine_table();
  read_golden(&json, &size, "mfcc.json");
  set->root = json_loads(json, 0, &where);
  free(json);
  if (!set->root) fail_msg("mfcc.json: %s", where.text);
  read_golden(&set->blob, &size, "mfcc.bin");
  const json_t *rows = json_object_get(set->root, "cases");
  set->count = json_array_size(rows);
  assert_true(set->count >= 20);
  set->cases = ser_alloc_zero(set->count, sizeof *set->cases);
  for (size_t i = 0; i < set->count; i++) {
    golden_case *c = &set->cases[i];
    read_case(c, json_array_get(rows, i));
    c->want = (const float *)(const void *)(set->blob + at);
    at += (size_t)(c->frames * ser_feature_columns(&c->config)) * sizeof(float);
  }
  assert_int_equal(at, size);
  *state = set;
  return 0;
}

static int free_goldens(void **state) {
  golden_set *set = *state;
  for (size_t i = 0; i < set->count; i++) free(set->cases[i].samples);
  free(set->cases);
  free(set->blob);
  json_decref(set->root);
  free(set);
  return 0;
}

static double largest_difference(const golden_case *c, const float *got) {
  double largest = 0;
  for (int64_t i = 0; i < c->frames * ser_feature_columns(&c->config); i++) {
    double difference = fabs((double)got[i] - (double)c->want[i]);
    if (isnan(difference)) return INFINITY;
    largest = fmax(largest, difference);
  }
  return largest;
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void check_alone(ser_device *device, ser_stream *stream, void *context) {
  (void)stream;
  const golden_set *set = context;
  ser_error err = {0};
  double largest = 0;
  for (size_t i = 0; i < set->count; i++) {
    const golden_case *c = &set->cases[i];
    const float *samples[1] = {c->samples};
    int64_t offset[2];
    float *features;
    ser_mfcc *mfcc;
    /* A minute is longer than a batch here. */
    ASSERT_OK(ser_mfcc_create(&mfcc, device, &c->config, 2, 500, true, &err), err);
    ASSERT_OK(ser_mfcc_compute(mfcc, &features, offset, samples, &c->count, 1, &err), err);
    if (offset[1] != c->frames) fail_msg("%s: %d frames, not %d", c->name, (int)offset[1], (int)c->frames);
    double difference = largest_difference(c, features);
    if (!(difference <= tolerance)) fail_msg("%s: %g off", c->name, difference);
    print_message("%-40s %.2e\n", c->name, difference);
    largest = fmax(largest, difference);
    free(features);
    ser_mfcc_free(mfcc);
  }
  ser_device_properties properties;
  device->rt->properties(device, &properties);
  print_message("largest difference from librosa on %s: %.2e\n", properties.isa, largest);
}

static void test_alone(void **state) {
  test_each_device(check_alone, 1, *state);
}

static void check_together(ser_device *device, ser_stream *stream, void *context) {
  (void)stream;
  const golden_set *set = context;
  const float *samples[64];
  int64_t counts[64], offset[65];
  size_t picked[64], count = 0;
  for (size_t i = 0; i < set->count && count < 64; i++) {
    if (memcmp(&set->cases[i].config, &set->cases[0].config, sizeof set->cases[0].config)) continue;
    samples[count] = set->cases[i].samples;
    counts[count] = set->cases[i].count;
    picked[count++] = i;
  }
  assert_true(count > 10);
  ser_error err = {0};
  ser_mfcc *mfcc;
  float *features;
  ASSERT_OK(ser_mfcc_create(&mfcc, device, &set->cases[0].config, 7, 600, true, &err), err);
  ASSERT_OK(ser_mfcc_compute(mfcc, &features, offset, samples, counts, count, &err), err);
  int64_t columns = ser_feature_columns(&set->cases[0].config);
  for (size_t i = 0; i < count; i++) {
    const golden_case *c = &set->cases[picked[i]];
    assert_int_equal(offset[i + 1] - offset[i], c->frames);
    double difference = largest_difference(c, features + offset[i] * columns);
    if (!(difference <= tolerance)) fail_msg("%s, in a batch: %g off", c->name, difference);
  }
  free(features);
  ser_mfcc_free(mfcc);
}

static void test_together(void **state) {
  test_each_device(check_together, 2, *state);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_alone), cmocka_unit_test(test_together)};
  return cmocka_run_group_tests(tests, read_goldens, free_goldens);
}
