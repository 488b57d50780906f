"""How the memory of a run grows with the number of images: the peak of N images and of ten times N.

    FINETUNE_ASSETS=… python tests/bench/memory.py --out docs/benchmarks/memory.json

Photos of noise, each another file, go through `finetune run` as a whole process; the memory is that
of all its processes, with pages of mapped files and without. What N and ten times N images take is
measured in turn, and the growth is given in bytes an image. What is meant to grow is the index, and
the thumbnails that near-duplicates are told by: what `finetune check` alone takes. Evaluation's
views are kept up to a budget (`data/kept.py`), and not at all where decoding is reduced.
"""

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import record
from PIL import Image
from process import Usage, run_watched

CLASSES = ("cloud", "leaf", "sand")
SIDE = 80  # pixels of a photo
# Options of a run by name: what is measured of each is its peak.
INDEX = "the index: finetune check alone"
CASES = {
    INDEX: [],
    "probe": ["--recipe", "probe", "--set", "data.decode=reduced"],
    "probe, views kept": ["--recipe", "probe"],
    "everything, one epoch": [
        *("--recipe", "default", "--set", "data.decode=reduced"),
        *("--set", "stages=[{name: all, train: all, epochs: 1}]"),
    ],
    "last group from stored activations, one epoch": [
        *("--recipe", "default", "--set", "data.decode=reduced"),
        *("--set", "stages=[{name: last, train: {last: 1}, epochs: 1, views: 1}]"),
    ],
}


def main() -> int:
    """Measure what the file lacks, and write it after each pair."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--backbone", default="mobilenetv2_100.in1k")
    parser.add_argument("--num-images", type=int, default=4_000, help="N")
    parser.add_argument("--image-size", type=int, default=64, help="of the input, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=list(CASES))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for name, count in (("few", given.num_images), ("many", 10 * given.num_images)):
            make_photos(work / name, count)
        rows = [measure(case, given, work) for case in given.cases]
    document = {
        "title": "Memory as the images grow in number",
        "command": "python tests/bench/memory.py --out docs/benchmarks/memory.json",
        "commit": record.commit(),
        "device": record.device(),
        "versions": record.versions("torch", "timm", "scikit-learn"),
        "backbone": given.backbone,
        "image_size": given.image_size,
        "rounds": given.rounds,
        "notes": [
            f"peak of all processes of a run over N and over ten times N photos of noise, "
            f"{given.image_size} px, medians of {given.rounds}; bytes_per_image: the growth",
            "own: without pages of mapped files, which the system takes back when it needs memory; "
            "of stored activations a run keeps no more than 256 MiB of them",
            "features of a probe stand in a mapped file where they are more than 32 MiB",
        ],
        "rows": rows,
    }
    text = json.dumps(document, indent=1) + "\n"
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


def measure(case: str, given: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Run one case with few and with many images, in turn."""
    peaks: dict[str, list[int]] = {"few": [], "many": []}
    own: dict[str, list[int]] = {"few": [], "many": []}
    for _ in range(given.rounds):
        for name in peaks:
            usage = run_of(case, work / name, given, work)
            peaks[name].append(usage.peak_memory_mib)
            own[name].append(usage.peak_own_mib or 0)
    few, many = (statistics.median(found) for found in peaks.values())
    few_own, many_own = (statistics.median(found) for found in own.values())
    return {
        "case": case,
        "num_images": given.num_images,
        "few_mib": few,
        "many_mib": many,
        "bytes_per_image": growth(few, many, given.num_images),
        "few_own_mib": few_own,
        "many_own_mib": many_own,
        "own_bytes_per_image": growth(few_own, many_own, given.num_images),
        "all_mib": peaks,
        "all_own_mib": own,
    }


def growth(few_mib: float, many_mib: float, num_images: int) -> int:
    """Give the bytes that each image more takes, between N and ten times N images."""
    return round((many_mib - few_mib) * 2**20 / (9 * num_images))


def run_of(case: str, photos: Path, given: argparse.Namespace, work: Path) -> Usage:
    """Do one run, and say what it took."""
    with tempfile.TemporaryDirectory(dir=work) as temporary:
        folder = Path(temporary)
        environment = {**os.environ, "FINETUNE_CACHE": str(folder / "cache")}
        command = [sys.executable, "-m", "finetune", *words_of(case, photos, folder, given)]
        return run_watched(command, environment, folder)


def words_of(case: str, photos: Path, folder: Path, given: argparse.Namespace) -> list[str]:
    """Give the command and its options."""
    if case == INDEX:
        return ["check", str(photos)]
    weights = Path(os.environ["FINETUNE_ASSETS"]).resolve() / "weights" / given.backbone
    words = ["run", "--quiet", *CASES[case], "--data", str(photos), "--out", str(folder / "run")]
    words += ["--backbone", f"local-dir:{weights}"]
    return [*words, "--set", f"model.image_size={given.image_size}"]


def make_photos(folder: Path, count: int) -> None:
    """Write small JPEGs of noise around a colour of the class, every tenth for validation."""
    draw = np.random.default_rng(count)
    for number in range(count):
        position = number % len(CLASSES)
        part = "val" if number % 10 == 9 else "train"
        place = folder / part / CLASSES[position]
        place.mkdir(parents=True, exist_ok=True)
        noise = draw.integers(0, 128, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
        noise[..., position] += 100
        stream = io.BytesIO()
        Image.fromarray(noise).resize((SIDE, SIDE)).save(stream, "JPEG")
        (place / f"{number}.jpg").write_bytes(stream.getvalue())


if __name__ == "__main__":
    sys.exit(main())
