/* `serenade index`: from folders of recordings to a manifest. */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/counts.h"

static ser_status index_into(const char *output, const ser_index_options *options, bool *partial, ser_error *err) {
  ser_manifest manifest, before;
  ser_index_summary summary = {0};
  ser_text table = {0};
  bool known = ser_file_replaced(output);
  ser_status status = SER_OK;
  ser_manifest_init(&manifest);
  ser_manifest_init(&before);
  if (known) SER_TRY_DONE(ser_manifest_read(&before, output, err));
  SER_TRY_DONE(ser_index(&manifest, &summary, options, known ? &before : NULL, err));
  SER_TRY_DONE(ser_manifest_write(&manifest, output, err));
  if (options->keep) ser_index_done(options->keep);
  cli_counts_text(&table, &manifest);
  SER_TRY_DONE(cli_print(&table, err));
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

static ser_status need_corpus(const ser_index_options *options, ser_error *err) {
  for (int i = 0; i < SER_CORPORA; i++)
    if (options->roots[i] && *options->roots[i]) return SER_OK;
  char *names = ser_corpus_list("--");
  ser_fail(err, SER_USAGE, "index: no corpus is named; give %s", names);
  free(names);
  return SER_USAGE;
}

static ser_status run(const ser_common *common, int argc, char **argv, ser_error *err) {
  static const char *const counts[] = {"6", "8", NULL};
  ser_index_options options = {.keep_every = 5};
  int chosen = 0;
  const char *output = NULL, *emotions = NULL, *jobs = NULL;
  char names[SER_CORPORA][16];
  ser_option table[5 + SER_CORPORA] = {{.name = "--emotions", .value = &emotions},
                                       {.name = "--rehash", .flag = &options.rehash},
                                       {.name = "--jobs", .value = &jobs},
                                       {.name = "--output", .value = &output},
                                       {.name = "-o", .value = &output}};
  for (int i = 0; i < SER_CORPORA; i++) {
    snprintf(names[i], sizeof names[i], "--%s", ser_corpus_names[i]);
    table[5 + i] = (ser_option){.name = names[i], .value = &options.roots[i]};
  }
  int64_t workers = common->device.threads;
  bool partial = false;
  SER_TRY(ser_options_parse(&argc, argv, table, sizeof table / sizeof *table, err));
  SER_TRY(ser_options_count(argc, argv, 0, 0, "nothing", err));
  if (!output) return ser_fail(err, SER_USAGE, "index: -o is missing; write -o manifest.csv");
  SER_TRY(need_corpus(&options, err));
  if (emotions) SER_TRY(ser_option_choice(&chosen, "--emotions", emotions, counts, err));
  options.emotions = 6 + 2 * chosen;
  if (jobs) SER_TRY(ser_option_integer(&workers, "--jobs", jobs, 0, 4096, err));
  SER_TRY(ser_output_check(output, "-o", err));
  if (options.roots[SER_CSV] && ser_same_file(output, options.roots[SER_CSV]))
    return ser_fail(err, SER_USAGE, "-o %s is the file of --csv itself; name another", output);
  options.jobs = cli_jobs(workers);
  options.keep =
      !ser_file_exists(output) || ser_file_replaced(output) ? output : NULL; /* beside a pipe nothing is kept */
  SER_TRY(index_into(output, &options, &partial, err));
  return partial ? SER_PARTIAL : SER_OK;
}

const ser_command ser_command_index = {
    "index",
    "list recordings of corpora into a manifest",
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
    "  --jobs N            workers; 0: all cores (--threads)\n"
    "  -o, --output FILE   the manifest\n"
    "\n"
    "Example:\n"
    "  serenade index --ravdess data/RAVDESS --tess data/TESS -o manifest.csv\n",
    run,
    "what was hashed is kept; run the same command to go on",
    CLI_THREADS};
