/* What a wav2vec2 or HuBERT encoder is, as the files beside its weights say: config.json (transformers' Wav2Vec2Config
 * and HubertConfig, whose names and defaults these are) and preprocessor_config.json (its Wav2Vec2FeatureExtractor). */
#ifndef SER_MODEL_ENCODER_CONFIG_H
#define SER_MODEL_ENCODER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum { SER_ENCODER_CONVS_MOST = 16 };

typedef enum { SER_ENCODER_WAV2VEC2, SER_ENCODER_HUBERT } ser_encoder_family;
typedef enum {
  SER_ENCODER_NORM_GROUP, /* group norm over time behind the first convolution alone */
  SER_ENCODER_NORM_LAYER, /* layer norm over channels behind each */
} ser_encoder_norm;

extern const char *const ser_encoder_family_names[]; /* "wav2vec2", "hubert" */

typedef struct {
  ser_encoder_family family;
  ser_encoder_norm feat_extract_norm;
  int64_t conv_count;
  int64_t conv_dim[SER_ENCODER_CONVS_MOST], conv_kernel[SER_ENCODER_CONVS_MOST], conv_stride[SER_ENCODER_CONVS_MOST];
  bool conv_bias;
  bool feat_proj_layer_norm; /* false is possible for HuBERT alone */
  int64_t hidden_size, num_hidden_layers, num_attention_heads, intermediate_size;
  double layer_norm_eps; /* of all norms but those of the convolutions, which have 1e-5 */
  int64_t num_conv_pos_embeddings, num_conv_pos_embedding_groups;
  bool do_stable_layer_norm; /* norms before attention and feed-forward and one at the end, else behind each */
  bool do_normalize;         /* each clip to mean 0 and variance 1, (x - mean) / sqrt(var + 1e-7) */
  bool return_attention_mask;
  int64_t sampling_rate;             /* 16000 */
  bool random_weights;               /* a script of ours made the weights: whatever is reported with them must say so */
  bool has_config, has_preprocessor; /* whether the files are there; else these are the defaults */
} ser_encoder_config;

/* transformers' defaults: wav2vec2-base, or HuBERT base, which has the same. */
void ser_encoder_config_default(ser_encoder_config *config, ser_encoder_family family);
/* From the files of a folder. What cannot be computed (other families, adapters, other activations) is refused by name,
 * what does not fit together too. Without config.json: the defaults, and has_config is false. */
ser_status ser_encoder_config_read(ser_encoder_config *config, const char *folder, ser_error *err);
/* Ranges, and what has to divide what; where is the file to name. */
ser_status ser_encoder_config_check(const ser_encoder_config *config, const char *where, ser_error *err);

/* Frames of a clip of so many samples; 0 where it is shorter than one. */
int64_t ser_encoder_frames(const ser_encoder_config *config, int64_t samples);
int64_t ser_encoder_field(const ser_encoder_config *config); /* samples that a frame is computed from */
int64_t ser_encoder_hop(const ser_encoder_config *config);   /* samples from one frame to the next */

#endif
