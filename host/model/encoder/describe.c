/* What `serenade info model` tells of an encoder's folder or file. */
#include <stdlib.h>
#include <string.h>

#include "model/encoder/parameters.h"

/* "512", or "32 48 48" where they differ. */
static void put_list(ser_text *text, const int64_t *values, int64_t count, bool shortened) {
  bool same = shortened;
  for (int64_t i = 1; i < count; i++) same &= values[i] == values[0];
  for (int64_t i = 0; i < (same ? 1 : count); i++) ser_text_printf(text, "%s%lld", i ? " " : "", (long long)values[i]);
}

/* The types that the parameters have in the file: most often one. */
static void put_types(ser_text *text, const ser_encoder_weights *w) {
  static const char *const types[] = {"F32", "F16", "BF16", "F64"};
  for (int t = 0; t < 4; t++) {
    size_t count = 0;
    for (size_t i = 0; i < w->row_count; i++) count += !strcmp((*w->rows[i].place)->dtype, types[t]);
    if (count == w->row_count)
      ser_text_printf(text, ", %s", types[t]);
    else if (count)
      ser_text_printf(text, ", %s in %zu tensors", types[t], count);
  }
}

static void put_structure(ser_text *text, const ser_encoder_config *c) {
  ser_text_printf(text, "front end     %lld %s of ", (long long)c->conv_count,
                  SER_PLURAL(c->conv_count, "convolution", "convolutions"));
  put_list(text, c->conv_dim, c->conv_count, true);
  ser_text_puts(text, " channels, kernels ");
  put_list(text, c->conv_kernel, c->conv_count, false);
  ser_text_puts(text, ", strides ");
  put_list(text, c->conv_stride, c->conv_count, false);
  ser_text_printf(text, ", %s, %s bias\n",
                  c->feat_extract_norm == SER_ENCODER_NORM_LAYER ? "layer norm behind each"
                                                                 : "group norm behind the first",
                  c->conv_bias ? "with" : "no");
  ser_text_printf(text, "transformer   %lld %s of %lld, %lld %s, feed-forward %lld, norms %s\n",
                  (long long)c->num_hidden_layers, SER_PLURAL(c->num_hidden_layers, "layer", "layers"),
                  (long long)c->hidden_size, (long long)c->num_attention_heads,
                  SER_PLURAL(c->num_attention_heads, "head", "heads"), (long long)c->intermediate_size,
                  c->do_stable_layer_norm ? "before each part and at the end" : "behind each part");
  ser_text_printf(text, "positions     convolution of kernel %lld in %lld %s\n", (long long)c->num_conv_pos_embeddings,
                  (long long)c->num_conv_pos_embedding_groups,
                  SER_PLURAL(c->num_conv_pos_embedding_groups, "group", "groups"));
}

static void put_extras(ser_text *text, const ser_encoder_weights *w) {
  if (!w->extra_count) return;
  ser_text_printf(text, "left out      %zu %s", w->extra_count, SER_PLURAL(w->extra_count, "tensor", "tensors"));
  if (w->unknown_count) ser_text_printf(text, ", %zu of them unknown here:", w->unknown_count);
  for (size_t i = 0; i < w->unknown_count && i < 4; i++) {
    char *name = ser_shown(w->extras[i]);
    ser_text_printf(text, "%s %s", i ? "," : "", name);
    free(name);
  }
  if (w->unknown_count > 4) ser_text_puts(text, " ...");
  if (!w->unknown_count) ser_text_puts(text, " of pre-training or a head");
  ser_text_puts(text, "\n");
}

void ser_encoder_describe(ser_text *text, const ser_encoder_weights *weights) {
  const ser_encoder_config *c = &weights->config;
  char hex[SER_HASH_HEX];
  ser_hash_hex(hex, &weights->hash);
  ser_text_line(text, "file          %s", weights->file.path);
  ser_text_printf(text, "format        %s", weights->file.format);
  put_types(text, weights);
  ser_text_printf(text, "\nencoder       %s%s\n", ser_encoder_family_names[c->family],
                  c->has_config ? "" : ", told by its sizes: there is no config.json");
  put_structure(text, c);
  ser_text_printf(text, "input         %lld Hz, %s%s; a frame of %lld samples every %lld\n",
                  (long long)c->sampling_rate, c->do_normalize ? "each clip normalised" : "as it is, not normalised",
                  c->has_preprocessor ? "" : " (the usual: there is no preprocessor_config.json)",
                  (long long)ser_encoder_field(c), (long long)ser_encoder_hop(c));
  ser_text_printf(text, "parameters    %lld in %zu tensors\n", (long long)weights->parameters, weights->row_count);
  put_extras(text, weights);
  ser_text_printf(text, "hash          %s\n", hex);
  if (c->random_weights)
    ser_text_puts(text,
                  "weights       random weights: made by a script, not trained; no figure with them is one of the "
                  "model whose shape they have\n");
}
