/* The folders of a run's trainings: RUN itself where there is one, else RUN/seed-S/fold-K; and how files come there. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "train/internal.h"

static char *name_of(int64_t seed, int fold, bool seeds, bool folds) {
  if (seeds && folds) return ser_format("seed %lld fold %d", (long long)seed, fold);
  if (seeds) return ser_format("seed %lld", (long long)seed);
  return folds ? ser_format("fold %d", fold) : NULL;
}

void ser_run_parts_make(ser_run_parts *parts, const ser_config *config, const char *folder, int folds) {
  size_t seeds = (size_t)config->train.seeds.count;
  parts->count = seeds * (size_t)folds;
  parts->folders = ser_alloc_zero(parts->count, sizeof *parts->folders);
  parts->names = ser_alloc_zero(parts->count, sizeof *parts->names);
  parts->seeds = ser_alloc_zero(parts->count, sizeof *parts->seeds);
  parts->folds = ser_alloc_zero(parts->count, sizeof *parts->folds);
  for (size_t i = 0; i < parts->count; i++) {
    parts->seeds[i] = config->train.seeds.values[i / (size_t)folds];
    parts->folds[i] = (int)(i % (size_t)folds);
    parts->folders[i] = parts->count == 1
                            ? ser_strdup(folder)
                            : ser_format("%s/seed-%lld/fold-%d", folder, (long long)parts->seeds[i], parts->folds[i]);
    parts->names[i] = name_of(parts->seeds[i], parts->folds[i], seeds > 1, folds > 1);
  }
}

void ser_run_parts_free(ser_run_parts *parts) {
  for (size_t i = 0; i < parts->count; i++) {
    free(parts->folders[i]);
    free(parts->names[i]);
  }
  free(parts->folders);
  free(parts->names);
  free(parts->seeds);
  free(parts->folds);
  memset(parts, 0, sizeof *parts);
}

ser_status ser_write_if_new(const char *path, const ser_text *text, ser_error *err) {
  char *before = NULL;
  size_t size = 0;
  ser_status status = ser_file_exists(path) ? ser_file_read(&before, &size, path, err) : SER_OK;
  if (status == SER_OK && (!before || size != text->size || memcmp(before, text->data, size)))
    status = ser_file_write(path, text->data, text->size, err);
  free(before);
  return status;
}
