/* The configuration that a command works with: file, --set, common options. */
#include <stdlib.h>

#include "base/file.h"
#include "cli/cli.h"

/* What a run folder remembers must not depend on where the command was typed. */
static ser_status make_absolute(char **path, ser_error *err) {
  if (!**path) return SER_OK;
  char *absolute = ser_path_absolute(*path);
  free(*path);
  *path = absolute;
  if (ser_is_utf8(absolute)) return SER_OK;
  return ser_fail(err, SER_USAGE,
                  "the path %s is not UTF-8, so config.yaml cannot hold it; rename the folder, or link to it "
                  "under another name",
                  absolute);
}

ser_status ser_settings(ser_config *config, const char *path, const char *const *sets, size_t count,
                        const ser_common *common, ser_error *err) {
  ser_config_init(config);
  if (path) SER_TRY(ser_config_read(config, path, err));
  for (size_t i = 0; i < count; i++) SER_TRY(ser_config_set(config, sets[i], err));
  if (common->device_given) {
    config->device = common->device.kind;
    ser_config_came_from(config, "device", config->device == SER_DEVICE_CUDA ? "--device cuda" : "--device");
  }
  if (common->threads_given) {
    config->threads = common->device.threads;
    ser_config_came_from(config, "threads", "--threads");
  }
  if (common->seed >= 0) {
    ser_config_came_from(config, "train.seeds", "--seed");
    config->train.seeds.count = 1;
    config->train.seeds.values = ser_realloc(config->train.seeds.values, sizeof(int64_t));
    config->train.seeds.values[0] = common->seed;
  }
  for (int i = 0; i < SER_CORPORA; i++) SER_TRY(make_absolute(&config->corpora[i], err));
  SER_TRY(make_absolute(&config->cache_dir, err));
  SER_TRY(make_absolute(&config->split.file, err));
  return ser_config_check(config, err);
}
