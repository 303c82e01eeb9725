/* An encoder's hash, and the kernel of its positional convolution. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/encoder/parameters.h"

enum { BLOCK = 1 << 14, LANES = 16 }; /* numbers at a time: what is looked at and then hashed stays in the cache */

/* The largest magnitude's bits: those of infinities and NaN are the largest of all. In lanes, so that it vectorises. */
static int32_t largest(const float *numbers, size_t count) {
  int32_t most[LANES] = {0}, whole = 0;
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    int32_t bits[LANES];
    memcpy(bits, numbers + i, sizeof bits);
    for (int k = 0; k < LANES; k++) {
      int32_t magnitude = bits[k] & 0x7fffffff;
      most[k] = magnitude > most[k] ? magnitude : most[k];
    }
  }
  for (; i < count; i++) {
    int32_t bits;
    memcpy(&bits, numbers + i, sizeof bits);
    bits &= 0x7fffffff;
    most[0] = bits > most[0] ? bits : most[0];
  }
  for (int k = 0; k < LANES; k++) whole = most[k] > whole ? most[k] : whole;
  return whole;
}

static ser_status hash_row(ser_hasher *hasher, float *block, const ser_encoder_weights *w, const ser_encoder_row *row,
                           ser_error *err) {
  const ser_weight *weight = *row->place;
  const float *direct = ser_weight_floats(weight);
  int64_t count = ser_weight_elements(weight);
  ser_text head = {0};
  ser_text_printf(&head, "%s", row->name);
  for (int i = 0; i < row->dimensions; i++) ser_text_printf(&head, " %lld", (long long)row->shape[i]);
  ser_text_puts(&head, "\n");
  ser_hasher_add(hasher, head.data, head.size);
  free(head.data);
  for (int64_t at = 0; at < count; at += BLOCK) {
    int64_t numbers = count - at < BLOCK ? count - at : BLOCK;
    if (!direct) ser_weight_read(block, weight, at, numbers);
    const float *from = direct ? direct + at : block;
    if (largest(from, (size_t)numbers) >= 0x7f800000)
      return ser_fail(err, SER_FAILED,
                      "%s: its tensor %s holds a number that is not finite%s; copy the file again, or train it again",
                      w->file.path, weight->name, strcmp(weight->dtype, "F64") ? "" : " as float32");
    ser_hasher_add(hasher, from, (size_t)numbers * sizeof *from);
  }
  return SER_OK;
}

/* The byte order is the machine's: little-endian wherever files are mapped and read as they are. */
ser_status ser_encoder_weights_hash(ser_encoder_weights *weights, ser_error *err) {
  const ser_encoder_config *c = &weights->config;
  ser_hasher *hasher = ser_hasher_create();
  float *block = ser_alloc(BLOCK * sizeof *block);
  ser_status status = SER_OK;
  ser_text head = {0};
  ser_text_printf(&head, "serenade encoder 1\nnorm %d stable %d heads %lld groups %lld eps %.9g\n",
                  (int)c->feat_extract_norm, c->do_stable_layer_norm, (long long)c->num_attention_heads,
                  (long long)c->num_conv_pos_embedding_groups, c->layer_norm_eps);
  for (int64_t i = 0; i < c->conv_count; i++) ser_text_printf(&head, "stride %lld\n", (long long)c->conv_stride[i]);
  ser_hasher_add(hasher, head.data, head.size); /* all other sizes are in the shapes */
  for (size_t i = 0; i < weights->row_count && status == SER_OK; i++)
    status = hash_row(hasher, block, weights, &weights->rows[i], err);
  weights->hash = ser_hasher_end(hasher);
  ser_weights_release(&weights->file);
  free(block);
  free(head.data);
  return status == SER_OK ? ser_weights_whole(&weights->file, err) : status;
}

/* w = g v / |v|, the norm over all but the last dimension, as torch's weight_norm(dim=2); sums in double. A kernel
 * place whose v is all zero gives NaN in torch; it gives zeros here. */
void ser_encoder_pos_kernel(float *out, const ser_encoder_weights *weights) {
  const int64_t kernel = weights->config.num_conv_pos_embeddings;
  if (weights->pos_conv.weight) {
    ser_weight_read(out, weights->pos_conv.weight, 0, ser_weight_elements(weights->pos_conv.weight));
    return;
  }
  const int64_t rows = ser_weight_elements(weights->pos_v) / kernel;
  float *g = ser_alloc((size_t)kernel * sizeof *g);
  double *scale = ser_alloc_zero((size_t)kernel, sizeof *scale);
  ser_weight_read(g, weights->pos_g, 0, kernel);
  ser_weight_read(out, weights->pos_v, 0, rows * kernel);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < kernel; k++) scale[k] += (double)out[r * kernel + k] * out[r * kernel + k];
  for (int64_t k = 0; k < kernel; k++) scale[k] = scale[k] > 0 ? g[k] / sqrt(scale[k]) : 0;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < kernel; k++) out[r * kernel + k] = (float)(out[r * kernel + k] * scale[k]);
  free(g);
  free(scale);
}
