/* `serenade bench`: what its parts share. bench.c reads the options and runs the stages, bench_tell.c prints,
 * bench_clips.c finds or makes the recordings, bench_measure.c repeats and sums up, bench_work.c says what a batch
 * needs of a device, bench_peak.c measures limits; bench_audio.c, bench_model.c and bench_whole.c are the stages. */
#ifndef SER_CLI_BENCH_H
#define SER_CLI_BENCH_H

#include "audio/audio.h"
#include "base/threads.h"
#include "features/features.h"
#include "model/model.h"

/* What a batch takes of a device that is not the processor: means over the batches of a run. */
typedef struct {
  double batches;       /* in a run; 0: the stage was not measured on a device of its own */
  double clips;         /* in a batch */
  double seconds;       /* the device's own, by events: the median of the runs */
  double busy;          /* of the run's time by the clock */
  double launches;      /* kernels of ours */
  double calls;         /* of the device's libraries */
  double waits;         /* of the host for the device */
  double allocations;   /* in a run */
  double written, read; /* bytes over the bus, to and from the device */
  double operations;    /* floating-point ones that the batch needs; 0: not known */
  double bytes;         /* that its operations read and write in the device's memory; 0: not known */
  bool in_graph;        /* launched as one */
  const char *limit;    /* which of the device's limits is the nearest */
} bench_work;

/* One line of the result. Rates: more is better; times ("ms", "us"): less is better. */
typedef struct {
  char name[24], unit[12];
  double median, min, max;
  int runs;
  double bound;         /* in the unit; 0: none is known */
  double operations;    /* floating-point operations a unit, where peak.fma makes the bound; else 0 */
  double share;         /* how much of the bound is reached: 1 is all of it; 0 without a bound */
  const char *bound_is; /* what the bound is made of */
  double hours;         /* hours of audio in an hour; 0 where no audio is taken in */
  double set_up;        /* seconds of a run that the rate leaves out: the median; 0: it leaves out none */
  bench_work work;
} bench_result;

/* The recordings, as files and as samples at the feature's rate. */
typedef struct {
  size_t count;
  char **paths;
  ser_clip *whole;       /* [count] mono at the file's own rate */
  ser_clip *clips;       /* [count] at the feature's rate */
  const float **samples; /* [count] clips[i].samples */
  int64_t *counts;       /* [count] clips[i].count */
  double seconds;        /* of all of them */
  bool made;
} bench_clips;

enum { BENCH_BATCH = 64, BENCH_LINES = 32 };

typedef struct {
  ser_device_options options;
  ser_device *device;
  ser_stream *stream;
  ser_pool *pool; /* for decoding */
  int threads;    /* of the host: the pool's, and the decode workers' of extract and predict */
  int runs;
  bool on_device; /* it is not the processor: lines get their work, and the limits of the bus and of launches */
  ser_event *from, *to;
  const ser_device *watched; /* whose counters count: `device`, but where a stage opens one of its own */
  ser_device_work ran;       /* what the stage's run says of itself */
  double set_up;             /* the same: seconds that are needed once, however long the run */
  int64_t fma_rounds;        /* of one run of peak.fma */
  const char *data;          /* --data, or NULL */
  char *folder;              /* temporary: made recordings, a model, caches */
  ser_config config;
  bench_clips clips;
  bench_result results[BENCH_LINES];
  size_t count;
} bench;

/* Runs `body` once to warm up, then b->runs times, and adds a line with the rate `units` / seconds, or the time of a
 * unit where `unit` is "ms" or "us". Gives the line, which stays valid. A body that uses the device adds its batches
 * and the device's seconds to b->ran; the line's work is made of that and of the counters. What it adds to b->set_up is
 * left out of the rate. */
typedef ser_status (*bench_body)(void *context, ser_error *err);
ser_status bench_measure(bench *b, bench_result **line, const char *name, const char *unit, double units,
                         bench_body body, void *context, ser_error *err);

/* How much one run does so that it takes long beside the waiting for its end: doubled from `least` on. `amount` is the
 * body's own. The first run does not count, since a device loads its code then; where it is long enough by far no other
 * is tried. */
ser_status bench_find_amount(int64_t *amount, int64_t least, bench_body body, void *context, ser_error *err);
/* What a run's batches need in all, and their clips are those of the bench. */
void bench_needs(const bench *b, bench_result *line, double operations, double bytes);
void bench_bound(bench_result *line, double bound, const char *bound_is); /* sets share from the median */
void bench_bound_operations(bench_result *line, double operations, const char *bound_is);
void bench_settle(bench *b); /* bounds by the machine's limits, now that peak.fma is known for good */
const bench_result *bench_find(const bench *b, const char *name); /* or NULL */

/* Bytes that the operations of a stage read and write in the device's memory, each tensor once an operation: features
 * of that many samples and frames; a batch of windows that hold `frames` frames of features, classified; a step of
 * training with the same. What stays in a cache between two operations moves faster than the memory allows. */
double bench_bytes_mfcc(const ser_mfcc_config *config, double samples, double frames);
double bench_bytes_forward(const ser_model_config *config, double batch, double frames);
double bench_bytes_train(const ser_model_config *config, double batch, double frames, double parameters);
/* Floating-point operations: of a frame's features, of a clip's convolutions one way through both directions. */
double bench_flops_frame(const ser_mfcc_config *config);
double bench_flops_clip(const ser_model_config *config);
/* What the batch needs at least, in seconds, by the limits that were measured; `limit` says which it is. 0: no limit is
 * known. */
double bench_least_seconds(const bench *b, bench_work *work);
double bench_bus_seconds(const bench *b, const bench_work *work);

/* bench_folder.c: a folder of its own below root; those of killed ones are removed. *folder: freed by the caller. */
ser_status bench_make_folder(char **folder, const char *root, ser_error *err);
void bench_remove_folder(const char *path); /* with all that is in it; errors are not told */

/* Finds up to a few hundred recordings below --data, evenly spread, or makes speech-like ones, and decodes them. */
ser_status bench_clips_load(bench *b, ser_error *err);
void bench_clips_free(bench_clips *clips);

ser_status bench_peak(bench *b, ser_error *err);
ser_status bench_peak_bus(bench *b, ser_error *err); /* and of launches: a device's that is not the processor */
/* peak.fma once more, behind the stages: the better one stays. On a machine that is busy with other things the first
 * may fall into a slow moment, and stages would seem to beat the machine. */
ser_status bench_peak_again(bench *b, ser_error *err);
ser_status bench_decode(bench *b, ser_error *err);
ser_status bench_mfcc(bench *b, ser_error *err);
ser_status bench_train(bench *b, ser_error *err);
ser_status bench_forward(bench *b, ser_error *err);
ser_status bench_predict(bench *b, ser_error *err);
ser_status bench_extract(bench *b, ser_error *err);

/* The table of results, and what is to be known of it; what the device says; what holds extract back. */
void bench_text(ser_text *text, const bench *b);
void bench_text_device(ser_text *text, const bench *b);
void bench_text_brake(ser_text *text, const bench *b);
void bench_print_machine(const bench *b, const ser_device_properties *is);
ser_status bench_write_json(const bench *b, const ser_device_properties *is, const char *path, ser_error *err);

/* The reference branch as the configuration has it. */
ser_model_config bench_model_config(const bench *b);

#endif
