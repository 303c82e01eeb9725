/* An encoder on its device, for the files of this room. */
#ifndef SER_MODEL_ENCODER_INTERNAL_H
#define SER_MODEL_ENCODER_INTERNAL_H

#include "device/arrays.h"
#include "model/encoder/encoder.h"

typedef struct {
  void *w;     /* packed */
  float *bias; /* or NULL */
} encoder_product;

typedef struct {
  float *gamma, *beta;
} encoder_norm;

typedef struct {
  encoder_product product;
  encoder_norm norm; /* NULL where no norm follows */
} encoder_conv;

typedef struct {
  encoder_product qkv, out, ff1, ff2;
  encoder_norm norm, final_norm;
} encoder_layer;

/* Plans of a batch size. */
typedef struct {
  ser_plan *front, *pos_conv, *attention;
  ser_plan *convs[SER_ENCODER_CONVS_MOST]; /* from the second on */
  ser_plan *projection, *qkv, *out, *ff1, *ff2;
} encoder_plans;

struct ser_encoder {
  ser_device *device;
  ser_encoder_config config;
  bool normalise;
  int64_t rows_of[SER_ENCODER_CONVS_MOST]; /* rows a frame behind each convolution */

  encoder_conv convs[SER_ENCODER_CONVS_MOST];
  float *front_w; /* of the first convolution as it is, for front_norm */
  encoder_norm feature_norm, norm;
  encoder_product projection, pos_conv;
  encoder_layer *layers;
  void *weights; /* the memory of all of them */

  encoder_plans plans;
  int64_t max_clips, max_rows;
  int64_t chunk, slab; /* frames of the convolutions at a time, rows of the feed-forward part at a time */
  float *wave;         /* [max_rows * hop + kernel] */
  double *moments;
  float *front_norms; /* [max_clips][2][channels] */
  float *levels[2];   /* the convolutions' outputs in turn */
  float *x, *a;       /* [max_rows][hidden] */
  float *qkv;         /* [max_rows][3][hidden] */
  float *ff;          /* [slab][intermediate] */
  void *workspace, *room;
};

/* place.c: the plans, whose packed sizes tell how large the weights are, and the weights from their file. */
ser_status ser_encoder_plans_make(encoder_plans *plans, const ser_encoder *encoder, ser_error *err);
void ser_encoder_plans_free(encoder_plans *plans);
ser_status ser_encoder_place(ser_encoder *encoder, ser_stream *stream, const ser_encoder_weights *weights,
                             ser_error *err);

/* Rows behind convolution `level` that the frames [first, first + count) are computed from, from the first of them on.
 */
int64_t ser_encoder_span(const ser_encoder_config *config, int64_t level, int64_t count);

#endif
