/* The device interface, second table: the operations. Each is documented once, here, by its maths, shapes and layout;
 * the CPU form in kernels/ is its meaning. Every backend fills every entry.
 *
 * Use: `prepare` turns a shape into a plan (it may allocate; the plan says how much workspace the run needs); running
 * enqueues on a stream and never allocates. A plan may serve several streams, each with a workspace of its own.
 * Outputs come first. NULL where a comment says "or NULL" leaves that part out. Outputs never overlap inputs unless a
 * comment says so.
 *
 * Layout of temporal tensors: [S][B][Cp][Tp], time contiguous, Cp = channels rounded up to 8 (SER_CHANNEL_PAD), Tp =
 * time rounded up to 16 (SER_TIME_PAD). Padding channels and padding columns of every tensor that an operation writes
 * are zero, and operations may rely on that for what they read. Per-channel vectors are [S][Cp], padded with zeros.
 *
 * S, the sides, is 1 or 2: a temporal branch reads each clip in two directions, side 0 forwards and side 1 with time
 * running backwards, through parameters of their own, and one operation does both. B is that of the run. Parameters of
 * side 1, and their gradients, lie `side_stride` floats behind those of side 0.
 *
 * Determinism: an output's bytes depend on its inputs alone, not on the number of threads; what belongs to one clip
 * does not depend on the rest of the batch. Sums over clips are taken in the order of the clips in groups fixed by the
 * shape.
 */
#ifndef SER_DEVICE_OPS_H
#define SER_DEVICE_OPS_H

#include "device/runtime.h"

#define SER_CHANNEL_PAD 8
#define SER_TIME_PAD 16
#define SER_ROUND_UP(n, to) (((n) + (to)-1) / (to) * (to))

/* A plan of any operation: the backend's own structure begins with this. */
typedef struct ser_plan {
  size_t workspace; /* bytes that each run needs beside its arguments; 0: pass NULL */
  size_t packed;    /* bytes of its weights in the form that runs read, where an operation packs them; they begin on 16
                       bytes, as do the rows that such an operation reads and writes, if their strides say so */
  void (*free)(struct ser_plan *plan);
} ser_plan;

static inline void ser_plan_free(ser_plan *plan) {
  if (plan) plan->free(plan);
}

/* ---- audio ---------------------------------------------------------------------------------------------------- */

/* Log-mel spectrogram, MFCC and deltas of ragged clips (librosa.feature.melspectrogram, power_to_db, mfcc, delta). */
typedef struct {
  int64_t n_fft;        /* a power of two, 256 .. 8192: FFT and Hann window length */
  int64_t hop;          /* samples */
  int64_t rate;         /* Hz */
  int64_t mels;         /* bands: Slaney scale from 0 Hz to rate / 2, area-normalised triangles */
  int64_t coefficients; /* 1 .. mels */
  bool deltas;          /* delta and delta-delta follow: C = 3 x coefficients, else C = coefficients */
  int64_t max_clips;    /* the most that one run sees: sizes the workspace */
  int64_t max_frames;   /* the same of logmel; mfcc_finish takes any number of frames */
} ser_mfcc_shape;

/* Frames of a clip of n samples: 1 + n / hop, and none for an empty clip. */
static inline int64_t ser_mfcc_frames(int64_t samples, int64_t hop) {
  return samples > 0 ? 1 + samples / hop : 0;
}

/* ---- temporal convolutions ------------------------------------------------------------------------------------- */

/* How an operation reads a temporal tensor: as it is (scale NULL), or as relu(x * scale[c] + shift[c]) * drop[b][c],
 * which is batch norm, ReLU and spatial dropout taken on the fly. */
typedef struct {
  const float *x;     /* [S][B][Cp][Tp] */
  const float *scale; /* [S][Cp] or NULL */
  const float *shift; /* [S][Cp], with scale */
  const float *drop;  /* [S][B][Cp] multipliers (0 or 1 / (1 - p)), or NULL: none */
} ser_activation;

/* The gradient at a batch-normalised convolution's output y, made on the fly from da, the gradient behind
 * activation (y, scale, shift, drop): dz = da * drop * [y * scale + shift > 0], xhat = (y - mean) * inv_std,
 * dy = scale * (dz - sums[0] - xhat * sums[1]). With scale NULL, dy = da and nothing else is read. */
typedef struct {
  const float *da;             /* [S][B][Cp][Tp] */
  ser_activation y;            /* y.x is the convolution's output */
  const float *mean, *inv_std; /* [S][Cp] of the batch, as batchnorm_finish saved them */
  const float *sums;           /* [S][2][Cp]: means over B * T of dz and of dz * xhat (batchnorm_backward_finish) */
} ser_gradient;

/* Causal dilated convolution: y[b][o][t] = bias[o] + sum over i, k of w[o][i][k] * a[b][i][t - (K - 1 - k) * dilation],
 * a = the activation read, zero before t = 0 (PyTorch Conv1d weight order behind a left padding). */
typedef struct ser_conv_shape {
  int64_t sides;
  int64_t batch;   /* the largest B; running may use fewer clips */
  int64_t in, out; /* channels */
  int64_t time;    /* T */
  int64_t kernel, dilation;
  int64_t side_stride; /* of w, bias, dw and dbias */
} ser_conv_shape;

typedef struct {
  int64_t sides, batch, channels, time;
} ser_tensor_shape;

typedef struct {
  float eps, momentum;
  int64_t side_stride;    /* of gamma, beta, dgamma and dbeta */
  int64_t running_stride; /* of the running statistics */
} ser_batchnorm;

/* ---- joining and pooling --------------------------------------------------------------------------------------- */

typedef enum {
  SER_JOIN_RESIDUAL, /* out = x + a      */
  SER_JOIN_GATE,     /* out = x * sigmoid(a) */
} ser_join;

/* ---- products --------------------------------------------------------------------------------------------------- */

/* out[n][o] = bias[o] + sum over i of x[n][i] * w[o][i]; rows of x lie in_stride apart, rows of out out_stride. */
typedef struct {
  int64_t rows; /* the most */
  int64_t in, out;
  int64_t in_stride, out_stride;
} ser_linear_shape;

/* A product with weights that stay, packed once for many runs: out[n][o] = end(bias[o] + residual[n][o] + sum over i of
 * x[n * in_stride + i] * w[o][i]). in_stride may be smaller than `in`: rows that overlap make a strided convolution a
 * product (row t of one with kernel K, stride s and C channels begins at t * s * C and is K * C long; w [out][K][C]).
 */
typedef struct {
  int64_t rows; /* the most */
  int64_t in, out;
  int64_t in_stride, out_stride; /* the residual's is out's */
} ser_product_shape;

typedef enum {
  SER_PRODUCT_PLAIN,
  SER_PRODUCT_GELU, /* x Phi(x), exact */
} ser_product_end;

/* ---- the speech encoder (wav2vec2, HuBERT) ---------------------------------------------------------------------- */

/* Rows of all clips of a batch end to end, [rows][channels], channels contiguous and unpadded. Clip c has the rows
 * [row_start[c], row_start[c + 1]): one for each of its frames and one more, the last, which is nobody's: it may hold
 * any finite number, and no operation that mixes rows reads it. So every level of strided convolutions over the whole
 * batch keeps the clips in line (a clip begins at a multiple of the level's rows a frame), and each is one product. */
typedef struct {
  const int64_t *row_start;   /* [clips + 1], on the device */
  const int32_t *clip_of_row; /* [rows], on the device */
  int64_t clips, rows;        /* rows = row_start[clips] */
} ser_rows;

/* The encoder's first convolution, over samples, with its norm and GELU. */
typedef struct {
  int64_t channels;       /* of the output */
  int64_t kernel, stride; /* in samples; kernel at most SER_FRONT_KERNEL_MOST */
  int64_t hop;            /* samples a frame: a multiple of stride */
  bool normalise;         /* each clip to mean 0 and variance 1: (x - mean) / sqrt(var + 1e-7), population variance */
  bool over_time;         /* group norm, each channel over a clip's time (no bias: it would cancel); else layer norm,
                             each row over its channels */
  float eps;
  int64_t max_clips, max_samples; /* of a run of front_wave: they size the workspace */
} ser_front_shape;

#define SER_FRONT_KERNEL_MOST 16

/* Means of the kernel's taps over a clip's windows, and their covariances: all that group norm needs to know. */
#define SER_FRONT_MOMENTS(kernel) ((kernel) + (kernel) * ((kernel) + 1) / 2)

typedef struct {
  int64_t channels, groups, kernel; /* same padding: kernel / 2 zeros before a clip, (kernel - 1) / 2 behind it */
  int64_t max_rows;
} ser_pos_conv_shape;

typedef struct {
  int64_t heads, width; /* of a head: at most 128, a multiple of 8 */
  int64_t max_rows;
} ser_attention_shape;

/* ---- loss and optimiser ------------------------------------------------------------------------------------------ */

typedef struct {
  int64_t rows; /* the most */
  int64_t classes, stride;
  float label_smoothing; /* targets (1 - s) * onehot + s / classes */
  float focal_gamma;     /* loss * (1 - p_truth)^gamma; 0: plain cross-entropy */
} ser_loss_shape;

typedef struct {
  float lr, beta1, beta2, eps;
} ser_adam;

/* Where a training stands. It lies in device memory and step_begin moves it on, so that a captured graph is a new step
 * at each launch. The host writes it before an epoch: number of steps done, place -1. */
typedef struct {
  int64_t number;   /* of the step in the whole training, from 1 */
  int64_t place;    /* of the step in its epoch, from 0 */
  float rate;       /* lr / (1 - beta1^number) */
  float correction; /* 1 / sqrt(1 - beta2^number) */
} ser_step;

/* ---- data that stays on the device ------------------------------------------------------------------------------- */

/* The clips of a data set, features end to end. */
typedef struct {
  const int64_t *offset; /* [clips + 1] first rows */
  const int32_t *truth;  /* [clips] */
  int64_t frames;        /* the most that a batch takes of a clip */
} ser_clips;

/* A part of what a step leaves behind: to[place * stride + i] = from[i], i < count. */
typedef struct {
  float *to;
  const float *from;
  int64_t count, stride;
} ser_keep;

#define SER_KEEP_MOST 4

/* ---- the folded branch --------------------------------------------------------------------------------------------
 */

/* A temporal branch with batch norms folded into its convolutions, for inference: in each of two directions a 1x1
 * convolution + bias (no ReLU), then blocks of two causal convolutions, each + bias, ReLU; each block then joined with
 * its input. */
typedef struct {
  int64_t batch, channels_in, channels, time;
  int64_t blocks, kernel; /* dilation 2^i in block i */
  int join;               /* 0 none: the block's output stands alone; 1 + ser_join otherwise */
  bool every_scale;       /* pooled vectors of every block (full TIM-Net), else of the last alone */
} ser_branch_shape;

typedef struct ser_ops {
  /* logmel[row][mels], rows of all clips end to end: 10 log10(max(1e-10, mel power)), not floored.
   * pcm: samples of all clips end to end; sample_start [clips + 1]; frame_start [clips + 1]. All on the device.
   * clips and frames (= frame_start[clips]) are known to the host too. */
  ser_status (*mfcc_prepare)(ser_device *device, ser_plan **plan, const ser_mfcc_shape *shape, ser_error *err);
  void (*logmel)(ser_stream *stream, const ser_plan *plan, void *workspace, float *logmel, const float *pcm,
                 const int64_t *sample_start, const int64_t *frame_start, int64_t clips, int64_t frames);
  /* features[row][C] from logmel: floor at the clip's maximum - 80 dB, orthonormal DCT-II, Savitzky-Golay deltas of
   * width 9 with edges as scipy's mode "interp". With deltas every clip has at least 9 frames (the caller sees to it).
   */
  void (*mfcc_finish)(ser_stream *stream, const ser_plan *plan, void *workspace, float *features, const float *logmel,
                      const int64_t *frame_start, int64_t clips, int64_t frames);

  /* pcm[i] = from[i] / 32768: samples that crossed the bus as 16-bit integers. */
  void (*pcm_from_int16)(ser_stream *stream, float *pcm, const int16_t *from, int64_t samples);

  /* A batch drawn from an order of clips: for b < count, clip = order[place * batch + b], start[b] = its offset,
   * length[b] = its rows, at most clips->frames, truth[b] = its truth. step NULL: place is 0. All on the device. */
  void (*take_batch)(ser_stream *stream, int64_t *start, int64_t *length, int32_t *truth, const ser_clips *clips,
                     const int32_t *order, const ser_step *step, int64_t batch, int64_t count);

  /* tile [S][B][Cp][Tp]: tile[0][b][c][t] = (features[start[b] + t][c] - mean[c]) * inv_std[c] for
   * t < min(length[b], T), zero behind; side 1 the same with t running backwards over all T. features:
   * [rows][channels], start, length: [B], mean, inv_std: [Cp], on the device. No plan: nothing to prepare. */
  void (*gather_standardise)(ser_stream *stream, float *tile, const float *features, const int64_t *start,
                             const int64_t *length, const float *mean, const float *inv_std,
                             const ser_tensor_shape *shape);

  /* bias [out] or NULL. moments (or NULL): [S][B][2][Cp] mean over T of each clip's y, and the sum of squared
   * differences from it. */
  ser_status (*conv_prepare)(ser_device *device, ser_plan **plan, const ser_conv_shape *shape, ser_error *err);
  void (*causal_conv_forward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *y, float *moments,
                              const ser_activation *x, const float *w, const float *bias, int64_t batch);
  /* The gradients, from the gradient at y. dx (or NULL): [S][B][Cp][Tp] behind the activation of x (its da, not its
   * dz), written, or added to where add_dx. dw: [out][in][K] and dbias (or NULL): [out] are written, a side each.
   * next (or NULL): [S][B][2][Cp] per-clip sums over T of dz and dz * xhat of x as x_norm reads it, from the final dx
   * (for the next batchnorm_backward_finish: saves a pass over memory); x_norm.da is not read. */
  void (*causal_conv_backward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *dx, float *dw,
                               float *dbias, float *next, const ser_activation *x, const ser_gradient *x_norm,
                               const ser_gradient *dy, const float *w, bool add_dx, int64_t batch);

  /* From per-clip moments over T: batch mean and population variance, scale = gamma / sqrt(var + eps),
   * shift = beta - mean * scale, saved mean and inv_std, all [S][Cp], and the running statistics:
   * running = (1 - momentum) * running + momentum * batch, the variance there unbiased (n / (n - 1), n = B * T). */
  void (*batchnorm_finish)(ser_stream *stream, float *scale, float *shift, float *mean, float *inv_std,
                           float *running_mean, float *running_var, const float *moments, const float *gamma,
                           const float *beta, const ser_batchnorm *norm, const ser_tensor_shape *shape);
  /* sums [S][B][2][Cp]: per clip, over T, of dz and dz * xhat (gradient->sums is not read). */
  void (*batchnorm_backward_sums)(ser_stream *stream, float *sums, const ser_gradient *gradient,
                                  const ser_tensor_shape *shape);
  /* From per-clip sums: means [S][2][Cp] over B * T, dbeta [C] = sum of dz, dgamma [C] = sum of dz * xhat, a side each.
   */
  void (*batchnorm_backward_finish)(ser_stream *stream, float *means, float *dgamma, float *dbeta, const float *sums,
                                    const ser_batchnorm *norm, const ser_tensor_shape *shape);

  /* out [S][B][Cp][Tp] = x joined with a, both read as activations. */
  void (*join_forward)(ser_stream *stream, float *out, const ser_activation *x, const ser_activation *a, ser_join join,
                       const ser_tensor_shape *shape);
  /* dx and da [S][B][Cp][Tp]: gradients behind the activations of x and a, from dout. dx may be dout. */
  void (*join_backward)(ser_stream *stream, float *dx, float *da, const float *dout, const ser_activation *x,
                        const ser_activation *a, ser_join join, const ser_tensor_shape *shape);

  /* pooled [B][Cp] = the sum over the sides of the mean over time of x (read as an activation). lengths NULL: over all
   * T; else over the clip's real frames: [0, L) of side 0, [T - L, T) of side 1, which runs backwards;
   * L = min(lengths[b], T). */
  void (*pool_forward)(ser_stream *stream, float *pooled, const ser_activation *x, const int64_t *lengths,
                       const ser_tensor_shape *shape);
  /* d [S][B][Cp][Tp] = dpooled [B][Cp] spread over the frames that were pooled; added where add. */
  void (*pool_backward)(ser_stream *stream, float *d, const float *dpooled, const int64_t *lengths, bool add,
                        const ser_tensor_shape *shape);

  /* Fusion of scales: out [B][Cp] = sum over s of w[s] * scales[s][b][c]; scales [count][B][Cp]; of the shape batch and
   * channels are read.
   */
  void (*scale_mix_forward)(ser_stream *stream, float *out, const float *scales, const float *w, int64_t count,
                            const ser_tensor_shape *shape);
  void (*scale_mix_backward)(ser_stream *stream, float *dscales, float *dw, const float *dout, const float *scales,
                             const float *w, int64_t count, const ser_tensor_shape *shape);

  /* The masks of all layers of a step: drop [layers][S][B][Cp] = 0 with probability p, else 1 / (1 - p), from
   * Philox4x32-10: lane c % 4 of philox(seed, step->number - 1, row * (Cp / 4) + c / 4), row = (side * layers + layer)
   * * B + b, dropped where its uniform < p. Padding channels are zero. */
  void (*dropout_mask)(ser_stream *stream, float *drop, float p, uint64_t seed, const ser_step *step, int64_t layers,
                       const ser_tensor_shape *shape);

  ser_status (*linear_prepare)(ser_device *device, ser_plan **plan, const ser_linear_shape *shape, ser_error *err);
  void (*linear_forward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *out, const float *x,
                         const float *w, const float *bias, int64_t rows);
  /* dx [rows][in_stride] (or NULL; its padding is zero), dw [out][in], dbias [out] (or NULL): written. */
  void (*linear_backward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *dx, float *dw, float *dbias,
                          const float *dout, const float *x, const float *w, int64_t rows);

  /* packed [plan->packed bytes] from w [out][in]; it holds for plans of the same shape, whatever their rows. bias [out]
   * or NULL; residual or NULL, and it may be out. */
  ser_status (*product_prepare)(ser_device *device, ser_plan **plan, const ser_product_shape *shape, ser_error *err);
  void (*product_pack)(ser_stream *stream, const ser_plan *plan, void *packed, const float *w);
  void (*product_forward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *out, const float *x,
                          const void *packed, const float *bias, const float *residual, ser_product_end end,
                          int64_t rows);

  /* The encoder's way from samples to its first rows. packed from w [channels][kernel].
   * front_wave: wave [rows * hop + kernel]: each clip's samples from row_start[c] * hop on, normalised where the shape
   * says so, else less their mean where over_time (the norm takes a constant away, but not what rounding made of it),
   * zeros behind them (samples that no frame reads may be left out). pcm and sample_start [clips + 1] as for logmel.
   * moments [clips][SER_FRONT_MOMENTS(kernel)] of the clip's wave, over all of its windows: means m_j of
   * x[t * stride + j], then, j <= k, the covariances C_jk, row by row.
   * front_norm: norm [clips][2][channels]: scale = gamma / sqrt(var + eps) and shift = beta - mean * scale, the
   * channel's mean = w . m and var = w' C w (population). Only where over_time.
   * front_forward: out [count][channels], the output's rows [first, first + count) of all rows * hop / stride:
   * gelu(norm(conv)). norm as front_norm left it where over_time; else bias [channels] or NULL, gamma and beta. */
  ser_status (*front_prepare)(ser_device *device, ser_plan **plan, const ser_front_shape *shape, ser_error *err);
  void (*front_pack)(ser_stream *stream, const ser_plan *plan, void *packed, const float *w);
  void (*front_wave)(ser_stream *stream, const ser_plan *plan, void *workspace, float *wave, double *moments,
                     const float *pcm, const int64_t *sample_start, const ser_rows *rows);
  void (*front_norm)(ser_stream *stream, const ser_plan *plan, float *norm, const double *moments, const float *w,
                     const float *gamma, const float *beta, int64_t clips);
  void (*front_forward)(ser_stream *stream, const ser_plan *plan, float *out, const float *wave, const void *packed,
                        const float *bias, const float *norm, const float *gamma, const float *beta,
                        const ser_rows *rows, int64_t first, int64_t count);

  /* out = norm(x) * gamma + beta, each row over its channels (torch.nn.LayerNorm), then GELU where asked for. out may
   * be x. */
  void (*layernorm_forward)(ser_stream *stream, float *out, const float *x, const float *gamma, const float *beta,
                            float eps, bool gelu, int64_t channels, int64_t rows);

  /* out[t] = x[t] + gelu(bias + the grouped convolution of x about t), within each clip. packed from w
   * [channels][channels / groups][kernel]. out does not overlap x; the rows that are nobody's become zero. */
  ser_status (*pos_conv_prepare)(ser_device *device, ser_plan **plan, const ser_pos_conv_shape *shape, ser_error *err);
  void (*pos_conv_pack)(ser_stream *stream, const ser_plan *plan, void *packed, const float *w);
  void (*pos_conv_forward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *out, const float *x,
                           const void *packed, const float *bias, const ser_rows *rows);

  /* out [rows][heads * width]: each frame attends to all frames of its clip, each head by itself, with scale
   * 1 / sqrt(width). qkv [rows][3][heads * width]: queries, keys, values. The rows that are nobody's become zero. */
  ser_status (*attention_prepare)(ser_device *device, ser_plan **plan, const ser_attention_shape *shape,
                                  ser_error *err);
  void (*attention_forward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *out, const float *qkv,
                            const ser_rows *rows);

  /* pooled [clips][2][channels]: mean and standard deviation (population) of each channel over the clip's frames. */
  void (*pool_rows)(ser_stream *stream, float *pooled, const float *x, int64_t channels, const ser_rows *rows);

  /* probabilities [rows][stride] = softmax(logits); padding zero. */
  void (*softmax)(ser_stream *stream, float *probabilities, const float *logits, const ser_loss_shape *shape,
                  int64_t rows);
  /* losses [rows] of each row (smoothed, focal, times class_weights[truth] where not NULL), and dlogits [rows][stride],
   * the gradient of sum(losses) / rows. truth [rows] int32 on the device. */
  void (*softmax_loss)(ser_stream *stream, float *losses, float *dlogits, const float *logits, const int32_t *truth,
                       const float *class_weights, const ser_loss_shape *shape, int64_t rows);

  /* Moves the training on to its next step: number and place plus 1, rate and correction as ser_step says, in double.
   */
  void (*step_begin)(ser_stream *stream, ser_step *step, const ser_adam *adam);
  /* One step over n parameters: m, v, p updated in place from g (torch.optim.Adam without weight decay), with the
   * step's rate and correction. */
  void (*adam)(ser_stream *stream, float *p, float *m, float *v, const float *g, int64_t n, const ser_adam *adam,
               const ser_step *step);
  /* Copies what a step leaves into the buffers of its epoch, at the step's place; up to SER_KEEP_MOST parts. */
  void (*keep)(ser_stream *stream, const ser_keep *parts, int count, const ser_step *step);
  /* out[0] = sum of squares (double order fixed by n alone), out[1] = how many are not finite, as floats. */
  void (*gradient_norm)(ser_stream *stream, float *out, const float *g, int64_t n);

  /* pooled [S][batch][Cp] (S = blocks where every_scale, else 1; batch is the run's B) = pool_forward of the folded
   * branch. weights: first [channels][channels_in] and bias [channels] of the forward direction, then for each block
   * and convolution w [channels][channels][K] and bias [channels]; then the same for the backward direction: all end to
   * end, unpadded. tile [B][Cp][Tp], side 0 alone. */
  ser_status (*branch_prepare)(ser_device *device, ser_plan **plan, const ser_branch_shape *shape, ser_error *err);
  void (*branch_infer)(ser_stream *stream, const ser_plan *plan, void *workspace, float *pooled, const float *tile,
                       const float *weights, const int64_t *lengths, int64_t batch);
} ser_ops;

/* An operation's name and place in the table: for tests that refuse a NULL and for the list in `info device`. */
typedef struct {
  const char *name;
  size_t offset;
} ser_op_entry;
extern const ser_op_entry ser_op_entries[];
extern const size_t ser_op_count;

#endif
