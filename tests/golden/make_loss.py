"""Goldens of the loss with class weights, focal weighting and label smoothing: each clip's loss and the gradient of the
batch's loss by the logits, from PyTorch's autograd in double.

The batch's loss is sum(w[truth] * l) / B, as Keras has it; torch's cross_entropy(weight=...) divides by the sum of the
weights and weighs the smoothing by class, so the sum is written out. Where both mean the same (no smoothing, no focal
weighting, a sum) they are held against each other. Run with numpy, safetensors and torch installed:
python tests/golden/make_loss.py [folder]
"""

import json
import os
import sys

import numpy as np
import safetensors
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

CLIPS, CLASSES = 9, 6


def clip_losses(logits, truth, weights, gamma, smoothing):
    entropy = F.cross_entropy(logits, truth, reduction="none", label_smoothing=smoothing)
    right = torch.softmax(logits, -1)[torch.arange(len(truth)), truth]
    return weights[truth] * (1 - right) ** gamma * entropy


def main(folder):
    rng = np.random.default_rng(7)
    logits = (rng.normal(size=(CLIPS, CLASSES)) * np.linspace(0.1, 5, CLIPS)[:, None]).astype(np.float32)
    truth = rng.integers(0, CLASSES, CLIPS)
    weights = rng.uniform(0.3, 3, CLASSES).astype(np.float32)
    cases, losses, gradients = [], [], []
    for weighted in (0, 1):
        for gamma in (0, 0.5, 1, 2):
            for smoothing in (0, 0.1):
                z = torch.from_numpy(logits).double().requires_grad_()
                t, w = torch.from_numpy(truth), torch.from_numpy(weights).double()
                w = w if weighted else torch.ones_like(w)
                each = clip_losses(z, t, w, gamma, smoothing)
                (each.sum() / CLIPS).backward()
                if not gamma and not smoothing:
                    own = F.cross_entropy(z, t, weight=w, reduction="sum")
                    assert abs((own - each.sum()).item()) < 1e-12
                cases.append((weighted, gamma, smoothing))
                losses.append(each.detach().numpy())
                gradients.append(z.grad.numpy())
    versions = {"torch": torch.__version__, "numpy": np.__version__, "safetensors": safetensors.__version__}
    out = {"logits": logits, "truth": truth, "weights": weights, "cases": np.array(cases, np.float64)}
    out |= {"losses": np.array(losses), "gradients": np.array(gradients)}
    save_file(out, os.path.join(folder, "loss.safetensors"), metadata={"versions": json.dumps(versions)})


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__)))
