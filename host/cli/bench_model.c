/* The model's stages: a training step and the folded forward pass of the reference branch, on the clips' features. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"

enum { STEPS = 4, CLASSES = 6 }; /* steps in one timed run; more of them on a device that does them in no time */

ser_model_config bench_model_config(const bench *b) {
  const ser_config *c = &b->config;
  return (ser_model_config){.branch = SER_BRANCH_REFERENCE,
                            .blocks = c->model.blocks,
                            .filters = c->model.filters,
                            .kernel = c->model.kernel,
                            .channels = ser_feature_columns(&c->features.mfcc39),
                            .frames = c->features.mfcc39.frames,
                            .classes = CLASSES,
                            .dropout = c->model.dropout,
                            .residual = c->model.residual,
                            .pool = c->model.pool};
}

/* All on the device. */
typedef struct {
  bench *b;
  ser_model_config config;
  ser_model *model;
  ser_pass *pass;
  ser_inference *inference;
  float *features, *tile, *mean, *inv_std, *m, *v, *norm;
  float *answers; /* [BENCH_BATCH][ser_inference_stride] */
  int64_t *start, *length;
  int32_t *truth;
  ser_step *at;
  ser_graph *once; /* what is measured, where the device has graphs */
  float *answers_host;
  int64_t steps; /* in one run */
  double frames; /* of the batch's windows */
} model_context;

static ser_status take(void **memory, bench *b, size_t bytes, const void *from, ser_error *err) {
  *memory = b->device->rt->alloc(b->device, bytes, err);
  if (!*memory) return SER_FAILED;
  if (from)
    b->device->rt->write(b->stream, *memory, from, bytes);
  else
    b->device->rt->zero(b->stream, *memory, bytes);
  return SER_OK;
}

/* Mean and deviation of each channel, as training takes them, so that the numbers have training's size. */
static void standardise(float *mean, float *inv_std, const float *features, int64_t rows, int64_t channels) {
  for (int64_t c = 0; c < channels; c++) {
    double sum = 0, squares = 0;
    for (int64_t r = 0; r < rows; r++) sum += (double)features[r * channels + c];
    sum /= (double)rows;
    for (int64_t r = 0; r < rows; r++) squares += pow((double)features[r * channels + c] - sum, 2);
    mean[c] = (float)sum;
    inv_std[c] = squares > 0 ? (float)(1 / sqrt(squares / (double)rows)) : 1;
  }
}

/* The features of the first clips, as many as a batch holds (again from the first where there are fewer). */
static ser_status load_features(model_context *run, ser_error *err) {
  bench *b = run->b;
  const ser_mfcc_config *config = &b->config.features.mfcc39;
  size_t count = b->clips.count < BENCH_BATCH ? b->clips.count : BENCH_BATCH;
  int64_t offset[BENCH_BATCH + 1], start[BENCH_BATCH], length[BENCH_BATCH], frames = 0;
  for (size_t i = 0; i < count; i++) frames += ser_mfcc_frames(b->clips.counts[i], config->hop);
  ser_mfcc *mfcc;
  float *features = NULL;
  SER_TRY(ser_mfcc_create(&mfcc, b->device, config, (int64_t)count, frames, true, err));
  ser_status status = ser_mfcc_compute(mfcc, &features, offset, b->clips.samples, b->clips.counts, count, err);
  ser_mfcc_free(mfcc);
  int64_t channels = run->config.channels, padded = SER_ROUND_UP(channels, SER_CHANNEL_PAD);
  float *moments = ser_alloc_zero((size_t)(2 * padded), sizeof *moments);
  int32_t truth[BENCH_BATCH];
  for (size_t i = 0; i < BENCH_BATCH; i++) {
    start[i] = status == SER_OK ? offset[i % count] : 0;
    length[i] = status == SER_OK ? offset[i % count + 1] - start[i] : 0;
    truth[i] = (int32_t)(i % CLASSES);
    run->frames += (double)(length[i] < run->config.frames ? length[i] : run->config.frames);
  }
  size_t vector = (size_t)padded * sizeof(float);
  if (status == SER_OK) {
    standardise(moments, moments + padded, features, offset[count], channels);
    status = take((void **)&run->features, b, (size_t)(offset[count] * channels) * sizeof(float), features, err);
  }
  if (status == SER_OK) status = take((void **)&run->mean, b, vector, moments, err);
  if (status == SER_OK) status = take((void **)&run->inv_std, b, vector, moments + padded, err);
  if (status == SER_OK) status = take((void **)&run->start, b, sizeof start, start, err);
  if (status == SER_OK) status = take((void **)&run->length, b, sizeof length, length, err);
  if (status == SER_OK) status = take((void **)&run->truth, b, sizeof truth, truth, err);
  free(moments);
  free(features);
  return status;
}

static ser_status set_up(model_context *run, bench *b, ser_error *err) {
  *run = (model_context){.b = b, .steps = STEPS, .config = bench_model_config(b)};
  SER_TRY(load_features(run, err));
  const ser_model_config *c = &run->config;
  ser_conv_shape conv = ser_model_conv(c, BENCH_BATCH);
  SER_TRY(ser_device_choose_conv(b->device, &conv, err)); /* as training does */
  size_t tile =
      (size_t)(BENCH_BATCH * SER_ROUND_UP(c->channels, SER_CHANNEL_PAD) * SER_ROUND_UP(c->frames, SER_TIME_PAD)) *
      sizeof(float);
  SER_TRY(take((void **)&run->tile, b, 2 * tile, NULL, err));
  SER_TRY(ser_model_create(&run->model, b->device, c, err));
  SER_TRY(ser_model_initialise(run->model, b->stream, 1, err));
  size_t trained = (size_t)ser_model_trained_count(run->model) * sizeof(float);
  SER_TRY(take((void **)&run->m, b, trained, NULL, err));
  SER_TRY(take((void **)&run->v, b, trained, NULL, err));
  SER_TRY(take((void **)&run->norm, b, 2 * sizeof(float), NULL, err));
  SER_TRY(take((void **)&run->at, b, sizeof *run->at, NULL, err));
  SER_TRY(ser_pass_create(&run->pass, run->model, BENCH_BATCH, err));
  SER_TRY(ser_inference_create(&run->inference, run->model, b->stream, BENCH_BATCH, err));
  size_t answers = (size_t)(BENCH_BATCH * ser_inference_stride(run->inference)) * sizeof(float);
  SER_TRY(take((void **)&run->answers, b, answers, NULL, err));
  run->answers_host = ser_alloc(answers);
  return SER_OK;
}

static void tear_down(model_context *run) {
  ser_device *device = run->b->device;
  void *const memory[] = {run->features, run->tile, run->mean,  run->inv_std, run->m,     run->v,
                          run->norm,     run->at,   run->start, run->length,  run->truth, run->answers};
  device->rt->graph_destroy(run->once);
  ser_inference_free(run->inference);
  ser_pass_free(run->pass);
  ser_model_free(run->model);
  for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) device->rt->free(device, memory[i]);
  free(run->answers_host);
}

static void gather(model_context *run, int64_t sides) {
  const ser_tensor_shape shape = {sides, BENCH_BATCH, run->config.channels, run->config.frames};
  run->b->device->ops->gather_standardise(run->b->stream, run->tile, run->features, run->start, run->length, run->mean,
                                          run->inv_std, &shape);
}

/* What a step of training does: gather, forward, backward, finiteness, Adam. */
static void enqueue_step(model_context *run) {
  const ser_ops *ops = run->b->device->ops;
  ser_stream *stream = run->b->stream;
  int64_t trained = ser_model_trained_count(run->model);
  float *gradients = ser_pass_gradients(run->pass);
  const ser_adam adam = {1e-3f, 0.93f, 0.98f, 1e-8f};
  const ser_batch batch = {.tile = run->tile,
                           .lengths = run->length,
                           .truth = run->truth,
                           .batch = BENCH_BATCH,
                           .seed = 1,
                           .step = run->at,
                           .label_smoothing = 0.1f};
  ops->step_begin(stream, run->at, &adam);
  gather(run, 2);
  ser_pass_forward(run->pass, stream, &batch);
  ser_pass_backward(run->pass, stream, &batch);
  ops->gradient_norm(stream, run->norm, gradients, trained);
  ops->adam(stream, ser_model_flat(run->model), run->m, run->v, gradients, trained, &adam, run->at);
}

static void enqueue_forward(model_context *run) {
  gather(run, 1);
  ser_inference_enqueue(run->inference, run->b->stream, run->answers, run->tile, run->length, BENCH_BATCH);
}

/* As training and predict do it: captured once where the device has graphs, after one by itself. */
static ser_status capture(model_context *run, void (*enqueue)(model_context *), ser_error *err) {
  const ser_runtime *rt = run->b->device->rt;
  ser_device_properties properties;
  rt->properties(run->b->device, &properties);
  if (!properties.graphs || run->once) return SER_OK;
  enqueue(run);
  SER_TRY(rt->graph_begin(run->b->stream, err));
  enqueue(run);
  return rt->graph_end(run->b->stream, &run->once, err);
}

/* Those of one run, between the events. */
static ser_status run_steps(model_context *run, void (*enqueue)(model_context *), ser_error *err) {
  const ser_runtime *rt = run->b->device->rt;
  SER_TRY(capture(run, enqueue, err));
  rt->record(run->b->stream, run->b->from);
  for (int64_t i = 0; i < run->steps; i++) {
    if (run->once)
      rt->graph_launch(run->b->stream, run->once);
    else
      enqueue(run);
  }
  rt->record(run->b->stream, run->b->to);
  return SER_OK;
}

/* The device's own time of the steps, which have been waited for. */
static void note_steps(model_context *run) {
  bench *b = run->b;
  b->ran.batches += run->steps;
  b->ran.seconds += b->device->rt->seconds(b->from, b->to);
}

static ser_status run_train(void *context, ser_error *err) {
  model_context *run = context;
  float norm[2];
  SER_TRY(run_steps(run, enqueue_step, err));
  SER_TRY(run->b->device->rt->read(run->b->stream, norm, run->norm, sizeof norm, err));
  note_steps(run);
  if (norm[1] > 0) return ser_fail(err, SER_FAILED, "bench train: the gradients are no longer finite");
  return SER_OK;
}

static ser_status run_forward(void *context, ser_error *err) {
  model_context *run = context;
  size_t answers = (size_t)(BENCH_BATCH * ser_inference_stride(run->inference)) * sizeof(float);
  SER_TRY(run_steps(run, enqueue_forward, err));
  SER_TRY(run->b->device->rt->read(run->b->stream, run->answers_host, run->answers, answers, err));
  note_steps(run);
  return SER_OK;
}

/* times: how often the convolutions' operations are done, forward once, backward twice. */
static ser_status measure(bench *b, const char *name, bench_body body, double times, ser_error *err) {
  model_context run;
  bench_result *line;
  ser_status status = set_up(&run, b, err);
  if (status == SER_OK && b->on_device) status = bench_find_amount(&run.steps, STEPS, body, &run, err);
  double clips = (double)(BENCH_BATCH * run.steps);
  if (status == SER_OK) status = bench_measure(b, &line, name, "clips/s", clips, body, &run, err);
  if (status == SER_OK) {
    const ser_model_config *c = &run.config;
    double flops = times * bench_flops_clip(c);
    bench_bound_operations(line, flops, "peak.fma over the convolutions' operations");
    line->hours = line->median * b->clips.seconds / (double)b->clips.count;
    line->work.clips = BENCH_BATCH;
    line->work.operations = BENCH_BATCH * flops;
    line->work.bytes = times > 1
                           ? bench_bytes_train(c, BENCH_BATCH, run.frames, (double)ser_model_trained_count(run.model))
                           : bench_bytes_forward(c, BENCH_BATCH, run.frames);
    line->work.in_graph = run.once != NULL;
  }
  tear_down(&run);
  return status;
}

ser_status bench_train(bench *b, ser_error *err) {
  return measure(b, "train", run_train, 3, err);
}

ser_status bench_forward(bench *b, ser_error *err) {
  return measure(b, "forward", run_forward, 1, err);
}
