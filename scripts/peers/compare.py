"""Serenade and its peers in turn (A B A B) on the same recordings and cores; scripts/bench_peers.sh calls this.

Prints, for each stage and peer: both rates, their ratio, the setting chosen and every setting tried, and how far the
answers differ. Writes peers.json and peers.png into the folder.
"""

import argparse
import csv
import glob
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
import peer  # noqa: E402

EMOTIONS = ["neutral", "happy", "sad", "angry", "fearful", "disgust"]


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


class Bench:
    def __init__(self, args):
        self.args = args
        self.clips = os.path.join(args.out, "clips.json")
        self.model = os.path.join(args.out, "run", "model.safetensors")

    def serenade(self, *words):
        result = subprocess.run([self.args.serenade, *words], capture_output=True, text=True)
        if result.returncode not in (0, 3):
            sys.exit(f"serenade {' '.join(words)}: exit status {result.returncode}\n{result.stderr}")
        return result

    def peer(self, stage, setting, runs):
        words = [sys.executable, os.path.join(here, "peer.py"), stage, "--clips", self.clips, "--runs", str(runs)]
        for name, value in setting.items():
            words += [f"--{name}", str(value)]
        if stage == "predict":
            words += ["--model", self.model]
        begin = time.perf_counter()
        result = subprocess.run(words, capture_output=True, text=True)
        seconds = time.perf_counter() - begin
        if result.returncode != 0:
            sys.exit(f"{' '.join(words)}: exit status {result.returncode}\n{result.stderr}")
        return seconds, json.loads(result.stdout)

    def peer_figure(self, stage, setting, runs):
        """Clips a second, or, for predict, milliseconds from start to exit."""
        if stage == "predict":
            return statistics.median(1e3 * self.peer(stage, setting, 1)[0] for _ in range(runs))
        return statistics.median(self.peer(stage, setting, runs)[1]["rates"])

    def own_figure(self, stage, runs):
        if stage == "predict":
            path = self.paths[len(self.paths) // 2]
            times = []
            for _ in range(5 * runs):
                begin = time.perf_counter()
                self.serenade("predict", self.model, path, "--format", "json", "--quiet")
                times.append(1e3 * (time.perf_counter() - begin))
            return statistics.median(times)
        out = os.path.join(self.args.out, "bench.json")
        self.serenade("bench", stage, "--data", self.args.data, "--runs", str(runs), "--json", out)
        with open(out) as file:
            results = json.load(file)["results"]
        return next(line["median"] for line in results if line["name"] == stage)

    def prepare(self):
        """The clips that Serenade measures with, their features in its cache, and a model (trained for one epoch on
        labels that mean nothing: for answers and times, not for accuracy)."""
        out = self.args.out
        self.serenade("bench", "mfcc", "--data", self.args.data, "--runs", "1", "--json", self.clips)
        with open(self.clips) as file:
            document = json.load(file)
        self.machine, self.paths = document["machine"], document["clips"]["paths"]
        table, manifest = os.path.join(out, "clips.csv"), os.path.join(out, "manifest.csv")
        with open(table, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "emotion"])
            for i, path in enumerate(self.paths):
                writer.writerow([path, EMOTIONS[i % 6]])
        self.serenade("index", "--csv", table, "-o", manifest)
        self.serenade("extract", manifest, "--features", "mfcc39", "--cache", os.path.join(out, "cache"))
        if not os.path.exists(self.model):
            self.serenade("train", os.path.join(here, "..", "..", "configs", "reference.yaml"), "--manifest", manifest,
                          "--set", f"cache.dir={out}/cache", "--set", "train.epochs=1", "-o", os.path.join(out, "run"))
        with open(manifest, newline="") as file:
            self.keys = {row["path"]: row["hash"] for row in csv.DictReader(file)}

    def cached(self):
        """{hash: [T, 39]} of all that Serenade's cache holds."""
        import h5py

        found = {}
        for path in glob.glob(os.path.join(self.args.out, "cache", "mfcc39-*", "shards", "*.h5")):
            with h5py.File(path) as shard:
                offset, features = shard["offset"][:], shard["features"][:]
                for i, key in enumerate(shard["key"][:]):
                    found[key.tobytes().hex()] = features[int(offset[i]):int(offset[i + 1])]
        return found

    def differences(self):
        """The largest differences between the answers, over all clips."""
        import torch

        cache, own = self.cached(), peer.TorchMfcc()
        librosa_far = torch_far = 0.0
        for path in self.paths:
            samples = peer.load(path)
            got, want = cache[self.keys[path]], peer.mfcc39(samples)
            frames = torch.tensor([len(want)])
            other = own(torch.from_numpy(samples)[None], frames)[0].T.numpy()
            librosa_far = max(librosa_far, float(np.abs(got - want).max()))
            torch_far = max(torch_far, float(np.abs(got - other).max()))
        path = self.paths[len(self.paths) // 2]
        answer = json.loads(self.serenade("predict", self.model, path, "--format", "json").stdout)[0]["probabilities"]
        theirs = self.peer("predict", {}, 1)[1]["probabilities"]
        return {
            "mfcc39 from files, Serenade and librosa": librosa_far,
            "mfcc39 from files, Serenade and torchaudio": torch_far,
            "probabilities of one clip, Serenade and librosa + PyTorch": max(
                abs(answer[label] - theirs[label]) for label in theirs),
        }


def settings():
    """(stage of ours, peer's stage, peer's name, the settings tried)."""
    processes = [{"processes": p, "threads": t} for p, t in ((1, 0), (1, 1), (2, 0), (2, 1))]
    batches = [{"processes": p, "threads": t, "batch": b} for p, t in ((1, 1), (1, 2), (2, 1)) for b in (1, 32, 64, 128)]
    threads = [{"threads": t} for t in (1, 2)]
    return [
        ("mfcc", "librosa", "librosa", processes),
        ("mfcc", "torchaudio", "torchaudio", batches),
        ("extract", "file", "soundfile + soxr + librosa", processes),
        ("train", "train", "PyTorch", [dict(s, batch=64) for s in threads]),
        ("forward", "forward", "PyTorch", batches),
        ("predict", "predict", "Python: librosa + PyTorch", threads),
    ]


def words(setting):
    text = " ".join(f"{name} {value}" for name, value in setting.items())
    return text.replace("threads 0", "threads as they come")


def measure(bench, own_stage, peer_stage, name, tried):
    better = min if own_stage == "predict" else max
    say(f"{own_stage}: {name} in {len(tried)} settings")
    figures = [bench.peer_figure(peer_stage, setting, bench.args.runs) for setting in tried]
    best = tried[figures.index(better(figures))]
    own, theirs = [], []
    for _ in range(bench.args.rounds):
        own.append(bench.own_figure(own_stage, bench.args.runs))
        theirs.append(bench.peer_figure(peer_stage, best, bench.args.runs))
    ratios = [b / a if own_stage == "predict" else a / b for a, b in zip(own, theirs)]
    return {
        "stage": own_stage, "peer": name, "unit": "ms" if own_stage == "predict" else "clips/s",
        "serenade": statistics.median(own), "theirs": statistics.median(theirs),
        "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
        "rounds": bench.args.rounds, "chosen": best,
        "tried": [dict(setting, figure=figure) for setting, figure in zip(tried, figures)],
        "serenade_rounds": own, "their_rounds": theirs,
    }


def show(results, far):
    print(f"{'stage':8} {'unit':8} {'Serenade':>10} {'peer':>10} {'ratio':>6}  {'of the rounds':>13}  peer, its best setting")
    for r in results:
        spread = f"{r['ratio_min']:.1f} .. {r['ratio_max']:.1f}"
        print(f"{r['stage']:8} {r['unit']:8} {r['serenade']:10.1f} {r['theirs']:10.1f} {r['ratio']:5.1f}x  {spread:>13}"
              f"  {r['peer']}, {words(r['chosen'])}")
    print("\nSettings tried:")
    for r in results:
        tried = "; ".join(f"{words({k: v for k, v in t.items() if k != 'figure'})}: {t['figure']:.1f}" for t in r["tried"])
        print(f"  {r['stage']}, {r['peer']}: {tried}")
    print("\nLargest differences between the answers:")
    for name, value in far.items():
        print(f"  {name}: {value:.2e}")


def draw(results, machine, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axis = pyplot.subplots(figsize=(8, 0.6 * len(results) + 1.4), layout="constrained")
    labels = [f"{r['stage']}: {r['peer']}" for r in results][::-1]
    ratios = [r["ratio"] for r in results][::-1]
    low = [r["ratio"] - r["ratio_min"] for r in results][::-1]
    high = [r["ratio_max"] - r["ratio"] for r in results][::-1]
    axis.barh(labels, [ratio - 1 for ratio in ratios], left=1, xerr=[low, high], color="0.6", ecolor="0.2", capsize=3)
    for i, ratio in enumerate(ratios):
        axis.text(ratio + high[i], i, f"  {ratio:.1f}x", va="center")
    axis.axvline(1, color="0.2", linewidth=0.8)
    axis.set_xscale("log")  # from 3 to 200 times: on a straight axis the small ones could not be told apart
    ends = [1, *(r["ratio_min"] for r in results), *(r["ratio_max"] for r in results)]
    axis.set_xlim(0.8 * min(ends), 2 * max(ends))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
    axis.set_xlabel("times as fast as the peer at its best setting (logarithmic)")
    axis.set_title(f"Serenade {machine['serenade']}, {machine['processor']}, {machine['threads']} threads, {machine['isa']}",
                   fontsize=10)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--serenade", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--stages", default="mfcc,extract,train,forward,predict")
    bench = Bench(parser.parse_args())
    os.makedirs(bench.args.out, exist_ok=True)
    say("preparing: clips, cache, model")
    bench.prepare()
    say("comparing the answers")
    far = bench.differences()
    wanted = bench.args.stages.split(",")
    results = [measure(bench, *row) for row in settings() if row[0] in wanted]
    import importlib.metadata

    versions = {name: importlib.metadata.version(name)
                for name in ("numpy", "scipy", "librosa", "soundfile", "soxr", "torch", "torchaudio")}
    with open(os.path.join(bench.args.out, "peers.json"), "w") as file:
        json.dump({"version": 1, "machine": bench.machine, "clips": len(bench.paths), "peers": versions,
                   "results": results, "differences": far}, file, indent=2)
        file.write("\n")
    show(results, far)
    print("\nVersions: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    draw(results, bench.machine, os.path.join(bench.args.out, "peers.png"))


if __name__ == "__main__":
    main()
