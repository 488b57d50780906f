"""What the defaults follow: BatchNorm policy, layer decay, LoRA, learning rate, stored views.

    FINETUNE_ASSETS=… python tests/bench/tuning.py --out docs/benchmarks/tuning.json

Each run is the default recipe, probe then everything, with one thing changed, at a smaller image
and for fewer epochs so that many fit into an hour. What is compared is validation accuracy after
the last epoch of training by gradient (`last`) and at its best epoch (`best`), the probe aside,
over three seeds on three sets. Runs that the file has already are not made again.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import record

IMAGE_SIZE = 128
EPOCHS = 6
SETS = ("textures", "trash", "flowers-600")
# One thing changed at a time against the first.
VARIANTS: dict[str, dict[str, Any]] = {
    "batch_norm: frozen": {},
    "batch_norm: trained": {"batch_norm": "trained"},
    "layer_decay: 0.9": {"layer_decay": 0.9},
    "layer_decay: 0.75": {"layer_decay": 0.75},
    "lora: {rank: 8}, lr: 1e-3": {"train": {"lora": {"rank": 8}}, "lr": 1e-3},
    "lr: 1e-3": {"lr": 1e-3},
    "lr: 1e-3, batch_norm: trained": {"lr": 1e-3, "batch_norm": "trained"},
    # What it costs or gains to draw the images of frozen layers from so many views.
    **{
        f"train: {{last: 2}}, lr: 5e-4, views: {views}": {
            "train": {"last": 2},
            "lr": 5e-4,
            "views": views,
        }
        for views in (0, 1, 2, 4)
    },
    "train: {last: 2}, lr: 5e-4, views: 1, manifold_mixup: 0.4": {
        "train": {"last": 2},
        "lr": 5e-4,
        "views": 1,
        "training": {"manifold_mixup": 0.4},
    },
}
BASE = {"train": "all", "lr": 1e-4, "layer_decay": 1.0, "batch_norm": "frozen"}


def main() -> int:
    """Make the runs that the file lacks, and write it after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/tuning.json"))
    parser.add_argument("--backbone", default="mobilenetv2_100.in1k")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--merge", nargs="+", type=Path, help="files of other processes to take in")
    given = parser.parse_args()
    rows = json.loads(given.out.read_text())["rows"] if given.out.is_file() else []
    for file in given.merge or ():
        rows += json.loads(file.read_text())["rows"]
    if given.merge:
        write(given.out, rows, given.backbone)
        return 0
    known = {(row["data"], row["variant"], row["seed"]) for row in rows}
    jobs = [(s, v, d) for s in given.seeds for v in given.variants for d in given.sets]
    for seed, variant, data in jobs:
        if (data, variant, seed) not in known:
            rows.append(measure(given.backbone, data, variant, seed))
            write(given.out, rows, given.backbone)
            print(json.dumps(rows[-1]), flush=True)
    return 0


def measure(backbone: str, data: str, variant: str, seed: int) -> dict[str, Any]:
    """Make one run in this process, and give its row."""
    from default import flowers_600

    from finetune.pipeline import run
    from finetune.recipe.load import load_recipe

    assets = Path(os.environ["FINETUNE_ASSETS"]).resolve()
    stage = {"name": "full", "epochs": EPOCHS, **BASE, **VARIANTS[variant]}
    training = stage.pop("training", {})
    with tempfile.TemporaryDirectory() as temporary:
        folder = assets / "datasets" / data
        if data == "flowers-600":
            folder = flowers_600(assets, Path(temporary) / data)
        recipe = load_recipe("default").model_copy(update={"seed": seed}).model_dump()
        recipe["data"]["path"] = str(folder)
        recipe["model"] |= {
            "backbone": f"local-dir:{assets / 'weights' / backbone}",
            "image_size": IMAGE_SIZE,
        }
        recipe["training"] |= training
        recipe["stages"] = [recipe["stages"][0], stage]
        done = run(load_recipe(recipe), out=Path(temporary) / "run")
        history = (done.folder / "history.csv").read_text(encoding="utf-8").splitlines()
        metrics = json.loads((done.folder / "metrics.json").read_text(encoding="utf-8"))
    names = history[0].split(",")
    epochs = [dict(zip(names, line.split(","), strict=True)) for line in history[1:]]
    accuracies = [float(row["val_accuracy"]) for row in epochs if row["stage"] == "full"]
    return {
        "data": data,
        "variant": variant,
        "seed": seed,
        "num_samples": metrics["splits"]["val"]["num_samples"],
        "probe": metrics["probe"]["val_accuracy"],
        "last": accuracies[-1],
        "best": max(accuracies),
        "seconds": metrics["seconds"]["stages"]["full"],
    }


def write(out: Path, rows: list[dict[str, Any]], backbone: str) -> None:
    """Write the rows and what they were measured on."""
    document = {
        "title": "What the defaults follow",
        "command": "python tests/bench/tuning.py --out docs/benchmarks/tuning.json",
        "commit": record.commit(),
        "device": record.device(),
        "versions": record.versions("torch", "timm", "albumentations"),
        "backbone": backbone,
        "notes": [
            f"probe, then everything by AdamW at 1e-4 for {EPOCHS} epochs at {IMAGE_SIZE} px, "
            "batch statistics frozen, no layer decay; one thing changed at a time",
            "with train: {last: 2} the first of those is views: 0, fresh augmentation in each "
            "epoch",
            "last, best: validation accuracy after the last epoch and at the best one, the probe "
            "aside",
        ],
        "rows": rows,
    }
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
