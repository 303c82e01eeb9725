/* The device interface, second table: the operations. Each is documented once, here, by its maths, shapes and layout;
 * the CPU form in kernels/ is its meaning. Every backend fills every entry.
 *
 * Use: `prepare` turns a shape into a plan (it may allocate; the plan says how much workspace the run needs); running
 * enqueues on a stream and never allocates. A plan may serve several streams, each with a workspace of its own.
 * Outputs come first. NULL where a comment says "or NULL" leaves that part out. Outputs never overlap inputs unless a
 * comment says so.
 *
 * Layout of temporal tensors: [B][Cp][Tp], time contiguous, Cp = channels rounded up to 8 (SER_CHANNEL_PAD), Tp = time
 * rounded up to 16 (SER_TIME_PAD). Padding channels and padding columns of every tensor that an operation writes are
 * zero, and operations may rely on that for what they read. Per-channel vectors are [Cp], padded with zeros.
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
  int64_t max_clips;    /* the most clips and frames one run will see: sizes the workspace */
  int64_t max_frames;
} ser_mfcc_shape;

/* Frames of a clip of n samples: 1 + n / hop, and none for an empty clip. */
static inline int64_t ser_mfcc_frames(int64_t samples, int64_t hop) {
  return samples > 0 ? 1 + samples / hop : 0;
}

/* ---- temporal convolutions ------------------------------------------------------------------------------------- */

/* How an operation reads a temporal tensor: as it is (scale NULL), or as relu(x * scale[c] + shift[c]) * drop[b][c],
 * which is batch norm, ReLU and spatial dropout taken on the fly. */
typedef struct {
  const float *x;     /* [B][Cp][Tp] */
  const float *scale; /* [Cp] or NULL */
  const float *shift; /* [Cp], with scale */
  const float *drop;  /* [B][Cp] multipliers (0 or 1 / (1 - p)), or NULL: none */
} ser_activation;

/* The gradient at a batch-normalised convolution's output y, made on the fly from da, the gradient behind
 * activation (y, scale, shift, drop): dz = da * drop * [y * scale + shift > 0], xhat = (y - mean) * inv_std,
 * dy = scale * (dz - sums[0] - xhat * sums[1]). With scale NULL, dy = da and nothing else is read. */
typedef struct {
  const float *da;             /* [B][Cp][Tp] */
  ser_activation y;            /* y.x is the convolution's output */
  const float *mean, *inv_std; /* [Cp] of the batch, as batchnorm_finish saved them */
  const float *sums;           /* [2][Cp]: means over B * T of dz and of dz * xhat (batchnorm_backward_finish) */
} ser_gradient;

/* Causal dilated convolution: y[b][o][t] = bias[o] + sum over i, k of w[o][i][k] * a[b][i][t - (K - 1 - k) * dilation],
 * a = the activation read, zero before t = 0 (PyTorch Conv1d weight order behind a left padding). */
typedef struct {
  int64_t batch;   /* the largest B; running may use fewer clips */
  int64_t in, out; /* channels */
  int64_t time;    /* T */
  int64_t kernel, dilation;
} ser_conv_shape;

/* ---- joining and pooling --------------------------------------------------------------------------------------- */

typedef enum {
  SER_JOIN_RESIDUAL, /* out = x + a      */
  SER_JOIN_GATE,     /* out = x * sigmoid(a) */
} ser_join;

typedef struct {
  int64_t batch, channels, time;
} ser_tensor_shape;

/* ---- products --------------------------------------------------------------------------------------------------- */

/* out[n][o] = bias[o] + sum over i of x[n][i] * w[o][i]; rows of x lie in_stride apart, rows of out out_stride. */
typedef struct {
  int64_t rows; /* the most */
  int64_t in, out;
  int64_t in_stride, out_stride;
} ser_linear_shape;

/* ---- loss and optimiser ------------------------------------------------------------------------------------------ */

typedef struct {
  int64_t rows; /* the most */
  int64_t classes, stride;
  float label_smoothing; /* targets (1 - s) * onehot + s / classes */
  float focal_gamma;     /* loss * (1 - p_truth)^gamma; 0: plain cross-entropy */
} ser_loss_shape;

typedef struct {
  float lr, beta1, beta2, eps;
  int64_t step; /* counted from 1, for the bias corrections (PyTorch's Adam) */
} ser_adam;

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

  /* tile[b][c][t] = (features[start[b] + t][c] - mean[c]) * inv_std[c] for t < min(length[b], T), zero behind;
   * reversed (or NULL): the same with t running backwards over all T. features: [rows][channels], start, length: [B],
   * on the device. No plan: nothing to prepare. */
  void (*gather_standardise)(ser_stream *stream, float *tile, float *reversed, const float *features,
                             const int64_t *start, const int64_t *length, const float *mean, const float *inv_std,
                             const ser_tensor_shape *shape);

  /* bias [out] or NULL. moments (or NULL): [B][2][Cp] mean over T of each clip's y, and the sum of squared differences
   * from it. */
  ser_status (*conv_prepare)(ser_device *device, ser_plan **plan, const ser_conv_shape *shape, ser_error *err);
  void (*causal_conv_forward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *y, float *moments,
                              const ser_activation *x, const float *w, const float *bias, int64_t batch);
  /* The gradients, from the gradient at y. dx (or NULL): [B][Cp][Tp] behind the activation of x (its da, not its dz),
   * written, or added to where add_dx. dw: [out][in][K] and dbias (or NULL): [out] are written.
   * next (or NULL): [B][2][Cp] per-clip sums over T of dz and dz * xhat of x as x_norm reads it, from the final dx
   * (for the next batchnorm_backward_finish: saves a pass over memory); x_norm.da is not read. */
  void (*causal_conv_backward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *dx, float *dw,
                               float *dbias, float *next, const ser_activation *x, const ser_gradient *x_norm,
                               const ser_gradient *dy, const float *w, bool add_dx, int64_t batch);

  /* From per-clip moments over T: batch mean and population variance, scale = gamma / sqrt(var + eps),
   * shift = beta - mean * scale, saved mean and inv_std, and the running statistics:
   * running = (1 - momentum) * running + momentum * batch, the variance there unbiased (n / (n - 1), n = B * T). */
  void (*batchnorm_finish)(ser_stream *stream, float *scale, float *shift, float *mean, float *inv_std,
                           float *running_mean, float *running_var, const float *moments, const float *gamma,
                           const float *beta, float eps, float momentum, const ser_tensor_shape *shape);
  /* sums [B][2][Cp]: per clip, over T, of dz and dz * xhat (gradient->sums is not read). */
  void (*batchnorm_backward_sums)(ser_stream *stream, float *sums, const ser_gradient *gradient,
                                  const ser_tensor_shape *shape);
  /* From per-clip sums: means [2][Cp] over B * T, dbeta [C] = sum of dz, dgamma [C] = sum of dz * xhat. */
  void (*batchnorm_backward_finish)(ser_stream *stream, float *means, float *dgamma, float *dbeta, const float *sums,
                                    const ser_tensor_shape *shape);

  /* out [B][Cp][Tp] = x joined with a, both read as activations. */
  void (*join_forward)(ser_stream *stream, float *out, const ser_activation *x, const ser_activation *a, ser_join join,
                       const ser_tensor_shape *shape);
  /* dx and da [B][Cp][Tp]: gradients behind the activations of x and a, from dout. dx may be dout. */
  void (*join_backward)(ser_stream *stream, float *dx, float *da, const float *dout, const ser_activation *x,
                        const ser_activation *a, ser_join join, const ser_tensor_shape *shape);

  /* pooled [B][Cp] = mean over time of forward + mean over time of backward (each read as an activation). lengths NULL:
   * over all T; else over the clip's real frames: [0, L) of forward, [T - L, T) of backward, which runs reversed;
   * L = min(lengths[b], T). */
  void (*pool_forward)(ser_stream *stream, float *pooled, const ser_activation *forward, const ser_activation *backward,
                       const int64_t *lengths, const ser_tensor_shape *shape);
  /* d [B][Cp][Tp] = dpooled spread over the frames that were pooled; `reversed` tells which side; added where add. */
  void (*pool_backward)(ser_stream *stream, float *d, const float *dpooled, const int64_t *lengths, bool reversed,
                        bool add, const ser_tensor_shape *shape);

  /* Fusion of scales: out [B][Cp] = sum over s of w[s] * scales[s][b][c]; scales [S][B][Cp] with B the shape's batch.
   */
  void (*scale_mix_forward)(ser_stream *stream, float *out, const float *scales, const float *w, int64_t count,
                            const ser_tensor_shape *shape);
  void (*scale_mix_backward)(ser_stream *stream, float *dscales, float *dw, const float *dout, const float *scales,
                             const float *w, int64_t count, const ser_tensor_shape *shape);

  /* drop[b][c] = 0 with probability p, else 1 / (1 - p): Philox4x32-10 at key seed, counter (stream_id, first + b) x c:
   * lane c % 4 of philox(seed, stream_id, (first + b) * (Cp / 4) + c / 4), dropped where its uniform < p. Padding
   * channels are zero. */
  void (*dropout_mask)(ser_stream *stream, float *drop, float p, uint64_t seed, uint64_t stream_id, int64_t first,
                       const ser_tensor_shape *shape);

  ser_status (*linear_prepare)(ser_device *device, ser_plan **plan, const ser_linear_shape *shape, ser_error *err);
  void (*linear_forward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *out, const float *x,
                         const float *w, const float *bias, int64_t rows);
  /* dx [rows][in_stride] (or NULL; its padding is zero), dw [out][in], dbias [out] (or NULL): written. */
  void (*linear_backward)(ser_stream *stream, const ser_plan *plan, void *workspace, float *dx, float *dw, float *dbias,
                          const float *dout, const float *x, const float *w, int64_t rows);

  /* probabilities [rows][stride] = softmax(logits); padding zero. */
  void (*softmax)(ser_stream *stream, float *probabilities, const float *logits, const ser_loss_shape *shape,
                  int64_t rows);
  /* losses [rows] of each row (smoothed, focal, times class_weights[truth] where not NULL), and dlogits [rows][stride],
   * the gradient of sum(losses) / rows. truth [rows] int32 on the device. */
  void (*softmax_loss)(ser_stream *stream, float *losses, float *dlogits, const float *logits, const int32_t *truth,
                       const float *class_weights, const ser_loss_shape *shape, int64_t rows);

  /* One step over n parameters: m, v, p updated in place from g (torch.optim.Adam without weight decay). */
  void (*adam)(ser_stream *stream, float *p, float *m, float *v, const float *g, int64_t n, const ser_adam *adam);
  /* out[0] = sum of squares (double order fixed by n alone), out[1] = how many are not finite, as floats. */
  void (*gradient_norm)(ser_stream *stream, float *out, const float *g, int64_t n);

  /* pooled [S][batch][Cp] (S = blocks where every_scale, else 1; batch is the run's B) = pool_forward of the folded
   * branch. weights: first [channels][channels_in] and bias [channels] of the forward direction, then for each block
   * and convolution w [channels][channels][K] and bias [channels]; then the same for the backward direction: all end to
   * end, unpadded. tile [B][Cp][Tp], not reversed. */
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
