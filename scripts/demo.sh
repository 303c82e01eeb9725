#!/usr/bin/env bash
# From nothing to predictions, with no data at hand: installs what is missing, builds, makes a small corpus of acted
# speech with espeak-ng, then index, audit, extract, train, evaluate, predict. Everything is left in build/demo (or
# FOLDER); a second run does only what is not done.
# Usage: scripts/demo.sh [FOLDER]
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if (($# > 1)) || [[ ${1:-} == -* ]]; then
  echo "usage: demo.sh [FOLDER]" >&2
  exit 2
fi
demo=${1:-$root/build/demo}
mkdir -p "$demo"
demo=$(cd "$demo" && pwd)

install_missing build demo
build_preset release serenade

step() { # shows the command as a shell takes it, then runs it
  printf '\n$'
  printf ' %q' "$@"
  printf '\n'
  "$@"
}
set_up=$(printf "export PATH=%q:\"\$PATH\" && cd %q" "$root/build/release" "$demo")

printf '\nWhat stands behind a $ can be pasted into a shell, this line first:\n$ %s\n' "$set_up"
export PATH=$root/build/release:$PATH
cd "$demo"
step "$root/scripts/make_demo_corpus.sh" corpus
step serenade index --ravdess corpus/RAVDESS --cremad corpus/CREMA-D --tess corpus/TESS --savee corpus/SAVEE \
  -o manifest.csv
step serenade audit manifest.csv --json audit.json
step serenade extract manifest.csv --features mfcc39 --cache cache
if [[ -f run/model.safetensors ]]; then
  say "run/model.safetensors is there: not trained again (remove $demo/run to do it anew)"
else
  resume=()
  [[ -d run ]] && resume=(--resume)
  step serenade train "$root/configs/reference.yaml" --manifest manifest.csv --set cache.dir=cache --set train.batch=16 \
    --set train.epochs=20 -o run "${resume[@]}"
fi
step serenade evaluate run
step serenade predict run/model.safetensors corpus/TESS/YAF_happy corpus/SAVEE/AudioData/DC/sa01.wav

cat <<END

Everything is in $demo:
  corpus/               the made recordings, in four corpora's layouts
  manifest.csv          one row a recording; audit.json: what the audit found
  cache/                the features, one folder a configuration
  run/                  the model, its history, report.txt, predictions.csv, confusion.png
The program is $root/build/release/serenade; README.md says what else it does. To call it there by its name:
  $set_up
The voices are made: the figures show that the program runs, not how well it hears people.
END
