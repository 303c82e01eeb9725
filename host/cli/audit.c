/* `serenade audit`: decodes everything and writes what it finds into the manifest. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/counts.h"

enum { AUDIT_VERSION = 1 };

/* {version, counts, findings}: counts by status and by reason. */
static ser_status write_json(const char *path, const ser_audit_summary *is, ser_error *err) {
  json_t *reasons = json_object();
  for (int i = SER_REASON_UNREADABLE; i < SER_REASON_TOO_SHORT; i++)
    json_object_set_new(reasons, ser_reason_name((ser_reason)i), json_integer((json_int_t)is->by_reason[i]));
  json_t *findings = json_loads(is->findings_json ? is->findings_json : "[]", 0, NULL);
  SER_CHECK(findings);
  json_t *root =
      json_pack("{s:i, s:{s:I, s:I, s:I, s:I, s:I, s:o}, s:o}", "version", AUDIT_VERSION, "counts", "rows",
                (json_int_t)is->rows, "ok", (json_int_t)is->ok, "filtered", (json_int_t)is->filtered, "excluded",
                (json_int_t)is->excluded, "refused", (json_int_t)is->refused, "reasons", reasons, "findings", findings);
  char *bytes = json_dumps(root, JSON_INDENT(2));
  ser_text text = {0};
  ser_text_printf(&text, "%s\n", bytes);
  ser_status status = ser_file_write(path, text.data, text.size, err);
  free(text.data);
  free(bytes);
  json_decref(root);
  return status;
}

static ser_status audit_file(const char *path, const char *json, ser_audit_mode mode, bool again, int jobs,
                             bool *partial, ser_error *err) {
  ser_manifest manifest;
  ser_audit_summary summary = {0};
  ser_text text = {0};
  ser_status status = SER_OK;
  ser_manifest_init(&manifest);
  SER_TRY_DONE(ser_manifest_read(&manifest, path, err));
  const ser_audit_options options = {
      .mode = mode, .again = again, .jobs = jobs, .keep = path, .heard = path, .keep_every = 5};
  SER_TRY_DONE(ser_audit(&manifest, &summary, &options, err));
  SER_TRY_DONE(ser_manifest_write(&manifest, path, err));
  cli_audit_text(&text, &manifest, &summary);
  SER_TRY_DONE(cli_print(&text, err));
  if (json) SER_TRY_DONE(write_json(json, &summary, err));
  *partial = cli_name_refused(&manifest) > 0;
done:
  free(text.data);
  ser_audit_summary_free(&summary);
  ser_manifest_free(&manifest);
  return status;
}

static ser_status run(const ser_common *common, int argc, char **argv, ser_error *err) {
  static const char *const modes[] = {"exclude", "report", NULL};
  const char *json = NULL, *jobs = NULL, *mode_name = NULL;
  bool again = false, partial = false;
  const ser_option table[] = {{.name = "--json", .value = &json},
                              {.name = "--mode", .value = &mode_name},
                              {.name = "--again", .flag = &again},
                              {.name = "--jobs", .value = &jobs}};
  int64_t workers = common->device.threads;
  int mode = SER_AUDIT_EXCLUDE;
  SER_TRY(ser_options_parse(&argc, argv, table, sizeof table / sizeof *table, err));
  SER_TRY(ser_options_count(argc, argv, 1, 1, "the manifest", err));
  if (jobs) SER_TRY(ser_option_integer(&workers, "--jobs", jobs, 0, 4096, err));
  if (mode_name) SER_TRY(ser_option_choice(&mode, "--mode", mode_name, modes, err));
  if (json) SER_TRY(ser_output_check(json, "--json", err));
  if (json && ser_same_file(json, argv[1]))
    return ser_fail(err, SER_USAGE, "--json %s is the manifest itself; name another file", json);
  if (ser_file_exists(argv[1]) && !ser_is_folder(argv[1])) SER_TRY(ser_output_check(argv[1], "the manifest", err));
  SER_TRY(audit_file(argv[1], json, (ser_audit_mode)mode, again, cli_jobs(workers), &partial, err));
  return partial ? SER_PARTIAL : SER_OK;
}

const ser_command ser_command_audit = {"audit",
                                       "decode everything; find what is broken, double or in doubt",
                                       "usage: serenade audit manifest.csv [options]\n"
                                       "\n"
                                       "Decodes every recording that was not judged yet and writes status and reason "
                                       "into the manifest. Nothing vanishes:\n"
                                       "rows that must not be used stay, with their reason. Emotions that are not "
                                       "asked for are judged too, and stay filtered.\n"
                                       "\n"
                                       "  --json FILE             counts and every finding as JSON\n"
                                       "  --mode exclude|report   report: exclude nothing, tell the same (exclude)\n"
                                       "  --again                 judge everything anew\n"
                                       "  --jobs N                decode workers; 0: all cores (--threads)\n"
                                       "\n"
                                       "Example:\n"
                                       "  serenade audit manifest.csv --json audit.json\n",
                                       run,
                                       "what was judged is kept; run the same command to go on",
                                       CLI_THREADS};
