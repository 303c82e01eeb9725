#!/usr/bin/env bash
# Steady state on the device, and what a profiler is told of it: extract of N and of 2N recordings, training of E and of
# 2E epochs, evaluate and predict of N and of 2N files, held against each other by steady.py. Batches are made small by
# memory that the device refuses at first, or has little of.
# Usage: test_steady.sh
set -euo pipefail

if [[ -z ${SERENADE_SOFTGPU:-} ]]; then
  echo "skipped: no software device (SERENADE_SOFTGPU), whose reports this reads"
  exit 77
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/serenade-steady-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
failed=0

# on_device REPORT [OPTIONS] -- ARGUMENTS of serenade
on_device() {
  local report=$1 options=() got=0
  shift
  while [[ $1 != -- ]]; do
    options+=("$1")
    shift
  done
  shift
  NVTX_INJECTION64_PATH=$SERENADE_RANGES_MODULE SERENADE_RANGES=$work/$report.ranges \
    SERENADE_REPORT=$work/$report bash "$here/../support/on_device.sh" "${options[@]}" -- "$SERENADE_BINARY" "$@" \
    >out 2>err </dev/null || got=$?
  [[ $got == 0 ]] && return
  echo "FAILED: exit status $got: serenade $*"
  cat err
  exit 1
}

steady() {
  python3 "$here/steady.py" "$@" || failed=1
}

# ranges RUN COUNT LINE: so many ranges (`+`: some) of that depth and name.
ranges() {
  local got
  got=$(grep -c -x -e "$3" "$1.ranges") || true
  [[ $got == "$2" || ($2 == + && $got -gt 0) ]] && return
  echo "FAILED: $1: $got ranges '$3', not $2"
  failed=1
}

"$SERENADE_MAKE_CORPUS" corpus
"$SERENADE_BINARY" index --ravdess corpus --tess corpus/TESS -o all.csv --quiet >index.txt
"$SERENADE_BINARY" audit all.csv --quiet >audit.txt 2>&1
(head -n 1 all.csv && tail -n +2 all.csv | grep ',ok,$' | shuf --random-source=all.csv) >mixed.csv
few=60
head -n $((few + 1)) mixed.csv >few.csv
head -n $((2 * few + 1)) mixed.csv >many.csv

# The first four attempts to make room fail: batches of 8 clips, not of 128.
small=(--fail malloc:6-9)
for manifest in few many; do
  on_device "extract-$manifest" "${small[@]}" -- extract "$manifest.csv" --cache "cache-$manifest" --device cuda
  grep -q "batches of 8 clips" err || {
    echo "FAILED: batches are not made smaller: $(cat err)"
    exit 1
  }
done
steady extract extract-few.json extract-many.json "$few"
# Half of 300 MiB takes batches of 64 clips: nothing has to fail for it.
on_device extract-little --mem 300 -- extract few.csv --cache cache-little --device cuda
grep -q "batches of 64 clips, not of 128" err || {
  echo "FAILED: batches are not what the free memory takes: $(cat err)"
  exit 1
}

printf 'corpora:\n  ravdess: corpus/RAVDESS\n  tess: corpus/TESS\n' >config.yaml
base=(--set features.mfcc39.frames=40 --set model.blocks=2 --set model.filters=8 --set train.batch=16
  --set cache.dir=cache-many)
# NAME, the software device's options, the training's settings. The first memory that is asked for is the data set's.
trainings=("train||conv=fused" "train||conv=cudnn" "brought|--fail malloc:1|conv=fused")
for line in "${trainings[@]}"; do
  IFS='|' read -r name options settings <<<"$line"
  read -ra options <<<"$options"
  run=$name-${settings#*=}
  for epochs in 2 4; do
    on_device "$run-$epochs" "${options[@]}" -- train config.yaml -o "run-$run-$epochs" --manifest many.csv \
      "${base[@]}" --set "train.epochs=$epochs" --set "$settings" --device cuda
    [[ $name == train ]] || grep -q "the features take [1-9][0-9.]* [KM]iB, the device has [1-9].* free: each batch is brought from the host" err || {
      echo "FAILED: the data set is on the device: $(cat err)"
      exit 1
    }
  done
  steady "$name" "$run-2.json" "$run-4.json" 2
done
cmp run-train-fused-2/model.safetensors run-brought-fused-2/model.safetensors || failed=1

# Behind what a model takes, four attempts to make room fail: batches of 10 windows, not of 160.
for manifest in few many; do
  on_device "evaluate-$manifest" --fail malloc:9-12 -- evaluate run-train-fused-2 --manifest "$manifest.csv" --device cuda
  grep -q "windows are scored in batches of 10, not of 160" err || {
    echo "FAILED: batches are not made smaller: $(cat err)"
    exit 1
  }
done
steady evaluate evaluate-few.json evaluate-many.json "$few"

mapfile -t files < <(cut -d, -f1 mixed.csv | tail -n +2)
for count in $few $((2 * few)); do
  on_device "predict-$count" "${small[@]}" -- predict run-train-fused-2/model.safetensors "${files[@]:0:count}" \
    --format csv --device cuda
done
steady predict "predict-$few.json" "predict-$((2 * few)).json" "$few"

for name in "wait for clips" "submit a batch" "collect a batch"; do ranges extract-many + "0 $name"; done
ranges train-fused-4 1 "0 train run-train-fused-4"
for name in epoch checkpoint; do ranges train-fused-4 4 "1 $name"; done
ranges train-fused-4 4 "2 validation"
for line in "0 wait for clips" "0 submit a batch" "0 collect a batch" "1 score windows"; do
  ranges "predict-$few" + "$line"
done
ranges evaluate-many + "0 score windows"
for file in *.ranges; do ranges "${file%.ranges}" 1 "open: 0"; done
exit "$failed"
