"""What bf16 does to a probe: features of real photos in both precisions, the head fitted on each.

    python tests/bench/frozen.py --out docs/benchmarks/frozen.json

Photos of training and validation are pooled and parted anew for each seed, as many of each as there
were. Whatever the head was fitted on, it is judged on features in fp32, as figures of a run are.
Accuracies are paired: differences are bf16 less fp32 on the same parts. Images per second are by
the processor time of the calling thread.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from record import commit, device, versions

DATA = ("textures", "trash", "flowers")
MOST = {"train": 120, "val": 60}  # photos of a class
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


def main() -> int:
    """Measure every set and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--assets", type=Path, default=os.environ.get("FINETUNE_ASSETS"))
    parser.add_argument("--backbone", default="mobilenetv2_100.in1k")
    parser.add_argument("--seeds", type=int, default=8)
    given = parser.parse_args()
    rows = []
    for name in DATA:
        rows.append({"data": name, **measure(given, given.assets / "datasets" / name)})
        print(json.dumps(rows[-1]), flush=True)
    head = {
        "title": "A probe on features in bf16",
        "command": "python tests/bench/frozen.py --out docs/benchmarks/frozen.json",
        "commit": commit(),
        "device": device(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "versions": versions("torch", "timm", "scikit-learn"),
        "backbone": given.backbone,
        "seeds": given.seeds,
        "notes": [
            f"{given.backbone}, at most {MOST['train']} training photos of a class and "
            f"{MOST['val']} for validation, parted anew for each of {given.seeds} seeds",
            "relative_error: mean distance of features in bf16 from those in fp32, of their mean",
            "accuracies on features in fp32, the head fitted on features of either precision; "
            "differences are bf16 less fp32 on the same parts",
        ],
        "rows": rows,
    }
    given.out.write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compare the precisions on one set of photos."""
    backbone = f"local-dir:{given.assets / 'weights' / given.backbone}"
    features, labels, num_train, speed = features_of(folder, backbone)
    found = [scores(features, labels, num_train, seed) for seed in range(given.seeds)]
    differences = [score["bf16"] - score["fp32"] for score in found]
    error = np.abs(features["bf16"] - features["fp32"]).mean() / np.abs(features["fp32"]).mean()
    return {
        "num_train": num_train,
        "num_val": len(labels) - num_train,
        **{f"{name}_images_per_second": rate for name, rate in speed.items()},
        "relative_error": round(float(error), 4),
        **{f"{name}_accuracy": round(mean(s[name] for s in found), 4) for name in PRECISIONS},
        "mean_difference": round(mean(differences), 4) + 0.0,  # no -0.0
        "least_difference": round(min(differences), 4),
        "largest_difference": round(max(differences), 4),
    }


def mean(values: Any) -> float:
    """Give the mean of some numbers."""
    return float(np.mean(list(values)))


@torch.no_grad()
def features_of(folder: Path, backbone: str) -> tuple[dict[str, Any], Any, int, dict[str, float]]:
    """Give features in both precisions, labels, the number for training, and images a second."""
    from finetune.data.decode import decode
    from finetune.model.create import create_model
    from finetune.model.fuse import fused
    from finetune.recipe.load import load_recipe

    model = create_model(load_recipe({"model": {"backbone": backbone}}), num_classes=2)
    network: Any = fused(model.network.eval(), model.network.input_size)
    network.to(memory_format=torch.channels_last)
    photos, labels, num_train = list_photos(folder)
    transform = model.preprocessing.transform()
    rows: dict[str, list[Any]] = {name: [] for name in PRECISIONS}
    seconds = dict.fromkeys(PRECISIONS, 0.0)
    for begin in range(0, len(photos), 32):
        views = [transform(decode(p, max_pixels=10**9)) for p in photos[begin : begin + 32]]
        images = model.preprocessing.normalize(torch.stack(views))
        for name, precision in PRECISIONS.items():
            started = time.thread_time()
            with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
                rows[name].append(network.head_inputs(images).to(precision).float())
            seconds[name] += time.thread_time() - started
    features = {name: torch.cat(parts).numpy() for name, parts in rows.items()}
    speed = {name: round(len(photos) / taken, 1) for name, taken in seconds.items()}
    return features, np.array(labels), num_train, speed


def list_photos(folder: Path) -> tuple[list[Path], list[int], int]:
    """List photos and labels, those of training first; give how many those are."""
    classes = sorted(path.name for path in (folder / "train").iterdir())
    photos: list[Path] = []
    labels: list[int] = []
    counts = []
    for part, most in MOST.items():
        for label, name in enumerate(classes):
            some = sorted((folder / part / name).iterdir())[:most]
            photos += some
            labels += [label] * len(some)
        counts.append(len(photos))
    return photos, labels, counts[0]


def scores(features: dict[str, Any], labels: Any, num_train: int, seed: int) -> dict[str, float]:
    """Part the photos anew, fit a head on features of each precision, and give the accuracies."""
    from finetune.train.linear import Features
    from finetune.train.probe import fit_probe

    order = np.random.default_rng(seed).permutation(len(labels))
    fit, held = order[:num_train], order[num_train:]
    found = {}
    for name, values in features.items():
        train, val = (Features(values[part], labels[part]) for part in (fit, held))
        model = fit_probe(train, val, num_classes=labels.max() + 1).model
        probs = model.probabilities(features["fp32"][held])
        found[name] = float((probs.argmax(axis=1) == labels[held]).mean())
    return found


if __name__ == "__main__":
    sys.exit(main())
