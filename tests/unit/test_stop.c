/* A signal, before a job begins or amid its work: it is noticed before the next piece of work, what was cut off is
 * thrown away whole, and what was finished stays. No time is measured: tests count what ran after the signal. Each runs
 * in a child, since the flag cannot be taken back. Index and audio have such tests beside their own. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "device/cpu.h"
#include "report/predict.h"
#include "report/score.h"
#include "support/cache.h"
#include "support/harness.h"
#include "support/model.h"
#include "support/recordings.h"
#include "support/training.h"

/* Runs the body in a child; its failure is the test's. */
static void in_child(void (*body)(void *context), void *context) {
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    ser_interrupt_install();
    body(context);
    _exit(0);
  }
  int result;
  assert_true(child > 0);
  assert_int_equal(waitpid(child, &result, 0), child);
  if (!WIFEXITED(result) || WEXITSTATUS(result)) fail_msg("the child ended with status %x", result);
}

/* In the child, where cmocka cannot jump: the line that went wrong, and the end. */
#define EXPECT(condition)                                                                                              \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                  \
      _exit(1);                                                                                                        \
    }                                                                                                                  \
  } while (0)

/* ---- a device's operations ------------------------------------------------------------------------------------------
 */

typedef struct {
  size_t ran, raise_at;
} tasks;

static void count_task(void *context, size_t task, int thread) {
  tasks *t = context;
  (void)task;
  (void)thread;
  if (++t->ran == t->raise_at) raise(SIGTERM);
}

/* The tasks that have not begun are left out, and from then on nothing can be read from the stream. */
static void cut_operations(void *context) {
  ser_error err = {0};
  ser_device *device;
  ser_stream *stream, *idle;
  tasks all = {0, 0}, cut = {0, 5}, none = {0, 0};
  int number = 7, read = 0;
  (void)context;
  EXPECT(ser_device_open(&device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &err) == SER_OK);
  EXPECT(device->rt->stream_create(device, &stream, &err) == SER_OK);
  EXPECT(device->rt->stream_create(device, &idle, &err) == SER_OK);
  ser_cpu_parallel(stream, 100, count_task, &all);
  EXPECT(all.ran == 100);
  EXPECT(device->rt->sync(stream, &err) == SER_OK);
  ser_cpu_parallel(stream, 100, count_task, &cut);
  EXPECT(cut.ran == 5);
  ser_cpu_parallel(stream, 100, count_task, &none);
  EXPECT(none.ran == 0);
  EXPECT(device->rt->sync(stream, &err) == SER_INTERRUPTED);
  EXPECT(!strcmp(err.text, "interrupted by SIGTERM"));
  EXPECT(device->rt->read(stream, &read, &number, sizeof read, &err) == SER_INTERRUPTED);
  EXPECT(read == 0);
  /* What was whole before the signal can still be kept. */
  EXPECT(device->rt->read(idle, &read, &number, sizeof read, &err) == SER_OK);
  EXPECT(read == 7);
}

static void test_operations(void **state) {
  (void)state;
  in_child(cut_operations, NULL);
}

/* ---- training ------------------------------------------------------------------------------------------------------
 */

typedef enum { CONV_FORWARD, CONV_BACKWARD, ADAM, INFER, SOFTMAX, HOOKED } hooked_op;

/* A training with a signal at a call of an operation (0: before it begins). */
typedef struct {
  const test_rig *rig;
  const char *folder;
  hooked_op op;
  int at;
} cut_training;

static const ser_ops *real;
static hooked_op raise_in;
static int raise_at, calls[HOOKED], gathered; /* since the signal */

static void count_call(hooked_op op) {
  if (++calls[op] != raise_at || op != raise_in) return;
  raise(SIGTERM);
  gathered = 0;
}

static void hooked_gather(ser_stream *stream, float *tile, const float *features, const int64_t *start,
                          const int64_t *length, const float *mean, const float *inv_std,
                          const ser_tensor_shape *shape) {
  gathered++;
  real->gather_standardise(stream, tile, features, start, length, mean, inv_std, shape);
}

static void hooked_forward(ser_stream *stream, const ser_plan *plan, void *workspace, float *y, float *moments,
                           const ser_activation *x, const float *w, const float *bias, int64_t batch) {
  count_call(CONV_FORWARD);
  y[0] = 12345;
  real->causal_conv_forward(stream, plan, workspace, y, moments, x, w, bias, batch);
  EXPECT((y[0] == 12345) == (ser_interrupted() != 0)); /* the layers left do nothing */
}

static void hooked_backward(ser_stream *stream, const ser_plan *plan, void *workspace, float *dx, float *dw,
                            float *dbias, float *next, const ser_activation *x, const ser_gradient *x_norm,
                            const ser_gradient *dy, const float *w, bool add_dx, int64_t batch) {
  count_call(CONV_BACKWARD);
  dw[0] = 12345;
  real->causal_conv_backward(stream, plan, workspace, dx, dw, dbias, next, x, x_norm, dy, w, add_dx, batch);
  EXPECT((dw[0] == 12345) == (ser_interrupted() != 0));
}

static void hooked_adam(ser_stream *stream, float *p, float *m, float *v, const float *g, int64_t n,
                        const ser_adam *adam, const ser_step *step) {
  float before[2] = {p[0], m[0]};
  count_call(ADAM);
  real->adam(stream, p, m, v, g, n, adam, step);
  if (ser_interrupted()) EXPECT(p[0] == before[0] && m[0] == before[1]); /* no step of what was cut off */
}

static void hooked_infer(ser_stream *stream, const ser_plan *plan, void *workspace, float *pooled, const float *tile,
                         const float *weights, const int64_t *lengths, int64_t batch) {
  count_call(INFER);
  real->branch_infer(stream, plan, workspace, pooled, tile, weights, lengths, batch);
}

/* Its rows are few and one task: where the signal comes behind it, the batch is whole and is read. */
static void hooked_softmax(ser_stream *stream, float *probabilities, const float *logits, const ser_loss_shape *shape,
                           int64_t rows) {
  real->softmax(stream, probabilities, logits, shape, rows);
  count_call(SOFTMAX);
}

static ser_device *hooked_device(ser_ops *ops) {
  ser_device *device;
  ser_error err = {0};
  EXPECT(ser_device_open(&device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &err) == SER_OK);
  real = device->ops;
  *ops = *real;
  ops->gather_standardise = hooked_gather;
  ops->causal_conv_forward = hooked_forward;
  ops->causal_conv_backward = hooked_backward;
  ops->adam = hooked_adam;
  ops->branch_infer = hooked_infer;
  ops->softmax = hooked_softmax;
  device->ops = ops;
  return device;
}

static void train_and_stop(void *context) {
  const cut_training *c = context;
  ser_error err = {0};
  ser_ops ops;
  ser_device *device = hooked_device(&ops);
  raise_in = c->op;
  raise_at = c->at;
  if (!c->at) raise(SIGTERM);
  EXPECT(test_train_on(c->rig, device, c->folder, false, &err) == SER_INTERRUPTED);
  EXPECT(!strcmp(err.text, "interrupted by SIGTERM"));
  EXPECT(gathered == 0); /* not one batch more */
}

/* In the second epoch: amid a step's way forward, its way back, at its end, and in the validation, amid a batch and
 * between two. What was cut off is as if it had never begun. 5 steps an epoch, 5 convolutions a step each way, 2
 * batches of validation. */
static void test_training(void **state) {
  static const struct {
    hooked_op op;
    int at;
  } cuts[] = {{CONV_FORWARD, 33}, {CONV_BACKWARD, 33}, {ADAM, 7}, {INFER, 4}, {SOFTMAX, 3}};
  test_rig r = test_rig_make();
  ser_error err = {0};
  (void)state;
  r.config.train.epochs = 3;
  char *whole = test_train(&r, "whole", 1);
  for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
    char *folder = ser_format("%s/cut-%d", r.folder, (int)i), *checkpoint = ser_path_join(folder, "checkpoint");
    int64_t epochs;
    in_child(train_and_stop, &(cut_training){&r, folder, cuts[i].op, cuts[i].at});
    ASSERT_OK(ser_checkpoint_epochs(&epochs, checkpoint, &err), err);
    assert_int_equal(epochs, 1);
    ASSERT_OK(test_train_in(&r, folder, 1, &err), err);
    test_same_training(whole, folder);
    free(checkpoint);
    free(folder);
  }
  free(whole);
  test_rig_free(&r);
}

static void test_training_not_begun(void **state) {
  test_rig r = test_rig_make();
  (void)state;
  char *folder = ser_path_join(r.folder, "run"), *checkpoint = ser_path_join(folder, "checkpoint");
  in_child(train_and_stop, &(cut_training){&r, folder, HOOKED, 0});
  assert_false(ser_file_exists(checkpoint));
  free(checkpoint);
  free(folder);
  test_rig_free(&r);
}

/* ---- answers -------------------------------------------------------------------------------------------------------
 */

static void stop_scoring(void *context) {
  enum { WINDOWS = 100, FRAMES = 162 };
  static float rows[FRAMES * 39], probabilities[WINDOWS * 6];
  ser_score_input windows[WINDOWS];
  ser_error err = {0};
  ser_ops ops;
  ser_scorer *scorer;
  ser_device *device = hooked_device(&ops);
  for (int i = 0; i < WINDOWS; i++) windows[i] = (ser_score_input){rows, FRAMES};
  EXPECT(ser_scorer_create(&scorer, device, context, &err) == SER_OK);
  EXPECT(ser_scorer_run(scorer, probabilities, windows, 1, &err) == SER_OK);
  gathered = 0;
  raise_in = INFER;
  raise_at = 3; /* in the second batch of the next call */
  EXPECT(ser_scorer_run(scorer, probabilities, windows, WINDOWS, &err) == SER_INTERRUPTED);
  EXPECT(calls[INFER] == 3 && gathered == 0);
  EXPECT(ser_scorer_run(scorer, probabilities, windows, WINDOWS, &err) == SER_INTERRUPTED);
  EXPECT(calls[INFER] == 3 && gathered == 0);
}

static ser_status no_answer(void *context, const ser_answer *answer, ser_error *err) {
  (void)context;
  (void)err;
  fprintf(stderr, "%s is answered\n", answer->path);
  _exit(1);
}

static void stop_predicting(void *context) {
  const char *folder = context;
  ser_error err = {0};
  ser_predictor *predictor;
  char *model = ser_path_join(folder, "model.safetensors"), *text = ser_path_join(folder, "text.wav");
  ser_predict_options options = {
      .model = model, .device = {.kind = SER_DEVICE_CPU, .threads = 1}, .jobs = 1, .window = -1, .hop = -1};
  ser_audio_source inputs[] = {{.path = text}, {.path = text}};
  EXPECT(ser_predictor_open(&predictor, &options, &err) == SER_OK);
  raise(SIGTERM);
  EXPECT(ser_predict(predictor, inputs, 2, no_answer, NULL, &err) == SER_INTERRUPTED);
}

static void test_answers(void **state) {
  (void)state;
  char *folder = test_folder_make("stop"), *model = ser_path_join(folder, "model.safetensors");
  test_model_write(model, SER_MFCC39, 6, 1);
  test_put_text(folder, "text.wav", "no recording: refused without being decoded");
  in_child(stop_scoring, model);
  in_child(stop_predicting, folder);
  free(model);
  test_folder_remove(folder);
}

/* ---- the cache -----------------------------------------------------------------------------------------------------
 */

typedef struct {
  char *from, *into;
} caches;

static void stop_cache(void *context) {
  const caches *c = context;
  ser_error err = {0};
  ser_text report = {0};
  ser_hash key = test_cache_key(1);
  int64_t *offset;
  float *features;
  ser_cache *cache = test_cache_open(c->from, false);
  raise(SIGTERM);
  EXPECT(ser_cache_read(cache, &offset, &features, &key, 1, &err) == SER_INTERRUPTED);
  EXPECT(!offset && !features);
  EXPECT(test_cache_files(cache, "shards") == 3);
  EXPECT(ser_cache_merge(c->into, c->from, test_cache_columns, &report, &err) == SER_INTERRUPTED);
  EXPECT(ser_cache_gc(c->from, test_cache_columns, &report, &err) == SER_INTERRUPTED);
  EXPECT(ser_cache_verify(c->from, test_cache_columns, &report, &err) == SER_INTERRUPTED);
  EXPECT(test_cache_files(cache, "shards") == 3);
  EXPECT(!report.data); /* nothing is said of what was not looked at */
}

static void test_cache(void **state) {
  (void)state;
  caches c = {test_folder_make("stop"), test_folder_make("stop")};
  ser_cache *cache = test_cache_open(c.from, true);
  for (int64_t i = 0; i < 3; i++) test_cache_fill(cache, 10 * i, 10 * i + 10);
  test_cache_close(cache);
  in_child(stop_cache, &c);
  cache = test_cache_open(c.into, true);
  assert_int_equal(test_cache_files(cache, "shards"), 0);
  test_cache_close(cache);
  cache = test_cache_open(c.from, false);
  test_cache_check(cache, 0, 30);
  test_cache_close(cache);
  test_folder_remove(c.from);
  test_folder_remove(c.into);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_operations), cmocka_unit_test(test_training), cmocka_unit_test(test_training_not_begun),
      cmocka_unit_test(test_answers),    cmocka_unit_test(test_cache),
  };
  ser_log_set_quiet(true);
  return cmocka_run_group_tests_name("unit.stop", tests, NULL, NULL);
}
