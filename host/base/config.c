/* The configuration: defaults, --set, the rules across keys, writing and describing. Reading YAML is config_read.c, the
 * table and its types are config_table.c. */
#include "base/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config_table.h"

const char *const ser_feature_names[SER_FEATURES] = {"mfcc39", "timnet", "wav2vec2"};
const char *const ser_corpus_names[SER_CORPORA] = {"ravdess", "cremad", "tess", "savee", "csv"};
_Static_assert(sizeof(ser_split_kind) == sizeof(unsigned), "enumerations are stored as the table stores them");

char *ser_corpus_list(const char *prefix) {
  ser_text text = {0};
  for (int i = 0; i < SER_CORPORA; i++)
    ser_text_printf(&text, "%s%s%s", i == 0 ? "" : i + 1 == SER_CORPORA ? " or " : ", ", prefix, ser_corpus_names[i]);
  return text.data;
}

void ser_config_init(ser_config *config) {
  memset(config, 0, sizeof *config);
  config->origins = ser_alloc_zero(ser_parameter_count, sizeof *config->origins);
  for (size_t i = 0; i < ser_parameter_count; i++) {
    ser_error err = {0};
    const ser_parameter_row *row = &ser_parameter_rows[i];
    SER_CHECK(ser_parameter_assign_text(config, row, "default", row->preset, &err) == SER_OK);
    free(config->origins[i].where);
    config->origins[i].where = NULL;
  }
}

void ser_config_free(ser_config *config) {
  for (size_t i = 0; i < ser_parameter_count; i++) {
    void *field = (char *)config + ser_parameter_rows[i].offset;
    if (ser_parameter_rows[i].kind == KIND_TEXT) free(*(char **)field);
    if (ser_parameter_rows[i].kind == KIND_INTEGERS) free(((ser_int_list *)field)->values);
    if (ser_parameter_rows[i].kind == KIND_TEXTS) {
      ser_text_list *list = field;
      for (int64_t j = 0; j < list->count; j++) free(list->values[j]);
      free(list->values);
    }
    if (config->origins) free(config->origins[i].where);
  }
  free(config->origins);
  memset(config, 0, sizeof *config);
}

void ser_config_copy(ser_config *to, const ser_config *from) {
  *to = *from;
  to->origins = ser_alloc_zero(ser_parameter_count, sizeof *to->origins);
  for (size_t i = 0; i < ser_parameter_count; i++) {
    to->origins[i] = (ser_origin){ser_strdup(from->origins[i].where), from->origins[i].turn};
    void *field = (char *)to + ser_parameter_rows[i].offset;
    if (ser_parameter_rows[i].kind == KIND_TEXT) *(char **)field = ser_strdup(*(char **)field);
    if (ser_parameter_rows[i].kind == KIND_INTEGERS) {
      ser_int_list *list = field;
      const int64_t *values = list->values;
      list->values = ser_alloc_zero((size_t)list->count + 1, sizeof *values);
      if (list->count) memcpy(list->values, values, (size_t)list->count * sizeof *values);
    }
    if (ser_parameter_rows[i].kind == KIND_TEXTS) {
      ser_text_list *list = field;
      char **values = list->values;
      list->values = ser_alloc_zero((size_t)list->count + 1, sizeof *values);
      for (int64_t j = 0; j < list->count; j++) list->values[j] = ser_strdup(values[j]);
    }
  }
}

ser_status ser_config_set(ser_config *config, const char *assignment, ser_error *err) {
  const char *equals = strchr(assignment, '=');
  char *where = ser_format("--set %s", assignment);
  char *key = equals ? ser_format("%.*s", (int)(equals - assignment), assignment) : NULL;
  const ser_parameter_row *row = key ? ser_parameter_find(key) : NULL;
  ser_status status;
  if (!equals)
    status = ser_fail(err, SER_USAGE, "%s: there is no '='; write --set KEY=VALUE, as in --set train.epochs=60", where);
  else if (!row && ser_parameter_is_group(key))
    status = ser_fail(err, SER_USAGE, "%s: %s is a group of keys; name one of them ('serenade info config' lists them)",
                      where, key);
  else if (!row)
    status = ser_parameter_unknown(where, key, false, err);
  else
    status = ser_parameter_assign_text(config, row, where, equals + 1, err);
  free(key);
  free(where);
  return status;
}

/* ---- where keys were given ----------------------------------------------------------------------------------------
 */

void ser_config_came_from(ser_config *config, const char *key, const char *where) {
  const ser_parameter_row *row = ser_parameter_find(key);
  SER_CHECK(row);
  ser_parameter_came_from(config, row, where);
}

ser_status ser_config_refuse(ser_error *err, const ser_config *config, const char *keys, const char *format, ...) {
  const ser_origin *last = NULL;
  ser_text text = {0};
  for (const char *at = keys; *at; at += strspn(at, " ")) {
    size_t size = strcspn(at, " ");
    char *key = ser_format("%.*s", (int)size, at);
    const ser_parameter_row *row = ser_parameter_find(key);
    SER_CHECK(row);
    const ser_origin *origin = &config->origins[row - ser_parameter_rows];
    if (origin->where && (!last || origin->turn > last->turn)) last = origin;
    free(key);
    at += size;
  }
  va_list arguments;
  va_start(arguments, format);
  ser_text_printf(&text, "%s%s", last ? last->where : "", last ? ": " : "");
  ser_text_vprintf(&text, format, arguments);
  va_end(arguments);
  ser_fail(err, SER_USAGE, "%s", text.data);
  free(text.data);
  return SER_USAGE;
}

/* ---- rules across keys ------------------------------------------------------------------------------------------- */

static ser_status check_mfcc(const ser_config *config, ser_feature_kind kind, ser_error *err) {
  const ser_mfcc_config *mfcc = ser_config_mfcc(config, kind);
  const char *name = ser_feature_names[kind];
  long long n_fft = mfcc->n_fft, hop = mfcc->hop, mels = mfcc->mels;
  char keys[256];
#define KEYS(one, other) (snprintf(keys, sizeof keys, "features.%s." one " features.%s." other, name, name), keys)
  if (n_fft & (n_fft - 1))
    return ser_config_refuse(err, config, KEYS("n_fft", "n_fft"),
                             "features.%s.n_fft is %lld, but it must be a power of two, such as 2048", name, n_fft);
  if (hop > n_fft)
    return ser_config_refuse(
        err, config, KEYS("hop", "n_fft"),
        "features.%s.hop (%lld) is above features.%s.n_fft (%lld): frames would skip sound; lower the hop", name, hop,
        name, n_fft);
  if (mels > n_fft / 2)
    return ser_config_refuse(
        err, config, KEYS("mels", "n_fft"),
        "features.%s.mels (%lld) is above half of features.%s.n_fft (%lld); lower it, or raise n_fft", name, mels, name,
        n_fft);
  if (mfcc->coefficients > mels)
    return ser_config_refuse(
        err, config, KEYS("coefficients", "mels"),
        "features.%s.coefficients (%lld) is above features.%s.mels (%lld); lower it, or raise mels", name,
        (long long)mfcc->coefficients, name, mels);
  if (mfcc->deltas && mfcc->frames < 9)
    return ser_config_refuse(err, config, KEYS("frames", "deltas"),
                             "features.%s.frames is %lld, but with deltas a clip has at least 9 frames; raise it to 9",
                             name, (long long)mfcc->frames);
  if (mfcc->deltas && mfcc->samples && mfcc->samples / hop + 1 < 9)
    return ser_config_refuse(err, config, KEYS("samples", "deltas"),
                             "features.%s.samples (%lld) gives fewer than the 9 frames that deltas need; raise it",
                             name, (long long)mfcc->samples);
#undef KEYS
  return SER_OK;
}

static ser_status check_split(const ser_config *config, ser_error *err) {
  bool file = *config->split.file != 0, given = config->split.test_speakers.count > 0;
  if (config->split.kind == SER_SPLIT_FILE && !file)
    return ser_config_refuse(err, config, "split.kind",
                             "split.kind is file, but split.file names none; set split.file");
  if (config->split.kind != SER_SPLIT_FILE && file)
    return ser_config_refuse(err, config, "split.file split.kind",
                             "split.file is given, but split.kind is not file; set split.kind=file");
  if (config->split.kind != SER_SPLIT_SPEAKER && given)
    return ser_config_refuse(err, config, "split.test_speakers split.kind",
                             "split.test_speakers is given, but split.kind is not speaker; set split.kind=speaker");
  if (given && config->split.folds)
    return ser_config_refuse(err, config, "split.test_speakers split.folds",
                             "split.test_speakers and split.folds exclude each other; take one of them out");
  if (config->split.folds == 1)
    return ser_config_refuse(err, config, "split.folds",
                             "split.folds is 1, but folds are at least 2; 0 means one split");
  if (config->split.kind == SER_SPLIT_FILE && config->split.folds)
    return ser_config_refuse(
        err, config, "split.folds split.kind",
        "split.folds is given, but with split.kind=file the file names the folds; set split.folds=0");
  double left = (1 - config->split.test) * (1 - config->split.validation);
  if (left < 0.05 && config->split.kind == SER_SPLIT_RANDOM && !config->split.folds)
    return ser_config_refuse(
        err, config, "split.test split.validation",
        "split.test and split.validation (a share of what is not test) leave %g of the clips to train on; "
        "lower one of them until 0.05 are left",
        left);
  return SER_OK;
}

double ser_config_least_window(const ser_mfcc_config *mfcc) {
  double rate = (double)mfcc->rate, own = (double)(mfcc->samples ? mfcc->samples : mfcc->frames * mfcc->hop) / rate;
  double least = (double)(mfcc->samples ? mfcc->n_fft : (mfcc->deltas ? 9 : 1) * mfcc->hop) / rate;
  least = ceil(1000 * least) / 1000; /* so that what a message names is accepted */
  return least < own ? least : own;
}

static ser_status check_windows(const ser_config *config, ser_error *err) {
  const ser_mfcc_config *mfcc = ser_config_mfcc(config, config->features.kind);
  double window = config->predict.window, own = (double)(mfcc->frames * mfcc->hop) / (double)mfcc->rate;
  double least = ser_config_least_window(mfcc);
  char keys[256];
  const char *name = ser_feature_names[config->features.kind];
  snprintf(keys, sizeof keys, "predict.window features.%s.frames features.%s.hop features.%s.rate", name, name, name);
  if (window > own)
    return ser_config_refuse(err, config, keys,
                             "predict.window (%g s) is above what the model sees at once (%g s); lower it, or raise "
                             "features.%s.frames",
                             window, own, name);
  if (window > 0 && window < least)
    return ser_config_refuse(
        err, config, keys,
        "predict.window (%g s) is below what the features need (%g s); raise it, or set 0 for what the "
        "model sees at once",
        window, least);
  if (window == 0) window = own;
  if (config->predict.hop > window)
    return ser_config_refuse(
        err, config, "predict.hop predict.window",
        "predict.hop (%g s) is above the window (%g s): sound between windows would go unheard; lower it",
        config->predict.hop, window);
  return SER_OK;
}

/* How many layers there are the encoder's files tell; here it is only a number or none. */
static ser_status check_layers(const ser_config *config, ser_error *err) {
  const char *layers = config->wav2vec2.layers;
  if (!strcmp(layers, "last") || !strcmp(layers, "all")) return SER_OK;
  size_t digits = strspn(layers, "0123456789");
  if (digits && digits <= 2 && !layers[digits]) return SER_OK;
  return ser_config_refuse(err, config, "wav2vec2.layers",
                           "wav2vec2.layers is %.40s, but it must be last, all or the number of a layer, such as 9",
                           *layers ? layers : "empty");
}

ser_status ser_config_check(const ser_config *config, ser_error *err) {
  SER_TRY(check_mfcc(config, SER_MFCC39, err));
  SER_TRY(check_mfcc(config, SER_TIMNET, err));
  SER_TRY(check_split(config, err));
  SER_TRY(check_layers(config, err));
  if (!config->train.seeds.count)
    return ser_config_refuse(err, config, "train.seeds",
                             "train.seeds is empty; give at least one seed, as in train.seeds=[1]");
  if (config->model.residual && config->model.branch == SER_BRANCH_TIMNET)
    return ser_config_refuse(
        err, config, "model.residual model.branch",
        "model.residual belongs to model.branch=reference (timnet has gates); set model.residual=false");
  return check_windows(config, err);
}

ser_device_options ser_config_device(const ser_config *config, int threads) {
  ser_device_kind kind = config->device == SER_DEVICE_AUTO ? config->settled : config->device;
  return (ser_device_options){kind, threads, config->precision, config->conv};
}

const ser_mfcc_config *ser_config_mfcc(const ser_config *config, ser_feature_kind kind) {
  return kind == SER_MFCC39 ? &config->features.mfcc39 : &config->features.timnet;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* The shortest form that reads back as the same number, with a point where there is an exponent (YAML 1.1 takes 1e-08
 * for a text). */
static void put_real(ser_text *text, double value) {
  char number[40];
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(number, sizeof number, "%.*g", digits, value);
    if (strtod(number, NULL) == value) break;
  }
  char *exponent = strchr(number, 'e');
  if (exponent && !strchr(number, '.'))
    ser_text_printf(text, "%.*s.0%s", (int)(exponent - number), number, exponent);
  else
    ser_text_puts(text, number);
}

/* The code point at *at (well-formed UTF-8), which moves behind it. */
static unsigned take_rune(const unsigned char **at) {
  unsigned first = *(*at)++;
  int more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
  unsigned rune = more ? first & (0x3fu >> more) : first;
  while (more--) rune = rune << 6 | (*(*at)++ & 0x3fu);
  return rune;
}

/* Double-quoted, with what YAML cannot hold as it is (controls, line ends, byte order marks) escaped. */
static void put_quoted(ser_text *text, const char *value) {
  ser_text_puts(text, "\"");
  for (const unsigned char *at = (const unsigned char *)value; *at;) {
    const unsigned char *from = at;
    unsigned rune = take_rune(&at);
    if (rune == '"' || rune == '\\')
      ser_text_printf(text, "\\%c", (char)rune);
    else if (rune < 0x20 || (rune >= 0x7f && rune <= 0xa0) || rune == 0x2028 || rune == 0x2029 || rune == 0xfeff ||
             rune == 0xfffe || rune == 0xffff)
      ser_text_printf(text, "\\u%04x", rune);
    else
      ser_text_add(text, (const char *)from, (size_t)(at - from));
  }
  ser_text_puts(text, "\"");
}

static void put_choice(ser_text *text, const char *choices, unsigned number) {
  while (number--) choices += strcspn(choices, " ") + 1;
  ser_text_add(text, choices, strcspn(choices, " "));
}

static void put_value(ser_text *text, const ser_config *config, const ser_parameter_row *row) {
  const void *field = (const char *)config + row->offset;
  switch (row->kind) {
  case KIND_TEXT:
    if (row->choices)
      ser_text_puts(text, *(char *const *)field);
    else
      put_quoted(text, *(char *const *)field);
    break;
  case KIND_INTEGER:
    ser_text_printf(text, "%lld", (long long)*(const int64_t *)field);
    break;
  case KIND_REAL:
    put_real(text, *(const double *)field);
    break;
  case KIND_BOOL:
    ser_text_puts(text, *(const bool *)field ? "true" : "false");
    break;
  case KIND_CHOICE:
    put_choice(text, row->choices, *(const unsigned *)field);
    break;
  case KIND_INTEGERS: {
    const ser_int_list *list = field;
    ser_text_puts(text, "[");
    for (int64_t i = 0; i < list->count; i++)
      ser_text_printf(text, "%s%lld", i ? ", " : "", (long long)list->values[i]);
    ser_text_puts(text, "]");
    break;
  }
  case KIND_TEXTS: {
    const ser_text_list *list = field;
    ser_text_puts(text, "[");
    for (int64_t i = 0; i < list->count; i++) {
      ser_text_puts(text, i ? ", " : "");
      put_quoted(text, list->values[i]);
    }
    ser_text_puts(text, "]");
    break;
  }
  }
}

void ser_config_write(ser_text *yaml, const ser_config *config) {
  ser_text_puts(yaml, "# Serenade's configuration, resolved: every key, as 'serenade info config' describes them\n");
  const char *before = "";
  for (size_t i = 0; i < ser_parameter_count; i++) {
    const char *key = ser_parameter_rows[i].key;
    /* Opens the groups that the row before does not share. */
    size_t start = 0;
    int depth = 0;
    bool shared = true;
    for (const char *dot; (dot = strchr(key + start, '.')); depth++) {
      size_t end = (size_t)(dot - key);
      shared = shared && !strncmp(before, key, end + 1);
      if (!shared) ser_text_printf(yaml, "%*s%.*s:\n", 2 * depth, "", (int)(end - start), key + start);
      start = end + 1;
    }
    ser_text_printf(yaml, "%*s%s: ", 2 * depth, "", key + start);
    put_value(yaml, config, &ser_parameter_rows[i]);
    ser_text_puts(yaml, "\n");
    before = key;
  }
}

/* A value in a line for people: a long list or path is cut. */
static void put_short(ser_text *line, const ser_text *value) {
  enum { MOST = 48 };
  size_t size = value->size > MOST ? MOST - 3 : value->size;
  size = ser_utf8_span(value->data, size);
  ser_text_printf(line, "%.*s%s", (int)size, value->data, size < value->size ? "..." : "");
}

size_t ser_config_changes(ser_text *text, const ser_config *from, const ser_config *to, size_t most) {
  ser_text old = {0}, new = {0};
  size_t changes = 0;
  for (size_t i = 0; i < ser_parameter_count; i++) {
    const ser_parameter_row *row = &ser_parameter_rows[i];
    old.size = new.size = 0;
    put_value(&old, from, row);
    put_value(&new, to, row);
    if (old.size == new.size && !memcmp(old.data, new.data, old.size)) continue;
    if (++changes > most) continue;
    ser_text_printf(text, "%s%s: ", changes > 1 ? "; " : "", row->key);
    put_short(text, &old);
    ser_text_puts(text, " -> ");
    put_short(text, &new);
  }
  if (changes > most) ser_text_printf(text, "; and %zu more", changes - most);
  free(old.data);
  free(new.data);
  return changes;
}

void ser_config_describe(ser_text *text) {
  static const char *const kinds[] = {"text", "integer", "number", "boolean", "choice", "integers", "texts"};
  ser_text_printf(text, "%-28s %-8s %-26s %-9s %s\n", "KEY", "TYPE", "RANGE", "DEFAULT", "MEANING");
  for (size_t i = 0; i < ser_parameter_count; i++) {
    const ser_parameter_row *row = &ser_parameter_rows[i];
    char range[64];
    const char *from = row->choices             ? row->choices
                       : row->range             ? row->range
                       : row->kind == KIND_BOOL ? "true false"
                                                : "-";
    size_t used = 0;
    for (; *from && used + 2 < sizeof range; from++) { /* choices: "a | b" would be wide, "a|b" is not */
      if (*from == ' ' && !row->range)
        range[used++] = '|';
      else
        range[used++] = *from;
    }
    range[used] = 0;
    ser_text_printf(text, "%-28s %-8s %-26s %-9s %s\n", row->key, kinds[row->kind], range,
                    *row->preset ? row->preset : "\"\"", row->help);
  }
}
