/* Every message that a user can cause: what was typed, the exit status, what the message names, the cure it gives. The
 * program itself runs, in a folder of small files that are wrong in one way each. Messages about the configuration's
 * keys have their own table in test_config.c, those of options in test_options.c; here are a few of each kind, to see
 * that they reach the user. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "support/program.h"

/* A pipe that nobody reads any more, as fd 9: its reader is closed before anything is written. */
#define GONE "mkfifo gone 2>/dev/null; exec 8<>gone 9>gone 8>&-; "

/* stop SIGNAL CONDITION ARGUMENTS...: the program, which would not end by itself, gets a signal once the condition
 * holds. A program that failed early is not waited for, and one that never gets there for some minutes: both fail their
 * row. Its stdin is a silent pipe. */
#define STOP                                                                                                           \
  "mkfifo hang 2>/dev/null; exec 7<>hang; stop() { signal=$1 ready=$2; shift 2; \"$P\" \"$@\" <&7 & "                  \
  "n=0; until eval \"$ready\" || [ ! -e /proc/$!/exe ] || [ $((n += 1)) -gt 6000 ]; do sleep 0.01; done; "             \
  "kill -$signal $!; wait $!; }; stop "
/* It is no longer the shell, and has handlers for SIGTERM and SIGINT: bits 14 and 1 of the mask. */
#define LISTENS "'[ /proc/$!/exe -ef \"$P\" ] && grep -q \"^SigCgt.*[4567cdef]..[2367abef]$\" /proc/$!/status'"

/* Other bytes in the file $f, of the same size and time. */
#define ROT "touch -r $f then; printf rot | dd of=$f bs=1 seek=5000 conv=notrunc; touch -r then $f; "

#define HEADER                                                                                                         \
  "path,corpus,speaker,sex,emotion,intensity,statement,rate,channels,frames,seconds,size,mtime_ns,hash,status,"        \
  "reason\n"

/* Thirty recordings, and what is trained on them. */
static void make_runs(void) {
  static const char *const emotions[] = {"neutral", "happy", "sad"};
  ser_text lab = {0};
  ser_text_puts(&lab, "path,emotion,speaker\n");
  for (int i = 0; i < 30; i++) {
    char name[32];
    snprintf(name, sizeof name, "clips/c%02d.wav", i);
    test_put_wav(name, (uint64_t)i, 0.5);
    ser_text_printf(&lab, "%s,%s,s%d\n", name, emotions[i % 3], i / 3 % 5);
  }
  test_put_file("lab.csv", lab.data);
  free(lab.data);
  ser_text parts = {0}; /* of all recordings but the last, whose folder is misspelt */
  ser_text_puts(&parts, "path,part\n");
  for (int i = 0; i < 30; i++)
    ser_text_printf(&parts, "%s/c%02d.wav,%s\n", i < 29 ? "clips" : "clip", i, i < 6 ? "test" : "train");
  test_put_file("partly.csv", parts.data);
  free(parts.data);
  test_put_file("good.yaml", "corpora: {csv: lab.csv}\nmodel: {blocks: 1, filters: 4}\ntrain: {epochs: 1, batch: 8}\n");
  test_must("S index --csv lab.csv -o good.csv");
  test_must("S train good.yaml -o run");
  test_must("S train good.yaml -o seeds --manifest good.csv --set train.seeds=1,2 --set cache.dir=run/cache");
}

/* Tables that are wrong in one way each. */
static void make_tables(void) {
  test_put_file("empty.csv", "");
  test_put_file("quote.csv", "path,emotion\n\"a,b\n");
  test_put_file("cells.csv", "path,emotion\na,b,c\n");
  test_put_file("columns.csv", "file,label\na,b\n");
  test_put_file("header.csv", "path,emotion\n");
  test_put_file("nopath.csv", "path,emotion\n,happy\n");
  test_put_file("twice.csv", "path,emotion\nclips/c00.wav,happy\nclips/c00.wav,sad\n");
  test_put_file("semicolons.csv", "path;emotion\nclips/c00.wav;happy\n");
  test_put_file("pair.csv", "path,Path,emotion\nclips/c00.wav,clips/c01.wav,happy\n");
  test_put_file("not.csv", "a,b\n1,2\n");
  test_put_file("status.csv",
                HEADER "/x.wav,csv,s,,happy,,,16000,1,8000,0.5,16044,1,00000000000000000000000000000000,fine,\n");
  test_put_file("emotion.csv",
                HEADER "/x.wav,csv,s,,joyous,,,16000,1,8000,0.5,16044,1,00000000000000000000000000000000,ok,\n");
  test_put_file("number.csv",
                HEADER "/x.wav,csv,s,,happy,,,fast,1,8000,0.5,16044,1,00000000000000000000000000000000,ok,\n");
  test_put_file("part.csv", "path,part,fold\nclips/c00.wav,left,0\n");
  test_put_file("fold.csv", "path,part,fold\nclips/c00.wav,train,one\n");
  test_put_file("lacks.csv", "path,part\nclips/c00.wav,train\n");
  test_put_file("parts.csv", "path,part\nclips/c00.wav,train\nclips/c00.wav,test\n");
  test_put_file("two.csv", "path,emotion\nclips/c00.wav,happy\nclips/c01.wav,sad\n");
}

/* Recordings that cannot be used, and tables that name them. */
static void make_recordings(void) {
  test_put_file("short/lab.csv", "path,emotion\nc.wav,happy\n");
  test_put_wav("short/c.wav", 7, 0.05);
  float none[8000] = {0};
  char *silent = ser_path_join(test_program_folder(), "silent.wav");
  test_write_wav(silent, none, 8000, 16000);
  free(silent);
  test_put_file("broken/lab.csv", "path,emotion\nc.wav,happy\nd.wav,sad\n");
  test_put_file("broken/c.wav", "this is no sound");
  test_put_file("broken/d.wav", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
  test_put_file("calm.csv", "path,emotion\nbroken/c.wav,calm\nclips/c00.wav,calm\n");
  test_put_file("mixed.csv", "path,emotion\nbroken/c.wav,happy\nclips/c00.wav,happy\nclips/c01.wav,sad\n");
  test_put_file("rate.csv", "path,emotion\nrate.wav,happy\n");
  test_must("{ head -c 24 clips/c00.wav; printf '\\144\\0\\0\\0'; tail -c +29 clips/c00.wav; } >rate.wav");
  test_put_file("notes/readme.txt", "nothing to hear");
}

/* Configurations, and folders of every kind but the right one. */
static void make_folders(void) {
  test_put_file("bad.yaml", "train:\n  epoch: 3\n");
  test_put_file("cuda.yaml", "corpora:\n  csv: lab.csv\ndevice: cuda\n");
  test_put_file("folds.yaml", "split:\n  folds: 1\n");
  test_put_file("cut.yaml", "train: [1\n");
  test_put_file("two.yaml", "corpora: {csv: two.csv}\n");
  test_put_file("nothing.yaml", "train:\n  epochs: 1\n");
  test_put_file("model.safetensors", "not a model");
  test_put_file("elsewhere/file", "x");
  test_put_file("old/FORMAT", "serenade-cache 9\n");
  test_put_file("newer/run.json", "{\"version\": 99}");
  test_put_file("torn/run.json", "{\"version\"");
  test_must("cp -r run damaged && head -c 2000 run/checkpoint >damaged/checkpoint && "
            "sed -i 's/\"trained\": \"[0-9a-f]*\"/\"trained\": \"\"/' damaged/run.json");
  test_must("cp -r run unfinished && rm unfinished/model.safetensors");
  test_must("cp -r run cutmodel && head -c 3000 run/model.safetensors >cutmodel/model.safetensors");
}

static int set_up(void **state) {
  (void)state;
  test_program_start("cli");
  make_runs();
  make_tables();
  make_recordings();
  make_folders();
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  test_program_end();
  return 0;
}

static const struct {
  const char *line;
  int status;
  const char *named, *cure;
} rows[] = {
    /* the program */
    {"S", 2, "no command is given", "name one of those above"},
    {"S trian good.yaml", 2, "no command 'trian'", "the nearest is train"},
    {"S help", 2, "no command 'help'",
     "there are index, audit, extract, train, evaluate, predict, run, bench, info, cache"},
    {"S -V", 2, "unknown option -V", "'serenade --help' lists"},
    {"S info --quiet=yes", 2, "--quiet takes no value", "write --quiet alone"},
    {"S --quite", 2, "unknown option --quite", "the nearest is --quiet"},
    {"S info --device gpu", 2, "--device is 'gpu'", "one of auto, cpu, cuda; the nearest is cpu"},
    {"S info --device cuda", 1, "CUDA cannot be used: ", "give the device cpu"},
    {"S info --threads 5000", 2, "--threads is '5000'", "from 0 to 4096"},
    {"S index --tess clips -o m.csv --device cpu", 2, "index: there is no option --device here", "take it out"},
    {"S --threads 2 cache verify c", 2, "cache: there is no option --threads here", "take it out"},
    {"S audit good.csv --threads 2 --seed 1", 2, "audit: there is no option --seed here", "take it out"},
    {"S extract good.csv --cache c --seed 3", 2, "extract: there is no option --seed here", "take it out"},
    {"S info config --threads 2", 2, "info: --threads belongs to 'serenade info device'", "take it out"},
    {"S cache verify run/cache --seed 3", 2, "cache: there is no option --seed here", "take it out"},
    {"S info --threads 2 && S info device --device cpu", 0, "", ""},
    {"! S cache --help | grep -e --threads -e --device -e --seed && S train --help | grep -c -e --threads -e --device "
     "-e "
     "--seed | grep -qx 3",
     0, "", ""},
    {"S train good.yaml -o r --seed -1", 2, "--seed is '-1'", "a whole number from 0"},
    {"SERENADE_ISA=sse9 S info", 2, "SERENADE_ISA=sse9 is none of avx512, avx2, base", "unset the variable"},
    {"S --version >/dev/full", 1, "cannot write the results to stdout: No space left", "not whole"},
    {"S info config >/dev/full", 1, "cannot write the results to stdout: No space left", "not whole"},
    {"S info config >&-", 1, "cannot write the results to stdout", "not whole"},
    {GONE "S --version >&9", 1, "cannot write the results to stdout: Broken pipe", "is not whole"},
    {GONE "S info config >&9", 1, "cannot write the results to stdout: ", "is not whole"}, /* more than one write */
    /* index */
    {"S index --tess corp", 2, "-o is missing", "write -o manifest.csv"},
    {"S index -o m.csv", 2, "no corpus is named", "give --ravdess, --cremad, --tess, --savee or --csv"},
    {"S index --tess '' -o m.csv", 2, "no corpus is named", "give --ravdess, --cremad, --tess, --savee or --csv"},
    {"S index --tess -o m.csv", 2, "--tess needs a value", "write --tess VALUE"},
    {"S index --tess clips --tess notes -o m.csv", 2, "--tess is given twice", "take one out"},
    {"S index --tess nowhere -o m.csv", 1, "there is no folder nowhere", "give the folder of tess"},
    {"S index --tess lab.csv -o m.csv", 2, "lab.csv is a file", "give the folder of tess, or one above it"},
    {"S index --tess notes -o m.csv", 2, "notes holds no recording of", "names like"},
    {"S index --csv lab.csv -o m.csv --emotions 7", 2, "--emotions is '7'", "it must be one of 6, 8\n"},
    {"S index --csv lab.csv -o m.csv --jobs x", 2, "--jobs is 'x'", "a whole number"},
    {"S index --csv lab.csv -o m.csv more", 2, "'more' is one argument too many", "take it out"},
    {"S index --csv none.csv -o m.csv", 1, "there is no file none.csv", "give a table of recordings: path, emotion"},
    {"S index --csv notes -o m.csv", 2, "notes is a folder", "give a table of recordings"},
    {"S index --csv '' --tess '' -o m.csv", 2, "no corpus is named", "give"},
    {"S index --csv empty.csv -o m.csv", 1, "empty.csv is empty", "a header line was expected"},
    {"S index --csv quote.csv -o m.csv", 1, "quote.csv: line", "a quote is not closed; mend the file"},
    {"S index --csv cells.csv -o m.csv", 1, "cells.csv: line 2 has more cells", "mend the line"},
    {"S index --csv columns.csv -o m.csv", 2, "columns.csv: line 1", "the columns path and emotion were expected"},
    {"S index --csv header.csv -o m.csv", 1, "header.csv lists no recordings", "a header alone"},
    {"S index --csv nopath.csv -o m.csv", 1, "nopath.csv: line 2: the path is missing", "give one or remove the line"},
    {"S index --csv semicolons.csv -o m.csv", 1, "semicolons.csv: line 1: semicolons stand between the columns",
     "save the table with commas"},
    {"S audit semicolons.csv", 1, "semicolons.csv: line 1: semicolons stand", "save the table with commas"},
    {"S index --csv pair.csv -o m.csv", 1, "pair.csv: line 1: the column path is there twice", "keep one"},
    {"S index --csv twice.csv -o m.csv", 1, "twice.csv lists", "keep one line"},
    {"S index --csv broken/lab.csv -o m.csv", 3, "broken/c.wav: unreadable", "get the file anew"},
    {"S index --csv broken/lab.csv -o m.csv", 3, "broken/d.wav: lfs_pointer", "git lfs pull"},
    {"S index --csv broken/lab.csv -o b1.csv; S index --csv broken/lab.csv -o b1.csv", 3, "broken/d.wav: lfs_pointer",
     "git lfs pull"},
    {"S index --csv broken/lab.csv -o b1.csv 2>&-; S index --csv broken/lab.csv -o b1.csv", 3,
     "broken/c.wav: unreadable: not a recording that libsndfile can open (Format not recognised)", "get the file anew"},
    {"S index --csv broken/lab.csv -o b2.csv 2>said; cat said >&2; test $(grep -c broken/c.wav said) = 1 && exit 3", 3,
     "broken/c.wav: unreadable", ""},
    {"printf 'path,emotion\\ncaf\\351.wav,sad\\n' >latin.csv; S index --csv latin.csv -o m.csv", 1,
     "latin.csv: line 2 is not UTF-8", "save the table as CSV in UTF-8"},
    {"printf 'p\\000a\\000' >wide.csv; S index --csv wide.csv -o m.csv", 1, "wide.csv: line 1 holds a NUL byte",
     "save it as CSV in UTF-8"},
    {"mkfifo pipe.wav; printf 'path,emotion\\npipe.wav,sad\\n' >pipe.csv; S index --csv pipe.csv -o m.csv", 3,
     "pipe.wav: unreadable: cannot open: it is a pipe", "give a file in its place"},
    {"d=$(printf 'd\\351'); mkdir $d; cp clips/c00.wav $d/OAF_back_sad.wav; S index --tess $d -o m.csv", 1,
     "OAF_back_sad.wav is not UTF-8", "rename the file or folder"},
    {"d=$(printf 'e\\351'); mkdir $d; cp lab.csv $d; cd $d; S train ../good.yaml -o r", 2, "lab.csv is not UTF-8",
     "rename the folder"},
    {"S index --csv lab.csv -o not.csv", 2, "not.csv", "column"},
    {"S index --csv lab.csv -o none/m.csv", 1, "-o none/m.csv: there is no folder none", "make it first"},
    {"S index --csv lab.csv -o ''", 2, "-o '' names no file", "give one"},
    {"S index --csv lab.csv -o -", 2, "-o '-' names no file", "/dev/stdout"},
    {"S index --csv lab.csv -o /dev/stdout >out.csv; n=$?; grep -q c00.wav,csv, out.csv && test ! -e "
     "/dev/stdout.partial && "
     "exit $n",
     0, "", ""},
    {"S index --csv lab.csv -o clips", 2, "-o clips is a folder", "name a file"},
    {"S index --csv lab.csv -o ./lab.csv", 2, "-o ./lab.csv is the file of --csv itself", "name another"},
    {"ln -s /dev/full full.csv; S index --csv lab.csv -o full.csv; test -L full.csv && exit 1", 1,
     "cannot write full.csv", "No space left"},
    {"S index --ravdess clips -o m.csv", 2, "clips holds no recording of ravdess", "it holds other recordings (30)"},
    /* audit */
    {"S audit", 2, "the manifest is missing", "see serenade audit --help"},
    {"S audit none.csv", 1, "there is no file none.csv", "give a manifest that `serenade index` made"},
    {"S audit ''", 1, "the name of a file is empty", "give a manifest"},
    {"S audit notes", 2, "notes is a folder", "give a manifest"},
    {"S audit not.csv", 2, "not.csv", "column"},
    {"S audit status.csv", 1, "status.csv", "fine"},
    {"S audit emotion.csv", 1, "emotion.csv", "joyous"},
    {"S audit number.csv", 1, "number.csv", "fast"},
    {"S audit good.csv --mode exlude", 2, "--mode is 'exlude'", "one of exclude, report; the nearest is exclude"},
    {"cp good.csv g.csv; S audit g.csv --json none/a.json", 1, "--json none/a.json: there is no folder none",
     "make it first"},
    {"cp good.csv g.csv; S audit g.csv --json ./g.csv", 2, "--json ./g.csv is the manifest itself", "name another"},
    {"S index --csv broken/lab.csv -o b.csv; S audit b.csv", 3, "broken/c.wav: unreadable", "get the file anew"},
    {"S index --csv broken/lab.csv -o b.csv 2>&-; S audit b.csv", 3,
     "broken/c.wav: unreadable: not a recording that libsndfile can open (Format not recognised)", "get the file anew"},
    {"S index --csv rate.csv -o b.csv", 3, "rate.wav: unreadable: its header says 100 Hz", "get the file anew"},
    {"S index --csv calm.csv -o f.csv && S audit f.csv && grep -c filtered,unreadable f.csv", 0, "", ""},
    /* extract */
    {"S extract", 2, "the manifest is missing", "see serenade extract --help"},
    {"S extract good.csv", 2, "the cache is not named", "write --cache DIR"},
    {"S extract good.csv --features mfcc13 --cache c", 2, "--features is 'mfcc13'", "the nearest is mfcc39"},
    {"S extract good.csv --features wav2vec2 --cache c", 2, "wav2vec2.weights names none", "facebook/wav2vec2-base"},
    {"S extract good.csv --features wav2vec2 --weights notes --cache c", 1, "notes", "facebook/wav2vec2-base"},
    {"S extract good.csv --cache c --jobs 0x2", 2, "--jobs is '0x2'", "a whole number"},
    {"S extract good.csv --cache c --set features.mfcc39.n_fft=1000", 2, "features.mfcc39.n_fft is 1000",
     "power of two"},
    {"S extract good.csv --cache c --config bad.yaml", 2, "bad.yaml:2:3: unknown key 'train.epoch'", "train.epochs"},
    {"S extract good.csv --cache old", 1, "FORMAT says 'serenade-cache 9'", "give another cache folder"},
    {"S index --csv short/lab.csv -o s.csv; S extract s.csv --cache c", 3, "short/c.wav", "short"},
    {"S index --csv broken/lab.csv -o b.csv; S extract b.csv --cache c", 3, "broken/c.wav: unreadable",
     "get the file anew"},
    {"S index --csv broken/lab.csv -o b.csv; S extract b.csv --cache c", 3, "broken/d.wav: lfs_pointer",
     "git lfs pull"},
    /* train, run */
    {"S train", 2, "the configuration is missing", "see serenade train --help"},
    {"S train good.yaml", 2, "-o is missing", "write -o RUN"},
    {"S train none.yaml -o r", 1, "there is no file none.yaml", "give a configuration, such as configs/reference.yaml"},
    {"S train bad.yaml -o r", 2, "bad.yaml:2:3: unknown key 'train.epoch'", "the nearest is train.epochs"},
    {"S train cut.yaml -o r", 2, "cut.yaml:", "not valid YAML"},
    {"S train nothing.yaml -o r", 2, "no corpus is named", "--set corpora.ravdess=DIR"},
    {"S train good.yaml -o run", 2, "run holds a run already", "add --resume"},
    {"S train good.yaml -o run --resume --set train.lr=0.1", 2,
     "run was trained from other settings or recordings (train.lr: 0.001 -> 0.1); name another folder", ""},
    {"S train good.yaml -o run --resume --set train.lr=0.1 --set model.pool=real --set split.seed=2 --set "
     "train.seeds=3 --set train.beta1=0.5 --set train.batch=3 --set jobs=1 --set train.epochs=9",
     2, "(split.seed: 1 -> 2; model.pool: all -> real; train.batch: ", "; and 2 more)"},
    {"cp -r run refused; head -20 good.csv >less.csv; S train good.yaml -o refused --resume --manifest less.csv; n=$?; "
     "S evaluate refused 2>&- && exit $n",
     2, "refused was trained from other settings or recordings (usable recordings: 30 -> 19)", "name another folder"},
    {"cp -r run audited; head -20 lab.csv >less.csv; S train good.yaml -o audited --resume --set corpora.csv=less.csv; "
     "n=$?; S evaluate audited 2>&- && cmp run/manifest.csv audited/manifest.csv && exit $n",
     2, "audited was trained from other settings or recordings (usable recordings: 30 -> 19)", "name another folder"},
    {"cp -r run edited && echo >>edited/config.yaml; S train good.yaml -o edited --resume --set train.lr=0.1", 2,
     "(which is not known, since its config.yaml is gone or was edited)", "name another folder"},
    {"sed 's/happy/sad/' lab.csv >sad.csv; cp -r run joyless; S train good.yaml -o joyless --resume --set train.lr=0.1 "
     "--set corpora.csv=sad.csv",
     2, "(train.lr: 0.001 -> 0.1; other recordings, labels or speakers)", "name another folder"},
    {"cp -r run anew && S run good.yaml -o anew --set model.pool=real 2>said && "
     "grep -q '^train: the inputs have changed (model.pool: all -> real); the results of the old ones are kept' said",
     0, "", ""},
    /* On the CPU conv is none of a training's settings. */
    {"cp -r run forms && S train good.yaml -o forms --resume --device cpu --set conv=fused 2>said && "
     "grep -q '^train: nothing to do' said && cmp run/config.yaml forms/config.yaml && cmp run/run.json forms/run.json",
     0, "", ""},
    {"cp -r run both && sed -i 's/^# started on: .*/&, cuda sm_90 fused fp32/' both/config.yaml && "
     "S train good.yaml -o both --resume --device cpu --set conv=fused",
     2, "both was trained from other settings", "name another folder"},
    {"S train good.yaml -o had --set train.epochs=2 && S train good.yaml -o had --resume", 2,
     "had has had 2 epochs already, more than train.epochs=1", "ask for at least 2"},
    {"S train good.yaml -o elsewhere", 2, "elsewhere is not empty and no run", "name a new folder"},
    /* what a run leaves that was killed while it wrote its first file is in nobody's way */
    {"mkdir r0 && touch r0/manifest.csv.tmp-7-0; S train good.yaml -o r0", 0, "", ""},
    {"mkdir r6 && touch r6/manifest.csv.partial; S train good.yaml -o r6 && test ! -e r6/manifest.csv.partial", 0, "",
     ""},
    {"mkdir r8 && echo x >r8/manifest.csv.heard; S train good.yaml -o r8", 0, "", ""},
    {"mkdir r7 && printf 'path,emo' >r7/manifest.csv.next; S train good.yaml -o r7 && test ! -e r7/manifest.csv.next",
     0, "", ""},
    {"S train good.yaml -o good.csv", 2, "good.csv is a file", "name another"},
    {"S train good.yaml -o newer", 1, "newer/run.json is of version 99", "use a newer Serenade"},
    {"S train good.yaml -o torn", 1, "torn/run.json is damaged", "neither config.yaml nor manifest.csv to judge by"},
    {"cp -r run torn2 && truncate -s 9 torn2/run.json && S train good.yaml -o torn2 --resume", 0,
     "warning: torn2/run.json was damaged", "it is made anew from config.yaml"},
    {"cp -r run lost && rm lost/run.json lost/config.yaml && S train good.yaml -o lost --resume", 2,
     "lost has no sound run.json to tell what its results were made from",
     "name another folder, or use 'serenade run'"},
    {"S train good.yaml -o r --set train.epochs=0", 2, "--set train.epochs=0: train.epochs is '0'", "from 1"},
    {"S train good.yaml -o r --set split.kind=file", 2, "split.file names none", "set split.file"},
    {"S train good.yaml -o r9 --manifest none.csv; n=$?; test ! -e r9 && exit $n", 1, "there is no file none.csv",
     "give a manifest"},
    {"mkdir r10; S train good.yaml -o r10/a//b/ --manifest not.csv; n=$?; test -e r10 && test ! -e r10/a && exit $n", 2,
     "not.csv: line 1", "make it with"},
    {"S run good.yaml -o r11 --set corpora.tess=nowhere; n=$?; test ! -e r11 && exit $n", 1,
     "/nowhere; give the folder of tess", "or one above it"},
    {"S run good.yaml", 2, "-o is missing", "write -o RUN"},
    {"S train cuda.yaml -o r5", 1, "cuda.yaml:3:9: CUDA cannot be used: ", "give the device cpu"},
    {"S train good.yaml -o r5 --set device=cuda", 1, "--set device=cuda: CUDA cannot be used: ", "give the device cpu"},
    {"S extract good.csv --cache c --config cuda.yaml", 1,
     "cuda.yaml:3:9: CUDA cannot be used: ", "give the device cpu"},
    {"S train folds.yaml -o r5", 2, "folds.yaml:2:10: split.folds is 1", "0 means one split"},
    {"S train folds.yaml -o r5 --set split.folds=2 --set train.seeds=", 2, "--set train.seeds=: train.seeds is empty",
     "give at least one"},
    {"S train good.yaml -o r5 --device cuda; n=$?; test ! -e r5 && exit $n", 1,
     "--device cuda: CUDA cannot be used: ", "give the device cpu"},
    {"S run nothing.yaml -o r", 2, "no corpus is named",
     "corpora.savee or corpora.csv, as in --set corpora.ravdess=DIR"},
    {"S run good.yaml -o elsewhere", 2, "elsewhere is not empty and no run", "name a new folder"},
    {"S run two.yaml -o r2", 1, "at least three different recordings", "2 usable"},
    {"S run good.yaml -o r3 --set split.kind=speaker --set split.folds=9", 2, "split.folds is 9", "set split.folds to"},
    {"S run good.yaml -o r3 --set split.folds=50", 2, "split.folds is 50", "set split.folds to"},
    {"S run good.yaml -o r3 --set split.kind=speaker --set split.test_speakers=[s9]", 2, "the speaker s9",
     "there are s0"},
    {"S run good.yaml -o r3 --set split.kind=speaker --set split.test_speakers=[s0,s1,s2,s3,s4]", 2,
     "takes every speaker", "leave at least one"},
    {"S run good.yaml -o r3 --set split.kind=file --set split.file=none.csv", 1, "none.csv",
     "give the CSV of the split as split.file"},
    {"S run good.yaml -o r3 --set split.kind=file --set split.file=part.csv", 1, "part.csv: line 2: the part 'left'",
     "is none of train, validation, test"},
    {"S run good.yaml -o r3 --set split.kind=file --set split.file=fold.csv", 1, "fold.csv: line 2: the fold 'one'",
     "whole number"},
    {"S run good.yaml -o r3 --set split.kind=file --set split.file=parts.csv", 1, "parts.csv: line 3: the path",
     "has another part in an earlier line"},
    {"S run good.yaml -o r3 --set split.kind=file --set split.file=lacks.csv", 1, "lacks.csv: fold 0 has no usable",
     "recording of the part"},
    {"S run good.yaml -o r3 --set split.kind=file --set split.file=empty.csv", 1, "empty.csv is empty", "header"},
    {"S run good.yaml -o r3 --set split.kind=file --set split.file=lab.csv", 2, "lab.csv: line 1",
     "the columns path and part were expected"},
    {"S run good.yaml -o r3 --set cache.dir=old", 1, "FORMAT says 'serenade-cache 9'", "give another cache folder"},
    {"S run good.yaml -o damaged", 1, "checkpoint", "remove it to train anew"},
    /* evaluate */
    {"S evaluate", 2, "the run folder is missing", "see serenade evaluate --help"},
    {"S evaluate nowhere", 1, "there is no folder nowhere", "give the folder that train or run made"},
    {"S evaluate lab.csv", 2, "lab.csv is a file", "give the folder that"},
    {"S evaluate notes", 2, "notes holds no run", "give the folder"},
    {"S evaluate unfinished", 1, "model.safetensors is missing: this training is not finished", "train with --resume"},
    {"S evaluate cutmodel", 1, "cutmodel/model.safetensors is not a sound", "copy or make it again"},
    {"S train good.yaml -o partly --set split.kind=file --set split.file=partly.csv", 0,
     "1 line of partly.csv names a recording that the manifest does not have (clip/c29.wav for one)",
     "serenade: warning: Left out: 1 of the 30 usable recordings stands in no part of the split, neither trained on "
     "nor tested"},
    {"cp -r run edited && sed -i '0,/,train,/s//,test,/' edited/split.csv && S evaluate edited", 1,
     "edited/split.csv is not the split that edited/model.safetensors was trained with",
     "what puts it right: serenade train edited/config.yaml --manifest edited/manifest.csv --resume -o edited"},
    {"cp -r edited \"an  edited\" && S evaluate \"an  edited\"", 1, "an  edited/split.csv is not the split",
     "serenade train 'an  edited/config.yaml' --manifest 'an  edited/manifest.csv' --resume -o 'an  edited'\n"},
    {"S train good.yaml -o \"it's here\"", 0, "",
     "trained: it's here; to see how well it does: serenade evaluate "
     "'it'\\''s here'\n"},
    {"S train edited/config.yaml --manifest edited/manifest.csv --resume -o edited && S evaluate edited", 0,
     "edited: split.csv and the models do not belong together", "made again"},
    {"cp -r run relabelled && sed -i '2s/neutral/sad/' relabelled/manifest.csv && S evaluate relabelled", 0,
     "relabelled/manifest.csv has changed since the training", "it is taken as it is now"},
    {"S evaluate run --manifest none.csv", 1, "there is no file none.csv", "give a manifest"},
    {"S evaluate run --manifest not.csv", 2, "not.csv: line 1", "make it with"},
    {"S index --csv mixed.csv -o x.csv 2>&-; S evaluate run --manifest x.csv", 3,
     "broken/c.wav: unreadable: not a recording that libsndfile can open (Format not recognised)", "get the file anew"},
    /* a shard that rots with its size and time kept is mended on the way: it is told, and no error that is none */
    {"cp -r run rotten; f=$(echo rotten/cache/*/shards/*.h5); S index --csv short/lab.csv -o s.csv; "
     "{ cat good.csv; tail -1 s.csv; } >both.csv; S extract s.csv --cache rotten/cache; " ROT
     "S evaluate rotten --manifest both.csv 2>said; n=$?; cat said >&2; grep -q damaged said && "
     "! grep 'run `serenade extract` again' said && test $(grep -c short/c.wav: said) = 1 && exit $n",
     3, "short/c.wav: too short", ""},
    {"f=$(echo rotten/cache/*/shards/*.h5 | tr ' ' '\\n' | xargs ls -S | head -1); " ROT
     "S train good.yaml -o healed --manifest both.csv --set cache.dir=rotten/cache 2>said; n=$?; cat said >&2; "
     "grep -q damaged said && ! grep 'run `serenade extract` again' said && exit $n",
     3, "short/c.wav: too short", ""},
    {"mkdir -p o1 o2; cp good.csv o1; cp good.csv o2; S evaluate run --manifest o1/good.csv && "
     "S evaluate run --manifest o2/good.csv",
     0, "", "the reports stand in run/evaluate-good-2\n"},
    {"S evaluate run --manifset good.csv", 2, "unknown option --manifset", "the nearest is --manifest"},
    /* predict */
    {"S predict", 2, "the model and at least one file, folder or - is missing", "see serenade predict --help"},
    {"S predict run/model.safetensors", 2, "at least one file", "see serenade predict --help"},
    {"S predict none.safetensors clips/c00.wav", 1, "there is no file none.safetensors",
     "give the model.safetensors of a run"},
    {"S predict notes clips/c00.wav", 2, "notes holds no model.safetensors", "name a model file"},
    {"S predict seeds clips/c00.wav", 2, "there is no seeds/model.safetensors; seeds holds several models",
     "name one, as in seeds/seed-1/fold-0/model.safetensors"},
    {"S predict seeds/model.safetensors clips/c00.wav", 1, "seeds holds several models",
     "as in seeds/seed-1/fold-0/model.safetensors"},
    {"S predict seeds/seed-2 clips/c00.wav", 2, "seeds/seed-2 holds a model", "seeds/seed-2/fold-0/model.safetensors"},
    {"S predict seeds/seed-2/fold-0 clips/c00.wav", 0, "", ""},
    {"S info model seeds/model.safetensors", 1, "seeds holds several models", "as in seeds/seed-1/fold-0/"},
    {"S predict model.safetensors clips/c00.wav", 2, "model.safetensors is no safetensors file",
     "name the model.safetensors"},
    {"S predict run clips/c00.wav --format xml", 2, "--format is 'xml'", "one of text, json, csv\n"},
    {"S predict run clips/c00.wav --window 9", 2, "the window of 9 s is longer than the model's own",
     "give at most that"},
    {"S predict run clips/c00.wav --window 0.2", 2,
     "the window of 0.2 s is shorter than the model's features need, 0.209", "give at least that"},
    {"S predict run clips/c00.wav --window 0.209", 0, "", ""},
    {"S train good.yaml -o r --set predict.window=0.1", 2, "predict.window (0.1 s) is below what the features need",
     "raise it"},
    {"S predict run clips/c00.wav --window 1 --hop 2", 2, "the hop of 2 s is longer than the window",
     "give at most that"},
    {"S predict run clips/c00.wav --hop x", 2, "--hop: 'x' is no number of seconds", "as in --hop 2.5"},
    {"cp clips/c00.wav ./-dash.wav && S predict run -dash.wav", 2, "unknown option -dash.wav; if the file",
     "write ./-dash.wav, or -- before it"},
    {"S predict run -- -dash.wav", 0, "", ""},
    {"S predict run - - <clips/c00.wav", 2, "'-' is given twice", "one recording"},
    {"S predict run - </dev/null", 3, "-: the file is empty (0 bytes); send the bytes", "of a whole recording\n"},
    {"S predict run - <broken/c.wav", 3,
     "-: not a recording that libsndfile can open (Format not recognised); send the", "bytes of a whole recording\n"},
    {"head -c 3000 clips/c00.wav | S predict run -", 3, "-: cut short", "; send the bytes of a whole recording\n"},
    {"S predict run - <broken/d.wav", 3, "-: ", "git lfs pull"},
    {"S predict run ''", 3, "'': cannot open: No such file", "mend its path, or take it out"},
    {"S predict run none.wav clips/c00.wav", 3, "none.wav: cannot open: No such file", "mend its path"},
    {"S predict run broken/c.wav", 3, "broken/c.wav: not a recording", "get the file anew"},
    {"S predict run broken/d.wav", 3, "broken/d.wav", "git lfs pull"},
    {"S predict run short/c.wav", 3, "short/c.wav", "short"},
    {"S predict good.yaml clips/c00.wav", 2, "good.yaml is no safetensors file", "name the model.safetensors of a run"},
    {"S predict run notes", 3, "notes: no recording below this folder", "taken by suffix"},
    {"S predict run silent.wav", 0, "warning: silent.wav: silent (at most -60 dBFS)", "there is no voice in it"},
    {"S predict run clips/c00.wav 2>said; cat said >&2; test ! -s said", 0, "", ""},
    /* stdout holds nothing or one whole array, whatever came in between */
    {"S predict run none.wav --format json; n=$?; test \"$(cat out)\" = '[]' && exit $n", 3, "none.wav",
     "No such file"},
    {"S predict run clips/c00.wav --format json --device cuda; n=$?; test ! -s out && exit $n", 1,
     "CUDA cannot be used: ", "give the device cpu"},
    {STOP "INT '[ -s out ]' predict run $(yes clips | head -3000) --format json; n=$?; "
          "{ test ! -s out || test \"$(tail -c 4 out)\" = \"$(printf '}\\n]')\"; } && exit $n",
     130, "interrupted by SIGINT", "run the same command for all"},
    {"S predict run clips/c00.wav >/dev/full", 1, "cannot write the results to stdout", "No space left"},
    /* signals */
    {STOP "INT '[ -s long/checkpoint ]' train good.yaml -o long --set train.epochs=1000000", 130,
     "interrupted by SIGINT", "run the same command with --resume"},
    {STOP "TERM '[ -s long2/checkpoint ]' run good.yaml -o long2 --set train.epochs=1000000", 143,
     "interrupted by SIGTERM", "run the same command to go on"},
    {"mkdir zoo; truncate -s 256G zoo/OAF_zoo_sad.wav; " STOP "INT " LISTENS " index --tess zoo -o zoo.csv", 130,
     "interrupted by SIGINT", "what was hashed is kept; run the same command to go on"},
    {"mkfifo nobody; cp good.csv g2.csv; " STOP "INT " LISTENS " audit g2.csv --json nobody", 130,
     "interrupted by SIGINT", "what was judged is kept"},
    {STOP "TERM " LISTENS " predict run -", 143, "interrupted by SIGTERM", "run the same command for all"},
    {STOP "INT " LISTENS " bench all --runs 1000", 130, "interrupted by SIGINT", "run the same command again"},
    /* bench */
    {"S bench nonsense", 2, "the stage is 'nonsense'",
     "one of peak, decode, mfcc, train, forward, predict, extract, all\n"},
    {"S bench decod", 2, "the stage is 'decod'", "the nearest is decode\n"},
    {"S bench peak,decod", 2, "the stage is 'decod'", "the nearest is decode\n"},
    {"S bench decode,", 2, "the stage is '', but it must be one of peak", "all"},
    {"S bench decode peak", 2, "'peak' is one argument too many", "take it out"},
    {"S bench mfcc --set nonsense=1", 2, "unknown key 'nonsense'", "serenade info config"},
    {"S bench decode --data nowhere", 1, "there is no folder nowhere", "give a folder of recordings with --data"},
    {"S bench decode --data lab.csv", 2, "lab.csv is a file", "give a folder of recordings"},
    {"S bench decode --data notes", 2, "notes: no recording there can be", "name a folder of audio files"},
    {"TMPDIR=nowhere S bench peak --runs 1", 1, "cannot make the folder nowhere/serenade-bench-",
     "(TMPDIR names another): No such file"},
    /* info, cache */
    {"S info confg", 2, "'confg'", "the nearest is config"},
    {"S info model", 2, "the model's file or folder is missing", "see serenade info --help"},
    {"S info model model.safetensors", 2, "model.safetensors is no safetensors file", "name the model.safetensors"},
    {"S info model none.safetensors", 1, "there is no file none.safetensors", "give the model.safetensors of a run"},
    {"S info model notes", 2, "notes holds no model.safetensors", "the folder of a finished training"},
    {"S info model notes", 2, "or, of an encoder, a folder with config.json", "facebook/wav2vec2-base"},
    {"mkdir -p half; echo '{\"model_type\":\"wav2vec2\"}' >half/config.json; S info model half", 1,
     "half holds a config.json, but no model.safetensors and no pytorch_model.bin", "facebook/wav2vec2-base"},
    {"mkdir -p other; echo '{\"model_type\":\"wavlm\"}' >other/config.json; "
     "printf 'PK\\003\\004' >other/pytorch_model.bin; S info model other",
     1, "a model of the kind wavlm, which is not computed here", "give one of wav2vec2's or HuBERT's"},
    {"S info cache", 2, "the cache's folder is missing", "see serenade info --help"},
    {"S info cache nowhere", 1, "there is no folder nowhere", "give the folder of a feature cache"},
    {"S info cache notes", 2, "notes is no feature cache", "give the folder"},
    {"S cache", 2, "verify, merge or gc is missing", "see serenade cache --help"},
    {"S cache check c", 2, "'check'", "one of verify, merge, gc\n"},
    {"S cache verify", 2, "the folder of the cache is missing", "see serenade cache --help"},
    {"S cache verify nowhere", 1, "there is no folder nowhere", "give the folder of a feature cache"},
    {"S extract good.csv --cache lab.csv", 2, "lab.csv is a file", "give the folder of a feature cache"},
    {"S cache verify notes", 2, "notes is no feature cache", "give the folder"},
    {"S cache verify old", 1, "FORMAT says 'serenade-cache 9'", "use the version that made it"},
    {"cp -r run/cache rot1; f=$(echo rot1/*/shards/*.h5); " ROT "S cache verify rot1", 1,
     ": 1 damaged shard; extract computes", "anew"},
    {"printf x >one.safetensors; S info model one.safetensors", 1, "it has 1 byte;", "copy or make it again"},
    {"S cache merge c", 2, "INTO and FROM", "see serenade cache --help"},
    {"S cache merge run/cache run/cache", 2, "are the same folder", "give two caches"},
    {"S cache gc c d", 2, "'d' is one argument too many", "take it out"},
};

static void test_every_message(void **state) {
  (void)state;
  int failures = 0;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char *said;
    int status = test_run_line(rows[i].line, &said);
    bool named = strstr(said, rows[i].named) && strstr(said, rows[i].cure);
    bool ours = !*rows[i].named || strstr(said, "serenade: ");
    if (status != rows[i].status || !named || !ours) {
      printf("%s\n  ended with %d, want %d\n  said: %s  want: %s ... %s\n", rows[i].line, status, rows[i].status, said,
             rows[i].named, rows[i].cure);
      failures++;
    }
    free(said);
  }
  if (failures) fail_msg("%d of %zu messages are not as they should be", failures, sizeof rows / sizeof *rows);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_message)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
