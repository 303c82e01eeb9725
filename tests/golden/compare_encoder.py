#!/usr/bin/env python3
"""Compares embeddings of real clips with transformers', at full size, with weights made here.

    python3 tests/golden/compare_encoder.py make WEIGHTS [--model wav2vec2-base]
    serenade index --ravdess DIR -o manifest.csv
    serenade extract manifest.csv --features wav2vec2 --weights WEIGHTS --cache CACHE
    python3 tests/golden/compare_encoder.py compare manifest.csv CACHE --weights WEIGHTS --clips 50

The weights are random and say so (serenade.random_weights in config.json); a folder with a public model's weights does
as well. Audio is read with soundfile, resampled with soxr HQ, and goes through Wav2Vec2FeatureExtractor and the model
in float32, each clip alone. Exit status 1 where a clip's cosine is below 0.999999 or its relative error above 1e-4 (1e-3 for
frames, which are kept in half precision).
Run by hand; needs torch, transformers, soundfile, soxr, h5py, numpy, librosa.
"""

import argparse
import csv
import json
import pathlib
import random
import sys

# transformers imports torchaudio where it is there, which nothing here needs, and which must match torch's release.
sys.modules["torchaudio"] = None

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from compare_real import read_folder, read_rows  # noqa: E402

COSINE, RELATIVE, HALF = 0.999999, 1e-4, 1e-3
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
}
MODELS = {
    "wav2vec2-base": (transformers.Wav2Vec2Model, transformers.Wav2Vec2Config, {}),
    "wav2vec2-large": (transformers.Wav2Vec2Model, transformers.Wav2Vec2Config, LARGE),
    "hubert-base": (transformers.HubertModel, transformers.HubertConfig, {}),
    "hubert-large": (transformers.HubertModel, transformers.HubertConfig, LARGE | {"conv_bias": False}),
}


def make(folder, name):
    """transformers' own initialisation, with biases and norms away from 0 and 1, so that none of them goes unseen."""
    kind, config, sizes = MODELS[name]
    torch.manual_seed(1)
    model = kind(config(**sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask="large" in name).save_pretrained(folder)
    path = pathlib.Path(folder) / "config.json"
    said = json.loads(path.read_text())
    said["serenade.random_weights"] = True
    path.write_text(json.dumps(said, indent=1) + "\n")


def read_audio(path, rate):
    import math

    import librosa
    import soundfile
    import soxr

    y, own = soundfile.read(path, dtype="float32", always_2d=True)
    y = y.mean(axis=1)
    if own != rate:
        y = librosa.util.fix_length(soxr.resample(y, own, rate, quality="HQ"), size=math.ceil(len(y) * rate / own))
    return y


def embed(model, extractor, y, config):
    given = extractor(y, sampling_rate=config["rate"], return_tensors="pt").input_values
    with torch.no_grad():
        out = model(given, output_hidden_states=True)
    states = list(out.hidden_states[:-1]) + [out.last_hidden_state]
    states = [states[layer][0].double() for layer in config["layers"]]
    if config["pool"] == "none":
        return torch.cat(states).numpy()
    rows = [state.mean(0) for state in states]
    if config["pool"] == "mean+std":
        rows = [torch.cat([row, state.std(0, unbiased=False)]) for row, state in zip(rows, states)]
    return torch.stack(rows).numpy()


def compare(options):
    folder = pathlib.Path(options.folder) if options.folder else read_folder(options.cache, "wav2vec2")
    config = json.loads((folder / "config.json").read_text())
    with open(options.manifest, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] not in ("refused", "excluded", "filtered")]
    random.Random(options.seed).shuffle(rows)
    found = read_rows(folder, {row["hash"] for row in rows})
    rows = [row for row in rows if row["hash"] in found][: options.clips]
    if not rows:
        sys.exit("none of the manifest's clips is in the cache; extract the same manifest first")
    model = transformers.AutoModel.from_pretrained(options.weights).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(options.weights)
    extractor.do_normalize = config["normalize"]
    cosines, errors = [], []
    for row in rows:
        want = embed(model, extractor, read_audio(row["path"], config["rate"]), config)
        got = found[row["hash"]].astype(np.float64)
        if got.shape != want.shape:
            sys.exit(f"{row['path']}: {got.shape} in the cache, transformers has {want.shape}")
        norms = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
        cosines.append(((got * want).sum(axis=1) / norms).min())
        errors.append((np.linalg.norm(got - want, axis=1) / np.linalg.norm(want, axis=1)).max())
    random_weights = ", random weights" if config["random_weights"] else ""
    print(f"{len(rows)} clips, transformers {transformers.__version__}, torch {torch.__version__}")
    print(f"encoder {config['encoder']}{random_weights}; layers {config['layers']}, pool {config['pool']}")
    print(f"least cosine {min(cosines):.9f}, largest relative error {max(errors):.2e}")
    limit = HALF if config["pool"] == "none" else RELATIVE
    sys.exit(0 if min(cosines) >= COSINE and max(errors) <= limit else 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("make", help="make random weights of full size")
    one.add_argument("folder")
    one.add_argument("--model", choices=sorted(MODELS), default="wav2vec2-base")
    one = verbs.add_parser("compare", help="hold a cache's embeddings to transformers'")
    one.add_argument("manifest")
    one.add_argument("cache")
    one.add_argument("--weights", required=True)
    one.add_argument("--folder", help="the embeddings' folder, where the cache holds several configurations")
    one.add_argument("--clips", type=int, default=50)
    one.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.verb == "make":
        make(options.folder, options.model)
    else:
        compare(options)


if __name__ == "__main__":
    main()
