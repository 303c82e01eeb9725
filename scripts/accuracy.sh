#!/usr/bin/env bash
# The table of accuracy on real recordings: both branches by four protocols, three seeds, beside the same recipe in librosa
# and PyTorch. Takes hours; every finished part is kept in build/accuracy, and a second call goes on from there.
# Usage: scripts/accuracy.sh RAVDESS-DIR TESS-DIR [--seeds 1,2,3] [--peer-seeds 1] [--epochs 60] [--only TEXT] [--no-peer]
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if (($# < 2)) || [[ $1 == -* || $2 == -* ]]; then
  echo "usage: accuracy.sh RAVDESS-DIR TESS-DIR [--seeds 1,2,3] [--peer-seeds 1] [--epochs 60] [--only TEXT]" \
    "[--no-peer]" >&2
  exit 2
fi
[[ -d $1 && -d $2 ]] || die "$1 or $2 is no folder; name those of the two corpora"
ravdess=$(cd "$1" && pwd) tess=$(cd "$2" && pwd)
shift 2
install_missing build peers
build_preset release serenade
install_peers
"$peers/venv/bin/python" "$root/scripts/accuracy.py" --serenade "$root/build/release/serenade" --ravdess "$ravdess" \
  --tess "$tess" --out "$root/build/accuracy" "$@"
