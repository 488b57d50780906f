"""Both solvers of the probe side by side, and what a large fit takes.

    python tests/bench/probe.py --out docs/benchmarks/probe.json

Features are drawn at random with the covariance of a network's: the variance in the n-th principal
direction falls as 1/n, and classes differ in the first directions only. Each size is fitted by both
solvers in turn, penalty chosen on held-out images, the best of a few rounds. Sizes that would take
scikit-learn minutes are fitted by torch alone, in a process of their own whose memory is read.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch

import numpy as np
import record
import torch

from finetune.train.linear import Features
from finetune.train.probe import fit_probe
from finetune.train.solvers import LARGE, SolverName

SIZES = (  # images, features, classes
    (300, 1280, 6),
    (1_000, 1280, 10),
    (2_500, 1280, 10),
    (10_000, 1280, 2),
    (5_000, 1280, 10),
    (10_000, 384, 20),
    (5_000, 1280, 30),
)
LARGE_SIZES = ((50_000, 1280, 100), (100_000, 384, 20))
NUM_TELLING = 64  # principal directions in which classes differ
DISTANCE = 0.35  # of classes in each, in standard deviations
SOLVERS: tuple[SolverName, SolverName] = ("scikit-learn", "torch")
NUM_COMPARED = 1_000  # images whose probabilities are
NAME = "probe.json"
LIBRARIES = ("torch", "scikit-learn", "scipy", "numpy")


def main() -> int:
    """Measure and write JSON; or fit one size and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--alone", type=int, nargs=3, help="fit this size by torch")
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(fit_alone(*given.alone)))
        return 0
    load_before = os.getloadavg()[0]
    rows = []
    for name in SOLVERS:  # what is imported at the first fit
        fit_probe(drawn(100, 8, 2), drawn(0, 8, 2), num_classes=2, solver=name)
    for size in SIZES:
        rows.append(compare(*size, rounds=given.rounds))
        print(json.dumps(rows[-1]), flush=True)
    for size in LARGE_SIZES:
        command = [sys.executable, __file__, "--alone", *map(str, size)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(told))
        print(json.dumps(rows[-1]), flush=True)
    if given.out:
        written = document(rows, given.rounds, load_before)
        given.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return 0


def compare(num_images: int, width: int, num_classes: int, *, rounds: int) -> dict[str, Any]:
    """Fit one size by both solvers in turn."""
    train = drawn(num_images, width, num_classes)
    none = train[:0]
    seconds: dict[SolverName, list[float]] = {name: [] for name in SOLVERS}
    for _ in range(rounds):
        probes = {}
        for name in SOLVERS:
            started = clock(name)
            probes[name] = fit_probe(train, none, num_classes=num_classes, solver=name)
            seconds[name].append(clock(name) - started)
    ours, theirs = (
        probes[name].model.probabilities(train.values[:NUM_COMPARED]) for name in SOLVERS
    )
    best = {name: min(found) for name, found in seconds.items()}
    return row_of(num_images, width, num_classes) | {
        "scikit_learn_seconds": round(best["scikit-learn"], 3),
        "torch_seconds": round(best["torch"], 3),
        "torch_times_faster": round(best["scikit-learn"] / best["torch"], 3),
        "penalty": 1 / (probes["torch"].strength * num_images),
        "same_penalty": len({probe.strength for probe in probes.values()}) == 1,
        "max_probability_difference": float(np.abs(ours - theirs).max()),
        "memory_of_features": None,
    }


def fit_alone(num_images: int, width: int, num_classes: int) -> dict[str, Any]:
    """Fit one size by torch; memory is counted from when the features are there."""
    train = drawn(num_images, width, num_classes)
    fit_probe(train[:500], train[:0], num_classes=num_classes, solver="torch")  # imports
    before = peak_bytes()
    started = clock("torch")
    probe = fit_probe(train, train[:0], num_classes=num_classes, solver="torch")
    seconds = clock("torch") - started
    return row_of(num_images, width, num_classes) | {
        "scikit_learn_seconds": None,
        "torch_seconds": round(seconds, 3),
        "torch_times_faster": None,
        "penalty": 1 / (probe.strength * num_images),
        "same_penalty": None,
        "max_probability_difference": None,
        "memory_of_features": round((peak_bytes() - before) / train.values.nbytes, 2),
    }


def row_of(num_images: int, width: int, num_classes: int) -> dict[str, Any]:
    """Name one size."""
    return {
        "num_images": num_images,
        "num_features": width,
        "num_classes": num_classes,
        "product": num_images * width * num_classes,
    }


def drawn(num_images: int, width: int, num_classes: int) -> Features:
    """Draw features, without a second array of their size."""
    rng = np.random.default_rng(0)
    spread = np.arange(1, width + 1) ** -0.5
    turn, _ = np.linalg.qr(rng.standard_normal((width, width)))
    turn = (spread[:, None] * turn).astype(np.float32)
    centres = DISTANCE * rng.standard_normal((num_classes, width), dtype=np.float32)
    centres[:, NUM_TELLING:] = 0
    labels = rng.permutation(np.arange(num_images) % num_classes)
    values = np.empty((num_images, width), np.float32)
    for first in range(0, num_images, 1_000):
        rows = slice(first, first + 1_000)
        noise = rng.standard_normal(values[rows].shape, dtype=np.float32)
        values[rows] = (noise + centres[labels[rows]]) @ turn
    return Features(values, labels)


def clock(solver: SolverName) -> float:
    """Read a clock in seconds: processor time shared by the threads that a solver has."""
    return time.process_time() / (1 if solver == "scikit-learn" else torch.get_num_threads())


def peak_bytes() -> int:
    """Give the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def document(rows: list[dict[str, Any]], rounds: int, load_before: float) -> dict[str, Any]:
    """Say what was measured on what."""
    threads = torch.get_num_threads()
    return {
        "title": "The two solvers of the probe",
        "command": f"python tests/bench/probe.py --rounds {rounds} --out docs/benchmarks/{NAME}",
        "commit": record.commit(),
        "device": record.device(),
        "versions": record.versions(*LIBRARIES),
        "threads": threads,
        "load_average": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "notes": [
            f"product: images x features x classes; torch is chosen from {LARGE:,} on",
            "seconds: the whole probe, its penalty chosen on images held out of the training part "
            "(five folds below 5,000 images, one from there on); processor time by the number of "
            f"threads, one of scikit-learn in float64, {threads} of torch in float32; the best of "
            f"{rounds} rounds in turn, where both were tried",
            "max_probability_difference: scikit-learn stops farther from the minimum",
            "memory_of_features: the peak of the process beyond what it held with the features, "
            "in multiples of their size",
            "seconds of scikit-learn are missing where they would be minutes: not tried",
            f"load average {load_before:.1f} before and {os.getloadavg()[0]:.1f} after: "
            "processor time on a busy machine is longer than on a quiet one, for both",
        ],
        "rows": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
