/* The table of parameters: names, shapes and places in the flat buffer for each configuration of the model. Allocation,
 * initialisation, the optimiser, checkpoints, the model file and the tests all go by it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/internal.h"

typedef struct {
  ser_parameter *rows;
  size_t count, capacity;
  int64_t end; /* elements placed so far */
} table;

/* Appends a row behind the others. Vectors are read in whole channel pads, so each row starts at a multiple of 16 and
 * what lies between two rows stays zero: its gradient is zero, and Adam leaves it so. */
static void add(table *t, bool trained, ser_init init, const int64_t *shape, int dimensions, const char *prefix,
                const char *name) {
  SER_GROW(t->rows, t->count, t->capacity);
  ser_parameter *row = &t->rows[t->count++];
  memset(row, 0, sizeof *row);
  snprintf(row->name, sizeof row->name, "%s%s", prefix, name);
  row->dimensions = dimensions;
  row->count = 1;
  for (int i = 0; i < dimensions; i++) {
    row->shape[i] = shape[i];
    row->count *= shape[i];
  }
  row->init = init;
  row->trained = trained;
  if (init == SER_INIT_GLOROT) {
    int64_t taps = dimensions == 3 ? shape[2] : 1;
    row->fan_in = shape[1] * taps;
    row->fan_out = shape[0] * taps;
  }
  row->offset = t->end;
  t->end = SER_ROUND_UP(t->end + row->count, 16);
}

static void add_block(table *t, bool trained, const ser_model_config *config, const char *direction, int64_t block) {
  int64_t f = config->filters;
  for (int i = 1; i <= 2; i++) {
    char conv[32], norm[32];
    snprintf(conv, sizeof conv, "%s.%d.conv%d.", direction, (int)block, i);
    snprintf(norm, sizeof norm, "%s.%d.norm%d.", direction, (int)block, i);
    if (trained) {
      add(t, true, SER_INIT_GLOROT, (int64_t[]){f, f, config->kernel}, 3, conv, "weight");
      add(t, true, SER_INIT_ONE, &f, 1, norm, "weight");
      add(t, true, SER_INIT_ZERO, &f, 1, norm, "bias");
    } else {
      add(t, false, SER_INIT_ZERO, &f, 1, norm, "running_mean");
      add(t, false, SER_INIT_ONE, &f, 1, norm, "running_var");
    }
  }
}

static void add_branch(table *t, bool trained, const ser_model_config *config) {
  static const char *const directions[2] = {"forward", "backward"};
  int64_t f = config->filters;
  for (int d = 0; d < 2; d++) {
    char input[32];
    snprintf(input, sizeof input, "%s.input.", directions[d]);
    if (trained) {
      add(t, true, SER_INIT_GLOROT, (int64_t[]){f, config->channels, 1}, 3, input, "weight");
      add(t, true, SER_INIT_ZERO, &f, 1, input, "bias");
    }
    for (int64_t i = 0; i < config->blocks; i++) add_block(t, trained, config, directions[d], i);
  }
}

int64_t ser_model_scales(const ser_model_config *config) {
  return config->branch == SER_BRANCH_TIMNET ? config->blocks : 1;
}

ser_parameter *ser_parameters_make(const ser_model_config *config, size_t *count, int64_t *trained_count,
                                   int64_t *flat_count) {
  table t = {0};
  add_branch(&t, true, config);
  if (config->branch == SER_BRANCH_TIMNET) add(&t, true, SER_INIT_SCALE, &config->blocks, 1, "scales.", "weight");
  add(&t, true, SER_INIT_GLOROT, (int64_t[]){config->classes, config->filters}, 2, "head.", "weight");
  add(&t, true, SER_INIT_ZERO, &config->classes, 1, "head.", "bias");
  *trained_count = t.end;
  add_branch(&t, false, config);
  *flat_count = t.end;
  *count = t.count;
  return t.rows;
}

const ser_parameter *ser_parameters_find(const ser_parameter *parameters, size_t count, const char *name) {
  for (size_t i = 0; i < count; i++)
    if (!strcmp(parameters[i].name, name)) return &parameters[i];
  SER_CHECK(!"a parameter of this name");
  return NULL;
}

ser_side_strides ser_parameters_strides(const ser_parameter *parameters, size_t count) {
  ser_side_strides strides = {0, 0};
  for (size_t i = 0; i < count; i++) {
    const ser_parameter *p = &parameters[i];
    char name[sizeof p->name + 1];
    if (strncmp(p->name, "forward.", 8) != 0) continue;
    snprintf(name, sizeof name, "backward.%s", p->name + 8);
    const ser_parameter *twin = ser_parameters_find(parameters, count, name);
    int64_t *stride = p->trained ? &strides.trained : &strides.running, distance = twin->offset - p->offset;
    if (!*stride) *stride = distance;
    SER_CHECK(distance == *stride && twin->count == p->count && twin->trained == p->trained);
  }
  return strides;
}
