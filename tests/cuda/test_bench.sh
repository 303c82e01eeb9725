#!/usr/bin/env bash
# `serenade bench all` on the CUDA device, with a small model and a few recordings: every line is there, what a batch
# takes of the device is counted, and steady stages allocate nothing. No time is tested.
# Usage: test_bench.sh
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/serenade-cuda-bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

"$SERENADE_MAKE_CORPUS" corpus
mkdir few
mapfile -t clips < <(find corpus -name '*.wav' | sort | head -n 12)
for path in "${clips[@]}"; do cp "$path" "few/${path//\//-}"; done
small=(--set model.blocks=2 --set model.filters=8 --set features.mfcc39.frames=32)

# The reports of two processes (predict is the program again) would be one file.
got=0
NVTX_INJECTION64_PATH=$SERENADE_RANGES_MODULE SERENADE_RANGES=$work/ranges SERENADE_REPORT="" bash "$here/../support/on_device.sh" -- "$SERENADE_BINARY" bench all --runs 2 --device cuda --data few \
  "${small[@]}" --json bench.json >out 2>err || got=$?
cat out err
[[ $got != 77 ]] || exit 77
[[ $got == 0 ]] || { echo "FAILED: exit status $got" && exit 1; }

awk 'length > 120 { print "FAILED: wider than 120 columns: " $0; bad = 1 } END { exit bad }' out
for stage in peak.fma mfcc extract train forward predict; do
  grep -q -x "0 $stage" ranges || { echo "FAILED: a profiler does not see $stage" && exit 1; }
done
! grep '^open: ' ranges | grep -v 'open: 0' || { echo "FAILED: ranges that do not end" && exit 1; }
grep -q '^What holds it back is' out || { echo "FAILED: no brake is named" && exit 1; }
exec python3 - <<'CHECK'
import json, sys

with open("bench.json") as file:
    told = json.load(file)
lines = {line["name"]: line for line in told["results"]}
wrong = []


def expect(true, words):
    if not true:
        wrong.append(words)


names = ("peak.fma peak.copy peak.to peak.from peak.launch peak.graph decode.read decode.resample decode mfcc extract "
         "train forward predict.start predict predict.clips")
expect(list(lines) == names.split(), f"the lines are {list(lines)}")
expect(told["machine"]["backend"] == "cuda" and told["machine"]["device"]["multiprocessors"] > 0, "the machine")
for name in names.split():
    line = lines.get(name, {})
    expect(line.get("median", 0) > 0 and line.get("runs") == 2, f"{name}: {line}")
stages = ["mfcc", "extract", "train", "forward", "predict.clips"]
expect([n for n in lines if "device" in lines[n]] == stages, "which stages have a device's figures")
for name in stages:
    work = lines.get(name, {}).get("device", {})
    for key in "batches clips ms busy launches waits bytes_from operations memory_bytes gflops gbs".split():
        expect((work.get(key) or 0) > 0, f"{name}: {key} is {work.get(key)}")
    expect(work.get("limit") in ("fma", "memory", "bus", "launches"), f"{name}: limit {work.get('limit')}")
    expect((lines.get(name, {}).get("bound") or 0) > 0, f"{name}: no bound")
    if name != "extract":
        expect(work.get("allocations_in_run") == 0, f"{name}: {work.get('allocations_in_run')} allocations in a run")
for name in ("mfcc", "extract", "predict.clips"):
    expect(lines[name]["device"]["bytes_to"] > 0, f"{name}: nothing went to the device")
expect(0 < lines["extract"].get("set_up_ms", 0), "extract: what it takes to set up")
expect(lines["train"]["device"]["graph"], "the training step is no graph")
expect(lines["mfcc"]["device"]["waits"] <= 1, "mfcc waits more than once a batch")
for words in wrong:
    print("FAILED:", words)
sys.exit(bool(wrong))
CHECK
