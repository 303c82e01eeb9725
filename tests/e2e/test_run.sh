#!/usr/bin/env bash
# The whole path on a small made corpus: each stage does its work once, a second run does nothing, one changed parameter
# redoes what depends on it and no more, a signal ends a run with what is done kept, and the resumed run leaves the same
# bytes as one that was never cut off.
set -euo pipefail

serenade=$SERENADE_BINARY
work=$(mktemp -d "${TMPDIR:-/tmp}/serenade-e2e-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
  echo "FAILED: $*" >&2
  [[ -f err ]] && sed 's/^/  stderr: /' err >&2
  [[ -f out ]] && sed 's/^/  stdout: /' out >&2
  exit 1
}

# Runs the program; the exit status must be the first argument. stdout and stderr are left in out and err.
expect() {
  local want=$1 got=0
  shift
  "$serenade" "$@" >out 2>err </dev/null || got=$?
  [[ $got == "$want" ]] || fail "exit status $got, not $want: serenade $*"
}

said() { grep -qF -- "$1" err || fail "stderr does not say: $1"; }
never_said() { ! grep -qF -- "$1" err || fail "stderr says: $1"; }
printed() { grep -qF -- "$1" out || fail "stdout does not say: $1"; }
present() { for file in "$@"; do [[ -s $file ]] || fail "$file is missing or empty"; done; }
same() { cmp "$1" "$2" || fail "$1 and $2 differ"; }

"$SERENADE_MAKE_CORPUS" corpus
cat >small.yaml <<'END'
corpora:
  ravdess: corpus/RAVDESS
  tess: corpus/TESS
features:
  mfcc39:
    frames: 40
model:
  blocks: 3
  filters: 12
train:
  epochs: 4
  batch: 16
END

echo "== stage by stage"
expect 0 index --ravdess corpus --tess corpus/TESS -o manifest.csv
printed "ravdess"
[[ $(wc -l <manifest.csv) == 154 ]] || fail "the manifest has $(wc -l <manifest.csv) lines, not 154"
[[ $(grep -c ',filtered,' manifest.csv) == 8 ]] || fail "the eight calm clips are not filtered"
expect 0 audit manifest.csv --json audit.json
printed "duplicate: 1"
grep -q '"version": 1' audit.json || fail "audit.json has no version"
[[ $(grep -c ',excluded,duplicate' manifest.csv) == 1 ]] || fail "the copied clip is not excluded"
cp manifest.csv audited.csv
expect 0 audit manifest.csv
same manifest.csv audited.csv
for delay in 0.02 0.05 0.1; do # cut off and repeated, the audit finds the same
  expect 0 index --ravdess corpus --tess corpus/TESS -o interrupted.csv
  "$serenade" audit interrupted.csv >out 2>err &
  pid=$!
  sleep $delay
  kill -TERM $pid 2>/dev/null || true
  wait $pid || true
  expect 0 audit interrupted.csv
  same interrupted.csv audited.csv
  rm interrupted.csv
done
expect 0 extract manifest.csv --features mfcc39,timnet --cache cache
printed "mfcc39: 144 of 144 computed"
printed "timnet: 144 of 144 computed"
expect 0 extract manifest.csv --features mfcc39 --cache cache
printed "nothing to do, 144 of 144 present"
expect 0 cache verify cache
expect 0 info cache cache

echo "== the whole path"
expect 0 run small.yaml -o run
said "144 of 144 computed"
present run/{config.yaml,split.csv,history.csv,model.safetensors,report.json,report.txt,predictions.csv,manifest.csv}
present run/confusion.png run/confusion.svg
[[ $(wc -l <run/history.csv) == 5 ]] || fail "history.csv has $(wc -l <run/history.csv) lines, not one an epoch"
cp run/model.safetensors first.safetensors
cp run/predictions.csv first.csv

cp out first.out
echo "== again: nothing to do, and the same figures"
touch -d '2001-01-01' run/model.safetensors run/report.json run/manifest.csv
expect 0 run small.yaml -o run
for stage in index audit extract train evaluate; do
  grep -E "^$stage: .*nothing to do" err >/dev/null || fail "$stage does not say that there is nothing to do"
done
same out first.out
for file in model.safetensors report.json manifest.csv; do
  [[ $(stat -c %Y "run/$file") == "$(date -d 2001-01-01 +%s)" ]] || fail "run/$file was written again"
done

echo "== a split that was edited is refused, and made again"
sed -i '0,/,train,/s//,test,/' run/split.csv
expect 1 evaluate run
said "run/split.csv is not the split that"
expect 0 run small.yaml -o run
said "made again"
said "evaluate: nothing to do"
expect 0 evaluate run
said "evaluate: the reports stand in run"
same run/model.safetensors first.safetensors
same run/predictions.csv first.csv
if [[ -w /dev/full ]]; then # the figures of a run that had nothing to do
  got=0
  "$serenade" run small.yaml -o run >/dev/full 2>err || got=$?
  [[ $got == 1 ]] || fail "exit status $got, not 1, where stdout takes nothing"
  said "cannot write the results to stdout"
fi

echo "== reports that were cut, edited or deleted are written again"
for file in report.txt report.json predictions.csv confusion.png confusion.svg; do
  cp "run/$file" sound
  truncate -s 100 "run/$file"
  expect 0 run small.yaml -o run
  never_said "evaluate: nothing to do"
  same "run/$file" sound
done
rm run/report.txt
expect 0 run small.yaml -o run
present run/report.txt
sed -i '/"reports"/d' run/run.json # as an earlier version left it
expect 0 run small.yaml -o run
never_said "evaluate: nothing to do"
expect 0 run small.yaml -o run
said "evaluate: nothing to do"

echo "== files that were deleted are written again, and nothing is trained"
cp run/config.yaml first.yaml
cp run/history.csv first.history
rm run/config.yaml run/history.csv
expect 0 run small.yaml -o run
said "run/config.yaml is missing and is written again"
said "run/history.csv is missing and is written again"
said "train: nothing to train"
same run/config.yaml first.yaml
same run/history.csv first.history
rm run/config.yaml
expect 0 train small.yaml -o run --resume
expect 0 evaluate run
for size in 200 400; do # the one is sound YAML still, the other is not
  for command in "run small.yaml -o run" "train small.yaml -o run --resume"; do
    read -ra words <<<"$command"
    truncate -s $size run/config.yaml
    expect 0 "${words[@]}"
    said "run/config.yaml is not as the training left it and is made again"
    said "train: nothing to train"
    expect 0 "${words[@]}" --threads 1
    said "train: nothing to do"
    same run/config.yaml first.yaml
  done
done
echo notes >run/split.txt # this split has none to tell
expect 0 run small.yaml -o run
said "run/split.txt is not as the training left it"
[[ ! -e run/split.txt ]] || fail "notes that are not the split's stay"
sed -i '/"config"/d' run/run.json # as an earlier version left it
expect 0 run small.yaml -o run
never_said "as the training left it"
expect 0 run small.yaml -o run
said "train: nothing to do"
same run/model.safetensors first.safetensors
echo "== a finished model stays without its checkpoint; more epochs are trained from the first, which is said"
cp -r run bare
rm bare/checkpoint bare/config.yaml
expect 0 run small.yaml -o bare
said "bare: the finished model is kept; without a checkpoint"
same bare/model.safetensors first.safetensors
expect 0 run small.yaml -o bare
said "train: nothing to do"
expect 0 run small.yaml -o bare --set predict.window=0.9
said "train: nothing to train"
expect 0 run small.yaml -o bare
same bare/model.safetensors first.safetensors
same bare/history.csv first.history
[[ ! -e bare/checkpoint ]] || fail "the model without a checkpoint was trained again"
expect 0 run small.yaml -o bare --set train.epochs=5
said "bare: there is no checkpoint to go on from, so it is trained from the first epoch"
[[ $(wc -l <bare/history.csv) == 6 ]] || fail "history.csv has $(wc -l <bare/history.csv) lines, not one an epoch"
rm -r bare

echo "== run.json cut or deleted: made anew from what else stands in RUN, and nothing is trained"
cp run/run.json first.json
for command in "run small.yaml -o run" "train small.yaml -o run --resume"; do
  read -ra words <<<"$command"
  truncate -s 100 run/run.json
  expect 0 "${words[@]}"
  said "warning: run/run.json was damaged; it is made anew"
  said "train: nothing to do, 1 model"
  rm run/run.json
  expect 0 "${words[@]}"
  said "warning: run/run.json was missing; it is made anew"
  said "train: nothing to do, 1 model"
done
never_said "are kept in"
expect 0 run small.yaml -o run
never_said "run.json"
same run/run.json first.json
rm run/run.json
expect 2 train small.yaml -o run --resume --set train.lr=0.01
said "other settings"
expect 0 run small.yaml -o run --set train.epochs=5 # what it holds is known well enough to go on from it
said "goes on after epoch 4"
expect 0 run small.yaml -o run
same run/model.safetensors first.safetensors
rm -r run/earlier
expect 0 run small.yaml -o run
echo "== a config.yaml that was edited shows nothing of the models that are there"
edits=("model.dropout=0.3 s/dropout: .*/dropout:@0.3/" "features.mfcc39.hop=300 0,/hop: .*/s//hop:@300/"
  "train.lr=0.01 s/ lr: .*/ lr:@0.01/" "train.label_smoothing=0.2 s/label_smoothing: .*/label_smoothing:@0.2/"
  "train.epochs=3 s/epochs: .*/epochs:@3/" "train.seeds=7 s/seeds: .*/seeds:@[7]/"
  "train.seeds=7,8 s/seeds: .*/seeds:@[7,@8]/")
for edit in "${edits[@]}"; do
  read -r setting script <<<"$edit"
  cp -r run edited
  rm edited/run.json
  sed -i "${script//@/ }" edited/config.yaml
  ! cmp -s edited/config.yaml run/config.yaml || fail "config.yaml is not edited: $edit"
  expect 2 train small.yaml -o edited --resume --set "$setting"
  said "edited has no sound run.json to tell"
  never_said "made anew"
  same edited/model.safetensors run/model.safetensors
  [[ $setting == model.dropout=0.3 ]] || rm -r edited
  [[ $setting == model.dropout=0.3 ]] || continue
  expect 0 run small.yaml -o edited --set "$setting"
  said "they are kept in edited/earlier/unknown-1"
  same edited/earlier/unknown-1/model.safetensors run/model.safetensors
  expect 0 info model edited
  grep -q 'dropout 0.3' out || fail "the model is not the one that was asked for"
  rm -r edited
done
echo "== where that cannot be shown: run keeps the old results, train --resume refuses"
cp -r run lost
rm lost/run.json lost/config.yaml
expect 2 train small.yaml -o lost --resume
said "lost has no sound run.json to tell what its results were made from"
expect 2 train small.yaml -o lost
said "lost has no sound run.json"
same lost/model.safetensors run/model.safetensors
[[ ! -e lost/run.json && ! -e lost/config.yaml ]] || fail "a refusal changed the run folder"
expect 0 run small.yaml -o lost
said "there is no sound run.json to tell what the results in lost were made from; they are kept in lost/earlier/unknown-1"
never_said "inputs have changed"
same lost/earlier/unknown-1/predictions.csv first.csv
same lost/model.safetensors first.safetensors
rm lost/run.json
sed -i '2s/,neutral,/,sad,/' lost/manifest.csv # no longer what the model was trained with
expect 2 train small.yaml -o lost --resume
said "lost has no sound run.json"
rm -r lost

echo "== other times of files change nothing"
touch -d '2001-01-01' corpus/TESS/YAF_sad/YAF_back_sad.wav
expect 0 run small.yaml -o run
said "train: nothing to do"
expect 0 evaluate run
never_said "has changed since the training"
same run/predictions.csv first.csv

echo "== a parameter of the features"
expect 0 run small.yaml -o run/ --set features.mfcc39.mels=64
said "train: 1 model trained"
said "index: nothing to do"
said "audit: nothing to do"
said "144 of 144 computed"
said "the results of the old ones are kept"
! cmp -s run/model.safetensors first.safetensors || fail "the model is that of other features"
echo "== and back: what was there is taken back"
expect 0 run small.yaml -o run
said "taken back"
said "train: nothing to train, 1 model trained before"
never_said "trained already"
never_said "computed"
same run/model.safetensors first.safetensors
same run/predictions.csv first.csv
echo "== what no result depends on"
expect 0 run small.yaml -o run --threads 1 --set features.timnet.mels=64 --set jobs=1
said "train: nothing to do"
said "extract: mfcc39: nothing to do"
echo "== what models and reports only name: nothing is trained"
expect 0 run small.yaml -o run --set predict.window=0.9 --set predict.hop=0.3
said "train: nothing to train"
expect 0 info model run
expect 0 predict run/model.safetensors corpus/TESS/YAF_sad --window 0.9 --hop 0.3 --format csv --windows
cp out asked.csv
expect 0 predict run/model.safetensors corpus/TESS/YAF_sad --format csv --windows
same out asked.csv
mkdir elsewhere
mv corpus elsewhere/corpus
moved=(--set corpora.ravdess=elsewhere/corpus/RAVDESS --set corpora.tess=elsewhere/corpus/TESS)
expect 0 run small.yaml -o run "${moved[@]}"
said "train: nothing to train"
never_said "warning"
expect 0 run small.yaml -o there "${moved[@]}" --set cache.dir=run/cache
for file in model.safetensors split.csv manifest.csv predictions.csv report.json; do same "run/$file" "there/$file"; done
same run/history.csv first.history
mv elsewhere/corpus corpus
expect 0 run small.yaml -o run
said "train: nothing to train"
same run/model.safetensors first.safetensors
same run/predictions.csv first.csv
echo "== a recording less, and back again"
mv corpus/TESS/YAF_sad/YAF_back_sad.wav kept.wav
expect 0 run small.yaml -o run
said "nothing to do, 143 of 143 present"
never_said "train: nothing to do"
cp -p kept.wav corpus/TESS/YAF_sad/YAF_back_sad.wav
expect 0 run small.yaml -o run
same run/model.safetensors first.safetensors

echo "== a new run folder may hold a cache, a given split and the corpus; anything else is somebody's"
mkdir full
cp -r corpus full/corpus
cp run/split.csv full/parts.csv
sed -i "s|$PWD/corpus|$PWD/full/corpus|" full/parts.csv
expect 0 extract manifest.csv --features mfcc39 --set features.mfcc39.frames=40 --cache full/cache
full=(--set corpora.ravdess=full/corpus/RAVDESS --set corpora.tess=full/corpus/TESS --set split.kind=file
  --set split.file=full/parts.csv)
echo notes >full/notes.txt
expect 2 run small.yaml -o full "${full[@]}"
said "full is not empty and no run of Serenade's"
rm full/notes.txt
mv full/parts.csv full/split.csv # which the run would write over
expect 2 run small.yaml -o full "${full[@]}" --set split.file=full/split.csv
said "full is not empty and no run of Serenade's"
mv full/split.csv full/parts.csv
expect 0 run small.yaml -o full "${full[@]}"
said "nothing to do, 144 of 144 present"
same full/history.csv first.history
rm -r full

echo "== what is the user's stays where it is: a cache under another name, a given split"
expect 0 run small.yaml -o own --set cache.dir=own/feat
never_said "are kept in"
same own/model.safetensors first.safetensors
[[ -d own/feat && ! -e own/earlier ]] || fail "the cache was moved away"
given=(--set cache.dir=own/feat --set split.kind=file --set split.file=own/split.csv)
cp own/split.csv first.split
expect 0 run small.yaml -o own "${given[@]}"
same own/split.csv first.split
said "extract: mfcc39: nothing to do"
expect 0 run small.yaml -o own "${given[@]}"
said "train: nothing to do"
expect 0 run small.yaml -o own --set cache.dir=own/feat
said "taken back"
same own/split.csv first.split
same own/predictions.csv first.csv

echo "== what a given split has to tell is made again, here of the validation that was drawn"
sed 's/,validation,/,train,/' own/split.csv >parts.csv
drawn=(-o drawn --set cache.dir=cache --set split.kind=file --set split.file=parts.csv)
expect 0 run small.yaml "${drawn[@]}"
present drawn/split.txt
cp drawn/split.txt sound
rm drawn/split.txt
expect 0 run small.yaml "${drawn[@]}"
said "drawn/split.txt is missing and is written again"
said "train: nothing to train"
same drawn/split.txt sound
echo edited >>drawn/split.txt
rm drawn/run.json
expect 0 run small.yaml "${drawn[@]}"
said "drawn/split.txt is not as the training left it and is made again"
same drawn/split.txt sound

echo "== more epochs go on from those that are done"
expect 0 run small.yaml -o longer --set train.epochs=2 --set cache.dir=cache
rm longer/run.json
expect 0 run small.yaml -o longer --set cache.dir=cache
said "goes on after epoch 2"
same longer/model.safetensors first.safetensors
echo "== fewer epochs than it has had: trained anew, and kept"
expect 0 run small.yaml -o longer --set train.epochs=2 --set cache.dir=cache
said "the results of 4 are kept"
[[ $(wc -l <longer/history.csv) == 3 ]] || fail "history.csv has $(wc -l <longer/history.csv) lines, not one an epoch"
expect 0 run small.yaml -o longer --set cache.dir=cache
said "taken back"
same longer/model.safetensors first.safetensors
echo "== fewer than it was to have: it goes on"
"$serenade" train small.yaml -o fewer --set train.epochs=1000000 --set cache.dir=cache >out 2>err &
pid=$!
for _ in $(seq 600); do
  [[ -s fewer/checkpoint ]] && break
  sleep 0.05
done
kill -TERM $pid
wait $pid || true
epochs=$(($(wc -l <fewer/history.csv) + 2))
expect 0 train small.yaml -o fewer --resume --set train.epochs=$epochs --set cache.dir=cache
said "goes on after epoch $((epochs - 3))"
[[ $(wc -l <fewer/history.csv) == $((epochs + 1)) ]] || fail "history.csv does not hold $epochs epochs"
expect 0 run small.yaml -o anew --set train.epochs=$epochs --set cache.dir=cache
same fewer/model.safetensors anew/model.safetensors

echo "== a shard that rots with its size and time kept: told once, computed anew, the same results"
rot() { # CACHE
  local shard
  for shard in "$1"/mfcc39-*/shards/*.h5; do
    touch -r "$shard" time
    printf 'rot' | dd of="$shard" bs=1 seek=5000 conv=notrunc status=none
    touch -r time "$shard"
  done
}
expect 0 run small.yaml -o healed
for stage in train evaluate; do
  [[ $stage == evaluate ]] || rm healed/model.safetensors healed/checkpoint
  rm healed/report.json
  rot healed/cache
  expect 0 run small.yaml -o healed
  [[ $(grep -c damaged err) == 1 ]] || fail "not one message of a damaged shard in $stage"
  same healed/model.safetensors first.safetensors
  same healed/predictions.csv first.csv
done
expect 0 cache verify healed/cache

echo "== cut off by signals and resumed"
"$serenade" run small.yaml -o whole --set train.epochs=40 --set cache.dir=cache >out 2>err || fail "run"
number=0
for signal in INT TERM INT; do
  number=$((number + 1))
  : >err
  "$serenade" run small.yaml -o cut --set train.epochs=40 --set cache.dir=cache >out 2>err &
  pid=$!
  for _ in $(seq 600); do # until it trains
    [[ $number == 1 && -s cut/checkpoint ]] && break
    grep -qs "goes on after epoch" err && break
    kill -0 $pid 2>/dev/null || break
    sleep 0.05
  done
  sleep 0.1
  kill -$signal $pid 2>/dev/null || true
  got=0
  wait $pid || got=$?
  case $signal:$got in
    INT:130 | TERM:143) said "is kept" ;;
    *:0) echo "  (signal $number came when all was done)" ;;
    *) fail "exit status $got after SIG$signal" ;;
  esac
done
expect 0 run small.yaml -o cut --set train.epochs=40 --set cache.dir=cache
same cut/model.safetensors whole/model.safetensors
same cut/predictions.csv whole/predictions.csv

echo "== seeds and folds"
expect 0 run small.yaml -o folds --set split.kind=speaker --set split.folds=3 --set train.seeds=1,2 \
  --set train.epochs=2 --set cache.dir=cache
for seed in 1 2; do
  for fold in 0 1 2; do present folds/seed-$seed/fold-$fold/{model.safetensors,report.json,predictions.csv}; done
done
present folds/report.json folds/report.txt
expect 0 run small.yaml -o folds --set split.kind=speaker --set split.folds=3 --set train.seeds=1,2 \
  --set train.epochs=2 --set cache.dir=cache
said "train: nothing to do, 6 models"
said "evaluate: nothing to do"
for file in folds/seed-2/report.txt folds/seed-1/fold-2/predictions.csv folds/confusion.svg; do
  cp $file sound
  echo edited >>$file
  expect 0 run small.yaml -o folds --set split.kind=speaker --set split.folds=3 --set train.seeds=1,2 \
    --set train.epochs=2 --set cache.dir=cache
  never_said "evaluate: nothing to do"
  same $file sound
done
rm folds/run.json
expect 0 run small.yaml -o folds --set split.kind=speaker --set split.folds=3 --set train.seeds=1,2 \
  --set train.epochs=2 --set cache.dir=cache
said "train: nothing to do, 6 models"
rm folds/run.json
echo "== seeds that join: those that are trained stay, also without their checkpoint, also where the first try failed"
rm folds/seed-1/fold-0/checkpoint
mkdir -p folds/seed-3/fold-1/checkpoint # which is a file's place
expect 1 run small.yaml -o folds --set split.kind=speaker --set split.folds=3 --set train.seeds=1,2,3 \
  --set train.epochs=2 --set cache.dir=cache
said "folds/seed-1/fold-0: the finished model is kept"
rmdir folds/seed-3/fold-1/checkpoint
touch -d '2001-01-01' folds/seed-?/fold-?/model.safetensors
expect 0 run small.yaml -o folds --set split.kind=speaker --set split.folds=3 --set train.seeds=1,2,3 \
  --set train.epochs=2 --set cache.dir=cache
said "folds/seed-1/fold-0: trained already"
said "folds/seed-1/fold-0: the finished model is kept"
grep -qE "train: [1-3] models? trained, [6-8] before" err || fail "not only the new seed is trained"
expect 0 run small.yaml -o joined --set split.kind=speaker --set split.folds=3 --set train.seeds=1,2,3 \
  --set train.epochs=2 --set cache.dir=cache
for seed in 1 2 3; do
  for file in report.json fold-0/model.safetensors fold-2/predictions.csv; do
    same "folds/seed-$seed/$file" "joined/seed-$seed/$file"
  done
done
same folds/report.json joined/report.json
for file in folds/seed-[12]/fold-?/model.safetensors; do
  [[ $(stat -c %Y "$file") == "$(date -d 2001-01-01 +%s)" ]] || fail "$file was written again"
done

echo "== train, evaluate"
expect 0 train small.yaml -o trained --set cache.dir=cache
same trained/model.safetensors first.safetensors
expect 2 train small.yaml -o trained --set cache.dir=cache
said "add --resume"
expect 0 train small.yaml -o trained --set cache.dir=cache --resume
expect 2 train small.yaml -o trained --set cache.dir=cache --resume --set train.lr=0.01
said "other settings"
expect 2 train small.yaml -o trained --set cache.dir=cache --resume --set train.epochs=3
said "trained has had 4 epochs already"
echo "== what is refused leaves the run as it was"
cp trained/manifest.csv first.manifest
head -100 manifest.csv >other.csv
expect 2 train small.yaml -o trained --set cache.dir=cache --resume --manifest other.csv
said "other settings or recordings"
same trained/manifest.csv first.manifest
expect 2 train small.yaml -o trained --set cache.dir=cache --resume --set corpora.ravdess=corpus/RAVDESS/Actor_01
said "other settings or recordings"
same trained/manifest.csv first.manifest
[[ ! -e trained/manifest.csv.next ]] || fail "the refused manifest was left behind"
expect 0 evaluate trained
never_said "warning"
same trained/predictions.csv first.csv
expect 0 train small.yaml -o given --manifest manifest.csv --set cache.dir=cache
same given/model.safetensors first.safetensors
expect 0 evaluate trained
same trained/predictions.csv first.csv
expect 0 evaluate trained --manifest manifest.csv
present trained/evaluate-manifest/report.json

echo "== predict"
expect 0 predict run/model.safetensors kept.wav corpus/TESS/OAF_happy
[[ $(wc -l <out) -ge 5 ]] || fail "fewer lines than clips"
never_said "passed over"
echo notes >corpus/TESS/OAF_happy/notes.txt
expect 0 predict run/model.safetensors corpus/TESS/OAF_happy
said "corpus/TESS/OAF_happy: 1 file is passed over"
rm corpus/TESS/OAF_happy/notes.txt
"$serenade" predict run/model.safetensors - --format csv <kept.wav >out 2>err || fail "predict from stdin"
head -1 out | grep -q '^path,start,end,emotion,neutral,happy,sad,angry,fearful,disgust' || fail "the CSV's header"
expect 0 predict run/model.safetensors kept.wav --format json
grep -q '"probabilities"' out || fail "the JSON has no probabilities"
head -c 100 kept.wav >cut.wav
expect 3 predict run/model.safetensors cut.wav kept.wav
said "cut.wav"

echo "== refused inputs are named, the rest is done"
cp cut.wav corpus/TESS/YAF_sad/YAF_bar_sad.wav
expect 3 run small.yaml -o run --set cache.dir=cache
said "YAF_bar_sad.wav"
expect 3 run small.yaml -o run --set cache.dir=cache
said "YAF_bar_sad.wav"
said "train: nothing to do"

echo "all as it should be"
