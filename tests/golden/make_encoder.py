#!/usr/bin/env python3
"""Goldens of the speech encoders' forward pass: small wav2vec2 and HuBERT models of each architecture, clips of unlike
length, and what transformers computes of each clip alone, in float64: the convolutions' features and all hidden states.

The numbers of the weights are numpy's, by name, so that other releases of transformers give the same.
Run with numpy, torch, transformers and safetensors installed:
python tests/golden/make_encoder.py [folder]
"""

import json
import os
import sys
import zlib

# transformers imports torchaudio where it is there, which nothing here needs, and which must match torch's release.
sys.modules["torchaudio"] = None

import numpy as np  # noqa: E402
import safetensors  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import (  # noqa: E402
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 56,
    "conv_dim": [24, 24, 24, 24, 24, 24, 24],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
# Nothing a multiple of a register's width, a frame's samples and the way to the next as in the public models.
ODD = {
    "hidden_size": 40,
    "num_attention_heads": 5,
    "intermediate_size": 77,
    "conv_dim": [19, 23, 17, 21, 18, 25, 22],
    "conv_bias": True,
    "num_conv_pos_embeddings": 9,
    "num_conv_pos_embedding_groups": 2,
}
LAYER = {"feat_extract_norm": "layer"}
STABLE = {"do_stable_layer_norm": True}
MODELS = {
    "wav2vec2_base": (Wav2Vec2Model, Wav2Vec2Config, SIZES, True),
    "wav2vec2_large": (Wav2Vec2Model, Wav2Vec2Config, SIZES | ODD | LAYER | STABLE, True),
    "wav2vec2_layer": (Wav2Vec2Model, Wav2Vec2Config, SIZES | LAYER | {"layer_norm_eps": 1e-3}, False),
    "wav2vec2_stable": (Wav2Vec2Model, Wav2Vec2Config, SIZES | ODD | STABLE, True),
    "hubert_base": (HubertModel, HubertConfig, SIZES | {"feat_proj_layer_norm": False}, False),
    "hubert_large": (HubertModel, HubertConfig, SIZES | LAYER | STABLE | {"num_conv_pos_embeddings": 128}, True),
}


def fill(model):
    """Sizes as training leaves them: layers keep what they are given about as large as it was."""
    state = {}
    for name, tensor in model.state_dict().items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        values = rng.normal(size=tuple(tensor.shape))
        if name.endswith("original0"):
            values = 1 + 0.1 * values
        elif tensor.dim() > 1:
            values *= 1.5 / np.sqrt(np.prod(tensor.shape[1:]))
        elif "norm.weight" in name:
            values = 1 + 0.2 * values
        else:
            values *= 0.1
        state[name] = torch.from_numpy(values.astype(np.float32))
    model.load_state_dict(state)
    return state


def make_clips(here):
    """Synthetic speech, cut to the lengths at which frames begin and beyond, loud, faint and off zero; noise; silence."""
    speech = np.fromfile(os.path.join(here, "espeak.s16"), "<i2").astype(np.float64) / 32768
    rng = np.random.default_rng(7)
    clips = [
        speech[3000:3400],
        0.01 * speech[5000:5719] + 0.3,
        speech[8000:8720],
        speech[6000:16007],
        rng.normal(size=4321) * 0.1,
        np.zeros(1500),
        speech[10000:32000],
        2 * rng.normal(size=1039) - 1,
    ]
    return [clip.astype(np.float32) for clip in clips]


def forward(model, clip, normalise):
    x = clip.astype(np.float64)
    if normalise:
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-7)
        theirs = Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm([clip], None)[0]
        assert np.allclose(x, theirs, rtol=0, atol=2e-4)
    seen = {}
    hook = model.feature_projection.register_forward_hook(
        lambda module, given, made: seen.update(given=given[0], made=made)
    )
    with torch.no_grad():
        out = model(torch.from_numpy(x)[None], output_hidden_states=True)
    hook.remove()
    features = seen["given"]
    if getattr(model.feature_projection, "feat_proj_layer_norm", True):
        features = model.feature_projection.layer_norm(features)
    # Of models with a norm at the end, transformers 4 gives the last state behind that norm, 5 before it: here, behind.
    return features[0], torch.cat(out.hidden_states[:-1] + (out.last_hidden_state,))


def main(folder):
    here = os.path.dirname(os.path.abspath(__file__))
    folder = os.path.join(folder, "embedding")
    clips = make_clips(here)
    os.makedirs(folder, exist_ok=True)
    lengths = torch.tensor([len(clip) for clip in clips])
    save_file(
        {"samples": torch.from_numpy(np.concatenate(clips)), "lengths": lengths},
        os.path.join(folder, "clips.safetensors"),
    )
    for name, (kind, config, sizes, normalise) in MODELS.items():
        place = os.path.join(folder, name)
        os.makedirs(place, exist_ok=True)
        model = kind(config(**sizes)).eval()
        save_file(fill(model), os.path.join(place, "model.safetensors"), metadata={"format": "pt"})
        model.config.save_pretrained(place)
        Wav2Vec2FeatureExtractor(do_normalize=normalise).save_pretrained(place)
        made = [forward(model.double(), clip, normalise) for clip in clips]
        expected = {
            "features": torch.cat([features for features, _ in made]).float(),
            "hidden": torch.cat([hidden for _, hidden in made], 1).float().contiguous(),
        }
        save_file(expected, os.path.join(place, "expected.safetensors"))
    packages = (np, torch, transformers, safetensors)
    with open(os.path.join(folder, "versions.json"), "w") as out:
        json.dump({package.__name__: package.__version__ for package in packages}, out, indent=1, sort_keys=True)
        out.write("\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__)))
