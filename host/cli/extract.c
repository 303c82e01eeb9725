/* `serenade extract`: computes what a cache of features lacks for a manifest. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/counts.h"
#include "cli/stages.h"

/* Comma-separated names of features; wanted by ser_feature_kind. */
static ser_status parse_features(bool wanted[SER_FEATURES], const char *list, ser_error *err) {
  static const char *const names[] = {"mfcc39", "timnet", "wav2vec2", NULL};
  return ser_option_choices(wanted, "--features", list, names, err);
}

static ser_status extract_all(ser_config *config, const char *manifest_path, const bool wanted[SER_FEATURES],
                              bool *partial, ser_error *err) {
  ser_manifest manifest;
  ser_text said = {0};
  ser_status status = SER_OK;
  ser_manifest_init(&manifest);
  SER_TRY_DONE(ser_manifest_read(&manifest, manifest_path, err));
  *partial = cli_name_refused(&manifest) > 0;
  status = cli_extract(config, wanted, config->cache_dir, &manifest, &said, partial, err);
  if (said.data) printf("%s\n", said.data);
done:
  free(said.data);
  ser_manifest_free(&manifest);
  return status;
}

static ser_status run(const ser_common *common, int argc, char **argv, ser_error *err) {
  const char *features = NULL, *cache = NULL, *jobs = NULL, *weights = NULL, *file = NULL, **sets = NULL;
  size_t set_count = 0;
  const ser_option table[] = {
      {.name = "--features", .value = &features}, {.name = "--cache", .value = &cache},
      {.name = "--weights", .value = &weights},   {.name = "--jobs", .value = &jobs},
      {.name = "--config", .value = &file},       {.name = "--set", .list = &sets, .list_count = &set_count}};
  ser_config config = {0};
  bool wanted[SER_FEATURES] = {false}, partial = false;
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
  if (weights) {
    free(config.wav2vec2.weights);
    config.wav2vec2.weights = ser_strdup(weights);
    ser_config_came_from(&config, "wav2vec2.weights", "--weights");
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
    "  --features LIST   mfcc39, timnet, wav2vec2, or several with commas between (features.kind): each recording is\n"
    "                    read once for all\n"
    "  --weights DIR     of a wav2vec2 or HuBERT encoder, with its config.json (wav2vec2.weights)\n"
    "  --cache DIR       folder of the cache (cache.dir)\n"
    "  --jobs N          decode workers; 0: all cores\n"
    "  --config FILE     a configuration, for the features' parameters\n"
    "  --set KEY=VALUE   one key of it; may be repeated\n"
    "\n"
    "Example:\n"
    "  serenade extract manifest.csv --features mfcc39 --cache cache\n"
    "  serenade extract manifest.csv --features mfcc39,wav2vec2 --weights weights/wav2vec2-base --cache cache\n",
    run,
    "what was computed is kept; run the same command to go on",
    CLI_DEVICE | CLI_THREADS};
