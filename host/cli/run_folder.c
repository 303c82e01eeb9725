/* The state of a run folder: run.json {version, training, recipe, epochs, trained, named, evaluated, reports, finished,
 * config, notes, models}, a lock on the folder itself, and the results of other inputs, kept in earlier/.
 *
 * Results never stand beside a run.json that names other inputs: they are moved out first, then run.json is written,
 * then results of the new inputs that were moved out before come back. A kill between any two renames leaves a state
 * from which the same steps go on. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "cache/cache.h"
#include "cli/stages.h"
#include "train/train.h"

enum { RUN_VERSION = 1 };

/* ---- run.json ---------------------------------------------------------------------------------------------------- */

static void take_text(char out[SER_HASH_HEX], const json_t *root, const char *key) {
  const char *text = json_string_value(json_object_get(root, key));
  ser_hash hash;
  if (text && ser_hash_parse(&hash, text)) memcpy(out, text, SER_HASH_HEX);
}

/* sound: false where the file is damaged, and nothing taken from it. */
static ser_status read_state(cli_run *run, bool *sound, const char *path, ser_error *err) {
  char *data = NULL;
  size_t size = 0;
  SER_TRY(ser_file_read(&data, &size, path, err));
  json_t *root = json_loadb(data, size, 0, NULL);
  json_int_t version = json_integer_value(json_object_get(root, "version"));
  ser_status status = SER_OK;
  *sound = version >= 1;
  if (!*sound) goto done;
  if (version > RUN_VERSION)
    status = ser_fail(err, SER_FAILED,
                      "%s is of version %lld, this Serenade knows %d; use a newer Serenade, or another "
                      "folder",
                      path, (long long)version, RUN_VERSION);
  take_text(run->training, root, "training");
  take_text(run->recipe, root, "recipe");
  run->epochs = json_integer_value(json_object_get(root, "epochs"));
  take_text(run->trained, root, "trained");
  take_text(run->named, root, "named");
  take_text(run->evaluated, root, "evaluated");
  take_text(run->reports, root, "reports");
  take_text(run->finished, root, "finished");
  take_text(run->config, root, "config");
  take_text(run->notes, root, "notes");
  run->models = json_integer_value(json_object_get(root, "models"));
done:
  json_decref(root);
  free(data);
  return status;
}

ser_status cli_run_save(const cli_run *run, ser_error *err) {
  ser_text text = {0};
  char *path = ser_path_join(run->folder, "run.json");
  ser_text_printf(&text,
                  "{\n  \"version\": %d,\n  \"training\": \"%s\",\n  \"recipe\": \"%s\",\n  \"epochs\": %lld,\n"
                  "  \"trained\": \"%s\",\n  \"named\": \"%s\",\n  \"evaluated\": \"%s\",\n"
                  "  \"reports\": \"%s\",\n  \"finished\": \"%s\",\n  \"config\": \"%s\",\n"
                  "  \"notes\": \"%s\",\n  \"models\": %lld\n}\n",
                  RUN_VERSION, run->training, run->recipe, (long long)run->epochs, run->trained, run->named,
                  run->evaluated, run->reports, run->finished, run->config, run->notes, (long long)run->models);
  ser_status status = ser_file_write(path, text.data, text.size, err);
  free(path);
  free(text.data);
  return status;
}

/* ---- what belongs to whom -----------------------------------------------------------------------------------------
 */

/* What a training and its evaluation make in RUN. All else in there is the user's, or belongs to RUN whatever is
 * trained in it. */
static bool is_result(const char *name) {
  static const char *const names[] = {"config.yaml",     "split.csv",         "history.csv",  "checkpoint",
                                      "split.txt",       "model.safetensors", "report.txt",   "report.json",
                                      "predictions.csv", "confusion.png",     "confusion.svg"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!strcmp(name, names[i])) return true;
  return !strncmp(name, "seed-", 5) || !strncmp(name, "evaluate-", 9);
}

/* Whether the place is this file or lies in this folder, by whatever name. */
static bool contains(const char *path, const char *place) {
  struct stat outer, inner;
  bool found = false;
  if (!*place || stat(path, &outer) != 0) return false;
  char *at = ser_strdup(place);
  while (*at && !found) {
    char *slash = strrchr(at, '/');
    found = stat(at, &inner) == 0 && inner.st_dev == outer.st_dev && inner.st_ino == outer.st_ino;
    *(slash ? slash : at) = 0;
  }
  free(at);
  return found;
}

/* Whether the configuration reads what lies there. */
static bool is_read(const char *path, const ser_config *config) {
  for (int i = 0; i < SER_CORPORA; i++)
    if (contains(path, config->corpora[i])) return true;
  return contains(path, config->cache_dir) || contains(path, config->split.file);
}

/* Whether something was trained or evaluated in RUN: more than a configuration or a split, which may be the user's. */
static ser_status has_results(bool *has, const char *folder, const ser_config *config, ser_error *err) {
  char **names = NULL;
  size_t count = 0;
  *has = false;
  SER_TRY(ser_folder_names(&names, &count, folder, err));
  for (size_t i = 0; i < count; i++) {
    char *path = ser_path_join(folder, names[i]);
    bool input = !strcmp(names[i], "config.yaml") || !strcmp(names[i], "split.csv");
    *has = *has || (is_result(names[i]) && !input && !is_read(path, config));
    free(path);
  }
  ser_names_free(names, count);
  return SER_OK;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* What a write that was killed left beside the file that it was to become, and an index or audit that was cut off. */
static bool left_over(const char *name) {
  return strstr(name, ".tmp-") || !strcmp(name, "manifest.csv.partial") || !strcmp(name, "manifest.csv.next") ||
         !strcmp(name, "manifest.csv.heard");
}

static bool holds(const char *folder, const char *name) {
  char *path = ser_path_join(folder, name);
  bool there = ser_file_exists(path);
  free(path);
  return there;
}

/* What lies below RUN where trainings and evaluations put their files: in RUN itself or in the folders of its seeds.
 * NULL of all that lies elsewhere, as in earlier/, or in a copy that the user keeps. */
static const char *in_place(const char *folder, const char *path) {
  const char *inside = path + strlen(folder);
  while (*inside == '/') inside++;
  return !strchr(inside, '/') || !strncmp(inside, "seed-", 5) ? inside : NULL;
}

/* What run.json says; where it is missing or damaged, what RUN's other files show, which then becomes run.json. */
static ser_status learn_state(cli_run *run, const ser_config *config, ser_error *err) {
  bool sound = false, results = false, there = holds(run->folder, "run.json");
  char *path = ser_path_join(run->folder, "run.json");
  ser_status status = there ? read_state(run, &sound, path, err) : SER_OK;
  free(path);
  SER_TRY(status);
  if (sound) return SER_OK;
  if (there && !holds(run->folder, "config.yaml") && !holds(run->folder, "manifest.csv"))
    return ser_fail(err, SER_FAILED,
                    "%s/run.json is damaged, and there is neither config.yaml nor manifest.csv to judge by; name "
                    "another folder",
                    run->folder);
  SER_TRY(has_results(&results, run->folder, config, err));
  if (!results || !cli_run_judge(run)) return SER_OK;
  ser_warn("%s/run.json was %s; it is made anew from config.yaml, manifest.csv and the models there", run->folder,
           there ? "damaged" : "missing");
  return cli_run_save(run, err);
}

/* Whether a folder may become RUN: it is one, or holds nothing but caches and what this run would read and never write
 * over, as it would a split.csv. */
static ser_status may_be_ours(const char *folder, const ser_config *config, ser_error *err) {
  char **names = NULL;
  size_t count = 0, others = 0;
  if (holds(folder, "run.json") || holds(folder, "config.yaml") || holds(folder, "manifest.csv")) return SER_OK;
  SER_TRY(ser_folder_names(&names, &count, folder, err));
  for (size_t i = 0; i < count; i++) {
    char *path = ser_path_join(folder, names[i]);
    others += !left_over(names[i]) && !ser_cache_is(path) && (is_result(names[i]) || !is_read(path, config));
    free(path);
  }
  ser_names_free(names, count);
  if (!others) return SER_OK;
  return ser_fail(err, SER_USAGE, "%s is not empty and no run of Serenade's; name a new folder", folder);
}

/* Cuts the path to the folder above it, "" where it names none. */
static void cut_name(char *path) {
  size_t size = strlen(path);
  while (size && path[size - 1] == '/') size--;
  while (size && path[size - 1] != '/') size--;
  while (size > 1 && path[size - 1] == '/') size--;
  path[size] = 0;
}

/* How much of the path is there already, in bytes. */
static size_t length_there(const char *path) {
  char *at = ser_strdup(path);
  while (*at && !ser_file_exists(at)) cut_name(at);
  size_t length = strlen(at);
  free(at);
  return length;
}

ser_status cli_run_open(cli_run *run, const char *folder, const ser_config *config, bool *fresh, ser_error *err) {
  ser_status status = SER_OK;
  memset(run, 0, sizeof *run);
  run->folder = folder;
  run->lock = -1;
  run->there = length_there(folder);
  if (ser_file_exists(folder) && !ser_is_folder(folder)) {
    status = ser_fail(err, SER_USAGE, "%s is a file, but -o names the folder of a run; name another", folder);
    goto done;
  }
  SER_TRY_DONE(ser_make_folders(folder, err));
  SER_TRY_DONE(may_be_ours(folder, config, err));
  run->lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (run->lock < 0) {
    status = ser_fail_errno(err, SER_FAILED, "cannot open the folder %s", folder);
    goto done;
  }
  if (flock(run->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    status = ser_fail(err, SER_FAILED, "another serenade works in %s; wait until it is done, or name another folder",
                      folder);
    goto done;
  }
  SER_TRY_DONE(learn_state(run, config, err));
  if (fresh) *fresh = !*run->training && !holds(folder, "config.yaml");
done:
  if (status != SER_OK) cli_run_close(run);
  return status;
}

void cli_run_close(cli_run *run) {
  char *made = ser_strdup(run->folder); /* a job that failed before it wrote anything leaves no folders behind */
  while (strlen(made) > run->there && rmdir(made) == 0) cut_name(made);
  free(made);
  if (run->lock >= 0) close(run->lock); /* which unlocks */
  run->lock = -1;
}

/* ---- models and their split ---------------------------------------------------------------------------------------
 */

typedef struct {
  const char *folder;
  const char *const *names; /* of the files that count; NULL ends them */
  ser_text text;            /* their hashes and places, a line each */
  int64_t count;
} file_walk;

static ser_status visit_file(void *context, const char *path, ser_error *err) {
  file_walk *walk = context;
  const char *inside = in_place(walk->folder, path), *const *name = walk->names;
  while (*name && strcmp(ser_path_name(path), *name)) name++;
  if (!inside || !*name) return SER_OK;
  ser_hash hash;
  char hex[SER_HASH_HEX];
  SER_TRY(ser_hash_file(&hash, path, err));
  ser_hash_hex(hex, &hash);
  ser_text_printf(&walk->text, "%s %s\n", hex, inside);
  walk->count++;
  return SER_OK;
}

/* The hash of all files of these names in RUN, and how many there are. */
static ser_status hash_files(char hex[SER_HASH_HEX], int64_t *count, const char *folder, const char *const *names,
                             ser_error *err) {
  file_walk walk = {.folder = folder, .names = names};
  ser_status status = ser_walk(folder, visit_file, &walk, err);
  ser_hash hash = ser_hash_bytes(walk.text.data, walk.text.size);
  ser_hash_hex(hex, &hash);
  *count = walk.count;
  free(walk.text.data);
  return status;
}

ser_status cli_models(char hex[SER_HASH_HEX], int64_t *count, const char *folder, ser_error *err) {
  static const char *const names[] = {"model.safetensors", NULL};
  return hash_files(hex, count, folder, names, err);
}

ser_status cli_reports(char hex[SER_HASH_HEX], const char *folder, ser_error *err) {
  static const char *const names[] = {"report.json",   "report.txt",    "predictions.csv",
                                      "confusion.png", "confusion.svg", NULL};
  int64_t count;
  return hash_files(hex, &count, folder, names, err);
}

typedef struct {
  const char *folder;
  char split[SER_HASH_HEX];
  bool fits;
} split_walk;

static ser_status visit_split(void *context, const char *path, ser_error *err) {
  split_walk *walk = context;
  ser_model_info model;
  if (!in_place(walk->folder, path) || strcmp(ser_path_name(path), "model.safetensors")) return SER_OK;
  if (ser_model_load(NULL, &model, NULL, path, NULL) == SER_OK) {
    walk->fits = walk->fits && !strcmp(model.split_hash, walk->split);
    ser_model_info_free(&model);
  } else {
    walk->fits = false; /* damaged: training writes it again */
  }
  return ser_interrupt_check(err);
}

ser_status cli_split_fits(bool *fits, const char *folder, ser_error *err) {
  split_walk walk = {.folder = folder, .fits = true};
  ser_hash hash;
  *fits = holds(folder, "split.csv");
  if (!*fits) return SER_OK;
  char *path = ser_path_join(folder, "split.csv");
  ser_status status = ser_hash_file(&hash, path, err);
  free(path);
  SER_TRY(status);
  ser_hash_hex(walk.split, &hash);
  status = ser_walk(folder, visit_split, &walk, err);
  *fits = walk.fits;
  return status;
}

static ser_status visit_history(void *context, const char *path, ser_error *err) {
  split_walk *walk = context;
  (void)err;
  if (!in_place(walk->folder, path) || strcmp(ser_path_name(path), "model.safetensors")) return SER_OK;
  char *folder = ser_path_folder(path);
  if (!holds(folder, "history.csv") && holds(folder, "checkpoint")) {
    ser_info("train: %s/history.csv is missing and is written again", folder);
    walk->fits = false;
  } else if (!holds(folder, "history.csv")) {
    ser_warn("%s/history.csv is missing, and there is no checkpoint to write it again from", folder);
  }
  free(folder);
  return SER_OK;
}

/* The hash of a file in RUN, "" where it is not there. */
static ser_status hash_of(char hex[SER_HASH_HEX], const char *folder, const char *name, ser_error *err) {
  ser_hash hash;
  hex[0] = 0;
  if (!holds(folder, name)) return SER_OK;
  char *path = ser_path_join(folder, name);
  ser_status status = ser_hash_file(&hash, path, err);
  free(path);
  if (status == SER_OK) ser_hash_hex(hex, &hash);
  return status;
}

ser_status cli_files_note(cli_run *run, ser_error *err) {
  SER_TRY(hash_of(run->config, run->folder, "config.yaml", err));
  return hash_of(run->notes, run->folder, "split.txt", err);
}

/* Of a run.json that does not know how config.yaml was left, nothing is told: its files are written once more. */
static ser_status compare_file(bool *whole, const cli_run *run, const char *name, const char *left, ser_error *err) {
  char now[SER_HASH_HEX];
  SER_TRY(hash_of(now, run->folder, name, err));
  if (!strcmp(now, left) && *run->config) return SER_OK;
  *whole = false;
  if (!*now && (*left || !*run->config))
    ser_info("train: %s/%s is missing and is written again", run->folder, name);
  else if (*run->config)
    ser_info("train: %s/%s is not as the training left it and is made again", run->folder, name);
  return SER_OK;
}

ser_status cli_files_whole(bool *whole, const cli_run *run, ser_error *err) {
  split_walk walk = {.folder = run->folder, .fits = true};
  SER_TRY(compare_file(&walk.fits, run, "config.yaml", run->config, err));
  if (*run->config) SER_TRY(compare_file(&walk.fits, run, "split.txt", run->notes, err));
  ser_status status = ser_walk(run->folder, visit_history, &walk, err);
  *whole = walk.fits;
  return status;
}

/* ---- results of other inputs ------------------------------------------------------------------------------------- */

static ser_status move_results(const char *to, const char *from, const ser_config *config, size_t *moved,
                               ser_error *err) {
  char **names = NULL;
  size_t count = 0;
  *moved = 0;
  ser_status status = ser_folder_names(&names, &count, from, err);
  for (size_t i = 0; i < count && status == SER_OK; i++) {
    char *old = ser_path_join(from, names[i]), *new = ser_path_join(to, names[i]);
    if (is_result(names[i]) && !is_read(old, config)) {
      status = ser_make_folders(to, err);
      if (status == SER_OK) status = ser_file_rename(old, new, err);
      if (status == SER_OK) ++*moved;
    }
    free(old);
    free(new);
  }
  ser_names_free(names, count);
  return status;
}

/* RUN/earlier/<hash>-<epochs>; results without a run.json to tell their inputs get a new folder each time. */
static char *earlier_folder(const cli_run *run, const char *inputs, int64_t epochs) {
  char *earlier = ser_path_join(run->folder, "earlier"), *folder = NULL;
  if (*inputs) folder = ser_format("%s/%.16s-%lld", earlier, inputs, (long long)epochs);
  for (int i = 1; !*inputs && (!folder || ser_file_exists(folder)); i++) {
    free(folder);
    folder = ser_format("%s/unknown-%d", earlier, i);
  }
  free(earlier);
  return folder;
}

typedef struct {
  const char *folder;
  int64_t epochs; /* the most that a checkpoint holds */
  bool unknown;   /* there is a model without its checkpoint */
} reach_walk;

static ser_status visit_reach(void *context, const char *path, ser_error *err) {
  reach_walk *walk = context;
  int64_t epochs = 0;
  if (!in_place(walk->folder, path)) return SER_OK;
  if (!strcmp(ser_path_name(path), "checkpoint")) SER_TRY(ser_checkpoint_epochs(&epochs, path, err));
  if (epochs > walk->epochs) walk->epochs = epochs;
  if (strcmp(ser_path_name(path), "model.safetensors")) return SER_OK;
  char *folder = ser_path_folder(path);
  walk->unknown = walk->unknown || !holds(folder, "checkpoint");
  free(folder);
  return SER_OK;
}

/* Whether all that was trained in RUN are seeds that are asked for, each in its folder: then others can join them. */
static ser_status seeds_may_join(bool *may, const char *folder, const ser_config *config, ser_error *err) {
  char **names = NULL;
  size_t count = 0;
  *may = config->train.seeds.count > 1 && !holds(folder, "model.safetensors") && !holds(folder, "checkpoint");
  SER_TRY(ser_folder_names(&names, &count, folder, err));
  for (size_t i = 0; i < count; i++) {
    if (strncmp(names[i], "seed-", 5)) continue;
    bool asked = false;
    for (int64_t k = 0; k < config->train.seeds.count; k++)
      asked = asked || strtoll(names[i] + 5, NULL, 10) == config->train.seeds.values[k];
    *may = *may && asked;
  }
  ser_names_free(names, count);
  return SER_OK;
}

ser_status cli_run_compare(bool *fits, cli_run *run, const cli_inputs *inputs, const ser_config *config,
                           ser_error *err) {
  bool same = !strcmp(run->training, inputs->training), results = false;
  run->reached = run->epochs;
  if (!*run->training) SER_TRY(has_results(&results, run->folder, config, err));
  *fits = !*run->training && !results;
  if (!same && *run->training && !strcmp(run->recipe, inputs->recipe))
    SER_TRY(seeds_may_join(&same, run->folder, config, err));
  if (!same) return SER_OK;
  if (run->epochs > config->train.epochs) {
    reach_walk walk = {.folder = run->folder};
    SER_TRY(ser_walk(run->folder, visit_reach, &walk, err));
    if (!walk.unknown) run->reached = walk.epochs;
  }
  *fits = run->reached <= config->train.epochs;
  return SER_OK;
}

/* Models that were finished stay so while seeds join them: not where they were moved away, or are to have more epochs.
 */
static void keep_finished(cli_run *run, const cli_inputs *inputs, const ser_config *config, bool moved) {
  bool all = *run->trained && !strcmp(run->trained, run->training);
  bool same = !strcmp(run->recipe, inputs->recipe) && run->epochs == config->train.epochs;
  if (all && same && !moved)
    memcpy(run->finished, inputs->recipe, SER_HASH_HEX);
  else if (!same || moved)
    run->finished[0] = 0;
}

ser_status cli_run_turn_to(cli_run *run, const cli_inputs *inputs, const ser_config *config, const char *changes,
                           ser_error *err) {
  size_t moved = 0;
  bool fits, same = !strcmp(run->training, inputs->training);
  ser_status status = SER_OK;
  char *old = earlier_folder(run, run->training, run->epochs);
  char *kept = earlier_folder(run, inputs->training, config->train.epochs);
  if (!same || run->epochs != config->train.epochs) {
    SER_TRY_DONE(cli_run_compare(&fits, run, inputs, config, err));
    if (!fits || ser_is_folder(kept)) SER_TRY_DONE(move_results(old, run->folder, config, &moved, err));
    if (moved && same)
      ser_info("train: another number of epochs is asked for; the results of %lld are kept in %s",
               (long long)run->reached, old);
    else if (moved && !*run->training)
      ser_info("train: there is no sound run.json to tell what the results in %s were made from; they are kept in %s",
               run->folder, old);
    else if (moved)
      ser_info("train: the inputs have changed (%s); the results of the old ones are kept in %s", changes, old);
    keep_finished(run, inputs, config, moved > 0);
    memcpy(run->training, inputs->training, SER_HASH_HEX);
    memcpy(run->recipe, inputs->recipe, SER_HASH_HEX);
    run->epochs = config->train.epochs;
    run->trained[0] = run->named[0] = run->evaluated[0] = run->reports[0] = run->config[0] = run->notes[0] = 0;
    run->models = 0;
    SER_TRY_DONE(cli_run_save(run, err));
  }
  if (ser_is_folder(kept)) {
    SER_TRY_DONE(move_results(run->folder, kept, config, &moved, err));
    rmdir(kept);
    if (moved) ser_info("train: results of these inputs were kept from before and are taken back");
  }
done:
  free(old);
  free(kept);
  return status;
}
