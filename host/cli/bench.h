/* `serenade bench`: what its parts share. bench.c reads the options and prints, bench_clips.c finds or makes the
 * recordings, bench_measure.c repeats and sums up, bench_audio.c, bench_model.c and bench_whole.c are the stages. */
#ifndef SER_CLI_BENCH_H
#define SER_CLI_BENCH_H

#include "audio/audio.h"
#include "base/threads.h"
#include "features/features.h"
#include "model/model.h"

/* One line of the result. Rates: more is better; times ("ms"): less is better. */
typedef struct {
  char name[24], unit[12];
  double median, min, max;
  int runs;
  double bound;         /* in the unit; 0: none is known */
  double operations;    /* floating-point operations a unit, where peak.fma makes the bound; else 0 */
  double share;         /* how much of the bound is reached: 1 is all of it; 0 without a bound */
  const char *bound_is; /* what the bound is made of */
  double hours;         /* hours of audio in an hour; 0 where no audio is taken in */
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
  ser_device *device;
  ser_stream *stream;
  ser_pool *pool; /* for decoding, as many threads as the device has */
  int threads, runs;
  const char *data; /* --data, or NULL */
  char *folder;     /* temporary: made recordings, a model, caches */
  ser_config config;
  bench_clips clips;
  bench_result results[BENCH_LINES];
  size_t count;
} bench;

/* Runs `body` once to warm up, then b->runs times, and adds a line with the rate `units` / seconds, or milliseconds
 * where unit is "ms". Gives the line, which stays valid. */
typedef ser_status (*bench_body)(void *context, ser_error *err);
ser_status bench_measure(bench *b, bench_result **line, const char *name, const char *unit, double units,
                         bench_body body, void *context, ser_error *err);
void bench_bound(bench_result *line, double bound, const char *bound_is); /* sets share from the median */
void bench_bound_operations(bench_result *line, double operations, const char *bound_is);
void bench_settle(bench *b); /* bounds by operations, now that peak.fma is known for good */
const bench_result *bench_find(const bench *b, const char *name); /* or NULL */
/* bench_folder.c: a folder of its own below root; those of killed ones are removed. *folder: freed by the caller. */
ser_status bench_make_folder(char **folder, const char *root, ser_error *err);
void bench_remove_folder(const char *path); /* with all that is in it; errors are not told */

/* Finds up to a few hundred recordings below --data, evenly spread, or makes speech-like ones, and decodes them. */
ser_status bench_clips_load(bench *b, ser_error *err);
void bench_clips_free(bench_clips *clips);

ser_status bench_peak(bench *b, ser_error *err);
/* peak.fma once more, behind the stages: the better one stays. On a machine that is busy with other things the first
 * may fall into a slow moment, and stages would seem to beat the machine. */
ser_status bench_peak_again(bench *b, ser_error *err);
ser_status bench_decode(bench *b, ser_error *err);
ser_status bench_mfcc(bench *b, ser_error *err);
ser_status bench_train(bench *b, ser_error *err);
ser_status bench_forward(bench *b, ser_error *err);
ser_status bench_predict(bench *b, ser_error *err);
ser_status bench_extract(bench *b, ser_error *err);

/* The table of results, and what is to be known of it. */
void bench_text(ser_text *text, const bench *b);

/* The reference branch as the configuration has it. */
ser_model_config bench_model_config(const bench *b);

#endif
