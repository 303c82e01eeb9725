/* The features of a manifest's usable rows, read from the cache into memory once for all folds and seeds. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "train/train.h"

/* Lists the rows that take part: usable, of an emotion that is asked for, with features. A row whose features are not
 * there yet is an error; one that is too short or was refused while decoding is left out. */
static ser_status list_rows(ser_dataset *dataset, const ser_manifest *manifest, const ser_cache *cache,
                            ser_error *err) {
  for (size_t i = 0; i < manifest->count; i++) {
    const ser_row *row = &manifest->rows[i];
    dataset->by_row[i] = SIZE_MAX;
    if (!ser_row_usable(row) || row->emotion < 0 || row->emotion >= dataset->classes) continue;
    ser_entry_status found = ser_cache_find(cache, &row->hash, NULL);
    if (found == SER_ENTRY_MISSING)
      return ser_fail(err, SER_FAILED,
                      "%s has no features in %s; run index again where the file has changed since, else extract",
                      row->path, ser_cache_folder(cache));
    if (found != SER_ENTRY_OK) continue;
    dataset->by_row[i] = dataset->clips;
    dataset->truth[dataset->clips] = row->emotion;
    dataset->row[dataset->clips++] = i;
  }
  return SER_OK;
}

ser_status ser_dataset_load(ser_dataset *dataset, const ser_manifest *manifest, ser_cache *cache, int64_t channels,
                            int64_t emotions, ser_error *err) {
  memset(dataset, 0, sizeof *dataset);
  dataset->channels = channels;
  dataset->classes = emotions;
  for (int i = 0; i < SER_EMOTIONS; i++) dataset->emotions[i] = i; /* labels are the first emotions, in their order */
  dataset->row = ser_alloc((manifest->count + 1) * sizeof *dataset->row);
  dataset->truth = ser_alloc((manifest->count + 1) * sizeof *dataset->truth);
  dataset->by_row = ser_alloc((manifest->count + 1) * sizeof *dataset->by_row);
  ser_status status = list_rows(dataset, manifest, cache, err);
  if (status == SER_OK) {
    ser_hash *keys = ser_alloc((dataset->clips + 1) * sizeof *keys);
    for (size_t i = 0; i < dataset->clips; i++) keys[i] = manifest->rows[dataset->row[i]].hash;
    status = ser_cache_read(cache, &dataset->offset, &dataset->features, keys, dataset->clips, err);
    free(keys);
  }
  if (status != SER_OK) ser_dataset_free(dataset);
  return status;
}

void ser_dataset_free(ser_dataset *dataset) {
  free(dataset->row);
  free(dataset->offset);
  free(dataset->features);
  free(dataset->truth);
  free(dataset->by_row);
  memset(dataset, 0, sizeof *dataset);
}
