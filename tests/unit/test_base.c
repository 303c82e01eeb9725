/* The base room: paths, hashes, atomic files, listings, memory, growing texts, Philox. */
#include "support/harness.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "base/philox.h"

static void write_text(const char *path, const char *text) {
  ser_error err = {0};
  ASSERT_OK(ser_file_write(path, text, strlen(text), &err), err);
}

static void lines_show_what_would_break_them(void **state) {
  (void)state;
  static const struct {
    const char *name, *shown;
  } cases[] = {{"", ""},
               {"plain.wav", "plain.wav"},
               {"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"},
               {"a\nb\rc\td", "a\\nb\\rc\\td"},
               {"\x1b[2J\x07\x7f", "\\x1b[2J\\x07\\x7f"},
               {"\xc2\x9b"
                "1m\xc2\xa0",
                "\\u009b1m\xc2\xa0"},        /* a terminal's command in one character; a blank that is none */
               {"d\xe9j\xe0", "d\xe9j\xe0"}, /* no UTF-8, but letters */
               {"\x9b"
                "1m\xc2",
                "\\x9b1m\xc2"},
               {"cut \xe2\x82", "cut \xe2\\x82"}};
  ser_text text = {0};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *shown = ser_shown(cases[i].name);
    assert_string_equal(shown, cases[i].shown);
    free(shown);
  }
  ser_text_line(&text, "%s: %d", "a\nb", 3);
  ser_text_line(&text, "%s", "");
  assert_string_equal(text.data, "a\\nb: 3\n\n");
  free(text.data);
}

static void paths_are_quoted_as_a_shell_takes_them(void **state) {
  (void)state;
  static const struct {
    const char *path, *word;
  } cases[] = {{"runs/first-2.x", "runs/first-2.x"},
               {"", "''"},
               {"RS p ace", "'RS p ace'"},
               {"~me", "'~me'"},
               {"$HOME*", "'$HOME*'"},
               {"it's", "'it'\\''s'"},
               {"back\\slash", "'back\\slash'"},
               {"-o", "./-o"},
               {"- x", "'./- x'"},
               {"gl\xc3\xbc"
                "ck",
                "'gl\xc3\xbc"
                "ck'"},
               {"a\nb'\\", "$'a\\012b\\047\\134'"},
               {"caf\xe9 1", "$'caf\\351 1'"},
               {"x\xc2\x9b", "$'x\\302\\233'"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *word = ser_quoted(cases[i].path), *shown = ser_shown(word);
    assert_string_equal(word, cases[i].word);
    assert_string_equal(shown, word); /* a line for people leaves it as it is */
    free(word);
    free(shown);
  }
}

static void paths_are_made_plain(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      {"/a/b", "/a/b"},    {"/", "/"},           {"/..", "/"}, {"/../a/./b//c/", "/a/b/c"},
      {"/usr/../..", "/"}, {"/a/..b", "/a/..b"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *path = ser_path_absolute(cases[i][0]);
    assert_string_equal(path, cases[i][1]);
    free(path);
  }
  char *folder = ser_path_folder("/a"), *none = ser_path_folder("a");
  assert_string_equal(folder, "/");
  assert_string_equal(none, ".");
  assert_string_equal(ser_path_name("/a/b.wav"), "b.wav");
  free(folder);
  free(none);
}

/* ".." goes where the system goes, and a path without it stays as it was typed. */
static void a_folder_above_is_the_system_s(void **state) {
  (void)state;
  char *made = test_folder_make("above"), *folder = realpath(made, NULL), *here = getcwd(NULL, 0);
  ser_error err = {0};
  char *deep = ser_path_join(folder, "deep/er"), *plain = ser_path_join(folder, "file");
  char *to_deep = ser_path_join(folder, "lnk"), *to_none = ser_path_join(folder, "end");
  ASSERT_OK(ser_make_folders(deep, &err), err);
  write_text(plain, "x");
  assert_int_equal(symlink(deep, to_deep), 0);
  assert_int_equal(symlink("nowhere", to_none), 0);
  static const char *const cases[][2] = {
      {"lnk/a.wav", "lnk/a.wav"},       {"deep/er/../../x", "x"}, {"deep/./er/..", "deep"},
      {"lnk/../RAV", "deep/RAV"},       {"lnk/../../x", "x"},     {"lnk/../er/..//x", "deep/x"},
      {"none/../x", "none/../x"},       {"end/../x", "end/../x"}, {"file/../x", "file/../x"},
      {"none/../../x", "none/../../x"},
  };
  assert_int_equal(chdir(folder), 0);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *path = ser_path_join(folder, cases[i][0]), *want = ser_path_join(folder, cases[i][1]);
    char *absolute = ser_path_absolute(path), *relative = ser_path_absolute(cases[i][0]);
    assert_string_equal(absolute, want);
    assert_string_equal(relative, want);
    free(path);
    free(want);
    free(absolute);
    free(relative);
  }
  assert_int_equal(chdir(here), 0);
  free(here);
  free(deep);
  free(plain);
  free(to_deep);
  free(to_none);
  free(folder);
  test_folder_remove(made);
}

static void hashes_are_those_of_xxhash(void **state) {
  (void)state;
  /* XXH3-128 of nothing, seed 0: the first vector of the library's own sanity table. */
  char hex[SER_HASH_HEX];
  ser_hash hash = ser_hash_bytes("", 0), parsed;
  ser_hash_hex(hex, &hash);
  assert_string_equal(hex, "99aa06d3014798d86001c324468d497f");
  assert_true(ser_hash_parse(&parsed, hex));
  assert_int_equal(ser_hash_compare(&hash, &parsed), 0);
  assert_false(ser_hash_parse(&parsed, "99aa06d3014798d86001c324468d497"));
  assert_false(ser_hash_parse(&parsed, "99aa06d3014798d86001c324468d497g"));

  char *folder = test_folder_make("hash");
  char *path = ser_path_join(folder, "f");
  size_t size = 300001;
  char *bytes = ser_alloc(size);
  for (size_t i = 0; i < size; i++) bytes[i] = (char)(i * 7 + i / 251);
  ser_error err = {0};
  ASSERT_OK(ser_file_write(path, bytes, size, &err), err);
  ASSERT_OK(ser_hash_file(&parsed, path, &err), err);
  hash = ser_hash_bytes(bytes, size);
  assert_int_equal(ser_hash_compare(&hash, &parsed), 0);
  free(bytes);
  free(path);
  test_folder_remove(folder);
}

/* A file-size limit stands in for a full disk: write fails half way in the same manner. */
static void a_failed_write_leaves_the_old_file(void **state) {
  (void)state;
  char *folder = test_folder_make("full");
  char *path = ser_path_join(folder, "kept");
  write_text(path, "old");
  struct rlimit before, tight;
  getrlimit(RLIMIT_FSIZE, &before);
  tight = before;
  tight.rlim_cur = 1000;
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &tight);
  char *big = ser_alloc_zero(1, 100000);
  ser_error err = {0};
  ser_status status = ser_file_write(path, big, 100000, &err);
  setrlimit(RLIMIT_FSIZE, &before);
  assert_int_equal(status, SER_FAILED);
  assert_non_null(strstr(err.text, "kept"));
  char *data;
  size_t size;
  ASSERT_OK(ser_file_read(&data, &size, path, &err), err);
  assert_string_equal(data, "old");
  int files = 0;
  char *list = ser_format("ls -A %s | wc -l", folder);
  FILE *pipe = popen(list, "r");
  assert_int_equal(fscanf(pipe, "%d", &files), 1);
  pclose(pipe);
  assert_int_equal(files, 1);
  free(list);
  free(data);
  free(big);
  free(path);
  test_folder_remove(folder);
}

/* A file beside `path` with this mark, last written that many hours ago; its path. */
static char *leave_beside(const char *path, const char *mark, int hours) {
  char *left = ser_format("%s.tmp-%s", path, mark);
  struct timespec times[2] = {{time(NULL) - 3600 * hours, 0}, {time(NULL) - 3600 * hours, 0}};
  FILE *file = fopen(left, "w");
  assert_non_null(file);
  assert_int_equal(fclose(file), 0);
  assert_int_equal(utimensat(AT_FDCWD, left, times, 0), 0);
  return left;
}

/* What killed writers of the same file left is swept by the next one; what may still be written is left alone, and so
 * is every name that no writer gives. */
static void a_write_sweeps_what_killed_ones_left(void **state) {
  (void)state;
  char *folder = test_folder_make("sweep"), *path = ser_path_join(folder, "kept"), *other = ser_path_join(folder, "b");
  pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, NULL, 0);
  char *dead = test_writer_mark((long)child), *alive = test_writer_mark((long)getppid()),
       *space = test_writer_mark((long)child);
  char *digit = space + strlen(space) - 18; /* the process's last */
  while (*digit != '-') digit--;
  digit[-1] = digit[-1] == '0' ? '1' : '0';
  const struct {
    const char *beside, *mark;
    int hours;
    bool stays;
  } cases[] = {
      {path, dead, 0, false},
      {path, alive, 100, true},
      {path, space, 20, true}, /* of another PID namespace: nobody can ask there, its age alone counts */
      {path, "another-host-01234567-7-0123456789abcdef", 20, true},
      {path, "another-host-01234567-8-0123456789abcdef", 25, false},
      {path, "backup", 100, true},
      {path, "7-0123456789abcdef", 100, true},
      {path, "host-7-0123456789abcdef", 100, true},
      {path, "host-01234567-x-0123456789abcdef", 100, true},
      {path, "host-01234567-7-0123456789abcdeg", 100, true},
      {path, "host-01234567-7-0123456789abcde", 100, true},
      {path, "host-0123456-7-0123456789abcdef", 100, true},
      {path, "-01234567-7-0123456789abcdef", 100, true},
      {other, dead, 100, true}, /* of another file */
  };
  enum { COUNT = sizeof cases / sizeof *cases };
  char *left[COUNT];
  for (size_t i = 0; i < COUNT; i++) left[i] = leave_beside(cases[i].beside, cases[i].mark, cases[i].hours);
  write_text(path, "new");
  for (size_t i = 0; i < COUNT; i++) {
    if (ser_file_exists(left[i]) != cases[i].stays) fail_msg("%s: is it still there?", left[i]);
    free(left[i]);
  }
  free(dead);
  free(alive);
  free(space);
  free(other);
  free(path);
  test_folder_remove(folder);
}

/* The C library's own readdir, which fails at the third name while this is set: what a network mount that goes away
 * does. */
static bool listing_fails;

struct dirent *readdir(DIR *handle) {
  static int calls;
  struct dirent *(*real)(DIR *);
  *(void **)&real = dlsym(RTLD_NEXT, "readdir64");
  if (!listing_fails || ++calls % 4 != 3) return real(handle);
  errno = EIO;
  return NULL;
}

static ser_status visit_nothing(void *context, const char *path, ser_error *err) {
  (void)path;
  (void)err;
  ++*(int *)context;
  return SER_OK;
}

static void half_a_listing_is_none(void **state) {
  (void)state;
  char *folder = test_folder_make("list"), **names;
  ser_error err = {0};
  size_t count;
  int visited = 0;
  for (int i = 0; i < 6; i++) {
    char *path = ser_format("%s/%d", folder, i);
    write_text(path, "");
    free(path);
  }
  listing_fails = true;
  assert_int_equal(ser_folder_names(&names, &count, folder, &err), SER_FAILED);
  assert_non_null(strstr(err.text, folder));
  assert_non_null(strstr(err.text, strerror(EIO)));
  assert_int_equal(count, 0);
  assert_int_equal(ser_walk(folder, visit_nothing, &visited, &err), SER_FAILED);
  assert_int_equal(visited, 0);
  listing_fails = false;
  ASSERT_OK(ser_folder_names(&names, &count, folder, &err), err);
  assert_int_equal(count, 6);
  ser_names_free(names, count);
  test_folder_remove(folder);
}

/* Sanitizers would end the process in words of their own. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
  return "allocator_may_return_null=1";
}
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
  return __asan_default_options();
}

/* What a process says that asks for so much; it must end with 1. */
static char *words_of_no_memory(int way, const char *path) {
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    if (!freopen(path, "w", stderr)) _exit(2);
    if (way == 0) ser_alloc((size_t)3 << 60);
    if (way == 1) ser_alloc_zero((size_t)5 << 40, (size_t)1 << 12);
    if (way == 2) ser_alloc_zero((size_t)1 << 62, 1 << 20);
    if (way == 3) ser_realloc(NULL, ((size_t)1 << 60) + ((size_t)1 << 59));
    if (way == 4) ser_alloc_aligned(SIZE_MAX - 3);
    _exit(3);
  }
  int result;
  size_t size;
  char *said;
  ser_error err = {0};
  assert_int_equal(waitpid(child, &result, 0), child);
  assert_true(WIFEXITED(result));
  assert_int_equal(WEXITSTATUS(result), 1);
  ASSERT_OK(ser_file_read(&said, &size, path, &err), err);
  return said;
}

static void no_memory_is_told_in_sizes_for_people(void **state) {
  (void)state;
  static const char *const sizes[] = {"(3.0 EiB asked for)", "(20.0 PiB asked for)", "(16.0 EiB asked for)",
                                      "(1.5 EiB asked for)", "(16.0 EiB asked for)"};
  char *folder = test_folder_make("memory"), *path = ser_path_join(folder, "said");
  for (int way = 0; way < 5; way++) {
    char *said = words_of_no_memory(way, path);
    if (!strstr(said, sizes[way])) fail_msg("'%s' does not say '%s'", said, sizes[way]);
    assert_non_null(strstr(said, "use fewer --threads"));
    free(said);
  }
  free(path);
  test_folder_remove(folder);
}

static void sizes_are_told_in_units_of_which_there_is_one(void **state) {
  (void)state;
  static const struct {
    uint64_t bytes;
    const char *words;
  } sizes[] = {{0, "0 bytes"},           {1023, "1023 bytes"},    {1024, "1.0 KiB"},       {96368, "94.1 KiB"},
               {200 << 20, "200.0 MiB"}, {3ull << 29, "1.5 GiB"}, {1ull << 40, "1.0 TiB"}, {UINT64_MAX, "16.0 EiB"}};
  char words[SER_SIZE_WORDS];
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    assert_string_equal(ser_size_words(words, sizes[i].bytes), sizes[i].words);
}

typedef struct {
  char names[8][64];
  int count;
} seen_files;

static ser_status note_file(void *context, const char *path, ser_error *err) {
  (void)err;
  seen_files *seen = context;
  assert_true(seen->count < 8);
  snprintf(seen->names[seen->count++], 64, "%s", ser_path_name(path));
  return SER_OK;
}

static void a_walk_is_ordered_and_survives_loops(void **state) {
  (void)state;
  char *folder = test_folder_make("walk");
  char *sub = ser_path_join(folder, "b"), *loop = ser_path_join(sub, "loop");
  char *first = ser_path_join(folder, "a"), *second = ser_path_join(sub, "x"), *third = ser_path_join(folder, "c");
  ser_error err = {0};
  ASSERT_OK(ser_make_folders(sub, &err), err);
  write_text(third, "");
  write_text(second, "");
  write_text(first, "");
  assert_int_equal(symlink(folder, loop), 0);
  char *dot = ser_path_join(folder, "b.wav"), *dangling = ser_path_join(folder, "d");
  write_text(dot, ""); /* before what lies in b/: '.' sorts before '/' */
  assert_int_equal(symlink("/nowhere/at/all", dangling), 0);
  seen_files seen = {.count = 0};
  ASSERT_OK(ser_walk(folder, note_file, &seen, &err), err);
  static const char *const want[] = {"a", "b.wav", "x", "c", "d"};
  assert_int_equal(seen.count, 5);
  for (int i = 0; i < 5; i++) assert_string_equal(seen.names[i], want[i]);
  free(dot);
  free(dangling);
  free(sub);
  free(loop);
  free(first);
  free(second);
  free(third);
  test_folder_remove(folder);
}

/* Known answers of philox4x32-10 as published with Random123 (kat_vectors). */
static void philox_gives_the_published_numbers(void **state) {
  (void)state;
  ser_philox zero = ser_philox_at(0, 0, 0);
  assert_int_equal(zero.v[0], 0x6627e8d5u);
  assert_int_equal(zero.v[1], 0xe169c58du);
  assert_int_equal(zero.v[2], 0xbc57ac4cu);
  assert_int_equal(zero.v[3], 0x9b00dbd8u);
  ser_philox ones = ser_philox_at(~0ull, ~0ull, ~0ull);
  assert_int_equal(ones.v[0], 0x408f276du);
  assert_int_equal(ones.v[1], 0x41c83b0eu);
  assert_int_equal(ones.v[2], 0xa20bc7c6u);
  assert_int_equal(ones.v[3], 0x6d5451fdu);
  assert_true(ser_uniform(0xffffffffu) < 1.0f);
  assert_true(ser_uniform(0) == 0.0f);
}

static void texts_grow(void **state) {
  (void)state;
  ser_text text = {0};
  for (int i = 0; i < 1000; i++) ser_text_printf(&text, "%d,", i);
  assert_int_equal(text.size, strlen(text.data));
  assert_non_null(strstr(text.data, ",998,999,"));
  free(text.data);
}

/* A wrapper's doubled signal is one wish; one that comes later ends the process. */
static void a_doubled_signal_is_one_wish(void **state) {
  (void)state;
  pid_t child = fork();
  if (child == 0) {
    struct timespec nap = {0, 400000000};
    ser_interrupt_install();
    raise(SIGTERM);
    raise(SIGINT);
    if (ser_interrupted() != SIGTERM || ser_interrupt_check(NULL) != SER_INTERRUPTED) _exit(1);
    nanosleep(&nap, NULL);
    raise(SIGINT);
    _exit(2);
  }
  int result;
  assert_int_equal(waitpid(child, &result, 0), child);
  assert_true(WIFEXITED(result));
  assert_int_equal(WEXITSTATUS(result), 130);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_doubled_signal_is_one_wish),
      cmocka_unit_test(lines_show_what_would_break_them),
      cmocka_unit_test(paths_are_quoted_as_a_shell_takes_them),
      cmocka_unit_test(paths_are_made_plain),
      cmocka_unit_test(a_folder_above_is_the_system_s),
      cmocka_unit_test(hashes_are_those_of_xxhash),
      cmocka_unit_test(a_failed_write_leaves_the_old_file),
      cmocka_unit_test(a_write_sweeps_what_killed_ones_left),
      cmocka_unit_test(half_a_listing_is_none),
      cmocka_unit_test(sizes_are_told_in_units_of_which_there_is_one),
      cmocka_unit_test(no_memory_is_told_in_sizes_for_people),
      cmocka_unit_test(a_walk_is_ordered_and_survives_loops),
      cmocka_unit_test(philox_gives_the_published_numbers),
      cmocka_unit_test(texts_grow),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
