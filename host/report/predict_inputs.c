/* What predict is to hear: files as given, the recordings below folders, the bytes of stdin. */
#include "report/predict.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/interrupt.h"

static void add(ser_predict_inputs *inputs, const char *path, const char *data, size_t size) {
  SER_GROW(inputs->sources, inputs->count, inputs->capacity);
  inputs->sources[inputs->count++] = (ser_audio_source){ser_strdup(path), data, (int64_t)size};
}

typedef struct {
  ser_predict_inputs *inputs;
  size_t passed;
} folder_walk;

/* A file that is named itself is opened whatever it is called. */
static ser_status visit(void *context, const char *path, ser_error *err) {
  folder_walk *walk = context;
  if (ser_audio_named(path))
    add(walk->inputs, path, NULL, 0);
  else if (*ser_path_name(path) != '.') /* what a desktop leaves behind */
    walk->passed++;
  return ser_interrupt_check(err);
}

static ser_status add_folder(ser_predict_inputs *inputs, const char *folder, ser_error *err) {
  folder_walk walk = {.inputs = inputs};
  size_t before = inputs->count;
  ser_status status = ser_walk(folder, visit, &walk, err);
  if (inputs->count == before)
    ser_text_line(&inputs->empty,
                  "%s: no recording below this folder (files are taken by suffix: .wav, .flac, .ogg ...)", folder);
  else if (walk.passed)
    ser_text_line(&inputs->passed,
                  "%s: %zu %s passed over, not named as a recording (.wav, .flac, .ogg ...); a file that is named "
                  "itself is always opened",
                  folder, walk.passed, SER_PLURAL(walk.passed, "file is", "files are"));
  return status;
}

/* Waits until stdin has bytes or an end. A signal may come just before a read, or to another thread, and would not end
 * it: so it waits for moments only, and looks for one in between. */
static ser_status wait_for_stdin(ser_error *err) {
  enum { MOMENT = 200 }; /* milliseconds */
  struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
  int ready;
  do {
    SER_TRY(ser_interrupt_check(err));
    ready = poll(&in, 1, MOMENT);
  } while (ready == 0 || (ready < 0 && errno == EINTR));
  return SER_OK; /* of any other failure the read tells */
}

static ser_status read_stdin(ser_predict_inputs *inputs, ser_error *err) {
  if (inputs->stdin_bytes) return ser_fail(err, SER_USAGE, "'-' is given twice, but stdin holds one recording");
  ser_text bytes = {0};
  ser_text_add(&bytes, "", 0);
  ser_status status;
  for (;;) {
    char block[65536];
    SER_TRY_DONE(wait_for_stdin(err));
    ssize_t got = read(STDIN_FILENO, block, sizeof block);
    if (got == 0) break;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) SER_TRY_DONE(ser_fail_errno(err, SER_FAILED, "cannot read a recording from stdin"));
    ser_text_add(&bytes, block, (size_t)got);
  }
done:
  if (status != SER_OK) {
    free(bytes.data);
    return status;
  }
  inputs->stdin_bytes = bytes.data;
  add(inputs, "-", bytes.data, bytes.size);
  return SER_OK;
}

ser_status ser_predict_inputs_make(ser_predict_inputs *inputs, const char *const *paths, size_t count, ser_error *err) {
  memset(inputs, 0, sizeof *inputs);
  ser_status status = SER_OK;
  for (size_t i = 0; i < count && status == SER_OK; i++) {
    if (!strcmp(paths[i], "-"))
      status = read_stdin(inputs, err);
    else if (ser_is_folder(paths[i]))
      status = add_folder(inputs, paths[i], err);
    else
      add(inputs, paths[i], NULL, 0);
  }
  if (status != SER_OK) ser_predict_inputs_free(inputs);
  return status;
}

void ser_predict_inputs_free(ser_predict_inputs *inputs) {
  for (size_t i = 0; i < inputs->count; i++) free((char *)inputs->sources[i].path);
  free(inputs->sources);
  free(inputs->stdin_bytes);
  free(inputs->empty.data);
  free(inputs->passed.data);
  memset(inputs, 0, sizeof *inputs);
}
