/* From folders to a manifest: walk each root, read labels off the names, then stat, hash and probe every file in
 * `jobs` workers. What an older manifest says of a file with the same path, size and time is trusted; of a file with
 * the same bytes, its verdict is. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/threads.h"
#include "base/wanted.h"
#include "corpus/judge.h"
#include "corpus/loader.h"

/* Each corpus but a lab's own table, which is no folder (lab_load). */
static const corpus_loader *const loaders[SER_CORPORA] = {[SER_RAVDESS] = &ravdess_loader,
                                                          [SER_CREMAD] = &cremad_loader,
                                                          [SER_TESS] = &tess_loader,
                                                          [SER_SAVEE] = &savee_loader};

/* ---- which files ---- */

enum { KINDS = 8 };

typedef struct {
  const corpus_loader *loader;
  ser_manifest *manifest;
  ser_index_summary *summary;
  struct {
    const char *name;
    size_t count;
  } others[KINDS]; /* what was passed over, by kind */
} walk;

static void pass_over(walk *state, const char *kind) {
  int i = 0;
  while (i < KINDS - 1 && state->others[i].name && strcmp(state->others[i].name, kind)) i++;
  state->others[i].name = kind;
  state->others[i].count++;
  state->summary->ignored++;
}

static ser_status visit(void *context, const char *path, ser_error *err) {
  walk *state = context;
  labels found = {.sex = "", .intensity = ""};
  const char *other = NULL;
  SER_TRY(ser_interrupt_check(err));
  state->summary->files++;
  if (!ser_is_utf8(path))
    return ser_fail(
        err, SER_FAILED,
        "the path %s is not UTF-8, so no manifest can hold it; rename the file or folder, or link to it under "
        "another name",
        path);
  if (!state->loader->read_labels(&found, &other, path)) {
    pass_over(state, other ? other : ser_audio_named(path) ? "other recordings" : "other files");
    return SER_OK;
  }
  ser_row *row = manifest_add(state->manifest, path);
  free(row->corpus);
  free(row->speaker);
  free(row->sex);
  free(row->intensity);
  free(row->statement);
  row->corpus = ser_strdup(state->loader->name);
  row->speaker = ser_strdup(found.speaker);
  row->sex = ser_strdup(found.sex);
  row->intensity = ser_strdup(found.intensity);
  row->statement = ser_strdup(found.statement);
  row->emotion = found.emotion;
  return SER_OK;
}

static void tell_others(ser_text *text, const walk *state) {
  for (int i = 0; i < KINDS && state->others[i].count; i++)
    ser_text_printf(text, "%s%s (%zu)", i ? ", " : "", state->others[i].name, state->others[i].count);
}

static ser_status load_corpus(ser_manifest *manifest, ser_index_summary *summary, const corpus_loader *loader,
                              const char *root, ser_error *err) {
  if (!root || !*root) return SER_OK;
  char wanted[64];
  snprintf(wanted, sizeof wanted, "the folder of %s, or one above it", loader->name);
  SER_TRY(ser_want_folder(root, wanted, err));
  walk state = {.loader = loader, .manifest = manifest, .summary = summary};
  size_t first = manifest->count;
  char *absolute = ser_path_absolute(root);
  ser_text others = {0};
  ser_status status = SER_OK;
  SER_TRY_DONE(ser_walk(absolute, visit, &state, err));
  tell_others(&others, &state);
  if (manifest->count == first) {
    status =
        ser_fail(err, SER_USAGE, "%s holds no recording of %s (names like %s, in it or in folders below it)%s%s", root,
                 loader->name, loader->expected, others.data ? "; it holds " : "", others.data ? others.data : "");
    goto done;
  }
  if (others.data) ser_text_printf(&summary->notes, "%s: passed over: %s\n", loader->name, others.data);
  if (loader->finish) SER_TRY_DONE(loader->finish(manifest, first, absolute, summary, err));
done:
  free(absolute);
  free(others.data);
  return status;
}

/* ---- one row a path, in byte order ---- */

typedef struct {
  ser_row row;
  size_t order; /* of arrival */
} arrival;

static int compare_arrivals(const void *a, const void *b) {
  const arrival *x = a, *y = b;
  int order = strcmp(x->row.path, y->row.path);
  if (order) return order;
  if (!x->row.extra != !y->row.extra) return x->row.extra ? -1 : 1; /* what --csv says goes first */
  return x->order < y->order ? -1 : 1;
}

static ser_status sort_rows(ser_manifest *manifest, ser_index_summary *summary, const char *csv, ser_error *err) {
  size_t count = manifest->count, again = 0;
  arrival *all = ser_alloc_zero(count, sizeof *all);
  bool *marked = ser_alloc_zero(count, sizeof *marked);
  ser_status status = SER_OK;
  for (size_t i = 0; i < count; i++) all[i] = (arrival){manifest->rows[i], i};
  if (count) qsort(all, count, sizeof *all, compare_arrivals);
  for (size_t i = 0; i < count; i++) manifest->rows[i] = all[i].row;
  for (size_t i = 1, start = 0; i < count && status == SER_OK; i++) {
    const ser_row *kept = manifest->rows + start, *row = manifest->rows + i;
    if (strcmp(kept->path, row->path)) {
      start = i;
      continue;
    }
    marked[i] = true;
    again++;
    if (row->extra && row->emotion != kept->emotion)
      status = ser_fail(err, SER_FAILED, "%s lists %s twice, as %s and as %s; keep one line", csv, row->path,
                        ser_emotion_names[kept->emotion], ser_emotion_names[row->emotion]);
  }
  if (status == SER_OK) manifest_drop(manifest, marked);
  if (again)
    ser_text_printf(&summary->notes, "%zu %s listed more than once and taken once\n", again,
                    SER_PLURAL(again, "file is", "files are"));
  free(all);
  free(marked);
  return status;
}

/* ---- what each file is ---- */

typedef struct {
  ser_manifest *manifest;
  const ser_index_options *options;
  const ser_row **before; /* [count] the older row of the same path, or NULL */
  bool *done;             /* [count] */
  ser_audit_mode mode;    /* of the audit that judged the older rows */
  size_t first;           /* of the files that the workers are at */
  ser_progress *progress;
  atomic_size_t hashed;
} files_job;

/* The mode of the last audit, as the rows show it that it had the choice for; where none does, what is in doubt is
 * excluded on all sides. */
static ser_audit_mode mode_of(const ser_row *const *rows, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (!rows[i] || !row_judged(rows[i]) || rows[i]->status == SER_FILTERED || !reason_excludes(rows[i]->reason))
      continue;
    return rows[i]->status == SER_ROW_OK ? SER_AUDIT_REPORT : SER_AUDIT_EXCLUDE;
  }
  return SER_AUDIT_EXCLUDE;
}

/* What was found in the same bytes before holds still, whether their emotion is asked for now or was then; and all rows
 * of one recording are judged in one mode, or half of a conflict of labels would be trained on. */
static void set_status(ser_row *row, const ser_row *trusted, int64_t emotions, ser_audit_mode mode) {
  bool known = trusted && row_judged(trusted);
  ser_reason reason = known ? trusted->reason : row->reason;
  row->status = row->emotion < emotions ? SER_NEW : SER_FILTERED;
  if (known || reason_refuses(reason))
    row_judge(row, reason, mode);
  else
    row_forget(row);
}

static void take_header(ser_row *row, const ser_row *trusted) {
  row->rate = trusted->rate;
  row->channels = trusted->channels;
  row->frames = trusted->frames;
  row->seconds = trusted->seconds;
}

static void probe_row(ser_row *row) {
  ser_audio_info info;
  ser_error err = {0};
  ser_reason reason = SER_REASON_UNREADABLE;
  ser_audio_probe(&info, &reason, NULL, row->path, &err);
  row->reason = reason;
  if (info.passing) row->hash = (ser_hash){0}; /* reading failed, which is no verdict on the bytes: again next time */
  if (info.rate > 0) {
    row->rate = info.rate;
    row->channels = info.channels;
    row->frames = info.frames;
    row->seconds = (double)info.frames / info.rate;
  }
}

static void index_file(void *context, size_t task, int thread) {
  static const ser_hash none;
  files_job *job = context;
  size_t i = job->first + task;
  ser_row *row = job->manifest->rows + i;
  const ser_row *before = job->before[i], *trusted = NULL;
  struct stat info;
  ser_error err = {0};
  (void)thread;
  if (ser_interrupted()) return;
  if (stat(row->path, &info) == 0) {
    row->size = info.st_size;
    row->mtime_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
  }
  bool same = before && row->size >= 0 && before->size == row->size && ser_hash_compare(&before->hash, &none);
  if (same && before->mtime_ns == row->mtime_ns && !job->options->rehash) {
    row->hash = before->hash;
    trusted = before;
  } else {
    if (row->size >= 0 && ser_hash_file(&row->hash, row->path, &err) != SER_OK) row->hash = none;
    if (ser_interrupted()) return;
    if (ser_hash_compare(&row->hash, &none)) atomic_fetch_add(&job->hashed, 1); /* not those that are missing */
    if (same && !ser_hash_compare(&row->hash, &before->hash)) trusted = before;
  }
  if (trusted)
    take_header(row, trusted);
  else
    probe_row(row);
  set_status(row, trusted, job->options->emotions, job->mode);
  job->done[i] = true;
  ser_progress_add(job->progress, 1);
}

static int compare_paths(const void *a, const void *b) {
  return strcmp((*(const ser_row *const *)a)->path, (*(const ser_row *const *)b)->path);
}

static bool same_file(const ser_row *a, const ser_row *b) {
  return a && a->size == b->size && a->mtime_ns == b->mtime_ns && !ser_hash_compare(&a->hash, &b->hash);
}

/* Rows of an older manifest by path; what stands in matches already stays where this one knows nothing else. */
static void match_before(const ser_row **matches, const ser_manifest *manifest, const ser_manifest *before) {
  if (!before || !before->count) return;
  const ser_row **sorted = ser_alloc_zero(before->count, sizeof *sorted);
  for (size_t i = 0; i < before->count; i++) sorted[i] = before->rows + i;
  qsort(sorted, before->count, sizeof *sorted, compare_paths);
  for (size_t i = 0; i < manifest->count; i++) {
    const ser_row *key = manifest->rows + i;
    const ser_row **found = bsearch(&key, sorted, before->count, sizeof *sorted, compare_paths);
    if (found && !same_file(matches[i], *found)) matches[i] = *found;
  }
  free(sorted);
}

/* ---- what is told ---- */

static void tell_emotions(ser_text *text, const char *what, const size_t counts[SER_EMOTIONS]) {
  ser_text said = {0};
  const char *comma = "";
  for (int e = 0; e < SER_EMOTIONS; e++) {
    if (!counts[e]) continue;
    ser_text_printf(&said, "%s%s %zu", comma, ser_emotion_names[e], counts[e]);
    comma = ", ";
  }
  ser_text_line(text, "%s: %s", what, said.data ? said.data : "");
  free(said.data);
}

/* A line a corpus: recordings by emotion, and what the filter dropped, by emotion. */
static void tell_corpora(ser_text *text, const ser_manifest *manifest, int64_t emotions) {
  bool *told = ser_alloc_zero(manifest->count, sizeof *told);
  for (size_t i = 0; i < manifest->count; i++) {
    if (told[i]) continue;
    const char *corpus = manifest->rows[i].corpus;
    size_t kept[SER_EMOTIONS] = {0}, dropped[SER_EMOTIONS] = {0}, all = 0, filtered = 0;
    for (size_t k = i; k < manifest->count; k++) {
      const ser_row *row = manifest->rows + k;
      if (told[k] || strcmp(row->corpus, corpus)) continue;
      told[k] = true;
      all++;
      filtered += row->status == SER_FILTERED;
      (row->status == SER_FILTERED ? dropped : kept)[row->emotion]++;
    }
    char *usable =
        ser_format("%s: %zu %s", corpus, all - filtered, SER_PLURAL(all - filtered, "recording", "recordings"));
    char *others = ser_format("%s: %zu filtered (%lld emotions are asked for)", corpus, filtered, (long long)emotions);
    tell_emotions(text, usable, kept);
    if (filtered) tell_emotions(text, others, dropped);
    free(usable);
    free(others);
  }
  free(told);
}

static void summarise(ser_index_summary *summary, const files_job *job) {
  const ser_manifest *manifest = job->manifest;
  summary->rows = manifest->count;
  summary->hashed = atomic_load(&job->hashed);
  tell_corpora(&summary->notes, manifest, job->options->emotions);
  for (size_t i = 0; i < manifest->count; i++) {
    const ser_row *row = manifest->rows + i;
    summary->filtered += row->status == SER_FILTERED;
    summary->refused += row->status == SER_REFUSED;
  }
}

/* Writes what has been found out up to now; of files whose turn has not come, what was known before. */
static ser_status keep_so_far(const files_job *job, ser_error *err) {
  ser_manifest some = {.rows = ser_alloc_zero(job->manifest->count, sizeof *some.rows)}; /* borrowed rows */
  for (size_t i = 0; i < job->manifest->count; i++)
    if (job->done[i])
      some.rows[some.count++] = job->manifest->rows[i];
    else if (job->before[i])
      some.rows[some.count++] = *job->before[i];
  ser_status status = partial_write(&some, job->options->keep, err);
  free(some.rows);
  return status;
}

static ser_status read_files(files_job *job, ser_pool *pool, ser_error *err) {
  enum { SPAN = 256 }; /* files between looks at the clock */
  size_t count = job->manifest->count;
  ser_status status = SER_OK;
  time_t kept = time(NULL);
  for (; job->first < count && status == SER_OK; job->first += SPAN) {
    size_t left = count - job->first;
    ser_pool_run_dynamic(pool, left < SPAN ? left : SPAN, index_file, job);
    status = ser_interrupt_check(err);
    if (status == SER_OK && job->options->keep && difftime(time(NULL), kept) >= job->options->keep_every) {
      status = keep_so_far(job, err);
      kept = time(NULL);
    }
  }
  if (status == SER_INTERRUPTED && job->options->keep) keep_so_far(job, NULL);
  return status;
}

static ser_status look_at_files(ser_manifest *manifest, ser_index_summary *summary, const ser_index_options *options,
                                const ser_manifest *before, ser_error *err) {
  size_t count = manifest->count;
  files_job job = {.manifest = manifest,
                   .options = options,
                   .before = ser_alloc_zero(count, sizeof *job.before),
                   .done = ser_alloc_zero(count, sizeof *job.done)};
  ser_manifest so_far;
  ser_manifest_init(&so_far);
  if (options->keep) partial_read(&so_far, options->keep);
  match_before(job.before, manifest, before);
  match_before(job.before, manifest, &so_far); /* which is the newer, but not judged */
  job.mode = mode_of(job.before, count);
  ser_pool *pool = ser_pool_create(options->jobs > 0 ? options->jobs : ser_cores());
  job.progress = ser_progress_begin("index", "files", (int64_t)count);
  ser_status status = read_files(&job, pool, err);
  ser_progress_end(job.progress);
  ser_pool_free(pool);
  if (status == SER_OK) summarise(summary, &job);
  ser_manifest_free(&so_far);
  free(job.before);
  free(job.done);
  return status;
}

static void fill_extra(ser_manifest *manifest) {
  for (size_t i = 0; i < manifest->count; i++) {
    ser_row *row = manifest->rows + i;
    if (row->extra) continue;
    row->extra = ser_alloc_zero(manifest->extra_columns + 1, sizeof *row->extra);
    for (size_t c = 0; c < manifest->extra_columns; c++) row->extra[c] = ser_strdup("");
  }
}

ser_status ser_index(ser_manifest *manifest, ser_index_summary *summary, const ser_index_options *options,
                     const ser_manifest *before, ser_error *err) {
  const char *csv = options->roots[SER_CSV];
  ser_manifest_init(manifest);
  memset(summary, 0, sizeof *summary);
  ser_status status = SER_OK;
  for (int i = 0; i < SER_CORPORA; i++)
    if (loaders[i]) SER_TRY_DONE(load_corpus(manifest, summary, loaders[i], options->roots[i], err));
  if (csv && *csv) SER_TRY_DONE(lab_load(manifest, summary, csv, err));
  if (!manifest->count) {
    status = ser_fail(err, SER_USAGE, "nothing to index: no corpus is named");
    goto done;
  }
  SER_TRY_DONE(sort_rows(manifest, summary, csv, err));
  SER_TRY_DONE(look_at_files(manifest, summary, options, before, err));
  fill_extra(manifest);
done:
  if (status != SER_OK) {
    ser_manifest_free(manifest);
    free(summary->notes.data);
    memset(summary, 0, sizeof *summary);
  }
  return status;
}
