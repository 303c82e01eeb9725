/* The one table of parameters, and how a text becomes a value of it. */
#include "base/config_table.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"

#define AT(field) offsetof(ser_config, field)
#define SEED_RANGE "[0, 9007199254740991]" /* what a double, and so any reader of JSON, holds exactly */

#define MFCC_ROWS(name, coefficients_, frames_, samples_, deltas_)                                                       \
  {"features." #name ".rate",                                                                                            \
   AT(features.name.rate),                                                                                               \
   KIND_INTEGER,                                                                                                         \
   "[4000, 192000]",                                                                                                     \
   NULL,                                                                                                                 \
   "22050",                                                                                                              \
   "sample rate in Hz; clips are resampled to it"},                                                                      \
      {"features." #name ".n_fft",                                                                                       \
       AT(features.name.n_fft),                                                                                          \
       KIND_INTEGER,                                                                                                     \
       "[256, 8192]",                                                                                                    \
       NULL,                                                                                                             \
       "2048",                                                                                                           \
       "window and FFT length in samples, a power of two"},                                                              \
      {"features." #name ".hop",     AT(features.name.hop), KIND_INTEGER, "[1, 8192]", NULL, "512",                      \
       "samples from frame to frame"},                                                                                   \
      {"features." #name ".mels", AT(features.name.mels), KIND_INTEGER, "[4, 512]", NULL, "128", "mel bands"},           \
      {"features." #name ".coefficients", AT(features.name.coefficients), KIND_INTEGER, "[1, 128]", NULL, coefficients_, \
       "cepstral coefficients kept"},                                                                                    \
      {"features." #name ".deltas",                                                                                      \
       AT(features.name.deltas),                                                                                         \
       KIND_BOOL,                                                                                                        \
       NULL,                                                                                                             \
       NULL,                                                                                                             \
       deltas_,                                                                                                          \
       "first and second differences behind the coefficients"},                                                          \
      {"features." #name ".samples",                                                                                     \
       AT(features.name.samples),                                                                                        \
       KIND_INTEGER,                                                                                                     \
       "[0, 100000000]",                                                                                                 \
       NULL,                                                                                                             \
       samples_,                                                                                                         \
       "fit each signal to so many samples first, about its centre; 0: as it is"},                                       \
      {"features." #name ".frames", AT(features.name.frames), KIND_INTEGER, "[1, 65536]", NULL, frames_,                 \
       "frames that the model sees"},

/* clang-format off */
const ser_parameter_row ser_parameter_rows[] = {
    {"corpora.ravdess", AT(corpora[SER_RAVDESS]), KIND_TEXT, NULL, NULL, "", "folder of RAVDESS, or one above it"},
    {"corpora.cremad", AT(corpora[SER_CREMAD]), KIND_TEXT, NULL, NULL, "", "folder of CREMA-D, or one above it"},
    {"corpora.tess", AT(corpora[SER_TESS]), KIND_TEXT, NULL, NULL, "", "folder of TESS, or one above it"},
    {"corpora.savee", AT(corpora[SER_SAVEE]), KIND_TEXT, NULL, NULL, "", "folder of SAVEE, or one above it"},
    {"corpora.csv", AT(corpora[SER_CSV]), KIND_TEXT, NULL, NULL, "", "CSV of recordings of your own: path, emotion and more"},
    {"cache.dir", AT(cache_dir), KIND_TEXT, NULL, NULL, "", "folder of the feature cache; empty: RUN/cache"},
    {"emotions", AT(emotions), KIND_INTEGER, NULL, "6 8", "6", "6: neutral to disgust; 8: calm and surprised too"},
    {"audit", AT(audit), KIND_CHOICE, NULL, "exclude report", "exclude", "keep what the audit finds out, or only tell"},
    {"split.kind", AT(split.kind), KIND_CHOICE, NULL, "random speaker file", "random", "how clips are parted"},
    {"split.test", AT(split.test), KIND_REAL, "(0, 0.9]", NULL, "0.2", "share of the test part (without folds)"},
    {"split.validation", AT(split.validation), KIND_REAL, "(0, 0.9]", NULL, "0.1", "share that chooses the epoch"},
    {"split.validation_by", AT(split.validation_by), KIND_CHOICE, NULL, "speakers clips", "speakers",
     "with speaker splits: whole speakers, or clips of the training speakers"},
    {"split.folds", AT(split.folds), KIND_INTEGER, "[0, 1000]", NULL, "0", "test each part in turn; 0: one split"},
    {"split.test_speakers", AT(split.test_speakers), KIND_TEXTS, NULL, NULL, "[]",
     "speakers of the test part, as the manifest names them (tess_yaf); empty: drawn"},
    {"split.file", AT(split.file), KIND_TEXT, NULL, NULL, "", "CSV of a given split: path, part, fold"},
    {"split.seed", AT(split.seed), KIND_INTEGER, SEED_RANGE, NULL, "1", "seed of the draw"},
    {"features.kind", AT(features.kind), KIND_CHOICE, NULL, "mfcc39 timnet", "mfcc39", "what the model reads"},
    MFCC_ROWS(mfcc39, "13", "162", "0", "true")
    MFCC_ROWS(timnet, "39", "215", "110000", "false")
    {"wav2vec2.weights", AT(wav2vec2.weights), KIND_TEXT, NULL, NULL, "",
     "folder of a wav2vec2 or HuBERT encoder's weights and config.json, or a file in it"},
    {"wav2vec2.layers", AT(wav2vec2.layers), KIND_TEXT, NULL, NULL, "last",
     "hidden states that are kept: last, all, or the number of one (0: what goes into the first layer)"},
    {"wav2vec2.pool", AT(wav2vec2.pool), KIND_CHOICE, NULL, "mean mean+std none", "mean",
     "over a clip's frames: their mean, with the deviation behind it, or all frames as they are"},
    {"wav2vec2.normalize", AT(wav2vec2.normalize), KIND_CHOICE, NULL, "auto true false", "auto",
     "each clip to mean 0 and variance 1 first; auto: as the weights' preprocessor_config.json says"},
    {"model.branch", AT(model.branch), KIND_CHOICE, NULL, "reference timnet", "reference",
     "the plain stack, or TIM-Net with gates and fused scales"},
    {"model.blocks", AT(model.blocks), KIND_INTEGER, "[1, 16]", NULL, "8", "blocks a direction; block i has dilation 2^i"},
    {"model.filters", AT(model.filters), KIND_INTEGER, "[1, 1024]", NULL, "39", "channels"},
    {"model.kernel", AT(model.kernel), KIND_INTEGER, "[1, 16]", NULL, "2", "taps of a convolution"},
    {"model.dropout", AT(model.dropout), KIND_REAL, "[0, 1)", NULL, "0.1", "share of channels dropped in training"},
    {"model.residual", AT(model.residual), KIND_BOOL, NULL, NULL, "false",
     "add each block's input to its output (branch reference)"},
    {"model.pool", AT(model.pool), KIND_CHOICE, NULL, "all real", "all", "average over all frames, or the real ones only"},
    {"train.epochs", AT(train.epochs), KIND_INTEGER, "[1, 1000000]", NULL, "60", "epochs at most"},
    {"train.batch", AT(train.batch), KIND_INTEGER, "[1, 4096]", NULL, "64", "clips a step"},
    {"train.lr", AT(train.lr), KIND_REAL, "(0, 10]", NULL, "0.001", "learning rate of Adam"},
    {"train.beta1", AT(train.beta1), KIND_REAL, "[0, 1)", NULL, "0.93", "Adam's decay of the mean"},
    {"train.beta2", AT(train.beta2), KIND_REAL, "[0, 1)", NULL, "0.98", "Adam's decay of the square"},
    {"train.eps", AT(train.eps), KIND_REAL, "(0, 1]", NULL, "1e-8", "Adam's epsilon"},
    {"train.label_smoothing", AT(train.label_smoothing), KIND_REAL, "[0, 1)", NULL, "0.1", "label smoothing"},
    {"train.class_weights", AT(train.class_weights), KIND_CHOICE, NULL, "none balanced", "none",
     "balanced: clips / (emotions x clips of the emotion) times a clip's loss; the mean is over all clips"},
    {"train.focal_gamma", AT(train.focal_gamma), KIND_REAL, "[0, 10]", NULL, "0", "gamma of the focal loss; 0: cross-entropy"},
    {"train.patience", AT(train.patience), KIND_INTEGER, "[0, 1000000]", NULL, "0", "stop after so many epochs without a better one; 0: never"},
    {"train.select", AT(train.select), KIND_CHOICE, NULL, "uar war", "uar", "figure on the validation part that chooses the epoch"},
    {"train.seeds", AT(train.seeds), KIND_INTEGERS, SEED_RANGE, NULL, "[1]", "one training for each seed"},
    {"predict.window", AT(predict.window), KIND_REAL, "[0, 3600]", NULL, "0", "seconds of a window over longer clips; 0: the model's"},
    {"predict.hop", AT(predict.hop), KIND_REAL, "[0, 3600]", NULL, "0", "seconds from window to window; 0: half a window"},
    {"device", AT(device), KIND_CHOICE, NULL, "auto cpu cuda", "auto", "where to compute"},
    {"precision", AT(precision), KIND_CHOICE, NULL, "fp32 tf32", "fp32", "arithmetic of products; tf32 on GPUs that have it"},
    {"conv", AT(conv), KIND_CHOICE, NULL, "auto cudnn fused", "auto", "a GPU's temporal convolutions; auto: what is measured to be quicker"},
    {"threads", AT(threads), KIND_INTEGER, "[0, 4096]", NULL, "0", "compute threads; 0: all cores"},
    {"jobs", AT(jobs), KIND_INTEGER, "[0, 4096]", NULL, "0", "decode workers; 0: all cores"},
};
/* clang-format on */
const size_t ser_parameter_count = sizeof ser_parameter_rows / sizeof *ser_parameter_rows;

const ser_parameter_row *ser_parameter_find(const char *key) {
  for (size_t i = 0; i < ser_parameter_count; i++)
    if (!strcmp(ser_parameter_rows[i].key, key)) return &ser_parameter_rows[i];
  return NULL;
}

bool ser_parameter_is_group(const char *name) {
  size_t size = strlen(name);
  for (size_t i = 0; i < ser_parameter_count; i++)
    if (!strncmp(ser_parameter_rows[i].key, name, size) && ser_parameter_rows[i].key[size] == '.') return true;
  return false;
}

static const char *last_part(const char *key) {
  const char *dot = strrchr(key, '.');
  return dot ? dot + 1 : key;
}

/* A key that stands in the wrong group is nearly right: its last part counts as much as the whole. */
static size_t apart(const char *given, const char *candidate) {
  size_t whole = ser_edit_distance(given, candidate);
  size_t last = 1 + ser_edit_distance(last_part(given), last_part(candidate));
  return 64 * (whole < last ? whole : last) + whole;
}

ser_status ser_parameter_unknown(const char *where, const char *key, bool group, ser_error *err) {
  char best[64] = "";
  size_t least = SIZE_MAX;
  for (size_t i = 0; i < ser_parameter_count; i++) {
    char candidate[64];
    snprintf(candidate, sizeof candidate, "%s", ser_parameter_rows[i].key);
    for (;;) {
      bool whole = strlen(candidate) == strlen(ser_parameter_rows[i].key);
      if (whole != group && apart(key, candidate) < least) {
        least = apart(key, candidate);
        memcpy(best, candidate, sizeof best);
      }
      char *dot = strrchr(candidate, '.');
      if (!dot) break;
      *dot = 0;
    }
  }
  if (!ser_is_near(key, best) && !ser_is_near(last_part(key), last_part(best)))
    return ser_fail(err, SER_USAGE, "%s: unknown key '%s'; 'serenade info config' lists those that there are", where,
                    key);
  return ser_fail(err, SER_USAGE, "%s: unknown key '%s'; the nearest is %s ('serenade info config' lists them all)",
                  where, key, best);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* Writes what a row takes: "a whole number from 1 to 10", "a number above 0 and at most 1", "one of a, b". */
static void expected(char *text, size_t size, const ser_parameter_row *row) {
  if (row->choices) {
    size_t used = (size_t)snprintf(text, size, "%s", strchr(row->choices, ' ') ? "one of " : "");
    for (const char *at = row->choices; *at && used + 3 < size; at++) {
      if (*at == ' ') text[used++] = ',';
      text[used++] = *at;
    }
    text[used] = 0;
    return;
  }
  if (row->kind == KIND_BOOL) {
    snprintf(text, size, "true or false");
    return;
  }
  char open, close;
  double least, most;
  SER_CHECK(row->range && sscanf(row->range, "%c%lf, %lf%c", &open, &least, &most, &close) == 4);
  bool whole = row->kind != KIND_REAL;
  snprintf(text, size, "a %snumber %s %.16g and %s %.16g", whole ? "whole " : "", open == '(' ? "above" : "from", least,
           close == ')' ? "below" : "at most", most);
}

static ser_status refuse(const ser_parameter_row *row, const char *where, const char *item, ser_error *err) {
  char text[256];
  expected(text, sizeof text, row);
  return ser_fail(err, SER_USAGE, "%s: %s is '%s', but it must be %s", where, row->key, item, text);
}

/* The number of a word in choices, or -1. */
static int choice_of(const char *choices, const char *item) {
  size_t size = strlen(item);
  int number = 0;
  for (const char *at = choices; *at; number++) {
    size_t word = strcspn(at, " ");
    if (word == size && !memcmp(at, item, size)) return number;
    at += word + (at[word] == ' ');
  }
  return -1;
}

static ser_status refuse_choice(const ser_parameter_row *row, const char *where, const char *item, ser_error *err) {
  char text[256], word[64], best[64] = "";
  size_t nearest = SIZE_MAX;
  expected(text, sizeof text, row);
  for (const char *at = row->choices; *at;) {
    size_t size = strcspn(at, " ");
    snprintf(word, sizeof word, "%.*s", (int)size, at);
    size_t distance = ser_edit_distance(item, word);
    if (distance < nearest) {
      nearest = distance;
      memcpy(best, word, sizeof best);
    }
    at += size + (at[size] == ' ');
  }
  bool near = ser_is_near(item, best);
  return ser_fail(err, SER_USAGE, "%s: %s is '%s', but it must be %s%s%s", where, row->key, item, text,
                  near ? "; the nearest is " : "", near ? best : "");
}

static bool in_range(const ser_parameter_row *row, double value) {
  char open, close;
  double least, most;
  if (!row->range) return true;
  SER_CHECK(sscanf(row->range, "%c%lf, %lf%c", &open, &least, &most, &close) == 4);
  return (open == '(' ? value > least : value >= least) && (close == ')' ? value < most : value <= most);
}

/* Digits alone: no hexadecimal, no "inf", no blanks before or behind. */
static bool looks_like_number(const char *item) {
  return *item && strspn(item, "0123456789+-.eE") == strlen(item);
}

static ser_status parse_integer(int64_t *out, const ser_parameter_row *row, const char *where, const char *item,
                                ser_error *err) {
  char *end;
  errno = 0;
  long long value = looks_like_number(item) ? strtoll(item, &end, 10) : 0;
  if (!looks_like_number(item) || *end || errno || !in_range(row, (double)value)) return refuse(row, where, item, err);
  if (row->choices && choice_of(row->choices, item) < 0) return refuse_choice(row, where, item, err);
  *out = value;
  return SER_OK;
}

static ser_status parse_real(double *out, const ser_parameter_row *row, const char *where, const char *item,
                             ser_error *err) {
  char *end;
  double value = looks_like_number(item) ? strtod(item, &end) : 0;
  if (!looks_like_number(item) || *end || !isfinite(value) || !in_range(row, value))
    return refuse(row, where, item, err);
  *out = value == 0 ? 0 : value; /* no negative zero in the files we write */
  return SER_OK;
}

static ser_status parse_bool(bool *out, const ser_parameter_row *row, const char *where, const char *item,
                             ser_error *err) {
  if (choice_of("true yes on", item) >= 0)
    *out = true;
  else if (choice_of("false no off", item) >= 0)
    *out = false;
  else
    return refuse(row, where, item, err);
  return SER_OK;
}

static ser_status parse_text(char **out, const ser_parameter_row *row, const char *where, const char *item,
                             ser_error *err) {
  if (row->choices && choice_of(row->choices, item) < 0) return refuse_choice(row, where, item, err);
  if (!ser_is_utf8(item))
    return ser_fail(err, SER_USAGE, "%s: %s is not UTF-8; rename what it names, or link to it under another name",
                    where, row->key);
  free(*out);
  *out = ser_strdup(item);
  return SER_OK;
}

static ser_status parse_integers(ser_int_list *out, const ser_parameter_row *row, const char *where,
                                 const char *const *items, size_t count, ser_error *err) {
  int64_t *values = ser_alloc_zero(count + 1, sizeof *values);
  for (size_t i = 0; i < count; i++) {
    ser_status status = parse_integer(&values[i], row, where, items[i], err);
    for (size_t j = 0; j < i && status == SER_OK; j++)
      if (values[j] == values[i])
        status = ser_fail(err, SER_USAGE, "%s: %s holds %s twice; take one out", where, row->key, items[i]);
    if (status != SER_OK) {
      free(values);
      return status;
    }
  }
  free(out->values);
  *out = (ser_int_list){(int64_t)count, values};
  return SER_OK;
}

static ser_status parse_texts(ser_text_list *out, const ser_parameter_row *row, const char *where,
                              const char *const *items, size_t count, ser_error *err) {
  ser_text_list list = {0, ser_alloc_zero(count + 1, sizeof(char *))};
  ser_status status = SER_OK;
  for (size_t i = 0; i < count && status == SER_OK; i++) {
    for (size_t j = 0; j < i && status == SER_OK; j++)
      if (!strcmp(items[j], items[i]))
        status = ser_fail(err, SER_USAGE, "%s: %s holds %s twice; take one out", where, row->key, items[i]);
    if (status == SER_OK && !*items[i])
      status = ser_fail(err, SER_USAGE, "%s: %s holds an empty name; take it out", where, row->key);
    if (status == SER_OK) status = parse_text(&list.values[list.count], row, where, items[i], err);
    if (status == SER_OK) list.count++;
  }
  ser_text_list *dropped = status == SER_OK ? out : &list;
  for (int64_t i = 0; i < dropped->count; i++) free(dropped->values[i]);
  free(dropped->values);
  if (status == SER_OK) *out = list;
  return status;
}

void ser_parameter_came_from(ser_config *config, const ser_parameter_row *row, const char *where) {
  ser_origin *origin = &config->origins[row - ser_parameter_rows];
  char *copy = ser_strdup(where);
  free(origin->where);
  *origin = (ser_origin){copy, ++config->turns};
}

static ser_status store(ser_config *config, const ser_parameter_row *row, const char *where, const char *const *items,
                        size_t count, ser_error *err) {
  void *field = (char *)config + row->offset;
  bool list = row->kind == KIND_INTEGERS || row->kind == KIND_TEXTS;
  if (!list && count != 1) return ser_fail(err, SER_USAGE, "%s: %s is a list, but it takes one value", where, row->key);
  switch (row->kind) {
  case KIND_TEXT:
    return parse_text(field, row, where, items[0], err);
  case KIND_INTEGER:
    return parse_integer(field, row, where, items[0], err);
  case KIND_REAL:
    return parse_real(field, row, where, items[0], err);
  case KIND_BOOL:
    return parse_bool(field, row, where, items[0], err);
  case KIND_INTEGERS:
    return parse_integers(field, row, where, items, count, err);
  case KIND_TEXTS:
    return parse_texts(field, row, where, items, count, err);
  case KIND_CHOICE:
    break;
  }
  int choice = choice_of(row->choices, items[0]);
  if (choice < 0) return refuse_choice(row, where, items[0], err);
  *(unsigned *)field = (unsigned)choice;
  return SER_OK;
}

ser_status ser_parameter_assign(ser_config *config, const ser_parameter_row *row, const char *where,
                                const char *const *items, size_t count, ser_error *err) {
  SER_TRY(store(config, row, where, items, count, err));
  ser_parameter_came_from(config, row, where);
  return SER_OK;
}

static char *trimmed(char *text) {
  text += strspn(text, " \t");
  size_t size = strlen(text);
  while (size && (text[size - 1] == ' ' || text[size - 1] == '\t')) text[--size] = 0;
  return text;
}

ser_status ser_parameter_assign_text(ser_config *config, const ser_parameter_row *row, const char *where,
                                     const char *text, ser_error *err) {
  if (row->kind != KIND_INTEGERS && row->kind != KIND_TEXTS)
    return ser_parameter_assign(config, row, where, &text, 1, err);
  char *copy = ser_strdup(text), *at = trimmed(copy);
  size_t size = strlen(at), count = 0;
  if (at[0] == '[' && at[size - 1] == ']') {
    at[size - 1] = 0;
    at = trimmed(at + 1);
  }
  const char **items = ser_alloc_zero(strlen(at) + 1, sizeof *items);
  while (*at) {
    char *item = at;
    at += strcspn(at, ",");
    if (*at) *at++ = 0;
    items[count++] = trimmed(item);
  }
  ser_status status = ser_parameter_assign(config, row, where, items, count, err);
  free(items);
  free(copy);
  return status;
}
