/* The stages of train and run: each looks at what is done already, does the rest, and says which it was. */
#include "cli/stages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/wanted.h"
#include "cli/counts.h"
#include "device/runtime.h"
#include "features/extract.h"
#include "report/report.h"
#include "train/train.h"

/* ---- index and audit --------------------------------------------------------------------------------------------- */

/* Whether the manifest's bytes are others than those that are told; these are replaced by its own. */
static bool differs(const ser_manifest *manifest, ser_text *bytes) {
  ser_text text = {0};
  ser_manifest_text(&text, manifest);
  bool other = bytes->size != text.size || (text.size && memcmp(bytes->data, text.data, text.size));
  free(bytes->data);
  *bytes = text;
  return other;
}

/* What an index or audit that did not come to its end has found out. It takes the manifest's place once it is known
 * that the recordings are those of the run. */
static char *next_name(const char *path) {
  return ser_format("%s.next", path);
}

/* The manifest becomes the one at path, which is written only where its bytes change. */
static ser_status keep_manifest(const ser_manifest *manifest, const char *path, ser_error *err) {
  char *before = NULL, *next = next_name(path);
  size_t size = 0;
  ser_text text = {0};
  ser_status status = ser_file_exists(path) ? ser_file_read(&before, &size, path, err) : SER_OK;
  ser_manifest_text(&text, manifest);
  if (status == SER_OK && (!before || size != text.size || memcmp(before, text.data, size)))
    status = ser_manifest_write(manifest, path, err);
  if (status == SER_OK) remove(next);
  free(before);
  free(next);
  free(text.data);
  return status;
}

ser_status cli_need_corpus(const ser_config *config, ser_error *err) {
  for (int i = 0; i < SER_CORPORA; i++)
    if (*config->corpora[i]) return SER_OK;
  char *keys = ser_corpus_list("corpora.");
  ser_fail(err, SER_USAGE, "no corpus is named; give %s, as in --set corpora.%s=DIR", keys, ser_corpus_names[0]);
  free(keys);
  return SER_USAGE;
}

/* The device that is asked for; where there is none, says who asked. */
static ser_status open_device(ser_device **device, const ser_config *config, ser_error *err) {
  ser_error why = {0};
  ser_device_options asked = ser_config_device(config, (int)config->threads);
  ser_status status = ser_device_open(device, &asked, &why);
  if (status == SER_OK) {
    ser_device_tell(*device, &asked);
    return SER_OK;
  }
  ser_config_refuse(err, config, "device", "%s", why.text);
  return status;
}

ser_status cli_settle_device(ser_config *config, ser_error *err) {
  ser_device *device = NULL;
  ser_device_properties is;
  SER_TRY(open_device(&device, config, err));
  device->rt->properties(device, &is);
  config->settled = is.host_memory ? SER_DEVICE_CPU : SER_DEVICE_CUDA;
  ser_device_close(device);
  return SER_OK;
}

ser_status cli_can_begin(ser_config *config, ser_error *err) {
  if (config->split.kind == SER_SPLIT_FILE)
    SER_TRY(ser_want_file(config->split.file, "the CSV of the split as split.file", err));
  return cli_settle_device(config, err);
}

/* What is known of the recordings before: the manifest that a stage was cut off in, else the one at path. */
static ser_status read_known(ser_manifest *known, bool *there, const char *path, const char *next, ser_error *err) {
  *there = ser_file_exists(next) && ser_manifest_read(known, next, NULL) == SER_OK;
  if (*there || !ser_file_exists(path)) return SER_OK;
  *there = true;
  return ser_manifest_read(known, path, err);
}

/* bytes: those of the manifest that is kept, there or in next. */
static ser_status index_stage(ser_manifest *manifest, const ser_config *config, const char *path, const char *next,
                              ser_text *bytes, ser_error *err) {
  ser_index_options options = {
      .emotions = config->emotions, .jobs = cli_jobs(config->jobs), .keep = path, .keep_every = 5};
  ser_index_summary summary = {0};
  ser_manifest before;
  bool known = false;
  ser_status status = SER_OK;
  for (int i = 0; i < SER_CORPORA; i++) options.roots[i] = config->corpora[i];
  ser_manifest_init(&before);
  SER_TRY_DONE(read_known(&before, &known, path, next, err));
  if (known) ser_manifest_text(bytes, &before);
  SER_TRY_DONE(ser_index(manifest, &summary, &options, known ? &before : NULL, err));
  bool changed = differs(manifest, bytes);
  if (changed) SER_TRY_DONE(ser_manifest_write(manifest, next, err));
  ser_index_done(path);
  if (!changed && !summary.hashed)
    ser_info("index: nothing to do, %zu %s as before", manifest->count,
             SER_PLURAL(manifest->count, "recording", "recordings"));
  else
    ser_info("index: %zu %s, %zu hashed now", manifest->count, SER_PLURAL(manifest->count, "recording", "recordings"),
             summary.hashed);
  if (changed) ser_info_lines(summary.notes.data);
done:
  free(summary.notes.data);
  ser_manifest_free(&before);
  return status;
}

/* What the audit takes out of every split, by name; beyond a screen of them the manifest is the place to look. */
static void name_excluded(const ser_manifest *manifest, const ser_audit_summary *is, const char *path) {
  enum { MOST = 20 };
  size_t told = 0;
  for (size_t i = 0; i < manifest->count && told < MOST; i++) {
    const ser_row *row = manifest->rows + i;
    if (row->status != SER_EXCLUDED) continue;
    const char *other = is->same_as[i] != i ? manifest->rows[is->same_as[i]].path : NULL;
    ser_info("audit: excluded: %s: %s%s%s", row->path, ser_reason_meaning(row->reason), other ? ": " : "",
             other ? other : "");
    told++;
  }
  if (is->excluded > told)
    ser_info("audit: %zu more are excluded; their reasons stand in %s", is->excluded - told, path);
}

ser_status cli_manifest(ser_manifest *manifest, const ser_config *config, const char *path, bool *partial,
                        ser_error *err) {
  ser_audit_summary summary = {0};
  ser_text bytes = {0}, table = {0};
  ser_status status = SER_OK;
  char *next = next_name(path);
  const ser_audit_options options = {
      .mode = config->audit, .jobs = cli_jobs(config->jobs), .keep = next, .heard = path, .keep_every = 5};
  SER_TRY_DONE(index_stage(manifest, config, path, next, &bytes, err));
  SER_TRY_DONE(ser_audit(manifest, &summary, &options, err));
  bool changed = differs(manifest, &bytes);
  if (!changed && !summary.decoded)
    ser_info("audit: nothing to do, %zu %s judged before", manifest->count,
             SER_PLURAL(manifest->count, "recording", "recordings"));
  else
    ser_info("audit: %zu decoded now; %zu ok, %zu filtered, %zu excluded, %zu refused", summary.decoded, summary.ok,
             summary.filtered, summary.excluded, summary.refused);
  if (changed) {
    cli_counts_text(&table, manifest);
    ser_info_lines(table.data);
    name_excluded(manifest, &summary, path);
  }
  if (cli_name_refused(manifest)) *partial = true;
done:
  free(next);
  free(table.data);
  free(bytes.data);
  ser_audit_summary_free(&summary);
  return status;
}

/* ---- extract ----------------------------------------------------------------------------------------------------- */

/* The encoder that the configuration names, and what is kept of its hidden states. */
static ser_status open_encoder(ser_encoder_weights *weights, ser_embed_config *embed, const ser_config *config,
                               ser_error *err) {
  if (!*config->wav2vec2.weights)
    return ser_config_refuse(err, config, "wav2vec2.weights",
                             "wav2vec2 needs the weights of an encoder, and wav2vec2.weights names none; put %s, and "
                             "write --weights FOLDER",
                             ser_encoder_files_wanted);
  SER_TRY(ser_encoder_weights_open(weights, config->wav2vec2.weights, err));
  ser_status status = ser_encoder_weights_hash(weights, err);
  if (status == SER_OK) status = ser_embed_configure(embed, weights, config, err);
  if (status != SER_OK) ser_encoder_weights_close(weights);
  return status;
}

static void say_extracted(ser_text *said, const ser_extract_feature *feature, const ser_extract_summary *is) {
  const char *name = ser_feature_names[feature->kind];
  double seconds = is->seconds > 0 ? is->seconds : 1;
  if (said->size) ser_text_puts(said, "\n");
  if (!is->computed)
    ser_text_printf(said, "%s: nothing to do, %zu of %zu present", name, is->present, is->wanted);
  else
    ser_text_printf(said, "%s: %zu of %zu computed, %zu present before, in %.1f s (%.0f clips/s, %.0f times real time)",
                    name, is->computed, is->wanted, is->present, is->seconds, (double)is->computed / seconds,
                    is->audio_seconds / seconds);
  if (is->too_short || is->refused) ser_text_printf(said, "; %zu too short, %zu refused", is->too_short, is->refused);
  if (!feature->embed) return;
  char hex[SER_HASH_HEX];
  ser_hash_hex(hex, &feature->embed->encoder);
  ser_text_printf(said, "\nencoder: %s, hash %s%s", feature->weights->file.path, hex,
                  feature->embed->random_weights ? ", random weights" : "");
}

ser_status cli_extract(const ser_config *config, const bool wanted[SER_FEATURES], const char *cache,
                       const ser_manifest *manifest, ser_text *said, bool *partial, ser_error *err) {
  ser_extract_feature features[SER_FEATURES] = {0};
  ser_extract_summary summaries[SER_FEATURES] = {0};
  ser_encoder_weights weights = {.file.fd = -1};
  ser_embed_config embed;
  ser_extract_options options = {.features = features, .cache_folder = cache, .jobs = cli_jobs(config->jobs)};
  ser_status status = SER_OK;
  if (wanted[SER_WAV2VEC2]) SER_TRY(open_encoder(&weights, &embed, config, err));
  for (int kind = 0; kind < SER_FEATURES; kind++) {
    if (!wanted[kind]) continue;
    ser_extract_feature *feature = &features[options.feature_count++];
    feature->kind = (ser_feature_kind)kind;
    if (kind == SER_WAV2VEC2) {
      feature->embed = &embed;
      feature->weights = &weights;
    } else {
      feature->mfcc = ser_config_mfcc(config, feature->kind);
    }
  }
  SER_TRY_DONE(open_device(&options.device, config, err));
  status = ser_extract(summaries, manifest, &options, err);
  for (size_t i = 0; i < options.feature_count; i++) ser_complain_lines(summaries[i].refusals.data);
  if (status == SER_PARTIAL) status = SER_OK;
  for (size_t i = 0; i < options.feature_count && status == SER_OK; i++) {
    say_extracted(said, &features[i], &summaries[i]);
    if (summaries[i].too_short || summaries[i].refused) *partial = true;
  }
done:
  for (size_t i = 0; i < options.feature_count; i++) free(summaries[i].refusals.data);
  ser_device_close(options.device);
  if (wanted[SER_WAV2VEC2]) ser_encoder_weights_close(&weights);
  return status;
}

/* ---- train ------------------------------------------------------------------------------------------------------- */

/* renamed: paths or predict.* were others in models that were finished. */
static void say_trained(int64_t trained, int64_t count, bool renamed) {
  const char *models = SER_PLURAL(count, "model", "models");
  if (!trained && renamed)
    ser_info("train: nothing to train; paths of recordings and predict.* are taken into what was trained before");
  else if (!trained)
    ser_info("train: nothing to train, %lld %s trained before", (long long)count, models);
  else if (trained == count)
    ser_info("train: %lld %s trained", (long long)count, models);
  else
    ser_info("train: %lld %s trained, %lld before", (long long)trained, SER_PLURAL(trained, "model", "models"),
             (long long)(count - trained));
}

static ser_status train_stage(cli_run *run, const cli_inputs *inputs, const ser_config *config,
                              const char *manifest_path, bool anew, bool *partial, ser_error *err) {
  char models[SER_HASH_HEX];
  int64_t count = 0;
  bool done = false, whole = false, all = !strcmp(run->trained, run->training);
  bool named = !strcmp(run->named, inputs->named);
  SER_TRY(cli_models(models, &count, run->folder, err));
  if (all && count == run->models && count) {
    SER_TRY(cli_split_fits(&done, run->folder, err));
    SER_TRY(cli_files_whole(&whole, run, err));
    if (done && whole && named) {
      ser_info("train: nothing to do, %lld %s trained before", (long long)count, SER_PLURAL(count, "model", "models"));
      return SER_OK;
    }
    if (!done)
      ser_warn("%s: split.csv and the models do not belong together; what was changed is made again", run->folder);
  }
  const ser_train_options options = {.config = config,
                                     .folder = run->folder,
                                     .manifest = manifest_path,
                                     .resume = true,
                                     .anew = anew,
                                     .finished = all || !strcmp(run->finished, run->recipe),
                                     .extracted = true};
  bool refused = false;
  size_t trained = 0;
  SER_TRY(ser_train_job(&trained, &refused, &options, err));
  if (refused) *partial = true;
  SER_TRY(cli_models(models, &count, run->folder, err));
  memcpy(run->trained, run->training, SER_HASH_HEX);
  memcpy(run->named, inputs->named, SER_HASH_HEX);
  memcpy(run->finished, run->recipe, SER_HASH_HEX);
  run->models = count;
  SER_TRY(cli_files_note(run, err));
  say_trained((int64_t)trained, count, done && !named);
  return cli_run_save(run, err);
}

/* What train refuses and run does anew. Of a refusal nothing stays behind. */
static ser_status must_fit(cli_run *run, const cli_inputs *inputs, const ser_config *config, const char *manifest_path,
                           const char *changes, ser_error *err) {
  bool fits;
  SER_TRY(cli_run_compare(&fits, run, inputs, config, err));
  if (fits) return SER_OK;
  char *next = next_name(manifest_path);
  remove(next);
  free(next);
  long long epochs = (long long)config->train.epochs;
  if (!*run->training)
    return ser_fail(err, SER_USAGE,
                    "%s has no sound run.json to tell what its results were made from; name another folder, or use "
                    "'serenade run', which trains anew and keeps the old results",
                    run->folder);
  if (run->reached > epochs && !strcmp(run->recipe, inputs->recipe))
    return ser_fail(err, SER_USAGE,
                    "%s has had %lld %s already, more than train.epochs=%lld asks for; ask for at least %lld, name "
                    "another folder, or use 'serenade run', which trains anew and keeps the old results",
                    run->folder, (long long)run->reached, SER_PLURAL(run->reached, "epoch", "epochs"), epochs,
                    (long long)run->reached);
  return ser_fail(err, SER_USAGE,
                  "%s was trained from other settings or recordings (%s); name another folder, or use "
                  "'serenade run', which trains anew and keeps the old results",
                  run->folder, changes);
}

/* The manifest that was given, or that of the corpora; RUN's own stays as it is. */
static ser_status take_manifest(ser_manifest *manifest, const ser_config *config, const char *given, const char *path,
                                bool *partial, ser_error *err) {
  if (!given) return cli_manifest(manifest, config, path, partial, err);
  SER_TRY(ser_manifest_read(manifest, given, err));
  if (cli_name_refused(manifest)) *partial = true;
  return SER_OK;
}

/* What the run depends on. The CPU does convolutions in one way: what conv asks for there is no change, and a run that
 * knows nothing but the CPU keeps what it was begun with, until a GPU goes by it. */
static ser_status make_inputs(cli_inputs *inputs, ser_config *config, const cli_run *run, const ser_manifest *manifest,
                              ser_error *err) {
  ser_conv_choice asked = config->conv;
  SER_TRY(cli_inputs_make(inputs, config, manifest, err));
  if (!*run->recipe || !strcmp(run->recipe, inputs->recipe) || config->settled != SER_DEVICE_CPU ||
      !ser_run_of_cpu(run->folder))
    return SER_OK;
  for (int conv = SER_CONV_AUTO; conv <= SER_CONV_FUSED; conv++) {
    cli_inputs begun;
    config->conv = (ser_conv_choice)conv;
    SER_TRY(cli_inputs_make(&begun, config, manifest, err));
    if (strcmp(run->recipe, begun.recipe)) continue;
    *inputs = begun;
    return SER_OK;
  }
  config->conv = asked;
  return SER_OK;
}

ser_status cli_train(cli_run *run, const ser_config *asked, const char *given_manifest, bool anew, bool *partial,
                     ser_error *err) {
  ser_manifest manifest;
  ser_text said = {0};
  ser_status status = SER_OK;
  cli_inputs inputs;
  ser_config own, *config = &own;
  char *manifest_path = ser_path_join(run->folder, "manifest.csv");
  char *own_cache = ser_path_join(run->folder, "cache"), *changes = NULL;
  ser_manifest_init(&manifest);
  ser_config_copy(config, asked);
  SER_TRY_DONE(take_manifest(&manifest, config, given_manifest, manifest_path, partial, err));
  SER_TRY_DONE(make_inputs(&inputs, config, run, &manifest, err));
  if (strcmp(run->training, inputs.training)) changes = cli_changes(run, config, &manifest);
  if (!anew) SER_TRY_DONE(must_fit(run, &inputs, config, manifest_path, changes, err));
  SER_TRY_DONE(keep_manifest(&manifest, manifest_path, err));
  const char *cache = *config->cache_dir ? config->cache_dir : own_cache;
  bool wanted[SER_FEATURES] = {false};
  wanted[config->features.kind] = true;
  SER_TRY_DONE(cli_extract(config, wanted, cache, &manifest, &said, partial, err));
  ser_info("extract: %s", said.data);
  SER_TRY_DONE(cli_run_turn_to(run, &inputs, config, changes, err));
  SER_TRY_DONE(train_stage(run, &inputs, config, manifest_path, anew, partial, err));
done:
  free(said.data);
  free(changes);
  free(manifest_path);
  free(own_cache);
  ser_config_free(config);
  ser_manifest_free(&manifest);
  return status;
}

/* ---- evaluate ---------------------------------------------------------------------------------------------------- */

ser_status cli_evaluate(cli_run *run, const ser_config *config, bool *partial, ser_error *err) {
  char models[SER_HASH_HEX], reports[SER_HASH_HEX];
  int64_t count = 0;
  ser_text said = {0};
  SER_TRY(cli_models(models, &count, run->folder, err));
  SER_TRY(cli_reports(reports, run->folder, err));
  if (!strcmp(run->evaluated, models) && !strcmp(run->reports, reports)) {
    ser_info("evaluate: nothing to do, the reports are those of %s", count == 1 ? "this model" : "these models");
    ser_status status = ser_evaluate_said(&said, run->folder, err);
    if (status == SER_OK) status = cli_print(&said, err);
    free(said.data);
    return status;
  }
  bool refused = false;
  ser_device_options asked = ser_config_device(config, (int)config->threads);
  ser_status status = ser_evaluate_job(run->folder, NULL, &asked, &said, &refused, err);
  if (refused) *partial = true;
  if (status == SER_OK) status = cli_reports(run->reports, run->folder, err);
  if (status == SER_OK) {
    memcpy(run->evaluated, models, SER_HASH_HEX);
    status = cli_run_save(run, err);
  }
  if (status == SER_OK) status = cli_print(&said, err); /* once it is known what was done, whatever stdout takes */
  free(said.data);
  return status;
}
