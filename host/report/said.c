/* The figures that evaluate prints, read off the reports themselves: so they are the same whether the reports were
 * written now or stood there before. */
#include "report/report.h"

#include <jansson.h>
#include <stdlib.h>

#include "base/file.h"
#include "train/train.h"

static double percent(const json_t *figures, const char *key) {
  return 100 * json_number_value(json_object_get(figures, key));
}

/* The mean over folds or seeds, where the report has it. */
static void say_spread(ser_text *said, const json_t *report, const char *what) {
  const json_t *spread = json_object_get(report, what), *mean = json_object_get(spread, "mean"),
               *deviation = json_object_get(spread, "deviation");
  if (!spread) return;
  ser_text_printf(said,
                  "mean of %zu %s: WAR %.2f%% (deviation %.2f), UAR %.2f%% (deviation %.2f), macro F1 %.2f%% "
                  "(deviation %.2f)\n",
                  json_object_size(json_object_get(spread, "each")), what, percent(mean, "war"),
                  percent(deviation, "war"), percent(mean, "uar"), percent(deviation, "uar"), percent(mean, "macro_f1"),
                  percent(deviation, "macro_f1"));
}

ser_status ser_report_say(ser_text *said, const char *folder, ser_error *err) {
  char *path = ser_path_join(folder, "report.json");
  json_error_t error;
  json_t *report = json_load_file(path, 0, &error);
  ser_status status = SER_OK;
  if (!report) {
    status = ser_fail(err, SER_FAILED, "%s cannot be read: %s; evaluate the run again, which writes it anew", path,
                      error.text);
  } else {
    const char *title = json_string_value(json_object_get(report, "title"));
    json_int_t clips = json_integer_value(json_object_get(report, "clips")),
               answers = json_integer_value(json_object_get(report, "answers"));
    char *several = answers > clips ? ser_format("%lld answers for ", (long long)answers) : ser_strdup("");
    ser_text_line(said, "%s: WAR %.2f%%, UAR %.2f%%, macro F1 %.2f%% (%s%lld %s)", title ? title : folder,
                  percent(report, "war"), percent(report, "uar"), percent(report, "macro_f1"), several,
                  (long long)clips, SER_PLURAL(clips, "clip", "clips"));
    free(several);
    say_spread(said, report, json_object_get(report, "seeds") ? "seeds" : "folds");
  }
  json_decref(report);
  free(path);
  return status;
}

/* How many folds the reports of a seed stand for: 1 where there are no folders of folds. */
static int folds_of(const char *run_folder, int64_t seed) {
  int folds = 0;
  for (bool there = true; there; folds += there) {
    char *path = ser_format("%s/seed-%lld/fold-%d/report.json", run_folder, (long long)seed, folds);
    there = ser_file_exists(path);
    free(path);
  }
  return folds > 1 ? folds : 1;
}

ser_status ser_evaluate_said(ser_text *said, const char *run_folder, ser_error *err) {
  ser_config config;
  ser_run_parts parts = {0};
  ser_config_init(&config);
  char *path = ser_path_join(run_folder, "config.yaml");
  ser_status status = ser_config_read(&config, path, err);
  free(path);
  if (status == SER_OK) {
    int64_t seeds = config.train.seeds.count;
    int folds = folds_of(run_folder, config.train.seeds.values[0]);
    ser_run_parts_make(&parts, &config, run_folder, folds);
    for (size_t i = 0; i < parts.count && status == SER_OK; i++) status = ser_report_say(said, parts.folders[i], err);
    for (int64_t s = 0; s < seeds && seeds > 1 && folds > 1 && status == SER_OK; s++) {
      char *folder = ser_format("%s/seed-%lld", run_folder, (long long)config.train.seeds.values[s]);
      status = ser_report_say(said, folder, err);
      free(folder);
    }
    if (parts.count > 1 && status == SER_OK) status = ser_report_say(said, run_folder, err);
  }
  ser_run_parts_free(&parts);
  ser_config_free(&config);
  return status;
}
