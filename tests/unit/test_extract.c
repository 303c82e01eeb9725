/* The bulk job on made recordings: the same bytes whatever the workers, threads and batches; resuming without sound;
 * changed, short, unusable and vanished files; an interruption; a full disk. */
#include "support/apart.h"
#include "support/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "features/features.h"

/* A folder of recordings, their manifest, a configuration and a device. */
typedef struct {
  char *folder, *cache;
  ser_manifest manifest;
  ser_config config;
  ser_device *device;
} scene;

static scene scene_make(int threads) {
  scene s = {.folder = test_folder_make("extract")};
  ser_error err = {0};
  s.cache = ser_path_join(s.folder, "cache");
  ser_manifest_init(&s.manifest);
  ser_config_init(&s.config);
  ASSERT_OK(ser_device_open(&s.device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = threads}, &err), err);
  return s;
}

static void scene_free(scene *s) {
  ser_device_close(s->device);
  ser_config_free(&s->config);
  ser_manifest_free(&s->manifest);
  free(s->cache);
  test_folder_remove(s->folder);
}

static ser_row *add_row(scene *s, const char *name) {
  ser_manifest *m = &s->manifest;
  ser_error err = {0};
  struct stat info;
  SER_GROW(m->rows, m->count, m->capacity);
  ser_row *row = &m->rows[m->count++];
  memset(row, 0, sizeof *row);
  row->path = ser_path_join(s->folder, name);
  row->corpus = ser_strdup("test");
  row->speaker = ser_strdup("");
  row->sex = ser_strdup("");
  row->intensity = ser_strdup("");
  row->statement = ser_strdup("");
  row->status = SER_NEW;
  row->seconds = -1;
  assert_int_equal(stat(row->path, &info), 0);
  row->size = info.st_size;
  row->mtime_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
  ASSERT_OK(ser_hash_file(&row->hash, row->path, &err), err);
  return row;
}

/* Noise that rises and falls: features of no two clips are the same. */
static ser_row *add_noise(scene *s, const char *name, uint64_t seed, int64_t count, int rate) {
  float *samples = ser_alloc((size_t)count * sizeof *samples);
  for (int64_t i = 0; i < count; i++)
    samples[i] = test_random(seed, (uint64_t)i) * (float)(i % (2000 + 300 * (int64_t)seed)) / 40000;
  char *path = ser_path_join(s->folder, name);
  test_write_wav(path, samples, count, rate);
  free(path);
  free(samples);
  return add_row(s, name);
}

/* Clips of many lengths and rates: from the shortest that has features on. */
static void add_clips(scene *s, int count) {
  static const int rates[] = {16000, 22050, 48000, 24414};
  for (int i = 0; i < count; i++) {
    char name[32];
    int rate = rates[i % 4];
    snprintf(name, sizeof name, "clip%03d.wav", i);
    add_noise(s, name, (uint64_t)i, rate * (2 + i * 7 % 19) / 10, rate);
  }
}

static ser_status extract(ser_extract_summary *summary, scene *s, ser_feature_kind kind, int jobs, ser_error *err) {
  ser_extract_options options = {kind, ser_config_mfcc(&s->config, kind), s->cache, jobs, s->device, false};
  return ser_extract(summary, &s->manifest, &options, err);
}

/* Extracts and expects these counts. */
static void expect(scene *s, ser_feature_kind kind, int jobs, size_t present, size_t computed, size_t too_short,
                   size_t refused, const char *named) {
  ser_extract_summary summary;
  ser_error err = {0};
  ASSERT_OK(extract(&summary, s, kind, jobs, &err), err);
  assert_int_equal(summary.present, present);
  assert_int_equal(summary.computed, computed);
  assert_int_equal(summary.too_short, too_short);
  assert_int_equal(summary.refused, refused);
  assert_int_equal(summary.wanted, present + computed + too_short + refused);
  if (named)
    assert_non_null(strstr(summary.refusals.data, named));
  else
    assert_int_equal(summary.refusals.size, 0);
  free(summary.refusals.data);
}

/* The features of every usable row as the cache has them. */
static void read_all(scene *s, ser_feature_kind kind, int64_t **offset, float **features) {
  ser_cache *cache;
  ser_error err = {0};
  ser_hash *keys = ser_alloc(s->manifest.count * sizeof *keys);
  size_t count = 0;
  for (size_t i = 0; i < s->manifest.count; i++)
    if (ser_row_usable(&s->manifest.rows[i])) keys[count++] = s->manifest.rows[i].hash;
  ASSERT_OK(ser_feature_cache_open(&cache, s->cache, kind, ser_config_mfcc(&s->config, kind), false, &err), err);
  ASSERT_OK(ser_cache_read(cache, offset, features, keys, count, &err), err);
  ASSERT_OK(ser_cache_close(cache, &err), err);
  free(keys);
}

static ser_entry_status cached(scene *s, const ser_hash *key) {
  ser_cache *cache;
  ser_error err = {0};
  ASSERT_OK(ser_feature_cache_open(&cache, s->cache, SER_MFCC39, &s->config.features.mfcc39, false, &err), err);
  ser_entry_status status = ser_cache_find(cache, key, NULL);
  ASSERT_OK(ser_cache_close(cache, &err), err);
  return status;
}

/* ---- tests ----------------------------------------------------------------------------------------------------- */

/* Each clip decoded and computed alone. */
static void check_alone(scene *s, const int64_t *offset, const float *features) {
  const ser_mfcc_config *config = &s->config.features.mfcc39;
  int64_t columns = ser_feature_columns(config);
  ser_error err = {0};
  ser_mfcc *mfcc;
  ASSERT_OK(ser_mfcc_create(&mfcc, s->device, config, 1, 300, true, &err), err);
  for (size_t i = 0; i < s->manifest.count; i++) {
    ser_clip clip;
    ser_reason reason;
    ser_audio_source source = {.path = s->manifest.rows[i].path};
    int64_t rows[2];
    float *alone;
    ASSERT_OK(ser_audio_decode(&clip, &reason, NULL, &source, (int32_t)config->rate, NULL, NULL, &err), err);
    ASSERT_OK(ser_mfcc_compute(mfcc, &alone, rows, (const float *const *)&clip.samples, &clip.count, 1, &err), err);
    assert_int_equal(rows[1], offset[i + 1] - offset[i]);
    assert_true(rows[1] >= 9);
    assert_memory_equal(alone, features + offset[i] * columns, (size_t)(rows[1] * columns) * sizeof *alone);
    free(alone);
    ser_clip_free(&clip);
  }
  ser_mfcc_free(mfcc);
}

static void test_same_bytes(void **state) {
  (void)state;
  int64_t *first_offset = NULL;
  float *first = NULL;
  static const int arrangements[][2] = {{1, 1}, {4, 1}, {3, 3}, {0, 2}}; /* jobs, threads */
  scene s = scene_make(1);
  add_clips(&s, 60);
  for (int run = 0; run < 4; run++) {
    ser_error err = {0};
    ser_device_close(s.device);
    ASSERT_OK(ser_device_open(&s.device, &(ser_device_options){.kind = SER_DEVICE_CPU, .threads = arrangements[run][1]},
                              &err),
              err);
    free(s.cache);
    s.cache = ser_format("%s/cache-%d", s.folder, run);
    expect(&s, SER_MFCC39, arrangements[run][0], 0, 60, 0, 0, NULL);
    int64_t *offset;
    float *features;
    read_all(&s, SER_MFCC39, &offset, &features);
    if (!first) {
      check_alone(&s, offset, features);
      first = features;
      first_offset = offset;
    } else {
      assert_memory_equal(offset, first_offset, 61 * sizeof *offset);
      assert_memory_equal(features, first, (size_t)(offset[60] * 39) * sizeof *features);
      free(offset);
      free(features);
    }
  }
  free(first);
  free(first_offset);
  scene_free(&s);
}

static void remove_recordings(scene *s) {
  for (size_t i = 0; i < s->manifest.count; i++) unlink(s->manifest.rows[i].path);
}

/* A second run takes keys from the manifest and the cache alone. */
static void test_resume(void **state) {
  (void)state;
  scene s = scene_make(1);
  add_clips(&s, 20);
  for (size_t i = 12; i < 20; i++) s.manifest.rows[i].status = i % 2 ? SER_EXCLUDED : SER_FILTERED;
  expect(&s, SER_MFCC39, 2, 0, 12, 0, 0, NULL);
  for (size_t i = 12; i < 20; i++) s.manifest.rows[i].status = SER_ROW_OK;
  expect(&s, SER_MFCC39, 2, 12, 8, 0, 0, NULL);
  remove_recordings(&s);
  expect(&s, SER_MFCC39, 2, 20, 0, 0, 0, NULL);
  s.config.features.mfcc39.mels = 64; /* another configuration shares nothing */
  expect(&s, SER_MFCC39, 2, 0, 0, 0, 20, "clip000.wav: cannot be opened");
  scene_free(&s);
}

static void test_duplicates(void **state) {
  (void)state;
  scene s = scene_make(1);
  add_noise(&s, "a.wav", 1, 20000, 16000);
  add_noise(&s, "b.wav", 1, 20000, 16000);
  add_noise(&s, "c.wav", 2, 20000, 16000);
  expect(&s, SER_MFCC39, 2, 0, 2, 0, 0, NULL);
  scene_free(&s);
}

/* A file that has vanished is read from a copy, be it usable, excluded or of another name; where none is left, the
 * usable row is named. */
static void test_copies_stand_in(void **state) {
  (void)state;
  scene s = scene_make(1);
  for (uint64_t seed = 1; seed <= 3; seed++)
    for (int copy = 0; copy < 3; copy++) {
      char name[32];
      snprintf(name, sizeof name, "c%d/%d.wav", (int)seed, copy);
      ser_error err = {0};
      char *folder = ser_path_join(s.folder, name), *parent = ser_path_folder(folder);
      ASSERT_OK(ser_make_folders(parent, &err), err);
      add_noise(&s, name, seed, 20000, 16000);
      free(folder);
      free(parent);
    }
  ser_row *rows = s.manifest.rows;
  unlink(rows[0].path); /* gone, another usable one is there */
  rows[1].status = SER_EXCLUDED;
  unlink(rows[4].path); /* gone, and one copy has other bytes now: the excluded one is left */
  rows[3].status = SER_EXCLUDED;
  assert_int_equal(truncate(rows[5].path, 100), 0);
  for (int i = 6; i < 9; i++) unlink(rows[i].path);
  rows[6].status = SER_EXCLUDED;
  expect(&s, SER_MFCC39, 2, 0, 2, 0, 1, "c3/1.wav: cannot be opened");
  assert_int_equal(cached(&s, &rows[0].hash), SER_ENTRY_OK);
  assert_int_equal(cached(&s, &rows[4].hash), SER_ENTRY_OK);
  scene_free(&s);
}

/* Another byte in a sample, at the old time. */
static void change_quietly(const ser_row *row) {
  struct stat info;
  unsigned char byte;
  int fd = open(row->path, O_RDWR);
  assert_int_equal(fstat(fd, &info), 0);
  assert_int_equal(lseek(fd, 3001, SEEK_SET), 3001);
  assert_int_equal(read(fd, &byte, 1), 1);
  byte ^= 77;
  assert_int_equal(pwrite(fd, &byte, 1, 3001), 1);
  assert_int_equal(futimens(fd, (struct timespec[]){info.st_atim, info.st_mtim}), 0);
  close(fd);
}

/* A copy also stands in for a file of the same size that has other bytes now, whatever the file's length. */
static void test_copies_of_changed_files(void **state) {
  (void)state;
  scene s = scene_make(1);
  add_noise(&s, "a0.wav", 1, 20000, 16000);
  add_noise(&s, "a1.wav", 1, 20000, 16000);
  add_noise(&s, "a2.wav", 1, 20000, 16000);
  add_noise(&s, "b0.wav", 2, 20000, 16000);
  add_noise(&s, "b1.wav", 2, 20000, 16000);
  add_noise(&s, "c0.wav", 3, 48000 * 180, 48000);
  ser_row *copy = add_noise(&s, "c1.wav", 3, 48000 * 180, 48000), *rows = s.manifest.rows;
  assert_true(copy->size > 16 << 20);
  change_quietly(&rows[0]);
  unlink(rows[1].path);
  rows[2].status = SER_EXCLUDED;
  change_quietly(&rows[3]);
  change_quietly(&rows[4]);
  change_quietly(&rows[5]);
  expect(&s, SER_MFCC39, 2, 0, 2, 0, 1, "b0.wav: its bytes are not those that were indexed; run `serenade index`");
  assert_int_equal(cached(&s, &rows[0].hash), SER_ENTRY_OK);
  assert_int_equal(cached(&s, &rows[3].hash), SER_ENTRY_MISSING);
  assert_int_equal(cached(&s, &rows[5].hash), SER_ENTRY_OK);
  scene_free(&s);
}

/* The cache never answers for other bytes than the key's: not even where size and time are those of the manifest. */
static void test_changed(void **state) {
  (void)state;
  scene s = scene_make(1);
  add_clips(&s, 6);
  ser_row *changed = &s.manifest.rows[2], *touched = &s.manifest.rows[4];
  change_quietly(changed);
  utimensat(AT_FDCWD, touched->path, NULL, 0);
  expect(&s, SER_MFCC39, 2, 0, 5, 0, 1, "clip002.wav: its bytes are not those that were indexed; run `serenade index`");
  assert_int_equal(cached(&s, &changed->hash), SER_ENTRY_MISSING);
  assert_int_equal(cached(&s, &touched->hash), SER_ENTRY_OK);
  ser_error err = {0};
  ASSERT_OK(ser_hash_file(&changed->hash, changed->path, &err), err); /* what index does */
  expect(&s, SER_MFCC39, 2, 5, 1, 0, 0, NULL);
  scene_free(&s);
}

/* What depends on the bytes alone is remembered; a file that is away for now is not. */
static void test_refused(void **state) {
  (void)state;
  scene s = scene_make(1);
  ser_error err = {0};
  add_clips(&s, 4);
  add_noise(&s, "short.wav", 9, 22050 / 10, 22050);
  char *path = ser_path_join(s.folder, "noise.wav");
  ASSERT_OK(ser_file_write(path, "this is no recording", 20, &err), err);
  ser_hash noise = add_row(&s, "noise.wav")->hash, none = {{0}};
  ser_hash away = add_noise(&s, "away.wav", 10, 30000, 22050)->hash;
  char *elsewhere = ser_path_join(s.folder, "elsewhere");
  free(path);
  path = ser_path_join(s.folder, "away.wav");
  assert_int_equal(rename(path, elsewhere), 0);
  expect(&s, SER_MFCC39, 2, 0, 4, 1, 2, "noise.wav: unreadable: ");
  assert_int_equal(cached(&s, &s.manifest.rows[4].hash), SER_ENTRY_TOO_SHORT);
  assert_int_equal(cached(&s, &noise), SER_ENTRY_REFUSED);
  assert_int_equal(cached(&s, &away), SER_ENTRY_MISSING);
  expect(&s, SER_MFCC39, 2, 4, 0, 1, 2, "short.wav: too short");
  expect(&s, SER_MFCC39, 2, 4, 0, 1, 2, "noise.wav: could not be decoded");
  expect(&s, SER_MFCC39, 2, 4, 0, 1, 2, "away.wav: cannot be opened (No such file");
  assert_int_equal(rename(elsewhere, path), 0);
  expect(&s, SER_MFCC39, 2, 4, 1, 1, 1, "noise.wav");
  s.manifest.rows[0].hash = none;
  expect(&s, SER_MFCC39, 2, 4, 0, 1, 2, "clip000.wav: the manifest has no hash");
  free(elsewhere);
  free(path);
  scene_free(&s);
}

/* A refusal of a decoder that is not the present one (or of a shard that names none) is no answer. */
static void test_other_decoder(void **state) {
  (void)state;
  static const char *const attributes[] = {"{}", "{\"decoder\":\"libsndfile-0.1 rules 0\"}"};
  scene s = scene_make(1);
  add_clips(&s, 4);
  char *json = ser_feature_json(SER_MFCC39, &s.config.features.mfcc39);
  for (int i = 0; i < 2; i++) {
    ser_cache *cache;
    ser_error err = {0};
    ASSERT_OK(ser_cache_open(&cache, s.cache, "mfcc39", json, attributes[i], 39, true, &err), err);
    ASSERT_OK(ser_cache_add(cache, &s.manifest.rows[2 * i].hash, SER_ENTRY_REFUSED, NULL, 0, &err), err);
    ASSERT_OK(ser_cache_add(cache, &s.manifest.rows[2 * i + 1].hash, SER_ENTRY_TOO_SHORT, NULL, 0, &err), err);
    ASSERT_OK(ser_cache_close(cache, &err), err);
  }
  free(json);
  expect(&s, SER_MFCC39, 1, 0, 4, 0, 0, NULL);
  expect(&s, SER_MFCC39, 1, 4, 0, 0, 0, NULL);
  scene_free(&s);
}

/* timnet: every clip is fitted to one length, so that none is too short. */
static void test_timnet(void **state) {
  (void)state;
  scene s = scene_make(1);
  add_clips(&s, 5);
  add_noise(&s, "short.wav", 9, 500, 22050);
  add_noise(&s, "long.wav", 10, 22050 * 9, 22050);
  expect(&s, SER_TIMNET, 2, 0, 7, 0, 0, NULL);
  int64_t *offset;
  float *features;
  read_all(&s, SER_TIMNET, &offset, &features);
  const ser_mfcc_config *config = &s.config.features.timnet;
  for (int i = 0; i < 7; i++) assert_int_equal(offset[i + 1] - offset[i], 1 + config->samples / config->hop);
  free(offset);
  free(features);
  scene_free(&s);
}

/* A recording that is not held in memory whole, in frames that no batch holds either. */
static void test_long(void **state) {
  (void)state;
  scene s = scene_make(2);
  add_clips(&s, 3);
  ser_row *row = add_noise(&s, "long.wav", 3, 48000 * 180, 48000);
  assert_true(row->size > 16 << 20);
  ser_hash honest = row->hash;
  row->hash.bytes[3] ^= 1;
  expect(&s, SER_MFCC39, 2, 0, 3, 0, 1, "long.wav: its bytes are not those that were indexed");
  row->hash = honest;
  expect(&s, SER_MFCC39, 2, 3, 1, 0, 0, NULL);
  int64_t *offset;
  float *features;
  read_all(&s, SER_MFCC39, &offset, &features);
  assert_int_equal(offset[4] - offset[3], 1 + 180 * s.config.features.mfcc39.rate / s.config.features.mfcc39.hop);
  free(offset);
  free(features);
  scene_free(&s);
}

/* The C library's own pread, which decoding reads with; while this is set, reads from there on fail. */
static _Atomic int64_t fails_from = INT64_MAX;

ssize_t pread(int fd, void *to, size_t count, off_t at) {
  if (at < fails_from) return syscall(SYS_pread64, fd, to, count, at);
  errno = EIO;
  return -1;
}

/* A disk or a mount that fails half way says nothing of the bytes: told, not remembered, and tried again. */
static void test_reading_fails(void **state) {
  (void)state;
  scene s = scene_make(1);
  add_clips(&s, 2);
  ser_row *row = add_noise(&s, "long.wav", 3, 48000 * 180, 48000);
  assert_true(row->size > 16 << 20);
  static const int64_t from[] = {0, 8 << 20};
  for (int i = 0; i < 2; i++) {
    fails_from = from[i];
    expect(&s, SER_MFCC39, 1, i ? 2 : 0, i ? 0 : 2, 0, 1, "long.wav: unreadable: cannot be read: Input/output error");
    assert_int_equal(cached(&s, &row->hash), SER_ENTRY_MISSING);
  }
  fails_from = INT64_MAX;
  expect(&s, SER_MFCC39, 1, 2, 1, 0, 0, NULL);
  scene_free(&s);
}

/* ---- an interruption ------------------------------------------------------------------------------------------- */

static const ser_ops *real_ops;
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
static _Noreturn void extract_until_interrupted(scene *s, size_t *computed) {
  ser_extract_summary summary;
  ser_error err = {0};
  ser_ops hooked = *s->device->ops;
  real_ops = s->device->ops;
  hooked.logmel = logmel_interrupted;
  hooked.mfcc_finish = finish_interrupted;
  s->device->ops = &hooked;
  ser_interrupt_install();
  ser_status status = extract(&summary, s, SER_MFCC39, 2, &err);
  *computed = summary.computed;
  if (batches != 2 || (status == SER_INTERRUPTED && !strstr(err.text, "interrupted by SIGINT"))) _exit(1);
  _exit(ser_exit_code(status));
}

static void test_interrupted(void **state) {
  (void)state;
  size_t *computed = mmap(NULL, sizeof *computed, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(computed != MAP_FAILED);
  for (int i = 0; i < 2; i++) {
    scene s = scene_make(1);
    add_clips(&s, 100);
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
    expect(&s, SER_MFCC39, 2, *computed, 100 - *computed, 0, 0, NULL);
    scene_free(&s);
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
  scene s = scene_make(1);
  add_clips(&s, 40);
  for (size_t i = 0; i < s.manifest.count; i++) s.manifest.rows[i].seconds = 100;
  ser_extract_summary summary = {0};
  ser_error err = {0};
  ser_ops hooked = *s.device->ops;
  real_ops = s.device->ops;
  hooked.logmel = logmel_slow;
  s.device->ops = &hooked;
  room_summary = &summary;
  atomic_store(&begun, 0);
  ASSERT_OK(extract(&summary, &s, SER_MFCC39, 4, &err), err);
  assert_int_equal(summary.computed, 40);
  assert_int_equal(atomic_load(&begun), 40);
  s.device->ops = real_ops;
  for (size_t i = 0; i < s.manifest.count; i++) s.manifest.rows[i].seconds = 1e9; /* absurd: all of the room, alone */
  expect(&s, SER_TIMNET, 4, 0, 40, 0, 0, NULL);
  scene_free(&s);
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
  scene s = scene_make(1);
  ser_extract_summary summary;
  ser_error err = {0};
  int64_t *offset, *offset_then;
  float *features, *features_then;
  for (int i = 0; i < CLIPS; i++) {
    char name[32];
    snprintf(name, sizeof name, "turn%02d.wav", i);
    add_noise(&s, name, (uint64_t)i, 6000 + 500 * i, i % 2 ? 22050 : 24000);
  }
  expect(&s, SER_MFCC39, 2, 0, CLIPS, 0, 0, NULL);
  read_all(&s, SER_MFCC39, &offset, &features);
  free(s.cache);
  s.cache = ser_path_join(s.folder, "cache-apart");
  test_device_apart(s.device);
  ser_ops hooked = *s.device->ops;
  real_ops = s.device->ops;
  hooked.logmel = logmel_naps;
  s.device->ops = &hooked;
  ASSERT_OK(extract(&summary, &s, SER_MFCC39, 2, &err), err);
  s.device->ops = real_ops;
  assert_int_equal(summary.computed, CLIPS);
  assert_true(summary.work.batches <= CLIPS / 4);
  read_all(&s, SER_MFCC39, &offset_then, &features_then);
  assert_memory_equal(offset, offset_then, (CLIPS + 1) * sizeof *offset);
  assert_memory_equal(features, features_then, (size_t)(offset[CLIPS] * 39) * sizeof *features);
  free(offset);
  free(features);
  free(offset_then);
  free(features_then);
  scene_free(&s);
}

static void test_full_disk(void **state) {
  (void)state;
  scene s = scene_make(1);
  ser_extract_summary summary;
  ser_error err = {0};
  add_clips(&s, 30);
  struct rlimit before, tight;
  getrlimit(RLIMIT_FSIZE, &before);
  tight = (struct rlimit){20000, before.rlim_max};
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &tight);
  assert_int_equal(extract(&summary, &s, SER_MFCC39, 2, &err), SER_FAILED);
  setrlimit(RLIMIT_FSIZE, &before);
  assert_non_null(strstr(err.text, s.cache));
  assert_non_null(strstr(err.text, "make room"));
  free(summary.refusals.data);
  expect(&s, SER_MFCC39, 2, 0, 30, 0, 0, NULL);
  scene_free(&s);
}

int main(void) {
  ser_log_set_quiet(true);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_same_bytes),
      cmocka_unit_test(test_resume),
      cmocka_unit_test(test_duplicates),
      cmocka_unit_test(test_copies_stand_in),
      cmocka_unit_test(test_copies_of_changed_files),
      cmocka_unit_test(test_changed),
      cmocka_unit_test(test_refused),
      cmocka_unit_test(test_other_decoder),
      cmocka_unit_test(test_timnet),
      cmocka_unit_test(test_long),
      cmocka_unit_test(test_reading_fails),
      cmocka_unit_test(test_interrupted),
      cmocka_unit_test(test_room),
      cmocka_unit_test(test_kinds_in_turn),
      cmocka_unit_test(test_full_disk),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
