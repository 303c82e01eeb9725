/* The program: common options, the table of subcommands, exit codes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/interrupt.h"
#include "base/log.h"
#include "base/nearest.h"
#include "base/version.h"
#include "cli/cli.h"

static const ser_command *const commands[] = {
    &ser_command_index,   &ser_command_audit, &ser_command_extract, &ser_command_train, &ser_command_evaluate,
    &ser_command_predict, &ser_command_run,   &ser_command_bench,   &ser_command_info,  &ser_command_cache,
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static const struct {
  unsigned bit; /* of ser_command.takes; 0: every command's */
  const char *name, *help;
} common_options[] = {
    {CLI_DEVICE, "--device", "  --device auto|cpu|cuda  where to compute (auto: a GPU where there is one)\n"},
    {CLI_THREADS, "--threads", "  --threads N             compute threads; 0: all cores\n"},
    {CLI_SEED, "--seed", "  --seed N                seed of the training, in place of train.seeds\n"},
    {0, "--quiet",
     "  -q, --quiet             no messages but warnings and errors\n"
     "  -h, --help, --version   this text; build and libraries\n"},
};
enum { COMMON = sizeof common_options / sizeof *common_options };

static void print_common(FILE *out, unsigned takes) {
  for (size_t i = 0; i < COMMON; i++)
    if (!common_options[i].bit || common_options[i].bit & takes) fputs(common_options[i].help, out);
}

/* A common option that the command would not look at is none of its own. */
static ser_status check_common(const ser_command *command, const ser_common *common, ser_error *err) {
  unsigned given = (common->device_given ? CLI_DEVICE : 0) | (common->threads_given ? CLI_THREADS : 0) |
                   (common->seed >= 0 ? CLI_SEED : 0);
  for (size_t i = 0; i < COMMON; i++)
    if (given & ~command->takes & common_options[i].bit)
      return ser_fail(err, SER_USAGE, "%s: there is no option %s here; take it out (see serenade %s --help)",
                      command->name, common_options[i].name, command->name);
  return SER_OK;
}

static void print_help(FILE *out) {
  fprintf(out,
          "serenade %s: from folders of emotional speech to a classifier, and from speech to emotions\n\n"
          "usage: serenade COMMAND [options]\n\nCommands:\n",
          SER_VERSION);
  for (size_t i = 0; i < COMMANDS; i++) fprintf(out, "  %-9s %s\n", commands[i]->name, commands[i]->summary);
  fputs("\nOptions of all commands that have a use for them:\n", out);
  print_common(out, CLI_DEVICE | CLI_THREADS | CLI_SEED);
  fputs("\nserenade COMMAND --help shows the options of a command and an example; those of index, audit, extract, "
        "train,\n"
        "evaluate and predict follow one another, from folders of recordings to answers.\n"
        "Exit status: 0 done; 1 failed; 2 wrong usage; 3 done, but some inputs could not be used.\n",
        out);
}

static const ser_command *find_command(const char *name, ser_error *err) {
  const char *best = commands[0]->name;
  ser_text list = {0};
  for (size_t i = 0; i < COMMANDS; i++)
    if (!strcmp(commands[i]->name, name)) return commands[i];
  for (size_t i = 0; i < COMMANDS; i++) {
    ser_text_printf(&list, "%s%s", i ? ", " : "", commands[i]->name);
    if (ser_edit_distance(name, commands[i]->name) < ser_edit_distance(name, best)) best = commands[i]->name;
  }
  bool near = ser_is_near(name, best);
  ser_fail(err, SER_USAGE, "there is no command '%s'; %s %s (see serenade --help)", name,
           near ? "the nearest is" : "there are", near ? best : list.data);
  free(list.data);
  return NULL;
}

static ser_status print_version(ser_error *err) {
  ser_text text = {0};
  ser_status status = ser_version_text(&text, err);
  if (status == SER_OK) status = cli_print(&text, err);
  free(text.data);
  return status;
}

static ser_status dispatch(int argc, char **argv, ser_error *err) {
  ser_common common = {.seed = -1};
  ser_asked asked = {0};
  SER_TRY(ser_options_common(&common, &asked, &argc, argv, err));
  ser_log_set_quiet(common.quiet);
  if (asked.version) return print_version(err);
  if (argc < 2) {
    print_help(asked.help ? stdout : stderr);
    return asked.help ? SER_OK : ser_fail(err, SER_USAGE, "no command is given; name one of those above");
  }
  static char none[] = "";
  argv[0] = none; /* no command's options */
  if (argv[1][0] == '-') return ser_options_parse(&argc, argv, NULL, 0, err);
  const ser_command *command = find_command(argv[1], err);
  if (!command) return SER_USAGE;
  if (asked.help) {
    fputs(command->usage, stdout);
    fputs("\nOptions of other commands too:\n", stdout);
    print_common(stdout, command->takes);
    return SER_OK;
  }
  SER_TRY(check_common(command, &common, err));
  ser_status status = command->run(&common, argc - 1, argv + 1, err);
  if ((status == SER_INTERRUPTED || (status == SER_FAILED && err->of_device)) && command->interrupted) {
    ser_error stop = *err;
    ser_fail(err, status, "%s; %s", stop.text, command->interrupted);
  }
  return status;
}

/* Files that we open must not land on the numbers of the standard streams. A stdout that is closed stays unwritable, so
 * that it is told. */
static void guard_streams(void) {
  for (int fd = 0; fd < 3; fd++)
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", fd == 2 ? O_WRONLY : O_RDONLY) < 0) _exit(1);
}

int main(int argc, char **argv) {
  ser_error err = {0};
  guard_streams();
  ser_interrupt_install();
  ser_status status = cli_finish_stdout(dispatch(argc, argv, &err), &err);
  if (status != SER_OK && *err.text) ser_complain("%s", err.text);
  return ser_exit_code(status);
}
