/* Batches of features under way: on every device, and on a CPU that plays one with memory of its own, each batch gives
 * the rows that its clips have alone, whatever else is under way: pinned samples or not, 16-bit ones, a clip that is
 * longer than a batch; and in the steady state nothing is allocated. Where memory is short batches are smaller, with
 * the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "features/features.h"
#include "support/apart.h"
#include "support/harness.h"

enum { RATE = 22050, CLIPS = 10, SENDS = 6, MOST_CLIPS = 3, MOST_FRAMES = 300 };
static const ser_mfcc_config mfcc39 = {RATE, 2048, 512, 128, 13, 162, 0, true};

typedef struct {
  size_t count, clips[2];
  bool pinned, int16;
} sending;
/* Clip 7 is longer than a batch; clip 3 is too short for features. */
static const sending sendings[SENDS] = {{2, {0, 1}, true, false}, {2, {2, 3}, true, true},  {1, {4, 0}, false, false},
                                        {2, {5, 6}, true, true},  {1, {7, 0}, true, false}, {2, {8, 9}, false, false}};
static const int64_t samples_of[CLIPS] = {30000, 41234, 22050, 3000, 60000, 25001, 33333, 400000, 11025, 512 * 60};

typedef struct {
  ser_device *device;
  float *samples[CLIPS], *alone[CLIPS]; /* alone: features */
  int64_t rows[CLIPS];
  void *pinned[CLIPS];
} fixture;

static void make(fixture *f, ser_device *device) {
  ser_error err = {0};
  ser_mfcc *mfcc;
  f->device = device;
  ASSERT_OK(ser_mfcc_create(&mfcc, device, &mfcc39, 1, 2000, true, &err), err);
  for (size_t i = 0; i < CLIPS; i++) {
    int64_t offset[2];
    float *samples = f->samples[i] = test_speech(60 + i, samples_of[i], RATE);
    for (int64_t k = 0; k < samples_of[i]; k++) samples[k] = (float)(int16_t)(samples[k] * 32768) / 32768;
    ASSERT_OK(
        ser_mfcc_compute(mfcc, &f->alone[i], offset, (const float *const *)&f->samples[i], &samples_of[i], 1, &err),
        err);
    f->rows[i] = offset[1];
    f->pinned[i] = device->rt->pin(device, (size_t)samples_of[i] * sizeof(float), &err);
    assert_non_null(f->pinned[i]);
  }
  ser_mfcc_free(mfcc);
}

static void end(fixture *f) {
  for (size_t i = 0; i < CLIPS; i++) {
    f->device->rt->unpin(f->device, f->pinned[i]);
    free(f->samples[i]);
    free(f->alone[i]);
  }
}

/* The clip as the sending has it. What is pinned is written only now, and what is not may go once it is sent. */
static ser_signal signal_of(const fixture *f, const sending *s, size_t clip) {
  int64_t count = samples_of[clip];
  if (!s->pinned) return (ser_signal){.samples = f->samples[clip], .count = count};
  int16_t *whole = f->pinned[clip];
  for (int64_t k = 0; k < count && s->int16; k++) whole[k] = (int16_t)(f->samples[clip][k] * 32768);
  if (!s->int16) memcpy(f->pinned[clip], f->samples[clip], (size_t)count * sizeof(float));
  return (ser_signal){f->pinned[clip], s->int16, true, count};
}

static void check(const fixture *f, const sending *s, ser_mfcc *mfcc) {
  ser_error err = {0};
  const float *features;
  const int64_t *offset;
  int64_t columns = ser_feature_columns(&mfcc39);
  ASSERT_OK(ser_mfcc_collect(mfcc, &features, &offset, &err), err);
  for (size_t i = 0; i < s->count; i++) {
    size_t clip = s->clips[i], bytes = (size_t)(f->rows[clip] * columns) * sizeof(float);
    assert_int_equal(offset[i + 1] - offset[i], f->rows[clip]);
    if (bytes && memcmp(features + offset[i] * columns, f->alone[clip], bytes))
      fail_msg("clip %zu has other bytes with others under way", clip);
  }
}

static void run(const fixture *f, int expected_slots) {
  ser_error err = {0};
  ser_mfcc *mfcc;
  ser_device_counters before = {0}, after;
  ASSERT_OK(ser_mfcc_create(&mfcc, f->device, &mfcc39, MOST_CLIPS, MOST_FRAMES, false, &err), err);
  for (int round = 0; round < 3; round++) {
    size_t sent = 0, back = 0, most = 0;
    if (round == 1) f->device->rt->counters(f->device, &before); /* the first has made room for the long clip */
    while (back < SENDS) {
      if (sent == SENDS || ser_mfcc_full(mfcc)) {
        if (sent - back > most) most = sent - back;
        check(f, &sendings[back++], mfcc);
        continue;
      }
      const sending *s = &sendings[sent++];
      ser_signal signals[2];
      for (size_t i = 0; i < s->count; i++) signals[i] = signal_of(f, s, s->clips[i]);
      ASSERT_OK(ser_mfcc_submit(mfcc, signals, s->count, &err), err);
    }
    assert_int_equal(most, expected_slots);
    assert_true(ser_mfcc_idle(mfcc));
  }
  f->device->rt->counters(f->device, &after);
  assert_int_equal(before.allocations, after.allocations);
  ser_mfcc_free(mfcc);
}

/* int16 needs a device with memory of its own: a CPU plays one. */
static void each_device(ser_device *device, ser_stream *stream, void *context) {
  ser_device_properties properties;
  fixture f;
  (void)stream;
  (void)context;
  device->rt->properties(device, &properties);
  if (properties.host_memory) test_device_apart(device);
  make(&f, device);
  run(&f, 3);
  end(&f);
}

static void batches_under_way(void **state) {
  (void)state;
  test_each_device(each_device, 2, NULL);
}

/* What a job does that is stopped: batches under way are left there. */
static void freed_under_way(ser_device *device, ser_stream *stream, void *context) {
  ser_error err = {0};
  ser_mfcc *mfcc;
  fixture f;
  (void)stream;
  (void)context;
  make(&f, device);
  ASSERT_OK(ser_mfcc_create(&mfcc, device, &mfcc39, MOST_CLIPS, MOST_FRAMES, false, &err), err);
  ser_signal signal = signal_of(&f, &sendings[0], 0);
  ASSERT_OK(ser_mfcc_submit(mfcc, &signal, 1, &err), err);
  ser_mfcc_free(mfcc);
  end(&f);
}

static void stopped(void **state) {
  (void)state;
  test_each_device(freed_under_way, 2, NULL);
}

/* ---- a device that is short of memory ---------------------------------------------------------------------------- */

static ser_runtime runtime;
static void *(*real_alloc)(ser_device *, size_t, ser_error *);
static int refusals; /* of the next requests */
static ser_lack lack = SER_LACKS_DEVICE_MEMORY;

static void *refusing_alloc(ser_device *device, size_t bytes, ser_error *err) {
  if (refusals <= 0) return real_alloc(device, bytes, err);
  refusals--;
  ser_fail_memory(err, lack, "%zu bytes asked for", bytes);
  return NULL;
}

static void (*real_properties)(const ser_device *, ser_device_properties *);
static uint64_t room; /* the free memory, where it is told */

static void tell_room(const ser_device *device, ser_device_properties *out) {
  real_properties(device, out);
  if (room) out->memory_free = room;
}

static void compute(const fixture *f, ser_mfcc *mfcc, size_t first, size_t count) {
  ser_error err = {0};
  float *features, *at;
  int64_t offset[CLIPS + 1];
  ASSERT_OK(ser_mfcc_compute(mfcc, &features, offset, (const float *const *)f->samples + first, samples_of + first,
                             count, &err),
            err);
  at = features;
  for (size_t i = 0; i < count; i++) {
    int64_t floats = f->rows[first + i] * ser_feature_columns(&mfcc39);
    assert_int_equal(offset[i + 1] - offset[i], f->rows[first + i]);
    if (floats && memcmp(at, f->alone[first + i], (size_t)floats * sizeof *at))
      fail_msg("clip %zu has other bytes where memory is short", first + i);
    at += floats;
  }
  free(features);
}

/* It is told whose memory lacked; and what failed for another reason is not tried again with less. */
static void whose_memory(ser_device *device) {
  ser_error err = {0};
  ser_mfcc *mfcc;
  refusals = 1;
  lack = SER_LACKS_HOST_MEMORY;
  test_listen();
  ser_status status = ser_mfcc_create(&mfcc, device, &mfcc39, 8, 1200, true, &err);
  char *said = test_heard(true);
  ASSERT_OK(status, err);
  assert_int_equal(ser_mfcc_max_clips(mfcc), 4);
  assert_string_equal(said,
                      "little of the host's memory is free: features are computed in batches of 4 clips, not of 8\n");
  free(said);
  ser_mfcc_free(mfcc);
  refusals = 1;
  lack = SER_LACKS_NOTHING;
  assert_int_equal(ser_mfcc_create(&mfcc, device, &mfcc39, 8, 1200, true, &err), SER_FAILED);
  assert_non_null(strstr(err.text, " bytes asked for"));
  assert_int_equal(refusals, 0);
  lack = SER_LACKS_DEVICE_MEMORY;
}

/* Batches are made for half of what is free, and halved when they are made and when a long clip needs some. */
static void short_of_memory(ser_device *device, ser_stream *stream, void *context) {
  ser_error err = {0};
  ser_mfcc *mfcc;
  fixture f;
  ser_device_properties properties;
  (void)stream;
  (void)context;
  device->rt->properties(device, &properties);
  if (properties.host_memory) test_device_apart(device);
  make(&f, device);
  const ser_runtime *before = device->rt;
  runtime = *before;
  real_alloc = runtime.alloc;
  runtime.alloc = refusing_alloc;
  real_properties = runtime.properties;
  runtime.properties = tell_room;
  device->rt = &runtime;

  refusals = 1;
  ASSERT_OK(ser_mfcc_create(&mfcc, device, &mfcc39, 8, 1200, true, &err), err);
  assert_int_equal(ser_mfcc_max_clips(mfcc), 4);
  assert_int_equal(ser_mfcc_max_frames(mfcc), 600);
  compute(&f, mfcc, 0, 3);
  refusals = 1;
  compute(&f, mfcc, 7, 1); /* the long one */
  assert_int_equal(ser_mfcc_max_clips(mfcc), 2);
  assert_int_equal(ser_mfcc_max_frames(mfcc), 300);
  compute(&f, mfcc, 0, CLIPS);
  ser_mfcc_free(mfcc);

  /* What is too long even for the smallest batches' room is told with its length and what was asked for. */
  ASSERT_OK(ser_mfcc_create(&mfcc, device, &mfcc39, 1, 1, true, &err), err);
  compute(&f, mfcc, 0, 1);
  float *features;
  int64_t offset[2];
  refusals = 1;
  assert_int_equal(
      ser_mfcc_compute(mfcc, &features, offset, (const float *const *)&f.samples[7], &samples_of[7], 1, &err),
      SER_FAILED);
  assert_non_null(strstr(err.text, "a recording of 18 s: "));
  assert_non_null(strstr(err.text, " bytes asked for"));
  /* Nothing is the worse for it; and all that a long clip needs is room for its values: no plan, no workspace. */
  ser_device_counters counted, counted_then;
  device->rt->counters(device, &counted);
  compute(&f, mfcc, 5, 3);
  device->rt->counters(device, &counted_then);
  assert_int_equal(counted_then.allocations - counted.allocations, 3);
  ser_mfcc_free(mfcc);
  /* Nobody refuses; 1200 frames take 12.2 MB, 600 half of that. */
  room = 25000000;
  ASSERT_OK(ser_mfcc_create(&mfcc, device, &mfcc39, 8, 1200, true, &err), err);
  assert_int_equal(ser_mfcc_max_clips(mfcc), 8);
  ser_mfcc_free(mfcc);
  room = 24000000;
  ASSERT_OK(ser_mfcc_create(&mfcc, device, &mfcc39, 8, 1200, true, &err), err);
  assert_int_equal(ser_mfcc_max_clips(mfcc), 4);
  assert_int_equal(ser_mfcc_max_frames(mfcc), 600);
  compute(&f, mfcc, 0, CLIPS);
  ser_mfcc_free(mfcc);
  room = 0;
  whose_memory(device);
  refusals = 1 << 30;
  assert_int_equal(ser_mfcc_create(&mfcc, device, &mfcc39, 8, 1200, true, &err), SER_FAILED);
  refusals = 0;
  device->rt = before;
  end(&f);
}

static void little_memory(void **state) {
  (void)state;
  test_each_device(short_of_memory, 2, NULL);
}

/* ---- what crosses the bus -----------------------------------------------------------------------------------------
 */

static void (*real_write_later)(ser_stream *, void *, const void *, size_t);
static size_t copies, copied_samples;

static void count_copies(ser_stream *stream, void *to, const void *from, size_t bytes) {
  enum { STARTS_MOST = 8 * 2 * (MOST_CLIPS + 1) };
  copies++;
  if (bytes > STARTS_MOST) copied_samples += bytes;
  real_write_later(stream, to, from, bytes);
}

/* Clips that lie here and there go over in one copy, as integers where all of them are. */
static void one_copy(ser_device *device, ser_stream *stream, void *context) {
  ser_error err = {0};
  ser_mfcc *mfcc;
  fixture f;
  ser_device_properties properties;
  (void)stream;
  (void)context;
  device->rt->properties(device, &properties);
  if (properties.host_memory) test_device_apart(device);
  make(&f, device);
  const ser_runtime *before = device->rt;
  runtime = *before;
  real_write_later = runtime.write_later;
  runtime.write_later = count_copies;
  device->rt = &runtime;
  ASSERT_OK(ser_mfcc_create(&mfcc, device, &mfcc39, MOST_CLIPS, MOST_FRAMES, true, &err), err);
  size_t samples = (size_t)(samples_of[0] + samples_of[1] + samples_of[2]);
  copies = copied_samples = 0;
  compute(&f, mfcc, 0, 3);
  assert_int_equal(copies, 2); /* and where they begin */
  assert_int_equal(copied_samples, 2 * samples);
  f.samples[1][40000] += 1e-6f;
  float *features;
  int64_t offset[4];
  copies = copied_samples = 0;
  ASSERT_OK(ser_mfcc_compute(mfcc, &features, offset, (const float *const *)f.samples, samples_of, 3, &err), err);
  assert_int_equal(copies, 2);
  assert_int_equal(copied_samples, 4 * samples);
  free(features);
  copied_samples = 0;
  compute(&f, mfcc, 7, 1); /* in pieces, which have a little in common */
  assert_true(copied_samples >= 2 * (size_t)samples_of[7] && copied_samples < 3 * (size_t)samples_of[7]);
  ser_mfcc_free(mfcc);
  device->rt = before;
  end(&f);
}

static void one_copy_a_batch(void **state) {
  (void)state;
  test_each_device(one_copy, 2, NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(batches_under_way), cmocka_unit_test(stopped),
                                     cmocka_unit_test(little_memory), cmocka_unit_test(one_copy_a_batch)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
