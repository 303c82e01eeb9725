"""PyTorch on a GPU, at what `serenade bench --device cuda` measures: the training step and the forward pass of the
reference branch at batch 64, and MFCC by torchaudio, each in several forms, of which the best one counts.

usage: gpu.py OUT.json [--device cuda|cpu] [--like BENCH.json] [--runs N] [--seconds S]
  --like     clips as long as those of that bench in the mean (default: 3 seconds)
  --seconds  of a timed run at least (default: 0.2)

Forms: eager; graph (the whole step captured once as a CUDA graph); compile (torch.compile, with graphs of its own on a
GPU). A form that cannot be had is named with the reason. fp32 throughout, as in Serenade: no TF32."""
import argparse
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from peer import FRAMES, HOP, RATE, TorchMfcc  # noqa: E402

BATCH, CLASSES, CHANNELS = 64, 6, 39
MORE = (256, 1024)  # further batches of the forward pass and of MFCC


class Bench:
    """Times functions of no argument that do so many clips a call; keeps each stage's best form."""

    def __init__(self, torch, device, runs, seconds):
        self.torch, self.device, self.runs, self.seconds, self.results = torch, device, runs, seconds, []

    def finish(self):
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()

    def calls_take(self, work, count):
        begin = time.perf_counter()
        for _ in range(count):
            work()
        self.finish()
        return time.perf_counter() - begin

    def rate(self, work, clips):
        """The median of the runs, in clips a second; a run is as many calls as fill its time."""
        for _ in range(3):
            work()
        self.finish()
        count = max(1, round(self.seconds / self.calls_take(work, 1)))
        times = sorted(self.calls_take(work, count) for _ in range(self.runs))
        return count * clips / times[len(times) // 2]

    def stage(self, name, forms, beside=None):
        """forms: {words: (make a function, clips of a call)}."""
        rates = {}
        for form, (make, clips) in forms.items():
            print(f"{name}, {form} ...", file=sys.stderr, flush=True)
            try:
                rates[form] = self.rate(make(), clips)
            except Exception as error:  # a form that this PyTorch, driver or GPU does not have
                rates[form] = f"not to be had: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
                self.torch.cuda.empty_cache()
        measured = {form: rate for form, rate in rates.items() if isinstance(rate, float)}
        best = max(measured, key=measured.get, default=None)
        line = {"name": name, "unit": "clips/s", "median": measured.get(best), "best": best, "forms": rates}
        self.results.append({**line, "beside": beside} if beside else line)


def graph_of(torch, work):
    """The work captured, after a few runs on the side, as PyTorch asks for it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()

    def replay():
        graph.replay()
        return work  # which owns what the graph reads and writes

    return replay


def compiled(torch, model, device):
    return torch.compile(model, mode="reduce-overhead" if device.type == "cuda" else "default")


def train_forms(torch, device):
    from timnet import TemporalModel

    def step_of(form):
        torch.manual_seed(1)
        x = torch.randn(BATCH, CHANNELS, FRAMES, device=device)
        truth = torch.arange(BATCH, device=device) % CLASSES
        model = TemporalModel(CHANNELS, CLASSES).train().to(device)
        forward = compiled(torch, model, device) if form == "compile" else model
        gpu = device.type == "cuda"
        optimiser = torch.optim.Adam(model.parameters(), 1e-3, betas=(0.93, 0.98), eps=1e-8, fused=gpu or None,
                                     capturable=gpu)

        def step():
            optimiser.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(forward(x), truth, label_smoothing=0.1).backward()
            optimiser.step()

        return graph_of(torch, step) if form == "graph" else step

    forms = ("eager", "graph", "compile") if device.type == "cuda" else ("eager", "compile")
    return {form: (lambda form=form: step_of(form), BATCH) for form in forms}


def forward_forms(torch, device, batches):
    from timnet import TemporalModel

    def pass_of(form, batch):
        x = torch.randn(batch, CHANNELS, FRAMES, device=device)
        model = TemporalModel(CHANNELS, CLASSES).eval().to(device)
        forward = compiled(torch, model, device) if form == "compile" else model

        def run():
            with torch.inference_mode():
                return forward(x).softmax(1)

        return graph_of(torch, run) if form == "graph" else run

    forms = ("eager", "graph", "compile") if device.type == "cuda" else ("eager",)
    return {f"{form}, batch {batch}": (lambda form=form, batch=batch: pass_of(form, batch), batch)
            for batch in batches for form in forms}


def mfcc_forms(torch, device, seconds):
    """From pinned memory to the device and its features back, as Serenade's is measured."""

    def mfcc_of(batch):
        samples, gpu = int(seconds * RATE), device.type == "cuda"
        wave = 0.1 * torch.randn(batch, samples)
        wave = wave.pin_memory() if gpu else wave
        frames = torch.full((batch,), 1 + samples // HOP, device=device)
        transform = TorchMfcc().to(device)
        back = torch.empty(batch, CHANNELS, 1 + samples // HOP, pin_memory=gpu)

        def run():
            with torch.inference_mode():
                back.copy_(transform(wave.to(device, non_blocking=True), frames), non_blocking=True)

        return run

    return {f"batch {batch}": (lambda batch=batch: mfcc_of(batch), batch) for batch in (BATCH, MORE[0])}


def mean_seconds(path):
    with open(path, encoding="utf-8") as file:
        clips = json.load(file)["clips"]
    return clips["seconds"] / clips["count"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--like")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2)
    args = parser.parse_args()
    try:
        import torch
    except ImportError as error:
        print(f"skipped: {sys.executable} has no PyTorch: {error}")
        return 77
    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"skipped: PyTorch {torch.__version__} of {sys.executable} finds no CUDA device")
        return 77
    device = torch.device(args.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    bench = Bench(torch, device, args.runs, args.seconds)
    bench.stage("train", train_forms(torch, device))
    bench.stage("forward", forward_forms(torch, device, (BATCH,)))
    bench.stage("forward.large", forward_forms(torch, device, MORE), beside="forward")
    bench.stage("mfcc", mfcc_forms(torch, device, mean_seconds(args.like) if args.like else 3.0))
    name = torch.cuda.get_device_name() if device.type == "cuda" else "the processor"
    with open(args.out, "w", encoding="utf-8") as file:
        json.dump({"version": 1, "torch": torch.__version__, "device": name, "results": bench.results}, file, indent=2)
        file.write("\n")
    for line in bench.results:
        best = f"{line['median']:.0f} clips/s, {line['best']}" if line["best"] else "not to be had"
        print(f"{line['name']:<16} {best}")
    return 0 if any(line["best"] for line in bench.results) else 1


if __name__ == "__main__":
    sys.exit(main())
