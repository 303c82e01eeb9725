#!/usr/bin/env bash
# Measures Serenade and its peers (librosa, torchaudio, PyTorch) in turn on the same recordings and cores. Makes an
# environment of pinned peers in build/peers/venv (several GB, from PyPI) unless it is there; leaves peers.json and
# peers.png in build/peers.
# Usage: scripts/bench_peers.sh [DIR] [--rounds N] [--runs N] [--stages LIST]
#   DIR holds recordings (default: the made corpus of the demo, which is made if it is missing)
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

data=''
if (($#)) && [[ $1 != -* ]]; then
  [[ -d $1 ]] || die "$1: there is no such folder; name one of recordings"
  data=$(cd "$1" && pwd)
  shift
fi
install_missing build peers
build_preset release serenade
if [[ -z $data ]]; then
  data=$root/build/demo/corpus
  [[ -d $data/RAVDESS ]] || "$root/scripts/make_demo_corpus.sh" "$data"
fi
install_peers

# Nothing of the caller's environment holds the peers' libraries back.
hindrances=()
while IFS='=' read -r name _; do
  case $name in OPENBLAS_* | OMP_* | MKL_* | GOTO_* | NUMBA_* | SERENADE_ISA) hindrances+=(-u "$name") ;; esac
done < <(env)
env "${hindrances[@]}" "$peers/venv/bin/python" "$root/scripts/peers/compare.py" \
  --serenade "$root/build/release/serenade" --data "$data" --out "$peers/work" "$@"
mv "$peers/work/peers.json" "$peers/work/peers.png" "$peers/"
say "figures in build/peers/peers.json, a picture in build/peers/peers.png"
