/* The audit: judges each distinct file once (judge.c), then looks across files: the same audio (bytes, or samples)
 * under one label or several, under one speaker's name or several.
 *
 * A verdict is kept for as long as the bytes are the same. Relations are found anew each time: by bytes from the
 * manifest's hashes, by samples among the files decoded in this run and those that MANIFEST.heard remembers; a file
 * whose relation neither explains is decoded again, and so is every other file that could have the same samples as one
 * decoded now (same rate and length).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <jansson.h>

#include "base/interrupt.h"
#include "base/log.h"
#include "base/threads.h"
#include "corpus/heard.h"
#include "corpus/judge.h"

/* Rows with the same bytes. */
typedef struct {
  size_t first, count; /* in audit.order */
  bool decode;         /* in this run */
  bool decoded;
  bool remembered;   /* found.samples are known from before, the rest of found is not */
  verdict found;     /* where decoded */
  bool recalled;     /* a row of it was judged before */
  ser_reason own;    /* what the file is by itself: NONE, silent, clipped or a refusal */
  size_t set;        /* groups of the same audio have the same one: the lowest of them */
  ser_status status; /* of judging, with its error */
  ser_error err;
} group;

typedef struct {
  ser_manifest *manifest;
  size_t *order; /* [rows] by hash, then path */
  group *groups;
  size_t group_count;
  size_t *group_of; /* [rows] */
  ser_progress *progress;
  bool *stale;               /* [rows] changed since the index: hashed anew */
  size_t *members;           /* [rows] row numbers, those of one set side by side, by path */
  size_t *set_at, *set_size; /* [rows] where a row's set begins in members, and how many rows it has */
  const ser_audit_options *options;
} audit;

static const ser_hash no_hash;

static bool relational(ser_reason reason) {
  return reason == SER_REASON_DUPLICATE || reason == SER_REASON_LABEL_CONFLICT || reason == SER_REASON_SPEAKER_CONFLICT;
}

/* ---- files that changed behind the manifest's back ---- */

static void refresh_row(void *context, size_t i, int thread) {
  audit *all = context;
  ser_row *row = all->manifest->rows + i;
  struct stat info;
  ser_error err = {0};
  (void)thread;
  if (ser_interrupted()) return;
  bool there = stat(row->path, &info) == 0;
  int64_t mtime = there ? (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec : -1;
  if (there && info.st_size == row->size && mtime == row->mtime_ns && ser_hash_compare(&row->hash, &no_hash)) return;
  ser_hash before = row->hash;
  row->size = there ? info.st_size : -1;
  row->mtime_ns = mtime;
  if (!there || ser_hash_file(&row->hash, row->path, &err) != SER_OK) row->hash = no_hash;
  if (!ser_hash_compare(&row->hash, &before) && ser_hash_compare(&row->hash, &no_hash)) return; /* touched, the same */
  row_forget(row);
  all->stale[i] = true;
}

/* ---- groups of the same bytes ---- */

/* qsort_r's order: hash, then path. Rows without a hash stand alone. */
static int compare_rows(const void *a, const void *b, void *context) {
  const ser_row *rows = context, *x = rows + *(const size_t *)a, *y = rows + *(const size_t *)b;
  int order = ser_hash_compare(&x->hash, &y->hash);
  return order ? order : strcmp(x->path, y->path);
}

static void make_groups(audit *all) {
  const ser_manifest *manifest = all->manifest;
  for (size_t i = 0; i < manifest->count; i++) all->order[i] = i;
  qsort_r(all->order, manifest->count, sizeof *all->order, compare_rows, manifest->rows);
  for (size_t i = 0; i < manifest->count; i++) {
    const ser_row *row = manifest->rows + all->order[i];
    bool same = i && ser_hash_compare(&row->hash, &no_hash) &&
                !ser_hash_compare(&row->hash, &manifest->rows[all->order[i - 1]].hash);
    if (!same) all->groups[all->group_count++] = (group){.first = i, .set = all->group_count};
    all->groups[all->group_count - 1].count++;
    all->group_of[all->order[i]] = all->group_count - 1;
  }
}

static ser_row *row_of(const audit *all, const group *of, size_t member) {
  return all->manifest->rows + all->order[of->first + member];
}

/* ---- relations of one set of rows with the same audio ---- */

typedef struct {
  bool labels, speakers; /* do they differ */
  size_t first;          /* the row that stays: first path in byte order */
} relation;

static int compare_members(const void *a, const void *b, void *context) {
  const ser_row *rows = context;
  return strcmp(rows[*(const size_t *)a].path, rows[*(const size_t *)b].path);
}

/* members: row numbers; sorted by path on return. */
static relation relate(const audit *all, size_t *members, size_t count) {
  const ser_row *rows = all->manifest->rows;
  const char *speaker = "";
  qsort_r(members, count, sizeof *members, compare_members, all->manifest->rows);
  relation found = {.first = members[0]};
  for (size_t i = 0; i < count; i++) {
    const ser_row *row = rows + members[i];
    found.labels |= row->emotion != rows[members[0]].emotion;
    found.speakers |= *speaker && *row->speaker && strcmp(speaker, row->speaker);
    if (*row->speaker) speaker = row->speaker;
  }
  return found;
}

static ser_reason relation_reason(const relation *found, size_t row) {
  if (found->labels) return SER_REASON_LABEL_CONFLICT;
  if (row != found->first) return SER_REASON_DUPLICATE;
  return found->speakers ? SER_REASON_SPEAKER_CONFLICT : SER_REASON_NONE;
}

/* ---- sets of the same audio ---- */

/* Has it samples that are known, and a sound to compare? */
static bool sounds(const group *of) {
  return (of->decoded || of->remembered) && !reason_refuses(of->own) && of->own != SER_REASON_SILENT;
}

static int compare_samples(const void *a, const void *b, void *context) {
  const group *groups = context;
  size_t x = *(const size_t *)a, y = *(const size_t *)b;
  int order = ser_hash_compare(&groups[x].found.samples, &groups[y].found.samples);
  return order ? order : (x > y) - (x < y);
}

static void join_same_samples(audit *all) {
  size_t *sounding = ser_alloc_zero(all->group_count, sizeof *sounding), count = 0;
  for (size_t i = 0; i < all->group_count; i++) {
    all->groups[i].set = i;
    if (sounds(all->groups + i)) sounding[count++] = i;
  }
  if (count) qsort_r(sounding, count, sizeof *sounding, compare_samples, all->groups);
  for (size_t i = 1; i < count; i++) {
    const group *before = all->groups + sounding[i - 1];
    group *of = all->groups + sounding[i];
    if (!ser_hash_compare(&before->found.samples, &of->found.samples)) of->set = before->set;
  }
  free(sounding);
}

static int compare_sets(const void *a, const void *b, void *context) {
  const audit *all = context;
  size_t x = *(const size_t *)a, y = *(const size_t *)b;
  size_t sx = all->groups[all->group_of[x]].set, sy = all->groups[all->group_of[y]].set;
  return sx != sy ? (sx > sy) - (sx < sy) : (x > y) - (x < y);
}

/* Calls body for each set: its rows are members[at .. end). */
static void each_set(audit *all, void (*body)(audit *all, size_t at, size_t end)) {
  size_t rows = all->manifest->count, *members = all->members;
  for (size_t i = 0; i < rows; i++) members[i] = i;
  if (rows) qsort_r(members, rows, sizeof *members, compare_sets, all);
  for (size_t at = 0, end; at < rows; at = end) {
    size_t set = all->groups[all->group_of[members[at]]].set;
    for (end = at; end < rows && all->groups[all->group_of[members[end]]].set == set;) end++;
    body(all, at, end);
  }
}

/* ---- what must be decoded ---- */

/* Takes over what the rows of a set were judged to be. Where that is not known of one of its files, or where verdicts
 * are not those of the set as it is now (a row or a label has gone or changed), all of it is decoded. */
static void recall_set(audit *all, size_t at, size_t end) {
  const size_t *members = all->members;
  bool explained = true, unknown = false;
  relation now = relate(all, all->members + at, end - at);
  for (size_t m = at; m < end; m++) {
    const ser_row *row = all->manifest->rows + members[m];
    group *of = all->groups + all->group_of[members[m]];
    if (!row_judged(row)) continue;
    if (relational(row->reason) && relation_reason(&now, members[m]) != row->reason) explained = false;
    if (!relational(row->reason)) of->own = row->reason;
    of->recalled = true; /* of a relation: neither refused nor silent, and whether it is clipped does not show */
  }
  for (size_t m = at; m < end; m++) unknown |= !all->groups[all->group_of[members[m]]].recalled;
  for (size_t m = at; m < end; m++)
    all->groups[all->group_of[members[m]]].decode = all->options->again || unknown || !explained;
}

/* Finds out what is known of every file, and asks for decoding the others. */
static void recall(audit *all) {
  heard_table heard = {0};
  if (all->options->heard && !all->options->again) heard_read(&heard, all->options->heard);
  for (size_t i = 0; i < all->group_count; i++) {
    group *of = all->groups + i;
    const ser_hash *samples = heard_find(&heard, &row_of(all, of, 0)->hash);
    of->remembered = samples != NULL;
    if (samples) of->found.samples = *samples;
  }
  free(heard.sounds);
  join_same_samples(all);
  each_set(all, recall_set);
}

/* Remembers the sounds that files of unlike bytes have in common. */
static void remember(const audit *all) {
  heard_table heard = {.sounds = ser_alloc_zero(all->group_count, sizeof *heard.sounds)};
  size_t *files = ser_alloc_zero(all->group_count, sizeof *files); /* of each set */
  for (size_t i = 0; i < all->group_count; i++) files[all->groups[i].set]++;
  for (size_t i = 0; i < all->group_count; i++) { /* which is in the order of their hashes */
    const group *of = all->groups + i;
    const ser_hash *bytes = &row_of(all, of, 0)->hash;
    if (files[of->set] > 1 && ser_hash_compare(bytes, &no_hash))
      heard.sounds[heard.count++] = (heard_sound){*bytes, of->found.samples};
  }
  heard_write(&heard, all->options->heard);
  free(files);
  free(heard.sounds);
}

static void judge_group(void *context, size_t task, int thread) {
  audit *all = context;
  group *of = all->groups + task;
  (void)thread;
  if (!of->decode || of->decoded || ser_interrupted()) return;
  of->status = judge_file(&of->found, row_of(all, of, 0)->path, &of->err); /* the bytes of the others are the same */
  of->own = of->found.reason;
  of->decoded = of->status == SER_OK;
  ser_progress_add(all->progress, 1);
}

typedef struct {
  int32_t rate;
  int64_t frames;
} extent;

static int compare_extents(const void *a, const void *b) {
  const extent *x = a, *y = b;
  if (x->rate != y->rate) return x->rate < y->rate ? -1 : 1;
  return (x->frames > y->frames) - (x->frames < y->frames);
}

/* Asks for the files whose samples may equal those of a file that was decoded now. */
static void ask_for_partners(audit *all) {
  extent *extents = ser_alloc_zero(all->group_count, sizeof *extents);
  size_t count = 0;
  for (size_t i = 0; i < all->group_count; i++) {
    const group *of = all->groups + i;
    if (of->decoded && !reason_refuses(of->own) && of->own != SER_REASON_SILENT)
      extents[count++] = (extent){of->found.info.rate, of->found.info.frames};
  }
  if (count) qsort(extents, count, sizeof *extents, compare_extents);
  for (size_t i = 0; i < all->group_count && count; i++) {
    group *of = all->groups + i;
    const ser_row *row = row_of(all, of, 0);
    if (of->decode || of->remembered || reason_refuses(of->own) || of->own == SER_REASON_SILENT) continue;
    of->decode = bsearch(&(extent){row->rate, row->frames}, extents, count, sizeof *extents, compare_extents);
  }
  free(extents);
}

/* ---- findings ---- */

static const char *words_for(ser_reason reason) {
  switch (reason) {
  case SER_REASON_SILENT:
    return "silent";
  case SER_REASON_CLIPPED:
    return "clipped";
  case SER_REASON_DUPLICATE:
    return "the same audio as the first of the others, which stays";
  case SER_REASON_LABEL_CONFLICT:
    return "the same audio under unlike labels";
  case SER_REASON_SPEAKER_CONFLICT:
    return "the same audio under unlike names of speakers";
  default:
    return "";
  }
}

/* JSON is UTF-8: other bytes of a path are shown as question marks. */
static json_t *json_text(const char *bytes) {
  json_t *text = json_string(bytes);
  if (text) return text;
  char *plain = ser_strdup(bytes);
  for (char *at = plain; *at; at++)
    if ((unsigned char)*at >= 0x80) *at = '?';
  text = json_string(plain);
  free(plain);
  return text;
}

static void add_finding(json_t *findings, const audit *all, size_t i, const size_t *members, size_t count) {
  const ser_row *rows = all->manifest->rows, *row = rows + i;
  const group *of = all->groups + all->group_of[i];
  json_t *others = json_array();
  ser_text detail = {0};
  bool told = of->decoded && of->found.reason == row->reason && of->found.detail[0];
  char words[256];
  if (!told && reason_refuses(row->reason)) ser_row_refusal(words, row); /* judged before: its reason is heard again */
  ser_text_puts(&detail, told ? of->found.detail : reason_refuses(row->reason) ? words : words_for(row->reason));
  if (row->reason == SER_REASON_LABEL_CONFLICT || row->reason == SER_REASON_SPEAKER_CONFLICT)
    for (size_t m = 0; m < count; m++)
      ser_text_printf(&detail, "%s%s", m ? ", " : ": ",
                      row->reason == SER_REASON_LABEL_CONFLICT ? ser_emotion_names[rows[members[m]].emotion]
                                                               : rows[members[m]].speaker);
  for (size_t m = 0; m < count && relational(row->reason); m++)
    if (members[m] != i) json_array_append_new(others, json_text(rows[members[m]].path));
  json_array_append_new(findings, json_pack("{s:s, s:s, s:o, s:o, s:o}", "reason", ser_reason_name(row->reason),
                                            "status", ser_row_status_names[row->status], "path", json_text(row->path),
                                            "detail", json_text(detail.data), "others", others));
  free(detail.data);
}

/* ---- the whole ---- */

/* What the decoder counted is truer than what the header said. */
static void take_info(ser_row *row, const group *of, bool stale) {
  const ser_audio_info *info = &of->found.info;
  if (!of->decoded || (reason_refuses(of->own) && !stale)) return;
  row->rate = info->rate > 0 ? info->rate : -1;
  row->channels = info->rate > 0 ? info->channels : -1;
  row->frames = info->rate > 0 ? info->frames : -1;
  row->seconds = info->rate > 0 ? (double)info->frames / info->rate : -1;
}

static void count_row(ser_audit_summary *summary, const ser_row *row) {
  summary->rows++;
  summary->ok += row->status == SER_ROW_OK;
  summary->filtered += row->status == SER_FILTERED;
  summary->excluded += row->status == SER_EXCLUDED;
  summary->refused += row->status == SER_REFUSED;
  summary->by_reason[row->reason]++;
}

static void settle_set(audit *all, size_t at, size_t end) {
  const size_t *members = all->members;
  relation found = relate(all, all->members + at, end - at);
  for (size_t m = at; m < end; m++) {
    ser_row *row = all->manifest->rows + members[m];
    const group *of = all->groups + all->group_of[members[m]];
    all->set_at[members[m]] = at;
    all->set_size[members[m]] = end - at;
    if (of->decode && !of->decoded) { /* interrupted before its turn */
      row_forget(row);
      continue;
    }
    bool alone = reason_refuses(of->own) || of->own == SER_REASON_SILENT;
    ser_reason reason = alone ? of->own : relation_reason(&found, members[m]);
    take_info(row, of, all->stale[members[m]]);
    row_judge(row, reason == SER_REASON_NONE ? of->own : reason, all->options->mode);
    if (of->decoded && of->found.info.passing) row->hash = no_hash; /* the bytes were not heard: again next time */
  }
}

/* Sets every row's status and reason from what has been decoded and recalled so far. */
static void settle(audit *all) {
  ask_for_partners(all); /* those that still have to be decoded count as new: their verdicts must wait */
  join_same_samples(all);
  each_set(all, settle_set);
}

/* Counts, and the findings in the order of the rows, once all rows are settled. */
static void summarise(const audit *all, ser_audit_summary *summary) {
  json_t *findings = json_array();
  for (size_t i = 0; i < all->manifest->count; i++) {
    const ser_row *row = all->manifest->rows + i;
    count_row(summary, row);
    if (row->reason != SER_REASON_NONE) add_finding(findings, all, i, all->members + all->set_at[i], all->set_size[i]);
  }
  summary->same_as = ser_alloc_zero(all->manifest->count, sizeof *summary->same_as);
  for (size_t i = 0; i < all->manifest->count; i++) {
    const size_t *set = all->members + all->set_at[i];
    bool related = relational(all->manifest->rows[i].reason) && all->set_size[i] > 1;
    summary->same_as[i] = !related ? i : set[0] != i ? set[0] : set[1]; /* sets are sorted by path */
  }
  summary->findings_json = json_dumps(findings, JSON_INDENT(1));
  SER_CHECK(summary->findings_json != NULL);
  json_decref(findings);
  for (size_t i = 0; i < all->group_count; i++) summary->decoded += all->groups[i].decoded;
}

/* What has been judged so far, as an interruption would leave it, is written to `keep`: a kill loses seconds. */
static ser_status keep_so_far(audit *all, ser_error *err) {
  settle(all);
  return ser_manifest_write(all->manifest, all->options->keep, err);
}

typedef struct {
  audit *all;
  size_t first;
} judge_span;

static void judge_in_span(void *context, size_t task, int thread) {
  const judge_span *span = context;
  judge_group(span->all, span->first + task, thread);
}

static ser_status judge_groups(audit *all, ser_pool *pool, const char *stage, ser_error *err) {
  enum { SPAN = 256 }; /* groups between looks at the clock */
  int64_t count = 0;
  for (size_t i = 0; i < all->group_count; i++) count += all->groups[i].decode && !all->groups[i].decoded;
  if (!count) return SER_OK;
  ser_status status = SER_OK;
  all->progress = ser_progress_begin(stage, "files", count);
  time_t kept = time(NULL);
  for (size_t first = 0; first < all->group_count && status == SER_OK; first += SPAN) {
    judge_span span = {all, first};
    size_t left = all->group_count - first;
    ser_pool_run_dynamic(pool, left < SPAN ? left : SPAN, judge_in_span, &span);
    status = ser_interrupt_check(err);
    for (size_t i = first; i < first + SPAN && i < all->group_count && status == SER_OK; i++)
      if (all->groups[i].status != SER_OK) status = ser_fail(err, all->groups[i].status, "%s", all->groups[i].err.text);
    if (status == SER_OK && all->options->keep && difftime(time(NULL), kept) >= all->options->keep_every) {
      status = keep_so_far(all, err);
      kept = time(NULL);
    }
  }
  ser_progress_end(all->progress);
  return status;
}

ser_status ser_audit(ser_manifest *manifest, ser_audit_summary *summary, const ser_audit_options *options,
                     ser_error *err) {
  size_t rows = manifest->count;
  memset(summary, 0, sizeof *summary);
  audit all = {.manifest = manifest,
               .options = options,
               .order = ser_alloc_zero(rows, sizeof *all.order),
               .groups = ser_alloc_zero(rows, sizeof *all.groups),
               .group_of = ser_alloc_zero(rows, sizeof *all.group_of),
               .stale = ser_alloc_zero(rows, sizeof *all.stale),
               .members = ser_alloc_zero(rows, sizeof *all.members),
               .set_at = ser_alloc_zero(rows, sizeof *all.set_at),
               .set_size = ser_alloc_zero(rows, sizeof *all.set_size)};
  ser_pool *pool = ser_pool_create(options->jobs > 0 ? options->jobs : ser_cores());
  ser_status status = SER_OK;
  ser_pool_run_dynamic(pool, rows, refresh_row, &all);
  SER_TRY_DONE(ser_interrupt_check(err));
  make_groups(&all);
  recall(&all);
  status = judge_groups(&all, pool, "audit", err);
  if (status != SER_OK && status != SER_INTERRUPTED) goto done;
  ask_for_partners(&all);
  if (status == SER_OK) status = judge_groups(&all, pool, "audit: possible copies", err);
  if (status != SER_OK && status != SER_INTERRUPTED) goto done;
  settle(&all); /* interrupted: those asked for are judged anew next time, beside what was decoded now */
  if (status == SER_OK) summarise(&all, summary);
  if (status == SER_OK && options->heard) remember(&all);
  if (status != SER_OK && options->keep) ser_manifest_write(manifest, options->keep, NULL);
done:
  ser_pool_free(pool);
  free(all.order);
  free(all.groups);
  free(all.group_of);
  free(all.stale);
  free(all.members);
  free(all.set_at);
  free(all.set_size);
  return status;
}

void ser_audit_summary_free(ser_audit_summary *summary) {
  free(summary->same_as);
  free(summary->findings_json);
  memset(summary, 0, sizeof *summary);
}
