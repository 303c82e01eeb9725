/* What the files of host/model share and nobody else sees. */
#ifndef SER_MODEL_INTERNAL_H
#define SER_MODEL_INTERNAL_H

#include "model/model.h"

/* Keras's batch norm, as the contract fixes it. */
#define SER_NORM_EPS 1e-3f
#define SER_NORM_MOMENTUM 0.01f

struct ser_model {
  ser_device *device;
  ser_model_config config;
  ser_parameter *parameters;
  size_t count;
  int64_t trained_count, flat_count; /* elements */
  float *flat;                       /* [flat_count] on the device; gaps between parameters are zero */
};

/* SER_USAGE, naming the key, where a configuration lies outside what a model can be. */
ser_status ser_model_check(const ser_model_config *config, ser_error *err);

/* params.c: the table of parameters of a configuration, trained ones first; the caller frees it. */
ser_parameter *ser_parameters_make(const ser_model_config *config, size_t *count, int64_t *trained_count,
                                   int64_t *flat_count);
/* The row of that name; a name that is not there is a bug. */
const ser_parameter *ser_parameters_find(const ser_parameter *parameters, size_t count, const char *name);
/* How far a parameter of backward.* lies behind its twin of forward.*, in floats: one distance for all trained ones,
 * another for all running statistics, so that one operation can take both directions. */
typedef struct {
  int64_t trained, running;
} ser_side_strides;
ser_side_strides ser_parameters_strides(const ser_parameter *parameters, size_t count);
/* How many vectors the branch pools: one, or one a block where scales are fused. */
int64_t ser_model_scales(const ser_model_config *config);

/* Device memory laid out twice: first with base NULL to learn its size, then for good. */
typedef struct {
  char *base;
  size_t used; /* bytes, a multiple of 64 */
} ser_layout;
float *ser_layout_take(ser_layout *layout, int64_t floats);
/* As ser_device_alloc, and zeroed. */
ser_status ser_device_zeroed(void *out, ser_device *device, size_t bytes, ser_error *err);

/* ---- branch/temporal.c: the temporal branch in training ---------------------------------------------------------- */

typedef struct ser_temporal ser_temporal;

/* Plans and buffers for batches of up to max_batch clips; gradients is the trained prefix's twin on the device. */
ser_status ser_temporal_create(ser_temporal **temporal, ser_model *model, float *gradients, int64_t max_batch,
                               ser_error *err);
void ser_temporal_free(ser_temporal *temporal);
/* pooled [B][Cp], the branch's output, in a buffer of its own. */
const float *ser_temporal_forward(ser_temporal *temporal, ser_stream *stream, const ser_batch *batch);
/* From dpooled [B][Cp] the gradients of all of the branch's parameters. */
void ser_temporal_backward(ser_temporal *temporal, ser_stream *stream, const ser_batch *batch, const float *dpooled);

#endif
