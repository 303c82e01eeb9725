/* The command line: one file a subcommand; these print and parse, nothing else. */
#ifndef SER_CLI_CLI_H
#define SER_CLI_CLI_H

#include "base/config.h"
#include "base/status.h"

/* Options that are understood wherever they make sense. */
typedef struct {
  ser_device_kind device;
  int threads;  /* 0: all cores */
  int64_t seed; /* -1: not given */
  bool device_given, threads_given, quiet;
} ser_common;

typedef struct {
  const char *name, *summary;
  const char *usage; /* --help: usage, options, an example */
  ser_status (*run)(const ser_common *common, int argc, char **argv, ser_error *err); /* argv[0] is the name */
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
 * options are SER_USAGE naming the nearest. */
ser_status ser_options_parse(int *argc, char **argv, const ser_option *options, size_t count, ser_error *err);
/* A whole number in a range, or SER_USAGE naming the option. */
ser_status ser_option_integer(int64_t *out, const char *name, const char *text, int64_t least, int64_t most,
                              ser_error *err);

#endif
