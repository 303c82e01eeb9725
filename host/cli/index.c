/* `serenade index`: from folders of recordings to a manifest. */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/counts.h"

static bool is_plain(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static ser_status index_into(const char *output, const ser_index_options *options, bool *partial, ser_error *err) {
  ser_manifest manifest, before;
  ser_index_summary summary = {0};
  ser_text table = {0};
  bool known = is_plain(output);
  ser_status status = SER_OK;
  ser_manifest_init(&manifest);
  ser_manifest_init(&before);
  if (known) SER_TRY_DONE(ser_manifest_read(&before, output, err));
  SER_TRY_DONE(ser_index(&manifest, &summary, options, known ? &before : NULL, err));
  SER_TRY_DONE(ser_manifest_write(&manifest, output, err));
  if (options->keep) ser_index_done(options->keep);
  cli_counts_text(&table, &manifest);
  fputs(table.data, stdout);
  ser_info_lines(summary.notes.data);
  ser_info("%s: %zu %s, %zu hashed now", output, manifest.count, SER_PLURAL(manifest.count, "recording", "recordings"),
           summary.hashed);
  *partial = cli_name_refused(&manifest) > 0;
done:
  free(table.data);
  free(summary.notes.data);
  ser_manifest_free(&manifest);
  ser_manifest_free(&before);
  return status;
}

static ser_status run(const ser_common *common, int argc, char **argv, ser_error *err) {
  (void)common;
  ser_index_options options = {.emotions = 6, .keep_every = 5};
  const char *output = NULL, *emotions = NULL, *jobs = NULL;
  const ser_option table[] = {
      {.name = "--ravdess", .value = &options.ravdess}, {.name = "--cremad", .value = &options.cremad},
      {.name = "--tess", .value = &options.tess},       {.name = "--savee", .value = &options.savee},
      {.name = "--csv", .value = &options.csv},         {.name = "--emotions", .value = &emotions},
      {.name = "--rehash", .flag = &options.rehash},    {.name = "--jobs", .value = &jobs},
      {.name = "--output", .value = &output},           {.name = "-o", .value = &output},
  };
  int64_t workers = 0;
  bool partial = false;
  SER_TRY(ser_options_parse(&argc, argv, table, sizeof table / sizeof *table, err));
  SER_TRY(ser_options_count(argc, argv, 0, 0, "nothing", err));
  if (!output) return ser_fail(err, SER_USAGE, "index: -o is missing; write -o manifest.csv");
  if (!options.ravdess && !options.cremad && !options.tess && !options.savee && !options.csv)
    return ser_fail(err, SER_USAGE, "index: no corpus is named; give --ravdess, --cremad, --tess, --savee or --csv");
  if (emotions) SER_TRY(ser_option_integer(&options.emotions, "--emotions", emotions, 6, 8, err));
  if (options.emotions == 7) return ser_fail(err, SER_USAGE, "--emotions is '7', but it must be 6 or 8");
  if (jobs) SER_TRY(ser_option_integer(&workers, "--jobs", jobs, 0, 4096, err));
  SER_TRY(ser_output_check(output, "-o", err));
  if (options.csv && ser_same_file(output, options.csv))
    return ser_fail(err, SER_USAGE, "-o %s is the file of --csv itself; name another", output);
  options.jobs = cli_jobs(workers);
  options.keep = !ser_file_exists(output) || is_plain(output) ? output : NULL; /* beside a pipe nothing is kept */
  SER_TRY(index_into(output, &options, &partial, err));
  return partial ? SER_PARTIAL : SER_OK;
}

const ser_command ser_command_index = {
    "index", "list recordings of corpora into a manifest",
    "usage: serenade index [options] -o manifest.csv\n"
    "\n"
    "Lists the recordings below the folders that are named, reads their headers and hashes their bytes. A manifest "
    "that\n"
    "is there already is brought up to date: what it knows of files of the same size and time is trusted.\n"
    "\n"
    "  --ravdess DIR, --cremad DIR, --tess DIR, --savee DIR\n"
    "                      a corpus, or a folder above it\n"
    "  --csv FILE          recordings of your own: columns path, emotion, and optionally speaker, corpus, sex and "
    "others\n"
    "  --emotions 6|8      8: calm and surprised too (6)\n"
    "  --rehash            hash every file again\n"
    "  --jobs N            workers; 0: all cores\n"
    "  -o, --output FILE   the manifest\n"
    "\n"
    "Example:\n"
    "  serenade index --ravdess data/RAVDESS --tess data/TESS -o manifest.csv\n",
    run, "what was hashed is kept; run the same command to go on"};
