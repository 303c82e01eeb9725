#!/usr/bin/env bash
# Real recordings (SERENADE_CORPORA: folders RAVDESS and TESS): counts and findings that are known of them, features of
# every usable clip, and a short training by speaker.
set -euo pipefail

[[ -n ${SERENADE_CORPORA:-} ]] || { echo "skipped: SERENADE_CORPORA names no recordings" && exit 77; }
serenade=$SERENADE_BINARY
work=$(mktemp -d "${TMPDIR:-/tmp}/serenade-e2e-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
  echo "FAILED: $*" >&2
  exit 1
}
column() { # NAME: its place
  head -1 manifest.csv | tr ',' '\n' | grep -nx "$1" | cut -d: -f1
}
count() { # NAME=VALUE...: rows with all of them
  local program='NR > 1' pair
  for pair in "$@"; do program+=" && \$$(column "${pair%%=*}") == \"${pair#*=}\""; done
  awk -F, "$program" manifest.csv | wc -l
}

"$serenade" index --ravdess "$SERENADE_CORPORA/RAVDESS" --tess "$SERENADE_CORPORA/TESS" -o manifest.csv --quiet >index.txt
[[ $(count corpus=ravdess) == 960 ]] || fail "RAVDESS: $(count corpus=ravdess) rows, not 960"
[[ $(count corpus=tess) == 1260 ]] || fail "TESS: $(count corpus=tess) rows, not 1260"
[[ $(count corpus=ravdess status=filtered) == 256 ]] || fail "RAVDESS: calm and surprised"
[[ $(count corpus=tess status=filtered) == 180 ]] || fail "TESS: surprised"
[[ $(count corpus=ravdess emotion=neutral) == 64 && $(count corpus=ravdess emotion=sad) == 128 ]] || fail "emotions"
[[ $(count corpus=ravdess channels=2) == 5 ]] || fail "RAVDESS: the five stereo clips"
[[ $(count corpus=tess rate=96000) == 1 ]] || fail "TESS: the clip at 96 kHz"
[[ $(count speaker=tess_oaf) == 630 && $(count speaker=tess_yaf) == 630 ]] || fail "TESS: a clip has lost its speaker"

"$serenade" audit manifest.csv --json audit.json --quiet >audit.txt
[[ $(count reason=duplicate status=excluded) == 1 ]] || fail "RAVDESS: the byte-identical pair of actor 07"
grep -F "03-01-03-01-02-02-07.wav" manifest.csv | grep -qF ",excluded,duplicate" || fail "the first of the pair stays"
[[ $(count status=refused) == 0 ]] || fail "a sound recording is refused"
cat audit.txt

"$serenade" extract manifest.csv --features mfcc39 --cache cache --quiet >extract.txt
grep -F "of $(($(count status=ok) + $(count status=new))) computed" extract.txt || fail "$(cat extract.txt)"
"$serenade" cache verify cache >/dev/null || fail "the cache is not sound"

"$serenade" train "$SERENADE_SOURCE/configs/speaker_folds.yaml" --manifest manifest.csv --set cache.dir=cache \
  --set split.folds=0 --set split.test_speakers=tess_yaf,ravdess_01,ravdess_12 --set train.batch=16 --set train.epochs=4 \
  -o run --quiet >train.txt
"$serenade" evaluate run --quiet
tail -n +2 run/predictions.csv | grep -vE 'YAF|Actor_01|Actor_12' && fail "a training speaker is among the test clips"
awk -F, 'NR > 1 { right += $3 == $4 } END { exit !(NR > 600 && right > 0.2 * NR) }' run/predictions.csv ||
  fail "no better than chance on new speakers"
