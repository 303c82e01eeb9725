/* The manifest: one row a recording, a CSV that pandas reads as it is (see the contract of columns in README.md). */
#ifndef SER_CORPUS_MANIFEST_H
#define SER_CORPUS_MANIFEST_H

#include <stdint.h>

#include "audio/audio.h"
#include "base/config.h"
#include "base/csv.h"
#include "base/hash.h"

/* The emotions in the order of labels everywhere; the first six are the default set. */
typedef enum {
  SER_NEUTRAL,
  SER_HAPPY,
  SER_SAD,
  SER_ANGRY,
  SER_FEARFUL,
  SER_DISGUST,
  SER_CALM,
  SER_SURPRISED,
  SER_EMOTIONS,
} ser_emotion;
extern const char *const ser_emotion_names[SER_EMOTIONS];
int ser_emotion_parse(const char *name); /* also common spellings (anger, fear, happiness, ps ...); -1: unknown */

typedef enum { SER_NEW, SER_ROW_OK, SER_FILTERED, SER_EXCLUDED, SER_REFUSED } ser_row_status;
extern const char *const ser_row_status_names[5]; /* new ok filtered excluded refused */

/* Texts belong to the manifest. Absent values are "" and -1. */
typedef struct {
  char *path;    /* absolute */
  char *corpus;  /* ravdess cremad tess savee, or as given */
  char *speaker; /* ravdess_01, cremad_1001, tess_oaf, savee_dc, or as given */
  char *sex;     /* male female or "" */
  int emotion;   /* ser_emotion */
  char *intensity, *statement;
  int32_t rate, channels;
  int64_t frames;
  double seconds;
  int64_t size, mtime_ns;
  ser_hash hash; /* of the file's bytes; zeros where it could not be read */
  ser_row_status status;
  ser_reason reason;
  bool unjudged; /* filtered, and no audit has heard it yet: the column reason then says "new" */
  char **extra;  /* [extra_columns] */
} ser_row;

typedef struct {
  ser_row *rows;
  size_t count, capacity;
  char **extra_names; /* columns of --csv that are not the manifest's own, kept */
  size_t extra_columns;
} ser_manifest;

void ser_manifest_init(ser_manifest *manifest);
void ser_manifest_free(ser_manifest *manifest);

/* Errors name file, line and column. */
ser_status ser_manifest_read(ser_manifest *manifest, const char *path, ser_error *err);
ser_status ser_manifest_write(const ser_manifest *manifest, const char *path, ser_error *err); /* atomic */
/* The bytes that ser_manifest_write writes. */
void ser_manifest_text(ser_text *text, const ser_manifest *manifest);

/* Rows that training and extraction may use: status new or ok. */
bool ser_row_usable(const ser_row *row);
/* What trainings and reports take from the usable rows, a line each: path, corpus, speaker, sex, emotion, bytes. Times,
 * and rows that are not used, leave it as it is. */
void ser_manifest_usable_text(ser_text *text, const ser_manifest *manifest);
void ser_manifest_usable_hash(char hex[SER_HASH_HEX], const ser_manifest *manifest);

/* ---- index: from folders to a manifest (index.c; one file a corpus: ravdess.c, cremad.c, tess.c, savee.c, lab.c) ----
 */

typedef struct {
  const char *roots[SER_CORPORA]; /* folders, and a table for SER_CSV; NULL or "" where not given */
  int64_t emotions;               /* 6 or 8: rows of other emotions become filtered */
  bool rehash;                    /* hash again even where size and mtime are those of `before` */
  int jobs;
  const char *keep;  /* or NULL: the manifest's path; what was found out so far is written to PATH.partial on the way */
  double keep_every; /* seconds between those writings; 0: as often as it looks */
} ser_index_options;

/* Counts by name that the index tells: files that are no speech of this corpus, ignored names and the like. */
typedef struct {
  size_t files, rows, filtered, refused, ignored; /* ignored: no audio or not a name of the corpus */
  size_t hashed;                                  /* how many files' bytes were read */
  ser_text notes;                                 /* lines for the user; free(notes.data) */
} ser_index_summary;

/* before (or NULL): an older manifest whose hashes, statuses and reasons are trusted where path, size and mtime are the
 * same. Rows come in byte order of the paths. A root that holds no file of its corpus is SER_FAILED, naming what was
 * expected there. */
ser_status ser_index(ser_manifest *manifest, ser_index_summary *summary, const ser_index_options *options,
                     const ser_manifest *before, ser_error *err);
/* Removes PATH.partial, once the manifest is written: an index that was cut off leaves it, the next one trusts it as
 * it trusts `before`. */
void ser_index_done(const char *manifest_path);

/* What a reason means, and the cure where there is one. */
const char *ser_reason_meaning(ser_reason reason);
/* Why a refused row's file cannot be used, in words and with the cure. A manifest keeps one word, so the file is looked
 * at again; where it is no longer what the row says, the words are those of the reason. */
void ser_row_refusal(char words[256], const ser_row *row);

/* ---- audit (audit.c) ------------------------------------------------------------------------------------------------
 */

typedef struct {
  size_t rows, ok, filtered, excluded, refused;
  size_t by_reason[SER_REASON_TOO_SHORT + 1]; /* rows of any status */
  size_t decoded;  /* rows decoded in this run (those judged before with the same bytes are not) */
  size_t *same_as; /* [rows] of duplicates and conflicts the first other row with the same audio, else the row itself */
  char *findings_json; /* JSON array: {reason, status, path, detail, others [paths]} one a finding; free() */
} ser_audit_summary;

typedef struct {
  ser_audit_mode mode;
  bool again;        /* judge anew what was judged before */
  int jobs;          /* decode workers; 0: all cores */
  const char *keep;  /* or NULL: the manifest's path, where what was judged so far is written on the way */
  const char *heard; /* or NULL: the manifest's path; sounds that files of unlike bytes share are kept in PATH.heard */
  double keep_every; /* seconds between those writings; 0: as often as it looks */
} ser_audit_options;

/* Decodes every row that was not judged yet, in parallel, sets status and reason. Filtered rows are judged like the
 * others and keep their status: a usable row that is the same audio as one of them has an emotion in doubt. A file that
 * changed since the index is hashed and judged anew. On SER_INTERRUPTED the manifest holds what was judged so far
 * (written, where options->keep says where); the summary is empty. At the end the caller writes the manifest. */
ser_status ser_audit(ser_manifest *manifest, ser_audit_summary *summary, const ser_audit_options *options,
                     ser_error *err);
void ser_audit_summary_free(ser_audit_summary *summary);

/* ---- splits (splits.c)
 * ------------------------------------------------------------------------------------------------ */

typedef enum { SER_PART_NONE, SER_TRAIN, SER_VALIDATION, SER_TEST } ser_part;
extern const char *const ser_part_names[4]; /* "" train validation test */

typedef struct {
  int folds;      /* at least 1 */
  size_t rows;    /* the manifest's */
  ser_part *part; /* [folds][rows] */
  size_t idle;    /* usable rows that stand in no part of any fold */
  ser_text notes; /* sentences for the report, the first on idle rows: speakers overlap ... */
  ser_text made;  /* those that the parts do not show: lines of a given file that found nothing, what was drawn ... */
} ser_split;

/* The configuration's split of the manifest's usable rows. Same manifest and configuration, same split, whatever the
 * order of the rows and the folder that holds the corpora. split.test is the share of the usable rows, split.validation
 * that of the rows beside the test part. Duplicates (same hash) never stand on two sides; where `audit: report` keeps
 * them they go together (a split that a file gives stands as it is, and the notes count what it tears apart). */
ser_status ser_split_make(ser_split *split, const ser_manifest *manifest, const ser_config *config, ser_error *err);
/* split.csv: path, part, fold from 0 (one row a usable recording and fold). Reading matches paths to the manifest's and
 * leaves `made` empty: what the parts do not show is the caller's to keep. */
void ser_split_text(ser_text *text, const ser_split *split, const ser_manifest *manifest);
ser_status ser_split_read(ser_split *split, const ser_manifest *manifest, const char *path, ser_error *err);
void ser_split_free(ser_split *split);

#endif
