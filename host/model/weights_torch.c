/* PyTorch's files as tables of tensors: the pickle's values, and where the storages that they name lie in the file. */
#include "model/weights_torch.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/weights_pickle.h"
#include "model/weights_zip.h"

/* Where the bytes of a storage are. */
typedef ser_status (*locate_fn)(void *context, const char **bytes, size_t *size, const ser_pickled *storage,
                                ser_error *err);

static ser_status damaged(const ser_weights *w, const char *what, ser_error *err) {
  return ser_fail(err, SER_FAILED, "%s is not a sound PyTorch file: %s; copy it again", w->path, what);
}

static char *shown(ser_pickled_text text) {
  char *name = ser_format("%.*s", text.size < 100 ? (int)text.size : 100, text.bytes), *form = ser_shown(name);
  free(name);
  return form;
}

/* ---- the table of tensors ---------------------------------------------------------------------------------------- */

static size_t count_tensors(const ser_pickled *value) {
  size_t count = 0;
  if (value && value->kind == SER_PICKLED_DICT)
    for (size_t i = 0; i < value->list.count; i += 2)
      count += value->list.items[i]->kind == SER_PICKLED_TEXT && value->list.items[i + 1]->kind == SER_PICKLED_TENSOR;
  return count;
}

/* The dictionary of names and tensors: the outermost one, or one in it under a name that trainers use, whichever has
 * the most tensors. */
static const ser_pickled *find_table(const ser_pickled *root) {
  static const char *const usual[] = {"state_dict", "model_state_dict", "model_state", "model", "module", "net"};
  const ser_pickled *table = root;
  for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
    const ser_pickled *inner = ser_pickled_find(root, usual[i]);
    if (count_tensors(inner) > count_tensors(table)) table = inner;
  }
  return count_tensors(table) ? table : NULL;
}

/* The elements behind a tensor's first one that its shape and strides reach to; false: beyond all numbers. */
static bool reach(int64_t *last, const ser_pickled_tensor *t) {
  *last = t->offset;
  for (int i = 0; i < t->dimensions; i++) {
    int64_t far;
    if (__builtin_mul_overflow(t->shape[i] - 1, t->stride[i], &far) || __builtin_add_overflow(*last, far, last))
      return false;
  }
  return true;
}

static ser_status place_tensor(const ser_weights *w, ser_weight *out, const ser_pickled_tensor *t, locate_fn locate,
                               void *context, ser_error *err) {
  const ser_storage_type *type = t->storage->storage.type;
  const char *bytes;
  size_t size, wanted;
  int64_t last, elements = t->storage->storage.elements;
  bool empty = false;
  memcpy(out->dtype, type->dtype, sizeof out->dtype);
  out->dimensions = t->dimensions;
  memcpy(out->shape, t->shape, sizeof out->shape);
  for (int i = 0; i < t->dimensions; i++) empty |= t->shape[i] == 0;
  if (empty) return SER_OK;
  memcpy(out->stride, t->stride, sizeof out->stride);
  SER_TRY(locate(context, &bytes, &size, t->storage, err));
  if (reach(&last, t) && last < elements && !__builtin_mul_overflow((size_t)elements, type->size, &wanted) &&
      wanted <= size) {
    out->data = bytes + (size_t)t->offset * type->size;
    out->bytes = (size_t)(last - t->offset + 1) * type->size;
    return SER_OK;
  }
  char *what = ser_format("its tensor %.100s reaches beyond its storage", out->name);
  ser_status status = damaged(w, what, err);
  free(what);
  return status;
}

static ser_status take_name(const ser_weights *w, char **name, ser_pickled_text text, ser_error *err) {
  if (text.size <= 1000 && ser_utf8_span(text.bytes, text.size) == text.size && !memchr(text.bytes, 0, text.size)) {
    *name = ser_format("%.*s", (int)text.size, text.bytes);
    return SER_OK;
  }
  char *form = shown(text), *what = ser_format("the name of its tensor %s is no text", form);
  ser_status status = damaged(w, what, err);
  free(form);
  free(what);
  return status;
}

static ser_status take_tensors(ser_weights *w, const ser_pickled *root, locate_fn locate, void *context,
                               ser_error *err) {
  const ser_pickled *table = find_table(root);
  if (!table)
    return ser_fail(err, SER_FAILED,
                    "%s holds no table of tensors (a state_dict, or one under state_dict or model); save one", w->path);
  w->tensors = ser_alloc_zero(count_tensors(table), sizeof *w->tensors);
  for (size_t i = 0; i < table->list.count; i += 2) {
    const ser_pickled *name = table->list.items[i], *value = table->list.items[i + 1];
    if (name->kind != SER_PICKLED_TEXT || value->kind != SER_PICKLED_TENSOR) continue;
    ser_weight *out = &w->tensors[w->count];
    SER_TRY(take_name(w, &out->name, name->text, err));
    w->count++; /* from here ser_weights_close frees the name */
    SER_TRY(place_tensor(w, out, value->tensor, locate, context, err));
  }
  return SER_OK;
}

/* ---- ZIP --------------------------------------------------------------------------------------------------------- */

typedef struct {
  ser_zip zip;
  const ser_weights *weights;
  const char *root; /* the folder in the archive, with its slash */
  size_t root_size;
} archive;

static const ser_zip_entry *find_entry(const archive *a, const char *name, size_t size) {
  ser_text path = {0};
  ser_text_add(&path, a->root, a->root_size);
  ser_text_add(&path, name, size);
  const ser_zip_entry *entry = ser_zip_find(&a->zip, path.data, path.size);
  free(path.data);
  return entry;
}

static ser_status locate_entry(void *context, const char **bytes, size_t *size, const ser_pickled *storage,
                               ser_error *err) {
  const archive *a = context;
  ser_pickled_text key = storage->storage.key;
  ser_text name = {0};
  ser_text_puts(&name, "data/");
  ser_text_add(&name, key.bytes, key.size);
  const ser_zip_entry *entry = find_entry(a, name.data, name.size);
  free(name.data);
  if (entry) {
    *size = (size_t)entry->size;
    return ser_zip_content(bytes, &a->zip, entry, err);
  }
  char *form = shown(key), *what = ser_format("its pickle names the storage %s, which is not there", form);
  ser_status status = damaged(a->weights, what, err);
  free(form);
  free(what);
  return status;
}

/* A small entry as text, less the blanks at its end; "" where it is missing. */
static ser_status small_entry(char text[16], const archive *a, const char *name, ser_error *err) {
  const ser_zip_entry *entry = find_entry(a, name, strlen(name));
  const char *content;
  *text = 0;
  if (!entry) return SER_OK;
  SER_TRY(ser_zip_content(&content, &a->zip, entry, err));
  size_t size = entry->size < 15 ? (size_t)entry->size : 15;
  while (size && (content[size - 1] == '\n' || content[size - 1] == ' ')) size--;
  memcpy(text, content, size);
  text[size] = 0;
  return SER_OK;
}

static ser_status check_archive(const archive *a, ser_error *err) {
  enum { NEWEST = 10 }; /* what PyTorch's own reader takes */
  char version[16], order[16], *end;
  SER_TRY(small_entry(version, a, "version", err));
  SER_TRY(small_entry(order, a, "byteorder", err));
  long number = *version ? strtol(version, &end, 10) : 1;
  if (*version && (*end || end == version || number < 1)) return damaged(a->weights, "its version is no number", err);
  if (number > NEWEST)
    return ser_fail(err, SER_FAILED,
                    "%s is of version %ld of PyTorch's format, newer than this program knows; save it as "
                    "model.safetensors",
                    a->weights->path, number);
  if (*order && strcmp(order, "little"))
    return ser_fail(err, SER_FAILED, "%s was written by a big-endian machine; save it again on a little-endian one",
                    a->weights->path);
  if (find_entry(a, "constants.pkl", 13))
    return ser_fail(err, SER_FAILED,
                    "%s is a TorchScript program, no table of tensors; save the model's state_dict instead",
                    a->weights->path);
  return SER_OK;
}

static ser_status read_archive(archive *a, ser_weights *w, ser_error *err) {
  const ser_zip_entry *found = NULL;
  const char *content;
  ser_pickle pickle;
  size_t taken;
  for (size_t i = 0; i < a->zip.count && !found; i++) {
    const ser_zip_entry *entry = &a->zip.entries[i];
    const char *slash = memchr(entry->name, '/', entry->name_size);
    if (!slash || entry->name_size - (size_t)(slash - entry->name) != 9 || memcmp(slash, "/data.pkl", 9)) continue;
    found = entry;
    a->root = entry->name;
    a->root_size = (size_t)(slash - entry->name) + 1;
  }
  if (!found)
    return ser_fail(err, SER_FAILED,
                    "%s is a ZIP file, but none of PyTorch's: it holds no data.pkl; give a model's model.safetensors "
                    "or pytorch_model.bin",
                    w->path);
  SER_TRY(check_archive(a, err));
  SER_TRY(ser_zip_content(&content, &a->zip, found, err));
  SER_TRY(ser_pickle_read(&pickle, &taken, content, (size_t)found->size, w->path, err));
  ser_status status = take_tensors(w, pickle.root, locate_entry, a, err);
  ser_pickle_free(&pickle);
  return status;
}

ser_status ser_torch_zip_read(ser_weights *weights, ser_error *err) {
  archive a = {.weights = weights};
  weights->format = "PyTorch (ZIP)";
  SER_TRY(ser_zip_open(&a.zip, weights->bytes, weights->size, weights->path, err));
  ser_status status = read_archive(&a, weights, err);
  ser_zip_close(&a.zip);
  return status;
}

/* ---- before 1.6 -------------------------------------------------------------------------------------------------- */

typedef struct {
  ser_pickled_text key;
  const ser_storage_type *type;
  int64_t elements;
  const char *bytes; /* NULL: not found yet */
} legacy_storage;

typedef struct {
  const ser_weights *weights;
  legacy_storage *storages; /* by key */
  size_t count;
} legacy;

static int by_key(const void *a, const void *b) {
  const legacy_storage *x = a, *y = b;
  size_t least = x->key.size < y->key.size ? x->key.size : y->key.size;
  int order = memcmp(x->key.bytes, y->key.bytes, least);
  return order ? order : x->key.size < y->key.size ? -1 : x->key.size > y->key.size;
}

static legacy_storage *find_storage(const legacy *l, ser_pickled_text key) {
  const legacy_storage wanted = {.key = key};
  return l->count ? bsearch(&wanted, l->storages, l->count, sizeof wanted, by_key) : NULL;
}

static ser_status locate_legacy(void *context, const char **bytes, size_t *size, const ser_pickled *storage,
                                ser_error *err) {
  const legacy *l = context;
  const legacy_storage *found = find_storage(l, storage->storage.key);
  if (!found || !found->bytes) return damaged(l->weights, "it lacks a storage that its pickle names", err);
  *bytes = found->bytes;
  *size = (size_t)found->elements * found->type->size;
  return SER_OK;
}

/* Every storage that the pickle names, each once. */
static ser_status list_storages(legacy *l, const ser_pickle *pickle, ser_error *err) {
  size_t capacity = 0, kept = 0;
  for (size_t i = 0; i < pickle->used; i++) {
    const ser_pickled *value = ser_pickle_value(pickle, i);
    if (value->kind != SER_PICKLED_STORAGE) continue;
    SER_GROW(l->storages, l->count, capacity);
    l->storages[l->count++] = (legacy_storage){value->storage.key, value->storage.type, value->storage.elements, NULL};
  }
  if (l->count) qsort(l->storages, l->count, sizeof *l->storages, by_key);
  for (size_t i = 0; i < l->count; i++) {
    const legacy_storage *last = kept ? &l->storages[kept - 1] : NULL, *this = &l->storages[i];
    if (last && !by_key(last, this)) {
      if (last->type != this->type || last->elements != this->elements)
        return damaged(l->weights, "one of its storages has two types or sizes", err);
      continue;
    }
    l->storages[kept++] = *this;
  }
  l->count = kept;
  return SER_OK;
}

/* The storages lie there in the order of the keys, each behind the number of its elements. */
static ser_status place_storages(legacy *l, const ser_pickled *keys, const char *at, size_t left, ser_error *err) {
  if (keys->kind != SER_PICKLED_LIST) return damaged(l->weights, "it has no list of its storages", err);
  for (size_t i = 0; i < keys->list.count; i++) {
    const ser_pickled *key = keys->list.items[i];
    legacy_storage *storage = key->kind == SER_PICKLED_TEXT ? find_storage(l, key->text) : NULL;
    uint64_t elements = 0;
    size_t size;
    if (!storage || storage->bytes)
      return damaged(l->weights, "its list names a storage that no tensor has, or one twice", err);
    if (left < 8) return damaged(l->weights, "it ends before its storages do", err);
    for (int k = 0; k < 8; k++) elements |= (uint64_t)(unsigned char)at[k] << (8 * k);
    at += 8;
    left -= 8;
    if (elements != (uint64_t)storage->elements)
      return damaged(l->weights, "one of its storages is not as long as its pickle says", err);
    if (__builtin_mul_overflow((size_t)elements, storage->type->size, &size) || size > left)
      return damaged(l->weights, "it ends before its storages do", err);
    storage->bytes = at;
    at += size;
    left -= size;
  }
  return SER_OK;
}

static ser_status check_machine(const ser_weights *w, const ser_pickled *version, const ser_pickled *machine,
                                ser_error *err) {
  const ser_pickled *little = ser_pickled_find(machine, "little_endian");
  if (version->kind != SER_PICKLED_INT || version->number != 1001)
    return damaged(w, "its version is not 1001, the only one there was", err);
  if (little && little->kind == SER_PICKLED_BOOL && !little->number)
    return ser_fail(err, SER_FAILED, "%s was written by a big-endian machine; save it again on a little-endian one",
                    w->path);
  return SER_OK;
}

ser_status ser_torch_legacy_read(ser_weights *weights, ser_error *err) {
  enum { MAGIC, VERSION, MACHINE, TABLE, KEYS, PICKLES };
  ser_pickle pickles[PICKLES] = {{0}};
  legacy l = {.weights = weights};
  ser_status status = SER_OK;
  size_t at = 0;
  weights->format = "PyTorch (before 1.6)";
  for (int i = 0; i < PICKLES; i++) {
    size_t taken = 0;
    SER_TRY_DONE(ser_pickle_read(&pickles[i], &taken, weights->bytes + at, weights->size - at, weights->path, err));
    at += taken;
  }
  SER_TRY_DONE(check_machine(weights, pickles[VERSION].root, pickles[MACHINE].root, err));
  SER_TRY_DONE(list_storages(&l, &pickles[TABLE], err));
  SER_TRY_DONE(place_storages(&l, pickles[KEYS].root, weights->bytes + at, weights->size - at, err));
  SER_TRY_DONE(take_tensors(weights, pickles[TABLE].root, locate_legacy, &l, err));
done:
  for (int i = 0; i < PICKLES; i++) ser_pickle_free(&pickles[i]);
  free(l.storages);
  return status;
}
