#!/usr/bin/env bash
# Before a commit: format, shellcheck, warnings (they are errors), quick tests. Under a minute once a build is there.
# Usage: scripts/check.sh [--fix]      --fix lets clang-format mend the files
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

mode=--dry-run
case ${1:-} in
  "") ;;
  --fix) mode=-i ;;
  *)
    echo "usage: check.sh [--fix]" >&2
    exit 2
    ;;
esac
install_missing build check
cd "$root"

check_form "$mode"
build_preset release
say "quick tests"
ctest --test-dir build/release --output-on-failure -j "$jobs" -L 'unit|ops'
