#!/usr/bin/env python3
"""Makes tests/golden/metrics.json: truths and answers with the numbers and the report that scikit-learn gives for them.

    python3 tests/golden/make_metrics.py [OUT]

Needs scikit-learn and numpy (the versions are recorded in the file). The cases are seeded: the same versions give the
same bytes.
"""
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import sklearn
from sklearn import metrics

EMOTIONS = ["neutral", "happy", "sad", "angry", "fearful", "disgust", "calm", "surprised"]


def case(name, truth, answer, labels):
    k = len(labels)
    truth, answer = np.asarray(truth, dtype=np.int64), np.asarray(answer, dtype=np.int64)
    every = list(range(k))
    p, r, f, s = metrics.precision_recall_fscore_support(truth, answer, labels=every, zero_division=0)
    means = {  # told no labels: over those that occur among truths or answers
        average: [
            float(x)
            for x in metrics.precision_recall_fscore_support(truth, answer, average=average, zero_division=0)[:3]
        ]
        for average in ("macro", "weighted")
    }
    occurring = [labels[i] for i in sorted(set(truth) | set(answer))]
    confusion = metrics.confusion_matrix(truth, answer, labels=every)
    assert confusion.sum() == len(truth)
    return {
        "name": name,
        "labels": labels,
        "confusion": confusion.tolist(),
        "war": float(metrics.accuracy_score(truth, answer)),
        "uar": float(metrics.balanced_accuracy_score(truth, answer)),
        "precision": p.tolist(),
        "recall": r.tolist(),
        "f1": f.tolist(),
        "support": [int(x) for x in s],
        "macro": means["macro"],
        "weighted": means["weighted"],
        "report": metrics.classification_report(truth, answer, target_names=occurring, digits=4, zero_division=0),
    }


def drawn(rng, k, n, skill, weights=None):
    """Truths drawn by weights; answers right with probability skill, else any class."""
    truth = rng.choice(k, size=n, p=weights)
    return truth, np.where(rng.random(n) < skill, truth, rng.integers(0, k, size=n))


def from_confusion(matrix):
    truth, answer = [], []
    for i, row in enumerate(matrix):
        for j, n in enumerate(row):
            truth += [i] * n
            answer += [j] * n
    return truth, answer


def make():
    rng = np.random.default_rng(20240607)
    six, eight = EMOTIONS[:6], EMOTIONS
    cases = []
    for n in (1, 2, 3, 7, 50, 333, 2260):
        for skill in (0.0, 0.4, 0.8, 1.0):
            cases.append(case(f"six, {n} clips, skill {skill}", *drawn(rng, 6, n, skill), six))
            cases.append(case(f"eight, {n} clips, skill {skill}", *drawn(rng, 8, n, skill), eight))
    for seed in range(30):
        w = rng.dirichlet(np.full(8, 0.4))
        cases.append(case(f"eight, uneven {seed}", *drawn(rng, 8, int(rng.integers(5, 900)), 0.55, w), eight))
    cases += [
        case("large counts", *from_confusion(rng.integers(0, 700, size=(6, 6))), six),
        case("larger counts", *from_confusion([[123456, 1], [2, 98765]]), ["neutral", "happy"]),
        case("a class without truths", *from_confusion([[5, 2, 0], [1, 7, 3], [0, 0, 0]]), six[:3]),
        case("a class without answers", *from_confusion([[5, 2, 0], [1, 7, 0], [2, 2, 0]]), six[:3]),
        case("a class with neither", *from_confusion([[5, 0, 2], [0, 0, 0], [1, 0, 6]]), six[:3]),
        case("one class occurs, all right", [2] * 9, [2] * 9, six),
        case("one class occurs, some right", [2] * 9, [2, 2, 2, 1, 0, 2, 5, 5, 2], six),
        case("one class occurs, none right", [2] * 9, [1] * 9, six),
        case("a single class", [0] * 4, [0] * 4, ["neutral"]),
        case("one clip, right", [5], [5], six),
        case("one clip, wrong", [5], [0], six),
        case("all wrong", [0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0], six),
        case("all right", list(range(8)) * 3, list(range(8)) * 3, eight),
        case("long label", *drawn(rng, 3, 40, 0.6), ["neutral", "pleasantly surprised", "sad"]),
        case("label with accents", *drawn(rng, 3, 40, 0.6), ["neutral", "überglücklich überrascht", "traurig"]),
        # Shares that end in ...5 at the fourth digit, where a different order of adding shows.
        case("ties of rounding", *from_confusion([[1, 31], [3, 29]]), ["sad", "angry"]),
        case("ties of rounding, more", *from_confusion([[13, 3, 0], [1, 15, 0], [5, 0, 27]]), six[:3]),
    ]
    return {"scikit-learn": sklearn.__version__, "numpy": np.__version__, "cases": cases}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("metrics.json")
    golden = make()
    lines = ",\n".join(json.dumps(c) for c in golden.pop("cases"))
    head = json.dumps(golden)[:-1]
    out.write_text(f'{head}, "cases": [\n{lines}\n]}}\n')
    print(f"{out}: {lines.count(chr(10)) + 1} cases")
