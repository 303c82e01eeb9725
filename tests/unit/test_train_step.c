/* That a training does with each step what its settings ask for: Adam and the loss recomputed in double from what the
 * device's operations were given, against what the training leaves behind (checkpoint, history.csv); and that each
 * step's loss and gradient are looked at. The operations themselves are tested in tests/ops. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/csv.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/safetensors.h"
#include "support/harness.h"
#include "support/training.h"
#include "train/internal.h"

/* ---- a device that listens ----------------------------------------------------------------------------------------
 */

/* What the hooks write to; one training at a time. */
static struct {
  ser_device *device;
  const ser_ops *ops; /* the device's own */
  float *first;       /* [n] the parameters before the first step */
  float **gradients;  /* [steps][n] */
  int64_t steps, capacity, n;
  /* the loss: what each class's clips weigh, smoothing, gamma; sums over all rows */
  double weights[SER_EMOTIONS], smoothing, gamma, losses, right;
  int64_t rows;
  /* spoilt on purpose: the calls of the loss and of the gradient's norm that meet something that is not finite */
  int64_t loss_calls, norm_calls, bad_loss, bad_norm;
} ear;

static float *copy_of(ser_stream *stream, const float *from, int64_t n) {
  ser_error err = {0};
  float *copy = ser_alloc((size_t)n * sizeof *copy);
  ASSERT_OK(ear.device->rt->read(stream, copy, from, (size_t)n * sizeof *copy, &err), err);
  return copy;
}

static void hear_adam(ser_stream *stream, float *p, float *m, float *v, const float *g, int64_t n, const ser_adam *adam,
                      const ser_step *step) {
  if (!ear.first) ear.first = copy_of(stream, p, n);
  ear.n = n;
  SER_GROW(ear.gradients, ear.steps, ear.capacity);
  ear.gradients[ear.steps++] = copy_of(stream, g, n);
  ear.ops->adam(stream, p, m, v, g, n, adam, step);
}

/* A row's loss by its definition: w * (1 - p)^gamma * -sum of q log p, q the smoothed target. */
static double loss_of(const float *logits, int64_t classes, int32_t truth) {
  double sum = 0, ce = 0;
  for (int64_t k = 0; k < classes; k++) sum += exp((double)logits[k]);
  for (int64_t k = 0; k < classes; k++) {
    double target = ear.smoothing / (double)classes + (k == truth ? 1 - ear.smoothing : 0);
    ce -= target * ((double)logits[k] - log(sum));
  }
  return ear.weights[truth] * pow(1 - exp((double)logits[truth]) / sum, ear.gamma) * ce;
}

static void hear_loss(ser_stream *stream, float *losses, float *dlogits, const float *logits, const int32_t *truth,
                      const float *class_weights, const ser_loss_shape *shape, int64_t rows) {
  ser_error err = {0};
  float *z = copy_of(stream, logits, rows * shape->stride), infinite = INFINITY;
  int32_t *labels = ser_alloc((size_t)rows * sizeof *labels);
  ASSERT_OK(ear.device->rt->read(stream, labels, truth, (size_t)rows * sizeof *labels, &err), err);
  for (int64_t r = 0; r < rows; r++, ear.rows++) {
    const float *row = z + r * shape->stride;
    int64_t best = 0;
    for (int64_t k = 1; k < shape->classes; k++)
      if (row[k] > row[best]) best = k;
    ear.losses += loss_of(row, shape->classes, labels[r]);
    ear.right += best == labels[r];
  }
  free(z);
  free(labels);
  ear.ops->softmax_loss(stream, losses, dlogits, logits, truth, class_weights, shape, rows);
  if (++ear.loss_calls == ear.bad_loss) ear.device->rt->write(stream, losses + rows / 2, &infinite, sizeof infinite);
}

static void hear_norm(ser_stream *stream, float *out, const float *g, int64_t n) {
  float nan = NAN;
  if (++ear.norm_calls == ear.bad_norm) /* as a backward pass would leave it */
    ear.device->rt->write(stream, (float *)(uintptr_t)g + n / 2, &nan, sizeof nan);
  ear.ops->gradient_norm(stream, out, g, n);
}

static ser_status train_and_hear(const test_rig *r, const char *folder, ser_error *err) {
  ser_device *device;
  ser_error opened = {0};
  ASSERT_OK(ser_device_open(&device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = 1}, &opened), opened);
  ser_ops hooked = *device->ops;
  ear.device = device;
  ear.ops = device->ops;
  hooked.adam = hear_adam;
  hooked.softmax_loss = hear_loss;
  hooked.gradient_norm = hear_norm;
  device->ops = &hooked;
  ser_status status = test_train_on(r, device, folder, false, err);
  ser_device_close(device);
  return status;
}

static int forget(void **state) {
  (void)state;
  for (int64_t i = 0; i < ear.steps; i++) free(ear.gradients[i]);
  free(ear.gradients);
  free(ear.first);
  memset(&ear, 0, sizeof ear);
  return 0;
}

/* ---- what a training leaves ---------------------------------------------------------------------------------------
 */

static ser_tensors read_checkpoint(const char *folder) {
  ser_error err = {0};
  ser_tensors tensors;
  char *path = ser_path_join(folder, "checkpoint");
  ASSERT_OK(ser_tensors_read(&tensors, path, &err), err);
  free(path);
  return tensors;
}

static const ser_epoch *history_of(const ser_tensors *checkpoint, int64_t *epochs) {
  const ser_tensor *history = ser_tensors_find(checkpoint, "history");
  assert_non_null(history);
  *epochs = history->shape[0];
  return history->data;
}

/* The largest difference, as a share of the largest value. */
static void expect_tensor(const ser_tensors *checkpoint, const char *name, const double *want, int64_t n) {
  const ser_tensor *tensor = ser_tensors_find(checkpoint, name);
  assert_non_null(tensor);
  assert_true(tensor->bytes >= (size_t)n * sizeof(float));
  const float *got = tensor->data;
  double most = 0, apart = 0;
  for (int64_t i = 0; i < n; i++) {
    most = fmax(most, fabs(want[i]));
    apart = test_worse(apart, fabs((double)got[i] - want[i]));
  }
  if (!(apart <= 1e-5 * most)) fail_msg("%s lies %g apart, its largest value is %g", name, apart, most);
}

/* ---- Adam ----------------------------------------------------------------------------------------------------------
 */

/* Adam as its paper has it, over the gradients of all steps. */
static void recompute_adam(double *p, double *m, double *v, const ser_config *c) {
  double b1 = c->train.beta1, b2 = c->train.beta2;
  for (int64_t i = 0; i < ear.n; i++) p[i] = (double)ear.first[i];
  for (int64_t step = 1; step <= ear.steps; step++)
    for (int64_t i = 0; i < ear.n; i++) {
      double g = (double)ear.gradients[step - 1][i];
      m[i] = b1 * m[i] + (1 - b1) * g;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      double mean = m[i] / (1 - pow(b1, (double)step)), square = v[i] / (1 - pow(b2, (double)step));
      p[i] -= c->train.lr * mean / (sqrt(square) + c->train.eps);
    }
}

/* Three epochs of three steps, each of them gone on with from its checkpoint: moments and the count of steps go across
 * epochs and starts, and each setting reaches the formula. */
static void test_adam(void **state) {
  test_rig r = test_rig_make();
  ser_error err = {0};
  (void)state;
  static const char *const settings[] = {"train.batch=16", "train.lr=0.02", "train.beta1=0.7", "train.beta2=0.9",
                                         "train.eps=0.003"};
  for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
    ASSERT_OK(ser_config_set(&r.config, settings[i], &err), err);
  char *folder = ser_path_join(r.folder, "run");
  for (r.config.train.epochs = 1; r.config.train.epochs <= 3; r.config.train.epochs++)
    ASSERT_OK(train_and_hear(&r, folder, &err), err);
  assert_int_equal(ear.steps, 9);
  double *p = ser_alloc_zero((size_t)ear.n, sizeof *p), *m = ser_alloc_zero((size_t)ear.n, sizeof *m);
  double *v = ser_alloc_zero((size_t)ear.n, sizeof *v);
  recompute_adam(p, m, v, &r.config);
  ser_tensors checkpoint = read_checkpoint(folder);
  expect_tensor(&checkpoint, "parameters", p, ear.n);
  expect_tensor(&checkpoint, "adam_m", m, ear.n);
  expect_tensor(&checkpoint, "adam_v", v, ear.n);
  int64_t epochs;
  const ser_epoch *history = history_of(&checkpoint, &epochs);
  for (int64_t e = 0; e < epochs; e++) {
    double norm = 0;
    for (int64_t step = 3 * e; step < 3 * e + 3; step++) {
      double squares = 0;
      for (int64_t i = 0; i < ear.n; i++) squares += pow((double)ear.gradients[step][i], 2);
      norm += sqrt(squares) / 3;
    }
    assert_true(fabs(history[e].gradient_norm - norm) < 1e-6 * norm);
  }
  ser_tensors_free(&checkpoint);
  free(p);
  free(m);
  free(v);
  free(folder);
  test_rig_free(&r);
}

/* ---- the loss ------------------------------------------------------------------------------------------------------
 */

/* n / (k n_c), counted over the training part alone; 1 where weights are not asked for. */
static void recompute_weights(const test_rig *r) {
  double clips = 0, present = 0, counts[SER_EMOTIONS] = {0};
  for (size_t i = 0; i < CLIPS; i++) {
    if (r->split.part[i] != SER_TRAIN) continue;
    present += counts[r->dataset.truth[i]]++ == 0;
    clips++;
  }
  for (int c = 0; c < SER_EMOTIONS; c++)
    ear.weights[c] = r->config.train.class_weights == SER_WEIGHTS_NONE ? 1
                     : counts[c] > 0                                   ? clips / (present * counts[c])
                                                                       : NAN;
  ear.smoothing = r->config.train.label_smoothing;
  ear.gamma = r->config.train.focal_gamma;
}

/* The training loss and WAR that an epoch tells are those of its settings; the mean is over all clips. */
static void test_loss(void **state) {
  static const struct {
    const char *weights, *smoothing, *gamma;
  } cases[] = {{"none", "0", "0"},
               {"none", "0.25", "0"},
               {"none", "0", "2.5"},
               {"balanced", "0", "0"},
               {"balanced", "0.15", "1.5"}};
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    test_rig r = test_rig_make();
    ser_error err = {0};
    char name[16], *sets[3] = {ser_format("train.class_weights=%s", cases[i].weights),
                               ser_format("train.label_smoothing=%s", cases[i].smoothing),
                               ser_format("train.focal_gamma=%s", cases[i].gamma)};
    for (int s = 0; s < 3; s++) {
      ASSERT_OK(ser_config_set(&r.config, sets[s], &err), err);
      free(sets[s]);
    }
    /* Unlike numbers of clips; a class that training lacks and validation is full of. */
    for (size_t c = 0; c < TRAINING; c++) r.dataset.truth[c] = c < 17 ? 0 : (int32_t)(c % 5);
    for (size_t c = TRAINING; c < TRAINING + VALIDATION; c++) r.dataset.truth[c] = c % 4 ? 5 : 1;
    snprintf(name, sizeof name, "run-%d", (int)i);
    char *folder = ser_path_join(r.folder, name);
    for (int64_t epoch = 0; epoch < 2; epoch++) {
      r.config.train.epochs = epoch + 1;
      recompute_weights(&r);
      ASSERT_OK(train_and_hear(&r, folder, &err), err);
      assert_int_equal(ear.rows, TRAINING);
      ser_tensors checkpoint = read_checkpoint(folder);
      int64_t epochs;
      const ser_epoch *last = history_of(&checkpoint, &epochs) + epoch;
      assert_int_equal(epochs, epoch + 1);
      double loss = ear.losses / TRAINING;
      if (!(fabs(last->train_loss - loss) < 1e-6 * loss))
        fail_msg("class_weights %s, smoothing %s, gamma %s: told %.9g, is %.9g", cases[i].weights, cases[i].smoothing,
                 cases[i].gamma, last->train_loss, loss);
      assert_true(fabs(last->train_war - ear.right / TRAINING) < 1e-12);
      ser_tensors_free(&checkpoint);
      forget(NULL);
    }
    free(folder);
    test_rig_free(&r);
  }
}

/* history.csv tells the checkpoint's doubles with nine digits. */
static void test_history(void **state) {
  static const char *const columns[SER_EPOCH_VALUES] = {"train_loss",      "train_war",      "gradient_norm",
                                                        "validation_loss", "validation_war", "validation_uar"};
  test_rig r = test_rig_make();
  ser_error err = {0};
  ser_csv table;
  int64_t epochs;
  (void)state;
  char *folder = test_train(&r, "run", 1), *path = ser_path_join(folder, "history.csv");
  ser_tensors checkpoint = read_checkpoint(folder);
  const ser_epoch *history = history_of(&checkpoint, &epochs);
  ASSERT_OK(ser_csv_read(&table, path, &err), err);
  assert_int_equal((int64_t)table.rows, epochs);
  for (int64_t e = 0; e < epochs; e++)
    for (int c = 0; c < SER_EPOCH_VALUES; c++) {
      double value, cell = strtod(ser_csv_cell(&table, (size_t)e, ser_csv_column(&table, columns[c])), NULL);
      memcpy(&value, (const char *)&history[e] + (size_t)c * sizeof value, sizeof value);
      if (!(fabs(cell - value) <= 5e-9 * fabs(value))) fail_msg("%s: %.17g, told %.17g", columns[c], value, cell);
    }
  ser_csv_free(&table);
  ser_tensors_free(&checkpoint);
  free(path);
  free(folder);
  test_rig_free(&r);
}

/* ---- what is not finite --------------------------------------------------------------------------------------------
 */

/* One clip's loss, or one element of a gradient, in any step: named with its step and what was kept. */
static void test_not_finite(void **state) {
  static const struct {
    int64_t batch, step; /* of 33 clips */
    bool loss;
    const char *words;
  } cases[] = {
      {8, 7, true, "the loss is not finite at step 7 (epoch 2); the last good checkpoint is "},
      {8, 7, false, "the gradient is not finite at step 7 (epoch 2); the last good checkpoint is "},
      {8, 10, true, "the loss is not finite at step 10 (epoch 2); "}, /* an epoch's last */
      {8, 10, false, "the gradient is not finite at step 10 (epoch 2); "},
      {1, 20, true, "the loss is not finite at step 20 (epoch 1), before the first checkpoint"},
      {1, 20, false, "the gradient is not finite at step 20 (epoch 1), before the first checkpoint"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    test_rig r = test_rig_make();
    ser_error err = {0};
    r.config.train.batch = cases[i].batch;
    r.config.train.epochs = 3;
    for (int c = 0; c < SER_EMOTIONS; c++) ear.weights[c] = 1;
    *(cases[i].loss ? &ear.bad_loss : &ear.bad_norm) = cases[i].step;
    assert_int_equal(train_and_hear(&r, r.folder, &err), SER_FAILED);
    if (!strstr(err.text, cases[i].words)) fail_msg("expected \"%s\" in: %s", cases[i].words, err.text);
    forget(NULL);
    test_rig_free(&r);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_teardown(test_adam, forget),
      cmocka_unit_test_teardown(test_loss, forget),
      cmocka_unit_test(test_history),
      cmocka_unit_test_teardown(test_not_finite, forget),
  };
  ser_log_set_quiet(true);
  return cmocka_run_group_tests_name("unit.train_step", tests, NULL, NULL);
}
