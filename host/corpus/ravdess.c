/* RAVDESS, speech: MM-VC-EE-II-SS-RR-AA.wav (Livingstone & Russo 2018). Modality 03 (audio only) and channel 01
 * (speech) belong to the corpus; videos and songs are counted by name. Odd actors are male, even ones female. Folders
 * have no say, so that the copy with a second tree inside is read as it is: the audit finds its duplicates. */
#include "corpus/loader.h"

#include <stdio.h>
#include <string.h>

static bool read_labels(labels *out, const char **other, const char *path) {
  static const ser_emotion emotions[] = {SER_NEUTRAL, SER_CALM,    SER_HAPPY,   SER_SAD,
                                         SER_ANGRY,   SER_FEARFUL, SER_DISGUST, SER_SURPRISED};
  static const int highest[7] = {3, 2, 8, 2, 2, 2, 24};
  char stem[STEM], *parts[7];
  int fields[7];
  if (stem_parts(stem, parts, 7, path, '-') != 7) return false;
  for (int i = 0; i < 7; i++)
    if ((fields[i] = whole_number(parts[i], 2, 1, highest[i])) < 0) return false;
  if (fields[1] == 2) *other = "song files";
  if (fields[0] != 3) *other = "files of the video modalities";
  if (*other) return false;
  out->emotion = (int)emotions[fields[2] - 1];
  out->intensity = fields[3] == 1 ? "normal" : "strong";
  out->sex = fields[6] % 2 ? "male" : "female";
  snprintf(out->statement, sizeof out->statement, "%s", fields[4] == 1 ? "kids" : "dogs");
  snprintf(out->speaker, sizeof out->speaker, "ravdess_%02d", fields[6]);
  return true;
}

const corpus_loader ravdess_loader = {"ravdess", "03-01-05-01-02-01-16.wav", read_labels, NULL};
