#!/usr/bin/env python3
"""Makes tests/golden/data/resample.{bin,json}: librosa.resample (soxr HQ) of one made signal between pairs of rates.

resample.bin holds little-endian float32: the input, then the output of each pair in the order of resample.json.
Run it with librosa and soxr installed; resample.json records their versions.
"""
import json
import pathlib

import librosa
import numpy as np
import soxr

PAIRS = [(48000, 22050), (48000, 16000), (44100, 22050), (24414, 22050), (16000, 22050), (8000, 22050),
         (96000, 22050), (192000, 16000)]
COUNT = 2501


def main():
    rng = np.random.default_rng(20240607)
    t = np.arange(COUNT)
    signal = 0.4 * np.sin(0.031 * t) + 0.3 * np.sin(0.00021 * t * t) + 0.1 * rng.standard_normal(COUNT)
    signal[700] += 1.5  # an impulse above full scale
    signal[1200:1500] = 0
    signal = signal.astype("<f4")
    parts, entries = [signal], []
    for source, target in PAIRS:
        out = librosa.resample(signal, orig_sr=source, target_sr=target, res_type="soxr_hq").astype("<f4")
        parts.append(out)
        entries.append({"from": source, "to": target, "count": len(out)})
    folder = pathlib.Path(__file__).resolve().parent / "data"
    folder.mkdir(exist_ok=True)
    np.concatenate(parts).tofile(folder / "resample.bin")
    about = {"made_by": {"librosa": librosa.__version__, "numpy": np.__version__, "soxr": soxr.__version__,
                         "libsoxr": soxr.__libsoxr_version__},
             "input": COUNT, "outputs": entries}
    (folder / "resample.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
