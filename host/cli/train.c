/* `serenade train`: from a configuration to a trained model. */
#include <stdlib.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/stages.h"

static ser_status train(const ser_config *config, const char *folder, const char *manifest, bool resume, bool *partial,
                        ser_error *err) {
  cli_run run;
  bool fresh = false;
  SER_TRY(cli_run_open(&run, folder, config, &fresh, err));
  ser_status status = SER_OK;
  if (!fresh && !resume)
    status = ser_fail(err, SER_USAGE, "%s holds a run already; add --resume to go on with it, or name another folder",
                      folder);
  if (status == SER_OK) status = cli_train(&run, config, manifest, false, partial, err);
  cli_run_close(&run);
  if (status != SER_OK) return status;
  char *quoted = ser_quoted(folder);
  ser_info("trained: %s; to see how well it does: serenade evaluate %s", folder, quoted);
  free(quoted);
  return SER_OK;
}

static ser_status run(const ser_common *common, int argc, char **argv, ser_error *err) {
  const char *output = NULL, *manifest = NULL, **sets = NULL;
  size_t set_count = 0;
  bool resume = false, partial = false;
  const ser_option table[] = {{.name = "--set", .list = &sets, .list_count = &set_count},
                              {.name = "--manifest", .value = &manifest},
                              {.name = "--resume", .flag = &resume},
                              {.name = "--output", .value = &output},
                              {.name = "-o", .value = &output}};
  ser_config config = {0};
  ser_status status = SER_OK;
  SER_TRY_DONE(ser_options_parse(&argc, argv, table, sizeof table / sizeof *table, err));
  SER_TRY_DONE(ser_options_count(argc, argv, 1, 1, "the configuration", err));
  if (!output) {
    status = ser_fail(err, SER_USAGE, "train: -o is missing; write -o RUN, the folder of the results");
    goto done;
  }
  SER_TRY_DONE(ser_settings(&config, argv[1], sets, set_count, common, err));
  if (!manifest) SER_TRY_DONE(cli_need_corpus(&config, err));
  SER_TRY_DONE(cli_can_begin(&config, err));
  SER_TRY_DONE(train(&config, output, manifest, resume, &partial, err));
  if (partial) status = SER_PARTIAL;
done:
  ser_config_free(&config);
  free(sets);
  return status;
}

const ser_command ser_command_train = {
    "train",
    "train a model from a configuration",
    "usage: serenade train config.yaml [options] -o RUN\n"
    "\n"
    "Lists and audits the corpora that the configuration names (or takes a manifest), extracts what is missing, "
    "splits,\n"
    "and trains each seed and fold. RUN then holds the model, its history, the split and the resolved configuration.\n"
    "\n"
    "  --set KEY=VALUE     one key of the configuration; may be repeated ('serenade info config' lists them)\n"
    "  --manifest FILE     recordings of this manifest, as it stands, in place of the corpora\n"
    "  --resume            go on with a RUN that is there\n"
    "  -o, --output RUN    the folder of the results\n"
    "\n"
    "Example:\n"
    "  serenade train configs/reference.yaml --manifest manifest.csv --set cache.dir=cache -o runs/first\n",
    run,
    "what was finished is kept; run the same command with --resume to go on",
    CLI_DEVICE | CLI_THREADS | CLI_SEED};
