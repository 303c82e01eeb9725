/* `serenade cache`: upkeep of a cache of features. */
#include <stdio.h>
#include <stdlib.h>

#include "cache/cache.h"
#include "cli/cli.h"
#include "features/features.h"

static ser_status run(const ser_common *common, int argc, char **argv, ser_error *err) {
  (void)common;
  static const char *const verbs[] = {"verify", "merge", "gc", NULL};
  int verb = 0;
  ser_text report = {0};
  SER_TRY(ser_options_parse(&argc, argv, NULL, 0, err));
  SER_TRY(ser_options_count(argc, argv, 1, -1, "verify, merge or gc", err));
  SER_TRY(ser_option_choice(&verb, "what 'serenade cache' does", argv[1], verbs, err));
  if (verb == 1)
    SER_TRY(ser_options_count(argc, argv, 3, 3, "one of the two folders, INTO and FROM,", err));
  else
    SER_TRY(ser_options_count(argc, argv, 2, 2, "the folder of the cache", err));
  ser_status status = verb == 0   ? ser_cache_verify(argv[2], ser_feature_cache_columns, &report, err)
                      : verb == 1 ? ser_cache_merge(argv[2], argv[3], ser_feature_cache_columns, &report, err)
                                  : ser_cache_gc(argv[2], ser_feature_cache_columns, &report, err);
  ser_status printed = cli_print(&report, status == SER_OK ? err : NULL);
  if (status == SER_OK) status = printed;
  free(report.data);
  return status;
}

const ser_command ser_command_cache = {
    "cache",
    "verify, merge or compact a cache of features",
    "usage: serenade cache verify DIR\n"
    "       serenade cache merge INTO FROM\n"
    "       serenade cache gc DIR\n"
    "\n"
    "  verify   rehash every shard against its name; damaged ones go to quarantine, and extract computes them anew\n"
    "  merge    link or copy what FROM holds into INTO\n"
    "  gc       rewrite small shards as few, remove what stands twice, what dead processes left and what stands in\n"
    "           quarantine; other commands may work on the cache meanwhile, but no second gc\n"
    "\n"
    "Example:\n"
    "  serenade cache verify cache\n",
    run,
    "nothing is lost; run the same command to go on",
    0};
