/* Predicting: the arithmetic of windows, and the whole path with a small random model: timelines, refusals, formats,
 * and that an answer does not depend on its neighbours, its batch, threads or workers. */
#include "support/harness.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/file.h"
#include "model/safetensors.h"
#include "report/predict.h"
#include "report/score.h"
#include "report/windows.h"
#include "support/model.h"

enum { RATE = 22050, HOP = 512, FRAMES = 162, CLASSES = 6 };

/* ---- windows ------------------------------------------------------------------------------------------------------
 */

static void check_rule(const ser_window_rule *rule, int64_t units) {
  size_t count = ser_windows_count(rule, units);
  int64_t length = ser_windows_length(rule, units), covered = 0;
  if (units <= rule->limit) {
    assert_int_equal(count, 1);
    assert_int_equal(length, units);
  } else {
    assert_int_equal(length, rule->length);
  }
  double *weights = ser_alloc(count * sizeof *weights), sum = 0;
  ser_windows_weights(weights, rule, units);
  for (size_t i = 0; i < count; i++) {
    int64_t start = ser_windows_start(rule, units, i);
    assert_true(start >= 0 && start <= covered); /* no gap */
    assert_true(start + length > covered);       /* each window hears something new */
    if (i + 1 < count) assert_int_equal(start, (int64_t)i * rule->hop);
    covered = start + length;
    assert_true(weights[i] > 0);
    sum += weights[i];
  }
  assert_int_equal(covered, units); /* the last is flush with the end */
  assert_true(fabs(sum - 1) < 1e-12);
  free(weights);
}

static void test_windows_cover(void **state) {
  (void)state;
  for (int64_t limit = 1; limit <= 16; limit++)
    for (int64_t length = 1; length <= limit; length++)
      for (int64_t hop = 1; hop <= length; hop++)
        for (int64_t units = 1; units <= 50; units++) check_rule(&(ser_window_rule){limit, length, hop}, units);
  check_rule(&(ser_window_rule){162, 162, 81}, 162 * 1000 + 5);
  check_rule(&(ser_window_rule){110000, 110000, 55000}, 110001);
}

/* Weights against the definition: each unit shared out among the windows that cover it. */
static void test_windows_weights(void **state) {
  (void)state;
  const ser_window_rule rules[] = {{10, 10, 5}, {10, 7, 3}, {10, 10, 1}, {10, 1, 1}, {10, 10, 10}};
  for (size_t r = 0; r < sizeof rules / sizeof *rules; r++)
    for (int64_t units = 11; units < 60; units++) {
      size_t count = ser_windows_count(&rules[r], units);
      double weights[64], want[64] = {0};
      ser_windows_weights(weights, &rules[r], units);
      for (int64_t u = 0; u < units; u++) {
        double cover = 0;
        for (int pass = 0; pass < 2; pass++)
          for (size_t i = 0; i < count; i++) {
            int64_t start = ser_windows_start(&rules[r], units, i);
            if (u < start || u >= start + rules[r].length) continue;
            if (pass == 0)
              cover++;
            else
              want[i] += 1 / cover / (double)units;
          }
      }
      for (size_t i = 0; i < count; i++) assert_true(fabs(weights[i] - want[i]) < 1e-12);
    }
}

static void test_windows_edges(void **state) {
  (void)state;
  const ser_window_rule rule = {FRAMES, FRAMES, FRAMES / 2};
  assert_int_equal(ser_windows_count(&rule, 9), 1);
  assert_int_equal(ser_windows_count(&rule, FRAMES), 1);
  assert_int_equal(ser_windows_count(&rule, FRAMES + 1), 2);
  assert_int_equal(ser_windows_start(&rule, FRAMES + 1, 1), 1);
  assert_int_equal(ser_windows_count(&rule, FRAMES + 81), 2);
  assert_int_equal(ser_windows_count(&rule, FRAMES + 82), 3);
  assert_int_equal(ser_windows_start(&rule, FRAMES + 82, 2), 82);
}

/* ---- the whole path -----------------------------------------------------------------------------------------------
 */

typedef struct {
  size_t count, refused;
  char *paths[64];
  ser_reason reasons[64];
  char details[64][256];
  bool silent[64];
  ser_span whole[64];
  size_t windows[64];
  ser_span *spans[64];
} heard;

static ser_status hear(void *context, const ser_answer *answer, ser_error *err) {
  heard *h = context;
  (void)err;
  size_t i = h->count++;
  h->paths[i] = ser_strdup(answer->path);
  h->reasons[i] = answer->reason;
  snprintf(h->details[i], sizeof h->details[i], "%s", answer->detail ? answer->detail : "");
  h->refused += answer->reason != SER_REASON_NONE;
  h->silent[i] = answer->silent;
  h->whole[i] = answer->whole;
  h->windows[i] = answer->window_count;
  h->spans[i] = ser_alloc((answer->window_count + 1) * sizeof *h->spans[i]);
  if (answer->window_count) memcpy(h->spans[i], answer->windows, answer->window_count * sizeof *h->spans[i]);
  return SER_OK;
}

static void forget(heard *h) {
  for (size_t i = 0; i < h->count; i++) {
    free(h->paths[i]);
    free(h->spans[i]);
  }
  memset(h, 0, sizeof *h);
}

typedef struct {
  char *folder, *model, *timnet;
} made;

static int set_up(void **state) {
  made *m = ser_alloc(sizeof *m);
  m->folder = test_folder_make("predict");
  m->model = ser_path_join(m->folder, "model.safetensors");
  m->timnet = ser_path_join(m->folder, "timnet.safetensors");
  test_model_write(m->model, SER_MFCC39, CLASSES, 3);
  test_model_write(m->timnet, SER_TIMNET, 8, 4);
  *state = m;
  return 0;
}

static int tear_down(void **state) {
  made *m = *state;
  test_folder_remove(m->folder);
  free(m->model);
  free(m->timnet);
  free(m);
  return 0;
}

/* A little speech, again and again at changing loudness: long clips are made quickly. */
static float *sound(uint64_t seed, int64_t samples) {
  enum { PIECE = 3000 };
  float *piece = test_speech(seed, PIECE, RATE), *all = ser_alloc((size_t)samples * sizeof *all);
  for (int64_t i = 0; i < samples; i++)
    all[i] = piece[i % PIECE] * (0.6f + 0.4f * test_random(seed, (uint64_t)(i / PIECE)));
  free(piece);
  return all;
}

static char *clip(const made *m, const char *name, uint64_t seed, int64_t samples) {
  char *path = ser_path_join(m->folder, name);
  float *speech = sound(seed, samples);
  test_write_wav(path, speech, samples, RATE);
  free(speech);
  return path;
}

static ser_predict_options usual(const made *m) {
  return (ser_predict_options){
      .model = m->model, .device = {.kind = SER_DEVICE_CPU, .threads = 1}, .jobs = 1, .window = -1, .hop = -1};
}

static void predict(heard *h, const ser_predict_options *options, const char *const *paths, size_t count) {
  ser_error err = {0};
  ser_predictor *predictor;
  ser_audio_source sources[64] = {{0}};
  for (size_t i = 0; i < count; i++) sources[i].path = paths[i];
  memset(h, 0, sizeof *h);
  ASSERT_OK(ser_predictor_open(&predictor, options, &err), err);
  ASSERT_OK(ser_predict(predictor, sources, count, hear, h, &err), err);
  ser_predictor_close(predictor);
  assert_int_equal(h->count, count);
}

/* Frames are 1 + samples / 512: the window's last sample, one sample more, the shortest clip, one sample less. */
static void test_lengths(void **state) {
  const made *m = *state;
  char *paths[] = {clip(m, "whole.wav", 1, FRAMES * HOP - 1), clip(m, "one_more.wav", 2, FRAMES * HOP),
                   clip(m, "shortest.wav", 3, 8 * HOP), clip(m, "too_short.wav", 4, 8 * HOP - 1),
                   clip(m, "long.wav", 5, 10 * RATE)};
  ser_predict_options options = usual(m);
  heard h;
  predict(&h, &options, (const char *const *)paths, 5);
  for (size_t i = 0; i < 5; i++) assert_string_equal(h.paths[i], paths[i]); /* in the order of the inputs */
  assert_int_equal(h.windows[0], 1);
  assert_true(h.whole[0].start == 0 && fabs(h.whole[0].end - (FRAMES * HOP - 1) / (double)RATE) < 1e-9);
  assert_int_equal(h.windows[1], 2);
  assert_true(fabs(h.spans[1][1].start - HOP / (double)RATE) < 1e-9);
  assert_true(fabs(h.spans[1][1].end - h.whole[1].end) < 1e-12);
  assert_int_equal(h.windows[2], 1);
  assert_int_equal(h.reasons[3], SER_REASON_TOO_SHORT);
  assert_non_null(strstr(h.details[3], "too short: 0.186 s"));
  assert_int_equal(h.refused, 1);
  int64_t frames = 1 + 10 * RATE / HOP;
  assert_int_equal(h.windows[4], 1 + (frames - FRAMES + 80) / 81);
  assert_true(h.spans[4][0].start == 0 && fabs(h.spans[4][h.windows[4] - 1].end - 10) < 1e-9);
  for (size_t i = 0; i < 5; i++) {
    double sum = 0;
    if (h.reasons[i] != SER_REASON_NONE) continue;
    for (int c = 0; c < CLASSES; c++) sum += (double)h.whole[i].probabilities[c];
    assert_true(fabs(sum - 1) < 1e-5);
    assert_int_equal(h.whole[i].label, ser_best_label(h.whole[i].probabilities, CLASSES));
  }
  forget(&h);
  for (size_t i = 0; i < 5; i++) free(paths[i]);
}

/* The clip's own answer is the mean of its windows', by the weights of windows.h. */
static void test_overall(void **state) {
  const made *m = *state;
  char *path = clip(m, "long.wav", 5, 7 * RATE + 123);
  ser_predict_options options = usual(m);
  options.window = 1.5;
  options.hop = 0.4;
  heard h;
  predict(&h, &options, (const char *const *)&path, 1);
  int64_t frames = 1 + (7 * RATE + 123) / HOP, length = llround(1.5 * RATE / HOP), hop = llround(0.4 * RATE / HOP);
  ser_window_rule rule = {FRAMES, length, hop};
  assert_int_equal(h.windows[0], ser_windows_count(&rule, frames));
  double weights[64], spread = 0;
  ser_windows_weights(weights, &rule, frames);
  for (int c = 0; c < CLASSES; c++) {
    double mean = 0;
    for (size_t w = 0; w < h.windows[0]; w++) {
      mean += weights[w] * (double)h.spans[0][w].probabilities[c];
      spread += fabs((double)h.spans[0][w].probabilities[c] - (double)h.spans[0][0].probabilities[c]);
    }
    assert_true(fabs(mean - (double)h.whole[0].probabilities[c]) < 1e-6);
  }
  assert_true(spread > 1e-3); /* windows do differ */
  forget(&h);
  free(path);
}

/* Field by field: the padding behind the label is nobody's. */
static void assert_same_spans(const ser_span *a, const ser_span *b, size_t count) {
  for (size_t i = 0; i < count; i++) {
    assert_memory_equal(&a[i].start, &b[i].start, sizeof a[i].start);
    assert_memory_equal(&a[i].end, &b[i].end, sizeof a[i].end);
    assert_int_equal(a[i].label, b[i].label);
    assert_memory_equal(a[i].probabilities, b[i].probabilities, sizeof a[i].probabilities);
  }
}

/* The same bytes whatever stands beside a clip and however many threads and workers there are. */
static void test_neighbours(void **state) {
  const made *m = *state;
  enum { MANY = 40 };
  char *paths[MANY];
  for (size_t i = 0; i < MANY; i++) {
    char name[32];
    snprintf(name, sizeof name, "n%02zu.wav", i);
    paths[i] = clip(m, name, 100 + i, (int64_t)(6000 + 5200 * (i * 7 % MANY)));
  }
  ser_predict_options options = usual(m);
  heard together, alone;
  for (int run = 0; run < 2; run++) {
    options.model = run ? m->timnet : m->model;
    options.device.threads = options.jobs = 2 + run;
    predict(&together, &options, (const char *const *)paths, MANY);
    options.device.threads = options.jobs = 1;
    for (size_t i = 0; i < MANY; i += 3) {
      predict(&alone, &options, (const char *const *)&paths[i], 1);
      assert_int_equal(alone.windows[0], together.windows[i]);
      assert_same_spans(&alone.whole[0], &together.whole[i], 1);
      assert_same_spans(alone.spans[0], together.spans[i], alone.windows[0]);
      forget(&alone);
    }
    forget(&together);
  }
  for (size_t i = 0; i < MANY; i++) free(paths[i]);
}

/* The preset that fits the signal: up to its samples one window, padded; beyond, windows of the signal. */
static void test_fitted(void **state) {
  const made *m = *state;
  char *paths[] = {clip(m, "short.wav", 1, 100), clip(m, "full.wav", 2, 110000), clip(m, "more.wav", 3, 110001),
                   clip(m, "long.wav", 4, 110000 * 20)};
  ser_predict_options options = usual(m);
  options.model = m->timnet;
  heard h;
  predict(&h, &options, (const char *const *)paths, 4);
  assert_int_equal(h.refused, 0);
  assert_int_equal(h.windows[0], 1);
  assert_int_equal(h.windows[1], 1);
  assert_int_equal(h.windows[2], 2);
  assert_true(fabs(h.spans[2][1].start - 1.0 / RATE) < 1e-9);
  assert_int_equal(h.windows[3], 39);
  /* A window of a long clip is heard as a clip of its own is. */
  char *part = ser_path_join(m->folder, "part.wav");
  float *speech = sound(4, 110000 * 20);
  test_write_wav(part, speech + 55000 * 17, 110000, RATE);
  heard one;
  predict(&one, &options, (const char *const *)&part, 1);
  assert_memory_equal(one.whole[0].probabilities, h.spans[3][17].probabilities, 8 * sizeof(float));
  forget(&h);
  forget(&one);
  free(speech);
  free(part);
  for (size_t i = 0; i < 4; i++) free(paths[i]);
}

static void test_refusals(void **state) {
  const made *m = *state;
  ser_error err = {0};
  char *good = clip(m, "good.wav", 9, RATE), *bad = ser_path_join(m->folder, "bad.wav");
  char *empty = ser_path_join(m->folder, "empty.wav"), *missing = ser_path_join(m->folder, "missing.wav");
  ASSERT_OK(ser_file_write(bad, "this is no sound", 16, &err), err);
  ASSERT_OK(ser_file_write(empty, "", 0, &err), err);
  const char *const paths[] = {missing, good, bad, good, empty};
  ser_predict_options options = usual(m);
  heard h;
  predict(&h, &options, paths, 5);
  assert_int_equal(h.refused, 3);
  assert_int_equal(h.reasons[0], SER_REASON_UNREADABLE);
  assert_int_equal(h.reasons[1], SER_REASON_NONE);
  assert_int_equal(h.reasons[2], SER_REASON_UNREADABLE);
  assert_int_equal(h.reasons[4], SER_REASON_EMPTY);
  assert_true(*h.details[0] && *h.details[2] && *h.details[4]);
  assert_same_spans(&h.whole[1], &h.whole[3], 1);
  forget(&h);
  free(good);
  free(bad);
  free(empty);
  free(missing);
}

/* Zeros, an offset alone, a whisper on both sides of -60 dBFS, at a rate that is resampled: each gets its answer. */
static void test_silence(void **state) {
  const made *m = *state;
  static const struct {
    const char *name;
    float offset, peak;
    bool silent;
  } cases[] = {{"zeros.wav", 0, 0, true},
               {"offset.wav", 0.5f, 0, true},
               {"faint.wav", 0.25f, 0.0009f, true},
               {"quiet.wav", 0, 0.0012f, false},
               {"speech.wav", 0, 0.4f, false}};
  enum { COUNT = sizeof cases / sizeof *cases, SAMPLES = 16000 };
  char *paths[COUNT];
  for (size_t i = 0; i < COUNT; i++) {
    float samples[SAMPLES];
    for (int s = 0; s < SAMPLES; s++) samples[s] = cases[i].offset + cases[i].peak * (float)sin(0.2 * s);
    paths[i] = ser_path_join(m->folder, cases[i].name);
    test_write_wav(paths[i], samples, SAMPLES, 16000);
  }
  ser_predict_options options = usual(m);
  heard h;
  predict(&h, &options, (const char *const *)paths, COUNT);
  assert_int_equal(h.refused, 0);
  for (size_t i = 0; i < COUNT; i++) {
    assert_int_equal(h.windows[i], 1);
    if (h.silent[i] != cases[i].silent) fail_msg("%s: silent is %d", cases[i].name, h.silent[i]);
    free(paths[i]);
  }
  forget(&h);
}

static void test_rules_refused(void **state) {
  const made *m = *state;
  const struct {
    double window, hop;
    const char *said;
  } cases[] = {{4, -1, "longer than the model's own, 3.762 s"},
               {1, 1.2, "longer than the window"},
               {-1, 60, "longer than the window"},
               {0.001, -1, "shorter than the model's features need, 0.209 s"},
               {0.208, 0.1, "give at least that"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    ser_error err = {0};
    ser_predictor *predictor;
    ser_predict_options options = usual(m);
    options.window = cases[i].window;
    options.hop = cases[i].hop;
    assert_int_equal(ser_predictor_open(&predictor, &options, &err), SER_USAGE);
    if (!strstr(err.text, cases[i].said)) fail_msg("'%s' does not say '%s'", err.text, cases[i].said);
    assert_null(predictor);
  }
  ser_error err = {0};
  ser_predictor *predictor;
  ser_predict_options options = usual(m);
  options.model = m->timnet; /* windows of the signal hold at least one analysis */
  options.window = 0.09;
  assert_int_equal(ser_predictor_open(&predictor, &options, &err), SER_USAGE);
  assert_non_null(strstr(err.text, "the model's features need, 0.093 s"));
  options.window = 0.093;
  ASSERT_OK(ser_predictor_open(&predictor, &options, &err), err);
  ser_predictor_close(predictor);
  options.model = "/nowhere/model.safetensors";
  assert_int_equal(ser_predictor_open(&predictor, &options, &err), SER_FAILED);
  assert_non_null(strstr(err.text, "/nowhere/model.safetensors"));
}

/* Finite weights that are far too large: an error that names the model, rather than NaN for an answer. */
static void test_answers_not_finite(void **state) {
  const made *m = *state;
  ser_error err = {0};
  ser_tensors t;
  ser_text file = {0};
  char *path = ser_path_join(m->folder, "large.safetensors"), *wav = clip(m, "fine.wav", 9, RATE);
  float *large = ser_alloc(12 * 12 * 2 * sizeof *large);
  for (int i = 0; i < 12 * 12 * 2; i++) large[i] = i % 2 ? 1e38f : -1e38f;
  ASSERT_OK(ser_tensors_read(&t, m->model, &err), err);
  for (size_t i = 0; i < t.count; i++)
    if (strstr(t.tensors[i].name, "conv")) t.tensors[i].data = large;
  ser_tensors_text(&file, t.tensors, t.count, (const char *const *)t.keys, (const char *const *)t.values,
                   t.metadata_count - 1); /* without its last, tensors_hash */
  ASSERT_OK(ser_file_write(path, file.data, file.size, &err), err);
  ser_predictor *predictor;
  ser_audio_source source = {.path = wav};
  ser_predict_options options = usual(m);
  heard h = {0};
  options.model = path;
  ASSERT_OK(ser_predictor_open(&predictor, &options, &err), err);
  assert_int_equal(ser_predict(predictor, &source, 1, hear, &h, &err), SER_FAILED);
  assert_int_equal(h.count, 0);
  assert_non_null(strstr(err.text, path));
  ser_predictor_close(predictor);
  ser_tensors_free(&t);
  free(file.data);
  free(large);
  free(wav);
  free(path);
}

/* ---- inputs -------------------------------------------------------------------------------------------------------
 */

static void test_stdin(void **state) {
  const made *m = *state;
  ser_error err = {0};
  char *path = clip(m, "piped.wav", 11, 5 * RATE);
  int kept = dup(STDIN_FILENO), file = open(path, O_RDONLY);
  assert_true(kept >= 0 && file >= 0 && dup2(file, STDIN_FILENO) == STDIN_FILENO);
  close(file);
  const char *const dash[] = {"-", "-"};
  ser_predict_inputs inputs;
  ASSERT_OK(ser_predict_inputs_make(&inputs, dash, 1, &err), err);
  assert_int_equal(ser_predict_inputs_make(&(ser_predict_inputs){0}, dash, 2, &err), SER_USAGE);
  assert_true(dup2(kept, STDIN_FILENO) == STDIN_FILENO);
  close(kept);
  ser_predict_options options = usual(m);
  ser_predictor *predictor;
  heard from_bytes = {0}, from_file;
  ASSERT_OK(ser_predictor_open(&predictor, &options, &err), err);
  ASSERT_OK(ser_predict(predictor, inputs.sources, 1, hear, &from_bytes, &err), err);
  ser_predictor_close(predictor);
  predict(&from_file, &options, (const char *const *)&path, 1);
  assert_string_equal(from_bytes.paths[0], "-");
  assert_int_equal(from_bytes.reasons[0], SER_REASON_NONE);
  assert_same_spans(&from_bytes.whole[0], &from_file.whole[0], 1);
  forget(&from_bytes);
  forget(&from_file);
  ser_predict_inputs_free(&inputs);
  free(path);
}

/* ---- formats ------------------------------------------------------------------------------------------------------
 */

static const char *const two[] = {"sad", "surprised"};
static const ser_span spans[] = {{0, 3.7616326530612243, 1, {0.125f, 0.875f}}, {1.5, 5.25, 0, {0.75f, 0.25f}}};
static const ser_answer answers[] = {
    {.path = "short.wav",
     .whole = {0, 1.25, 1, {0.3f, 0.7f}},
     .windows = &(ser_span){0, 1.25, 1, {0.3f, 0.7f}},
     .window_count = 1},
    {.path = "bad.wav", .reason = SER_REASON_UNREADABLE, .detail = "no"},
    {.path = "a, \"b\"\xff.wav", .whole = {0, 5.25, 0, {0.5f, 0.5f}}, .windows = spans, .window_count = 2}};

static char *formatted(ser_answer_style style, bool windows, size_t count) {
  ser_text out = {0};
  ser_answer_format format = {.style = style, .windows = windows, .classes = 2, .labels = two, .path_width = 12};
  ser_answers_begin(&out, &format);
  for (size_t i = 0; i < count; i++) ser_answers_add(&out, &format, &answers[i]);
  ser_answers_end(&out, &format);
  return out.data;
}

static void test_csv(void **state) {
  (void)state;
  char *text = formatted(SER_FORMAT_CSV, false, 3);
  assert_string_equal(text, "path,start,end,emotion,sad,surprised\n"
                            "short.wav,0.000,1.250,surprised,0.300000012,0.699999988\n"
                            "\"a, \"\"b\"\"\xff.wav\",0.000,5.250,sad,0.5,0.5\n");
  free(text);
  text = formatted(SER_FORMAT_CSV, true, 3);
  assert_string_equal(text, "path,start,end,emotion,sad,surprised\n"
                            "short.wav,0.000,1.250,surprised,0.300000012,0.699999988\n"
                            "\"a, \"\"b\"\"\xff.wav\",0.000,5.250,sad,0.5,0.5\n"
                            "\"a, \"\"b\"\"\xff.wav\",0.000,3.762,surprised,0.125,0.875\n"
                            "\"a, \"\"b\"\"\xff.wav\",1.500,5.250,sad,0.75,0.25\n");
  free(text);
}

static void test_json(void **state) {
  (void)state;
  for (size_t count = 0; count <= 3; count++) {
    char *text = formatted(SER_FORMAT_JSON, false, count);
    json_error_t error;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!root) fail_msg("%s: %s", text, error.text);
    assert_int_equal(json_array_size(root), count == 0 ? 0 : count == 3 ? 2 : 1);
    json_decref(root);
    free(text);
  }
  char *text = formatted(SER_FORMAT_JSON, false, 3);
  json_t *root = json_loads(text, 0, NULL), *last = json_array_get(root, 1),
         *windows = json_object_get(last, "windows");
  assert_string_equal(json_string_value(json_object_get(last, "path")), "a, \"b\"\xef\xbf\xbd.wav");
  assert_string_equal(json_string_value(json_object_get(last, "emotion")), "sad");
  assert_int_equal(json_array_size(windows), 2);
  json_t *first = json_array_get(windows, 0);
  assert_true(fabs(json_real_value(json_object_get(first, "end")) - 3.76163265) < 1e-8);
  assert_string_equal(json_string_value(json_object_get(first, "emotion")), "surprised");
  assert_true(json_real_value(json_object_get(json_object_get(first, "probabilities"), "surprised")) == 0.875);
  json_decref(root);
  free(text);
}

static void test_text(void **state) {
  (void)state;
  char *text = formatted(SER_FORMAT_TEXT, false, 3);
  assert_string_equal(text, "short.wav     surprised  70.0%   sad 30.0\n"
                            "a, \"b\"\xff.wav   sad        50.0%   surprised 50.0\n"
                            "     0.00 - 3.76 s  surprised  87.5%   sad 12.5\n"
                            "     1.50 - 5.25 s  sad        75.0%   surprised 25.0\n");
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_windows_cover),
      cmocka_unit_test(test_windows_weights),
      cmocka_unit_test(test_windows_edges),
      cmocka_unit_test_setup_teardown(test_lengths, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_overall, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_neighbours, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_fitted, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_silence, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_rules_refused, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_answers_not_finite, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_stdin, set_up, tear_down),
      cmocka_unit_test(test_csv),
      cmocka_unit_test(test_json),
      cmocka_unit_test(test_text),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
