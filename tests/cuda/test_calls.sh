#!/usr/bin/env bash
# Each call of the CUDA runtime and its libraries, and each launch, in the sources: check_calls.py says what it asks.
# Usage: test_calls.sh FOLDER of the sources
set -euo pipefail

if ! command -v python3 >/dev/null; then
  echo "skipped: there is no python3"
  exit 77
fi
exec python3 "$(dirname "${BASH_SOURCE[0]}")/check_calls.py" "$1"
