/* The parameters of a wav2vec2 or HuBERT encoder, found in a file of weights by their names in transformers, with or
 * without what stands before those (`wav2vec2.`, `hubert.`), held against the shapes that the configuration asks for,
 * and put where an encoder finds them. Nothing is converted or copied but what is asked for. */
#ifndef SER_MODEL_ENCODER_PARAMETERS_H
#define SER_MODEL_ENCODER_PARAMETERS_H

#include "base/hash.h"
#include "base/memory.h"
#include "model/encoder/config.h"
#include "model/weights.h"

typedef struct {
  const ser_weight *weight, *bias; /* bias: NULL where there is none */
} ser_encoder_pair;

typedef struct {
  ser_encoder_pair conv; /* weight [dim][dim before][kernel] */
  ser_encoder_pair norm; /* [dim]; NULL where no norm follows */
} ser_encoder_conv;

typedef struct {
  ser_encoder_pair q, k, v, out; /* weights [hidden][hidden] */
  ser_encoder_pair norm;         /* [hidden] */
  ser_encoder_pair ff1, ff2;     /* weights [intermediate][hidden], [hidden][intermediate] */
  ser_encoder_pair final_norm;   /* [hidden] */
} ser_encoder_layer;

/* One row a parameter, in the order in which they are hashed. */
typedef struct {
  char name[88]; /* without what stands before it; of the weight-norm pair the older spelling */
  int dimensions;
  int64_t shape[3];
  const ser_weight **place; /* in ser_encoder_weights */
} ser_encoder_row;

typedef struct {
  ser_encoder_config config;
  ser_weights file;
  char *prefix; /* what stands before the names in the file */
  ser_encoder_conv convs[SER_ENCODER_CONVS_MOST];
  ser_encoder_pair feature_norm; /* [last conv_dim]; NULL without feat_proj_layer_norm */
  ser_encoder_pair projection;   /* weight [hidden][last conv_dim] */
  /* The positional convolution: g [1][1][kernel] and v [hidden][hidden / groups][kernel], or the kernel itself as
   * pos_conv.weight, where weight norm was taken out before saving. ser_encoder_pos_kernel gives the kernel of either.
   */
  const ser_weight *pos_g, *pos_v;
  ser_encoder_pair pos_conv;
  ser_encoder_pair norm; /* encoder.layer_norm */
  ser_encoder_layer *layers;
  ser_encoder_row *rows;
  size_t row_count;
  int64_t parameters;                /* numbers in all rows */
  char **extras;                     /* names in the file that are in no row */
  size_t extra_count, unknown_count; /* unknown: the first of them, which no usual head or pre-training part has */
  ser_hash hash;                     /* set by ser_encoder_weights_hash */
} ser_encoder_weights;

/* "config.json, ... into one folder, as facebook/wav2vec2-base has them": for messages of whoever finds none. */
extern const char ser_encoder_files_wanted[];

/* Whether this folder or file is, or is meant to be, one with weights of an encoder: told by content; never fails. */
bool ser_encoder_is_there(const char *path);
/* A folder, or a file in one. Missing, misshapen and wrongly typed tensors are named. */
ser_status ser_encoder_weights_open(ser_encoder_weights *weights, const char *path, ser_error *err);
void ser_encoder_weights_close(ser_encoder_weights *weights);
/* Reads every number: one that is not finite is refused by its tensor's name. The hash is XXH3-128 over the
 * configuration, as far as it decides what is computed, and over each parameter's name, shape and float32 values: the
 * same for one model in several formats. do_normalize is not in it: that can be chosen, and stands beside the hash. */
ser_status ser_encoder_weights_hash(ser_encoder_weights *weights, ser_error *err);
/* out: [hidden][hidden / groups][kernel] */
void ser_encoder_pos_kernel(float *out, const ser_encoder_weights *weights);
/* What `info model` tells of it; it must have been hashed. */
void ser_encoder_describe(ser_text *text, const ser_encoder_weights *weights);

/* Within this room. The file of weights that a folder holds or a path names, and its folder; the caller frees both. */
ser_status ser_encoder_files(char **file, char **folder, const char *path, ser_error *err);
/* The configuration of a public model, told by the shapes of the tensors; where they are of none,
 * config.json is asked for. */
ser_status ser_encoder_infer(ser_encoder_config *config, const ser_weights *file, const char *prefix, ser_error *err);
const ser_weight *ser_encoder_find(const ser_weights *file, const char *prefix, const char *name); /* or NULL */

#endif
