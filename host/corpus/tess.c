/* TESS: OAF_word_emotion.wav and YAF_word_emotion.wav (Pichora-Fuller & Dupuis 2020). Names are compared without case;
 * the speaker comes from the folder (OAF_neutral) where the name is odd (OA_bite_neutral.wav). Pleasant surprise is
 * surprised. Two speakers, both women. */
#include "corpus/loader.h"

#include <stdio.h>
#include <string.h>

static int read_emotion(char **parts, int count) {
  static const struct {
    const char *name;
    ser_emotion emotion;
  } names[] = {{"angry", SER_ANGRY},        {"anger", SER_ANGRY},         {"disgust", SER_DISGUST},
               {"disgusted", SER_DISGUST},  {"fear", SER_FEARFUL},        {"fearful", SER_FEARFUL},
               {"happy", SER_HAPPY},        {"neutral", SER_NEUTRAL},     {"ps", SER_SURPRISED},
               {"surprise", SER_SURPRISED}, {"surprised", SER_SURPRISED}, {"sad", SER_SAD}};
  bool pleasant = count == 4 && !strcmp(parts[2], "pleasant");
  if (count != 3 && !pleasant) return -1;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!strcmp(parts[count - 1], names[i].name) && (!pleasant || names[i].emotion == SER_SURPRISED))
      return (int)names[i].emotion;
  return -1;
}

static const char *known_speaker(const char *name) {
  if (!strcmp(name, "oaf")) return "tess_oaf";
  if (!strcmp(name, "yaf")) return "tess_yaf";
  return NULL;
}

static bool read_labels(labels *out, const char **other, const char *path) {
  char stem[STEM], folder[STEM], *parts[4];
  (void)other;
  int count = stem_parts(stem, parts, 4, path, '_'), emotion = read_emotion(parts, count);
  if (emotion < 0 || !*parts[1]) return false;
  const char *speaker = known_speaker(parts[0]);
  if (!speaker) {
    folder_name(folder, path);
    if (strlen(folder) < 4 || folder[3] != '_') return false;
    folder[3] = 0;
    if (!(speaker = known_speaker(folder))) return false;
  }
  out->emotion = emotion;
  out->sex = "female";
  snprintf(out->statement, sizeof out->statement, "%.47s", parts[1]);
  snprintf(out->speaker, sizeof out->speaker, "%s", speaker);
  return true;
}

const corpus_loader tess_loader = {"tess", "OAF_back_angry.wav", read_labels, NULL};
