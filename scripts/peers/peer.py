"""One peer, one stage, one setting: does the work a few times and prints the times as JSON. compare.py calls it.

usage: peer.py STAGE --clips LIST.json [--processes N] [--threads N] [--batch N] [--runs N] [--model FILE]

Stages: librosa (arrays to mfcc39), torchaudio (the same), file (soundfile, soxr and librosa: files to mfcc39), train,
forward, predict (one clip; the caller times the whole process).
"""

import argparse
import json
import multiprocessing
import os
import sys
import time

RATE, N_FFT, HOP, MELS, KEPT, FRAMES = 22050, 2048, 512, 128, 13, 162

held = {}  # what the processes of a pool inherit


def mfcc39(samples):
    import librosa
    import numpy as np

    mfcc = librosa.feature.mfcc(y=samples, sr=RATE, n_mfcc=KEPT, n_fft=N_FFT, hop_length=HOP, n_mels=MELS)
    return np.concatenate([mfcc, librosa.feature.delta(mfcc), librosa.feature.delta(mfcc, order=2)]).T


def load(path):
    import librosa

    return librosa.load(path, sr=RATE)[0]  # soundfile, channels averaged, soxr_hq


def from_arrays(i):
    return mfcc39(held["samples"][i]).shape[0]


def from_file(i):
    return mfcc39(load(held["paths"][i])).shape[0]


def hold_threads(threads):
    """numpy's OpenBLAS as it comes (0), or held to a number of threads."""
    if threads:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)


def over_clips(work, count, processes, threads):
    """A function that does all clips, in this process or in a pool that is warm before it is timed."""
    if processes == 1:
        hold_threads(threads)
        return lambda: [work(i) for i in range(count)]
    pool = multiprocessing.get_context("fork").Pool(processes, hold_threads, (threads,))
    return lambda: pool.map(work, range(count), chunksize=4)


def in_processes(build, processes):
    """A function that lets each process do its share at once, made and warmed there by build(share): torch's own threads
    do not survive a fork, so nothing of torch is touched before it."""
    if processes == 1:
        return build(0)

    def work(share, pipe):
        run = build(share)
        while True:
            pipe.recv()
            run()
            pipe.send(None)

    context, pipes = multiprocessing.get_context("fork"), []
    for share in range(processes):
        ours, theirs = context.Pipe()
        context.Process(target=work, args=(share, theirs), daemon=True).start()
        theirs.close()
        pipes.append(ours)

    def run():
        for pipe in pipes:
            pipe.send(None)
        for pipe in pipes:
            pipe.recv()

    return run


class TorchMfcc:
    """mfcc39 in torch: torchaudio's MFCC with librosa's mel settings, then librosa's deltas (Savitzky-Golay, width 9)."""

    def __init__(self):
        import torch
        import torchaudio

        self.torch = torch
        self.mfcc = torchaudio.transforms.MFCC(
            RATE, n_mfcc=KEPT, norm="ortho", log_mels=False,
            melkwargs=dict(n_fft=N_FFT, hop_length=HOP, n_mels=MELS, norm="slaney", mel_scale="slaney", center=True,
                           pad_mode="constant", power=2.0))
        first = torch.arange(-4.0, 5.0) / 60
        second = torch.tensor([28.0, 7, -8, -17, -20, -17, -8, 7, 28]) / 462
        self.kernels = torch.stack([first, second])[:, None]

    def to(self, device):
        self.mfcc, self.kernels = self.mfcc.to(device), self.kernels.to(device)
        return self

    def __call__(self, wave, frames):
        """wave [B, N] padded with zeros, frames [B] of each clip: [B, 39, T]."""
        torch = self.torch
        batch, mfcc = wave.shape[0], self.mfcc(wave[:, None])[:, 0]
        inner = torch.nn.functional.conv1d(mfcc.reshape(batch * KEPT, 1, -1), self.kernels)
        inner = inner.reshape(batch, KEPT, 2, -1).transpose(1, 2).reshape(batch, 2 * KEPT, -1)
        t = torch.arange(mfcc.shape[2], device=mfcc.device)
        at = (torch.minimum(t[None], frames[:, None] - 5).clamp(min=4) - 4).clamp(max=inner.shape[2] - 1)
        deltas = torch.gather(inner, 2, at[:, None].expand(-1, 2 * KEPT, -1))
        return torch.cat([mfcc, deltas], 1)


def torchaudio_stage(samples, threads, batch):
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    transform = TorchMfcc()
    order = sorted(range(len(samples)), key=lambda i: len(samples[i]))  # clips of like length share a batch

    def run():
        with torch.inference_mode():
            for first in range(0, len(order), batch):
                chosen = [samples[i] for i in order[first:first + batch]]
                wave = np.zeros((len(chosen), len(chosen[-1])), np.float32)
                for row, clip in zip(wave, chosen):
                    row[:len(clip)] = clip
                frames = torch.tensor([1 + len(clip) // HOP for clip in chosen])
                transform(torch.from_numpy(wave), frames)

    return run


def tiles(count, clips):
    """[count, 39, 162] standardised from real clips, zeros behind."""
    import numpy as np
    import torch

    features = [mfcc39(samples)[:FRAMES] for samples in clips[:count]]
    rows = np.concatenate(features)
    mean, deviation = rows.mean(0), rows.std(0)
    out = np.zeros((count, 39, FRAMES), np.float32)
    for i in range(count):
        clip = features[i % len(features)]
        out[i, :, :len(clip)] = ((clip - mean) / deviation).T
    return torch.from_numpy(out)


def train_stage(samples, threads, batch):
    import torch
    from timnet import TemporalModel

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    x, truth = tiles(batch, samples), torch.arange(batch) % 6
    model = TemporalModel().train()
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, betas=(0.93, 0.98), eps=1e-8, foreach=True)

    def run():
        for _ in range(4):
            optimiser.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(model(x), truth, label_smoothing=0.1).backward()
            optimiser.step()

    return run, 4 * batch


def forward_stage(samples, threads, batch, steps):
    import torch
    from timnet import TemporalModel

    torch.set_num_threads(threads)
    x, model = tiles(batch, samples), TemporalModel().eval()

    def run():
        with torch.inference_mode():
            for _ in range(steps):
                model(x).softmax(1)

    return run


def predict_stage(path, model_path, threads):
    import torch
    from timnet import load_serenade

    torch.set_num_threads(threads)
    model, mean, inv_std, frames, labels = load_serenade(model_path)
    features = torch.from_numpy(mfcc39(load(path)))[:frames]
    x = torch.zeros(1, features.shape[1], frames)
    x[0, :, :len(features)] = ((features - mean) * inv_std).T
    with torch.inference_mode():
        p = model(x, torch.tensor([len(features)])).softmax(1)[0].tolist()
    print(json.dumps({"path": path, "probabilities": dict(zip(labels, p))}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=["librosa", "torchaudio", "file", "train", "forward", "predict"])
    parser.add_argument("--clips", required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--model")
    args = parser.parse_args()
    with open(args.clips) as file:
        paths = json.load(file)["clips"]["paths"]
    if args.stage == "predict":
        return predict_stage(paths[len(paths) // 2], args.model, args.threads)
    units = len(paths)
    if args.stage == "file":
        held["paths"] = paths
        from_file(0)  # imports and compiles before the processes part
        run = over_clips(from_file, units, args.processes, args.threads)
    else:
        few = paths if args.stage in ("librosa", "torchaudio") else paths[:args.batch]
        held["samples"] = samples = [load(path) for path in few]
        mfcc39(samples[0])
        if args.stage == "librosa":
            run = over_clips(from_arrays, units, args.processes, args.threads)
        elif args.stage == "torchaudio":
            run = in_processes(lambda share: torchaudio_stage(samples[share::args.processes], args.threads, args.batch),
                               args.processes)
        elif args.stage == "forward":
            steps = max(4, 256 // args.batch)
            units = args.processes * steps * args.batch
            run = in_processes(lambda share: forward_stage(samples, args.threads, args.batch, steps), args.processes)
        else:
            run, units = train_stage(samples, args.threads, args.batch)
    run()
    rates = []
    for _ in range(args.runs):
        begin = time.perf_counter()
        run()
        rates.append(units / (time.perf_counter() - begin))
    print(json.dumps({"rates": rates}))
    sys.stdout.flush()
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(0)


if __name__ == "__main__":
    main()
