#!/usr/bin/env bash
# Whether the tests on the software device have executed all of the module: see coverage.py. Reports that are older than
# the module are of another one.
# Usage: check_coverage.sh MODULE FOLDER-OF-REPORTS
set -euo pipefail

module=$1
if [[ -z ${SERENADE_SOFTGPU:-} ]]; then
  echo "skipped: no software device (SERENADE_SOFTGPU), whose reports this reads"
  exit 77
fi
mapfile -t reports < <(find "$2" -name '*.json' -newer "$module" | sort)
exec python3 "$(dirname "${BASH_SOURCE[0]}")/coverage.py" "$module" "${reports[@]}"
