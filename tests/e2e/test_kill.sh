#!/usr/bin/env bash
# kill -9 at 20 seeded random moments of one run, from index to evaluation, each followed by the same command again:
# model, predictions, report, split and manifest then equal those of a run that was never cut, and nothing that a kill
# left behind is in the way. Says how many kills landed while the program ran, and in which stage.
set -euo pipefail

serenade=$SERENADE_BINARY
work=$(mktemp -d "${TMPDIR:-/tmp}/serenade-kill-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
  echo "FAILED: $*" >&2
  [[ -f err ]] && sed 's/^/  stderr: /' err >&2
  exit 1
}

"$SERENADE_MAKE_CORPUS" corpus
cat >small.yaml <<'END'
corpora:
  ravdess: corpus/RAVDESS
  tess: corpus/TESS
model:
  blocks: 3
train:
  epochs: 40
  batch: 16
END

started=$(date +%s%N)
"$serenade" run small.yaml -o whole >out 2>err </dev/null || fail "the run that nobody cuts"
took=$((($(date +%s%N) - started) / 1000000)) # only the moments of the kills depend on it, no result

RANDOM=20
landed=0
declare -A stages=()
for number in $(seq 20); do
  "$serenade" run small.yaml -o cut >out 2>err </dev/null &
  pid=$!
  # A quarter of the moments fall on the first stages, which are over soon.
  span=$took
  ((number % 4 == 0)) && span=$((took / 8))
  delay=$((RANDOM * span / 32768 / 3))
  sleep "$(printf '%d.%03d' $((delay / 1000)) $((delay % 1000)))"
  stage=index
  [[ -s cut/manifest.csv ]] && stage=extract
  [[ -s cut/split.csv ]] && stage=training
  [[ -s cut/model.safetensors ]] && stage=evaluation
  if kill -9 $pid 2>/dev/null; then
    got=0
    wait $pid 2>/dev/null || got=$?
    if [[ $got == 137 ]]; then
      landed=$((landed + 1))
      stages[$stage]=$((${stages[$stage]:-0} + 1))
    fi
  else
    wait $pid || fail "the run ended by itself, badly"
  fi
  # A finished run would leave nothing to kill: the next kills begin anew.
  if [[ -s cut/report.json ]]; then
    cmp cut/model.safetensors whole/model.safetensors || fail "a model that was killed on the way differs"
    rm -rf cut
  fi
done
summary=
for stage in "${!stages[@]}"; do summary+=" $stage ${stages[$stage]}"; done
echo "20 kills, $landed while the program ran:$summary"
((landed >= 10)) || fail "only $landed of 20 kills landed while the program ran"

"$serenade" run small.yaml -o cut >out 2>err </dev/null || fail "the run after the kills"
for file in model.safetensors predictions.csv report.json split.csv history.csv manifest.csv; do
  cmp "cut/$file" "whole/$file" || fail "$file differs after kills"
done
"$serenade" cache verify cut/cache >out 2>err || fail "the cache is damaged after kills"
left=$(find cut -name '*.tmp-*' | wc -l)
echo "files that kills left beside their places: $left"
echo "none lost: model, predictions, report, split, history and manifest equal those of the uncut run"
