#!/usr/bin/env bash
# What scripts/verify_gpu.py makes of benches that are good, too slow, incomplete or no benches at all: its exit status
# and its lines. Needs no device.
# Usage: test_judge.sh
set -euo pipefail

if ! command -v python3 >/dev/null; then
  echo "skipped: there is no python3"
  exit 77
fi
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../scripts" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/serenade-judge-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 - "$scripts" <<'CHECK'
import copy, json, subprocess, sys

scripts, wrong = sys.argv[1], []
PROMISES = [("mfcc", "device.allocations_in_run", "at_most", 0), ("train", "device.busy", "at_least", 0.7),
            ("train", "share", "at_least", 0.1), ("train", "median", "over_cpu", 2)]
limits = {"thresholds": [{"stage": stage, "figure": figure, kind: wanted, "comment": "a test's"}
                         for stage, figure, kind, wanted in PROMISES]
                        + [{"stage": stage, "figure": "median", "over_pytorch": 1} for stage in ("mfcc", "train")],
          "estimates": {"H100": {"match": "H100", "train": 50000.0, "mfcc": 900000.0, "extract": None,
                                 "peak.fma": 1100.0},
                        "T4": {"match": "T4"}}}
RATES = {"mfcc": 9000.0, "extract": 1000.0, "train": 8000.0, "forward": 70000.0, "predict.clips": 900.0}


def write(name, data):
    with open(name, "w") as file:
        file.write(data if isinstance(data, str) else json.dumps(data))


def bench(device, factor):
    """What `serenade bench all --json` writes."""
    def line(name, unit, median, **more):
        return {"name": name, "unit": unit, "median": median, "min": 0.9 * median, "max": 1.1 * median, "runs": 7,
                "bound": None, "share": None, "audio_hours_per_hour": None, **more}

    results = [line("peak.fma", "GFLOP/s", 200.0 * factor), line("decode", "clips/s", 1300.0, bound=1500.0, share=0.87),
               line("predict", "ms", 20.0, bound=12.0, share=0.6)]
    for name, rate in RATES.items():
        stage = line(name, "clips/s", rate * factor, bound=2.0 * rate * factor, share=0.5, bound_is="peak.fma")
        if device:
            stage["device"] = {"batches": 4.0, "clips": 64.0, "ms": 1.5, "busy": 0.9, "launches": 6.0, "calls": 1.0,
                               "waits": 0.25, "bytes_to": 1e6, "bytes_from": 1e5, "allocations_in_run": 0.0,
                               "operations": 1e9, "memory_bytes": 1e7, "gflops": 50.0, "gflops_share": 0.4, "gbs": 9.0,
                               "gbs_share": 0.1, "graph": name == "train", "limit": "fma"}
        results.append(stage)
    machine = {"serenade": "0.1.0", "backend": "cuda" if device else "cpu",
               "processor": "NVIDIA H100 80GB HBM3" if device else "a processor", "isa": "sm_90", "cores": 2}
    return {"version": 1, "machine": machine, "clips": {"count": 96, "seconds": 250.0, "made": True, "paths": []},
            "results": results}


def stage(data, name):
    return next(line for line in data["results"] if line["name"] == name)


def case(what, status, lines, never=(), limits="limits.json", cuda="cuda.json", cpu="cpu.json", more=()):
    """The judge's exit status (None: either), lines (parts that one of them holds), and what none of them may hold."""
    done = subprocess.run([sys.executable, f"{scripts}/verify_gpu.py", limits, cuda, cpu, *more], capture_output=True,
                          text=True)
    out = done.stdout.splitlines()
    missing = [parts for parts in lines if not any(all(part in line for part in parts) for line in out)]
    found = [part for part in never if part in done.stdout]
    print(f"{what}: exit status {done.returncode}")
    if status not in (done.returncode, None) or missing or found or done.stderr:
        wrong.append(what)
        print(f"  WRONG: wanted {status}; missing: {missing}; too many: {found}\n{done.stdout}{done.stderr}")


good = bench(True, 5.0)
pytorch = {"version": 1, "torch": "2.0", "device": "NVIDIA H100 80GB HBM3", "results": [
    {"name": "train", "unit": "clips/s", "median": 10000.0, "best": "graph",
     "forms": {"eager": 4000.0, "graph": 10000.0, "compile": "not to be had: no compiler"}},
    {"name": "forward", "unit": "clips/s", "median": 90000.0, "best": "graph, batch 64", "forms": {}},
    {"name": "mfcc", "unit": "clips/s", "median": None, "best": None, "forms": {"batch 64": "not to be had"}}]}
write("limits.json", limits)
write("cuda.json", good)
write("cpu.json", bench(False, 1.0))
write("pytorch.json", pytorch)

# The limits of the tree, whatever their numbers, ask for what a bench has.
case("the tree's own limits", None, [("estimates of H100",), ("thresholds pass",)], limits=f"{scripts}/verify_gpu.json",
     never=("is not in", "has no", "verify_gpu.json:"))
case("good", 0, [("pass", "train device.busy", "0.9", "at least"),
                 ("pass", "mfcc device.allocations_in_run", "at most 0"),
                 ("pass", "train median", "5 (40000 beside 8000)", "times the CPU's"),
                 ("skipped", "mfcc median", "PyTorch was not measured"), ("estimates of H100", "NVIDIA H100 80GB"),
                 ("train", "50000", "40000", "confirmed"), ("peak.fma", "1100", "1000", "confirmed"),
                 ("extract", "no estimate"), ("4 thresholds pass, 0 FAIL, 2 skipped",)],
     never=("FAIL  ", "beside PyTorch"))
case("an estimate refuted fails nothing", 0, [("mfcc", "900000", "45000", "0.05", "refuted")])
case("beside PyTorch", 0, [("pass", "train median", "4 (40000 beside 10000)"), ("beside PyTorch 2.0",),
                           ("skipped", "mfcc median", "mfcc has no median in pytorch.json"),
                           ("train", "graph; eager 4000", "compile not to be had: no compiler")],
     never=("FAIL  ",), more=["pytorch.json"])

slow = copy.deepcopy(good)
stage(slow, "train")["device"]["busy"] = 0.2
write("slow.json", slow)
case("one threshold broken", 1, [("FAIL", "train device.busy", "0.2", "at least 0.7"), (" 1 FAIL",)], cuda="slow.json")
busy = copy.deepcopy(good)
stage(busy, "mfcc")["device"]["allocations_in_run"] = 3.0
write("busy.json", busy)
case("one too many", 1, [("FAIL", "mfcc device.allocations_in_run", "3", "at most 0")], cuda="busy.json")
case("no faster than the CPU", 1, [("FAIL", "train median", "1 (40000 beside 40000)")], cpu="cuda.json")

short = copy.deepcopy(good)
short["results"].remove(stage(short, "train"))
write("short.json", short)
case("a stage missing", 1, [("FAIL", "train share", "the stage train is not in short.json"), ("train", "not measured")],
     cuda="short.json")
case("a stage of the CPU missing", 1, [("FAIL", "train median", "the stage train is not in short.json")],
     cpu="short.json")
case("a bench of the CPU in its place", 1, [("FAIL", "train device.busy", "train has no device.busy in cpu.json"),
                                            ("no estimates for a processor",)], cuda="cpu.json")
empty = copy.deepcopy(limits)
empty["thresholds"] = [{"stage": "train", "figure": "share", "at_least": None}]
write("null.json", empty)
case("no limit is set", 0, [("skipped", "train share", "no limit is set")], limits="null.json")

write("broken.json", '{"results": [')
write("list.json", "[]")
write("unnamed.json", {"results": [{"median": 1}]})
case("no JSON", 1, [("FAIL", "broken.json: not JSON",)], cuda="broken.json")
case("no object", 1, [("FAIL", "list.json: an object is expected",)], cpu="list.json")
case("no stages", 1, [("FAIL", "unnamed.json: 'results'",)], cuda="unnamed.json")
case("no file", 1, [("FAIL", "nothing.json: No such file",)], more=["nothing.json"])
for what, limit in (("no kind", {"stage": "train", "figure": "share"}),
                    ("two kinds", {"stage": "train", "figure": "share", "at_least": 1, "at_most": 2}),
                    ("words", {"stage": "train", "figure": "share", "at_least": "much"}), ("no object", 7)):
    write("amiss.json", {**limits, "thresholds": [limit]})
    case(f"a threshold amiss: {what}", 1, [("FAIL", "amiss.json: threshold 1 needs",)], limits="amiss.json")
write("amiss.json", {**limits, "estimates": {"T4": {"mfcc": 1}}})
case("an estimate of nothing", 1, [("FAIL", "the estimates of T4 need a 'match'",)], limits="amiss.json")
sys.exit(bool(wrong))
CHECK
