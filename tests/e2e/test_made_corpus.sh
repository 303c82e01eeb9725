#!/usr/bin/env bash
# Every command on the made corpus in the four corpora's own layouts: what is amiss in it on purpose is found, the
# model learns, and predict and evaluate agree on what they say.
set -euo pipefail

command -v espeak-ng >/dev/null || { echo "skipped: espeak-ng is not installed" && exit 77; }
command -v sox >/dev/null || { echo "skipped: sox is not installed" && exit 77; }
serenade=$SERENADE_BINARY
work=$(mktemp -d "${TMPDIR:-/tmp}/serenade-e2e-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
  echo "FAILED: $*" >&2
  exit 1
}
# Rows of the manifest with all of the given words between commas.
rows() {
  local found
  found=$(sed 's/$/,/' manifest.csv)
  for word in "$@"; do found=$(grep -F -- ",$word," <<<"$found") || true; done
  grep -c . <<<"$found" || true
}

"$SERENADE_SOURCE/scripts/make_demo_corpus.sh" corpus --small >/dev/null
"$serenade" index --ravdess corpus/RAVDESS --cremad corpus/CREMA-D --tess corpus/TESS --savee corpus/SAVEE \
  -o manifest.csv --quiet >index.txt
touch stamp
"$SERENADE_SOURCE/scripts/make_demo_corpus.sh" corpus --small >/dev/null
[[ -z $(find corpus -type f -newer stamp) ]] || fail "made again, the corpus is written again"
files=$(find corpus -name '*.wav' | wc -l)
[[ $(($(wc -l <manifest.csv) - 1)) == "$files" ]] || fail "the manifest does not list the $files files"
for corpus in ravdess cremad tess savee; do
  [[ $(rows $corpus) == $(find corpus -name '*.wav' | grep -ci "/${corpus/cremad/crema-d}/") ]] || fail "rows of $corpus"
done
[[ $(rows tess_oaf) == 35 && $(rows tess_yaf) == 35 ]] || fail "the misnamed clip of TESS has lost its speaker"
[[ $(rows savee_jk sad) == 1 && $(rows savee_jk surprised) == 1 ]] || fail "SAVEE's sa and su"

"$serenade" audit manifest.csv --json audit.json --quiet >audit.txt
[[ $(rows excluded duplicate) == 1 ]] || fail "the copied clip"
[[ $(rows excluded label_conflict) == 2 ]] || fail "one recording under two labels"
[[ $(rows excluded silent) == 1 ]] || fail "the silent clip"
[[ $(rows refused) == 0 ]] || fail "a sound clip is refused"

"$serenade" train "$SERENADE_SOURCE/configs/reference.yaml" --manifest manifest.csv --set model.blocks=4 \
  --set model.residual=true --set model.pool=real --set train.batch=8 --set train.epochs=12 -o run --quiet >train.txt
"$serenade" evaluate run --quiet >evaluate.txt
for file in config.yaml manifest.csv split.csv history.csv model.safetensors checkpoint report.json report.txt \
  predictions.csv confusion.png confusion.svg; do
  [[ -s run/$file ]] || fail "run/$file is missing or empty"
done
tail -n +2 run/predictions.csv | awk -F, '{right += $3 == $4} END {
  printf "%d of %d test clips right\n", right, NR; exit !(NR > 20 && right > NR / 3) }' ||
  fail "the model has not learnt: chance is a sixth"

# predict says of each test clip what evaluate said of it. Clips within the model's window, so that both see all of it.
cut -d, -f1 run/predictions.csv | tail -n +2 | grep -E 'CREMA-D|TESS' >paths
xargs -a paths "$serenade" predict run --format csv --quiet >answers.csv
[[ $(wc -l <answers.csv) == $(($(wc -l <paths) + 1)) ]] || fail "predict leaves clips out"
while IFS=, read -r path _ _ emotion _; do
  grep -qF -- "$path,0," run/predictions.csv || fail "$path is not among the predictions"
  [[ $(grep -F -- "$path,0," run/predictions.csv | cut -d, -f4) == "$emotion" ]] || fail "$path: predict and evaluate differ"
done < <(tail -n +2 answers.csv)
"$serenade" predict run - <"$(head -1 paths)" --format json --quiet | grep -q '"probabilities"' || fail "predict -"
