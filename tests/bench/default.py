"""The default recipe on sets of real photos, its probe and training from scratch beside it.

    FINETUNE_ASSETS=… python tests/bench/default.py --out docs/benchmarks/default.json

Each row is one `finetune run` as a whole process. A run whose row stands in the file already is not
made again, so that a long measurement can be taken up where it ended.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import record

PER_CLASS = 120  # of flowers, 600 training images in all; later benchmarks use the same
SETS = ("food-leaky", "textures", "trash", "flowers-600", "cifar10-mini", "flowers")
RECIPES = ("probe", "default", "from-scratch")


def main() -> int:
    """Measure what the file lacks, and write it after each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/default.json"))
    parser.add_argument("--backbone", default="mobilenetv2_100.in1k")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--scratch-epochs", type=int, help="as many as fine-tuning where absent")
    given = parser.parse_args()
    assets = Path(os.environ["FINETUNE_ASSETS"]).resolve()
    rows = json.loads(given.out.read_text())["rows"] if given.out.is_file() else []
    jobs = [(d, r, s) for r in given.recipes for d in given.sets for s in given.seeds]
    known = {(row["data"], row["recipe"], row["seed"]) for row in rows}
    for data, recipe, seed in jobs:
        if (data, recipe, seed) in known:
            continue
        print(f"{data}, {recipe}, seed {seed}", flush=True)
        epochs = None
        if recipe == "from-scratch":
            epochs = given.scratch_epochs or epochs_of_default(rows, data)
        rows.append(measure(assets, given.backbone, data, recipe, seed, epochs))
        given.out.write_text(json.dumps(document(rows, given.backbone), indent=1) + "\n")
        print(json.dumps(rows[-1]), flush=True)
    return 0


def measure(
    assets: Path, backbone: str, data: str, recipe: str, seed: int, epochs: int | None
) -> dict[str, Any]:
    """Make one run as a whole process, and give its row."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, out = Path(temporary) / data, Path(temporary) / "run"
        source = (
            flowers_600(assets, folder) if data == "flowers-600" else assets / "datasets" / data
        )
        command = [sys.executable, "-m", "finetune", "run", "--quiet", "--recipe", recipe]
        command += ["--data", str(source), "--out", str(out), "--seed", str(seed)]
        command += ["--backbone", f"local-dir:{assets / 'weights' / backbone}"]
        if epochs is not None:
            command += ["--set", f"stages.0.epochs={epochs}"]
        subprocess.run(command, check=True)
        return row_of(json.loads((out / "metrics.json").read_text()), out, data, recipe, seed)


def row_of(metrics: dict[str, Any], out: Path, data: str, recipe: str, seed: int) -> dict[str, Any]:
    """Take from a run what the table shows: the test part where there is one, else validation."""
    split = "test" if metrics["splits"]["test"] else "val"
    figures = metrics["splits"][split]
    with (out / "split.csv").open(encoding="utf-8") as stream:
        num_train = sum(",train," in line for line in stream)
    with (out / "history.csv").open(encoding="utf-8") as stream:
        epochs = sum(line.startswith("full,") for line in stream)
    probe = metrics["probe"] or {}
    return {
        "data": data,
        "recipe": recipe,
        "seed": seed,
        "num_classes": len(metrics["classes"]),
        "num_train": num_train,
        "split": split,
        "num_samples": figures["num_samples"],
        "num_leaked": figures["num_leaked"],
        "accuracy": figures["accuracy"],
        "accuracy_interval": figures["accuracy_interval"],
        "macro_f1": figures["macro_f1"],
        "macro_f1_interval": figures["macro_f1_interval"],
        "val_accuracy": metrics["splits"]["val"]["accuracy"],
        "probe_val_accuracy": probe.get("val_accuracy"),
        "probe_seconds": probe.get("seconds"),
        "epochs": epochs,
        "seconds": metrics["seconds"]["total"],
        "peak_memory_mib": metrics["peak_memory_mib"],
        "precision": json.loads((out / "environment.json").read_text())["precision"],
    }


def epochs_of_default(rows: list[dict[str, Any]], data: str) -> int:
    """Give training from scratch as many epochs as fine-tuning had."""
    return next(r["epochs"] for r in rows if r["data"] == data and r["recipe"] == "default")


def flowers_600(assets: Path, folder: Path) -> Path:
    """Copy a fixed subset of flowers: of each class the photos of least content digest."""
    source = assets / "datasets" / "flowers"
    shutil.copytree(source / "val", folder / "val")
    for place in sorted((source / "train").iterdir()):
        (folder / "train" / place.name).mkdir(parents=True)
        for photo in sorted(place.iterdir(), key=_digest)[:PER_CLASS]:
            shutil.copyfile(photo, folder / "train" / place.name / photo.name)
    return folder


def _digest(photo: Path) -> str:
    """Order photos by content, whatever their names."""
    return hashlib.blake2b(photo.read_bytes(), digest_size=16).hexdigest()


def document(rows: list[dict[str, Any]], backbone: str) -> dict[str, Any]:
    """Say what was measured on what."""
    return {
        "title": "The default recipe on real photos",
        "command": "python tests/bench/default.py --out docs/benchmarks/default.json",
        "commit": record.commit(),
        "device": record.device(),
        "versions": record.versions("torch", "timm", "albumentations", "pillow", "scikit-learn"),
        "backbone": backbone,
        "notes": [
            "flowers-600: of each class of flowers the 120 training photos of least content digest",
            "epochs: passes over the training images by gradient; a probe has none",
            "a set without a test part shows validation, which chose the weights",
            "num_leaked: images of the part measured whose bytes are also in train",
        ],
        "rows": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
