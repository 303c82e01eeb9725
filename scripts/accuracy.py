"""The table of accuracy: each branch by each protocol, mean of the seeds, beside the same recipe in librosa and PyTorch.

scripts/accuracy.sh calls this with the environment of peers. Every run is kept below the folder, so that a second call
does only what is missing. Prints the table; writes accuracy.json.

usage: accuracy.py --serenade PROGRAM --ravdess DIR --tess DIR --out FOLDER [--seeds 1,2,3] [--peer-seeds 1]
                   [--epochs 60] [--only TEXT]... [--no-peer]
"""

import argparse
import json
import os
import subprocess
import sys

import numpy as np

here = os.path.dirname(os.path.abspath(__file__))

# Columns of the table: the name, the corpora, the settings of the split, which figures count.
PROTOCOLS = [
    ("combined, random 80/20", ("ravdess", "tess"), {"split.kind": "random", "split.test": "0.2"}, ("war",)),
    ("RAVDESS, random 80/20", ("ravdess",), {"split.kind": "random", "split.test": "0.2"}, ("war",)),
    ("RAVDESS, four speaker folds", ("ravdess",),
     {"split.kind": "speaker", "split.folds": "4", "split.validation_by": "clips"}, ("war", "uar")),
    ("TESS, OAF to YAF", ("tess",),
     {"split.kind": "speaker", "split.test_speakers": "tess_yaf", "split.validation_by": "clips"}, ("war",)),
]
MODELS = [
    ("reference branch", {"model.branch": "reference"}, range(4)),
    ("full TIM-Net", {"model.branch": "timnet"}, range(4)),
    ("reference, residual, pooled over real frames",
     {"model.branch": "reference", "model.residual": "true", "model.pool": "real"}, (2,)),
]


def slug(text):
    return "".join(c if c.isalnum() else "-" for c in text.lower()).replace("--", "-").strip("-")


def figures(truth, answer):
    truth, answer = np.asarray(truth), np.asarray(answer)
    recalls = [(answer[truth == c] == c).mean() for c in np.unique(truth)]
    return {"war": 100 * float((truth == answer).mean()), "uar": 100 * float(np.mean(recalls))}


def own_figures(folder):
    """From predictions.csv: pooled over the folds."""
    import csv

    truth, answer = [], []
    with open(os.path.join(folder, "predictions.csv"), newline="") as file:
        for row in csv.DictReader(file):
            truth.append(row["truth"])
            answer.append(row["answer"])
    return figures(truth, answer)


class Table:
    def __init__(self, args):
        self.args = args
        self.corpora = {"ravdess": args.ravdess, "tess": args.tess}

    def serenade(self, folder, model, protocol, seed):
        """One seed of one cell, in a folder of its own; the cache is everybody's."""
        name, corpora, split, _ = protocol
        settings = {f"corpora.{corpus}": self.corpora[corpus] for corpus in corpora}
        settings |= split | model | {"train.seeds": str(seed), "train.epochs": str(self.args.epochs),
                                     "cache.dir": os.path.join(self.args.out, "cache")}
        words = [self.args.serenade, "run", os.path.join(here, "..", "configs", "reference.yaml"), "-o", folder]
        for key, value in settings.items():
            words += ["--set", f"{key}={value}"]
        result = subprocess.run(words, stdout=subprocess.DEVNULL)
        if result.returncode not in (0, 3):
            sys.exit(f"{' '.join(words)}: exit status {result.returncode}")
        return own_figures(folder)

    def peer(self, folder, model, seed):
        """One seed of the same recipe and split in librosa and PyTorch."""
        kept = os.path.join(folder, f"peer-{seed}.json")
        if not os.path.exists(kept):
            words = [sys.executable, os.path.join(here, "peers", "recipe.py"), folder, "--features",
                     os.path.join(self.args.out, "librosa.npz"), "--branch", model["model.branch"], "--seed",
                     str(seed), "--epochs", str(self.args.epochs), "--pool", model.get("model.pool", "all")]
            if model.get("model.residual") == "true":
                words.append("--residual")
            result = subprocess.run(words, stdout=subprocess.PIPE, text=True)
            if result.returncode != 0:
                sys.exit(f"{' '.join(words)}: exit status {result.returncode}")
            folds = [json.loads(line) for line in result.stdout.splitlines()]
            truth = [label for fold in folds for label in fold["truth"]]
            answer = [label for fold in folds for label in fold["answer"]]
            with open(kept, "w") as file:
                json.dump(figures(truth, answer) | {"clips": len(truth), "folds": len(folds)}, file)
        with open(kept) as file:
            return json.load(file)

    def cell(self, row, column):
        name, model, columns = MODELS[row]
        if column not in columns:
            return None
        protocol = PROTOCOLS[column]
        found = []
        for seed in self.args.seeds:
            folder = os.path.join(self.args.out, f"{slug(name)}-{slug(protocol[0])}-{seed}")
            print(f"==> {name}: {protocol[0]}, seed {seed}", file=sys.stderr, flush=True)
            found.append(self.serenade(folder, model, protocol, seed))
        first = os.path.join(self.args.out, f"{slug(name)}-{slug(protocol[0])}-{self.args.seeds[0]}")
        peers = [] if self.args.no_peer else [self.peer(first, model, seed) for seed in self.args.peer_seeds]
        return {"model": name, "protocol": protocol[0], "serenade": summary(self.args.seeds, found),
                "librosa_pytorch": summary(self.args.peer_seeds, peers) if peers else None}


def summary(seeds, found):
    means = {key: float(np.mean([one[key] for one in found])) for key in ("war", "uar")}
    spread = {key: float(np.ptp([one[key] for one in found])) for key in ("war", "uar")}
    return {"seeds": seeds, "mean": means, "spread": spread, "each": found}


def text_of(cell, keys):
    """Means, and behind them each seed's WAR: a mean of three says little where the seeds differ by ten points."""
    if not cell:
        return "-"

    def own(part):
        each = " ".join(f"{one['war']:.1f}" for one in part["each"])
        return " / ".join(f"{part['mean'][key]:.1f}" for key in keys) + (f" [{each}]" if len(part["each"]) > 1 else "")

    peer = cell["librosa_pytorch"]
    return own(cell["serenade"]) + (f" ({own(peer)})" if peer else "")


def seeds_of(text):
    return [int(word) for word in text.split(",")]


def main():
    parser = argparse.ArgumentParser()
    for name in ("--serenade", "--ravdess", "--tess", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--seeds", default="1,2,3", type=seeds_of)
    parser.add_argument("--peer-seeds", default="1", type=seeds_of)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--only", action="append", default=[], help="a part of 'model: protocol'; may be repeated")
    parser.add_argument("--no-peer", action="store_true")
    args = parser.parse_args()
    args.out = os.path.abspath(args.out)
    os.makedirs(args.out, exist_ok=True)
    table, wanted = Table(args), args.only
    cells = {}
    for row, (name, _, _) in enumerate(MODELS):
        for column, protocol in enumerate(PROTOCOLS):
            if wanted and not any(word in f"{name}: {protocol[0]}" for word in wanted):
                continue
            cells[row, column] = table.cell(row, column)
            with open(os.path.join(args.out, "accuracy.json"), "w") as file:
                json.dump([cell for cell in cells.values() if cell], file, indent=2)
    print(f"Serenade, mean of seeds {args.seeds}, each seed's WAR in square brackets" +
          ("" if args.no_peer else f"; in round ones librosa + PyTorch, seeds {args.peer_seeds}"))
    header = [f"{name} ({' / '.join(key.upper() for key in keys)})" for name, _, _, keys in PROTOCOLS]
    print("| | " + " | ".join(header) + " |\n|" + "---|" * (len(header) + 1))
    for row, (name, _, _) in enumerate(MODELS):
        line = [text_of(cells.get((row, column)), PROTOCOLS[column][3]) for column in range(len(PROTOCOLS))]
        print(f"| {name} | " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
