/* The bulk job's batches on made recordings: what an interruption or a full disk leaves, how much is held at a time,
 * and samples of two kinds in turn. */
#include "support/clock.h"
#include "support/apart.h"
#include "support/extraction.h"
#include "support/harness.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"

static const ser_ops *real_ops; /* of a device whose table a test has replaced */

/* ---- an interruption ------------------------------------------------------------------------------------------- */

static int batches;
static bool amid;

/* The device's own operations; the user presses Ctrl-C amid the second batch, or as it ends. */
static void logmel_interrupted(ser_stream *stream, const ser_plan *plan, void *workspace, float *logmel,
                               const float *pcm, const int64_t *sample_start, const int64_t *frame_start, int64_t clips,
                               int64_t frames) {
  if (++batches == 2 && amid) raise(SIGINT);
  real_ops->logmel(stream, plan, workspace, logmel, pcm, sample_start, frame_start, clips, frames);
}

static void finish_interrupted(ser_stream *stream, const ser_plan *plan, void *workspace, float *features,
                               const float *logmel, const int64_t *frame_start, int64_t clips, int64_t frames) {
  real_ops->mfcc_finish(stream, plan, workspace, features, logmel, frame_start, clips, frames);
  if (batches == 2 && !amid) raise(SIGINT);
}

/* In the child: exits as the program would, or with 1 where another batch was begun. */
static _Noreturn void extract_until_interrupted(test_scene *s, size_t *computed) {
  ser_extract_summary summary;
  ser_error err = {0};
  ser_ops hooked = *s->device->ops;
  real_ops = s->device->ops;
  hooked.logmel = logmel_interrupted;
  hooked.mfcc_finish = finish_interrupted;
  s->device->ops = &hooked;
  ser_interrupt_install();
  ser_status status = test_scene_extract(&summary, s, SER_MFCC39, 2, &err);
  *computed = summary.computed;
  if (batches != 2 || (status == SER_INTERRUPTED && !strstr(err.text, "interrupted by SIGINT"))) _exit(1);
  _exit(ser_exit_code(status));
}

static void test_interrupted(void **state) {
  (void)state;
  size_t *computed = mmap(NULL, sizeof *computed, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(computed != MAP_FAILED);
  for (int i = 0; i < 2; i++) {
    test_scene s = test_scene_make(1);
    test_scene_add_clips(&s, 100);
    amid = i == 1;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) extract_until_interrupted(&s, computed);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 130);
    /* A batch that was computed counts; one that was cut off is thrown away. */
    assert_true(*computed >= (amid ? 1 : 2) && *computed < 100);
    test_scene_expect(&s, SER_MFCC39, 2, *computed, 100 - *computed, 0, 0, NULL);
    test_scene_free(&s);
  }
  munmap(computed, sizeof *computed);
}

/* ---- room ------------------------------------------------------------------------------------------------------ */

/* Recordings that workers have begun to read, and how many of them the room of 48 MiB holds at the length that the
 * manifest tells: 100 s at 22 050 Hz make 8.4 MiB. */
static atomic_size_t begun;
static const size_t room_for = 5;
static const ser_extract_summary *room_summary;

/* The C library's own read. */
ssize_t read(int fd, void *to, size_t count) {
  ssize_t got = syscall(SYS_read, fd, to, count);
  if (got > 4 && !memcmp(to, "RIFF", 4)) atomic_fetch_add(&begun, 1);
  return got;
}

/* The device's own operation. The first batch waits until the workers have taken what room there is, and gives them
 * the time to take more; what has been computed has given its room back by the next one. */
static void logmel_slow(ser_stream *stream, const ser_plan *plan, void *workspace, float *logmel, const float *pcm,
                        const int64_t *sample_start, const int64_t *frame_start, int64_t clips, int64_t frames) {
  struct timespec nap = {0, 1000000};
  for (int i = 0; i < 10000 && !room_summary->computed && atomic_load(&begun) < room_for; i++) nanosleep(&nap, NULL);
  for (int i = 0; i < 100 && !room_summary->computed && atomic_load(&begun) <= room_for; i++) nanosleep(&nap, NULL);
  size_t held = atomic_load(&begun) - room_summary->computed;
  if (held > room_for || (!room_summary->computed && held < room_for))
    fail_msg("%zu recordings are held at once, there is room for %zu", held, room_for);
  real_ops->logmel(stream, plan, workspace, logmel, pcm, sample_start, frame_start, clips, frames);
}

/* Memory has a bound whatever the number of files: while nothing is computed, workers decode no more than fits. */
static void test_room(void **state) {
  (void)state;
  test_scene s = test_scene_make(1);
  test_scene_add_clips(&s, 40);
  for (size_t i = 0; i < s.manifest.count; i++) s.manifest.rows[i].seconds = 100;
  ser_extract_summary summary = {0};
  ser_error err = {0};
  ser_ops hooked = *s.device->ops;
  real_ops = s.device->ops;
  hooked.logmel = logmel_slow;
  s.device->ops = &hooked;
  room_summary = &summary;
  atomic_store(&begun, 0);
  ASSERT_OK(test_scene_extract(&summary, &s, SER_MFCC39, 4, &err), err);
  assert_int_equal(summary.computed, 40);
  assert_int_equal(atomic_load(&begun), 40);
  s.device->ops = real_ops;
  for (size_t i = 0; i < s.manifest.count; i++) s.manifest.rows[i].seconds = 1e9; /* absurd: all of the room, alone */
  test_scene_expect(&s, SER_TIMNET, 4, 0, 40, 0, 0, NULL);
  test_scene_free(&s);
}

/* ---- progress --------------------------------------------------------------------------------------------------- */

static const ser_runtime *real_rt;
/* The clips that the last line of progress tells of. */
static size_t clips_said(bool end) {
  char *said = test_heard(end);
  size_t clips = 0;
  for (const char *at = said; (at = strstr(at, "extract mfcc39: ")); at++) clips = strtoul(at + 16, NULL, 10);
  free(said);
  return clips;
}

static size_t ahead; /* the most clips that were said and not written */

static void range_counts(ser_device *device, const char *name) {
  size_t said = clips_said(false);
  if (said > room_summary->computed + ahead) ahead = said - room_summary->computed;
  real_rt->range_begin(device, name);
}

/* What is counted has come back, and is in the cache: not what is under way. In the end all are. */
static void test_progress(void **state) {
  (void)state;
  test_scene s = test_scene_make(1);
  test_scene_add_clips(&s, 100);
  ser_extract_summary summary = {0};
  ser_error err = {0};
  ser_runtime hooked = *s.device->rt;
  real_rt = s.device->rt;
  hooked.range_begin = range_counts;
  s.device->rt = &hooked;
  room_summary = &summary;
  ser_log_set_quiet(false);
  test_clock_leaps(true);
  test_listen();
  ser_status status = test_scene_extract(&summary, &s, SER_MFCC39, 2, &err);
  size_t said = clips_said(true);
  test_clock_leaps(false);
  ser_log_set_quiet(true);
  s.device->rt = real_rt;
  ASSERT_OK(status, err);
  assert_int_equal(summary.computed, 100);
  assert_int_equal(said, 100);
  assert_int_equal(ahead, 0);
  test_scene_free(&s);
}

/* ---- integers and floats in turn -------------------------------------------------------------------------------- */

/* The device's own operation, slow enough for workers to bring all clips meanwhile. */
static void logmel_naps(ser_stream *stream, const ser_plan *plan, void *workspace, float *logmel, const float *pcm,
                        const int64_t *sample_start, const int64_t *frame_start, int64_t clips, int64_t frames) {
  nanosleep(&(struct timespec){0, 200000000}, NULL);
  real_ops->logmel(stream, plan, workspace, logmel, pcm, sample_start, frame_start, clips, frames);
}

/* Where every other recording needs no resampling, and so goes over the bus as integers, batches are as large as where
 * all are of one kind; and the features are the same. */
static void test_kinds_in_turn(void **state) {
  (void)state;
  enum { CLIPS = 40 };
  test_scene s = test_scene_make(1);
  ser_extract_summary summary;
  ser_error err = {0};
  int64_t *offset, *offset_then;
  float *features, *features_then;
  for (int i = 0; i < CLIPS; i++) {
    char name[32];
    snprintf(name, sizeof name, "turn%02d.wav", i);
    test_scene_add_noise(&s, name, (uint64_t)i, 6000 + 500 * i, i % 2 ? 22050 : 24000);
  }
  test_scene_expect(&s, SER_MFCC39, 2, 0, CLIPS, 0, 0, NULL);
  test_scene_read(&s, SER_MFCC39, &offset, &features);
  free(s.cache);
  s.cache = ser_path_join(s.folder, "cache-apart");
  test_device_apart(s.device);
  ser_ops hooked = *s.device->ops;
  real_ops = s.device->ops;
  hooked.logmel = logmel_naps;
  s.device->ops = &hooked;
  ASSERT_OK(test_scene_extract(&summary, &s, SER_MFCC39, 2, &err), err);
  s.device->ops = real_ops;
  assert_int_equal(summary.computed, CLIPS);
  assert_true(summary.work.batches <= CLIPS / 4);
  test_scene_read(&s, SER_MFCC39, &offset_then, &features_then);
  assert_memory_equal(offset, offset_then, (CLIPS + 1) * sizeof *offset);
  assert_memory_equal(features, features_then, (size_t)(offset[CLIPS] * 39) * sizeof *features);
  free(offset);
  free(features);
  free(offset_then);
  free(features_then);
  test_scene_free(&s);
}

static void test_full_disk(void **state) {
  (void)state;
  test_scene s = test_scene_make(1);
  ser_extract_summary summary;
  ser_error err = {0};
  test_scene_add_clips(&s, 30);
  struct rlimit before, tight;
  getrlimit(RLIMIT_FSIZE, &before);
  tight = (struct rlimit){20000, before.rlim_max};
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &tight);
  assert_int_equal(test_scene_extract(&summary, &s, SER_MFCC39, 2, &err), SER_FAILED);
  setrlimit(RLIMIT_FSIZE, &before);
  assert_non_null(strstr(err.text, s.cache));
  assert_non_null(strstr(err.text, "make room"));
  free(summary.refusals.data);
  test_scene_expect(&s, SER_MFCC39, 2, 0, 30, 0, 0, NULL);
  test_scene_free(&s);
}

int main(void) {
  ser_log_set_quiet(true);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_interrupted),   cmocka_unit_test(test_room),      cmocka_unit_test(test_progress),
      cmocka_unit_test(test_kinds_in_turn), cmocka_unit_test(test_full_disk),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
