/* Emotions of recordings: decode, features, windows, the model, one answer a recording.
 *
 * A clip of at most the model's window (features.<preset>.frames frames, or samples where the preset fits the signal to
 * a fixed number of them) is one window, scored as in evaluation. A longer one gets a timeline: windows every
 * predict.hop seconds, the last one flush with the end, so that nothing is cut; the clip's own answer is the mean of
 * its windows' probabilities, each moment of the clip counting once (windows.h). Features are those of the whole clip
 * (its own 80 dB floor, deltas across window edges), computed once, and windows are cut from the frames; where the
 * signal is fitted to samples, windows are cut from the signal and each has features of its own, as in training. */
#ifndef SER_REPORT_PREDICT_H
#define SER_REPORT_PREDICT_H

#include "model/model.h"

typedef struct {
  const char *model; /* the model file, or a run folder of one training */
  ser_device_options device;
  int jobs;           /* decode workers; 0: all cores */
  double window, hop; /* seconds; negative: as the model file says; 0: the model's own window, half of the window */
} ser_predict_options;

/* A stretch of a recording and what is heard in it. */
typedef struct {
  double start, end; /* seconds */
  int32_t label;
  float probabilities[SER_EMOTIONS];
} ser_span;

/* What is said of one input. Valid while the function it is given to runs. */
typedef struct {
  const char *path;
  ser_reason reason; /* other than SER_REASON_NONE: refused, and only detail is set */
  const char *detail;
  bool silent; /* answered all the same, but there is no voice in it */
  ser_span whole;
  const ser_span *windows; /* one, equal to whole, for a clip within the model's window */
  size_t window_count;
} ser_answer;

typedef struct ser_predictor ser_predictor;

/* Reads the model's description and checks the window and hop against it (SER_USAGE). The device and the weights are
 * taken up by ser_predict, while the first inputs are being decoded. */
ser_status ser_predictor_open(ser_predictor **predictor, const ser_predict_options *options, ser_error *err);
void ser_predictor_close(ser_predictor *predictor); /* NULL is fine */
/* For benchmarks: the device (NULL before the first ser_predict), and what it has done of the features and of the
 * model so far, whose seconds may be the same ones. */
const ser_device *ser_predictor_device(const ser_predictor *predictor);
ser_device_work ser_predictor_work(const ser_predictor *predictor);
/* The labels in the order of the probabilities, and their number. */
int ser_predictor_labels(const ser_predictor *predictor, const char *labels[SER_EMOTIONS]);

/* Answers every input in order: `each` is called from the calling thread as answers come; other than SER_OK from it
 * ends the job. Memory is bounded whatever the number of inputs. An answer's bytes depend on its input alone. */
typedef ser_status (*ser_answer_fn)(void *context, const ser_answer *answer, ser_error *err);
ser_status ser_predict(ser_predictor *predictor, const ser_audio_source *inputs, size_t count, ser_answer_fn each,
                       void *context, ser_error *err);

/* ---- inputs (predict_inputs.c) ---------------------------------------------------------------------------------- */

/* Files and folders (all recordings below, by suffix, in byte order), and "-": the bytes of one recording on stdin. */
typedef struct {
  ser_audio_source *sources; /* [count] */
  size_t count, capacity;
  char *stdin_bytes;
  ser_text empty;  /* a line for each folder that holds no recording */
  ser_text passed; /* a line for each that holds other files beside its recordings */
} ser_predict_inputs;
ser_status ser_predict_inputs_make(ser_predict_inputs *inputs, const char *const *paths, size_t count, ser_error *err);
void ser_predict_inputs_free(ser_predict_inputs *inputs);

/* ---- formats (predict_format.c) --------------------------------------------------------------------------------- */

typedef enum { SER_FORMAT_TEXT, SER_FORMAT_JSON, SER_FORMAT_CSV } ser_answer_style;

/* text: a line a clip, the labels by falling probability, and a line for each window of a longer clip.
 * json: one array of {path, emotion, probabilities {label: p}, windows [{start, end, emotion, probabilities}]}.
 * csv: path,start,end,emotion,LABEL...: a row a clip, and with `windows` a row for each of its windows behind it. */
typedef struct {
  ser_answer_style style;
  bool windows;
  int classes;
  const char *const *labels;
  int path_width; /* text: the paths' column */
  size_t written; /* answers so far */
} ser_answer_format;
void ser_answers_begin(ser_text *out, ser_answer_format *format);
void ser_answers_add(ser_text *out, ser_answer_format *format, const ser_answer *answer);
void ser_answers_end(ser_text *out, ser_answer_format *format);

#endif
