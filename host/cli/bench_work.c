/* What a stage needs of a device at least: floating-point operations, bytes in its memory and over the bus, launches;
 * and the seconds that these take by the limits measured. */
#include <math.h>

#include "cli/bench.h"

/* Window, real FFT (2.5 n log2 n), power, two triangles a bin, a logarithm of about twenty for each band, DCT, deltas
 * of nine taps. */
double bench_flops_frame(const ser_mfcc_config *m) {
  double n = (double)m->n_fft, bins = n / 2 + 1, mels = (double)m->mels, kept = (double)m->coefficients;
  return n + 2.5 * n * log2(n) + 3 * bins + 4 * bins + 20 * mels + 2 * mels * kept + (m->deltas ? 36 * kept : 0);
}

double bench_flops_clip(const ser_model_config *c) {
  double filters = (double)c->filters, time = (double)c->frames;
  return 2 * 2 * time * filters * ((double)c->channels + 2 * (double)c->blocks * (double)c->kernel * filters);
}

/* Samples in, log-mel rows out and in again (their floor is the whole clip's), features out. */
double bench_bytes_mfcc(const ser_mfcc_config *m, double samples, double frames) {
  return sizeof(float) * (samples + frames * (2 * (double)m->mels + (double)ser_feature_columns(m)));
}

/* One side of a batch of temporal tensors. */
static double tensor(const ser_model_config *c, double batch, int64_t channels) {
  return sizeof(float) * batch * (double)SER_ROUND_UP(channels, SER_CHANNEL_PAD) *
         (double)SER_ROUND_UP(c->frames, SER_TIME_PAD);
}

/* Features in, the tile out, and in again for each direction; what lies between stays on the chip. */
double bench_bytes_forward(const ser_model_config *c, double batch, double frames) {
  return sizeof(float) * frames * (double)c->channels + 3 * tensor(c, batch, c->channels);
}

/* In tensors of both sides. Forwards a convolution reads one and writes one, joining reads two and writes one, pooling
 * reads one. Backwards pooling writes one, and the last norm's sums read two; a convolution reads the gradient behind
 * its output, that output and its input, and writes the gradient there, where the block is joined added to what the
 * gradient holds. Adam reads and writes the parameters and two moments; their gradients are written, and read twice. */
double bench_bytes_train(const ser_model_config *c, double batch, double frames, double parameters) {
  double side = tensor(c, batch, c->filters), joined = c->residual ? 1 : 0;
  double forward = 1 + (double)c->blocks * (4 + 3 * joined) + 1;
  double backward = 3 + (double)c->blocks * (8 + joined) + 1;
  return sizeof(float) * frames * (double)c->channels + 2 * 3 * tensor(c, batch, c->channels) +
         2 * (forward + backward) * side + 9 * sizeof(float) * parameters;
}

/* At its best; 0 where it was not measured. */
static double limit_of(const bench *b, const char *name, bool is_time) {
  const bench_result *peak = bench_find(b, name);
  return !peak ? 0 : is_time ? 1e-6 * peak->min : 1e9 * peak->max;
}

static double over(double amount, double rate) {
  return rate > 0 ? amount / rate : 0;
}

/* Both ways at once. */
double bench_bus_seconds(const bench *b, const bench_work *work) {
  double to = over(work->written, limit_of(b, "peak.to", false)),
         from = over(work->read, limit_of(b, "peak.from", false));
  return to > from ? to : from;
}

double bench_least_seconds(const bench *b, bench_work *work) {
  static const char *const names[] = {"fma", "memory", "bus", "launches"};
  double each = limit_of(b, work->in_graph ? "peak.graph" : "peak.launch", true);
  const double seconds[] = {over(work->operations, limit_of(b, "peak.fma", false)),
                            over(work->bytes, limit_of(b, "peak.copy", false)), bench_bus_seconds(b, work),
                            (work->launches + work->calls) * each};
  int most = 0;
  for (int i = 1; i < 4; i++)
    if (seconds[i] > seconds[most]) most = i;
  work->limit = seconds[most] > 0 ? names[most] : NULL;
  return seconds[most];
}
