/* What turns a data set into batches, against plain loops: take_batch, gather_standardise on one and two sides, and
 * pcm_from_int16. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "support/temporal.h"

enum { BATCH = 5, FIRST_ROW = 3 };

typedef struct {
  int64_t channels, time;
} gather_case;

/* One batch of five clips, the last of which ends with the features' last row. */
typedef struct {
  int64_t length[BATCH], start[BATCH], rows;
  float *features, *mean, *inv_std;
} gather_data;

static gather_data make_gather(const gather_case *k) {
  gather_data data = {.length = {k->time, 0, 1, k->time + 9, k->time > 1 ? k->time - 1 : 1}, .rows = FIRST_ROW};
  for (int b = 0; b < BATCH; b++) {
    data.start[b] = data.rows;
    data.rows += data.length[b];
  }
  data.features = test_numbers(5, (size_t)(data.rows * k->channels), -50, 50);
  data.mean = test_vectors(6, 1, k->channels, -1, 1);
  data.inv_std = test_vectors(7, 1, k->channels, 0.5, 2.5);
  return data;
}

static void free_gather(gather_data *data) {
  free(data->features);
  free(data->mean);
  free(data->inv_std);
}

/* Both sides, and side 0 from a run of it alone. */
static void run_gather(test_buffers *all, const void *context, float *out) {
  const gather_case *k = context;
  test_dims d = test_dims_make(BATCH, k->channels, k->time);
  gather_data data = make_gather(k);
  float *features = test_in(all, data.features, (size_t)(data.rows * k->channels));
  float *mean = test_in(all, data.mean, (size_t)d.cp), *inv_std = test_in(all, data.inv_std, (size_t)d.cp);
  int64_t *start = test_put(all, data.start, sizeof data.start),
          *length = test_put(all, data.length, sizeof data.length);
  float *both = test_out(all, 2 * d.count), *alone = test_out(all, d.count),
        *first = ser_alloc(d.count * sizeof *first);
  ser_tensor_shape shape = {2, BATCH, k->channels, k->time};
  int64_t before = test_allocations(all->device);
  all->device->ops->gather_standardise(all->stream, both, features, start, length, mean, inv_std, &shape);
  shape.sides = 1;
  all->device->ops->gather_standardise(all->stream, alone, features, start, length, mean, inv_std, &shape);
  assert_int_equal(test_allocations(all->device), before);
  test_read(all, out, both);
  test_read(all, first, alone);
  assert_memory_equal(first, out, d.count * sizeof *out);
  free(first);
  free_gather(&data);
}

static void check_gather(const void *context, const float *out) {
  const gather_case *k = context;
  test_dims d = test_dims_make(BATCH, k->channels, k->time);
  gather_data data = make_gather(k);
  double *want = ser_alloc_zero(2 * d.count, sizeof *want);
  for (int64_t b = 0; b < BATCH; b++)
    for (int64_t c = 0; c < k->channels; c++)
      for (int64_t t = 0; t < k->time && t < data.length[b]; t++) {
        double x = (double)data.features[(data.start[b] + t) * k->channels + c];
        double value = (x - (double)data.mean[c]) * (double)data.inv_std[c];
        want[test_at(&d, b, c, t)] = value;
        want[(int64_t)d.count + test_at(&d, b, c, k->time - 1 - t)] = value;
      }
  test_close("a batch", out, want, 2 * d.count, 1e-6);
  for (size_t i = 0; i < 2 * d.count; i++)
    if (want[i] == 0 && out[i] != 0)
      fail_msg("padding of %d channels, %d frames is not zero", (int)k->channels, (int)k->time);
  for (int64_t b = 0; b < BATCH; b++)
    for (int64_t c = 0; c < k->channels; c++)
      for (int64_t t = 0; t < k->time; t++) {
        const float *ahead = out + test_at(&d, b, c, t), *back = out + d.count + test_at(&d, b, c, k->time - 1 - t);
        assert_memory_equal(ahead, back, sizeof *ahead);
      }
  free(want);
  free_gather(&data);
}

static void gather(void **state) {
  (void)state;
  static const int64_t channels[] = {39, 13, 8, 17, 5, 1, 40, 32}, times[] = {162, 16, 7, 31, 32, 33, 1, 1000};
  for (size_t i = 0; i < sizeof channels / sizeof *channels; i++)
    for (size_t j = 0; j < sizeof times / sizeof *times; j++) {
      gather_case k = {channels[i], times[j]};
      test_operation(run_gather, check_gather, &k, 2 * test_dims_make(BATCH, k.channels, k.time).count);
    }
}

/* ---- batches from an order of clips ---- */

enum { CLIPS = 700, FRAMES = 100 };

typedef struct {
  int64_t batch, count, place; /* place -1: no step */
} take_case;

typedef struct {
  int64_t offset[CLIPS + 1];
  int32_t truth[CLIPS], order[CLIPS];
} take_data;

static void make_take(take_data *data) {
  data->offset[0] = INT64_C(1) << 33; /* rows are counted in 64 bits */
  for (int i = 0; i < CLIPS; i++) {
    data->offset[i + 1] = data->offset[i] + i * 37 % 211; /* none, few, more than a batch takes */
    data->truth[i] = i * 5 % 8;
    data->order[i] = i * 431 % CLIPS;
  }
}

/* start, length, truth, as integers that a float holds. */
static void run_take(test_buffers *all, const void *context, float *out) {
  const take_case *k = context;
  take_data *data = ser_alloc(sizeof *data);
  make_take(data);
  size_t n = (size_t)k->count;
  ser_clips clips = {test_put(all, data->offset, sizeof data->offset), test_put(all, data->truth, sizeof data->truth),
                     FRAMES};
  int32_t *order = test_put(all, data->order, sizeof data->order);
  ser_step *step = k->place < 0 ? NULL : test_step(all, 1000, k->place);
  float *start = test_out(all, 2 * n), *length = test_out(all, 2 * n), *truth = test_out(all, n);
  int64_t *wide = ser_alloc(2 * n * sizeof *wide);
  int32_t *narrow = ser_alloc(n * sizeof *narrow);
  float *bits = ser_alloc(2 * n * sizeof *bits);
  int64_t before = test_allocations(all->device);
  all->device->ops->take_batch(all->stream, (int64_t *)(void *)start, (int64_t *)(void *)length,
                               (int32_t *)(void *)truth, &clips, order, step, k->batch, k->count);
  assert_int_equal(test_allocations(all->device), before);
  test_read(all, bits, start);
  memcpy(wide, bits, n * sizeof *wide);
  test_read(all, bits, length);
  memcpy(wide + n, bits, n * sizeof *wide);
  test_read(all, bits, truth);
  memcpy(narrow, bits, n * sizeof *narrow);
  for (size_t i = 0; i < n; i++) {
    out[i] = (float)(wide[i] - data->offset[0]);
    out[n + i] = (float)wide[n + i];
    out[2 * n + i] = (float)narrow[i];
  }
  void *mine[] = {data, wide, narrow, bits};
  for (int i = 0; i < 4; i++) free(mine[i]);
}

static void check_take(const void *context, const float *out) {
  const take_case *k = context;
  take_data *data = ser_alloc(sizeof *data);
  make_take(data);
  for (int64_t b = 0; b < k->count; b++) {
    int32_t clip = data->order[(k->place < 0 ? 0 : k->place) * k->batch + b];
    int64_t rows = data->offset[clip + 1] - data->offset[clip];
    assert_true(out[b] == (float)(data->offset[clip] - data->offset[0]));
    assert_true(out[k->count + b] == (float)(rows < FRAMES ? rows : FRAMES));
    assert_true(out[2 * k->count + b] == (float)data->truth[clip]);
  }
  free(data);
}

static void take(void **state) {
  (void)state;
  static const take_case cases[] = {{1, 1, -1}, {64, 64, 0}, {64, 64, 9}, {64, 60, 10}, {300, 300, 1}, {700, 700, -1}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    test_operation(run_take, check_take, &cases[i], 3 * (size_t)cases[i].count);
}

/* ---- samples of 16 bits ---- */

static int16_t sample_of(int64_t i) {
  return (int16_t)((i * 7919 + i / 65536) % 65536 - 32768);
}

static void run_pcm(test_buffers *all, const void *context, float *out) {
  int64_t n = *(const int64_t *)context;
  int16_t *samples = ser_alloc((size_t)n * sizeof *samples);
  for (int64_t i = 0; i < n; i++) samples[i] = sample_of(i);
  float *pcm = test_out(all, (size_t)n);
  int16_t *from = test_put(all, samples, (size_t)n * sizeof *samples);
  int64_t before = test_allocations(all->device), head = n % 2; /* both from the start and behind it */
  all->device->ops->pcm_from_int16(all->stream, pcm, from, head);
  all->device->ops->pcm_from_int16(all->stream, pcm + head, from + head, n - head);
  assert_int_equal(test_allocations(all->device), before);
  test_read(all, out, pcm);
  free(samples);
}

static void check_pcm(const void *context, const float *out) {
  int64_t n = *(const int64_t *)context;
  for (int64_t i = 0; i < n; i++)
    if (out[i] != (float)sample_of(i) / 32768)
      fail_msg("sample %d is %.9g, not %d / 32768", (int)i, (double)out[i], sample_of(i));
}

static void pcm(void **state) {
  (void)state;
  static const int64_t sizes[] = {1, 7, 16, 1001, 1002, 65536, 65537, 200003}; /* the last meets every value */
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    test_operation(run_pcm, check_pcm, &sizes[i], (size_t)sizes[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(gather),
      cmocka_unit_test(take),
      cmocka_unit_test(pcm),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
