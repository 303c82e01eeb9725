#!/usr/bin/env bash
# Failures of the device, one at a time, in every command: see fault_sweep.py, whose arguments these are. The whole sweep
# takes about ten minutes, --part of it one.
# Usage: fault_sweep.sh [--part] [--keep] [KIND[:N[-M]] ...]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$here/../../build/release
if [[ -z ${SERENADE_SOFTGPU:-} ]]; then
  echo "skipped: no software device (SERENADE_SOFTGPU), whose faults this asks for"
  exit 77
fi
export SERENADE_BINARY=${SERENADE_BINARY:-$build/serenade}
export SERENADE_MAKE_CORPUS=${SERENADE_MAKE_CORPUS:-$build/tests/make_corpus}
exec python3 "$here/fault_sweep.py" "$@"
