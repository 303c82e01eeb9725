/* Parsing of options: long and short, joined or apart, repeated; common ones wherever they stand. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/nearest.h"
#include "cli/cli.h"

static const char *const common_names[] = {"--device", "--threads", "--seed", "--quiet", "--help", "--version"};

/* What stands behind the option's name in the argument: "" for the name alone, "=..." or, for "-oVALUE", the value;
 * NULL where the argument is another one. */
static const char *behind(const char *argument, const ser_option *option) {
  size_t size = strlen(option->name);
  if (strncmp(argument, option->name, size)) return NULL;
  const char *rest = argument + size;
  if (!*rest || *rest == '=') return rest;
  return size == 2 && (option->value || option->list) ? rest : NULL;
}

static ser_status unknown(const char *command, const char *argument, const ser_option *options, size_t count,
                          ser_error *err) {
  if (ser_file_exists(argument))
    return ser_fail(err, SER_USAGE, "unknown option %s; if the file of this name is meant, write ./%s, or -- before it",
                    argument, argument);
  const char *best = common_names[0];
  size_t least = SIZE_MAX, common = sizeof common_names / sizeof *common_names;
  char *name = ser_format("%.*s", (int)strcspn(argument, "="), argument);
  for (size_t i = 0; i < count + common; i++) {
    const char *candidate = i < count ? options[i].name : common_names[i - count];
    size_t distance = ser_edit_distance(name, candidate);
    if (distance < least) {
      least = distance;
      best = candidate;
    }
  }
  bool near = ser_is_near(name, best);
  const char *blank = *command ? " " : "";
  ser_status status =
      near ? ser_fail(err, SER_USAGE, "unknown option %s; the nearest is %s (see serenade%s%s --help)", name, best,
                      blank, command)
           : ser_fail(err, SER_USAGE, "unknown option %s; 'serenade%s%s --help' lists those that there are", name,
                      blank, command);
  free(name);
  return status;
}

/* Gives the option its value; *used is 2 where the next argument was taken. */
static ser_status take(const ser_option *option, const char *rest, const char *next, int *used, ser_error *err) {
  bool valued = option->value || option->list;
  *used = 1;
  if (!valued && *rest)
    return ser_fail(err, SER_USAGE, "%s takes no value; write %s alone", option->name, option->name);
  if (!valued) {
    *option->flag = true;
    return SER_OK;
  }
  const char *value = *rest == '=' ? rest + 1 : rest;
  if (!*rest) {
    if (!next || (next[0] == '-' && next[1] && !isdigit((unsigned char)next[1])))
      return ser_fail(err, SER_USAGE, "%s needs a value; write %s VALUE%s", option->name, option->name,
                      next ? ", or join one that begins with a dash by '='" : "");
    value = next;
    *used = 2;
  }
  if (option->list) {
    *option->list = ser_realloc(*option->list, (*option->list_count + 1) * sizeof **option->list);
    (*option->list)[(*option->list_count)++] = value;
  } else {
    *option->value = value;
  }
  return SER_OK;
}

static ser_status given_twice(const char *name, ser_error *err) {
  return ser_fail(err, SER_USAGE, "%s is given twice; take one out", name);
}

/* Whether a value was given before, under whichever name; a list takes any number. */
static bool is_taken(const bool *taken, const ser_option *options, size_t count, size_t which) {
  for (size_t i = 0; i < count; i++)
    if (taken[i] && options[which].value && options[i].value == options[which].value) return true;
  return false;
}

static ser_status parse(int *argc, char **argv, const ser_option *options, bool *taken, size_t count, ser_error *err) {
  int kept = 1;
  for (int i = 1; i < *argc;) {
    if (!strcmp(argv[i], "--")) {
      while (++i < *argc) argv[kept++] = argv[i];
      break;
    }
    if (argv[i][0] != '-' || !argv[i][1]) {
      argv[kept++] = argv[i++];
      continue;
    }
    const char *rest = NULL;
    size_t which = 0;
    while (which < count && !(rest = behind(argv[i], &options[which]))) which++;
    if (which == count) return unknown(argv[0], argv[i], options, count, err);
    if (is_taken(taken, options, count, which)) return given_twice(options[which].name, err);
    taken[which] = true;
    int used;
    SER_TRY(take(&options[which], rest, i + 1 < *argc ? argv[i + 1] : NULL, &used, err));
    i += used;
  }
  *argc = kept;
  return SER_OK;
}

ser_status ser_options_parse(int *argc, char **argv, const ser_option *options, size_t count, ser_error *err) {
  bool *taken = ser_alloc_zero(count, sizeof *taken);
  ser_status status = parse(argc, argv, options, taken, count, err);
  free(taken);
  return status;
}

ser_status ser_option_integer(int64_t *out, const char *name, const char *text, int64_t least, int64_t most,
                              ser_error *err) {
  char *end;
  errno = 0;
  bool digits = *text && strspn(text, "0123456789-") == strlen(text);
  long long value = digits ? strtoll(text, &end, 10) : 0;
  if (!digits || *end || errno || value < least || value > most)
    return ser_fail(err, SER_USAGE, "%s is '%s', but it must be a whole number from %lld to %lld", name, text,
                    (long long)least, (long long)most);
  *out = value;
  return SER_OK;
}

ser_status ser_option_choice(int *out, const char *name, const char *text, const char *const *words, ser_error *err) {
  ser_text list = {0};
  const char *best = words[0];
  for (int i = 0; words[i]; i++) {
    if (!strcmp(words[i], text)) {
      *out = i;
      free(list.data);
      return SER_OK;
    }
    if (ser_edit_distance(text, words[i]) < ser_edit_distance(text, best)) best = words[i];
    ser_text_printf(&list, "%s%s", i ? ", " : "", words[i]);
  }
  bool near = ser_is_near(text, best);
  ser_status status = ser_fail(err, SER_USAGE, "%s is '%s', but it must be one of %s%s%s", name, text, list.data,
                               near ? "; the nearest is " : "", near ? best : "");
  free(list.data);
  return status;
}

ser_status ser_option_choices(bool *taken, const char *name, const char *list, const char *const *words,
                              ser_error *err) {
  for (const char *at = list;; at++) {
    int word = 0;
    size_t size = strcspn(at, ",");
    char *text = ser_format("%.*s", (int)size, at);
    ser_status status = ser_option_choice(&word, name, text, words, err);
    free(text);
    if (status != SER_OK) return status;
    taken[word] = true;
    at += size;
    if (!*at) return SER_OK;
  }
}

ser_status ser_options_count(int argc, char **argv, int least, int most, const char *what, ser_error *err) {
  if (argc - 1 < least)
    return ser_fail(err, SER_USAGE, "%s: %s is missing (see serenade %s --help)", argv[0], what, argv[0]);
  if (most >= 0 && argc - 1 > most)
    return ser_fail(err, SER_USAGE, "%s: '%s' is one argument too many; take it out (see serenade %s --help)", argv[0],
                    argv[most + 1], argv[0]);
  return SER_OK;
}

/* Whether the argument is the option ("--name" or "--name=..."); *used counts the arguments that it takes. */
static ser_status common_value(const char *name, int i, int argc, char **argv, const char **value, int *used,
                               ser_error *err) {
  const ser_option option = {.name = name, .value = value};
  const char *rest = behind(argv[i], &option);
  *value = NULL;
  return rest ? take(&option, rest, i + 1 < argc ? argv[i + 1] : NULL, used, err) : SER_OK;
}

ser_status ser_options_common(ser_common *common, ser_asked *asked, int *argc, char **argv, ser_error *err) {
  static const char *const devices[] = {"auto", "cpu", "cuda", NULL};
  const ser_option flags[] = {{.name = "--quiet", .flag = &common->quiet},
                              {.name = "-q", .flag = &common->quiet},
                              {.name = "--help", .flag = &asked->help},
                              {.name = "-h", .flag = &asked->help},
                              {.name = "--version", .flag = &asked->version}};
  int kept = 1, i = 1;
  for (; i < *argc && strcmp(argv[i], "--"); i++) {
    const char *device, *threads, *seed;
    int used = 1, choice = 0;
    int64_t number = 0;
    SER_TRY(common_value("--device", i, *argc, argv, &device, &used, err));
    SER_TRY(common_value("--threads", i, *argc, argv, &threads, &used, err));
    SER_TRY(common_value("--seed", i, *argc, argv, &seed, &used, err));
    if (device && common->device_given) return given_twice("--device", err);
    if (threads && common->threads_given) return given_twice("--threads", err);
    if (seed && common->seed >= 0) return given_twice("--seed", err);
    if (device) {
      SER_TRY(ser_option_choice(&choice, "--device", device, devices, err));
      common->device.kind = (ser_device_kind)choice;
      common->device_given = true;
    } else if (threads) {
      SER_TRY(ser_option_integer(&number, "--threads", threads, 0, 4096, err));
      common->device.threads = (int)number;
      common->threads_given = true;
    } else if (seed) {
      SER_TRY(ser_option_integer(&common->seed, "--seed", seed, 0, INT64_C(9007199254740991), err));
    } else {
      size_t which = 0;
      const char *rest = NULL;
      while (which < sizeof flags / sizeof *flags && !(rest = behind(argv[i], &flags[which]))) which++;
      if (rest)
        SER_TRY(take(&flags[which], rest, NULL, &used, err));
      else
        argv[kept++] = argv[i];
    }
    i += used - 1;
  }
  for (; i < *argc; i++) argv[kept++] = argv[i];
  *argc = kept;
  return SER_OK;
}
