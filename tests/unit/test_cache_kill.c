/* kill -9 at seeded random moments, and two writers at once: nothing that was sealed is lost, nothing half is served.
 */
#include "support/harness.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/philox.h"
#include "cache/internal.h"

static const char CONFIG[] = "{\"feature\":\"test\"}";
enum { C = 39, KILLS = 20, BATCH = 40, MOST = 4000 };

/* What a writer tells its parent: in memory that survives it. */
typedef struct {
  atomic_int ready, sealing; /* sealing: inside ser_cache_seal */
  atomic_long sealed;        /* clips, from 0 on, that ser_cache_seal has answered for */
} writer_report;

static ser_hash key_of(long round, long clip) {
  long both[2] = {round, clip};
  return ser_hash_bytes(both, sizeof both);
}
static int64_t rows_of(long clip) {
  return 20 + clip * 31 % 150;
}
static float value_of(long round, long clip, int64_t at) {
  return (float)(round * 7919 + clip * 31 % 4099) + (float)(at % 1013) / 1024;
}

static int64_t columns_of(const char *config_json) {
  return strcmp(config_json, CONFIG) ? 0 : C;
}

static ser_cache *open_cache(const char *folder) {
  ser_cache *cache;
  ser_error err = {0};
  if (ser_cache_open(&cache, folder, "test", CONFIG, NULL, C, true, &err) != SER_OK) {
    fprintf(stderr, "%s\n", err.text);
    abort();
  }
  return cache;
}

/* Adds clips of a round, sealing after each batch, until it is killed or has them all. */
static void write_clips(const char *folder, writer_report *report, long round, long first, long count) {
  ser_cache *cache = open_cache(folder);
  ser_error err = {0};
  float *features = ser_alloc((size_t)(C * 200) * sizeof *features);
  atomic_store(&report->ready, 1);
  for (long clip = first; clip < first + count; clip++) {
    ser_hash key = key_of(round, clip);
    for (int64_t at = 0; at < rows_of(clip) * C; at++) features[at] = value_of(round, clip, at);
    if (ser_cache_add(cache, &key, SER_ENTRY_OK, features, rows_of(clip), &err) != SER_OK) _exit(1);
    if ((clip + 1 - first) % BATCH) continue;
    atomic_store(&report->sealing, 1);
    if (ser_cache_seal(cache, &err) != SER_OK) _exit(1);
    atomic_store(&report->sealed, clip + 1 - first);
    atomic_store(&report->sealing, 0);
  }
  free(features);
  if (ser_cache_close(cache, &err) != SER_OK) _exit(1);
}

static pid_t start_writer(const char *folder, writer_report *report, long round, long first, long count) {
  fflush(stdout);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child) return child;
  write_clips(folder, report, round, first, count);
  _exit(0);
}

static writer_report *share_reports(size_t count) {
  void *memory = mmap(NULL, count * sizeof(writer_report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(memory != MAP_FAILED);
  return memory;
}

static void rest(double milliseconds) {
  struct timespec time = {0, (long)(1e6 * milliseconds)};
  nanosleep(&time, NULL);
}

/* Every sealed clip is there, and every clip that is there has its own bytes. */
static void check_round(ser_cache *cache, long round, long first, long sealed, long most, size_t *lost) {
  ser_error err = {0};
  ser_hash *keys = ser_alloc((size_t)most * sizeof *keys);
  long *clips = ser_alloc((size_t)most * sizeof *clips);
  size_t count = 0;
  for (long clip = first; clip < first + most; clip++) {
    ser_hash key = key_of(round, clip);
    if (ser_cache_find(cache, &key, NULL) == SER_ENTRY_OK) {
      clips[count] = clip;
      keys[count++] = key;
    } else if (clip < first + sealed) {
      (*lost)++;
    }
  }
  int64_t *offset;
  float *features;
  ASSERT_OK(ser_cache_read(cache, &offset, &features, keys, count, &err), err);
  for (size_t i = 0; i < count; i++) {
    assert_int_equal(offset[i + 1] - offset[i], rows_of(clips[i]));
    for (int64_t at = 0; at < rows_of(clips[i]) * C; at++)
      if (features[offset[i] * C + at] != value_of(round, clips[i], at))
        fail_msg("round %ld, clip %ld: other bytes than were written", round, clips[i]);
  }
  free(offset);
  free(features);
  free(keys);
  free(clips);
}

static size_t unsealed_files(ser_cache *cache) {
  char **names, *path = ser_format("%s/tmp", ser_cache_folder(cache));
  size_t count;
  ser_error err = {0};
  ASSERT_OK(ser_folder_names(&names, &count, path, &err), err);
  ser_names_free(names, count);
  free(path);
  return count;
}

static void test_kill(void **state) {
  (void)state;
  char *folder = test_folder_make("kill");
  writer_report *reports = share_reports(KILLS);
  size_t lost = 0, in_seal = 0, finished = 0, unsealed = 0;
  long sealed = 0;
  for (long round = 0; round < KILLS; round++) {
    writer_report *report = &reports[round];
    pid_t child = start_writer(folder, report, round, 0, MOST);
    /* Every other round begins to count when something has been sealed: on slow machines, too, there is some to lose.
     */
    while (!(round % 2 ? atomic_load(&report->sealed) : atomic_load(&report->ready)) &&
           waitpid(child, NULL, WNOHANG) == 0)
      rest(0.2);
    rest(0.5 + 60 * (double)ser_uniform(ser_philox_at(20240601, 1, (uint64_t)round).v[0]));
    kill(child, SIGKILL);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    finished += WIFEXITED(status);
    in_seal += (size_t)atomic_load(&report->sealing);
    sealed += atomic_load(&report->sealed);
    ser_cache *cache = open_cache(folder);
    unsealed = unsealed_files(cache);
    check_round(cache, round, 0, atomic_load(&report->sealed), MOST, &lost);
    ser_error err = {0};
    char *index = ser_format("%s/index", ser_cache_folder(cache));
    ASSERT_OK(ser_cache_close(cache, &err), err);
    if (round % 2) unlink(index); /* the next writer starts without it */
    free(index);
  }
  printf("%d kills: %zu landed inside a seal, %zu of them left an unsealed file; %ld clips were sealed, %zu lost\n",
         KILLS, in_seal, unsealed, sealed, lost);
  assert_int_equal(finished, 0);
  assert_int_equal(lost, 0);
  assert_true(in_seal > 0);

  ser_error err = {0};
  ser_text text = {0};
  ASSERT_OK(ser_cache_verify(folder, columns_of, &text, &err), err);
  assert_non_null(strstr(text.data, " 0 damaged"));
  ASSERT_OK(ser_cache_gc(folder, columns_of, &text, &err), err);
  ser_cache *cache = open_cache(folder);
  assert_int_equal(unsealed_files(cache), 0); /* their writers are dead: gc took them away */
  for (long round = 0; round < KILLS; round++)
    check_round(cache, round, 0, atomic_load(&reports[round].sealed), MOST, &lost);
  assert_int_equal(lost, 0);
  ASSERT_OK(ser_cache_close(cache, &err), err);
  free(text.data);
  munmap(reports, KILLS * sizeof *reports);
  test_folder_remove(folder);
}

/* Two writers with half of their clips in common, and gc running into them. */
static void test_two_writers(void **state) {
  (void)state;
  enum { COUNT = 10 * BATCH };
  char *folder = test_folder_make("writers");
  writer_report *reports = share_reports(2);
  ser_error err = {0};
  ser_text text = {0};
  pid_t children[2];
  for (int i = 0; i < 2; i++) children[i] = start_writer(folder, &reports[i], 0, i * COUNT / 2, COUNT);
  for (int i = 0; i < 2; i++)
    while (!atomic_load(&reports[i].ready) && waitpid(children[i], NULL, WNOHANG) == 0) rest(0.2);
  rest(20);
  ASSERT_OK(ser_cache_gc(folder, columns_of, &text, &err), err);
  for (int i = 0; i < 2; i++) {
    int status;
    assert_int_equal(waitpid(children[i], &status, 0), children[i]);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  size_t lost = 0;
  ser_cache *cache = open_cache(folder);
  check_round(cache, 0, 0, COUNT + COUNT / 2, COUNT + COUNT / 2, &lost);
  assert_int_equal(lost, 0);
  ASSERT_OK(ser_cache_close(cache, &err), err);
  ASSERT_OK(ser_cache_verify(folder, columns_of, &text, &err), err);
  free(text.data);
  munmap(reports, 2 * sizeof *reports);
  test_folder_remove(folder);
}

int main(void) {
  ser_log_set_quiet(true);
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_kill), cmocka_unit_test(test_two_writers)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
