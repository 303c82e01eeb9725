#!/usr/bin/env python3
"""Compares extracted features of real clips with librosa's: the largest absolute difference, by column group.

    serenade index --ravdess DIR -o manifest.csv
    serenade extract manifest.csv --features mfcc39 --cache CACHE
    python3 tests/golden/compare_real.py manifest.csv CACHE --clips 200

Reads the cache with h5py as anybody would, and recomputes with soundfile (decoding, mean of the channels), soxr HQ and
librosa, so that decoding and resampling are part of the comparison. Exit status 1 where a clip is off by more than
2e-3. Run by hand; needs librosa, soundfile, soxr, h5py, numpy.
"""

import argparse
import csv
import json
import math
import pathlib
import random
import sys

import h5py
import librosa
import numpy as np
import soundfile
import soxr

LIMIT = 2e-3


def read_folder(cache, feature):
    """The folder of one feature in the cache, and its configuration."""
    folders = sorted(p for p in pathlib.Path(cache).glob(f"{feature}-*") if (p / "config.json").exists())
    if not folders:
        sys.exit(f"{cache}: holds no {feature}; run serenade extract first")
    if len(folders) > 1:
        sys.exit(f"{cache}: holds {len(folders)} configurations of {feature}; name one folder with --folder")
    return folders[0]


def read_rows(folder, wanted):
    """Key (hex) -> features [T, C] of the keys wanted, from all shards."""
    found = {}
    for path in sorted((folder / "shards").glob("*.h5")):
        with h5py.File(path, "r") as shard:
            keys, offset, status = shard["key"][:], shard["offset"][:], shard["status"][:]
            for row, key in enumerate(keys):
                name = key.tobytes().hex()
                if name in wanted and status[row] == 0:
                    found[name] = shard["features"][int(offset[row]) : int(offset[row + 1])]
    return found


def fit(y, to):
    """The TIM-Net code's rule."""
    if len(y) < to:
        before = (to - len(y)) // 2
        return np.pad(y, (before, to - len(y) - before))
    first = (len(y) - to) // 2
    return y[first : first + to]


def recompute(path, config):
    y, rate = soundfile.read(path, dtype="float32", always_2d=True)
    y = y.mean(axis=1)
    if rate != config["rate"]:
        count = math.ceil(len(y) * config["rate"] / rate)
        y = librosa.util.fix_length(soxr.resample(y, rate, config["rate"], quality="HQ"), size=count)
    if config["samples"]:
        y = fit(y, config["samples"])
    mfcc = librosa.feature.mfcc(
        y=y,
        sr=config["rate"],
        n_mfcc=config["coefficients"],
        n_fft=config["n_fft"],
        hop_length=config["hop"],
        n_mels=config["mels"],
    )
    if config["deltas"]:
        mfcc = np.concatenate([mfcc, librosa.feature.delta(mfcc), librosa.feature.delta(mfcc, order=2)])
    return mfcc.T


def compare(rows, found, config):
    differences = []
    for row in rows:
        if row["hash"] not in found:
            continue
        got, want = found[row["hash"]], recompute(row["path"], config)
        if got.shape != want.shape:
            sys.exit(f"{row['path']}: {got.shape} in the cache, librosa has {want.shape}")
        differences.append((np.abs(got - want).max(axis=0), row["path"]))
    return differences


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("cache")
    parser.add_argument("--features", default="mfcc39")
    parser.add_argument("--folder", help="the feature's folder, where the cache holds several configurations")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = pathlib.Path(options.folder) if options.folder else read_folder(options.cache, options.features)
    config = json.loads((folder / "config.json").read_text())
    with open(options.manifest, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] not in ("refused", "excluded", "filtered")]
    random.Random(options.seed).shuffle(rows)
    rows = rows[: options.clips]
    found = read_rows(folder, {row["hash"] for row in rows})
    differences = compare(rows, found, config)
    if not differences:
        sys.exit("none of the clips drawn is in the cache; extract the same manifest first")
    columns = np.max([d for d, _ in differences], axis=0)
    worst = max(differences, key=lambda d: d[0].max())
    width = config["coefficients"]
    print(f"{len(differences)} of {len(rows)} clips drawn, librosa {librosa.__version__}, soxr {soxr.__version__}")
    for name, first in (("coefficients", 0), ("delta", width), ("delta-delta", 2 * width)):
        if first < len(columns):
            print(f"largest difference, {name:13} {columns[first : first + width].max():.2e}")
    print(f"largest difference of all      {columns.max():.2e} ({worst[1]})")
    above = sum(d.max() > LIMIT for d, _ in differences)
    print(f"clips above {LIMIT}: {above}")
    sys.exit(1 if above else 0)


if __name__ == "__main__":
    main()
