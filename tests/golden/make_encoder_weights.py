#!/usr/bin/env python3
"""Goldens of encoder weights: small wav2vec2 and HuBERT models in every format that Serenade reads, as transformers and
PyTorch write them, and what torch finds in them: a CRC of each parameter's float32 bytes, and the kernel that the
positional convolution's weight norm gives.

Names and shapes are transformers' own; the numbers are numpy's, so that other releases of transformers give the same.
Run with numpy, torch, transformers and safetensors installed:
python tests/golden/make_encoder_weights.py [folder]
"""

import collections
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
    Wav2Vec2ForPreTraining,
    Wav2Vec2Model,
)

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8, 8, 8, 8, 8, 8, 8],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}
LARGE = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
    "conv_dim": [6, 8, 10],
    "conv_kernel": [10, 3, 2],
    "conv_stride": [5, 2, 2],
    "num_conv_pos_embeddings": 7,
    "layer_norm_eps": 1e-6,
}
PRETRAINING = {"codevector_dim": 8, "proj_codevector_dim": 8, "num_codevectors_per_group": 6}
POSITION = "encoder.pos_conv_embed.conv."
OLD, NEW = ("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")


def fill(model):
    """Numbers by a tensor's name alone."""
    state = collections.OrderedDict()
    for name, tensor in model.state_dict().items():
        rng = np.random.default_rng(zlib.crc32(name.split("wav2vec2.")[-1].encode()))
        state[name] = torch.from_numpy(rng.normal(size=tuple(tensor.shape)).astype(np.float32))
    model.load_state_dict(state)
    return state


def rename(state, pairs):
    pairs = list(pairs)
    out = collections.OrderedDict()
    for name, tensor in state.items():
        for one, other in pairs:
            name = name.replace(POSITION + one, POSITION + other)
        out[name] = tensor
    return out


def strided(state):
    """The same numbers: matrices as transposes of others, vectors every second number of one shared storage, each at
    its offset in it."""
    shared = torch.zeros(2 * sum(t.numel() for t in state.values() if t.dim() == 1) + 3)
    out, at = collections.OrderedDict(), 3
    for name, tensor in state.items():
        if tensor.dim() == 1:
            out[name] = shared[at : at + 2 * tensor.numel() : 2]
            out[name].copy_(tensor)
            at += 2 * tensor.numel()
        elif tensor.dim() == 3:
            out[name] = tensor.permute(2, 0, 1).contiguous().permute(1, 2, 0)
        else:
            out[name] = tensor.t().contiguous().t()
    return out


def golden(state):
    """Each parameter of the encoder under its usual name, and the positional kernel."""
    inner = {name.split("wav2vec2.")[-1]: t.detach().float().contiguous() for name, t in rename(state, zip(NEW, OLD)).items()}
    sums = {name: zlib.crc32(t.numpy().tobytes()) for name, t in inner.items()}
    if POSITION + "weight" in inner:
        return sums, inner[POSITION + "weight"]
    return sums, torch._weight_norm(inner[POSITION + "weight_v"], inner[POSITION + "weight_g"], 2)


def main(folder):
    folder = os.path.join(folder, "encoder")
    files, kernels = {}, {}

    def keep(name, state, format, **more):
        """Of what torch reads from the file that was just written."""
        path = os.path.join(folder, name)
        if format == "safetensors":
            read = safetensors.torch.load_file(path)
        else:
            read = torch.load(path, weights_only=False)
        read = read.get("state_dict", read)
        assert read.keys() == state.keys() and all(torch.equal(read[key], state[key]) for key in read)
        sums, kernel = golden(read)
        files[name] = {"format": format, "crc": sums, **more}
        kernels[name] = kernel.contiguous()

    def save(name, state, format, whole=None, **how):
        path = os.path.join(folder, name)
        if format == "safetensors":
            save_file(state, path, metadata={"format": "pt"})
        else:
            if format == "PyTorch (before 1.6)":
                how["_use_new_zipfile_serialization"] = False
            torch.save(state if whole is None else whole, path, **how)
        keep(name, state, format)

    zipped, legacy = "PyTorch (ZIP)", "PyTorch (before 1.6)"
    models = {
        "base": (Wav2Vec2Model(Wav2Vec2Config(**SIZES)), {}),
        "layer": (Wav2Vec2Model(Wav2Vec2Config(**(SIZES | LARGE))), {"return_attention_mask": True}),
        "hubert": (HubertModel(HubertConfig(**SIZES, feat_proj_layer_norm=False)), {"do_normalize": False}),
        "hubert_large": (HubertModel(HubertConfig(**(SIZES | LARGE))), {"return_attention_mask": True}),
    }
    for name, (model, extractor) in models.items():
        here = os.path.join(folder, name)
        os.makedirs(here, exist_ok=True)
        model.config.save_pretrained(here)
        Wav2Vec2FeatureExtractor(**extractor).save_pretrained(here)
        state = fill(model)
        expected = model.encoder.pos_conv_embed.conv.weight.detach()
        if name != "hubert":
            save(f"{name}/model.safetensors", state, "safetensors")
        if name != "hubert_large":
            save(f"{name}/pytorch_model.bin", rename(state, zip(NEW, OLD)) if name == "hubert" else state, zipped)
        assert torch.equal(expected, next(kernel for key, kernel in kernels.items() if key.startswith(name + "/")))

    model = models["base"][0]
    state = fill(model)
    save("base/half.safetensors", {name: t.half() for name, t in state.items()}, "safetensors")
    save("base/bfloat16.bin", {name: t.bfloat16() for name, t in state.items()}, zipped)
    save("base/double.bin", {name: t.double() for name, t in state.items()}, legacy)
    save("base/legacy.bin", state, legacy)
    save("base/old_names.bin", rename(state, zip(NEW, OLD)), zipped)
    save("base/strided.bin", strided(state), zipped)
    save("base/strided_legacy.bin", strided(rename(state, zip(NEW, OLD))), legacy)
    parameters = collections.OrderedDict((name, torch.nn.Parameter(t)) for name, t in state.items())
    nested = {"epoch": 3, "rate": 1e-3, "note": "x", "state_dict": parameters, "list": [1, None, (True, 2**70)]}
    save("base/nested.bin", parameters, zipped, whole=nested, pickle_protocol=4)
    pretraining = fill(Wav2Vec2ForPreTraining(Wav2Vec2Config(**(SIZES | PRETRAINING))))
    save("base/pretraining.bin", rename(pretraining, zip(NEW, OLD)), zipped)
    torch.nn.utils.parametrize.remove_parametrizations(model.encoder.pos_conv_embed.conv, "weight")
    plain = {name: t.contiguous() for name, t in model.state_dict().items()}
    save("base/plain.safetensors", plain, "safetensors")

    save_file(kernels, os.path.join(folder, "kernels.safetensors"))
    packages = (np, torch, transformers, safetensors)
    versions = {package.__name__: package.__version__ for package in packages}
    with open(os.path.join(folder, "goldens.json"), "w") as out:
        json.dump({"versions": versions, "files": files}, out, indent=1, sort_keys=True)
        out.write("\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__)))
