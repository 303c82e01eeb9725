#!/usr/bin/env bash
# Which device is taken, and what is said where it is not the GPU: no driver, an old one, no device, too little memory,
# an architecture that is too old for the module, a module that is not there, not a module, or of another build.
set -euo pipefail

if [[ -z ${SERENADE_SOFTGPU:-} ]]; then
  echo "skipped: no software device (SERENADE_SOFTGPU), whose faults this test asks for"
  exit 77
fi
folder=$(mktemp -d "${TMPDIR:-/tmp}/serenade-choice-XXXXXX")
trap 'rm -rf "$folder"' EXIT
failed=0

wrong() {
  echo "WRONG: $*"
  failed=1
}

# what_is WORDS [OPTIONS of the software device]: CUDA is refused with these words, and auto takes the CPU with them.
refused() {
  local words=$1 status=0
  shift
  echo "== ${*:-as it is}${SERENADE_CUDA_MODULE:+, module $(basename "$SERENADE_CUDA_MODULE")}: $words"
  "$SERENADE_SOFTGPU" "$@" -- "$SERENADE_BINARY" info device --device cuda >"$folder/out" 2>"$folder/err" || status=$?
  [[ $status == 1 ]] || wrong "--device cuda ends with $status"
  [[ ! -s $folder/out ]] || wrong "--device cuda prints all the same"
  grep -q -e "^serenade: .*$words" "$folder/err" || wrong "--device cuda says: $(cat "$folder/err")"
  "$SERENADE_SOFTGPU" "$@" -- "$SERENADE_BINARY" info device >"$folder/out" 2>"$folder/err" ||
    wrong "auto ends with $?: $(cat "$folder/err")"
  ! grep -q '^serenade' "$folder/err" || wrong "auto says: $(cat "$folder/err")"
  grep -q '^backend: *cpu$' "$folder/out" || wrong "auto takes $(head -n 1 "$folder/out")"
  grep -q -e "^CUDA: *not used: .*$words" "$folder/out" || wrong "auto tells: $(grep CUDA "$folder/out" || true)"
}

# taken ISA [OPTIONS]: auto takes the GPU, and says what it is.
taken() {
  local isa=$1
  shift
  echo "== ${*:-as it is}: taken"
  "$SERENADE_SOFTGPU" --leak-fatal "$@" -- "$SERENADE_BINARY" info device >"$folder/out" 2>"$folder/err" ||
    wrong "auto ends with $?: $(cat "$folder/err")"
  for line in 'backend: *cuda' 'device: *.' "architecture: *$isa\$" 'multiprocessors: *[1-9]' 'memory: *[1-9].*GiB' \
    'precision: *fp32' 'convolutions: *auto'; do
    grep -q -e "^$line" "$folder/out" || wrong "no line '$line' in: $(cat "$folder/out")"
  done
  ! grep -q 'not used' "$folder/out" || wrong "$(grep 'not used' "$folder/out")"
  "$SERENADE_SOFTGPU" "$@" -- "$SERENADE_BINARY" info device --device cpu >"$folder/out"
  grep -q '^backend: *cpu$' "$folder/out" || wrong "--device cpu takes another"
  ! grep -q CUDA "$folder/out" || wrong "--device cpu tells of CUDA"
}

taken sm_90 --device h100
if [[ ${SERENADE_LOWEST_ARCHITECTURE:?} -le 75 ]]; then
  taken sm_75 --device t4
else
  refused "architecture too old" --device t4
fi
refused "there is no CUDA device" --driver none
refused "the NVIDIA driver is too old: it knows CUDA [0-9.]*, this build needs" --driver old
refused "there is no NVIDIA driver" --driver missing
refused "too little memory: 100 MiB of 100 MiB are free" --mem 100
refused "the GPU is out of memory: CUDA: .* at cuda.* MiB free" --fail stream:1+

export SERENADE_CUDA_MODULE=${SERENADE_MODULE_OF_80:?}
refused "architecture too old: the GPU is an sm_75, this build is for sm_80 and later" --device t4
SERENADE_CUDA_MODULE=$folder/missing.so refused "$folder/missing.so, which drives it, is not there; set SERENADE_CUDA"
# Without the variable: beside the program, then in the installed tree's folder. Each place is named where it is nowhere.
mkdir -p "$folder/tree/bin" "$folder/tree/lib/serenade"
cp "$SERENADE_BINARY" "$folder/tree/bin/serenade"
(
  unset SERENADE_CUDA_MODULE
  SERENADE_BINARY=$folder/tree/bin/serenade
  refused "serenade_cuda.so, which drives it, is neither in $folder/tree/bin nor in $folder/tree/bin/../lib/serenade; install"
  ln -s "$SERENADE_MODULE_OF_ANOTHER" "$folder/tree/lib/serenade/serenade_cuda.so"
  refused "$folder/tree/bin/../lib/serenade/serenade_cuda.so is of another build"
  echo "not a module" >"$folder/tree/bin/serenade_cuda.so"
  refused "its module cannot be loaded: $folder/tree/bin/serenade_cuda.so"
  exit "$failed"
) || failed=1
echo "not a module" >"$folder/text.so"
SERENADE_CUDA_MODULE=$folder/text.so refused "its module cannot be loaded: "
# Cut short anywhere: in the header, in what is mapped, in the tables at the end.
whole=$(stat -L -c %s "$SERENADE_MODULE_OF_80")
for size in 10 63 100 5000 $((whole / 2)) $((whole - 4096)) $((whole - 1)); do
  head -c "$size" "$SERENADE_MODULE_OF_80" >"$folder/cut.so"
  SERENADE_CUDA_MODULE=$folder/cut.so refused "its module $folder/cut.so is cut short; install Serenade anew"
done
export SERENADE_CUDA_MODULE=${SERENADE_MODULE_OF_ANOTHER:?}
refused "is of another build than this program; install Serenade anew"
exit "$failed"
