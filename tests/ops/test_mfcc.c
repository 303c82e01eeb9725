/* The audio operations against loops in double, for each instruction set: log-mel rows and features with deltas; their
 * bytes whatever the batch, the neighbours and the threads. */
#include "support/harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* Clips end to end, on the host. */
typedef struct {
  int64_t clips, frames;
  int64_t *sample_start, *frame_start; /* [clips + 1] */
  float *pcm;
} ragged;

static ragged ragged_make(const int64_t *counts, int64_t clips, int64_t hop) {
  ragged r = {clips, 0, ser_alloc_zero((size_t)clips + 1, 8), ser_alloc_zero((size_t)clips + 1, 8), NULL};
  for (int64_t i = 0; i < clips; i++) {
    r.sample_start[i + 1] = r.sample_start[i] + counts[i];
    r.frame_start[i + 1] = r.frame_start[i] + ser_mfcc_frames(counts[i], hop);
  }
  r.frames = r.frame_start[clips];
  r.pcm = ser_alloc((size_t)r.sample_start[clips] * sizeof *r.pcm);
  /* Loud and quiet clips, noise and a tone, a silent stretch. */
  for (int64_t i = 0; i < clips; i++) {
    float gain = powf(10, (float)(i % 5) - 3);
    for (int64_t j = 0; j < counts[i]; j++) {
      double tone = sin(0.01 * (double)((i + 1) * j));
      float noise = test_random(17 + (uint64_t)i, (uint64_t)j);
      bool silent = j > counts[i] / 2 && j < counts[i] * 3 / 4;
      r.pcm[r.sample_start[i] + j] = silent ? 0 : gain * ((float)tone + 0.3f * noise);
    }
  }
  return r;
}

/* The clips of r in the order given, some perhaps left out. */
static ragged ragged_pick(const ragged *r, const int64_t *order, int64_t clips, int64_t hop) {
  int64_t *counts = ser_alloc_zero((size_t)clips + 1, sizeof *counts);
  for (int64_t i = 0; i < clips; i++) counts[i] = r->sample_start[order[i] + 1] - r->sample_start[order[i]];
  ragged picked = ragged_make(counts, clips, hop);
  for (int64_t i = 0; i < clips; i++)
    memcpy(picked.pcm + picked.sample_start[i], r->pcm + r->sample_start[order[i]], (size_t)counts[i] * sizeof(float));
  free(counts);
  return picked;
}

static void ragged_free(ragged *r) {
  free(r->sample_start);
  free(r->frame_start);
  free(r->pcm);
}

static ser_mfcc_shape shape_of(int64_t n_fft, int64_t hop, int64_t rate, int64_t mels, int64_t coefficients,
                               bool deltas, const ragged *r) {
  return (ser_mfcc_shape){n_fft, hop, rate, mels, coefficients, deltas, r->clips, r->frames};
}

static int64_t columns_of(const ser_mfcc_shape *shape) {
  return shape->coefficients * (shape->deltas ? 3 : 1);
}

static int64_t *upload(ser_device *device, ser_stream *stream, const int64_t *host, int64_t count) {
  ser_error err = {0};
  int64_t *memory = device->rt->alloc(device, (size_t)count * sizeof *memory, &err);
  if (!memory) fail_msg("%s", err.text);
  device->rt->write(stream, memory, host, (size_t)count * sizeof *memory);
  return memory;
}

/* Runs both operations over guarded, poisoned buffers and checks that nothing is allocated on the way. Where logmel_in
 * is given, features are made from it. Results are the caller's. */
static void run_both(ser_device *device, ser_stream *stream, const ser_mfcc_shape *shape, const ragged *r,
                     const float *logmel_in, float **logmel_out, float **features_out) {
  ser_error err = {0};
  ser_plan *plan;
  ASSERT_OK(device->ops->mfcc_prepare(device, &plan, shape, &err), err);
  size_t rows = (size_t)r->frames, columns = (size_t)columns_of(shape), mels = (size_t)shape->mels;
  test_buffer workspace = test_buffer_make(device, stream, (plan->workspace + 3) / 4);
  test_buffer pcm = test_buffer_from(device, stream, r->pcm, (size_t)r->sample_start[r->clips]);
  test_buffer logmel = test_buffer_make(device, stream, rows * mels);
  test_buffer features = test_buffer_make(device, stream, rows * columns);
  int64_t *sample_start = upload(device, stream, r->sample_start, r->clips + 1);
  int64_t *frame_start = upload(device, stream, r->frame_start, r->clips + 1);
  ser_device_counters before, after;
  device->rt->counters(device, &before);
  device->ops->logmel(stream, plan, workspace.data, logmel.data, pcm.data, sample_start, frame_start, r->clips,
                      r->frames);
  if (logmel_in) device->rt->write(stream, logmel.data, logmel_in, rows * mels * sizeof(float));
  device->ops->mfcc_finish(stream, plan, workspace.data, features.data, logmel.data, frame_start, r->clips, r->frames);
  device->rt->counters(device, &after);
  assert_int_equal(before.allocations, after.allocations);
  *logmel_out = ser_alloc(rows * mels * sizeof(float));
  *features_out = ser_alloc(rows * columns * sizeof(float));
  test_buffer_read(&logmel, *logmel_out);
  test_buffer_read(&features, *features_out);
  test_buffer_free(&workspace);
  test_buffer_free(&pcm);
  test_buffer_free(&logmel);
  test_buffer_free(&features);
  device->rt->free(device, sample_start);
  device->rt->free(device, frame_start);
  ser_plan_free(plan);
}

/* ---- log-mel rows ----------------------------------------------------------------------------------------------- */

static double mel_to_hz(double mel) {
  return mel < 15 ? mel * 200.0 / 3 : 1000 * exp((mel - 15) * log(6.4) / 27);
}

/* weights [mels][bins] as librosa.filters.mel writes them: every band over every bin. */
static double *mel_weights(const ser_mfcc_shape *s) {
  int64_t bins = s->n_fft / 2 + 1;
  double *weights = ser_alloc_zero((size_t)(s->mels * bins), sizeof *weights);
  double top = (double)s->rate / 2, top_mel = top < 1000 ? top * 3 / 200 : 15 + log(top / 1000) / (log(6.4) / 27);
  for (int64_t m = 0; m < s->mels; m++) {
    double edge[3];
    for (int i = 0; i < 3; i++) edge[i] = mel_to_hz(top_mel * (double)(m + i) / (double)(s->mels + 1));
    for (int64_t k = 0; k < bins; k++) {
      double hz = top * (double)k / (double)(bins - 1);
      double lower = (hz - edge[0]) / (edge[1] - edge[0]), upper = (edge[2] - hz) / (edge[2] - edge[1]);
      weights[m * bins + k] = fmax(0, fmin(lower, upper)) * 2 / (edge[2] - edge[0]);
    }
  }
  return weights;
}

/* power [bins] of the frame around sample `centre`, by the definition of the transform. */
static void frame_power(double *power, const float *pcm, int64_t count, int64_t centre, int64_t n_fft,
                        const double *cosine) {
  double *x = ser_alloc((size_t)n_fft * sizeof *x);
  for (int64_t i = 0; i < n_fft; i++) {
    int64_t at = centre - n_fft / 2 + i;
    x[i] = at < 0 || at >= count ? 0 : (double)pcm[at] * (0.5 - 0.5 * cosine[i]);
  }
  for (int64_t k = 0; k <= n_fft / 2; k++) {
    double re = 0, im = 0;
    for (int64_t i = 0; i < n_fft; i++) {
      re += x[i] * cosine[k * i % n_fft];
      im += x[i] * cosine[(k * i + n_fft / 4) % n_fft];
    }
    power[k] = re * re + im * im;
  }
  free(x);
}

/* Of every `every`th row; the others are NaN: not known. */
static double *reference_logmel(const ser_mfcc_shape *s, const ragged *r, int64_t every) {
  int64_t bins = s->n_fft / 2 + 1;
  double *weights = mel_weights(s), *out = ser_alloc((size_t)(r->frames * s->mels) * sizeof *out);
  double *cosine = ser_alloc((size_t)s->n_fft * sizeof *cosine), *power = ser_alloc((size_t)bins * sizeof *power);
  for (int64_t i = 0; i < s->n_fft; i++) cosine[i] = cos(2 * M_PI * (double)i / (double)s->n_fft);
  for (int64_t i = 0; i < r->frames * s->mels; i++) out[i] = NAN;
  for (int64_t clip = 0; clip < r->clips; clip++)
    for (int64_t row = r->frame_start[clip]; row < r->frame_start[clip + 1]; row++) {
      if (row % every) continue;
      frame_power(power, r->pcm + r->sample_start[clip], r->sample_start[clip + 1] - r->sample_start[clip],
                  (row - r->frame_start[clip]) * s->hop, s->n_fft, cosine);
      for (int64_t m = 0; m < s->mels; m++) {
        double sum = 0;
        for (int64_t k = 0; k < bins; k++) sum += weights[m * bins + k] * power[k];
        out[row * s->mels + m] = 10 * log10(fmax(1e-10, sum));
      }
    }
  free(weights);
  free(cosine);
  free(power);
  return out;
}

/* What a float transform cannot see is left out: bands more than 110 dB below the row's loudest. */
static double logmel_difference(const float *got, const double *want, int64_t rows, int64_t mels) {
  double largest = 0;
  for (int64_t row = 0; row < rows; row++) {
    double top = -INFINITY;
    for (int64_t m = 0; m < mels; m++) top = fmax(top, want[row * mels + m]);
    for (int64_t m = 0; m < mels; m++) {
      double difference = fabs((double)got[row * mels + m] - want[row * mels + m]);
      if (isnan(got[row * mels + m])) return INFINITY;
      if (want[row * mels + m] > top - 110) largest = fmax(largest, difference);
    }
  }
  return largest;
}

typedef struct {
  int64_t n_fft, hop, rate, mels;
  int64_t counts[6]; /* samples of the clips */
} logmel_case;

/* Every size, hops that divide nothing, bands that are no multiple of a vector, more bands than bins between edges;
 * empty clips, one sample, shorter than half a window, an exact multiple of the hop. */
static const logmel_case logmel_cases[] = {
    {256, 77, 8000, 7, {0, 1, 100, 770, 2000, 0}},       {256, 300, 16000, 40, {3000, 299, 300, 301, 5, 1}},
    {512, 160, 16000, 40, {400, 0, 1600, 3333, 13, 0}},  {512, 1, 22050, 3, {20, 7, 0, 0, 0, 0}},
    {1024, 333, 22050, 65, {1, 4000, 0, 2500, 999, 5}},  {2048, 512, 22050, 128, {5120, 700, 0, 9000, 1, 2047}},
    {4096, 1000, 44100, 129, {6000, 1, 0, 3000, 17, 0}}, {8192, 2000, 48000, 31, {7000, 0, 2, 0, 0, 0}},
};

static void check_logmel(ser_device *device, ser_stream *stream, void *context) {
  double **want = context, largest = 0;
  for (size_t i = 0; i < sizeof logmel_cases / sizeof *logmel_cases; i++) {
    const logmel_case *c = &logmel_cases[i];
    ragged r = ragged_make(c->counts, 6, c->hop);
    ser_mfcc_shape shape = shape_of(c->n_fft, c->hop, c->rate, c->mels, 1, false, &r);
    if (!want[i]) want[i] = reference_logmel(&shape, &r, 1);
    float *logmel, *features;
    run_both(device, stream, &shape, &r, NULL, &logmel, &features);
    double difference = logmel_difference(logmel, want[i], r.frames, c->mels);
    /* Seen: 1.5e-5 dB, two units in the last place of -100. */
    if (!(difference < 6e-5)) fail_msg("n_fft %d hop %d: %g dB off", (int)c->n_fft, (int)c->hop, difference);
    largest = fmax(largest, difference);
    free(logmel);
    free(features);
    ragged_free(&r);
  }
  print_message("largest difference of a log-mel value: %.3g dB\n", largest);
}

static void test_logmel(void **state) {
  (void)state;
  double *want[sizeof logmel_cases / sizeof *logmel_cases] = {0};
  test_each_device(check_logmel, 2, want);
  for (size_t i = 0; i < sizeof logmel_cases / sizeof *logmel_cases; i++) free(want[i]);
}

/* An all-zero clip is -100 dB to the last bit, whatever lies beside it. */
static void check_silence(ser_device *device, ser_stream *stream, void *context) {
  (void)context;
  int64_t counts[] = {3000, 5000, 3000};
  ragged r = ragged_make(counts, 3, 512);
  memset(r.pcm + counts[0], 0, (size_t)counts[1] * sizeof(float));
  ser_mfcc_shape shape = shape_of(2048, 512, 22050, 128, 13, false, &r);
  float *logmel, *features;
  run_both(device, stream, &shape, &r, NULL, &logmel, &features);
  for (int64_t i = r.frame_start[1] * 128; i < r.frame_start[2] * 128; i++) assert_true(logmel[i] == -100);
  for (int64_t row = r.frame_start[1]; row < r.frame_start[2]; row++) {
    assert_true(fabs((double)features[row * 13] + 100 * sqrt(128)) < 5e-4); /* 4 units in the last place */
    for (int64_t c = 1; c < 13; c++) assert_true(features[row * 13 + c] == 0);
  }
  free(logmel);
  free(features);
  ragged_free(&r);
}

static void test_silence(void **state) {
  (void)state;
  test_each_device(check_silence, 2, NULL);
}

/* ---- features --------------------------------------------------------------------------------------------------- */

/* Derivative of `order` of the polynomial of that order fitted to nine values, at any place (it is constant). */
static double fitted_derivative(const double *x, int64_t stride, int order) {
  double sum = 0;
  for (int n = -4; n <= 4; n++) {
    double weight = order == 1 ? n / 60.0 : (n * n - 20.0 / 3) * 2 / 308;
    sum += weight * x[(n + 4) * stride];
  }
  return sum;
}

static double *reference_features(const ser_mfcc_shape *s, const ragged *r, const float *logmel) {
  int64_t columns = columns_of(s), mels = s->mels;
  double *out = ser_alloc((size_t)(r->frames * columns) * sizeof *out);
  for (int64_t clip = 0; clip < r->clips; clip++) {
    int64_t start = r->frame_start[clip], frames = r->frame_start[clip + 1] - start;
    double top = -INFINITY;
    for (int64_t i = start * mels; i < (start + frames) * mels; i++) top = fmax(top, (double)logmel[i]);
    for (int64_t row = start; row < start + frames; row++)
      for (int64_t c = 0; c < s->coefficients; c++) {
        double sum = 0;
        for (int64_t m = 0; m < mels; m++)
          sum +=
              fmax((double)logmel[row * mels + m], top - 80) * cos(M_PI * (double)c * ((double)m + 0.5) / (double)mels);
        out[row * columns + c] = sum * sqrt((c ? 2.0 : 1.0) / (double)mels);
      }
    for (int64_t t = 0; s->deltas && t < frames; t++) {
      int64_t first = t < 4 ? 0 : t > frames - 5 ? frames - 9 : t - 4;
      for (int64_t c = 0; c < s->coefficients; c++)
        for (int order = 1; order <= 2; order++)
          out[(start + t) * columns + order * s->coefficients + c] =
              fitted_derivative(out + (start + first) * columns + c, columns, order);
    }
  }
  return out;
}

typedef struct {
  int64_t mels, coefficients;
  bool deltas;
  int64_t frames[6];
} finish_case;

/* Clips around the least length for deltas, around the size of a block of rows, and across blocks. */
static const finish_case finish_cases[] = {
    {128, 13, true, {9, 10, 64, 65, 130, 200}}, {128, 39, false, {1, 0, 63, 2, 0, 129}},
    {40, 20, true, {17, 55, 9, 56, 72, 9}},     {23, 23, true, {128, 9, 9, 9, 9, 9}},
    {7, 5, false, {1, 1, 1, 1, 1, 1}},          {1, 1, true, {11, 9, 70, 9, 12, 9}},
    {65, 17, true, {63, 9, 9, 64, 120, 0}},     {128, 128, false, {5, 0, 0, 0, 0, 0}},
};

static void check_finish(ser_device *device, ser_stream *stream, void *context) {
  (void)context;
  double largest = 0;
  for (size_t i = 0; i < sizeof finish_cases / sizeof *finish_cases; i++) {
    const finish_case *c = &finish_cases[i];
    int64_t counts[6];
    for (int j = 0; j < 6; j++) counts[j] = c->frames[j] ? (c->frames[j] - 1) * 64 + 1 + j : 0;
    ragged r = ragged_make(counts, 6, 64);
    ser_mfcc_shape shape = shape_of(256, 64, 16000, c->mels, c->coefficients, c->deltas, &r);
    float *logmel_in = ser_alloc((size_t)(r.frames * c->mels) * sizeof *logmel_in), *logmel, *features;
    for (int64_t j = 0; j < r.frames * c->mels; j++) logmel_in[j] = -35 + 65 * test_random(3 + i, (uint64_t)j);
    run_both(device, stream, &shape, &r, logmel_in, &logmel, &features);
    double *want = reference_features(&shape, &r, logmel_in);
    double difference = test_difference(features, want, (size_t)(r.frames * columns_of(&shape)));
    /* Float sums of 128 products of up to 80 dB: seen 4.2e-5. */
    if (!(difference < 1e-4)) fail_msg("%d bands, case %zu: %g off", (int)c->mels, i, difference);
    largest = fmax(largest, difference);
    free(logmel_in);
    free(logmel);
    free(features);
    free(want);
    ragged_free(&r);
  }
  print_message("largest difference of a feature: %.3g of max(1, value)\n", largest);
}

static void test_finish(void **state) {
  (void)state;
  test_each_device(check_finish, 3, NULL);
}

/* ---- long clips, many clips -------------------------------------------------------------------------------------- */

typedef struct {
  const char *name;
  ser_mfcc_shape shape;
  ragged r;
  int64_t every; /* rows whose transform is checked */
  double *logmel;
} size_case;

/* Ten minutes, which are more than one slab of frames on any device. */
static size_case make_long(void) {
  int64_t counts[] = {16000 * 600};
  size_case k = {"a long clip", .r = ragged_make(counts, 1, 320), .every = 601};
  k.shape = shape_of(512, 320, 16000, 40, 13, true, &k.r);
  return k;
}

/* More clips than a block has threads, between empty ones; with deltas, clips of the least length. */
static size_case make_many(bool deltas) {
  enum { MANY = 1500, HOP = 100 };
  int64_t *counts = ser_alloc(MANY * sizeof *counts);
  for (int64_t i = 0; i < MANY; i++)
    counts[i] = i % 3 == 1 || i > MANY - 5 ? 0 : (deltas ? 8 * HOP : 0) + 1 + i * 37 % 250;
  size_case k = {deltas ? "many clips with deltas" : "many clips", .r = ragged_make(counts, MANY, HOP), .every = 7};
  k.shape = shape_of(256, HOP, 8000, 20, 18, deltas, &k.r);
  free(counts);
  return k;
}

static void check_size(ser_device *device, ser_stream *stream, void *context) {
  const size_case *k = context;
  float *logmel, *features;
  run_both(device, stream, &k->shape, &k->r, NULL, &logmel, &features);
  double *want = reference_features(&k->shape, &k->r, logmel);
  double difference = logmel_difference(logmel, k->logmel, k->r.frames, k->shape.mels);
  if (!(difference < 6e-5)) fail_msg("%s: %g dB off", k->name, difference);
  difference = test_difference(features, want, (size_t)(k->r.frames * columns_of(&k->shape)));
  if (!(difference < 1e-4)) fail_msg("%s: features %g off", k->name, difference);
  free(want);
  free(logmel);
  free(features);
}

static void test_sizes(void **state) {
  (void)state;
  size_case cases[] = {make_long(), make_many(false), make_many(true)};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cases[i].logmel = reference_logmel(&cases[i].shape, &cases[i].r, cases[i].every);
    test_each_device(check_size, 2, &cases[i]);
    free(cases[i].logmel);
    ragged_free(&cases[i].r);
  }
}

/* Nothing to do is nothing done: no clips, or empty ones alone. */
static void check_empty(ser_device *device, ser_stream *stream, void *context) {
  (void)context;
  for (int64_t clips = 0; clips <= 3; clips += 3) {
    ragged r = ragged_make((int64_t[]){0, 0, 0}, clips, 160);
    ser_mfcc_shape shape = shape_of(512, 160, 16000, 40, 13, true, &r);
    float *logmel, *features;
    run_both(device, stream, &shape, &r, NULL, &logmel, &features);
    free(logmel);
    free(features);
    ragged_free(&r);
  }
}

static void test_empty(void **state) {
  (void)state;
  test_each_device(check_empty, 2, NULL);
}

/* ---- the same bytes whatever surrounds a clip -------------------------------------------------------------------- */

enum { INVARIANCE_CLIPS = 7 };
static const int64_t invariance_counts[INVARIANCE_CLIPS] = {5000, 33000, 4096, 4608, 20011, 9000, 70000};

/* Bytes of each clip's features and log-mel rows from the batch against those in context, kept by the first run. */
static void compare_clips(const ser_mfcc_shape *shape, const ragged *r, const int64_t *order, const float *logmel,
                          const float *features, float *kept[INVARIANCE_CLIPS][2]) {
  for (int64_t i = 0; i < r->clips; i++) {
    const float *from[2] = {logmel + r->frame_start[i] * shape->mels, features + r->frame_start[i] * columns_of(shape)};
    int64_t widths[2] = {shape->mels, columns_of(shape)};
    for (int part = 0; part < 2; part++) {
      size_t bytes = (size_t)((r->frame_start[i + 1] - r->frame_start[i]) * widths[part]) * sizeof(float);
      float **slot = &kept[order[i]][part];
      if (!*slot)
        *slot = memcpy(ser_alloc(bytes), from[part], bytes);
      else if (memcmp(*slot, from[part], bytes))
        fail_msg("clip %d has other bytes in a batch of %d", (int)order[i], (int)r->clips);
    }
  }
}

/* What one instruction set made of each clip first. */
typedef struct {
  float *kept[INVARIANCE_CLIPS][2];
} invariance;

static void invariance_forget(invariance *state) {
  for (int i = 0; i < INVARIANCE_CLIPS; i++)
    for (int part = 0; part < 2; part++) {
      free(state->kept[i][part]);
      state->kept[i][part] = NULL;
    }
}

static void check_invariance(ser_device *device, ser_stream *stream, void *context) {
  static const int64_t orders[][INVARIANCE_CLIPS] = {
      {0, 1, 2, 3, 4, 5, 6}, {6, 5, 4, 3, 2, 1, 0}, {3, 0, 6, 2, 2, 5, 1}, {0}, {1}, {2}, {3}, {4}, {5}, {6}, {2, 3}};
  static const int64_t sizes[] = {7, 7, 7, 1, 1, 1, 1, 1, 1, 1, 2};
  invariance *state = context;
  ser_device_properties properties;
  device->rt->properties(device, &properties);
  float *(*kept)[2] = state[!strcmp(properties.isa, "base") ? 0 : !strcmp(properties.isa, "avx2") ? 1 : 2].kept;
  ragged all = ragged_make(invariance_counts, INVARIANCE_CLIPS, 512);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    ragged r = ragged_pick(&all, orders[i], sizes[i], 512);
    ser_mfcc_shape shape = shape_of(2048, 512, 22050, 128, 13, true, &r);
    /* A plan made for more than it gets gives the same bytes too. */
    shape.max_clips += (int64_t)i;
    shape.max_frames += (int64_t)(37 * i);
    float *logmel, *features;
    run_both(device, stream, &shape, &r, NULL, &logmel, &features);
    compare_clips(&shape, &r, orders[i], logmel, features, kept);
    free(logmel);
    free(features);
    ragged_free(&r);
  }
  ragged_free(&all);
}

static void test_invariance(void **state) {
  (void)state;
  invariance kept[3] = {0};
  for (int threads = 1; threads <= 5; threads += 2) test_each_device(check_invariance, threads, kept);
  for (int i = 0; i < 3; i++) invariance_forget(&kept[i]);
}

/* One clip over and over, at every place of the groups and slabs that frames are worked on in: always the same bytes.
 */
static void check_copies(ser_device *device, ser_stream *stream, void *context) {
  (void)context;
  enum { COPIES = 41, HOP = 1000 };
  int64_t counts[COPIES];
  for (int i = 0; i < COPIES; i++) counts[i] = 60 * HOP + 7;
  ragged r = ragged_make(counts, COPIES, HOP);
  for (int i = 1; i < COPIES; i++) memcpy(r.pcm + r.sample_start[i], r.pcm, (size_t)counts[0] * sizeof *r.pcm);
  ser_mfcc_shape shape = shape_of(8192, HOP, 48000, 31, 13, true, &r);
  float *logmel, *features;
  run_both(device, stream, &shape, &r, NULL, &logmel, &features);
  int64_t rows = r.frame_start[1], widths[] = {shape.mels, columns_of(&shape)};
  for (int i = 1; i < COPIES; i++) {
    assert_memory_equal(logmel + i * rows * widths[0], logmel, (size_t)(rows * widths[0]) * sizeof *logmel);
    assert_memory_equal(features + i * rows * widths[1], features, (size_t)(rows * widths[1]) * sizeof *features);
  }
  free(logmel);
  free(features);
  ragged_free(&r);
}

static void test_copies(void **state) {
  (void)state;
  test_each_device(check_copies, 3, NULL);
}

/* ---- what is broken shows ---------------------------------------------------------------------------------------- */

/* A sample that is NaN spoils the frames that see it, and the deltas that see those; nothing else. */
static void check_nan(ser_device *device, ser_stream *stream, void *context) {
  (void)context;
  enum { HOP = 256, BROKEN = 40 * HOP + 9 };
  ragged r = ragged_make((int64_t[]){60 * HOP, 20 * HOP}, 2, HOP);
  ser_mfcc_shape shape = shape_of(512, HOP, 16000, 40, 13, true, &r);
  r.pcm[BROKEN] = NAN;
  float *logmel, *features;
  run_both(device, stream, &shape, &r, NULL, &logmel, &features);
  for (int64_t row = 0; row < r.frames; row++) {
    bool sees = row >= 40 && row <= 41, reached = row >= 36 && row <= 45;
    for (int64_t m = 0; m < 40; m++) assert_int_equal(!!isnan(logmel[row * 40 + m]), sees);
    for (int64_t c = 0; c < 39; c++) assert_int_equal(!!isnan(features[row * 39 + c]), c < 13 ? sees : reached);
  }
  free(logmel);
  free(features);
  ragged_free(&r);
}

static void test_nan(void **state) {
  (void)state;
  test_each_device(check_nan, 2, NULL);
}

/* ---- shapes that cannot be ----------------------------------------------------------------------------------------
 */

static void check_refusals(ser_device *device, ser_stream *stream, void *context) {
  (void)stream;
  (void)context;
  static const ser_mfcc_shape bad[] = {
      {1000, 160, 16000, 40, 13, false, 1, 1},  {128, 160, 16000, 40, 13, false, 1, 1},
      {16384, 160, 16000, 40, 13, false, 1, 1}, {512, 0, 16000, 40, 13, false, 1, 1},
      {512, 160, 0, 40, 13, false, 1, 1},       {512, 160, 16000, 0, 0, false, 1, 1},
      {512, 160, 16000, 40, 41, false, 1, 1},   {512, 160, 16000, 40, 0, false, 1, 1},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    ser_error err = {0};
    ser_plan *plan;
    assert_int_equal(device->ops->mfcc_prepare(device, &plan, &bad[i], &err), SER_USAGE);
    assert_null(plan);
    assert_true(err.text[0]);
  }
}

static void test_refusals(void **state) {
  (void)state;
  test_each_device(check_refusals, 1, NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_logmel), cmocka_unit_test(test_silence), cmocka_unit_test(test_finish),
      cmocka_unit_test(test_sizes),  cmocka_unit_test(test_empty),   cmocka_unit_test(test_invariance),
      cmocka_unit_test(test_copies), cmocka_unit_test(test_nan),     cmocka_unit_test(test_refusals),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
