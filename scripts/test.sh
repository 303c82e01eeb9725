#!/usr/bin/env bash
# Installs what is missing, checks the format, builds, and runs every test: unit and operation tests under
# AddressSanitizer and UBSan, the threaded ones under ThreadSanitizer, those and the goldens in a Clang build, and at last
# all of them in the release build, so that the output ends with ctest's summary.
#
# Real recordings: SERENADE_CORPORA names a folder that holds RAVDESS/ and TESS/; where it is not set and
# ../shared/corpora is there, that is unpacked into build/corpora once. Tests that need them are skipped without them;
# with them no test may be skipped, but for those of the CUDA backend.
#
# Those need a GPU, or a software device: SERENADE_SOFTGPU names its launcher; where it is not set and
# ../shared/tools/softgpu is there, that is used. With it no test of the CUDA backend may be skipped.
# Usage: scripts/test.sh
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

install_missing build demo test check
cd "$root"
if [[ -z ${SERENADE_SOFTGPU:-} && -n $nvcc && -x $root/../shared/tools/softgpu/softgpu ]]; then
  install_missing softgpu
  SERENADE_SOFTGPU=$root/../shared/tools/softgpu/softgpu
fi
if [[ -n ${SERENADE_SOFTGPU:-} ]]; then
  [[ -n $nvcc ]] || die "SERENADE_SOFTGPU is set, but there is no nvcc to build the CUDA backend with"
  PATH=$(dirname "$nvcc"):$PATH
  say "the tests of the CUDA backend run on the software device $SERENADE_SOFTGPU"
  "$SERENADE_SOFTGPU" --build-only >/dev/null # once, before several tests want it
  export SERENADE_SOFTGPU
fi
# Releases of clang-format differ in what they make of the same style.
if [[ $(clang-format --version) == *"version 14."* ]]; then
  check_form --dry-run || die "the format is not the house's, above; scripts/check.sh --fix mends the C"
else
  say "skipped: the format, which is that of clang-format 14 (here: $(clang-format --version))"
fi

if [[ -z ${SERENADE_CORPORA:-} && -x $root/../shared/corpora/unpack.sh ]]; then
  say "unpacking the real recordings into build/corpora"
  mkdir -p build
  "$root/../shared/corpora/unpack.sh" "$root/build/corpora" >&2
  SERENADE_CORPORA=$root/build/corpora
fi
if [[ -n ${SERENADE_CORPORA:-} ]]; then
  [[ -d $SERENADE_CORPORA/RAVDESS && -d $SERENADE_CORPORA/TESS ]] ||
    die "SERENADE_CORPORA=$SERENADE_CORPORA does not hold RAVDESS/ and TESS/"
  export SERENADE_CORPORA
fi

failed=0
run_tests() { # PRESET ctest-arguments...
  local preset=$1
  shift
  say "testing $preset"
  ctest --test-dir "build/$preset" --output-on-failure -j "$jobs" "$@" || failed=1
}

build_preset asan
run_tests asan -L 'unit|ops|cuda'
build_preset tsan
run_tests tsan -L threads
build_preset clang
run_tests clang -L 'unit|ops|golden'
build_preset release
((failed == 0)) || die "tests failed in a sanitizer's or Clang's build, above"
say "testing release"
log=build/release-tests.log
ctest --test-dir build/release --output-on-failure -j "$jobs" 2>&1 | tee "$log"
skipped=$(sed -n 's/.*Test *#[0-9]*: \([^ ]*\) .*\*\*\*Skipped.*/\1/p' "$log")
if [[ -n ${SERENADE_CORPORA:-} ]] && grep -qv '^cuda\.' <<<"${skipped:-cuda.}"; then
  die "the recordings are there, yet a test was skipped, above"
fi
if [[ -n ${SERENADE_SOFTGPU:-} ]]; then
  grep -q '^ *[0-9]*/[0-9]* Test *#[0-9]*: cuda\.' "$log" || die "the software device is there, yet CUDA is not in the build"
  ! grep -q '^cuda\.' <<<"$skipped" || die "the software device is there, yet a test of the CUDA backend was skipped, above"
fi
