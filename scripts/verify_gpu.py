"""Whether a GPU's figures are what they should be: bench's JSON held against limits, and beside estimates.

usage: verify_gpu.py LIMITS.json BENCH_CUDA.json BENCH_CPU.json [PYTORCH.json]

A line for each threshold of LIMITS (scripts/verify_gpu.json): pass, FAIL or skipped, what was measured and what is
wanted. Then, where LIMITS has estimates for this GPU, each of them beside what was measured: confirmed within a factor
of two, else refuted, which fails nothing. Then PyTorch's figures on the same GPU (scripts/peers/gpu.py). Ends with 1
where a threshold fails, or a file cannot be used."""
import json
import re
import sys

FACTOR = 2.0  # an estimate within it is confirmed
WANTS = {"at_least": "at least", "at_most": "at most", "over_cpu": "times the CPU's, at least",
         "over_pytorch": "times PyTorch's, at least"}


class Unusable(Exception):
    """A file that is not there, or not what it should be; says which and what is wrong."""


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def number(value):
    return "-" if value is None else f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise Unusable(f"{path}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise Unusable(f"{path}: an object is expected, not a {type(data).__name__}")
    return data


def read_stages(path):
    """A file's results by name, and all of it."""
    data = read_json(path)
    results = data.get("results")
    if not isinstance(results, list) or not all(isinstance(line, dict) and isinstance(line.get("name"), str)
                                                for line in results):
        raise Unusable(f"{path}: 'results' is not a list of named stages")
    return {result["name"]: result for result in results}, data


def read_limits(path):
    data = read_json(path)
    thresholds, estimates = data.get("thresholds"), data.get("estimates")
    if not isinstance(thresholds, list) or not thresholds:
        raise Unusable(f"{path}: 'thresholds' is not a list, or has nothing in it")
    if not isinstance(estimates, dict):
        raise Unusable(f"{path}: 'estimates' is not an object")
    for i, limit in enumerate(thresholds):
        named = isinstance(limit, dict) and all(isinstance(limit.get(key), str) for key in ("stage", "figure"))
        kinds = [kind for kind in WANTS if kind in limit] if named else []
        if len(kinds) != 1 or not (limit[kinds[0]] is None or is_number(limit[kinds[0]])):
            raise Unusable(f"{path}: threshold {i + 1} needs a stage, a figure and one of {', '.join(WANTS)} with a "
                           f"number or null: {json.dumps(limit)}")
    for name, kind in estimates.items():
        if not isinstance(kind, dict) or not isinstance(kind.get("match"), str):
            raise Unusable(f"{path}: the estimates of {name} need a 'match', a word of the GPU's name")
    return thresholds, estimates


def figure_of(stages, limit, path):
    """The number, or words that say why there is none."""
    stage = stages.get(limit["stage"])
    if stage is None:
        return None, f"the stage {limit['stage']} is not in {path}"
    value = stage
    for key in limit["figure"].split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not is_number(value):
        return None, f"{limit['stage']} has no {limit['figure']} in {path}"
    return value, ""


def judge(limit, cuda, others, paths):
    """The status, and the words of the line."""
    kind = next(kind for kind in WANTS if kind in limit)
    wanted = limit[kind]
    if wanted is None:
        return "skipped", "no limit is set"
    measured, why = figure_of(cuda, limit, paths["cuda"])
    if measured is None:
        return "FAIL", why
    against = ""
    if kind in others:
        if others[kind] is None:
            return "skipped", "PyTorch was not measured"
        beside, why = figure_of(others[kind], limit, paths[kind])
        if beside is None:
            return "skipped" if kind == "over_pytorch" else "FAIL", why
        if beside <= 0:
            return "FAIL", f"{limit['stage']} has a {limit['figure']} of {number(beside)} in {paths[kind]}"
        against = f" ({number(measured)} beside {number(beside)})"
        measured /= beside
    good = measured <= wanted if kind == "at_most" else measured >= wanted
    return "pass" if good else "FAIL", f"{number(measured)}{against}; wanted: {WANTS[kind]} {number(wanted)}"


def tell_estimates(estimates, device, cuda):
    named = [n for n, kind in estimates.items() if re.search(rf"\b{re.escape(kind['match'])}\b", device, re.I)]
    name = named[0] if named else None
    if name is None:
        print(f"\nno estimates for {device}; there are some for {', '.join(estimates) or 'none'}")
        return
    print(f"\nestimates of {name}, beside {device}\n"
          f"{'stage':<16} {'unit':<8} {'estimate':>10} {'measured':>10} {'ratio':>7}")
    for stage, estimate in estimates[name].items():
        if stage in ("match", "comment"):
            continue
        line = cuda.get(stage, {})
        measured, unit = line.get("median"), line.get("unit", "")
        if not is_number(measured):
            measured = None
        words, ratio = "not measured", None
        if not is_number(estimate):
            words, estimate = "no estimate", None
        elif measured and estimate > 0:
            ratio = measured / estimate
            words = "confirmed" if 1 / FACTOR <= ratio <= FACTOR else "refuted"
        print(f"{stage:<16} {unit:<8} {number(estimate):>10} {number(measured):>10} {number(ratio):>7}  {words}")


def tell_pytorch(pytorch, cuda, data):
    print(f"\nbeside PyTorch {data.get('torch', '')} on {data.get('device', 'an unnamed device')}\n"
          f"{'stage':<16} {'unit':<8} {'PyTorch':>10} {'Serenade':>10} {'ratio':>7}  PyTorch's best, and others")
    for name, line in pytorch.items():
        theirs, ours = line.get("median"), cuda.get(line.get("beside", name), {}).get("median")
        theirs, ours = (value if is_number(value) else None for value in (theirs, ours))
        forms = line.get("forms") if isinstance(line.get("forms"), dict) else {}
        told = ", ".join(f"{form} {number(rate) if is_number(rate) else rate}" for form, rate in forms.items())
        ratio = ours / theirs if ours and theirs else None
        print(f"{name:<16} {line.get('unit', ''):<8} {number(theirs):>10} {number(ours):>10} {number(ratio):>7}  "
              f"{line.get('best') or '-'}{'; ' if told else ''}{told}")


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit("usage: verify_gpu.py LIMITS.json BENCH_CUDA.json BENCH_CPU.json [PYTORCH.json]")
    thresholds, estimates = read_limits(sys.argv[1])
    paths = {"cuda": sys.argv[2], "over_cpu": sys.argv[3], "over_pytorch": (sys.argv + [""])[4]}
    cuda, machine = read_stages(paths["cuda"])
    cpu, _ = read_stages(paths["over_cpu"])
    pytorch, pytorch_data = read_stages(paths["over_pytorch"]) if paths["over_pytorch"] else (None, {})
    others = {"over_cpu": cpu, "over_pytorch": pytorch}
    counts = {"pass": 0, "FAIL": 0, "skipped": 0}
    for limit in thresholds:
        status, words = judge(limit, cuda, others, paths)
        counts[status] += 1
        print(f"{status:<8} {limit['stage'] + ' ' + limit['figure']:<38} {words}")
    processor = machine.get("machine", {})
    device = processor.get("processor") if isinstance(processor, dict) else None
    tell_estimates(estimates, device if isinstance(device, str) else "an unnamed GPU", cuda)
    if pytorch is not None:
        tell_pytorch(pytorch, cuda, pytorch_data)
    print(f"\n{counts['pass']} thresholds pass, {counts['FAIL']} FAIL, {counts['skipped']} skipped")
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unusable as unusable:
        print(f"FAIL     {unusable}")
        sys.exit(1)
