/* The state of a run folder: run.json {version, training, epochs, trained, evaluated, models}, a lock on the folder
 * itself, and the results of other inputs, kept in earlier/.
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
#include <unistd.h>

#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "cli/stages.h"
#include "train/train.h"

enum { RUN_VERSION = 1 };

/* ---- run.json ---------------------------------------------------------------------------------------------------- */

static void take_text(char out[SER_HASH_HEX], const json_t *root, const char *key) {
  const char *text = json_string_value(json_object_get(root, key));
  ser_hash hash;
  if (text && ser_hash_parse(&hash, text)) memcpy(out, text, SER_HASH_HEX);
}

static ser_status read_state(cli_run *run, const char *path, ser_error *err) {
  char *data = NULL;
  size_t size = 0;
  SER_TRY(ser_file_read(&data, &size, path, err));
  json_t *root = json_loadb(data, size, 0, NULL);
  json_int_t version = json_integer_value(json_object_get(root, "version"));
  ser_status status = SER_OK;
  if (!root || version < 1)
    status = ser_fail(err, SER_FAILED, "%s is damaged; delete it, and what is done will be judged anew", path);
  else if (version > RUN_VERSION)
    status = ser_fail(err, SER_FAILED,
                      "%s is of version %lld, this Serenade knows %d; use a newer Serenade, or another "
                      "folder",
                      path, (long long)version, RUN_VERSION);
  take_text(run->training, root, "training");
  run->epochs = json_integer_value(json_object_get(root, "epochs"));
  take_text(run->trained, root, "trained");
  take_text(run->evaluated, root, "evaluated");
  run->models = json_integer_value(json_object_get(root, "models"));
  json_decref(root);
  free(data);
  return status;
}

ser_status cli_run_save(const cli_run *run, ser_error *err) {
  ser_text text = {0};
  char *path = ser_path_join(run->folder, "run.json");
  ser_text_printf(&text,
                  "{\n  \"version\": %d,\n  \"training\": \"%s\",\n  \"epochs\": %lld,\n  \"trained\": \"%s\",\n  "
                  "\"evaluated\": \"%s\",\n"
                  "  \"models\": %lld\n}\n",
                  RUN_VERSION, run->training, (long long)run->epochs, run->trained, run->evaluated,
                  (long long)run->models);
  ser_status status = ser_file_write(path, text.data, text.size, err);
  free(path);
  free(text.data);
  return status;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* What a write that was killed left beside the file that it was to become, and an index that was cut off. */
static bool left_over(const char *name) {
  return strstr(name, ".tmp-") || !strcmp(name, "manifest.csv.partial");
}

static bool holds(const char *folder, const char *name) {
  char *path = ser_path_join(folder, name);
  bool there = ser_file_exists(path);
  free(path);
  return there;
}

ser_status cli_run_open(cli_run *run, const char *folder, bool *fresh, ser_error *err) {
  ser_status status = SER_OK;
  char **names = NULL;
  size_t count = 0, others = 0;
  char *state = ser_path_join(folder, "run.json");
  memset(run, 0, sizeof *run);
  run->folder = folder;
  run->lock = -1;
  if (ser_file_exists(folder) && !ser_is_folder(folder)) {
    status = ser_fail(err, SER_USAGE, "%s is a file, but -o names the folder of a run; name another", folder);
    goto done;
  }
  SER_TRY_DONE(ser_make_folders(folder, err));
  SER_TRY_DONE(ser_folder_names(&names, &count, folder, err));
  bool known = holds(folder, "run.json") || holds(folder, "config.yaml") || holds(folder, "manifest.csv");
  for (size_t i = 0; i < count; i++) others += !left_over(names[i]);
  if (others && !known) {
    status = ser_fail(err, SER_USAGE, "%s is not empty and no run of Serenade's; name a new folder", folder);
    goto done;
  }
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
  if (ser_file_exists(state)) SER_TRY_DONE(read_state(run, state, err));
  if (fresh) *fresh = !*run->training && !holds(folder, "config.yaml");
done:
  ser_names_free(names, count);
  free(state);
  if (status != SER_OK) cli_run_close(run);
  return status;
}

void cli_run_close(cli_run *run) {
  if (run->lock >= 0) close(run->lock); /* which unlocks */
  run->lock = -1;
}

/* ---- what results depend on -------------------------------------------------------------------------------------- */

static void replace(char **text, const char *by) {
  char *copy = ser_strdup(by);
  free(*text);
  *text = copy;
}

/* Sets to the defaults what changes no result: places, devices, workers, the features that the model does not read,
 * and what the manifest's rows or predict already show. */
static ser_status neutral_config(ser_config *config, ser_error *err) {
  ser_config plain;
  ser_config_init(&plain);
  char **places[] = {&config->corpora.ravdess, &config->corpora.cremad, &config->corpora.tess,
                     &config->corpora.savee,   &config->corpora.csv,    &config->cache_dir};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) replace(places[i], "");
  config->audit = plain.audit;
  config->device = plain.device;
  config->threads = plain.threads;
  config->jobs = plain.jobs;
  config->train.epochs = plain.train.epochs;
  if (config->features.kind != SER_MFCC39) config->features.mfcc39 = plain.features.mfcc39;
  if (config->features.kind != SER_TIMNET) config->features.timnet = plain.features.timnet;
  ser_config_free(&plain);
  if (!*config->split.file) return SER_OK;
  ser_hash hash;
  char hex[SER_HASH_HEX];
  SER_TRY(ser_hash_file(&hash, config->split.file, err));
  ser_hash_hex(hex, &hash);
  replace(&config->split.file, hex);
  return SER_OK;
}

ser_status cli_training_inputs(char hex[SER_HASH_HEX], const ser_config *config, const ser_manifest *manifest,
                               ser_error *err) {
  ser_text text = {0};
  ser_config neutral;
  ser_config_copy(&neutral, config);
  ser_status status = neutral_config(&neutral, err);
  if (status == SER_OK) ser_config_write(&text, &neutral);
  ser_config_free(&neutral);
  ser_manifest_usable_text(&text, manifest);
  ser_hash hash = ser_hash_bytes(text.data, text.size);
  ser_hash_hex(hex, &hash);
  free(text.data);
  return status;
}

typedef struct {
  const char *folder;
  ser_text text;
  int64_t count;
  bool complete;
} model_walk;

static ser_status visit_model(void *context, const char *path, ser_error *err) {
  static const char *const reports[] = {"report.json", "report.txt", "predictions.csv", "confusion.png",
                                        "confusion.svg"};
  model_walk *walk = context;
  const char *inside = path + strlen(walk->folder) + 1;
  if (strcmp(ser_path_name(path), "model.safetensors") || !strncmp(inside, "earlier/", 8)) return SER_OK;
  ser_hash hash;
  char hex[SER_HASH_HEX];
  SER_TRY(ser_hash_file(&hash, path, err));
  ser_hash_hex(hex, &hash);
  ser_text_printf(&walk->text, "%s %s\n", hex, inside);
  walk->count++;
  char *folder = ser_path_folder(path);
  for (size_t i = 0; i < sizeof reports / sizeof *reports; i++)
    walk->complete = walk->complete && holds(folder, reports[i]);
  free(folder);
  return SER_OK;
}

ser_status cli_models(char hex[SER_HASH_HEX], int64_t *count, bool *complete, const char *folder, ser_error *err) {
  model_walk walk = {.folder = folder, .complete = holds(folder, "report.json")};
  ser_status status = ser_walk(folder, visit_model, &walk, err);
  ser_hash hash = ser_hash_bytes(walk.text.data, walk.text.size);
  ser_hash_hex(hex, &hash);
  *count = walk.count;
  *complete = walk.complete && walk.count;
  free(walk.text.data);
  return status;
}

typedef struct {
  const char *folder;
  char split[SER_HASH_HEX];
  bool fits;
} split_walk;

static ser_status visit_split(void *context, const char *path, ser_error *err) {
  split_walk *walk = context;
  ser_model_info model;
  if (strcmp(ser_path_name(path), "model.safetensors")) return SER_OK;
  if (!strncmp(path + strlen(walk->folder) + 1, "earlier/", 8)) return SER_OK;
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

/* ---- results of other inputs ------------------------------------------------------------------------------------- */

/* What belongs to RUN whatever is trained there. */
static bool stays(const char *name) {
  static const char *const names[] = {"run.json", "manifest.csv", "cache", "earlier"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!strcmp(name, names[i])) return true;
  return left_over(name);
}

static ser_status move_results(const char *to, const char *from, size_t *moved, ser_error *err) {
  char **names = NULL;
  size_t count = 0;
  *moved = 0;
  ser_status status = ser_folder_names(&names, &count, from, err);
  for (size_t i = 0; i < count && status == SER_OK; i++) {
    if (stays(names[i])) continue;
    char *old = ser_path_join(from, names[i]), *new = ser_path_join(to, names[i]);
    status = ser_make_folders(to, err);
    if (status == SER_OK) status = ser_file_rename(old, new, err);
    if (status == SER_OK) ++*moved;
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
  if (!strncmp(path + strlen(walk->folder) + 1, "earlier/", 8)) return SER_OK;
  if (!strcmp(ser_path_name(path), "checkpoint")) SER_TRY(ser_checkpoint_epochs(&epochs, path, err));
  if (epochs > walk->epochs) walk->epochs = epochs;
  if (strcmp(ser_path_name(path), "model.safetensors")) return SER_OK;
  char *folder = ser_path_folder(path);
  walk->unknown = walk->unknown || !holds(folder, "checkpoint");
  free(folder);
  return SER_OK;
}

ser_status cli_run_compare(bool *fits, cli_run *run, const char inputs[SER_HASH_HEX], int64_t epochs, ser_error *err) {
  run->reached = run->epochs;
  *fits = !*run->training;
  if (strcmp(run->training, inputs)) return SER_OK;
  if (run->epochs > epochs) {
    reach_walk walk = {.folder = run->folder};
    SER_TRY(ser_walk(run->folder, visit_reach, &walk, err));
    if (!walk.unknown) run->reached = walk.epochs;
  }
  *fits = run->reached <= epochs;
  return SER_OK;
}

ser_status cli_run_turn_to(cli_run *run, const char inputs[SER_HASH_HEX], int64_t epochs, ser_error *err) {
  size_t moved = 0;
  bool fits;
  ser_status status = SER_OK;
  char *old = earlier_folder(run, run->training, run->epochs), *kept = earlier_folder(run, inputs, epochs);
  if (strcmp(run->training, inputs) || run->epochs != epochs) {
    SER_TRY_DONE(cli_run_compare(&fits, run, inputs, epochs, err));
    if (!*run->training || !fits || ser_is_folder(kept)) SER_TRY_DONE(move_results(old, run->folder, &moved, err));
    if (moved && !strcmp(run->training, inputs))
      ser_info("train: another number of epochs is asked for; the results of %lld are kept in %s",
               (long long)run->reached, old);
    else if (moved)
      ser_info("train: the inputs have changed; the results of the old ones are kept in %s", old);
    memcpy(run->training, inputs, SER_HASH_HEX);
    run->epochs = epochs;
    run->trained[0] = run->evaluated[0] = 0;
    run->models = 0;
    SER_TRY_DONE(cli_run_save(run, err));
  }
  if (ser_is_folder(kept)) {
    SER_TRY_DONE(move_results(run->folder, kept, &moved, err));
    rmdir(kept);
    if (moved) ser_info("train: results of these inputs were kept from before and are taken back");
  }
done:
  free(old);
  free(kept);
  return status;
}
