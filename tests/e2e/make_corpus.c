/* Makes a small corpus in RAVDESS's and TESS's layouts for the tests of the whole path: voiced harmonics whose pitch,
 * range, speed and loudness follow the emotion, in each speaker's own register. The same bytes on every machine.
 *
 *     make_corpus DEST    DEST/RAVDESS (4 actors, 104 clips), DEST/TESS (2 speakers, 48 clips); what is amiss in it:
 *                         two clips of a seventh emotion, one recording that is there twice */
#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"

typedef struct {
  double pitch, range, speed, loudness; /* factors of the speaker's own; syllables a second; peak */
} prosody;

/* neutral happy sad angry fearful disgust calm */
static const prosody acted[] = {{1.0, 0.05, 3.5, 0.2}, {1.35, 0.25, 4.5, 0.3}, {0.85, 0.02, 2.2, 0.08},
                                {1.2, 0.15, 6.0, 0.8}, {1.6, 0.08, 7.0, 0.25}, {0.7, 0.2, 2.8, 0.4},
                                {0.95, 0.03, 2.0, 0.1}};

static void speak(const char *folder, const char *name, int emotion, double register_, uint64_t take, int rate) {
  const double two_pi = 6.283185307179586;
  ser_error err = {0};
  prosody p = acted[emotion];
  int64_t count = (int64_t)(rate * (0.7 + 0.2 * (double)test_random(take, 0)));
  float *samples = ser_alloc((size_t)count * sizeof *samples);
  double phase = 0, pitch = register_ * p.pitch * (1 + 0.06 * (double)test_random(take, 1));
  double speed = p.speed * (1 + 0.1 * (double)test_random(take, 2)), offset = (double)test_random(take, 3);
  for (int64_t i = 0; i < count; i++) {
    double t = (double)i / rate, value = 0;
    double f0 = pitch * (1 + p.range * sin(two_pi * (0.9 * t + offset)));
    phase += two_pi * f0 / rate;
    for (int h = 1; h * f0 < 0.45 * rate && h <= 20; h++) {
      double formant = 600 + 300 * sin(two_pi * speed * t / 2 + offset);
      value += (0.05 / h + exp(-pow((h * f0 - formant) / 250, 2))) * sin(h * phase);
    }
    double syllable = 0.5 - 0.5 * cos(two_pi * speed * t);
    samples[i] = (float)(p.loudness * 0.3 * syllable * value + 0.002 * (double)test_random(take + 1, (uint64_t)i));
  }
  char *path = ser_path_join(folder, name);
  if (ser_make_folders(folder, &err) != SER_OK) fail_msg("%s", err.text);
  test_write_wav(path, samples, count, rate);
  free(path);
  free(samples);
}

static void make_ravdess(const char *root) {
  static const int codes[] = {1, 3, 4, 5, 6, 7, 2};
  static const double registers[] = {110, 205, 125, 190};
  for (int actor = 1; actor <= 4; actor++) {
    char *folder = ser_format("%s/Actor_%02d", root, actor);
    for (int take = 0; take < 26; take++) {
      int emotion = take < 24 ? take % 6 : 6, statement = take / 6 % 2 + 1, repetition = take / 12 % 2 + 1;
      char name[64];
      snprintf(name, sizeof name, "03-01-%02d-01-%02d-%02d-%02d.wav", codes[emotion], statement, repetition, actor);
      if (take == 25) snprintf(name, sizeof name, "03-01-02-01-02-01-%02d.wav", actor);
      speak(folder, name, emotion, registers[actor - 1], (uint64_t)(1000 * actor + take), 48000);
    }
    free(folder);
  }
}

static void make_tess(const char *root) {
  static const char *const emotions[] = {"neutral", "happy", "sad", "angry", "fear", "disgust"};
  static const char *const words[] = {"back", "bar", "base", "bath"};
  for (int speaker = 0; speaker < 2; speaker++)
    for (int take = 0; take < 24; take++) {
      const char *who = speaker ? "YAF" : "OAF", *emotion = emotions[take % 6];
      char *folder = ser_format("%s/%s_%s", root, who, emotion);
      char *name = ser_format("%s_%s_%s.wav", who, words[take / 6], emotion);
      speak(folder, name, take % 6, speaker ? 230 : 180, (uint64_t)(9000 + 100 * speaker + take), 24414);
      free(folder);
      free(name);
    }
}

/* One file stands in a second place with the same bytes, as in copies that hold a folder twice. */
static void copy_one(const char *root) {
  ser_error err = {0};
  char *from = ser_path_join(root, "Actor_01/03-01-01-01-01-01-01.wav"), *data;
  char *folder = ser_path_join(root, "copy/Actor_01"), *to = ser_path_join(folder, "03-01-01-01-01-01-01.wav");
  size_t size;
  if (ser_file_read(&data, &size, from, &err) != SER_OK || ser_make_folders(folder, &err) != SER_OK ||
      ser_file_write(to, data, size, &err) != SER_OK)
    fail_msg("%s", err.text);
  free(data);
  free(from);
  free(folder);
  free(to);
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: make_corpus DEST\n");
    return 2;
  }
  char *ravdess = ser_path_join(argv[1], "RAVDESS"), *tess = ser_path_join(argv[1], "TESS");
  make_ravdess(ravdess);
  make_tess(tess);
  copy_one(ravdess);
  free(ravdess);
  free(tess);
  return 0;
}
