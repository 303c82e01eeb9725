"""Goldens of the temporal branches from PyTorch: losses, gradients, running statistics and the first training steps.

Small cases (one safetensors file each) hold weights, inputs and everything that PyTorch makes of them, in double. The
full-size case holds only the losses of 20 steps: its weights and inputs come from Philox, which test_temporal.c draws
in the same way. From a random start rounding grows fast there, so one case goes on from a trained state that it holds,
with Adam's moments and running statistics, in small steps: its losses tell rounding from mistakes. Run with numpy, safetensors and torch installed: python tests/golden/make_temporal.py [folder]
"""

import json
import os
import sys

import numpy as np
import safetensors
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

EPS, MOMENTUM, SMOOTHING = 1e-3, 0.01, 0.1


class Direction(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        f, k = c["filters"], c["kernel"]
        self.input = torch.nn.Conv1d(c["channels"], f, 1)
        self.pads = [(k - 1) * 2**i for i in range(c["blocks"])]
        conv = lambda i: torch.nn.Conv1d(f, f, k, dilation=2**i, bias=False)
        norm = lambda: torch.nn.BatchNorm1d(f, eps=EPS, momentum=MOMENTUM)
        self.convs = torch.nn.ModuleList([torch.nn.ModuleList([conv(i), conv(i)]) for i in range(c["blocks"])])
        self.norms = torch.nn.ModuleList([torch.nn.ModuleList([norm(), norm()]) for i in range(c["blocks"])])
        self.join = c["join"]

    def forward(self, x):
        x = self.input(x)
        outputs = []
        for convs, norms, pad in zip(self.convs, self.norms, self.pads):
            a = x
            for conv, norm in zip(convs, norms):
                a = F.relu(norm(conv(F.pad(a, (pad, 0)))))
            x = {"none": lambda: a, "residual": lambda: x + a, "gate": lambda: x * torch.sigmoid(a)}[self.join]()
            outputs.append(x)
        return outputs


class Model(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.forwards, self.backwards = Direction(c), Direction(c)
        if c["join"] == "gate":
            self.scales = torch.nn.Parameter(torch.zeros(c["blocks"]))
        self.head = torch.nn.Linear(c["filters"], c["classes"])

    def pooled(self, forward, backward, lengths):
        if self.c["pool"] == "all":
            return (forward + backward).mean(-1)
        t = torch.arange(forward.shape[-1])
        n = lengths[:, None].clamp(max=forward.shape[-1])
        early, late = (t < n).to(forward.dtype), (t >= forward.shape[-1] - n).to(forward.dtype)
        return ((forward * early[:, None]).sum(-1) + (backward * late[:, None]).sum(-1)) / n

    def forward(self, x, lengths):
        pairs = list(zip(self.forwards(x), self.backwards(x.flip(-1))))
        if self.c["join"] != "gate":
            return self.head(self.pooled(*pairs[-1], lengths))
        stack = torch.stack([self.pooled(f, b, lengths) for f, b in pairs])
        return self.head(torch.einsum("s,sbc->bc", self.scales, stack))

    def table(self):
        """Serenade's names of the parameters and running statistics, in the order of its table."""
        trained, running = {}, {}
        for name, d in (("forward", self.forwards), ("backward", self.backwards)):
            trained[f"{name}.input.weight"] = d.input.weight
            trained[f"{name}.input.bias"] = d.input.bias
            for i, (convs, norms) in enumerate(zip(d.convs, d.norms)):
                for j, (conv, norm) in enumerate(zip(convs, norms), 1):
                    trained[f"{name}.{i}.conv{j}.weight"] = conv.weight
                    trained[f"{name}.{i}.norm{j}.weight"] = norm.weight
                    trained[f"{name}.{i}.norm{j}.bias"] = norm.bias
                    running[f"{name}.{i}.norm{j}.running_mean"] = norm.running_mean
                    running[f"{name}.{i}.norm{j}.running_var"] = norm.running_var
        if self.c["join"] == "gate":
            trained["scales.weight"] = self.scales
        trained["head.weight"], trained["head.bias"] = self.head.weight, self.head.bias
        return trained, running


def philox(key, high, low):
    """Philox4x32-10 at counters (high, low[i]): [len(low)][4] words."""
    mask = np.uint64(0xFFFFFFFF)
    low = np.asarray(low, np.uint64)
    c = [low & mask, low >> np.uint64(32), np.full_like(low, high & 0xFFFFFFFF), np.full_like(low, high >> 32)]
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), p1 & mask, (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), p0 & mask]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, 1)


def uniform(key, high, count):
    """`count` numbers in [-1, 1), four a counter, exact in float32."""
    words = philox(key, high, np.arange((count + 3) // 4)).reshape(-1)[:count]
    return (2 * ((words >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)) - 1).astype(np.float32)


def initialise(model, seed):
    """ser_model_initialise: Glorot-uniform weights, +-0.05 for the scales, unit gammas, zero biases."""
    for index, (name, p) in enumerate(model.table()[0].items()):
        if name.endswith("bias") or "norm" in name:
            value = np.full(p.shape, name.endswith("weight"), np.float32)
        else:
            taps = p.shape[2] if p.dim() == 3 else 1
            limit = 0.05 if name == "scales.weight" else (6 / ((p.shape[0] + p.shape[1]) * taps)) ** 0.5
            value = (uniform(seed, 1 << 62 | index, p.numel()) * np.float32(limit)).reshape(p.shape)
        with torch.no_grad():
            p.copy_(torch.from_numpy(value))


def adam(model, lr=1e-3):
    return torch.optim.Adam(model.parameters(), lr=lr, betas=(0.93, 0.98), eps=1e-8)


def train(model, batches, steps, optimiser=None, first=0):
    optimiser = optimiser or adam(model)
    losses = []
    for step in range(first, first + steps):
        x, lengths, truth = batches[step % len(batches)]
        loss = F.cross_entropy(model(x, lengths), truth, label_smoothing=SMOOTHING)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def batch_of(rng, c, size):
    """Normal noise with a mean that tells the class, zero behind each clip's end."""
    truth = rng.integers(0, c["classes"], size)
    lengths = rng.integers(3, c["frames"] + 4, size)
    x = rng.normal(size=(size, c["channels"], c["frames"])) + 0.5 * (truth[:, None, None] == np.arange(c["channels"])[:, None])
    x *= np.arange(c["frames"]) < lengths[:, None, None]
    x = x.astype(np.float32)
    return torch.from_numpy(x).double(), torch.from_numpy(lengths), torch.from_numpy(truth)


def small_case(c, seed):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = Model(c).double()
    with torch.no_grad():  # float32 values, so that both sides start from the same numbers
        for name, p in model.table()[0].items():
            if "norm" in name or name == "scales.weight":
                p.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, p.shape) - name.endswith("bias")))
            p.copy_(p.float())
    batches = [batch_of(rng, c, size) for size in (5, 4)]
    out = {}
    for i, (x, lengths, truth) in enumerate(batches):
        out[f"batch{i}.x"] = x.float().numpy()
        out[f"batch{i}.lengths"] = lengths.numpy()
        out[f"batch{i}.truth"] = truth.numpy()
    trained, running = model.table()
    out |= {f"start.{n}": p.detach().float().numpy().copy() for n, p in (trained | running).items()}
    x, lengths, truth = batches[0]
    model.train()
    logits = model(x, lengths)
    losses = F.cross_entropy(logits, truth, label_smoothing=SMOOTHING, reduction="none")
    losses.mean().backward()
    out["logits"], out["losses"] = logits.detach().numpy(), losses.detach().numpy()
    out |= {f"gradient.{n}": p.grad.numpy().copy() for n, p in trained.items()}
    out |= {f"after.{n}": p.numpy().copy() for n, p in running.items()}
    model.eval()
    with torch.no_grad():
        out["inferred"] = torch.softmax(model(x, lengths), -1).numpy()
    model.train()
    with torch.no_grad():
        for n, p in (trained | running).items():
            p.copy_(torch.from_numpy(out[f"start.{n}"]))
    out["step_losses"] = np.array(train(model, batches, 20))
    out |= {f"final.{n}": p.detach().numpy().copy() for n, p in trained.items()}
    return out


def full_batch(c, step, size, dtype):
    """What test_temporal.c draws: uniform noise, a class-wise offset on some channels, lengths."""
    n = c["channels"] * c["frames"]
    x = uniform(77, step, size * n).reshape(size, c["channels"], c["frames"]) * np.float32(1.75)
    truth = np.arange(size) % c["classes"]
    lengths = 40 + (np.arange(size) * 7) % 130
    offset = np.float32(0.5) * (np.arange(c["channels"]) % c["classes"] == truth[:, None]).astype(np.float32)
    x = (x + offset[:, :, None]) * (np.arange(c["frames"]) < lengths[:, None, None])
    return torch.from_numpy(x.astype(np.float32)).to(dtype), torch.from_numpy(lengths), torch.from_numpy(truth)


def full_losses(c, dtype):
    model = Model(c)
    initialise(model, 1)
    return np.array(train(model.to(dtype), [full_batch(c, i, 64, dtype) for i in range(20)], 20))


TRAINED = dict(channels=39, filters=13, blocks=8, kernel=2, frames=162, classes=6, pool="all", join="none")
TRAINED |= dict(branch="reference", steps=100, lr=1e-4)


def trained_batches():
    return [full_batch(TRAINED, i, 64, torch.float64) for i in range(4)]


def trained_state():
    """Weights, running statistics and moments after so many steps of the recipe's length, as float32."""
    model = Model(TRAINED)
    initialise(model, 1)
    optimiser = adam(model.double())
    train(model, trained_batches(), TRAINED["steps"], optimiser)
    trained, running = model.table()
    state = {f"start.{n}": p for n, p in (trained | running).items()}
    state |= {f"m.{n}": optimiser.state[p]["exp_avg"] for n, p in trained.items()}
    state |= {f"v.{n}": optimiser.state[p]["exp_avg_sq"] for n, p in trained.items()}
    return {n: p.detach().float().numpy().copy() for n, p in state.items()}


def go_on(state):
    """The losses of 8 more steps from a state, and the probabilities of the first batch behind them."""
    model, batches = Model(TRAINED).double(), trained_batches()
    optimiser = adam(model, TRAINED["lr"])
    trained, running = model.table()
    value = lambda name: torch.from_numpy(np.array(state[name])).double()
    with torch.no_grad():
        for n, p in (trained | running).items():
            p.copy_(value(f"start.{n}"))
    for n, p in trained.items():
        step = torch.tensor(float(TRAINED["steps"]))
        optimiser.state[p] = {"step": step, "exp_avg": value(f"m.{n}"), "exp_avg_sq": value(f"v.{n}")}
    losses = np.array(train(model, batches, 8, optimiser, TRAINED["steps"]))
    model.eval()
    with torch.no_grad():
        return {"losses": losses, "inferred": torch.softmax(model(*batches[0][:2]), -1).numpy()}


def main(folder):
    torch.set_num_threads(1)
    versions = {"torch": torch.__version__, "numpy": np.__version__, "safetensors": safetensors.__version__}
    join = {"reference": "none", "residual": "residual", "timnet": "gate"}
    for i, (name, pool, kernel) in enumerate([(n, p, k) for n in join for p, k in (("all", 2), ("real", 3))]):
        c = dict(channels=7, filters=6, blocks=3, kernel=kernel, frames=29, classes=4, pool=pool, join=join[name])
        c["branch"] = "timnet" if name == "timnet" else "reference"
        path = os.path.join(folder, f"temporal_{name}_{pool}.safetensors")
        save_file(small_case(c, 100 + i), path, metadata={"config": json.dumps(c), "versions": json.dumps(versions)})
    out = {}
    for name in join:
        c = dict(channels=39, filters=39, blocks=8, kernel=2, frames=162, classes=6, join=join[name])
        c["pool"] = "real" if name == "residual" else "all"
        out[f"{name}.float64"] = full_losses(c, torch.float64)
        out[f"{name}.float32"] = full_losses(c, torch.float32)
    path = os.path.join(folder, "temporal_full.safetensors")
    save_file(out, path, metadata={"versions": json.dumps(versions)})
    state = trained_state()
    path = os.path.join(folder, "temporal_trained.safetensors")
    save_file(state | go_on(state), path, metadata={"config": json.dumps(TRAINED), "versions": json.dumps(versions)})


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__)))
