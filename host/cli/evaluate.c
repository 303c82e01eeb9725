/* `serenade evaluate`: how well a finished run recognises its test part, or other recordings. */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "report/report.h"

static ser_status run(const ser_common *common, int argc, char **argv, ser_error *err) {
  const char *manifest = NULL;
  const ser_option table[] = {{.name = "--manifest", .value = &manifest}};
  SER_TRY(ser_options_parse(&argc, argv, table, sizeof table / sizeof *table, err));
  SER_TRY(ser_options_count(argc, argv, 1, 1, "the run folder", err));
  ser_text said = {0};
  bool partial = false;
  ser_status status = ser_evaluate_job(argv[1], manifest, &common->device, &said, &partial, err);
  if (status == SER_OK) status = cli_print(&said, err);
  free(said.data);
  return status == SER_OK && partial ? SER_PARTIAL : status;
}

const ser_command ser_command_evaluate = {
    "evaluate",
    "test a finished run, and write its reports",
    "usage: serenade evaluate RUN [options]\n"
    "\n"
    "Answers the test part of each seed and fold with its model and writes report.txt, report.json, predictions.csv,\n"
    "confusion.png and confusion.svg beside it; of several folds or seeds the pooled figures and their means go into\n"
    "RUN. Features that the cache lacks are extracted first.\n"
    "\n"
    "  --manifest FILE   every usable recording of this manifest instead; the reports go into RUN/evaluate-NAME,\n"
    "                    NAME being the file's name without its suffix (NAME-2 and so on where reports of another\n"
    "                    manifest of that name are there)\n"
    "\n"
    "Example:\n"
    "  serenade evaluate runs/first\n",
    run,
    "reports are written at the end; run the same command again",
    CLI_DEVICE | CLI_THREADS};
