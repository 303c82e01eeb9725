/* `serenade run`: index, audit, extract, train, evaluate, each where it is not done yet. */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/stages.h"

static ser_status run_all(const ser_config *config, const char *folder, bool *partial, ser_error *err) {
  cli_run run;
  SER_TRY(cli_run_open(&run, folder, config, NULL, err));
  ser_status status = cli_train(&run, config, NULL, true, partial, err);
  if (status == SER_OK) status = cli_evaluate(&run, config, partial, err);
  cli_run_close(&run);
  if (status != SER_OK) return status;
  char *report = ser_path_join(folder, "report.txt");
  ser_info("done: %s", report);
  free(report);
  return SER_OK;
}

static ser_status run(const ser_common *common, int argc, char **argv, ser_error *err) {
  const char *output = NULL, **sets = NULL;
  size_t set_count = 0;
  bool partial = false;
  const ser_option table[] = {{.name = "--set", .list = &sets, .list_count = &set_count},
                              {.name = "--output", .value = &output},
                              {.name = "-o", .value = &output}};
  ser_config config = {0};
  ser_status status = SER_OK;
  SER_TRY_DONE(ser_options_parse(&argc, argv, table, sizeof table / sizeof *table, err));
  SER_TRY_DONE(ser_options_count(argc, argv, 1, 1, "the configuration", err));
  if (!output) {
    status = ser_fail(err, SER_USAGE, "run: -o is missing; write -o RUN, the folder of the results");
    goto done;
  }
  SER_TRY_DONE(ser_settings(&config, argv[1], sets, set_count, common, err));
  SER_TRY_DONE(cli_need_corpus(&config, err));
  SER_TRY_DONE(cli_can_begin(&config, err));
  SER_TRY_DONE(run_all(&config, output, &partial, err));
  if (partial) status = SER_PARTIAL;
done:
  ser_config_free(&config);
  free(sets);
  return status;
}

const ser_command ser_command_run = {
    "run",
    "the whole path: index, audit, extract, train, evaluate",
    "usage: serenade run config.yaml [options] -o RUN\n"
    "\n"
    "Does what is not done yet and says of each stage which it was. After a change of settings only what depends on "
    "them\n"
    "is done anew; results of the old settings are kept in RUN/earlier and come back when the settings do.\n"
    "\n"
    "  --set KEY=VALUE     one key of the configuration; may be repeated ('serenade info config' lists them)\n"
    "  -o, --output RUN    the folder of the results\n"
    "\n"
    "Example:\n"
    "  serenade run configs/reference.yaml --set corpora.ravdess=data/RAVDESS --set corpora.tess=data/TESS -o "
    "runs/second\n",
    run,
    "what was finished is kept; run the same command to go on",
    CLI_DEVICE | CLI_THREADS | CLI_SEED};
