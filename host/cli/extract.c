/* `serenade extract`: computes what a cache of features lacks for a manifest. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/counts.h"
#include "cli/stages.h"

/* Comma-separated names of features; wanted [2] by ser_feature_kind. */
static ser_status parse_features(bool wanted[2], const char *list, ser_error *err) {
  static const char *const names[] = {"mfcc39", "timnet", NULL};
  if (strstr(list, "wav2vec2"))
    return ser_fail(err, SER_USAGE, "--features wav2vec2: this version has no Wav2Vec2; name mfcc39 or timnet");
  return ser_option_choices(wanted, "--features", list, names, err);
}

static ser_status extract_all(ser_config *config, const char *manifest_path, const bool wanted[2], bool *partial,
                              ser_error *err) {
  ser_manifest manifest;
  ser_status status = SER_OK;
  ser_manifest_init(&manifest);
  SER_TRY_DONE(ser_manifest_read(&manifest, manifest_path, err));
  *partial = cli_name_refused(&manifest) > 0;
  if (wanted[0] && wanted[1]) SER_TRY_DONE(cli_settle_device(config, err)); /* each opens a device of its own */
  for (int kind = 0; kind < 2; kind++) {
    ser_text said = {0};
    if (!wanted[kind]) continue;
    status = cli_extract(config, (ser_feature_kind)kind, config->cache_dir, &manifest, &said, partial, err);
    if (said.data) printf("%s\n", said.data);
    free(said.data);
    if (status != SER_OK) break;
  }
done:
  ser_manifest_free(&manifest);
  return status;
}

static ser_status run(const ser_common *common, int argc, char **argv, ser_error *err) {
  const char *features = NULL, *cache = NULL, *jobs = NULL, *file = NULL, **sets = NULL;
  size_t set_count = 0;
  const ser_option table[] = {{.name = "--features", .value = &features},
                              {.name = "--cache", .value = &cache},
                              {.name = "--jobs", .value = &jobs},
                              {.name = "--config", .value = &file},
                              {.name = "--set", .list = &sets, .list_count = &set_count}};
  ser_config config = {0};
  bool wanted[2] = {false, false}, partial = false;
  ser_status status = SER_OK;
  SER_TRY_DONE(ser_options_parse(&argc, argv, table, sizeof table / sizeof *table, err));
  SER_TRY_DONE(ser_options_count(argc, argv, 1, 1, "the manifest", err));
  SER_TRY_DONE(ser_settings(&config, file, sets, set_count, common, err));
  if (jobs) SER_TRY_DONE(ser_option_integer(&config.jobs, "--jobs", jobs, 0, 4096, err));
  if (features)
    SER_TRY_DONE(parse_features(wanted, features, err));
  else
    wanted[config.features.kind] = true;
  if (cache) {
    free(config.cache_dir);
    config.cache_dir = ser_strdup(cache);
  }
  if (!*config.cache_dir) {
    status = ser_fail(err, SER_USAGE, "extract: the cache is not named; write --cache DIR");
    goto done;
  }
  SER_TRY_DONE(extract_all(&config, argv[1], wanted, &partial, err));
  if (partial) status = SER_PARTIAL;
done:
  ser_config_free(&config);
  free(sets);
  return status;
}

const ser_command ser_command_extract = {
    "extract",
    "compute the features that a cache lacks",
    "usage: serenade extract manifest.csv --cache DIR [options]\n"
    "\n"
    "Computes features of the manifest's usable recordings, in a cache. Interrupted or repeated, it goes on where it\n"
    "stood, without reading audio again. Several at once on one cache do no harm, but share no work.\n"
    "\n"
    "  --features LIST   mfcc39, timnet, or both with a comma between (features.kind)\n"
    "  --cache DIR       folder of the cache (cache.dir)\n"
    "  --jobs N          decode workers; 0: all cores\n"
    "  --config FILE     a configuration, for the features' parameters\n"
    "  --set KEY=VALUE   one key of it; may be repeated\n"
    "\n"
    "Example:\n"
    "  serenade extract manifest.csv --features mfcc39 --cache cache\n",
    run,
    "what was computed is kept; run the same command to go on",
    CLI_DEVICE | CLI_THREADS};
