"""The two temporal branches in PyTorch, written plainly: what Serenade's model is compared with, in speed and in answers.

The names of the parameters are those of Serenade's model file, so that a model.safetensors loads as it is.
"""

import torch
from torch import nn
from torch.nn import functional as F


class CausalConv(nn.Conv1d):
    """y[t] reads x[t - dilation * k]: zeros on the left, nothing from the future."""

    def forward(self, x):
        pad = (self.kernel_size[0] - 1) * self.dilation[0]
        return super().forward(F.pad(x, (pad, 0)))


class Block(nn.Module):
    def __init__(self, filters, kernel, dilation, dropout):
        super().__init__()
        # A bias before batch norm has no gradient; Keras's momentum 0.99 is PyTorch's 0.01.
        self.conv1 = CausalConv(filters, filters, kernel, dilation=dilation, bias=False)
        self.norm1 = nn.BatchNorm1d(filters, eps=1e-3, momentum=0.01)
        self.conv2 = CausalConv(filters, filters, kernel, dilation=dilation, bias=False)
        self.norm2 = nn.BatchNorm1d(filters, eps=1e-3, momentum=0.01)
        self.drop = nn.Dropout1d(dropout)  # whole channels: spatial dropout

    def forward(self, x):
        x = self.drop(F.relu(self.norm1(self.conv1(x)), inplace=True))
        return self.drop(F.relu(self.norm2(self.conv2(x)), inplace=True))


class Direction(nn.ModuleDict):
    def __init__(self, channels, filters, blocks, kernel, dropout):
        super().__init__({"input": nn.Conv1d(channels, filters, 1)})
        for i in range(blocks):
            self[str(i)] = Block(filters, kernel, 2**i, dropout)


class TemporalModel(nn.Module):
    def __init__(self, channels=39, classes=6, branch="reference", blocks=8, filters=39, kernel=2, dropout=0.1,
                 residual=False, pool="all"):
        super().__init__()
        self.branch, self.blocks, self.residual, self.pool = branch, blocks, residual, pool
        self.directions = nn.ModuleDict({name + "_": Direction(channels, filters, blocks, kernel, dropout)
                                         for name in ("forward", "backward")})
        if branch == "timnet":
            self.scales = nn.Parameter(torch.empty(blocks))
        self.head = nn.Linear(filters, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if branch == "timnet":
            nn.init.uniform_(self.scales, -0.05, 0.05)  # TIM-Net's own code: Keras's "uniform"

    def run(self, direction, x):
        x = direction["input"](x)
        for i in range(self.blocks):
            y = direction[str(i)](x)
            x = x * torch.sigmoid(y) if self.branch == "timnet" else x + y if self.residual else y
            yield x

    def average(self, x, mask):
        return x.mean(2) if mask is None else (x * mask).sum(2) / mask.sum(2)

    def forward(self, x, lengths=None):
        """x [B, channels, T] standardised, zeros behind each clip's real frames; lengths [B], for pool="real"."""
        mask = backward_mask = None
        if self.pool == "real":
            frames = x.shape[2]
            mask = (torch.arange(frames) < lengths.clamp(max=frames)[:, None]).to(x.dtype)[:, None]
            backward_mask = mask.flip(2)
        pairs = zip(self.run(self.directions["forward_"], x), self.run(self.directions["backward_"], x.flip(2)))
        if self.branch == "timnet":
            pooled = sum(w * (self.average(f, mask) + self.average(b, backward_mask))
                         for w, (f, b) in zip(self.scales, pairs))
        else:
            forward, backward = list(pairs)[-1]
            pooled = self.average(forward, mask) + self.average(backward, backward_mask)
        return self.head(pooled)


def load_serenade(path):
    """The model of a model.safetensors, its standardisation, its window in frames and its labels."""
    import json

    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        meta = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    config = json.loads(meta["model"])
    model = TemporalModel(config["channels"], config["classes"], config["branch"], config["blocks"], config["filters"],
                          config["kernel"], config["dropout"], config["residual"], config["pool"])
    mean, inv_std = tensors.pop("standardisation.mean"), tensors.pop("standardisation.inv_std")
    state = {}
    for name, value in tensors.items():
        if name.startswith(("forward.", "backward.")):
            name = "directions." + name.replace(".", "_.", 1)
        state["scales" if name == "scales.weight" else name] = value
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)
    return model.eval(), mean, inv_std, config["frames"], json.loads(meta["labels"])
