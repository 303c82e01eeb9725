"""A device that fails: every kind of call that the software device can fail, at the 1st, 2nd, 5th, 20th and 100th, in
extract, train, evaluate and predict. None may crash, hang, give a wrong result or leak; the words must name what failed;
and what is run again afterwards, with a device that works, must end with the bytes of one that never failed.

Usage: fault_sweep.sh [--part] [--keep] [KIND[:N[-M]] ...]
  --part    some of them, for every day: less than a minute
  KIND      that kind alone; with N: at the Nth call, or at all from the Nth to the Mth
  --keep    leave the folder of what went wrong
Environment: SERENADE_BINARY, SERENADE_MAKE_CORPUS, SERENADE_SOFTGPU (the software device's launcher),
SERENADE_RANGES_MODULE (ranges.c; without it nobody looks whether ranges end)."""
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

KINDS = ("malloc hostalloc memcpy memset launch stream event eventrecord eventsync streamsync devicesync "
         "cublas cufft cudnn handle plan kernel").split()
# Those that nothing is to be made smaller for, or done otherwise: the command ends.
FINAL = ("memcpy", "memset", "launch", "kernel", "eventrecord")
LOST = "cannot be captured as a graph, so its operations are launched one by one"  # what fails in a capture is no end
PLACES = (1, 2, 5, 20, 100)
PART = [("extract", kind, 2, "") for kind in ("malloc", "hostalloc", "memcpy", "eventrecord")]
PART += [("extract", "kernel", 5, ""), ("extract", "eventsync", 1, ""), ("extract", "plan", 1, ""), ("train", "kernel", 60, ""),
         ("train", "launch", 20, ""), ("train", "cudnn", 20, "cudnn"), ("train", "malloc", 5, ""),
         ("train", "streamsync", 6, ""), ("train", "hostalloc", 2, ""), ("train", "handle", 1, "wide"), ("evaluate", "memcpy", 5, ""),
         ("evaluate", "kernel", 2, ""), ("predict", "kernel", 20, ""), ("predict", "memset", 2, ""),
         ("predict", "cufft", 2, "")]
PART += [("extract", "memcpy", 1, ""), ("extract", "malloc", "3+", ""), ("predict", "malloc", "9+", ""), ("train", "malloc", "9+", "")]

TIMEOUT = 120
# What is said of a device that fails: the library, its words, the statement and its place; or figures of memory.
WORDS = re.compile(r"serenade: .*(the CUDA device failed: (CUDA|cuBLASLt|cuDNN|cuFFT): .+, in '.+' at \w+/\w+\.cu?:\d+"
                   r"|out of memory: (\d+ bytes|(CUDA|cuBLASLt|cuDNN|cuFFT): .+, in '.+' at \w+/\w+\.cu?:\d+,) .*MiB free"
                   r"|out of host memory .*: \d+ bytes"
                   r"|the CUDA device cannot be used: .+|cuDNN has no )")
BASE = ["--set", "features.mfcc39.frames=32", "--set", "model.blocks=2", "--set", "model.filters=8", "--set",
        "train.batch=16", "--set", "train.epochs=2"]
FORMS = {  # of a training
    "": ["--set", "conv=fused"],
    "cudnn": ["--set", "conv=cudnn"],
    # So many channels that cuBLASLt multiplies.
    "wide": ["--set", "conv=fused", "--set", "model.filters=264", "--set", "model.blocks=1", "--set",
             "features.mfcc39.frames=16", "--set", "train.epochs=1"],
}
BINARY, SOFTGPU = os.environ["SERENADE_BINARY"], os.environ["SERENADE_SOFTGPU"]
RANGES = os.environ.get("SERENADE_RANGES_MODULE")  # which a profiler would see


class Wrong(Exception):
    pass


def run(folder, arguments, options=None):
    """On the software device with these options (None: without one). Status, what was printed, what was said."""
    command, environment = [BINARY, *arguments], dict(os.environ)
    if options is not None:
        command = [SOFTGPU, "--leak-fatal", *options, "--", *command]
    if options is not None and RANGES:
        environment.update(NVTX_INJECTION64_PATH=RANGES, SERENADE_RANGES=os.path.join(folder, "ranges"))
    try:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT,
                              check=False, env=environment)
    except subprocess.TimeoutExpired:
        return 124, b"", "it hangs"
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


def must(folder, arguments, options=None):
    status, out, said = run(folder, arguments, options)
    if status:
        raise Wrong(f"{' '.join(arguments)} ends with {status}, without a failure: {said[-600:]}")
    return out


def files_of(folder):
    """The bytes of a folder's files, by name."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = file.read()
    return found


# ---- the commands: what is run, and what stands there when it has gone well --------------------------------------------


def extract_arguments(_):
    return ["extract", "few.csv", "--cache", "cache", "--device", "cuda", "--quiet"]


def extract_result(folder, _):
    """Shards are cut as it comes; what a training reads of them is not."""
    judge = os.path.join(folder, "judge")
    shutil.rmtree(judge, ignore_errors=True)
    must(folder, ["train", "config.yaml", "-o", "judge", "--manifest", "few.csv", *BASE, "--set", "cache.dir=cache",
                  "--device", "cpu", "--quiet"])
    return {name: data for name, data in files_of(judge).items() if name in ("history.csv", "model.safetensors")}


def train_arguments(form):
    return ["train", "config.yaml", "-o", "run", "--manifest", "few.csv", *BASE, *FORMS[form], "--set",
            f"cache.dir={CACHE}", "--device", "cuda", "--quiet", "--resume"]


def train_result(folder, _):
    return {name: data for name, data in files_of(os.path.join(folder, "run")).items()
            if name in ("history.csv", "model.safetensors", "checkpoint", "split.csv")}


def resume_arguments(form):
    """A training that has had the first of its two epochs; it says that it goes on."""
    return [word for word in train_arguments(form) if word != "--quiet"]


def evaluate_arguments(_):
    return ["evaluate", "run", "--device", "cuda", "--quiet"]


def evaluate_result(folder, _):
    return {name: data for name, data in files_of(os.path.join(folder, "run")).items()
            if name.endswith((".json", ".csv", ".txt"))}


def predict_arguments(_):
    return ["predict", "run/model.safetensors", "corpus", "--format", "csv", "--device", "cuda", "--quiet"]


COMMANDS = {"extract": (extract_arguments, extract_result), "train": (train_arguments, train_result),
            "resume": (resume_arguments, train_result), "evaluate": (evaluate_arguments, evaluate_result), "predict": (predict_arguments, None)}
HERE = CACHE = ""


def new_folder(name, command):
    """A folder with what the command begins with."""
    folder = os.path.join(HERE, name)
    os.makedirs(folder)
    for entry in ("corpus", "few.csv", "config.yaml"):
        os.symlink(os.path.join(HERE, entry), os.path.join(folder, entry))
    if command in ("evaluate", "predict"):
        shutil.copytree(os.path.join(HERE, "clean-train-", "run"), os.path.join(folder, "run"))
    if command == "resume":
        shutil.copytree(os.path.join(HERE, "one-epoch", "run"), os.path.join(folder, "run"))
    return folder


def result(command, folder, form, out):
    read = COMMANDS[command][1]
    return read(folder, form) if read else {"answers": out}


def same(one, other, what):
    for name in sorted(set(one) | set(other)):
        if one.get(name) != other.get(name):
            raise Wrong(f"{what}: {name} has other bytes than without a failure")


def judge_failure(command, status, out, said, clean):
    """What may be seen of a run that met a failure."""
    if status == 124 or status < 0 or status >= 128:
        raise Wrong(f"it crashed or hung: status {status}: {said[-600:]}")
    if status == 86 or re.search(r"softgpu: +leaked", said):
        raise Wrong(f"it leaks: {said[-600:]}")
    if status not in (0, 1):
        raise Wrong(f"it ends with {status}: {said[-600:]}")
    if status == 1 and not WORDS.search(said):
        raise Wrong(f"its words do not tell what failed: {said[-600:]}")
    if command == "predict" and not clean["answers"].startswith(out):
        raise Wrong("it prints other answers than without a failure")


def judge_ranges(folder):
    """What was begun for a profiler has ended; a device that cannot be opened has begun nothing."""
    path = os.path.join(folder, "ranges")
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8") as file:
        last = file.read().splitlines()[-1]
    if last != "open: 0":
        raise Wrong(f"ranges that were begun and not ended: {last}")


def graph_places():
    """Where a training that goes on with its second epoch meets its graphs, by the report of one that does not fail: a
    kernel that is captured, and so runs in each replay, seen at the next launch or (put off) in the wait; the launch of
    a graph; the wait for the steps; and the validation's last kernel. With what is said of each."""
    folder = new_folder("counted", "resume")
    path = os.path.join(folder, "report.json")
    must(folder, resume_arguments(""), ["--nvtx", "--report", path])
    with open(path, encoding="utf-8") as file:
        phases = {phase["name"]: phase for phase in json.load(file)["phases"]}
    start, train = phases["start"], phases["train"]
    before, during = (sum(count for name, count in phase["calls"].items() if name.endswith("cudaLaunchKernel"))
                      for phase in (start, train))
    captured = during - sum(kernel["direct"] for kernel in train["kernels"])
    if not train["graph_launches"] or captured < 2:
        raise Wrong("a training's steps are no graphs")
    # The first step is enqueued by itself, of as many kernels; the second is captured, and launched.
    inside, dead = before + captured + captured // 2, "illegal memory access was encountered, in '{}.*; .*start it again"
    return [("kernel", inside, [], dead.format("(cudaGraphLaunch|step_begin_kernel)")),
            ("kernel", inside, ["--defer"], dead.format("cudaStreamSynchronize")),
            ("launch", before + 2 * captured + 1, [], "in 'cudaGraphLaunch"),
            ("streamsync", start["syncs"]["streamSync"] + 1, [], "in 'cudaStreamSynchronize"),
            ("kernel", before + during, ["--defer"], dead.format("cudaStreamSynchronize"))]


def graph_trial(kind, place, more, words, clean):
    """The device fails in the graphs of the second epoch: the first one's checkpoint stays, and is gone on from."""
    folder = new_folder(f"graph-{kind}-{place}-{len(more)}", "resume")
    checkpoint = files_of(os.path.join(folder, "run"))["checkpoint"]
    status, out, said = run(folder, resume_arguments(""), ["--fail", f"{kind}:{place}", *more])
    judge_failure("resume", status, out, said, clean)
    judge_ranges(folder)
    if status != 1 or not re.search(words, said):
        raise Wrong(f"it ends with {status}, and not by {words}: {said[-600:]}")
    if files_of(os.path.join(folder, "run"))["checkpoint"] != checkpoint:
        raise Wrong("the checkpoint of the first epoch has changed")
    status, out, said = run(folder, resume_arguments(""), [])
    if status or "goes on after epoch 1" not in said:
        raise Wrong(f"run again it ends with {status}: {said[-600:]}")
    same(result("resume", folder, "", out), clean, "run again")
    return "ended"


def capture_trial(kind, form, clean):
    """A call that fails while a step is captured costs the graph alone: the training goes on without, says so once and
    ends with the same bytes. Where the captures are among the calls is found by trying."""
    calls = {"launch": r"cudaLaunchKernel$", "cudnn": r"cudnn(Create|Convolution\w+)$"}[kind]
    folder = new_folder(f"captures-{kind}", "train")
    path = os.path.join(folder, "report.json")
    must(folder, train_arguments(form), ["--nvtx", "--report", path])
    with open(path, encoding="utf-8") as file:
        phases = [(phase["name"], sum(count for name, count in phase["calls"].items() if re.search(calls, name)))
                  for phase in json.load(file)["phases"]]
    train = [name for name, _ in phases].index("train")
    before, during = sum(count for _, count in phases[:train]), phases[train][1]
    for place in range(before + 1, before + during, max(1, during // 12)):
        folder = new_folder(f"capture-{kind}-{place}", "train")
        status, out, said = run(folder, train_arguments(form), ["--fail", f"{kind}:{place}", "--defer"])
        if LOST not in said:
            continue
        judge_failure("train", status, out, said, clean)
        if status or said.count(LOST) != 1 or not re.search(r", in '.+' at \w+/\w+\.cu?:\d+", said):
            raise Wrong(f"it ends with {status}: {said[-600:]}")
        same(result("train", folder, form, out), clean, "without a graph")
        return "met"
    raise Wrong("no place was found that lies in a capture")


def trial(command, kind, place, form, clean):
    """One failure, and what comes after it: "not met", "met", "ended"."""
    folder = new_folder(f"{command}-{kind}-{place}-{form}", command)
    arguments = COMMANDS[command][0](form)
    options = ["--fail", f"{kind}:{place}"]
    number = sum(map(ord, f"{command}{kind}{place}"))
    if number % 2:
        options += ["--defer", "--seed", str(number)]
    status, out, said = run(folder, arguments, options)
    met = "--fail:" in said
    judge_failure(command, status, out, said, clean)
    judge_ranges(folder)
    if status == 0:
        same(result(command, folder, form, out), clean, "it ends well, but")
        if met and kind in FINAL and LOST not in said:
            raise Wrong(f"it goes on as if nothing had failed: {said[-600:]}")
    else:
        if not met:
            raise Wrong(f"it ends with 1 without a failure: {said[-600:]}")
        again = must(folder, arguments, [])
        same(result(command, folder, form, again), clean, "run again")
    shutil.rmtree(folder)
    return "ended" if status else "met" if met else "not met"


def make_fixture():
    os.makedirs(HERE, exist_ok=True)
    subprocess.run([os.environ["SERENADE_MAKE_CORPUS"], os.path.join(HERE, "all")], check=True)
    os.makedirs(os.path.join(HERE, "corpus/RAVDESS"))
    for actor in ("Actor_01", "Actor_02"):
        shutil.copytree(os.path.join(HERE, "all/RAVDESS", actor), os.path.join(HERE, "corpus/RAVDESS", actor))
    with open(os.path.join(HERE, "config.yaml"), "w", encoding="utf-8") as file:
        file.write("corpora:\n  ravdess: corpus/RAVDESS\n")
    must(HERE, ["index", "--ravdess", "corpus/RAVDESS", "-o", "few.csv", "--quiet"])
    must(HERE, ["audit", "few.csv", "--quiet"])
    must(HERE, ["extract", "few.csv", "--cache", CACHE, "--device", "cuda", "--quiet"], [])
    must(new_folder("one-epoch", "train"), [*train_arguments(""), "--set", "train.epochs=1"], [])


def clean_results(wanted):
    clean = {}
    for command, form in sorted(wanted | {("train", ""), ("train", "cudnn")}, key=lambda w: (w[0] != "train", w)):
        folder = new_folder(f"clean-{command}-{form}", command)
        out = must(folder, COMMANDS[command][0](form), [])
        clean[command, form] = result(command, folder, form, out)
    return clean


def places_asked(words):
    """KIND -> places, from KIND, KIND:N and KIND:N-M."""
    asked = {}
    for word in words:
        kind, _, place = word.partition(":")
        if kind not in KINDS:
            sys.exit(f"{word}: no kind of failure; there are {' '.join(KINDS)}")
        first, _, last = place.partition("-")
        asked[kind] = range(int(first), int(last or first) + 1) if place else PLACES
    return asked


def trials(part, words):
    if part:
        return PART
    asked = places_asked(words) or {kind: PLACES for kind in KINDS}
    listed = [(command, kind, place, "") for command in COMMANDS for kind in asked for place in asked[kind]]
    listed += [("train", kind, place, form) for form, kinds in
               (("cudnn", ("cudnn", "handle", "kernel", "malloc")), ("wide", ("cublas", "handle", "launch", "malloc")))
               for kind in kinds if kind in asked for place in asked[kind]]
    # From then on nothing more of its kind works.
    listed += [(command, kind, f"{place}+", "") for command in COMMANDS
               for kind in ("malloc", "hostalloc", "launch", "eventsync", "streamsync") if kind in asked and not words
               for place in (3, 9)]
    return listed


def main():
    global HERE, CACHE
    words = sys.argv[1:]
    part, keep = "--part" in words, "--keep" in words
    HERE = tempfile.mkdtemp(prefix="serenade-faults-")
    CACHE = os.path.join(HERE, "cache-of-all")
    listed = trials(part, [w for w in words if not w.startswith("--")])
    counts, wrong = {}, []
    try:
        make_fixture()
        clean = clean_results({(command, form) for command, _, _, form in listed})
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            futures = {pool.submit(trial, *t, clean[t[0], t[3]]): t for t in listed}
            if not words or part:
                for kind, place, more, said in graph_places():
                    future = pool.submit(graph_trial, kind, place, more, said, clean["train", ""])
                    futures[future] = ("train", kind, place, "in a graph")
                for kind, form in (("launch", ""), ("cudnn", "cudnn")):
                    future = pool.submit(capture_trial, kind, form, clean["train", form])
                    futures[future] = ("train", kind, "in a capture", form)
            for future in concurrent.futures.as_completed(futures):
                command, kind, place, form = futures[future]
                name = f"{command}{' ' + form if form else ''}, {kind}:{place}"
                try:
                    found = future.result()
                except Wrong as error:
                    found = "wrong"
                    wrong.append(name)
                    print(f"WRONG: {name}: {error}", flush=True)
                counts.setdefault(command, {}).setdefault(found, []).append(name)
    finally:
        if not (keep and wrong):
            shutil.rmtree(HERE, ignore_errors=True)
    for command, found in sorted(counts.items()):
        print(f"{command}: " + ", ".join(f"{len(names)} {what}" for what, names in sorted(found.items())))
        if part and "not met" in found:
            print(f"  not met: {'; '.join(found['not met'])}")
    total = sum(len(names) for found in counts.values() for names in found.values())
    print(f"{total} failures asked for; met: gone on with the right result; ended: with the right words, and went on "
          f"when run again; not met: the call never came; {len(wrong)} wrong")
    if keep and wrong:
        print(f"their folders stand in {HERE}")
    met = all("not met" not in found for found in counts.values())
    if part and not met:
        print("WRONG: of this part each failure is to be met: the calls have changed, and it no longer shows anything")
    sys.exit(bool(wrong) or (part and not met))


if __name__ == "__main__":
    main()
