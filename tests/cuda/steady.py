"""Whether a command's loop on the device is steady: the reports of two runs, the second with twice the work, may differ
only by what the work itself needs. Nothing is made in the loop, the host waits a bounded number of times, copies go
between pinned memory and streams that compute nothing, and nothing is on the default stream.

Usage: steady.py extract|train|brought|evaluate|predict SMALL.json LARGE.json AMOUNT
AMOUNT: what the second has more: clips, epochs, files. brought: a training whose clips are brought to the device."""
import json
import re
import sys

# What makes or destroys something: memory, streams, events, graphs, handles, plans, descriptors.
MAKES = re.compile(r"(Malloc|HostAlloc|Free|Create|Destroy|MakePlan|PlanMany|Instantiate|Register)")
# Work that keeps streams that compute apart from those that copy.
COMPUTES = ("memset", "d2d")

# Of each command: what one unit of its loop is counted by; and per unit at most so many ...
#   waits: of the host; launches: kernels and calls of libraries; copies: from and to pinned memory, beside those of
#   `work` (one for each clip); own: of these on a stream that computes; apart: streams that copy, each one way
LIMITS = {
    "extract": {"unit": ["finish_kernel"], "waits": 1, "launches": 16, "copies": 3, "work": 1, "own": 0, "apart": 2},
    # Batches of features and batches of windows, which each are waited for.
    "predict": {"unit": ["finish_kernel", "softmax_kernel"], "waits": 1, "launches": 12, "copies": 3, "work": 1,
                "own": 0, "apart": 4},
    # A full batch of windows is one graph.
    "evaluate": {"unit": ["softmax_kernel"], "waits": 1, "launches": 8, "copies": 2, "work": 0, "own": 0,
                 "apart": 2, "graphs": True},
    # An epoch: its order, its state and the folded weights there; losses, logits, norms, parameters and two moments
    # back, and a wait for them; the validation's answers back, and a wait.
    "train": {"unit": None, "waits": 2, "launches": 0, "copies": 10, "work": 0, "own": 0},
    # Beside that one copy for each of at most 8 batches, and a wait for the last but one.
    "brought": {"unit": None, "waits": 10, "launches": 0, "copies": 18, "work": 0, "own": 0},
}
STEP_LAUNCHES = 120  # of a training step, or a batch of the validation, in its graph


def launches(report, kind="launches"):
    return {k["name"]: k[kind] for k in report["kernels"]}


def of_kernels(counts, names):
    return sum(count for name, count in counts.items() if any(n in name for n in names))


class Difference:
    """Of two reports: what the second has more."""

    def __init__(self, small, large):
        self.small, self.large = small["totals"], large["totals"]
        self.wrong = []
        one, two = launches(self.small), launches(self.large)
        self.kernels = {name: two[name] - one.get(name, 0) for name in two}
        one, two = launches(self.small, "direct"), launches(self.large, "direct")
        self.direct = {name: two[name] - one.get(name, 0) for name in two}
        self.library = {}
        for name, count in self.large["library"].items():
            before = self.small["library"].get(name, {"direct": 0, "graph": 0})
            self.library[name] = {kind: count[kind] - before[kind] for kind in ("direct", "graph")}
        self.syncs = {name: self.large["syncs"][name] - self.small["syncs"][name]
                      for name in ("copy", "deviceSync", "eventSync", "streamSync")}
        self.rows = self.copy_rows()

    def copy_rows(self):
        rows = {}
        for sign, totals in ((-1, self.small), (1, self.large)):
            for row in totals["copies"]["rows"]:
                key = (row["kind"], row["memory"], row["stream"])
                rows[key] = rows.get(key, 0) + sign * row["count"]
        return {key: count for key, count in rows.items() if count}

    def check(self, right, words):
        if not right:
            self.wrong.append(words)

    def nothing_made(self):
        for kind in ("device", "pinned", "managed"):
            for what in ("allocations", "frees"):
                more = self.large["memory"][kind][what] - self.small["memory"][kind][what]
                self.check(more == 0, f"{more} more {what} of {kind} memory")
        one, two = self.small["calls"], self.large["calls"]
        for name in sorted(set(one) | set(two)):
            more = two.get(name, 0) - one.get(name, 0)
            self.check(more == 0 or not MAKES.search(name), f"{more} more calls of {name}")

    def nothing_on_default(self):
        for totals in (self.small, self.large):
            for row in totals["copies"]["rows"]:
                self.check(str(row["stream"]).isdigit(), f"copies on the {row['stream']} stream: {row}")

    def waits(self, most):
        implicit = {name: count - self.small["syncs"]["implicit"].get(name, 0)
                    for name, count in self.large["syncs"]["implicit"].items()}
        self.check(not any(implicit.values()), f"calls that wait of themselves: {implicit}")
        self.check(self.syncs["deviceSync"] == 0, "the whole device is waited for")
        count = self.syncs["eventSync"] + self.syncs["streamSync"] + self.syncs["copy"]
        self.check(count <= most, f"{count} more waits, at most {most} are right: {self.syncs}")

    def copies(self, pinned, own, apart):
        bus = {key: count for key, count in self.rows.items() if key[0] in ("h2d", "d2h")}
        computing = {key[2] for key in self.rows if key[0] in COMPUTES}
        beside = sum(count for (_, _, stream), count in bus.items() if stream in computing)
        count = sum(bus.values())
        there, back = ({stream for kind, _, stream in bus if kind == way} for way in ("h2d", "d2h"))
        if apart:
            self.check(not there & back, f"copies there and back on one stream: {bus}")
            self.check(len(there | back) == apart, f"copies on {len(there | back)} streams, not {apart}: {bus}")
        self.check(all(memory == "pinned" for _, memory, _ in bus), f"copies of memory that is not pinned: {bus}")
        self.check(count <= pinned, f"{count} more pinned copies, at most {pinned} are right: {bus}")
        self.check(beside <= own, f"{beside} more copies on a stream that computes, at most {own} are right: {bus}")


def main():
    command, amount, limits = sys.argv[1], int(sys.argv[4]), LIMITS[sys.argv[1]]
    reports = []
    for path in sys.argv[2:4]:
        with open(path) as file:
            reports.append(json.load(file))
    d = Difference(*reports)
    graphs = d.large["graph_launches"] - d.small["graph_launches"]
    units = of_kernels(d.kernels, limits["unit"]) if limits["unit"] else amount
    kernels, direct = sum(d.kernels.values()), sum(d.direct.values())
    calls = sum(count["direct"] for count in d.library.values())
    d.check(units > 0, "the second run has no more batches than the first: this shows nothing")
    d.nothing_made()
    d.nothing_on_default()
    d.waits(limits["waits"] * units)
    d.copies(limits["copies"] * units + limits["work"] * amount, limits["own"] * units,
             limits.get("apart"))
    if not limits["unit"]:
        steps = of_kernels(d.kernels, ["adam_kernel"])
        d.check(graphs > steps > 0, f"{graphs} graphs with {steps} steps: no step or no validation is one")
        inner = kernels - direct + sum(count["graph"] for count in d.library.values())
        d.check(inner <= STEP_LAUNCHES * graphs, f"{inner} launches in {graphs} graphs")
        d.check(direct + calls == 0, f"{direct + calls} launches beside graphs in {units} epochs")
    else:
        d.check(not limits.get("graphs") or graphs > 0, "no full batch is a graph")
        d.check(d.syncs["eventSync"] == units, f"{d.syncs['eventSync']} waits for {units} batches")
        d.check(kernels + calls <= limits["launches"] * units, f"{kernels + calls} launches for {units} batches")
    per = max(units, 1)
    print(f"{command}: {units} more {'batches' if limits['unit'] else 'epochs'} are {kernels / per:.1f} kernels, "
          f"{calls / per:.1f} calls of libraries, {graphs / per:.1f} graphs, "
          f"{sum(d.syncs.values()) / per:.1f} waits each; copies: {d.rows}")
    for words in d.wrong:
        print(f"  WRONG: {words}")
    sys.exit(bool(d.wrong))


if __name__ == "__main__":
    main()
