#!/usr/bin/env bash
# The whole path on the CUDA device: index, extract, train, evaluate, predict, for each kind of model, and the answers
# beside the CPU's; on the software device with its operations put off as long as may be, in several orders, and leaks
# failures. A training that was begun on one backend goes on on the other. What was launched and called is left beside
# SERENADE_REPORT for the test of coverage.
# Usage: test_pipeline.sh
set -euo pipefail

serenade=$SERENADE_BINARY
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/serenade-cuda-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
report=${SERENADE_REPORT:-}

fail() {
  echo "FAILED: $*" >&2
  [[ -f err ]] && sed 's/^/  stderr: /' err >&2
  exit 1
}

# on_cuda NAME [OPTIONS of the software device] -- ARGUMENTS of serenade
on_cuda() {
  local name=$1 options=() got=0
  shift
  while [[ $1 != -- ]]; do
    options+=("$1")
    shift
  done
  shift
  SERENADE_REPORT=${report:+$report-$name} bash "$here/../support/on_device.sh" "${options[@]}" -- "$serenade" "$@" >out 2>err </dev/null || got=$?
  if [[ $got == 77 ]]; then
    cat out
    exit 77
  fi
  [[ $got == 0 ]] || fail "exit status $got on the device: serenade $*"
}

on_cpu() {
  "$serenade" "$@" --device cpu >out 2>err </dev/null || fail "exit status $? on the CPU: serenade $*"
}

# alike TOLERANCE FILE FILE [COLUMNS]: the same lines and words, and numbers (of the columns, or all) that differ by no
# more than that, relative to those above 1.
alike() {
  awk -F, -v tolerance="$1" -v columns="${4:-}" '
    BEGIN { only = split(columns, list, " "); for (i = 1; i <= only; i++) wanted[list[i]] = 1 }
    NR == FNR { lines++; for (i = 1; i <= NF; i++) first[FNR, i] = $i; fields[FNR] = NF; next }
    { others++ }
    NF != fields[FNR] { print "line " FNR ": " NF " fields beside " fields[FNR]; bad = 1 }
    {
      for (i = 1; i <= NF; i++) {
        if ((only && !wanted[i]) || $i == first[FNR, i]) continue
        apart = $i - first[FNR, i]
        if (apart < 0) apart = -apart
        size = $i < 0 ? -$i : $i
        if (size < 1) size = 1
        if (apart + 0 == 0 || apart > tolerance * size) {
          print "line " FNR ", field " i ": " first[FNR, i] " beside " $i
          bad = 1
        }
      }
    }
    END { if (lines != others || !lines) print lines + 0 " lines beside " others + 0; exit bad || lines != others || !lines }
  ' "$2" "$3"
}

"$SERENADE_MAKE_CORPUS" corpus
base=(--set features.mfcc39.frames=40 --set model.blocks=3 --set model.filters=12 --set train.batch=16
  --set train.epochs=3 --set train.lr=0.005)
"$serenade" index --ravdess corpus --tess corpus/TESS -o manifest.csv --quiet
"$serenade" audit manifest.csv --quiet >/dev/null

# NAME, the software device's options, the model's settings. plain is trained twice: with a form of convolutions that is
# named, since what auto measures need not come out the same way again.
models=(
  "plain|--defer --seed 1|--set conv=fused"
  "residual|--defer --seed 2 --order reverse|--set model.residual=true --set model.pool=real --set model.kernel=3"
  "timnet|--defer --seed 3 --order random|--set model.branch=timnet --set train.focal_gamma=1"
  "weighted|--device t4 --defer --seed 4|--set train.class_weights=balanced --set conv=cudnn"
  "seeds|--defer --seed 5|--set train.seeds=[1,2] --set conv=fused --set train.epochs=2"
)
for line in "${models[@]}"; do
  IFS='|' read -r name options settings <<<"$line"
  # An older device than the module has code for is another test's (choice).
  ((${SERENADE_LOWEST_ARCHITECTURE:-75} <= 75)) || options=${options/--device t4/}
  read -ra options <<<"$options"
  read -ra settings <<<"$settings"
  echo "== $name (${options[*]})"
  printf 'corpora:\n  ravdess: corpus/RAVDESS\n  tess: corpus/TESS\n' >"$name.yaml"
  on_cuda "$name" "${options[@]}" -- run "$name.yaml" -o "cuda-$name" "${base[@]}" "${settings[@]}" --device cuda
  on_cpu run "$name.yaml" -o "cpu-$name" "${base[@]}" "${settings[@]}"
  grep -q '^# device: cuda' "cuda-$name/config.yaml" || fail "config.yaml of $name does not tell the device"
  grep -q '^# multiprocessors: [1-9]' "cuda-$name/config.yaml" || fail "config.yaml of $name does not tell its size"
  ! grep -q '^# threads: \|^# instruction set: ' "cuda-$name/config.yaml" || fail "config.yaml of $name tells of threads"
  while read -r history; do
    # Features that differ in the last bits grow apart in training: after three epochs the losses were apart by 2.4e-3
    # and the norms by 9e-3; the CPU's own AVX2 and base by 3e-4 and 4e-3.
    alike 5e-3 "$history" "cpu-${history#cuda-}" "1 2 5" || fail "$name: the losses differ"
    alike 3e-2 "$history" "cpu-${history#cuda-}" "4" || fail "$name: the gradients differ"
  done < <(find "cuda-$name" -name history.csv)
done

echo "== predict, beside the CPU, with the model of either"
model=$(find cpu-timnet -name model.safetensors)
mapfile -t clips < <(find corpus -name '*.wav' | sort | head -n 40)
on_cuda predict --defer --seed 6 -- predict "$model" "${clips[@]}" --format csv --device cuda
cp out cuda.csv
on_cpu predict "$model" "${clips[@]}" --format csv
alike 1e-4 cuda.csv out || fail "the predictions differ"
on_cuda evaluate -- evaluate cuda-plain --device cuda

echo "== a training begun on one backend goes on on the other"
on_cpu train plain.yaml -o "turns" "${base[@]}" --manifest manifest.csv --set train.epochs=2
on_cuda turns --defer --seed 7 -- train plain.yaml -o turns "${base[@]}" --manifest manifest.csv --resume --device cuda
alike 5e-3 turns/history.csv cpu-plain/history.csv "1 2 5" || fail "the history that went on differs"

echo "== same seed, same bytes"
on_cuda again --defer --seed 8 --order random -- run plain.yaml -o again "${base[@]}" --set conv=fused \
  --device cuda
for file in history.csv model.safetensors checkpoint; do
  cmp "cuda-plain/$file" "again/$file" || fail "$file has other bytes the second time"
done

echo "== the form of the convolutions that a run was begun with stays"
# What refuses cuDNN at first refuses it no longer when the run goes on; a new measurement would be free to choose it.
refused=()
[[ -z ${SERENADE_SOFTGPU:-} ]] || refused=(--fail cudnn:1+)
on_cuda begun "${refused[@]}" -- train plain.yaml -o begun "${base[@]}" --manifest manifest.csv --set train.epochs=1 \
  --device cuda
form=$(grep '^# convolutions: ' begun/config.yaml)
if [[ -n ${refused[*]} ]]; then
  [[ $(grep -c '^serenade: warning: conv auto: cuDNN cannot be used here, so the fused kernels .*cudnn' err) == 1 ]] ||
    fail "that cuDNN fails is not told once: $(cat err)"
fi
[[ -z ${refused[*]} || $form == "# convolutions: fused" ]] || fail "$form, though cuDNN refuses"
grep -q "^# started on: .* ${form##* } " begun/config.yaml || fail "$form is not what config.yaml tells of the start"
on_cuda begun-on -- train plain.yaml -o begun "${base[@]}" --manifest manifest.csv --resume --device cuda
[[ $(grep '^# convolutions: ' begun/config.yaml) == "$form" ]] || fail "the form has changed when the run went on"

if [[ -n ${SERENADE_SOFTGPU:-} ]]; then
  echo "== a command stays on the device that it began on, also where that was left to it"
  # The first stream is of the look at the device, by which all stages go: any other one that fails ends the command.
  head -n 7 manifest.csv >few.csv
  stays() {
    local place got failed
    for place in 1 2 3 4 5 6 7 8 9 10 11; do
      got=0
      failed=1
      "$SERENADE_SOFTGPU" --fail "stream:$place" -- "$serenade" "$@" "auto-$1-$place" --device auto >out 2>err \
        </dev/null || got=$?
      grep -q -e '--fail: stream call' err || failed=0
      ((got == (failed && place > 1))) || fail "stream:$place: exit status $got of $1"
      ((got == 0)) || grep -q '^serenade: .*the GPU is out of memory: CUDA: ' err || fail "stream:$place: not the right words"
      ((got == 1 || failed)) || return 0
      ((got == 1)) || grep -q '^the CPU computes, since the GPU cannot be used: the GPU is out of memory: CUDA: ' err || fail "$1 does not tell of the CPU"
      ((got == 1)) || ! grep -q '^device: ' err || fail "$1 began on the CPU and took the GPU"
    done
  }
  stays extract few.csv --features mfcc39,timnet --cache
  stays train plain.yaml "${base[@]}" --manifest few.csv --set split.validation=0.3 --set conv=fused \
    --set train.epochs=1 -o

  echo "== memory that lacked for a batch, and did for a smaller one, is no error in the end"
  head -c 1000 /dev/zero >broken.wav
  got=0
  "$SERENADE_SOFTGPU" --fail malloc:6 -- "$serenade" predict "$model" "${clips[0]}" broken.wav --device cuda \
    >out 2>err </dev/null || got=$?
  [[ $got == 3 ]] || fail "exit status $got where one of two files cannot be used"
  grep -q "little of the device's memory is free" err || fail "no batch was made smaller: this shows nothing"
  ! grep -q 'out of memory' err || fail "what was mended is told as an error"
fi
