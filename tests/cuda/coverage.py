"""What the tests on the software device have executed: every kernel of the module must have been launched, every
function of the CUDA libraries that it imports must have been called. Reads the reports that they left. And whether the
module keeps from what that device takes and a GPU might not.

Usage: coverage.py MODULE REPORT.json..."""
import json
import re
import subprocess
import sys


def imported(module):
    """The CUDA functions that the module takes from elsewhere."""
    names = subprocess.run(["nm", "-D", "--undefined-only", module], check=True, capture_output=True, text=True).stdout
    words = [line.split()[-1].split("@")[0] for line in names.splitlines() if line.strip()]
    return {w for w in words if re.match(r"(cuda|cublas|cufft|cudnn)[A-Z]", w)}


# What the compiler's own start-up code and launches call, and only counts where it is asked for.
INNER = re.compile(r"__cuda|cudaLaunchKernel|cudaGetLastError|cudaPeekAtLastError")

# The algorithms of cuDNN that the module runs refuse gradients at the output with gaps between rows or channels; the
# software device does not. Without these functions every tensor is packed.
GAPS = {"cudnnSetTensor4dDescriptorEx", "cudnnSetTensorNdDescriptor", "cudnnSetTensorNdDescriptorEx"}


def main():
    module, reports = sys.argv[1], sys.argv[2:]
    launched, called = {}, {}
    for path in reports:
        with open(path) as file:
            report = json.load(file)
        totals = report["totals"]
        for kernel in totals["kernels"]:
            launched[kernel["name"]] = launched.get(kernel["name"], 0) + kernel["launches"]
        for name, count in totals["calls"].items():
            called[name] = called.get(name, 0) + count
    if not reports or not launched:
        sys.exit("there are no reports of kernels: the tests on the software device have not run before this one")
    missing = [f"kernel {name} was never launched" for name, count in sorted(launched.items()) if not count]
    functions = {name for name in imported(module) if not INNER.match(name)}
    missing += [f"{name} is imported: cuDNN would be given strides of our own" for name in sorted(functions & GAPS)]
    missing += [f"{name} is imported and was never called" for name in sorted(functions) if not called.get(name)]
    print(f"{len(reports)} reports, {len(launched)} kernels, {len(functions)} functions of libraries")
    for line in missing:
        print(line)
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
