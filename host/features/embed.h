/* Embeddings: what a pre-trained speech encoder (model/encoder) makes of clips, kept by layers and pooled over time. */
#ifndef SER_FEATURES_EMBED_H
#define SER_FEATURES_EMBED_H

#include "features/features.h"
#include "model/encoder/encoder.h"

/* What is kept of a clip. Everything that its bytes depend on, but the machine. */
typedef struct {
  ser_hash encoder;       /* of the weights: ser_encoder_weights_hash */
  bool random_weights;    /* they were made by a script of ours: to be said wherever a figure rests on them */
  bool normalize;         /* each clip to mean 0 and variance 1 first */
  int64_t rate, hidden;   /* of the encoder */
  int64_t encoder_layers; /* how many it has */
  uint64_t layers;        /* which are kept: bit i is transformers' hidden_states[i] */
  ser_embed_pool pool;
} ser_embed_config;

/* The configuration that keeps of this encoder what the user asked for; layers: "last", "all", or a number from 0 (what
 * goes into the first layer) to the number of layers. SER_USAGE names the key. */
ser_status ser_embed_configure(ser_embed_config *embed, const ser_encoder_weights *weights, const ser_config *config,
                               ser_error *err);
/* Canonical JSON (keys sorted, no spaces): its hash names the cache's folder. The caller frees it. And back. */
char *ser_embed_json(const ser_embed_config *config);
ser_status ser_embed_parse(ser_embed_config *config, const char *json, ser_error *err);
int64_t ser_embed_layers(const ser_embed_config *config);  /* how many are kept */
int64_t ser_embed_columns(const ser_embed_config *config); /* hidden, or twice that with the deviation */

/* Longer clips are cut into windows of equal length, at most this many frames each (ten minutes), which the encoder
 * sees, normalises and attends over one by one; their frames go on where those of the window before end. Pooling is
 * over all of them. So memory has a bound. */
enum { SER_EMBED_WINDOW = 30000 };

typedef struct ser_embedder ser_embedder;

typedef struct {
  int64_t clips, rows; /* of a batch, at most; a clip takes a row more than its frames */
  int64_t window;      /* frames of a window over longer clips; 0: SER_EMBED_WINDOW */
} ser_embed_room;

/* Puts the encoder on the device, with room for batches, of which several may be under way on a device of its own.
 * Where the device lacks the memory, batches become smaller. */
ser_status ser_embedder_create(ser_embedder **embedder, ser_device *device, const ser_encoder_weights *weights,
                               const ser_embed_config *config, const ser_embed_room *room, ser_error *err);
void ser_embedder_free(ser_embedder *embedder); /* waits for what is under way; NULL is fine */
int64_t ser_embedder_max_clips(const ser_embedder *embedder);
int64_t ser_embedder_max_rows(const ser_embedder *embedder);
/* Rows that a clip takes of a batch's: one more than its frames; 0 where it is too short for one. */
int64_t ser_embedder_rows(const ser_embedder *embedder, int64_t samples);
bool ser_embedder_idle(const ser_embedder *embedder); /* nothing is under way */
bool ser_embedder_full(const ser_embedder *embedder); /* a batch must be collected before the next is submitted */

/* Sends a batch on its way: at most max_clips signals, of at most max_rows rows unless it is one signal alone, which
 * goes when nothing else is under way, and for which batches may become smaller. Signals that are too short get
 * nothing. Samples that are not pinned may be reused when it returns. */
ser_status ser_embedder_submit(ser_embedder *embedder, const ser_signal *signals, size_t count, ser_error *err);
/* Waits for the oldest batch: offset [count + 1] rows of ser_embed_columns; a clip has one for each layer kept, or,
 * unpooled, its frames of the first of these layers, then those of the next. They hold until the next collect. */
ser_status ser_embedder_collect(ser_embedder *embedder, const float **features, const int64_t **offset, ser_error *err);
ser_device_work ser_embedder_work(const ser_embedder *embedder); /* of the batches collected so far */

#endif
