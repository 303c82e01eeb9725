/* `serenade predict`: the emotions of recordings. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"
#include "report/predict.h"

typedef struct {
  ser_answer_format format;
  size_t refused;
  bool begun; /* something of the results is on stdout */
} printing;

static ser_status print_text(ser_text *text, ser_error *err) {
  ser_status status = cli_print(text, err);
  free(text->data);
  return status;
}

/* Before the first answer and no sooner: a job that ends before it leaves stdout empty. */
static void begin_once(ser_text *text, printing *p) {
  if (!p->begun) ser_answers_begin(text, &p->format);
  p->begun = true;
}

/* A file can be fetched again; what came on stdin is sent again. */
static void tell_refused(const ser_answer *answer) {
  static const char *const cures[] = {"; copy it again", "; get the file anew, or take it out"};
  int size = (int)strlen(answer->detail);
  bool piped = !strcmp(answer->path, "-"), cut = false;
  for (size_t i = 0; i < sizeof cures / sizeof *cures && piped && !cut; i++) {
    int cure = (int)strlen(cures[i]);
    cut = size >= cure && !strcmp(answer->detail + size - cure, cures[i]);
    if (cut) size -= cure;
  }
  ser_complain("%s: %.*s%s", *answer->path ? answer->path : "''", size, answer->detail,
               cut ? "; send the bytes of a whole recording" : "");
}

static ser_status print_answer(void *context, const ser_answer *answer, ser_error *err) {
  printing *p = context;
  if (answer->reason != SER_REASON_NONE) {
    tell_refused(answer);
    p->refused++;
    return SER_OK;
  }
  if (answer->silent)
    ser_warn("%s: silent (at most -60 dBFS): there is no voice in it, whatever the answer says", answer->path);
  ser_text text = {0};
  begin_once(&text, p);
  ser_answers_add(&text, &p->format, answer);
  return print_text(&text, err);
}

/* A column as wide as the longest path, within reason. */
static int path_width(const ser_predict_inputs *inputs) {
  enum { LEAST = 20, MOST = 72 };
  size_t width = LEAST;
  for (size_t i = 0; i < inputs->count; i++) {
    char *path = ser_shown(inputs->sources[i].path);
    size_t size = strlen(path);
    if (size > width && size <= MOST) width = size;
    free(path);
  }
  return (int)width;
}

static ser_status predict_all(ser_predictor *predictor, const ser_predict_inputs *inputs, printing *p, ser_error *err) {
  const char *labels[SER_EMOTIONS];
  ser_text text = {0};
  p->format.classes = ser_predictor_labels(predictor, labels);
  p->format.labels = labels;
  p->format.path_width = path_width(inputs);
  ser_status status = ser_predict(predictor, inputs->sources, inputs->count, print_answer, p, err);
  if (status != SER_OK && !p->begun) return status;
  begin_once(&text, p);
  ser_answers_end(&text, &p->format); /* whatever ended the job: the answers so far are one whole array */
  ser_status printed = print_text(&text, status == SER_OK ? err : NULL);
  return status == SER_OK ? printed : status;
}

/* Lines on folders that hold no recording: they were asked for and gave nothing. */
static void tell_empty(printing *p, char *lines) {
  for (char *at = lines, *end; at && *at; at = end) {
    end = at + strcspn(at, "\n");
    if (*end) *end++ = 0;
    ser_complain("%s", at);
    p->refused++;
  }
}

static ser_status parse_seconds(double *out, const char *name, const char *text, ser_error *err) {
  char *end;
  if (!text) return SER_OK;
  errno = 0;
  *out = strtod(text, &end);
  if (end == text || *end || errno || !isfinite(*out) || *out < 0)
    return ser_fail(err, SER_USAGE, "%s: '%s' is no number of seconds from 0 on, as in %s 2.5", name, text, name);
  return SER_OK;
}

static ser_status run(const ser_common *common, int argc, char **argv, ser_error *err) {
  static const char *const styles[] = {"text", "json", "csv", NULL};
  const char *style = "text", *window = NULL, *hop = NULL, *jobs = NULL;
  printing p = {0};
  const ser_option table[] = {{.name = "--format", .value = &style},
                              {.name = "--windows", .flag = &p.format.windows},
                              {.name = "--window", .value = &window},
                              {.name = "--hop", .value = &hop},
                              {.name = "--jobs", .value = &jobs}};
  ser_predict_options options = {.device = common->device, .jobs = common->device.threads, .window = -1, .hop = -1};
  int chosen = 0;
  int64_t workers = 0;
  SER_TRY(ser_options_parse(&argc, argv, table, sizeof table / sizeof *table, err));
  SER_TRY(ser_options_count(argc, argv, 2, -1, "the model and at least one file, folder or -", err));
  SER_TRY(ser_option_choice(&chosen, "--format", style, styles, err));
  SER_TRY(parse_seconds(&options.window, "--window", window, err));
  SER_TRY(parse_seconds(&options.hop, "--hop", hop, err));
  if (jobs) SER_TRY(ser_option_integer(&workers, "--jobs", jobs, 0, 4096, err));
  if (jobs) options.jobs = (int)workers;
  options.model = argv[1];
  p.format.style = (ser_answer_style)chosen;
  ser_predictor *predictor = NULL;
  ser_predict_inputs inputs = {0};
  ser_status status = ser_predictor_open(&predictor, &options, err);
  if (status == SER_OK) status = ser_predict_inputs_make(&inputs, (const char *const *)argv + 2, (size_t)argc - 2, err);
  if (status == SER_OK) {
    tell_empty(&p, inputs.empty.data);
    ser_info_lines(inputs.passed.data);
    status = predict_all(predictor, &inputs, &p, err);
  }
  ser_predict_inputs_free(&inputs);
  ser_predictor_close(predictor);
  return status == SER_OK && p.refused ? SER_PARTIAL : status;
}

const ser_command ser_command_predict = {
    "predict",
    "the emotions of recordings",
    "usage: serenade predict MODEL PATH... [options]\n"
    "\n"
    "MODEL is a model file (RUN/model.safetensors) or the run folder that holds it. A PATH is a file, a folder (all\n"
    "recordings below it), or - for the bytes of one recording on stdin. A recording that is longer than the model's\n"
    "window gets a timeline and an overall answer: the mean of its windows' answers, each moment of the recording\n"
    "counting once, however many windows hear it. What cannot be used is named on stderr, and the exit status is 3.\n"
    "\n"
    "  --format text|json|csv   how to print (text)\n"
    "  --windows                csv: behind the row of a recording one for each of its windows, where it has several;\n"
    "                           a path's first row is the recording's own, from 0 to its end\n"
    "  --window SECONDS         windows of long recordings; 0: the model's own (predict.window)\n"
    "  --hop SECONDS            from one window to the next; 0: half a window (predict.hop)\n"
    "  --jobs N                 decode workers; 0: all cores\n"
    "\n"
    "Example:\n"
    "  serenade predict runs/first/model.safetensors data/TESS --format csv\n",
    run,
    "the answers so far are printed; run the same command for all of them",
    CLI_DEVICE | CLI_THREADS};
