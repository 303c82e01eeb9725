/* PyTorch's files made by hand. */
#include "support/pytorch.h"

#include <stdlib.h>
#include <string.h>

#include "support/harness.h"

static void put(ser_text *text, unsigned long long number, int width) {
  for (int i = 0; i < width; i++) ser_text_add(text, &(char){(char)(i < 8 ? number >> (8 * i) : 0)}, 1);
}

/* ---- ZIP --------------------------------------------------------------------------------------------------------- */

static void put_header(ser_text *text, const test_zip *zip, bool central, const char *name, size_t size, size_t local) {
  unsigned long long told = (unsigned long long)((long long)size + zip->grow);
  const bool wide = zip->wide && central, hidden = zip->described && !central;
  ser_text_add(text, central ? "PK\1\2" : "PK\3\4", 4);
  if (central) put(text, 45, 2);
  put(text, 45, 2);
  put(text, (unsigned)zip->flags | (zip->described ? 8 : 0), 2);
  put(text, (unsigned)zip->method, 2);
  put(text, 0, 8); /* time, CRC: nobody looks at them */
  put(text, wide ? 0xffffffff : hidden ? 0 : told, 4);
  put(text, wide ? 0xffffffff : hidden ? 0 : told, 4);
  put(text, strlen(name), 2);
  put(text, wide ? 28 : central ? 0 : 5, 2);
  if (central) {
    put(text, 0, 10); /* comment, disk, attributes */
    put(text, wide ? 0xffffffff : local, 4);
  }
  ser_text_puts(text, name);
  if (wide) {
    put(text, 1, 2);
    put(text, 24, 2);
    put(text, told, 8);
    put(text, told, 8);
    put(text, local, 8);
  } else if (!central) {
    ser_text_add(text, "FB\1\0Z", 5); /* padding, as PyTorch has it */
  }
}

void test_zip_add(test_zip *zip, const char *name, const void *bytes, size_t size) {
  const size_t local = zip->bytes.size;
  put_header(&zip->bytes, zip, false, zip->local_name ? zip->local_name : name, size, 0);
  if (size) ser_text_add(&zip->bytes, bytes, size);
  if (zip->described) {
    ser_text_add(&zip->bytes, "PK\7\10", 4);
    put(&zip->bytes, 0, 4);
    put(&zip->bytes, size, 8);
    put(&zip->bytes, size, 8);
  }
  put_header(&zip->directory, zip, true, name, size, (size_t)((long long)local + zip->shift));
  zip->count++;
  zip->method = zip->flags = 0;
  zip->shift = zip->grow = 0;
  zip->local_name = NULL;
}

void test_zip_end(test_zip *zip) {
  const size_t begin = zip->bytes.size, size = zip->directory.size, end = begin + size;
  if (size) ser_text_add(&zip->bytes, zip->directory.data, size);
  if (zip->wide) {
    ser_text_add(&zip->bytes, "PK\6\6", 4);
    put(&zip->bytes, 44, 8);
    put(&zip->bytes, 45, 2);
    put(&zip->bytes, 45, 2);
    put(&zip->bytes, 0, 8);
    put(&zip->bytes, zip->count, 8);
    put(&zip->bytes, zip->count, 8);
    put(&zip->bytes, size, 8);
    put(&zip->bytes, begin, 8);
    ser_text_add(&zip->bytes, "PK\6\7", 4);
    put(&zip->bytes, 0, 4);
    put(&zip->bytes, end, 8);
    put(&zip->bytes, 1, 4);
  }
  ser_text_add(&zip->bytes, "PK\5\6", 4);
  put(&zip->bytes, 0, 4);
  put(&zip->bytes, zip->wide ? 0xffff : zip->count, 2);
  put(&zip->bytes, zip->wide ? 0xffff : zip->count, 2);
  put(&zip->bytes, zip->wide ? 0xffffffff : size, 4);
  put(&zip->bytes, zip->wide ? 0xffffffff : begin, 4);
  put(&zip->bytes, 0, 2);
  free(zip->directory.data);
  zip->directory = (ser_text){0};
}

/* ---- pickles ----------------------------------------------------------------------------------------------------- */

static void put_text(ser_text *pickle, const char *text) {
  ser_text_puts(pickle, "X");
  put(pickle, strlen(text), 4);
  ser_text_puts(pickle, text);
}

static void put_number(ser_text *pickle, long long number) {
  ser_text_add(pickle, "\x8a\x08", 2);
  put(pickle, (unsigned long long)number, 8);
}

void test_pickle_begin(ser_text *pickle) {
  ser_text_add(pickle, "\x80\x02", 2);
  ser_text_puts(pickle, "ccollections\nOrderedDict\n)R(");
}

void test_pickle_tensor(ser_text *pickle, const test_pickled *t, bool legacy) {
  int64_t strides[8] = {0}, step = 1;
  for (int i = t->dimensions; i-- > 0 && !t->stride; step *= t->shape[i]) strides[i] = step;
  put_text(pickle, t->name);
  ser_text_puts(pickle, "ctorch._utils\n_rebuild_tensor_v2\n((");
  put_text(pickle, "storage");
  ser_text_printf(pickle, "ctorch\n%s\n", t->storage);
  put_text(pickle, t->key);
  put_text(pickle, "cpu");
  put_number(pickle, t->elements);
  ser_text_puts(pickle, legacy ? "NtQ" : "tQ");
  put_number(pickle, t->offset);
  for (int part = 0; part < 2; part++) {
    ser_text_puts(pickle, "(");
    for (int i = 0; i < t->dimensions; i++)
      put_number(pickle, !part ? t->shape[i] : t->stride ? t->stride[i] : strides[i]);
    ser_text_puts(pickle, "t");
  }
  ser_text_puts(pickle, "\x89"
                        "ccollections\nOrderedDict\n)RtR");
}

void test_pickle_end(ser_text *pickle) {
  ser_text_puts(pickle, "u.");
}

void test_pytorch_zip(ser_text *file, const ser_text *pickle, const test_storage *storages, size_t count) {
  test_zip zip = {0};
  test_zip_add(&zip, "archive/data.pkl", pickle->data, pickle->size);
  test_zip_add(&zip, "archive/byteorder", "little", 6);
  for (size_t i = 0; i < count; i++) {
    char *name = ser_format("archive/data/%s", storages[i].key);
    test_zip_add(&zip, name, storages[i].bytes, storages[i].size);
    free(name);
  }
  test_zip_add(&zip, "archive/version", "3\n", 2);
  test_zip_end(&zip);
  *file = zip.bytes;
}

void test_pytorch_legacy(ser_text *file, const ser_text *pickle, const test_storage *storages, size_t count) {
  ser_text_add(file, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
  ser_text_add(file, "\x80\x02M\xe9\x03.\x80\x02}(", 10);
  put_text(file, "little_endian");
  ser_text_add(file, "\x88u.", 3);
  ser_text_add(file, pickle->data, pickle->size);
  ser_text_add(file, "\x80\x02](", 4);
  for (size_t i = 0; i < count; i++) put_text(file, storages[i].key);
  ser_text_puts(file, "e.");
  for (size_t i = 0; i < count; i++) {
    put(file, storages[i].elements, 8);
    ser_text_add(file, storages[i].bytes, storages[i].size);
  }
}

/* ---- trying ------------------------------------------------------------------------------------------------------ */

ser_status test_weights_try(const char *bytes, size_t size, ser_error *err) {
  enum { MOST = 1 << 16 };
  ser_weights w;
  char *copy = ser_alloc(size);
  memcpy(copy, bytes, size);
  ser_status status = ser_weights_parse(&w, copy, size, "FILE", err);
  if (status != SER_OK) {
    if (!strstr(err->text, "FILE") || strchr(err->text, '\n')) fail_msg("a refusal reads: %s", err->text);
    assert_null(w.tensors);
  } else {
    float *numbers = ser_alloc(MOST * sizeof *numbers);
    for (size_t i = 0; i < w.count; i++) {
      int64_t count = ser_weight_elements(&w.tensors[i]), least = count < MOST ? count : MOST;
      if (!ser_weight_readable(&w.tensors[i]) || count < 1) continue;
      ser_weight_read(numbers, &w.tensors[i], 0, least);
      ser_weight_read(numbers, &w.tensors[i], count - least, least);
    }
    free(numbers);
    ser_weights_close(&w);
  }
  free(copy);
  return status;
}
