/* The index: every layout of the four corpora, a lab's table, trust in an older manifest. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "support/recordings.h"

static char *folder;

static int make_folder(void **state) {
  (void)state;
  folder = test_folder_make("index");
  return 0;
}

static int remove_folder(void **state) {
  (void)state;
  test_folder_remove(folder);
  return 0;
}

static void index_all(ser_manifest *manifest, ser_index_summary *summary, ser_index_options options,
                      const ser_manifest *before) {
  ser_error err = {0};
  if (!options.emotions) options.emotions = 8;
  if (!options.jobs) options.jobs = 2;
  ASSERT_OK(ser_index(manifest, summary, &options, before, &err), err);
  assert_int_equal(summary->rows, manifest->count);
  for (size_t i = 1; i < manifest->count; i++)
    assert_true(strcmp(manifest->rows[i - 1].path, manifest->rows[i].path) < 0);
}

static void end(ser_manifest *manifest, ser_index_summary *summary) {
  ser_manifest_free(manifest);
  free(summary->notes.data);
}

static void expect(const ser_manifest *manifest, const char *ending, const char *corpus, const char *speaker,
                   const char *sex, int emotion, const char *intensity, const char *statement) {
  const ser_row *row = test_row(manifest, ending);
  assert_string_equal(row->corpus, corpus);
  assert_string_equal(row->speaker, speaker);
  assert_string_equal(row->sex, sex);
  assert_int_equal(row->emotion, emotion);
  assert_string_equal(row->intensity, intensity);
  assert_string_equal(row->statement, statement);
  assert_int_equal(row->status, SER_NEW);
  assert_int_equal(row->reason, SER_REASON_NONE);
  assert_int_equal(row->rate, 8000);
  assert_int_equal(row->channels, 1);
  assert_int_equal(row->frames, 400);
  assert_true(row->seconds == 0.05);
  assert_true(row->size > 800 && row->mtime_ns > 0);
}

static void ravdess(void **state) {
  (void)state;
  char *root = ser_path_join(folder, "ravdess");
  static const int emotions[] = {SER_NEUTRAL, SER_CALM,    SER_HAPPY,   SER_SAD,
                                 SER_ANGRY,   SER_FEARFUL, SER_DISGUST, SER_SURPRISED};
  for (int e = 1; e <= 8; e++) {
    char *name = ser_format("Actor_05/03-01-%02d-01-02-01-05.wav", e);
    char *copy = ser_format("audio_speech_actors_01-24/%s", name);
    test_put_clip(root, name, (uint64_t)e);
    test_put_clip(root, copy, (uint64_t)e); /* the copy that holds every file twice */
    free(name);
    free(copy);
  }
  test_put_clip(root, "Actor_24/03-01-05-02-01-02-24.WAV", 50);
  test_put_clip(root, "Actor_05/03-02-05-01-02-01-05.wav", 51); /* song */
  test_put_clip(root, "Actor_05/01-01-05-01-02-01-05.wav", 52); /* the sound of a video */
  test_put_clip(root, "Actor_05/02-02-05-01-02-01-05.wav", 53);
  test_put_clip(root, "Actor_05/03-01-09-01-02-01-05.wav", 54); /* no such emotion */
  test_put_clip(root, "Actor_05/03-01-05-01-02-01-25.wav", 55); /* no such actor */
  test_put_clip(root, "Actor_05/3-1-5-1-2-1-5.wav", 56);
  test_put_clip(root, "Actor_05/._03-01-05-01-02-01-05.wav", 57); /* another system's shadow of a file */
  test_put_text(root, "Actor_05/03-01-05-01-02-01-05.txt", "notes");
  ser_manifest manifest;
  ser_index_summary summary;
  index_all(&manifest, &summary, (ser_index_options){.roots[SER_RAVDESS] = folder},
            NULL); /* the parent of the corpus */
  assert_int_equal(manifest.count, 17);
  for (int e = 1; e <= 8; e++) {
    char *name = ser_format("ravdess/Actor_05/03-01-%02d-01-02-01-05.wav", e);
    expect(&manifest, name, "ravdess", "ravdess_05", "male", emotions[e - 1], "normal", "dogs");
    free(name);
  }
  expect(&manifest, "Actor_24/03-01-05-02-01-02-24.WAV", "ravdess", "ravdess_24", "female", SER_ANGRY, "strong",
         "kids");
  assert_int_equal(summary.ignored, 8);
  assert_int_equal(summary.files, 25);
  assert_non_null(strstr(summary.notes.data, "song files (1)"));
  assert_non_null(strstr(summary.notes.data, "files of the video modalities (2)"));
  assert_non_null(strstr(summary.notes.data, "neutral 2, happy 2, sad 2, angry 3"));
  assert_string_equal(manifest.rows[0].path + strlen(manifest.rows[0].path) - 24, "03-01-01-01-02-01-05.wav");
  end(&manifest, &summary);

  index_all(&manifest, &summary, (ser_index_options){.roots[SER_RAVDESS] = root, .emotions = 6}, NULL);
  assert_int_equal(summary.filtered, 4);
  assert_int_equal(test_row(&manifest, "ravdess/Actor_05/03-01-02-01-02-01-05.wav")->status, SER_FILTERED);
  assert_int_equal(test_row(&manifest, "ravdess/Actor_05/03-01-08-01-02-01-05.wav")->status, SER_FILTERED);
  ser_text text = {0};
  ser_manifest_text(&text, &manifest);
  assert_non_null(strstr(text.data, ",filtered,new\n"));
  assert_null(strstr(text.data, ",filtered,\n"));
  free(text.data);
  assert_non_null(strstr(summary.notes.data, "4 filtered (6 emotions are asked for): calm 2, surprised 2"));
  end(&manifest, &summary);
  free(root);
}

static void cremad(void **state) {
  (void)state;
  char *root = ser_path_join(folder, "crema");
  test_put_clip(root, "AudioWAV/1001_DFA_ANG_XX.wav", 1);
  test_put_clip(root, "AudioWAV/1002_IEO_HAP_HI.wav", 2);
  test_put_clip(root, "AudioWAV/1040_ITH_SAD_X.wav", 3); /* as older copies spell it */
  test_put_clip(root, "AudioWAV/1091_IEO_FEA_LO.wav", 4);
  test_put_clip(root, "AudioWAV/1091_ieo_dis_md.WAV", 5);
  test_put_clip(root, "AudioWAV/1002_TIE_NEU_XX.wav", 6);
  test_put_clip(root, "AudioMP3/1002_TIE_NEU_XX.mp3", 7); /* the same clip in its other form */
  test_put_clip(root, "AudioMP3/1003_TIE_NEU_XX.mp3", 8); /* there in this form alone */
  test_put_clip(root, "AudioWAV/1092_DFA_ANG_XX.wav", 9);
  test_put_clip(root, "AudioWAV/1001_DFA_SUR_XX.wav", 10);
  ser_manifest manifest;
  ser_index_summary summary;
  index_all(&manifest, &summary, (ser_index_options){.roots[SER_CREMAD] = root}, NULL);
  assert_int_equal(manifest.count, 7);
  expect(&manifest, "1001_DFA_ANG_XX.wav", "cremad", "cremad_1001", "male", SER_ANGRY, "", "DFA");
  expect(&manifest, "1002_IEO_HAP_HI.wav", "cremad", "cremad_1002", "female", SER_HAPPY, "high", "IEO");
  expect(&manifest, "1040_ITH_SAD_X.wav", "cremad", "cremad_1040", "male", SER_SAD, "", "ITH");
  expect(&manifest, "1091_IEO_FEA_LO.wav", "cremad", "cremad_1091", "female", SER_FEARFUL, "low", "IEO");
  expect(&manifest, "1091_ieo_dis_md.WAV", "cremad", "cremad_1091", "female", SER_DISGUST, "medium", "IEO");
  expect(&manifest, "AudioWAV/1002_TIE_NEU_XX.wav", "cremad", "cremad_1002", "female", SER_NEUTRAL, "", "TIE");
  expect(&manifest, "AudioMP3/1003_TIE_NEU_XX.mp3", "cremad", "cremad_1003", "female", SER_NEUTRAL, "", "TIE");
  assert_non_null(strstr(summary.notes.data, "1 MP3 copy of a clip left out"));
  end(&manifest, &summary);
  /* The corpus's own table has the last word, beside the audio or above it. */
  test_put_text(root, "VideoDemographics.csv", "\"ActorID\",\"Age\",\"Sex\"\n1001,51,\"Female\"\n1002,21,\"Male\"\n");
  char *audio = ser_path_join(root, "AudioWAV");
  const char *roots[] = {root, audio};
  for (int i = 0; i < 2; i++) {
    index_all(&manifest, &summary, (ser_index_options){.roots[SER_CREMAD] = roots[i]}, NULL);
    assert_string_equal(test_row(&manifest, "1001_DFA_ANG_XX.wav")->sex, "female");
    assert_string_equal(test_row(&manifest, "1002_IEO_HAP_HI.wav")->sex, "male");
    assert_string_equal(test_row(&manifest, "1091_IEO_FEA_LO.wav")->sex, "female");
    end(&manifest, &summary);
  }
  free(audio);
  free(root);
}

static void tess(void **state) {
  (void)state;
  char *root = ser_path_join(folder, "tess");
  test_put_clip(root, "OAF_Fear/OAF_back_fear.wav", 1);
  test_put_clip(root, "OAF_Pleasant_surprise/OAF_back_ps.wav", 2);
  test_put_clip(root, "YAF_pleasant_surprised/YAF_back_ps.wav", 3);
  test_put_clip(root, "OAF_neutral/OA_bite_neutral.wav", 4);
  test_put_clip(root, "YAF_disgust/yaf_back_DISGUST.wav", 5);
  test_put_clip(root, "nested/OAF_Sad/OAF_back_sad.wav", 6);
  test_put_clip(root, "flat/YAF_back_happy.wav", 7);
  test_put_clip(root, "flat/YAF_back_angry.wav", 8);
  test_put_clip(root, "OAF_neutral/._OAF_back_neutral.wav", 9);
  test_put_clip(root, "other/OA_bite_neutral.wav", 10); /* nothing tells the speaker */
  test_put_clip(root, "OAF_neutral/OAF_neutral.wav", 11);
  ser_manifest manifest;
  ser_index_summary summary;
  index_all(&manifest, &summary, (ser_index_options){.roots[SER_TESS] = root}, NULL);
  assert_int_equal(manifest.count, 8);
  expect(&manifest, "OAF_back_fear.wav", "tess", "tess_oaf", "female", SER_FEARFUL, "", "back");
  expect(&manifest, "OAF_back_ps.wav", "tess", "tess_oaf", "female", SER_SURPRISED, "", "back");
  expect(&manifest, "YAF_back_ps.wav", "tess", "tess_yaf", "female", SER_SURPRISED, "", "back");
  expect(&manifest, "OAF_neutral/OA_bite_neutral.wav", "tess", "tess_oaf", "female", SER_NEUTRAL, "", "bite");
  expect(&manifest, "yaf_back_DISGUST.wav", "tess", "tess_yaf", "female", SER_DISGUST, "", "back");
  expect(&manifest, "OAF_back_sad.wav", "tess", "tess_oaf", "female", SER_SAD, "", "back");
  expect(&manifest, "YAF_back_happy.wav", "tess", "tess_yaf", "female", SER_HAPPY, "", "back");
  expect(&manifest, "YAF_back_angry.wav", "tess", "tess_yaf", "female", SER_ANGRY, "", "back");
  end(&manifest, &summary);
  free(root);
}

static void savee(void **state) {
  (void)state;
  char *root = ser_path_join(folder, "savee"), *flat = ser_path_join(folder, "flat_savee");
  static const struct {
    const char *name;
    int emotion;
  } clips[] = {
      {"a01", SER_ANGRY}, {"d02", SER_DISGUST},    {"f03", SER_FEARFUL}, {"h04", SER_HAPPY}, {"n30", SER_NEUTRAL},
      {"sa15", SER_SAD},  {"su01", SER_SURPRISED}, {"s01", -1},          {"n31", -1},        {"a1", -1},
      {"x01", -1}};
  static const char *const speakers[] = {"DC", "JE", "JK", "KL", "dx"};
  uint64_t seed = 1;
  for (int s = 0; s < 5; s++)
    for (size_t i = 0; i < sizeof clips / sizeof *clips; i++) {
      char *original = ser_format("AudioData/%s/%s.wav", speakers[s], clips[i].name);
      char *other = ser_format("all/%s_%s.wav", speakers[s], clips[i].name);
      test_put_clip(root, original, seed++);
      test_put_clip(flat, other, seed++);
      free(original);
      free(other);
    }
  for (int layout = 0; layout < 2; layout++) {
    ser_manifest manifest;
    ser_index_summary summary;
    index_all(&manifest, &summary, (ser_index_options){.roots[SER_SAVEE] = layout ? flat : root}, NULL);
    assert_int_equal(manifest.count, 28);
    for (int s = 0; s < 4; s++)
      for (int i = 0; i < 7; i++) {
        static const char *const names[] = {"savee_dc", "savee_je", "savee_jk", "savee_kl"};
        char *ending = ser_format(layout ? "%s_%s.wav" : "%s/%s.wav", speakers[s], clips[i].name);
        expect(&manifest, ending, "savee", names[s], "male", clips[i].emotion, "", clips[i].name);
        free(ending);
      }
    end(&manifest, &summary);
  }
  free(root);
  free(flat);
}

/* One root for all four: each takes its own files only, as often as the root is given. */
static void one_root_for_all(void **state) {
  (void)state;
  char *root = ser_path_join(folder, "all");
  test_put_clip(root, "R/Actor_01/03-01-01-01-01-01-01.wav", 1);
  test_put_clip(root, "C/1001_DFA_ANG_XX.wav", 2);
  test_put_clip(root, "T/OAF_angry/OAF_back_angry.wav", 3);
  test_put_clip(root, "S/DC/a01.wav", 4);
  test_put_clip(root, "S/JK_sa01.wav", 5);
  ser_manifest manifest;
  ser_index_summary summary;
  index_all(
      &manifest, &summary,
      (ser_index_options){
          .roots[SER_RAVDESS] = root, .roots[SER_CREMAD] = root, .roots[SER_TESS] = root, .roots[SER_SAVEE] = root},
      NULL);
  assert_int_equal(manifest.count, 5);
  assert_string_equal(test_row(&manifest, "R/Actor_01/03-01-01-01-01-01-01.wav")->corpus, "ravdess");
  assert_string_equal(test_row(&manifest, "C/1001_DFA_ANG_XX.wav")->corpus, "cremad");
  assert_string_equal(test_row(&manifest, "T/OAF_angry/OAF_back_angry.wav")->corpus, "tess");
  assert_string_equal(test_row(&manifest, "S/DC/a01.wav")->corpus, "savee");
  assert_string_equal(test_row(&manifest, "S/JK_sa01.wav")->corpus, "savee");
  end(&manifest, &summary);
  free(root);
}

static void unusable_files_stay_with_their_reason(void **state) {
  (void)state;
  char *root = ser_path_join(folder, "bad");
  test_put_clip(root, "1001_DFA_ANG_XX.wav", 1);
  test_put_text(root, "1002_DFA_ANG_XX.wav", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
  test_put_bytes(root, "1003_DFA_ANG_XX.wav", "", 0);
  test_put_text(root, "1004_DFA_ANG_XX.wav", "hello");
  test_put_clip(root, "1005_DFA_ANG_XX.wav", 5);
  char *cut = ser_path_join(root, "1005_DFA_ANG_XX.wav"), *dead = ser_path_join(root, "1006_DFA_ANG_XX.wav");
  assert_int_equal(truncate(cut, 500), 0);
  assert_int_equal(symlink("nowhere", dead), 0);
  ser_manifest manifest;
  ser_index_summary summary;
  index_all(&manifest, &summary, (ser_index_options){.roots[SER_CREMAD] = root}, NULL);
  const ser_reason reasons[] = {SER_REASON_NONE,       SER_REASON_LFS_POINTER, SER_REASON_EMPTY,
                                SER_REASON_UNREADABLE, SER_REASON_TRUNCATED,   SER_REASON_UNREADABLE};
  assert_int_equal(manifest.count, 6);
  assert_int_equal(summary.refused, 5);
  assert_int_equal(summary.hashed, 5); /* not the one that leads nowhere */
  for (int i = 0; i < 6; i++) {
    assert_int_equal(manifest.rows[i].reason, reasons[i]);
    assert_int_equal(manifest.rows[i].status, i ? SER_REFUSED : SER_NEW);
  }
  char words[256];
  static const char *const told[] = {"",
                                     "a Git LFS pointer, not the recording",
                                     "the file is empty (0 bytes); copy",
                                     "not a recording that libsndfile can open (",
                                     "cut short: the header promises",
                                     "cannot open: No such file"};
  for (int i = 1; i < 6; i++) {
    ser_row_refusal(words, manifest.rows + i);
    if (!strstr(words, told[i])) fail_msg("%s: %s", manifest.rows[i].path, words);
  }
  test_put_clip(root, "1004_DFA_ANG_XX.wav", 4); /* sound now: the words are the reason's own */
  ser_row_refusal(words, manifest.rows + 3);
  assert_string_equal(words, ser_reason_meaning(SER_REASON_UNREADABLE));
  end(&manifest, &summary);
  free(cut);
  free(dead);
  free(root);
}

static void a_lab_s_table(void **state) {
  (void)state;
  char *root = ser_path_join(folder, "lab"), *csv = ser_path_join(root, "meta/list.csv");
  char *elsewhere = ser_path_join(folder, "elsewhere/d.wav");
  test_put_clip(root, "meta/a.wav", 1);
  test_put_clip(root, "clips/b.dat", 2); /* by content: the suffix has no say */
  test_put_clip(root, "c, d.wav", 3);
  test_put_clip(folder, "elsewhere/d.wav", 4);
  char *text = ser_format("\xef\xbb\xbfremark,emotion,path,speaker,sex,corpus,session,hash\r\n"
                          "\"one, two\",Anger,a.wav,anna,F,ours,3,zzz\r\n"
                          ",fear,../clips/b.dat,ben,m,,4,\r\n"
                          "x,Pleasant Surprise,\"../c, d.wav\",,diverse,,,\r\n"
                          "y,calm,%s,,,,,\r\n"
                          "z,sad,gone.wav,anna,,,,\r\n",
                          elsewhere);
  test_put_text(root, "meta/list.csv", text);
  free(text);
  ser_manifest manifest;
  ser_index_summary summary;
  index_all(&manifest, &summary, (ser_index_options){.roots[SER_CSV] = csv}, NULL);
  assert_int_equal(manifest.count, 5);
  expect(&manifest, "lab/meta/a.wav", "ours", "anna", "female", SER_ANGRY, "", "");
  expect(&manifest, "lab/clips/b.dat", "csv", "ben", "male", SER_FEARFUL, "", "");
  expect(&manifest, "lab/c, d.wav", "csv", "", "", SER_SURPRISED, "", "");
  expect(&manifest, "elsewhere/d.wav", "csv", "", "", SER_CALM, "", "");
  const ser_row *gone = test_row(&manifest, "lab/meta/gone.wav");
  assert_int_equal(gone->status, SER_REFUSED);
  assert_int_equal(gone->reason, SER_REASON_UNREADABLE);
  assert_int_equal(manifest.extra_columns, 2); /* hash is the manifest's own */
  assert_string_equal(manifest.extra_names[0], "remark");
  assert_string_equal(manifest.extra_names[1], "session");
  assert_string_equal(test_row(&manifest, "lab/meta/a.wav")->extra[0], "one, two");
  assert_string_equal(test_row(&manifest, "lab/meta/a.wav")->extra[1], "3");
  assert_non_null(strstr(summary.notes.data, "1 row names a sex"));
  end(&manifest, &summary);
  free(elsewhere);
  free(csv);
  free(root);
}

/* Blanks and capital letters where tables have them: in names of columns, around labels, around paths. */
static void an_untidy_table(void **state) {
  (void)state;
  char *csv = ser_path_join(folder, "untidy.csv");
  test_put_clip(folder, "a.wav", 1);
  test_put_clip(folder, "b.wav", 2);
  test_put_clip(folder, " c .wav ", 3); /* truly named so */
  char *text = ser_format("\xef\xbb\xbf Emotion , PATH,Speaker ,\"SEX\", Remark, Rate\r\n"
                          " Happy,a.wav,s1 ,f , kept ,1\r\n"
                          "\tsad\t, b.wav ,\" s1\", M,,\r\n"
                          "calm, c .wav ,,,,\r\n"
                          "angry, %s/gone.wav,,,,\r\n",
                          folder);
  test_put_text(folder, "untidy.csv", text);
  ser_manifest manifest;
  ser_index_summary summary;
  index_all(&manifest, &summary, (ser_index_options){.roots[SER_CSV] = csv}, NULL);
  assert_int_equal(manifest.count, 4);
  expect(&manifest, "a.wav", "csv", "s1", "female", SER_HAPPY, "", "");
  expect(&manifest, "b.wav", "csv", "s1", "male", SER_SAD, "", "");
  expect(&manifest, " c .wav ", "csv", "", "", SER_CALM, "", "");
  assert_int_equal(manifest.extra_columns, 1);
  assert_string_equal(manifest.extra_names[0], "Remark");
  assert_string_equal(test_row(&manifest, "a.wav")->extra[0], " kept ");
  end(&manifest, &summary);
  free(text);
  free(csv);
}

/* A manifest given as a table: every column that it measures is measured anew, and none becomes a column twice. */
static void a_manifest_as_a_lab_s_table(void **state) {
  (void)state;
  char *csv = ser_path_join(folder, "given.csv");
  test_put_clip(folder, "g.wav", 9);
  char *text = ser_format("path,emotion,speaker,session\n%s/g.wav,calm,anna,3\n", folder);
  test_put_text(folder, "given.csv", text);
  ser_manifest first, second;
  ser_index_summary summary;
  ser_error err = {0};
  index_all(&first, &summary, (ser_index_options){.roots[SER_CSV] = csv}, NULL);
  free(summary.notes.data);
  ASSERT_OK(ser_manifest_write(&first, csv, &err), err);
  index_all(&second, &summary, (ser_index_options){.roots[SER_CSV] = csv}, NULL);
  assert_int_equal(second.extra_columns, 1);
  assert_string_equal(second.extra_names[0], "session");
  ser_text a = {0}, b = {0};
  ser_manifest_text(&a, &first);
  ser_manifest_text(&b, &second);
  assert_string_equal(a.data, b.data);
  free(a.data);
  free(b.data);
  end(&second, &summary);
  ser_manifest_free(&first);
  free(text);
  free(csv);
}

static void refuse(ser_index_options options, ser_status status, const char *words) {
  ser_error err = {0};
  ser_manifest manifest;
  ser_index_summary summary;
  options.emotions = 8;
  options.jobs = 1;
  assert_int_equal(ser_index(&manifest, &summary, &options, NULL, &err), status);
  if (!strstr(err.text, words)) fail_msg("'%s' does not say '%s'", err.text, words);
  assert_null(manifest.rows);
}

static void wrong_tables_and_roots_are_named(void **state) {
  (void)state;
  char *csv = ser_path_join(folder, "wrong.csv"), *empty = ser_path_join(folder, "empty");
  ser_error err = {0};
  ASSERT_OK(ser_make_folders(empty, &err), err);
  test_put_clip(folder, "w1.wav", 1);
  refuse((ser_index_options){0}, SER_USAGE, "nothing to index");
  refuse((ser_index_options){.roots[SER_RAVDESS] = empty}, SER_USAGE,
         "holds no recording of ravdess (names like 03-01-05");
  refuse((ser_index_options){.roots[SER_TESS] = csv}, SER_FAILED, "there is no folder");
  test_put_text(folder, "wrong.csv", "path,emotion\nw1.wav,sad\nw1.wav,hapy\n");
  refuse((ser_index_options){.roots[SER_CSV] = csv}, SER_FAILED, "surprised: 'hapy' (1 line, line 3); mend");
  test_put_text(folder, "wrong.csv", "path,emotion\nw1.wav,bored\nw2.wav,hapy\nw3.wav,sad\nw4.wav,bored\n");
  refuse((ser_index_options){.roots[SER_CSV] = csv}, SER_FAILED,
         "'bored' (2 lines, line 2 first), 'hapy' (1 line, line 3)");
  test_put_text(folder, "wrong.csv", "path,emotion\nw1.wav,sad\nw1.wav,happy\n");
  refuse((ser_index_options){.roots[SER_TESS] = csv}, SER_USAGE, "wrong.csv is a file; give the folder of tess");
  refuse((ser_index_options){.roots[SER_CSV] = csv}, SER_FAILED, "twice, as sad and as happy");
  test_put_text(folder, "wrong.csv", "path,label\nw1.wav,sad\n");
  refuse((ser_index_options){.roots[SER_CSV] = csv}, SER_USAGE, "line 1: the columns path and emotion");
  test_put_text(folder, "wrong.csv", "path,emotion\n,sad\n");
  refuse((ser_index_options){.roots[SER_CSV] = csv}, SER_FAILED, "line 2: the path is missing");
  test_put_text(folder, "wrong.csv", "path,emotion\n  ,sad\n");
  refuse((ser_index_options){.roots[SER_CSV] = csv}, SER_FAILED, "line 2: the path is missing");
  test_put_text(folder, "wrong.csv", "path,Emotion ,emotion\nw1.wav,sad,happy\n");
  refuse((ser_index_options){.roots[SER_CSV] = csv}, SER_FAILED,
         "wrong.csv: line 1: the column emotion is there twice; keep one");
  test_put_text(folder, "wrong.csv", "path;emotion;level\nw1.wav;sad;0,5\n");
  refuse((ser_index_options){.roots[SER_CSV] = csv}, SER_FAILED,
         "wrong.csv: line 1: semicolons stand between the columns; save the table with commas instead");
  test_put_text(folder, "wrong.csv", "path\temotion\nw1.wav\tsad\n");
  refuse((ser_index_options){.roots[SER_CSV] = csv}, SER_FAILED, "line 1: tabs stand between the columns");
  test_put_text(folder, "wrong.csv", "path,emotion\n");
  refuse((ser_index_options){.roots[SER_CSV] = csv}, SER_FAILED, "lists no recordings");
  free(csv);
  free(empty);
}

static void an_older_manifest_is_trusted(void **state) {
  (void)state;
  char *root = ser_path_join(folder, "trust");
  for (int i = 0; i < 6; i++) {
    char *name = ser_format("10%02d_DFA_ANG_XX.wav", i + 1);
    test_put_clip(root, name, (uint64_t)i);
    free(name);
  }
  ser_manifest first, second;
  ser_index_summary summary;
  index_all(&first, &summary, (ser_index_options){.roots[SER_CREMAD] = root}, NULL);
  assert_int_equal(summary.hashed, 6);
  free(summary.notes.data);
  first.rows[0].status = SER_ROW_OK;
  first.rows[0].reason = SER_REASON_CLIPPED;
  first.rows[1].status = SER_EXCLUDED;
  first.rows[1].reason = SER_REASON_SILENT;
  first.rows[2].status = first.rows[3].status = first.rows[4].status = SER_ROW_OK;
  memset(&first.rows[5].hash, 0, sizeof first.rows[5].hash);                /* was not readable then */
  first.rows[2].hash.bytes[0] ^= 1;                                         /* to show that nothing was read */
  utimensat(0, first.rows[3].path, (struct timespec[]){{5, 0}, {5, 0}}, 0); /* touched, the same bytes */
  test_put_clip(root, "1005_DFA_ANG_XX.wav", 77);                           /* other bytes of the same size */
  utimensat(0, first.rows[4].path, (struct timespec[]){{6, 0}, {6, 0}}, 0);
  index_all(&second, &summary, (ser_index_options){.roots[SER_CREMAD] = root}, &first);
  assert_int_equal(summary.hashed, 3);
  assert_int_equal(second.rows[0].status, SER_ROW_OK);
  assert_int_equal(second.rows[0].reason, SER_REASON_CLIPPED);
  assert_int_equal(second.rows[1].status, SER_EXCLUDED);
  assert_memory_equal(&second.rows[2].hash, &first.rows[2].hash, sizeof(ser_hash));
  assert_int_equal(second.rows[3].status, SER_ROW_OK);
  assert_int_equal(second.rows[3].mtime_ns, 5000000000);
  assert_int_equal(second.rows[4].status, SER_NEW);
  assert_memory_not_equal(&second.rows[4].hash, &first.rows[4].hash, sizeof(ser_hash));
  assert_int_equal(second.rows[5].status, SER_NEW);
  for (int i = 0; i < 6; i++) assert_int_equal(second.rows[i].frames, 400);
  end(&second, &summary);
  index_all(&second, &summary, (ser_index_options){.roots[SER_CREMAD] = root, .rehash = true}, &first);
  assert_int_equal(summary.hashed, 6);
  assert_memory_not_equal(&second.rows[2].hash, &first.rows[2].hash, sizeof(ser_hash));
  assert_int_equal(second.rows[2].status, SER_NEW);
  assert_int_equal(second.rows[0].reason, SER_REASON_CLIPPED); /* the same bytes, the same verdict */
  end(&second, &summary);
  ser_manifest_free(&first);
  free(root);
}

/* Other bytes of the same size: whatever way the time has gone, and however little, the file is read again. */
static void another_time_is_another_file(void **state) {
  (void)state;
  static const int64_t steps[] = {1000000000, -1000000000, 1000, -1000}; /* ns */
  char *root = ser_path_join(folder, "times");
  ser_manifest first, second;
  ser_index_summary summary;
  test_put_clip(root, "1001_DFA_ANG_XX.wav", 0);
  index_all(&first, &summary, (ser_index_options){.roots[SER_CREMAD] = root}, NULL);
  free(summary.notes.data);
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
    int64_t then = first.rows[0].mtime_ns + steps[i];
    struct timespec time = {then / 1000000000, then % 1000000000};
    test_put_clip(root, "1001_DFA_ANG_XX.wav", 1 + i);
    assert_int_equal(utimensat(0, first.rows[0].path, (struct timespec[]){time, time}, 0), 0);
    index_all(&second, &summary, (ser_index_options){.roots[SER_CREMAD] = root}, &first);
    assert_int_equal(summary.hashed, 1);
    assert_int_equal(second.rows[0].size, first.rows[0].size);
    assert_int_equal(second.rows[0].mtime_ns, then);
    assert_memory_not_equal(&second.rows[0].hash, &first.rows[0].hash, sizeof(ser_hash));
    end(&second, &summary);
  }
  ser_manifest_free(&first);
  free(root);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(ravdess, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(cremad, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(tess, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(savee, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(one_root_for_all, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(unusable_files_stay_with_their_reason, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_lab_s_table, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(an_untidy_table, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_manifest_as_a_lab_s_table, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(wrong_tables_and_roots_are_named, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(an_older_manifest_is_trusted, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(another_time_is_another_file, make_folder, remove_folder),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
