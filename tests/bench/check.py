"""What `finetune check` finds of faults that are planted, what else it names, and what it costs.

    FINETUNE_ASSETS=… python tests/bench/check.py --out docs/benchmarks/check.json

Photos are copied into a folder of their own, and faults are planted there: copies, changed copies,
cut files, wrong labels. Thresholds were chosen on the training part of `textures`; here is what
they find among other photos. A run of some sets or parts keeps the other rows.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import record
from changes import LIKE, ONE_PICTURE, save
from check_speed import NUM_ROUNDS, NUM_TIMED, measure_speed
from PIL import Image

from finetune.components.pixels import MAX_PIXELS
from finetune.data.check import Examined, examine_images
from finetune.data.findings import find_problems
from finetune.data.index import index_source
from finetune.evaluate.intervals import wilson
from finetune.evaluate.suspects import find_similar, find_suspect_labels
from finetune.model.create import create_model
from finetune.model.features import compute_features
from finetune.model.inference import InferenceOptions
from finetune.recipe.load import load_recipe
from finetune.recipe.merge import with_arguments
from finetune.train.linear import Features
from finetune.types import Sample

LIBRARIES = ("numpy", "pillow", "scikit-learn", "timm", "torch")
BACKBONE = "mobilenetv2_100.in1k"
PARTS = ("near", "cut", "labels", "similar", "speed")
# The part that is used of each set; of textures the part on which nothing was chosen.
SETS = {
    "textures, val": "textures/val",
    "trash": "trash",
    "food-leaky": "food-leaky",
    "flowers": "flowers",
    "cifar10-mini": "cifar10-mini",
}
LABELLED = ("trash", "food-leaky", "flowers", "cifar10-mini")
MOST_SOURCES = 300  # photos of a set that each change is made of
MOST_LABELLED = 1_500  # photos of a set whose labels are judged
MOST_LIKE = 100  # the same, of changes that only features shall find
NUM_CUT = 30
FLIPPED = 0.05
SEEDS = (0, 1, 2)

Row = dict[str, Any]


def main() -> int:
    """Measure what is asked for, and put it beside the rows that the file has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", choices=tuple(SETS), default=list(SETS))
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    assets = Path(os.environ["FINETUNE_ASSETS"]).resolve()
    before = json.loads(given.out.read_text()) if given.out.is_file() else {"rows": [], "speed": []}
    rows = {(row["data"], row["planted"]): row for row in before["rows"]}
    for name in given.sets:
        with tempfile.TemporaryDirectory() as temporary:
            for row in rows_of(name, assets, Path(temporary), given.parts):
                rows[name, row["planted"]] = row
                print(json.dumps(row), flush=True)
                write(given.out, rows, before["speed"])
    write(given.out, rows, measure_speed(assets) if "speed" in given.parts else before["speed"])
    return 0


def write(out: Path, rows: Mapping[tuple[str, str], Row], speed: list[Row]) -> None:
    """Write all rows in the order of the sets."""
    order = list(SETS)
    ordered = sorted(rows.values(), key=lambda row: order.index(row["data"]))
    out.write_text(json.dumps(document(ordered, speed), indent=1) + "\n")


def rows_of(name: str, assets: Path, work: Path, parts: Sequence[str]) -> Iterator[Row]:
    """Plant and find what is asked for in one set."""
    photos = source_photos(assets / "datasets" / SETS[name])
    if "near" in parts:
        yield from near_rows(name, photos, work / "near")
    if "cut" in parts:
        yield from cut_rows(name, photos, work / "cut")
    if "labels" in parts and name in LABELLED:
        yield from label_rows(name, photos, work / "labels", assets)
    if "similar" in parts and name in LABELLED:
        yield from similar_rows(name, photos, work / "similar", assets)


def source_photos(folder: Path) -> list[tuple[str, Path]]:
    """List the photos of a set, each content once, with their classes."""
    samples = examine_images(index_source(folder), max_pixels=MAX_PIXELS, workers=2).index.samples
    distinct = {sample.digest: (str(sample.label), sample.path) for sample in samples}
    return sorted(distinct.values())


def near_rows(name: str, photos: Sequence[tuple[str, Path]], folder: Path) -> Iterator[Row]:
    """Plant copies and changed copies of training photos in a test part."""
    rng = random.Random(0)
    chosen = rng.sample(range(len(photos)), min(MOST_SOURCES, len(photos)))
    for number, (label, path) in enumerate(photos):
        copy(path, folder / "train" / label / f"{number:05d}{path.suffix}")
    natural = joined_origins(examine(folder))
    for number in chosen:
        label, path = photos[number]
        copy(path, folder / "test" / label / f"{number:05d}-copy{path.suffix}")
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        for place, change in enumerate(ONE_PICTURE.values()):
            target = folder / "test" / label / f"{number:05d}-{place}.jpg"
            save(change(image, rng), target)
    examined = examine(folder)
    others = joined_origins(examined) - natural
    found = found_kinds(examined)
    train = {origin(sample.name): sample for sample in examined.index.part("train")}
    planted = {sample.name: sample for sample in examined.index.part("test")}
    copies = [one for one in planted if "-copy" in one]
    hits = sum(one in found.get("leak", ()) for one in copies)
    false = len(found.get("leak", set()) & (planted.keys() - set(copies)))
    yield row_of(name, "copies in another part", "leak", (hits, len(copies)), false)
    for place, words in enumerate(ONE_PICTURE):
        some = [one for one in planted if one.endswith(f"-{place}.jpg")]
        hits = sum(
            one in found.get("near_leak", ()) and planted[one].picture == train[origin(one)].picture
            for one in some
        )
        yield row_of(name, words, "near_leak", (hits, len(some)), len(others))
    yield {
        **row_of(name, "nothing: other photos of the set", "near_duplicate", None, len(others)),
        "num_natural": len(natural),
        "num_photos": len(examined.index.samples),
    }


def cut_rows(name: str, photos: Sequence[tuple[str, Path]], folder: Path) -> Iterator[Row]:
    """Cut some files off, and leave the others as they are."""
    rng = random.Random(1)
    chosen = set(rng.sample(range(len(photos)), min(NUM_CUT, len(photos) // 4)))
    for number, (label, path) in enumerate(photos):
        target = folder / label / f"{number:05d}{path.suffix}"
        copy(path, target)
        if number in chosen:
            content = path.read_bytes()
            target.write_bytes(content[: round(rng.uniform(0.3, 0.95) * len(content))])
    found = found_kinds(examine(folder))
    named = {origin(one) for kind in ("truncated", "unreadable") for one in found.get(kind, ())}
    hits = len(named & chosen)
    yield row_of(name, "cut off at 30 to 95 %", "truncated", (hits, len(chosen)), len(named) - hits)


def label_rows(
    name: str, photos: Sequence[tuple[str, Path]], folder: Path, assets: Path
) -> Iterator[Row]:
    """Give one photo in twenty another label, and let the features tell."""
    judged = random.Random(3).sample(photos, min(MOST_LABELLED, len(photos)))
    samples, features = featured(sorted(judged), folder, assets)
    classes = sorted({str(sample.label) for sample in samples})
    right = np.array([classes.index(str(sample.label)) for sample in samples])
    hits, planted, false, ranked = 0, 0, 0, 0
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        flipped = rng.random(len(right)) < FLIPPED
        labels = right.copy()
        moves = rng.integers(1, len(classes), flipped.sum())
        labels[flipped] = (labels[flipped] + moves) % len(classes)
        wrong = {sample.name for sample, is_wrong in zip(samples, flipped, strict=True) if is_wrong}
        found = find_suspect_labels(Features(features, labels), samples, classes)
        named = [finding.names[0] for finding in found]
        hits += len(wrong.intersection(named))
        planted += len(wrong)
        false += len(set(named) - wrong)
        ranked += len(wrong.intersection(named[: len(wrong)]))
    words = f"{FLIPPED:.0%} of the labels, {len(SEEDS)} seeds"
    row = row_of(name, words, "suspect_label", (hits, planted), false)
    yield {**row, "precision_of_first": ranked / planted}


def similar_rows(
    name: str, photos: Sequence[tuple[str, Path]], folder: Path, assets: Path
) -> Iterator[Row]:
    """Add photos that are changed beyond copying, and let the features tell."""
    rng = random.Random(2)
    chosen = rng.sample(list(photos), min(MOST_LIKE, len(photos)))
    for place, change in enumerate([None, *LIKE.values()]):
        for number, (label, path) in enumerate(chosen):
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            target = folder / "changed" / label / f"{number:05d}-{place}.jpg"
            save(image if change is None else change(image, rng), target)
    samples, features = featured(
        [(path.parent.name, path) for path in sorted((folder / "changed").rglob("*.jpg"))],
        folder / "copied",
        assets,
    )
    # Each is compared with its original alone among all other photos, near-duplicates included.
    apart = [replace(sample, picture=sample.name) for sample in samples]
    kinds = [path_kind(sample.name) for sample in samples]
    for place, words in enumerate(LIKE, start=1):
        rows = [number for number, kind in enumerate(kinds) if kind in (0, place)]
        found = list(find_similar(features[rows], [apart[row] for row in rows]))
        groups = [{path_origin(one) for one in finding.names} for finding in found]
        hits = sum(len(group) == 1 for group in groups)
        false = sum(len(group) - 1 for group in groups)
        yield row_of(name, words, "similar", (hits, len(chosen)), false)


def featured(
    photos: Sequence[tuple[str, Path]], folder: Path, assets: Path
) -> tuple[tuple[Sample, ...], Any]:
    """Copy photos by class, and give their features."""
    for number, (label, path) in enumerate(photos):
        copy(path, folder / label / f"{number:05d}_{path.stem}{path.suffix}")
    backbone = f"local-dir:{assets / 'weights' / BACKBONE}"
    recipe = with_arguments(load_recipe("probe"), backbone=backbone)
    examined = examine(folder)
    model = create_model(recipe, num_classes=max(2, len(examined.index.classes)))
    samples = examined.index.samples
    features = compute_features(model, samples, label="bench", options=InferenceOptions())
    return samples, features


def examine(folder: Path) -> Examined:
    """Examine a folder with both cores."""
    return examine_images(index_source(folder), max_pixels=MAX_PIXELS, workers=2)


def found_kinds(examined: Examined) -> dict[str, set[str]]:
    """Give the names of files by kind of finding."""
    found: dict[str, set[str]] = {}
    for finding in find_problems(examined):
        found.setdefault(finding.kind, set()).update(finding.names)
    return found


def joined_origins(examined: Examined) -> set[tuple[int, int]]:
    """Give the pairs of different photos that are said to be one."""
    names = {str(sample.digest): origin(sample.name) for sample in examined.index.samples}
    pairs = {tuple(sorted(names[digest] for digest in pair.digests)) for pair in examined.near}
    return {(pair[0], pair[1]) for pair in pairs if pair[0] != pair[1]}


def origin(name: str) -> int:
    """Tell which photo a file was made of."""
    return int(Path(name).name[:5])


def path_kind(name: str) -> int:
    """Tell how a file of the second folder was changed."""
    return int(Path(name).stem.rpartition("-")[2])


def path_origin(name: str) -> str:
    """Tell which photo a file of the second folder was made of."""
    label, _, stem = name.rpartition("/")
    return f"{label}/{stem.partition('_')[2][:5]}"


def copy(path: Path, target: Path) -> None:
    """Copy a file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def row_of(
    data: str, planted: str, finding: str, hits: tuple[int, int] | None, num_others: int
) -> Row:
    """Gather a row: recall among what was planted, precision among what was named."""
    row: Row = {"data": data, "planted": planted, "finding": finding, "num_others": num_others}
    if hits is None:
        return {**row, "num_planted": 0, "num_found": 0, "recall": None, "precision": None}
    found, total = hits
    named = found + num_others
    return {
        **row,
        "num_planted": total,
        "num_found": found,
        "recall": found / total,
        "recall_interval": wilson(found, total),
        "precision": found / named if named else None,
    }


def document(rows: list[Row], speed: list[Row]) -> dict[str, Any]:
    """Say what was measured on what."""
    return {
        "title": "What the check finds",
        "command": "python tests/bench/check.py --out docs/benchmarks/check.json",
        "commit": record.commit(),
        "device": record.device(),
        "versions": record.versions(*LIBRARIES),
        "backbone": BACKBONE,
        "load_average": round(os.getloadavg()[0], 1),
        "notes": NOTES,
        "rows": rows,
        "speed": speed,
    }


NOTES = [
    "thresholds were chosen on the training part of textures and on scikit-learn's digits; nothing "
    "of what is shown here took part",
    f"of each set up to {MOST_SOURCES} photos, each content once, are copied and changed in every "
    "way, into a part test beside a part train that holds all photos of the set",
    "found: a planted file is named by this finding, and as the picture that it was made of",
    "others, of near_leak: pairs of different photos that are joined and were not before planting; "
    "the last row of a set counts the pairs that were (all looked at: edits, crops, bursts)",
    "others, of suspect_label: photos whose label was not planted; some are wrong all the same; of "
    f"up to {MOST_LABELLED:,} photos of a set, all seeds together",
    "precision of the first: among as many suspects as there are planted labels, likeliest first",
    f"similar: of up to {MOST_LIKE} photos, each once as it is and once changed, by features",
    "speed: decoding alone by two threads (pillow: as the loader of torchvision's ImageFolder; "
    "decode: as finetune does), and the look (decoding, digest, thumbnail), in turn, ten times, "
    f"files in memory; examine adds the search within {NUM_TIMED // NUM_ROUNDS}",
]

if __name__ == "__main__":
    sys.exit(main())
