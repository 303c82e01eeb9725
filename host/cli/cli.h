/* The command line: one file a subcommand; these print and parse, nothing else. */
#ifndef SER_CLI_CLI_H
#define SER_CLI_CLI_H

#include "base/config.h"
#include "base/status.h"

/* Options that are understood wherever they make sense. */
typedef struct {
  ser_device_options device;
  int64_t seed; /* -1: not given */
  bool device_given, threads_given, quiet;
} ser_common;

/* Which of the common options a command has a use for; --quiet and --help are everybody's. */
enum { CLI_DEVICE = 1, CLI_THREADS = 2, CLI_SEED = 4 };

typedef struct {
  const char *name, *summary;
  const char *usage; /* --help: usage, options, an example */
  ser_status (*run)(const ser_common *common, int argc, char **argv, ser_error *err); /* argv[0] is the name */
  const char *interrupted; /* what a signal left, and what to type then; NULL where nothing is begun */
  unsigned takes;          /* CLI_DEVICE and so on */
} ser_command;

extern const ser_command ser_command_index, ser_command_audit, ser_command_extract, ser_command_train,
    ser_command_evaluate, ser_command_predict, ser_command_run, ser_command_bench, ser_command_info, ser_command_cache;

/* One option of a subcommand: "--name VALUE" or "--name=VALUE"; a flag where value is NULL. */
typedef struct {
  const char *name; /* "--jobs" or "-o" */
  const char **value;
  bool *flag;
  const char ***list; /* may be repeated: grows; count in list_count */
  size_t *list_count;
} ser_option;

/* Takes options out of argv, leaves the others (positional, `--` ends options) in order; argc is updated. Unknown
 * options are SER_USAGE naming the nearest. A value that stands apart may not begin with a dash, but for "-" and
 * numbers. One that is given twice is refused, but for a list. */
ser_status ser_options_parse(int *argc, char **argv, const ser_option *options, size_t count, ser_error *err);
/* A whole number in a range, or SER_USAGE naming the option. */
ser_status ser_option_integer(int64_t *out, const char *name, const char *text, int64_t least, int64_t most,
                              ser_error *err);
/* One of the words (NULL ends them): its number, or SER_USAGE naming the option and the nearest word. */
ser_status ser_option_choice(int *out, const char *name, const char *text, const char *const *words, ser_error *err);
/* Several of them with commas between: sets taken[the word's number] of each. */
ser_status ser_option_choices(bool *taken, const char *name, const char *list, const char *const *words,
                              ser_error *err);
/* What ser_options_parse left: between least and most arguments (most -1: any number), else SER_USAGE saying what. */
ser_status ser_options_count(int argc, char **argv, int least, int most, const char *what, ser_error *err);

/* Takes --device, --threads, --seed, --quiet, --help and --version out of argv, wherever they stand before "--". */
typedef struct {
  bool help, version;
} ser_asked;
ser_status ser_options_common(ser_common *common, ser_asked *asked, int *argc, char **argv, ser_error *err);

/* The configuration of a command (settings.c): the defaults, the file (or NULL), each --set, then --device, --threads
 * and --seed (train.seeds); folders and files made absolute; checked. `config` is initialised whatever comes of it. */
ser_status ser_settings(ser_config *config, const char *path, const char *const *sets, size_t count,
                        const ser_common *common, ser_error *err);

/* Results to stdout (output.c). What did not get there is SER_FAILED, with the reason. */
ser_status cli_print(const ser_text *text, ser_error *err);
/* The same of what is still on its way at the end of a job that came to `status`. */
ser_status cli_finish_stdout(ser_status status, ser_error *err);

/* `serenade --version` (version.c). */
ser_status ser_version_text(ser_text *text, ser_error *err);

#endif
