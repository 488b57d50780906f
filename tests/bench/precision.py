"""What `finetune predict --precision bf16` changes and gains, beside fp32, on real photos.

    FINETUNE_ASSETS=… python tests/bench/precision.py --out docs/benchmarks/precision.json

A probe is trained on each set; then all photos of the set are predicted in fp32 and in bf16, in
turn, as whole processes. The share of answers that differ is of the photos of validation and test,
which were not trained on; seconds are of all photos, the median of some rounds.
"""

import argparse
import csv
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import record
from process import run_watched

SETS = ("textures", "trash", "flowers", "cifar10-mini")
PRECISIONS = ("fp32", "bf16")


def main() -> int:
    """Measure each set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--backbone", default="mobilenetv2_100.in1k")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    assets = Path(os.environ["FINETUNE_ASSETS"]).resolve()
    rows = []
    for name in given.sets:
        with tempfile.TemporaryDirectory() as temporary:
            rows.append(measure(assets, name, given, Path(temporary)))
        print(json.dumps(rows[-1]), flush=True)
    document = {
        "title": "Predictions in bf16",
        "command": "python tests/bench/precision.py --out docs/benchmarks/precision.json",
        "commit": record.commit(),
        "device": record.device(),
        "versions": record.versions("torch", "timm"),
        "backbone": given.backbone,
        "rounds": given.rounds,
        "notes": [
            f"{given.backbone}, its head fitted by the probe",
            "num_changed of num_samples held-out photos have another answer in bf16",
            "seconds of the whole process for num_photos, medians of rounds in turn",
        ],
        "rows": rows,
    }
    if given.out:
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(assets: Path, name: str, given: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Train a probe on a set, and predict its photos in both precisions."""
    data, run = assets / "datasets" / name, work / "run"
    start = [sys.executable, "-m", "finetune"]
    environment = {**os.environ, "FINETUNE_CACHE": str(work / "cache")}
    words = ["run", "--quiet", "--recipe", "probe", "--data", str(data), "--out", str(run)]
    words += ["--backbone", f"local-dir:{assets / 'weights' / given.backbone}"]
    run_watched([*start, *words], environment, work)
    seconds: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for _ in range(given.rounds):
        for precision in PRECISIONS:
            out = work / f"{precision}.csv"
            words = ["predict", str(run), str(data), "--precision", precision, "--out", str(out)]
            seconds[precision].append(run_watched([*start, *words], environment, work).wall_seconds)
    held_out = held_out_paths(run, data)
    fp32, bf16 = (read_answers(work / f"{precision}.csv") for precision in PRECISIONS)
    pairs = [(fp32[path], bf16[path]) for path in held_out]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "data": name,
        "num_photos": len(fp32),
        "num_samples": len(pairs),
        "num_changed": sum(one["predicted"] != other["predicted"] for one, other in pairs),
        "mean_probability_difference": statistics.fmean(map(difference, pairs)),
        "max_probability_difference": max(map(difference, pairs)),
        **{f"{precision}_seconds": round(value, 2) for precision, value in medians.items()},
        "times_faster": round(medians["fp32"] / medians["bf16"], 3),
    }


def held_out_paths(run: Path, data: Path) -> list[str]:
    """List the photos that were not trained on."""
    with (run / "split.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [str(data / row["path"]) for row in rows if row["split"] in ("val", "test")]


def read_answers(path: Path) -> dict[str, dict[str, str]]:
    """Read the rows of a prediction, by path."""
    with path.open(encoding="utf-8", newline="") as stream:
        return {row["path"]: row for row in csv.DictReader(stream)}


def difference(pair: tuple[dict[str, str], dict[str, str]]) -> float:
    """Give the largest difference of a probability between two answers."""
    one, other = pair
    return max(abs(float(one[name]) - float(other[name])) for name in one if name[:2] == "p_")


if __name__ == "__main__":
    sys.exit(main())
