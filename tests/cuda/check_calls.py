"""Holds the sources of the CUDA backend to its one way of calling (cuda/cuda.h): each call of the runtime or of a
library stands within one of the macros that ask, count and look at the status; each launch is CUDA_LAUNCH's; and what
is enqueued names a stream of ours, so that nothing is on the default one. First it is shown some of what it refuses.

Usage: check_calls.py FOLDER of the sources"""
import glob
import os
import re
import sys

ASK = {"CUDA_ASK", "CUDA_DO", "CUDA_SET", "CUDA_CALL", "CUDA_TRY", "CUDA_END", "MADE"}
CALL = re.compile(r"(cuda|cudnn|cublas|cublasLt|cufft)[A-Z]\w*$")
WORDS = re.compile(r"\w+(Error|Status)String$")  # of a status that there is already
# Of the default stream, or on it where no stream is named; and launches by hand.
REFUSED = re.compile(r"cudaMem(cpy|set|Prefetch)\w*(?<!Async)$|cudaStreamCreate$|cudaDeviceSynchronize$|cudaLaunch\w+$")
STREAM = re.compile(r"->(cuda|setup)$")
TOKEN = re.compile(r"<<<|>>>|[A-Za-z_]\w*|\S")
BLANKED = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)


def plain(text):
    """Without comments and strings, lines kept."""
    return BLANKED.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), text)


def check(name, text):
    """What is wrong in one source, a line of words each."""
    text, wrong, stack = plain(text), [], []  # stack: of open brackets (name before it, where its last argument begins)
    before = ""
    for token in TOKEN.finditer(text):
        word, line = token.group(), text.count("\n", 0, token.start()) + 1
        if word == "(" and REFUSED.match(before):
            wrong.append(f"{name}:{line}: {before} waits, or is on the default stream, or launches by hand")
        if word == "<<<" and not re.search(r"#define CUDA_LAUNCH\((?:[^\n]*\\\n)*[^\n]*$", text[:token.start()]):
            wrong.append(f"{name}:{line}: a launch that is not CUDA_LAUNCH's")
        if word == ">>>" and not text[:token.start()].rstrip().endswith("->cuda"):
            wrong.append(f"{name}:{line}: a launch that names no stream")
        if word == "(":
            around = [of for of, _ in stack if of]
            if CALL.match(before) and not WORDS.match(before) and not (around and around[-1] in ASK):
                wrong.append(f"{name}:{line}: {before} is called outside of the macros that count and look")
            stack.append([before if re.match(r"\w", before) else "", token.end()])
        elif word == "," and stack:
            stack[-1][1] = token.end()
        elif word == ")" and stack:
            called, last = stack.pop()
            argument = text[last:token.start()].strip()
            if re.match(r"cuda\w+Async$", called) and not STREAM.search(argument):
                wrong.append(f"{name}:{line}: {called} on '{argument}', which is no stream of ours")
        before = word
    for macro, body in re.findall(r"#define (\w+)\([^)\n]*\)((?:[^\n]*\\\n)*[^\n]*)", text):
        if macro in ASK - {"CUDA_ASK"} and not set(re.findall(r"\w+", body)) & ASK:
            wrong.append(f"{name}: {macro} does not ask by CUDA_ASK")
        if macro == "CUDA_ASK" and "cuda_count_asked()" not in body:
            wrong.append(f"{name}: {macro} does not count")
    return wrong


# What must be refused, and what must not.
BAD = ["if (x) cudaGraphDestroy(x);", "int s = (int)cudnnSetStream(handle, stream->cuda);", "kernel<<<1, 1, 0, s->cuda>>>(x);",
       "CUDA_SAID(stream, CUDA_LT, cublasLtCreate(&lt));", "CUDA_DO(stream, cudaMemcpy(a, b, 4, kind));",
       "CUDA_DO(stream, cudaMemcpyAsync(a, b, 4, kind, 0));", "CUDA_TRY(CUDA_FFT, wrap(cufftCreate(&p)), err);",
       "CUDA_DO(s, cudaLaunchKernel(f, g, b, a, 0, s->cuda));", "#define CUDA_DO(s, call) ((int)(call))",
       "#define CUDA_LAUNCH(s, k) k<<<1, 1>>>()", "#define CUDA_ASK(call) ((int)(call))"]
GOOD = ["CUDA_END(pinned ? cudaFreeHost(memory) : cudaFree(memory));", "/* cudaMalloc(x) */ say(\"cudaFree(x)\");",
        "CUDA_DO(s, cudaMemcpyAsync(a, b, f(4, 5), kind, s->cuda));", "words(cudaGetErrorString((cudaError_t)status));",
        "static cudaStream_t made; made_by(cudaSuccess);", "CUDA_TRY(CUDA_DNN, cudnnCreate(&device->cudnn), err);"]


def main():
    wrong = [f"this is let pass: {text}" for text in BAD if not check("sample", text)]
    wrong += [words for text in GOOD for words in check("sample", text)]
    sources = [path for form in ("cuda/*.[ch]", "cuda/*.cu", "kernels/*.cu", "kernels/*_cuda.h", "kernels/cuda_*.h")
               for path in sorted(glob.glob(os.path.join(sys.argv[1], form)))]
    calls = 0
    for path in sources:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        wrong += check(os.path.relpath(path, sys.argv[1]), text)
        calls += len(re.findall(r"\bCUDA_(?:ASK|DO|SET|CALL|TRY|END|LAUNCH)\(", plain(text)))
    print(f"{len(sources)} sources, {calls} calls and launches, {len(wrong)} wrong")
    for words in wrong:
        print(f"  WRONG: {words}")
    sys.exit(bool(wrong) or calls < 100)


if __name__ == "__main__":
    main()
