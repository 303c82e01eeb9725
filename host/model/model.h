/* The model: a temporal branch over MFCC frames and a dense head, its parameters, its passes, its file.
 *
 * Facts: two directions (the second reads the window backwards), each a 1x1 convolution and `blocks` blocks of dilation
 * 2^i; a block is twice [causal convolution, batch norm, ReLU, spatial dropout]. reference: the last block's outputs of
 * both directions, averaged over time and added. residual: each block's input is added to its output. timnet: the
 * block's input times the sigmoid of its output, every block pooled, fused by learned weights. Then dense, softmax.
 */
#ifndef SER_MODEL_MODEL_H
#define SER_MODEL_MODEL_H

#include "corpus/manifest.h"
#include "device/ops.h"

typedef struct {
  ser_branch branch;
  int64_t blocks, filters, kernel;
  int64_t channels; /* features a frame: 39 */
  int64_t frames;   /* the window: 162 */
  int64_t classes;
  double dropout;
  bool residual;
  ser_pooling pool;
} ser_model_config;

typedef enum { SER_INIT_GLOROT, SER_INIT_ZERO, SER_INIT_ONE, SER_INIT_SCALE } ser_init;

/* One row of the table of parameters, which drives allocation, initialisation, the optimiser, checkpoints, the model
 * file and the tests. Names are those of the file: "forward.0.conv1.weight", "backward.3.norm2.running_mean", ... */
typedef struct {
  char name[64];
  int64_t shape[3]; /* PyTorch's order; unused dimensions are 0 */
  int dimensions;
  int64_t count;  /* elements */
  int64_t offset; /* elements from the start of the flat buffer, a multiple of 16 */
  ser_init init;
  int64_t fan_in, fan_out;
  bool trained; /* false: running statistics */
} ser_parameter;

/* Where a seed's random numbers come from: the high half of Philox's counter is one of these | an index of its own
 * (dropout masks: the step alone), so that no two draws of a training share numbers. */
#define SER_RANDOM_DROPOUT UINT64_C(0)
#define SER_RANDOM_INIT (UINT64_C(1) << 62)
#define SER_RANDOM_SHUFFLE (UINT64_C(2) << 62)

/* A convolution of a branch's last block, both directions: for the device's choose_conv. */
ser_conv_shape ser_model_conv(const ser_model_config *config, int64_t batch);

typedef struct ser_model ser_model;

/* Allocates parameters on the device (uninitialised but for zeros); trained parameters come first in the flat buffer,
 * so that one Adam call covers [0, trained_count). */
ser_status ser_model_create(ser_model **model, ser_device *device, const ser_model_config *config, ser_error *err);
void ser_model_free(ser_model *model);
const ser_parameter *ser_model_parameters(const ser_model *model, size_t *count);
int64_t ser_model_flat_count(const ser_model *model);    /* trained and running together, with alignment gaps */
int64_t ser_model_trained_count(const ser_model *model); /* the flat prefix that is trained */
float *ser_model_flat(ser_model *model);                 /* on the device */

/* Glorot-uniform weights, zero biases, unit gammas and variances, from Philox at `seed`, the same on every backend. */
ser_status ser_model_initialise(ser_model *model, ser_stream *stream, uint64_t seed, ser_error *err);

/* ---- training passes: buffers for one batch size, made once -------------------------------------------------------
 */

typedef struct ser_pass ser_pass;

typedef struct {
  const float *tile;          /* [2][B][Cp][Tp], forwards and backwards, on the device as all that follows */
  const int64_t *lengths;     /* [B] real frames (used where pool is real) */
  const int32_t *truth;       /* [B] */
  const float *class_weights; /* [classes] or NULL */
  int64_t batch;              /* B of this run, at most the pass's */
  uint64_t seed;              /* of the dropout masks */
  const ser_step *step;       /* begun; or NULL where the model has no dropout */
  float label_smoothing, focal_gamma;
} ser_batch;

ser_status ser_pass_create(ser_pass **pass, ser_model *model, int64_t max_batch, ser_error *err);
void ser_pass_free(ser_pass *pass);
/* Forward in training mode (batch statistics, dropout, running statistics updated): losses [B] and logits stay on the
 * device, see below. */
void ser_pass_forward(ser_pass *pass, ser_stream *stream, const ser_batch *batch);
/* Gradients of the mean loss for all trained parameters, laid out as the flat buffer's trained prefix. */
void ser_pass_backward(ser_pass *pass, ser_stream *stream, const ser_batch *batch);
const float *ser_pass_losses(const ser_pass *pass);
const float *ser_pass_logits(const ser_pass *pass); /* [B][ser_pass_stride] */
int64_t ser_pass_stride(const ser_pass *pass);
float *ser_pass_gradients(ser_pass *pass);

/* ---- inference: folded weights, made once ---------------------------------------------------------------------------
 */

typedef struct ser_inference ser_inference;
/* Folds the model's present parameters; later changes need another. */
ser_status ser_inference_create(ser_inference **inference, ser_model *model, ser_stream *stream, int64_t max_batch,
                                ser_error *err);
void ser_inference_free(ser_inference *inference);
/* Folds again, into the same buffers, after the parameters have changed. */
ser_status ser_inference_refresh(ser_inference *inference, ser_stream *stream, ser_error *err);
/* The same with parameters that the host has at hand, [ser_model_flat_count]; enqueued, and the stream is waited for
 * before the next. */
void ser_inference_fold(ser_inference *inference, ser_stream *stream, const float *flat);
/* Enqueued: probabilities [B][ser_inference_stride], tile [1][B][Cp][Tp] and lengths, all on the device. A clip's bytes
 * do not depend on its batch. */
void ser_inference_enqueue(ser_inference *inference, ser_stream *stream, float *probabilities, const float *tile,
                           const int64_t *lengths, int64_t batch);
int64_t ser_inference_stride(const ser_inference *inference);
/* The same, waited for: probabilities [B][classes] on the host. */
ser_status ser_inference_run(ser_inference *inference, ser_stream *stream, float *probabilities, const float *tile,
                             const int64_t *lengths, int64_t batch, ser_error *err);

/* ---- the model file (model_file.c; safetensors)
 * ------------------------------------------------------------------------ */

/* All that predict needs beside the weights; kept in the file's __metadata__ as texts. */
typedef struct {
  ser_model_config model;
  ser_feature_kind feature;
  ser_mfcc_config mfcc;
  int emotions[SER_EMOTIONS];       /* label i is ser_emotion_names[emotions[i]] */
  float *mean, *inv_std;            /* [channels], the standardisation */
  double window, hop;               /* predict's, in seconds; 0: the model's window, half of it */
  char manifest_hash[SER_HASH_HEX]; /* ser_manifest_usable_hash */
  char split_hash[SER_HASH_HEX];    /* of split.csv's bytes */
  int64_t seed;                     /* of the training */
  int fold;
  int64_t epoch;      /* the one chosen, from 1 */
  char chosen_by[48]; /* "validation UAR", "last epoch (no validation clips)" ... */
  char version[32];   /* of Serenade that wrote it */
} ser_model_info;
void ser_model_info_free(ser_model_info *info);

/* The bytes that ser_model_save writes: same parameters and info, same bytes. */
ser_status ser_model_text(ser_text *file, ser_model *model, ser_stream *stream, const ser_model_info *info,
                          ser_error *err);
ser_status ser_model_save(ser_model *model, ser_stream *stream, const ser_model_info *info, const char *path,
                          ser_error *err);
/* Reads the info alone (device NULL), or the info and a model on the device. Errors name the file and what is amiss. */
ser_status ser_model_load(ser_model **model, ser_model_info *info, ser_device *device, const char *path,
                          ser_error *err);
/* The model file that a user names: the file itself, or the one in the folder of a training. Where there is none, but
 * the run holds several (seed-S/fold-K), the error names one of them. The caller frees *path. */
ser_status ser_model_find(char **path, const char *given, ser_error *err);
/* `info model FILE`. */
ser_status ser_model_describe(ser_text *text, const char *path, ser_error *err);

#endif
