#!/usr/bin/env bash
# Everything that has to be seen on a real GPU, in one go: builds; runs every test of the CUDA backend on the device;
# compute-sanitizer over the tests of operations; the same bytes whatever the batch, and the same bytes again from the
# same seed; the benchmarks on both backends; PyTorch on the same GPU where it is there. What must hold of speed stands
# in scripts/verify_gpu.json. It leaves build/verify-gpu-NAME-DATE and a .tar.gz of it, to attach to a report:
# verdict.txt first, then what each step printed. A step that fails stops no other. Ctrl-C ends it, and keeps what was
# done. Exit status: 0 verified, 1 not.
# Usage: scripts/verify_gpu.sh [--data DIR] [--quick] [--python PYTHON]
#   --data DIR       real recordings for the benchmarks (default: made ones)
#   --quick          no compute-sanitizer, fewer runs
#   --python PYTHON  one that has PyTorch with CUDA, and torchaudio (default: that of build/peers/venv, where
#                    scripts/bench_peers.sh has put it)
# shellcheck disable=SC2317 # steps are called by their names
set -uo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

data=()
quick=false
python=$root/build/peers/venv/bin/python
while (($#)); do
  case $1 in
    --data)
      [[ -d ${2:-} ]] || die "--data needs a folder of recordings; '${2:-}' is none"
      data=(--data "$(cd "$2" && pwd)")
      shift 2
      ;;
    --python)
      command -v "${2:-}" >/dev/null || die "--python needs a program; '${2:-}' is none"
      python=$(command -v "$2")
      shift 2
      ;;
    --quick)
      quick=true
      shift
      ;;
    *) die "usage: scripts/verify_gpu.sh [--data DIR] [--quick] [--python PYTHON]" ;;
  esac
done

# ---- the machine: what is missing is said before anything is built -------------------------------------------------

driver_is_there() {
  local folder folders
  IFS=: read -ra folders <<<"${LD_LIBRARY_PATH:-}"
  for folder in "${folders[@]}"; do [[ ! -e $folder/libcuda.so.1 ]] || return 0; done
  PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1'
}
driver_is_there || die "there is no NVIDIA driver (libcuda.so.1) on this machine; this is for machines with a GPU"
if command -v nvidia-smi >/dev/null && ! why=$(nvidia-smi -L 2>&1); then die "nvidia-smi finds no GPU: $why"; fi
[[ -n $nvcc ]] || die "there is no nvcc, on the PATH or in CUDA_HOME: install the CUDA toolkit 13 and cuDNN 9"
PATH=$(dirname "$nvcc"):$PATH
install_missing build gpu

# A device as it comes: nothing of the caller's holds it back, or plays one.
unset SERENADE_SOFTGPU SERENADE_TEST_DEVICE SERENADE_TEST_ROW_EXACT SERENADE_CUDA_MODULE SERENADE_ISA
build_preset cuda
build=$root/build/cuda
serenade=$build/serenade
told=$("$serenade" info device --device cuda 2>&1) || die "the GPU cannot be used: ${told#serenade: }"
name=$(sed -n 's/^device: *//p' <<<"$told")
out=$root/build/verify-gpu-$(tr -cs 'A-Za-z0-9\n' '-' <<<"$name" | sed 's/-*$//')-$(date +%Y%m%d-%H%M%S)
mkdir -p "$out" || die "cannot make $out"
verdict=$out/verdict.txt
work=$(mktemp -d "${TMPDIR:-/tmp}/serenade-verify-XXXXXX") || die "cannot make a temporary folder"
failed=0

# ---- steps ---------------------------------------------------------------------------------------------------------

# verdict_of NAME STATUS WORDS: a line of the verdict. pass, FAIL, skipped; told: to be known, and no failure.
verdict_of() {
  printf '%-8s %-28s %s\n' "$2" "$1" "$3" | tee -a "$verdict"
  [[ $2 != FAIL ]] || failed=1
}

# run_step NAME COMMAND...: its output goes to NAME.txt; gives its exit status.
run_step() {
  local file=$out/$1.txt
  say "$1"
  shift
  "$@" >"$file" 2>&1 </dev/null
}

# words_of NAME: the last line of what the step printed that holds anything.
words_of() { grep -v '^[[:space:]]*$' "$out/$1.txt" | tail -n 1 | cut -c1-160; }

# step NAME COMMAND...: passes where the command does; 77 is skipped, with its own words.
step() {
  local status=0
  run_step "$@" || status=$?
  case $status in
    0) verdict_of "$1" pass "$([[ $1 != tests && $1 != limits ]] || words_of "$1")" ;;
    77) verdict_of "$1" skipped "$(words_of "$1" | sed 's/^skipped: //')" ;;
    *) verdict_of "$1" FAIL "exit status $status: $(words_of "$1")" ;;
  esac
}

# finish STATUS WORDS: the verdict's last line, the archive, the end.
finish() {
  exec >&3 2>&4 # not into the file of the step that was stopped
  echo "$2" | tee -a "$verdict"
  rm -rf "$work"
  tar -C "$(dirname "$out")" -czf "$out.tar.gz" "$(basename "$out")"
  say "attach build/$(basename "$out").tar.gz to your report"
  exit "$1"
}
exec 3>&1 4>&2
trap 'finish 1 "NOT VERIFIED: stopped; what stands above was done"' INT TERM

about_machine() {
  "$serenade" --version
  echo "$told"
  nvidia-smi
  nvcc --version
  (cd "$root" && git log -1 --format='commit %H %ci' && git status --short)
  uname -a
  lscpu
}

# Every test of the backend; those that are about what only a software device does say so, and no other may be skipped.
all_tests() {
  local status=0
  ctest --test-dir "$build" -L cuda --output-on-failure --output-junit "$out/tests.xml" || status=$?
  python3 - "$out/tests.xml" "$out/tests-skipped.txt" <<'COUNT' && return "$status"
import collections, sys
import xml.etree.ElementTree as tree

counts, wrong = collections.Counter(), []
with open(sys.argv[2], "w") as file:
    for case in tree.parse(sys.argv[1]).getroot().iter("testcase"):
        status = {"run": "passed", "notrun": "skipped"}.get(case.get("status"), "failed")
        counts[status] += 1
        output = case.findtext("system-out") or ""
        words = next((line.strip() for line in output.splitlines() if "skipped:" in line), "no words")
        if status == "skipped":
            file.write(f"{case.get('name')}: {words}\n")
        if status == "failed" or (status == "skipped" and "software device" not in words):
            wrong.append(case.get("name") if status == "failed" else f"{case.get('name')} ({words})")
print("\n" + ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
      + (f"; amiss: {', '.join(wrong)}" if wrong else ""))
sys.exit(bool(wrong) or not counts["passed"])
COUNT
}

# The environment that ctest gives a test of operations.
on_gpu=(env SERENADE_TEST_DEVICE=cuda "SERENADE_SOURCE=$root" "SERENADE_BINARY=$serenade"
  "SERENADE_CUDA_MODULE=$build/serenade_cuda.so")

# sanitize TOOL PROGRAM: calls that fail are no error of memcheck, since tests make some fail, and look at the words.
# What initcheck says of the libraries' own kernels is theirs.
sanitize() {
  local tool=$1 program=$2 step_name status=0
  step_name=$tool.$(basename "$program")
  run_step "$step_name" "${on_gpu[@]}" timeout --foreground --kill-after 30 3600 \
    "$sanitizer" --tool "$tool" --error-exitcode 9 --report-api-errors no --print-limit 1000 "$program" || status=$?
  if ((status == 9)) && [[ $tool == initcheck ]] && grep -q 'ERROR SUMMARY' "$out/$step_name.txt" &&
    ! grep -E '^=+ +(at|by|in kernel) ' "$out/$step_name.txt" | grep -qFf "$work/kernels.txt"; then
    verdict_of "$step_name" told "in kernels of the libraries alone: $(words_of "$step_name")"
  elif ((status)); then
    verdict_of "$step_name" FAIL "exit status $status: $(words_of "$step_name")"
  else
    verdict_of "$step_name" pass ""
  fi
}

sanitize_all() {
  local tool program
  sanitizer=$(command -v compute-sanitizer || echo "$(dirname "$nvcc")/compute-sanitizer")
  grep -oh '[a-z0-9_]*_kernel\b' "$root"/kernels/*.cu "$root"/cuda/*.cu | sort -u >"$work/kernels.txt"
  for tool in memcheck racecheck initcheck synccheck; do
    if $quick; then
      verdict_of "$tool" skipped "--quick"
    elif [[ ! -x $sanitizer ]]; then
      verdict_of "$tool" skipped "there is no compute-sanitizer, on the PATH or beside nvcc; it comes with the toolkit"
    else
      for program in "$build"/tests/ops_* "$build/tests/cuda_twins"; do sanitize "$tool" "$program"; done
    fi
  done
}

# Bytes that the libraries do not promise: seen and told.
through_library() {
  local status=0
  run_step "$1" "${on_gpu[@]}" SERENADE_TEST_ROW_EXACT=1 "$2" || status=$?
  if ((status)); then
    verdict_of "$1" told "not the same bytes through the library: $(grep -m 1 'alone' "$out/$1.txt")"
  else
    verdict_of "$1" told "the same bytes through the library, too"
  fi
}

# The default model, trained twice from one seed with each form of convolutions.
same_seed() ( # in a shell of its own, since it changes the folder
  form=$1
  cd "$work" || exit 1
  [[ -d corpus ]] || "$build/tests/make_corpus" corpus || exit 1
  printf 'corpora:\n  ravdess: corpus/RAVDESS\n  tess: corpus/TESS\n' >seed.yaml
  for run in once again; do
    "$serenade" train seed.yaml -o "$form-$run" --device cuda --set cache.dir=cache --set train.epochs=3 \
      --set "conv=$form" --quiet || exit 1
  done
  for file in history.csv model.safetensors checkpoint; do cmp "$form-once/$file" "$form-again/$file" || exit 1; done
)

# Trainings side by side: the time of epochs alone, for 1, 2, 4 and 8 seeds (as many at once as the device says), and how
# much sooner they are done than one after the other.
side_by_side() ( # in a shell of its own, since it changes the folder
  cd "$work" || exit 1
  [[ -d corpus ]] || "$build/tests/make_corpus" corpus || exit 1
  printf 'corpora:\n  ravdess: corpus/RAVDESS\n  tess: corpus/TESS\n' >side.yaml
  printf 'train: {batch: 16}\n' >>side.yaml # eight steps an epoch, of the few clips that are there
  few=5 more=45
  "$serenade" train side.yaml -o side-first --device cuda --set cache.dir=cache --set train.epochs=1 --quiet || exit 1
  for seeds in 1 1,2 1,2,3,4 1,2,3,4,5,6,7,8; do
    for epochs in "$few" "$more"; do
      from=$(date +%s%N)
      "$serenade" train side.yaml -o "side-$seeds-$epochs" --device cuda --set cache.dir=cache --set conv=fused \
        --set "train.epochs=$epochs" --set "train.seeds=[$seeds]" --quiet || exit 1
      echo "$seeds $epochs $((($(date +%s%N) - from) / 1000000))"
    done
  done >side.txt
  awk '{ split($1, list, ","); n = length(list); if (n in first) took[n] = $3 - first[n]; else first[n] = $3 }
    END {
      for (n = 1; n <= 8; n *= 2) printf "%d: %d ms for 40 epochs\n", n, took[n]
      printf "1, 2, 4, 8 at once are done"
      for (n = 1; n <= 8; n *= 2) printf "%s %.2f", (n > 1 ? "," : ""), (took[n] > 0 ? n * took[1] / took[n] : 0)
      print " times as fast as one after the other"
    }' side.txt
)

# What the estimate of a device's trainings side by side should be held to: told.
tell_side_by_side() {
  local status=0
  run_step side_by_side side_by_side || status=$?
  if ((status)); then
    verdict_of side_by_side FAIL "exit status $status: $(words_of side_by_side)"
  else
    verdict_of side_by_side told "$(words_of side_by_side)"
  fi
}

pytorch() {
  if [[ ! -x $python ]]; then
    echo "skipped: no Python with PyTorch: scripts/bench_peers.sh makes one in build/peers/venv, or give --python"
    return 77
  fi
  local like=()
  [[ ! -s $out/bench-cuda.json ]] || like=(--like "$out/bench-cuda.json")
  "$python" "$root/scripts/peers/gpu.py" "$out/pytorch.json" "${like[@]}" "${runs[@]}"
}

# ---- all of them ---------------------------------------------------------------------------------------------------

runs=()
! $quick || runs=(--runs 3)
about_machine >"$out/machine.txt" 2>&1
cp "$root/scripts/verify_gpu.json" "$out/limits.json"
echo "Serenade on $name, $(date '+%Y-%m-%d %H:%M'), $(cd "$root" && git rev-parse --short HEAD 2>/dev/null)" >"$verdict"

step tests all_tests
[[ ! -s $out/tests-skipped.txt ]] ||
  verdict_of tests told "$(wc -l <"$out/tests-skipped.txt") skipped, each with its reason in tests-skipped.txt"
for test in unit_invariance unit_mfcc_batches unit_train_device; do
  step "bitwise.$test" "${on_gpu[@]}" "$build/tests/$test"
done
step bitwise.seed.fused same_seed fused
step bitwise.seed.cudnn same_seed cudnn
through_library bitwise.cublas "$build/tests/ops_linear"
through_library bitwise.cublas.encoder "$build/tests/ops_product"
through_library bitwise.cublas.embed "$build/tests/unit_embed"
through_library bitwise.cublas.classifier "$build/tests/unit_invariance"
through_library bitwise.cudnn "$build/tests/ops_conv_forward"
tell_side_by_side
step bench.cuda "$serenade" bench all --device cuda "${data[@]}" "${runs[@]}" --json "$out/bench-cuda.json"
step bench.cpu "$serenade" bench all --device cpu "${data[@]}" "${runs[@]}" --json "$out/bench-cpu.json"
step pytorch pytorch
judge=(python3 "$root/scripts/verify_gpu.py" "$out/limits.json" "$out/bench-cuda.json" "$out/bench-cpu.json")
[[ ! -s $out/pytorch.json ]] || judge+=("$out/pytorch.json")
step limits "${judge[@]}"
sanitize_all
echo | cat - "$out/limits.txt" | tee -a "$verdict"

if ((failed)); then finish 1 "NOT VERIFIED: see the lines with FAIL"; else finish 0 "VERIFIED"; fi
