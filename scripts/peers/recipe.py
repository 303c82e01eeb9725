"""The reference recipe in librosa and PyTorch: what Serenade's accuracy is compared with.

Features by librosa (kept beside, by the files' hashes), z-scored by the real frames of the training clips, windows of 162
frames with zeros behind, Adam, label smoothing, the best epoch by UAR on the validation part (of equals the one with the
lower loss). The split is the one that Serenade's run wrote, so that both see the same clips.

usage: recipe.py RUN --features FILE.npz [--seed N] [--epochs N] -> one line of JSON for each fold: truth and answer
"""

import argparse
import csv
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import peer  # noqa: E402

LABELS = ["neutral", "happy", "sad", "angry", "fearful", "disgust"]
BATCH = 64


def features_of(path):
    peer.hold_threads(1)
    return peer.mfcc39(peer.load(path)).astype(np.float32)


def load_features(rows, kept):
    """{hash: [T, 39]}, computed for what the file does not hold."""
    have = dict(np.load(kept)) if os.path.exists(kept) else {}
    todo = {row["hash"]: row["path"] for row in rows if row["hash"] not in have}
    if todo:
        with ProcessPoolExecutor() as pool:
            have.update(zip(todo, pool.map(features_of, todo.values(), chunksize=8)))
        np.savez(kept, **have)
    return have


def tile(features, mean, deviation):
    out = np.zeros((len(features), 39, peer.FRAMES), np.float32)
    for i, clip in enumerate(features):
        clip = clip[:peer.FRAMES]
        out[i, :, :len(clip)] = ((clip - mean) / deviation).T
    return out


def uar(truth, answer):
    return np.mean([(answer[truth == c] == c).mean() for c in np.unique(truth)])


def train(parts, model_options, seed, epochs):
    """parts: {"train": (features, truth), "validation": ..., "test": ...}; the test part's answers."""
    import torch
    from timnet import TemporalModel

    torch.manual_seed(seed)
    rows = np.concatenate([clip[:peer.FRAMES] for clip in parts["train"][0]])
    mean, deviation = rows.mean(0, dtype=np.float64), rows.std(0, dtype=np.float64)
    data = {name: (torch.from_numpy(tile(features, mean, deviation)),
                   torch.tensor([min(len(clip), peer.FRAMES) for clip in features]), torch.tensor(truth))
            for name, (features, truth) in parts.items()}
    model = TemporalModel(**model_options)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, betas=(0.93, 0.98), eps=1e-8)

    def logits(name):
        x, lengths, _ = data[name]
        model.eval()
        with torch.inference_mode():
            return torch.cat([model(x[i:i + 256], lengths[i:i + 256]) for i in range(0, len(x), 256)])

    def figure_of_epoch():
        """What chooses the epoch: UAR on the validation part, of equals the one with the lower loss; the last epoch
        where there is no such part. As in Serenade."""
        known = data["validation"][2]
        if not len(known):
            return 0.0, float(epoch)
        heard = logits("validation")
        return uar(known.numpy(), heard.argmax(1).numpy()), -torch.nn.functional.cross_entropy(heard, known).item()

    best, kept = (-1.0, 0.0), None
    x, lengths, truth = data["train"]
    for epoch in range(epochs):
        model.train()
        for chosen in torch.randperm(len(x)).split(BATCH):
            optimiser.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(model(x[chosen], lengths[chosen]), truth[chosen],
                                                     label_smoothing=0.1)
            loss.backward()
            optimiser.step()
        figure = figure_of_epoch()
        if figure > best:
            best, kept = figure, logits("test").argmax(1).numpy()
        print(f"epoch {epoch + 1}/{epochs}: loss {loss.item():.3f}, validation UAR {100 * figure[0]:.1f}",
              file=sys.stderr)
    return kept


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--features", required=True)
    parser.add_argument("--branch", default="reference")
    parser.add_argument("--residual", action="store_true")
    parser.add_argument("--pool", default="all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args()
    with open(os.path.join(args.run, "manifest.csv"), newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    with open(os.path.join(args.run, "split.csv"), newline="") as file:
        split = [line for line in csv.DictReader(file) if line["part"] and line["path"] in rows]
    split = [line for line in split if rows[line["path"]]["emotion"] in LABELS]
    features = load_features([rows[line["path"]] for line in split], args.features)
    for fold in sorted({int(line["fold"]) for line in split}):
        parts = {name: ([], []) for name in ("train", "validation", "test")}
        for line in split:
            row = rows[line["path"]]
            if int(line["fold"]) == fold and len(features[row["hash"]]) >= 9:
                parts[line["part"]][0].append(features[row["hash"]])
                parts[line["part"]][1].append(LABELS.index(row["emotion"]))
        options = {"branch": args.branch, "residual": args.residual, "pool": args.pool}
        answer = train(parts, options, args.seed, args.epochs)
        print(json.dumps({"fold": fold, "truth": parts["test"][1], "answer": answer.tolist()}), flush=True)


if __name__ == "__main__":
    main()
