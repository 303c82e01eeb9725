#!/usr/bin/env python3
"""Makes mfcc.json and mfcc.bin: what librosa says of made and synthesised signals.

    python3 tests/golden/make_mfcc.py            writes them beside this file
    python3 tests/golden/make_mfcc.py --check    compares them with what librosa says now

Made with the packages that mfcc.json names (pip install librosa==... and so on). Signals are made of integers alone, by
rules that test_mfcc.c repeats, so that no audio is stored but one short clip of synthesised speech (espeak.s16, from
espeak-ng 1.51, resampled by soxr); each signal's checksum is kept. mfcc.bin holds float32 features, frames by columns,
case after case.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
SINE = np.rint(30000 * np.sin(2 * np.pi * np.arange(65536) / 65536)).astype(np.int64)
FORMANTS = [(730, 1090), (270, 2290), (300, 870), (530, 1840), (570, 840)]
HARMONICS = 16


def noise(seed, samples):
    """Repeatable numbers in [-32768, 32767], one for each sample."""
    x = np.arange(samples, dtype=np.uint64) * 0x9E3779B1 + seed * 0x85EBCA77 & 0xFFFFFFFF
    x ^= x >> np.uint64(16)
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x ^= x >> np.uint64(15)
    x = x * 0x846CA68B & 0xFFFFFFFF
    x ^= x >> np.uint64(16)
    return (x >> np.uint64(16)).astype(np.int64) - 32768


def sine(phase):
    """phase: a turn is 2^32."""
    return SINE[phase >> 16 & 65535]


def speech(seed, samples, rate):
    """Syllables of a fifth of a second: vowels of sixteen harmonics under two formants, every fourth one hissed."""
    i = np.arange(samples, dtype=np.int64)
    length = rate // 5
    syllable, within = i // length, i % length
    envelope = SINE[within * 32768 // length]
    f0 = 110 + seed % 7 * 20
    step = (f0 << 32) // rate
    steps = step + (sine(i * ((3 << 32) // rate)) * (step >> 5) >> 15)
    phase = np.cumsum(steps) - steps
    amplitudes = np.zeros((len(FORMANTS), HARMONICS + 1), dtype=np.int64)
    for vowel, formants in enumerate(FORMANTS):
        for h in range(1, HARMONICS + 1):
            amplitudes[vowel, h] = 8 + sum(1000 * 6400 // (6400 + (h * f0 - f) ** 2) for f in formants)
    vowel = (syllable * 3 + seed) % len(FORMANTS)
    voiced = np.zeros(samples, dtype=np.int64)
    for h in range(1, HARMONICS + 1):
        voiced += sine(h * phase) * amplitudes[vowel, h] >> 11
    hiss = noise(seed, samples) >> 3
    value = np.where(syllable % 4 == 3, hiss, voiced + (hiss >> 6))
    return value * envelope >> 16


def make(signal):
    """The int16 samples of a signal, as int64."""
    kind, n = signal["kind"], signal["samples"]
    seed, rate, a, b = (signal[k] for k in ("seed", "rate", "a", "b"))
    i = np.arange(n, dtype=np.int64)
    if kind == "zero":
        x = np.zeros(n, dtype=np.int64)
    elif kind == "noise":
        x = noise(seed, n) * a >> 15
    elif kind == "tone":  # a: thousandths of a hertz
        x = sine(i * ((a << 32) // (1000 * rate)))
    elif kind == "impulse":
        x = np.where(i == a, 32767, 0)
    elif kind == "speech":  # a: gain in 256ths, b: quietened by a shift
        x = speech(seed, n, rate) * a >> 8 + b
    elif kind == "gap":  # speech with silence in [a, b)
        x = np.where((i >= a) & (i < b), 0, speech(seed, n, rate))
    elif kind == "floor":  # a tone, then noise of one unit: far more than 80 dB apart
        x = np.where(i < n // 2, sine(i * ((a << 32) // (1000 * rate))), noise(seed, n) >> 15)
    elif kind == "edges":  # bursts at both ends, near silence between
        x = noise(seed, n) >> np.where((i < a) | (i >= n - b), 2, 13)
    else:  # espeak, read from beside this file and repeated
        stored = np.fromfile(HERE / "espeak.s16", dtype="<i2").astype(np.int64)
        x = stored[i % len(stored)]
    return np.clip(x, -32768, 32767)


def checksum(x):
    return int(np.sum(x * (np.arange(len(x), dtype=np.int64) % 1009 + 1)))


def signal(kind, samples, seed=1, rate=22050, a=256, b=0):
    return {"kind": kind, "samples": samples, "seed": seed, "rate": rate, "a": a, "b": b}


MFCC39 = {"rate": 22050, "n_fft": 2048, "hop": 512, "mels": 128, "coefficients": 13, "deltas": True, "samples": 0}
TIMNET = MFCC39 | {"coefficients": 39, "deltas": False, "samples": 110000}
NARROW = {"rate": 16000, "n_fft": 512, "hop": 160, "mels": 40, "coefficients": 20, "deltas": True, "samples": 0}


def cases():
    """Name, signal, configuration."""
    long = 63945  # 2.9 s, what an acted clip lasts
    yield "nine frames", signal("speech", 4096, 2), MFCC39
    yield "nine frames and all but a hop", signal("speech", 4607, 3), MFCC39
    yield "ten frames", signal("noise", 4608, 4, a=9000), MFCC39
    yield "speech", signal("speech", long, 5), MFCC39
    yield "espeak", signal("espeak", 44100), MFCC39
    yield "the model's window", signal("speech", 82432, 6), MFCC39
    yield "silence in the middle", signal("gap", long, 7, a=20000, b=45000), MFCC39
    yield "clipped", signal("speech", long, 8, a=256 * 12), MFCC39
    yield "all zero", signal("zero", 30000), MFCC39
    yield "impulse", signal("impulse", 20000, a=9999), MFCC39
    yield "pure tone", signal("tone", 40000, a=1000123), MFCC39
    yield "white noise", signal("noise", 40000, 9, a=16000), MFCC39
    yield "quiet", signal("speech", 40000, 10, b=9), MFCC39
    yield "loud edges", signal("edges", 30000, 11, a=700, b=1500), MFCC39
    yield "80 dB floor", signal("floor", 40000, 12, a=440000), MFCC39
    yield "a minute", signal("speech", 60 * 22050, 13), MFCC39
    yield "timnet, padded by an odd count", signal("speech", long, 14), TIMNET
    yield "timnet, cropped by an odd count", signal("speech", 131071, 15), TIMNET
    yield "timnet, as it is", signal("espeak", 110000), TIMNET
    yield "narrow", signal("speech", 30011, 16, 16000), NARROW
    yield "narrow, a clip shorter than its window", signal("noise", 200, 17, 16000, a=20000), NARROW | {"deltas": False}
    yield "narrow noise", signal("noise", 16000, 18, 16000, a=20000), NARROW
    other = {"rate": 44100, "n_fft": 4096, "hop": 1000, "mels": 100, "coefficients": 25, "deltas": True, "samples": 0}
    yield "wide", signal("speech", 90001, 19, 44100), other
    small = {"rate": 8000, "n_fft": 256, "hop": 77, "mels": 23, "coefficients": 12, "deltas": True, "samples": 0}
    yield "small", signal("speech", 12345, 20, 8000), small


def fit(x, to):
    """The rule of the TIM-Net code (extract_feature.py): an odd sample of padding behind, an odd sample cut behind."""
    if len(x) < to:
        before = (to - len(x)) // 2
        return np.pad(x, (before, to - len(x) - before))
    first = (len(x) - to) // 2
    return x[first : first + to]


def features(x, config):
    import librosa

    y = (x / 32768).astype(np.float32)
    if config["samples"]:
        y = fit(y, config["samples"])
    mfcc = librosa.feature.mfcc(
        y=y,
        sr=config["rate"],
        n_mfcc=config["coefficients"],
        n_fft=config["n_fft"],
        hop_length=config["hop"],
        n_mels=config["mels"],
    )
    if config["deltas"]:
        mfcc = np.concatenate([mfcc, librosa.feature.delta(mfcc), librosa.feature.delta(mfcc, order=2)])
    return np.ascontiguousarray(mfcc.T.astype("<f4"))


def synthesise():
    """Two seconds of espeak-ng at 22050 Hz."""
    import soundfile
    import soxr

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "said.wav"
        subprocess.run(["espeak-ng", "-v", "en", "-w", path, "Dogs are sitting by the door. Kids!"], check=True)
        y, rate = soundfile.read(path, dtype="float32")
    y = soxr.resample(y, rate, 22050, quality="HQ")[:44100]
    np.clip(np.rint(y * 32768), -32768, 32767).astype("<i2").tofile(HERE / "espeak.s16")


def versions():
    import librosa
    import scipy

    return {"librosa": librosa.__version__, "numpy": np.__version__, "scipy": scipy.__version__}


def write():
    if not (HERE / "espeak.s16").exists():
        synthesise()
    rows, blob = [], []
    for name, s, config in cases():
        x = make(s)
        f = features(x, config)
        rows.append({"name": name, "signal": s, "checksum": checksum(x), "config": config, "frames": f.shape[0]})
        blob.append(f.tobytes())
    (HERE / "mfcc.bin").write_bytes(b"".join(blob))
    lines = ",\n".join(json.dumps(row) for row in rows)
    (HERE / "mfcc.json").write_text(f'{{"made_with": {json.dumps(versions())}, "cases": [\n{lines}\n]}}\n')


def check():
    """Differences of another version of the packages from the golden, by case; fails above 1e-3."""
    stored = json.loads((HERE / "mfcc.json").read_text())
    blob = np.fromfile(HERE / "mfcc.bin", dtype="<f4")
    at, largest = 0, 0
    for row in stored["cases"]:
        columns = row["config"]["coefficients"] * (3 if row["config"]["deltas"] else 1)
        want = blob[at : at + row["frames"] * columns].reshape(-1, columns)
        at += want.size
        x = make(row["signal"])
        if checksum(x) != row["checksum"]:
            sys.exit(f"{row['name']}: the signal has another checksum")
        got = features(x, row["config"])
        if got.shape != want.shape:
            sys.exit(f"{row['name']}: {got.shape[0]} frames, the golden has {want.shape[0]}")
        largest = max(largest, float(np.abs(got - want).max()))
    print(f"made with {stored['made_with']}, now {versions()}: largest difference {largest:.3g}")
    sys.exit(largest > 1e-3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check() if parser.parse_args().check else write()
