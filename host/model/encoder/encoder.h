/* A speech encoder (wav2vec2, HuBERT) on a device: its weights, packed, and the way from samples to hidden states.
 *
 * A batch is ragged (ops.h: ser_rows): clips of any lengths end to end, none padded, so that a clip's hidden states do
 * not depend on what else is in the batch. Held to transformers' Wav2Vec2Model and HubertModel, in eval mode, each clip
 * given alone. */
#ifndef SER_MODEL_ENCODER_ENCODER_H
#define SER_MODEL_ENCODER_ENCODER_H

#include "device/ops.h"
#include "model/encoder/parameters.h"

typedef struct ser_encoder ser_encoder;

/* Puts the weights on the device, in the form that the operations read; the file may be closed afterwards. normalise:
 * each clip to mean 0 and variance 1 first (the configuration's do_normalize, or the user's choice). */
ser_status ser_encoder_create(ser_encoder **encoder, ser_device *device, ser_stream *stream,
                              const ser_encoder_weights *weights, bool normalise, ser_error *err);
void ser_encoder_free(ser_encoder *encoder); /* what was enqueued is done; NULL is fine */
const ser_encoder_config *ser_encoder_settings(const ser_encoder *encoder);

/* Makes room for batches of up to so many clips and rows; what was there is given back first, and where there is not
 * enough nothing is left. A batch's rows: one more than its frames for each clip. */
ser_status ser_encoder_room(ser_encoder *encoder, ser_stream *stream, int64_t max_clips, int64_t max_rows,
                            ser_error *err);

void ser_encoder_room_free(ser_encoder *encoder);
/* What that room takes of the device, but for what the operations need beside their arguments. */
size_t ser_encoder_room_bytes(const ser_encoder *encoder, int64_t max_clips, int64_t max_rows);

/* Frames of all clips, end to end, on the host: row_start [clips + 1] of clips that have these samples, and
 * clip_of_row [rows]. A clip shorter than one frame is not one: it is for the caller to leave out. */
int64_t ser_encoder_rows(int64_t *row_start, int32_t *clip_of_row, const ser_encoder_config *config,
                         const int64_t *samples, int64_t clips);

/* What is wanted of a batch; everything lies on the device, and what is NULL is left out. Layers are transformers'
 * hidden_states: 0 is what goes into the first layer, num_hidden_layers the encoder's output, last_hidden_state. */
typedef struct {
  uint64_t layers; /* bit i: layer i is wanted; they come in this order, end to end */
  float *pooled;   /* [layers wanted][clips][2][hidden]: mean and standard deviation over the clip's frames */
  float *frames;   /* [layers wanted][rows][hidden] */
  float *features; /* [rows][conv_dim]: of the convolutions, behind the feature projection's norm: extract_features */
} ser_encoder_output;

/* Enqueues the batch. pcm: samples of all clips end to end, at the encoder's rate, sample_start [clips + 1]. */
void ser_encoder_forward(ser_encoder *encoder, ser_stream *stream, const ser_encoder_output *output, const float *pcm,
                         const int64_t *sample_start, const ser_rows *rows);

/* Floating-point operations of the products and of attention for a clip of so many frames: for benchmarks. */
double ser_encoder_work(const ser_encoder_config *config, int64_t frames);

#endif
