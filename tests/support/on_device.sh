#!/usr/bin/env bash
# Runs a test program on a CUDA device: on the software device whose launcher SERENADE_SOFTGPU names, with the given
# options and those of SERENADE_SOFTGPU_OPTIONS, leaks being failures, its report in SERENADE_REPORT.json; else on the
# machine's GPU, where options mean nothing; else it exits with 77 and says why there is no device. --only: a test that
# is about these options is skipped on a GPU.
# Usage: on_device.sh [--only] [options of the software device] -- PROGRAM [ARGUMENTS]
set -euo pipefail

options=()
only=false
if [[ $1 == --only ]]; then
  only=true
  shift
fi
while [[ $1 != -- ]]; do
  options+=("$1")
  shift
done
shift
export SERENADE_TEST_DEVICE=cuda
if [[ -n ${SERENADE_SOFTGPU:-} ]]; then
  [[ " ${options[*]} " != *" --row-exact "* ]] || export SERENADE_TEST_ROW_EXACT=1
  read -ra more <<<"${SERENADE_SOFTGPU_OPTIONS:-}"
  [[ -z ${SERENADE_REPORT:-} ]] || more+=(--report "$SERENADE_REPORT.json")
  exec "$SERENADE_SOFTGPU" --leak-fatal "${options[@]}" "${more[@]}" -- "$@"
fi
if $only; then
  echo "skipped: only a software device (SERENADE_SOFTGPU) can do ${options[*]}"
  exit 77
fi
if ! why=$("$SERENADE_BINARY" info device --device cuda 2>&1 >/dev/null); then
  echo "skipped: ${why#*: }"
  exit 77
fi
exec "$@"
