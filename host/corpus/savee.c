/* SAVEE: AudioData/DC/a01.wav as published, or flat DC_a01.wav (Jackson & Haq 2014). Four men, DC JE JK KL; the letters
 * before the number are the emotion, two letters (sa, su) before one. Base names collide between the speakers of the
 * published layout, so the folder is part of the name there. */
#include "corpus/loader.h"

#include <stdio.h>
#include <string.h>

static bool read_labels(labels *out, const char **other, const char *path) {
  static const char *const speakers[] = {"dc", "je", "jk", "kl"};
  static const struct {
    const char *code;
    ser_emotion emotion;
  } codes[] = {{"sa", SER_SAD},    {"su", SER_SURPRISED}, {"a", SER_ANGRY},  {"d", SER_DISGUST},
               {"f", SER_FEARFUL}, {"h", SER_HAPPY},      {"n", SER_NEUTRAL}};
  char stem[STEM], folder[STEM], *parts[2];
  const char *speaker = NULL, *clip;
  (void)other;
  int count = stem_parts(stem, parts, 2, path, '_');
  if (count < 1) return false;
  folder_name(folder, path);
  clip = parts[count - 1];
  for (int i = 0; i < 4; i++)
    if (!strcmp(count == 2 ? parts[0] : folder, speakers[i])) speaker = speakers[i];
  if (!speaker) return false;
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
    size_t letters = strlen(codes[i].code);
    if (strncmp(clip, codes[i].code, letters) || whole_number(clip + letters, 2, 1, 30) < 0) continue;
    out->emotion = (int)codes[i].emotion;
    out->sex = "male";
    snprintf(out->statement, sizeof out->statement, "%s", clip);
    snprintf(out->speaker, sizeof out->speaker, "savee_%s", speaker);
    return true;
  }
  return false;
}

const corpus_loader savee_loader = {"savee", "DC/a01.wav or DC_a01.wav", read_labels, NULL};
