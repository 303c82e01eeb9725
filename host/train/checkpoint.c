/* A training between two epochs, as a safetensors file: parameters, the best parameters, Adam's moments, the history so
 * far. Written whole beside its place and renamed; a checksum over all of its bytes stands in the metadata. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/safetensors.h"
#include "train/internal.h"

/* The version of the checkpoint: one that differs is refused, since a training can always begin again. */
static const char version[] = "1";

/* How the file goes on behind its 8 bytes of length: the checksum's digits stand at a place that is known. */
static const char opening[] = "{\"__metadata__\":{\"checksum\":\"";
static const char no_checksum[] = "00000000000000000000000000000000";
enum { CHECKSUM_AT = 8 + sizeof opening - 1, CHECKSUM_DIGITS = SER_HASH_HEX - 1 };

void ser_checkpoint_init(ser_checkpoint *c, int64_t flat_count, int64_t trained_count) {
  memset(c, 0, sizeof *c);
  c->flat_count = flat_count;
  c->trained_count = trained_count;
  c->parameters = ser_alloc_zero((size_t)flat_count, sizeof(float));
  c->best = ser_alloc_zero((size_t)flat_count, sizeof(float));
  c->m = ser_alloc_zero((size_t)trained_count, sizeof(float));
  c->v = ser_alloc_zero((size_t)trained_count, sizeof(float));
}

void ser_checkpoint_free(ser_checkpoint *c) {
  free(c->parameters);
  free(c->best);
  free(c->m);
  free(c->v);
  free(c->history);
  free(c->computed_on);
  memset(c, 0, sizeof *c);
}

static ser_tensor tensor_of(const char *name, const char *dtype, const void *data, size_t size, int64_t rows,
                            int64_t columns) {
  ser_tensor t = {.name = (char *)name, .dimensions = columns ? 2 : 1, .shape = {rows, columns}, .data = data};
  snprintf(t.dtype, sizeof t.dtype, "%s", dtype);
  t.bytes = size * (size_t)rows * (size_t)(columns ? columns : 1);
  return t;
}

enum { TENSORS = 6, NUMBERS = 5 };

ser_status ser_checkpoint_write(const ser_checkpoint *c, const char *path, ser_error *err) {
  const int64_t numbers[NUMBERS] = {c->seed, c->fold, c->epoch, c->step, c->best_epoch};
  const ser_tensor tensors[TENSORS] = {
      tensor_of("numbers", "I64", numbers, 8, NUMBERS, 0),
      tensor_of("history", "F64", c->history, 8, c->epoch, SER_EPOCH_VALUES),
      tensor_of("parameters", "F32", c->parameters, 4, c->flat_count, 0),
      tensor_of("best", "F32", c->best, 4, c->flat_count, 0),
      tensor_of("adam_m", "F32", c->m, 4, c->trained_count, 0),
      tensor_of("adam_v", "F32", c->v, 4, c->trained_count, 0),
  };
  const char *const keys[] = {"checksum", "serenade_checkpoint", "identity", "settings", "computed_on"};
  const char *const values[] = {no_checksum, version, c->identity, c->settings, c->computed_on};
  ser_text file = {0};
  char hex[SER_HASH_HEX];
  ser_tensors_text(&file, tensors, TENSORS, keys, values, c->computed_on ? 5 : 4);
  ser_hash hash = ser_hash_bytes(file.data, file.size);
  ser_hash_hex(hex, &hash);
  SER_CHECK(!memcmp(file.data + 8, opening, sizeof opening - 1));
  memcpy(file.data + CHECKSUM_AT, hex, CHECKSUM_DIGITS);
  ser_status status = ser_file_write(path, file.data, file.size, err);
  free(file.data);
  return status;
}

static ser_status damaged(const char *path, const char *what, ser_error *err) {
  return ser_fail(err, SER_FAILED, "the checkpoint %s is damaged (%s); remove it to train anew", path, what);
}

/* The digits stand where they belong, and all bytes with zeros in their place have that hash. */
static bool checksum_fits(const char *path, ser_status *status, ser_error *err) {
  char *bytes, digits[SER_HASH_HEX];
  size_t size;
  *status = ser_file_read(&bytes, &size, path, err);
  if (*status != SER_OK) return false;
  bool fits = size > CHECKSUM_AT + CHECKSUM_DIGITS && !memcmp(bytes + 8, opening, sizeof opening - 1);
  if (fits) {
    memcpy(digits, bytes + CHECKSUM_AT, CHECKSUM_DIGITS);
    digits[CHECKSUM_DIGITS] = 0;
    memcpy(bytes + CHECKSUM_AT, no_checksum, CHECKSUM_DIGITS);
    ser_hash told, hash = ser_hash_bytes(bytes, size);
    fits = ser_hash_parse(&told, digits) && !ser_hash_compare(&told, &hash);
  }
  free(bytes);
  return fits;
}

static bool take(void *to, const ser_tensors *tensors, const char *name, const char *dtype, size_t bytes) {
  const ser_tensor *tensor = ser_tensors_find(tensors, name);
  if (!tensor || strcmp(tensor->dtype, dtype) || tensor->bytes != bytes) return false;
  if (bytes) memcpy(to, tensor->data, bytes);
  return true;
}

static bool take_all(ser_checkpoint *c, const ser_tensors *tensors) {
  int64_t numbers[NUMBERS];
  size_t flat = (size_t)c->flat_count * sizeof(float), trained = (size_t)c->trained_count * sizeof(float);
  if (!take(numbers, tensors, "numbers", "I64", sizeof numbers)) return false;
  const ser_tensor *history = ser_tensors_find(tensors, "history");
  if (numbers[2] < 0 || !history || history->bytes / sizeof(ser_epoch) != (size_t)numbers[2]) return false;
  c->seed = numbers[0];
  c->fold = numbers[1];
  c->epoch = numbers[2];
  c->step = numbers[3];
  c->best_epoch = numbers[4];
  if (c->best_epoch < 0 || c->best_epoch > c->epoch || c->step < 0) return false;
  if (c->epoch > c->history_capacity) {
    c->history_capacity = c->epoch;
    c->history = ser_realloc(c->history, (size_t)c->epoch * sizeof *c->history);
  }
  return take(c->history, tensors, "history", "F64", (size_t)c->epoch * sizeof *c->history) &&
         take(c->parameters, tensors, "parameters", "F32", flat) && take(c->best, tensors, "best", "F32", flat) &&
         take(c->m, tensors, "adam_m", "F32", trained) && take(c->v, tensors, "adam_v", "F32", trained);
}

/* A file that is whole and of our version; to be freed where that is so. */
static ser_status open_checkpoint(ser_tensors *tensors, const char *path, ser_error *err) {
  ser_status status;
  ser_error inner = {0};
  if (!checksum_fits(path, &status, err)) return status != SER_OK ? status : damaged(path, "its checksum differs", err);
  if (ser_tensors_read(tensors, path, &inner) != SER_OK) return damaged(path, "it is no safetensors file", err);
  const char *told = ser_tensors_metadata(tensors, "serenade_checkpoint");
  if (told && !strcmp(told, version)) return SER_OK;
  ser_fail(err, SER_FAILED,
           "the checkpoint %s has version %s, but this Serenade reads version %s; remove it to train anew", path,
           told ? told : "0", version);
  ser_tensors_free(tensors);
  return SER_FAILED;
}

static ser_status read_numbers(int64_t numbers[NUMBERS], const char *path, ser_error *err) {
  ser_tensors tensors;
  SER_TRY(open_checkpoint(&tensors, path, err));
  bool fine = take(numbers, &tensors, "numbers", "I64", NUMBERS * sizeof *numbers);
  ser_tensors_free(&tensors);
  return fine ? SER_OK : damaged(path, "it has no numbers", err);
}

ser_status ser_checkpoint_epochs(int64_t *epochs, const char *path, ser_error *err) {
  int64_t numbers[NUMBERS];
  SER_TRY(read_numbers(numbers, path, err));
  *epochs = numbers[2];
  return SER_OK;
}

void ser_checkpoint_judge(bool *fits, bool *over, const char *path, const ser_config *config, int64_t seed, int fold) {
  int64_t numbers[NUMBERS];
  ser_tensors tensors;
  char settings[SER_HASH_HEX];
  *fits = true;
  *over = false;
  if (read_numbers(numbers, path, NULL) != SER_OK || open_checkpoint(&tensors, path, NULL) != SER_OK) return;
  const char *told = ser_tensors_metadata(&tensors, "settings");
  ser_training_settings(settings, config, seed);
  *fits = told && !strcmp(told, settings) && numbers[1] == fold && numbers[2] <= config->train.epochs;
  *over = ser_training_over(numbers[2], numbers[4], config->train.epochs, config->train.patience);
  ser_tensors_free(&tensors);
}

ser_status ser_checkpoint_read(ser_checkpoint *c, bool *fits, const char *identity, const char *path, ser_error *err) {
  ser_tensors tensors;
  ser_status status = SER_OK;
  *fits = false;
  SER_TRY(open_checkpoint(&tensors, path, err));
  const char *whose = ser_tensors_metadata(&tensors, "identity"), *told = ser_tensors_metadata(&tensors, "settings");
  snprintf(c->settings, sizeof c->settings, "%s", told ? told : "");
  if (whose && !strcmp(whose, identity)) {
    *fits = take_all(c, &tensors);
    if (!*fits) status = damaged(path, "its tensors are not those of its model", err);
    snprintf(c->identity, sizeof c->identity, "%s", identity);
    const char *computed_on = ser_tensors_metadata(&tensors, "computed_on"); /* of older ones it is not known */
    free(c->computed_on);
    c->computed_on = computed_on ? ser_strdup(computed_on) : NULL;
  }
  ser_tensors_free(&tensors);
  return status;
}

char *ser_computing_words(const ser_device_properties *is, const char *conv) {
  /* Among GPUs the form of the convolutions and the precision change the bytes, too. */
  if (!strcmp(conv, "cpu")) return ser_format("%s %s", is->backend, is->isa);
  return ser_format("%s %s %s %s", is->backend, is->isa, conv, is->precision);
}

char *ser_computing_name(ser_device *device) {
  ser_device_properties properties;
  device->rt->properties(device, &properties);
  return ser_computing_words(&properties, properties.conv);
}

bool ser_computing_has(const char *list, const char *name) {
  size_t size = strlen(name);
  for (const char *at = list; at; at = strstr(at, ", "), at = at ? at + 2 : NULL)
    if (!strncmp(at, name, size) && (!at[size] || at[size] == ',')) return true;
  return false;
}

char *ser_computing_join(const char *list, const char *name) {
  if (!list || !*list) return ser_strdup(name);
  return ser_computing_has(list, name) ? ser_strdup(list) : ser_format("%s, %s", list, name);
}

static void put_value(ser_text *text, double value) {
  if (isnan(value))
    ser_text_puts(text, ",");
  else
    ser_text_printf(text, ",%.9g", value);
}

void ser_history_text(ser_text *text, const ser_epoch *history, int64_t epochs, ser_select select) {
  ser_text_puts(text, "epoch,train_loss,train_war,gradient_norm,validation_loss,validation_war,validation_uar,best\n");
  const ser_epoch *best = NULL;
  for (int64_t i = 0; i < epochs; i++) {
    const ser_epoch *e = &history[i];
    bool better = ser_epoch_better(e, best, select);
    if (better) best = e;
    ser_text_printf(text, "%lld", (long long)i + 1);
    put_value(text, e->train_loss);
    put_value(text, e->train_war);
    put_value(text, e->gradient_norm);
    put_value(text, e->validation_loss);
    put_value(text, e->validation_war);
    put_value(text, e->validation_uar);
    ser_text_printf(text, ",%d\n", better);
  }
}
